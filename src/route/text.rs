//! Texts as a test sees them: JSON escapes resolved, and only where there are some.

use std::borrow::Cow;

use memchr::memchr;

/// A text that may need its escapes resolved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text<'a> {
    /// As it is.
    Plain(&'a [u8]),
    /// The inside of a JSON string with at least one backslash.
    Escaped(&'a [u8]),
}

impl<'a> Text<'a> {
    /// The inside of a JSON string.
    pub(super) fn json(inside: &'a [u8]) -> Self {
        if memchr(b'\\', inside).is_some() { Self::Escaped(inside) } else { Self::Plain(inside) }
    }
}

/// The characters of a text.
pub(super) fn resolve(text: Text<'_>) -> Cow<'_, [u8]> {
    match text {
        Text::Plain(bytes) => Cow::Borrowed(bytes),
        Text::Escaped(inside) => Cow::Owned(unescape(inside)),
    }
}

/// Resolves escapes. What is not a valid escape stays as it stands; half of a surrogate pair becomes U+FFFD.
fn unescape(inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (bytes, taken) = escape(rest);
        match bytes {
            Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.extend_from_slice(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
    out
}

/// The character of the escape at the start of `rest`, and how many bytes it takes.
fn escape(rest: &[u8]) -> (Option<char>, usize) {
    let simple = |character| (Some(character), 2);
    match rest.get(1) {
        Some(b'n') => simple('\n'),
        Some(b't') => simple('\t'),
        Some(b'r') => simple('\r'),
        Some(b'b') => simple('\u{8}'),
        Some(b'f') => simple('\u{c}'),
        Some(&same @ (b'"' | b'\\' | b'/')) => simple(char::from(same)),
        Some(b'u') => match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(high @ 0xD800..0xDC00), Some(low @ 0xDC00..0xE000)) => {
                (char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12)
            }
            (Some(unit), _) => (Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)), 6),
            (None, _) => (None, 2),
        },
        _ => (None, 1),
    }
}

/// The number in `\uXXXX` at the start of `rest`.
fn unit(rest: &[u8]) -> Option<u32> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escapes_are_resolved_as_serde_json_does(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let inside = &quoted.as_bytes()[1..quoted.len() - 1];
            prop_assert_eq!(&*resolve(Text::json(inside)), text.as_bytes());
        }

        #[test]
        fn any_escaped_unit_is_resolved(text in any::<String>()) {
            let inside: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(&*resolve(Text::json(inside.as_bytes())), text.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            resolve(Text::json(&bytes));
        }
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(&*resolve(Text::json(br"a\")), br"a\");
        assert_eq!(&*resolve(Text::json(br"\u12")), br"\u12");
        assert_eq!(&*resolve(Text::json(br"\ud83dx")), "\u{fffd}x".as_bytes());
    }
}
