//! Which record goes into which object: model and properties.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::super::compress::tests::decompress;
use super::super::object::Cut;
use super::super::spans::SPANS_BYTES_MAX;
use super::*;
use crate::journal::Span;
use crate::journal::block::{Entry, Partition};

const HOUR_MS: i64 = 3_600_000;
const SINK: usize = 3;

/// A record of a test: its partition, its hour, whether it is for the sink, and its length.
type Line = (u32, i64, bool, usize);

fn plan(key: &str) -> Plan {
    Plan {
        key: Template::parse(key).unwrap(),
        dates: Dates::Event,
        lines: Lines::default(),
        naming: Naming::sequence("i1", "s"),
        compression: Compression::None,
        compression_level: None,
        object_bytes_max: 1 << 20,
        object_age_max: Duration::from_secs(60),
        open_objects_max: 8,
        part_bytes: 1 << 20,
    }
}

/// A block of lines numbered from `number` on; partition n has the tag `tn`.
fn block(number: &mut usize, lines: &[Line]) -> Block {
    let mut block = Block::default();
    for (partition, hour, ours, length) in lines {
        let text = format!("{{\"n\":{number},\"x\":\"{}\"}}\n", "x".repeat(*length));
        *number += 1;
        block.bytes.extend_from_slice(text.as_bytes());
        let sinks = if *ours { 1 << SINK | 1 } else { 1 };
        let end = u32::try_from(block.bytes.len()).unwrap();
        block.index.push(Entry { time_ns: (hour * HOUR_MS + 7) * 1_000_000, sinks, end, partition: *partition });
        block.sinks |= sinks;
    }
    block.partitions = (0..8).map(|n| Partition { tag: format!("t{n}").into(), values: [].into() }).collect();
    block
}

fn append(objects: &mut Objects, sequence: Sequence, block: &Block, now: Instant) -> Vec<Piece> {
    let metadata = Metadata::default();
    let around = Surroundings {
        sink: SINK,
        partition_keys: &[],
        metadata: &metadata,
        hostname: "h",
        now,
        arrival_ms: 1_709_175_845_678,
    };
    let mut out = Vec::new();
    objects.append(sequence, block, &around, &mut out);
    out
}

/// An object put together from its pieces.
#[derive(Debug, Default)]
struct Stored {
    key: String,
    bytes: Vec<u8>,
    parts: Vec<usize>,
    cut: Option<Arc<Cut>>,
}

fn assemble(pieces: Vec<Piece>) -> BTreeMap<ObjectId, Stored> {
    let mut stored: BTreeMap<ObjectId, Stored> = BTreeMap::new();
    for piece in pieces {
        let (object, bytes, last) = match piece {
            Piece::Part { object, bytes } => (object, bytes, None),
            Piece::Last { object, bytes, cut } => (object, bytes.unwrap(), Some(cut)),
        };
        let entry = stored.entry(object.id).or_default();
        assert!(entry.cut.is_none(), "nothing comes after the last piece");
        entry.key.clone_from(&object.key);
        entry.bytes.extend_from_slice(&bytes);
        entry.parts.push(bytes.len());
        entry.cut = last;
    }
    stored
}

fn keys(pieces: &[Piece]) -> Vec<&str> {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Part { object, .. } | Piece::Last { object, .. } => object.key.as_str(),
        })
        .collect()
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    prop::collection::vec((0u32..5, 0i64..3, prop::bool::weighted(0.8), 0usize..300), 0..40)
}

