//! One-off runs by flags alone: lines in, and the process ends by itself.

use std::path::PathBuf;

use crate::fake_aws::object_text;
use crate::process::Run;
use crate::redaction::for_each_file;
use crate::stage::{BUCKET, SOON, Stage};
use crate::traffic::{Seen, Traffic, number, timestamp};

const COUNT: u64 = 2_000;

fn text(traffic: &Traffic, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in range {
        traffic.line(n, &mut bytes);
        bytes.push(b'\n');
    }
    bytes
}

fn stage() -> Stage {
    Stage::of(Traffic::recent().bare(), COUNT)
}

fn file(stage: &Stage, name: &str, bytes: &[u8]) -> PathBuf {
    let path = stage.directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_file_goes_to_stdout() {
    let stage = stage();
    // The last line lacks its line feed; it counts all the same.
    let mut bytes = text(&stage.traffic, 0..COUNT);
    bytes.pop();
    let path = file(&stage, "access.log", &bytes);
    let exit = Run::new(["run", "--input", path.to_str().unwrap(), "--to", "stdout"]).start().wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    stage.witness.lines(Seen::Other, &exit.stdout);
    stage.assert_whole(Seen::Other, 0);
    stage.assert_no_mark(&exit.stderr);
    exit.account.assert_adds_up();
    // A file's order is kept.
    let numbers: Vec<u64> = exit.stdout.split(|byte| *byte == b'\n').filter_map(number).collect();
    assert!(numbers.is_sorted());
}

#[test]
fn several_files_go_in_and_all_comes_out() {
    let stage = stage();
    let first = file(&stage, "a.log", &text(&stage.traffic, 0..COUNT / 2));
    let second = file(&stage, "b.log", &text(&stage.traffic, COUNT / 2..COUNT));
    let flags = ["run", "--input", first.to_str().unwrap(), "--input", second.to_str().unwrap(), "--to", "stdout"];
    let exit = Run::new(flags).start().wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    stage.witness.lines(Seen::Other, &exit.stdout);
    stage.assert_whole(Seen::Other, 0);
}

#[test]
fn stdin_goes_to_every_service_and_to_files() {
    for compression in ["", "?compression=gzip", "?compression=zstd", "?compression=none"] {
        let stage = stage();
        let out = stage.directory.path().join("out");
        let mut flags: Vec<String> = Stage::aws_flags().into();
        flags[5] += compression;
        let files = format!("file:{}", out.display());
        let run = Run::new(["run", "--input", "-", "--to", &files]).with(flags).environment(stage.fake.environment());
        let exit = run.stdin(text(&stage.traffic, 0..COUNT)).start().wait(SOON);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        for_each_file(&out, &mut |_, bytes| stage.witness.lines(Seen::Other, &object_text(bytes)));
        for sink in [Seen::Logs, Seen::Firehose, Seen::S3, Seen::Other] {
            stage.assert_whole(sink, 0);
        }
        stage.assert_no_mark(&exit.stderr);
        exit.account.assert_adds_up();
        assert_objects(&stage, compression);
    }
}

/// Objects lie below the prefix, in the partition of each record's own hour, named and packed as asked.
fn assert_objects(stage: &Stage, compression: &str) {
    let s3 = stage.fake.s3();
    assert!(!s3.buckets[BUCKET].is_empty());
    assert_eq!(s3.open_uploads(), 0);
    for (key, object) in &s3.buckets[BUCKET] {
        assert!(key.starts_with("logs/year="), "{key}");
        let magic: &[u8] = match compression {
            "?compression=zstd" => &[0x28, 0xb5, 0x2f, 0xfd],
            "?compression=none" => b"{",
            _ => &[0x1f, 0x8b],
        };
        assert!(object.body.starts_with(magic), "{key}");
        let suffix = [(".zst", "?compression=zstd"), (".gz", "?compression=gzip"), (".gz", "")];
        for (end, _) in suffix.into_iter().filter(|(_, wanted)| *wanted == compression) {
            assert!(key.ends_with(end), "{key}");
        }
        for n in object_text(&object.body).split(|byte| *byte == b'\n').filter_map(number) {
            if let Some(ms) = stage.traffic.event_ms(n) {
                let time = timestamp(ms);
                let partition =
                    format!("year={}/month={}/day={}/hour={}/", &time[..4], &time[5..7], &time[8..10], &time[11..13]);
                assert!(key.contains(&partition), "record of {time} in {key}");
            }
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let exit = Run::new(["run", "--input", "/nonexistent/access.log", "--to", "discard"]).start().wait(SOON);
    assert!(exit.code.is_some_and(|code| code != 0), "{}", exit.stderr);
    assert!(exit.stderr.contains("/nonexistent/access.log"), "{}", exit.stderr);
}

#[test]
fn wrong_flags_bind_nothing_and_exit_with_2() {
    let stage = stage();
    let address = stage.address.to_string();
    for wrong in [
        &["--to", "cloudwatch:group-without-stream"][..],
        &["--to", "carrier-pigeon:home"],
        &["--to", "discard", "--set", "no.such.key=1"],
        &["--to", "discard", "--grace", "soon"],
    ] {
        // The port is taken: whoever binds before checking says so instead.
        let _taken = std::net::TcpListener::bind(stage.address).unwrap();
        let exit = Run::new(["run", "--forward", &address]).with(wrong.iter().copied()).start().wait(SOON);
        assert_eq!(exit.code, Some(2), "{wrong:?}: {}", exit.stderr);
        assert!(!exit.stderr.contains("in use"), "{wrong:?}: {}", exit.stderr);
    }
}
