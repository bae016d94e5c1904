//! The journal on disk against a plain model, through kills, power cuts and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::block::{Entry, Partition, SinkSet};
use super::disk::frame::{Fact, Kind};
use super::disk::segment::{self, Frames, Header, Names, Next};
use super::*;
use crate::telemetry::account::Reason;

mod damage;

const SINKS: usize = 3;
const LONG: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn names() -> Names {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Names { sinks: texts(&["a", "b", "c"]), sources: texts(&["tail", "forward"]), keys: texts(&["path"]) }
}

fn block(records: &[SinkSet], position: Option<u64>) -> Block {
    let mut block = Block {
        partitions: vec![Partition { tag: "tag".into(), values: ["/x".into()].into() }],
        source: u16::from(position.is_none()),
        position: position.map(at),
        ..Block::default()
    };
    for &sinks in records {
        block.bytes.extend_from_slice(b"{\"a\":\"0123456789\"}\n");
        block.index.push(Entry { time_ns: 0, sinks, end: block.bytes.len() as u32, partition: 0 });
        block.sinks |= sinks;
    }
    block
}

fn at(offset: u64) -> Position {
    Position { device: 1, inode: 2, offset, seen_bytes: 0, check: 0 }
}

/// An open journal and what belongs to it.
struct Rig {
    dir: TempDir,
    config: Config,
    ledgers: Vec<Arc<Ledger>>,
    opened: Opened,
}

impl Rig {
    fn open(dir: TempDir, config: &Config) -> Self {
        Self::open_as(dir, config, names())
    }

    fn open_as(dir: TempDir, config: &Config, names: Names) -> Self {
        let config = Config { dir: Some(dir.path().to_owned()), ..config.clone() };
        let ledgers: Vec<_> = names.sinks.iter().map(|name| Arc::new(Ledger::new(name.as_str()))).collect();
        let opened = open_with(config.clone(), ledgers.clone(), names, &[1, 0]).unwrap();
        Self { dir, config, ledgers, opened }
    }

    fn new(config: &Config) -> Self {
        Self::open(tempfile::tempdir().unwrap(), config)
    }

    fn shared(&self) -> &Shared {
        &self.opened.writer.shared
    }

    /// Waits until the disk's thread has nothing to do.
    fn wait_until_idle(&self) {
        loop {
            {
                let state = self.shared().lock();
                let disk = state.disk.as_ref().unwrap();
                let target = match state.config.persist {
                    Persist::Always => state.end,
                    Persist::Overflow => disk.spill_to,
                    Persist::Never => 0,
                };
                let is_idle =
                    !state.is_busy && disk.written >= target && disk.facts.is_empty() && disk.garbage.is_empty();
                if disk.is_writing && is_idle {
                    return;
                }
            }
            self.shared().work.notify_one();
            std::thread::yield_now();
        }
    }

    /// What a kill leaves: the files as they are.
    fn kill(self) -> (TempDir, Config) {
        self.wait_until_idle();
        let copy = tempfile::tempdir().unwrap();
        copy_all(self.dir.path(), copy.path());
        (copy, self.config)
    }

    /// What a power cut leaves: of each file what was synced, and of the rest as much as happened to be written.
    fn cut_power(self, part: f64) -> (TempDir, Config) {
        let copy = tempfile::tempdir().unwrap();
        let state = self.shared().lock();
        copy_all(self.dir.path(), copy.path());
        for kept in &state.disk.as_ref().unwrap().segments {
            let path = copy.path().join(kept.segment.path.file_name().unwrap());
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            let unsynced = length - kept.synced_bytes.min(length);
            file.set_len(kept.synced_bytes + (unsynced as f64 * part) as u64).unwrap();
        }
        drop(state);
        (copy, self.config.clone())
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // A segment that is removed just now is not needed.
        fs::copy(entry.path(), to.join(entry.file_name())).ok();
    }
}

