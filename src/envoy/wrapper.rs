//! What stands around a line when a container's runtime or a tool has copied it: taken off by the first bytes only.
//!
//! ```text
//! 2026-11-22T02:36:32.784034460Z stdout F line     the files of a Kubernetes node (CRI); `P` for a piece of a longer line
//! 2026-11-22T02:36:32.784034460Z line              kubectl logs --timestamps
//! envoy-1  | line                                  docker compose, with and without colours; `envoy_1` of older releases
//! ```
//!
//! Called once for a line that is nothing known as it stands, and again for what it holds, so that wrappers nest. A line that
//! is known pays nothing. Whoever calls decides by the inner line whether this was a wrapper: text of an application that
//! looks like one stays as it is.
//!
//! What the wrapper says goes into the record where the record does not say it already: the stream as `source`, which is what
//! Docker's log driver calls it, the container as `container_name`. Its time is the record's, unless the line has one of its own,
//! and is not kept besides: it says when the runtime read the line.

use memchr::{memchr, memmem};

use crate::record::{Field, Key, Name, Record, Value};
use crate::timestamp::parse_rfc3339_ns;

/// A time with nanoseconds and an offset is not longer than this, in bytes.
const TIME_BYTES_MAX: usize = 40;

/// A container's name is not longer than this, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A sequence that sets a colour is not longer than this, in bytes.
const COLOUR_BYTES_MAX: usize = 16;

/// A line with what was around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrapped<'a> {
    /// The line.
    pub line: &'a [u8],
    /// When the runtime read it, in nanoseconds since 1970 UTC.
    pub time_ns: Option<i64>,
    /// `stdout` or `stderr`.
    pub source: Option<&'a [u8]>,
    /// The container.
    pub container: Option<&'a [u8]>,
    /// A piece of a longer line.
    pub is_piece: bool,
}

impl<'a> Wrapped<'a> {
    /// Adds to a record what the wrapper says and the record does not.
    pub fn keep(&self, record: &mut Record<'a>) {
        for (key, value) in [(Key::Source, self.source), (Key::ContainerName, self.container)] {
            if let Some(text) = value {
                add(record, key, Value::Text(text));
            }
        }
    }
}

/// Adds a field that says where a line came from, unless the line or the sender has said the same.
pub(super) fn add<'a>(record: &mut Record<'a>, key: Key, value: Value<'a>) {
    let said = record.get(key).and_then(|said| record.bytes_of(said));
    let is_parsed = record.parsed.iter().any(|field| field.name == Name::Known(key));
    if !is_parsed && (said.is_none() || said != record.bytes_of(&value)) {
        record.parsed.push(Field { name: Name::Known(key), value });
    }
}

/// Takes one wrapper off.
pub fn take_off(line: &[u8]) -> Option<Wrapped<'_>> {
    match line.first()? {
        b'0'..=b'9' => stamped(line).or_else(|| composed(line)),
        b'a'..=b'z' | b'A'..=b'Z' | b'\x1b' => composed(line),
        _ => None,
    }
}

/// Takes off all there are, and says where the line begins.
pub fn inner(mut line: &[u8]) -> &[u8] {
    while let Some(wrapped) = take_off(line) {
        line = wrapped.line;
    }
    line
}

fn stamped(line: &[u8]) -> Option<Wrapped<'_>> {
    let end = memchr(b' ', &line[..line.len().min(TIME_BYTES_MAX)])?;
    let time_ns = Some(parse_rfc3339_ns(&line[..end])?);
    let rest = &line[end + 1..];
    let plain = Wrapped { line: rest, time_ns, ..Wrapped::default() };
    Some(stream(plain).unwrap_or(plain))
}

/// What stands in `stdout F line`.
fn stream(stamped: Wrapped<'_>) -> Option<Wrapped<'_>> {
    let (source, rest) = stamped.line.split_at_checked(6)?;
    if source != b"stdout" && source != b"stderr" {
        return None;
    }
    let is_piece = match rest {
        [b' ', b'F', ..] => false,
        [b' ', b'P', ..] => true,
        _ => return None,
    };
    // Tags are joined by colons; the first is the one that says it.
    let rest = &rest[2..];
    let line = match rest.first() {
        None => rest,
        Some(b' ') => &rest[1..],
        Some(b':') => &rest[memchr(b' ', rest)? + 1..],
        Some(_) => return None,
    };
    Some(Wrapped { line, source: Some(source), is_piece, ..stamped })
}

/// Whether the line could be a piece of a longer one, though not its last; cheap.
#[inline]
pub fn may_be_piece(line: &[u8]) -> bool {
    begins_with_time(line) && memmem::find(&line[..line.len().min(TIME_BYTES_MAX + 10)], b" P").is_some()
}

/// Whether the line could begin with a time; cheaper.
#[inline]
pub fn begins_with_time(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_digit) && line.get(10) == Some(&b'T')
}

