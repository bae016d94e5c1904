//! Damage anywhere in a segment costs what it hit, and no more: what that is, is known from where the frames stand.

use std::ops::Range;
use std::path::PathBuf;

use super::*;
use crate::journal::disk::frame::Kind;
use crate::journal::disk::segment::{self, Frames, Header, Next};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_costs_what_it_hit_and_no_more(at in 0.0f64..1.0, length in 1usize..200, seed in any::<u64>()) {
        let damaged = Damaged::new();
        let bytes = damaged.bytes.len();
        let start = (at * bytes as f64) as usize;
        damaged.follow(start..(start + length).min(bytes), seed)?;
    }
}

/// A journal of one segment with twelve blocks of two records, to be damaged.
struct Damaged {
    dir: TempDir,
    config: Config,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the frames stand, and whether they are blocks.
    frames: Vec<(Range<usize>, bool)>,
}

impl Damaged {
    const BLOCKS: u64 = 12;

    fn new() -> Self {
        let runtime = runtime();
        let rig = Rig::new(&Config { segment_bytes: 1 << 20, ..small(Persist::Always) });
        for _ in 0..Self::BLOCKS {
            runtime.block_on(rig.opened.writer.append(block(&[1, 1], None)));
            rig.wait_until_idle();
        }
        let (dir, config) = rig.kill();
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let path = files.into_iter().find(|path| path.extension().is_some()).unwrap();
        let file = fs::File::open(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let Header::Good(_, start) = segment::header(&file).unwrap() else { panic!("a sound header") };
        let (mut frames, mut found) = (Vec::new(), Frames::new(&file, start, bytes.len() as u64));
        loop {
            let begin = found.offset() as usize;
            let is_block = match found.read_next().unwrap() {
                Next::Frame(head, _) => head.kind == Kind::Block,
                Next::End => break,
                Next::Gap { .. } | Next::Torn { .. } => panic!("a sound segment"),
            };
            frames.push((begin..found.offset() as usize, is_block));
        }
        assert_eq!(frames.iter().filter(|(_, is_block)| *is_block).count() as u64, Self::BLOCKS);
        Self { dir, config, path, bytes, frames }
    }

    /// Changes each byte of a range, and opens the journal again: what the range touched is lost, and nothing else.
    fn follow(mut self, damage: Range<usize>, seed: u64) -> Result<(), TestCaseError> {
        let mut random = fastrand::Rng::with_seed(seed);
        self.bytes[damage.clone()].iter_mut().for_each(|byte| *byte = !*byte ^ random.u8(..128));
        fs::write(&self.path, &self.bytes).unwrap();
        let header_bytes = self.frames[0].0.start;
        if SEGMENT_VERSION.start <= damage.start && damage.end <= SEGMENT_VERSION.end {
            // All but the version is as this program writes it: that is what another version looks like.
            let config = Config { dir: Some(self.dir.path().to_owned()), ..self.config };
            let ledgers = names().sinks.iter().map(|name| Arc::new(Ledger::new(name.as_str()))).collect();
            let refused = open_with(config, ledgers, names(), &[1, 0]).err();
            let is_refused = matches!(refused, Some(OpenError::Refused { .. }));
            prop_assert!(is_refused, "{:?}", refused);
            prop_assert_eq!(fs::read(&self.path).unwrap(), self.bytes);
            return Ok(());
        }
        let is_hit = |frame: &Range<usize>| frame.start < damage.end && damage.start < frame.end;
        let left = self.frames.iter().filter(|(frame, is_block)| *is_block && !is_hit(frame)).count() as u64;
        let is_torn = self.frames.last().is_some_and(|(frame, _)| is_hit(frame));
        let (expected, gaps) = match damage.start < header_bytes {
            // Nobody knows whose records these are.
            true => (0, 1),
            // What is torn off at the end was never acknowledged, as far as anyone can see.
            false => (left, u64::from(!is_torn)),
        };
        let mut rig = Rig::open(self.dir, &self.config);
        prop_assert_eq!(rig.opened.recovery, Recovery { records: expected * 2, orphans: 0, gaps });
        drop(rig.opened.writer);
        let runtime = runtime();
        let mut back = 0;
        while runtime.block_on(async { timeout(LONG, rig.opened.readers[0].next()).await.unwrap() }).is_some() {
            back += 1;
        }
        prop_assert_eq!(back, expected);
        let tally = rig.ledgers[0].tally();
        prop_assert_eq!(tally.received, expected * 2);
        prop_assert_eq!(tally.lost[Reason::Corrupt as usize], 0, "what cannot be read at the start is not promised");
        Ok(())
    }
}

/// Where the version stands in a segment.
const SEGMENT_VERSION: Range<usize> = 16..20;

#[test]
fn regression_a_damaged_version_among_other_damage_is_damage() {
    // Longer than the version, or partly before it: the rest of the header does not hold together either.
    for damage in [16..21, 17..40, 19..200, 15..17, 0..97] {
        Damaged::new().follow(damage, 7).unwrap();
    }
    for damage in [16..20, 18..19] {
        Damaged::new().follow(damage, 7).unwrap();
    }
}

#[test]
fn regression_damage_up_to_the_end_is_no_gap() {
    let bytes = Damaged::new().bytes.len();
    for damage in [bytes - 1..bytes, bytes - 190..bytes - 1, bytes - 400..bytes - 200] {
        Damaged::new().follow(damage, 7).unwrap();
    }
}
