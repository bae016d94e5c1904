//! Scrubbing inside a JSON document: every string and every member's name, at any depth.
//!
//! The document is valid JSON, so no tree is needed: structure is copied, strings are scrubbed one by one. A string is read
//! by the name of the member it stands under, as a field of the record is. The value of a secret goes whatever it is, but for
//! `null`, `true` and `false`; under a query in parts (`"query_params":{"a":"b"}`) each member is a parameter.

use super::Outcome;
use super::action::MASK;
use super::field::{FieldClass, parameter};
use super::report::Rule;
use super::rules::{Holder, Scrub, is_nothing};
use crate::record::json::{escape, unescape};

/// Appends the scrubbed `document` to `out` and says so; or leaves `out` as it is because nothing had to change.
/// `holder` is for strings that stand under no member; `spare` is room to resolve escapes in; `depth` counts the documents
/// around this one, in whose strings it was found.
pub(super) fn scrub(
    scrub: &mut Scrub<'_>,
    holder: Holder<'_>,
    document: &[u8],
    out: &mut Vec<u8>,
    spare: &mut Vec<u8>,
    depth: usize,
) -> bool {
    let start = out.len();
    let mut pass = Pass { scrub, spare, depth, changed: false };
    pass.document(holder, document, out);
    let changed = pass.changed;
    if !changed {
        out.truncate(start);
    }
    changed
}

/// One document.
struct Pass<'p, 'r> {
    scrub: &'p mut Scrub<'r>,
    spare: &'p mut Vec<u8>,
    depth: usize,
    changed: bool,
}

impl Pass<'_, '_> {
    fn document(&mut self, holder: Holder<'_>, document: &[u8], out: &mut Vec<u8>) {
        let is_query = matches!(holder.class, FieldClass::Query | FieldClass::Parameter);
        // Behind the end of an object or array nobody knows what a string stands under.
        let fallback = if is_query { holder } else { Holder::TEXT };
        let mut member = holder;
        let mut at = 0;
        while let Some(distance) = memchr::memchr(b'"', &document[at..]) {
            let open = at + distance;
            let structure = &document[at..open];
            if memchr::memchr2(b'}', b']', structure).is_some() {
                member = fallback;
            }
            self.structure(structure, out);
            let close = end_of_string(document, open + 1);
            let inside = &document[open + 1..close];
            at = (close + 1).min(document.len());
            let Some(value) = value_of_member(document, at) else {
                out.push(b'"');
                self.string(member, inside, out);
                out.push(b'"');
                continue;
            };
            let class = self.name(inside, is_query, out);
            out.extend_from_slice(&document[at..value]);
            at = self.value(Holder { class, name: inside }, document, value, out);
            member = Holder { class, name: inside };
        }
        self.structure(&document[at..], out);
    }

    /// Scrubs a member's name, and says what the member holds.
    fn name(&mut self, inside: &[u8], is_query: bool, out: &mut Vec<u8>) -> FieldClass {
        out.push(b'"');
        let start = out.len();
        self.string(Holder::TEXT, inside, out);
        let class = self.class_of(inside);
        // A name that becomes another may become that of a secret.
        let class = if class == FieldClass::Text && out[start..] != *inside {
            let renamed = out[start..].to_vec();
            self.class_of(&renamed)
        } else {
            class
        };
        out.push(b'"');
        if is_query && class != FieldClass::Secret { FieldClass::Parameter } else { class }
    }

    fn class_of(&mut self, inside: &[u8]) -> FieldClass {
        let (names, kind) = (&self.scrub.rules.names, self.scrub.kind);
        if memchr::memchr(b'\\', inside).is_none() {
            return names.of(kind, inside);
        }
        self.spare.clear();
        unescape(inside, self.spare);
        names.of(kind, self.spare)
    }

    /// Writes the member's value that begins at `at`, if it goes or is read as a whole; says where the document goes on.
    fn value(&mut self, holder: Holder<'_>, document: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
        let first = document.get(at).copied().unwrap_or_default();
        let is_number = first == b'-' || first.is_ascii_digit();
        let goes = match holder.class {
            FieldClass::Parameter | FieldClass::Query if self.scrub.rules.action.keeps(parameter(holder.name)) => false,
            FieldClass::Secret => !matches!(first, b't' | b'f' | b'n'),
            FieldClass::Parameter => is_number || matches!(first, b'{' | b'['),
            FieldClass::Query => is_number,
            _ => false,
        };
        let is_parts = holder.class == FieldClass::Query && matches!(first, b'{' | b'[');
        if !goes && !is_parts {
            return at;
        }
        let end = end_of_value(document, at);
        let value = &document[at..end];
        if is_parts {
            let mut parts = Pass { scrub: self.scrub, spare: self.spare, depth: self.depth, changed: false };
            parts.document(holder, value, out);
            self.changed |= parts.changed;
            return end;
        }
        let inside = value.strip_prefix(b"\"").and_then(|inside| inside.strip_suffix(b"\""));
        if inside.is_some_and(|inside| is_nothing(inside) || inside == MASK) {
            out.extend_from_slice(value);
            return end;
        }
        self.scrub.count(if holder.class == FieldClass::Secret { Rule::Secret } else { Rule::Parameter });
        self.changed = true;
        out.push(b'"');
        out.extend_from_slice(MASK);
        out.push(b'"');
        end
    }