/// Where the piece mark of a line of a Kubernetes node stands, and where its text begins.
pub fn piece(line: &[u8]) -> Option<(usize, usize)> {
    let wrapped = stamped(line).filter(|wrapped| wrapped.source.is_some())?;
    let text = line.len() - wrapped.line.len();
    let time = memchr(b' ', line)?;
    Some((time + 1 + 6 + 1, text))
}

fn composed(line: &[u8]) -> Option<Wrapped<'_>> {
    let rest = uncoloured(line);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let length = rest.iter().take(NAME_BYTES_MAX).take_while(|byte| is_name(byte)).count();
    let (name, rest) = rest.split_at(length);
    let blanks = rest.iter().take(NAME_BYTES_MAX).take_while(|byte| **byte == b' ').count();
    let rest = rest[blanks..].strip_prefix(b"|")?;
    if name.is_empty() || blanks == 0 {
        return None;
    }
    // The colour ends before the blank (older releases) or behind it.
    let rest = uncoloured(rest);
    let rest = if rest.is_empty() { rest } else { uncoloured(rest.strip_prefix(b" ")?) };
    Some(Wrapped { line: rest, container: Some(name), ..Wrapped::default() })
}

/// The text behind a sequence that sets or ends a colour.
fn uncoloured(text: &[u8]) -> &[u8] {
    let Some(rest) = text.strip_prefix(b"\x1b[") else { return text };
    match memchr(b'm', &rest[..rest.len().min(COLOUR_BYTES_MAX)]) {
        Some(end) if rest[..end].iter().all(|byte| byte.is_ascii_digit() || *byte == b';') => &rest[end + 1..],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inner_of(line: &str) -> Option<(&str, Option<&str>, Option<&str>, bool)> {
        let text = |bytes| str::from_utf8(bytes).unwrap();
        let found = take_off(line.as_bytes())?;
        Some((text(found.line), found.source.map(text), found.container.map(text), found.is_piece))
    }

    #[test]
    fn wrappers_are_known_by_their_start() {
        let time = "2025-12-31T17:37:40.493035218+01:00";
        for (line, expected) in [
            (format!("{time} stdout F line"), ("line", Some("stdout"), None, false)),
            (format!("{time} stderr F:tag  line"), (" line", Some("stderr"), None, false)),
            (format!("{time} stdout P half"), ("half", Some("stdout"), None, true)),
            (format!("{time} stdout F "), ("", Some("stdout"), None, false)),
            (format!("{time} stdout F"), ("", Some("stdout"), None, false)),
            (format!("{time} stdout X"), ("stdout X", None, None, false)),
            (format!("{time} line"), ("line", None, None, false)),
            ("2025-01-30T12:10:13.682034460Z line".into(), ("line", None, None, false)),
            ("envoy-1  | line".into(), ("line", None, Some("envoy-1"), false)),
            ("envoy_1 |".into(), ("", None, Some("envoy_1"), false)),
            ("\x1b[36menvoy_1  |\x1b[0m line".into(), ("line", None, Some("envoy_1"), false)),
            ("\x1b[1;36menvoy-1  | \x1b[0mline".into(), ("line", None, Some("envoy-1"), false)),
            ("2025-envoy-1 | line".into(), ("line", None, Some("2025-envoy-1"), false)),
        ] {
            assert_eq!(inner_of(&line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_is_none() {
        for line in [
            "",
            " | line",
            "| line",
            "envoy-1| line",
            "envoy-1  |line",
            "two words | line",
            "2025-01-30T12:10:13.682034460Z",
            "2025-01-30T25:10:13Z line",
            "\x1b[31mred\x1b[0m",
            "[2026-11-22T02:36:32.784Z] x",
        ] {
            assert_eq!(inner_of(line), None, "{line}");
        }
    }

    #[test]
    fn a_piece_says_where_its_mark_and_its_text_are() {
        let line = b"2025-01-30T12:10:13.682034460Z stderr P:x half";
        let (mark, text) = piece(line).unwrap();
        assert_eq!((line[mark], &line[text..]), (b'P', &b"half"[..]));
        assert_eq!(piece(b"2025-01-30T12:10:13.682034460Z half"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            start in prop::sample::select(vec!["", "2025-01-30T12:10:13.682034460Z ", "2025-01-30T12:10:13Z stdout ", "\x1b[", "a-1  |", "a |\x1b["]),
            rest in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let line = [start.as_bytes(), &rest].concat();
            if let Some(found) = take_off(&line) {
                prop_assert!(line.ends_with(found.line) && found.line.len() < line.len());
            }
            if let Some((mark, text)) = piece(&line) {
                prop_assert!(mark < text && text <= line.len() && matches!(line[mark], b'F' | b'P'));
            }
            let _ = inner(&line);
        }
    }
}
