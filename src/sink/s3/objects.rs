//! Which record goes into which object: the open objects of a sink, cut by size, age and number.
//!
//! [`Objects`] is fed with blocks and the time and gives back [`Piece`]s to store; it does no I/O. Every record of a block that
//! is for this sink goes into exactly one object, that of its rendered key prefix, in the order of arrival. Records that
//! follow each other into the same object are compressed with one call, and a prefix is rendered once a block for each
//! partition and period of its dates, so that a record costs two comparisons beside its compression.
//!
//! A key is the prefix, rendered at the record's time, and the object's own name, or a template of its own ([`super::naming`]):
//! then records go into one object whose keys differ only in dates and what is an object's own. The first record makes
//! the name: no two objects share it, whatever was stored of its block before a restart. Objects whose cut was fixed before a restart take their records first, see [`super::returning`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::enrich::ecs::Metadata;
use crate::journal::block::Block;
use crate::journal::{Place, Sequence};
use crate::sink::template::{Scope, Style, Template};

use super::lines::Lines;
use super::naming::{Naming, whole_key};
use super::notes::Planned;
use super::object::{Identity, Object, ObjectId, Piece, Records};
use super::{Compression, returning};

/// Amazon S3: the longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Amazon S3: the number of parts of a multipart upload.
pub const PARTS_MAX: u32 = 10_000;

/// Kept free in a key for the further name that an object may need.
const RENAME_BYTES_MAX: usize = 24;

/// Bytes handed to the compressor between two looks at an object's size; bounds by how much an object exceeds its limits.
const RUN_BYTES_MAX: usize = 64 << 10;

/// The age of an object while the journal's disk is more than half full: what is open keeps its segments there. Not less, since
/// it may be another sink that lags, for hours.
pub const PRESSED_AGE_MAX: Duration = Duration::from_secs(10);

/// Which time the dates in a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// When it happened.
    Event,
    /// When it came.
    Arrival,
}

/// How objects are named and cut.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Key up to the object's own name, or the whole key, as `naming` has it.
    pub key: Template,
    /// What becomes of records.
    pub lines: Lines,
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

impl<'a> Surroundings<'a> {
    fn scope(&self, block: &'a Block, partition: u32, time_ns: i64) -> Scope<'a> {
        let Self { partition_keys, metadata, hostname, .. } = *self;
        Scope { partition: &block.partitions[partition as usize], partition_keys, metadata, hostname, time_ns }
    }
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

/// Where records go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Into the open object of that slot.
    Slot(usize),
    /// Into that object of before the restart.
    Returning(usize),
}

/// Records that follow each other in a block into the same object: bytes, and indexes of records.
struct Run {
    target: Target,
    start: usize,
    end: usize,
    first: u32,
    count: u32,
    /// See [`Records::ordinal`].
    ordinal: u64,
}

/// The open objects of a sink.
pub struct Objects {
    plan: Plan,
    period_ms: Option<i64>,
    slots: Vec<Slot>,
    by_prefix: HashMap<Arc<str>, usize>,
    returning: returning::Queue,
    is_pressed: bool,
    next: ObjectId,
    /// How many records of the sink were read.
    ordinal: u64,
    /// Whether an object had to make room for another; said once.
    is_crowded: bool,
    /// The ways found so far in the current block.
    ways: Vec<Way>,
    /// A rendered prefix.
    scratch: String,
    /// Lines put together.
    framed: Vec<u8>,
}

impl Objects {
    /// None open, but some may come back from before the restart.
    pub fn new(plan: Plan, planned: Vec<Planned>) -> Self {
        let returning = returning::Queue::new(planned);
        let is_whole = matches!(plan.naming, Naming::Whole { .. });
        let period_ms = plan.key.date_period_ms().filter(|_| !is_whole);
        Self {
            plan,
            period_ms,
            slots: Vec::new(),
            by_prefix: HashMap::new(),
            next: returning.len() as ObjectId,
            returning,
            is_pressed: false,
            ordinal: 0,
            is_crowded: false,
            ways: Vec::new(),
            scratch: String::new(),
            framed: Vec::new(),
        }
    }

