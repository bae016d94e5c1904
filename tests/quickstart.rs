//! The README's first command, as far as it is the binary's: the shipped configuration on the shipped log.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn only_file(directory: &Path) -> (PathBuf, String) {
    let found = files(directory);
    assert_eq!(found.len(), 1, "{found:?}");
    let bytes = std::fs::read(&found[0]).unwrap();
    let text = if bytes.starts_with(b"\x1f\x8b") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        text
    } else {
        String::from_utf8(bytes).unwrap()
    };
    (found[0].strip_prefix(directory).unwrap().to_owned(), text)
}

/// The access records among JSON lines, each as its text: the same record is the same text wherever it goes.
fn access(lines: &str) -> BTreeSet<String> {
    lines.lines().filter(|line| line.contains(r#""log_type":"access""#)).map(str::to_owned).collect()
}

#[test]
fn the_quick_start_shows_what_three_services_would_hold() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("config"), directory.path().join("config"))
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_meshlens"))
        .args(["run", "--config", "config/quickstart.toml"])
        .current_dir(directory.path())
        .env_clear()
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("account: received=310 "), "{stderr}");

    let terminal = String::from_utf8(output.stdout).unwrap();
    assert_eq!(terminal.lines().count(), 310);
    let shown = access(&terminal);
    assert_eq!(shown.len(), 255);
    for line in &shown {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(record["start_time"].is_string() && record["duration"].is_number(), "{line}");
        assert!(!record["path"].as_str().unwrap_or_default().contains('?'), "{line}");
    }

    let out = directory.path().join("out");
    let (key, object) = only_file(&out.join("s3"));
    assert!(key.to_string_lossy().starts_with("access/year=2026/month=11/day=22/hour=02/"), "{key:?}");
    assert_eq!(access(&object), shown);
    let (_, delivered) = only_file(&out.join("firehose"));
    assert_eq!(access(&delivered), shown);
    let (_, stream) = only_file(&out.join("cloudwatch_logs"));
    let messages = stream.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["timestamp"].is_i64());
        event["message"].as_str().unwrap().to_owned()
    });
    assert_eq!(access(&messages.collect::<Vec<_>>().join("\n")), shown);
}
