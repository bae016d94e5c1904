//! Follows a file as it grows, through rotation.
//!
//! The file is read to its end; then its path is looked at, every [`POLL_INTERVAL`]:
//!
//! - The path names another file (rotation by rename): the old one is read on until it has rested for [`ROTATED_POLLS`] looks, because its
//!   writer may not have noticed yet; then the new one, held open meanwhile, is read from its beginning.
//! - The file is shorter than what was read of it, or the last bytes read are not there any more (truncation, with or without
//!   as much written since): it is read from its beginning.
//! - The path names nothing: the old file is kept until something comes.
//!
//! A last line without newline waits for its newline until the file is left: rotated, truncated, or at the end. What cannot be seen by looking:
//! a file truncated and filled with the same bytes, or rotated twice, between two looks.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use tokio::sync::mpsc;

use super::buffer::LineBuffer;
use super::{POLL_INTERVAL, Piece, send};

/// Looks for which a rotated file must rest before it is left.
const ROTATED_POLLS: u32 = 4;

/// Files held open that came after the one being read.
const SUCCESSORS_MAX: usize = 16;

/// How many of the last bytes read are looked for again, to see whether the file is still what was read.
const SEEN_BYTES_MAX: usize = 256;

/// A file that is read as it grows.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    /// The file being read, if there was one yet.
    file: Option<Open>,
    /// What took its place, in order: open, so that the next rotation does not take them away.
    successors: VecDeque<Open>,
    /// It begins in the middle of a line, which is not ours to read.
    is_inside_line: bool,
    /// Why the path could not be looked at, when it was last said.
    said: Option<io::ErrorKind>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
    /// The last bytes before `offset`, [`SEEN_BYTES_MAX`] at most.
    seen: Vec<u8>,
    /// Looks since another file took its place.
    rested: u32,
}

