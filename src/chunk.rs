//! What one read brought: bytes, where they come from, and what they are.
//!
//! A source makes chunks, the process stage turns each into one block. All that is the same for the records of a chunk is
//! said here once. Imports nothing of ours.

use std::sync::Arc;

use bytes::Bytes;

/// A source's place in the configuration; index of its account.
pub type SourceId = u16;

/// What a chunk's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Whole Fluent Forward messages in MessagePack; the tag stands in each.
    Forward,
    /// Whole Fluent Forward messages in JSON, as fluentd accepts them on the same port.
    ForwardJson,
    /// Lines ended by `\n`, the last one perhaps not; one record each.
    Lines,
    /// Entries in MessagePack, time and record each, one after the other: what a source makes that adds fields or reads JSON.
    Entries,
}

/// A place in a file that is followed: which file, and up to which byte it was read. Survives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Number of the device that the file is on.
    pub device: u64,
    /// Number of the file on its device.
    pub inode: u64,
    /// Bytes of whole lines read from its beginning.
    pub offset: u64,
    /// How many bytes before `offset` the check is over.
    pub seen_bytes: u32,
    /// CRC-32 of these bytes: tells whether the file is still the same, since numbers of files are used again.
    pub check: u32,
}

/// Bytes read together and acknowledged together.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Who read it.
    pub source: SourceId,
    /// The tag of its records, where the bytes do not say.
    pub tag: Arc<str>,
    /// The bytes, whole frames or lines only.
    pub bytes: Bytes,
    /// What they are.
    pub encoding: Encoding,
    /// When they were read, in nanoseconds since 1970 UTC: the time of records that have none.
    pub received_ns: i64,
    /// Where their source stands after them, if that is a followed file.
    pub position: Option<Position>,
}
