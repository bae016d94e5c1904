//! The TCP source: text lines or JSON objects, one after the other, as Fluent Bit's `in_tcp` takes them.
//!
//! ```text
//! socket ─ read_buf ─► buffer ─ Framing ─► lines, split off without a copy; or entries, made from JSON ─► Intake::submit
//! ```
//!
//! One task accepts; each connection has a task of its own. Nothing is ever written back; a connection may rest for as long as it likes.
//! When draining, the listener stays open and connections are read on, until none is left or nothing has arrived for the quiet time.
//!
//! Memory: a connection's buffer grows with what has arrived up to [`Config::record_bytes_max`], and is given back when the connection rests; what
//! has arrived of records without their end is at most [`HALF_BYTES_MAX`] over all connections, the record that goes beyond is cut
//! (JSON: dropped), and counted.

mod framing;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::framing::{Framing, Taken};
use super::listen::{Activity, DRAIN_CHECK_INTERVAL, accept_tcp, bind_tcp, is_true, log_panic};
use super::{BindError, Intake as _, Intakes, RunError, now_ns};
use crate::chunk::Chunk;
use crate::decode::FrameErrorKind;
use crate::telemetry::sparing::Sparing;

/// Bytes asked for by one read: the first of a connection, and most. A read that is full doubles it.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// A connection that brings less than [`READ_BYTES_MIN`] at a time is read again after this pause only: what gathers in the socket
/// meanwhile makes one chunk and one block.
const GATHER_PAUSE: Duration = Duration::from_millis(5);

/// How long a connection is silent before it counts as resting; twice as long each time it rests on.
const REST_INTERVAL_MIN: Duration = Duration::from_secs(2);
const REST_INTERVAL_MAX: Duration = Duration::from_secs(64);

/// Bytes of records without their end that a source holds, over all its connections.
const HALF_BYTES_MAX: usize = 64 << 20;

/// Where nothing else is said: Fluent Bit's port, on this host alone.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5170);

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Objects, one after the other; each is a record, its members are the fields.
    Json,
    /// Text that ends with a separator; each is a record with the field `log`.
    None,
}

/// A TCP source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What the bytes are.
    pub format: Format,
    /// What ends a text; not empty.
    pub separator: Box<[u8]>,
    /// Tag of the records.
    pub tag: String,
    /// Longer texts are cut to this many bytes, larger objects dropped; both counted.
    pub record_bytes_max: usize,
    /// Connections open at once; more are closed at once, and counted.
    pub connections_max: usize,
    /// Field to add with the address of the peer.
    pub source_address_key: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ADDRESS,
            format: Format::Json,
            separator: (*b"\n").into(),
            tag: "tcp".into(),
            record_bytes_max: 1 << 20,
            connections_max: 256,
            source_address_key: None,
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Bound(std::net::TcpListener);

impl Bound {
    /// The address, with the port the system chose if port 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }
}

/// Binds the socket.
///
/// # Errors
/// It cannot be had.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let bound = Bound(bind_tcp(config.listen)?);
    if let Some(address) = bound.address() {
        tracing::info!(%address, "tcp source listens");
    }
    Ok(bound)
}

/// What all connections of a source share.
struct Shared<I> {
    config: Config,
    tag: Arc<str>,
    intakes: I,
    activity: Activity,
    /// See [`HALF_BYTES_MAX`].
    half_bytes: AtomicUsize,
    /// Limits the warnings of connections refused, and of what could not be read.
    refusals: Mutex<Sparing>,
    losses: Mutex<Sparing>,
    /// Turns true when connections are to end where they are.
    closing: watch::Receiver<bool>,
}