fn small(persist: Persist) -> Config {
    Config {
        persist,
        memory_bytes_max: 4 * block(&[7, 7], None).cost_bytes(),
        disk_bytes_max: 1 << 20,
        disk_free_bytes_min: Some(0),
        segment_bytes: 1500,
        ..Config::default()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<SinkSet>),
    Pass,
    Read(usize),
    Release(usize, usize),
    Settle(usize, usize),
    SettlePart(usize, usize, u32),
    PutNote(usize, u8),
    RemoveNote(usize, u8),
    Kill,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => proptest::collection::vec(0u64..8, 1..4).prop_map(Op::Append),
        1 => Just(Op::Pass),
        6 => (0..SINKS).prop_map(Op::Read),
        1 => (0..SINKS, 0usize..6).prop_map(|(sink, nth)| Op::Release(sink, nth)),
        4 => (0..SINKS, 0usize..6).prop_map(|(sink, nth)| Op::Settle(sink, nth)),
        1 => (0..SINKS, 0usize..6, 0u32..3).prop_map(|(sink, nth, record)| Op::SettlePart(sink, nth, record)),
        1 => (0..SINKS, 0u8..3).prop_map(|(sink, key)| Op::PutNote(sink, key)),
        1 => (0..SINKS, 0u8..3).prop_map(|(sink, key)| Op::RemoveNote(sink, key)),
        1 => Just(Op::Kill),
        1 => Just(Op::Close),
    ]
}

/// The plainest log that could be right: which records which sink has not settled.
#[derive(Clone, Default)]
struct Model {
    unsettled: Vec<BTreeMap<Sequence, BTreeSet<u32>>>,
    /// What each sink has read and not settled in this run.
    in_hand: Vec<BTreeSet<Sequence>>,
    notes: Vec<BTreeMap<String, Vec<u8>>>,
    /// Blocks of the followed file, with where it stands after them.
    positions: BTreeMap<Sequence, u64>,
    offset: u64,
    safe: Option<u64>,
}

impl Model {
    fn new() -> Self {
        Self {
            unsettled: vec![BTreeMap::new(); SINKS],
            in_hand: vec![BTreeSet::new(); SINKS],
            notes: vec![BTreeMap::new(); SINKS],
            ..Self::default()
        }
    }

    fn append(&mut self, sequence: Sequence, records: &[SinkSet]) {
        for sink in 0..SINKS {
            let bit = 1 << sink;
            let mine: BTreeSet<u32> = (0..records.len() as u32).filter(|i| records[*i as usize] & bit != 0).collect();
            if !mine.is_empty() {
                self.unsettled[sink].insert(sequence, mine);
            }
        }
    }

    fn next(&self, sink: usize) -> Option<Sequence> {
        self.unsettled[sink].keys().find(|sequence| !self.in_hand[sink].contains(sequence)).copied()
    }

    fn nth_in_hand(&self, sink: usize, nth: usize) -> Option<Sequence> {
        self.in_hand[sink].iter().nth(nth).copied()
    }

    fn is_open(&self, sequence: Sequence) -> bool {
        self.unsettled.iter().any(|unsettled| unsettled.contains_key(&sequence))
    }

    /// The process ends; blocks from `kept` on are gone.
    fn end(&mut self, kept: Sequence) {
        while let Some((&sequence, &offset)) = self.positions.first_key_value()
            && (sequence < kept || !self.is_open(sequence))
        {
            self.safe = Some(offset);
            self.positions.pop_first();
        }
        self.positions.clear();
        for sink in 0..SINKS {
            self.unsettled[sink].retain(|sequence, records| *sequence < kept && !records.is_empty());
            self.in_hand[sink].clear();
        }
    }
}

