//! The pass that joins decode, parse, redact, enrich, route and encode: one chunk in, one block out.
//!
//! [`Pipeline`] is what all connections share, compiled once. An [`Intake`] is one connection's way through it: it holds what
//! is learned of the stream (which layout Envoy speaks, lines that Docker cut) and the buffers that are used again. The pass is
//! synchronous over borrowed bytes; it awaits only where it hands a block to the journal: at the end of the chunk, and every
//! [`BLOCK_BYTES_MAX`] in between, so that a large message needs no memory of its own size.

pub mod lines;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chunk::{Chunk, Encoding, Position, SourceId};
use crate::decode::{self, Body, Entries, FrameErrorKind, Joined, Offer, PartialLimits, Rejoiner};
use crate::encode::{Fragment, encode};
use crate::enrich::ecs::Metadata;
use crate::envoy::Parser;
use crate::journal::block::{Block, Entry, Partition, Pool};
use crate::journal::{Durable, Sequence, Writer};
use crate::letter;
use crate::record::{Key, Kind, Name, Record, Value};
use crate::redact::Redactor;
use crate::route::{Decision, RouteError, Router, TagView};
use crate::telemetry::account::{Ledger, REASONS, Reason};
use crate::{enrich, redact, route};

/// A block is closed when it has this many bytes, in the middle of a chunk if need be.
pub const BLOCK_BYTES_MAX: usize = 256 << 10;

/// What a record takes as a rule, for the first guess of how many there will be.
const USUAL_RECORD_BYTES: usize = 512;

/// What separates the container's name from the task's id in a FireLens tag.
const FIRELENS: &str = "-firelens-";

/// What the stages are compiled from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Redaction.
    pub redact: redact::Config,
    /// Enrichment.
    pub enrich: enrich::Config,
    /// Routing.
    pub route: route::Config,
    /// How many sinks there are.
    pub sinks: usize,
    /// Names of the record fields that sink templates use; their values are kept in each [`Partition`].
    pub partition_keys: Arc<[Box<str>]>,
}

/// What every connection shares: the compiled stages.
pub struct Pipeline {
    redactor: Redactor,
    router: Router,
    fragment: watch::Receiver<Arc<Fragment>>,
    partition_keys: Arc<[Box<str>]>,
    buffers: Arc<Pool>,
}

