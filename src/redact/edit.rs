//! Replacement of parts of a text by fixed words, the work that most passes over running text have in common.

use std::ops::Range;

use super::Outcome;
use super::report::Rule;
use super::rules::Scrub;

/// One replacement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// What goes; not empty.
    pub range: Range<usize>,
    /// What takes its place; not the same.
    pub by: &'static [u8],
    /// Why.
    pub rule: Rule,
}

/// Applies the edits that `next` finds, each at the given place or behind it.
pub(super) fn rewrite(
    scrub: &mut Scrub<'_>,
    text: &[u8],
    out: &mut Vec<u8>,
    mut next: impl FnMut(&[u8], usize) -> Option<Edit>,
) -> Outcome {
    let mut copied = 0;
    while let Some(Edit { range, by, rule }) = next(text, copied) {
        debug_assert!(copied <= range.start && range.start < range.end && range.end <= text.len());
        scrub.count(rule);
        out.extend_from_slice(&text[copied..range.start]);
        out.extend_from_slice(by);
        copied = range.end;
    }
    if copied == 0 {
        return Outcome::Same;
    }
    out.extend_from_slice(&text[copied..]);
    Outcome::Written
}