    /// Copies what stands between strings; numbers of cards in it go.
    fn structure(&mut self, structure: &[u8], out: &mut Vec<u8>) {
        let Some(detectors) = self.scrub.rules.detectors.as_ref().filter(|each| each.look_at_numbers()) else {
            return out.extend_from_slice(structure);
        };
        let is_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let mut at = 0;
        while at < structure.len() {
            let length = structure[at..].iter().take_while(|byte| is_number(byte)).count();
            let (number, rest) = structure[at..].split_at(length);
            if detectors.is_card(number) {
                out.extend_from_slice(b"\"[card]\"");
                self.scrub.count(Rule::Card);
                self.changed = true;
            } else {
                out.extend_from_slice(number);
            }
            let other = rest.iter().position(is_number).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..other]);
            at += length + other;
        }
    }

    fn string(&mut self, holder: Holder<'_>, inside: &[u8], out: &mut Vec<u8>) {
        self.changed |= self.scrub_string(holder, inside, out);
    }

    fn scrub_string(&mut self, holder: Holder<'_>, inside: &[u8], out: &mut Vec<u8>) -> bool {
        let Self { scrub, spare, depth, .. } = self;
        if !holder.class.is_whole()
            && !scrub.rules.may_hold_as_text(inside, scrub.dumps)
            && !holds_document(scrub, inside)
        {
            out.extend_from_slice(inside);
            return false;
        }
        if memchr::memchr(b'\\', inside).is_none() {
            match scrub.value(holder, inside, out, *depth) {
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
        // The room is lent out below, for documents within this string.
        let resolved = std::mem::take(*spare);
        let outcome = scrub.value(holder, &resolved, out, *depth);
        match outcome {
            Outcome::Same => out.extend_from_slice(inside),
            Outcome::Part(ref part) => escape(&resolved[part.clone()], out),
            Outcome::Written => {
                spare.extend_from_slice(&out[start..]);
                out.truncate(start);
                escape(spare, out);
            }
        }
        **spare = resolved;
        outcome != Outcome::Same
    }
}

/// Whether a string without anything to redact in it may be a document in which a name is configured.
fn holds_document(scrub: &Scrub<'_>, inside: &[u8]) -> bool {
    scrub.rules.names.are_configured() && matches!(inside.trim_ascii_start().first(), Some(b'{' | b'['))
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

/// Where the value begins that follows a string which ends before `after`, if that string is a member's name.
fn value_of_member(document: &[u8], after: usize) -> Option<usize> {
    let blanks = |at: usize| at + document[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let colon = blanks(after);
    (document.get(colon) == Some(&b':')).then(|| blanks(colon + 1))
}

/// One past the value that begins at `at`.
fn end_of_value(document: &[u8], at: usize) -> usize {
    let mut levels = 0_usize;
    let mut end = at;
    while let Some(byte) = document.get(end) {
        match byte {
            b'"' => end = end_of_string(document, end + 1),
            b'{' | b'[' => levels += 1,
            b'}' | b']' | b',' if levels == 0 => return end,
            b'}' | b']' => levels -= 1,
            byte if byte.is_ascii_whitespace() && levels == 0 => return end,
            _ => {}
        }
        end = (end + 1).min(document.len());
        if levels == 0 && matches!(document.get(end.wrapping_sub(1)), Some(b'"' | b'}' | b']')) {
            return end;
        }
    }
    document.len()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::rules::Rules;
    use super::*;
    use crate::record::Kind;

    fn scrubbed(kind: Kind, document: &str) -> Option<String> {
        let (mut out, mut spare) = (b"kept".to_vec(), Vec::new());
        let rules = Rules::new(&Config::default());
        let mut with = Scrub { kind, ..Scrub::of_text(&rules) };
        let changed = scrub(&mut with, Holder::TEXT, document.as_bytes(), &mut out, &mut spare, 0);
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
        assert_eq!(scrubbed(Kind::Other, r#"{"url":"/x#t","host":"u@h"}"#), None);
    }

    #[test]
    fn clean_documents_are_left_alone() {
        for document in ["{}", r#"{"a":"what? who","b":"50 % of \"x\"","c":"?"}"#, "3", "", "\"", r#""\"#] {
            assert_eq!(scrubbed(Kind::Access, document), None, "{document}");
        }
    }
}