impl Pipeline {
    /// Compiles the stages, and starts the task that makes a new fragment when task metadata changes.
    ///
    /// # Errors
    /// A route that does not compile. The configuration was checked for that, so this is a defect.
    pub fn new(
        config: &Config,
        metadata: watch::Receiver<Arc<Metadata>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Arc<Self>, RouteError> {
        Ok(Arc::new(Self {
            redactor: Redactor::new(&config.redact),
            router: Router::new(&config.route, config.sinks)?,
            fragment: fragments(config.enrich.clone(), metadata, tasks),
            partition_keys: config.partition_keys.clone(),
            buffers: Arc::default(),
        }))
    }
}

/// The current fragment of enrichment, made anew with each change of the metadata.
fn fragments(
    config: enrich::Config,
    mut metadata: watch::Receiver<Arc<Metadata>>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Arc<Fragment>> {
    let make = move |metadata: &Metadata| Arc::new(Fragment::new(enrich::fields(&config, metadata)));
    let (sender, receiver) = watch::channel(make(&metadata.borrow_and_update()));
    tasks.spawn(async move {
        while metadata.changed().await.is_ok() {
            let fragment = make(&metadata.borrow_and_update());
            sender.send_replace(fragment);
        }
        // The metadata is final; the fragment stays for as long as anyone reads it.
        sender.closed().await;
    });
    receiver
}

/// What came of a chunk.
#[derive(Debug, Default)]
pub struct Submitted {
    /// Acknowledgements to write back to the sender, already serialized.
    pub replies: Vec<u8>,
    /// They may be written once the journal is durable to here, see [`journal::Durable`].
    pub after: Sequence,
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
}

impl Intakes {
    /// For the source of that number, accounting on that ledger.
    pub fn new(
        pipeline: Arc<Pipeline>,
        writer: Writer,
        ledger: Arc<Ledger>,
        source: SourceId,
        limits: decode::Limits,
    ) -> Self {
        Self { pipeline, writer, ledger, source, limits }
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
                parser: Parser::default(),
                block: Block { source: self.source, ..Block::default() },
                tag: None,
                tally: Tally::default(),
            },
            writer: self.writer.clone(),
            ledger: self.ledger.clone(),
            limits: self.limits,
            rejoiner: Rejoiner::new(PartialLimits::default()),
            appended: 0,
            inflated: Vec::new(),
            transcoded: Vec::new(),
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
    /// One past the last block appended.
    appended: Sequence,
    /// Buffer of decompressed bodies, used again.
    inflated: Vec<u8>,
    /// Buffer of JSON messages rewritten as MessagePack, used again.
    transcoded: Vec<u8>,
}

/// A buffer larger than this is given back after use: one giant message must not hold its memory for the connection's life.
const BUFFER_KEPT_BYTES_MAX: usize = 1 << 20;

impl Intake {
    /// Processes a chunk and appends its block; waits while the journal is full.
    pub async fn submit(&mut self, chunk: Chunk) -> Submitted {
        let mut submitted = Submitted::default();
        let fragment = self.stage.pipeline.fragment.borrow().clone();
        match chunk.encoding {
            Encoding::Lines => self.lines(&chunk, &fragment).await,
            Encoding::Forward => {
                submitted.broken = self.messages(&chunk, &chunk.bytes, &fragment, &mut submitted.replies).await.err();
            }
            Encoding::ForwardJson => {
                let mut transcoded = std::mem::take(&mut self.transcoded);
                submitted.broken = match decode::transcode(&chunk.bytes, &mut transcoded) {
                    Ok(()) => self.messages(&chunk, &transcoded, &fragment, &mut submitted.replies).await.err(),
                    Err(error) => Some(error),
                };
                self.transcoded = kept(transcoded);
            }
        }
        if let Some(error) = &submitted.broken {
            self.lose_frame(error.kind);
        }
        self.flush_due(chunk.received_ns, &fragment);
        self.append_last(chunk.position).await;
        submitted.after = self.appended;
        submitted
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
            self.stage.joined(&joined, &fragment);
            self.append_if_full().await;
        }
        self.append().await;
    }

    /// Passes on lines whose next piece did not come in time; to be called now and then on a quiet connection.
    pub async fn flush_partials(&mut self, now_ns: i64) {
        if !self.rejoiner.is_empty() {
            let fragment = self.stage.pipeline.fragment.borrow().clone();
            self.flush_due(now_ns, &fragment);
            self.append().await;
        }
    }

    fn flush_due(&mut self, now_ns: i64, fragment: &Fragment) {
        while let Some(joined) = self.rejoiner.next_due(now_ns) {
            self.stage.joined(&joined, fragment);
        }
    }

    async fn lines(&mut self, chunk: &Chunk, fragment: &Fragment) {
        let bytes: &[u8] = &chunk.bytes;
        self.stage.reserve(bytes.len());
        let mut record = Record::new();
        let mut letter_tag = Vec::new();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes).chain((bytes.last() != Some(&b'\n')).then_some(bytes.len())) {
            let line = bytes.get(start..end).unwrap_or_default();
            start = end + 1;
            if end == bytes.len() && line.is_empty() {
                break;
            }
            record.clear();
            record.time_ns = chunk.received_ns;
            if letter::read(line, &mut record, &mut letter_tag).is_some() {
                self.stage.letter(&letter_tag, &mut record, fragment);
            } else {
                record.push_envelope(Name::Known(Key::Log), Value::Text(line));
                self.stage.record(chunk.tag.as_bytes(), &mut record, fragment);
            }
            self.append_if_full().await;
        }
    }

