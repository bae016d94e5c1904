//! A sink's side of the journal: reads blocks in order, from memory or from disk, and says what became of them.

use std::io;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::block::Block;
use super::disk::frame::{Fact, Stored};
use super::disk::recover;
use super::disk::segment::{self, Segment};
use super::kept::Kept;
use super::state::State;
use super::{Persist, Sequence, Shared, Span};
use crate::journal::disk::recover::Mapping;

/// The most that one sink may hold of what it has read, whatever the journal's size.
const HELD_BYTES_MAX: usize = 16 << 20;

/// A block on disk is hardly larger: 256 KiB of lines, the last of them as it came, and 24 bytes a record.
const USUAL_FRAME_BYTES: usize = 320 << 10;

/// One sink's view of the journal.
pub struct Reader {
    shared: Arc<Shared>,
    sink: usize,
    /// Where on disk it stands, if that is where it reads.
    place: Option<DiskPlace>,
    /// What it reads from there; kept here, so that a call that was cancelled loses nothing.
    reading: Option<JoinHandle<FromDisk>>,
}

/// The frame of a segment that comes next.
#[derive(Clone, Copy)]
struct DiskPlace {
    /// The segment, by the number of its first block.
    first: Sequence,
    offset: u64,
}

/// What a read from a segment came to.
struct FromDisk {
    first: Sequence,
    mapping: Option<Arc<Mapping>>,
    /// As far as the segment went when the reading began.
    bytes: u64,
    end: Sequence,
    result: io::Result<(Option<(Sequence, Stored)>, u64)>,
}

/// Where the next block of a sink is.
enum Look {
    Found(Sequence, Arc<Block>),
    OnDisk(JoinHandle<FromDisk>),
    Closed,
    Wait,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, sink: usize) -> Self {
        Self { shared, sink, place: None, reading: None }
    }

    /// The next block with records for this sink, with its number. `None` once the journal is closed and read to its end.
    /// Cancel safe: a block is only taken by the call that returns it.
    pub async fn next(&mut self) -> Option<(Sequence, Arc<Block>)> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                // A reading task that died with the runtime has nothing to say.
                if let Ok(read) = read
                    && let Some(found) = self.take_from_disk(read)
                {
                    return Some(found);
                }
                continue;
            }
            let shared = self.shared.clone();
            let news = shared.readable.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            match self.look() {
                Look::Found(sequence, block) => return Some((sequence, block)),
                Look::OnDisk(reading) => self.reading = Some(reading),
                Look::Closed => return None,
                Look::Wait => news.await,
            }
        }
    }

    fn look(&mut self) -> Look {
        let shared = self.shared.clone();
        let state = &mut *shared.lock();
        let sink = self.sink;
        if let Some(disk) = &state.disk
            && state.cursors[sink].next < disk.evicted
        {
            let next = state.cursors[sink].next;
            match disk.unread_segment(sink, next).filter(|kept| kept.first < disk.evicted) {
                Some(kept) => return Look::OnDisk(self.read(kept, next)),
                None => {
                    let evicted = disk.evicted;
                    state.cursors[sink].next = evicted.max(next);
                }
            }
        }
        self.place = None;
        let found = state.next_in_memory(sink);
        if let Some(sequence) = found
            && let Some(block) = state.take(sink, sequence)
        {
            return Look::Found(sequence, block);
        }
        let visible = state.visible_end();
        let cursor = &mut state.cursors[sink];
        cursor.next = cursor.next.max(visible);
        if state.writers == 0 && visible == state.end { Look::Closed } else { Look::Wait }
    }

    /// Begins to read the next block from a segment.
    fn read(&self, kept: &Kept, next: Sequence) -> JoinHandle<FromDisk> {
        let segment: Segment = kept.segment.clone();
        let (first, end, mapping) = (kept.first, kept.end, kept.mapping.clone());
        let offset = match self.place {
            Some(place) if place.first == first => place.offset,
            _ => segment.start,
        };
        let bit = 1 << self.sink;
        // Allocated here: an allocator keeps what a thread has allocated for that thread, and those that read are many and rest long.
        let buffer = Vec::with_capacity(USUAL_FRAME_BYTES);
        tokio::task::spawn_blocking(move || {
            let wanted = mapping.as_ref().map_or(bit, |mapping| mapping.sinks_then(bit));
            let result = segment::read_block(&segment, offset, next, wanted, buffer);
            FromDisk { first, mapping, bytes: segment.bytes, end, result }
        })
    }

    fn take_from_disk(&mut self, mut read: FromDisk) -> Option<(Sequence, Arc<Block>)> {
        if let Ok((Some((_, stored)), _)) = &mut read.result {
            stored.block.bytes = std::mem::take(&mut stored.block.bytes).fitted();
        }
        let state = &mut *self.shared.lock();
        let (found, offset) = match read.result {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(sink = self.sink, %error, "journal: cannot read from disk");
                if let Some(disk) = &mut state.disk {
                    disk.io_errors += 1;
                }
                (None, read.bytes)
            }
        };
        let Some((sequence, mut stored)) = found else {
            let has_grown = state.disk.as_ref().is_some_and(|disk| {
                disk.segments.iter().any(|kept| kept.first == read.first && kept.segment.bytes > read.bytes)
            });
            if has_grown {
                // What came meanwhile stands behind what was looked at.
                state.cursors[self.sink].next = state.cursors[self.sink].next.max(read.end);
                self.place = Some(DiskPlace { first: read.first, offset });
            } else {
                state.segment_exhausted(self.sink, read.first);
                self.place = None;
            }
            return None;
        };
        self.place = Some(DiskPlace { first: read.first, offset });
        prepare(state, &mut stored, sequence, read.mapping.as_deref());
        if stored.block.records_for(self.sink) == 0 {
            // It was settled before the restart.
            state.cursors[self.sink].next = state.cursors[self.sink].next.max(sequence + 1);
            return None;
        }
        let block = state.take_from_disk(self.sink, sequence, stored.block, stored.received_ms)?;
        Some((sequence, block))
    }

    /// Bytes of blocks, neither released nor settled, at which a sink should read no more: room for several full requests at
    /// once, and never more than a quarter of the journal.
    pub fn held_bytes_max(&self) -> usize {
        HELD_BYTES_MAX.min(self.shared.lock().config.memory_bytes_max / 4)
    }

    /// Whether blocks that are not settled take so much of the disk that a sink should not keep them open for longer than it must.
    pub fn is_pressed(&self) -> bool {
        let state = self.shared.lock();
        state.disk.as_ref().is_some_and(|disk| disk.bytes > state.config.disk_bytes_max / 2)
    }

    /// What this sink noted ([`Settler::put_note`]) and did not remove, from before the start; the rest is none of its business.
    pub fn notes(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.shared.lock();
        let notes = state.disk.as_ref().map(|disk| &disk.notes[self.sink]);
        notes.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// A handle that releases and settles, for tasks that work beside the reader.
    pub fn settler(&self) -> Settler {
        Settler { shared: self.shared.clone(), sink: self.sink }
    }
}

