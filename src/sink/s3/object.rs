//! One object: what it is called, what it holds, and its bytes as they grow.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::journal::{Place, Sequence, Span};

use super::Compression;
use super::compress::Compressor;
use super::spans::{SPANS_BYTES_MAX, Spans};

/// Numbers the objects of a sink.
pub type ObjectId = u64;

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub id: ObjectId,
    /// Its key.
    pub key: String,
    /// Where its own name begins in the key: what stands before is made from records and not for logs.
    pub name_at: usize,
    /// The block that began it.
    pub first: Sequence,
    /// How it is compressed.
    pub compression: Compression,
    /// A random number that it carries from its first attempt on, over restarts too: what stands under its key is this very
    /// object if it bears the same.
    pub mark: u64,
    /// The further keys that are known to be taken by others, see [`Self::further_key`].
    pub taken: u32,
    /// Whether its cut was fixed before the process was started: it may be stored already.
    pub is_returning: bool,
}

impl Identity {
    /// The object's own name, without the prefix.
    pub fn name(&self) -> &str {
        &self.key[self.name_at..]
    }

    /// A further key, for when something else stands under the object's own: `-rN` before the suffix. The 0th is its own. From
    /// the second on they hold the object's mark, which nobody else has: whole keys without anything of an object's own are
    /// taken again and again.
    pub fn further_key(&self, nth: u32) -> String {
        let (stem, suffix) = self.key.split_at(self.key.len() - suffix_bytes(&self.key));
        match nth {
            0 => self.key.clone(),
            1 => format!("{stem}-r1{suffix}"),
            _ => format!("{stem}-r{nth}-{:016x}{suffix}", self.mark),
        }
    }
}

/// The length of what a key ends with beside its name: `.ndjson.gz`, `.json`, `.gz`.
fn suffix_bytes(key: &str) -> usize {
    let name = &key[key.rfind('/').map_or(0, |slash| slash + 1)..];
    let packed = [".gz", ".zst"].into_iter().find(|end| name.ends_with(end)).map_or(0, str::len);
    let stem = &name[..name.len() - packed];
    let is_word = |end: &str| {
        (1..=6).contains(&end.len())
            && end.starts_with(|c: char| c.is_ascii_alphabetic())
            && end.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let kind = stem.rfind('.').filter(|dot| *dot > 0 && is_word(&stem[dot + 1..])).map_or(0, |dot| stem.len() - dot);
    packed + kind
}

/// What an object holds.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    /// The first block with a record in it.
    pub first: Sequence,
    /// The last block with a record in it.
    pub last: Sequence,
    /// Records.
    pub records: u64,
    /// Which.
    pub spans: Spans,
}

/// Stored bytes of an object, in order.
#[derive(Debug)]
pub enum Piece {
    /// Not its last.
    Part {
        /// Of which object.
        object: Arc<Identity>,
        /// At least `part_bytes` of them.
        bytes: Bytes,
    },
    /// Its last, or the whole of it if there was no part.
    Last {
        /// Of which object.
        object: Arc<Identity>,
        /// None if the compressor failed and there is no object.
        bytes: Option<Bytes>,
        /// What it holds.
        cut: Arc<Cut>,
    },
}

/// An object that grows.
pub(super) struct Object {
    pub(super) identity: Arc<Identity>,
    pub(super) cut: Cut,
    pub(super) opened: Instant,
    pub(super) parts: u32,
    parts_bytes: u64,
    /// None once it failed.
    compressor: Option<Compressor>,
}

impl Object {
    pub(super) fn new(identity: Arc<Identity>, level: Option<i32>, first: Sequence, now: Instant) -> Self {
        let compressor = Compressor::new(identity.compression, level);
        Self {
            identity,
            cut: Cut { first, last: first, ..Cut::default() },
            opened: now,
            parts: 0,
            parts_bytes: 0,
            compressor: compressor.map_err(|error| tracing::error!(%error, "a compressor could not be made")).ok(),
        }
    }

    /// Appends records of one block. Says whether they are the first of that block in it.
    pub(super) fn append(&mut self, records: &Records<'_>) -> bool {
        let sequence = records.span.first.sequence;
        let is_first = self.cut.records == 0 || self.cut.last != sequence;
        self.cut.last = sequence;
        self.cut.records += records.count;
        self.cut.spans.push(records.span, records.ordinal, records.count);
        if let Some(compressor) = &mut self.compressor
            && let Err(error) = compressor.write(records.bytes)
        {
            tracing::error!(object = self.identity.name(), %error, "the compressor failed, an object is lost");
            self.compressor = None;
        }
        is_first
    }

    /// Whether no more is to go into it, whatever its size.
    pub(super) fn is_over(&self) -> bool {
        self.compressor.is_none() || self.cut.spans.cost_bytes() >= SPANS_BYTES_MAX
    }

    /// Stored bytes, those in parts that are on their way among them.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.parts_bytes + self.buffered_bytes() as u64
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.compressor.as_ref().map_or(0, Compressor::buffered_bytes)
    }

    pub(super) fn cost_bytes(&self) -> usize {
        let compressor = self.compressor.as_ref().map_or(0, Compressor::cost_bytes);
        size_of::<Self>() + self.identity.key.len() + self.cut.spans.cost_bytes() + compressor
    }

    pub(super) fn part_piece(&mut self) -> Option<Piece> {
        let bytes: Bytes = self.compressor.as_mut()?.take().into();
        self.parts += 1;
        self.parts_bytes += bytes.len() as u64;
        Some(Piece::Part { object: self.identity.clone(), bytes })
    }

    pub(super) fn last_piece(self) -> Piece {
        let bytes = self.compressor.and_then(|compressor| match compressor.finish() {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                tracing::error!(object = self.identity.name(), %error, "the compressor failed, an object is lost");
                None
            }
        });
        Piece::Last { object: self.identity, bytes, cut: Arc::new(self.cut) }
    }
}

/// Records that follow each other in a block into the same object.
pub(super) struct Records<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) count: u64,
    /// Of one block.
    pub(super) span: Span,
    /// The place of the first among all that the sink has read.
    pub(super) ordinal: u64,
}

impl Records<'_> {
    /// The span of records `first` to before `end` of a block.
    pub(super) fn span(sequence: Sequence, first: u32, end: u32) -> Span {
        Span { first: Place { sequence, record: first }, end: Place { sequence, record: end } }
    }
}
