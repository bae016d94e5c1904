//! The journal on disk, through the binary: what a stop leaves is delivered after the next start, and a directory that is not ours
//! stays as it is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::process::{Exit, Process, Run};
use crate::sender::Mode;
use crate::stage::{SOON, Stage};
use crate::traffic::{MARK, Seen};

fn with_journal(stage: &Stage, run: Run, mode: &str) -> Run {
    let dir = stage.directory.path().join("journal");
    let settings = [format!("journal.persist={mode}"), format!("journal.dir={}", dir.display())];
    settings.into_iter().fold(run, |run, setting| run.with(["--set".to_owned(), setting]))
}

/// The segments of the stage's journal, joined.
fn segments(stage: &Stage) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(stage.directory.path().join("journal")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            bytes.extend(fs::read(path).unwrap());
        }
    }
    bytes
}

/// Sends all to a run whose services are gone, and ends it; `end` says how.
fn leave_all_pending(stage: &mut Stage, mode: &str, end: impl FnOnce(Process) -> Exit) -> Exit {
    stage.fake.close();
    let process = stage.start(with_journal(stage, stage.run_quick().with(["--grace", "1"]), mode));
    stage.sender(Mode::Packed).send(&stage.traffic, 0..stage.count).unwrap();
    let exit = end(process);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    exit.account.assert_adds_up();
    assert!(exit.stderr.contains("delivered after the next start"), "{}", exit.stderr);
    let segments = segments(stage);
    assert!(memchr::memmem::find(&segments, b"response_code").is_some(), "the records are there");
    assert!(memchr::memmem::find(&segments, MARK.as_bytes()).is_none(), "a query string is on disk");
    exit
}

/// Starts again, with the services back, and expects every record once.
fn deliver_the_rest(stage: &mut Stage, mode: &str) {
    stage.fake.reopen();
    let mut process = stage.start(with_journal(stage, stage.run_quick(), mode));
    let count = stage.count;
    process.wait_until("all delivered", SOON, |_| {
        [Seen::Logs, Seen::Firehose, Seen::S3].into_iter().all(|sink| stage.witness.arrived(sink) == count)
    });
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for sink in [Seen::Logs, Seen::Firehose, Seen::S3] {
        stage.assert_whole(sink, 0);
    }
    assert_eq!(exit.account.totals["received"], count, "{}", exit.stderr);
    assert!(exit.stderr.contains(&format!("source journal: received {count} delivered {count} ")), "{}", exit.stderr);
    // Nothing is left for a third start.
    let size: u64 = fs::read_dir(stage.directory.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < 64 << 10, "{size} bytes are left in the journal's directory");
}

#[test]
fn what_a_stop_could_not_deliver_is_delivered_after_the_next_start() {
    for mode in ["overflow", "always"] {
        let mut stage = Stage::new(5_000);
        leave_all_pending(&mut stage, mode, |process| process.terminate(SOON));
        deliver_the_rest(&mut stage, mode);
    }
}

#[test]
fn a_second_signal_keeps_what_is_left() {
    let mut stage = Stage::new(5_000);
    let mode = "overflow";
    leave_all_pending(&mut stage, mode, |process| {
        process.signal("TERM");
        // Later than signals that count as the same.
        std::thread::sleep(Duration::from_millis(700));
        process.terminate(SOON)
    });
    deliver_the_rest(&mut stage, mode);
}

#[test]
fn a_journal_larger_than_memory_waits_on_disk() {
    for mode in ["overflow", "always"] {
        let mut stage = Stage::new(60_000);
        stage.fake.close();
        let small = ["--set", "journal.memory_bytes_max=2MiB", "--set", "journal.segment_bytes=1MiB"];
        let mut process = stage.start(with_journal(&stage, stage.run_quick().with(small), mode));
        stage.sender(Mode::Packed).send(&stage.traffic, 0..stage.count).unwrap();
        stage.fake.reopen();
        let count = stage.count;
        process.wait_until("all delivered", SOON, |_| {
            [Seen::Logs, Seen::Firehose, Seen::S3].into_iter().all(|sink| stage.witness.arrived(sink) == count)
        });
        let exit = process.terminate(SOON);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        for sink in [Seen::Logs, Seen::Firehose, Seen::S3] {
            stage.assert_whole(sink, 0);
        }
        exit.account.assert_adds_up();
    }
}

/// Runs into a directory that must be refused, with what the message must hold.
fn refused(stage: &Stage, expected: &str) {
    let exit = with_journal(stage, stage.run_quick(), "always").start().wait(SOON);
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains(expected), "{:?} is not in\n{}", expected, exit.stderr);
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_stays_as_it_is() {
    let mut stage = Stage::new(10);
    let dir = stage.directory.path().join("journal");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("base.db"), "theirs").unwrap();
    refused(&stage, "it is not a journal of meshlens");
    assert_eq!(files(&dir), [("base.db".to_owned(), b"theirs".to_vec())]);
    fs::remove_file(dir.join("base.db")).unwrap();

    leave_all_pending(&mut stage, "always", |process| process.terminate(SOON));
    let left = files(&dir);
    let (name, mut segment) = left.iter().find(|(name, _)| name.ends_with(".seg")).unwrap().clone();
    segment[16] = 9;
    fs::write(dir.join(&name), &segment).unwrap();
    let before = files(&dir);
    refused(&stage, "is of version 9, and this program reads version 2");
    assert_eq!(files(&dir), before);
    for (name, bytes) in left {
        fs::write(dir.join(name), bytes).unwrap();
    }

    let first = stage.start(with_journal(&stage, stage.run_quick(), "always"));
    let second = stage.directory.path().join("second.sock");
    let other = Run::new(["run", "--forward-unix", second.to_str().unwrap(), "--to", "discard"]);
    let exit = with_journal(&stage, other, "always").start().wait(SOON);
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("in use by another process"), "{}", exit.stderr);
    drop(first);
}

#[test]
fn damage_is_named_and_counted_and_the_rest_is_delivered() {
    let mut stage = Stage::new(20_000);
    leave_all_pending(&mut stage, "always", |process| process.terminate(SOON));
    let dir = stage.directory.path().join("journal");
    let (name, mut bytes) = files(&dir)
        .into_iter()
        .filter(|(name, _)| name.ends_with(".seg"))
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0xa5);
    fs::write(dir.join(&name), bytes).unwrap();
    stage.fake.reopen();
    let mut process = stage.start(with_journal(&stage, stage.run_quick(), "always"));
    process.wait_until("the damage is said", SOON, |process| process.said().contains("damaged bytes"));
    let said = process.said();
    assert!(said.contains(&name) && said.contains("offset="), "{said}");
    // What is not damaged arrives; the sinks are idle then.
    let mut last = (0, std::time::Instant::now());
    process.wait_until("the rest delivered", SOON, |_| {
        let arrived = [Seen::Logs, Seen::Firehose, Seen::S3].map(|sink| stage.witness.arrived(sink));
        if arrived[0] != last.0 {
            last = (arrived[0], std::time::Instant::now());
        }
        arrived[0] > 10_000
            && arrived[0] < 20_000
            && arrived[0] == arrived[1]
            && arrived[0] == arrived[2]
            && last.1.elapsed() > Duration::from_secs(1)
    });
    let exit = process.terminate(SOON);
    exit.account.assert_adds_up();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert_eq!(exit.account.totals["dropped"], 1, "{}", exit.stderr);
    let arrived = stage.witness.arrived(Seen::Logs);
    let account = format!("source journal: received {} delivered {arrived} ", arrived + 1);
    assert!(exit.stderr.contains(&account), "{account:?} is not in\n{}", exit.stderr);
}
