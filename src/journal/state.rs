//! What the journal knows: blocks in memory, where each sink stands, and what is on disk. Everything here is done under one lock and
//! takes no time: no input or output, no waiting.
//!
//! ```text
//! sequence   … evicted ……………… written ……………… end
//!            │ on disk only     │ on disk and   │ in memory only
//!            │ (or in a sink's  │ in memory     │
//!            │  hands)          │               │
//! ```
//!
//! A block is written in order of its number, so that segments are in order too. It leaves memory when no sink needs it from
//! there: released and settled by all; or released by all and written; or written and waited for only (*evicted*), to be read
//! again from disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::block::{Block, SinkSet};
use super::disk::frame::Fact;
use super::disk::recover::Recovered;
use super::kept::{Disk, bits};
use super::track::Tracker;
use super::{Config, Persist, Place, Sequence, Snapshot, Span};
use crate::chunk::{Position, SourceId};
use crate::telemetry::account::{Ledger, Reason};

/// A block in memory: `unread` is a part of `held`, and that of `open`.
pub struct Slot {
    pub block: Arc<Block>,
    pub cost_bytes: usize,
    pub received_ms: i64,
    /// Sinks that have not read it.
    pub unread: SinkSet,
    /// Sinks that have not released it.
    pub held: SinkSet,
    /// Sinks that have not settled it.
    pub open: SinkSet,
}

/// Where one sink stands.
#[derive(Default)]
pub struct Cursor {
    /// What it reads next.
    pub next: Sequence,
    /// Blocks that it has read and not settled, in order; one that is settled out of order stays, marked, until all before it
    /// are. Eight bytes a block, however long a sink keeps it open.
    pub open: VecDeque<OpenBlock>,
}

/// A sequence number, and in its highest bit whether the block is settled.
#[derive(Clone, Copy)]
pub struct OpenBlock(pub u64);

impl OpenBlock {
    const SETTLED: u64 = 1 << 63;

    pub fn sequence(self) -> Sequence {
        self.0 & !Self::SETTLED
    }

    pub fn is_settled(self) -> bool {
        self.0 & Self::SETTLED != 0
    }
}

pub struct State {
    pub config: Config,
    pub ledgers: Vec<Arc<Ledger>>,
    pub slots: BTreeMap<Sequence, Slot>,
    /// The next block's sequence number.
    pub end: Sequence,
    /// Bytes of the blocks in memory.
    pub bytes: usize,
    pub cursors: Vec<Cursor>,
    pub writers: usize,
    /// By source; none for those that follow no file.
    pub trackers: Vec<Option<Tracker>>,
    pub disk: Option<Disk>,
    /// Why there is none, though there should be.
    pub refused: Option<String>,
    /// The disk's thread is to end when all is written.
    pub is_closing: bool,
    /// The disk's thread is at work.
    pub is_busy: bool,
    /// When blocks came: one for each second.
    times: VecDeque<(Sequence, i64)>,
}

impl State {
    pub fn new(config: Config, ledgers: Vec<Arc<Ledger>>) -> Self {
        let cursors = ledgers.iter().map(|_| Cursor::default()).collect();
        Self {
            config,
            ledgers,
            slots: BTreeMap::new(),
            end: 0,
            bytes: 0,
            cursors,
            writers: 1,
            trackers: Vec::new(),
            disk: None,
            refused: None,
            is_closing: false,
            is_busy: false,
            times: VecDeque::new(),
        }
    }

    /// Takes over what an earlier run left on disk; its records are received by their sinks once more.
    pub fn restore(&mut self, mut recovered: Recovered) {
        for left in &recovered.segments {
            for (ledger, (_, records)) in self.ledgers.iter().zip(&left.unread) {
                ledger.receive(*records);
            }
        }
        self.end = recovered.end;
        self.times = std::mem::take(&mut recovered.times);
        self.disk = Some(Disk::restored(recovered));
    }