    async fn messages<'a>(
        &mut self,
        chunk: &Chunk,
        bytes: &'a [u8],
        fragment: &Fragment,
        replies: &mut Vec<u8>,
    ) -> Result<(), decode::FrameError> {
        self.stage.reserve(bytes.len());
        let mut record: Record<'a> = Record::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let message_at = bytes.len() - rest.len();
            let (message, taken) = decode::message(rest, &self.limits)
                .map_err(|error| decode::FrameError { offset: error.offset + message_at as u64, ..error })?;
            rest = rest.get(taken..).unwrap_or_default();
            let Some(message) = message else { continue };
            match message.body {
                Body::Entries(entries) => {
                    self.entries(message.tag, entries, chunk.received_ns, &mut record, fragment).await;
                }
                Body::Compressed { compression, bytes } => {
                    let mut inflated = std::mem::take(&mut self.inflated);
                    inflated.clear();
                    let result = decode::decompress(compression, bytes, &self.limits, &mut inflated);
                    if result.is_ok() {
                        let entries = Entries::packed(&inflated, &self.limits);
                        let mut record = Record::new();
                        self.entries(message.tag, entries, chunk.received_ns, &mut record, fragment).await;
                    }
                    self.inflated = kept(inflated);
                    result.map_err(|error| decode::FrameError::at(message_at, error.into()))?;
                }
                Body::OtherSignal(signal) => {
                    tracing::warn!(signal, "message holds no logs (fluent_signal), dropped");
                    self.lose(Reason::MalformedFrame, 1);
                }
            }
            if let Some(id) = &message.chunk {
                // Written only when the block is in the journal, and that is durable.
                decode::write_ack(id, chunk.encoding, replies);
            }
        }
        Ok(())
    }

    async fn entries<'a>(
        &mut self,
        tag: &[u8],
        mut entries: Entries<'a>,
        received_ns: i64,
        record: &mut Record<'a>,
        fragment: &Fragment,
    ) {
        loop {
            record.clear();
            match entries.next_into(record, received_ns) {
                None => return,
                Some(Err(error)) => {
                    tracing::warn!(%error, "entry dropped");
                    self.stage.tally.lose(Reason::MalformedEntry);
                }
                Some(Ok(())) => match self.rejoiner.offer(tag, record, received_ns) {
                    Offer::NotPartial => self.stage.record(tag, record, fragment),
                    Offer::Held => {}
                    Offer::Complete(joined) => self.stage.joined(&joined, fragment),
                    Offer::Orphan => self.stage.tally.lose(Reason::TooLarge),
                },
            }
            self.append_if_full().await;
        }
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
        if !self.stage.block.index.is_empty() {
            let next = Block { source: self.stage.block.source, ..Block::default() };
            let mut block = std::mem::replace(&mut self.stage.block, next);
            block.bytes = block.bytes.fitted();
            self.appended = self.writer.append(block).await + 1;
            self.ledger.deliver(tally.routed);
            // The sinks just woken wait behind this task, on its own thread, where no other thread may take them: without a
            // pause here a busy source would fill the journal before the first of them reads a byte.
            tokio::task::yield_now().await;
        }
    }
}

fn kept(mut buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
        return Vec::new();
    }
    buffer.clear();
    buffer
}

/// Counts of one block, entered into the ledger once.
#[derive(Default)]
struct Tally {
    received: u64,
    routed: u64,
    truncated: u64,
    lost: [u64; REASONS],
}

impl Tally {
    fn lose(&mut self, reason: Reason) {
        self.received += 1;
        self.lost[reason as usize] += 1;
    }

    fn enter(&self, ledger: &Ledger) {
        ledger.receive(self.received);
        ledger.truncate(self.truncated);
        for reason in Reason::ALL {
            if self.lost[reason as usize] > 0 {
                ledger.lose(reason, self.lost[reason as usize]);
            }
        }
    }
}

/// The stages after decode, over one record at a time.
struct Stage {
    pipeline: Arc<Pipeline>,
    parser: Parser,
    block: Block,
    /// The last tag seen, with what follows from it.
    tag: Option<Tag>,
    tally: Tally,
}

/// A tag, and what is the same for all its records.
struct Tag {
    bytes: Box<[u8]>,
    text: Box<str>,
    view: TagView,
    /// The container's name, from a FireLens tag.
    container: Option<Box<str>>,
}

