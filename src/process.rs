//! The pass that joins decode, parse, redact, enrich, route and encode: one chunk in, one block out.
//!
//! [`Pipeline`] is what all connections share, compiled once. An [`Intake`] is one connection's way through it: it holds what
//! is learned of the stream (which layout Envoy speaks, lines that Docker cut) and the buffers that are used again. The pass is
//! synchronous over borrowed bytes; it awaits only where it hands a block to the journal: at the end of the chunk, and every
//! [`BLOCK_BYTES_MAX`] in between, so that a large message needs no memory of its own size.

pub mod lines;
mod memory;
mod pipeline;
pub mod repeats;
mod stage;
mod strangers;
mod way;

use std::borrow::Cow;
use std::sync::Arc;

use self::memory::Pieces;
pub use self::pipeline::{BuildError, Config, Parse, Pipeline, field_classes};
use self::repeats::{Begun, ChunkKey, Repeats};
use self::stage::{Envoys, Stage, Tally};
use self::way::{Exit, Rest, Way};
use crate::chunk::{Chunk, Encoding, Position, SourceId};
use crate::decode::{self, Body, Entries, FrameErrorKind, Joined, PartialLimits, Rejoiner};
use crate::encode::Fragment;
use crate::envoy::Parser;
use crate::filter::{Arena, Filters, Pending, TagFilters};
use crate::journal::block::Block;
use crate::journal::{Durable, Sequence, Writer};
use crate::letter;
use crate::record::{Key, Name, Record, Value};
use crate::redact::Counts;
use crate::telemetry::account::{Ledger, Reason};
use crate::telemetry::sparing::Sparing;

/// A block is closed when it has this many bytes, in the middle of a chunk if need be.
pub const BLOCK_BYTES_MAX: usize = 256 << 10;

/// What came of a chunk.
#[derive(Debug, Default)]
pub struct Submitted {
    /// Acknowledgements to write back to the sender, already serialized.
    pub replies: Vec<u8>,
    /// They may be written once the journal is durable to here, see [`Durable`].
    pub after: Sequence,
    /// The messages that they acknowledge; what became of them is to be told to [`Intakes::repeats`].
    pub acked: Vec<ChunkKey>,
    /// Why the rest of the chunk could not be decoded; the connection is to be closed.
    pub broken: Option<decode::FrameError>,
}

/// Makes the [`Intake`]s of one source.
#[derive(Clone)]
pub struct Intakes {
    pipeline: Arc<Pipeline>,
    writer: Writer,
    ledger: Arc<Ledger>,
    source: SourceId,
    limits: decode::Limits,
    repeats: Arc<Repeats>,
    keeps_keys: bool,
}

impl Intakes {
    /// For the source of that number, accounting on that ledger. No message is known to it.
    pub fn new(
        pipeline: Arc<Pipeline>,
        writer: Writer,
        ledger: Arc<Ledger>,
        source: SourceId,
        limits: decode::Limits,
    ) -> Self {
        Self { pipeline, writer, ledger, source, limits, repeats: Arc::default(), keeps_keys: false }
    }

    /// The same, for a journal that survives a restart: blocks hold the keys of their messages, and those that it held
    /// before the restart are known.
    pub fn with_keys(self, known: impl IntoIterator<Item = ChunkKey>) -> Self {
        Self { repeats: Arc::new(Repeats::with(known)), keeps_keys: true, ..self }
    }

    /// Which messages could come again.
    pub fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// The source's account.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The source's number.
    pub fn source(&self) -> SourceId {
        self.source
    }

    /// How far the journal is durable.
    pub fn durable(&self) -> Durable {
        self.writer.durable()
    }

