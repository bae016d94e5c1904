//! The process under test: one sink, or two, told by the environment what to do.
//!
//! | variable | |
//! |---|---|
//! | `TEST_SINK` | `cloudwatch_logs`, `firehose`, `s3` (one request), `isolation` (a CloudWatch Logs and a Firehose sink) |
//! | `TEST_COUNT` | so many records instead of [`LINES`], one block each; tags alternate between `even` and `odd` |
//! | `TEST_POISON` | with that: numbers of records that the server will refuse |
//! | `TEST_BATCH` | events or lines in a batch |
//! | `TEST_GRACE_MS`, `TEST_TIMEOUT_MS`, `TEST_GIVE_UP_MS`, `TEST_CONCURRENCY`, `TEST_GROUP`, `TEST_ROLE`, `TEST_LETTERS` | settings |

use std::sync::Arc;
use std::time::Duration;

use meshlens::enrich::ecs::Metadata;
use meshlens::journal::block::{Block, Entry, Partition};
use meshlens::journal::{self, Reader, WhenFull, Writer};
use meshlens::sink::dead_letters::{self, DeadLetters};
use meshlens::sink::template::Template;
use meshlens::sink::{Context, aws, cloudwatch_logs, firehose, retry};
use meshlens::telemetry::account::{Fate, Ledger};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::LINES;

fn told<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs what it is told to and prints the account, where another test started the process for that.
#[tokio::test]
async fn child() {
    let Ok(sink) = std::env::var("TEST_SINK") else { return };
    if sink == "isolation" {
        return isolation().await;
    }
    let ledger = Arc::new(Ledger::new("test"));
    let (writer, mut readers) = journal::open(journal::Config::default(), vec![ledger.clone()]);
    let end = told("TEST_GRACE_MS").map(|ms| Instant::now() + Duration::from_millis(ms));
    let letters = match told("TEST_LETTERS") {
        Some(dir) => DeadLetters::start(dead_letters::Config { dir, bytes_max: 1 << 30 }, "test").unwrap(),
        None => DeadLetters::default(),
    };
    let (_held, mut ctx) = context(0, readers.remove(0), ledger.clone(), end);
    ctx.dead_letters = letters.of_sink(&"test".into());
    if sink == "s3" {
        let retrier = retry::Retrier::new("test".into(), retry(), 1, ctx.deadline.clone());
        let client = aws::s3(&aws::Config::default(), &retrier, &ctx.metadata).await.unwrap();
        println!("account: {}", client.get_bucket_location().bucket("bucket").send().await.is_ok());
        return;
    }
    for block in blocks() {
        writer.append(block).await;
    }
    drop(writer);
    if sink == "firehose" {
        firehose::run(firehose_config(), ctx).await.unwrap();
    } else {
        cloudwatch_logs::run(logs_config(), ctx).await.unwrap();
    }
    letters.finish(Duration::from_secs(60)).await;
    println!("account: {}", ledger.tally());
}

fn blocks() -> Vec<Block> {
    let Some(count) = told::<i64>("TEST_COUNT") else { return vec![block("", &LINES)] };
    let poison = std::env::var("TEST_POISON").unwrap_or_default();
    let is_poison = |n: i64| poison.split(',').any(|number| number == n.to_string());
    let line = |n| format!("{{\"n\":{n},\"log\":\"{}\"}}", if is_poison(n) { "poison" } else { "fine" });
    let tag = |n| if n % 2 == 0 { "even" } else { "odd" };
    (0..count).map(|n| block(tag(n), &[(LINES[0].0 + n, &line(n))])).collect()
}

pub fn block(tag: &str, lines: &[(i64, &str)]) -> Block {
    let partition = Partition { tag: tag.into(), values: Box::default() };
    let mut block = Block { partitions: vec![partition], sinks: 3, ..Block::default() };
    for (time_ms, text) in lines {
        block.bytes.extend_from_slice(format!("{text}\n").as_bytes());
        block.index.push(Entry {
            time_ns: *time_ms * 1_000_000,
            sinks: 3,
            end: block.bytes.len() as u32,
            partition: 0,
        });
    }
    block
}

type Held = (watch::Sender<Option<Instant>>, watch::Sender<Arc<Metadata>>);

fn context(id: usize, reader: Reader, ledger: Arc<Ledger>, end: Option<Instant>) -> (Held, Context) {
    let (deadline, deadline_seen) = watch::channel(end);
    let (metadata, metadata_seen) = watch::channel(Arc::new(Metadata::default()));
    let ctx = Context {
        id,
        name: "test".into(),
        reader,
        dead_letters: DeadLetters::default(),
        ledger,
        metadata: metadata_seen,
        partition_keys: Arc::from([]),
        deadline: deadline_seen,
        instance: "instance".into(),
        hostname: "host".into(),
    };
    ((deadline, metadata), ctx)
}

