//! The journal: one ordered log of blocks for the process, read by every sink at its own pace.
//!
//! Sources append through a [`Writer`]; each sink has a [`Reader`]. A block gets the next sequence number and stays until every
//! sink it goes to has *released* it (its bytes are no longer needed from here) and *settled* it (each record delivered, or
//! counted as rejected or dropped). Sequence numbers below a sink's *watermark* are settled.
//!
//! ```text
//!            append                      ┌──────────── memory ────────────┐         next       ┌─ sink: cursor, watermark
//! source ─────────────► end of the log ──┤ hot blocks, shared             ├───────────────────►├─ sink
//!                                        └──┬──────────────────────────▲──┘                    └─ sink (lags)
//!                              overflow, always                        │ read again when it is not in memory any more
//!                                        ┌──▼──────────────────────────┴──┐
//!                                        │ segments on disk, same order   │
//!                                        └────────────────────────────────┘
//! ```
//!
//! In memory it is bounded by [`Config::memory_bytes_max`], on disk by [`Config::disk_bytes_max`]. [`Persist`] says which blocks are written:
//! none; those for which memory has no room, and what a shutdown could not deliver; or all, before they are acknowledged and before any sink reads them.
//! When there is no room at all, [`WhenFull`] decides: appending waits (and with it the socket), or the oldest blocks that only wait to be read
//! are dropped for those sinks that have not read them, counted as [`crate::telemetry::account::Reason::JournalFull`].
//!
//! What sinks have read and hold cannot be dropped. Each holds at most [`Reader::held_bytes_max`] and a block; with `drop_oldest`
//! a block is let in beyond the limit when such blocks alone use it up, so that dead sinks never stop the others.
//!
//! # After a restart
//!
//! The log is read from its directory ([`disk::recover`]). What was settled does not come back, not even single records of a block that was settled in
//! part; what was not comes again under the same numbers. The upper bits of a sequence number count the starts of the process
//! on that directory, so that no number is ever given twice. Positions of followed files ([`track`]) and notes of sinks are kept in the same log.
//!
//! # Cost
//!
//! One lock a block for the writer and one for each sink; nothing a record. On disk: the block's bytes once, 24 bytes a record for its index, a checksum;
//! one write call for many blocks, one sync for all that came during the one before. A block that nobody holds any more leaves
//! nothing behind in memory, however long an older one is held.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use crate::chunk::{Position, SourceId};
use crate::telemetry::account::Ledger;

pub mod block;
pub mod disk;
mod kept;
mod keeper;
mod reader;
mod room;
mod span;
mod state;
pub mod track;

pub use disk::directory::OpenError;
pub use keeper::{Closed, Keeper, Opened, Recovery, open_with};
pub use reader::{Reader, Settler};
pub use span::SpanSet;

use block::Block;
use room::Room;
use state::State;

/// What to do when the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Appending waits: backpressure reaches the sender's socket.
    #[default]
    Block,
    /// The oldest block that waits for sinks to read it, and for nothing else, is dropped for those sinks, and counted.
    DropOldest,
}

/// When blocks are written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Persist {
    /// Never. With a directory, only the positions of followed files are.
    #[default]
    Never,
    /// When memory is used up, and at a shutdown that could not deliver.
    Overflow,
    /// Each, before it is acknowledged.
    Always,
}

/// How much the journal keeps, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// When blocks are written to disk.
    pub persist: Persist,
    /// Where; of this process alone. Not none unless `persist` is `Never`.
    pub dir: Option<PathBuf>,
    /// Bytes of blocks kept in memory. A single larger block is let in when nothing else is there.
    pub memory_bytes_max: usize,
    /// Bytes of segments on disk.
    pub disk_bytes_max: u64,
    /// Bytes that must stay free on the file system.
    ///
    /// None: 64 MiB, or a tenth of a file system smaller than ten times that.
    pub disk_free_bytes_min: Option<u64>,
    /// A segment is finished at about this size.
    pub segment_bytes: u64,
    /// What happens when there is no room any more.
    pub when_full: WhenFull,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            persist: Persist::Never,
            dir: None,
            memory_bytes_max: 64 << 20,
            disk_bytes_max: 1 << 30,
            disk_free_bytes_min: None,
            segment_bytes: 16 << 20,
            when_full: WhenFull::Block,
        }
    }
}

/// A block's place in the order of the journal. Above [`EPOCH_BITS`] it counts the starts of the process on the journal's directory.
pub type Sequence = u64;

/// Bits of a sequence number that count the blocks of one run: a million a second for twelve days.
pub const EPOCH_BITS: u32 = 40;

/// A record's place in the order of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// Its block.
    pub sequence: Sequence,
    /// Its index in [`block::Block::index`].
    pub record: u32,
}

/// The records of one sink from `first` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: Place,
    /// One past the last.
    pub end: Place,
}

/// How far the journal is as durable as its mode promises; what acknowledgements wait for.
#[derive(Clone, Debug)]
pub struct Durable(watch::Receiver<Sequence>);

impl Durable {
    /// Whatever is appended is durable enough.
    pub fn at_once() -> Self {
        Self(watch::channel(Sequence::MAX).1)
    }