proptest! {
    // Encoders are slow to make, above all at high levels.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_record_is_in_one_object_of_its_prefix_in_order(
        blocks in prop::collection::vec((lines(), 0u64..30), 0..20),
        compression in prop_oneof![2 => Just(Compression::Gzip), 1 => Just(Compression::Zstd), 7 => Just(Compression::None)],
        object_bytes_max in 1u64..8000,
        part_bytes in 200usize..4000,
        open_objects_max in 0usize..6,
    ) {
        let plan = Plan { compression, object_bytes_max, part_bytes, open_objects_max, ..plan("{tag}/%H/") };
        let mut objects = Objects::new(plan, Vec::new());
        let (mut pieces, mut expected, mut ranges) = (Vec::new(), BTreeMap::<String, Vec<u8>>::new(), Vec::new());
        let (mut number, mut now) = (0, Instant::now());
        for (sequence, (lines, seconds)) in (5..).zip(&blocks) {
            now += Duration::from_secs(*seconds);
            objects.finish_aged(now, &mut pieces);
            let block = block(&mut number, lines);
            pieces.extend(append(&mut objects, sequence, &block, now));
            for (i, (partition, hour, ours, _)) in lines.iter().enumerate() {
                if *ours {
                    expected.entry(format!("t{partition}/{hour:02}/")).or_default().extend_from_slice(block.line(i));
                    ranges.push(sequence);
                }
            }
            prop_assert!(objects.len() <= open_objects_max.max(1));
            prop_assert!(objects.next_aged().is_none_or(|at| at <= now + Duration::from_secs(60)));
        }
        objects.finish_all(&mut pieces);
        prop_assert!(objects.is_empty());
        prop_assert_eq!(objects.cost_bytes(), 0);

        let stored = assemble(pieces);
        let mut found = BTreeMap::<String, Vec<u8>>::new();
        let mut seen = HashSet::new();
        let mut records = 0;
        // Objects are numbered as they are opened.
        for object in stored.into_values() {
            let (prefix, name) = object.key.split_at(object.key.rfind('/').unwrap() + 1);
            prop_assert!(seen.insert(object.key.clone()), "a key twice: {}", object.key);
            let cut = object.cut.expect("every object is finished");
            let stem = format!("i1-s-{:016x}", cut.first);
            let suffix = format!(".ndjson{}", compression.suffix());
            prop_assert!(name.starts_with(&stem) && name.ends_with(&suffix), "{}", name);
            prop_assert!(cut.first <= cut.last);
            records += cut.records;

            let (_, parts) = object.parts.split_last().unwrap();
            prop_assert!(parts.iter().all(|bytes| *bytes >= part_bytes));
            let plain = decompress(compression, &object.bytes).unwrap();
            prop_assert!(!plain.is_empty() && plain.ends_with(b"\n"));
            prop_assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count() as u64, cut.records);
            if compression == Compression::None {
                // One run of records above the limit at most.
                let longest = 350;
                prop_assert!((plain.len() as u64) < 2 * object_bytes_max + 2 * longest);
            }
            found.entry(prefix.to_owned()).or_default().extend(plain);
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(records, ranges.len() as u64);
    }
}

#[test]
fn objects_begun_by_one_block_have_names_of_their_own() {
    let mut objects = Objects::new(Plan { object_bytes_max: 1, ..plan("a/") }, Vec::new());
    let mut number = 0;
    let pieces = append(&mut objects, 255, &block(&mut number, &[(0, 0, true, 9); 3]), Instant::now());
    let expected =
        ["a/i1-s-00000000000000ff.ndjson", "a/i1-s-00000000000000ff-1.ndjson", "a/i1-s-00000000000000ff-2.ndjson"];
    assert_eq!(keys(&pieces), expected);
    let pieces = append(&mut objects, 256, &block(&mut number, &[(0, 0, true, 9)]), Instant::now());
    assert_eq!(keys(&pieces), ["a/i1-s-0000000000000100.ndjson"]);
}

#[test]
fn an_object_ends_at_its_age_and_the_largest_on_demand() {
    let mut objects = Objects::new(plan("{tag}/"), Vec::new());
    let start = Instant::now();
    let mut number = 0;
    assert!(append(&mut objects, 1, &block(&mut number, &[(0, 0, true, 10)]), start).is_empty());
    let later = start + Duration::from_secs(10);
    assert!(append(&mut objects, 2, &block(&mut number, &[(1, 0, true, 99_000), (2, 0, true, 1)]), later).is_empty());
    assert_eq!(objects.next_aged(), Some(start + Duration::from_secs(60)));
    let mut out = Vec::new();
    objects.finish_aged(start + Duration::from_secs(60) - Duration::from_nanos(1), &mut out);
    assert!(out.is_empty());
    objects.finish_aged(start + Duration::from_secs(60), &mut out);
    assert_eq!(keys(&out), ["t0/i1-s-0000000000000001.ndjson"]);
    out.clear();
    objects.finish_largest_above(50_000, &mut out);
    assert_eq!(keys(&out), ["t1/i1-s-0000000000000002.ndjson"]);
    objects.press(true);
    assert_eq!(objects.next_aged(), Some(later + PRESSED_AGE_MAX));
    objects.press(false);
    assert_eq!(objects.next_aged(), Some(later + Duration::from_secs(60)));
    objects.hurry(Duration::ZERO);
    assert_eq!(objects.next_aged(), Some(later));
}

