//! The journal: one ordered log of blocks for the process, read by every sink at its own pace.
//!
//! Sources append through a [`Writer`]; each sink has a [`Reader`]. A block gets the next sequence number and stays until every
//! sink it goes to has *released* it (its bytes are no longer needed from here) and *settled* it (each record delivered, or
//! counted as rejected or dropped). Sequence numbers below a sink's watermark are settled.
//!
//! Kept in memory, bounded in bytes by [`Config::memory_bytes_max`]. When it is full, [`WhenFull`] decides: appending waits
//! (and with it the socket), or the oldest block that only waits to be read is dropped for those sinks that have not read it,
//! counted as [`Reason::JournalFull`]. The disk behind it will be a second home of the same blocks under the same numbers.
//!
//! What sinks have read and hold cannot be dropped. Each holds at most [`Reader::held_bytes_max`] and a block; with `drop_oldest`
//! a block is let in beyond the limit when such blocks alone use it up, so that dead sinks never stop the others.
//!
//! Cost: one lock a block for the writer and one for each sink; nothing a record. A block that nobody holds any more leaves
//! nothing behind, however long an older one is held.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::chunk::{Position, SourceId};
use crate::telemetry::account::{Ledger, Reason};

pub mod block;

use block::{Block, SinkSet};

/// What to do when the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Appending waits: backpressure reaches the sender's socket.
    #[default]
    Block,
    /// The oldest block that waits for sinks to read it, and for nothing else, is dropped for those sinks, and counted.
    DropOldest,
}

/// When blocks are written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Persist {
    /// Never. With a directory, only the positions of followed files are.
    #[default]
    Never,
    /// When memory is used up, and at a shutdown that could not deliver.
    Overflow,
    /// Each, before it is acknowledged.
    Always,
}

/// How much the journal keeps, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// When blocks are written to disk.
    pub persist: Persist,
    /// Where; of this process alone. Not none unless `persist` is `Never`.
    pub dir: Option<PathBuf>,
    /// Bytes of blocks kept in memory. A single larger block is let in when nothing else is there.
    pub memory_bytes_max: usize,
    /// Bytes of segments on disk.
    pub disk_bytes_max: u64,
    /// Bytes that must stay free on the file system.
    pub disk_free_bytes_min: u64,
    /// A segment is finished at about this size.
    pub segment_bytes: u64,
    /// What happens when there is no room any more.
    pub when_full: WhenFull,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            persist: Persist::Never,
            dir: None,
            memory_bytes_max: 64 << 20,
            disk_bytes_max: 1 << 30,
            disk_free_bytes_min: 64 << 20,
            segment_bytes: 16 << 20,
            when_full: WhenFull::Block,
        }
    }
}

/// A block's place in the order of the journal.
pub type Sequence = u64;

/// A record's place in the order of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// Its block.
    pub sequence: Sequence,
    /// Its index in [`block::Block::index`].
    pub record: u32,
}

/// The records of one sink from `first` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: Place,
    /// One past the last.
    pub end: Place,
}

/// How far the journal is as durable as its mode promises; what acknowledgements wait for.
#[derive(Clone, Debug)]
pub struct Durable(watch::Receiver<Sequence>);

impl Durable {
    /// Whatever is appended is durable enough.
    pub fn at_once() -> Self {
        Self(watch::channel(Sequence::MAX).1)
    }

    /// Whether all blocks below `sequence` are durable.
    pub fn has_reached(&self, sequence: Sequence) -> bool {
        *self.0.borrow() >= sequence
    }

    /// Waits until all blocks below `sequence` are durable. Cancel safe. For ever, if the journal is gone before.
    pub async fn reach(&mut self, sequence: Sequence) {
        if self.0.wait_for(|durable| *durable >= sequence).await.is_err() && !self.has_reached(sequence) {
            std::future::pending::<()>().await;
        }
    }
}

impl From<watch::Receiver<Sequence>> for Durable {
    /// As far as the sender says.
    fn from(durable: watch::Receiver<Sequence>) -> Self {
        Self(durable)
    }
}

