//! Sources: what brings bytes in.
//!
//! A source first *binds* (sockets, files; before anything that takes time), then *runs* until its inputs end or, after the signal to drain,
//! until its peers hang up or fall quiet. What it reads it hands on as chunks, each connection through an [`Intake`] of its own; that call
//! waits while the journal is full, and so the back-pressure reaches the socket.
//!
//! Cost: one read and one chunk for up to 256 KiB, a clock reading and a channel hop per chunk, nothing per record.

pub mod descriptors;
pub mod dummy;
pub mod forward;
pub mod lines;
mod listen;
pub mod tcp;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::watch;

use crate::chunk::{Chunk, Position, SourceId};
use crate::decode::FrameErrorKind;
use crate::journal::{Durable, Sequence};
use crate::process::repeats::ChunkKey;
use crate::process::{self, Submitted};

/// In the account, the source of what an earlier run left in the journal; no other has this name.
pub const JOURNAL: &str = "journal";

/// One configured source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its name; in metrics and in the account.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

impl Config {
    /// How many files it follows, whose positions are to be known after a restart; 0 if none.
    pub fn files_max(&self) -> usize {
        match &self.kind {
            Kind::Lines(lines::Config { follow: true, input: lines::Input::File(_), .. }) => 1,
            // Those that were let go are remembered for a while: they may be found again.
            Kind::Tail(config) => 2 * config.files_max,
            Kind::Lines(_) | Kind::Forward(_) | Kind::Tcp(_) | Kind::Dummy(_) => 0,
        }
    }
}

impl Config {
    /// The TCP address on which it listens.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.kind {
            Kind::Forward(config) => config.listen,
            Kind::Tcp(config) => Some(config.listen),
            Kind::Lines(_) | Kind::Tail(_) | Kind::Dummy(_) => None,
        }
    }
}

/// What a source is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Fluent Forward over TCP, a unix socket, or both.
    Forward(forward::Config),
    /// Lines of stdin or of a file.
    Lines(lines::Config),
    /// Text or JSON over TCP.
    Tcp(tcp::Config),
    /// Lines of many files, as they grow.
    Tail(lines::tail::Config),
    /// The same record over and over.
    Dummy(dummy::Config),
}

impl Kind {
    /// As `type` in the configuration.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Lines(_) => "lines",
            Self::Tcp(_) => "tcp",
            Self::Tail(_) => "tail",
            Self::Dummy(_) => "dummy",
        }
    }
}

