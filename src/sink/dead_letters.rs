//! Dead letters: what sinks reject or give up is kept in files that `meshlens run --input` and `meshlens parse` read again.
//!
//! ```text
//! sink ─ Letters: encode, as the blocks are there ─► queue, bounded in bytes ─► thread: append, rotate, sync
//! ```
//!
//! Files are `DIR/SINK-REASON-TIME-INSTANCE-NUMBER.ndjson`, one for each sink and reason at a time, mode 0600, of at most
//! [`FILE_BYTES_MAX`] and a letter; the lines are those of [`crate::letter`]: redacted and enriched, as every sink gets them. Files
//! of earlier starts are never written to again, and none is ever removed: that is for whoever has read them.
//!
//! Nothing here makes delivery wait. What the queue, the limit of the directory or the disk does not take is counted as *not kept*,
//! and said. In the account a dead letter stays what it is, rejected or dropped.
//!
//! A letter is on its way to the file when its record is settled: kill -9 at that moment loses letters that are not written
//! yet, at most [`QUEUE_BYTES_MAX`] of them. Files are synced within [`SYNC_EVERY`], and at the end.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::journal::block::Block;
use crate::letter::{self, Head};
use crate::telemetry::account::Reason;
use crate::timestamp::write_rfc3339_ms;

/// Letters that are encoded and not yet written. A refused request of the largest kind is a third of it.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;

/// A file is finished at about this size.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// What is handed to the thread at once.
const PARCEL_BYTES: usize = 256 << 10;

/// How long written letters may wait to be synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Trouble is said at once, then this often.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// A full directory is looked at again after this time: somebody may have taken files away.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The ending of our files' names.
const EXTENSION: &str = "ndjson";

/// Where dead letters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory; made if missing.
    pub dir: PathBuf,
    /// Bytes of all files in it; no more is written then.
    pub bytes_max: u64,
}

impl Config {
    /// [`Self::bytes_max`] where nothing is said.
    pub const BYTES_MAX_DEFAULT: u64 = 256 << 20;
}

/// How many letters there were since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Written to a file.
    pub kept: u64,
    /// Lost: no room in the queue or the directory, or an error of the disk.
    pub not_kept: u64,
    /// Encoded, and not yet one or the other.
    pub queued: u64,
}

/// Takes the dead letters of one sink. Cheap to clone; the default takes none and counts nothing.
#[derive(Clone, Default)]
pub struct DeadLetters {
    sink: Arc<str>,
    desk: Option<Arc<Desk>>,
}

/// What the sinks and the writing thread share.
struct Desk {
    parcels: Mutex<Option<mpsc::Sender<Parcel>>>,
    queued_bytes: AtomicUsize,
    queued: AtomicU64,
    kept: AtomicU64,
    not_kept: AtomicU64,
    /// Until the thread has ended.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Letters of one sink and reason.
struct Parcel {
    sink: Arc<str>,
    reason: Reason,
    bytes: Vec<u8>,
    letters: u64,
}

impl DeadLetters {
    /// Starts the thread that writes; nothing is opened before the first letter.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: Config, instance: &str) -> io::Result<Self> {
        let (parcels, inbox) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let desk = Arc::new(Desk {
            parcels: Mutex::new(Some(parcels)),
            queued_bytes: AtomicUsize::new(0),
            queued: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            not_kept: AtomicU64::new(0),
            ended: Mutex::new(Some(ended)),
        });
        let mut files = Files::new(config, instance);
        let shared = desk.clone();
        thread::Builder::new().name("dead-letters".to_owned()).spawn(move || {
            files.run(&inbox, &shared);
            // Whoever waits for the end is told by this.
            drop::<oneshot::Sender<()>>(end);
        })?;
        Ok(Self { sink: "".into(), desk: Some(desk) })
    }

    /// The same for a sink of that name.
    pub fn of_sink(&self, name: &Arc<str>) -> Self {
        Self { sink: name.clone(), desk: self.desk.clone() }
    }

