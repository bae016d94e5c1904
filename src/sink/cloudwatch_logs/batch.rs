//! Open batches: one a stream and UTC day, within the limits of `PutLogEvents`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::journal::Sequence;
use crate::journal::block::Block;
use crate::sink::dead_letters::Letters;
use crate::sink::driver::{Batches, Ready, Shares};
use crate::sink::{Context, Oversize};
use crate::telemetry::account::Reason;

use super::message::{self, Message};
use super::name::{Names, Target};
use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Config, EVENT_OVERHEAD_BYTES, MESSAGE_BYTES_MAX};

/// The events of a batch may not span 24 hours; those of one UTC day never do.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A finished batch, in time order.
pub(super) struct Batch {
    pub(super) target: Arc<Target>,
    pub(super) events: Vec<Event>,
    /// Of those, how many were cut.
    pub(super) truncated: u64,
    /// Bytes of all messages.
    pub(super) message_bytes: usize,
    blocks: Vec<(Sequence, Arc<Block>)>,
}

/// One event: a span of a block.
#[derive(Clone, Copy)]
pub(super) struct Event {
    pub(super) time_ms: i64,
    block: u32,
    /// Its record's index in the block.
    record: u32,
    start: u32,
    /// Length of the message; the two highest bits say that it is escaped already, and that it was cut.
    len: u32,
}

/// No message is that long, so the bits are free.
const ESCAPED: u32 = 1 << 31;
const CUT: u32 = 1 << 30;
const _: () = assert!(MESSAGE_BYTES_MAX < CUT as usize);

impl Event {
    pub(super) fn is_escaped(&self) -> bool {
        self.len & ESCAPED != 0
    }

    fn is_cut(&self) -> bool {
        self.len & CUT != 0
    }

    pub(super) fn len(&self) -> usize {
        (self.len & !(ESCAPED | CUT)) as usize
    }
}

impl Batch {
    pub(super) fn message(&self, event: &Event) -> &[u8] {
        let start = event.start as usize;
        &self.blocks[event.block as usize].1.bytes[start..start + event.len()]
    }

    /// How many of those events were cut.
    pub(super) fn truncated(&self, events: Range<usize>) -> u64 {
        if self.truncated == 0 {
            return 0;
        }
        self.events[events].iter().filter(|event| event.is_cut()).count() as u64
    }

    /// The records of those events, which stand in the order of time here.
    pub(super) fn shares(&self, events: impl IntoIterator<Item = usize>) -> Shares {
        let mut records: Vec<(u32, u32)> =
            events.into_iter().map(|event| (self.events[event].block, self.events[event].record)).collect();
        records.sort_unstable();
        let mut shares = Shares::default();
        for (block, record) in records {
            shares.add_run(self.blocks[block as usize].0, record..record + 1);
        }
        shares
    }

    /// Leaves those events as dead letters.
    pub(super) fn bury(&self, events: Range<usize>, letters: &mut Letters<'_>) {
        for event in &self.events[events] {
            letters.add(&self.blocks[event.block as usize].1, event.record as usize);
        }
    }
}

/// The open batches of a sink.
pub(super) struct Open {
    sink: usize,
    config: Arc<Config>,
    events_max: usize,
    bytes_max: usize,
    /// The name of the field to send, as it stands in JSON between the quotes.
    log_key: Option<Box<[u8]>>,
    names: Names,
    open: HashMap<(Arc<Target>, i64), Filling>,
    due: Option<Instant>,
}

/// A batch that is being filled.
struct Filling {
    due: Instant,
    events: Vec<Event>,
    truncated: u64,
    message_bytes: usize,
    blocks: Vec<(Sequence, Arc<Block>)>,
    shares: Shares,
}

impl Open {
    pub(super) fn new(config: Arc<Config>, ctx: &Context) -> Self {
        let log_key = config.log_key.as_deref().map(|key| {
            let mut escaped = Vec::new();
            super::body::escape(key.as_bytes(), &mut escaped);
            escaped.into_boxed_slice()
        });
        Self {
            sink: ctx.id,
            events_max: config.batch_events_max.clamp(1, BATCH_EVENTS_MAX),
            bytes_max: config.batch_bytes_max.min(BATCH_BYTES_MAX),
            log_key,
            names: Names::new(config.group.clone(), config.stream.clone(), ctx),
            config,
            open: HashMap::new(),
            due: None,
        }
    }

