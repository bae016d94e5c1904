//! The journal on disk: a thread that writes what is in memory to segments, in order, and removes those that nobody needs.
//!
//! One round of the thread is one job: take under the lock what is to be written (up to [`JOB_BYTES_MAX`] of blocks, and all facts),
//! write it without the lock, sync it if the mode or a note asks for it, and enter under the lock that it is there. Appends that come meanwhile
//! are the next job, so that a busy journal syncs as often as the disk can and no more (*group commit*).
//!
//! A new segment begins with a snapshot of all facts, durable before anything older is removed; so a segment can go as soon as
//! none of its blocks is needed, whatever the state of its neighbours.
//!
//! # When something fails
//!
//! After an error, or when the file system has less than [`super::Config::disk_free_bytes_min`] left, nothing more is written to the current segment (a failed
//! sync says nothing about what is on disk). The journal is *degraded*: blocks stay in memory only, acknowledgements mean no
//! more than that, and it is said and shown in [`super::Snapshot`]. Every [`RETRY_AFTER`] a new segment is tried.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block::{Block, SinkSet};
use super::kept::{Kept, Share};
use super::state::State;
use super::{Config, Persist, Sequence, Shared};

pub mod directory;
pub mod frame;
pub mod recover;
pub mod segment;

use directory::Directory;
use frame::{Encoder, Fact};
use segment::{Names, Segment};

/// Bytes of blocks written between two looks at what else there is.
const JOB_BYTES_MAX: usize = 4 << 20;

/// How long a degraded journal waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Bytes that stay free unless configured otherwise.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// What the thread works with.
pub(super) struct Worker {
    /// The journal.
    pub shared: Arc<Shared>,
    /// Where it writes.
    pub directory: Directory,
    /// What the numbers in its segments stand for.
    pub names: Names,
    /// See [`super::Config::disk_free_bytes_min`].
    pub disk_free_bytes_min: Option<u64>,
}

/// What is to be written now.
struct Job {
    blocks: Vec<(Sequence, Arc<Block>, SinkSet, i64)>,
    /// Blocks below are then on disk, if anyone needs them.
    to: Sequence,
    facts: Vec<Fact>,
    /// The segment to write to; none to begin a new one.
    segment: Option<Segment>,
    is_sync: bool,
    /// Whether the free space is looked at; a few positions of files are written in any case.
    is_limited: bool,
    notes_put: u64,
    garbage: Vec<PathBuf>,
}

/// What came of it.
struct Written {
    /// As it is now.
    segment: Segment,
    is_new: bool,
    is_synced: bool,
}