    /// Appends the records of a block that are for this sink. Afterwards the block is not needed any more. Gives the number of
    /// objects that hold its records.
    pub fn append(
        &mut self,
        sequence: Sequence,
        block: &Block,
        around: &Surroundings<'_>,
        out: &mut Vec<Piece>,
    ) -> u32 {
        self.ways.clear();
        self.returning.finish_below(sequence, out);
        let bit = 1 << around.sink;
        let run_bytes_max = usize::try_from(self.plan.object_bytes_max).unwrap_or(RUN_BYTES_MAX).min(RUN_BYTES_MAX);
        let mut touched = 0;
        let mut way: Option<Way> = None;
        let mut run: Option<Run> = None;
        let mut start = 0;
        for (i, entry) in (0u32..).zip(&block.index) {
            let end = entry.end as usize;
            if entry.sinks & bit != 0 {
                let time_ms = if self.plan.dates == Dates::Event { entry.time_ms() } else { around.arrival_ms };
                let target = match (self.find_returning(sequence, i), way) {
                    (Some(target), _) => target,
                    (None, Some(way)) if way.leads(entry.partition, time_ms) => Target::Slot(way.slot),
                    (None, _) => {
                        // Looking for a slot may finish an object, and with it the one of the run.
                        touched += self.write(sequence, block, run.take(), around, out);
                        let found = self.find(block, entry.partition, time_ms, around, out);
                        way = Some(found);
                        Target::Slot(found.slot)
                    }
                };
                match &mut run {
                    Some(run) if run.target == target && run.end == start && end - run.start <= run_bytes_max => {
                        run.end = end;
                        run.count += 1;
                    }
                    _ => {
                        touched += self.write(sequence, block, run.take(), around, out);
                        run = Some(Run { target, start, end, first: i, count: 1, ordinal: self.ordinal });
                    }
                }
                self.ordinal += 1;
            }
            start = end;
        }
        touched += self.write(sequence, block, run, around, out);
        // Their last records were in this block.
        self.returning.finish_below(sequence + 1, out);
        self.sweep();
        touched
    }

    /// Finishes the objects that have reached their age.
    pub fn finish_aged(&mut self, now: Instant, out: &mut Vec<Piece>) {
        let age_max = self.age_max();
        self.finish_where(|object| now.saturating_duration_since(object.opened) >= age_max, out);
    }

    /// Finishes all: the journal has no more records.
    pub fn finish_all(&mut self, out: &mut Vec<Piece>) {
        self.returning.finish_below(Sequence::MAX, out);
        self.finish_where(|_| true, out);
    }

    /// Finishes all but those of before the restart that wait for records. They are let go, and stay planned; gives their
    /// numbers.
    pub fn finish_whole(&mut self, out: &mut Vec<Piece>) -> Vec<ObjectId> {
        self.finish_where(|_| true, out);
        self.returning.abandon()
    }

    /// Finishes that object, if it is open.
    pub fn finish(&mut self, id: ObjectId, out: &mut Vec<Piece>) {
        self.returning.finish(id, out);
        self.finish_where(|object| object.identity.id == id, out);
    }

    /// Finishes the object that costs most, of those that may be finished at any time, while these cost more than so much.
    pub fn finish_largest_above(&mut self, cost_bytes_max: usize, out: &mut Vec<Piece>) {
        while self.objects().map(Object::cost_bytes).sum::<usize>() > cost_bytes_max {
            let largest = self.objects().max_by_key(|object| object.cost_bytes()).map(|object| object.identity.id);
            let Some(id) = largest else { return };
            self.finish_where(|object| object.identity.id == id, out);
        }
    }

    /// Objects of before the restart that turned out to be settled; their notes are not needed any more.
    pub fn take_settled(&mut self) -> Vec<Arc<Identity>> {
        self.returning.take_settled()
    }

    /// Objects that are to be opened or open already are finished at this age, if it is less than before.
    pub fn hurry(&mut self, object_age_max: Duration) {
        self.plan.object_age_max = self.plan.object_age_max.min(object_age_max);
    }

    /// Whether records that wait in objects take room that the journal needs: they are finished at [`PRESSED_AGE_MAX`] then.
    pub fn press(&mut self, is_pressed: bool) {
        self.is_pressed = is_pressed;
    }

    fn age_max(&self) -> Duration {
        let pressed = if self.is_pressed { PRESSED_AGE_MAX } else { Duration::MAX };
        self.plan.object_age_max.min(pressed)
    }

    /// When the next object reaches its age.
    pub fn next_aged(&self) -> Option<Instant> {
        let opened = self.objects().map(|object| object.opened).min()?;
        // An age beyond the clock's range is never reached.
        opened.checked_add(self.age_max())
    }

