//! Crashes at every step between an object's note and its settling, against a plain model of the journal: each record is in one
//! visible object, once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::super::compress::tests::decompress;
use super::super::lines::Lines;
use super::super::naming::Naming;
use super::super::notes::{decode, encode};
use super::super::object::Cut;
use super::super::objects::{Dates, Objects, Surroundings};
use super::super::{Compression, PART_BYTES_MIN};
use super::*;
use crate::enrich::ecs::Metadata;
use crate::journal::block::{Block, Entry, Partition};
use crate::sink::template::Template;

const SINK: usize = 2;
const HOUR_MS: i64 = 3_600_000;

/// A record: partition, hour, whether it is for the sink, length.
type Line = (u32, i64, bool, usize);

/// A word to the journal that may be lost in a crash, though not without those after it.
enum Word {
    Settle(Arc<Cut>),
    Remove(String),
}

/// What survives.
#[derive(Default)]
struct Journal {
    blocks: Vec<Block>,
    settled: BTreeSet<Place>,
    notes: BTreeMap<String, Vec<u8>>,
    unsynced: Vec<Word>,
}

impl Journal {
    fn sync(&mut self, words: usize) {
        for word in self.unsynced.drain(..words) {
            match word {
                Word::Remove(key) => drop(self.notes.remove(&key)),
                Word::Settle(cut) => {
                    let ours = (0..).zip(&self.blocks).flat_map(|(sequence, block)| {
                        let places = (0..).zip(&block.index).filter(|(_, entry)| entry.sinks & 1 << SINK != 0);
                        places.map(move |(record, _)| Place { sequence, record })
                    });
                    let held =
                        ours.filter(|place| cut.spans.iter().any(|span| span.first <= *place && *place < span.end));
                    self.settled.extend(held);
                }
            }
        }
    }

    fn put_note(&mut self, key: &str, value: Vec<u8>) {
        self.sync(self.unsynced.len());
        self.notes.insert(key.to_owned(), value);
    }

    /// The block as it comes back: without what is settled. None if nothing is left of it.
    fn read(&self, sequence: Sequence) -> Option<Block> {
        let stored = &self.blocks[sequence as usize];
        let mut index = stored.index.clone();
        for (record, entry) in (0..).zip(&mut index) {
            if self.settled.contains(&Place { sequence, record }) {
                entry.sinks &= !(1 << SINK);
            }
        }
        let left = index.iter().any(|entry| entry.sinks & 1 << SINK != 0);
        let bytes = stored.bytes.to_vec().into();
        left.then(|| Block { bytes, index, partitions: stored.partitions.clone(), ..Block::default() })
    }
}

/// An object on its way, and how far it is.
struct Upload {
    identity: Arc<Identity>,
    bytes: Vec<u8>,
    cut: Arc<Cut>,
    step: u8,
    is_refused: bool,
}

/// What one life of the process does.
#[derive(Clone, Debug)]
struct Life {
    key: &'static str,
    compression: Compression,
    object_bytes_max: u64,
    part_bytes: usize,
    open_objects_max: usize,
    /// Blocks read before it is killed.
    blocks: usize,
    seed: u64,
}

#[derive(Default)]
struct World {
    journal: Journal,
    visible: BTreeMap<String, (Identity, Vec<u8>)>,
    lost: Vec<u8>,
    growing: HashMap<ObjectId, Vec<u8>>,
    uploads: Vec<Upload>,
    /// Objects become visible without a note, as they must not.
    is_careless: bool,
}