/// One run of operations. The written state of the journal is compared with the model at each restart, what is read always.
fn follow(config: &Config, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let runtime = runtime();
    let mut rig = Rig::new(config);
    let mut model = Model::new();
    for op in ops.into_iter().chain([Op::Kill]) {
        match op {
            Op::Append(records) => {
                let block = block(&records, Some(model.offset + 1));
                let appended = runtime
                    .block_on(async { timeout(Duration::from_millis(20), rig.opened.writer.append(block)).await });
                // No room: sinks hold everything.
                let Ok(sequence) = appended else { continue };
                model.offset += 1;
                if records.iter().any(|sinks| *sinks != 0) {
                    model.append(sequence, &records);
                    model.positions.insert(sequence, model.offset);
                }
            }
            Op::Pass => {
                model.offset += 1;
                rig.opened.writer.pass(0, at(model.offset));
                match model.positions.last_entry() {
                    Some(mut last) => *last.get_mut() = model.offset,
                    None => model.safe = Some(model.offset),
                }
            }
            Op::Read(sink) => {
                let Some(expected) = model.next(sink) else { continue };
                let read = runtime.block_on(async { timeout(LONG, rig.opened.readers[sink].next()).await });
                let Ok(Some((sequence, block))) = read else {
                    return Err(TestCaseError::fail(format!("sink {sink} waits in vain for {expected:x}")));
                };
                prop_assert_eq!(sequence, expected);
                let mine = block.index.iter().enumerate().filter(|(_, entry)| entry.sinks & (1 << sink) != 0);
                let mine: BTreeSet<u32> = mine.map(|(i, _)| i as u32).collect();
                prop_assert_eq!(&mine, &model.unsettled[sink][&sequence]);
                prop_assert_eq!(&*block.partitions[0].values[0], "/x");
                model.in_hand[sink].insert(sequence);
            }
            Op::Release(sink, nth) => {
                if let Some(sequence) = model.nth_in_hand(sink, nth) {
                    rig.opened.readers[sink].settler().release(sequence);
                }
            }
            Op::Settle(sink, nth) => {
                if let Some(sequence) = model.nth_in_hand(sink, nth) {
                    rig.opened.readers[sink].settler().settle(sequence);
                    model.in_hand[sink].remove(&sequence);
                    model.unsettled[sink].remove(&sequence);
                }
            }
            Op::SettlePart(sink, nth, record) => {
                if let Some(sequence) = model.nth_in_hand(sink, nth) {
                    let place = |record| Place { sequence, record };
                    rig.opened.readers[sink]
                        .settler()
                        .settle_part(&[Span { first: place(record), end: place(record + 1) }]);
                    // It comes back without that record, or, if that was all, not at all.
                    model.unsettled[sink].get_mut(&sequence).unwrap().remove(&record);
                }
            }
            Op::PutNote(sink, key) => {
                let (key, value) = (key.to_string(), vec![key]);
                let put = rig.opened.readers[sink].settler();
                runtime.block_on(async { timeout(LONG, put.put_note(&key, value.clone())).await }).unwrap();
                model.notes[sink].insert(key, value);
            }
            Op::RemoveNote(sink, key) => {
                rig.opened.readers[sink].settler().remove_note(&key.to_string());
                model.notes[sink].remove(&key.to_string());
            }
            Op::Kill | Op::Close => {
                rig = restart(rig, &mut model, matches!(op, Op::Close))?;
            }
        }
        advance(&mut model, &rig);
    }
    Ok(())
}

/// Positions that need no block any more.
fn advance(model: &mut Model, rig: &Rig) {
    let written = match rig.config.persist {
        Persist::Always => {
            rig.wait_until_idle();
            Sequence::MAX
        }
        _ => rig.shared().lock().disk.as_ref().unwrap().written,
    };
    while let Some((&sequence, &offset)) = model.positions.first_key_value()
        && (sequence < written || !model.is_open(sequence))
    {
        model.safe = Some(offset);
        model.positions.pop_first();
    }
}

