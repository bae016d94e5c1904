//! A followed file: through rotation, through a kill, and through both at once.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::process::{Process, Run};
use crate::stage::SOON;

/// A log that is written and rotated, and what must come of it.
struct Log {
    directory: tempfile::TempDir,
    written: u64,
}

impl Log {
    fn new() -> Self {
        let log = Self { directory: tempfile::tempdir().unwrap(), written: 0 };
        File::create(log.path()).unwrap();
        log
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    fn write(&mut self, lines: u64) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path()).unwrap();
        for _ in 0..lines {
            // In two writes, so that lines are seen in halves.
            write!(file, "line {} {}", self.written, "x".repeat(self.written as usize % 300)).unwrap();
            writeln!(file, " {}", self.written).unwrap();
            self.written += 1;
        }
    }

    fn shift(&self) {
        let name = |number: u32| self.directory.path().join(format!("access.log.{number}"));
        for number in (1..40).rev().filter(|&number| name(number).exists()) {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
    }

    fn rename(&self) {
        self.shift();
        fs::rename(self.path(), self.directory.path().join("access.log.1")).unwrap();
    }

    fn copy_and_truncate(&self) {
        self.shift();
        fs::copy(self.path(), self.directory.path().join("access.log.1")).unwrap();
        OpenOptions::new().write(true).open(self.path()).unwrap().set_len(0).unwrap();
    }

    /// How often each line is there; panics at one that was never written, or was cut.
    fn count(&self, out: &[u8]) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for line in out.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let record: serde_json::Value = serde_json::from_slice(line).unwrap();
            let text = record["log"].as_str().unwrap();
            let number: u64 = text.split(' ').nth(1).and_then(|number| number.parse().ok()).expect(text);
            assert!(text.starts_with("line ") && text.ends_with(&format!(" {number}")), "{text}");
            *counts.entry(number).or_default() += 1;
        }
        counts
    }
}

/// Follows it, to standard output.
fn follow(log: &Log, journal: Option<&Path>) -> Process {
    let path = log.path();
    let run = Run::new(["run", "--input", path.to_str().unwrap(), "--follow", "--to", "stdout"]);
    let settings = journal.map(|directory| ["--set".to_owned(), format!("journal.dir={}", directory.display())]);
    run.with(settings.into_iter().flatten()).start()
}

fn lines_out(process: &Process) -> usize {
    process.printed().iter().filter(|&&byte| byte == b'\n').count()
}

#[test]
fn rotations_of_either_kind_lose_and_repeat_nothing() {
    let mut log = Log::new();
    let mut process = follow(&log, None);
    for round in 0..6 {
        log.write(200);
        // A file is only known once a line of it was read.
        let written = log.written as usize;
        process.wait_until("reading", SOON, |process| lines_out(process) == written);
        log.write(50);
        match round % 3 {
            0 => log.rename(),
            1 => log.copy_and_truncate(),
            _ => {
                // Twice, faster than anybody looks.
                log.rename();
                log.write(50);
                log.rename();
            }
        }
        log.write(50);
    }
    let exit = process.terminate(SOON);
    let counts = log.count(&exit.stdout);
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!((counts.len() as u64, repeated), (log.written, vec![]), "{}", exit.stderr);
    assert_eq!(exit.code, Some(0));
}

#[test]
fn a_killed_process_reads_on_where_it_was_whatever_was_rotated_meanwhile() {
    let mut log = Log::new();
    let journal = log.directory.path().join("journal");
    let mut out = Vec::new();
    for round in 0..9 {
        let mut process = follow(&log, Some(&journal));
        log.write(200);
        let (out_before, written) = (&out, log.written as usize);
        process.wait_until("reading", SOON, |process| {
            // Lines may come twice, so their number alone tells nothing.
            let now = [out_before.as_slice(), whole_lines(&process.printed())].concat();
            lines_out(process) > 0 && log.count(&now).len() >= written
        });
        log.write(300);
        // The first position must have come to the disk; a kill may be faster than a slow disk.
        process.signal(if round == 0 { "TERM" } else { "KILL" });
        let exit = process.wait(SOON);
        // The last line may be cut by the kill: it was not taken.
        out.extend_from_slice(whole_lines(&exit.stdout));
        log.write(100);
        match round % 3 {
            0 => {}
            1 => log.rename(),
            _ => {
                log.rename();
                log.write(50);
                log.rename();
            }
        }
        log.write(10);
    }
    let mut process = follow(&log, Some(&journal));
    process.wait_until("reading", SOON, |process| lines_out(process) > 0);
    let exit = process.terminate(SOON);
    out.extend_from_slice(&exit.stdout);
    let counts = log.count(&out);
    let missing: Vec<u64> = (0..log.written).filter(|number| !counts.contains_key(number)).collect();
    assert_eq!(missing, [0; 0], "{}", exit.stderr);
    let repeated = counts.values().filter(|count| **count > 1).count() as u64;
    eprintln!("{repeated} of {} lines were repeated", log.written);
    assert!(repeated < log.written / 2, "it goes on, and does not begin again: {repeated}");
}

/// Without the beginning of a line.
fn whole_lines(out: &[u8]) -> &[u8] {
    &out[..out.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1)]
}
