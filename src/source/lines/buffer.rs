//! Cuts what is read into whole lines. Only the tail behind the last newline is copied, to the front of the next buffer.
//!
//! No buffer holds more than `line_bytes_max` and a newline, so that no line in it can be too long; a buffer that is full without a newline is
//! such a line, and grows up to there.

use std::sync::mpsc::Receiver;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};

use crate::chunk::Position;

/// A buffer's usual size, in bytes.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Whole lines; the last one without newline only if it was cut, or the input ended there.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Bytes,
    /// How many of them were cut to the limit.
    pub(super) truncated: u64,
    /// The buffer that `bytes` lie in, to be used again.
    pub(super) whole: Bytes,
    /// Where a followed file stands behind them; set by who reads it.
    pub(super) position: Option<Position>,
}

/// The buffer being filled.
#[derive(Debug)]
pub(super) struct LineBuffer {
    buffer: BytesMut,
    /// Bytes in it, none of them a newline unless just read.
    filled: usize,
    /// The rest of a line that was cut is passed over.
    is_skipping: bool,
    line_bytes_max: usize,
    /// Buffers that came back.
    free: Receiver<BytesMut>,
}

impl LineBuffer {
    pub(super) fn new(line_bytes_max: usize, free: Receiver<BytesMut>) -> Self {
        let mut buffer = Self {
            buffer: BytesMut::new(),
            filled: 0,
            is_skipping: false,
            line_bytes_max: line_bytes_max.max(1),
            free,
        };
        buffer.buffer = buffer.fresh(0);
        buffer
    }

    /// Passes over everything up to the next newline.
    pub(super) fn skip_line(&mut self) {
        self.is_skipping = true;
    }