/// Puts a block from disk into present numbers, without what is settled of it.
fn prepare(state: &State, stored: &mut Stored, sequence: Sequence, mapping: Option<&Mapping>) {
    match mapping {
        Some(mapping) => mapping.apply(stored),
        None => {
            let open = stored.open;
            stored.block.index.iter_mut().for_each(|entry| entry.sinks &= open);
        }
    }
    if let Some(disk) = &state.disk {
        for (sink, settled) in disk.settled.iter().enumerate() {
            recover::clear(stored, sequence, sink, settled);
        }
    }
    let block = &mut stored.block;
    block.sinks = block.index.iter().fold(0, |sinks, entry| sinks | entry.sinks);
}

/// Says what became of blocks, on behalf of one sink.
#[derive(Clone)]
pub struct Settler {
    shared: Arc<Shared>,
    sink: usize,
}

impl Settler {
    /// The sink keeps what it needs of that block elsewhere: its memory may go. Not yet settled.
    pub fn release(&self, sequence: Sequence) {
        self.change(|state, sink| state.release(sink, sequence));
    }

    /// Every record of that block for this sink is delivered, rejected or dropped, and counted so. Releases it as well.
    pub fn settle(&self, sequence: Sequence) {
        self.change(|state, sink| state.settle(sink, sequence));
    }

    /// These records are delivered, rejected or dropped, though their blocks are not settled yet as a whole: after a restart
    /// they are not sent again.
    pub fn settle_part(&self, spans: &[Span]) {
        self.change(|state, sink| state.settle_part(sink, spans));
    }

    fn change(&self, change: impl FnOnce(&mut State, usize)) {
        let mut state = self.shared.lock();
        let before = state.bytes;
        change(&mut state, self.sink);
        let is_freed = state.bytes < before;
        let disk = state.disk.as_ref();
        let is_work =
            disk.is_some_and(|disk| !disk.facts.is_empty() || !disk.garbage.is_empty() || disk.spill_to > disk.written);
        let is_collected = disk.is_some_and(|disk| !disk.garbage.is_empty());
        drop(state);
        if is_freed || is_collected {
            self.shared.writable.notify_waiters();
        }
        if is_work {
            self.shared.work.notify_one();
        }
    }

    /// Notes something of the sink's own under a key, for after a restart. When this returns it is as durable as the blocks are.
    /// Without a directory there is nothing to come back to, so nothing is noted.
    pub async fn put_note(&self, key: &str, value: Vec<u8>) {
        let mut noted = self.shared.noted.subscribe();
        let number = {
            let state = &mut *self.shared.lock();
            let persist = state.config.persist;
            let Some(disk) = &mut state.disk else { return };
            disk.notes[self.sink].insert(key.to_owned(), value.clone());
            if disk.degraded.is_some() {
                return;
            }
            disk.push_fact(Fact::Note { sink: self.sink as u16, key: key.to_owned(), value });
            disk.notes_put += 1;
            disk.is_sync_wanted |= persist == Persist::Always;
            disk.notes_put
        };
        self.shared.work.notify_one();
        // An error means that the journal is gone: nothing more will be durable.
        noted.wait_for(|noted| *noted >= number).await.ok();
    }

    /// Forgets a note; the word of it may be lost in a crash.
    pub fn remove_note(&self, key: &str) {
        self.change(|state, sink| {
            if let Some(disk) = &mut state.disk
                && disk.notes[sink].remove(key).is_some()
            {
                disk.push_fact(Fact::Forgotten { sink: sink as u16, key: key.to_owned() });
            }
        });
    }

    /// The lowest number this sink has not settled; all below are, or hold nothing for it.
    pub fn watermark(&self) -> Sequence {
        self.shared.lock().watermark(self.sink)
    }
}