    /// The disk, if it is being written to.
    pub fn healthy(&self) -> Option<&Disk> {
        self.disk.as_ref().filter(|disk| disk.degraded.is_none() && self.config.persist != Persist::Never)
    }

    /// Whether a block is as durable as it will be as soon as it is here.
    pub fn is_durable_at_once(&self) -> bool {
        self.config.persist != Persist::Always || self.healthy().is_none()
    }

    /// Blocks below are as durable as the mode promises, and are given to sinks.
    pub fn visible_end(&self) -> Sequence {
        match self.healthy() {
            Some(disk) if self.config.persist == Persist::Always => disk.written,
            _ => self.end,
        }
    }

    /// Whether that block is on disk, should anyone still need it.
    fn is_written(&self, sequence: Sequence) -> bool {
        self.disk.as_ref().is_some_and(|disk| sequence < disk.written)
    }

    /// Puts a block at the end.
    pub fn push(&mut self, block: Arc<Block>, cost_bytes: usize, now_ms: i64) -> Sequence {
        let sequence = self.end;
        let sinks = block.sinks;
        self.end += 1;
        self.bytes += cost_bytes;
        if self.times.back().is_none_or(|(_, time)| now_ms >= time + 1000) {
            self.times.push_back((sequence, now_ms));
        }
        if let Some(Some(tracker)) = self.trackers.get_mut(usize::from(block.source)) {
            tracker.push(sequence, sinks, block.position);
        }
        for (sink, ledger) in self.ledgers.iter().enumerate() {
            if sinks & (1 << sink) != 0 {
                ledger.receive(block.records_for(sink) as u64);
            }
        }
        let slot = Slot { block, cost_bytes, received_ms: now_ms, unread: sinks, held: sinks, open: sinks };
        self.slots.insert(sequence, slot);
        sequence
    }

    /// The source stands at `position`, and what it read before leads to no further block.
    pub fn pass(&mut self, source: SourceId, position: Position) {
        if let Some(Some(tracker)) = self.trackers.get_mut(usize::from(source))
            && tracker.pass(position)
            && let Some(disk) = &mut self.disk
        {
            disk.push_fact(Fact::Position { source, position });
        }
    }

    /// Sinks are done with a block: its file may be read on behind it after a restart. Of which source it is, is not known of
    /// blocks that have left memory.
    pub fn track(&mut self, sequence: Sequence, source: Option<SourceId>, sinks: SinkSet) {
        let sources = source.map_or(0..self.trackers.len(), |source| usize::from(source)..usize::from(source) + 1);
        for source in sources {
            if let Some(Some(tracker)) = self.trackers.get_mut(source) {
                tracker.settle(sequence, sinks);
                self.advance(source);
            }
        }
    }

    fn advance(&mut self, source: usize) {
        let Some(Some(tracker)) = self.trackers.get_mut(source) else { return };
        let written = self.disk.as_ref().map_or(0, |disk| disk.written);
        let moved = tracker.advance(written);
        if let Some(disk) = &mut self.disk {
            for position in moved {
                disk.push_fact(Fact::Position { source: source as SourceId, position });
            }
        }
    }

    pub fn remove(&mut self, sequence: Sequence) {
        if let Some(slot) = self.slots.remove(&sequence) {
            self.bytes -= slot.cost_bytes;
        }
    }

    /// The number of the next block in memory for a sink; nothing if it has to look on disk first, or to wait.
    pub fn next_in_memory(&self, sink: usize) -> Option<Sequence> {
        let next = self.cursors[sink].next;
        let mut slots = self.slots.range(next..self.visible_end().max(next));
        slots.find(|(_, slot)| slot.unread & (1 << sink) != 0).map(|(sequence, _)| *sequence)
    }