    /// The message of record `i`, cut or not; or why there is none.
    fn message(&self, block: &Block, i: usize) -> Result<(Message, bool), Reason> {
        let line = block.line(i);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut message = message::message(line, self.log_key.as_deref()).ok_or(Reason::Empty)?;
        let is_cut = message.len > MESSAGE_BYTES_MAX;
        if is_cut {
            if self.config.oversize == Oversize::Reject {
                return Err(Reason::Oversize);
            }
            let text = &line[message.start..message.start + message.len];
            message.len = message::cut(text, MESSAGE_BYTES_MAX, message.escaped);
        }
        Ok((message, is_cut))
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
        self.names.refresh();
        let bit = 1 << self.sink;
        let due = Instant::now() + self.config.batch_timeout;
        let mut rejected = Vec::new();
        // The batch of the record before, out of the map: runs of records go to the same.
        let mut current: Option<Current> = None;
        let mut line_start = 0;
        let mut follows = 0;
        for (i, entry) in block.index.iter().enumerate() {
            let start = std::mem::replace(&mut line_start, entry.end);
            if entry.sinks & bit == 0 {
                continue;
            }
            let (message, is_cut) = match self.message(block, i) {
                Ok(message) => message,
                Err(reason) => {
                    rejected.push((i as u32, reason));
                    follows = i as u32 + 1;
                    continue;
                }
            };
            // The API takes no time before 1970; as the oldest it is rejected for its age alone, not with its whole batch.
            let time_ms = entry.time_ms().max(0);
            let mut place = match current.take() {
                Some(same) if same.partition == entry.partition && self.same_batch(&same, time_ms) => same,
                other => {
                    self.put_back(other);
                    self.take(block, i, time_ms, due)
                }
            };
            if !self.fits(&place.filling, message.len) {
                let full = std::mem::replace(&mut place.filling, Filling::new(due));
                ready.push_back(full.finish(place.key.0.clone()));
            }
            let record = i as u32;
            place.filling.push(sequence, block, Shape { time_ms, record, line_start: start, message, is_cut }, follows);
            follows = record + 1;
            current = Some(place);
        }
        self.put_back(current);
        rejected
    }

    fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.open.is_empty())
    }

    fn flush(&mut self, until: Option<Instant>, ready: &mut VecDeque<Ready<Batch>>) {
        let due = |filling: &Filling| until.is_none_or(|until| filling.due <= until);
        for ((target, _), filling) in self.open.extract_if(|_, filling| due(filling)) {
            ready.push_back(filling.finish(target));
        }
        self.due = self.open.values().map(|filling| filling.due).min();
    }
}

/// A batch taken out of the map while records are added to it.
struct Current {
    partition: u32,
    time_ms: i64,
    key: (Arc<Target>, i64),
    filling: Filling,
}

impl Open {
    /// The open batch for record `i`, or a new one.
    fn take(&mut self, block: &Block, i: usize, time_ms: i64, due: Instant) -> Current {
        let key = (self.names.target(block.partition(i), time_ms), time_ms.div_euclid(DAY_MS));
        let filling = self.open.remove(&key).unwrap_or_else(|| Filling::new(due));
        Current { partition: block.index[i].partition, time_ms, key, filling }
    }

    fn put_back(&mut self, current: Option<Current>) {
        if let Some(current) = current {
            self.due = Some(self.due.map_or(current.filling.due, |due| due.min(current.filling.due)));
            self.open.insert(current.key, current.filling);
        }
    }

    fn same_batch(&self, current: &Current, time_ms: i64) -> bool {
        current.key.1 == time_ms.div_euclid(DAY_MS) && self.names.same(current.time_ms, time_ms)
    }

    /// Whether one more event of that length is within the limits; the first always is.
    fn fits(&self, filling: &Filling, message_len: usize) -> bool {
        let events = filling.events.len() + 1;
        let bytes = filling.message_bytes + message_len + events * EVENT_OVERHEAD_BYTES;
        events == 1 || (events <= self.events_max && bytes <= self.bytes_max)
    }
}

/// An event before it has its place in a batch.
struct Shape {
    time_ms: i64,
    record: u32,
    /// Where its line begins in the block.
    line_start: u32,
    message: Message,
    is_cut: bool,
}

impl Filling {
    fn new(due: Instant) -> Self {
        Self { due, events: Vec::new(), truncated: 0, message_bytes: 0, blocks: Vec::new(), shares: Shares::default() }
    }

    /// Adds an event; `follows` as [`Shares::add`] has it.
    fn push(&mut self, sequence: Sequence, block: &Arc<Block>, event: Shape, follows: u32) {
        if self.blocks.last().is_none_or(|(last, _)| *last != sequence) {
            self.blocks.push((sequence, block.clone()));
        }
        self.shares.add(sequence, event.record, follows);
        let Message { start, len, escaped } = event.message;
        let flags = if escaped { ESCAPED } else { 0 } | if event.is_cut { CUT } else { 0 };
        self.events.push(Event {
            time_ms: event.time_ms,
            block: self.blocks.len() as u32 - 1,
            record: event.record,
            start: event.line_start + start as u32,
            len: len as u32 | flags,
        });
        self.message_bytes += len;
        self.truncated += u64::from(event.is_cut);
    }

    fn finish(self, target: Arc<Target>) -> Ready<Batch> {
        let Self { mut events, truncated, message_bytes, blocks, shares, .. } = self;
        // Stable: events of the same millisecond stay in the order of arrival.
        events.sort_by_key(|event| event.time_ms);
        let number = BuildHasherDefault::<DefaultHasher>::default().hash_one(&target);
        Ready { shares, target: Some(number), payload: Batch { target, events, truncated, message_bytes, blocks } }
    }
}

#[cfg(test)]
mod tests;
