//! The encoded records of one chunk: JSON lines in one buffer, and a small index over them.
//!
//! A block is written once by the process stage and then only read: every sink frames its requests from the same bytes.
//! Cost in memory: the lines, [`Entry`] (24 bytes) a record, and a [`Partition`] for each distinct set of names in it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::chunk::{Position, SourceId};

/// The sinks a record goes to: bit n stands for sink n of the configuration.
pub type SinkSet = u64;

/// The greatest number of sinks in one configuration.
pub const SINKS_MAX: usize = SinkSet::BITS as usize;

/// A record of a block.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Event time in nanoseconds since 1970 UTC.
    pub time_ns: i64,
    /// Where it goes; never empty.
    pub sinks: SinkSet,
    /// One past its last byte (the newline) in [`Block::bytes`]; it starts where the one before ends.
    pub end: u32,
    /// Index into [`Block::partitions`].
    pub partition: u32,
}

impl Entry {
    /// Event time in whole milliseconds since 1970 UTC, towards the past.
    pub const fn time_ms(&self) -> i64 {
        self.time_ns.div_euclid(1_000_000)
    }
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
    pub bytes: Buffer,
    /// One entry a record, in the order of arrival.
    pub index: Vec<Entry>,
    /// Distinct partitions of this block.
    pub partitions: Vec<Partition>,
    /// All sinks that any record goes to.
    pub sinks: SinkSet,
    /// The source of all its records.
    pub source: SourceId,
    /// Where its source stands once this block and all before it are taken care of; none where the source has no such thing,
    /// and in blocks that hold only a part of their chunk.
    pub position: Option<Position>,
    /// What the messages that end in this block are known by (see `process`), if they are to be known again after a restart.
    pub chunk_ids: Vec<Box<[u8]>>,
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
        let ids: usize = self.chunk_ids.iter().map(|id| size_of_val(id) + id.len()).sum();
        self.bytes.capacity() + self.index.capacity() * size_of::<Entry>() + partitions + ids + size_of::<Self>()
    }

    /// How many of its records go to sink `sink`.
    pub fn records_for(&self, sink: usize) -> usize {
        self.index.iter().filter(|entry| entry.sinks & (1 << sink) != 0).count()
    }
}

/// Buffers kept at most; enough for what two cores have between processing and sending.
const POOLED_MAX: usize = 16;

/// Smaller buffers are cheaper to allocate than to keep.
pub const POOLED_BYTES_MIN: usize = 64 << 10;

/// Larger buffers are those of single giant records: kept, each would hold its memory for as long as the process lives.
pub const POOLED_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(POOLED_BYTES_MIN < POOLED_BYTES_MAX);

/// Large buffers of blocks that are gone, for blocks to come. Without it the allocator gives such memory back to the system and
/// asks for it again, block by block, and the kernel zeroes it each time: a fifth of all CPU where it was measured.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// An empty buffer of that capacity at least; it comes back by itself.
    pub fn take(self: &Arc<Self>, capacity: usize) -> Buffer {
        let capacity = rounded(capacity);
        let pooled = if capacity < POOLED_BYTES_MIN { None } else { self.lock().pop() };
        let mut bytes = pooled.unwrap_or_default();
        bytes.reserve(capacity);
        Buffer { bytes, pool: Some(self.clone()) }
    }

    fn give(&self, mut bytes: Vec<u8>) {
        let mut free = self.lock();
        if free.len() < POOLED_MAX {
            bytes.clear();
            free.push(bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Large buffers come in a few sizes only: an allocator keeps those of one size together, and what is free among them is of no
/// use to other sizes.
fn rounded(capacity: usize) -> usize {
    if capacity < POOLED_BYTES_MIN { capacity } else { capacity.next_multiple_of(POOLED_BYTES_MIN) }
}

/// The bytes of a block: a `Vec` that goes back to its pool, if it has one and is worth it.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Option<Arc<Pool>>,
}

impl Buffer {
    /// The same bytes in as little memory as they need, if they fill less than half of theirs: what waits in the journal costs
    /// what it holds.
    pub fn fitted(self) -> Self {
        if self.bytes.len() * 2 >= self.bytes.capacity() {
            return self;
        }
        let mut bytes = Vec::with_capacity(rounded(self.bytes.len()));
        bytes.extend_from_slice(&self.bytes);
        // The large buffer goes back to its pool right here.
        Self { bytes, pool: None }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool
            && (POOLED_BYTES_MIN..=POOLED_BYTES_MAX).contains(&self.bytes.capacity())
        {
            pool.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_come_back_and_small_ones_do_not() {
        let pool = Arc::new(Pool::default());
        let mut large = pool.take(POOLED_BYTES_MIN);
        large.extend_from_slice(b"line");
        let address = large.as_ptr();
        drop(large);
        drop(pool.take(100));
        assert_eq!(pool.lock().len(), 1);
        let again = pool.take(POOLED_BYTES_MIN);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn a_fitted_buffer_frees_the_large_one() {
        let pool = Arc::new(Pool::default());
        let mut large = pool.take(POOLED_BYTES_MIN);
        large.extend_from_slice(b"line");
        let fitted = large.fitted();
        assert_eq!((&fitted[..], fitted.capacity()), (&b"line"[..], 4));
        assert_eq!(pool.lock().len(), 1);
    }

    #[test]
    fn regression_a_giant_buffer_is_not_kept() {
        let pool = Arc::new(Pool::default());
        let mut giant = pool.take(POOLED_BYTES_MIN);
        giant.resize(POOLED_BYTES_MAX + 1, 0);
        drop(giant);
        assert!(pool.lock().is_empty());
    }

    #[test]
    fn the_pool_keeps_a_few() {
        let pool = Arc::new(Pool::default());
        let many: Vec<_> = (0..POOLED_MAX + 5).map(|_| pool.take(POOLED_BYTES_MIN)).collect();
        drop(many);
        assert_eq!(pool.lock().len(), POOLED_MAX);
    }
}
