//! The open batch: lines joined into Firehose records, within the limits of `PutRecordBatch`.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::Sequence;
use crate::journal::block::Block;
use crate::sink::Oversize;
use crate::sink::dead_letters::Letters;
use crate::sink::driver::{Batches, Ready, Shares};
use crate::telemetry::account::Reason;

use super::body::{ENTRY_FRAME_BYTES, GZIP_BYTES_MAX, HEAD_BYTES_MAX};
use super::form::Form;
use super::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Config, RECORD_BYTES_MAX};

/// A finished batch.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Joined>,
    pieces: Vec<Piece>,
    blocks: Vec<Held>,
}

/// A block that a batch has records of.
struct Held {
    sequence: Sequence,
    /// As it came, for dead letters.
    block: Arc<Block>,
    /// What is sent of its records, see [`Form::of`].
    framed: Arc<Block>,
}

/// A Firehose record: lines joined.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pieces: Range<usize>,
    pub(super) bytes: usize,
    pub(super) lines: u32,
    /// Of those, how many were cut.
    pub(super) truncated: u32,
}

/// Lines that stand together in a block.
#[derive(Clone, Copy)]
struct Piece {
    block: u32,
    start: u32,
    end: u32,
    /// A newline follows that is not in the block: the line was cut.
    newline: bool,
}

impl Batch {
    /// The bytes of a record: as they stand in a block, or put together in `scratch`.
    pub(super) fn data<'a>(&'a self, record: &Joined, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let pieces = &self.pieces[record.pieces.clone()];
        if let [piece] = pieces
            && !piece.newline
        {
            return self.bytes_of(piece);
        }
        scratch.clear();
        for piece in pieces {
            scratch.extend_from_slice(self.bytes_of(piece));
            if piece.newline {
                scratch.push(b'\n');
            }
        }
        scratch
    }

    /// The lines of those records.
    pub(super) fn shares<'r>(&self, records: impl IntoIterator<Item = &'r Joined>) -> Shares {
        let pieces = records.into_iter().flat_map(|record| &self.pieces[record.pieces.clone()]);
        let mut runs: Vec<(u32, Range<u32>)> = pieces.map(|piece| (piece.block, self.lines_of(piece))).collect();
        runs.sort_unstable_by_key(|(block, run)| (*block, run.start));
        let mut shares = Shares::default();
        for (block, run) in runs {
            shares.add_run(self.blocks[block as usize].sequence, run);
        }
        shares
    }

    /// Leaves the lines of a record as dead letters.
    pub(super) fn bury(&self, record: &Joined, letters: &mut Letters<'_>) {
        for piece in &self.pieces[record.pieces.clone()] {
            self.lines_of(piece).for_each(|line| letters.add(&self.blocks[piece.block as usize].block, line as usize));
        }
    }

    /// A record as two, each with about half its lines; none if it has only one.
    pub(super) fn halves(&mut self, record: &Joined) -> Option<[Joined; 2]> {
        let first_lines = record.lines / 2;
        if first_lines == 0 {
            return None;
        }
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        let mut left = first_lines;
        for piece in &self.pieces[record.pieces.clone()] {
            let lines = self.lines_of(piece);
            let taken = left.min(lines.len() as u32);
            left -= taken;
            if taken == 0 {
                second.push(*piece);
            } else if taken == lines.len() as u32 {
                first.push(*piece);
            } else {
                let end = self.blocks[piece.block as usize].framed.index[(lines.start + taken) as usize - 1].end;
                first.push(Piece { end, newline: false, ..*piece });
                second.push(Piece { start: end, ..*piece });
            }
        }
        let second_lines = record.lines - first_lines;
        Some([self.add(first, first_lines), self.add(second, second_lines)])
    }

    fn add(&mut self, pieces: Vec<Piece>, lines: u32) -> Joined {
        let bytes = pieces.iter().map(|piece| (piece.end - piece.start) as usize + usize::from(piece.newline)).sum();
        let truncated = pieces.iter().map(|piece| u32::from(piece.newline)).sum();
        let start = self.pieces.len();
        self.pieces.extend(pieces);
        Joined { pieces: start..self.pieces.len(), bytes, lines, truncated }
    }

    /// The records of the block that a piece holds. Only its last line can be cut.
    fn lines_of(&self, piece: &Piece) -> Range<u32> {
        let index = &self.blocks[piece.block as usize].framed.index;
        let first = index.partition_point(|entry| entry.end <= piece.start);
        let last = index.partition_point(|entry| entry.end < piece.end);
        first as u32..last as u32 + 1
    }

    fn bytes_of(&self, piece: &Piece) -> &[u8] {
        &self.blocks[piece.block as usize].framed.bytes[piece.start as usize..piece.end as usize]
    }

    fn push(&mut self, line: Line, join_bytes_max: usize) {
        let piece = Piece { block: self.blocks.len() as u32 - 1, ..line.piece };
        let truncated = u32::from(piece.newline);
        if let Some(record) = self.records.last_mut().filter(|record| record.bytes + line.bytes <= join_bytes_max) {
            record.bytes += line.bytes;
            record.lines += 1;
            record.truncated += truncated;
            match self.pieces.last_mut() {
                Some(last) if last.block == piece.block && last.end == piece.start && !last.newline => {
                    last.end = piece.end;
                    last.newline = piece.newline;
                }
                _ => {
                    self.pieces.push(piece);
                    record.pieces.end += 1;
                }
            }
            return;
        }
        self.pieces.push(piece);
        let pieces = self.pieces.len() - 1..self.pieces.len();
        self.records.push(Joined { pieces, bytes: line.bytes, lines: 1, truncated });
    }
}

