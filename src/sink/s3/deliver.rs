//! The loop of a sink that stores objects: reads blocks, fills the open objects, hands what is finished to a [`Destination`],
//! and settles what is stored. The S3 sink and the file sink are this loop with different destinations.
//!
//! # Settling, and what a restart finds
//!
//! A block is released as soon as its records are in their objects' buffers. What became of an object is counted, then its
//! records are settled together ([`Settler::settle_part`]), then the blocks of which no object holds a record any more; each
//! block costs a counter while it is open. Before an object can become visible, its destination notes which records it holds
//! ([`super::notes`]):
//!
//! ```text
//! killed        the journal gives back                             the object
//! before note   its records, grouped anew                          was never visible
//! after note    its records, into that object ([`returning`])      is looked for, and stored if it is not there
//! after settle  nothing                                            is there, or counted as lost
//! ```
//!
//! So with a journal that keeps every block and note, each record is in one visible object, once. Without one nothing comes
//! back, and nothing is noted. A destination notes an object only when its request is next, so few are planned at once.
//!
//! # Memory
//!
//! Open objects (buffers and compressors) and what is on its way count against [`MEMORY_BYTES_MAX`]. When the open ones take
//! more than three quarters of it, the largest are finished early; when all of it is used, nothing more is read until
//! something is stored. The journal holds the rest. Objects that fill up again after a restart cannot be finished early: while
//! nothing is on its way, reading goes on for their sake, whatever they take.
//!
//! [`returning`]: super::returning

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::enrich::ecs::Metadata;
use crate::journal::block::Block;
use crate::journal::{Sequence, Settler, Span};
use crate::sink::template::Template;
use crate::sink::{Context, Error};
use crate::telemetry::account::Reason;

use super::notes::{self, Notes};
use super::object::{Cut, Identity, ObjectId, Piece};
use super::objects::{Objects, Plan, Surroundings};

/// What the objects of one sink may take, in bytes, unless its parts are so large that three of them need more.
const MEMORY_BYTES_MAX: usize = 16 << 20;

/// What the objects of a sink with such parts may take, in bytes.
pub fn memory_bytes_max(part_bytes: usize) -> usize {
    MEMORY_BYTES_MAX.max(part_bytes.saturating_mul(3))
}

/// What a piece on its way costs beside its bytes: task, request, connection.
const PIECE_COST_BYTES: usize = 8 << 10;

/// How long names wait for task metadata that they need.
const METADATA_WAIT_MAX: Duration = Duration::from_secs(10);

/// At a shutdown: this long before its end, what is open is finished even if the journal is not at its end.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(5);

/// From then on, objects are finished at this age.
const SHUTDOWN_AGE_MAX: Duration = Duration::from_secs(1);

/// Where objects are stored. Its clones are one destination.
pub trait Destination: Clone + Send + 'static {
    /// Stores one object, and says what became of it. It may return before the last piece if it cannot be stored.
    fn store(self, object: Arc<Identity>, pieces: Pieces) -> impl Future<Output = Outcome> + Send;
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there, whole.
    Delivered,
    /// It never will be.
    Lost(Reason),
    /// The process ends before that is known.
    Pending,
}

/// The pieces of one object, as they come.
pub struct Pieces {
    receiver: mpsc::UnboundedReceiver<Held>,
}

/// A piece of an object that counts against the budget until it is dropped.
pub struct Held {
    /// The stored bytes; none if the object failed.
    pub bytes: Option<Bytes>,
    /// What the object holds, if this is its last piece.
    pub last: Option<Arc<Cut>>,
    cost_bytes: usize,
    budget: Arc<Budget>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held_bytes.fetch_sub(self.cost_bytes, Relaxed);
        self.budget.freed.notify_one();
    }
}

impl Pieces {
    /// The next piece; none if the process ends before the last.
    pub async fn next(&mut self) -> Option<Held> {
        self.receiver.recv().await
    }

    /// Lets all pieces go up to the last: the object is known to be stored. False if the process ends before.
    pub async fn drain(&mut self) -> bool {
        while let Some(piece) = self.next().await {
            if piece.last.is_some() {
                return true;
            }
        }
        false
    }
}

#[derive(Default)]
struct Budget {
    held_bytes: AtomicUsize,
    freed: Notify,
}

/// An object that is being stored.
struct Upload {
    /// Gone with the last piece.
    pieces: Option<mpsc::UnboundedSender<Held>>,
    identity: Arc<Identity>,
    cut: Option<Arc<Cut>>,
}