/// What the journal holds, for metrics and `/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of blocks in memory.
    pub memory_bytes: u64,
    /// Bytes of segments on disk.
    pub disk_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Blocks written to disk since the start.
    pub blocks_written: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Input and output errors since the start.
    pub io_errors: u64,
    /// Why blocks are kept in memory only, though they should be on disk; none if all is well.
    pub degraded: Option<String>,
    /// By sink: the time in milliseconds since 1970 UTC at which its oldest pending block came; none if nothing is pending.
    pub oldest_pending_ms: Vec<Option<i64>>,
}

/// Looks into the journal from outside.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

impl Monitor {
    /// What the journal holds now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.lock();
        Snapshot {
            memory_bytes: state.bytes as u64,
            oldest_pending_ms: vec![None; self.shared.ledgers.len()],
            ..Snapshot::default()
        }
    }
}

/// The most that one sink may hold of what it has read, whatever the journal's size.
const HELD_BYTES_MAX: usize = 16 << 20;

/// A block that some sink needs from here: `held` is never empty, and `unread` is a part of it.
struct Slot {
    block: Arc<Block>,
    cost_bytes: usize,
    unread: SinkSet,
    held: SinkSet,
}

/// Where one sink stands.
#[derive(Default)]
struct Cursor {
    /// What it reads next.
    next: Sequence,
    /// Blocks that it has read and not settled, in order; one that is settled out of order stays, marked, until all before it
    /// are. Eight bytes a block, however long a sink keeps it open.
    open: VecDeque<OpenBlock>,
}

/// A sequence number, and in its highest bit whether the block is settled.
#[derive(Clone, Copy)]
struct OpenBlock(u64);

impl OpenBlock {
    const SETTLED: u64 = 1 << 63;

    fn sequence(self) -> Sequence {
        self.0 & !Self::SETTLED
    }

    fn is_settled(self) -> bool {
        self.0 & Self::SETTLED != 0
    }
}

struct State {
    slots: BTreeMap<Sequence, Slot>,
    /// The next block's sequence number.
    end: Sequence,
    bytes: usize,
    cursors: Vec<Cursor>,
    writers: usize,
}

struct Shared {
    config: Config,
    state: Mutex<State>,
    ledgers: Vec<Arc<Ledger>>,
    /// Told when a block comes or the last writer goes.
    readable: Notify,
    /// Told when bytes become free.
    writable: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; were it to, the numbers are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens an empty journal for the sinks whose ledgers are given, in order of their numbers.
pub fn open(config: Config, ledgers: Vec<Arc<Ledger>>) -> (Writer, Vec<Reader>) {
    let sinks = ledgers.len();
    assert!(sinks <= block::SINKS_MAX, "the configuration limits the number of sinks");
    let shared = Arc::new(Shared {
        config,
        state: Mutex::new(State {
            slots: BTreeMap::new(),
            end: 0,
            bytes: 0,
            cursors: (0..sinks).map(|_| Cursor::default()).collect(),
            writers: 1,
        }),
        ledgers,
        readable: Notify::new(),
        writable: Notify::new(),
    });
    let readers = (0..sinks).map(|sink| Reader { shared: shared.clone(), sink }).collect();
    (Writer { shared }, readers)
}

/// Appends blocks. The journal is closed when the last clone is dropped.
pub struct Writer {
    shared: Arc<Shared>,
}

impl Clone for Writer {
    fn clone(&self) -> Self {
        self.shared.lock().writers += 1;
        Self { shared: self.shared.clone() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.writers -= 1;
        if state.writers == 0 {
            drop(state);
            self.shared.readable.notify_waiters();
        }
    }
}

impl Writer {
    /// How far the journal is durable.
    pub fn durable(&self) -> Durable {
        Durable::at_once()
    }

    /// Looks into the journal from outside. Does not keep it open.
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: self.shared.clone() }
    }

    /// The source stands at `position` now, and what it read before is appended already or leads to no block.
    pub fn pass(&self, _source: SourceId, _position: Position) {}