/// Why nothing could be written.
enum Failure {
    Io(io::Error),
    /// Bytes left.
    NoSpace(u64),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Worker {
    /// Writes until the journal is closed and all is written, or cannot be.
    pub fn run(self) {
        let mut buffer = Vec::new();
        let (mut retry_at, mut is_last_try) = (None, false);
        while let Some(mut job) = self.next_job(&mut retry_at, &mut is_last_try) {
            let result = self.perform(&job, &mut buffer);
            if result.is_ok() || job.segment.is_some() {
                remove(&mut job.garbage);
            }
            if result.is_err() {
                retry_at = Some(Instant::now() + RETRY_AFTER);
                if let Some(segment) = &job.segment {
                    // What was begun and not finished; a reader would pass over it as well.
                    segment.file.set_len(segment.bytes).ok();
                }
                buffer = Vec::new();
            }
            self.enter(job, result);
        }
    }

    /// Waits for something to do; none when the journal is closed and nothing is left to be done.
    fn next_job(&self, retry_at: &mut Option<Instant>, is_last_try: &mut bool) -> Option<Job> {
        let mut state = self.shared.lock();
        loop {
            let is_paused = state.disk.as_ref().is_some_and(|disk| disk.degraded.is_some())
                && retry_at.is_some_and(|at| Instant::now() < at);
            if !is_paused && let Some(job) = take(&mut state) {
                state.is_busy = true;
                return Some(job);
            }
            if state.is_closing && (!is_paused || std::mem::replace(is_last_try, true)) {
                return None;
            }
            if state.is_closing {
                // What is left is worth one more try.
                *retry_at = None;
                continue;
            }
            state = if is_paused {
                self.shared.wait_for_work(state, RETRY_AFTER)
            } else {
                self.shared.wait_for_work(state, Duration::MAX)
            };
        }
    }

    fn perform(&self, job: &Job, buffer: &mut Vec<u8>) -> Result<Written, Failure> {
        if job.is_limited {
            let (free, total) = self.directory.space()?;
            let least = self.disk_free_bytes_min.unwrap_or_else(|| FREE_BYTES_MIN.min(total / 10));
            if free < least {
                return Err(Failure::NoSpace(free));
            }
        }
        let Some(segment) = &job.segment else {
            let segment = segment::create(&self.directory, job.first(), &self.names)?;
            let path = segment.path.clone();
            return self.write(job, segment, true, buffer).inspect_err(|_| {
                // Nobody knows of it, and there will be another with each retry.
                std::fs::remove_file(&path).ok();
            });
        };
        self.write(job, segment.clone(), false, buffer)
    }

    fn write(&self, job: &Job, mut segment: Segment, is_new: bool, buffer: &mut Vec<u8>) -> Result<Written, Failure> {
        let mut encoder = Encoder::new(&*segment.file, std::mem::take(buffer));
        if is_new {
            encoder.snapshot(&job.facts)?;
        }
        // A position is older than the blocks of this job, which tell their own: read again in order, the last one holds. A note
        // may be about these blocks, and must not be there without them.
        let is_position = |fact: &&Fact| matches!(fact, Fact::Position { .. });
        if !is_new {
            job.facts.iter().filter(is_position).try_for_each(|fact| encoder.fact(fact))?;
        }
        for (sequence, block, open, received_ms) in &job.blocks {
            encoder.block(*sequence, *open, *received_ms, block)?;
        }
        if !is_new {
            job.facts.iter().filter(|fact| !is_position(fact)).try_for_each(|fact| encoder.fact(fact))?;
        }
        let (bytes, rest) = encoder.finish()?;
        *buffer = rest;
        segment.bytes += bytes;
        let is_synced = job.is_sync || is_new;
        if is_synced {
            segment.file.sync_data()?;
        }
        Ok(Written { segment, is_new, is_synced })
    }

    /// Enters what was written, or that nothing can be, and wakes who waits for it.
    fn enter(&self, job: Job, result: Result<Written, Failure>) {
        let mut state = self.shared.lock();
        state.is_busy = false;
        match result {
            Ok(written) => {
                enter(&mut state, &job, written);
                self.shared.noted.send_replace(job.notes_put);
            }
            Err(failure) => {
                degrade(&mut state, &self.directory, failure);
                if let Some(disk) = &mut state.disk {
                    disk.garbage.extend(job.garbage);
                }
                self.shared.noted.send_replace(u64::MAX);
            }
        }
        self.shared.publish(&state);
        drop(state);
        self.shared.writable.notify_waiters();
        self.shared.readable.notify_waiters();
    }
}

/// Removes segments. Only once there is a newer one that says what they said of blocks, positions and notes: at a start they
/// are all that does.
fn remove(garbage: &mut Vec<PathBuf>) {
    for path in garbage.drain(..) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(file = %path.display(), %error, "journal: a segment that is not needed stays");
        }
    }
}

impl Job {
    /// The first block that a new segment may hold.
    fn first(&self) -> Sequence {
        self.blocks.first().map_or(self.to, |(sequence, ..)| *sequence)
    }
}

