//! Scrubbing of text whose structure is not known: every query in it, through to the blank or the quote that ends it.

use super::action::Action;
use super::holds::Holds;
use super::quotes::Context;
use super::{Outcome, mark, nested};
use crate::record::Kind;

/// Documents within strings of documents are taken apart to this depth, and are running text beyond: bounds the recursion.
const DOCUMENTS_MAX: usize = 8;

/// Scrubs `text`, which `depth` documents hold. What cannot be said as a part of `text` is appended to `out`.
pub(super) fn scrub(action: &Action, text: &[u8], out: &mut Vec<u8>, depth: usize) -> Outcome {
    if depth < DOCUMENTS_MAX && mark::may_hold(text) && nested::is_document(text) {
        let changed = nested::scrub(action, Kind::Other, Holds::Text, text, out, &mut Vec::new(), depth + 1);
        return if changed { Outcome::Written } else { Outcome::Same };
    }
    scrub_running(action, text, out)
}

/// Scrubs text that shows no structure.
fn scrub_running(action: &Action, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    let start = out.len();
    let mut context = Context::new();
    // Up to where the text was searched, fed to the context, and copied.
    let (mut searched, mut fed, mut copied) = (0, 0, 0);
    let mut changed = false;
    while let Some(mark) = mark::find(text, searched) {
        context.feed(&text[fed..mark.start]);
        fed = mark.start;
        let end = context.end_of_query(text, mark.end);
        searched = end;
        if end == mark.end {
            continue;
        }
        if copied == 0 && end == text.len() && action.removes(mark.plain) {
            return Outcome::Part(0..mark.start);
        }
        out.extend_from_slice(&text[copied..mark.start]);
        let written = out.len();
        action.write(mark.plain, &text[mark.end..end], out);
        changed |= out[written..] != text[mark.start..end];
        // The context sees what goes out, so that a second scrub finds the same ends.
        context.feed(&out[written..]);
        (fed, copied) = (end, end);
    }
    if !changed {
        out.truncate(start);
        return Outcome::Same;
    }
    out.extend_from_slice(&text[copied..]);
    Outcome::Written
}