    /// Takes letters for one reason; they are on their way when the result is dropped, or before.
    pub fn letters(&self, reason: Reason) -> Letters<'_> {
        Letters { to: self, reason, bytes: Vec::new(), letters: 0 }
    }

    /// How many there were; none if none are taken.
    pub fn tally(&self) -> Option<Tally> {
        let desk = self.desk.as_ref()?;
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        Some(Tally { kept: load(&desk.kept), not_kept: load(&desk.not_kept), queued: load(&desk.queued) })
    }

    /// Takes no more letters and waits until all are written and synced, `limit` at most.
    pub async fn finish(&self, limit: Duration) {
        let Some(desk) = &self.desk else { return };
        drop(lock(&desk.parcels).take());
        let Some(ended) = lock(&desk.ended).take() else { return };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::error!(
                letters = desk.queued.load(Relaxed),
                "dead letters are not all written: the disk does not answer"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Letters on their way from one sink, for one reason.
pub struct Letters<'a> {
    to: &'a DeadLetters,
    reason: Reason,
    bytes: Vec<u8>,
    letters: u64,
}

impl Letters<'_> {
    /// Record `record` of that block.
    pub fn add(&mut self, block: &Block, record: usize) {
        if self.to.desk.is_none() {
            return;
        }
        let entry = &block.index[record];
        let tag = &block.partition(record).tag;
        let head = Head { sink: &self.to.sink, reason: self.reason.label(), time_ns: entry.time_ns, tag };
        letter::write(&head, block.line(record), &mut self.bytes);
        self.letters += 1;
        if self.bytes.len() >= PARCEL_BYTES {
            self.send();
        }
    }

    fn send(&mut self) {
        let Some(desk) = &self.to.desk else { return };
        let parcel = Parcel {
            sink: self.to.sink.clone(),
            reason: self.reason,
            bytes: std::mem::take(&mut self.bytes),
            letters: std::mem::take(&mut self.letters),
        };
        desk.take(parcel);
    }
}

impl Drop for Letters<'_> {
    fn drop(&mut self) {
        if self.letters > 0 {
            self.send();
        }
    }
}

impl Desk {
    fn take(&self, parcel: Parcel) {
        let (bytes, letters) = (parcel.bytes.len(), parcel.letters);
        let queued = self.queued_bytes.fetch_add(bytes, Relaxed);
        self.queued.fetch_add(letters, Relaxed);
        let has_room = queued == 0 || queued + bytes <= QUEUE_BYTES_MAX;
        let is_sent = has_room && lock(&self.parcels).as_ref().is_some_and(|parcels| parcels.send(parcel).is_ok());
        if !is_sent {
            self.close(bytes, letters, false);
        }
    }

