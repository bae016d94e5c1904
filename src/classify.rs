//! What a line is, by its first bytes only: a user agent further right may imitate anything.
//!
//! Called once a line by the Envoy parser. [`class_of`] is total: every byte string has a class, and a class is a promise
//! about the line's start, not about its rest: [`Class::AccessText`] may still fit no layout and then passes on as it is.
//!
//! ```text
//! {…                                            JsonObject
//! [2026-11-22T02:36:32.784Z] …                  AccessText          `ACCESS ` before it (Emissary) is skipped
//! [2026-11-22 02:36:32.784][7768][info]…        EnvoyApplication    default --log-format
//! [2026-11-22 02:36:32.784][1][info] [AppNet Agent] …  Agent        its formatter imitates Envoy's
//! time="…" level=info msg="Envoy Environment Variables: […]"  Agent before it has set that formatter
//! 2026-11-22T02:36:32.784Z<TAB>info<TAB>envoy http<TAB>…  EnvoyApplication   as Istio formats it; also blanks for tabs
//! 2026-11-22T02:36:32.784Z<TAB>info<TAB>xdsproxy<TAB>…    Agent              Istio's
//! I1122 02:36:32.784 15 envoy/server.cc:404] …            EnvoyApplication   as Google's log, which Envoy's manual has for GKE
//! [source/server/server.cc:404] …                         EnvoyApplication   of a format that has nothing before the place
//! cluster.app.upstream_cx_total: 5                        EnvoyApplication   what the admin interface prints (`admin`)
//! ```
//!
//! What is around a line (a time of Kubernetes, the name of a container) is none of its start: `envoy::wrapper` takes it off.

mod admin;

use memchr::{memchr, memchr2, memmem};

use crate::timestamp::{parse_envoy_log_ns, parse_rfc3339_ns};

/// A time of any precision is not longer than this, in bytes.
const TIME_BYTES_MAX: usize = 40;

/// A thread or process number is not longer than this, in digits.
const THREAD_DIGITS_MAX: usize = 20;

/// The longest level, `critical`, and some room for those of others, in bytes.
const LEVEL_BYTES_MAX: usize = 10;

/// What the agent writes while logrus still has its own formatter: dumps of the environment, which may hold secrets.
const AGENT_DUMPS: [&[u8]; 3] =
    [b"Envoy Environment Variables: [", b"App Mesh Environment Variables: [", b"Agent Environment Variables: ["];

/// The name of a source file with its line is not longer than this, in bytes.
const PLACE_BYTES_MAX: usize = 200;

/// What Istio's agent says without a scope that is its own.
const ISTIO_AGENT_SAYS: [&[u8]; 2] = [b"Envoy proxy is ready", b"Envoy proxy is NOT ready"];

/// The class of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<'a> {
    /// Begins as a JSON object: an access log, an event of outlier detection, or an application's own.
    JsonObject,
    /// Begins as an access log in text.
    AccessText {
        /// The line from the `[` on.
        line: &'a [u8],
        /// The time in the brackets, in nanoseconds since 1970 UTC.
        start_ns: i64,
    },
    /// A line of Envoy's own log.
    EnvoyApplication {
        /// As the line spells it; empty if it names none.
        level: &'a [u8],
    },
    /// A line of the agent that runs Envoy in a Service Connect or App Mesh container.
    Agent {
        /// As the line spells it.
        level: &'a [u8],
    },
    /// Anything else, among it the second and further lines of a multi-line record.
    Other,
}

/// The class of a line, which comes without its newline.
pub fn class_of(line: &[u8]) -> Class<'_> {
    match line.first() {
        Some(b'{') => Class::JsonObject,
        Some(b'[') => bracketed(line),
        Some(b'A') => match line.strip_prefix(b"ACCESS ") {
            Some(rest) if rest.first() == Some(&b'[') => match bracketed(rest) {
                access @ Class::AccessText { .. } => access,
                _ => Class::Other,
            },
            _ => Class::Other,
        },
        Some(b't') if line.starts_with(b"time=\"") => agent_dump(line).unwrap_or(Class::Other),
        Some(digit) if digit.is_ascii_digit() => istio_application(line).unwrap_or(Class::Other),
        Some(b'T' | b'D' | b'I' | b'W' | b'E' | b'C') => google_application(line).unwrap_or(Class::Other),
        Some(b' ' | b'\t') if line.trim_ascii_start().first() == Some(&b'{') => Class::JsonObject,
        _ if admin::is_line(line) => Class::EnvoyApplication { level: b"" },
        _ => Class::Other,
    }
}

