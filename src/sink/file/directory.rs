//! A directory as the place where objects are stored: each grows beside its place and appears there when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::sink::aws::{Failure, Kind};
use crate::sink::retry::{End, Retrier};
use crate::sink::s3::deliver::{Destination, Outcome, Pieces};
use crate::sink::s3::objects::Identity;
use crate::telemetry::account::Reason;

use super::place;

/// How many names an object may try because there are files of that name.
const RENAMES_MAX: u32 = 1000;

/// A directory.
#[derive(Clone)]
pub struct Directory {
    root: Arc<Path>,
    retrier: Retrier,
}

impl Directory {
    /// The directory at that path. Nothing is made yet.
    pub fn new(root: PathBuf, retrier: Retrier) -> Self {
        Self { root: root.into(), retrier }
    }

    async fn store_pieces(&self, object: &Arc<Identity>, pieces: &mut Pieces) -> Result<(), End> {
        let growing = growing(&self.root, object);
        let mut written = 0;
        loop {
            let piece = pieces.next().await.ok_or(End::Shutdown)?;
            let Some(bytes) = piece.bytes.clone() else { return Err(End::Exhausted) };
            let length = bytes.len() as u64;
            let path = growing.clone();
            self.attempt(move || write_at(&path, written, &bytes)).await?;
            written += length;
            if piece.last.is_some() {
                break;
            }
        }
        let (root, object) = (self.root.clone(), object.clone());
        let publish = move || publish(&root, &growing, written, |nth| place(&root, &object.further_key(nth)));
        self.attempt(publish).await
    }

    /// Does it, again and again until it works.
    async fn attempt(&self, work: impl Fn() -> io::Result<()> + Clone + Send + 'static) -> Result<(), End> {
        attempt(&self.retrier, work).await
    }
}

impl Destination for Directory {
    async fn store(self, object: Arc<Identity>, mut pieces: Pieces) -> Outcome {
        let Err(end) = self.store_pieces(&object, &mut pieces).await else { return Outcome::Delivered };
        let growing = growing(&self.root, &object);
        // What is not whole is of no use to anybody. If it cannot be removed either, there is nothing more to be done.
        drop(spawn_blocking(move || fs::remove_file(growing)).await);
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
fn growing(root: &Path, object: &Identity) -> PathBuf {
    let path = place(root, &object.key);
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

/// Makes the file durable, then lets it appear under the first name that is free.
pub(super) fn publish(root: &Path, growing: &Path, length: u64, name: impl Fn(u32) -> PathBuf) -> io::Result<()> {
    let file = match File::open(growing) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(io::Error::other(Shrunk)),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != length {
        return Err(io::Error::other(Shrunk));
    }
    file.sync_all()?;
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
    // From here on it is there; a directory that cannot be synced is no reason to store it again.
    for directory in name.ancestors().skip(1).take_while(|directory| directory.starts_with(root)) {
        if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
            tracing::warn!(directory = %directory.display(), %error, "a directory could not be synced");
        }
    }
    Ok(())
}