    /// Counts what became of a parcel.
    fn close(&self, bytes: usize, letters: u64, is_kept: bool) {
        let counter = if is_kept { &self.kept } else { &self.not_kept };
        counter.fetch_add(letters, Relaxed);
        self.queued.fetch_sub(letters, Relaxed);
        self.queued_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// Why letters cannot be kept.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the files in {} have reached dead_letters.bytes_max", .0.display())]
    Full(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The files, written by one thread.
struct Files {
    config: Config,
    instance: String,
    file_bytes_max: u64,
    open: HashMap<(Arc<str>, Reason), Open>,
    /// Files made since the start; part of their names.
    made: u64,
    /// Bytes of all files in the directory, and when they were counted.
    bytes: Option<(u64, Instant)>,
    reported: Option<Instant>,
    /// Letters lost since that was last said.
    unsaid: u64,
}

struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
    is_dirty: bool,
}

impl Files {
    fn new(config: Config, instance: &str) -> Self {
        Self {
            // Several files at least, so that some can be taken away while others are written.
            file_bytes_max: FILE_BYTES_MAX.min(config.bytes_max / 4),
            config,
            instance: instance.to_owned(),
            open: HashMap::new(),
            made: 0,
            bytes: None,
            reported: None,
            unsaid: 0,
        }
    }

    /// Writes what comes until nobody sends any more.
    fn run(&mut self, inbox: &mpsc::Receiver<Parcel>, desk: &Desk) {
        let mut synced = Instant::now();
        loop {
            let parcel = match inbox.recv_timeout(SYNC_EVERY) {
                Ok(parcel) => Some(parcel),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Some(parcel) = parcel {
                let kept = self.keep(&parcel);
                desk.close(parcel.bytes.len(), parcel.letters, kept.is_ok());
                if let Err(trouble) = kept {
                    self.report(&trouble, parcel.letters);
                }
            }
            if synced.elapsed() >= SYNC_EVERY {
                self.sync();
                synced = Instant::now();
            }
        }
        self.sync();
    }

    fn keep(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        let bytes = parcel.bytes.len() as u64;
        self.make_room(bytes)?;
        let key = (parcel.sink.clone(), parcel.reason);
        let mut open = match self.open.remove(&key) {
            Some(open) if open.bytes + bytes <= self.file_bytes_max => open,
            full => {
                if let Some(mut full) = full {
                    full.sync();
                }
                self.make(&key.0, parcel.reason)?
            }
        };
        if let Err(source) = open.append(&parcel.bytes) {
            // The next letters get a file of their own: what this one ends with is not known.
            return Err(Trouble::Io { path: open.path, source });
        }
        if let Some((all, _)) = &mut self.bytes {
            *all += bytes;
        }
        self.open.insert(key, open);
        Ok(())
    }

    /// Whether there is room for so many bytes more, after a look into the directory if there seems to be none.
    fn make_room(&mut self, bytes: u64) -> Result<(), Trouble> {
        let is_full = |all: u64| all + bytes > self.config.bytes_max;
        let looked = match self.bytes {
            Some((all, _)) if !is_full(all) => return Ok(()),
            Some((_, looked)) if looked.elapsed() < LOOK_EVERY => return Err(Trouble::Full(self.config.dir.clone())),
            _ => bytes_in(&self.config.dir).map_err(|source| self.trouble(source))?,
        };
        self.bytes = Some((looked, Instant::now()));
        if is_full(looked) { Err(Trouble::Full(self.config.dir.clone())) } else { Ok(()) }
    }

    fn trouble(&self, source: io::Error) -> Trouble {
        Trouble::Io { path: self.config.dir.clone(), source }
    }

    fn make(&mut self, sink: &str, reason: Reason) -> Result<Open, Trouble> {
        let dir = &self.config.dir;
        self.made += 1;
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut time = Vec::new();
        write_rfc3339_ms(i64::try_from(now_ns).unwrap_or(i64::MAX), &mut time);
        // `20261122T023632`: no colons, which some tools take for a host's name.
        let time: String =
            time.iter().take(19).filter(|byte| !b"-:".contains(byte)).map(|byte| char::from(*byte)).collect();
        let name = format!("{sink}-{}-{time}-{}-{}.{EXTENSION}", reason.label(), self.instance, self.made);
        let path = dir.join(name);
        let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(|source| Trouble::Io { path: path.clone(), source })?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| self.trouble(source))?;
        tracing::warn!(sink, reason = reason.label(), path = %path.display(), "dead letters are kept in a new file");
        Ok(Open { path, file, bytes: 0, is_dirty: false })
    }

    fn sync(&mut self) {
        self.open.retain(|_, open| open.sync());
    }

    fn report(&mut self, trouble: &Trouble, letters: u64) {
        self.unsaid += letters;
        if self.reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            tracing::error!(letters = std::mem::take(&mut self.unsaid), "dead letters are not kept: {trouble}");
        }
    }
}

impl Open {
    /// Appends whole letters, or as good as nothing: what a failed write left is cut off again.
    fn append(&mut self, letters: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(letters) {
            // If this fails too, a line stays that is cut off, and is no letter.
            drop(self.file.set_len(self.bytes));
            return Err(error);
        }
        self.bytes += letters.len() as u64;
        self.is_dirty = true;
        Ok(())
    }

    /// False if the file is not to be used any more.
    fn sync(&mut self) -> bool {
        if !std::mem::take(&mut self.is_dirty) {
            return true;
        }
        let Err(error) = self.file.sync_data() else { return true };
        tracing::error!(path = %self.path.display(), %error, "dead letters may not be on the disk: a sync failed");
        false
    }
}

/// Bytes of our files in the directory, which is made if it is not there.
fn bytes_in(dir: &Path) -> io::Result<u64> {
    fs::create_dir_all(dir)?;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
            // It may be gone by now.
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
