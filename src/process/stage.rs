//! The stages after decode, joined over one record at a time: parse, redact, route, encode into the block in hand.

use std::sync::Arc;

use super::{BLOCK_BYTES_MAX, Parse, Pipeline};
use crate::encode::{Fragment, encode};
use crate::envoy::Parser;
use crate::journal::block::{Block, Entry, Partition};
use crate::record::{Kind, Record, Value};
use crate::redact::Counts;
use crate::route::{Decision, TagView};
use crate::telemetry::account::{Ledger, REASONS, Reason};
use crate::telemetry::own;

/// What a record takes as a rule, for the first guess of how many there will be.
const USUAL_RECORD_BYTES: usize = 512;

/// What separates the container's name from the task's id in a FireLens tag.
const FIRELENS: &str = "-firelens-";

/// The proxy container of ECS Service Connect; the task's agent names it.
const SERVICE_CONNECT: &[u8] = b"ecs-service-connect";

/// Tags of one connection that are remembered to speak Envoy.
const ENVOY_TAGS_MAX: usize = 64;

/// Counts of one block, entered into the ledger once.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) routed: u64,
    pub(super) truncated: u64,
    pub(super) unparsed: u64,
    pub(super) lost: [u64; REASONS],
}

impl Tally {
    pub(super) fn lose(&mut self, reason: Reason) {
        self.received += 1;
        self.lost[reason as usize] += 1;
    }

    pub(super) fn enter(&self, ledger: &Ledger) {
        ledger.receive(self.received);
        ledger.truncate(self.truncated);
        ledger.leave_unparsed(self.unparsed);
        for reason in Reason::ALL {
            if self.lost[reason as usize] > 0 {
                ledger.lose(reason, self.lost[reason as usize]);
            }
        }
    }
}

/// The stages after decode, over one record at a time.
pub(super) struct Stage {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) parser: Parser,
    pub(super) block: Block,
    /// The last tag seen, with what follows from it.
    pub(super) tag: Option<Tag>,
    /// Tags of the connection that spoke Envoy.
    pub(super) envoys: Envoys,
    pub(super) tally: Tally,
    /// What was redacted in the block in hand.
    pub(super) redacted: Counts,
}

/// A tag, and what is the same for all its records.
pub(super) struct Tag {
    bytes: Box<[u8]>,
    text: Box<str>,
    view: TagView,
    /// The container's name, from a FireLens tag.
    container: Option<Box<str>>,
    /// Envoy writes here: what nobody understands may be a piece of what it wrote.
    speaks_envoy: bool,
    /// Whether its records are our own log.
    own: Own,
    /// It was said that lines of it have none of the formats.
    is_told: bool,
}

/// Tags on which something looked like Envoy's. Kept only where other lines pass unredacted.
#[derive(Default)]
pub(super) struct Envoys(Vec<Box<[u8]>>);

impl Envoys {
    fn add(&mut self, tag: &[u8]) {
        if self.0.len() <= ENVOY_TAGS_MAX {
            self.0.push(tag.into());
        }
    }

    /// Beyond the limit every tag counts as one of them: redaction fails closed.
    fn include(&self, tag: &[u8]) -> bool {
        tag.starts_with(SERVICE_CONNECT) || self.0.len() > ENVOY_TAGS_MAX || self.0.iter().any(|known| **known == *tag)
    }
}

/// What is known of a tag's records.
#[derive(Clone, Copy)]
enum Own {
    /// Nothing for sure, after so many looks.
    Unknown(u8),
    Yes,
    No,
}

impl Stage {
    /// Makes room for the records of a chunk of that size: JSON lines come out about as long as they came in.
    pub(super) fn reserve(&mut self, chunk_bytes: usize) {
        let wanted = (chunk_bytes + chunk_bytes / 4).min(BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 8);
        if self.block.bytes.is_empty() {
            self.block.bytes = self.pipeline.buffers.take(wanted);
            self.block.index.reserve(wanted / USUAL_RECORD_BYTES);
        }
    }

    pub(super) fn record(&mut self, tag: &[u8], record: &mut Record<'_>, fragment: &Fragment) {
        self.enter(tag);
        if self.is_own_log(record) {
            return self.tally.lose(Reason::OwnLog);
        }
        let Parse { envoy, application, .. } = self.pipeline.parse;
        let (line, time_ns) = (record.log_line(), record.time_ns);
        let is_envoys = match line {
            _ if !envoy => false,
            Some(line) => self.parser.parse(line, record),
            None => self.parser.recognise(record),
        };
        if is_envoys && record.kind == Kind::Other {
            self.leave_unparsed(line.unwrap_or_default());
        }
        if record.kind == Kind::Envoy
            && !application
            && let Some(line) = line
        {
            // It passes as it came, with what was around it.
            record.put_log(Value::Text(line));
            record.time_ns = time_ns;
        }
        if !self.pipeline.passes_applications || self.may_hold_envoys(is_envoys) {
            self.pipeline.redactor.redact_and_count(record, &mut self.redacted);
        }
        if let Some(derive) = &self.pipeline.derive {
            derive.apply(record);
        }
        if record.kind == Kind::Envoy && !application {
            record.kind = Kind::Other;
            record.parsed.clear();
        }
        self.pass_on(record, fragment);
    }