    /// The beginning of a line whose end has not come.
    pub(super) fn tail(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Where to read to; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were read to [`Self::space`]. Returns the whole lines there are now.
    pub(super) fn filled(&mut self, bytes: usize) -> Option<Lines> {
        let start = self.filled;
        self.filled = (start + bytes).min(self.buffer.len());
        if self.is_skipping {
            // A cut line left nothing behind, so all that is in the buffer was just read.
            let Some(newline) = memchr(b'\n', &self.buffer[..self.filled]) else {
                self.filled = 0;
                return None;
            };
            self.is_skipping = false;
            self.buffer.copy_within(newline + 1..self.filled, 0);
            self.filled -= newline + 1;
            return self.whole_lines(0);
        }
        self.whole_lines(start)
    }

    /// Hands on the lines that end at or behind `from`.
    fn whole_lines(&mut self, from: usize) -> Option<Lines> {
        if let Some(newline) = memrchr(b'\n', &self.buffer[from..self.filled]) {
            return Some(self.split(from + newline + 1, 0));
        }
        if self.filled < self.buffer.len() {
            return None;
        }
        let most = self.line_bytes_max + 1;
        if self.buffer.len() < most {
            let larger = (self.buffer.len() * 2).min(most);
            self.buffer.resize(larger, 0);
            return None;
        }
        let cut = character_boundary(&self.buffer[..self.line_bytes_max]);
        self.filled = cut;
        self.is_skipping = true;
        Some(self.split(cut, 1))
    }

    /// The input is at its end: a last line needs no newline.
    pub(super) fn finish(&mut self) -> Lines {
        self.is_skipping = false;
        self.split(self.filled, 0)
    }

    /// Hands on the front of the buffer; the tail goes to the front of another.
    fn split(&mut self, end: usize, truncated: u64) -> Lines {
        let tail = self.filled - end;
        let mut next = self.fresh(tail);
        next[..tail].copy_from_slice(&self.buffer[end..self.filled]);
        self.filled = tail;
        let whole = std::mem::replace(&mut self.buffer, next).freeze();
        Lines { bytes: whole.slice(..end), truncated, whole, position: None }
    }

    /// A buffer with room behind `tail` bytes, one that came back if possible.
    fn fresh(&self, tail: usize) -> BytesMut {
        let usual = BUFFER_BYTES.min(self.line_bytes_max + 1);
        let mut buffer = self.free.try_recv().unwrap_or_default();
        if buffer.len() > usual {
            // It grew for a giant.
            buffer = BytesMut::new();
        }
        buffer.resize(usual.max((tail * 2).min(self.line_bytes_max + 1)).max(tail + 1), 0);
        buffer
    }
}

/// Where to cut so that no UTF-8 character is cut: the end, or up to three bytes before.
pub(in crate::source) fn character_boundary(line: &[u8]) -> usize {
    let is_start = |byte: u8| byte & 0xc0 != 0x80;
    let Some(back) = line.iter().rev().take(4).position(|&byte| is_start(byte)) else { return line.len() };
    let start = line.len() - 1 - back;
    // Keep what is a whole character, or no UTF-8 anyway.
    match std::str::from_utf8(&line[start..]) {
        Err(error) if error.error_len().is_none() => start,
        _ => line.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads `input` in steps of the given sizes.
    fn read(input: &[u8], line_bytes_max: usize, steps: &[usize]) -> (Vec<u8>, u64) {
        let (used, free) = std::sync::mpsc::channel();
        let mut buffer = LineBuffer::new(line_bytes_max, free);
        let (mut out, mut truncated, mut rest) = (Vec::new(), 0, input);
        let mut take = |lines: Lines| {
            out.extend_from_slice(&lines.bytes);
            if lines.bytes.last().is_some_and(|&byte| byte != b'\n') {
                out.push(b'\n');
            }
            truncated += lines.truncated;
            drop(lines.bytes);
            used.send(lines.whole.try_into_mut().unwrap()).unwrap();
        };
        for step in steps.iter().cycle() {
            let space = buffer.space();
            assert!(!space.is_empty());
            let bytes = (*step).min(space.len()).min(rest.len());
            if rest.is_empty() {
                break;
            }
            space[..bytes].copy_from_slice(&rest[..bytes]);
            rest = &rest[bytes..];
            if let Some(lines) = buffer.filled(bytes) {
                take(lines);
            }
        }
        take(buffer.finish());
        (out, truncated)
    }

    /// What should come of it, line by line.
    fn expected(input: &[u8], line_bytes_max: usize) -> (Vec<u8>, u64) {
        let (mut out, mut truncated) = (Vec::new(), 0);
        let mut lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        for line in lines {
            truncated += u64::from(line.len() > line_bytes_max);
            out.extend_from_slice(&line[..line.len().min(line_bytes_max)]);
            out.push(b'\n');
        }
        (out, truncated)
    }

    proptest! {
        #[test]
        fn lines_come_whole_or_cut_at_the_limit(
            input in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 1 => Just(b'\n'), 1 => Just(b'b')], 0..400),
            line_bytes_max in 1_usize..40,
            steps in proptest::collection::vec(1_usize..30, 1..10),
        ) {
            prop_assert_eq!(read(&input, line_bytes_max, &steps), expected(&input, line_bytes_max));
        }
    }

    #[test]
    fn a_line_longer_than_the_usual_buffer_is_one_line() {
        let mut input = vec![b'x'; 3 * BUFFER_BYTES];
        input.extend_from_slice(b"\nshort\n");
        assert_eq!(read(&input, 1 << 20, &[100_000]), (input.clone(), 0));
        let (out, truncated) = read(&input, 2 * BUFFER_BYTES, &[100_000]);
        assert_eq!((out.len(), truncated), (2 * BUFFER_BYTES + 1 + 6, 1));
        assert!(out.ends_with(b"x\nshort\n"));
    }

    #[test]
    fn a_cut_spares_characters() {
        assert_eq!(character_boundary("aé".as_bytes()), 3);
        assert_eq!(character_boundary(&"aé".as_bytes()[..2]), 1);
        assert_eq!(character_boundary(&"a😀".as_bytes()[..4]), 1);
        assert_eq!(character_boundary(b"a\xff"), 2);
        assert_eq!(character_boundary(b"\x80\x80\x80\x80\x80"), 5);
    }
}
