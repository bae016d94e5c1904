//! Room for one block more: what leaves memory for the disk, what is waited for, and what is dropped.

use super::kept::{Kept, bits};
use super::state::State;
use super::{Persist, Place, Sequence, Span, WhenFull};
use crate::telemetry::account::Reason;

/// What an append is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Yes,
    /// Not before something is released, settled, or written.
    Wait,
}

impl State {
    /// Makes room for a block, as the policy allows.
    pub fn make_room(&mut self, cost_bytes: usize) -> Room {
        loop {
            let is_disk_full = self.config.persist == Persist::Always
                && self.healthy().is_some_and(|disk| {
                    // A block larger than the whole limit is let in when nothing else is there.
                    let is_used = !self.slots.is_empty() || disk.segments.iter().any(Kept::is_needed);
                    is_used && disk.bytes + cost_bytes as u64 > self.config.disk_bytes_max
                });
            if is_disk_full {
                if self.config.when_full == WhenFull::Block {
                    return Room::Wait;
                }
                if self.drop_oldest_segment() {
                    continue;
                }
                // What is left is in the hands of sinks; memory's own limit bounds it.
            }
            if self.bytes == 0 || self.bytes + cost_bytes <= self.config.memory_bytes_max {
                return Room::Yes;
            }
            if self.evict_oldest() {
                continue;
            }
            if self.is_being_written(cost_bytes) {
                return Room::Wait;
            }
            match self.config.when_full {
                WhenFull::Block => return Room::Wait,
                WhenFull::DropOldest => {
                    // What cannot be dropped is in the hands of sinks, which is bounded by itself.
                    if !self.drop_oldest_segment() && !self.drop_oldest() {
                        return Room::Yes;
                    }
                }
            }
        }
    }

    /// Whether room will come from what is being written; asks for that.
    fn is_being_written(&mut self, cost_bytes: usize) -> bool {
        let end = self.end;
        let bytes_max = self.config.disk_bytes_max;
        if self.healthy().is_none() {
            return false;
        }
        let persist = self.config.persist;
        let Some(disk) = &mut self.disk else { return false };
        if disk.written >= end {
            return false;
        }
        if persist == Persist::Overflow {
            if disk.bytes + cost_bytes as u64 > bytes_max {
                return false;
            }
            disk.spill_to = end;
        }
        true
    }

    /// Below all cursors everything is read: what only waits to be read is above.
    fn lowest_cursor(&self) -> Sequence {
        self.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0)
    }

    /// The oldest block in memory that only waits to be read.
    fn oldest_waiting(&self) -> Option<Sequence> {
        let mut slots = self.slots.range(self.lowest_cursor()..);
        slots.find(|(_, slot)| slot.unread != 0 && slot.unread == slot.held).map(|(sequence, _)| *sequence)
    }

    /// Leaves the oldest block that waits to be read to the disk. False if there is none that is there.
    pub fn evict_oldest(&mut self) -> bool {
        let Some(written) = self.disk.as_ref().map(|disk| disk.written) else { return false };
        let Some(sequence) = self.oldest_waiting().filter(|sequence| *sequence < written) else { return false };
        self.remove(sequence);
        if let Some(disk) = &mut self.disk {
            disk.evicted = disk.evicted.max(sequence + 1);
        }
        true
    }

    /// Drops the oldest block that makes room by it: one that only waits to be read, and is in memory only, or it would have been
    /// left to the disk. False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(sequence) = self.oldest_waiting() else { return false };
        let Some(slot) = self.slots.get(&sequence) else { return false };
        let (block, unread) = (slot.block.clone(), slot.unread);
        for sink in bits(unread) {
            self.ledgers[sink].lose(Reason::JournalFull, block.records_for(sink) as u64);
        }
        self.remove(sequence);
        self.track(sequence, Some(block.source), unread);
        true
    }

    /// Drops what waits in the oldest segments until the file of one of them can go. False if none can.
    fn drop_oldest_segment(&mut self) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        let count = disk.segments.len().saturating_sub(usize::from(disk.is_writing));
        let mut is_freed = false;
        let mut dropped = Vec::new();
        for kept in disk.segments.iter_mut().take(count) {
            for (sink, share) in kept.shares.iter_mut().enumerate().filter(|(_, share)| share.unread_blocks > 0) {
                self.ledgers[sink].lose(Reason::JournalFull, share.unread_records);
                share.open_blocks -= share.unread_blocks;
                (share.unread_blocks, share.unread_records) = (0, 0);
                let from = self.cursors[sink].next.max(kept.first);
                dropped.push((sink, from, kept.end));
                self.cursors[sink].next = self.cursors[sink].next.max(kept.end);
            }
            is_freed = !kept.is_needed();
            if is_freed {
                break;
            }
        }
        for (sink, from, end) in dropped {
            let bit = 1 << sink;
            let span = Span { first: Place { sequence: from, record: 0 }, end: Place { sequence: end, record: 0 } };
            if let Some(disk) = &mut self.disk {
                disk.settle(bit, span);
            }
            let in_memory: Vec<Sequence> = self.slots.range(from..end).map(|(sequence, _)| *sequence).collect();
            for sequence in in_memory {
                if let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| slot.unread & bit != 0) {
                    (slot.unread, slot.held, slot.open) = (slot.unread & !bit, slot.held & !bit, slot.open & !bit);
                    self.remove_if_done(sequence);
                }
            }
        }
        self.collect();
        is_freed
    }
}