    /// A sink reads a block that is in memory.
    pub fn take(&mut self, sink: usize, sequence: Sequence) -> Option<Arc<Block>> {
        let bit = 1 << sink;
        let slot = self.slots.get_mut(&sequence)?;
        slot.unread &= !bit;
        slot.held |= bit;
        slot.open |= bit;
        let block = slot.block.clone();
        self.taken(sink, sequence, block.records_for(sink) as u64);
        Some(block)
    }

    /// A sink reads a block that was on disk only.
    pub fn take_from_disk(
        &mut self,
        sink: usize,
        sequence: Sequence,
        block: Block,
        received_ms: i64,
    ) -> Option<Arc<Block>> {
        if sequence < self.cursors[sink].next {
            // Dropped while it was being read.
            return None;
        }
        if self.slots.contains_key(&sequence) {
            return self.take(sink, sequence);
        }
        let cost_bytes = block.cost_bytes();
        let block = Arc::new(block);
        // What comes back takes the place of what only waits; sinks hold no more than their part.
        while self.bytes + cost_bytes > self.config.memory_bytes_max && self.evict_oldest() {}
        self.bytes += cost_bytes;
        let bit = 1 << sink;
        let slot = Slot { block: block.clone(), cost_bytes, received_ms, unread: 0, held: bit, open: bit };
        self.slots.insert(sequence, slot);
        self.taken(sink, sequence, block.records_for(sink) as u64);
        Some(block)
    }

    fn taken(&mut self, sink: usize, sequence: Sequence, records: u64) {
        if let Some(share) = self.disk.as_mut().and_then(|disk| disk.share(sequence, sink)) {
            share.unread_blocks = share.unread_blocks.saturating_sub(1);
            share.unread_records = share.unread_records.saturating_sub(records);
        }
        let cursor = &mut self.cursors[sink];
        cursor.next = sequence + 1;
        cursor.open.push_back(OpenBlock(sequence));
    }

    /// A segment was read to its end for a sink: what it should have held besides cannot be read any more.
    pub fn segment_exhausted(&mut self, sink: usize, first: Sequence) {
        let Some(disk) = &mut self.disk else { return };
        let Some(kept) = disk.segments.iter_mut().find(|kept| kept.first == first) else { return };
        let share = &mut kept.shares[sink];
        if share.unread_blocks > 0 {
            let records = share.unread_records;
            tracing::error!(
                file = %kept.segment.path.display(), sink = &*self.ledgers[sink].name, records,
                "journal: records in a segment cannot be read any more"
            );
            self.ledgers[sink].lose(Reason::Corrupt, records);
            share.open_blocks -= share.unread_blocks;
            (share.unread_blocks, share.unread_records) = (0, 0);
        }
        self.cursors[sink].next = self.cursors[sink].next.max(kept.end);
        self.collect();
    }

    /// The sink keeps what it needs of that block elsewhere.
    pub fn release(&mut self, sink: usize, sequence: Sequence) {
        let is_spilling = self.config.persist == Persist::Overflow && self.healthy().is_some();
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        slot.held &= !(1 << sink);
        if slot.held == 0
            && slot.open != 0
            && is_spilling
            && let Some(disk) = self.disk.as_mut().filter(|disk| sequence >= disk.written)
            && disk.bytes + slot.cost_bytes as u64 <= self.config.disk_bytes_max
        {
            // Nobody could give it back after a restart.
            disk.spill_to = disk.spill_to.max(sequence + 1);
            return;
        }
        self.remove_if_done(sequence);
    }

