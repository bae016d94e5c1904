//! The multiline parser `envoy`: records of Envoy's own log, or of the agent that runs it, that take several lines.
//!
//! ```text
//! [2023-06-13 13:28:27.724][38][debug][http] [source/…/conn_manager_impl.cc:1] [C4] request headers complete (end_stream=true):
//! ':authority', 'localhost:8080'
//! ':path', '/get?token=x'                      no prefix of their own
//! ```
//!
//! Called by [`super`] for each line, in place of rules. A record begins with a line whose message announces more: it ends with
//! a colon, a bracket, a comma or an equals sign, with a pair of a header dump, with a blank behind the place in the sources (the
//! message begins on the next line), or holds a field of the agent that is not closed. What follows belongs to it, as long as it has
//! no beginning of its own: no time, no brackets, no object. Nothing joins an access log, and no access log joins anything.
//!
//! Wrappers ([`wrapper`]) are looked through: where the first line has some, each further line must have as many, which are taken
//! off. The state of an open record is that number.

use memchr::memmem;

use super::Verdict;
use crate::classify::{Class, class_of};
use crate::envoy::wrapper;

/// Wrappers around one line.
const LAYERS_MAX: usize = 4;

/// What the line is, given the state of the record that is open.
pub(super) fn judge(line: &[u8], state: Option<usize>) -> Verdict {
    if let Some(state) = state
        && let Some(inner) = within(line, state)
        && class_of(inner) == Class::Other
        && !begins_itself(inner)
    {
        return Verdict::Continues { state, is_last: false, newline: true };
    }
    let mut inner = line;
    for state in 0..=LAYERS_MAX {
        match class_of(inner) {
            Class::EnvoyApplication { .. } | Class::Agent { .. } if opens(inner) => {
                return Verdict::Starts { state, is_last: false };
            }
            Class::Other => {}
            _ => return Verdict::NotMine,
        }
        match wrapper::take_off(inner) {
            Some(wrapped) if !wrapped.is_piece => inner = wrapped.line,
            _ => return Verdict::NotMine,
        }
    }
    Verdict::NotMine
}

/// What of a further line is joined.
pub(super) fn within(line: &[u8], layers: usize) -> Option<&[u8]> {
    (0..layers).try_fold(line, |line, _| wrapper::take_off(line).map(|wrapped| wrapped.line))
}

/// The stream that the wrapper names.
pub(super) fn stream(line: &[u8]) -> Option<&[u8]> {
    wrapper::take_off(line)?.source
}

/// Whether more lines may follow.
fn opens(line: &[u8]) -> bool {
    let end = line.trim_ascii_end();
    let is_begun_only = end.len() < line.len() && end.ends_with(b"]");
    let is_announced = matches!(end.last(), Some(b':' | b'=' | b',' | b'{' | b'[' | b'('));
    let is_dump = end.ends_with(b"'") && memmem::rfind(end, b"', '").is_some();
    let is_open_field = memmem::rfind(end, b"[Key: ").is_some_and(|at| !end[at..].contains(&b']'));
    is_begun_only || is_announced || is_dump || is_open_field
}

/// Whether the line begins as a record of somebody's: with a time, or with one in brackets.
fn begins_itself(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"[").unwrap_or(line);
    let is_date = |text: &[u8]| {
        text.iter()
            .zip(b"0000-00-00")
            .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    line.starts_with(b"time=\"") || line.starts_with(b"ACCESS [") || line.get(..10).is_some_and(is_date)
}