/// A line to be added; its piece's block is not set yet.
struct Line {
    piece: Piece,
    bytes: usize,
}

/// The open batch of a sink.
pub(super) struct Open {
    sink: usize,
    form: Form,
    /// Greatest size of one record before base64, and before compression.
    record_bytes_max: usize,
    /// What compression may add to a record.
    growth_bytes: usize,
    join_bytes_max: usize,
    records_max: usize,
    bytes_max: usize,
    oversize: Oversize,
    timeout: Duration,
    batch: Batch,
    /// Bytes of all its records.
    bytes: usize,
    shares: Shares,
    due: Option<Instant>,
}

impl Open {
    pub(super) fn new(config: &Config, sink: usize) -> Self {
        let growth_bytes = if config.is_gzip { GZIP_BYTES_MAX } else { 0 };
        let record_bytes_max = RECORD_BYTES_MAX - growth_bytes;
        Self {
            sink,
            form: config.form.clone(),
            record_bytes_max,
            growth_bytes,
            join_bytes_max: config.record_bytes_max.min(record_bytes_max),
            records_max: config.batch_records_max.clamp(1, BATCH_RECORDS_MAX),
            bytes_max: config.batch_bytes_max.min(BATCH_BYTES_MAX),
            oversize: config.oversize,
            timeout: config.batch_timeout,
            batch: Batch::default(),
            bytes: 0,
            shares: Shares::default(),
            due: None,
        }
    }

    /// Line `i` of a block, cut or not; none if it is to be rejected.
    fn line(&self, block: &Block, i: usize) -> Option<Line> {
        let line = block.line(i);
        let end = block.index[i].end;
        let start = end - line.len() as u32;
        let piece = Piece { block: 0, start, end, newline: false };
        if line.len() <= self.record_bytes_max {
            return Some(Line { piece, bytes: line.len() });
        }
        if self.oversize == Oversize::Reject {
            return None;
        }
        let mut len = self.record_bytes_max - 1;
        while len > 0 && line[len] & 0b1100_0000 == 0b1000_0000 {
            len -= 1;
        }
        Some(Line { piece: Piece { end: start + len as u32, newline: true, ..piece }, bytes: len + 1 })
    }

    /// Whether one more line is within the limits; the first always is.
    fn fits(&self, line: &Line) -> bool {
        let Some(last) = self.batch.records.last() else { return true };
        let joins = last.bytes + line.bytes <= self.join_bytes_max;
        let records = self.batch.records.len() + usize::from(!joins);
        records <= self.records_max
            && body_bytes(self.bytes + line.bytes + records * self.growth_bytes, records) <= self.bytes_max
    }

    fn finish(&mut self, ready: &mut VecDeque<Ready<Batch>>) {
        if !self.batch.records.is_empty() {
            let payload = std::mem::take(&mut self.batch);
            ready.push_back(Ready { shares: std::mem::take(&mut self.shares), target: None, payload });
        }
        self.bytes = 0;
        self.due = None;
    }
}

/// What a body with so many bytes in so many records takes at most.
fn body_bytes(bytes: usize, records: usize) -> usize {
    // Of base64, each record may pad one group of its own.
    HEAD_BYTES_MAX + bytes.div_ceil(3) * 4 + records * (ENTRY_FRAME_BYTES + 4)
}

impl Batches for Open {
    type Payload = Batch;

    fn add(
        &mut self,
        sequence: Sequence,
        block: &Arc<Block>,
        ready: &mut VecDeque<Ready<Batch>>,
    ) -> Vec<(u32, Reason)> {
        let bit = 1 << self.sink;
        let now = Instant::now();
        let (framed, empty) = self.form.of(block, self.sink);
        let mut rejected = Vec::new();
        let mut empty = empty.into_iter().peekable();
        let mut follows = 0;
        for i in 0..block.index.len() {
            if block.index[i].sinks & bit == 0 {
                continue;
            }
            if let Some(nothing) = empty.next_if(|(record, _)| *record == i as u32) {
                rejected.push(nothing);
                follows = i as u32 + 1;
                continue;
            }
            let Some(line) = self.line(&framed, i) else {
                rejected.push((i as u32, Reason::Oversize));
                follows = i as u32 + 1;
                continue;
            };
            if !self.fits(&line) {
                self.finish(ready);
            }
            if self.batch.blocks.last().is_none_or(|last| last.sequence != sequence) {
                self.batch.blocks.push(Held { sequence, block: block.clone(), framed: framed.clone() });
            }
            self.shares.add(sequence, i as u32, follows);
            follows = i as u32 + 1;
            self.bytes += line.bytes;
            self.due.get_or_insert(now + self.timeout);
            self.batch.push(line, self.join_bytes_max);
        }
        rejected
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, until: Option<Instant>, ready: &mut VecDeque<Ready<Batch>>) {
        if self.due.is_some_and(|due| until.is_none_or(|until| due <= until)) {
            self.finish(ready);
        }
    }
}
