//! Follows many files at once: those that match patterns, also such as come later; what Fluent Bit calls `tail`.
//!
//! ```text
//! thread   every refresh_interval: patterns ─► paths ─► a Follower for each new one
//!          every 250 ms, or at once while there is something: each Follower, some steps at a time ─► lines ──channel of 2──► task, an Intake for each file
//! ```
//!
//! - Files that are there at the start are read from where they stood before a restart; else from their end, or from their beginning with
//!   `read_from_head`. Files found later are read from their beginning, and so are those that came between two runs.
//! - A file is known by its number: found under another name, as rotation makes it, it is not read again. What a rotated copy holds is read
//!   again if the patterns match the copy, as by Fluent Bit: patterns should not.
//! - A file whose path is gone is let go when it has been read to its end and nothing has come for `rotate_wait`.
//! - Each file goes through an [`Intake`](crate::source::Intake) of its own: what is learned of one stream holds for that file only.
//!
//! Memory: a buffer of [`BUFFER_BYTES`] a file, [`Config::files_max`] files; one open file each, and its successors while it is rotated. Cost while
//! nothing is written: four system calls a file and look; a file that has been silent for [`SILENT_AFTER`] is looked at every second.

mod find;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc as threads;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use self::find::Finder;
use super::buffer::{LineBuffer, Lines};
use super::follow::{Follower, Step};
use super::{POLL_INTERVAL, QUEUE_BUFFERS};
use crate::chunk::{Chunk, Encoding, Position};
use crate::decode::{FrameErrorKind, Packer};
use crate::source::listen::is_true;
use crate::source::{BindError, Intake as _, Intakes, RunError, looks, now_ns};

pub use self::find::PatternError;

/// Size of a file's buffer; it grows for a line that needs it.
const BUFFER_BYTES: usize = 32 << 10;

/// Pieces of one file before it is the next one's turn.
const STEPS_MAX: usize = 8;

/// A file silent for so long is looked at less often.
const SILENT_AFTER: Duration = Duration::from_secs(10);
const SILENT_INTERVAL: Duration = Duration::from_secs(1);

/// Files that were let go and are remembered, by their number.
const DONE_MAX: usize = 4096;

/// A tail source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Patterns of paths; `*`, `?`, `[…]` in any part, none of which matches a `/`.
    pub paths: Vec<String>,
    /// Patterns of paths that are left out.
    pub exclude: Vec<String>,
    /// Tag of the records; `*` in it stands for the path, with `.` for each `/`.
    pub tag: String,
    /// Field that holds the line.
    pub key: String,
    /// Field to add with the path.
    pub path_key: Option<String>,
    /// Field to add with the line's offset in the file, in bytes.
    pub offset_key: Option<String>,
    /// Read files that are there at the start from their beginning.
    pub read_from_head: bool,
    /// How often new files are looked for.
    pub refresh_interval: Duration,
    /// Files that were not written to for so long are not opened.
    pub ignore_older: Option<Duration>,
    /// Lines that are too long are left out, and counted, instead of cut.
    pub skip_long_lines: bool,
    /// How long a file is kept whose path is gone.
    pub rotate_wait: Duration,
    /// Longer lines are cut to this many bytes, and counted as truncated.
    pub line_bytes_max: usize,
    /// Files followed at once; more wait, with a warning.
    pub files_max: usize,
    /// Where Fluent Bit would keep positions: the journal's directory stands beside it, if it has no other.
    pub db: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            exclude: Vec::new(),
            tag: "tail".into(),
            key: LOG.into(),
            path_key: None,
            offset_key: None,
            read_from_head: false,
            refresh_interval: Duration::from_secs(60),
            ignore_older: None,
            skip_long_lines: false,
            rotate_wait: Duration::from_secs(5),
            line_bytes_max: 1 << 20,
            files_max: 512,
            db: None,
        }
    }
}

/// The field of a line, if nothing else is said.
const LOG: &str = "log";

/// Patterns that are ready.
pub struct Bound(Finder);

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bound")
    }
}

/// Checks a pattern.
///
/// # Errors
/// It is none.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    Finder::new(&[pattern.to_owned()], &[]).map(drop)
}

/// Compiles the patterns. The files need not be there.
///
/// # Errors
/// A pattern is none; the configuration was checked for that.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    Finder::new(&config.paths, &config.exclude).map(Bound).map_err(|error| BindError::Open {
        path: PathBuf::from(&error.pattern),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

/// The tag of a file's records.
fn tag_of(tag: &str, path: &Path) -> Arc<str> {
    let Some((before, behind)) = tag.split_once('*') else { return tag.into() };
    let path = path.to_string_lossy();
    let name = path.trim_start_matches('/').replace('/', ".");
    format!("{before}{name}{}", behind.replace('*', &name)).into()
}

