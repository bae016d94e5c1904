//! Which record goes into which object: the open objects of a sink, cut by size, age and number.
//!
//! [`Objects`] is fed with blocks and the time and gives back [`Piece`]s to store; it does no I/O. Every record of a block that
//! is for this sink goes into exactly one object, that of its rendered key prefix, in the order of arrival. Records that
//! follow each other into the same object are compressed with one call, and a prefix is rendered once a block for each
//! partition and period of its dates, so that a record costs two comparisons beside its compression.
//!
//! ```text
//! key  = prefix rendered at the record's time, values in path style
//!      + INSTANCE-SINK-FIRST[-N].ndjson[.gz|.zst]        FIRST: sequence number of the block that began it, 16 hex digits;
//!                                                        N: 1, 2, … for further objects of one prefix begun by one block
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::enrich::ecs::Metadata;
use crate::journal::Sequence;
use crate::journal::block::Block;
use crate::sink::template::{Scope, Style, Template, calendar, path_component};

use super::Compression;
use super::compress::Compressor;

/// Amazon S3: the longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Amazon S3: the number of parts of a multipart upload.
pub const PARTS_MAX: u32 = 10_000;

/// Kept free in a key for the further name that an object may need.
const RENAME_BYTES_MAX: usize = 8;

/// Bytes handed to the compressor between two looks at an object's size; bounds by how much an object exceeds its limits.
const RUN_BYTES_MAX: usize = 64 << 10;

/// Which time the dates in a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// When it happened.
    Event,
    /// When it came.
    Arrival,
}

/// How an object is called within its prefix.
#[derive(Clone, Debug, PartialEq)]
pub enum Naming {
    /// `STEM-FIRST[-N].ndjson[.gz|.zst]`; the same records make the same name.
    Sequence {
        /// Distinct for each sink of each process; a path component.
        stem: Box<str>,
    },
    /// `STREAM-1-YYYY-MM-DD-HH-MM-SS-UUID` with the time of arrival, as Firehose names its objects.
    Firehose {
        /// The stream; a path component.
        stream: Box<str>,
    },
}

impl Naming {
    /// Names made of the process's instance and the sink's name.
    pub fn sequence(instance: &str, sink: &str) -> Self {
        let mut stem = String::new();
        path_component(instance, &mut stem);
        stem.push('-');
        path_component(sink, &mut stem);
        Self::Sequence { stem: stem.into() }
    }
}

/// How objects are named and cut.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Key up to the object's own name.
    pub key: Template,
    /// What the dates in it are.
    pub dates: Dates,
    /// The object's own name.
    pub naming: Naming,
    /// See [`super::Config::compression`].
    pub compression: Compression,
    /// See [`super::Config::compression_level`].
    pub compression_level: Option<i32>,
    /// See [`super::Config::object_bytes_max`].
    pub object_bytes_max: u64,
    /// See [`super::Config::object_age_max`].
    pub object_age_max: Duration,
    /// See [`super::Config::open_objects_max`].
    pub open_objects_max: usize,
    /// Stored bytes that are given away before the object's end once there are so many.
    pub part_bytes: usize,
}

/// Numbers the objects of a sink.
pub type ObjectId = u64;

/// What an object is called.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub id: ObjectId,
    /// Its key.
    pub key: String,
    /// Where its own name begins in the key: what stands before is made from records and not for logs.
    pub name_at: usize,
    /// The block that began it.
    pub first: Sequence,
}

impl Identity {
    /// The object's own name, without the prefix.
    pub fn name(&self) -> &str {
        &self.key[self.name_at..]
    }

    /// A further key, for when something else stands under the object's own: `-rN` before the suffix. The 0th is its own.
    pub fn further_key(&self, nth: u32) -> String {
        if nth == 0 {
            return self.key.clone();
        }
        let stem = self.name().find(".ndjson").map_or(self.key.len(), |at| self.name_at + at);
        format!("{}-r{nth}{}", &self.key[..stem], &self.key[stem..])
    }
}

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block with a record in it.
    pub first: Sequence,
    /// The last block with a record in it.
    pub last: Sequence,
    /// Records.
    pub records: u64,
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
        extent: Extent,
    },
}

