use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::sink::driver::testing::{Line, block};

fn start(dir: &Path, bytes_max: u64) -> DeadLetters {
    DeadLetters::start(Config { dir: dir.to_owned(), bytes_max }, "i").unwrap()
}

fn tally(letters: &DeadLetters) -> (u64, u64, u64) {
    let Tally { kept, not_kept, queued } = letters.tally().unwrap();
    (kept, not_kept, queued)
}

fn files(dir: &Path) -> Vec<(String, String)> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, String)> = names
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Buries so many lines of that length, one parcel each.
fn bury(letters: &DeadLetters, reason: Reason, count: usize, length: usize) {
    let block = block(&[Line::new(1_764_000_000_000, format!("{{\"log\":\"{}\"}}", "x".repeat(length)))]);
    for _ in 0..count {
        letters.letters(reason).add(&block, 0);
    }
}

#[tokio::test]
async fn letters_are_kept_by_sink_and_reason_for_nobody_elses_eyes() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("a/b");
    let all = start(&place, 1 << 20);
    let (logs, hose) = (all.of_sink(&"logs".into()), all.of_sink(&"hose".into()));
    let lines = [Line::new(1_764_000_000_001, r#"{"n":1}"#), Line::new(2, r#"{"n":2}"#)];
    let both = block(&lines);
    let mut old = logs.letters(Reason::TooOld);
    old.add(&both, 0);
    old.add(&both, 1);
    drop(old);
    hose.letters(Reason::Refused).add(&both, 1);
    all.finish(Duration::from_secs(60)).await;
    assert_eq!(tally(&all), (3, 0, 0));
    let files = files(&place);
    let letter = |sink: &str, reason: &str, time: &str, n: u32| {
        let head =
            format!(r#"{{"meshlens_dead_letter":1,"sink":"{sink}","reason":"{reason}","time":"{time}","tag":"app","#);
        format!("{head}\"record\":{{\"n\":{n}}}}}\n")
    };
    let (first, second) = ("2025-11-24T16:00:00.001Z", "1970-01-01T00:00:00.002Z");
    assert!(files[0].0.starts_with("hose-refused-2") && files[0].0.ends_with("-i-2.ndjson"), "{}", files[0].0);
    assert!(files[1].0.starts_with("logs-too_old-2") && files[1].0.ends_with("-i-1.ndjson"), "{}", files[1].0);
    assert_eq!(files[0].1, letter("hose", "refused", second, 2));
    assert_eq!(files[1].1, letter("logs", "too_old", first, 1) + &letter("logs", "too_old", second, 2));
    for (name, _) in &files {
        assert_eq!(fs::metadata(place.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // What comes after the end is counted too.
    bury(&logs, Reason::TooOld, 1, 1);
    assert_eq!(tally(&all), (3, 1, 0));
}

#[tokio::test]
async fn files_are_finished_and_the_directory_has_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("logs-refused-earlier.ndjson"), vec![b'x'; 10_000]).unwrap();
    fs::write(dir.path().join("not-ours"), vec![b'x'; 100_000]).unwrap();
    let all = start(dir.path(), 40_000);
    bury(&all.of_sink(&"logs".into()), Reason::Refused, 40, 850);
    all.finish(Duration::from_secs(60)).await;
    let (kept, not_kept, queued) = tally(&all);
    let files: Vec<(String, String)> = files(dir.path()).into_iter().filter(|(name, _)| name.contains("-i-")).collect();
    let lines: Vec<&str> = files.iter().flat_map(|(_, text)| text.lines()).collect();
    assert_eq!((kept, queued), (lines.len() as u64, 0));
    assert_eq!(kept + not_kept, 40);
    let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
    assert!(bytes <= 30_000 && bytes > 30_000 - 1_000, "{bytes}");
    assert!(files.len() >= 3 && files.iter().all(|(_, text)| text.len() <= 10_000));
    assert!(lines.iter().all(|line| line.ends_with("\"}}")), "every letter is whole");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_costs_nothing_but_the_letters() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    // A file stands where the directory would be.
    let all = start(&file, 1 << 20);
    bury(&all.of_sink(&"logs".into()), Reason::RetriesExhausted, 3, 10);
    all.finish(Duration::from_secs(60)).await;
    assert_eq!(tally(&all), (0, 3, 0));
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn a_full_queue_takes_no_more_and_nobody_waits() {
    // No thread: what is sent stays where it is.
    let (parcels, _inbox) = mpsc::channel();
    let desk = Desk {
        parcels: Mutex::new(Some(parcels)),
        queued_bytes: AtomicUsize::new(0),
        queued: AtomicU64::new(0),
        kept: AtomicU64::new(0),
        not_kept: AtomicU64::new(0),
        ended: Mutex::new(None),
    };
    let all = DeadLetters { sink: "logs".into(), desk: Some(Arc::new(desk)) };
    bury(&all, Reason::Refused, 20, 1 << 20);
    assert_eq!(tally(&all), (0, 5, 15));
    assert!(all.desk.as_ref().unwrap().queued_bytes.load(Relaxed) <= QUEUE_BYTES_MAX);
}

#[tokio::test]
async fn without_a_directory_nothing_is_taken_or_counted() {
    let none = DeadLetters::default();
    bury(&none.of_sink(&"logs".into()), Reason::Refused, 3, 10);
    none.finish(Duration::ZERO).await;
    assert_eq!(none.tally(), None);
}
