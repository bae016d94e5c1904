//! Scrubbing of values that are a URL as a whole: query, fragment and user information.
//!
//! Nothing ends a query here but the end of the value or a fragment, and a fragment always goes: OAuth puts tokens there.

use std::ops::Range;

use super::Outcome;
use super::action::Action;
use super::mark;

/// Whether [`scrub`] or [`scrub_authority`] may have something to do: cheap, says yes too often, never no.
pub(super) fn may_hold(bytes: &[u8]) -> bool {
    mark::may_hold(bytes) || memchr::memchr2(b'#', b'@', bytes).is_some()
}

/// Scrubs a URL: a path, an absolute URL, or `host:port` of a CONNECT.
pub(super) fn scrub(action: &Action, url: &[u8], out: &mut Vec<u8>) -> Outcome {
    let (kept, query) = cut(url);
    let user = user_information(&url[..kept]);
    let query = query.filter(|_| !action.removes(true));
    if query.is_none() && user.is_empty() {
        return if kept == url.len() { Outcome::Same } else { Outcome::Part(0..kept) };
    }
    if query.is_none() && user.start == 0 {
        return Outcome::Part(user.end..kept);
    }
    let start = out.len();
    out.extend_from_slice(&url[..user.start]);
    out.extend_from_slice(&url[user.end..kept]);
    if let Some(query) = query {
        action.write(true, &url[query], out);
    }
    if out[start..] == *url {
        out.truncate(start);
        return Outcome::Same;
    }
    Outcome::Written
}

/// Scrubs `user:password@host:port`.
pub(super) fn scrub_authority(authority: &[u8]) -> Outcome {
    let (end, _) = cut(authority);
    let start = memchr::memrchr(b'@', &authority[..end]).map_or(0, |at| at + 1);
    if start == 0 && end == authority.len() { Outcome::Same } else { Outcome::Part(start..end) }
}

/// Scrubs a request line: `GET http://host/path?query HTTP/1.1`. The method and the protocol stay.
pub(super) fn scrub_request_line(action: &Action, line: &[u8], out: &mut Vec<u8>) -> Outcome {
    let protocol = memchr::memrchr(b' ', line).filter(|&at| line[at..].starts_with(b" HTTP/")).unwrap_or(line.len());
    let is_method = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_uppercase);
    let target = memchr::memchr(b' ', &line[..protocol]).filter(|&at| is_method(&line[..at])).map_or(0, |at| at + 1);
    // A protocol is a few letters; what is longer, or holds a mark, is not one.
    let protocol = if line.len() - protocol <= 16 && !may_hold(&line[protocol..]) { protocol } else { line.len() };
    let start = out.len();
    out.extend_from_slice(&line[..target]);
    match scrub(action, &line[target..protocol], out) {
        Outcome::Same => {
            out.truncate(start);
            return Outcome::Same;
        }
        Outcome::Part(part) => out.extend_from_slice(&line[target..protocol][part]),
        Outcome::Written => {}
    }
    out.extend_from_slice(&line[protocol..]);
    Outcome::Written
}

/// Scrubs a value that is a query without its `?`.
pub(super) fn scrub_query(action: &Action, query: &[u8], out: &mut Vec<u8>) -> Outcome {
    if query.is_empty() || query == b"-" {
        return Outcome::Same;
    }
    if action.removes(true) {
        return Outcome::Part(0..0);
    }
    let start = out.len();
    let fragment = memchr::memchr(b'#', query).unwrap_or(query.len());
    action.write_parameters(query[..fragment].strip_prefix(b"?").unwrap_or(&query[..fragment]), out);
    if out[start..] == *query {
        out.truncate(start);
        return Outcome::Same;
    }
    Outcome::Written
}

/// How much of a URL stands before its query and fragment, and where the query is if its parameters can be told.
fn cut(url: &[u8]) -> (usize, Option<Range<usize>>) {
    let fragment = memchr::memchr(b'#', url);
    match mark::find(&url[..fragment.unwrap_or(url.len())], 0) {
        // An empty query goes with its mark, so that `/?` and `/` count as one path.
        Some(mark) if mark.end == url.len() => (mark.start, None),
        Some(mark) if mark.plain => (mark.start, Some(mark.end..fragment.unwrap_or(url.len()))),
        Some(mark) => (mark.start, None),
        None => (fragment.unwrap_or(url.len()), None),
    }
}

/// Where `user:password@` stands in a URL without query; empty if nowhere.
fn user_information(url: &[u8]) -> Range<usize> {
    let mut removed = 0;
    // Without a scheme, what is left may begin like a URL again (`a@//b@c`): then all of it goes.
    while let Some(user) = first_user_information(&url[removed..]) {
        if user.start > 0 && removed == 0 {
            return user;
        }
        removed += user.end;
    }
    0..removed
}