/// Whether a text names a line of one of Envoy's source files: `source/server/server.cc:404`.
pub fn is_source_place(text: &[u8]) -> bool {
    // Where Envoy's sources lie, as its log names them.
    let root: &[u8] = match text.first() {
        Some(b's') => b"source/",
        Some(b'.') => b"./source/",
        Some(b'e') => b"external/envoy/",
        Some(b'b') => b"bazel-out/",
        Some(b'c') => b"contrib/",
        _ => return false,
    };
    if text.len() > PLACE_BYTES_MAX || !text.starts_with(root) {
        return false;
    }
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let file = text[..text.len() - digits].strip_suffix(b":").filter(|_| digits > 0).unwrap_or(text);
    file.ends_with(b".cc") || file.ends_with(b".h")
}

fn bracketed(line: &[u8]) -> Class<'_> {
    if line.get(1).is_some_and(|byte| !byte.is_ascii_digit()) {
        let end = memchr(b']', &line[..line.len().min(PLACE_BYTES_MAX)]).unwrap_or(1);
        let is_place = is_source_place(&line[1..end]) && line.get(end + 1) == Some(&b' ');
        return if is_place { Class::EnvoyApplication { level: b"" } } else { Class::Other };
    }
    let Some(end) = memchr(b']', &line[..line.len().min(TIME_BYTES_MAX)]) else { return Class::Other };
    let (time, rest) = (&line[1..end], &line[end + 1..]);
    if time.get(10) == Some(&b'T') {
        return match parse_rfc3339_ns(time) {
            Some(start_ns) if rest.first() == Some(&b' ') => Class::AccessText { line, start_ns },
            _ => Class::Other,
        };
    }
    if parse_envoy_log_ns(time).is_none() {
        return Class::Other;
    }
    let Some((_thread, rest)) = bracket(rest, THREAD_DIGITS_MAX, u8::is_ascii_digit) else { return Class::Other };
    let Some((level, rest)) = bracket(rest, LEVEL_BYTES_MAX, u8::is_ascii_lowercase) else { return Class::Other };
    if rest.starts_with(b" [AppNet Agent] ") { Class::Agent { level } } else { Class::EnvoyApplication { level } }
}

/// `[…]` of one to `bytes_max` bytes of one kind, and what follows it.
fn bracket(text: &[u8], bytes_max: usize, allowed: fn(&u8) -> bool) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"[")?;
    let length = text.iter().take_while(|byte| allowed(byte)).count();
    let closed = text.get(length) == Some(&b']');
    if closed && (1..=bytes_max).contains(&length) { Some((&text[..length], &text[length + 1..])) } else { None }
}

fn agent_dump(line: &[u8]) -> Option<Class<'_>> {
    let rest = line.strip_prefix(b"time=\"")?;
    let end = memchr(b'"', &rest[..rest.len().min(TIME_BYTES_MAX)])?;
    parse_rfc3339_ns(&rest[..end])?;
    let rest = rest[end..].strip_prefix(b"\" level=")?;
    let level = word(rest)?;
    let message = rest[level.len()..].strip_prefix(b" msg=\"")?;
    AGENT_DUMPS.iter().any(|dump| message.starts_with(dump)).then_some(Class::Agent { level })
}