#[test]
fn the_oldest_object_makes_room() {
    let mut objects = Objects::new(Plan { open_objects_max: 2, ..plan("{tag}/") }, Vec::new());
    let start = Instant::now();
    let mut number = 0;
    for (n, partition) in [(0, 0), (1, 1)] {
        let at = start + Duration::from_secs(n);
        assert!(append(&mut objects, n, &block(&mut number, &[(partition, 0, true, 1)]), at).is_empty());
    }
    let lines = [(1, 0, true, 1), (2, 0, true, 1), (0, 0, true, 1), (1, 0, true, 1)];
    let pieces = append(&mut objects, 2, &block(&mut number, &lines), start + Duration::from_secs(2));
    let expected =
        ["t0/i1-s-0000000000000000.ndjson", "t1/i1-s-0000000000000001.ndjson", "t2/i1-s-0000000000000002-1.ndjson"];
    assert_eq!(keys(&pieces), expected);
    let stored = assemble(pieces);
    let cut = stored[&1].cut.as_ref().unwrap();
    assert_eq!((cut.first, cut.last, cut.records), (1, 2, 2));
    let place = |sequence, record| Place { sequence, record };
    assert_eq!(cut.spans.iter().collect::<Vec<_>>(), [Span { first: place(1, 0), end: place(2, 1) }]);
}

#[test]
fn a_key_is_no_longer_than_s3_takes_and_stays_in_its_prefix() {
    let mut objects = Objects::new(plan(&format!("{}/{{tag}}/", "é".repeat(600))), Vec::new());
    let mut number = 0;
    append(&mut objects, 1, &block(&mut number, &[(0, 0, true, 1)]), Instant::now());
    let mut out = Vec::new();
    objects.finish_all(&mut out);
    let [key] = keys(&out)[..] else { panic!("one object") };
    assert!(key.len() <= KEY_BYTES_MAX - RENAME_BYTES_MAX && key.ends_with("i1-s-0000000000000001.ndjson"));

    let mut objects = Objects::new(plan("logs/{tag}/"), Vec::new());
    let mut hostile = block(&mut number, &[(0, 0, true, 1)]);
    hostile.partitions[0].tag = "../../year=1999/x".into();
    append(&mut objects, 1, &hostile, Instant::now());
    out.clear();
    objects.finish_all(&mut out);
    assert_eq!(keys(&out), ["logs/___.__year_1999_x/i1-s-0000000000000001.ndjson"]);
}

#[test]
fn a_further_key_keeps_prefix_and_suffix() {
    let key = |key: &str, name_at| Identity {
        id: 0,
        key: key.to_owned(),
        name_at,
        first: 0,
        compression: Compression::Gzip,
        mark: 0,
        taken: 0,
        is_returning: false,
    };
    let object = key("a.ndjson/n.ndjson.gz", 9);
    assert_eq!(object.name(), "n.ndjson.gz");
    assert_eq!(object.further_key(0), "a.ndjson/n.ndjson.gz");
    assert_eq!(object.further_key(1), "a.ndjson/n-r1.ndjson.gz");
    assert_eq!(object.further_key(2), "a.ndjson/n-r2-0000000000000000.ndjson.gz");
    assert_eq!(key("a/plain", 2).further_key(1), "a/plain-r1");
    // Whole keys end as the user wants.
    for (own, further) in [
        ("a.b/c", "a.b/c-r1"),
        ("a/b.gz", "a/b-r1.gz"),
        ("a/b.log.gz", "a/b-r1.log.gz"),
        ("10.0.0.1", "10.0.0.1-r1"),
        ("a/.gz", "a/-r1.gz"),
        ("", "-r1"),
    ] {
        assert_eq!(key(own, own.len()).further_key(1), further);
    }
}

#[test]
fn hostile_names_of_instance_and_sink_stay_one_component() {
    let Naming::Sequence { stem } = Naming::sequence("../a", "b/c") else { panic!("a sequence") };
    assert_eq!(&*stem, "___a-b_c");
}

#[test]
fn firehose_names_carry_the_arrival() {
    let naming = Naming::Firehose { stream: "logs".into() };
    let mut objects = Objects::new(Plan { naming, dates: Dates::Arrival, ..plan("logs/%Y/%m/%d/%H/") }, Vec::new());
    let mut number = 0;
    append(&mut objects, 1, &block(&mut number, &[(0, 0, true, 1), (1, 5, true, 1)]), Instant::now());
    let mut out = Vec::new();
    objects.finish_all(&mut out);
    let [key] = keys(&out)[..] else { panic!("one object, whatever the events' times") };
    let uuid = key.strip_prefix("logs/2024/02/29/03/logs-1-2024-02-29-03-04-05-").unwrap();
    assert_eq!(uuid.len(), 36);
    assert_eq!((&uuid[14..15], uuid.matches('-').count()), ("4", 4));
}