    /// A line that begins as an access log and has none of the formats.
    fn leave_unparsed(&mut self, line: &[u8]) {
        self.tally.unparsed += 1;
        if let Some(tag) = self.tag.as_mut().filter(|tag| !tag.is_told) {
            tag.is_told = true;
            self.pipeline.strangers.say(&tag.text, line);
        }
    }

    /// Whether a record of the present tag may hold a piece of what Envoy wrote, understood or not.
    fn may_hold_envoys(&mut self, is_envoys: bool) -> bool {
        let Some(tag) = &mut self.tag else { return true };
        if is_envoys && !tag.speaks_envoy {
            tag.speaks_envoy = true;
            self.envoys.add(&tag.bytes);
        }
        tag.speaks_envoy
    }

    /// A dead letter, which was parsed in an earlier life. Redacted again: the file may have been in other hands.
    pub(super) fn letter(&mut self, tag: &[u8], record: &mut Record<'_>, fragment: &Fragment) {
        self.pipeline.redactor.redact_and_count(record, &mut self.redacted);
        // Its `log_type` is one of its fields.
        record.kind = Kind::Other;
        self.enter(tag);
        self.pass_on(record, fragment);
    }

    /// What follows belongs to that tag.
    fn enter(&mut self, tag: &[u8]) {
        if self.tag.as_ref().is_none_or(|known| *known.bytes != *tag) {
            self.tag = Some(Tag::new(tag, &self.pipeline, self.envoys.include(tag)));
        }
    }

    /// Whether the record is a line of our own log; decided with the first records of a tag.
    fn is_own_log(&mut self, record: &Record<'_>) -> bool {
        let Some(tag) = &mut self.tag else { return false };
        let Own::Unknown(looks) = tag.own else { return matches!(tag.own, Own::Yes) };
        let field = |name: &[u8]| record.get_by_name(name).and_then(|value| record.bytes_of(value)).unwrap_or_default();
        tag.own = match own::is_own(field(b"log"), field(b"container_id")) {
            true => Own::Yes,
            false if looks + 1 >= own::LOOKS_MAX => Own::No,
            false => Own::Unknown(looks + 1),
        };
        if matches!(tag.own, Own::Yes) {
            own::say(&tag.text);
        }
        matches!(tag.own, Own::Yes)
    }

    fn pass_on(&mut self, record: &Record<'_>, fragment: &Fragment) {
        self.tally.received += 1;
        let Some(tag) = &self.tag else { return };
        match self.pipeline.router.decide(&tag.view, record) {
            Decision::Filtered(reason) => self.tally.lost[reason as usize] += 1,
            Decision::To(sinks) => {
                let partition = partition(&mut self.block.partitions, tag, &self.pipeline.partition_keys, record);
                encode(record, fragment, &mut self.block.bytes);
                let end = self.block.bytes.len() as u32;
                self.block.index.push(Entry { time_ns: record.time_ns, sinks, end, partition });
                self.block.sinks |= sinks;
                self.tally.routed += 1;
            }
        }
    }
}

impl Tag {
    fn new(bytes: &[u8], pipeline: &Pipeline, speaks_envoy: bool) -> Self {
        let mut text = Vec::new();
        // A tag names streams and objects: what a sender hides in it must not get there unredacted.
        pipeline.redactor.scrub_text(bytes, &mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let container = text.split_once(FIRELENS).map(|(container, _)| container.into());
        let view = pipeline.router.for_tag(text.as_bytes());
        Self {
            bytes: bytes.into(),
            view,
            text: text.into(),
            container,
            speaks_envoy,
            own: Own::Unknown(0),
            is_told: false,
        }
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
    let own = key.strip_prefix('$');
    let key = own.unwrap_or(key);
    let field = || {
        let value = match record.get_by_name(key.as_bytes()) {
            Some(value) => record.bytes_of(value),
            None => record.nested_bytes(key.as_bytes()),
        };
        value.unwrap_or_default()
    };
    match key {
        _ if own.is_some() => field(),
        "log_type" => record.kind.log_type().map_or_else(field, str::as_bytes),
        "container_name" => match &tag.container {
            Some(container) => container.as_bytes(),
            None => field().strip_prefix(b"/").unwrap_or(field()),
        },
        _ => field(),
    }
}