    /// Puts a block at the end and returns its number; waits for room if so configured. A block without records for any
    /// sink takes no place.
    pub async fn append(&self, block: Block) -> Sequence {
        let cost_bytes = block.cost_bytes();
        let block = Arc::new(block);
        loop {
            let room = self.shared.writable.notified();
            tokio::pin!(room);
            // Registered before the look, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(sequence) = self.try_append(&block, cost_bytes) {
                return sequence;
            }
            room.await;
        }
    }

    fn try_append(&self, block: &Arc<Block>, cost_bytes: usize) -> Option<Sequence> {
        let mut state = self.shared.lock();
        if block.sinks == 0 {
            return Some(state.end);
        }
        let bytes_max = self.shared.config.memory_bytes_max;
        let is_full = |state: &State| state.bytes > 0 && state.bytes + cost_bytes > bytes_max;
        match self.shared.config.when_full {
            WhenFull::Block if is_full(&state) => return None,
            WhenFull::Block => {}
            // What cannot be dropped is in the hands of sinks, which is bounded by itself.
            WhenFull::DropOldest => while is_full(&state) && self.drop_oldest(&mut state) {},
        }
        let sequence = state.end;
        let sinks = block.sinks;
        state.end += 1;
        state.bytes += cost_bytes;
        state.slots.insert(sequence, Slot { block: block.clone(), cost_bytes, unread: sinks, held: sinks });
        for (sink, ledger) in self.shared.ledgers.iter().enumerate() {
            if sinks & (1 << sink) != 0 {
                ledger.receive(block.records_for(sink) as u64);
            }
        }
        drop(state);
        self.shared.readable.notify_waiters();
        Some(sequence)
    }

    /// Drops the oldest block that makes room by it: one that only waits to be read. False if there is none.
    fn drop_oldest(&self, state: &mut State) -> bool {
        // Below all cursors everything is read: a sink that holds much must not make each append look through it.
        let from = state.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        let waiting = state.slots.range(from..).find(|(_, slot)| slot.unread == slot.held);
        let Some(sequence) = waiting.map(|(sequence, _)| *sequence) else { return false };
        let Some(slot) = state.slots.remove(&sequence) else { return false };
        state.bytes -= slot.cost_bytes;
        for (sink, ledger) in self.shared.ledgers.iter().enumerate() {
            if slot.unread & (1 << sink) != 0 {
                ledger.lose(Reason::JournalFull, slot.block.records_for(sink) as u64);
            }
        }
        true
    }
}

/// One sink's view of the journal.
pub struct Reader {
    shared: Arc<Shared>,
    sink: usize,
}