    /// Every record of that block for that sink has its fate.
    pub fn settle(&mut self, sink: usize, sequence: Sequence) {
        let bit = 1 << sink;
        let open = &mut self.cursors[sink].open;
        let Ok(place) = open.binary_search_by_key(&sequence, |open| open.sequence()) else { return };
        if open[place].is_settled() {
            return;
        }
        open[place].0 |= OpenBlock::SETTLED;
        let is_first = place == 0;
        while open.front().is_some_and(|open| open.is_settled()) {
            open.pop_front();
        }
        let source = self.slots.get_mut(&sequence).map(|slot| {
            slot.held &= !bit;
            slot.open &= !bit;
            slot.block.source
        });
        self.track(sequence, source, bit);
        let watermark = self.watermark(sink);
        if let Some(disk) = &mut self.disk {
            let is_ghost = disk.ghosts.contains(&sequence);
            if let Some(share) = disk.share(sequence, sink).filter(|_| !is_ghost) {
                share.open_blocks = share.open_blocks.saturating_sub(1);
            }
            if is_ghost && watermark > sequence {
                let lowest = self.cursors.iter().filter_map(|cursor| cursor.open.front()).map(|open| open.sequence());
                let lowest = lowest.min().unwrap_or(self.end);
                disk.ghosts = disk.ghosts.split_off(&lowest);
            }
            if is_first {
                disk.settled[sink].remove_below(watermark);
            } else {
                disk.settled[sink].insert(Span::block(sequence));
            }
            if sequence < disk.written {
                disk.push_fact(Fact::Settled { sink: sink as u16, spans: vec![Span::block(sequence)] });
            }
        }
        self.remove_if_done(sequence);
        self.collect();
    }

    /// Records of blocks that are not settled as a whole are.
    pub fn settle_part(&mut self, sink: usize, spans: &[Span]) {
        let Some(disk) = &mut self.disk else { return };
        for &span in spans {
            disk.settled[sink].insert(span);
        }
        let written = disk.written;
        let spans: Vec<Span> = spans.iter().copied().filter(|span| span.first.sequence < written).collect();
        if !spans.is_empty() {
            disk.push_fact(Fact::Settled { sink: sink as u16, spans });
        }
    }

    /// The lowest number a sink has not settled.
    pub fn watermark(&self, sink: usize) -> Sequence {
        let cursor = &self.cursors[sink];
        if let Some(open) = cursor.open.front() {
            return open.sequence();
        }
        if self.disk.as_ref().is_some_and(|disk| cursor.next < disk.evicted && disk.holds_for(sink, cursor.next)) {
            return cursor.next;
        }
        let unread = self.slots.range(cursor.next..).find(|(_, slot)| slot.unread & (1 << sink) != 0);
        unread.map_or(self.end, |(sequence, _)| *sequence)
    }

    pub fn remove_if_done(&mut self, sequence: Sequence) {
        let is_written = self.is_written(sequence);
        let Some(slot) = self.slots.get(&sequence).filter(|slot| slot.held == 0) else { return };
        let is_unkept = slot.open != 0 && !is_written;
        if is_unkept && let Some(disk) = self.disk.as_mut().filter(|_| self.config.persist != Persist::Never) {
            disk.ghosts.insert(sequence);
        }
        self.remove(sequence);
    }

    /// Lets go of what only the disk could keep, and cannot.
    pub fn abandon_released(&mut self) {
        let released: Vec<Sequence> =
            self.slots.iter().filter(|(_, slot)| slot.held == 0).map(|(sequence, _)| *sequence).collect();
        for sequence in released {
            self.remove_if_done(sequence);
        }
    }

