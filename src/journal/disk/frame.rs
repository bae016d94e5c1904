//! The frames of a segment: how blocks and the facts about them stand on disk.
//!
//! ```text
//! frame     magic u32 | kind u8, 3 zero | length u32 | checksum u32 | sequence u64 | body of `length` bytes
//!
//! block     open u64 | received i64 (ms) | source u16 | position? | ids | partitions | records u32 | (time i64 (ns), sinks u64, end u32, partition u32)* | lines
//! settled   sink u16 | span*                    span = sequence u64, record u32, sequence u64, record u32
//! note      sink u16 | key | value
//! forgotten sink u16 | key
//! position  source u16 | position               position = device u64, inode u64, offset u64, seen u32, check u32
//! snapshot  settled*, note*, position*, each counted: all that was said before, in place of it
//! ```
//!
//! Numbers are little-endian; texts and lists begin with their length as a `u32`. The checksum is CRC-32 (IEEE) over kind, length,
//! sequence and body. `sequence` is the block's; in other frames it is zero. `open` are the sinks that had not settled the block when it was written. Sinks,
//! sources and partition keys are numbers in the lists of the segment's header.

use std::io;

use crate::chunk::{Position, SourceId};
use crate::journal::block::{Block, Entry, Partition, SinkSet};
use crate::journal::{Place, Sequence, Span};

/// First bytes of a frame.
pub const MAGIC: u32 = 0x464a_4c4d;

/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 24;

/// No frame of ours is longer: a block holds one chunk, whose size is limited.
pub const BODY_BYTES_MAX: usize = 512 << 20;

/// Lines of a block from this size on are written from where they are instead of being copied first.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A block.
    Block = 1,
    /// Spans that a sink has settled.
    Settled = 2,
    /// A note of a sink.
    Note = 3,
    /// A note is forgotten.
    Forgotten = 4,
    /// Where a source stands.
    Position = 5,
    /// The state of all of these, instead of what stood before.
    Snapshot = 6,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// What follows.
    pub kind: Kind,
    /// Bytes of the body.
    pub length: usize,
    /// The block's number.
    pub sequence: Sequence,
    checksum: u32,
}

impl Head {
    /// Reads a head; none if it cannot be one.
    pub fn read(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if number(0) != MAGIC || bytes[5..8] != [0; 3] {
            return None;
        }
        let kind = match bytes[4] {
            1 => Kind::Block,
            2 => Kind::Settled,
            3 => Kind::Note,
            4 => Kind::Forgotten,
            5 => Kind::Position,
            6 => Kind::Snapshot,
            _ => return None,
        };
        let length = number(8) as usize;
        let sequence = u64::from(number(16)) | u64::from(number(20)) << 32;
        (length <= BODY_BYTES_MAX).then_some(Self { kind, length, sequence, checksum: number(12) })
    }

    /// Whether that is its body.
    pub fn is_over(&self, body: &[u8]) -> bool {
        checksum(self.kind, self.sequence, &[body]) == self.checksum
    }
}

