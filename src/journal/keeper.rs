//! Opening and closing a journal on disk.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::disk::Worker;
use super::disk::directory::{Directory, OpenError};
use super::disk::recover::{self, Recovered};
use super::disk::segment::Names;
use super::state::State;
use super::track::Tracker;
use super::{Config, Persist, Reader, Shared, Writer, attach};
use crate::chunk::Position;
use crate::telemetry::account::Ledger;

/// Ids of messages, oldest first.
pub type ChunkIds = Vec<Box<[u8]>>;

/// An open journal.
pub struct Opened {
    /// For sources.
    pub writer: Writer,
    /// For sinks, by number.
    pub readers: Vec<Reader>,
    /// Closes it.
    pub keeper: Keeper,
    /// Names the directory for good, together with sequence numbers that never repeat; none in memory.
    pub instance: Option<String>,
    /// By source: where followed files are to be read on, the one that moved last at the end.
    pub positions: Vec<Vec<Position>>,
    /// By source: messages that are known already.
    pub chunk_ids: Vec<ChunkIds>,
    /// What was found.
    pub recovery: Recovery,
}

/// What an earlier run had left, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Each once, however many sinks it goes to.
    pub records: u64,
    /// Of those: for none but sinks that are not configured any more. They are dropped.
    pub orphans: u64,
    /// Places that could not be read, with records that nobody knows.
    pub gaps: u64,
}

/// Keeps the journal's disk going; dropped, it ends that where it is.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What was left at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// All that is pending is on disk, and will be sent after the next start.
    Kept,
    /// What is pending is lost with the process, for that reason.
    Lost(String),
}

impl Keeper {
    /// Writes what the mode allows to be kept, and ends. Blocks the thread.
    pub fn close(mut self) -> Closed {
        {
            let mut state = self.shared.lock();
            let end = state.end;
            if let Some(disk) = state.disk.as_mut() {
                disk.spill_to = end;
            }
        }
        self.stop();
        let state = self.shared.lock();
        match &state.disk {
            None => Closed::Lost("the journal is in memory".to_owned()),
            Some(_) if state.config.persist == Persist::Never => Closed::Lost("the journal is in memory".to_owned()),
            Some(disk) => match &disk.degraded {
                Some(why) => Closed::Lost(why.clone()),
                None if disk.written < state.end => Closed::Lost("journal.disk_bytes_max is reached".to_owned()),
                None => Closed::Kept,
            },
        }
    }

    fn stop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("journal: the thread that writes to disk has panicked");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// Opens the journal that the configuration asks for. `names` are those of sinks, sources and partition keys; `follows` says of each source
/// whether it follows a file. Reads the whole directory: to be called off the asynchronous threads.
///
/// # Errors
/// The directory is not this process's to use. If the system refuses it, that is said, and the journal is in memory.
pub fn open_with(
    config: Config,
    ledgers: Vec<Arc<Ledger>>,
    names: Names,
    follows: &[usize],
) -> Result<Opened, OpenError> {
    let mut state = State::new(config.clone(), ledgers);
    let tracker = |&files_max: &usize| (files_max > 0).then(|| Tracker::new(files_max, Vec::new()));
    state.trackers = follows.iter().map(tracker).collect();
    let sources = names.sources.len();
    let found = match config.dir.as_deref().map(|dir| read(dir, &names)).transpose() {
        Ok(found) => found,
        Err(error @ OpenError::Refused { .. }) => return Err(error),
        Err(error @ OpenError::Io { .. }) => {
            tracing::error!("journal: {error}; records are kept in memory only");
            state.refused = Some(error.to_string());
            None
        }
    };
    let Some((directory, mut recovered)) = found else {
        let shared = Shared::new(state);
        let keeper = Keeper { shared: shared.clone(), thread: None };
        let (writer, readers) = attach(shared);
        return Ok(Opened {
            writer,
            readers,
            keeper,
            instance: None,
            positions: vec![Vec::new(); sources],
            chunk_ids: vec![Vec::new(); sources],
            recovery: Recovery::default(),
        });
    };
    let recovery =
        Recovery { records: recovered.records, orphans: recovered.orphans, gaps: recovered.gaps.len() as u64 };
    let mut positions: Vec<Vec<Position>> =
        names.sources.iter().map(|source| recovered.positions.remove(source).unwrap_or_default()).collect();
    let mut ids = |source: &String| recovered.chunk_ids.remove(source).map(Vec::from).unwrap_or_default();
    let chunk_ids = names.sources.iter().map(&mut ids).collect();
    for ((tracker, &files_max), positions) in state.trackers.iter_mut().zip(follows).zip(&mut positions) {
        positions.drain(..positions.len().saturating_sub(files_max.max(1)));
        if let Some(tracker) = tracker {
            tracker.safe.clone_from(positions);
        }
    }
    let instance = directory.instance().to_owned();
    state.restore(recovered);
    let shared = Shared::new(state);
    shared.publish(&shared.lock());
    let worker = Worker { shared: shared.clone(), directory, names, disk_free_bytes_min: config.disk_free_bytes_min };
    let thread = std::thread::Builder::new().name("journal".into()).spawn(move || worker.run());
    let thread = thread.inspect_err(|error| tracing::error!(%error, "journal: no thread")).ok();
    let keeper = Keeper { shared: shared.clone(), thread };
    let (writer, readers) = attach(shared);
    Ok(Opened { writer, readers, keeper, instance: Some(instance), positions, chunk_ids, recovery })
}

fn read(dir: &std::path::Path, names: &Names) -> Result<(Directory, Recovered), OpenError> {
    let directory = Directory::open(dir)?;
    let recovered = recover::recover(&directory, names)?;
    Ok((directory, recovered))
}