impl World {
    fn take(&mut self, pieces: &mut Vec<Piece>, objects: &mut Objects, random: &mut fastrand::Rng, refuses: bool) {
        let mut queue: std::collections::VecDeque<Piece> = pieces.drain(..).collect();
        let mut refused = BTreeSet::new();
        while let Some(piece) = queue.pop_front() {
            match piece {
                Piece::Part { object, bytes } => {
                    self.growing.entry(object.id).or_default().extend_from_slice(&bytes);
                    if refuses && random.u8(..20) == 0 && !self.visible.contains_key(&object.key) {
                        // A part that is refused ends the object where it is, unless it is at its end already.
                        let mut last = Vec::new();
                        objects.finish(object.id, &mut last);
                        match last.pop() {
                            Some(Piece::Last { object, bytes, cut }) => {
                                queue.retain(|piece| match piece {
                                    Piece::Part { object: other, bytes } if other.id == object.id => {
                                        self.growing.entry(object.id).or_default().extend_from_slice(bytes);
                                        false
                                    }
                                    _ => true,
                                });
                                self.refuse(&object, &bytes.unwrap(), cut);
                            }
                            _ => drop(refused.insert(object.id)),
                        }
                    }
                }
                Piece::Last { object, bytes, cut } => {
                    let mut whole = self.growing.remove(&object.id).unwrap_or_default();
                    whole.extend_from_slice(&bytes.unwrap());
                    let is_visible = self.visible.contains_key(&object.key);
                    let is_refused = refused.contains(&object.id) || (refuses && !is_visible && random.u8(..30) == 0);
                    self.uploads.push(Upload { identity: object, bytes: whole, cut, step: 0, is_refused });
                }
            }
        }
    }

    /// An object that was ended by a refusal is lost, settled and forgotten at once: what comes after it may be noted only behind
    /// these words, or a note of the object, from before the last start, would claim it as well.
    fn refuse(&mut self, object: &Identity, bytes: &[u8], cut: Arc<Cut>) {
        let mut whole = self.growing.remove(&object.id).unwrap_or_default();
        whole.extend_from_slice(bytes);
        self.lost.extend(decompress(object.compression, &whole).unwrap());
        self.journal.unsynced.push(Word::Settle(cut));
        self.journal.unsynced.push(Word::Remove(object.key.clone()));
    }

    /// Takes an object one step further. True if it is over.
    fn step(&mut self, at: usize) -> bool {
        let Upload { identity, bytes, cut, step, is_refused } = &mut self.uploads[at];
        *step += 1;
        match *step {
            1 if self.is_careless => {}
            1 => {
                let value = encode(identity, cut.records, &cut.spans, 0);
                self.journal.put_note(&identity.key, value);
            }
            2 if *is_refused => self.lost.extend(decompress(identity.compression, bytes).unwrap()),
            2 => match self.visible.get(&identity.key) {
                // Without notes a name may be taken by another object: the records are then missing, which is to be seen.
                Some(_) if self.is_careless => {}
                Some((stored, _)) => {
                    assert_eq!(stored.mark, identity.mark, "two objects of one name: {}", identity.key)
                }
                None => drop(self.visible.insert(identity.key.clone(), ((**identity).clone(), bytes.clone()))),
            },
            3 => self.journal.unsynced.push(Word::Settle(cut.clone())),
            4 => self.journal.unsynced.push(Word::Remove(identity.key.clone())),
            _ => return true,
        }
        false
    }

