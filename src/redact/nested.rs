//! Scrubbing inside a JSON document: every string and every member's name, at any depth.
//!
//! The document is valid JSON, so no tree is needed: structure is copied, strings are scrubbed one by one. A string is read
//! by the name of the member it stands under, as a field of the record is.

use super::Outcome;
use super::action::Action;
use super::holds::{self, Holds};
use super::{scrub_as, url};
use crate::record::Kind;
use crate::record::json::{escape, unescape};

/// Appends the scrubbed `document` to `out` and says so; or leaves `out` as it is because nothing had to change.
/// `holds` is for strings that stand under no member; `spare` is room to resolve escapes in; `depth` counts the documents
/// around this one, in whose strings it was found.
pub(super) fn scrub(
    action: &Action,
    kind: Kind,
    holds: Holds,
    document: &[u8],
    out: &mut Vec<u8>,
    spare: &mut Vec<u8>,
    depth: usize,
) -> bool {
    let start = out.len();
    let mut changed = false;
    let mut member = holds;
    let mut at = 0;
    while let Some(distance) = memchr::memchr(b'"', &document[at..]) {
        let open = at + distance;
        if memchr::memchr2(b'}', b']', &document[at..open]).is_some() {
            member = Holds::Text;
        }
        out.extend_from_slice(&document[at..=open]);
        let close = end_of_string(document, open + 1);
        let inside = &document[open + 1..close];
        at = (close + 1).min(document.len());
        if is_member_name(document, at) {
            changed |= scrub_string(action, Holds::Text, inside, out, spare, depth);
            member = if kind == Kind::Access { holds::of_name(inside) } else { Holds::Text };
        } else {
            changed |= scrub_string(action, member, inside, out, spare, depth);
        }
        out.push(b'"');
    }
    out.extend_from_slice(&document[at..]);
    if !changed {
        out.truncate(start);
    }
    changed
}

fn scrub_string(
    action: &Action,
    holds: Holds,
    inside: &[u8],
    out: &mut Vec<u8>,
    spare: &mut Vec<u8>,
    depth: usize,
) -> bool {
    if holds != Holds::Query && !url::may_hold(inside) {
        out.extend_from_slice(inside);
        return false;
    }
    if memchr::memchr(b'\\', inside).is_none() {
        match scrub_as(action, holds, inside, out, depth) {
            Outcome::Same => out.extend_from_slice(inside),
            Outcome::Part(part) => {
                let changed = part.len() != inside.len();
                out.extend_from_slice(&inside[part]);
                return changed;
            }
            Outcome::Written => return true,
        }
        return false;
    }
    spare.clear();
    unescape(inside, spare);
    let start = out.len();
    match scrub_as(action, holds, spare, out, depth) {
        Outcome::Same => {
            out.extend_from_slice(inside);
            return false;
        }
        Outcome::Part(part) => escape(&spare[part], out),
        Outcome::Written => {
            spare.clear();
            spare.extend_from_slice(&out[start..]);
            out.truncate(start);
            escape(spare, out);
        }
    }
    true
}

/// Whether the text is a JSON object or array as a whole. Reads on only if it begins and ends as one.
pub(super) fn is_document(text: &[u8]) -> bool {
    let inside = text.trim_ascii();
    matches!((inside.first(), inside.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')))
        && serde_json::from_slice::<serde::de::IgnoredAny>(inside).is_ok()
}

/// The place of the quote that ends the string whose inside begins at `from`.
fn end_of_string(document: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(distance) = document.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += distance;
        if document[at] == b'"' {
            return at;
        }
        at += 2;
    }
    document.len()
}

fn is_member_name(document: &[u8], after: usize) -> bool {
    document[after..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    fn scrubbed(kind: Kind, document: &str) -> Option<String> {
        let (mut out, mut spare) = (b"kept".to_vec(), Vec::new());
        let changed =
            scrub(&Action::new(&Policy::Strip), kind, Holds::Text, document.as_bytes(), &mut out, &mut spare, 0);
        let written = String::from_utf8(out).unwrap();
        assert!(written.starts_with("kept"));
        assert_eq!(changed, written.len() > 4);
        changed.then(|| written[4..].to_owned())
    }

    #[test]
    fn strings_and_names_are_scrubbed_at_any_depth() {
        for (document, expected) in [
            (r#"{"a":["/x?s=1",{"b":"/y?s"}],"c":3}"#, r#"{"a":["/x",{"b":"/y"}],"c":3}"#),
            (r#"{"/x?s" : 1}"#, r#"{"/x" : 1}"#),
            (r#"["a\n/x\u003fs=\"1","%3Fs"]"#, r#"["a\n/x",""]"#),
            (r#"{"m":"\"/x?s\", \\ end"}"#, r#"{"m":"\"/x\", \\ end"}"#),
            (r#""/x?s""#, r#""/x""#),
        ] {
            assert_eq!(scrubbed(Kind::Other, document).as_deref(), Some(expected), "{document}");
        }
    }

    #[test]
    fn members_of_access_logs_are_read_by_their_names() {
        let document = r#"{"url":"http://u:p@h/x#t","note":"a # b","urls":[1]}"#;
        assert_eq!(
            scrubbed(Kind::Access, document).as_deref(),
            Some(r#"{"url":"http://h/x","note":"a # b","urls":[1]}"#)
        );
        assert_eq!(scrubbed(Kind::Other, document), None);
    }

    #[test]
    fn clean_documents_are_left_alone() {
        for document in ["{}", r#"{"a":"what? who","b":"50 % of \"x\"","c":"?"}"#, "3", "", "\"", r#""\"#] {
            assert_eq!(scrubbed(Kind::Access, document), None, "{document}");
        }
    }
}
