//! Scrubbing of text whose structure is not known: pass after pass, each over what the last one left.
//!
//! 1. Every query, through to the blank or the quote that ends it; every fragment of a URL.
//! 2. User information of URLs. 3. Matrix parameters, if configured. 4. Values of headers. 5. Dumps of the environment.
//! 6. What detectors find.
//!
//! Text that is a JSON document as a whole is taken apart instead, and its strings scrubbed one by one.

use super::quotes::{Context, is_blank, is_quote};
use super::report::Rule;
use super::rules::{Holder, Scrub, detect, headers, users, variables};
use super::{Outcome, mark, matrix, nested, userinfo};

/// Documents within strings of documents are taken apart to this depth, and are running text beyond: bounds the recursion.
const DOCUMENTS_MAX: usize = 8;

/// Scrubs `text`, which `depth` documents hold. What cannot be said as a part of `text` is appended to `out`.
pub(super) fn scrub(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>, depth: usize) -> Outcome {
    let rules = scrub.rules;
    // A name in a document may be configured, and then its value goes whatever it is.
    if !rules.may_hold_as_text(text, scrub.dumps) && !rules.names.are_configured() {
        return Outcome::Same;
    }
    if depth < DOCUMENTS_MAX && nested::is_document(text) {
        let changed = nested::scrub(scrub, Holder::TEXT, text, out, &mut Vec::new(), depth + 1);
        return if changed { Outcome::Written } else { Outcome::Same };
    }
    // What goes may have been what told where something else ends: then all is read again, so that a second redaction has
    // nothing to do.
    scrub.rounds(text, out, running)
}

/// One round of all passes over text that shows no structure.
fn running(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    let start = out.len();
    let mut outcome = Outcome::Same;
    if scrub.rules.has_own {
        outcome = queries(scrub, text, out);
        if userinfo::may_hold(outcome.left(text, &out[start..])) {
            outcome = scrub.then(text, outcome, start, out, users);
        }
        if scrub.rules.matrix {
            outcome = scrub.then(text, outcome, start, out, paths);
        }
    }
    if scrub.dumps {
        outcome = scrub.then(text, outcome, start, out, headers);
        outcome = scrub.then(text, outcome, start, out, variables);
    }
    if scrub.rules.detectors.is_some() {
        outcome = scrub.then(text, outcome, start, out, detect);
    }
    outcome
}

/// Queries and fragments.
fn queries(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    let start = out.len();
    let mut context = Context::new();
    let mut fragments = Fragments::default();
    // Up to where the text was searched, fed to the context, and copied.
    let (mut searched, mut fed, mut copied) = (0, 0, 0);
    let mut changed = false;
    let mut next_mark = mark::find(text, 0);
    while let Some((begins, behind, plain)) = first(&mut next_mark, &mut fragments, text, searched) {
        context.feed(&text[fed..begins]);
        fed = begins;
        let end = context.end_of_query(text, behind);
        searched = end;
        if end == behind {
            continue;
        }
        let rule = if text[begins] == b'#' { Rule::Fragment } else { Rule::Query };
        if copied == 0 && end == text.len() && scrub.rules.action.removes(plain) {
            scrub.count(rule);
            return Outcome::Part(0..begins);
        }
        out.extend_from_slice(&text[copied..begins]);
        let written = out.len();
        scrub.rules.action.write(plain, &text[behind..end], out);
        if out[written..] != text[begins..end] {
            changed = true;
            scrub.count(rule);
        }
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

/// What comes first at `from` or behind, a mark or a fragment: where it begins, what follows it, and whether it is a plain `?`.
fn first(
    mark: &mut Option<mark::Mark>,
    fragments: &mut Fragments,
    text: &[u8],
    from: usize,
) -> Option<(usize, usize, bool)> {
    if mark.is_some_and(|mark| mark.start < from) {
        *mark = mark::find(text, from);
    }
    let fragment = fragments.next(text, from);
    match *mark {
        Some(mark) if fragment.is_none_or(|fragment| mark.start < fragment) => Some((mark.start, mark.end, mark.plain)),
        _ => fragment.map(|fragment| (fragment, fragment + 1, false)),
    }
}

/// Finds the `#` of one URL after the other: behind `://` in the same run of characters, or in a path (`/cb#access_token=x`) if
/// what follows looks like a parameter.
#[derive(Default)]
struct Fragments {
    /// Up to where the text was read.
    read: usize,
    /// The last find; `None` before the first, and `Some(None)` when there is no more.
    last: Option<Option<usize>>,
    /// Whether `://` stands in the run of characters in hand.
    in_url: bool,
    /// Where that run, or a part of it, begins that may be a path.
    part: usize,
}

impl Fragments {
    fn next(&mut self, text: &[u8], from: usize) -> Option<usize> {
        loop {
            match self.last {
                Some(None) => return None,
                Some(Some(at)) if at >= from => return Some(at),
                _ => self.last = Some(self.search(text)),
            }
        }
    }

    fn search(&mut self, text: &[u8]) -> Option<usize> {
        loop {
            let at = self.read + memchr::memchr(b'#', text.get(self.read..)?)?;
            self.advance(text, at);
            let in_path = || text.get(self.part) == Some(&b'/') && begins_with_parameter(&text[at + 1..]);
            if self.in_url || in_path() {
                return Some(at);
            }
        }
    }

    /// Reads on to the `#` at that place.
    fn advance(&mut self, text: &[u8], at: usize) {
        let read = &text[self.read..at];
        let ends_run = |byte: &u8| is_blank(*byte) || is_quote(*byte) || matches!(byte, b'<' | b'>');
        let run = read.iter().rposition(ends_run).map(|last| self.read + last + 1);
        if let Some(run) = run {
            self.in_url = false;
            self.part = run;
        }
        let ends_part = |byte: &u8| b"=,;:([{|".contains(byte);
        let part = text[run.unwrap_or(self.read)..at].iter().rposition(ends_part);
        if let Some(last) = part {
            self.part = run.unwrap_or(self.read) + last + 1;
        }
        // What was read before may end in the middle of it.
        let begin = run.unwrap_or(self.read.saturating_sub(2));
        self.in_url |= memchr::memmem::find(&text[begin..at], b"://").is_some();
        self.read = at + 1;
    }
}

fn begins_with_parameter(text: &[u8]) -> bool {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-.%!/".contains(byte);
    let length = text.iter().take(64).take_while(is_name).count();
    length > 0 && text.get(length) == Some(&b'=')
}

/// Matrix parameters.
fn paths(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    let start = out.len();
    let (mut at, mut copied, mut changed) = (0, 0, false);
    while let Some(path) = matrix::next_path(text, at) {
        out.extend_from_slice(&text[copied..path.start]);
        if matrix::write_path(&scrub.rules.action, &text[path.clone()], out) {
            changed = true;
            scrub.count(Rule::Matrix);
        }
        (at, copied) = (path.end, path.end);
    }
    if !changed {
        out.truncate(start);
        return Outcome::Same;
    }
    out.extend_from_slice(&text[copied..]);
    Outcome::Written
}
