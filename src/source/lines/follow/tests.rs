use super::*;

#[test]
fn a_file_rotated_away_while_the_one_before_it_rests_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let rename = |to: &str| std::fs::rename(&path, directory.path().join(to)).unwrap();
    std::fs::write(&path, "one\n").unwrap();
    let mut follower = Follower::new(&path, false).unwrap();
    let mut read = Vec::new();
    for line in ["two\n", "three\n", "four\n"] {
        let mut space = [0; 64];
        let bytes = follower.read(&mut space).unwrap();
        read.extend_from_slice(&space[..bytes]);
        rename(line.trim_end());
        std::fs::write(&path, line).unwrap();
        follower.look().unwrap();
    }
    for _ in 0..4 * ROTATED_POLLS {
        let mut space = [0; 64];
        let bytes = follower.read(&mut space).unwrap();
        read.extend_from_slice(&space[..bytes]);
        follower.look().unwrap();
    }
    assert_eq!(String::from_utf8(read).unwrap(), "one\ntwo\nthree\nfour\n");
}

#[test]
fn other_bytes_where_something_was_read_are_a_truncation_and_a_hole_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let mut follower = Follower::new(&path, false).unwrap();
    let mut space = [0; 64];
    assert_eq!(follower.read(&mut space).unwrap(), 8);
    std::fs::write(&path, "one\nTWO\nthree\n").unwrap();
    assert_eq!(follower.read(&mut space).unwrap(), 0, "what follows does not belong to what was read");
    assert!(matches!(follower.look().unwrap(), Look::Restart));
    assert_eq!(follower.read(&mut space).unwrap(), 14);
    // A writer without O_APPEND goes on at its own place.
    std::fs::write(&path, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0four\n").unwrap();
    assert_eq!(follower.read(&mut space).unwrap(), 5);
    assert_eq!(&space[..5], b"four\n");
}

// Restarts.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;

use proptest::prelude::*;

/// Lines are cut here.
const LINE_BYTES_MAX: usize = 64;

/// What was handed on, with the position behind it, and how many files there had been then.
type HandedOn = (Vec<u8>, Option<Position>, usize);

/// A reader that is driven step by step, and can be started again from any position it told.
struct Model {
    directory: tempfile::TempDir,
    follower: Follower,
    buffer: LineBuffer,
    handed_on: Vec<HandedOn>,
    /// What was written: the content of each file, whatever it is called now.
    written: Vec<Vec<u8>>,
    lines: usize,
}

fn line_buffer() -> LineBuffer {
    LineBuffer::new(LINE_BYTES_MAX, mpsc::channel().1)
}

impl Model {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        // A file that came and went before anybody looked is nobody's.
        fs::write(&path, "").unwrap();
        let follower = Follower::new(&path, false).unwrap();
        let begin = (Vec::new(), follower.position(), 1);
        let (handed_on, written) = (vec![begin], vec![Vec::new()]);
        Self { directory, follower, buffer: line_buffer(), handed_on, written, lines: 0 }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("log")
    }

    /// Writes a line that is like no other, or its beginning.
    fn write(&mut self, padding: usize, is_ended: bool) {
        self.lines += 1;
        let text = format!("{}:{}{}", self.lines, "x".repeat(padding), if is_ended { "\n" } else { "" });
        OpenOptions::new().append(true).create(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
        self.written.last_mut().unwrap().extend_from_slice(text.as_bytes());
    }

    /// Gives all rotated files the next name.
    fn shift(&self) {
        let name = |number: usize| self.directory.path().join(format!("log.{number}"));
        let count = (1..).take_while(|&number| name(number).exists()).count();
        for number in (1..=count).rev() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
    }

    fn rename(&mut self) {
        if self.path().exists() {
            self.shift();
            fs::rename(self.path(), self.directory.path().join("log.1")).unwrap();
            self.written.push(Vec::new());
        }
    }

    /// Only after a line was read: before, a file that was truncated looks like any other.
    fn copy_and_truncate(&mut self) {
        let Ok(metadata) = fs::metadata(self.path()) else { return };
        let is_of_now = |(_, _, files): &&HandedOn| *files == self.written.len();
        let position = self.handed_on.last().filter(is_of_now).and_then(|(_, position, _)| *position);
        if position
            .is_none_or(|position| (position.device, position.inode) != identity(&metadata) || position.offset == 0)
        {
            return;
        }
        self.shift();
        fs::copy(self.path(), self.directory.path().join("log.1")).unwrap();
        OpenOptions::new().write(true).open(self.path()).unwrap().set_len(0).unwrap();
        self.written.push(Vec::new());
    }

    /// Whether there was anything to read.
    fn step(&mut self) -> bool {
        match self.follower.step(&mut self.buffer, false).unwrap() {
            Step::Read(None) | Step::Moved => true,
            Step::Read(Some(lines)) | Step::Left(lines) => {
                self.handed_on.push((lines.bytes.to_vec(), lines.position, self.written.len()));
                true
            }
            Step::Rest => false,
        }
    }

    /// A crash after which all up to one of the last pieces counts as taken care of.
    fn restart(&mut self, back: usize) {
        let last = self.handed_on.len().saturating_sub(1 + back);
        let is_told = |(_, position, _): &HandedOn| position.is_some_and(|position| position.offset > 0);
        let Some(last) = self.handed_on[..=last].iter().rposition(is_told) else { return };
        self.handed_on.truncate(last + 1);
        self.follower = Follower::new(&self.path(), true).unwrap();
        self.buffer = line_buffer();
        self.follower.resume(&self.handed_on[last].1.unwrap());
        if self.follower.is_inside_line {
            self.buffer.skip_line();
        }
    }

    /// Reads all there is; what came out, and what should have.
    fn finish(mut self) -> (String, String) {
        let mut rests = 0;
        while rests < 3 * ROTATED_POLLS {
            rests = if self.step() { 0 } else { rests + 1 };
        }
        let mut read: Vec<u8> = self.handed_on.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
        read.extend_from_slice(&self.buffer.finish().bytes);
        let mut expected = Vec::new();
        for line in self.written.iter().flat_map(|file| file.split_inclusive(|&byte| byte == b'\n')) {
            let length = line.len() - usize::from(line.ends_with(b"\n"));
            expected.extend_from_slice(if length > LINE_BYTES_MAX { &line[..LINE_BYTES_MAX] } else { line });
        }
        (String::from_utf8(read).unwrap(), String::from_utf8(expected).unwrap())
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, bool),
    Rename,
    CopyAndTruncate,
    Step(usize),
    Restart(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_usize..100, prop::bool::weighted(0.8)).prop_map(|(padding, is_ended)| Op::Write(padding, is_ended)),
        1 => Just(Op::Rename),
        1 => Just(Op::CopyAndTruncate),
        4 => (1_usize..12).prop_map(Op::Step),
        1 => (0_usize..6).prop_map(Op::Restart),
    ]
}