fn retry() -> retry::Config {
    let default = retry::Config::default();
    retry::Config {
        base: Duration::from_millis(1),
        request_timeout: told("TEST_TIMEOUT_MS").map_or(default.request_timeout, Duration::from_millis),
        give_up_after: told("TEST_GIVE_UP_MS").map(Duration::from_millis),
        ..default
    }
}

fn firehose_config() -> firehose::Config {
    let default = firehose::Config::new("stream");
    firehose::Config {
        // Three lines of the numbered kind to a record.
        record_bytes_max: if told::<u32>("TEST_COUNT").is_some() { 90 } else { 0 },
        batch_records_max: told("TEST_BATCH").unwrap_or(default.batch_records_max),
        concurrency: told("TEST_CONCURRENCY").unwrap_or(default.concurrency),
        retry: retry(),
        ..default
    }
}

fn logs_config() -> cloudwatch_logs::Config {
    let group = std::env::var("TEST_GROUP").unwrap_or_else(|_| "/ecs/app".to_owned());
    let names = (Template::parse(&group).unwrap(), Template::parse("task").unwrap());
    let default = cloudwatch_logs::Config::new(names.0, names.1);
    cloudwatch_logs::Config {
        retention_days: Some(7),
        batch_events_max: told("TEST_BATCH").unwrap_or(default.batch_events_max),
        concurrency: told("TEST_CONCURRENCY").unwrap_or(default.concurrency),
        retry: retry(),
        aws: aws::Config {
            external_id: std::env::var("TEST_ROLE").ok().map(|_| "the external id".to_owned()),
            role_arn: std::env::var("TEST_ROLE").ok(),
            ..aws::Config::default()
        },
        ..default
    }
}

/// Blocks for the two sinks.
const BLOCKS: u64 = 300;
const BLOCK_LINES: usize = 100;

/// A journal of 1 MiB before a CloudWatch Logs and a Firehose sink; ten times that is sent.
async fn isolation() {
    let ledgers = vec![Arc::new(Ledger::new("logs")), Arc::new(Ledger::new("hose"))];
    let config =
        journal::Config { memory_bytes_max: 1 << 20, when_full: WhenFull::DropOldest, ..journal::Config::default() };
    let memory_bytes_max = config.memory_bytes_max as u64;
    let (writer, mut readers) = journal::open(config, ledgers.clone());
    let monitor = writer.monitor();
    let ((hose_deadline, _hose), hose) = context(1, readers.remove(1), ledgers[1].clone(), None);
    let ((logs_deadline, _logs), logs) = context(0, readers.remove(0), ledgers[0].clone(), None);
    let hose_config = firehose::Config { batch_timeout: Duration::from_millis(1), ..firehose::Config::new("stream") };
    let hose = tokio::spawn(firehose::run(firehose::Config { retry: retry(), ..hose_config }, hose));
    let logs = tokio::spawn(cloudwatch_logs::run(logs_config(), logs));
    let peak = send(writer, &ledgers[1], || monitor.snapshot().memory_bytes).await;
    hose.await.unwrap().unwrap();
    drop(hose_deadline);
    logs_deadline.send(Some(Instant::now())).unwrap();
    logs.await.unwrap().unwrap();
    let (logs, hose) = (ledgers[0].tally(), ledgers[1].tally());
    assert_eq!((hose.received, hose.delivered), (BLOCKS * BLOCK_LINES as u64, BLOCKS * BLOCK_LINES as u64), "{hose}");
    assert_eq!(logs.delivered, 0, "{logs}");
    assert_eq!(logs.of(Fate::Dropped) + logs.pending(), logs.received, "{logs}");
    assert!(logs.of(Fate::Dropped) > 0, "the journal was full: {logs}");
    // What both hold at most, and the block that is let in beyond it.
    assert!(peak <= memory_bytes_max + memory_bytes_max / 2, "{peak}");
    println!("account: live {} dead {}", hose.delivered, logs.delivered);
}

/// Sends all blocks, never more than a few before what the live sink has delivered; the most that the journal held.
async fn send(writer: Writer, live: &Ledger, held_bytes: impl Fn() -> u64) -> u64 {
    let mut peak = 0;
    let line = format!("{{\"log\":\"{}\"}}", "x".repeat(350));
    let lines: Vec<(i64, &str)> = (0..BLOCK_LINES).map(|n| (LINES[0].0 + n as i64, line.as_str())).collect();
    for n in 0..BLOCKS {
        writer.append(block("t", &lines)).await;
        peak = peak.max(held_bytes());
        while live.tally().delivered + 4 * (BLOCK_LINES as u64) < n * BLOCK_LINES as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    peak
}
