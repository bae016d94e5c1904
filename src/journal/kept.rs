//! What is on disk, as the state knows it: segments with what each sink still needs of them, and what is to be said there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use super::block::SinkSet;
use super::disk::frame::Fact;
use super::disk::recover::{Mapping, Recovered};
use super::disk::segment::Segment;
use super::span::SpanSet;
use super::{Sequence, Span};

/// What a segment still holds for one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Blocks it has not read.
    pub unread_blocks: u32,
    /// Records in them.
    pub unread_records: u64,
    /// Blocks it has not settled.
    pub open_blocks: u32,
}

/// A segment, and what is still needed of it.
pub struct Kept {
    pub segment: Segment,
    /// How its numbers are to be read, if another run wrote it.
    pub mapping: Option<Arc<Mapping>>,
    /// Number of the first block it may hold.
    pub first: Sequence,
    /// One past its last block.
    pub end: Sequence,
    pub shares: Vec<Share>,
    /// Bytes of it that a sync has made durable.
    pub synced_bytes: u64,
}

impl Kept {
    /// Whether any sink has still to settle a block of it.
    pub fn is_needed(&self) -> bool {
        self.shares.iter().any(|share| share.open_blocks > 0)
    }
}

/// What is on disk.
pub struct Disk {
    /// In order; the last one is being written to, unless an error ended that.
    pub segments: VecDeque<Kept>,
    /// Bytes of all.
    pub bytes: u64,
    /// Whether the last segment is being written to.
    pub is_writing: bool,
    /// Blocks below are on disk if anyone still needs them.
    pub written: Sequence,
    /// Blocks below may be on disk only.
    pub evicted: Sequence,
    /// Blocks below are to be written, whatever the mode.
    pub spill_to: Sequence,
    /// Facts to be written.
    pub facts: Vec<Fact>,
    /// How many notes were put.
    pub notes_put: u64,
    /// They are to be durable.
    pub is_sync_wanted: bool,
    /// By sink.
    pub notes: Vec<BTreeMap<String, Vec<u8>>>,
    /// By sink: settled records above its watermark.
    pub settled: Vec<SpanSet>,
    /// Blocks that left memory unsettled while nothing could be written: they are in no segment, though their neighbours may be.
    pub ghosts: BTreeSet<Sequence>,
    /// Files to be removed.
    pub garbage: Vec<PathBuf>,
    /// Why nothing is written at present.
    pub degraded: Option<String>,
    pub blocks_written: u64,
    pub syncs: u64,
    pub io_errors: u64,
}

impl Disk {
    /// What an earlier run left.
    pub fn restored(recovered: Recovered) -> Self {
        let mut segments = VecDeque::new();
        for left in recovered.segments {
            let share = |&(blocks, records): &(u32, u64)| Share {
                unread_blocks: blocks,
                unread_records: records,
                open_blocks: blocks,
            };
            segments.push_back(Kept {
                synced_bytes: left.segment.bytes,
                segment: left.segment,
                mapping: Some(left.mapping),
                first: left.first,
                end: left.last + 1,
                shares: left.unread.iter().map(share).collect(),
            });
        }
        Self {
            bytes: segments.iter().map(|kept| kept.segment.bytes).sum(),
            segments,
            is_writing: false,
            written: recovered.end,
            evicted: recovered.end,
            spill_to: 0,
            facts: Vec::new(),
            notes_put: 0,
            is_sync_wanted: false,
            notes: recovered.notes,
            settled: recovered.settled,
            ghosts: BTreeSet::new(),
            garbage: recovered.empty,
            degraded: None,
            blocks_written: 0,
            syncs: 0,
            io_errors: 0,
        }
    }

    /// Says something that is to be known after a restart; while nothing is written it waits for the next snapshot.
    pub fn push_fact(&mut self, fact: Fact) {
        if self.degraded.is_some() {
            return;
        }
        match (&fact, self.facts.last_mut()) {
            (Fact::Settled { sink, spans }, Some(Fact::Settled { sink: last, spans: before })) if sink == last => {
                for &span in spans {
                    match before.last_mut() {
                        Some(before) if before.end == span.first => before.end = span.end,
                        _ => before.push(span),
                    }
                }
            }
            (Fact::Position { source, position }, Some(Fact::Position { source: last, position: before }))
                if source == last && (position.device, position.inode) == (before.device, before.inode) =>
            {
                *before = *position;
            }
            _ => self.facts.push(fact),
        }
    }

    /// Sinks have settled those records, or will never get them.
    pub fn settle(&mut self, sinks: SinkSet, span: Span) {
        for sink in bits(sinks) {
            self.settled[sink].insert(span);
            self.push_fact(Fact::Settled { sink: sink as u16, spans: vec![span] });
        }
    }

    /// What the segment of that block holds for a sink.
    pub fn share(&mut self, sequence: Sequence, sink: usize) -> Option<&mut Share> {
        if sequence >= self.written {
            return None;
        }
        let place = self.segments.partition_point(|kept| kept.first <= sequence).checked_sub(1)?;
        let kept = self.segments.get_mut(place)?;
        (sequence < kept.end).then(|| &mut kept.shares[sink])
    }

    /// The first segment that holds unread blocks of a sink, from that number on.
    pub fn unread_segment(&self, sink: usize, next: Sequence) -> Option<&Kept> {
        self.segments.iter().find(|kept| kept.end > next && kept.shares[sink].unread_blocks > 0)
    }

    /// Whether a sink has to look on disk before it looks in memory.
    pub fn holds_for(&self, sink: usize, next: Sequence) -> bool {
        self.unread_segment(sink, next).is_some_and(|kept| kept.first < self.evicted)
    }

    /// Forgets segments that nobody needs; their files are removed later. The last one stays: it says what is known of all.
    pub fn collect(&mut self) {
        let last = self.segments.len().saturating_sub(usize::from(self.is_writing));
        if self.segments.iter().take(last).all(Kept::is_needed) {
            return;
        }
        let mut place = 0;
        let (garbage, bytes) = (&mut self.garbage, &mut self.bytes);
        self.segments.retain(|kept| {
            place += 1;
            let is_kept = place > last || kept.is_needed();
            if !is_kept {
                *bytes -= kept.segment.bytes;
                garbage.push(kept.segment.path.clone());
            }
            is_kept
        });
    }
}

/// The numbers of the sinks in a set.
pub fn bits(sinks: SinkSet) -> impl Iterator<Item = usize> {
    (0..SinkSet::BITS as usize).filter(move |sink| sinks & (1 << sink) != 0)
}
