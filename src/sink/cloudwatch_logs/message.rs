//! The message of an event: the whole line, or one field's value, as a span of the line; and its cut to the service's limit.
//!
//! A JSON string's value is taken as it is escaped in the line: what is already escaped needs no second look when it is put
//! into the request's JSON. Its size then counts the escapes, which is never less than what the service counts.

use crate::record::scan;

/// A message as it stands in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// First byte, in the line.
    pub(super) start: usize,
    /// Number of bytes.
    pub(super) len: usize,
    /// The bytes are the inside of a JSON string: escaped already.
    pub(super) escaped: bool,
}

/// The message of a line without its newline: the value of the field named `key` (as it stands between quotes in JSON), or
/// all of it.
pub(super) fn message(line: &[u8], key: Option<&[u8]>) -> Message {
    let whole = Message { start: 0, len: line.len(), escaped: false };
    let Some(value) = key.and_then(|key| scan::member(line, key)) else { return whole };
    let start = value.start;
    match &line[value] {
        b"null" | b"\"\"" | b"" => whole,
        [b'"', inside @ .., b'"'] if has_odd_surrogate(inside) => whole,
        [b'"', inside @ .., b'"'] => Message { start: start + 1, len: inside.len(), escaped: true },
        value => Message { start, len: value.len(), escaped: false },
    }
}

/// Cuts a message to at most `bytes_max` bytes, at a character's and an escape's border.
pub(super) fn cut(text: &[u8], bytes_max: usize, escaped: bool) -> usize {
    if text.len() <= bytes_max {
        return text.len();
    }
    let mut end = bytes_max;
    while end > 0 && text[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    if escaped { whole_escapes(text, end) } else { end }
}

/// The greatest border of an escape (a surrogate pair being one) that is not beyond `end`.
fn whole_escapes(text: &[u8], end: usize) -> usize {
    let mut at = 0;
    while let Some(backslash) = memchr::memchr(b'\\', &text[at..end]).map(|found| at + found) {
        let next = backslash + escape_len(&text[backslash..]);
        if next > end {
            return backslash;
        }
        at = next;
    }
    end
}

/// Length of the escape at the start of `text`; 12 for a surrogate pair.
fn escape_len(text: &[u8]) -> usize {
    match surrogate(text) {
        Some(Surrogate::High) if matches!(text.get(6..).and_then(surrogate), Some(Surrogate::Low)) => 12,
        _ if text.get(1) == Some(&b'u') => 6,
        _ => 2,
    }
}

enum Surrogate {
    High,
    Low,
}

/// Whether `text` begins with `\uD8..`-`\uDF..`.
fn surrogate(text: &[u8]) -> Option<Surrogate> {
    match text {
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..] => Some(Surrogate::High),
        [b'\\', b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..] => Some(Surrogate::Low),
        _ => None,
    }
}

/// Whether half a surrogate pair stands alone: no character, which a strict reader refuses with the whole request.
fn has_odd_surrogate(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(backslash) = memchr::memchr(b'\\', &text[at..]).map(|found| at + found) {
        let escape = &text[backslash..];
        let len = escape_len(escape);
        if surrogate(escape).is_some() && len != 12 {
            return true;
        }
        at = (backslash + len).min(text.len());
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value<'a>(line: &'a str, key: &str) -> (&'a str, bool) {
        let found = message(line.as_bytes(), Some(key.as_bytes()));
        (&line[found.start..found.start + found.len], found.escaped)
    }

    #[test]
    fn takes_the_named_field_of_the_outer_object_only() {
        let line = r#"{"a":{"log":"inner","x":["}",{"log":1}]},"blog":"no","log":"a \"b\" \\","n":12}"#;
        assert_eq!(value(line, "log"), (r#"a \"b\" \\"#, true));
        assert_eq!(value(line, "n"), ("12", false));
        assert_eq!(value(line, "a"), (r#"{"log":"inner","x":["}",{"log":1}]}"#, false));
        assert_eq!(value(r#"{ "log" : true }"#, "log"), ("true", false));
    }

    #[test]
    fn sends_the_whole_line_where_there_is_no_value_to_send() {
        for line in [
            r#"{"a":1}"#,
            r#"{"log":null}"#,
            r#"{"log":""}"#,
            r#"{}"#,
            r#"["log"]"#,
            r#"{"log":"open"#,
            r#"{"log""#,
            r#"{"log":"\ud83d alone"}"#,
            r#"{"log":"\udc00"}"#,
            "",
        ] {
            assert_eq!(value(line, "log"), (line, false));
        }
    }

    #[test]
    fn cuts_at_characters_and_escapes() {
        assert_eq!(cut("aé".as_bytes(), 2, false), 1);
        assert_eq!(cut("aé".as_bytes(), 3, false), 3);
        assert_eq!(cut(r"ab\n".as_bytes(), 3, true), 2);
        assert_eq!(cut(r"ab\\".as_bytes(), 4, true), 4);
        assert_eq!(cut(r"\\\\".as_bytes(), 3, true), 2);
        for bytes_max in 0..12 {
            assert_eq!(cut(r"\ud83d\ude00x".as_bytes(), bytes_max, true), 0);
        }
        assert_eq!(cut(r"\ud83d\ude00x".as_bytes(), 12, true), 12);
        assert_eq!(cut(r"\u00e9x".as_bytes(), 5, true), 0);
    }

    proptest! {
        #[test]
        fn a_cut_value_is_a_prefix_of_the_value(text in "\\PC*|[\"\\\\\n😀é]{0,40}", bytes_max in 0usize..60, ascii: bool) {
            let mut json = serde_json::to_string(&text).unwrap();
            if ascii {
                // The same value with every character outside ASCII escaped.
                json = json.chars().map(|c| if c.is_ascii() { c.to_string() } else {
                    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }).collect();
            }
            let inside = &json.as_bytes()[1..json.len() - 1];
            let end = cut(inside, bytes_max, true);
            prop_assert!(end <= bytes_max);
            let shorter: String = serde_json::from_str(&format!("\"{}\"", std::str::from_utf8(&inside[..end]).unwrap())).unwrap();
            prop_assert!(text.starts_with(&shorter));
            let plain = cut(text.as_bytes(), bytes_max, false);
            prop_assert!(text.is_char_boundary(plain) && plain <= bytes_max && bytes_max.min(text.len()) - plain < 4);
        }

        #[test]
        fn any_bytes_give_a_span_within_the_line(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let found = message(&line, Some(b"a"));
            prop_assert!(found.start + found.len <= line.len());
        }

        #[test]
        fn the_field_is_the_one_serde_finds(log in ".*", other in ".*", number: i64, first: bool) {
            let object = if first {
                format!(r#"{{"log":{},"o":{},"n":{number}}}"#, serde_json::json!(log), serde_json::json!({"log": other}))
            } else {
                format!(r#"{{"o":{},"n":{number},"log":{}}}"#, serde_json::json!([other, {"log": 1}]), serde_json::json!(log))
            };
            let (text, escaped) = value(&object, "log");
            if log.is_empty() {
                prop_assert_eq!(text, &object);
            } else {
                prop_assert!(escaped);
                prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{text}\"")).unwrap(), log);
            }
        }
    }
}
