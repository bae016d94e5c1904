//! The inside of a JSON string: raw bytes to escapes and back.
//!
//! Called for every textual value of every record, so runs without a special byte are found 32 bytes at a time and copied
//! whole. Bytes that are not UTF-8 become the characters U+0080 to U+00FF, each byte one character, as Envoy's own JSON
//! formatter writes header values of ISO 8859-1.

const LANES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = LANES * 0x80;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as the inside of a JSON string, without the quotes.
///
/// A value that is UTF-8 as a whole is kept, and only `"`, `\` and control characters are escaped. In any other value each
/// byte from 0x80 on becomes the character of that number.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    let plain = plain_prefix::<false>(text);
    out.extend_from_slice(&text[..plain]);
    let rest = &text[plain..];
    if rest.is_empty() {
        return;
    }
    if rest.is_ascii() || std::str::from_utf8(rest).is_ok() {
        escape_utf8(rest, out);
    } else {
        escape_latin1(rest, out);
    }
}

fn escape_utf8(mut rest: &[u8], out: &mut Vec<u8>) {
    loop {
        let plain = plain_prefix::<true>(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&special) = rest.get(plain) else { return };
        escape_byte(special, out);
        rest = &rest[plain + 1..];
    }
}

fn escape_latin1(mut rest: &[u8], out: &mut Vec<u8>) {
    loop {
        let plain = plain_prefix::<false>(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&special) = rest.get(plain) else { return };
        if special >= 0x80 {
            out.extend_from_slice(&[0xc0 | special >> 6, 0x80 | special & 0x3f]);
        } else {
            escape_byte(special, out);
        }
        rest = &rest[plain + 1..];
    }
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// How many bytes at the start need no escape. `HIGH`: bytes from 0x80 on need none.
fn plain_prefix<const HIGH: bool>(bytes: &[u8]) -> usize {
    let length = bytes.len();
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<32>()) {
        // Without a branch per byte, so that the compiler compares all of them at once.
        if chunk.iter().fold(0, |found, &byte| found | u8::from(is_special::<HIGH>(byte))) != 0 {
            return at + first_special::<HIGH>(chunk);
        }
        at += 32;
    }
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if word_has_special::<HIGH>(u64::from_le_bytes(*word)) {
            return at + first_special::<HIGH>(word);
        }
        at += 8;
    }
    // The last word overlaps what is known to be plain: one test instead of up to seven.
    if at > 0
        && let Some(word) = bytes.last_chunk::<8>()
        && !word_has_special::<HIGH>(u64::from_le_bytes(*word))
    {
        return length;
    }
    at + first_special::<HIGH>(&bytes[at..])
}

fn first_special<const HIGH: bool>(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| is_special::<HIGH>(byte)).unwrap_or(bytes.len())
}

#[inline]
fn is_special<const HIGH: bool>(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (!HIGH & (byte >= 0x80))
}

/// Whether any of eight bytes is special; exact as a yes or no (the position of a hit would not be).
#[inline]
fn word_has_special<const HIGH: bool>(word: u64) -> bool {
    let zero = |lanes: u64| lanes.wrapping_sub(LANES) & !lanes & HIGHS;
    let control = word.wrapping_sub(LANES * 0x20) & !word & HIGHS;
    let quote = zero(word ^ (LANES * b'"' as u64));
    let backslash = zero(word ^ (LANES * b'\\' as u64));
    let high = if HIGH { 0 } else { word & HIGHS };
    control | quote | backslash | high != 0
}

/// Appends what the inside of a JSON string says, escapes resolved, as UTF-8. A lone surrogate becomes U+FFFD; what is no
/// escape stays as it is.
pub fn unescape(mut inside: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'\\', inside) {
        out.extend_from_slice(&inside[..at]);
        let Some(&kind) = inside.get(at + 1) else {
            out.push(b'\\');
            return;
        };
        inside = &inside[at + 2..];
        match kind {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'u' => match unescape_unicode(inside) {
                Some((character, length)) => {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    inside = &inside[length..];
                }
                None => out.extend_from_slice(b"\\u"),
            },
            b'"' | b'\\' | b'/' => out.push(kind),
            _ => out.extend_from_slice(&[b'\\', kind]),
        }
    }
    out.extend_from_slice(inside);
}

