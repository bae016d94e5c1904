//! Follows a file as it grows, through rotation, and from where it stood before a restart.
//!
//! The file is read to its end; then its path is looked at, every [`POLL_INTERVAL`]:
//!
//! - The path names another file (rotation by rename): the old one is read on until it has rested for [`ROTATED_POLLS`] looks, because its
//!   writer may not have noticed yet; then those that came between, if it was rotated more than once, are read; then the new one. All are held
//!   open meanwhile.
//! - The file is shorter than what was read of it, or the last bytes read are not there any more (truncation, with or without
//!   as much written since): if a copy of it lies beside it, what the copy has beyond is read; then it is read from its beginning.
//! - The path names nothing: the old file is kept until something comes.
//!
//! A last line without newline waits for its newline until the file is left: rotated, truncated, or at the end.
//!
//! With each piece goes the [`Position`] behind it: of the last whole line handed on, or of the next file's beginning. [`Follower::resume`] finds the
//! file of a position again, wherever it was renamed or copied to, and goes on as above. Its number alone proves nothing, since numbers are used
//! again: the last bytes before the position must be the same.
//!
//! What cannot be seen: a file truncated and filled with the same bytes; one truncated before its first line was read; a rotated file that was
//! compressed or removed before it was read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use tokio::sync::mpsc;

use self::siblings::{Identity, Sibling, identity};
use super::buffer::{LineBuffer, Lines};
use super::{POLL_INTERVAL, Piece, send};
use crate::chunk::Position;

mod siblings;

/// Looks for which a rotated file must rest before it is left.
const ROTATED_POLLS: u32 = 4;

/// Files held open that came after the one being read.
const SUCCESSORS_MAX: usize = 16;

/// How many of the last bytes read are looked for again, to see whether the file is still what was read.
const SEEN_BYTES_MAX: usize = 256;

/// The last bytes read or handed on, [`SEEN_BYTES_MAX`] at most.
type Seen = Vec<u8>;

fn see(seen: &mut Seen, bytes: &[u8]) {
    let last = &bytes[bytes.len().saturating_sub(SEEN_BYTES_MAX)..];
    seen.drain(..(seen.len() + last.len()).saturating_sub(SEEN_BYTES_MAX));
    seen.extend_from_slice(last);
}

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
    identity: Identity,
    offset: u64,
    /// The last bytes before `offset`.
    seen: Seen,
    /// Up to here its lines were handed on, or passed over.
    handed_on: u64,
    /// The last bytes before `handed_on`.
    handed_on_seen: Seen,
    /// Looks since another file took its place.
    rested: u32,
}