    fn live(&mut self, life: &Life, refuses: bool, is_last: bool) {
        let mut random = fastrand::Rng::with_seed(life.seed);
        let plan = Plan {
            key: Template::parse(life.key).unwrap(),
            lines: Lines::default(),
            dates: Dates::Event,
            naming: Naming::sequence("i", "s"),
            compression: life.compression,
            compression_level: None,
            object_bytes_max: life.object_bytes_max,
            object_age_max: std::time::Duration::from_secs(60),
            open_objects_max: life.open_objects_max,
            part_bytes: life.part_bytes,
        };
        let notes = self.journal.notes.iter().map(|(key, value)| decode(key, value).expect("our own note"));
        let mut objects = Objects::new(plan, notes.collect());
        let metadata = Metadata::default();
        let start = Instant::now();
        let mut pieces = Vec::new();
        for sequence in 0..if is_last { self.journal.blocks.len() } else { life.blocks.min(self.journal.blocks.len()) }
        {
            let Some(block) = self.journal.read(sequence as u64) else { continue };
            let around = Surroundings {
                sink: SINK,
                partition_keys: &[],
                metadata: &metadata,
                hostname: "h",
                now: start + std::time::Duration::from_secs(sequence as u64),
                arrival_ms: 0,
            };
            objects.append(sequence as u64, &block, &around, &mut pieces);
            match random.u8(..12) {
                0 => objects.finish_aged(around.now + std::time::Duration::from_secs(58), &mut pieces),
                1 => objects.finish_largest_above(random.usize(..4000), &mut pieces),
                _ => {}
            }
            self.take(&mut pieces, &mut objects, &mut random, refuses);
            for object in objects.take_settled() {
                self.journal.unsynced.push(Word::Remove(object.key.clone()));
            }
            for _ in 0..random.usize(..8) {
                if !self.uploads.is_empty() {
                    let at = random.usize(..self.uploads.len());
                    if self.step(at) {
                        self.uploads.swap_remove(at);
                    }
                }
            }
            if random.u8(..3) == 0 {
                let words = random.usize(..=self.journal.unsynced.len());
                self.journal.sync(words);
            }
        }
        if is_last {
            objects.finish_all(&mut pieces);
            self.take(&mut pieces, &mut objects, &mut random, refuses);
            assert!(objects.is_empty());
            for object in objects.take_settled() {
                self.journal.unsynced.push(Word::Remove(object.key.clone()));
            }
            while !self.uploads.is_empty() {
                if self.step(0) {
                    self.uploads.swap_remove(0);
                }
            }
            self.journal.sync(self.journal.unsynced.len());
        } else {
            if random.bool() {
                // A shutdown rather than a kill: what is open is finished, and has little time left.
                objects.finish_whole(&mut pieces);
                self.take(&mut pieces, &mut objects, &mut random, false);
                for _ in 0..random.usize(..8) {
                    if !self.uploads.is_empty() {
                        let at = random.usize(..self.uploads.len());
                        if self.uploads[at].step < 4 {
                            self.step(at);
                        }
                    }
                }
            }
            let kept = random.usize(..=self.journal.unsynced.len());
            self.journal.sync(kept);
            self.journal.unsynced.clear();
            self.uploads.clear();
            self.growing.clear();
        }
    }
}

fn blocks(lines: &[Vec<Line>]) -> Vec<Block> {
    let mut number = 0;
    let block = |lines: &Vec<Line>| {
        let mut block = Block::default();
        for (partition, hour, is_ours, length) in lines {
            block.bytes.extend_from_slice(format!("{number} {}\n", "x".repeat(*length)).as_bytes());
            number += 1;
            let sinks = if *is_ours { 1 << SINK | 1 } else { 1 };
            let end = u32::try_from(block.bytes.len()).unwrap();
            block.index.push(Entry { time_ns: hour * HOUR_MS * 1_000_000, sinks, end, partition: *partition });
        }
        block.partitions = (0..4).map(|n| Partition { tag: format!("t{n}").into(), values: [].into() }).collect();
        block
    };
    lines.iter().map(block).collect()
}

fn life() -> impl Strategy<Value = Life> {
    let keys = prop::sample::select(vec!["{tag}/%H/", "a/", "%H/", "{tag}/"]);
    let compressions = prop_oneof![1 => Just(Compression::Gzip), 6 => Just(Compression::None)];
    (keys, compressions, 100u64..6000, 100usize..3000, 1usize..5, 0usize..40, any::<u64>()).prop_map(
        |(key, compression, object_bytes_max, part_bytes, open_objects_max, blocks, seed)| Life {
            key,
            compression,
            object_bytes_max,
            part_bytes,
            open_objects_max,
            blocks,
            seed,
        },
    )
}

