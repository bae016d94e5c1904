//! The journal: one ordered log of blocks for the process, read by every sink at its own pace.
//!
//! Sources append through a [`Writer`]; each sink has a [`Reader`]. A block gets the next sequence number and stays until every
//! sink it goes to has *released* it (its bytes are no longer needed from here) and *settled* it (each record delivered, or
//! counted as rejected or dropped). Sequence numbers below a sink's watermark are settled.
//!
//! Kept in memory, bounded in bytes by [`Config::memory_bytes_max`]. When it is full, [`WhenFull`] decides: appending waits
//! (and with it the socket), or the oldest block that some sink has not read yet is dropped for those sinks, counted as
//! [`Reason::JournalFull`]; where sinks hold all there is, that is the block being appended. The disk behind it will be a second
//! home of the same blocks under the same numbers.
//!
//! Cost: one lock a block for the writer and one for each sink; nothing a record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::telemetry::account::{Ledger, Reason};

pub mod block;

use block::{Block, SinkSet};

/// What to do when the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Appending waits: backpressure reaches the sender's socket.
    #[default]
    Block,
    /// The oldest block not yet read by some sink is dropped for that sink, and counted.
    DropOldest,
}

/// How much the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of blocks kept in memory. A single larger block is let in when nothing else is there.
    pub memory_bytes_max: usize,
    /// What happens beyond that.
    pub when_full: WhenFull,
}

impl Default for Config {
    fn default() -> Self {
        Self { memory_bytes_max: 64 << 20, when_full: WhenFull::Block }
    }
}

/// A block's place in the order of the journal.
pub type Sequence = u64;

struct Slot {
    /// Gone once nobody needs the bytes.
    block: Option<Arc<Block>>,
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
    /// Blocks that some sink still needs from here, and what lies between them.
    slots: VecDeque<Slot>,
    /// Sequence number of `slots[0]`.
    first: Sequence,
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
            slots: VecDeque::new(),
            first: 0,
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
            return Some(state.first + state.slots.len() as u64);
        }
        let mut dropped = 0;
        if self.shared.config.when_full == WhenFull::DropOldest {
            while state.bytes > 0 && state.bytes + cost_bytes > self.shared.config.memory_bytes_max {
                match self.drop_oldest(&mut state) {
                    0 => break,
                    records => dropped += records,
                }
            }
        }
        let sequence = state.first + state.slots.len() as u64;
        let sinks = block.sinks;
        if state.bytes > 0 && state.bytes + cost_bytes > self.shared.config.memory_bytes_max {
            if self.shared.config.when_full == WhenFull::Block {
                return None;
            }
            // All that is there is being worked on, and may be for ever: the oldest unread block is this one.
            drop(state);
            report_dropped(dropped + self.refuse(block));
            return Some(sequence);
        }
        state.bytes += cost_bytes;
        state.slots.push_back(Slot { block: Some(block.clone()), cost_bytes, unread: sinks, held: sinks });
        for (sink, ledger) in self.shared.ledgers.iter().enumerate() {
            if sinks & (1 << sink) != 0 {
                ledger.receive(block.records_for(sink) as u64);
            }
        }
        drop(state);
        self.shared.readable.notify_waiters();
        report_dropped(dropped);
        Some(sequence)
    }

    /// Counts a block that takes no place as received and dropped; returns how many records, over all sinks.
    fn refuse(&self, block: &Block) -> u64 {
        let mut dropped = 0;
        for (sink, ledger) in self.shared.ledgers.iter().enumerate() {
            if block.sinks & (1 << sink) != 0 {
                let records = block.records_for(sink) as u64;
                ledger.receive(records);
                ledger.lose(Reason::JournalFull, records);
                dropped += records;
            }
        }
        dropped
    }

    /// Drops the oldest block some sink has not read, for those sinks; returns how many records, over all of them. 0 if every
    /// block is being worked on.
    fn drop_oldest(&self, state: &mut State) -> u64 {
        let Some(place) = state.slots.iter().position(|slot| slot.unread != 0) else { return 0 };
        let mut dropped = 0;
        let slot = &mut state.slots[place];
        let unread = std::mem::take(&mut slot.unread);
        slot.held &= !unread;
        if let Some(block) = &slot.block {
            for (sink, ledger) in self.shared.ledgers.iter().enumerate() {
                if unread & (1 << sink) != 0 {
                    let records = block.records_for(sink) as u64;
                    ledger.lose(Reason::JournalFull, records);
                    dropped += records;
                }
            }
        }
        state.free(place);
        dropped
    }
}