    /// Whether all blocks below `sequence` are durable.
    pub fn has_reached(&self, sequence: Sequence) -> bool {
        *self.0.borrow() >= sequence
    }

    /// Waits until all blocks below `sequence` are durable. Cancel safe. For ever, if the journal is gone before.
    pub async fn reach(&mut self, sequence: Sequence) {
        if self.0.wait_for(|durable| *durable >= sequence).await.is_err() && !self.has_reached(sequence) {
            std::future::pending::<()>().await;
        }
    }
}

impl From<watch::Receiver<Sequence>> for Durable {
    /// As far as the sender says.
    fn from(durable: watch::Receiver<Sequence>) -> Self {
        Self(durable)
    }
}

/// What the journal holds, for metrics and `/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of blocks in memory.
    pub memory_bytes: u64,
    /// Bytes of segments on disk.
    pub disk_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Blocks written to disk since the start.
    pub blocks_written: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Input and output errors since the start.
    pub io_errors: u64,
    /// Why blocks are kept in memory only, though they should be on disk; none if all is well.
    pub degraded: Option<String>,
    /// By sink: the time in milliseconds since 1970 UTC at which its oldest pending block came; none if nothing is pending.
    pub oldest_pending_ms: Vec<Option<i64>>,
}

/// Looks into the journal from outside.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

impl Monitor {
    /// What the journal holds now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().snapshot()
    }
}

struct Shared {
    state: Mutex<State>,
    /// Told when there is something to be written.
    work: Condvar,
    /// Told when a block comes or the last writer goes.
    readable: Notify,
    /// Told when bytes become free.
    writable: Notify,
    /// Blocks below are as durable as the mode promises.
    durable: watch::Sender<Sequence>,
    /// So many notes are.
    noted: watch::Sender<u64>,
}

impl Shared {
    fn new(state: State) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            readable: Notify::new(),
            writable: Notify::new(),
            durable: watch::channel(Sequence::MAX).0,
            noted: watch::channel(0).0,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; were it to, the numbers are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_work<'a>(&'a self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        if at_most == Duration::MAX {
            return self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.work.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Says how far the log is durable.
    fn publish(&self, state: &State) {
        let durable = if state.is_durable_at_once() { Sequence::MAX } else { state.visible_end() };
        self.durable.send_if_modified(|before| std::mem::replace(before, durable) != durable);
    }
}

/// Opens an empty journal in memory for the sinks whose ledgers are given, in order of their numbers; [`open_with`] opens one on disk.
pub fn open(config: Config, ledgers: Vec<Arc<Ledger>>) -> (Writer, Vec<Reader>) {
    assert!(ledgers.len() <= block::SINKS_MAX, "the configuration limits the number of sinks");
    attach(Shared::new(State::new(config, ledgers)))
}

fn attach(shared: Arc<Shared>) -> (Writer, Vec<Reader>) {
    let sinks = shared.lock().cursors.len();
    let readers = (0..sinks).map(|sink| Reader::new(shared.clone(), sink)).collect();
    (Writer { shared }, readers)
}

/// Appends blocks. The journal is closed when the last clone is dropped.
pub struct Writer {
    shared: Arc<Shared>,
}

impl Clone for Writer {
    fn clone(&self) -> Self {
        self.shared.lock().writers += 1;
        Self { shared: self.shared.clone() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.writers -= 1;
        if state.writers == 0 {
            drop(state);
            self.shared.readable.notify_waiters();
        }
    }
}

impl Writer {
    /// How far the journal is durable.
    pub fn durable(&self) -> Durable {
        Durable(self.shared.durable.subscribe())
    }

    /// Looks into the journal from outside. Does not keep it open.
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: self.shared.clone() }
    }

    /// The source stands at `position` now, and what it read before is appended already or leads to no block.
    pub fn pass(&self, source: SourceId, position: Position) {
        self.shared.lock().pass(source, position);
        self.shared.work.notify_one();
    }

    /// Puts a block at the end and returns its number; waits for room if so configured. A block without records for any
    /// sink takes no place.
    pub async fn append(&self, block: Block) -> Sequence {
        let cost_bytes = block.cost_bytes();
        let block = Arc::new(block);
        loop {
            let room = self.shared.writable.notified();
            tokio::pin!(room);
            // Registered before the look, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(sequence) = self.try_append(&block, cost_bytes) {
                return sequence;
            }
            room.await;
        }
    }

    fn try_append(&self, block: &Arc<Block>, cost_bytes: usize) -> Option<Sequence> {
        let mut state = self.shared.lock();
        if block.sinks == 0 {
            return Some(state.end);
        }
        let room = state.make_room(cost_bytes);
        if room == Room::Wait {
            drop(state);
            // Room may have to be made by writing.
            self.shared.work.notify_one();
            return None;
        }
        let sequence = state.push(block.clone(), cost_bytes, now_ms());
        let is_on_disk = state.disk.is_some();
        drop(state);
        if is_on_disk {
            self.shared.work.notify_one();
        }
        self.shared.readable.notify_waiters();
        Some(sequence)
    }
}

/// The time, in milliseconds since 1970 UTC; read once a block.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod tests;