struct Delivery<D> {
    destination: D,
    ctx: Context,
    objects: Objects,
    settler: Settler,
    budget: Arc<Budget>,
    memory_bytes_max: usize,
    tasks: JoinSet<(ObjectId, Outcome)>,
    uploads: HashMap<ObjectId, Upload>,
    notes: Notes,
    /// Blocks that are not settled, and how many unsettled objects hold records of each.
    open_blocks: BTreeMap<Sequence, u32>,
    ready: Vec<Piece>,
}

/// Runs the sink until the journal is read to its end and all is stored, or the shutdown is over.
pub async fn run<D: Destination>(plan: Plan, mut ctx: Context, destination: D) -> Result<(), Error> {
    wait_for_metadata(&[&plan.key], &mut ctx).await;
    let memory_bytes_max = memory_bytes_max(plan.part_bytes);
    let settler = ctx.reader.settler();
    let planned = notes::planned(&ctx.reader);
    if !planned.is_empty() {
        tracing::info!(sink = &*ctx.name, objects = planned.len(), "objects planned before the start are looked for");
    }
    let mut delivery = Delivery {
        notes: Notes::new(settler.clone()),
        settler,
        destination,
        ctx,
        objects: Objects::new(plan, planned),
        budget: Arc::default(),
        memory_bytes_max,
        tasks: JoinSet::new(),
        uploads: HashMap::new(),
        open_blocks: BTreeMap::new(),
        ready: Vec::new(),
    };
    delivery.run().await
}

impl<D: Destination> Delivery<D> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut deadline = self.ctx.deadline.clone();
        let mut hurry_at = reserve(*deadline.borrow_and_update());
        let mut watching = true;
        let mut reading = true;
        while reading || !self.tasks.is_empty() {
            let over = self.is_over_budget();
            self.objects.press(self.ctx.reader.is_pressed());
            let aged = self.objects.next_aged();
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => self.stored(done?),
                changed = deadline.changed(), if watching => {
                    watching = changed.is_ok();
                    hurry_at = reserve(*deadline.borrow_and_update());
                }
                () = at(hurry_at), if hurry_at.is_some() => {
                    hurry_at = None;
                    self.objects.hurry(SHUTDOWN_AGE_MAX);
                }
                () = shutdown_over(self.ctx.deadline.clone()), if reading => {
                    // What is read now could not be stored any more; it stays pending.
                    reading = false;
                    for id in self.objects.finish_whole(&mut self.ready) {
                        self.uploads.get_mut(&id).map(|upload| upload.pieces.take());
                    }
                }
                () = at(aged), if aged.is_some() => self.objects.finish_aged(Instant::now(), &mut self.ready),
                () = self.budget.freed.notified(), if over => {}
                block = self.ctx.reader.next(), if reading && !over => match block {
                    Some((sequence, block)) => self.append(sequence, &block),
                    None => {
                        reading = false;
                        self.objects.finish_all(&mut self.ready);
                    }
                },
            }
            self.dispatch();
        }
        Ok(())
    }

    fn append(&mut self, sequence: Sequence, block: &Block) {
        let metadata = self.ctx.metadata.borrow().clone();
        let around = Surroundings {
            sink: self.ctx.id,
            partition_keys: &self.ctx.partition_keys,
            metadata: &metadata,
            hostname: &self.ctx.hostname,
            now: Instant::now(),
            arrival_ms: now_ms(),
        };
        let objects = self.objects.append(sequence, block, &around, &mut self.ready);
        if objects == 0 {
            self.settler.settle(sequence);
        } else {
            self.open_blocks.insert(sequence, objects);
            self.settler.release(sequence);
        }
        for object in self.objects.take_settled() {
            self.notes.forget(&object);
        }
        self.objects.finish_largest_above(self.memory_bytes_max / 4 * 3, &mut self.ready);
    }

    fn is_over_budget(&self) -> bool {
        let held_bytes = self.budget.held_bytes.load(Relaxed);
        held_bytes > 0 && held_bytes + self.objects.cost_bytes() > self.memory_bytes_max
    }

    /// Hands the pieces that are ready to the tasks that store their objects.
    fn dispatch(&mut self) {
        for piece in self.ready.drain(..) {
            let (identity, bytes, last) = match piece {
                Piece::Part { object, bytes } => (object, Some(bytes), None),
                Piece::Last { object, bytes, cut } => (object, bytes, Some(cut)),
            };
            let upload = self.uploads.entry(identity.id).or_insert_with(|| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let (id, task_identity) = (identity.id, identity.clone());
                let destination = self.destination.clone();
                let store = async move { (id, destination.store(task_identity, Pieces { receiver }).await) };
                self.tasks.spawn(store);
                Upload { pieces: Some(sender), identity, cut: None }
            });
            let is_last = last.is_some();
            upload.cut.clone_from(&last);
            let cost_bytes = PIECE_COST_BYTES + bytes.as_ref().map_or(0, Bytes::len);
            self.budget.held_bytes.fetch_add(cost_bytes, Relaxed);
            let held = Held { bytes, last, cost_bytes, budget: self.budget.clone() };
            // A task that has given up takes no more; its object is accounted for when the task is joined.
            let taken = upload.pieces.as_ref().map(|pieces| pieces.send(held));
            if is_last || !matches!(taken, Some(Ok(()))) {
                upload.pieces = None;
            }
        }
    }

    /// Accounts for an object whose task has ended.
    fn stored(&mut self, (id, outcome): (ObjectId, Outcome)) {
        let Some(upload) = self.uploads.remove(&id) else { return };
        let Some(cut) = upload.cut.or_else(|| self.close(id)) else { return };
        let (sink, object, records) = (&*self.ctx.name, upload.identity.name(), cut.records);
        match outcome {
            Outcome::Delivered => {
                self.ctx.ledger.deliver(records);
                tracing::debug!(sink, object, records, "object stored");
            }
            Outcome::Lost(reason) => {
                self.ctx.ledger.lose(reason, records);
                tracing::error!(sink, object, records, reason = reason.label(), "object not stored");
            }
            // Neither settled nor forgotten: it comes back after a restart, if the journal keeps it.
            Outcome::Pending => return,
        }
        self.settle(&cut);
        self.notes.forget(&upload.identity);
    }

    /// Closes an object that is still open though it cannot be stored, so that no more goes into it.
    fn close(&mut self, id: ObjectId) -> Option<Arc<Cut>> {
        let mut last = Vec::new();
        self.objects.finish(id, &mut last);
        last.into_iter().find_map(|piece| match piece {
            Piece::Last { cut, .. } => Some(cut),
            Piece::Part { .. } => None,
        })
    }

    /// Settles the records of an object, and the blocks that no other object holds records of.
    fn settle(&mut self, cut: &Cut) {
        let spans: Vec<Span> = cut.spans.iter().collect();
        self.settler.settle_part(&spans);
        let mut settled = Vec::new();
        // Each block counts an object once, though several of its spans may be in it; between the ends of a span all records
        // that were read are the object's.
        let mut from = 0;
        for span in &spans {
            let (first, last) = (span.first.sequence.max(from), span.end.sequence);
            if first > last {
                continue;
            }
            for (sequence, objects) in self.open_blocks.range_mut(first..=last) {
                *objects -= 1;
                if *objects == 0 {
                    settled.push(*sequence);
                }
            }
            from = last + 1;
        }
        for sequence in settled {
            self.open_blocks.remove(&sequence);
            self.settler.settle(sequence);
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Io { what: "a task that stores an object has died".to_owned(), source: error.into() }
    }
}