    /// The way in for one more connection, file or stream.
    pub fn intake(&self) -> Intake {
        Intake {
            stage: Stage {
                pipeline: self.pipeline.clone(),
                parser: Parser::new(self.pipeline.parse.formats.clone()),
                block: Block { source: self.source, ..Block::default() },
                tag: None,
                envoys: Envoys::default(),
                tally: Tally::default(),
                redacted: Counts::default(),
            },
            writer: self.writer.clone(),
            ledger: self.ledger.clone(),
            limits: self.limits,
            rejoiner: Rejoiner::new(PartialLimits::default()).with_nodes(self.pipeline.joins_nodes()),
            filters: self.pipeline.filters.clone(),
            tag_filters: (Box::default(), self.pipeline.filters.for_tag(b"")),
            pending: Pending::default(),
            stands: None,
            is_late: false,
            arena: Arena::new(),
            spare: Record::new(),
            pieces: Pieces::new(self.pipeline.memory.clone()),
            appended: 0,
            inflated: Vec::new(),
            transcoded: Vec::new(),
            connection: self.repeats.connect(),
            repeats: self.repeats.clone(),
            taking: Vec::new(),
            keeps_keys: self.keeps_keys,
            broken_entries: Sparing::default(),
        }
    }
}

/// The way of one connection into the pipeline: processes chunks and appends their blocks to the journal.
pub struct Intake {
    stage: Stage,
    writer: Writer,
    ledger: Arc<Ledger>,
    limits: decode::Limits,
    rejoiner: Rejoiner,
    /// Of the pipeline: its own, so that connections do not meet at one counter.
    filters: Arc<Filters>,
    /// The filters of the last tag seen.
    tag_filters: (Box<[u8]>, TagFilters),
    /// What filters hold back.
    pending: Pending,
    /// Where the source stood behind the last chunk.
    stands: Option<Position>,
    /// It was not told yet, since filters held something back.
    is_late: bool,
    /// Where filters write, used again.
    arena: Arena,
    /// Tables of a record, used again.
    spare: Record<'static>,
    /// What the rejoiner holds, counted over all connections.
    pieces: Pieces,
    /// One past the last block appended.
    appended: Sequence,
    /// Buffer of decompressed bodies, used again.
    inflated: Vec<u8>,
    /// Buffer of JSON messages rewritten as MessagePack, used again.
    transcoded: Vec<u8>,
    /// Its number among the source's, for `repeats`.
    connection: u64,
    repeats: Arc<Repeats>,
    /// Messages of the chunk in hand that others must not take in as well.
    taking: Vec<ChunkKey>,
    /// Whether blocks hold the keys of their messages.
    keeps_keys: bool,
    /// Limits the warnings of entries that could not be read.
    broken_entries: Sparing,
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.repeats.forget(&self.taking);
    }
}

/// A buffer larger than this is given back after use: one giant message must not hold its memory for the connection's life.
const BUFFER_KEPT_BYTES_MAX: usize = 512 << 10;

impl Intake {
    /// Processes a chunk and appends its block; waits while the journal is full.
    pub async fn submit(&mut self, chunk: Chunk) -> Submitted {
        let mut submitted = Submitted::default();
        let fragment = self.stage.pipeline.fragment.borrow().clone();
        match chunk.encoding {
            Encoding::Lines => self.lines(&chunk, &fragment).await,
            Encoding::Entries => {
                let entries = Entries::packed(&chunk.bytes, &self.limits);
                self.stage.reserve(chunk.bytes.len());
                let tag = chunk.tag.as_bytes();
                self.entries(tag, entries, chunk.received_ns, &fragment).await;
            }
            Encoding::Forward => {
                submitted.broken = self.messages(&chunk, &chunk.bytes, &fragment, &mut submitted).await.err();
            }
            Encoding::ForwardJson => {
                let mut transcoded = std::mem::take(&mut self.transcoded);
                submitted.broken = match decode::transcode(&chunk.bytes, &mut transcoded) {
                    Ok(()) => self.messages(&chunk, &transcoded, &fragment, &mut submitted).await.err(),
                    Err(error) => Some(error),
                };
                self.transcoded = kept(transcoded);
            }
        }
        if let Some(error) = &submitted.broken {
            self.lose_frame(error.kind);
        }
        self.pieces.count(&mut self.rejoiner);
        self.flush_due(chunk.received_ns, &fragment);
        let position = chunk.position.and_then(|position| self.safe_position(position, chunk.received_ns));
        self.append_last(position).await;
        self.taken();
        submitted.after = submitted.after.max(self.appended);
        submitted
    }

    /// What was in hand is in the journal.
    fn taken(&mut self) {
        self.repeats.taken(&self.taking, self.connection, self.appended);
        self.taking.clear();
    }

