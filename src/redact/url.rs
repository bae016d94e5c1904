//! Scrubbing of values that are a URL as a whole: query, fragment and user information.
//!
//! Nothing ends a query here but the end of the value or a fragment, and a fragment always goes: OAuth puts tokens there.

use std::ops::Range;

use super::action::Action;
use super::report::Rule;
use super::rules::{Scrub, is_nothing};
use super::{Outcome, mark, matrix};

/// Whether [`scrub`] or [`scrub_authority`] may have something to do: cheap, says yes too often, never no.
pub(super) fn may_hold(bytes: &[u8]) -> bool {
    memchr::memchr3(b'?', b'%', b'\\', bytes).is_some()
        || memchr::memchr3(b'#', b'@', mark::FULL_WIDTH_BYTE, bytes).is_some()
}

/// Scrubs a URL: a path, an absolute URL, or `host:port` of a CONNECT.
pub(super) fn scrub(scrub: &mut Scrub<'_>, url: &[u8], out: &mut Vec<u8>) -> Outcome {
    let rules = scrub.rules;
    let Cut { kept, query, rule } = cut(url);
    let user = user_information(&url[..kept]);
    let query = query.filter(|_| !rules.action.removes(true));
    let path = if rules.matrix { path_start(&url[..kept]).max(user.end) } else { kept };
    let has_matrix = rules.matrix && matrix::may_hold(&url[path..kept]);
    if let Some(rule) = rule.filter(|_| query.is_none()) {
        scrub.count(rule);
    }
    if !user.is_empty() {
        scrub.count(Rule::Userinfo);
    }
    if query.is_none() && !has_matrix {
        if user.is_empty() {
            return if kept == url.len() { Outcome::Same } else { Outcome::Part(0..kept) };
        }
        if user.start == 0 {
            return Outcome::Part(user.end..kept);
        }
    }
    let start = out.len();
    out.extend_from_slice(&url[..user.start]);
    out.extend_from_slice(&url[user.end..path]);
    if has_matrix && matrix::write_path(&rules.action, &url[path..kept], out) {
        scrub.count(Rule::Matrix);
    } else if !has_matrix {
        out.extend_from_slice(&url[path..kept]);
    }
    if let Some(query) = query {
        write_query(scrub, &rules.action, &url[kept..], query.start - kept..query.end - kept, out);
    }
    if out[start..] == *url {
        out.truncate(start);
        return Outcome::Same;
    }
    Outcome::Written
}

/// Where the path of a URL begins.
fn path_start(url: &[u8]) -> usize {
    let authority = match memchr::memmem::find(url, b"://") {
        Some(scheme) => scheme + 3,
        None if url.starts_with(b"//") => 2,
        None => 0,
    };
    memchr::memchr(b'/', &url[authority..]).map_or(url.len(), |slash| authority + slash)
}

/// Writes what is left of a query, which stands in `rest` behind its mark and perhaps before a fragment.
fn write_query(scrub: &mut Scrub<'_>, action: &Action, rest: &[u8], query: Range<usize>, out: &mut Vec<u8>) {
    let start = out.len();
    let end = query.end;
    action.write(true, &rest[query], out);
    if out[start..] != rest[..end] {
        scrub.count(Rule::Query);
    }
    if end < rest.len() {
        scrub.count(Rule::Fragment);
    }
}

/// Scrubs `user:password@host:port`.
pub(super) fn scrub_authority(scrub: &mut Scrub<'_>, authority: &[u8]) -> Outcome {
    let Cut { kept: end, rule, .. } = cut(authority);
    let start = memchr::memrchr(b'@', &authority[..end]).map_or(0, |at| at + 1);
    if start > 0 {
        scrub.count(Rule::Userinfo);
    }
    if let Some(rule) = rule {
        scrub.count(rule);
    }
    if start == 0 && end == authority.len() { Outcome::Same } else { Outcome::Part(start..end) }
}