/// Waits for the task metadata that the templates name, though not for long and not in a shutdown.
pub async fn wait_for_metadata(templates: &[&Template], ctx: &mut Context) {
    let until = Instant::now() + METADATA_WAIT_MAX;
    let known = async {
        let ready = |metadata: &Arc<Metadata>| !templates.iter().any(|template| template.waits_for(metadata));
        // An error: nobody is left who could tell.
        drop(ctx.metadata.wait_for(ready).await);
    };
    tokio::select! {
        known = timeout_at(until, known) => if known.is_err() {
            tracing::warn!(sink = &*ctx.name, "task metadata is not known yet; names are made without it");
        },
        () = shutdown_begun(ctx.deadline.clone()) => {}
    }
}

async fn shutdown_begun(mut deadline: watch::Receiver<Option<Instant>>) {
    if deadline.wait_for(Option::is_some).await.is_err() {
        std::future::pending().await
    }
}

async fn shutdown_over(mut deadline: watch::Receiver<Option<Instant>>) {
    loop {
        let end = *deadline.borrow_and_update();
        tokio::select! {
            () = at(end) => return,
            changed = deadline.changed() => if changed.is_err() {
                return at(end).await;
            },
        }
    }
}

/// Returns at that time, or never if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// When to begin finishing what is open, for a shutdown that ends then.
fn reserve(deadline: Option<Instant>) -> Option<Instant> {
    let left = deadline?.saturating_duration_since(Instant::now());
    deadline?.checked_sub(SHUTDOWN_RESERVE.min(left / 2))
}

/// The time, in milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