/// What the thread brings.
struct Piece {
    /// The file's, for its intake.
    number: u64,
    tag: Arc<str>,
    path: Arc<Path>,
    lines: Lines,
    /// Where the lines begin in the file.
    offset: u64,
    /// Nothing follows.
    is_last: bool,
}

/// Follows the files until the drain; what is written up to then is read.
///
/// # Errors
/// There is no thread to be had.
pub async fn run<I: Intakes>(
    config: Config,
    bound: Bound,
    intakes: I,
    mut draining: watch::Receiver<bool>,
    resume: Vec<Position>,
) -> Result<(), RunError> {
    let (pieces_in, mut pieces) = mpsc::channel(QUEUE_BUFFERS);
    let ending = Arc::new(AtomicBool::new(false));
    let watcher = Watcher::new(config.clone(), bound.0, resume, pieces_in, ending.clone());
    let what = || config.paths.join(" ");
    let thread = thread::Builder::new().name("tail".into());
    thread.spawn(move || watcher.watch()).map_err(|source| RunError::Read { what: what(), source })?;
    let mut files: HashMap<u64, I::Intake> = HashMap::new();
    let mut is_draining = false;
    let mut looks = looks();
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.recv() => piece,
            () = is_true(&mut draining), if !is_draining => {
                is_draining = true;
                ending.store(true, Relaxed);
                continue;
            }
            _ = looks.tick() => {
                for intake in files.values_mut() {
                    intake.flush_partials(now_ns()).await;
                }
                continue;
            }
        };
        let Some(piece) = piece else { break };
        let (number, is_last) = (piece.number, piece.is_last);
        let intake = files.entry(number).or_insert_with(|| intakes.intake());
        submit(&config, intake, &intakes, piece).await;
        if is_last && let Some(mut intake) = files.remove(&number) {
            intake.finish().await;
        }
    }
    for mut intake in files.into_values() {
        intake.finish().await;
    }
    Ok(())
}

async fn submit<I: Intakes>(config: &Config, intake: &mut I::Intake, intakes: &I, piece: Piece) {
    let Piece { tag, path, mut lines, offset, .. } = piece;
    if lines.truncated > 0 && config.skip_long_lines {
        // What is cut comes alone.
        for _ in 0..lines.truncated {
            intake.lose_frame(FrameErrorKind::TooLarge { bytes_max: config.line_bytes_max });
        }
        lines.bytes = Bytes::new();
    } else {
        intake.truncate(lines.truncated);
    }
    if lines.bytes.is_empty() && lines.position.is_none() {
        return;
    }
    let is_plain = config.key == LOG
        && config.path_key.is_none()
        && config.offset_key.is_none()
        && memchr::memmem::find(&lines.bytes, b"\r\n").is_none();
    let (bytes, encoding) = match is_plain {
        true => (lines.bytes, Encoding::Lines),
        false => (pack(config, &path, &lines.bytes, offset).into(), Encoding::Entries),
    };
    let chunk = Chunk {
        source: intakes.source(),
        tag,
        is_prefix: false,
        bytes,
        encoding,
        received_ns: now_ns(),
        position: lines.position,
    };
    intake.submit(chunk).await;
}

/// Lines as entries, with the fields that were asked for in Fluent Bit's order.
fn pack(config: &Config, path: &Path, lines: &[u8], mut offset: u64) -> Vec<u8> {
    let mut packer = Packer::default();
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        packer.begin();
        if let Some(key) = &config.path_key {
            packer.text(key.as_bytes(), path.as_os_str().as_bytes());
        }
        if let Some(key) = &config.offset_key {
            packer.number(key.as_bytes(), offset);
        }
        // A line may end as in Windows.
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        packer.text(config.key.as_bytes(), text.strip_suffix(b"\r").unwrap_or(text));
        offset += line.len() as u64;
    }
    packer.take()
}

/// A file that is followed.
struct Tailed {
    number: u64,
    path: Arc<Path>,
    tag: Arc<str>,
    follower: Follower,
    buffer: LineBuffer,
    /// Where the next line begins.
    offset: u64,
    /// The last position sent.
    last: Option<Position>,
    /// When something last came, and when to look again.
    active: Instant,
    next_look: Instant,
    /// Since when the path is gone.
    gone: Option<Instant>,
    /// Where it begins: sent first.
    begin: Option<Lines>,
}

type Identity = (u64, u64);

/// The thread.
struct Watcher {
    config: Config,
    finder: Finder,
    pieces: mpsc::Sender<Piece>,
    ending: Arc<AtomicBool>,
    files: Vec<Tailed>,
    numbers: u64,
    /// Where files stand that were let go, or were followed before a restart; the oldest first.
    done: VecDeque<Position>,
    is_restart: bool,
    /// The first look has been.
    is_begun: bool,
    has_said_full: bool,
}