/// What the records of a block are appended with.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The sink's number.
    pub sink: usize,
    /// See [`Scope::partition_keys`].
    pub partition_keys: &'a [Box<str>],
    /// See [`Scope::metadata`].
    pub metadata: &'a Metadata,
    /// See [`Scope::hostname`].
    pub hostname: &'a str,
    /// The time, to tell an object's age.
    pub now: Instant,
    /// The time, in milliseconds since 1970 UTC.
    pub arrival_ms: i64,
}

struct Object {
    identity: Arc<Identity>,
    extent: Extent,
    opened: Instant,
    parts: u32,
    parts_bytes: u64,
    /// None once it failed.
    compressor: Option<Compressor>,
}

/// A prefix, and its open object. Without one only while a block is appended.
struct Slot {
    prefix: Arc<str>,
    object: Option<Object>,
}

/// Where the records of a partition go from one time to another.
#[derive(Clone, Copy)]
struct Way {
    partition: u32,
    from_ms: i64,
    to_ms: i64,
    slot: usize,
}

/// Records that follow each other in a block into the same object.
struct Run {
    slot: usize,
    start: usize,
    end: usize,
    records: u64,
}

/// The open objects of a sink.
pub struct Objects {
    plan: Plan,
    period_ms: Option<i64>,
    slots: Vec<Slot>,
    by_prefix: HashMap<Arc<str>, usize>,
    next: ObjectId,
    /// Whether an object had to make room for another; said once.
    is_crowded: bool,
    /// The ways found so far in the current block.
    ways: Vec<Way>,
    /// Prefixes of the objects begun by the current block, and how many.
    begun: HashMap<Arc<str>, u32>,
    /// A rendered prefix.
    scratch: String,
}

impl Objects {
    /// None open.
    pub fn new(plan: Plan) -> Self {
        let period_ms = plan.key.date_period_ms();
        Self {
            plan,
            period_ms,
            slots: Vec::new(),
            by_prefix: HashMap::new(),
            next: 0,
            is_crowded: false,
            ways: Vec::new(),
            begun: HashMap::new(),
            scratch: String::new(),
        }
    }

    /// Appends the records of a block that are for this sink. Afterwards the block is not needed any more.
    pub fn append(&mut self, sequence: Sequence, block: &Block, around: &Surroundings<'_>, out: &mut Vec<Piece>) {
        self.ways.clear();
        self.begun.clear();
        let bit = 1 << around.sink;
        let run_bytes_max = usize::try_from(self.plan.object_bytes_max).unwrap_or(RUN_BYTES_MAX).min(RUN_BYTES_MAX);
        let mut way: Option<Way> = None;
        let mut run: Option<Run> = None;
        let mut start = 0;
        for entry in &block.index {
            let end = entry.end as usize;
            if entry.sinks & bit != 0 {
                let time_ms = if self.plan.dates == Dates::Event { entry.time_ms } else { around.arrival_ms };
                let slot = match way.filter(|way| way.leads(entry.partition, time_ms)) {
                    Some(way) => way.slot,
                    None => {
                        // Looking for a slot may finish an object, and with it the one of the run.
                        self.write(sequence, block, run.take(), around, out);
                        let found = self.find(block, entry.partition, time_ms, around, out);
                        way = Some(found);
                        found.slot
                    }
                };
                match &mut run {
                    Some(run) if run.slot == slot && run.end == start && end - run.start <= run_bytes_max => {
                        run.end = end;
                        run.records += 1;
                    }
                    _ => {
                        self.write(sequence, block, run.take(), around, out);
                        run = Some(Run { slot, start, end, records: 1 });
                    }
                }
            }
            start = end;
        }
        self.write(sequence, block, run, around, out);
        self.sweep();
    }

    /// Finishes the objects that have reached their age.
    pub fn finish_aged(&mut self, now: Instant, out: &mut Vec<Piece>) {
        let age_max = self.plan.object_age_max;
        self.finish_where(|object| now.saturating_duration_since(object.opened) >= age_max, out);
    }

    /// Finishes all.
    pub fn finish_all(&mut self, out: &mut Vec<Piece>) {
        self.finish_where(|_| true, out);
    }

    /// Finishes that object, if it is open.
    pub fn finish(&mut self, id: ObjectId, out: &mut Vec<Piece>) {
        self.finish_where(|object| object.identity.id == id, out);
    }

    /// Finishes the object that costs most.
    pub fn finish_largest(&mut self, out: &mut Vec<Piece>) {
        let largest = self.objects().max_by_key(|object| object.cost_bytes()).map(|object| object.identity.id);
        if let Some(id) = largest {
            self.finish(id, out);
        }
    }

