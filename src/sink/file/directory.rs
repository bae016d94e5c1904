//! A directory as the place where objects are stored: each grows beside its place and appears there when it is whole.
//!
//! With a journal that survives restarts, the growing file tells whether an object is published: it is synced, and its entry in
//! the directory too, before the object is noted as planned; after that nothing but the renaming takes it away. So an object that
//! comes back after a restart is stored already if its growing file is gone and a file of its name is there. Were the file of
//! that name taken away within that moment, the object is stored a second time: rather that than not at all.
//!
//! Growing files that an earlier process left are removed at the start, except those of planned objects, which grow anew in
//! place. They are known from notes: no directory is searched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::sink::aws::{Failure, Kind};
use crate::sink::retry::{End, Retrier};
use crate::sink::s3::deliver::{Destination, Outcome, Pieces};
use crate::sink::s3::notes::{LeftUpload, Notes, Planned};
use crate::sink::s3::object::Identity;
use crate::telemetry::account::Reason;

use super::place;

/// How many names an object may try because there are files of that name.
const RENAMES_MAX: u32 = 1000;

/// A directory.
#[derive(Clone)]
pub struct Directory {
    root: Arc<Path>,
    retrier: Retrier,
    notes: Notes,
}

/// Why an object was not stored, and whether its growing file is still of use.
struct Unstored {
    end: End,
    is_planned: bool,
}

impl Directory {
    /// The directory at that path. Nothing is made yet.
    pub fn new(root: PathBuf, retrier: Retrier, notes: Notes) -> Self {
        Self { root: root.into(), retrier, notes }
    }

    /// Removes the growing files that an earlier process left and no planned object needs.
    pub async fn clean(&self, left: Vec<LeftUpload>, planned: &[Planned]) {
        for upload in left {
            if planned.iter().any(|planned| planned.identity.key == upload.key) {
                continue;
            }
            let path = growing(&self.root, &upload.key);
            match spawn_blocking(move || fs::remove_file(path)).await.map_err(io::Error::from).flatten() {
                Ok(()) => self.notes.end_upload(&upload.id),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.notes.end_upload(&upload.id),
                Err(error) => tracing::warn!(%error, "a growing file of an earlier process could not be removed"),
            }
        }
    }

    async fn store_pieces(&self, object: &Arc<Identity>, pieces: &mut Pieces) -> Result<(), Unstored> {
        let mut is_planned = object.is_returning;
        let stored = self.store_planning(object, pieces, &mut is_planned).await;
        stored.map_err(|end| Unstored { end, is_planned })
    }

    /// Stores an object; sets `is_planned` when it is noted as such.
    async fn store_planning(
        &self,
        object: &Arc<Identity>,
        pieces: &mut Pieces,
        is_planned: &mut bool,
    ) -> Result<(), End> {
        let growing = growing(&self.root, &object.key);
        if object.is_returning && self.is_published(object).await {
            return if pieces.drain().await { Ok(()) } else { Err(End::Shutdown) };
        }
        self.noted(self.notes.begin_upload(&object.key, &object.key)).await?;
        let mut written = 0;
        let cut = loop {
            let piece = pieces.next().await.ok_or(End::Shutdown)?;
            let Some(bytes) = piece.bytes.clone() else { return Err(End::Exhausted) };
            let length = bytes.len() as u64;
            let path = growing.clone();
            self.attempt(move || write_at(&path, written, &bytes)).await?;
            written += length;
            if let Some(cut) = &piece.last {
                break cut.clone();
            }
        };
        let path = growing.clone();
        self.attempt(move || sync(&path, written)).await?;
        self.noted(self.notes.fix(object, &cut, 0)).await?;
        *is_planned = true;
        let (root, object) = (self.root.clone(), object.clone());
        let publish = move || publish(&root, &growing, written, |nth| place(&root, &object.further_key(nth)));
        self.attempt(publish).await
    }

    /// Whether a planned object has got its name already.
    async fn is_published(&self, object: &Arc<Identity>) -> bool {
        let (root, object) = (self.root.clone(), object.clone());
        let look = move || {
            let grows = growing(&root, &object.key).try_exists()?;
            Ok::<bool, io::Error>(!grows && place(&root, &object.key).try_exists()?)
        };
        // Rather twice than not at all.
        spawn_blocking(look).await.map_err(io::Error::from).flatten().unwrap_or(false)
    }

