//! Matrix parameters, `;k=v` in the segments of a path: `/users;token=x/orders;page=2`.
//!
//! They are redacted only if that is configured, by the policy and the rules of query parameters. Where the `;` is encoded all
//! behind it goes, up to the end of the segment.

use super::action::Action;
use super::mark::end_of_encoded;
use super::quotes::{is_blank, is_quote};

/// Whether matrix parameters may stand in these bytes: a cheap test that may say yes too often, never no.
pub(super) fn may_hold(bytes: &[u8]) -> bool {
    memchr::memchr2(b';', b'%', bytes).is_some()
}

/// Appends a path without what has to go of its matrix parameters; says whether anything did.
pub(super) fn write_path(action: &Action, path: &[u8], out: &mut Vec<u8>) -> bool {
    let before = out.len();
    for (place, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if place > 0 {
            out.push(b'/');
        }
        write_segment(action, segment, out);
    }
    out[before..] != *path
}

fn write_segment(action: &Action, segment: &[u8], out: &mut Vec<u8>) {
    let Some((start, plain)) = find(segment) else { return out.extend_from_slice(segment) };
    out.extend_from_slice(&segment[..start]);
    if !plain || action.removes(true) {
        return;
    }
    let at = out.len();
    out.push(b';');
    action.write_parameters(&segment[start + 1..], b';', out);
    if out.len() == at + 1 {
        out.truncate(at);
    }
}

/// The first `;`, and whether it is one as such.
fn find(segment: &[u8]) -> Option<(usize, bool)> {
    memchr::memchr2_iter(b';', b'%', segment).find_map(|at| match segment[at] {
        b';' => Some((at, true)),
        _ => end_of_encoded(segment, at, *b"3b").map(|_| (at, false)),
    })
}

/// The path or URL in running text, at `from` or behind, that holds a matrix parameter.
pub(super) fn next_path(text: &[u8], from: usize) -> Option<std::ops::Range<usize>> {
    let is_end = |byte: &u8| is_blank(*byte) || is_quote(*byte) || b"<>()[]{}|,?#\\".contains(byte);
    let mut at = from;
    loop {
        at += memchr::memchr2(b';', b'%', text.get(at..)?)?;
        let start = from.max(text[..at].iter().rposition(is_end).map_or(0, |before| before + 1));
        let end = at + text[at..].iter().position(is_end).unwrap_or(text.len() - at);
        let run = &text[start..end];
        let path = match memchr::memmem::find(run, b"://") {
            Some(scheme) => memchr::memchr(b'/', &run[scheme + 3..]).map(|slash| start + scheme + 3 + slash),
            None if run.starts_with(b"/") => Some(start),
            None => memchr::memmem::find(run, b"=/").map(|equals| start + equals + 1),
        };
        if let Some(path) = path
            && find(&text[path..end]).is_some()
        {
            return Some(path..end);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Parameters, Policy, Redactor};

    fn scrubbed(query: Policy, text: &str) -> String {
        let parameters = Parameters { keep: vec!["page".into()], ..Parameters::default() };
        let config = Config { query, parameters, matrix_parameters: true, ..Config::default() };
        let mut out = Vec::new();
        Redactor::new(&config).scrub_text(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parameters_of_segments_follow_the_policy() {
        for (text, stripped, masked) in [
            ("GET /a;x=S;page=2/b;y=S HTTP", "GET /a;page=2/b HTTP", "GET /a;x=***;page=2/b;y=*** HTTP"),
            ("https://h;p/a;S/b", "https://h;p/a/b", "https://h;p/a;***/b"),
            ("/a%3Bx=S/b%253bS?q=S", "/a/b", "/a/b?q=***"),
            ("url=/a;x=S, b;c", "url=/a, b;c", "url=/a;x=***, b;c"),
            ("'/a;x=S'", "'/a'", "'/a;x=***'"),
            ("a; b=c 100%3B", "a; b=c 100%3B", "a; b=c 100%3B"),
        ] {
            assert_eq!(scrubbed(Policy::Strip, text), stripped, "{text}");
            assert_eq!(scrubbed(Policy::Mask, text), masked, "{text}");
        }
    }
}
