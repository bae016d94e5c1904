//! Dead letters: records that a destination refused, or that were given up, as lines of JSON that meshlens reads again.
//!
//! ```text
//! {"meshlens_dead_letter":1,"sink":"logs","reason":"too_old","time":"2026-11-22T02:36:32.784Z","tag":"app-firelens-1","record":{…}}
//! ```
//!
//! `record` is the line as every sink gets it: parsed, redacted, enriched. Around it stands what a line of JSON alone does not
//! tell: the time of the event, by which services sort and reject it, and the tag, by which it was routed and named. Sinks write
//! this ([`write()`]); the `lines` source and `meshlens parse` read it ([`read`]). Read again, a letter is that very record: its
//! fields are not parsed, not put into a `log` field, and not given a second `log_type`; only redaction looks at them again.
//!
//! What only looks like a letter is no letter, and goes the way of every other line.

use crate::envoy::scan::{Scanner, Token};
use crate::record::json::{escape, unescape};
use crate::record::{Field, Key, Kind, Name, Record, Value};
use crate::timestamp::{parse_rfc3339_ns, write_rfc3339};

/// How every letter begins; the number is the version of the format.
pub const PREFIX: &[u8] = b"{\"meshlens_dead_letter\":1,";

/// What stands before the record, which is the last member. Quotes within texts are escaped, so that no text holds this.
const RECORD: &[u8] = b",\"record\":";

const NANOS_PER_MILLI: i64 = 1_000_000;

/// What a letter says beside the record.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The sink that could not deliver it.
    pub sink: &'a str,
    /// Why: the label of a reason.
    pub reason: &'a str,
    /// Event time in nanoseconds since 1970 UTC.
    pub time_ns: i64,
    /// The tag it came with.
    pub tag: &'a str,
}

/// Appends a letter about `line`, which is a JSON object as encoded, with or without its newline.
pub fn write(head: &Head<'_>, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(b"\"sink\":\"");
    escape(head.sink.as_bytes(), out);
    out.extend_from_slice(b"\",\"reason\":\"");
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    // As short as what came: most senders know milliseconds.
    let is_finer = head.time_ns.rem_euclid(NANOS_PER_MILLI) != 0;
    write_rfc3339(head.time_ns, if is_finer { 9 } else { 3 }, out);
    out.extend_from_slice(b"\",\"tag\":\"");
    escape(head.tag.as_bytes(), out);
    out.push(b'"');
    out.extend_from_slice(RECORD);
    out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
    out.extend_from_slice(b"}\n");
}

/// Reads a letter into `record`, which is empty: its fields as parsed ones, its time, and its kind for redaction to go by. The
/// tag goes to `tag`. None, with the record empty, if the line is no letter.
///
/// After redaction the kind is to be [`Kind::Other`]: the record has its `log_type` among its fields.
pub fn read<'a>(line: &'a [u8], record: &mut Record<'a>, tag: &mut Vec<u8>) -> Option<()> {
    // What nearly every line of any other program ends at.
    if !line.starts_with(PREFIX) {
        return None;
    }
    let time_ns = record.time_ns;
    let read = read_letter(line, record, tag);
    if read.is_none() {
        record.clear();
        record.time_ns = time_ns;
    }
    read
}

fn read_letter<'a>(line: &'a [u8], record: &mut Record<'a>, tag: &mut Vec<u8>) -> Option<()> {
    let text = str::from_utf8(line).ok()?.trim_ascii_end();
    let inside = text.strip_suffix('}')?;
    let at = memchr::memmem::find(inside.as_bytes(), RECORD)?;
    record.time_ns = read_head(inside.get(..at)?, tag)?;
    let mut scanner = Scanner::new(inside.get(at + RECORD.len()..)?);
    scanner.open()?;
    while let Some((name, token)) = scanner.member(record.parsed.is_empty())? {
        let value = match token {
            Token::String(text) => Value::Json(text),
            Token::Number(text) => Value::Number(text),
            Token::Nested(text) => Value::JsonValue(text),
            Token::Bool(truth) => Value::Bool(truth),
            Token::Null => Value::Null,
        };
        record.parsed.push(Field { name: Name::json(name), value });
    }
    record.kind = match record.get(Key::LogType) {
        Some(Value::Json(b"access")) => Kind::Access,
        Some(Value::Json(b"envoy")) => Kind::Envoy,
        _ => Kind::Other,
    };
    Some(())
}