fn first_user_information(url: &[u8]) -> Option<Range<usize>> {
    memchr::memchr(b'@', url)?;
    let start = match memchr::memmem::find(url, b"//") {
        Some(0) => 2,
        Some(at) if url[at - 1] == b':' => at + 2,
        _ if url.starts_with(b"/") => return None,
        _ => 0,
    };
    let end = url[start..].iter().position(|byte| matches!(byte, b'/' | b'\\')).map_or(url.len(), |at| start + at);
    memchr::memrchr(b'@', &url[start..end]).map(|at| start..start + at + 1)
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    fn result(outcome: Outcome, input: &str, out: Vec<u8>) -> String {
        match outcome {
            Outcome::Same => input.to_owned(),
            Outcome::Part(part) => input[part].to_owned(),
            Outcome::Written => String::from_utf8(out).unwrap(),
        }
    }

    fn url(policy: &Policy, input: &str) -> String {
        let mut out = Vec::new();
        let outcome = scrub(&Action::new(policy), input.as_bytes(), &mut out);
        result(outcome, input, out)
    }

    fn request_line(input: &str) -> String {
        let mut out = Vec::new();
        let outcome = scrub_request_line(&Action::Strip, input.as_bytes(), &mut out);
        result(outcome, input, out)
    }

    #[test]
    fn strip_cuts_at_the_first_mark_or_fragment() {
        for (input, expected) in [
            ("/x?a=b", "/x"),
            ("/x?a=b?c#d", "/x"),
            ("/x#access_token=t", "/x"),
            ("/x#a?b", "/x"),
            ("/a%3Fb=secret", "/a"),
            ("/a%3fb", "/a"),
            ("/a%253Fb", "/a"),
            ("/a%25253fb", "/a"),
            ("/a b?c d\"e f", "/a b"),
            ("?a", ""),
            ("/x", "/x"),
            ("/x?", "/x"),
            ("/x#", "/x"),
            ("/x?#f", "/x"),
            ("/users/jane@example.com", "/users/jane@example.com"),
            ("/x;jsessionid=1", "/x;jsessionid=1"),
            ("http://u:p@h/x?y", "http://h/x"),
            ("http://u:p@h:80/x/a@b", "http://h:80/x/a@b"),
            ("http://u:p@w@h", "http://h"),
            ("http://h/a@b", "http://h/a@b"),
            ("//u:p@h/x", "//h/x"),
            ("u:p@h:443", "h:443"),
            ("a@//b@c", "c"),
            ("h:443", "h:443"),
        ] {
            assert_eq!(url(&Policy::Strip, input), expected, "{input}");
        }
    }

    #[test]
    fn other_policies_rewrite_a_plain_query_and_cut_the_rest() {
        let keep = Policy::Keep(vec!["page".into(), "sort".into()]);
        assert_eq!(url(&keep, "/x?page=2&token=t&sort=a"), "/x?page=2&sort=a");
        assert_eq!(url(&keep, "/x?token=t#page=1"), "/x");
        assert_eq!(url(&keep, "/x?page=2;token=t&sort=/y?token=t"), "/x?page=2&sort=/y");
        assert_eq!(url(&keep, "/x?page=2\\u0026token=t&sort"), "/x?page=2&sort");
        assert_eq!(url(&keep, "/x%3Fpage=2"), "/x");
        assert_eq!(url(&Policy::Mask, "/x?a=b&c&=d&e=#f"), "/x?a=***&***&***&e=***");
        assert_eq!(url(&Policy::Mask, "http://u:p@h/x?{\"a\":1}=b"), "http://h/x?***=***");
        assert_eq!(url(&Policy::Mask, "/x?a=***"), "/x?a=***");
    }

    #[test]
    fn a_request_line_keeps_its_ends() {
        for (input, expected) in [
            ("GET /x?a=b HTTP/1.1", "GET /x HTTP/1.1"),
            ("GET http://u:p@h/x?a b#c HTTP/2", "GET http://h/x HTTP/2"),
            ("GET /x HTTP/1.1", "GET /x HTTP/1.1"),
            ("/x?a=b", "/x"),
            ("GET /x?a HTTP/1.1?secret=1", "GET /x"),
            ("GET /x?a HTTP/secret-secret-secret", "GET /x"),
        ] {
            assert_eq!(request_line(input), expected, "{input}");
        }
    }

    #[test]
    fn authorities_lose_their_user() {
        for (input, expected) in [("u:p@h:1", "h:1"), ("h:1", "h:1"), ("u@x@h?q", "h"), ("", "")] {
            assert_eq!(result(scrub_authority(input.as_bytes()), input, Vec::new()), expected);
        }
    }
}
