//! Makes JSON of objects that are none by their strings only.
//!
//! Called by [`super::json`] for a line that a strict reader refuses and a tolerant one takes. Envoy prints a string that is not
//! UTF-8 with an octal escape for each byte that is not plain (`\303\251`); formats that somebody put together in text leave
//! control characters and bytes as they came. Their bytes go into the record's scratch buffer as raw text, so redaction sees
//! what they say, and come out as any raw text does: kept where the whole is UTF-8, else each byte from 0x80 on as the
//! character of that number, as newer releases of Envoy write them.
//!
//! Cost: only such lines pay; one copy of each string that is not plain.

use memchr::memchr;

use crate::record::json::{escape, unescape};
use crate::record::{Name, Record, Span, Value};

/// Whether a line that was refused may be one for a tolerant reader.
pub fn may_help(line: &[u8]) -> bool {
    let is_octal = |at: usize| matches!(line.get(at + 1), Some(b'0'..=b'3'));
    line.iter().any(|byte| *byte < 0x20 || *byte >= 0x80)
        || memchr::memchr_iter(b'\\', line).any(|at| is_octal(at) || line.get(at + 1) == Some(&b'u'))
}

/// Mends what was put into `record.parsed` from that place on.
pub fn fields(record: &mut Record<'_>, from: usize) {
    let Record { parsed, scratch, .. } = record;
    for field in parsed.iter_mut().skip(from) {
        if let Name::Json(inside) = field.name
            && !is_plain(inside)
        {
            field.name = Name::Scratch(written(scratch, |out| resolve(inside, out)));
        }
        match field.value {
            Value::Json(inside) if !is_plain(inside) => {
                field.value = Value::Scratch(written(scratch, |out| resolve(inside, out)));
            }
            Value::JsonValue(nested) if !is_plain(nested) => {
                field.value = Value::ScratchJson(written(scratch, |out| rewrite(nested, out)));
            }
            _ => {}
        }
    }
}

/// Printable ASCII without escapes: the same in any reading.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, 0x20..0x7f) && *byte != b'\\')
}

fn written(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Span {
    let start = scratch.len();
    write(scratch);
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: place(start), end: place(scratch.len()) }
}

/// Appends what the inside of a string says, octal escapes too.
fn resolve(mut inside: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr(b'\\', inside) {
        out.extend_from_slice(&inside[..at]);
        let rest = &inside[at..];
        let length = match rest {
            [_, high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] => {
                out.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                inside = &rest[4..];
                continue;
            }
            // Both halves of a pair at once.
            [_, b'u', ..] if rest.get(6..8) == Some(b"\\u") => 12,
            [_, b'u', ..] => 6,
            _ => 2,
        };
        // A second escape that is no half is left for the next turn.
        let (escape, _) = rest.split_at(length.min(rest.len()));
        let before = out.len();
        unescape(escape, out);
        let taken = if length == 12 && out.len() - before != 4 { 6 } else { length };
        if taken != length {
            out.truncate(before);
            unescape(&rest[..6], out);
        }
        inside = rest.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(inside);
}

/// Appends a nested value with its strings mended; its structure was read and is sound.
fn rewrite(nested: &[u8], out: &mut Vec<u8>) {
    let mut text = Vec::new();
    let mut rest = nested;
    while let Some(open) = memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=open]);
        rest = &rest[open + 1..];
        let close = end_of_string(rest);
        text.clear();
        resolve(&rest[..close], &mut text);
        escape(&text, out);
        out.push(b'"');
        rest = rest.get(close + 1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

fn end_of_string(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(distance) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += distance;
        if text[at] == b'"' {
            return at;
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envoy::scan::Scanner;

    fn resolved(inside: &str) -> Vec<u8> {
        let mut out = Vec::new();
        resolve(inside.as_bytes(), &mut out);
        out
    }

    #[test]
    fn octal_escapes_are_bytes() {
        assert_eq!(resolved(r"/caf\303\251\042\n"), "/café\"\n".as_bytes());
        assert_eq!(resolved(r"\377\400\8"), b"\xff\\400\\8");
        assert_eq!(resolved(r"\ud83d\ude00\ud83d\u0041\ud83d"), "😀\u{fffd}A\u{fffd}".as_bytes());
        assert_eq!(resolved(r"\u00e9\303"), b"\xc3\xa9\xc3");
        assert_eq!(resolved(r"\"), b"\\");
    }

    proptest! {
        #[test]
        fn nested_values_come_out_as_json(
            strings in proptest::collection::vec(proptest::collection::vec(prop_oneof![
                prop::sample::select(vec![&b"\\303"[..], b"\\\"", b"\\\\", b"\\ud800", b"\\u00e9", b"\xff", b"\t", b"a", b"?", b"\\042"])
            ], 0..6), 1..4),
        ) {
            let mut nested = b"{\"k\":[".to_vec();
            for (place, string) in strings.iter().enumerate() {
                let comma: &[u8] = if place > 0 { b"," } else { b"" };
                nested = [&nested, comma, &b"\""[..], &string.concat(), &b"\""[..]].concat();
            }
            nested.extend_from_slice(b"]}");
            prop_assert!(Scanner::tolerant(&nested).open().is_some());
            let mut out = Vec::new();
            rewrite(&nested, &mut out);
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read["k"].as_array().unwrap().len(), strings.len());
        }

        #[test]
        fn strings_of_json_resolve_as_json(text in any::<String>()) {
            let inside = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(resolved(&inside[1..inside.len() - 1]), text.into_bytes());
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            resolve(&bytes, &mut out);
            rewrite(&bytes, &mut out);
        }
    }
}