/// Serves the socket until the drain is over.
///
/// # Errors
/// The socket cannot be used.
pub async fn run<I: Intakes>(
    config: Config,
    bound: Bound,
    intakes: I,
    mut draining: watch::Receiver<bool>,
    quiet: Duration,
) -> Result<(), RunError> {
    let listener = TcpListener::from_std(bound.0).map_err(RunError::Listen)?;
    let (close, closing) = watch::channel(false);
    let shared = Arc::new(Shared {
        tag: config.tag.as_str().into(),
        config,
        intakes,
        activity: Activity::new(),
        half_bytes: AtomicUsize::new(0),
        refusals: Mutex::default(),
        losses: Mutex::default(),
        closing,
    });
    let mut connections = JoinSet::new();
    let mut is_draining = false;
    loop {
        tokio::select! {
            peer = accept_tcp(Some(&listener)) => if let Some((stream, peer)) = peer
                && has_room(&connections, &shared, peer)
            {
                connections.spawn(serve(stream, peer, shared.clone()));
            },
            Some(ended) = connections.join_next() => log_panic(ended),
            () = is_true(&mut draining), if !is_draining => is_draining = true,
            () = sleep(DRAIN_CHECK_INTERVAL), if is_draining => {
                if connections.is_empty() || shared.activity.is_quiet_for(quiet) {
                    break;
                }
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
    let rest = |sparing: &Mutex<Sparing>| sparing.lock().unwrap_or_else(PoisonError::into_inner).rest();
    if let Some(refused) = rest(&shared.refusals) {
        tracing::warn!(refused, "connections closed: too many");
    }
    if let Some(dropped) = rest(&shared.losses) {
        tracing::warn!(dropped, "tcp source: what was no JSON, or too large, was dropped");
    }
    Ok(())
}

fn has_room<I: Intakes>(connections: &JoinSet<()>, shared: &Shared<I>, peer: SocketAddr) -> bool {
    let connections_max = shared.config.connections_max;
    if connections.len() < connections_max {
        return true;
    }
    shared.intakes.refuse_connection();
    let mut refusals = shared.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(refused) = refusals.count(1, now_ns()) {
        tracing::warn!(%peer, connections_max, refused, "connection closed: too many");
    }
    false
}

/// What a wait for bytes came to.
enum Arrival {
    Bytes,
    End,
    /// Nothing for some seconds.
    Nothing,
}

struct Connection<'s, I> {
    stream: TcpStream,
    peer: SocketAddr,
    shared: &'s Shared<I>,
    framing: Framing,
    /// What arrived and is not yet handed on.
    buffer: BytesMut,
    /// Its part of [`Shared::half_bytes`].
    half_bytes: usize,
    read_bytes: usize,
    is_trickle: bool,
    rest_interval: Duration,
    closing: watch::Receiver<bool>,
}

impl<I> Drop for Connection<'_, I> {
    fn drop(&mut self) {
        self.shared.half_bytes.fetch_sub(self.half_bytes, Relaxed);
    }
}

/// Serves one peer until it hangs up, or we end.
async fn serve<I: Intakes>(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared<I>>) {
    shared.activity.touch();
    tracing::debug!(%peer, "connected");
    let mut connection = Connection {
        stream,
        peer,
        shared: &shared,
        framing: Framing::new(&shared.config, peer),
        buffer: BytesMut::new(),
        half_bytes: 0,
        read_bytes: READ_BYTES_MIN,
        is_trickle: false,
        rest_interval: REST_INTERVAL_MIN,
        closing: shared.closing.clone(),
    };
    let mut intake = shared.intakes.intake();
    connection.records(&mut intake).await;
    // What is held back for more pieces goes on now.
    let work = shared.activity.work();
    intake.finish().await;
    drop(work);
    tracing::debug!(%peer, "closed");
}

impl<I: Intakes> Connection<'_, I> {
    async fn records(&mut self, intake: &mut I::Intake) {
        loop {
            match self.arrival().await {
                Ok(Arrival::Bytes) => {
                    self.shared.activity.touch();
                    let taken = self.framing.take(&mut self.buffer);
                    self.submit(taken, intake).await;
                    self.count_half(intake).await;
                    if self.is_trickle {
                        sleep(GATHER_PAUSE).await;
                    }
                }
                Ok(Arrival::Nothing) => {
                    self.rest();
                    intake.flush_partials(now_ns()).await;
                }
                Ok(Arrival::End) => break,
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "connection lost");
                    break;
                }
            }
        }
        let taken = self.framing.finish(&mut self.buffer);
        self.submit(taken, intake).await;
    }

    async fn submit(&mut self, taken: Taken, intake: &mut I::Intake) {
        let shared = self.shared;
        for _ in 0..taken.broken {
            intake.lose_frame(FrameErrorKind::Json);
        }
        for _ in 0..taken.too_large {
            intake.lose_frame(FrameErrorKind::TooLarge { bytes_max: shared.config.record_bytes_max });
        }
        self.say(taken.broken + taken.too_large);
        intake.truncate(taken.truncated);
        if !taken.bytes.is_empty() {
            let chunk = Chunk {
                source: shared.intakes.source(),
                tag: shared.tag.clone(),
                is_prefix: false,
                bytes: taken.bytes,
                encoding: taken.encoding,
                received_ns: now_ns(),
                position: None,
            };
            let work = shared.activity.work();
            intake.submit(chunk).await;
            drop(work);
        }
    }

    fn say(&self, losses: u64) {
        if losses == 0 {
            return;
        }
        let mut sparing = self.shared.losses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dropped) = sparing.count(losses, now_ns()) {
            tracing::warn!(peer = %self.peer, dropped, "what is no JSON, or too large, was dropped");
        }
    }

    /// Gives the record at hand up if there is no room for all that wait for their end.
    async fn count_half(&mut self, intake: &mut I::Intake) {
        let held = self.buffer.len();
        let others = self.shared.half_bytes.fetch_add(held, Relaxed) - self.half_bytes;
        self.shared.half_bytes.fetch_sub(self.half_bytes, Relaxed);
        self.half_bytes = held;
        if others + held > HALF_BYTES_MAX && held > READ_BYTES_MIN {
            let taken = self.framing.give_up(&mut self.buffer);
            self.submit(taken, intake).await;
            self.shared.half_bytes.fetch_sub(held, Relaxed);
            self.half_bytes = 0;
        }
    }

    async fn arrival(&mut self) -> io::Result<Arrival> {
        let room = self.framing.room(self.buffer.len()).min(self.read_bytes);
        self.buffer.reserve(room);
        let mut space = (&mut self.buffer).limit(room);
        let read = tokio::select! {
            biased;
            read = self.stream.read_buf(&mut space) => read?,
            () = is_true(&mut self.closing) => return Ok(Arrival::End),
            () = sleep(self.rest_interval) => return Ok(Arrival::Nothing),
        };
        self.rest_interval = REST_INTERVAL_MIN;
        self.is_trickle = read < READ_BYTES_MIN;
        if read == self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(if read == 0 { Arrival::End } else { Arrival::Bytes })
    }

    /// Gives back what a busy time left.
    fn rest(&mut self) {
        self.read_bytes = READ_BYTES_MIN;
        self.rest_interval = (self.rest_interval * 2).min(REST_INTERVAL_MAX);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }
}