/// Says a loss, outside of the lock; the log limits repeats.
fn report_dropped(records: u64) {
    if records > 0 {
        tracing::warn!(records, "journal full: oldest records dropped");
    }
}

impl State {
    /// Gives back what a slot's block cost if no sink holds it, and forgets such slots at the front.
    fn free(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        if slot.held == 0 && slot.block.take().is_some() {
            self.bytes -= slot.cost_bytes;
        }
        while self.slots.front().is_some_and(|slot| slot.held == 0) {
            self.slots.pop_front();
            self.first += 1;
        }
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
                let mut next = cursor.next.max(state.first);
                let mut found = None;
                while let Some(slot) = state.slots.get_mut((next - state.first) as usize) {
                    let sequence = next;
                    next += 1;
                    if slot.unread & bit != 0 {
                        slot.unread &= !bit;
                        found = slot.block.clone().map(|block| (sequence, block));
                        break;
                    }
                    // `first` cannot move while the lock is held.
                }
                cursor.next = next;
                if let Some((sequence, block)) = found {
                    cursor.open.push_back(OpenBlock(sequence));
                    return Some((sequence, block));
                }
                if state.writers == 0 {
                    return None;
                }
            }
            news.await;
        }
    }

    /// Bytes of the journal that one sink may hold unsettled, so that all of them together leave a part to the others and to
    /// what comes.
    pub fn share_bytes(&self) -> usize {
        self.shared.config.memory_bytes_max / (self.shared.ledgers.len() + 1)
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

    /// The lowest number this sink has not settled; all below are, or hold nothing for it.
    pub fn watermark(&self) -> Sequence {
        let state = self.shared.lock();
        let cursor = &state.cursors[self.sink];
        if let Some(open) = cursor.open.front() {
            return open.sequence();
        }
        let read = (cursor.next.max(state.first) - state.first) as usize;
        let unread = state.slots.iter().skip(read).position(|slot| slot.unread & (1 << self.sink) != 0);
        state.first + unread.map_or(state.slots.len(), |place| read + place) as u64
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
        let Some(place) = sequence.checked_sub(state.first).map(|place| place as usize) else { return };
        let Some(slot) = state.slots.get_mut(place) else { return };
        slot.held &= !(1 << self.sink);
        let before = state.bytes;
        state.free(place);
        if state.bytes < before {
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
        let config = Config { memory_bytes_max: cost * 2, when_full: WhenFull::Block };
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
        let config = Config { memory_bytes_max: 1, when_full: WhenFull::Block };
        let (writer, _readers) = open(config, ledgers(1));
        assert!(now_or_never(writer.append(block(&[1]))).is_some());
        assert!(now_or_never(writer.append(block(&[1]))).is_none());
    }

    #[test]
    fn drop_oldest_never_waits_for_sinks_that_hold_everything() {
        let config = Config { memory_bytes_max: block(&[1]).cost_bytes() * 2, when_full: WhenFull::DropOldest };
        let books = ledgers(1);
        let (writer, mut readers) = open(config, books.clone());
        let settler = readers[0].settler();
        for _ in 0..2 {
            assert!(now_or_never(writer.append(block(&[1]))).is_some());
            assert!(now_or_never(readers[0].next()).flatten().is_some());
        }
        assert!(now_or_never(writer.append(block(&[1, 1]))).is_some(), "a dead sink must not stall the source");
        let tally = books[0].tally();
        assert_eq!((tally.received, tally.lost[Reason::JournalFull as usize]), (4, 2));
        settler.settle(0);
        assert_eq!(now_or_never(writer.append(block(&[1]))), Some(2), "what was dropped took no place");
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
                let Some(oldest) = self.unread.iter().flatten().min().copied() else { break };
                for sink in 0..SINKS {
                    if self.unread[sink].remove(&oldest) {
                        self.held[sink].remove(&oldest);
                        self.unsettled[sink].remove(&oldest);
                        self.lost[sink] += self.records_for(oldest, sink);
                    }
                }
            }
            if self.bytes() > 0 && self.bytes() + cost > config.memory_bytes_max {
                if config.when_full == WhenFull::Block {
                    return false;
                }
                for sink in 0..SINKS {
                    let count = records.iter().filter(|sinks| *sinks & (1 << sink) != 0).count() as u64;
                    self.received[sink] += count;
                    self.lost[sink] += count;
                }
                return true;
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