    /// Counts a frame that could not be read; how many records it held is not known.
    pub fn lose_frame(&self, kind: FrameErrorKind) {
        self.lose(if kind.is_too_large() { Reason::TooLarge } else { Reason::MalformedFrame }, 1);
    }

    /// Counts records that were received but could not be taken in.
    pub fn lose(&self, reason: Reason, records: u64) {
        self.ledger.receive(records);
        self.ledger.lose(reason, records);
    }

    /// Counts records that a source had to cut to its limit.
    pub fn truncate(&self, records: u64) {
        self.ledger.truncate(records);
    }

    /// Passes on what waits for a next piece: the connection is at its end.
    pub async fn finish(&mut self) {
        let fragment = self.stage.pipeline.fragment.borrow().clone();
        while let Some(joined) = self.rejoiner.next_left() {
            self.joined(&joined, joined.time_ns, &fragment);
            self.append_if_full().await;
        }
        self.flush_pending(None, &fragment);
        let position = self.late_position();
        self.append_last(position).await;
        if let Some(entries) = self.broken_entries.rest() {
            tracing::warn!(source = %self.ledger.name, entries, "entries dropped");
        }
    }

    /// Passes on lines whose next piece did not come in time, and gives buffers back; to be called now and then on a quiet connection.
    pub async fn flush_partials(&mut self, now_ns: i64) {
        (self.inflated, self.transcoded) = (Vec::new(), Vec::new());
        if self.holds_back() {
            let fragment = self.stage.pipeline.fragment.borrow().clone();
            self.flush_due(now_ns, &fragment);
            self.pieces.count(&mut self.rejoiner);
            let position = self.late_position();
            self.append_last(position).await;
        }
    }

    /// Up to where a source that stands at that place, behind the chunk just taken, has nothing held back.
    fn safe_position(&mut self, position: Position, received_ns: i64) -> Option<Position> {
        let before = self.stands.replace(position);
        let oldest_ns = self.pending.oldest_ns().into_iter().chain(self.rejoiner.oldest_ns()).min();
        self.is_late = oldest_ns.is_some();
        match oldest_ns {
            None => Some(position),
            // All of it came with this chunk.
            Some(oldest_ns) if oldest_ns >= received_ns => before,
            Some(_) => None,
        }
    }

    /// Where the source stands, if that could not be told before, and nothing is held back any more.
    fn late_position(&mut self) -> Option<Position> {
        let is_told_now = self.is_late && !self.holds_back();
        self.is_late &= !is_told_now;
        self.stands.filter(|_| is_told_now)
    }

    /// Whether something waits here for what comes next.
    fn holds_back(&self) -> bool {
        !(self.rejoiner.is_empty() && self.pending.is_empty())
    }

    fn flush_due(&mut self, now_ns: i64, fragment: &Fragment) {
        while let Some(joined) = self.rejoiner.next_due(now_ns) {
            self.joined(&joined, now_ns, fragment);
        }
        self.flush_pending(Some(now_ns), fragment);
    }

    /// Passes on what filters hold back: what is due by then, or all.
    fn flush_pending(&mut self, now_ns: Option<i64>, fragment: &Fragment) {
        if !self.pending.is_empty() {
            self.arena.reset();
            let mut exit = Exit { stage: &mut self.stage, fragment };
            self.filters.flush(&self.arena, &mut self.pending, now_ns, &mut exit);
        }
    }

    /// A line that was put together goes on.
    fn joined(&mut self, joined: &Joined, now_ns: i64, fragment: &Fragment) {
        self.arena.reset();
        let (mut way, _) = self.way(now_ns, fragment);
        way.joined(joined);
    }