/// The time of the event, in nanoseconds; the tag goes to `tag`.
fn read_head(head: &str, tag: &mut Vec<u8>) -> Option<i64> {
    let mut scanner = Scanner::new(head);
    scanner.open()?;
    scanner.member(true)??;
    let mut time_ns = None;
    for name in [&b"sink"[..], b"reason", b"time", b"tag"] {
        let (found, Token::String(text)) = scanner.member(false)?? else { return None };
        match found {
            b"time" => time_ns = Some(parse_rfc3339_ns(text)?),
            b"tag" => {
                tag.clear();
                unescape(text, tag);
            }
            _ => {}
        }
        if found != name {
            return None;
        }
    }
    time_ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::{Fragment, encode};

    fn letter(line: &[u8], tag: &str, time_ns: i64) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Head { sink: "logs", reason: "too_old", time_ns, tag }, line, &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    /// The record as it is written again, with its time and tag.
    fn again(letter: &[u8]) -> Option<(String, i64, String)> {
        let (mut record, mut tag, mut out) = (Record::new(), Vec::new(), Vec::new());
        record.time_ns = 7;
        if read(letter, &mut record, &mut tag).is_none() {
            assert!(record.parsed.is_empty() && record.kind == Kind::Other && record.time_ns == 7);
            return None;
        }
        record.kind = Kind::Other;
        encode(&record, &Fragment::default(), &mut out);
        Some((String::from_utf8(out).unwrap(), record.time_ns, String::from_utf8(tag).unwrap()))
    }

    #[test]
    fn a_letter_is_one_line_of_json_as_documented() {
        let text = String::from_utf8(letter(b"{\"log\":\"x\"}\n", "app-\"1\"", 1_795_314_992_784_000_000)).unwrap();
        assert_eq!(
            text,
            r#"{"meshlens_dead_letter":1,"sink":"logs","reason":"too_old","time":"2026-11-22T02:36:32.784Z","tag":"app-\"1\"","record":{"log":"x"}}"#
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn kinds_are_known_again_for_redaction() {
        for (line, kind) in [
            (r#"{"path":"/","log_type":"access"}"#, Kind::Access),
            (r#"{"log":"x","log_type":"envoy"}"#, Kind::Envoy),
            (r#"{"log":"x"}"#, Kind::Other),
        ] {
            let text = letter(line.as_bytes(), "", 0);
            let mut record = Record::new();
            read(&text, &mut record, &mut Vec::new()).unwrap();
            assert_eq!(record.kind, kind);
        }
    }

    #[test]
    fn what_only_looks_like_a_letter_is_none() {
        let whole = String::from_utf8(letter(br#"{"log":"x","n":{"a":[1,null]}}"#, "t", 5)).unwrap();
        assert!(again(whole.as_bytes()).is_some());
        assert!(again(format!("{whole} \r").as_bytes()).is_some());
        for end in 0..whole.len() {
            assert!(again(&whole.as_bytes()[..end]).is_none(), "{}", &whole[..end]);
        }
        for (from, to) in [
            ("letter\":1", "letter\":2"),
            ("\"sink\"", "\"sync\""),
            ("\"time\":\"1970", "\"time\":\"then "),
            ("\"tag\":\"t\"", "\"tag\":1"),
            ("\"record\":{", "\"record\":[{"),
            ("null", "nil"),
        ] {
            let odd = whole.replace(from, to);
            assert!(odd != whole && again(odd.as_bytes()).is_none(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_letter_gives_its_record_again_byte_for_byte(
            members in proptest::collection::btree_map("[a-z_\"é\\\\]{1,8}|log|log_type|record", any::<String>(), 0..8),
            number in any::<f64>(),
            tag in "\\PC{0,12}|,\"record\":[{]",
            time_ns in -9_000_000_000_000_000_000_i64..9_000_000_000_000_000_000, whole: bool,
        ) {
            let time_ns = if whole { time_ns / NANOS_PER_MILLI * NANOS_PER_MILLI } else { time_ns };
            let mut object: serde_json::Map<String, serde_json::Value> =
                members.into_iter().map(|(name, text)| (name, text.into())).collect();
            object.insert("nested".into(), serde_json::json!({ ",\"record\":": [number, true, null, -1] }));
            let line = format!("{}\n", serde_json::Value::from(object));
            let expected = (line.clone(), time_ns, tag.clone());
            prop_assert_eq!(again(&letter(line.as_bytes(), &tag, time_ns)), Some(expected));
        }

        #[test]
        fn any_line_is_read_without_harm(end in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = again(&[PREFIX, &end].concat());
        }
    }
}