impl Watcher {
    fn new(
        config: Config,
        finder: Finder,
        resume: Vec<Position>,
        pieces: mpsc::Sender<Piece>,
        ending: Arc<AtomicBool>,
    ) -> Self {
        Self {
            config,
            finder,
            pieces,
            ending,
            files: Vec::new(),
            numbers: 0,
            is_restart: !resume.is_empty(),
            done: resume.into(),
            is_begun: false,
            has_said_full: false,
        }
    }

    fn watch(mut self) {
        let mut next_scan = Instant::now();
        loop {
            // Before the reading: what was written before the wish to end is read, in files that are new as well.
            let is_ending = self.ending.load(Relaxed) || self.pieces.is_closed();
            if is_ending || Instant::now() >= next_scan {
                self.scan();
                next_scan = Instant::now() + self.config.refresh_interval;
            }
            let Some(is_busy) = self.read(is_ending) else { return };
            if !is_busy {
                if is_ending {
                    return self.end();
                }
                thread::sleep(POLL_INTERVAL);
            }
        }
    }

    /// Looks for new files.
    fn scan(&mut self) {
        let found = self.finder.find();
        let new: Vec<PathBuf> =
            found.into_iter().filter(|path| self.files.iter().all(|file| *file.path != **path)).collect();
        for path in new {
            if self.files.len() >= self.config.files_max {
                if !std::mem::replace(&mut self.has_said_full, true) {
                    let files_max = self.config.files_max;
                    tracing::warn!(path = %path.display(), files_max, "more files than are followed: others wait");
                }
                break;
            }
            if let Err(error) = self.open(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot follow this file");
            }
        }
        self.is_begun = true;
    }

    fn open(&mut self, path: &Path) -> io::Result<()> {
        let metadata = std::fs::metadata(path)?;
        let identity = super::follow::identity_of(&metadata);
        if !metadata.is_file() || self.files.iter().any(|file| file.follower.holds(identity)) {
            return Ok(());
        }
        let known = self.take_done(identity);
        let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if let (Some(limit), Some(age)) = (self.config.ignore_older, age)
            && age > limit
            && known.is_none_or(|known| known.offset >= metadata.len())
        {
            known.into_iter().for_each(|known| self.done.push_back(known));
            return Ok(());
        }
        let from_end = !self.is_begun && !self.is_restart && !self.config.read_from_head;
        let mut follower = Follower::new(path, from_end)?;
        let before = known.or_else(|| if self.is_begun { None } else { self.rotated_before(path) });
        if let Some(position) = before {
            follower.resume(&position);
        }
        // None ever comes back: what is sent is let go.
        let (_, free) = threads::channel();
        let mut buffer = LineBuffer::with_usual(self.config.line_bytes_max, BUFFER_BYTES, free);
        if follower.is_inside_line() {
            buffer.skip_line();
        }
        let position = follower.position();
        let now = Instant::now();
        self.numbers += 1;
        self.files.push(Tailed {
            number: self.numbers,
            path: path.into(),
            tag: tag_of(&self.config.tag, path),
            follower,
            buffer,
            offset: position.map_or(0, |position| position.offset),
            last: position,
            active: now,
            next_look: now,
            gone: None,
            begin: Some(Lines { position, ..Lines::default() }),
        });
        tracing::info!(path = %path.display(), offset = position.map_or(0, |p| p.offset), "following");
        Ok(())
    }

    fn take_done(&mut self, identity: Identity) -> Option<Position> {
        let place = self.done.iter().rposition(|done| (done.device, done.inode) == identity)?;
        self.done.remove(place)
    }

    /// The file that this path named before a restart, if it lies beside it under another name and is not followed under that one.
    fn rotated_before(&mut self, path: &Path) -> Option<Position> {
        if self.done.is_empty() {
            return None;
        }
        let siblings = super::follow::rotated_beside(path);
        let is_known = |done: &Position| {
            let is_same = |(name, identity): &(PathBuf, Identity)| {
                *identity == (done.device, done.inode) && !self.finder.is_match(name)
            };
            siblings.iter().any(is_same)
        };
        let place = self.done.iter().rposition(is_known)?;
        self.done.remove(place)
    }

