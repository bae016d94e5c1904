//! Proposes a format string for lines that nobody configured: for people at a terminal, not for the pipeline.
//!
//! Called by `meshlens parse --infer`. Lines of text are cut at blanks, quotes and brackets; the most frequent sequence of
//! such parts is taken, and each part gets the operator that all its values suit. Numbers look alike: their order in Envoy's own formats
//! decides (bytes received, bytes sent, duration), and what is guessed is said. Lines of JSON are taken by their keys.
//!
//! The proposal is compiled and tried on every line before it is returned.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::envoy::Parser;
use crate::envoy::format::Options;
use crate::envoy::formats::Formats;
use crate::envoy::shape::{Shape, is_count, is_uuid};
use crate::record::{Kind, Record};

/// Lines beyond these are not looked at.
pub const LINES_MAX: usize = 10_000;

/// A line of more parts is none that a format printed.
const PARTS_MAX: usize = 64;

/// A proposed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The text format, or the JSON format.
    pub format: String,
    /// How many of the lines it reads.
    pub read: usize,
    /// How many lines were looked at.
    pub lines: usize,
    /// Operators that are guesses.
    pub guesses: Vec<String>,
}

/// Proposes a format; none if no two lines are alike.
pub fn infer(lines: &[&[u8]]) -> Option<Proposal> {
    let lines: Vec<&[u8]> = lines.iter().copied().filter(|line| !line.is_empty()).take(LINES_MAX).collect();
    let (format, guesses) =
        text_format(&lines).into_iter().chain(json_format(&lines)).max_by_key(|(format, _)| read(format, &lines))?;
    let read = read(&format, &lines);
    (read > 0).then_some(Proposal { format, read, lines: lines.len(), guesses })
}

/// How many lines a format reads.
fn read(format: &str, lines: &[&[u8]]) -> usize {
    let mut formats = Formats::default();
    if formats.add("proposal", format, &Options::default()).is_err() {
        return 0;
    }
    let mut parser = Parser::new(Arc::new(formats));
    let mut is_read = |line: &[u8]| {
        let mut record = Record::new();
        parser.parse(line, &mut record);
        record.kind == Kind::Access
    };
    lines.iter().filter(|line| is_read(line)).count()
}

/// A part of a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part<'a> {
    /// What stands between values.
    Border(&'a str),
    Bare(&'a str),
    Quoted(&'a str),
    Bracketed(&'a str),
}

fn text_format(lines: &[&[u8]]) -> Option<(String, Vec<String>)> {
    let cut: Vec<Vec<Part<'_>>> = lines
        .iter()
        .filter(|line| !line.starts_with(b"{"))
        .filter_map(|line| str::from_utf8(line).ok())
        .map(parts)
        .filter(|parts| parts.len() > 2 && parts.len() <= PARTS_MAX)
        .collect();
    let mut shapes: HashMap<String, usize> = HashMap::new();
    cut.iter().for_each(|parts| *shapes.entry(skeleton(parts)).or_default() += 1);
    let (best, _) = shapes.iter().max_by_key(|(shape, count)| (**count, shape.len(), shape.as_str()))?;
    let alike: Vec<&Vec<Part<'_>>> = cut.iter().filter(|parts| skeleton(parts) == *best).collect();
    let mut names = Names::default();
    let mut format = String::new();
    for (place, part) in alike.first()?.iter().enumerate() {
        let values: Vec<&str> = alike
            .iter()
            .map(|parts| match parts[place] {
                Part::Border(text) | Part::Bare(text) | Part::Quoted(text) | Part::Bracketed(text) => text,
            })
            .collect();
        // Writing to a String cannot fail.
        match part {
            Part::Border(text) => format.push_str(text),
            Part::Bare(_) => format.push_str(&names.bare(&values)),
            Part::Quoted(_) => write!(format, "\"{}\"", names.quoted(&values)).ok()?,
            Part::Bracketed(_) => write!(format, "[{}]", names.bare(&values)).ok()?,
        }
    }
    format.contains('%').then_some((format, names.guesses))
}

/// Cuts a line at blanks, quotes, and brackets around a word.
fn parts(line: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = line;
    while !rest.is_empty() && parts.len() <= PARTS_MAX {
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '|']).len();
        if blanks > 0 {
            parts.push(Part::Border(&rest[..blanks]));
            rest = &rest[blanks..];
            continue;
        }
        let enclosed = |close: char, rest: &str| {
            let end = rest[1..].find(close)? + 1;
            let behind = &rest[end + 1..];
            (behind.is_empty() || behind.starts_with([' ', '\t', '|'])).then_some(end)
        };
        if rest.starts_with('"')
            && let Some(end) = enclosed('"', rest)
        {
            parts.push(Part::Quoted(&rest[1..end]));
            rest = &rest[end + 1..];
        } else if rest.starts_with('[')
            && let Some(end) = enclosed(']', rest)
        {
            parts.push(Part::Bracketed(&rest[1..end]));
            rest = &rest[end + 1..];
        } else {
            let end = rest.find([' ', '\t', '|']).unwrap_or(rest.len());
            parts.push(Part::Bare(&rest[..end]));
            rest = &rest[end..];
        }
    }
    parts
}

/// What lines of one format have in common.
fn skeleton(parts: &[Part<'_>]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Border(border) => text.push_str(border),
            Part::Bare(_) => text.push('b'),
            Part::Quoted(value) => text.push(if is_request(value) { 'r' } else { 'q' }),
            Part::Bracketed(_) => text.push('['),
        }
    }
    text
}