    /// Objects that are to be opened or open already are finished at this age, if it is less than before.
    pub fn hurry(&mut self, object_age_max: Duration) {
        self.plan.object_age_max = self.plan.object_age_max.min(object_age_max);
    }

    /// When the next object reaches its age.
    pub fn next_aged(&self) -> Option<Instant> {
        let opened = self.objects().map(|object| object.opened).min()?;
        // An age beyond the clock's range is never reached.
        opened.checked_add(self.plan.object_age_max)
    }

    /// The lowest sequence number that an open object holds records of.
    pub fn first(&self) -> Option<Sequence> {
        self.objects().map(|object| object.extent.first).min()
    }

    /// Open objects.
    pub fn len(&self) -> usize {
        self.objects().count()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they cost to keep, in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.objects().map(Object::cost_bytes).sum()
    }

    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.slots.iter().filter_map(|slot| slot.object.as_ref())
    }

    fn finish_where(&mut self, chosen: impl Fn(&Object) -> bool, out: &mut Vec<Piece>) {
        for slot in &mut self.slots {
            if let Some(object) = slot.object.take_if(|object| chosen(object)) {
                out.push(object.last_piece());
            }
        }
        self.sweep();
    }

    /// Forgets prefixes without an object.
    fn sweep(&mut self) {
        if self.slots.iter().all(|slot| slot.object.is_some()) {
            return;
        }
        self.slots.retain(|slot| slot.object.is_some());
        self.by_prefix = self.slots.iter().enumerate().map(|(i, slot)| (slot.prefix.clone(), i)).collect();
    }

    /// Where the records of that partition go at that time.
    fn find(
        &mut self,
        block: &Block,
        partition: u32,
        time_ms: i64,
        around: &Surroundings<'_>,
        out: &mut Vec<Piece>,
    ) -> Way {
        if let Some(way) = self.ways.iter().find(|way| way.leads(partition, time_ms)) {
            return *way;
        }
        let scope = Scope {
            partition: &block.partitions[partition as usize],
            partition_keys: around.partition_keys,
            metadata: around.metadata,
            hostname: around.hostname,
            time_ms,
        };
        self.scratch.clear();
        self.plan.key.render_into(&scope, Style::Path, &mut self.scratch);
        let slot = match self.by_prefix.get(self.scratch.as_str()) {
            Some(slot) => *slot,
            None => self.new_slot(out),
        };
        let (from_ms, to_ms) = match self.period_ms {
            Some(period) => {
                let from = time_ms.saturating_sub(time_ms.rem_euclid(period));
                (from, from.saturating_add(period))
            }
            None => (i64::MIN, i64::MAX),
        };
        let way = Way { partition, from_ms, to_ms, slot };
        self.ways.push(way);
        way
    }

    /// A slot for the prefix in `scratch`; makes room by finishing the oldest object.
    fn new_slot(&mut self, out: &mut Vec<Piece>) -> usize {
        let prefix: Arc<str> = self.scratch.as_str().into();
        let slot = if self.slots.len() < self.plan.open_objects_max.max(1) {
            self.slots.push(Slot { prefix: prefix.clone(), object: None });
            self.slots.len() - 1
        } else {
            // Those without an object come first: `None` is less than any time.
            let opened = |slot: &Slot| slot.object.as_ref().map(|object| (object.opened, object.identity.id));
            let oldest = (0..self.slots.len()).min_by_key(|i| opened(&self.slots[*i])).unwrap_or(0);
            let slot = &mut self.slots[oldest];
            if let Some(object) = slot.object.take() {
                if !std::mem::replace(&mut self.is_crowded, true) {
                    tracing::warn!(
                        object = object.identity.name(),
                        open_objects_max = self.plan.open_objects_max,
                        "more key prefixes at once than objects may be open: objects are finished early, and there are many \
                         small ones; raise `open_objects_max` or use fewer prefixes"
                    );
                }
                out.push(object.last_piece());
            }
            self.by_prefix.remove(&slot.prefix);
            slot.prefix = prefix.clone();
            // They may lead into the slot that has changed hands.
            self.ways.clear();
            oldest
        };
        self.by_prefix.insert(prefix, slot);
        slot
    }

    fn write(
        &mut self,
        sequence: Sequence,
        block: &Block,
        run: Option<Run>,
        around: &Surroundings<'_>,
        out: &mut Vec<Piece>,
    ) {
        let Some(run) = run else { return };
        if self.slots[run.slot].object.is_none() {
            let object = self.open(run.slot, sequence, around);
            self.slots[run.slot].object = Some(object);
        }
        let slot = &mut self.slots[run.slot];
        let Some(object) = &mut slot.object else { return };
        object.append(sequence, &block.bytes[run.start..run.end], run.records);
        let stored = object.parts_bytes + object.buffered_bytes() as u64;
        let full = stored >= self.plan.object_bytes_max || object.parts + 2 > PARTS_MAX || object.compressor.is_none();
        if full {
            out.extend(slot.object.take().map(Object::last_piece));
        } else if object.buffered_bytes() >= self.plan.part_bytes {
            out.extend(object.part_piece());
        }
    }

    fn open(&mut self, slot: usize, sequence: Sequence, around: &Surroundings<'_>) -> Object {
        let prefix = self.slots[slot].prefix.clone();
        let nth = self.begun.entry(prefix.clone()).and_modify(|n| *n += 1).or_insert(0);
        let name = self.plan.name(sequence, *nth, around.arrival_ms);
        let mut end = prefix.len().min(KEY_BYTES_MAX.saturating_sub(name.len() + RENAME_BYTES_MAX));
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        let key = format!("{}{name}", &prefix[..end]);
        let id = self.next;
        self.next += 1;
        let compressor = Compressor::new(self.plan.compression, self.plan.compression_level);
        Object {
            identity: Arc::new(Identity { id, key, name_at: end, first: sequence }),
            extent: Extent { first: sequence, last: sequence, records: 0 },
            opened: around.now,
            parts: 0,
            parts_bytes: 0,
            compressor: compressor.map_err(|error| tracing::error!(%error, "a compressor could not be made")).ok(),
        }
    }
}

