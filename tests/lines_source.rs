//! The lines source through real files; behind it, a recorder in place of the pipeline.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption is a failed test")]

#[path = "support/recorder.rs"]
mod recorder;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meshlens::source::lines::{Config, Input, bind, run};
use meshlens::source::{BindError, RunError};
use recorder::{LONG, Recorder, Seen};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

struct Reader {
    recorder: Recorder,
    draining: watch::Sender<bool>,
    task: JoinHandle<Result<(), RunError>>,
}

fn config(path: &Path) -> Config {
    Config { input: Input::File(path.into()), ..Config::default() }
}

fn follow(path: &Path) -> Config {
    Config { follow: true, ..config(path) }
}

impl Reader {
    fn start(config: Config) -> Self {
        let bound = bind(&config).unwrap();
        let recorder = Recorder::default();
        let (draining, is_draining) = watch::channel(false);
        let task =
            tokio::spawn(run(config, bound, recorder.clone(), is_draining, Duration::from_millis(100), Vec::new()));
        Self { recorder, draining, task }
    }

    /// Waits for the input's own end.
    async fn finish(self) -> Seen {
        timeout(LONG, self.task).await.expect("ends").unwrap().unwrap();
        self.recorder.seen()
    }

    async fn drain(self) -> Seen {
        self.draining.send(true).unwrap();
        self.finish().await
    }

    async fn until(&self, text: &str) {
        self.recorder.until(|seen| seen.streams.concat() == text.as_bytes()).await;
    }
}

fn file(content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    fs::write(&path, content).unwrap();
    (directory, path)
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_file_is_read_to_its_end_with_or_without_newline() {
    for content in ["", "\n", "one", "one\n", "one\r\n\ntwo\n\n", "one\ntwo"] {
        let (_directory, path) = file(content);
        let seen = Reader::start(config(&path)).finish().await;
        assert_eq!(seen.streams, [content.as_bytes()]);
        assert_eq!((seen.truncated, seen.finished), (0, 1));
    }
}

#[tokio::test]
async fn a_large_file_arrives_byte_by_byte_in_few_chunks() {
    let mut content = Vec::new();
    for number in 0..200_000 {
        writeln!(content, "line {number} {}", "x".repeat(number % 97)).unwrap();
    }
    let (_directory, path) = file(&content);
    let seen = Reader::start(config(&path)).finish().await;
    assert!(seen.streams[0] == content, "not a byte is lost, added or moved");
    assert!(seen.chunks < content.len() / 200_000 + 3, "{} chunks", seen.chunks);
}

#[tokio::test]
async fn long_lines_are_cut_and_counted() {
    let (_directory, path) = file(format!("short\n{}\nshort\n{}", "x".repeat(1000), "y".repeat(101)));
    let seen = Reader::start(Config { line_bytes_max: 100, ..config(&path) }).finish().await;
    // A cut line is a chunk's last and has no newline.
    let expected = format!("short\n{}short\n{}", "x".repeat(100), "y".repeat(100));
    assert_eq!((seen.streams[0].as_slice(), seen.truncated), (expected.as_bytes(), 2));
}

#[tokio::test]
async fn compressed_files_are_decompressed() {
    let content = "one\ntwo\n".repeat(100_000).into_bytes();
    let directory = tempfile::tempdir().unwrap();
    let gz = directory.path().join("access.log.gz");
    // Two members, as after a concatenation.
    for half in content.chunks(content.len() / 2) {
        let file = OpenOptions::new().append(true).create(true).open(&gz).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(half).unwrap();
        encoder.finish().unwrap();
    }
    let zst = directory.path().join("access.log.zst");
    fs::write(&zst, zstd::encode_all(&content[..], 1).unwrap()).unwrap();
    for path in [&gz, &zst] {
        assert!(Reader::start(config(path)).finish().await.streams[0] == content, "{path:?}");
    }
    // Cut off: what could be read is handed on, then the error is said.
    let bytes = fs::read(&gz).unwrap();
    File::create(&gz).unwrap().write_all(&bytes[..bytes.len() - 9]).unwrap();
    let reader = Reader::start(config(&gz));
    let failed = timeout(LONG, reader.task).await.unwrap().unwrap();
    assert!(matches!(failed, Err(RunError::Read { .. })), "{failed:?}");
    assert!(reader.recorder.bytes().len() > content.len() / 2);
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.log");
    assert!(matches!(bind(&config(&missing)), Err(BindError::Open { path, .. }) if path == missing));
    assert!(matches!(bind(&config(directory.path())), Err(BindError::Open { .. })));
}

#[tokio::test]
async fn a_followed_file_may_come_late_and_grow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late.log");
    let reader = Reader::start(follow(&path));
    append(&path, "one\ntw");
    reader.until("one\n").await;
    append(&path, "o\nthree\nfou");
    reader.until("one\ntwo\nthree\n").await;
    let seen = reader.drain().await;
    assert_eq!(String::from_utf8_lossy(&seen.streams[0]), "one\ntwo\nthree\nfou", "the last line comes at the end");
}