/// `time level envoy scope …`, with tabs between; or with blanks, as tools that copy logs make of them, and then two behind
/// the scope: a sentence has one.
fn istio_application(line: &[u8]) -> Option<Class<'_>> {
    let end = memchr2(b'\t', b' ', &line[..line.len().min(TIME_BYTES_MAX)])?;
    parse_rfc3339_ns(&line[..end])?;
    let rest = line[end..].trim_ascii_start();
    let level = word(rest)?;
    let behind = rest[level.len()..].trim_ascii_start();
    let is_tabbed = line[end] == b'\t' && rest.get(level.len()) == Some(&b'\t');
    if is_tabbed
        && (behind.starts_with(b"xdsproxy\t") || ISTIO_AGENT_SAYS.iter().any(|saying| behind.starts_with(saying)))
    {
        return Some(Class::Agent { level });
    }
    let scope = behind.strip_prefix(b"envoy ")?;
    let is_column = || {
        let length = scope.iter().position(u8::is_ascii_whitespace)?;
        (length > 0 && (scope[length..].starts_with(b"\t") || scope[length..].starts_with(b"  "))).then_some(())
    };
    (is_tabbed || is_column().is_some()).then_some(Class::EnvoyApplication { level })
}

/// `I1122 02:36:32.784 15 envoy/server.cc:404] …`: other programs write such lines too, so one must say that it is Envoy's.
fn google_application(line: &[u8]) -> Option<Class<'_>> {
    let is_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    let level: &[u8] = match line.first()? {
        b'T' => b"trace",
        b'D' => b"debug",
        b'I' => b"info",
        b'W' => b"warning",
        b'E' => b"error",
        _ => b"critical",
    };
    let (date, rest) = line.get(1..)?.split_at_checked(4)?;
    let (time, rest) = rest.strip_prefix(b" ")?.split_at_checked(8)?;
    let is_time = is_digits(&time[..2]) && time[2] == b':' && is_digits(&time[3..5]) && time[5] == b':';
    if !is_digits(date) || !is_time || !is_digits(&time[6..]) {
        return None;
    }
    let rest = &rest[..rest.len().min(PLACE_BYTES_MAX)];
    let place = &rest[..memmem::find(rest, b"] ").or_else(|| memmem::find(rest, b"]["))?];
    let place = place.rsplit(|byte| *byte == b' ').next()?;
    let is_envoys = place == b"envoy" || place.starts_with(b"envoy/") || is_source_place(place);
    is_envoys.then_some(Class::EnvoyApplication { level })
}