fn checksum(kind: Kind, sequence: Sequence, body: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let length: usize = body.iter().map(|part| part.len()).sum();
    hasher.update(&[kind as u8]);
    hasher.update(&(length as u32).to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    for part in body {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A fact about blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A sink has settled these records.
    Settled {
        /// Number of the sink.
        sink: u16,
        /// The records.
        spans: Vec<Span>,
    },
    /// A sink notes something.
    Note {
        /// Number of the sink.
        sink: u16,
        /// What the note is known by.
        key: String,
        /// The note.
        value: Vec<u8>,
    },
    /// A sink forgets a note.
    Forgotten {
        /// Number of the sink.
        sink: u16,
        /// What the note is known by.
        key: String,
    },
    /// All before this place of a followed file is taken care of.
    Position {
        /// Number of the source.
        source: SourceId,
        /// The place.
        position: Position,
    },
}

/// Writes frames one after the other, into a buffer and past it.
pub struct Encoder<W> {
    out: W,
    buffer: Vec<u8>,
    written: u64,
}

/// Room for frames before they are handed on.
const BUFFER_BYTES: usize = 256 << 10;

impl<W: io::Write> Encoder<W> {
    /// Writes to `out`.
    pub fn new(out: W, buffer: Vec<u8>) -> Self {
        debug_assert!(buffer.is_empty(), "used again, emptied");
        Self { out, buffer, written: 0 }
    }

    /// Writes a block, and returns how many bytes it takes.
    ///
    /// # Errors
    /// Of the file.
    pub fn block(&mut self, sequence: Sequence, open: SinkSet, received_ms: i64, block: &Block) -> io::Result<u64> {
        let before = self.written + self.buffer.len() as u64;
        let start = self.begin();
        let buffer = &mut self.buffer;
        buffer.extend_from_slice(&open.to_le_bytes());
        buffer.extend_from_slice(&received_ms.to_le_bytes());
        buffer.extend_from_slice(&block.source.to_le_bytes());
        buffer.push(u8::from(block.position.is_some()));
        if let Some(position) = &block.position {
            put_position(buffer, position);
        }
        put_length(buffer, block.chunk_ids.len());
        for id in &block.chunk_ids {
            put_bytes(buffer, id);
        }
        put_length(buffer, block.partitions.len());
        for partition in &block.partitions {
            put_bytes(buffer, partition.tag.as_bytes());
            put_length(buffer, partition.values.len());
            for value in &partition.values {
                put_bytes(buffer, value.as_bytes());
            }
        }
        put_length(buffer, block.index.len());
        buffer.reserve(block.index.len() * ENTRY_BYTES);
        for entry in &block.index {
            buffer.extend_from_slice(&entry.time_ns.to_le_bytes());
            buffer.extend_from_slice(&entry.sinks.to_le_bytes());
            buffer.extend_from_slice(&entry.end.to_le_bytes());
            buffer.extend_from_slice(&entry.partition.to_le_bytes());
        }
        put_length(buffer, block.bytes.len());
        let after = if block.bytes.len() < COPIED_BYTES_MAX {
            buffer.extend_from_slice(&block.bytes);
            &[][..]
        } else {
            &block.bytes[..]
        };
        self.end(start, Kind::Block, sequence, after)?;
        Ok(self.written + self.buffer.len() as u64 - before)
    }

    /// Writes a fact.
    ///
    /// # Errors
    /// Of the file.
    pub fn fact(&mut self, fact: &Fact) -> io::Result<()> {
        let start = self.begin();
        let kind = match fact {
            Fact::Settled { sink, spans } => {
                put_settled(&mut self.buffer, *sink, spans);
                Kind::Settled
            }
            Fact::Note { sink, key, value } => {
                put_note(&mut self.buffer, *sink, key, value);
                Kind::Note
            }
            Fact::Forgotten { sink, key } => {
                self.buffer.extend_from_slice(&sink.to_le_bytes());
                put_bytes(&mut self.buffer, key.as_bytes());
                Kind::Forgotten
            }
            Fact::Position { source, position } => {
                self.buffer.extend_from_slice(&source.to_le_bytes());
                put_position(&mut self.buffer, position);
                Kind::Position
            }
        };
        self.end(start, kind, 0, &[])
    }

    /// Writes the state of all: facts that stand for whatever was said before.
    ///
    /// # Errors
    /// Of the file.
    pub fn snapshot(&mut self, facts: &[Fact]) -> io::Result<()> {
        let start = self.begin();
        let buffer = &mut self.buffer;
        put_length(buffer, facts.len());
        for fact in facts {
            match fact {
                Fact::Settled { sink, spans } => {
                    buffer.push(Kind::Settled as u8);
                    put_settled(buffer, *sink, spans);
                }
                Fact::Note { sink, key, value } => {
                    buffer.push(Kind::Note as u8);
                    put_note(buffer, *sink, key, value);
                }
                Fact::Position { source, position } => {
                    buffer.push(Kind::Position as u8);
                    buffer.extend_from_slice(&source.to_le_bytes());
                    put_position(buffer, position);
                }
                // What is forgotten is not there.
                Fact::Forgotten { sink, key } => {
                    buffer.push(Kind::Forgotten as u8);
                    buffer.extend_from_slice(&sink.to_le_bytes());
                    put_bytes(buffer, key.as_bytes());
                }
            }
        }
        self.end(start, Kind::Snapshot, 0, &[])
    }

    /// Hands on what is left, and gives the buffer back with the number of bytes written.
    ///
    /// # Errors
    /// Of the file.
    pub fn finish(mut self) -> io::Result<(u64, Vec<u8>)> {
        self.flush()?;
        Ok((self.written, self.buffer))
    }

    fn begin(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEAD_BYTES]);
        start
    }

    fn end(&mut self, start: usize, kind: Kind, sequence: Sequence, after: &[u8]) -> io::Result<()> {
        let body = &self.buffer[start + HEAD_BYTES..];
        let length = body.len() + after.len();
        if length > BODY_BYTES_MAX {
            self.buffer.truncate(start);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a block too large for the journal's format"));
        }
        let checksum = checksum(kind, sequence, &[body, after]);
        let head = &mut self.buffer[start..start + HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[4] = kind as u8;
        head[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        head[12..16].copy_from_slice(&checksum.to_le_bytes());
        head[16..].copy_from_slice(&sequence.to_le_bytes());
        if !after.is_empty() {
            self.flush()?;
            self.out.write_all(after)?;
            self.written += after.len() as u64;
        } else if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Bytes of an entry of the index.
const ENTRY_BYTES: usize = 24;

fn put_length(buffer: &mut Vec<u8>, length: usize) {
    buffer.extend_from_slice(&(length as u32).to_le_bytes());
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    put_length(buffer, bytes.len());
    buffer.extend_from_slice(bytes);
}

fn put_place(buffer: &mut Vec<u8>, place: Place) {
    buffer.extend_from_slice(&place.sequence.to_le_bytes());
    buffer.extend_from_slice(&place.record.to_le_bytes());
}

fn put_position(buffer: &mut Vec<u8>, position: &Position) {
    for number in [position.device, position.inode, position.offset] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    buffer.extend_from_slice(&position.seen_bytes.to_le_bytes());
    buffer.extend_from_slice(&position.check.to_le_bytes());
}

fn put_settled(buffer: &mut Vec<u8>, sink: u16, spans: &[Span]) {
    buffer.extend_from_slice(&sink.to_le_bytes());
    put_length(buffer, spans.len());
    for span in spans {
        put_place(buffer, span.first);
        put_place(buffer, span.end);
    }
}

fn put_note(buffer: &mut Vec<u8>, sink: u16, key: &str, value: &[u8]) {
    buffer.extend_from_slice(&sink.to_le_bytes());
    put_bytes(buffer, key.as_bytes());
    put_bytes(buffer, value);
}

/// A block as it was read.
#[derive(Debug)]
pub struct Stored {
    /// The block; its sets of sinks are in the numbers of the segment.
    pub block: Block,
    /// Sinks that had not settled it when it was written.
    pub open: SinkSet,
    /// When it came, in milliseconds since 1970 UTC.
    pub received_ms: i64,
}

/// Reads a block's body. None if it does not hold together, which a good checksum rules out for what we wrote.
pub fn block(body: &[u8]) -> Option<Stored> {
    let (mut stored, lines) = without_lines(body)?;
    stored.block.bytes = lines.to_vec().into();
    Some(stored)
}

/// The same of a body that nobody needs any more: its memory becomes that of the lines, which are nearly all of it.
pub fn into_block(mut body: Vec<u8>) -> Option<Stored> {
    let (mut stored, lines) = without_lines(&body)?;
    let before = body.len() - lines.len();
    body.drain(..before);
    stored.block.bytes = body.into();
    Some(stored)
}

/// All but the lines, which end the body.
fn without_lines(body: &[u8]) -> Option<(Stored, &[u8])> {
    let mut fields = Fields(body);
    let open = fields.u64()?;
    let received_ms = fields.u64()? as i64;
    let source = fields.u16()?;
    let position = match fields.take(1)? {
        [0] => None,
        _ => Some(fields.position()?),
    };
    let ids = fields.length()?;
    let chunk_ids = (0..ids).map(|_| fields.bytes().map(Into::into)).collect::<Option<_>>()?;
    let partitions = fields.length()?;
    let partitions = (0..partitions)
        .map(|_| {
            let tag = fields.text()?.into();
            let values = fields.length()?;
            let values = (0..values).map(|_| fields.text().map(Box::from)).collect::<Option<_>>()?;
            Some(Partition { tag, values })
        })
        .collect::<Option<Vec<_>>>()?;
    let records = fields.length()?;
    let entries = fields.take(records.checked_mul(ENTRY_BYTES)?)?;
    let mut index = Vec::with_capacity(records);
    index.extend(entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| Fields(entry).entry()));
    let lines = fields.bytes()?;
    let is_whole = index.is_sorted_by_key(|entry| entry.end)
        && index.last().map_or(0, |entry| entry.end as usize) == lines.len()
        && index.iter().all(|entry| (entry.partition as usize) < partitions.len());
    let sinks = index.iter().fold(0, |sinks, entry| sinks | entry.sinks);
    let block = Block { index, partitions, sinks, source, position, chunk_ids, ..Block::default() };
    (is_whole && fields.0.is_empty()).then_some((Stored { block, open, received_ms }, lines))
}

/// Reads the body of a frame that is no block and no snapshot.
pub fn fact(kind: Kind, body: &[u8]) -> Option<Fact> {
    Fields(body).fact(kind)
}

/// Reads the body of a snapshot.
pub fn snapshot(body: &[u8]) -> Option<Vec<Fact>> {
    let mut fields = Fields(body);
    let facts = fields.length()?;
    (0..facts)
        .map(|_| {
            let kind = match fields.take(1)? {
                [2] => Kind::Settled,
                [3] => Kind::Note,
                [4] => Kind::Forgotten,
                [5] => Kind::Position,
                _ => return None,
            };
            fields.fact(kind)
        })
        .collect()
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A length; nothing in a list takes less than a byte.
    fn length(&mut self) -> Option<usize> {
        let length = self.u32()? as usize;
        (length <= self.0.len()).then_some(length)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn entry(&mut self) -> Option<Entry> {
        Some(Entry { time_ns: self.u64()? as i64, sinks: self.u64()?, end: self.u32()?, partition: self.u32()? })
    }

    fn place(&mut self) -> Option<Place> {
        Some(Place { sequence: self.u64()?, record: self.u32()? })
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            device: self.u64()?,
            inode: self.u64()?,
            offset: self.u64()?,
            seen_bytes: self.u32()?,
            check: self.u32()?,
        })
    }

    fn fact(&mut self, kind: Kind) -> Option<Fact> {
        match kind {
            Kind::Settled => {
                let sink = self.u16()?;
                let spans = self.length()?;
                let spans = (0..spans)
                    .map(|_| Some(Span { first: self.place()?, end: self.place()? }))
                    .collect::<Option<_>>()?;
                Some(Fact::Settled { sink, spans })
            }
            Kind::Note => {
                Some(Fact::Note { sink: self.u16()?, key: self.text()?.to_owned(), value: self.bytes()?.to_vec() })
            }
            Kind::Forgotten => Some(Fact::Forgotten { sink: self.u16()?, key: self.text()?.to_owned() }),
            Kind::Position => Some(Fact::Position { source: self.u16()?, position: self.position()? }),
            Kind::Block | Kind::Snapshot => None,
        }
    }
}

#[cfg(test)]
mod tests;
