//! What begins a query: `?`, and the forms that stand for one.
//!
//! Besides the plain `?`: percent-encoded any number of times (`%3F`, `%253f`, `%25253F`, `%u003f`), and escaped as in JSON
//! or a programming language, after any number of backslashes (`\u003f`, `\\u003F`, `\x3f`, `\077`, `\u00253F`).

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

/// Whether a mark may stand in these bytes: a cheap test that may say yes too often, never no.
pub(super) fn may_hold(bytes: &[u8]) -> bool {
    memchr::memchr3(b'?', b'%', b'\\', bytes).is_some()
}

/// The first mark that starts at `from` or after it.
pub(super) fn find(bytes: &[u8], from: usize) -> Option<Mark> {
    let mut at = from;
    loop {
        at += memchr::memchr3(b'?', b'%', b'\\', bytes.get(at..)?)?;
        match end_of_mark(bytes, at) {
            Ok(end) => return Some(Mark { start: at, end, plain: bytes[at] == b'?' }),
            Err(next) => at = next,
        }
    }
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
    loop {
        let rest = &bytes[at..];
        if rest.starts_with(b"25") {
            at += 2;
        } else if starts_with(rest, b"3f") {
            return Some(at + 2);
        } else if starts_with(rest, b"u003f") {
            return Some(at + 5);
        } else {
            return None;
        }
    }
}

fn end_after_backslash(bytes: &[u8], at: usize) -> Option<usize> {
    const QUESTION: [&[u8]; 4] = [b"u003f", b"x3f", b"077", b"u{3f}"];
    const PERCENT: [&[u8]; 4] = [b"u0025", b"x25", b"045", b"u{25}"];
    let rest = &bytes[at..];
    let after = |forms: [&[u8]; 4]| forms.iter().find(|form| starts_with(rest, form)).map(|form| at + form.len());
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
        ] {
            assert!(whole(form), "{form}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for text in
            ["", "%", "%3", "%25", "%253", "%2F", "%éF", "3F", "u003f", r"\u003e", r"\\", r"\", r"\u00", "%25%33F"]
        {
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
    }
}