#[tokio::test]
async fn what_is_written_before_the_drain_is_read() {
    let (_directory, path) = file("one\n");
    let reader = Reader::start(follow(&path));
    reader.until("one\n").await;
    append(&path, "two\nthree\n");
    let seen = reader.drain().await;
    assert_eq!(String::from_utf8_lossy(&seen.streams[0]), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_line_begun_in_a_pipe_that_stays_open_is_not_lost_at_the_drain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Open at both ends: no end of file comes.
    let mut writer = File::options().read(true).write(true).open(&path).unwrap();
    let reader = Reader::start(config(&path));
    writer.write_all(b"one\ntwo\nbegun").unwrap();
    reader.until("one\ntwo\n").await;
    let seen = reader.drain().await;
    assert_eq!(seen.streams.concat(), b"one\ntwo\nbegun");
    drop(writer);
}

#[tokio::test]
async fn rotation_by_rename_loses_nothing() {
    let (directory, path) = file("one\n");
    let reader = Reader::start(follow(&path));
    reader.until("one\n").await;
    let rotated = directory.path().join("access.log.1");
    fs::rename(&path, &rotated).unwrap();
    // The writer goes on in the old file for a while, then opens a new one; its last line has no newline.
    append(&rotated, "two\nthree");
    append(&path, "four\n");
    append(&rotated, " and a half");
    reader.until("one\ntwo\nthree and a halffour\n").await;
    append(&path, "five\n");
    reader.until("one\ntwo\nthree and a halffour\nfive\n").await;
    // Again, and the drain comes before the rotation is noticed.
    fs::rename(&path, &rotated).unwrap();
    append(&rotated, "six\n");
    append(&path, "seven\n");
    let seen = reader.drain().await;
    assert!(seen.streams[0].ends_with(b"five\nsix\nseven\n"), "{}", String::from_utf8_lossy(&seen.streams[0]));
}

#[tokio::test]
async fn a_truncated_file_is_read_from_its_beginning() {
    let (_directory, path) = file("one\ntwo\nthr");
    let reader = Reader::start(follow(&path));
    reader.until("one\ntwo\n").await;
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    // The look that sees the truncation hands on what was left.
    reader.until("one\ntwo\nthr").await;
    append(&path, "new\n");
    reader.until("one\ntwo\nthrnew\n").await;
    reader.drain().await;
}

#[tokio::test]
async fn a_file_truncated_and_filled_again_between_two_looks_is_read_from_its_beginning() {
    let (_directory, path) = file("one\ntwo\n");
    let reader = Reader::start(follow(&path));
    reader.until("one\ntwo\n").await;
    // As long as it was, then longer, with other lines.
    fs::write(&path, "1st\n2nd\n").unwrap();
    reader.until("one\ntwo\n1st\n2nd\n").await;
    fs::write(&path, "three\nfour\nfive\n").unwrap();
    reader.until("one\ntwo\n1st\n2nd\nthree\nfour\nfive\n").await;
    // The end may come before the next look.
    fs::write(&path, "six\nseven\neight\nnine\n").unwrap();
    let seen = reader.drain().await;
    assert!(seen.streams.concat().ends_with(b"five\nsix\nseven\neight\nnine\n"));
}

#[tokio::test]
async fn from_the_end_only_whole_new_lines_are_read() {
    let (_directory, path) = file("old\nhalf");
    let reader = Reader::start(Config { from_end: true, ..follow(&path) });
    append(&path, " of a line\nnew\n");
    reader.until("new\n").await;
    let (_directory, other) = file("old\n");
    let second = Reader::start(Config { from_end: true, ..follow(&other) });
    append(&other, "new\n");
    second.until("new\n").await;
    reader.drain().await;
    second.drain().await;
}