/// What is to be done, if anything is.
fn take(state: &mut State) -> Option<Job> {
    let end = state.end;
    let Config { persist, segment_bytes, disk_bytes_max, .. } = state.config;
    let disk = state.disk.as_ref()?;
    let written = disk.written;
    let target = match persist {
        Persist::Never => written,
        Persist::Overflow => disk.spill_to.max(written),
        Persist::Always => end,
    };
    let mut blocks = Vec::new();
    let (mut bytes, mut to, mut is_full) = (0, target, false);
    for (&sequence, slot) in state.slots.range(written..target) {
        is_full = persist == Persist::Overflow && disk.bytes + (bytes + slot.cost_bytes) as u64 > disk_bytes_max;
        if bytes >= JOB_BYTES_MAX || is_full {
            to = sequence;
            break;
        }
        if slot.open != 0 {
            bytes += slot.cost_bytes;
            blocks.push((sequence, slot.block.clone(), slot.open, slot.received_ms));
        }
    }
    if is_full && blocks.is_empty() {
        state.abandon_released();
    }
    let is_new = {
        let disk = state.disk.as_ref()?;
        !disk.is_writing || disk.segments.back().is_none_or(|kept| kept.segment.bytes >= segment_bytes)
    };
    let snapshot = is_new.then(|| state.facts());
    let disk = state.disk.as_mut()?;
    // A journal that begins, or begins again, opens a segment even if there is nothing to write: it makes this run's numbers known.
    let is_idle = to == written && disk.facts.is_empty() && disk.garbage.is_empty() && !disk.is_sync_wanted;
    if is_idle && disk.is_writing {
        return None;
    }
    // The snapshot says all of them.
    let facts = std::mem::take(&mut disk.facts);
    let segment = disk.segments.back().map(|kept| kept.segment.clone()).filter(|_| !is_new);
    let is_sync = std::mem::take(&mut disk.is_sync_wanted) || (persist == Persist::Always && !blocks.is_empty());
    let garbage = std::mem::take(&mut disk.garbage);
    Some(Job {
        blocks,
        to,
        facts: snapshot.unwrap_or(facts),
        segment,
        is_sync,
        is_limited: persist != Persist::Never,
        notes_put: disk.notes_put,
        garbage,
    })
}

fn enter(state: &mut State, job: &Job, written: Written) {
    let sinks = state.cursors.len();
    let Some(disk) = &mut state.disk else { return };
    disk.syncs += u64::from(written.is_synced);
    if disk.degraded.take().is_some() {
        tracing::info!("journal: writing to disk works again");
    }
    if written.is_new {
        disk.is_writing = true;
        disk.bytes += written.segment.bytes;
        let first = job.first();
        let shares = vec![Share::default(); sinks];
        let synced_bytes = written.segment.bytes;
        disk.segments.push_back(Kept {
            segment: written.segment,
            mapping: None,
            first,
            end: first,
            shares,
            synced_bytes,
        });
    } else if let Some(last) = disk.segments.back_mut() {
        disk.bytes += written.segment.bytes - last.segment.bytes;
        if written.is_synced {
            last.synced_bytes = written.segment.bytes;
        }
        last.segment = written.segment;
    }
    for (sequence, block, open, _) in &job.blocks {
        state.wrote(*sequence, *open, block);
    }
    state.written_to(job.to);
    if let Some(disk) = &mut state.disk {
        disk.collect();
    }
}

fn degrade(state: &mut State, directory: &Directory, failure: Failure) {
    let directory = directory.path().display();
    let (why, is_io) = match failure {
        Failure::Io(error) => (error.to_string(), true),
        Failure::NoSpace(free) => (format!("only {} MiB are free on its file system", free >> 20), false),
    };
    let is_known = state.disk.as_ref().is_some_and(|disk| disk.degraded.as_ref() == Some(&why));
    if !is_known {
        tracing::error!(%directory, "journal: cannot write to disk, records are kept in memory only: {why}");
    }
    if let Some(disk) = &mut state.disk {
        disk.io_errors += u64::from(is_io);
    }
    state.degrade(why);
}