#[test]
fn whole_keys_are_made_by_their_first_record_and_open_in_their_dates() {
    let whole = |key: &str, is_fixed| Plan { naming: Naming::whole("i", "s", is_fixed), ..plan(key) };
    let keys_of = |plan: Plan, sequences: &[u64]| {
        let mut objects = Objects::new(plan, Vec::new());
        let (mut number, mut out) = (0, Vec::new());
        for sequence in sequences {
            let lines = [(0, 1, true, 1), (1, 2, true, 1), (0, 5, true, 1)];
            append(&mut objects, *sequence, &block(&mut number, &lines), Instant::now());
            objects.finish_all(&mut out);
        }
        keys(&out).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    // Records of other hours go into the same object; its dates are those of the first.
    let once = keys_of(whole("logs/{tag}/%H-{uuid}.gz", false), &[1]);
    assert_eq!(once, keys_of(whole("logs/{tag}/%H-{uuid}.gz", false), &[1]), "the same records, the same keys");
    assert!(once[0].starts_with("logs/t0/01-") && once[1].starts_with("logs/t1/02-"), "{once:?}");
    assert_ne!(once[0][11..], once[1][11..]);
    assert!(once.iter().all(|key| key.len() == 22 && key[11..19].bytes().all(|b| b.is_ascii_alphanumeric())));
    let numbered = keys_of(whole("{tag[0]}.{index}", false), &[1, 2]);
    assert_eq!(numbered, ["t0.1048576", "t1.1048577", "t0.2097152", "t1.2097153"]);
    let appended = keys_of(whole("all/%H", false), &[1]);
    assert!(appended.len() == 1 && appended[0].starts_with("all/01-object") && appended[0].len() == 21, "{appended:?}");
    assert_eq!(keys_of(whole("all/%H", true), &[1, 2]), ["all/01", "all/01"]);
}

#[test]
fn lines_are_made_as_they_are_appended() {
    let lines = Lines::value("n");
    let mut objects = Objects::new(Plan { lines, ..plan("{tag}/") }, Vec::new());
    let mut number = 0;
    let block = block(&mut number, &[(0, 0, true, 1), (1, 0, true, 1), (0, 0, false, 1), (0, 0, true, 1)]);
    let mut pieces = append(&mut objects, 1, &block, Instant::now());
    objects.finish_all(&mut pieces);
    let stored: Vec<Vec<u8>> = assemble(pieces).into_values().map(|object| object.bytes).collect();
    assert_eq!(stored, [b"0\n3\n".to_vec(), b"1\n".to_vec()]);
}

#[test]
fn times_at_the_ends_of_the_clock_do_no_harm() {
    let mut objects = Objects::new(plan("%Y-%H/"), Vec::new());
    let mut number = 0;
    let mut block = block(&mut number, &[(0, 0, true, 1); 3]);
    for (entry, time_ns) in block.index.iter_mut().zip([i64::MIN, i64::MAX, 0]) {
        entry.time_ns = time_ns;
    }
    append(&mut objects, 1, &block, Instant::now());
    let mut out = Vec::new();
    objects.finish_all(&mut out);
    let mut prefixes: Vec<&str> = keys(&out).into_iter().map(|key| key.split('/').next().unwrap()).collect();
    prefixes.sort_unstable();
    assert_eq!(prefixes, ["1970-00", "2262-23"]);
}

#[test]
fn prefixes_that_take_turns_end_an_object_before_its_spans_cost_too_much() {
    let mut objects = Objects::new(Plan { object_bytes_max: u64::MAX, ..plan("{tag}/") }, Vec::new());
    let mut number = 0;
    let block = block(&mut number, &[(0, 0, true, 1), (1, 0, true, 1)].repeat(2000));
    let mut pieces = Vec::new();
    for sequence in 0..100 {
        pieces.extend(append(&mut objects, sequence, &block, Instant::now()));
        assert!(objects.cost_bytes() < 16 << 20);
    }
    objects.finish_all(&mut pieces);
    let stored = assemble(pieces);
    assert!(stored.len() > 2, "{}", stored.len());
    let cuts: Vec<&Arc<Cut>> = stored.values().map(|object| object.cut.as_ref().unwrap()).collect();
    assert!(cuts.iter().all(|cut| cut.spans.cost_bytes() <= SPANS_BYTES_MAX * 2));
    assert_eq!(cuts.iter().map(|cut| cut.records).sum::<u64>(), 400_000);
    assert!(cuts.iter().all(|cut| cut.spans.iter().count() as u64 == cut.records), "each turn is one record");
}
