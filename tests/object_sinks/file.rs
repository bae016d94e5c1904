//! The file sink: the three layouts, and a directory that cannot be written to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meshlens::sink::file::{self, Config, Layout};
use meshlens::sink::s3::Compression;
use meshlens::sink::template::Template;
use tokio::time::{Instant, timeout};

use crate::rig::{PATIENCE, Rig, TIME_MS, decompress, until};

const MIB: usize = 1 << 20;

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn layouts() -> [Layout; 5] {
    let s3 = |compression| Layout::S3 { key: template("logs/{tag}/hour=%H/"), compression };
    [
        Layout::CloudwatchLogs { group: template("/ecs/{tag}"), stream: template("{container_name}") },
        Layout::Firehose { stream: "logs".to_owned() },
        s3(Compression::Gzip),
        s3(Compression::Zstd),
        s3(Compression::None),
    ]
}

/// All files below a directory.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

async fn run(root: &Path, layout: Layout, blocks: &[&[(&str, usize)]]) -> Rig {
    let (mut rig, context) = Rig::new(64 * MIB);
    let sink = tokio::spawn(file::run(Config { directory: root.to_owned(), layout }, context));
    for block in blocks {
        rig.send(block).await;
    }
    rig.end();
    timeout(PATIENCE, sink).await.expect("the sink ends in time").unwrap().unwrap();
    rig.assert_all_delivered(blocks.len() as u64);
    rig
}

#[tokio::test]
async fn cloudwatch_layout_has_a_file_for_each_stream() {
    let directory = tempfile::tempdir().unwrap();
    let [layout, ..] = layouts();
    let rig = run(&directory.path().join("new"), layout, &[&[("a", 9), ("b", 9)], &[("a", 9)]]).await;
    let files = files(directory.path());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["new/ecs/a/c-a.jsonl", "new/ecs/b/c-b.jsonl"]);
    let mut messages = String::new();
    let mut last = 0;
    for line in String::from_utf8(files[names[0]].clone()).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let timestamp = event["timestamp"].as_i64().unwrap();
        assert!(timestamp > TIME_MS && timestamp > last);
        last = timestamp;
        messages.push_str(event["message"].as_str().unwrap());
        messages.push('\n');
    }
    assert_eq!(messages.as_bytes(), rig.sent["a"]);
}

#[tokio::test]
async fn firehose_layout_joins_lines_under_the_arrival() {
    let directory = tempfile::tempdir().unwrap();
    let [_, layout, ..] = layouts();
    // More than one file's 5 MiB.
    let block: &[(&str, usize)] = &[("a", MIB), ("a", MIB)];
    let rig = run(directory.path(), layout, &[block; 4]).await;
    let files = files(directory.path());
    assert!(files.len() >= 2, "{:?}", files.keys());
    let mut bytes = 0;
    for (name, lines) in &files {
        assert!(name.starts_with("logs/2") && name.contains("/logs-1-2") && !name.contains("2024/02/29"), "{name}");
        assert!(lines.len() < 7 * MIB && lines.ends_with(b"}\n"));
        bytes += lines.len();
    }
    assert_eq!(bytes, rig.sent["a"].len());
}

#[tokio::test]
async fn s3_layout_holds_the_objects_of_the_s3_sink() {
    let [_, _, objects @ ..] = layouts();
    for layout in objects {
        let directory = tempfile::tempdir().unwrap();
        let rig = run(directory.path(), layout, &[&[("a", 9), ("b", MIB)], &[("a", 9)]]).await;
        let files = files(directory.path());
        assert_eq!(files.len(), 2, "{:?}", files.keys());
        for (name, bytes) in &files {
            let tag = name.split('/').nth(1).unwrap();
            assert!(name.starts_with(&format!("logs/{tag}/hour=03/i-s-0000000000000000")), "{name}");
            assert!(decompress(name, bytes) == rig.sent[tag], "{name}");
        }
    }
}

#[tokio::test]
async fn no_record_is_written_outside_the_directory() {
    for layout in layouts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let hostile: &[&str] = &["../x", "..", "/etc/x", "a/../../x", "\0", ".", "year=1/x", ""];
        let block: Vec<(&str, usize)> = hostile.iter().map(|tag| (*tag, 5)).collect();
        run(&root, layout.clone(), &[&block]).await;
        let names = files(directory.path());
        assert!(!names.is_empty());
        for name in names.keys() {
            assert!(name.starts_with("root/"), "{layout:?}: {name}");
            assert!(!name.contains("etc/") && !name.contains("year="), "{layout:?}: {name}");
        }
    }
}

#[tokio::test]
async fn nothing_is_made_before_the_first_record() {
    for layout in layouts() {
        let directory = tempfile::tempdir().unwrap();
        run(&directory.path().join("root"), layout, &[]).await;
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_waited_for() {
    for layout in layouts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::write(&root, "in the way").unwrap();
        let (mut rig, context) = Rig::new(64 * MIB);
        let mut sink = tokio::spawn(file::run(Config { directory: root.clone(), layout: layout.clone() }, context));
        rig.send(&[("a", 9)]).await;
        rig.end();
        // The sink cannot end: what it holds is pending.
        assert!(timeout(Duration::from_millis(100), &mut sink).await.is_err(), "{layout:?}");
        assert_eq!(rig.tally().pending(), 1);
        // Left alone it would take the place of the next one's file.
        sink.abort();
        assert!(sink.await.is_err_and(|error| error.is_cancelled()));

        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = tokio::spawn(file::run(Config { directory: root.clone(), layout: layout.clone() }, context));
        rig.send(&[("a", 9)]).await;
        rig.end();
        fs::remove_file(&root).unwrap();
        timeout(PATIENCE, sink).await.expect("the sink goes on").unwrap().unwrap();
        rig.assert_all_delivered(1);
        assert!(!files(&root).is_empty());
    }
}

#[tokio::test]
async fn a_shutdown_leaves_no_half_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let [_, _, layout, ..] = layouts();
    let (mut rig, context) = Rig::new(64 * MIB);
    let sink = tokio::spawn(file::run(Config { directory: directory.path().to_owned(), layout }, context));
    // So much that a part of the file is written while the object is open.
    for _ in 0..4 {
        rig.send(&[("a", MIB)]).await;
    }
    until("a file grows", || !files(directory.path()).is_empty()).await;
    assert!(files(directory.path()).keys().all(|name| name.contains("/.") && name.ends_with(".part")));
    rig.deadline.send_replace(Some(Instant::now() + Duration::from_secs(3)));
    timeout(PATIENCE, sink).await.expect("the sink ends in time").unwrap().unwrap();
    rig.assert_all_delivered(4);
    let files = files(directory.path());
    assert_eq!(files.len(), 1);
    let (name, bytes) = files.first_key_value().unwrap();
    assert!(decompress(name, bytes) == rig.sent["a"]);
}