    /// Open objects.
    pub fn len(&self) -> usize {
        self.objects().count() + self.returning.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they cost to keep, in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.objects().map(Object::cost_bytes).sum::<usize>() + self.returning.cost_bytes()
    }

    fn find_returning(&mut self, sequence: Sequence, record: u32) -> Option<Target> {
        if self.returning.is_empty() {
            return None;
        }
        self.returning.find(Place { sequence, record }).map(Target::Returning)
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
        let scope = around.scope(block, partition, time_ms.saturating_mul(1_000_000));
        self.scratch.clear();
        match self.plan.naming {
            Naming::Whole { .. } => self.plan.key.render_group(&scope, &mut self.scratch),
            _ => self.plan.key.render_into(&scope, Style::Path, &mut self.scratch),
        }
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

    /// Writes a run into its object. Gives 1 if it is the object's first of that block, else 0.
    fn write(
        &mut self,
        sequence: Sequence,
        block: &Block,
        run: Option<Run>,
        around: &Surroundings<'_>,
        out: &mut Vec<Piece>,
    ) -> u32 {
        let Some(run) = run else { return 0 };
        let mut framed = std::mem::take(&mut self.framed);
        let records = run.first as usize..(run.first + run.count) as usize;
        let records = Records {
            bytes: self.plan.lines.of(block, records, &mut framed),
            count: u64::from(run.count),
            span: Records::span(sequence, run.first, run.first + run.count),
            ordinal: run.ordinal,
        };
        let is_first = match run.target {
            Target::Slot(slot) => self.write_slot(slot, &records, block, around, out),
            Target::Returning(found) => self.returning.append(found, &records, &self.plan, around.now, out),
        };
        self.framed = framed;
        u32::from(is_first)
    }

    /// Writes records into the open object of a slot. Says whether they are its first of that block.
    fn write_slot(
        &mut self,
        slot: usize,
        records: &Records<'_>,
        block: &Block,
        around: &Surroundings<'_>,
        out: &mut Vec<Piece>,
    ) -> bool {
        if self.slots[slot].object.is_none() {
            let object = self.open(slot, records.span.first, block, around);
            self.slots[slot].object = Some(object);
        }
        let slot = &mut self.slots[slot];
        let Some(object) = &mut slot.object else { return false };
        let is_first = object.append(records);
        let is_full = object.stored_bytes() >= self.plan.object_bytes_max || object.parts + 2 > PARTS_MAX;
        if is_full || object.is_over() {
            out.extend(slot.object.take().map(Object::last_piece));
        } else if object.buffered_bytes() >= self.plan.part_bytes {
            out.extend(object.part_piece());
        }
        is_first
    }

    fn open(&mut self, slot: usize, first: Place, block: &Block, around: &Surroundings<'_>) -> Object {
        let (key, end) = match &self.plan.naming {
            Naming::Whole { seed, is_fixed } => {
                let entry = &block.index[first.record as usize];
                let scope = around.scope(block, entry.partition, entry.time_ns);
                let mut key = whole_key(&self.plan.key, seed, *is_fixed, &scope, first);
                key.truncate(key.floor_char_boundary(KEY_BYTES_MAX - RENAME_BYTES_MAX));
                // Fields of records are not for logs; the tag and the task are.
                let is_sayable = self.plan.key.record_fields().is_empty();
                let end = if is_sayable { key.rfind('/').map_or(0, |slash| slash + 1) } else { key.len() };
                (key, end)
            }
            naming => {
                let prefix = &self.slots[slot].prefix;
                let name = naming.name(first, around.arrival_ms, self.plan.compression);
                let room = KEY_BYTES_MAX.saturating_sub(name.len() + RENAME_BYTES_MAX);
                let end = prefix.floor_char_boundary(room);
                (format!("{}{name}", &prefix[..end]), end)
            }
        };
        let id = self.next;
        self.next += 1;
        let identity = Identity {
            id,
            key,
            name_at: end,
            first: first.sequence,
            compression: self.plan.compression,
            mark: fastrand::u64(..),
            taken: 0,
            is_returning: false,
        };
        Object::new(identity.into(), self.plan.compression_level, first.sequence, around.now)
    }
}

impl Way {
    fn leads(&self, partition: u32, time_ms: i64) -> bool {
        // The end of time has no period after it.
        let ended = time_ms >= self.to_ms && self.to_ms != i64::MAX;
        self.partition == partition && self.from_ms <= time_ms && !ended
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