/// Why a source cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// A socket cannot be bound.
    #[error("cannot bind {what}")]
    Bind {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers on the unix socket.
    #[error("{} is in use by another process", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The path of the unix socket is taken by something else, which is not ours to remove.
    #[error("{} exists and is not a socket", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A file of the TLS settings does not hold what it should.
    #[error("{}: {why}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An input file cannot be opened.
    #[error("cannot read {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a running source ended before its time.
#[derive(Debug, Error)]
pub enum RunError {
    /// A listener cannot be used.
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    /// An input cannot be read any further.
    #[error("cannot read {what}")]
    Read {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// How often sources of lines look for what filters hold back and nothing follows.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The moments of these looks.
fn looks() -> tokio::time::Interval {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks
}

/// A source that is ready to run.
#[derive(Debug)]
pub enum Bound {
    /// Listening.
    Forward(forward::Bound),
    /// Open.
    Lines(lines::Bound),
    /// Listening.
    Tcp(tcp::Bound),
    /// Ready to look for files.
    Tail(lines::tail::Bound),
    /// Needs nothing.
    Dummy,
}

/// Reads what the source's settings name and nothing else would look at before [`bind`]: the files of TLS.
///
/// # Errors
/// A file does not hold what it should.
pub fn verify(config: &Config) -> Result<(), BindError> {
    match &config.kind {
        Kind::Forward(config) => forward::verify(config),
        Kind::Lines(_) | Kind::Tcp(_) | Kind::Tail(_) | Kind::Dummy(_) => Ok(()),
    }
}

/// Opens the source's sockets and files. Peers can connect from here on; they are served by [`run`].
///
/// # Errors
/// A socket or a file cannot be opened.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    match &config.kind {
        Kind::Forward(config) => forward::bind(config).map(Bound::Forward),
        Kind::Lines(config) => lines::bind(config).map(Bound::Lines),
        Kind::Tcp(config) => tcp::bind(config).map(Bound::Tcp),
        Kind::Tail(config) => lines::tail::bind(config).map(Bound::Tail),
        Kind::Dummy(_) => Ok(Bound::Dummy),
    }
}

/// Reads the source to its end: of its inputs, or, when `draining` turns true, of what still comes: until all peers are gone or nothing
/// came for `quiet`. To end it at once, drop the future. Followed files are read on from `resume`, if they are known.
///
/// # Errors
/// An input failed in a way that does not pass.
pub async fn run<I: Intakes>(
    kind: Kind,
    bound: Bound,
    intakes: I,
    draining: watch::Receiver<bool>,
    quiet: Duration,
    resume: Vec<Position>,
) -> Result<(), RunError> {
    match (kind, bound) {
        (Kind::Forward(config), Bound::Forward(bound)) => forward::run(config, bound, intakes, draining, quiet).await,
        (Kind::Lines(config), Bound::Lines(bound)) => lines::run(config, bound, intakes, draining, quiet, resume).await,
        (Kind::Tcp(config), Bound::Tcp(bound)) => tcp::run(config, bound, intakes, draining, quiet).await,
        (Kind::Tail(config), Bound::Tail(bound)) => lines::tail::run(config, bound, intakes, draining, resume).await,
        (Kind::Dummy(config), Bound::Dummy) => dummy::run(config, intakes, draining).await,
        (Kind::Forward(_) | Kind::Lines(_) | Kind::Tcp(_) | Kind::Tail(_) | Kind::Dummy(_), _) => {
            unreachable!("a source runs on what was bound for it")
        }
    }
}

/// The way of one connection, file or stream into the pipeline. Behind it: [`process::Intake`]; tests write down what comes.
pub trait Intake: Send + 'static {
    /// Takes a chunk in; waits while there is no room.
    fn submit(&mut self, chunk: Chunk) -> impl Future<Output = Submitted> + Send;
    /// Passes on what is held back in wait of more: nothing comes any more.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
    /// Passes on what has been held back for too long; `now_ns` in nanoseconds since 1970 UTC.
    fn flush_partials(&mut self, now_ns: i64) -> impl Future<Output = ()> + Send;
    /// Counts a frame that could not be read.
    fn lose_frame(&self, kind: FrameErrorKind);
    /// Counts records that were cut to a limit of the source's.
    fn truncate(&self, records: u64);
}

/// Makes the intakes of one source.
pub trait Intakes: Send + Sync + 'static {
    /// What it makes.
    type Intake: Intake;
    /// The way in for one more connection, file or stream.
    fn intake(&self) -> Self::Intake;
    /// How far the journal is durable, for acknowledgements.
    fn durable(&self) -> Durable;
    /// The source's number.
    fn source(&self) -> SourceId;
    /// The acknowledgements of these messages are written.
    fn acknowledged(&self, _messages: &[ChunkKey]) {}
    /// The acknowledgements of these messages, which are in blocks below `after`, did not arrive, as far as we know.
    fn unacknowledged(&self, _messages: &[ChunkKey], _after: Sequence) {}
    /// Counts a connection that was closed at once because there are too many.
    fn refuse_connection(&self) {}
}

impl Intake for process::Intake {
    fn submit(&mut self, chunk: Chunk) -> impl Future<Output = Submitted> + Send {
        self.submit(chunk)
    }

    fn finish(&mut self) -> impl Future<Output = ()> + Send {
        self.finish()
    }

    fn flush_partials(&mut self, now_ns: i64) -> impl Future<Output = ()> + Send {
        self.flush_partials(now_ns)
    }

    fn lose_frame(&self, kind: FrameErrorKind) {
        self.lose_frame(kind);
    }

    fn truncate(&self, records: u64) {
        self.truncate(records);
    }
}

impl Intakes for process::Intakes {
    type Intake = process::Intake;

    fn intake(&self) -> process::Intake {
        self.intake()
    }

    fn durable(&self) -> Durable {
        self.durable()
    }

    fn source(&self) -> SourceId {
        self.source()
    }

    fn acknowledged(&self, messages: &[ChunkKey]) {
        self.repeats().acknowledged(messages);
    }

    fn unacknowledged(&self, messages: &[ChunkKey], after: Sequence) {
        self.repeats().unacknowledged(messages, after);
    }

    fn refuse_connection(&self) {
        self.ledger().refuse_connection();
    }
}

/// Nanoseconds since 1970 UTC; read once a chunk.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
