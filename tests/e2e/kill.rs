//! kill -9 at random moments, many times in one run: what was acknowledged arrives, in S3 once, and elsewhere a second time
//! only where a request was under way at the kill. What the journal writes to disk is redacted.

use std::fs::{File, OpenOptions, rename};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Tally;
use crate::fake_aws::fault::{Fault, Rule};
use crate::reliability::figures::{Figures, HEADING, IN_FLIGHT, judge};
use crate::reliability::rows::{ALL, LOGS};
use crate::reliability::scene::Scene;
use crate::reliability::{Destinations, Persist, Scale};
use crate::traffic::{MARK, Seen, Traffic};

/// Kills in each run; another number by `MESHLENS_E2E_KILLS`.
const KILLS: u64 = 12;
/// Records a second: enough for several requests under way at any moment.
const RATE: u64 = 5_000;
/// The longest that a router lives: several times the stretch in which a request counts as under way.
const LIFE_MS: u64 = 1_500;
const _: () = assert!(LIFE_MS as u128 >= 4 * IN_FLIGHT.as_millis());
/// Records at most for each kill: its life, and longer for start and recovery on a busy machine.
const RECORDS_FOR_EACH: u64 = 20_000;

/// Records in what a followed file gives at once, 256 KiB of lines of more than 200 bytes.
const BLOCK_RECORDS_MAX: u64 = (256 << 10) / 200;

