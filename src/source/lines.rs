//! Lines of stdin or of a file; a file may be followed as it grows, through rotation by rename and by truncation.
//!
//! ```text
//! thread   file ─ read ─► buffer ─ last newline ─► whole lines ──channel of 2──►  task   chunk ─► Intake::submit
//!                            ▲ tail rolls                                           │
//!                            └──────────── the same buffers come back ◄─────────────┘
//! ```
//!
//! A thread of its own reads, because neither files nor a terminal can be awaited; it is left behind if stdin stays open at the end. Memory is three
//! buffers, whatever the size of the file. With the lines of a followed file goes the position behind them, from which it is read on after a restart. One-off files ending in `.gz` or `.zst` are decompressed as they are read.

mod buffer;
mod follow;
pub mod tail;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc as threads;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

pub(super) use self::buffer::character_boundary;
use self::buffer::{LineBuffer, Lines};
use self::follow::Follower;
use super::{BindError, Intake as _, Intakes, RunError, now_ns};
use crate::chunk::{Chunk, Encoding, Position};
use crate::decode::Packer;

/// Lines read and not yet processed, in buffers.
const QUEUE_BUFFERS: usize = 2;

/// How often a followed file is looked at when it does not grow.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Where lines come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Standard input, to its end.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// A lines source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where lines come from.
    pub input: Input,
    /// Go on after the end of the file, until shutdown.
    pub follow: bool,
    /// Start at the end of a followed file instead of its beginning.
    pub from_end: bool,
    /// Tag of the records.
    pub tag: String,
    /// Field that holds the line; none: `log`.
    pub key: Option<String>,
    /// Longer lines are cut to this many bytes, and counted as truncated.
    pub line_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            input: Input::Stdin,
            follow: false,
            from_end: false,
            tag: "stdin".into(),
            key: None,
            line_bytes_max: 1 << 20,
        }
    }
}

/// An open input.
pub struct Bound(Reader);

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bound")
    }
}

enum Reader {
    Stream(Box<dyn Read + Send>),
    Follow(Follower),
}

/// Opens the input. A followed file need not be there yet.
///
/// # Errors
/// A file cannot be opened.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    Ok(Bound(match &config.input {
        Input::Stdin => Reader::Stream(Box::new(io::stdin())),
        Input::File(path) if config.follow => Reader::Follow(
            Follower::new(path, config.from_end).map_err(|source| BindError::Open { path: path.clone(), source })?,
        ),
        Input::File(path) => {
            Reader::Stream(open(path).map_err(|source| BindError::Open { path: path.clone(), source })?)
        }
    }))
}

/// Opens a file to be read once; decompresses it as it is read, if its name ends in `.gz` or `.zst`.
///
/// # Errors
/// It cannot be opened, or is a directory.
pub fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, file))),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file)?),
        _ => Box::new(file),
    })
}

/// What the reading thread brings.
struct Piece {
    lines: Lines,
    /// Set at the end of an input that failed.
    failed: Option<io::Error>,
}

/// The line that a stream has begun and not ended, for when the thread is left behind in a read that does not return. Locked
/// while the thread hands lines on, so that whoever has the lock sees either a line's beginning here or the whole in the channel.
type Begun = Arc<Mutex<Vec<u8>>>;

/// Reads the input to its end. When draining, a file is read to its end too, and stdin or a pipe until nothing has come for `quiet`.
///
/// # Errors
/// The input cannot be read any further.
pub async fn run<I: Intakes>(
    config: Config,
    bound: Bound,
    intakes: I,
    mut draining: watch::Receiver<bool>,
    quiet: Duration,
    mut resume: Vec<Position>,
) -> Result<(), RunError> {
    let resume = resume.pop();
    let (pieces_in, mut pieces) = mpsc::channel(QUEUE_BUFFERS);
    let (used, free) = threads::channel();
    let ending = Arc::new(AtomicBool::new(false));
    let buffer = LineBuffer::new(config.line_bytes_max, free);
    let what = match &config.input {
        Input::Stdin => "stdin".to_owned(),
        Input::File(path) => path.display().to_string(),
    };
    let thread = thread::Builder::new().name("lines".into());
    let begun = Begun::default();
    thread
        .spawn({
            let (ending, begun) = (ending.clone(), begun.clone());
            move || read(bound.0, resume, buffer, &pieces_in, &ending, &begun)
        })
        .map_err(|source| RunError::Read { what: what.clone(), source })?;

    let tag: Arc<str> = config.tag.as_str().into();
    let key = config.key.filter(|key| key != "log");
    let mut intake = intakes.intake();
    let mut is_draining = false;
    let mut last = Instant::now();
    let mut looks = super::looks();
    // A pipe has no end of its own, whatever its name.
    let is_endless = match &config.input {
        Input::Stdin => true,
        Input::File(path) => !config.follow && !path.is_file(),
    };
    let result = loop {
        tokio::select! {
            biased;
            piece = pieces.recv() => {
                let Some(Piece { lines, failed }) = piece else { break Ok(()) };
                submit(&mut intake, &intakes, (&tag, key.as_deref()), lines, &used).await;
                if let Some(source) = failed {
                    break Err(RunError::Read { what, source });
                }
                last = Instant::now();
            }
            () = super::listen::is_true(&mut draining), if !is_draining => {
                is_draining = true;
                ending.store(true, Relaxed);
            }
            _ = looks.tick() => intake.flush_partials(now_ns()).await,
            () = sleep_until(last + quiet), if is_draining && is_endless => match leave(&mut pieces, &begun) {
                Some(left) => {
                    for lines in left {
                        submit(&mut intake, &intakes, (&tag, key.as_deref()), lines, &used).await;
                    }
                    break Ok(());
                }
                None => last = Instant::now(),
            },
        }
    };
    // Also tells a thread that follows a file, should this future be dropped before: its channel is closed.
    pieces.close();
    intake.finish().await;
    result
}

