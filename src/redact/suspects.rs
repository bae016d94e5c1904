//! Which bytes of a record redaction has to look at: one search over the log line for all of its fields.

use std::ops::Range;

use super::mark::FULL_WIDTH_BYTE;
use super::rules::Rules;

/// The part of the log line, by address, in which bytes stand that redaction has to look at.
pub(super) struct Suspects<'r> {
    rules: &'r Rules,
    line: Range<usize>,
    dirty: Range<usize>,
    /// Whether a detector may find something in the line.
    detect: bool,
}

impl<'r> Suspects<'r> {
    pub fn of(rules: &'r Rules, line: &[u8]) -> Self {
        let start = line.as_ptr().addr();
        let first = [
            memchr::memchr3(b'?', b'%', b'\\', line),
            memchr::memchr3(b'#', b'@', FULL_WIDTH_BYTE, line),
            if rules.matrix { memchr::memchr(b';', line) } else { None },
        ];
        let dirty = match first.into_iter().flatten().min() {
            Some(first) => start + first..start + last(rules, line) + 1,
            None => 0..0,
        };
        let detect = rules.detectors.as_ref().is_some_and(|detectors| detectors.may_hold(line));
        Self { rules, line: start..start + line.len(), dirty, detect }
    }

    /// Whether these bytes may hold something to redact, header dumps aside. Within the line no byte is read for it.
    pub fn include(&self, bytes: &[u8]) -> bool {
        let start = bytes.as_ptr().addr();
        let end = start + bytes.len();
        if self.line.start <= start && end <= self.line.end {
            return self.detect || (start < self.dirty.end && self.dirty.start < end);
        }
        self.rules.may_hold(bytes)
    }

    /// Whether numbers may have to go.
    pub fn look_at_numbers(&self) -> bool {
        self.rules.detectors.as_ref().is_some_and(|detectors| detectors.look_at_numbers())
    }
}

/// The last byte of a line that has one.
fn last(rules: &Rules, line: &[u8]) -> usize {
    let last = [
        memchr::memrchr3(b'?', b'%', b'\\', line),
        memchr::memrchr3(b'#', b'@', FULL_WIDTH_BYTE, line),
        if rules.matrix { memchr::memrchr(b';', line) } else { None },
    ];
    last.into_iter().flatten().max().unwrap_or_default()
}