/// Scrubs a request line: `GET http://host/path?query HTTP/1.1`. The method and the protocol stay.
pub(super) fn scrub_request_line(scrub: &mut Scrub<'_>, line: &[u8], out: &mut Vec<u8>) -> Outcome {
    let protocol = memchr::memrchr(b' ', line).filter(|&at| line[at..].starts_with(b" HTTP/")).unwrap_or(line.len());
    let is_method = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_uppercase);
    let target = memchr::memchr(b' ', &line[..protocol]).filter(|&at| is_method(&line[..at])).map_or(0, |at| at + 1);
    // A protocol is a few letters; what is longer, or holds a mark, is not one.
    let protocol = if line.len() - protocol <= 16 && !may_hold(&line[protocol..]) { protocol } else { line.len() };
    let start = out.len();
    out.extend_from_slice(&line[..target]);
    match self::scrub(scrub, &line[target..protocol], out) {
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
pub(super) fn scrub_query(scrub: &mut Scrub<'_>, query: &[u8], out: &mut Vec<u8>) -> Outcome {
    let action = &scrub.rules.action;
    if is_nothing(query) {
        return Outcome::Same;
    }
    if action.removes(true) {
        scrub.count(Rule::Query);
        return Outcome::Part(0..0);
    }
    let start = out.len();
    let fragment = memchr::memchr(b'#', query).unwrap_or(query.len());
    action.write_parameters(query[..fragment].strip_prefix(b"?").unwrap_or(&query[..fragment]), b'&', out);
    if out[start..] == *query {
        out.truncate(start);
        return Outcome::Same;
    }
    scrub.count(Rule::Query);
    Outcome::Written
}

/// Where a URL is cut.
struct Cut {
    /// How much stands before its query and fragment.
    kept: usize,
    /// Where the query is if its parameters can be told.
    query: Option<Range<usize>>,
    /// Why anything behind goes, if anything is there.
    rule: Option<Rule>,
}

fn cut(url: &[u8]) -> Cut {
    let fragment = memchr::memchr(b'#', url);
    let end = fragment.unwrap_or(url.len());
    let wide = memchr::memchr(mark::FULL_WIDTH_BYTE, &url[..end])
        .and_then(|at| memchr::memmem::find(&url[at..end], mark::FULL_WIDTH).map(|found| at + found));
    match (mark::find(&url[..wide.unwrap_or(end)], 0), wide) {
        // An empty query goes with its mark, so that `/?` and `/` count as one path.
        (Some(mark), None) if mark.end == url.len() => Cut { kept: mark.start, query: None, rule: None },
        (Some(mark), _) if mark.plain => Cut { kept: mark.start, query: Some(mark.end..end), rule: Some(Rule::Query) },
        (Some(mark), _) => Cut { kept: mark.start, query: None, rule: Some(Rule::Query) },
        (None, Some(wide)) => Cut { kept: wide, query: None, rule: Some(Rule::Query) },
        (None, None) => Cut { kept: end, query: None, rule: fragment.map(|_| Rule::Fragment) },
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
    use super::super::rules::Rules;
    use super::super::{Config, Policy};
    use super::*;

    fn result(input: &str, config: &Config, with: impl Fn(&mut Scrub<'_>, &[u8], &mut Vec<u8>) -> Outcome) -> String {
        let (rules, mut out) = (Rules::new(config), Vec::new());
        match with(&mut Scrub::of_text(&rules), input.as_bytes(), &mut out) {
            Outcome::Same => input.to_owned(),
            Outcome::Part(part) => input[part].to_owned(),
            Outcome::Written => String::from_utf8(out).unwrap(),
        }
    }

    fn url(policy: &Policy, input: &str) -> String {
        result(input, &Config { query: policy.clone(), ..Config::default() }, scrub)
    }

    fn request_line(input: &str) -> String {
        result(input, &Config::default(), scrub_request_line)
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
            let found = result(input, &Config::default(), |scrub, input, _| scrub_authority(scrub, input));
            assert_eq!(found, expected);
        }
    }
}
