//! What begins a query: `?`, and the forms that stand for one.
//!
//! Besides the plain `?`: percent-encoded any number of times (`%3F`, `%253f`, `%25253F`, `%u003f`), also with its own
//! characters encoded (`%25%33%46`); escaped as in JSON or a programming language, after any number of backslashes (`\u003f`,
//! `\\u003F`, `\x3f`, `\077`, `\u00253F`); as a reference of HTML (`&#63;`, `&#x3f;`); and the full-width `？` (U+FF1F, also
//! percent-encoded or escaped), which some decoders make a `?` of. As such or escaped that is also how sentences end in
//! Chinese and Japanese, and begins a query only with the name of a parameter and `=` behind it.

use std::ops::Range;

/// Where a query begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// First byte of the mark.
    pub start: usize,
    /// First byte of what follows.
    pub end: usize,
    /// A `?` as such, not one of its encodings.
    pub plain: bool,
}

/// `？` as it is.
pub(super) const FULL_WIDTH: &[u8] = "\u{ff1f}".as_bytes();

/// The first byte of [`FULL_WIDTH`].
pub(super) const FULL_WIDTH_BYTE: u8 = FULL_WIDTH[0];

/// A name of a parameter behind a full-width mark is not longer than this, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Bytes searched for one set of marks before they are for the other: each call reads hardly more than up to its find.
const WINDOW_BYTES: usize = 1024;

/// The first mark that starts at `from` or after it.
pub(super) fn find(bytes: &[u8], from: usize) -> Option<Mark> {
    let mut window = from;
    while window < bytes.len() {
        let end = bytes.len().min(window + WINDOW_BYTES);
        let (usual, next) = match find_usual(bytes, window..end) {
            Ok(mark) => (Some(mark), mark.start),
            Err(next) => (None, next),
        };
        // Nothing behind the usual one can be the first.
        if let Some(mark) = find_rare(bytes, window..next.min(end), from).or(usual) {
            return Some(mark);
        }
        window = next.max(end);
    }
    None
}

/// The first mark that begins in that range with a usual byte; else where the search goes on.
fn find_usual(bytes: &[u8], within: Range<usize>) -> Result<Mark, usize> {
    let mut at = within.start;
    while let Some(distance) = bytes.get(at..within.end).and_then(|part| memchr::memchr3(b'?', b'%', b'\\', part)) {
        at += distance;
        match end_of_mark(bytes, at) {
            Ok(end) => return Ok(Mark { start: at, end, plain: bytes[at] == b'?' }),
            Err(next) => at = next,
        }
    }
    Err(at.max(within.end))
}

/// The first reference or full-width mark whose `#` or first byte stands in that range. `from` is where the search began.
fn find_rare(bytes: &[u8], within: Range<usize>, from: usize) -> Option<Mark> {
    let mut at = within.start;
    while let Some(distance) = bytes.get(at..within.end).and_then(|part| memchr::memchr2(b'#', FULL_WIDTH_BYTE, part)) {
        at += distance;
        if bytes[at] == b'#' {
            if at > from
                && bytes[at - 1] == b'&'
                && let Some(end) = end_of_reference(bytes, at + 1)
            {
                return Some(Mark { start: at - 1, end, plain: false });
            }
        } else if bytes[at..].starts_with(FULL_WIDTH) && is_parameter(&bytes[at + FULL_WIDTH.len()..]) {
            return Some(Mark { start: at, end: at + FULL_WIDTH.len(), plain: false });
        }
        at += 1;
    }
    None
}

/// `63;` or `x3f;`, with any number of zeros before.
fn end_of_reference(bytes: &[u8], at: usize) -> Option<usize> {
    let is_hexadecimal = matches!(bytes.get(at), Some(b'x' | b'X'));
    let at = at + usize::from(is_hexadecimal);
    let at = at + bytes.get(at..)?.iter().take_while(|byte| **byte == b'0').count();
    let digits: &[u8] = if is_hexadecimal { b"3f" } else { b"63" };
    let end = at + digits.len();
    (starts_with(&bytes[at..], digits) && bytes.get(end) == Some(&b';')).then_some(end + 1)
}

/// Whether the text begins with a parameter's name and `=`.
fn is_parameter(text: &[u8]) -> bool {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_.[]".contains(byte);
    let length = text.iter().take(NAME_BYTES_MAX).take_while(is_name).count();
    length > 0 && text.get(length) == Some(&b'=')
}

/// The end of the mark that starts at `at`; else where the search goes on.
fn end_of_mark(bytes: &[u8], at: usize) -> Result<usize, usize> {
    match bytes.get(at) {
        Some(b'?') => Ok(at + 1),
        Some(b'%') => end_after_percent(bytes, at + 1).ok_or(at + 1),
        Some(b'\\') => {
            let escape = at + bytes[at..].iter().take_while(|&&byte| byte == b'\\').count();
            end_after_backslash(bytes, escape).ok_or(escape)
        }
        _ => Err(at + 1),
    }
}

fn end_after_percent(bytes: &[u8], mut at: usize) -> Option<usize> {
    // Each `25` is one more encoding of the `%`.
    while let Some(end) = digit(bytes, at, b'2').and_then(|next| digit(bytes, next, b'5')) {
        at = end;
    }
    let rest = &bytes[at..];
    if starts_with(rest, b"u003f") {
        Some(at + 5)
    } else if starts_with(rest, b"ef%") || starts_with(rest, b"ef%25") {
        end_of_encoded(bytes, at + 2, *b"bc").and_then(|end| end_of_encoded(bytes, end, *b"9f"))
    } else {
        digit(bytes, at, b'3').and_then(|next| digit(bytes, next, b'f'))
    }
}