    /// Waits for a note, though not beyond the end of a shutdown.
    async fn noted(&self, note: impl Future<Output = ()>) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.retrier.shutdown_over() => Err(End::Shutdown),
            () = note => Ok(()),
        }
    }

    /// Does it, again and again until it works.
    async fn attempt(&self, work: impl Fn() -> io::Result<()> + Clone + Send + 'static) -> Result<(), End> {
        attempt(&self.retrier, work).await
    }
}

impl Destination for Directory {
    async fn store(self, object: Arc<Identity>, mut pieces: Pieces) -> Outcome {
        let Err(Unstored { end, is_planned }) = self.store_pieces(&object, &mut pieces).await else {
            self.notes.end_upload(&object.key);
            return Outcome::Delivered;
        };
        // The growing file of a planned object says that it is not published; after a restart it grows anew.
        if end != End::Shutdown || !is_planned {
            let growing = growing(&self.root, &object.key);
            // What is not whole is of no use to anybody. If it cannot be removed now, it is after the next start: the note of it
            // stays, since what was still being written may make it once more.
            drop(spawn_blocking(move || fs::remove_file(growing)).await);
        }
        match end {
            End::Refused => Outcome::Lost(Reason::Refused),
            End::Exhausted => Outcome::Lost(Reason::RetriesExhausted),
            End::Shutdown => Outcome::Pending,
        }
    }
}

/// Does blocking work with retries: all of the system's errors may pass, except that the file is gone.
pub(super) async fn attempt(
    retrier: &Retrier,
    work: impl Fn() -> io::Result<()> + Clone + Send + 'static,
) -> Result<(), End> {
    let mut turn = retrier.turn().await;
    loop {
        let work = work.clone();
        let done = async { spawn_blocking(work).await.map_err(io::Error::from).flatten().map_err(failure) };
        match turn.attempt(done).await {
            Ok(()) => return Ok(()),
            Err(failure) => turn.pause(&failure).await?,
        }
    }
}

fn failure(error: io::Error) -> Failure {
    let kind = if error.get_ref().is_some_and(|inner| inner.is::<Shrunk>()) { Kind::Refused } else { Kind::Transient };
    Failure::new(kind, error.to_string())
}

/// Somebody else removed or cut the growing file: what was written is lost.
#[derive(Debug, thiserror::Error)]
#[error("a file that was being written has been removed or cut")]
struct Shrunk;

/// Where an object grows.
fn growing(root: &Path, key: &str) -> PathBuf {
    let path = place(root, key);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

/// Writes bytes at that offset; whatever a failed attempt left behind it is cut off first.
pub(super) fn write_at(path: &Path, offset: u64, bytes: &Bytes) -> io::Result<()> {
    if offset == 0
        && let Some(directory) = path.parent()
    {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().write(true).create(offset == 0).truncate(false).open(path).map_err(|error| {
        if offset > 0 && error.kind() == io::ErrorKind::NotFound { io::Error::other(Shrunk) } else { error }
    })?;
    if file.metadata()?.len() < offset {
        return Err(io::Error::other(Shrunk));
    }
    file.set_len(offset)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

/// Makes a file of that length durable under the name it has.
pub(super) fn sync(growing: &Path, length: u64) -> io::Result<()> {
    let file = match File::open(growing) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(io::Error::other(Shrunk)),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != length {
        return Err(io::Error::other(Shrunk));
    }
    file.sync_all()?;
    growing.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Lets a synced file appear under the first name that is free.
pub(super) fn publish(root: &Path, growing: &Path, length: u64, name: impl Fn(u32) -> PathBuf) -> io::Result<()> {
    match fs::metadata(growing) {
        Ok(metadata) if metadata.len() == length => {}
        Ok(_) => return Err(io::Error::other(Shrunk)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(io::Error::other(Shrunk)),
        Err(error) => return Err(error),
    }
    let mut nth = 0;
    let name = loop {
        let candidate = name(nth);
        if !candidate.try_exists()? {
            break candidate;
        }
        nth += 1;
        if nth > RENAMES_MAX {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
    };
    fs::rename(growing, &name)?;
    // From here on it is there; a directory that cannot be synced is no reason to store it again. The root's own entry may be
    // new as well.
    let inside = name.ancestors().skip(1).take_while(|directory| directory.starts_with(root));
    for directory in inside.chain(root.parent()).filter(|directory| !directory.as_os_str().is_empty()) {
        if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
            tracing::warn!(directory = %directory.display(), %error, "a directory could not be synced");
        }
    }
    Ok(())
}