impl Reader {
    /// The next block with records for this sink, with its number. `None` once the journal is closed and read to its end.
    /// Cancel safe: a block is only taken by the call that returns it.
    pub async fn next(&mut self) -> Option<(Sequence, Arc<Block>)> {
        loop {
            let news = self.shared.readable.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let state = &mut *self.shared.lock();
                let bit = 1 << self.sink;
                let cursor = &mut state.cursors[self.sink];
                let unread = state.slots.range_mut(cursor.next..).find(|(_, slot)| slot.unread & bit != 0);
                cursor.next = unread.as_ref().map_or(state.end, |(sequence, _)| **sequence + 1);
                if let Some((&sequence, slot)) = unread {
                    slot.unread &= !bit;
                    cursor.open.push_back(OpenBlock(sequence));
                    return Some((sequence, slot.block.clone()));
                }
                if state.writers == 0 {
                    return None;
                }
            }
            news.await;
        }
    }

    /// Bytes of blocks, neither released nor settled, at which a sink should read no more: room for several full requests at
    /// once, and never more than a quarter of the journal.
    pub fn held_bytes_max(&self) -> usize {
        HELD_BYTES_MAX.min(self.shared.config.memory_bytes_max / 4)
    }

    /// What this sink noted ([`Settler::put_note`]) and did not remove, from before the start; the rest is none of its business.
    pub fn notes(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// A handle that releases and settles, for tasks that work beside the reader.
    pub fn settler(&self) -> Settler {
        Settler { shared: self.shared.clone(), sink: self.sink }
    }
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
        self.clear(sequence, false);
    }

    /// Every record of that block for this sink is delivered, rejected or dropped, and counted so. Releases it as well.
    pub fn settle(&self, sequence: Sequence) {
        self.clear(sequence, true);
    }

    /// These records are delivered, rejected or dropped, though their blocks are not settled yet as a whole: after a restart
    /// they are not sent again.
    pub fn settle_part(&self, _spans: &[Span]) {}

    /// Notes something of the sink's own under a key, for after a restart. When this returns it is as durable as the blocks are.
    /// Without a disk there is nothing to come back to, so nothing is noted.
    pub async fn put_note(&self, _key: &str, _value: Vec<u8>) {}

    /// Forgets a note; the word of it may be lost in a crash.
    pub fn remove_note(&self, _key: &str) {}

    /// The lowest number this sink has not settled; all below are, or hold nothing for it.
    pub fn watermark(&self) -> Sequence {
        let state = self.shared.lock();
        let cursor = &state.cursors[self.sink];
        if let Some(open) = cursor.open.front() {
            return open.sequence();
        }
        let unread = state.slots.range(cursor.next..).find(|(_, slot)| slot.unread & (1 << self.sink) != 0);
        unread.map_or(state.end, |(sequence, _)| *sequence)
    }

    fn clear(&self, sequence: Sequence, settled: bool) {
        let state = &mut *self.shared.lock();
        if settled {
            let open = &mut state.cursors[self.sink].open;
            if let Ok(place) = open.binary_search_by_key(&sequence, |open| open.sequence()) {
                open[place].0 |= OpenBlock::SETTLED;
            }
            while open.front().is_some_and(|open| open.is_settled()) {
                open.pop_front();
            }
        }
        let Some(slot) = state.slots.get_mut(&sequence) else { return };
        slot.held &= !(1 << self.sink);
        if slot.held == 0
            && let Some(slot) = state.slots.remove(&sequence)
        {
            state.bytes -= slot.cost_bytes;
            self.shared.writable.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::block::{Block, Entry, Partition};
    use super::*;

    /// One poll, without a runtime: what is not ready now is not done.
    fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn block(records: &[SinkSet]) -> Block {
        let mut block = Block { partitions: vec![Partition::default()], ..Block::default() };
        for &sinks in records {
            block.bytes.extend_from_slice(b"{\"log\":\"0123456789\"}\n");
            block.index.push(Entry { time_ms: 0, sinks, end: block.bytes.len() as u32, partition: 0 });
            block.sinks |= sinks;
        }
        block.bytes.shrink_to_fit();
        block.index.shrink_to_fit();
        block
    }

    fn ledgers(count: usize) -> Vec<Arc<Ledger>> {
        (0..count).map(|i| Arc::new(Ledger::new(format!("sink{i}")))).collect()
    }

    #[test]
    fn a_closed_journal_is_read_to_its_end() {
        let (writer, mut readers) = open(Config::default(), ledgers(2));
        let second = writer.clone();
        assert_eq!(now_or_never(writer.append(block(&[1]))), Some(0));
        drop(writer);
        assert_eq!(now_or_never(second.append(block(&[2]))), Some(1));
        assert!(now_or_never(readers[0].next()).flatten().is_some());
        assert!(now_or_never(readers[0].next()).is_none(), "a writer is left, so the reader waits");
        drop(second);
        assert!(matches!(now_or_never(readers[0].next()), Some(None)));
        assert!(matches!(now_or_never(readers[1].next()), Some(Some((1, _)))));
        assert!(matches!(now_or_never(readers[1].next()), Some(None)));
    }

    #[test]
    fn a_full_journal_waits_and_a_release_makes_room() {
        let cost = block(&[1]).cost_bytes();
        let config = Config { memory_bytes_max: cost * 2, ..Config::default() };
        let (writer, mut readers) = open(config, ledgers(1));
        let settler = readers[0].settler();
        assert!(now_or_never(writer.append(block(&[1]))).is_some());
        assert!(now_or_never(writer.append(block(&[1]))).is_some());
        let mut third = pin!(writer.append(block(&[1])));
        let mut context = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut context).is_pending());
        let (sequence, _) = now_or_never(readers[0].next()).flatten().unwrap();
        assert!(third.as_mut().poll(&mut context).is_pending(), "read is not released");
        settler.release(sequence);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert_eq!(settler.watermark(), 0, "released is not settled");
        settler.settle(sequence);
        assert_eq!(settler.watermark(), 1);
    }

    #[test]
    fn a_block_larger_than_the_journal_is_let_in_alone() {
        let config = Config { memory_bytes_max: 1, ..Config::default() };
        let (writer, _readers) = open(config, ledgers(1));
        assert!(now_or_never(writer.append(block(&[1]))).is_some());
        assert!(now_or_never(writer.append(block(&[1]))).is_none());
    }

    #[test]
    fn regression_dead_sinks_that_hold_the_whole_journal_do_not_stop_the_others() {
        let config = Config { memory_bytes_max: 1, when_full: WhenFull::DropOldest, ..Config::default() };
        let books = ledgers(2);
        let (writer, mut readers) = open(config, books.clone());
        let live = readers[1].settler();
        assert!(now_or_never(writer.append(block(&[3]))).is_some());
        // The dead sink reads it and holds it for ever.
        assert!(now_or_never(readers[0].next()).flatten().is_some());
        for _ in 0..100 {
            let (sequence, _) = now_or_never(readers[1].next()).flatten().unwrap();
            live.settle(sequence);
            assert!(now_or_never(writer.append(block(&[3]))).is_some(), "nobody waits for a dead sink");
        }
        assert_eq!(books[1].tally().lost[Reason::JournalFull as usize], 0, "the live sink loses nothing");
        assert_eq!(
            books[0].tally().lost[Reason::JournalFull as usize],
            99,
            "all that the dead one has not read but the last"
        );
        let state = writer.shared.lock();
        assert_eq!(state.slots.len(), 2);
        assert_eq!(state.bytes, block(&[3]).cost_bytes() * 2);
    }

    #[test]
    fn regression_a_block_held_for_long_keeps_nothing_of_those_after_it() {
        let (writer, mut readers) = open(Config::default(), ledgers(2));
        let live = readers[1].settler();
        assert!(now_or_never(writer.append(block(&[1]))).is_some());
        assert!(now_or_never(readers[0].next()).flatten().is_some());
        for _ in 0..1000 {
            assert!(now_or_never(writer.append(block(&[2]))).is_some());
            let (sequence, _) = now_or_never(readers[1].next()).flatten().unwrap();
            live.settle(sequence);
        }
        assert_eq!(writer.shared.lock().slots.len(), 1);
        assert_eq!(live.watermark(), 1001);
    }

    #[test]
    fn a_sink_holds_at_most_a_quarter_of_a_small_journal() {
        let held =
            |memory_bytes_max| open(Config { memory_bytes_max, ..Config::default() }, ledgers(1)).1[0].held_bytes_max();
        assert_eq!(held(1 << 20), 256 << 10);
        assert_eq!(held(64 << 20), 16 << 20);
        assert_eq!(held(64 << 30), 16 << 20);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append(Vec<SinkSet>),
        Read(usize),
        Release(usize, usize),
        Settle(usize, usize),
    }

    const SINKS: usize = 3;

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => proptest::collection::vec(0u64..8, 1..4).prop_map(Op::Append),
            4 => (0..SINKS).prop_map(Op::Read),
            1 => (0..SINKS, 0usize..8).prop_map(|(sink, nth)| Op::Release(sink, nth)),
            3 => (0..SINKS, 0usize..8).prop_map(|(sink, nth)| Op::Settle(sink, nth)),
        ]
    }

    /// The plainest journal that could be right: everything is kept, sets say who still has to do what.
    #[derive(Default)]
    struct Model {
        records: BTreeMap<Sequence, Vec<SinkSet>>,
        unread: Vec<BTreeSet<Sequence>>,
        held: Vec<BTreeSet<Sequence>>,
        unsettled: Vec<BTreeSet<Sequence>>,
        received: Vec<u64>,
        lost: Vec<u64>,
        next: Sequence,
    }

    impl Model {
        fn new() -> Self {
            Self {
                unread: vec![BTreeSet::new(); SINKS],
                held: vec![BTreeSet::new(); SINKS],
                unsettled: vec![BTreeSet::new(); SINKS],
                received: vec![0; SINKS],
                lost: vec![0; SINKS],
                ..Self::default()
            }
        }

        fn bytes(&self) -> usize {
            let held: BTreeSet<_> = self.held.iter().flatten().collect();
            held.into_iter().map(|sequence| block(&self.records[sequence]).cost_bytes()).sum()
        }

        fn records_for(&self, sequence: Sequence, sink: usize) -> u64 {
            self.records[&sequence].iter().filter(|sinks| *sinks & (1 << sink) != 0).count() as u64
        }

        /// Whether the block was taken.
        fn append(&mut self, records: &[SinkSet], config: &Config) -> bool {
            if records.iter().all(|sinks| *sinks == 0) {
                return true;
            }
            let cost = block(records).cost_bytes();
            while config.when_full == WhenFull::DropOldest
                && self.bytes() > 0
                && self.bytes() + cost > config.memory_bytes_max
            {
                let in_hand = |sequence| {
                    (0..SINKS).any(|sink| self.held[sink].contains(sequence) && !self.unread[sink].contains(sequence))
                };
                let Some(oldest) = self.unread.iter().flatten().filter(|sequence| !in_hand(sequence)).min().copied()
                else {
                    break;
                };
                for sink in 0..SINKS {
                    if self.unread[sink].remove(&oldest) {
                        self.held[sink].remove(&oldest);
                        self.unsettled[sink].remove(&oldest);
                        self.lost[sink] += self.records_for(oldest, sink);
                    }
                }
            }
            if config.when_full == WhenFull::Block && self.bytes() > 0 && self.bytes() + cost > config.memory_bytes_max
            {
                return false;
            }
            self.records.insert(self.next, records.to_vec());
            for sink in 0..SINKS {
                let count = self.records_for(self.next, sink);
                if count > 0 {
                    self.unread[sink].insert(self.next);
                    self.held[sink].insert(self.next);
                    self.unsettled[sink].insert(self.next);
                    self.received[sink] += count;
                }
            }
            self.next += 1;
            true
        }
    }

    proptest! {
        #[test]
        fn the_journal_does_what_the_plain_model_does(
            ops in proptest::collection::vec(op(), 1..80),
            drop_oldest in any::<bool>(),
            blocks_max in 1usize..6,
        ) {
            let config = Config {
                memory_bytes_max: block(&[1]).cost_bytes() * blocks_max,
                when_full: if drop_oldest { WhenFull::DropOldest } else { WhenFull::Block },
                ..Config::default()
            };
            let books = ledgers(SINKS);
            let (writer, mut readers) = open(config.clone(), books.clone());
            let settlers: Vec<_> = readers.iter().map(Reader::settler).collect();
            let mut model = Model::new();
            let mut in_hand: Vec<Vec<Sequence>> = vec![Vec::new(); SINKS];
            for op in ops {
                match op {
                    Op::Append(records) => {
                        let taken = now_or_never(writer.append(block(&records))).is_some();
                        prop_assert_eq!(taken, model.append(&records, &config));
                    }
                    Op::Read(sink) => {
                        let read = now_or_never(readers[sink].next()).flatten();
                        let expected = model.unread[sink].pop_first();
                        prop_assert_eq!(read.as_ref().map(|(sequence, _)| *sequence), expected);
                        if let Some((sequence, block)) = read {
                            prop_assert_eq!(block.records_for(sink) as u64, model.records_for(sequence, sink));
                            in_hand[sink].push(sequence);
                        }
                    }
                    Op::Release(sink, nth) => {
                        if let Some(&sequence) = in_hand[sink].get(nth) {
                            settlers[sink].release(sequence);
                            model.held[sink].remove(&sequence);
                        }
                    }
                    Op::Settle(sink, nth) => {
                        if nth < in_hand[sink].len() {
                            let sequence = in_hand[sink].remove(nth);
                            settlers[sink].settle(sequence);
                            model.held[sink].remove(&sequence);
                            model.unsettled[sink].remove(&sequence);
                        }
                    }
                }
                prop_assert_eq!(writer.shared.lock().bytes, model.bytes());
                let held: BTreeSet<_> = model.held.iter().flatten().collect();
                prop_assert_eq!(writer.shared.lock().slots.len(), held.len(), "nothing is left of what nobody holds");
                for sink in 0..SINKS {
                    let watermark = model.unsettled[sink].first().copied().unwrap_or(model.next);
                    prop_assert_eq!(settlers[sink].watermark(), watermark);
                    let tally = books[sink].tally();
                    prop_assert_eq!(tally.received, model.received[sink]);
                    prop_assert_eq!(tally.lost[Reason::JournalFull as usize], model.lost[sink]);
                }
            }
        }
    }
}