/// Closes the channel and returns what has been read up to here, the line just begun included. `None` if lines are being handed
/// on: it is not quiet.
fn leave(pieces: &mut mpsc::Receiver<Piece>, begun: &Begun) -> Option<Vec<Lines>> {
    let mut begun = begun.try_lock().ok()?;
    pieces.close();
    let mut left = Vec::new();
    while let Ok(piece) = pieces.try_recv() {
        left.push(piece.lines);
    }
    left.push(Lines { bytes: std::mem::take(&mut *begun).into(), ..Lines::default() });
    Some(left)
}

async fn submit<I: Intakes>(
    intake: &mut I::Intake,
    intakes: &I,
    (tag, key): (&Arc<str>, Option<&str>),
    lines: Lines,
    used: &threads::Sender<BytesMut>,
) {
    intake.truncate(lines.truncated);
    if !lines.bytes.is_empty() || lines.position.is_some() {
        let (bytes, encoding) = match key {
            None => (lines.bytes.clone(), Encoding::Lines),
            Some(key) => (pack(key, &lines.bytes).into(), Encoding::Entries),
        };
        let chunk = Chunk {
            source: intakes.source(),
            tag: tag.clone(),
            is_prefix: false,
            bytes,
            encoding,
            received_ns: now_ns(),
            position: lines.position,
        };
        intake.submit(chunk).await;
    }
    drop(lines.bytes);
    // Nobody else holds it now: the thread may fill it again.
    if let Ok(buffer) = lines.whole.try_into_mut() {
        // A thread that has ended needs no buffer.
        used.send(buffer).ok();
    }
}

/// Lines as entries, under another name than `log`.
fn pack(key: &str, lines: &[u8]) -> Vec<u8> {
    let mut packer = Packer::default();
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        packer.begin();
        packer.text(key.as_bytes(), line.strip_suffix(b"\n").unwrap_or(line));
    }
    packer.take()
}

/// The thread: fills buffers until the end of the input, or until nobody listens.
fn read(
    reader: Reader,
    resume: Option<Position>,
    mut buffer: LineBuffer,
    pieces: &mpsc::Sender<Piece>,
    ending: &AtomicBool,
    begun: &Mutex<Vec<u8>>,
) {
    let result = match reader {
        Reader::Stream(stream) => read_stream(stream, &mut buffer, pieces, begun),
        Reader::Follow(follower) => follow::read(follower, resume, &mut buffer, pieces, ending),
    };
    let failed = result.err();
    let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
    begun.clear();
    let lines = buffer.finish();
    // The receiver is gone only if it wants nothing more.
    pieces.blocking_send(Piece { lines, failed }).ok();
}

fn read_stream(
    mut stream: impl Read,
    buffer: &mut LineBuffer,
    pieces: &mpsc::Sender<Piece>,
    begun: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    loop {
        match stream.read(buffer.space()) {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                let lines = buffer.filled(bytes);
                begun.clear();
                begun.extend_from_slice(buffer.tail());
                if !send(lines, pieces) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hands lines on, if there are any; false if nobody wants them.
fn send(lines: Option<Lines>, pieces: &mpsc::Sender<Piece>) -> bool {
    lines.is_none_or(|lines| pieces.blocking_send(Piece { lines, failed: None }).is_ok())
}