fn word(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    if (1..=LEVEL_BYTES_MAX).contains(&length) { Some(&text[..length]) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class(line: &str) -> Class<'_> {
        class_of(line.as_bytes())
    }

    #[test]
    fn access_text_has_a_t_in_its_time_and_a_blank_behind() {
        let line = r#"[2026-11-22T02:36:32.784Z] "GET / HTTP/1.1" 200"#;
        let start_ns = 1_795_314_992_784_000_000;
        assert_eq!(class(line), Class::AccessText { line: line.as_bytes(), start_ns });
        assert_eq!(class(&format!("ACCESS {line}")), Class::AccessText { line: line.as_bytes(), start_ns });
        assert_eq!(class("[2026-11-22T02:36:32.784Z]"), Class::Other);
        assert_eq!(class("[2026-11-22T02:36:32.784Z]x"), Class::Other);
        assert_eq!(class("[2026-11-22T25:36:32.784Z] x"), Class::Other);
        assert_eq!(class(" [2026-11-22T02:36:32.784Z] x"), Class::Other);
        assert_eq!(class("ACCESS [2026-11-22 02:31:33.634][7768][info] x"), Class::Other);
    }

    #[test]
    fn envoy_s_own_lines_and_the_agent_s() {
        let own = |level: &'static str| Class::EnvoyApplication { level: level.as_bytes() };
        let agent = |level: &'static str| Class::Agent { level: level.as_bytes() };
        assert_eq!(class("[2026-11-22 02:31:33.634][7768][info][main] [source/server/server.cc:404] x"), own("info"));
        assert_eq!(class("[2026-11-22 02:31:33.634][7768][warning] x"), own("warning"));
        assert_eq!(
            class("[2026-11-22 02:31:33.634][1][warning] [AppNet Agent] [Envoy process 19] x"),
            agent("warning")
        );
        assert_eq!(class("2020-08-14T11:35:02.046337Z\ttrace\tenvoy http\t[x.cc:1] y"), own("trace"));
        assert_eq!(class("2020-08-14T11:35:02.046337Z     trace   envoy http      [x.cc:1] y"), own("trace"));
        assert_eq!(
            class("2021-02-28T10:36:20.533517Z debug envoy pool  [C39] using existing connection"),
            own("debug")
        );
        assert_eq!(class("2021-02-28T10:36:20.533517Z debug envoy filter\tx"), own("debug"));
        let dump = r#"time="2023-08-15T08:04:18Z" level=info msg="Envoy Environment Variables: [ENVOY_X=1]""#;
        assert_eq!(class(dump), agent("info"));
    }

    #[test]
    fn other_formats_of_envoy_s_own_log() {
        let own = |level: &'static str| Class::EnvoyApplication { level: level.as_bytes() };
        let agent = |level: &'static str| Class::Agent { level: level.as_bytes() };
        for (line, expected) in [
            ("I0814 11:35:02.046 24 envoy/source/server/server.cc:404] [24][main]x", own("info")),
            ("W0814 11:35:02.046 24 envoy] [24][main]x", own("warning")),
            ("C0814 11:35:02.046 24 source/server/server.cc:404] [24][main]x", own("critical")),
            ("[source/common/protobuf/message_validator_impl.cc:21] Deprecated field: x", own("")),
            ("[./source/server/backtrace.h:127] Caught Aborted", own("")),
            ("2024-08-07T09:34:15.747426Z\tinfo\tEnvoy proxy is ready", agent("info")),
            ("2022-04-26T13:18:45.676013Z\twarn\txdsproxy\tconnected", agent("warn")),
            (
                "2023-02-28T10:36:20.575312Z\tdebug\tenvoy http external/envoy/source/common/http/conn_manager_impl.cc:329\t[C1] new stream\tthread=24",
                own("debug"),
            ),
            ("cluster.app.upstream_cx_total: 5", own("")),
        ] {
            assert_eq!(class(line), expected, "{line}");
        }
    }

    #[test]
    fn what_others_write() {
        let lines = [
            "",
            "plain",
            "[info] x",
            "[2026-11-22 02:31:33.634] [7768] [info] x",
            "[2026-11-22 02:31:33.634][main][info] x",
            "[2026-11-22 02:31:33.634][7768][INFO] x",
            "[2026-11-22 02:31:33.634][][info] x",
            "[2026-11-22 02:31:33.634",
            r#"time="2023-08-15T08:04:18Z" level=info msg="Envoy is nice""#,
            r#"time="2023-08-15T08:04:18Z" level=info msg="listening""#,
            "2022-04-26T13:18:45.676013Z\tinfo\tserver\tconnected",
            "2022-04-26T13:18:45.676013Z info xdsproxy connected",
            "I0814 11:35:02.046337       1 server.go:12] Envoy is up",
            "I0814 11:35:02.046337 1 envoyage.go:12] up",
            "Info: envoy] x",
            "E",
            "[source/main.cc:1]",
            "[source/main.py:1] x",
            "[src/main.cc:1] x",
            "time for envoy",
            "2022-04-26T13:18:45.676013Z info envoy is ready  now",
            "2022-04-26T13:18:45.676013Z info envoy ready",
            "2022-04-26T13:18:45.676013Z info envoy   ready",
            "2022-04-26T13:18:45.676013Z info",
            "':path', '/get?token=x'",
            "[]",
            "ACCESS granted",
        ];
        for line in lines {
            assert_eq!(class(line), Class::Other, "{line}");
        }
    }

    proptest! {
        #[test]
        fn every_line_has_a_class(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = class_of(&line);
        }

        #[test]
        fn every_cut_of_a_known_start_has_a_class(cut in 0usize..100) {
            for line in [
                &br#"[2026-11-22 02:31:33.634][7768][info][main] x time="2023-08-15T08:04:18Z" level=info"#[..],
                b"I0814 11:35:02.046 24 envoy/source/server/server.cc:404] [24][main]x",
                b"2022-04-26T13:18:45.676013Z\twarn\txdsproxy\tconnected",
                b"outbound|80||app::10.0.0.1:80::cx_active::0",
            ] {
                let cut = cut.min(line.len());
                let _ = (class_of(&line[..cut]), class_of(&line[line.len() - cut..]));
            }
        }
    }
}