/// The character whose digits follow `\u`, and how many bytes were read.
fn unescape_unicode(digits: &[u8]) -> Option<(char, usize)> {
    let first = hex4(digits)?;
    if (0xd800..0xdc00).contains(&first)
        && let Some(rest) = digits.get(4..).and_then(|rest| rest.strip_prefix(b"\\u"))
        && let Some(second @ 0xdc00..0xe000) = hex4(rest)
    {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 10));
    }
    Some((char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4))
}

/// Replaces every escape of a lone surrogate (`\ud800`) by that of U+FFFD, of the same length.
///
/// JSON's grammar allows one, but it stands for no character, and strict readers refuse the line. `json` is the inside of a
/// string or a whole document.
pub fn mend_surrogates(json: &mut [u8]) {
    let mut at = 0;
    while let Some(distance) = json.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += distance;
        let surrogate = |json: &[u8], at: usize| -> Option<u32> {
            let code = hex4(json.get(at..)?.strip_prefix(b"\\u")?)?;
            (0xd800..0xe000).contains(&code).then_some(code)
        };
        match surrogate(json, at) {
            Some(0xd800..0xdc00) if surrogate(json, at + 6).is_some_and(|second| second >= 0xdc00) => at += 12,
            Some(_) => {
                json[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            None => at += 2,
        }
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.first_chunk::<4>()?.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn unescaped(inside: &str) -> Vec<u8> {
        let mut out = Vec::new();
        unescape(inside.as_bytes(), &mut out);
        out
    }

    #[test]
    fn escapes_are_minimal() {
        assert_eq!(escaped(b"plain / text \x7f"), "plain / text \x7f");
        assert_eq!(escaped(b"\"\\\n\r\t\x08\x0c\x01\x1f"), r#"\"\\\n\r\t\b\f\u0001\u001f"#);
        assert_eq!(escaped("日本 \u{2028}".as_bytes()), "日本 \u{2028}");
    }

    #[test]
    fn bytes_that_are_not_utf8_become_characters_of_their_number() {
        assert_eq!(escaped(b"caf\xe9"), "café");
        assert_eq!(escaped(b"high\xff\xfe\x80\"bytes"), "high\u{ff}\u{fe}\u{80}\\\"bytes");
        // Of a value that is not UTF-8 as a whole, valid sequences are bytes too.
        assert_eq!(escaped(b"\xc3\xa9\xff"), "\u{c3}\u{a9}\u{ff}");
    }

    #[test]
    fn unescape_knows_every_escape() {
        assert_eq!(unescaped(r#"a\"b\\c\/d\n\r\t\b\f"#), b"a\"b\\c/d\n\r\t\x08\x0c");
        assert_eq!(unescaped(r"\u003f\u00E9\ud83d\ude00"), "?é😀".as_bytes());
        assert_eq!(unescaped(r"\ud83dx\ude00"), "\u{fffd}x\u{fffd}".as_bytes());
        assert_eq!(unescaped(r"\u12"), br"\u12");
        assert_eq!(unescaped(r"\q\"), br"\q\");
    }

    #[test]
    fn lone_surrogates_are_mended_and_nothing_else() {
        for (json, expected) in [
            (r"\ud83d\ude00", r"\ud83d\ude00"),
            (r"\ud83d\ud83d\ude00\ude00", r"\ufffd\ud83d\ude00\ufffd"),
            (r"a\\ud83d\uD83D", r"a\\ud83d\ufffd"),
            (r"\ud83", r"\ud83"),
            (r"\u00e9\n\", r"\u00e9\n\"),
        ] {
            let mut mended = json.as_bytes().to_vec();
            mend_surrogates(&mut mended);
            assert_eq!(String::from_utf8(mended).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn escape_agrees_with_serde_json(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let json = format!("\"{}\"", escaped(&bytes));
            let read: String = serde_json::from_str(&json).unwrap();
            let expected = match std::str::from_utf8(&bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
            };
            prop_assert_eq!(&read, &expected);
            prop_assert_eq!(unescaped(&json[1..json.len() - 1]), expected.into_bytes());
        }

        #[test]
        fn one_special_byte_is_found_wherever_it_stands(length in 1_usize..70, at in any::<prop::sample::Index>(), special in prop::sample::select(&b"\"\\\n\x00\x1f"[..])) {
            let mut text = vec![b'a'; length];
            let at = at.index(length);
            text[at] = special;
            let read: String = serde_json::from_str(&format!("\"{}\"", escaped(&text))).unwrap();
            prop_assert_eq!(read.into_bytes(), text);
        }
    }
}
