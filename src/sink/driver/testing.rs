//! What the tests of sinks share: a journal with one sink at its end, and blocks of given lines.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::enrich::ecs::Metadata;
use crate::journal::block::{Block, Entry, Partition};
use crate::journal::{self, Settler, Writer};
use crate::sink::Context;
use crate::telemetry::account::{Ledger, Tally};

/// The other ends of what a sink is given.
pub(crate) struct Rig {
    pub(crate) writer: Option<Writer>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) settler: Settler,
    pub(crate) deadline: watch::Sender<Option<Instant>>,
    _metadata: watch::Sender<Arc<Metadata>>,
}

impl Rig {
    pub(crate) fn new() -> (Self, Context) {
        let ledger = Arc::new(Ledger::new("test"));
        let (writer, mut readers) = journal::open(journal::Config::default(), vec![ledger.clone()]);
        let reader = readers.remove(0);
        let (deadline, deadline_seen) = watch::channel(None);
        let (_metadata, metadata_seen) = watch::channel(Arc::new(Metadata::default()));
        let rig = Self { writer: Some(writer), ledger: ledger.clone(), settler: reader.settler(), deadline, _metadata };
        let ctx = Context {
            id: 0,
            name: "test".into(),
            reader,
            dead_letters: crate::sink::dead_letters::DeadLetters::default(),
            ledger,
            metadata: metadata_seen,
            partition_keys: Arc::from([Box::from("container_name")]),
            deadline: deadline_seen,
            instance: "instance".into(),
            hostname: "host".into(),
        };
        (rig, ctx)
    }

    pub(crate) async fn append(&self, block: Block) -> u64 {
        self.writer.as_ref().expect("still open").append(block).await
    }

    pub(crate) fn close(&mut self) {
        self.writer = None;
    }

    /// The account, after checking that all is settled.
    pub(crate) fn settled(&self) -> Tally {
        let tally = self.ledger.tally();
        assert_eq!(tally.pending(), 0, "{tally}");
        assert_eq!(tally.received, tally.delivered + tally.lost.iter().sum::<u64>(), "{tally}");
        tally
    }
}

/// A record of a test block.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) time_ms: i64,
    pub(crate) text: String,
    pub(crate) sinks: u64,
    pub(crate) tag: &'static str,
}

impl Line {
    pub(crate) fn new(time_ms: i64, text: impl Into<String>) -> Self {
        Self { time_ms, text: text.into(), sinks: 1, tag: "app" }
    }
}

pub(crate) fn block(lines: &[Line]) -> Block {
    let mut block = Block::default();
    for line in lines {
        block.bytes.extend_from_slice(line.text.as_bytes());
        block.bytes.push(b'\n');
        let partition = Partition { tag: line.tag.into(), values: Box::from([Box::from("")]) };
        let place = block.partitions.iter().position(|known| *known == partition).unwrap_or_else(|| {
            block.partitions.push(partition);
            block.partitions.len() - 1
        });
        block.index.push(Entry {
            time_ns: line.time_ms.saturating_mul(1_000_000),
            sinks: line.sinks,
            end: block.bytes.len() as u32,
            partition: place as u32,
        });
        block.sinks |= line.sinks;
    }
    // What it costs is its capacity.
    block.bytes.shrink_to_fit();
    block
}