    /// Reads some of each file. Whether there may be more at once; none if nobody listens.
    fn read(&mut self, is_ending: bool) -> Option<bool> {
        let mut is_busy = false;
        let mut place = 0;
        while let Some(file) = self.files.get_mut(place) {
            let now = Instant::now();
            if !is_ending && now < file.next_look {
                place += 1;
                continue;
            }
            if let Some(begin) = file.begin.take() {
                file.send(begin, false, &self.pieces)?;
            }
            match file.read(&self.pieces, is_ending, &mut self.done) {
                Ok(None) => return None,
                Ok(Some(true)) => {
                    is_busy = true;
                    (file.active, file.gone) = (now, None);
                }
                Ok(Some(false)) => {
                    let is_silent = now.duration_since(file.active) > SILENT_AFTER;
                    file.next_look = if is_silent { now + SILENT_INTERVAL } else { now };
                    if file.is_gone_for(self.config.rotate_wait, now) {
                        self.let_go(place)?;
                        continue;
                    }
                }
                Err(error) => {
                    tracing::warn!(path = %file.path.display(), %error, "cannot read this file any further");
                    self.let_go(place)?;
                    continue;
                }
            }
            place += 1;
        }
        Some(is_busy)
    }

    fn let_go(&mut self, place: usize) -> Option<()> {
        let mut file = self.files.swap_remove(place);
        remember(&mut self.done, file.follower.position());
        tracing::info!(path = %file.path.display(), "not following any more");
        let left = file.buffer.finish();
        file.send(left, true, &self.pieces)
    }

    /// Hands on last lines without newline.
    fn end(&mut self) {
        for mut file in std::mem::take(&mut self.files) {
            let left = file.buffer.finish();
            if file.send(left, true, &self.pieces).is_none() {
                return;
            }
        }
    }
}

/// A file was left where it stood.
fn remember(done: &mut VecDeque<Position>, position: Option<Position>) {
    done.extend(position);
    done.drain(..done.len().saturating_sub(DONE_MAX));
}

impl Tailed {
    /// Takes some steps. Whether the last one brought something; none if nobody listens.
    fn read(
        &mut self,
        pieces: &mpsc::Sender<Piece>,
        is_ending: bool,
        done: &mut VecDeque<Position>,
    ) -> io::Result<Option<bool>> {
        for _ in 0..STEPS_MAX {
            let lines = match self.follower.step(&mut self.buffer, is_ending)? {
                Step::Read(lines) => lines,
                Step::Left(lines) => {
                    remember(done, self.last);
                    Some(lines)
                }
                Step::Moved => None,
                Step::Rest => return Ok(Some(false)),
            };
            if let Some(lines) = lines
                && self.send(lines, false, pieces).is_none()
            {
                return Ok(None);
            }
        }
        Ok(Some(true))
    }

    fn send(&mut self, lines: Lines, is_last: bool, pieces: &mpsc::Sender<Piece>) -> Option<()> {
        let offset = self.offset;
        self.offset = match &lines.position {
            Some(position) => {
                self.last = Some(*position);
                position.offset
            }
            None => offset + lines.bytes.len() as u64,
        };
        let Self { number, tag, path, .. } = self;
        let piece = Piece { number: *number, tag: tag.clone(), path: path.clone(), lines, offset, is_last };
        pieces.blocking_send(piece).ok()
    }

    fn is_gone_for(&mut self, wait: Duration, now: Instant) -> bool {
        if self.path.exists() {
            self.gone = None;
            return false;
        }
        now.duration_since(*self.gone.get_or_insert(now)) >= wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_the_tag_is_the_path() {
        let path = Path::new("/var/log/app/x.log");
        for (tag, expected) in [
            ("app.*", "app.var.log.app.x.log"),
            ("app", "app"),
            ("*", "var.log.app.x.log"),
            ("a.*.b", "a.var.log.app.x.log.b"),
        ] {
            assert_eq!(&*tag_of(tag, path), expected);
        }
    }

    #[test]
    fn fields_stand_in_the_order_of_fluent_bit() {
        let config = Config {
            path_key: Some("file".into()),
            offset_key: Some("at".into()),
            key: "message".into(),
            ..Config::default()
        };
        let bytes = pack(&config, Path::new("/x"), b"one\n\nlast", 7);
        let mut entries = crate::decode::Entries::packed(&bytes, &crate::decode::Limits::default());
        let mut record = crate::record::Record::new();
        let mut seen = Vec::new();
        while let Some(entry) = entries.next_into(&mut record, 1) {
            entry.unwrap();
            seen.push(format!("{:?}", record.envelope.iter().map(|each| each.value).collect::<Vec<_>>()));
            let names: Vec<_> = record.envelope.iter().map(|each| each.name.bytes()).collect();
            assert_eq!(names, [&b"file"[..], b"at", b"message"]);
        }
        assert_eq!(seen.len(), 3);
        for (seen, at) in seen.iter().zip(["UInt(7)", "UInt(11)", "UInt(12)"]) {
            assert!(seen.contains(at), "{seen}");
        }
    }
}