impl Open {
    fn new(file: File) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        Ok(Self { file, identity, offset: 0, seen: Seen::new(), handed_on: 0, handed_on_seen: Seen::new(), rested: 0 })
    }

    /// Goes there, unread.
    fn skip_to(&mut self, offset: u64, seen: Seen) -> io::Result<()> {
        self.offset = self.file.seek(SeekFrom::Start(offset))?;
        self.handed_on = offset;
        self.handed_on_seen.clone_from(&seen);
        self.seen = seen;
        Ok(())
    }

    /// The bytes before that offset.
    fn before(&self, offset: u64, bytes: usize) -> io::Result<Seen> {
        let mut seen = vec![0; bytes.min(usize::try_from(offset).unwrap_or(bytes))];
        let from = offset - seen.len() as u64;
        self.file.read_exact_at(&mut seen, from)?;
        Ok(seen)
    }

    fn saw(&mut self, bytes: &[u8]) {
        see(&mut self.seen, bytes);
        self.offset += bytes.len() as u64;
    }

    /// Lines were handed on, `tail_bytes` read behind them were not.
    fn hand_on(&mut self, lines: &Lines, tail_bytes: usize) {
        let end = self.offset - tail_bytes as u64;
        if lines.truncated > 0 {
            // What was read behind the cut is passed over, as will be the rest of the line.
            self.handed_on_seen.clone_from(&self.seen);
        } else {
            if self.handed_on + lines.bytes.len() as u64 != end {
                self.handed_on_seen.clear();
            }
            see(&mut self.handed_on_seen, &lines.bytes);
        }
        self.handed_on = end;
    }

    fn position(&self) -> Position {
        Position {
            device: self.identity.0,
            inode: self.identity.1,
            offset: self.handed_on,
            seen_bytes: self.handed_on_seen.len() as u32,
            check: crc32fast::hash(&self.handed_on_seen),
        }
    }

    /// Whether the file was truncated, whatever was written since. Only zeros where something was read: a writer without
    /// `O_APPEND` went on behind a hole, at our place.
    fn is_truncated(&self) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.offset {
            return Ok(true);
        }
        match self.before(self.offset, self.seen.len()) {
            Ok(now) => Ok(now != self.seen && now.iter().any(|&byte| byte != 0)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Goes to a position of this file or of a copy, if the bytes before it are the same. `is_same`: the file itself, in which
    /// a hole may be where they were.
    fn resume(&mut self, position: &Position, is_same: bool) -> bool {
        let seen_bytes = position.seen_bytes as usize;
        if seen_bytes > SEEN_BYTES_MAX || self.file.metadata().map_or(0, |now| now.len()) < position.offset {
            return false;
        }
        let Ok(seen) = self.before(position.offset, seen_bytes) else { return false };
        let is_hole = is_same && seen.iter().all(|&byte| byte == 0);
        // Without any bytes to compare, a copy cannot be told from another file.
        let fits =
            seen.len() == seen_bytes && crc32fast::hash(&seen) == position.check && (is_same || !seen.is_empty());
        (fits || is_hole) && self.skip_to(position.offset, seen).is_ok()
    }

    /// Whether what was read last is the beginning of a line that is passed over.
    fn is_inside_line(&self) -> bool {
        self.seen.last().is_some_and(|&last| last != b'\n' && last != 0)
    }
}

/// What a look at a file without news came to.
enum Look {
    /// Nothing new.
    Same,
    /// Another file, or the same from its beginning, follows.
    Restart,
    /// The same bytes go on elsewhere.
    Moved,
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
                    let end = open.file.metadata()?.len();
                    let seen = open.before(end, SEEN_BYTES_MAX)?;
                    open.skip_to(end, seen)?;
                    follower.is_inside_line = open.is_inside_line();
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

    /// Goes on where it stood before a restart, in whatever file that is now; then through the files that came after it. If that file
    /// is gone, the one of today is read from its beginning.
    pub(super) fn resume(&mut self, position: &Position) {
        let wanted = (position.device, position.inode);
        self.successors.clear();
        self.is_inside_line = false;
        let mut now = self.open_new();
        let siblings = siblings::list(&self.path);
        let opened = |sibling: &Sibling, is_same| {
            let mut open = open_sibling(sibling)?;
            open.resume(position, is_same).then_some(open)
        };
        if now.as_mut().is_some_and(|now| now.identity == wanted && now.resume(position, true)) {
            self.is_inside_line = now.as_ref().is_some_and(Open::is_inside_line);
            self.file = now;
            return;
        }
        let renamed = siblings.iter().filter(|each| each.identity == wanted).map(|each| (each, true));
        let copies = siblings.iter().filter(|each| each.is_rotated() && each.length >= position.offset);
        let mut candidates = renamed.chain(copies.map(|each| (each, false)));
        if let Some((origin, open)) = candidates.find_map(|(each, is_same)| Some((each, opened(each, is_same)?))) {
            tracing::info!(path = %self.path.display(), now = %origin.path.display(), "reading on in the rotated file");
            self.is_inside_line = open.is_inside_line();
            self.file = Some(open);
            self.hold(&siblings::later_than(origin, &siblings));
            self.successors.extend(now);
            return;
        }
        tracing::warn!(
            path = %self.path.display(),
            offset = position.offset,
            "the file read before the restart is gone or truncated: reading from the beginning; what was written to the \
             old one behind the offset, how much is not known, is lost"
        );
        self.file = now;
    }

    /// Whether it reads that file, or will read it next.
    pub(super) fn holds(&self, identity: Identity) -> bool {
        self.file.iter().chain(&self.successors).any(|open| open.identity == identity)
    }

    /// Whether it begins in the middle of a line, which is not ours to read.
    pub(super) fn is_inside_line(&self) -> bool {
        self.is_inside_line
    }

    /// Where it stands: behind what was handed on.
    pub(super) fn position(&self) -> Option<Position> {
        self.file.as_ref().map(Open::position)
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
            return self.truncated();
        }
        match std::fs::metadata(&self.path) {
            Ok(now) if identity(&now) == open.identity => open.rested = 0,
            now => {
                open.rested += u32::from(now.is_ok() || !self.successors.is_empty());
                self.hold_successors(now.as_ref().map(identity).ok());
                // Renamed and not yet made again, for instance.
                if let Err(error) = now {
                    self.say(&error);
                }
            }
        }
        // Who still writes to a file that was rotated twice has had time enough.
        let polls = if self.successors.len() > 1 { 1 } else { ROTATED_POLLS };
        if self.file.as_ref().is_some_and(|open| open.rested < polls) {
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

    /// The file was truncated: it is read from its beginning, after what a copy of it has and was not read.
    fn truncated(&mut self) -> io::Result<Look> {
        let Some(open) = &mut self.file else { return Ok(Look::Same) };
        let siblings = siblings::list(&self.path);
        let copy =
            siblings.iter().filter(|each| each.is_rotated() && each.identity != open.identity).find_map(|each| {
                let mut copy = open_sibling(each).filter(|_| each.length >= open.offset)?;
                let seen = copy
                    .before(open.offset, open.seen.len())
                    .ok()
                    .filter(|seen| !seen.is_empty() && *seen == open.seen)?;
                copy.skip_to(open.offset, seen).ok()?;
                // What was read and not handed on stays in the buffer.
                copy.handed_on = open.handed_on;
                copy.handed_on_seen.clone_from(&open.handed_on_seen);
                Some((each, copy))
            });
        open.skip_to(0, Seen::new())?;
        let Some((origin, copy)) = copy else {
            tracing::info!(path = %self.path.display(), "file truncated: reading from its beginning");
            return Ok(Look::Restart);
        };
        tracing::info!(path = %self.path.display(), copy = %origin.path.display(), "file copied and truncated");
        let held = std::mem::take(&mut self.successors);
        let open = self.file.replace(copy);
        self.hold(&siblings::later_than(origin, &siblings));
        for open in open.into_iter().chain(held) {
            // It may be among the rotated ones by now.
            if self.successors.iter().all(|successor| successor.identity != open.identity) {
                self.successors.push_back(open);
            }
        }
        Ok(Look::Moved)
    }

    /// The path names a file that is not the one being read, or none: holds it, and what came between.
    fn hold_successors(&mut self, now: Option<Identity>) {
        let Some(last) = self.successors.back().or(self.file.as_ref()).map(|last| last.identity) else { return };
        if now == Some(last) || self.successors.len() >= SUCCESSORS_MAX {
            return;
        }
        let siblings = siblings::list(&self.path);
        if let Some(origin) = siblings.iter().find(|each| each.identity == last) {
            self.hold(&siblings::later_than(origin, &siblings));
        }
        if now.is_some()
            && self.successors.len() < SUCCESSORS_MAX
            && let Some(new) = self.open_new()
        {
            self.successors.push_back(new);
        }
    }

    /// Holds rotated files that are to be read next. Those beyond the limit are found again when these are read.
    fn hold(&mut self, rotated: &[Sibling]) {
        let room = SUCCESSORS_MAX.saturating_sub(self.successors.len());
        self.successors.extend(rotated.iter().take(room).filter_map(open_sibling));
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

/// The file's number, and that of its device.
pub(super) fn identity_of(metadata: &std::fs::Metadata) -> Identity {
    identity(metadata)
}

/// The files beside `path` whose names say that they were it once, with what they are.
pub(super) fn rotated_beside(path: &Path) -> Vec<(PathBuf, Identity)> {
    siblings::list(path).into_iter().filter(Sibling::is_rotated).map(|each| (each.path, each.identity)).collect()
}

/// Opens a file that was listed, if its name did not move on meanwhile.
fn open_sibling(sibling: &Sibling) -> Option<Open> {
    let open = File::open(&sibling.path).and_then(Open::new).ok()?;
    (open.identity == sibling.identity).then_some(open)
}

/// What one step of reading brought.
pub(super) enum Step {
    /// Bytes: these lines, perhaps none yet.
    Read(Option<Lines>),
    /// Another file comes: what was left of the old one.
    Left(Lines),
    /// A look changed where to read.
    Moved,
    /// Nothing.
    Rest,
}

impl Follower {
    /// Reads once, or looks once if there is nothing to read.
    pub(super) fn step(&mut self, buffer: &mut LineBuffer, is_ending: bool) -> io::Result<Step> {
        match self.read(buffer.space()) {
            Ok(0) => {}
            Ok(bytes) => {
                let mut lines = buffer.filled(bytes);
                if let (Some(lines), Some(open)) = (&mut lines, &mut self.file) {
                    open.hand_on(lines, buffer.tail().len());
                    lines.position = Some(open.position());
                }
                return Ok(Step::Read(lines));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Step::Moved),
            Err(error) => return Err(error),
        }
        if is_ending {
            let now = std::fs::metadata(&self.path);
            self.hold_successors(now.as_ref().map(identity).ok());
            if self.is_current() {
                return Ok(Step::Rest);
            }
            // No time to wait for a writer that has not noticed the rotation.
            self.rest_enough();
        }
        Ok(match self.look()? {
            // The old file's last line has no newline and never will.
            Look::Restart => Step::Left(Lines { position: self.position(), ..buffer.finish() }),
            Look::Moved => Step::Moved,
            Look::Same => Step::Rest,
        })
    }

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

/// Reads until the end is wanted and the file is read to its end, or nobody listens.
pub(super) fn read(
    mut follower: Follower,
    resume: Option<Position>,
    buffer: &mut LineBuffer,
    pieces: &mpsc::Sender<Piece>,
    ending: &AtomicBool,
) -> io::Result<()> {
    if let Some(position) = &resume {
        follower.resume(position);
    }
    if follower.is_inside_line {
        buffer.skip_line();
    }
    // Where it begins is to be known as well: the file may be rotated before its first line is taken care of.
    let begin = follower.position().map(|position| Lines { position: Some(position), ..Lines::default() });
    if !send(begin, pieces) {
        return Ok(());
    }
    loop {
        // Before the read: what was written before the wish to end is read.
        let is_ending = ending.load(Relaxed) || pieces.is_closed();
        match follower.step(buffer, is_ending)? {
            Step::Read(lines) => {
                if !send(lines, pieces) {
                    return Ok(());
                }
            }
            Step::Left(lines) => {
                if !send(Some(lines), pieces) {
                    return Ok(());
                }
            }
            Step::Moved => {}
            Step::Rest if is_ending => return Ok(()),
            Step::Rest => thread::sleep(POLL_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests;
