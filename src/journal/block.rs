//! The encoded records of one chunk: JSON lines in one buffer, and a small index over them.
//!
//! A block is written once by the process stage and then only read: every sink frames its requests from the same bytes.
//! Cost in memory: the lines, [`Entry`] (24 bytes) a record, and a [`Partition`] for each distinct set of names in it.

use crate::chunk::SourceId;

/// The sinks a record goes to: bit n stands for sink n of the configuration.
pub type SinkSet = u64;

/// The greatest number of sinks in one configuration.
pub const SINKS_MAX: usize = SinkSet::BITS as usize;

/// A record of a block.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Event time in milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Where it goes; never empty.
    pub sinks: SinkSet,
    /// One past its last byte (the newline) in [`Block::bytes`]; it starts where the one before ends.
    pub end: u32,
    /// Index into [`Block::partitions`].
    pub partition: u32,
}

/// What the names of streams, objects and groups are made from; the same for runs of records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Partition {
    /// The tag of the sender, or of the source.
    pub tag: Box<str>,
    /// Values of the record fields that templates name, in the order of `process::Pipeline::partition_keys`;
    /// empty where the record has none.
    pub values: Box<[Box<str>]>,
}

/// The encoded records of one chunk. Holds at least one record once it is in the journal.
#[derive(Debug, Default)]
pub struct Block {
    /// One JSON object a line, each ended by `\n`.
    pub bytes: Vec<u8>,
    /// One entry a record, in the order of arrival.
    pub index: Vec<Entry>,
    /// Distinct partitions of this block.
    pub partitions: Vec<Partition>,
    /// All sinks that any record goes to.
    pub sinks: SinkSet,
    /// The source of all its records.
    pub source: SourceId,
}

impl Block {
    /// The JSON line of record `i`, newline included.
    pub fn line(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.index[i - 1].end as usize };
        &self.bytes[start..self.index[i].end as usize]
    }

    /// The partition of record `i`.
    pub fn partition(&self, i: usize) -> &Partition {
        &self.partitions[self.index[i].partition as usize]
    }

    /// What it costs to keep, in bytes.
    pub fn cost_bytes(&self) -> usize {
        let partitions: usize = self
            .partitions
            .iter()
            .map(|p| 64 + p.tag.len() + p.values.iter().map(|v| 16 + v.len()).sum::<usize>())
            .sum();
        self.bytes.capacity() + self.index.capacity() * size_of::<Entry>() + partitions + size_of::<Self>()
    }

    /// How many of its records go to sink `sink`.
    pub fn records_for(&self, sink: usize) -> usize {
        self.index.iter().filter(|entry| entry.sinks & (1 << sink) != 0).count()
    }
}