impl Stage {
    /// Makes room for the records of a chunk of that size: JSON lines come out about as long as they came in.
    fn reserve(&mut self, chunk_bytes: usize) {
        let wanted = (chunk_bytes + chunk_bytes / 4).min(BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 8);
        if self.block.bytes.is_empty() {
            self.block.bytes = self.pipeline.buffers.take(wanted);
            self.block.index.reserve(wanted / USUAL_RECORD_BYTES);
        }
    }

    fn joined(&mut self, joined: &Joined, fragment: &Fragment) {
        let mut record = Record::new();
        joined.fill(&mut record);
        self.tally.truncated += u64::from(joined.truncated);
        self.record(&joined.tag, &mut record, fragment);
    }

    fn record(&mut self, tag: &[u8], record: &mut Record<'_>, fragment: &Fragment) {
        if let Some(line) = record.log_line() {
            self.parser.parse(line, record);
        }
        self.pipeline.redactor.redact(record);
        self.pass_on(tag, record, fragment);
    }

    /// A dead letter, which was parsed in an earlier life. Redacted again: the file may have been in other hands.
    fn letter(&mut self, tag: &[u8], record: &mut Record<'_>, fragment: &Fragment) {
        self.pipeline.redactor.redact(record);
        // Its `log_type` is one of its fields.
        record.kind = Kind::Other;
        self.pass_on(tag, record, fragment);
    }

    fn pass_on(&mut self, tag: &[u8], record: &Record<'_>, fragment: &Fragment) {
        self.tally.received += 1;
        if self.tag.as_ref().is_none_or(|known| *known.bytes != *tag) {
            self.tag = Some(Tag::new(tag, &self.pipeline));
        }
        let Some(tag) = &self.tag else { return };
        match self.pipeline.router.decide(&tag.view, record) {
            Decision::Filtered(reason) => self.tally.lost[reason as usize] += 1,
            Decision::To(sinks) => {
                let partition = partition(&mut self.block.partitions, tag, &self.pipeline.partition_keys, record);
                encode(record, fragment, &mut self.block.bytes);
                let time_ms = record.time_ns.div_euclid(1_000_000);
                let end = self.block.bytes.len() as u32;
                self.block.index.push(Entry { time_ms, sinks, end, partition });
                self.block.sinks |= sinks;
                self.tally.routed += 1;
            }
        }
    }
}

impl Tag {
    fn new(bytes: &[u8], pipeline: &Pipeline) -> Self {
        let mut text = Vec::new();
        // A tag names streams and objects: what a sender hides in it must not get there unredacted.
        pipeline.redactor.scrub_text(bytes, &mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let container = text.split_once(FIRELENS).map(|(container, _)| container.into());
        Self { bytes: bytes.into(), view: pipeline.router.for_tag(text.as_bytes()), text: text.into(), container }
    }
}

/// The number of the record's partition in the block; in a run of like records that of the record before.
fn partition(partitions: &mut Vec<Partition>, tag: &Tag, keys: &[Box<str>], record: &Record<'_>) -> u32 {
    let is_same = |partition: &Partition| {
        partition.tag == tag.text
            && keys
                .iter()
                .zip(&partition.values)
                .all(|(key, value)| value.as_bytes() == partition_value(key, tag, record))
    };
    // Backwards: the last one is the likeliest.
    if let Some(place) = partitions.iter().rposition(is_same) {
        return place as u32;
    }
    let value = |key: &str| String::from_utf8_lossy(partition_value(key, tag, record)).into();
    partitions.push(Partition { tag: tag.text.clone(), values: keys.iter().map(|key| value(key)).collect() });
    (partitions.len() - 1) as u32
}

fn partition_value<'s>(key: &str, tag: &'s Tag, record: &'s Record<'_>) -> &'s [u8] {
    let field = || record.get_by_name(key.as_bytes()).and_then(|value| record.bytes_of(value)).unwrap_or_default();
    match key {
        "log_type" => record.kind.log_type().map_or_else(field, str::as_bytes),
        "container_name" => match &tag.container {
            Some(container) => container.as_bytes(),
            None => field().strip_prefix(b"/").unwrap_or(field()),
        },
        _ => field(),
    }
}
