//! The loop of a sink that stores objects: reads blocks, fills the open objects, hands what is finished to a [`Destination`],
//! and settles what is stored. The S3 sink and the file sink are this loop with different destinations.
//!
//! A block is released as soon as its records are in their objects' buffers. It is settled when no object that began at it or
//! before it is unfinished: since objects overlap in time, that is later than the moment its last record is stored, and never
//! earlier, at the cost of a minimum instead of a table.
//!
//! # Memory
//!
//! Open objects (buffers and compressors) and what is on its way count against [`MEMORY_BYTES_MAX`]. When the open ones take
//! more than three quarters of it, the largest are finished early; when all of it is used, nothing more is read until
//! something is stored. The journal holds the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::enrich::ecs::Metadata;
use crate::journal::block::Block;
use crate::journal::{Sequence, Settler};
use crate::sink::template::Template;
use crate::sink::{Context, Error};
use crate::telemetry::account::Reason;

use super::objects::{Extent, Identity, ObjectId, Objects, Piece, Plan, Surroundings};

/// What the objects of one sink may take, in bytes, unless its parts are so large that six of them need more.
pub const MEMORY_BYTES_MAX: usize = 32 << 20;

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
    pub last: Option<Extent>,
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
    extent: Option<Extent>,
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
    /// One past the last sequence number read.
    read_to: Sequence,
    /// All below is settled.
    settled_to: Sequence,
    /// The first block of an object that stays pending.
    stuck: Option<Sequence>,
    ready: Vec<Piece>,
}

/// Runs the sink until the journal is read to its end and all is stored, or the shutdown is over.
pub async fn run<D: Destination>(plan: Plan, mut ctx: Context, destination: D) -> Result<(), Error> {
    wait_for_metadata(&[&plan.key], &mut ctx).await;
    let memory_bytes_max = MEMORY_BYTES_MAX.max(plan.part_bytes.saturating_mul(6));
    let mut delivery = Delivery {
        settler: ctx.reader.settler(),
        destination,
        ctx,
        objects: Objects::new(plan),
        budget: Arc::default(),
        memory_bytes_max,
        tasks: JoinSet::new(),
        uploads: HashMap::new(),
        read_to: 0,
        settled_to: 0,
        stuck: None,
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
                    self.objects.finish_all(&mut self.ready);
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
        self.objects.append(sequence, block, &around, &mut self.ready);
        self.read_to = sequence + 1;
        self.settler.release(sequence);
        while self.objects.cost_bytes() > self.memory_bytes_max / 4 * 3 {
            self.objects.finish_largest(&mut self.ready);
        }
    }

    fn is_over_budget(&self) -> bool {
        self.budget.held_bytes.load(Relaxed) + self.objects.cost_bytes() > self.memory_bytes_max
    }

    /// Hands the pieces that are ready to the tasks that store their objects.
    fn dispatch(&mut self) {
        for piece in self.ready.drain(..) {
            let (identity, bytes, last) = match piece {
                Piece::Part { object, bytes } => (object, Some(bytes), None),
                Piece::Last { object, bytes, extent } => (object, bytes, Some(extent)),
            };
            let upload = self.uploads.entry(identity.id).or_insert_with(|| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let (id, task_identity) = (identity.id, identity.clone());
                let destination = self.destination.clone();
                let store = async move { (id, destination.store(task_identity, Pieces { receiver }).await) };
                self.tasks.spawn(store);
                Upload { pieces: Some(sender), identity, extent: None }
            });
            upload.extent = last;
            let cost_bytes = PIECE_COST_BYTES + bytes.as_ref().map_or(0, Bytes::len);
            self.budget.held_bytes.fetch_add(cost_bytes, Relaxed);
            let held = Held { bytes, last, cost_bytes, budget: self.budget.clone() };
            // A task that has given up takes no more; its object is accounted for when the task is joined.
            let taken = upload.pieces.as_ref().map(|pieces| pieces.send(held));
            if last.is_some() || !matches!(taken, Some(Ok(()))) {
                upload.pieces = None;
            }
        }
    }

    /// Accounts for an object whose task has ended.
    fn stored(&mut self, (id, outcome): (ObjectId, Outcome)) {
        let Some(upload) = self.uploads.remove(&id) else { return };
        let extent = upload.extent.or_else(|| self.close(id));
        let Some(Extent { first, records, .. }) = extent else { return };
        let (sink, object) = (&*self.ctx.name, upload.identity.name());
        match outcome {
            Outcome::Delivered => {
                self.ctx.ledger.deliver(records);
                tracing::debug!(sink, object, records, "object stored");
            }
            Outcome::Lost(reason) => {
                self.ctx.ledger.lose(reason, records);
                tracing::error!(sink, object, records, reason = reason.label(), "object not stored");
            }
            Outcome::Pending => self.stuck = Some(self.stuck.map_or(first, |stuck| stuck.min(first))),
        }
        self.settle();
    }

    /// Closes an object that is still open though it cannot be stored, so that no more goes into it.
    fn close(&mut self, id: ObjectId) -> Option<Extent> {
        let mut last = Vec::new();
        self.objects.finish(id, &mut last);
        last.into_iter().find_map(|piece| match piece {
            Piece::Last { extent, .. } => Some(extent),
            Piece::Part { .. } => None,
        })
    }

    /// Settles all blocks below the first that an unfinished object holds records of.
    fn settle(&mut self) {
        let stored = self.uploads.values().map(|upload| upload.identity.first).min();
        let to = [stored, self.objects.first(), self.stuck].into_iter().flatten().fold(self.read_to, Sequence::min);
        for sequence in self.settled_to..to {
            self.settler.settle(sequence);
        }
        self.settled_to = self.settled_to.max(to);
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
