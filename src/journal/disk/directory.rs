//! The directory of a journal: whose it is, and who uses it now.
//!
//! ```text
//! meshlens-journal               {"version":1,"instance":"3f2a…"}; locked while a process uses the directory
//! 0000010000000000-00000000.seg  segments: the number of the first block they may hold, and a count that tells apart those that
//!                                begin with the same
//! ….damaged                      what had no readable header; not looked at again
//! ```
//!
//! A directory that holds other things is not ours and stays untouched; `lost+found` does no harm. `instance` is random for each
//! directory; sequence numbers never repeat within it, so that both together name a block for good.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::journal::Sequence;

/// The version of the format of directory and segments. Before 2 the times of records were milliseconds.
pub const VERSION: u32 = 2;

const MARK: &str = "meshlens-journal";
const SUFFIX: &str = ".seg";

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It is not ours to use; nothing in it was touched.
    #[error("{}: {why}", .path.display())]
    Refused {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The system refuses; the journal stays in memory.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Deserialize, Serialize)]
struct Mark {
    version: u32,
    instance: String,
}

/// A directory in use by this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    _mark: File,
    instance: String,
}

impl Directory {
    /// Makes the directory if it is missing, and takes it for this process.
    ///
    /// # Errors
    /// It belongs to another program, another version, or another process; or the system refuses.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let refused = |why: String| OpenError::Refused { path: path.into(), why };
        let failed = |source| OpenError::Io { path: path.into(), source };
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => return Err(refused("is not a directory".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let (mut is_marked, mut stranger) = (false, None);
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            match name.to_string_lossy() {
                name if name == MARK => is_marked = true,
                name if name == "lost+found" => {}
                name => stranger = stranger.or(Some(name.into_owned())),
            }
        }
        if let Some(name) = stranger.filter(|_| !is_marked) {
            return Err(refused(format!(
                "holds {name:?} and no {MARK:?}: it is not a journal of meshlens; give it an empty or a new directory"
            )));
        }
        let mut mark = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(MARK))
            .map_err(failed)?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused("is in use by another process; each needs a directory of its own".to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut text = String::new();
        mark.read_to_string(&mut text).map_err(failed)?;
        let instance = if text.trim().is_empty() {
            let instance = format!("{:012x}", fastrand::u64(..1 << 48));
            let text = serde_json::json!({ "version": VERSION, "instance": instance }).to_string();
            mark.rewind().and_then(|()| mark.write_all(text.as_bytes())).map_err(failed)?;
            mark.sync_all().and_then(|()| sync(path)).map_err(failed)?;
            instance
        } else {
            let mark: Mark = serde_json::from_str(&text).map_err(|_| refused(format!("{MARK} is not ours")))?;
            if mark.version != VERSION {
                let version = mark.version;
                return Err(refused(format!(
                    "was written in version {version} of the journal's format, and this program reads version {VERSION}; \
                     let the program that wrote it deliver what is there, or give another directory"
                )));
            }
            mark.instance
        };
        Ok(Self { path: path.into(), _mark: mark, instance })
    }

    /// See the module's doc.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The segments there are, in order.
    ///
    /// # Errors
    /// Of the file system.
    pub fn segments(&self) -> io::Result<Vec<(Sequence, PathBuf)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.split_once('-'));
            if let Some((first, _)) = number
                && let Ok(first) = Sequence::from_str_radix(first, 16)
            {
                segments.push((first, entry.path()));
            }
        }
        // Both numbers have all their digits, so the names are in order too.
        segments.sort();
        Ok(segments)
    }

    /// Makes the file of a new segment; it is there for good once [`Self::sync`] returns.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(&self, first: Sequence) -> io::Result<(PathBuf, File)> {
        let mut count = 0_u32;
        loop {
            let path = self.path.join(format!("{first:016x}-{count:08x}{SUFFIX}"));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && count < u32::MAX => count += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes durable which files there are.
    ///
    /// # Errors
    /// Of the file system.
    pub fn sync(&self) -> io::Result<()> {
        sync(&self.path)
    }

    /// Bytes that may still be written to the file system, and its size.
    ///
    /// # Errors
    /// Of the file system.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let system = rustix::fs::statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
        Ok((bytes(system.f_bavail), bytes(system.f_blocks)))
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        match Directory::open(path) {
            Err(OpenError::Refused { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_instance_stays_and_two_cannot_share() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let first = Directory::open(&path).unwrap();
        assert!(refusal(&path).contains("in use by another process"));
        let instance = first.instance().to_owned();
        drop(first);
        assert_eq!(Directory::open(&path).unwrap().instance(), instance);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        drop(Directory::open(root.path()).unwrap());
        let mark = root.path().join(MARK);
        fs::write(&mark, r#"{"version":9,"instance":"x"}"#).unwrap();
        assert!(refusal(root.path()).contains("version 9"));
        fs::write(&mark, "{}").unwrap();
        assert!(refusal(root.path()).contains("not ours"));
        fs::remove_file(&mark).unwrap();
        fs::write(root.path().join("data.db"), "theirs").unwrap();
        assert!(refusal(root.path()).contains("data.db"));
        assert!(refusal(&root.path().join("data.db")).contains("not a directory"));
        assert!(!mark.exists());
    }
}
