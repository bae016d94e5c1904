//! User information of URLs in running text: `https://user:password@host/`, also in a URL that is percent-encoded as a whole.
//!
//! Only behind `://`, where nothing else can be meant: `jane@example.com` and `git@host:path` are left alone.

use std::ops::Range;

use super::edit::Edit;
use super::mark::end_of_encoded;
use super::quotes::{is_blank, is_quote};
use super::report::Rule;

/// Whether user information may stand in the text: a cheap test that may say yes too often, never no.
pub(super) fn may_hold(text: &[u8]) -> bool {
    memchr::memchr2(b'@', b'%', text).is_some()
}

/// The next user information that begins at `from` or behind, its `@` included.
pub(super) fn next(text: &[u8], from: usize) -> Option<Edit> {
    let mut at = from;
    loop {
        at += memchr::memchr2(b':', b'%', text.get(at..)?)?;
        let authority = if text[at] == b':' { plain_authority(text, at) } else { encoded_authority(text, at) };
        match authority {
            Some(Authority { range, user: Some(end), .. }) => {
                return Some(Edit { range: range.start..end, by: b"", rule: Rule::Userinfo });
            }
            // A host may be the scheme of another URL.
            Some(authority) => at = authority.range.start,
            None => at += 1,
        }
    }
}

/// What stands behind `://`.
struct Authority {
    range: Range<usize>,
    /// The end of the user information in it.
    user: Option<usize>,
}

fn is_end(byte: u8) -> bool {
    is_blank(byte) || is_quote(byte) || matches!(byte, b'/' | b'\\' | b'?' | b'#' | b'<' | b'>')
}

/// Behind `://`, its slashes perhaps escaped as in JSON.
fn plain_authority(text: &[u8], colon: usize) -> Option<Authority> {
    let escapes = |at: usize| at + text[at..].iter().take_while(|byte| **byte == b'\\').count();
    let slash = |at: usize| Some(escapes(at)).filter(|at| text.get(*at) == Some(&b'/')).map(|at| at + 1);
    let start = slash(slash(colon + 1)?)?;
    let end = text[start..].iter().position(|byte| is_end(*byte)).map_or(text.len(), |length| start + length);
    let user = memchr::memrchr(b'@', &text[start..end]).map(|at| start + at + 1);
    Some(Authority { range: start..end, user })
}

/// Behind an encoded `://`, of which the slashes are enough.
fn encoded_authority(text: &[u8], percent: usize) -> Option<Authority> {
    let start = end_of_encoded(text, end_of_encoded(text, percent, *b"2f")?, *b"2f")?;
    let mut user = None;
    let mut at = start;
    while let Some(byte) = text.get(at).filter(|byte| !is_end(**byte)) {
        if *byte == b'@' {
            user = Some(at + 1);
        } else if *byte == b'%' {
            if [b"2f", b"3f", b"23"].into_iter().any(|digits| end_of_encoded(text, at, *digits).is_some()) {
                break;
            }
            user = end_of_encoded(text, at, *b"40").or(user);
        }
        at += 1;
    }
    Some(Authority { range: start..at, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_have_user_information() {
        for (text, user) in [
            ("see https://u:p@h/x", Some("u:p@")),
            ("https://u:p@w@h", Some("u:p@w@")),
            (r"https:\/\/u:p@h", Some("u:p@")),
            ("https%3A%2F%2Fu%3Ap%40h%2F", Some("u%3Ap%40")),
            ("https%253A%252F%252Fu%253Ap%2540h", Some("u%253Ap%2540")),
            ("http://a://u@h", Some("u@")),
            ("https://h/a@b", None),
            ("https://h\", \"a@b\"", None),
            ("jane@example.com", None),
            ("a: //b@c", None),
            ("git@h:p//q", None),
            ("100%2F@", None),
            ("https://h?a@b", None),
        ] {
            let found = next(text.as_bytes(), 0).map(|edit| &text[edit.range]);
            assert_eq!(found, user, "{text}");
        }
    }
}