fn kills() -> u64 {
    std::env::var("MESHLENS_E2E_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

/// A stage for as many records as that many kills may need, and the dice, both of a seed that is told.
fn scene(persist: Persist, to: Destinations, traffic: Traffic) -> (Scene, fastrand::Rng) {
    let seed = std::env::var("MESHLENS_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    eprintln!("seed {seed}, {} kills", kills());
    let mut scene = Scene::of(traffic, Scale::Short, persist, to, (kills() + 10) * RECORDS_FOR_EACH, seed);
    // A kill takes nothing from the kernel, so no disk is needed, and what is slow about one does not blur the figures.
    if let Ok(directory) = TempDir::new_in("/dev/shm") {
        scene.directory = directory;
    }
    (scene, fastrand::Rng::with_seed(seed))
}

/// Kills and starts again and again; one in five does not live to listen.
fn kill_again_and_again(scene: &mut Scene, dice: &mut fastrand::Rng) {
    for _ in 0..kills() {
        if dice.u8(..5) == 0 {
            scene.pause(Duration::from_millis(dice.u64(..LIFE_MS)));
            scene.kill();
            scene.start_unready();
            scene.pause(Duration::from_millis(dice.u64(..60)));
        } else {
            scene.pause(Duration::from_millis(dice.u64(..LIFE_MS)));
        }
        scene.kill();
        scene.start();
    }
}

fn tell(scene: &Scene, figures: &Figures) {
    eprintln!("{HEADING}\n{}", figures.line());
    for sink in scene.to {
        eprintln!("{sink:?}: {} copies more than one", scene.witness.verdict(*sink).duplicated);
    }
    let ages = &figures.in_flight;
    let at = |part: usize| ages.get((ages.len() * part / 100).min(ages.len().saturating_sub(1))).copied();
    eprintln!(
        "{} kills; {} copies had an answer that may have come: half of them within {:.1?} of the kill, 90 % within {:.1?}, all within {:.1?}",
        scene.kills,
        ages.len(),
        at(50).unwrap_or_default(),
        at(90).unwrap_or_default(),
        ages.last().copied().unwrap_or_default()
    );
    assert!(figures.problems.is_empty(), "{}", figures.problems.join("\n"));
}

fn load(resend: bool) {
    let (mut scene, mut dice) = scene(Persist::Always, ALL, Traffic::recent());
    scene.client.rate = Some(RATE);
    scene.client.batch = 50;
    scene.client.connections = 2;
    scene.client.resend = resend;
    scene.start();
    scene.sending(|scene| {
        kill_again_and_again(scene, &mut dice);
        scene.fault_ends();
        scene.tally.stop();
    });
    scene.finish();
    let figures = judge(if resend { "kill -9" } else { "kill -9, nothing sent again" }, &scene, !resend);
    assert!(figures.acked > kills() * 100, "too little was acknowledged to prove anything: {figures:?}");
    if !resend {
        let copies = scene.witness.verdict(Seen::S3).duplicated;
        assert_eq!(copies, 0, "S3 has records twice that were sent once");
    }
    tell(&scene, &figures);
}

#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    load(true);
}

/// A sender that never repeats itself: each copy is the router's own doing.
#[test]
fn nothing_acknowledged_is_lost_or_repeated_in_s3_though_nobody_sends_again() {
    load(false);
}

/// As logrotate does: `.1` is the newest of the old ones.
fn rotate(path: &Path, rotations: u64) {
    let name = |number: u64| path.with_extension(format!("log.{number}"));
    for number in (1..rotations).rev() {
        rename(name(number), name(number + 1)).unwrap();
    }
    rename(path, name(1)).unwrap();
}

/// Writes lines to a file that is rotated by rename, until told to stop.
fn write_lines(tally: &Tally, path: &Path, traffic: &Traffic, stop: &AtomicBool, mut dice: fastrand::Rng) {
    let open = || OpenOptions::new().create(true).append(true).open(path).unwrap();
    let (mut file, mut bytes, mut rotations): (File, Vec<u8>, u64) = (open(), Vec::new(), 0);
    while !stop.load(SeqCst) {
        bytes.clear();
        let first = tally.sent();
        let numbers = first..first + dice.u64(1..60);
        for n in numbers.clone() {
            traffic.line(n, &mut bytes);
            bytes.push(b'\n');
        }
        // In two pieces, so that a reader meets half a line.
        let cut = dice.usize(..bytes.len());
        file.write_all(&bytes[..cut]).unwrap();
        file.write_all(&bytes[cut..]).unwrap();
        tally.write(numbers);
        if dice.u8(..100) == 0 {
            rotations += 1;
            rotate(path, rotations);
            file = open();
        }
        std::thread::sleep(Duration::from_millis(dice.u64(1..12)));
    }
    assert!(rotations > 0, "never rotated");
}

fn follow(persist: Persist) {
    let traffic = Traffic::recent().bare();
    let (mut scene, mut dice) = scene(persist, LOGS, traffic.clone());
    let path = scene.directory.path().join("access.log");
    scene.source = format!("[source.file]\ntype = \"lines\"\npath = \"{}\"\nfollow = true\n", path.display());
    // One request at a time: what is settled has no gaps, so that nothing settled may come again.
    scene.sink = "concurrency = 1\n".into();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, dice, path) = (Arc::clone(&stop), dice.fork(), path.clone());
        let tally = Arc::clone(&scene.tally);
        std::thread::spawn(move || write_lines(&tally, &path, &traffic, &stop, dice))
    };
    scene.start();
    kill_again_and_again(&mut scene, &mut dice);
    stop.store(true, SeqCst);
    writer.join().unwrap();
    scene.fault_ends();
    scene.finish();
    if persist == Persist::Positions {
        // A position is that of a block: of one that was delivered in part, all comes again.
        scene.repeats_max = scene.kills * BLOCK_RECORDS_MAX;
    }
    let figures = judge("kill -9, followed file", &scene, false);
    tell(&scene, &figures);
}

#[test]
fn a_followed_file_is_resumed_without_a_gap_from_the_journal() {
    follow(Persist::Always);
}

#[test]
fn a_followed_file_is_resumed_without_a_gap_from_its_positions_alone() {
    follow(Persist::Positions);
}

#[test]
fn what_the_journal_writes_to_disk_is_redacted() {
    let mut scene = Scene::new(Scale::Short, Persist::Always, ALL, 5_000, 1);
    // Nothing may leave the journal before it was looked at.
    scene.fake.misbehave(vec![Rule::new(Fault::ServerError)]);
    scene.start();
    scene.sending(|_| ());
    scene.kill();
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(scene.journal_dir()).unwrap() {
        segments.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let count = |what: &str| memchr::memmem::find_iter(&segments, what.as_bytes()).count();
    assert!(count("5eed0000-0000-4000-8000-") >= 5_000, "the records are there to be read");
    assert_eq!(count(MARK), 0, "a query string is on disk");
    scene.fault_ends();
    scene.start();
    scene.finish();
    let figures = judge("kill -9, all of it on disk", &scene, false);
    tell(&scene, &figures);
}