proptest! {
    #[test]
    fn every_line_is_read_once_through_rotations_and_restarts(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Write(padding, is_ended) => model.write(padding, is_ended),
                Op::Rename => model.rename(),
                Op::CopyAndTruncate => model.copy_and_truncate(),
                Op::Step(steps) => (0..steps).for_each(|_| _ = model.step()),
                Op::Restart(back) => model.restart(back),
            }
        }
        let (read, expected) = model.finish();
        prop_assert_eq!(read, expected);
    }
}

/// Starts with a position taken behind the first line of a file; what is read then, and whether a loss was seen.
fn resumed(before: impl FnOnce(&Path)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    fs::write(&path, "one\n").unwrap();
    let mut follower = Follower::new(&path, false).unwrap();
    let mut buffer = line_buffer();
    let Step::Read(Some(lines)) = follower.step(&mut buffer, false).unwrap() else { panic!("a line") };
    let position = lines.position.unwrap();
    assert_eq!((position.offset, position.seen_bytes), (4, 4));
    drop(follower);
    before(&path);
    let mut follower = Follower::new(&path, true).unwrap();
    follower.resume(&position);
    let mut read = Vec::new();
    loop {
        match follower.step(&mut buffer, true).unwrap() {
            Step::Read(Some(lines)) | Step::Left(lines) => read.extend_from_slice(&lines.bytes),
            Step::Read(None) | Step::Moved => {}
            Step::Rest => return String::from_utf8(read).unwrap(),
        }
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_file_is_read_on_after_a_restart_wherever_it_went() {
    assert_eq!(resumed(|path| append(path, "two\n")), "two\n");
    for name in ["log.1", "elsewhere", "log-20261122"] {
        let read = resumed(|path| {
            append(path, "two\n");
            fs::rename(path, path.with_file_name(name)).unwrap();
            append(path, "three\n");
        });
        assert_eq!(read, "two\nthree\n", "{name}");
    }
}

#[test]
fn a_file_that_is_gone_or_another_is_said_to_be_lost_and_todays_is_read() {
    let read = resumed(|path| {
        fs::remove_file(path).unwrap();
        append(path, "longer than one\n");
    });
    assert_eq!(read, "longer than one\n", "its number may be used again");
    assert_eq!(resumed(|path| fs::write(path, "TWO\nthree\n").unwrap()), "TWO\nthree\n", "truncated");
    assert_eq!(resumed(|path| fs::write(path, "").unwrap()), "");
    assert_eq!(resumed(|path| fs::remove_file(path).unwrap()), "");
}

#[test]
fn what_a_copy_has_beyond_is_read_before_the_truncated_file() {
    let read = resumed(|path| {
        append(path, "two\n");
        fs::copy(path, path.with_file_name("log.1")).unwrap();
        fs::write(path, "three\n").unwrap();
        // No copies of it: another program's file, and another time's.
        fs::write(path.with_file_name("log.2"), "ONE\ntwo again\n").unwrap();
        fs::write(path.with_file_name("other"), "one\ntwo again\n").unwrap();
    });
    assert_eq!(read, "two\nthree\n");
}

#[test]
fn regression_a_file_rotated_twice_between_two_looks_is_read() {
    let mut model = Model::new();
    for _ in 0..5 {
        model.write(1, true);
        model.step();
        model.write(1, true);
        model.rename();
        model.write(1, true);
        model.rename();
        model.write(1, false);
    }
    let (read, expected) = model.finish();
    assert_eq!(read, expected);
}