    /// The way of records through the filters, and what else a pass needs.
    fn way<'i>(&'i mut self, now_ns: i64, fragment: &'i Fragment) -> (Way<'i>, Rest<'i>) {
        let Self { stage, filters, tag_filters, pending, arena, rejoiner, broken_entries, ledger, .. } = self;
        let exit = Exit { stage, fragment };
        (Way { filters, tag_filters, pending, arena, exit, now_ns }, Rest { rejoiner, broken_entries, ledger })
    }

    async fn lines(&mut self, chunk: &Chunk, fragment: &Fragment) {
        self.stage.reserve(chunk.bytes.len());
        let mut start = 0;
        while start < chunk.bytes.len() {
            start = self.take_lines(chunk, start, fragment);
            self.append_if_full().await;
        }
    }

    /// Takes lines from there on until the block in hand is full; says where the next one begins.
    fn take_lines(&mut self, chunk: &Chunk, mut start: usize, fragment: &Fragment) -> usize {
        self.arena.reset();
        let spare = std::mem::take(&mut self.spare);
        let (mut way, mut rest_of_pass) = self.way(chunk.received_ns, fragment);
        let mut record = spare.recycle();
        let mut letter_tag = Vec::new();
        while start < chunk.bytes.len() && !way.exit.is_full() {
            let rest = &chunk.bytes[start..];
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            start += end + 1;
            record.clear();
            record.time_ns = chunk.received_ns;
            if letter::read(line, &mut record, &mut letter_tag).is_some() {
                way.exit.stage.letter(&letter_tag, &mut record, fragment);
            } else {
                record.push_envelope(Name::Known(Key::Log), Value::Text(line));
                way.offered(&mut rest_of_pass, chunk.tag.as_bytes(), &mut record);
            }
        }
        self.spare = record.recycle();
        start
    }

    async fn messages(
        &mut self,
        chunk: &Chunk,
        bytes: &[u8],
        fragment: &Fragment,
        submitted: &mut Submitted,
    ) -> Result<(), decode::FrameError> {
        self.stage.reserve(bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let message_at = bytes.len() - rest.len();
            let (message, taken) = decode::message(rest, &self.limits)
                .map_err(|error| decode::FrameError { offset: error.offset + message_at as u64, ..error })?;
            let (whole, behind) = rest.split_at(taken);
            rest = behind;
            let Some(message) = message else { continue };
            let key = message.chunk.as_ref().map(|id| repeats::key(message.tag, id.as_bytes(), whole));
            let repeated = match key {
                Some(key) => self.begin(key).await,
                None => None,
            };
            let received_ns = chunk.received_ns;
            let tag = tag_of(chunk, message.tag);
            let result = match (repeated, message.body) {
                (Some(after), body) => {
                    submitted.after = submitted.after.max(after);
                    self.leave_out(body, received_ns).await
                }
                (None, Body::Entries(entries)) => {
                    self.entries(&tag, entries, received_ns, fragment).await;
                    Ok(())
                }
                (None, Body::Compressed { compression, bytes }) => {
                    let mut inflated = std::mem::take(&mut self.inflated);
                    let memory = self.stage.pipeline.memory.clone();
                    let permit = memory.inflate(compression, bytes, &self.limits, &mut inflated).await;
                    if permit.is_ok() {
                        let entries = Entries::packed(&inflated, &self.limits);
                        self.entries(&tag, entries, received_ns, fragment).await;
                    }
                    self.inflated = kept(inflated);
                    permit.map(drop)
                }
                (None, Body::OtherSignal(signal)) => {
                    tracing::warn!(signal, "message holds no logs (fluent_signal), dropped");
                    self.lose(Reason::MalformedFrame, 1);
                    Ok(())
                }
            };
            if let Err(error) = result {
                if let Some(broken) = key.and_then(|key| self.taking.pop_if(|last| *last == key)) {
                    self.repeats.forget(&[broken]);
                }
                return Err(decode::FrameError::at(message_at, error.into()));
            }
            if let (Some(id), Some(key)) = (&message.chunk, key) {
                // Written only when the block is in the journal, and that is durable.
                decode::write_ack(id, chunk.encoding, &mut submitted.replies);
                submitted.acked.push(key);
                // Pieces held back are not in the block: after a restart their message is to be taken in again.
                let is_there = repeated.is_none() && !self.stage.block.index.is_empty() && !self.holds_back();
                if self.keeps_keys && is_there {
                    self.stage.block.chunk_ids.push(key.into());
                }
            }
        }
        Ok(())
    }

    /// Whether the message of that key was taken in before; if so, it is in blocks below the number returned.
    async fn begin(&mut self, key: ChunkKey) -> Option<Sequence> {
        let repeats = self.repeats.clone();
        loop {
            let change = repeats.change();
            match repeats.begin(key, self.connection) {
                Begun::New => self.taking.push(key),
                Begun::Unwatched => {}
                Begun::Repeat(after) => return Some(after),
                Begun::Busy => {
                    // Whoever has it may wait for what is in hand here: who waits holds nothing.
                    self.append().await;
                    self.taken();
                    change.await;
                    continue;
                }
            }
            return None;
        }
    }

    /// Counts the records of a message that was taken in before.
    async fn leave_out(&mut self, body: Body<'_>, received_ns: i64) -> Result<(), decode::InflateError> {
        let count = |mut entries: Entries<'_>| {
            let mut record = Record::new();
            std::iter::from_fn(|| entries.next_into(&mut record, received_ns).map(drop)).count()
        };
        let records = match body {
            Body::Entries(entries) => count(entries),
            Body::Compressed { compression, bytes } => {
                let mut inflated = std::mem::take(&mut self.inflated);
                let memory = self.stage.pipeline.memory.clone();
                let _permit = memory.inflate(compression, bytes, &self.limits, &mut inflated).await?;
                let records = count(Entries::packed(&inflated, &self.limits));
                self.inflated = kept(inflated);
                records
            }
            Body::OtherSignal(_) => 1,
        };
        self.lose(Reason::Duplicate, records as u64);
        Ok(())
    }

    async fn entries(&mut self, tag: &[u8], mut entries: Entries<'_>, received_ns: i64, fragment: &Fragment) {
        // A full block is closed before the next entry, and so not after the last: a message's key belongs into the block where
        // it ends.
        while !entries.is_at_end() {
            self.append_if_full().await;
            self.take_entries(tag, &mut entries, received_ns, fragment);
        }
    }

    /// Takes entries until the block in hand is full.
    fn take_entries(&mut self, tag: &[u8], entries: &mut Entries<'_>, received_ns: i64, fragment: &Fragment) {
        self.arena.reset();
        let spare = std::mem::take(&mut self.spare);
        let (mut way, mut rest) = self.way(received_ns, fragment);
        let mut record = spare.recycle();
        while !way.exit.is_full() {
            let Some(entry) = entries.next_into(&mut record, received_ns) else { break };
            if let Err(error) = entry {
                if let Some(entries) = rest.broken_entries.count(1, received_ns) {
                    tracing::warn!(source = %rest.ledger.name, %error, entries, "entry dropped");
                }
                way.exit.stage.tally.lose(Reason::MalformedEntry);
                continue;
            }
            way.offered(&mut rest, tag, &mut record);
        }
        self.spare = record.recycle();
    }

    async fn append_if_full(&mut self) {
        if self.stage.block.bytes.len() >= BLOCK_BYTES_MAX {
            self.append().await;
            self.stage.reserve(BLOCK_BYTES_MAX);
        }
    }

    /// Appends the last block of a chunk, and with it, or without, where the source stands now.
    async fn append_last(&mut self, position: Option<Position>) {
        if self.stage.block.index.is_empty()
            && let Some(position) = position
        {
            self.writer.pass(self.stage.block.source, position);
        }
        self.stage.block.position = position;
        self.append().await;
        self.stage.block.position = None;
    }

    /// Hands the block to the journal, and what was counted to the ledger.
    async fn append(&mut self) {
        let tally = std::mem::take(&mut self.stage.tally);
        tally.enter(&self.ledger);
        self.stage.pipeline.redactions.enter(&mut self.stage.redacted);
        if !self.stage.block.index.is_empty() {
            let next = Block { source: self.stage.block.source, ..Block::default() };
            let mut block = std::mem::replace(&mut self.stage.block, next);
            block.bytes = block.bytes.fitted();
            self.appended = self.writer.append(block).await + 1;
            self.ledger.hand_on(tally.routed);
            // The sinks just woken wait behind this task, on its own thread, where no other thread may take them: without a
            // pause here a busy source would fill the journal before the first of them reads a byte.
            tokio::task::yield_now().await;
        }
    }
}

/// The tag of a message's records.
fn tag_of<'a>(chunk: &'a Chunk, said: &'a [u8]) -> Cow<'a, [u8]> {
    match (chunk.tag.as_bytes(), chunk.is_prefix) {
        (b"", _) => said.into(),
        (tag, false) => tag.into(),
        (prefix, true) => [prefix, said].concat().into(),
    }
}

fn kept(mut buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
        return Vec::new();
    }
    buffer.clear();
    buffer
}

#[cfg(test)]
mod tests;