/// The numbers of the lines, sorted.
fn numbers<'a>(bytes: impl IntoIterator<Item = &'a [u8]>) -> Vec<u64> {
    let lines = bytes.into_iter().flat_map(|bytes| bytes.split(|byte| *byte == b'\n'));
    let number = |line: &[u8]| std::str::from_utf8(line).unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut numbers: Vec<u64> = lines.filter(|line| !line.is_empty()).map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn lines() -> impl Strategy<Value = Vec<Vec<Line>>> {
    let line = (0u32..4, 0i64..3, prop::bool::weighted(0.8), 0usize..150);
    prop::collection::vec(prop::collection::vec(line, 1..30), 1..30)
}

/// What is visible or refused, and what should be.
fn outcome(world: &World) -> (Vec<u64>, Vec<u64>) {
    let visible: Vec<Vec<u8>> =
        world.visible.values().map(|(identity, bytes)| decompress(identity.compression, bytes).unwrap()).collect();
    let found = numbers(visible.iter().map(Vec::as_slice).chain([world.lost.as_slice()]));
    let mut all = Vec::new();
    for block in &world.journal.blocks {
        for (i, entry) in block.index.iter().enumerate() {
            if entry.sinks & 1 << SINK != 0 {
                all.extend(numbers([block.line(i)]));
            }
        }
    }
    (found, all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn every_record_is_visible_once_whenever_the_process_is_killed(
        lines in lines(),
        lives in prop::collection::vec(life(), 1..6),
    ) {
        let mut world = World { journal: Journal { blocks: blocks(&lines), ..Journal::default() }, ..World::default() };
        for (n, life) in lives.iter().enumerate() {
            world.live(life, false, n + 1 == lives.len());
        }
        let (found, all) = outcome(&world);
        prop_assert_eq!(found, all);
        prop_assert!(world.journal.notes.is_empty());
        let last = (0..).zip(&world.journal.blocks).all(|(sequence, _)| world.journal.read(sequence).is_none());
        prop_assert!(last, "all is settled");
    }

    #[test]
    fn refused_objects_are_lost_once_and_nothing_else(
        lines in lines(),
        lives in prop::collection::vec(life(), 1..6),
    ) {
        let mut world = World { journal: Journal { blocks: blocks(&lines), ..Journal::default() }, ..World::default() };
        for (n, life) in lives.iter().enumerate() {
            world.live(life, true, n + 1 == lives.len());
        }
        let (mut found, all) = outcome(&world);
        // What was refused may be tried once more after a kill, and be refused again or stored.
        found.dedup();
        prop_assert_eq!(found, all);
        prop_assert!(world.journal.notes.is_empty());
        let visible: Vec<Vec<u8>> = world
            .visible
            .values()
            .map(|(identity, bytes)| decompress(identity.compression, bytes).unwrap())
            .collect();
        let visible = numbers(visible.iter().map(Vec::as_slice));
        prop_assert!(visible.windows(2).all(|pair| pair[0] < pair[1]), "none is visible twice");
    }

    #[test]
    fn a_gap_in_the_journal_takes_no_record_beside_it(
        lines in lines(),
        lives in prop::collection::vec(life(), 2..5),
        gaps in prop::collection::vec((0usize..30, 0usize..4), 1..4),
    ) {
        let mut world = World { journal: Journal { blocks: blocks(&lines), ..Journal::default() }, ..World::default() };
        let mut gone = BTreeSet::new();
        let (_, all) = outcome(&world);
        for (n, life) in lives.iter().enumerate() {
            for (block, _) in gaps.iter().filter(|(_, before)| *before == n) {
                let lost = world.journal.blocks.get_mut(*block);
                for entry in lost.into_iter().flat_map(|block| &mut block.index) {
                    entry.sinks = 1;
                }
                gone.insert(*block);
            }
            world.live(life, false, n + 1 == lives.len());
        }
        let (found, left) = outcome(&world);
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "none is visible twice");
        prop_assert!(left.iter().all(|number| found.binary_search(number).is_ok()), "none beside the gaps is lost");
        prop_assert!(found.iter().all(|number| all.binary_search(number).is_ok()));
        prop_assert!(world.journal.notes.is_empty());
    }
}

#[test]
fn the_model_sees_what_happens_without_notes() {
    let lines: Vec<Vec<Line>> = (0..20).map(|n| vec![(n % 3, 0, true, 20); 5]).collect();
    let wrong = (0..50).filter(|seed| {
        let mut world = World { journal: Journal { blocks: blocks(&lines), ..Journal::default() }, ..World::default() };
        world.is_careless = true;
        for n in 0..4 {
            let life = Life {
                key: ["{tag}/", "a/"][n % 2],
                compression: Compression::None,
                object_bytes_max: 500 + 300 * n as u64,
                part_bytes: 1 << 20,
                open_objects_max: 4,
                blocks: 15,
                seed: seed + 1000 * n as u64,
            };
            world.live(&life, false, n == 3);
        }
        let (found, all) = outcome(&world);
        found != all
    });
    assert!(wrong.count() > 10, "records are stored twice, or are missing where a name was taken");
}

/// More on demand: `MESHLENS_CASES=20000`.
fn cases() -> u32 {
    std::env::var("MESHLENS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

#[test]
fn an_object_comes_back_as_it_was_whatever_the_settings_say() {
    let lines: Vec<Vec<Line>> = vec![vec![(0, 0, true, 5), (1, 0, true, 5), (0, 1, true, 5)]; 4];
    let mut world = World { journal: Journal { blocks: blocks(&lines), ..Journal::default() }, ..World::default() };
    let life = Life {
        key: "{tag}/",
        compression: Compression::Gzip,
        object_bytes_max: 1 << 20,
        part_bytes: PART_BYTES_MIN,
        open_objects_max: 4,
        blocks: 0,
        seed: 0,
    };
    let plan = |life: &Life| Plan {
        key: Template::parse(life.key).unwrap(),
        lines: Lines::default(),
        dates: Dates::Event,
        naming: Naming::sequence("i", "s"),
        compression: life.compression,
        compression_level: None,
        object_bytes_max: life.object_bytes_max,
        object_age_max: std::time::Duration::from_secs(60),
        open_objects_max: life.open_objects_max,
        part_bytes: life.part_bytes,
    };
    let append = |objects: &mut Objects, world: &World, sequences: std::ops::Range<u64>| {
        let metadata = Metadata::default();
        let (partition_keys, hostname) = (&[][..], "h");
        let now = Instant::now();
        let around = Surroundings { sink: SINK, partition_keys, metadata: &metadata, hostname, now, arrival_ms: 0 };
        let mut pieces = Vec::new();
        for sequence in sequences {
            objects.append(sequence, &world.journal.read(sequence).unwrap(), &around, &mut pieces);
        }
        pieces
    };
    // The first life notes one of two objects of three blocks, and is killed.
    let mut objects = Objects::new(plan(&life), Vec::new());
    let mut pieces = append(&mut objects, &world, 0..3);
    objects.finish_all(&mut pieces);
    let Piece::Last { object, cut, .. } = &pieces[0] else { panic!("whole") };
    assert_eq!((object.key.as_str(), cut.records), ("t0/i-s-0000000000000000.ndjson.gz", 6));
    let note = decode(&object.key, &encode(object, cut.records, &cut.spans, 0)).unwrap();
    world.journal.notes.clear();
    // The second has another prefix, no compression, and small objects.
    let life = Life { key: "new/", compression: Compression::None, object_bytes_max: 1, ..life };
    let mut objects = Objects::new(plan(&life), vec![note]);
    let pieces = append(&mut objects, &world, 0..2);
    assert_eq!(pieces.len(), 2, "records of the other prefix");
    assert_eq!(objects.len(), 1, "waits for the rest");
    let pieces = append(&mut objects, &world, 2..4);
    let returned = pieces.iter().find_map(|piece| match piece {
        Piece::Last { object, bytes, cut } if object.is_returning => Some((object, bytes.clone().unwrap(), cut)),
        _ => None,
    });
    let (again, bytes, cut_again) = returned.expect("whole before the block after it");
    assert_eq!((&again.key, again.mark, cut_again.records), (&object.key, object.mark, 6));
    assert_eq!(numbers([decompress(Compression::Gzip, &bytes).unwrap().as_slice()]), [0, 2, 3, 5, 6, 8]);
    assert_eq!(pieces.len(), 1 + 1 + 3);
}