fn restart(rig: Rig, model: &mut Model, is_clean: bool) -> Result<Rig, TestCaseError> {
    let before = rig.opened.instance.clone();
    let end = rig.shared().lock().end;
    let (dir, config, kept) = if is_clean {
        let Rig { dir, config, opened, .. } = rig;
        drop((opened.writer, opened.readers));
        prop_assert_eq!(opened.keeper.close(), Closed::Kept);
        (dir, config, end)
    } else {
        rig.wait_until_idle();
        let kept = rig.shared().lock().disk.as_ref().unwrap().written;
        let (dir, config) = rig.kill();
        (dir, config, kept)
    };
    model.end(kept);
    let rig = Rig::open(dir, &config);
    prop_assert_eq!(&rig.opened.instance, &before);
    prop_assert!(rig.shared().lock().end > end, "no number is given twice");
    for sink in 0..SINKS {
        let pending: usize = model.unsettled[sink].values().map(BTreeSet::len).sum();
        prop_assert_eq!(rig.ledgers[sink].tally().received, pending as u64);
        let notes: BTreeMap<_, _> = rig.opened.readers[sink].notes().into_iter().collect();
        prop_assert_eq!(&notes, &model.notes[sink]);
    }
    prop_assert_eq!(rig.opened.positions[0].last().map(|position| position.offset), model.safe);
    // What was read and not taken care of is read again.
    model.offset = model.safe.unwrap_or(0);
    Ok(rig)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn always_does_what_the_plain_model_does(ops in proptest::collection::vec(op(), 1..60)) {
        follow(&small(Persist::Always), ops)?;
    }

    #[test]
    fn overflow_does_what_the_plain_model_does(ops in proptest::collection::vec(op(), 1..60)) {
        follow(&small(Persist::Overflow), ops)?;
    }

    #[test]
    fn a_power_cut_loses_nothing_that_was_durable(
        blocks in proptest::collection::vec((proptest::collection::vec(1u64..8, 1..4), any::<bool>()), 1..40),
        part in 0.0f64..1.0,
    ) {
        let runtime = runtime();
        let mut rig = Rig::new(&Config { memory_bytes_max: 64 << 20, ..small(Persist::Always) });
        let mut settled = BTreeSet::new();
        let mut all = BTreeSet::new();
        for (records, is_settled) in &blocks {
            let sequence = runtime.block_on(rig.opened.writer.append(block(records, None)));
            all.insert(sequence);
            if *is_settled && records.iter().any(|sinks| sinks & 1 != 0) {
                let settler = rig.opened.readers[0].settler();
                let read = runtime.block_on(async { timeout(LONG, rig.opened.readers[0].next()).await.unwrap() });
                let (sequence, _) = read.unwrap();
                settler.settle(sequence);
                settled.insert(sequence);
            }
        }
        let durable = rig.opened.writer.durable();
        let is_durable: BTreeSet<Sequence> = all.iter().copied().filter(|one| durable.has_reached(one + 1)).collect();
        let (dir, config) = rig.cut_power(part);
        let mut rig = Rig::open(dir, &config);
        drop(rig.opened.writer);
        let mut back = BTreeSet::new();
        while let Some((sequence, _)) = runtime.block_on(async { timeout(LONG, rig.opened.readers[0].next()).await.unwrap() }) {
            prop_assert!(back.insert(sequence));
        }
        let for_first: BTreeSet<Sequence> = all
            .iter()
            .zip(&blocks)
            .filter(|(_, (records, _))| records.iter().any(|sinks| sinks & 1 != 0))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in for_first.intersection(&is_durable) {
            prop_assert!(back.contains(sequence) || settled.contains(sequence), "{:x} was durable", sequence);
        }
        prop_assert!(back.is_subset(&for_first));
    }
}

#[test]
fn sinks_are_known_by_name() {
    let runtime = runtime();
    let rig = Rig::new(&small(Persist::Always));
    runtime.block_on(rig.opened.writer.append(block(&[1, 2, 4, 7], None)));
    let (dir, config) = rig.kill();
    let other =
        Names { sinks: vec!["c".into(), "d".into(), "a".into()], keys: vec!["x".into(), "path".into()], ..names() };
    let mut rig = Rig::open_as(dir, &config, other);
    assert_eq!(rig.opened.recovery, Recovery { records: 4, orphans: 1, gaps: 0 });
    let received: Vec<u64> = rig.ledgers.iter().map(|ledger| ledger.tally().received).collect();
    assert_eq!(received, [2, 0, 2]);
    let (_, block) = runtime.block_on(rig.opened.readers[2].next()).unwrap();
    let sinks: Vec<SinkSet> = block.index.iter().map(|entry| entry.sinks).collect();
    assert_eq!(sinks, [0b100, 0, 0b001, 0b101]);
    let values: Vec<&str> = block.partitions[0].values.iter().map(|value| &**value).collect();
    assert_eq!(values, ["", "/x"]);
}

#[test]
fn a_directory_that_refuses_leaves_the_journal_in_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = Config { dir: Some(file.path().join("below/a/file")), ..small(Persist::Always) };
    let opened = open_with(config, vec![Arc::new(Ledger::new("a"))], names(), &[]).unwrap();
    assert!(opened.writer.monitor().snapshot().degraded.is_some());
    let sequence = runtime().block_on(opened.writer.append(block(&[1], None)));
    assert!(opened.writer.durable().has_reached(sequence + 1), "as durable as it will be");
}

#[test]
fn without_space_it_goes_on_in_memory() {
    let runtime = runtime();
    let mut rig = Rig::new(&Config { disk_free_bytes_min: Some(u64::MAX), ..small(Persist::Always) });
    let sequence = runtime.block_on(rig.opened.writer.append(block(&[1], None)));
    let mut durable = rig.opened.writer.durable();
    runtime.block_on(async { timeout(LONG, durable.reach(sequence + 1)).await }).unwrap();
    assert!(rig.opened.writer.monitor().snapshot().degraded.unwrap().contains("free"));
    let read = runtime.block_on(async { timeout(LONG, rig.opened.readers[0].next()).await }).unwrap();
    assert_eq!(read.unwrap().0, sequence);
    assert!(matches!(rig.opened.keeper.close(), Closed::Lost(_)));
}

