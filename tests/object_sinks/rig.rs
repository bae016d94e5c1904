//! A journal with one sink, and what a sink is started with.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use meshlens::enrich::ecs::Metadata;
use meshlens::journal::block::{Block, Entry, Partition};
use meshlens::journal::{self, Settler, Writer};
use meshlens::sink::Context;
use meshlens::sink::dead_letters::DeadLetters;
use meshlens::telemetry::account::{Ledger, Tally};
use tokio::sync::watch;
use tokio::time::Instant;

/// 2024-02-29T03:04:05Z.
pub const TIME_MS: i64 = 1_709_175_845_000;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What stands around one sink.
pub struct Rig {
    /// Where blocks go; dropped at the end of the input.
    pub writer: Option<Writer>,
    /// The sink's account.
    pub ledger: Arc<Ledger>,
    /// Tells what is settled.
    pub settler: Settler,
    /// Begins a shutdown.
    pub deadline: watch::Sender<Option<Instant>>,
    /// Makes metadata known.
    pub metadata: watch::Sender<Arc<Metadata>>,
    number: u64,
    /// All lines sent, by partition's tag, in order.
    pub sent: BTreeMap<String, Vec<u8>>,
}

impl Rig {
    /// A journal of that size, and a sink's context.
    pub fn new(memory_bytes_max: usize) -> (Self, Context) {
        let ledger = Arc::new(Ledger::new("s"));
        let config = journal::Config { memory_bytes_max, ..journal::Config::default() };
        let (writer, mut readers) = journal::open(config, vec![ledger.clone()]);
        let reader = readers.remove(0);
        let (deadline, deadline_seen) = watch::channel(None);
        let (metadata, metadata_seen) = watch::channel(Arc::new(Metadata { complete: true, ..Metadata::default() }));
        let settler = reader.settler();
        let context = Context {
            id: 0,
            name: "s".into(),
            reader,
            dead_letters: DeadLetters::default(),
            ledger: ledger.clone(),
            metadata: metadata_seen,
            partition_keys: ["container_name".into()].into(),
            deadline: deadline_seen,
            instance: "i".into(),
            hostname: "h".into(),
        };
        let writer = Some(writer);
        (Self { writer, ledger, settler, deadline, metadata, number: 0, sent: BTreeMap::new() }, context)
    }

    /// Appends a block of records, each of its tag and that many random (hardly compressible) bytes.
    pub async fn send(&mut self, records: &[(&str, usize)]) {
        let mut block = Block { sinks: 1, ..Block::default() };
        for (tag, bytes) in records {
            let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(*bytes).collect();
            let line = format!("{{\"n\":{},\"noise\":\"{noise}\"}}\n", self.number);
            self.number += 1;
            self.sent.entry((*tag).to_owned()).or_default().extend_from_slice(line.as_bytes());
            block.bytes.extend_from_slice(line.as_bytes());
            let partition = block.partitions.iter().position(|partition| *partition.tag == **tag);
            let partition = partition.unwrap_or_else(|| {
                block.partitions.push(Partition { tag: (*tag).into(), values: [format!("c-{tag}").into()].into() });
                block.partitions.len() - 1
            });
            block.index.push(Entry {
                time_ns: (TIME_MS + self.number as i64) * 1_000_000,
                sinks: 1,
                end: u32::try_from(block.bytes.len()).unwrap(),
                partition: u32::try_from(partition).unwrap(),
            });
        }
        let writer = self.writer.as_ref().expect("the input has not ended");
        tokio::time::timeout(PATIENCE, writer.append(block)).await.expect("the journal takes a block in time");
    }

    /// Appends blocks of one record of that many bytes until the journal has had no room for a second; says how many.
    pub async fn fill(&mut self, tag: &str, bytes: usize) -> u64 {
        let before = self.number;
        let limit = Duration::from_secs(1);
        while tokio::time::timeout(limit, self.send(&[(tag, bytes)])).await.is_ok() {}
        // The last was not taken.
        self.number -= 1;
        self.number - before
    }

    /// Ends the input.
    pub fn end(&mut self) {
        self.writer = None;
    }

    /// The account; the identity holds.
    pub fn tally(&self) -> Tally {
        let tally = self.ledger.tally();
        assert_eq!(tally.received, self.number, "{tally}");
        let lost: u64 = tally.lost.iter().sum();
        assert_eq!(tally.received, tally.delivered + lost + tally.pending(), "{tally}");
        tally
    }

    /// Asserts that all is delivered and settled.
    pub fn assert_all_delivered(&self, blocks: u64) {
        let tally = self.tally();
        assert_eq!(tally.delivered, self.number, "{tally}");
        assert_eq!(self.settler.watermark(), blocks);
    }
}

/// Waits until that is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What one gzip member, Zstandard frame or plain object holds, by its name.
pub fn decompress(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if name.ends_with(".gz") {
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        decoder.read_to_end(&mut out).expect("a whole gzip member");
        assert!(decoder.into_inner().is_empty(), "one member");
    } else if name.ends_with(".zst") {
        out = zstd::decode_all(bytes).expect("a whole frame");
    } else {
        out.extend_from_slice(bytes);
    }
    out
}

/// Runs the test of that name in a process of its own with AWS credentials in its environment. True in that process.
pub fn has_credentials(test: &str) -> bool {
    const CHILD: &str = "MESHLENS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let status = Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["--exact", test, "--nocapture"])
        .envs([(CHILD, "1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .envs([("AWS_REGION", "eu-west-1"), ("AWS_EC2_METADATA_DISABLED", "true")])
        .envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")])
        .env_remove("AWS_ENDPOINT_URL")
        .env_remove("AWS_ENDPOINT_URL_S3")
        .env_remove("AWS_CA_BUNDLE")
        .status()
        .expect("the test's own binary runs");
    assert!(status.success(), "{test}");
    false
}
