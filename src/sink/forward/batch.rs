//! Open batches: one a tag.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::enrich::ecs::Metadata;
use crate::journal::Sequence;
use crate::journal::block::{Block, Entry};
use crate::sink::Context;
use crate::sink::dead_letters::Letters;
use crate::sink::driver::{Batches, Ready, Shares};
use crate::sink::template::{Scope, Template};
use crate::telemetry::account::Reason;

use super::Config;

/// A finished batch: records of one tag, in the order of arrival.
pub(super) struct Batch {
    pub(super) tag: Arc<str>,
    blocks: Vec<Arc<Block>>,
    /// Block and record.
    places: Vec<(u32, u32)>,
}

impl Batch {
    #[cfg(test)]
    pub(super) fn of(tag: &str, block: Block) -> Self {
        let places = (0..block.index.len() as u32).map(|record| (0, record)).collect();
        Self { tag: tag.into(), blocks: vec![Arc::new(block)], places }
    }

    pub(super) fn records(&self) -> usize {
        self.places.len()
    }

    /// The records with their lines.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.places.iter().map(|&(block, record)| {
            let block = &self.blocks[block as usize];
            (&block.index[record as usize], block.line(record as usize))
        })
    }

    /// Leaves the records as dead letters.
    pub(super) fn bury(&self, letters: &mut Letters<'_>) {
        for &(block, record) in &self.places {
            letters.add(&self.blocks[block as usize], record as usize);
        }
    }
}

struct Filling {
    due: Instant,
    batch: Batch,
    last: Option<Sequence>,
    bytes: usize,
    shares: Shares,
}

/// The open batches of a sink.
pub(super) struct Open {
    sink: usize,
    tag: Template,
    partition_keys: Arc<[Box<str>]>,
    metadata: watch::Receiver<Arc<Metadata>>,
    hostname: Arc<str>,
    bytes_max: usize,
    timeout: Duration,
    open: HashMap<Arc<str>, Filling>,
}

impl Open {
    pub(super) fn new(config: &Config, ctx: &Context) -> Self {
        Self {
            sink: ctx.id,
            tag: config.tag.clone(),
            partition_keys: ctx.partition_keys.clone(),
            metadata: ctx.metadata.clone(),
            hostname: ctx.hostname.clone(),
            bytes_max: config.batch_bytes_max,
            timeout: config.batch_timeout,
            open: HashMap::new(),
        }
    }
}

impl Batches for Open {
    type Payload = Batch;

    fn add(
        &mut self,
        sequence: Sequence,
        block: &Arc<Block>,
        ready: &mut VecDeque<Ready<Batch>>,
    ) -> Vec<(u32, Reason)> {
        let bit = 1 << self.sink;
        let due = Instant::now() + self.timeout;
        let metadata = self.metadata.borrow().clone();
        // The partition and second of the record before, and the tag for it.
        let mut known: Option<(u32, i64, Arc<str>)> = None;
        let mut follows = 0;
        for (i, entry) in block.index.iter().enumerate().filter(|(_, entry)| entry.sinks & bit != 0) {
            let second = if self.tag.has_dates() { entry.time_ns.div_euclid(1_000_000_000) } else { 0 };
            let tag = match &known {
                Some((partition, same, tag)) if (*partition, *same) == (entry.partition, second) => tag.clone(),
                _ => {
                    let scope = Scope {
                        partition: block.partition(i),
                        partition_keys: &self.partition_keys,
                        metadata: &metadata,
                        hostname: &self.hostname,
                        time_ns: entry.time_ns,
                    };
                    let tag: Arc<str> = self.tag.render(&scope).into();
                    known = Some((entry.partition, second, tag.clone()));
                    tag
                }
            };
            let bytes = block.line(i).len();
            if self.open.get(&tag).is_some_and(|filling| filling.bytes + bytes > self.bytes_max)
                && let Some(full) = self.open.remove(&tag)
            {
                ready.push_back(full.finish());
            }
            let filling = self.open.entry(tag.clone()).or_insert_with(|| Filling::new(tag, due));
            if filling.last != Some(sequence) {
                filling.last = Some(sequence);
                filling.batch.blocks.push(block.clone());
            }
            filling.batch.places.push((filling.batch.blocks.len() as u32 - 1, i as u32));
            filling.bytes += bytes;
            filling.shares.add(sequence, i as u32, follows);
            follows = i as u32 + 1;
        }
        Vec::new()
    }

    fn due(&self) -> Option<Instant> {
        self.open.values().map(|filling| filling.due).min()
    }

    fn flush(&mut self, until: Option<Instant>, ready: &mut VecDeque<Ready<Batch>>) {
        let due = self.open.extract_if(|_, filling| until.is_none_or(|until| filling.due <= until));
        ready.extend(due.map(|(_, filling)| filling.finish()));
    }
}

impl Filling {
    fn new(tag: Arc<str>, due: Instant) -> Self {
        let batch = Batch { tag, blocks: Vec::new(), places: Vec::new() };
        Self { due, batch, last: None, bytes: 0, shares: Shares::default() }
    }

    fn finish(self) -> Ready<Batch> {
        let number = BuildHasherDefault::<DefaultHasher>::default().hash_one(&self.batch.tag);
        Ready { shares: self.shares, target: Some(number), payload: self.batch }
    }
}