impl Open {
    fn new(file: File) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        Ok(Self { file, identity, offset: 0, seen: Vec::new(), rested: 0 })
    }

    /// Goes to the end, unread.
    fn skip_to_end(&mut self) -> io::Result<()> {
        self.offset = self.file.seek(SeekFrom::End(0))?;
        let seen = (SEEN_BYTES_MAX as u64).min(self.offset);
        self.seen.resize(seen as usize, 0);
        self.file.read_exact_at(&mut self.seen, self.offset - seen)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.offset = 0;
        self.seen.clear();
        Ok(())
    }

    fn saw(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(SEEN_BYTES_MAX)..];
        self.seen.drain(..(self.seen.len() + last.len()).saturating_sub(SEEN_BYTES_MAX));
        self.seen.extend_from_slice(last);
        self.offset += bytes.len() as u64;
    }

    /// Whether the file was truncated, whatever was written since. Only zeros where something was read: a writer without
    /// `O_APPEND` went on behind a hole, at our place.
    fn is_truncated(&self) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.offset {
            return Ok(true);
        }
        let mut now = [0; SEEN_BYTES_MAX];
        let now = &mut now[..self.seen.len()];
        match self.file.read_exact_at(now, self.offset - self.seen.len() as u64) {
            Ok(()) => Ok(*now != self.seen[..] && now.iter().any(|&byte| byte != 0)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// What a look at a file without news came to.
enum Look {
    /// Nothing new.
    Same,
    /// Another file, or the same from its beginning, follows.
    Restart,
}

impl Follower {
    /// Opens the file if it is there.
    pub(super) fn new(path: &Path, from_end: bool) -> io::Result<Self> {
        let mut follower =
            Self { path: path.into(), file: None, successors: VecDeque::new(), is_inside_line: false, said: None };
        match File::open(path) {
            Ok(file) => {
                let mut open = Open::new(file)?;
                if from_end {
                    open.skip_to_end()?;
                    follower.is_inside_line = open.seen.last().is_some_and(|&last| last != b'\n');
                }
                follower.file = Some(open);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(path = %path.display(), "waiting for the file");
            }
            Err(error) => return Err(error),
        }
        Ok(follower)
    }

    /// Reads what has come since; 0 if nothing has, or nothing that follows what was read.
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let Some(open) = &mut self.file else { return Ok(0) };
        if open.is_truncated()? {
            return Ok(0);
        }
        let bytes = open.file.read(space)?;
        open.saw(&space[..bytes]);
        if bytes > 0 {
            open.rested = 0;
        }
        Ok(bytes)
    }

    /// Nothing has come: is it still the right file, and as long as it was?
    fn look(&mut self) -> io::Result<Look> {
        let Some(open) = &mut self.file else {
            self.file = self.open_new();
            return Ok(if self.file.is_some() { Look::Restart } else { Look::Same });
        };
        if open.is_truncated()? {
            tracing::info!(path = %self.path.display(), "file truncated: reading from its beginning");
            open.restart()?;
            return Ok(Look::Restart);
        }
        match std::fs::metadata(&self.path) {
            Ok(now) if identity(&now) == open.identity => open.rested = 0,
            Ok(now) => {
                open.rested += 1;
                self.hold_successor(identity(&now));
            }
            // Renamed and not yet made again, for instance.
            Err(error) => {
                open.rested += u32::from(!self.successors.is_empty());
                self.say(&error);
            }
        }
        if self.file.as_ref().is_some_and(|open| open.rested < ROTATED_POLLS) {
            return Ok(Look::Same);
        }
        match self.successors.pop_front().or_else(|| self.open_new()) {
            Some(new) => {
                tracing::info!(path = %self.path.display(), "file rotated: reading the new one");
                self.file = Some(new);
                Ok(Look::Restart)
            }
            None => Ok(Look::Same),
        }
    }

    fn hold_successor(&mut self, identity: (u64, u64)) {
        let is_held = self.successors.back().is_some_and(|last| last.identity == identity);
        if !is_held
            && self.successors.len() < SUCCESSORS_MAX
            && let Some(new) = self.open_new()
        {
            self.successors.push_back(new);
        }
    }

    /// Opens what the path names now. What prevents it may pass, so it is said and tried again.
    fn open_new(&mut self) -> Option<Open> {
        match File::open(&self.path).and_then(Open::new) {
            Ok(open) => {
                self.said = None;
                Some(open)
            }
            Err(error) => {
                self.say(&error);
                None
            }
        }
    }

    /// Says each trouble once, not with every look.
    fn say(&mut self, error: &io::Error) {
        if self.said != Some(error.kind()) {
            self.said = Some(error.kind());
            tracing::warn!(path = %self.path.display(), %error, "followed file is not there");
        }
    }
}

/// Reads until the end is wanted and the file is read to its end, or nobody listens.
pub(super) fn read(
    mut follower: Follower,
    buffer: &mut LineBuffer,
    pieces: &mpsc::Sender<Piece>,
    ending: &AtomicBool,
) -> io::Result<()> {
    if follower.is_inside_line {
        buffer.skip_line();
    }
    loop {
        // Before the read: what was written before the wish to end is read.
        let is_ending = ending.load(Relaxed) || pieces.is_closed();
        match follower.read(buffer.space()) {
            Ok(0) => {}
            Ok(bytes) => {
                if !send(buffer.filled(bytes), pieces) {
                    return Ok(());
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if is_ending && follower.is_current() {
            return Ok(());
        }
        if is_ending {
            // No time to wait for a writer that has not noticed the rotation.
            follower.rest_enough();
        }
        match follower.look()? {
            Look::Restart => {
                // The old file's last line has no newline and never will.
                if !send(Some(buffer.finish()), pieces) {
                    return Ok(());
                }
            }
            Look::Same if is_ending => return Ok(()),
            Look::Same => thread::sleep(POLL_INTERVAL),
        }
    }
}

impl Follower {
    /// Whether the path still names the file being read, as far as it was read.
    fn is_current(&self) -> bool {
        let Some(open) = &self.file else { return !self.path.exists() };
        let same = std::fs::metadata(&self.path).map_or(true, |now| identity(&now) == open.identity);
        same && self.successors.is_empty() && open.is_truncated().is_ok_and(|is_truncated| !is_truncated)
    }

    fn rest_enough(&mut self) {
        if let Some(open) = &mut self.file {
            open.rested = ROTATED_POLLS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_rotated_away_while_the_one_before_it_rests_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let rename = |to: &str| std::fs::rename(&path, directory.path().join(to)).unwrap();
        std::fs::write(&path, "one\n").unwrap();
        let mut follower = Follower::new(&path, false).unwrap();
        let mut read = Vec::new();
        for line in ["two\n", "three\n", "four\n"] {
            rename(line.trim_end());
            std::fs::write(&path, line).unwrap();
            follower.look().unwrap();
        }
        for _ in 0..4 * ROTATED_POLLS {
            let mut space = [0; 64];
            let bytes = follower.read(&mut space).unwrap();
            read.extend_from_slice(&space[..bytes]);
            follower.look().unwrap();
        }
        assert_eq!(String::from_utf8(read).unwrap(), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn other_bytes_where_something_was_read_are_a_truncation_and_a_hole_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let mut follower = Follower::new(&path, false).unwrap();
        let mut space = [0; 64];
        assert_eq!(follower.read(&mut space).unwrap(), 8);
        std::fs::write(&path, "one\nTWO\nthree\n").unwrap();
        assert_eq!(follower.read(&mut space).unwrap(), 0, "what follows does not belong to what was read");
        assert!(matches!(follower.look().unwrap(), Look::Restart));
        assert_eq!(follower.read(&mut space).unwrap(), 14);
        // A writer without O_APPEND goes on at its own place.
        std::fs::write(&path, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0four\n").unwrap();
        assert_eq!(follower.read(&mut space).unwrap(), 5);
        assert_eq!(&space[..5], b"four\n");
    }
}