/// The end of a digit of an encoding, which may be encoded itself; `digit` is in lower case.
fn digit(bytes: &[u8], at: usize, digit: u8) -> Option<usize> {
    match bytes.get(at)? {
        b'%' => {
            let at = after_25s(bytes, at + 1);
            let upper = digit.to_ascii_uppercase();
            let is = |byte: u8| bytes.get(at..at + 2).is_some_and(|found| found == format_hex(byte));
            (is(digit) || is(upper)).then_some(at + 2)
        }
        byte => (byte.to_ascii_lowercase() == digit).then_some(at + 1),
    }
}

/// The two digits of a byte below 0x80 whose own digits are numbers: that of `2`, `3`, `5`, `f` and `F`.
fn format_hex(byte: u8) -> [u8; 2] {
    [b'0' + (byte >> 4), b'0' + (byte & 15)]
}

/// The end of `%` and those digits, however often the `%` is encoded; `digits` are in lower case.
pub(super) fn end_of_encoded(bytes: &[u8], at: usize, digits: [u8; 2]) -> Option<usize> {
    let at = bytes.get(at).filter(|byte| **byte == b'%').map(|_| after_25s(bytes, at + 1))?;
    starts_with(&bytes[at..], &digits).then_some(at + 2)
}

fn after_25s(bytes: &[u8], mut at: usize) -> usize {
    while bytes[at..].starts_with(b"25") {
        at += 2;
    }
    at
}

fn end_after_backslash(bytes: &[u8], at: usize) -> Option<usize> {
    const QUESTION: [&[u8]; 4] = [b"u003f", b"x3f", b"077", b"u{3f}"];
    const PERCENT: [&[u8]; 4] = [b"u0025", b"x25", b"045", b"u{25}"];
    const FULL_WIDTH: &[u8] = b"uff1f";
    let rest = &bytes[at..];
    let after = |forms: [&[u8]; 4]| forms.iter().find(|form| starts_with(rest, form)).map(|form| at + form.len());
    if starts_with(rest, FULL_WIDTH) {
        return is_parameter(&rest[FULL_WIDTH.len()..]).then_some(at + FULL_WIDTH.len());
    }
    after(QUESTION).or_else(|| end_after_percent(bytes, after(PERCENT)?))
}

/// Compares without regard to the case of ASCII letters; `prefix` is in lower case.
fn starts_with(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> bool {
        find(text.as_bytes(), 0) == Some(Mark { start: 0, end: text.len(), plain: text == "?" })
    }

    #[test]
    fn every_form_is_a_mark() {
        for form in [
            "?",
            "%3F",
            "%3f",
            "%253F",
            "%25253f",
            "%2525253F",
            "%u003f",
            r"\u003f",
            r"\u003F",
            r"\\u003f",
            r"\\\\u003f",
            r"\x3f",
            r"\X3F",
            r"\077",
            r"\u00253F",
            r"\\u0025253f",
            r"\x253f",
            r"\u{3f}",
            "%25%33%46",
            "%25%33%66",
            "%2525%33f",
            "%25%32%35%33%46",
            "%3%2546",
            "%253%46",
            "&#63;",
            "&#x3f;",
            "&#X003F;",
            "&#063;",
            "%EF%BC%9F",
            "%25ef%25bc%259f",
        ] {
            assert!(whole(form), "{form}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for text in [
            "",
            "%",
            "%3",
            "%25",
            "%253",
            "%2F",
            "%éF",
            "3F",
            "u003f",
            r"\u003e",
            r"\\",
            r"\",
            r"\u00",
            "%25%34F",
            "&#63",
            "&#x3f",
            "&#64;",
            "#63;",
            "&#x33f;",
            "\u{ff1f}",
            "\u{ff1f} a=b",
            "\u{ff1e}a=b",
            r"\uff1f",
            "%EF%BC%9E",
            "%EF%BC",
            "%EF%",
            "%25%32%35",
            "%ef",
        ] {
            assert_eq!(find(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(find(b"%3\xffF", 0), None);
    }

    #[test]
    fn the_search_goes_on_behind_a_false_start() {
        assert_eq!(find(b"%%3Fa", 0), Some(Mark { start: 1, end: 4, plain: false }));
        assert_eq!(find(br"a\n\\?b", 0), Some(Mark { start: 5, end: 6, plain: true }));
        assert_eq!(find(b"?a?b", 1), Some(Mark { start: 2, end: 3, plain: true }));
        assert_eq!(find(b"?", 7), None);
        assert_eq!(find(b"&#63;?", 0), Some(Mark { start: 0, end: 5, plain: false }));
        assert_eq!(find(b"?&#63;", 0), Some(Mark { start: 0, end: 1, plain: true }));
        assert_eq!(find(b"?&#63;", 1), Some(Mark { start: 1, end: 6, plain: false }));
        assert_eq!(find("x\u{ff1f}token=a".as_bytes(), 0), Some(Mark { start: 1, end: 4, plain: false }));
        assert_eq!(find(br"x\uff1ftoken=a", 0), Some(Mark { start: 1, end: 7, plain: false }));
    }
}