impl Plan {
    fn name(&self, sequence: Sequence, nth: u32, arrival_ms: i64) -> String {
        let mut name = String::new();
        let written = match &self.naming {
            Naming::Sequence { stem } => {
                let nth = if nth == 0 { String::new() } else { format!("-{nth}") };
                write!(name, "{stem}-{sequence:016x}{nth}.ndjson{}", self.compression.suffix())
            }
            Naming::Firehose { stream } => {
                let date = calendar(arrival_ms);
                let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
                let (hour, minute, second) = date.time().as_hms();
                let random = fastrand::u128(..);
                write!(
                    name,
                    "{stream}-1-{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}-{}{}",
                    uuid(random),
                    self.compression.suffix(),
                )
            }
        };
        debug_assert!(written.is_ok(), "a string takes everything");
        name
    }
}

/// A random UUID (version 4).
fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Way {
    fn leads(&self, partition: u32, time_ms: i64) -> bool {
        // The end of time has no period after it.
        let ended = time_ms >= self.to_ms && self.to_ms != i64::MAX;
        self.partition == partition && self.from_ms <= time_ms && !ended
    }
}

impl Object {
    fn append(&mut self, sequence: Sequence, bytes: &[u8], records: u64) {
        self.extent.last = sequence;
        self.extent.records += records;
        if let Some(compressor) = &mut self.compressor
            && let Err(error) = compressor.write(bytes)
        {
            tracing::error!(object = self.identity.name(), %error, "the compressor failed, an object is lost");
            self.compressor = None;
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.compressor.as_ref().map_or(0, Compressor::buffered_bytes)
    }

    fn cost_bytes(&self) -> usize {
        size_of::<Self>() + self.identity.key.len() + self.compressor.as_ref().map_or(0, Compressor::cost_bytes)
    }

    fn part_piece(&mut self) -> Option<Piece> {
        let bytes: Bytes = self.compressor.as_mut()?.take().into();
        self.parts += 1;
        self.parts_bytes += bytes.len() as u64;
        Some(Piece::Part { object: self.identity.clone(), bytes })
    }

    fn last_piece(self) -> Piece {
        let bytes = self.compressor.and_then(|compressor| match compressor.finish() {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                tracing::error!(object = self.identity.name(), %error, "the compressor failed, an object is lost");
                None
            }
        });
        Piece::Last { object: self.identity, bytes, extent: self.extent }
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