fn is_request(text: &str) -> bool {
    let mut words = text.split(' ');
    let (method, protocol) = (words.next().unwrap_or_default(), words.next_back().unwrap_or_default());
    let is_method =
        Shape::Method.admits(method.as_bytes(), false) && method.bytes().all(|byte| !byte.is_ascii_lowercase());
    is_method && Shape::Protocol.admits(protocol.as_bytes(), false) && text.split(' ').count() >= 3
}

/// Operators given out so far.
#[derive(Default)]
struct Names {
    taken: Vec<String>,
    guesses: Vec<String>,
}

/// What numbers mean, by their order in Envoy's own formats.
const NUMBERS: [&str; 4] = ["BYTES_RECEIVED", "BYTES_SENT", "DURATION", "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)"];

/// What addresses mean, likewise.
const ADDRESSES: [&str; 4] =
    ["UPSTREAM_HOST", "UPSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS"];

impl Names {
    /// The operator for values that stand in quotes.
    fn quoted(&mut self, values: &[&str]) -> String {
        let all = |is: &dyn Fn(&str) -> bool| values.iter().all(|value| *value == "-" || is(value));
        let some = |is: &dyn Fn(&str) -> bool| values.iter().any(|value| is(value));
        if values.iter().all(|value| is_request(value)) {
            self.taken.extend(["REQ(:METHOD)", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", "PROTOCOL"].map(str::to_owned));
            return "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%".to_owned();
        }
        if some(&|value| is_uuid(value.as_bytes())) && all(&|value| is_uuid(value.as_bytes())) {
            return self.sure("REQ(X-REQUEST-ID)", "STREAM_ID");
        }
        if some(&|value| value != "-") && all(&|value| Shape::Address.admits(value.as_bytes(), false)) {
            return self.next(&ADDRESSES);
        }
        let is_list = |value: &str| value.split(", ").all(|each| Shape::Host.admits(each.as_bytes(), false));
        if !self.has("REQ(X-FORWARDED-FOR)") && all(&is_list) {
            return self.sure("REQ(X-FORWARDED-FOR)", "REQ(X-REAL-IP)");
        }
        if some(&|value| value.contains('/') && !value.starts_with('/')) && !self.has("REQ(USER-AGENT)") {
            return self.guess("REQ(USER-AGENT)");
        }
        if self.has("REQ(USER-AGENT)") && !self.has("REQ(:AUTHORITY)") && all(&|value| !value.contains([' ', '/'])) {
            return self.guess("REQ(:AUTHORITY)");
        }
        self.unknown()
    }

    /// The operator for values that stand between blanks or in brackets.
    fn bare(&mut self, values: &[&str]) -> String {
        let all = |shape: Shape| values.iter().all(|value| *value == "-" || shape.admits(value.as_bytes(), false));
        let is_absent = values.iter().all(|value| *value == "-");
        if !is_absent && all(Shape::Time) {
            return self.sure("START_TIME", "EMIT_TIME");
        }
        if !is_absent && all(Shape::Protocol) {
            return self.sure("PROTOCOL", "UPSTREAM_PROTOCOL");
        }
        let is_code =
            |value: &&str| value.len() == 3 && matches!(value.as_bytes()[0], b'1'..=b'5') && is_count(value.as_bytes());
        if !self.has("RESPONSE_CODE")
            && values.iter().all(|value| is_code(value) || *value == "0")
            && values.iter().any(is_code)
        {
            return self.sure("RESPONSE_CODE", "");
        }
        if !is_absent && all(Shape::Count) {
            return self.next(&NUMBERS);
        }
        if all(Shape::Flags) && self.has("RESPONSE_CODE") && !self.has("RESPONSE_FLAGS") {
            return self.guess("RESPONSE_FLAGS");
        }
        self.word(values, is_absent)
    }

    /// The operator for values that are no numbers.
    fn word(&mut self, values: &[&str], is_absent: bool) -> String {
        let all = |shape: Shape| values.iter().all(|value| *value == "-" || shape.admits(value.as_bytes(), false));
        let first = values.first().copied().unwrap_or_default();
        // The same in each line, and no method or path: not a value.
        let is_constant = values.len() > 1 && values.iter().all(|value| *value == first);
        if is_constant
            && !first.is_empty()
            && first.bytes().all(|byte| byte.is_ascii_lowercase() || b"_=:,".contains(&byte))
        {
            return first.to_owned();
        }
        let is_named = |value: &&str| value.starts_with(|first: char| first == '-' || first.is_ascii_uppercase());
        if !is_absent && all(Shape::GrpcStatus) && values.iter().all(is_named) {
            return self.guess("GRPC_STATUS()");
        }
        if values.iter().any(|value| value.starts_with('/')) && !self.has("REQ(X-ENVOY-ORIGINAL-PATH?:PATH)") {
            return self.guess("REQ(X-ENVOY-ORIGINAL-PATH?:PATH)");
        }
        if !is_absent && all(Shape::Address) {
            return self.next(&ADDRESSES);
        }
        let is_method = |value: &&str| value.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !self.has("REQ(:METHOD)") && !is_absent && all(Shape::Method) && values.iter().all(is_method) {
            return self.guess("REQ(:METHOD)");
        }
        if values.iter().any(|value| value.contains("bound|")) {
            return self.sure("UPSTREAM_CLUSTER", "ROUTE_NAME");
        }
        self.unknown()
    }

    fn has(&self, operator: &str) -> bool {
        self.taken.iter().any(|taken| taken == operator)
    }

    fn sure(&mut self, operator: &str, otherwise: &str) -> String {
        let operator = [operator, otherwise].into_iter().find(|operator| !operator.is_empty() && !self.has(operator));
        match operator {
            Some(operator) => {
                self.taken.push(operator.to_owned());
                format!("%{operator}%")
            }
            None => self.unknown(),
        }
    }

    fn guess(&mut self, operator: &str) -> String {
        self.guesses.push(operator.to_owned());
        self.sure(operator, "")
    }

    fn next(&mut self, operators: &[&str]) -> String {
        match operators.iter().find(|operator| !self.has(operator)) {
            Some(operator) => self.guess(operator),
            None => self.unknown(),
        }
    }

    /// A header that nobody sends, so that the place has a name.
    fn unknown(&mut self) -> String {
        let number = 1 + self.taken.iter().filter(|taken| taken.starts_with("REQ(X-UNKNOWN-")).count();
        self.guess(&format!("REQ(X-UNKNOWN-{number})"))
    }
}

/// Keys that say which operator printed them.
const JSON_KEYS: [(&str, &str); 27] = [
    ("start_time", "START_TIME"),
    ("@timestamp", "START_TIME"),
    ("timestamp", "START_TIME"),
    ("time", "START_TIME"),
    ("ts", "START_TIME"),
    ("method", "REQ(:METHOD)"),
    ("path", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)"),
    ("uri", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)"),
    ("url", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)"),
    ("protocol", "PROTOCOL"),
    ("response_code", "RESPONSE_CODE"),
    ("status", "RESPONSE_CODE"),
    ("code", "RESPONSE_CODE"),
    ("response_flags", "RESPONSE_FLAGS"),
    ("flags", "RESPONSE_FLAGS"),
    ("bytes_received", "BYTES_RECEIVED"),
    ("bytes_sent", "BYTES_SENT"),
    ("duration", "DURATION"),
    ("duration_ms", "DURATION"),
    ("upstream_service_time", "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)"),
    ("x_forwarded_for", "REQ(X-FORWARDED-FOR)"),
    ("forwarded_for", "REQ(X-FORWARDED-FOR)"),
    ("user_agent", "REQ(USER-AGENT)"),
    ("request_id", "REQ(X-REQUEST-ID)"),
    ("authority", "REQ(:AUTHORITY)"),
    ("upstream_host", "UPSTREAM_HOST"),
    ("upstream_cluster", "UPSTREAM_CLUSTER"),
];

fn json_format(lines: &[&[u8]]) -> Option<(String, Vec<String>)> {
    let objects: Vec<BTreeMap<String, Json>> = lines
        .iter()
        .filter(|line| line.starts_with(b"{"))
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let mut shapes: HashMap<Vec<&str>, usize> = HashMap::new();
    for object in &objects {
        *shapes.entry(object.keys().map(String::as_str).collect()).or_default() += 1;
    }
    let (keys, _) = shapes.into_iter().max_by_key(|(keys, count)| (*count, keys.len(), keys.clone()))?;
    let mut guesses = Vec::new();
    let mut format = serde_json::Map::new();
    for key in keys {
        let plain = key.trim_start_matches([':', '@']).to_ascii_lowercase().replace('-', "_");
        let known = JSON_KEYS.iter().find(|(name, _)| *name == key || *name == plain).map(|(_, operator)| *operator);
        let same = objects.iter().filter_map(|object| object.get(key)).collect::<Vec<_>>();
        let is_constant = same.len() > 1 && same.iter().all(|value| *value == same[0]) && !same[0].is_null();
        let value = match known {
            Some(operator) => Json::from(format!("%{operator}%")),
            None if is_constant => same[0].clone(),
            None => {
                let operator = format!(
                    "REQ(X-{})",
                    plain.replace(|each: char| !each.is_ascii_alphanumeric(), "-").to_ascii_uppercase()
                );
                guesses.push(operator.clone());
                Json::from(format!("%{operator}%"))
            }
        };
        format.insert(key.to_owned(), value);
    }
    Some((Json::Object(format).to_string(), guesses))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(lines: &[&str]) -> Proposal {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        infer(&lines).unwrap()
    }

    #[test]
    fn envoy_s_default_is_found_again() {
        let lines = [
            r#"[2026-11-22T02:36:32.784Z] "GET /x?a=1 HTTP/1.1" 200 - 0 11 1 1 "-" "curl/8.11" "3b1c4ac6-3a1e-4a8f-8a07-3c2b6a5a3c11" "app:80" "1.2.3.4:80""#,
            r#"[2026-11-22T02:36:33.784Z] "POST /y HTTP/2" 503 UF 10 0 3 - "10.0.0.1" "Mozilla/5.0 (X11)" "3b1c4ac6-3a1e-4a8f-8a07-3c2b6a5a3c12" "app" "1.2.3.5:80""#,
            "some other line",
        ];
        let found = proposal(&lines);
        assert_eq!(found.format, crate::envoy::presets::LAYOUTS[4].1);
        assert_eq!((found.read, found.lines), (2, 3));
    }

    #[test]
    fn custom_text_gets_a_format_that_reads_it() {
        let lines = [
            "ingress 2026-11-22T02:36:32.784Z GET /a 200 17 acme",
            "ingress 2026-11-22T02:36:33.784Z POST /b 404 3 globex",
        ];
        let found = proposal(&lines);
        assert_eq!(
            found.format,
            "ingress %START_TIME% %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% %BYTES_RECEIVED% %REQ(X-UNKNOWN-1)%"
        );
        assert_eq!(found.read, 2);
        assert_eq!(
            found.guesses,
            ["REQ(:METHOD)", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", "BYTES_RECEIVED", "REQ(X-UNKNOWN-1)"]
        );
    }

    #[test]
    fn json_gets_a_format_by_its_keys() {
        let lines = [
            r#"{"ts":"2026-11-22T02:36:32.784Z","status":200,"tenant":"a","app":"shop"}"#,
            r#"{"ts":"2026-11-22T02:36:33.784Z","status":500,"tenant":"b","app":"shop"}"#,
        ];
        let found = proposal(&lines);
        assert_eq!(
            found.format,
            r#"{"app":"shop","status":"%RESPONSE_CODE%","tenant":"%REQ(X-TENANT)%","ts":"%START_TIME%"}"#
        );
        assert_eq!((found.read, found.guesses), (2, vec!["REQ(X-TENANT)".to_owned()]));
    }

    #[test]
    fn nothing_is_proposed_for_nothing() {
        assert_eq!(infer(&[]), None);
        assert_eq!(infer(&[b"", b"\xff\xfe"]), None);
    }
}