#[test]
fn a_full_disk_makes_sources_wait_or_drops_the_oldest() {
    let runtime = runtime();
    let config = Config { disk_bytes_max: 8 << 10, memory_bytes_max: 2 << 10, ..small(Persist::Always) };
    let fill = |rig: &Rig| {
        let mut appended = 0_u64;
        while appended < 200
            && runtime
                .block_on(async {
                    timeout(Duration::from_millis(200), rig.opened.writer.append(block(&[1], None))).await
                })
                .is_ok()
        {
            appended += 1;
        }
        appended
    };
    let rig = Rig::new(&config);
    let appended = fill(&rig);
    assert!((10..120).contains(&appended), "{appended}");
    let rig = Rig::new(&Config { when_full: WhenFull::DropOldest, ..config });
    assert_eq!(fill(&rig), 200);
    rig.wait_until_idle();
    let lost = rig.ledgers[0].tally().lost[Reason::JournalFull as usize];
    assert!((50..195).contains(&lost), "{lost}");
    let snapshot = rig.opened.writer.monitor().snapshot();
    assert!(snapshot.disk_bytes <= 9 << 10, "{snapshot:?}");
    let (dir, config) = rig.kill();
    let rig = Rig::open(dir, &config);
    assert_eq!(rig.ledgers[0].tally().received, 200 - lost);
}

#[test]
fn delivered_segments_go() {
    let runtime = runtime();
    let mut rig = Rig::new(&small(Persist::Always));
    let settler = rig.opened.readers[0].settler();
    for _ in 0..200 {
        runtime.block_on(rig.opened.writer.append(block(&[1, 1, 1], None)));
        let (sequence, _) =
            runtime.block_on(async { timeout(LONG, rig.opened.readers[0].next()).await }).unwrap().unwrap();
        settler.settle(sequence);
    }
    rig.wait_until_idle();
    let files = fs::read_dir(rig.dir.path()).unwrap().count();
    assert!(files <= 4, "{files} files");
    assert_eq!(rig.opened.writer.monitor().snapshot().oldest_pending_ms[1], None);
}

#[test]
fn regression_old_segments_stay_until_a_new_one_says_what_they_said() {
    let rig = Rig::new(&small(Persist::Always));
    rig.opened.writer.pass(0, at(7));
    let (dir, config) = rig.kill();
    // Nothing can be written, as in a start that is killed early.
    let rig = Rig::open(dir, &Config { disk_free_bytes_min: Some(u64::MAX), ..config.clone() });
    while rig.opened.writer.monitor().snapshot().degraded.is_none() {
        std::thread::yield_now();
    }
    let Rig { dir, opened, .. } = rig;
    drop(opened);
    let rig = Rig::open(dir, &config);
    assert_eq!(rig.opened.positions[0], [at(7)]);
}

#[test]
fn regression_an_older_position_does_not_come_behind_a_block() {
    let rig = Rig::new(&small(Persist::Always));
    rig.wait_until_idle();
    {
        // Both wait for one job: a block, and what is known of those before it.
        let mut state = rig.shared().lock();
        state.disk.as_mut().unwrap().push_fact(Fact::Position { source: 0, position: at(7) });
        let block = block(&[1], Some(9));
        let cost_bytes = block.cost_bytes();
        state.push(Arc::new(block), cost_bytes, 1);
    }
    rig.shared().work.notify_one();
    let (dir, config) = rig.kill();
    let paths = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = fs::File::open(paths.into_iter().find(|path| path.extension().is_some()).unwrap()).unwrap();
    let Header::Good(_, start) = segment::header(&file).unwrap() else { panic!("a sound header") };
    let mut frames = Frames::new(&file, start, file.metadata().unwrap().len());
    let mut kinds = Vec::new();
    while let Next::Frame(head, _) = frames.read_next().unwrap() {
        kinds.push(head.kind);
    }
    // A kill may come behind any of these.
    assert_eq!(kinds[..3], [Kind::Snapshot, Kind::Position, Kind::Block]);
    let rig = Rig::open(dir, &config);
    assert_eq!(rig.opened.positions[0], [at(9)]);
}
