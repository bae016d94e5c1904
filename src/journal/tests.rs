use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::block::{Block, Entry, Partition, SinkSet};
use super::*;
use crate::telemetry::account::Reason;

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
        block.index.push(Entry { time_ns: 0, sinks, end: block.bytes.len() as u32, partition: 0 });
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
            let Some(oldest) = self.unread.iter().flatten().filter(|sequence| !in_hand(sequence)).min().copied() else {
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
        if config.when_full == WhenFull::Block && self.bytes() > 0 && self.bytes() + cost > config.memory_bytes_max {
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