    /// Forgets segments that nobody needs; their files are removed later.
    pub fn collect(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.collect();
        }
    }

    /// A block has been written: counts it to its segment, and says what came to pass meanwhile.
    pub fn wrote(&mut self, sequence: Sequence, open_then: SinkSet, block: &Block) {
        let open_now = self.slots.get(&sequence).map_or(0, |slot| slot.open);
        let unread_now = self.slots.get(&sequence).map_or(0, |slot| slot.unread);
        let Some(disk) = &mut self.disk else { return };
        disk.blocks_written += 1;
        let Some(kept) = disk.segments.back_mut() else { return };
        kept.end = sequence + 1;
        for sink in bits(open_now) {
            let share = &mut kept.shares[sink];
            share.open_blocks += 1;
            if unread_now & (1 << sink) != 0 {
                share.unread_blocks += 1;
                share.unread_records += block.records_for(sink) as u64;
            }
        }
        for sink in bits(open_then & !open_now) {
            disk.push_fact(Fact::Settled { sink: sink as u16, spans: vec![Span::block(sequence)] });
        }
        for sink in bits(open_now) {
            let place = |record| Place { sequence, record };
            let parts: Vec<Span> = disk.settled[sink]
                .records_of(sequence)
                .map(|records| Span { first: place(records.start), end: place(records.end) })
                .collect();
            if !parts.is_empty() {
                disk.push_fact(Fact::Settled { sink: sink as u16, spans: parts });
            }
        }
    }

    /// All below is on disk now, and durable if the mode asks for it.
    pub fn written_to(&mut self, to: Sequence) {
        let Some(disk) = &mut self.disk else { return };
        let from = disk.written;
        disk.written = from.max(to);
        let done: Vec<Sequence> =
            self.slots.range(from..to).filter(|(_, slot)| slot.held == 0).map(|(sequence, _)| *sequence).collect();
        for sequence in done {
            self.remove(sequence);
        }
        for source in 0..self.trackers.len() {
            self.advance(source);
        }
    }

    /// Nothing can be written at present: what only the disk could keep waits no longer for it.
    pub fn degrade(&mut self, why: String) {
        if let Some(disk) = &mut self.disk {
            disk.degraded = Some(why);
            disk.is_writing = false;
            // The next segment begins with the state of all.
            disk.facts.clear();
        }
        self.abandon_released();
    }

    /// The state of all, for the beginning of a segment.
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        let Some(disk) = &self.disk else { return facts };
        for sink in 0..self.cursors.len() {
            let watermark = self.watermark(sink).min(disk.written);
            let below = Span { first: Place::default(), end: Place { sequence: watermark, record: 0 } };
            let mut spans = vec![below];
            spans.extend(disk.settled[sink].iter());
            facts.push(Fact::Settled { sink: sink as u16, spans });
            facts.extend(disk.notes[sink].iter().map(|(key, value)| Fact::Note {
                sink: sink as u16,
                key: key.clone(),
                value: value.clone(),
            }));
        }
        for (source, tracker) in self.trackers.iter().enumerate() {
            for &position in tracker.iter().flat_map(|tracker| &tracker.safe) {
                facts.push(Fact::Position { source: source as SourceId, position });
            }
        }
        facts
    }

    /// What is here, for those who look from outside.
    pub fn snapshot(&mut self) -> Snapshot {
        let watermarks: Vec<Sequence> = (0..self.cursors.len()).map(|sink| self.watermark(sink)).collect();
        let lowest = watermarks.iter().copied().min().unwrap_or(self.end);
        while self.times.len() > 1 && self.times[1].0 <= lowest {
            self.times.pop_front();
        }
        let time = |watermark: Sequence| {
            let place = self.times.partition_point(|(sequence, _)| *sequence <= watermark);
            self.times.get(place.saturating_sub(1)).map(|(_, time)| *time)
        };
        let is_pending = |sink: usize| self.ledgers[sink].tally().pending() > 0;
        let oldest_pending_ms =
            (0..watermarks.len()).map(|sink| if is_pending(sink) { time(watermarks[sink]) } else { None }).collect();
        let disk = self.disk.as_ref();
        Snapshot {
            memory_bytes: self.bytes as u64,
            disk_bytes: disk.map_or(0, |disk| disk.bytes),
            segments: disk.map_or(0, |disk| disk.segments.len() as u64),
            blocks_written: disk.map_or(0, |disk| disk.blocks_written),
            syncs: disk.map_or(0, |disk| disk.syncs),
            io_errors: disk.map_or(0, |disk| disk.io_errors),
            degraded: disk.map_or_else(|| self.refused.clone(), |disk| disk.degraded.clone()),
            oldest_pending_ms,
        }
    }
}
