//! The Fluent Forward source: TCP and unix socket listeners, UDP heartbeat, handshake, TLS.
//!
//! Protocol: Fluentd's Forward Protocol Specification v1 (and v1.5 additions as fluentd reads them).
//!
//! One task accepts; each connection has a task of its own ([`connection`]). A broken connection ends alone. When draining, listeners stay
//! open and connections are read on, until none is left or nothing has arrived for the quiet time.

mod acks;
mod connection;
mod handshake;
mod room;
mod tls;
mod unix;

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::room::Room;
use self::unix::SocketFile;
use super::listen::{ACCEPT_PAUSE, Activity, DRAIN_CHECK_INTERVAL, accept_tcp, accepted, bind_tcp, is_true, log_panic};
use super::{BindError, Intakes, RunError, now_ns};
use crate::decode::Limits;
use crate::redact::Secret;
use crate::telemetry::sparing::Sparing;

/// How long a peer may take for TLS and the handshake, and for taking a reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// A forward source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// TCP address, and UDP for heartbeats.
    pub listen: Option<SocketAddr>,
    /// Path of a unix socket.
    pub unix_path: Option<PathBuf>,
    /// Permission bits of the socket file.
    pub unix_mode: u32,
    /// The largest message, in bytes as sent.
    pub frame_bytes_max: usize,
    /// The largest body of a compressed message after decompression, in bytes.
    pub decompressed_bytes_max: usize,
    /// How deep maps and arrays of a record may nest.
    pub nesting_max: usize,
    /// Connections open at once, over all listeners of the source; more are closed at once, and counted.
    pub connections_max: usize,
    /// Asks clients for a handshake with this key.
    pub shared_key: Option<Secret>,
    /// Users (name, password) allowed in the handshake; empty = no user authentication.
    pub users: Vec<(String, Secret)>,
    /// Our name in the handshake.
    pub self_hostname: String,
    /// TLS on the TCP listener.
    pub tls: Option<Tls>,
}

/// TLS of a forward source: PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities whose client certificates are required; none = clients need none.
    pub client_ca: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: None,
            unix_path: None,
            unix_mode: 0o666,
            frame_bytes_max: 64 << 20,
            decompressed_bytes_max: 64 << 20,
            nesting_max: 32,
            connections_max: 1024,
            shared_key: None,
            users: Vec::new(),
            self_hostname: "meshlens".into(),
            tls: None,
        }
    }
}

impl Config {
    /// The bounds of a message.
    pub fn limits(&self) -> Limits {
        Limits {
            frame_bytes_max: self.frame_bytes_max,
            decompressed_bytes_max: self.decompressed_bytes_max,
            nesting_max: self.nesting_max,
        }
    }
}

/// Listening sockets.
#[derive(Debug)]
pub struct Bound {
    tcp: Option<std::net::TcpListener>,
    udp: Option<std::net::UdpSocket>,
    unix: Option<(std::os::unix::net::UnixListener, SocketFile)>,
    tls: Option<tls::Acceptor>,
}

impl Bound {
    /// The TCP address, with the port the system chose if port 0 was asked for.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

/// Reads the files of TLS.
///
/// # Errors
/// They are not what they should be.
pub fn verify(config: &Config) -> Result<(), BindError> {
    config.tls.as_ref().map(tls::acceptor).transpose().map(drop)
}

/// Binds the sockets, reads the TLS files.
///
/// # Errors
/// One of them does not serve.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let tcp = config.listen.map(bind_tcp).transpose()?;
    let udp = tcp.as_ref().and_then(bind_udp);
    let unix = match &config.unix_path {
        Some(path) => Some(unix::bind(path, config.unix_mode)?),
        None => None,
    };
    let bound = Bound { tcp, udp, unix, tls };
    if let Some(address) = bound.tcp_address() {
        tracing::info!(%address, tls = config.tls.is_some(), "forward source listens");
    }
    if let Some(path) = &config.unix_path {
        tracing::info!(path = %path.display(), "forward source listens");
    }
    Ok(bound)
}

/// Heartbeats are a courtesy: without their socket, logs still flow.
fn bind_udp(tcp: &std::net::TcpListener) -> Option<std::net::UdpSocket> {
    let listen = || {
        let socket = std::net::UdpSocket::bind(tcp.local_addr()?)?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    };
    listen().inspect_err(|error| tracing::warn!(%error, "no UDP heartbeat: cannot bind its socket")).ok()
}

/// What all connections of a source share.
struct Shared<I> {
    config: Config,
    intakes: I,
    activity: Activity,
    room: Arc<Room>,
    /// Limits the warnings of connections refused.
    refusals: Mutex<Sparing>,
    /// Turns true when connections are to end where they are.
    closing: watch::Receiver<bool>,
    /// See [`PATIENCE`]; shorter in tests.
    patience: Duration,
}

impl<I> Shared<I> {
    fn new(config: Config, intakes: I, closing: watch::Receiver<bool>, patience: Duration) -> Self {
        let room = Room::new(config.frame_bytes_max, patience);
        Self { config, intakes, activity: Activity::new(), room, refusals: Mutex::default(), closing, patience }
    }
}

/// Who is at the other end, for the log.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Tcp(SocketAddr),
    /// Unix peers have no name: the number of the connection.
    Unix(u64),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(number) => write!(f, "unix#{number}"),
        }
    }
}

/// Serves the sockets until the drain is over.
///
/// # Errors
/// The sockets cannot be used.
pub async fn run<I: Intakes>(
    config: Config,
    bound: Bound,
    intakes: I,
    mut draining: watch::Receiver<bool>,
    quiet: Duration,
) -> Result<(), RunError> {
    let tcp = bound.tcp.map(TcpListener::from_std).transpose().map_err(RunError::Listen)?;
    let udp = bound.udp.map(UdpSocket::from_std).transpose().map_err(RunError::Listen)?;
    let (unix, socket_file) = bound.unix.unzip();
    let unix = unix.map(UnixListener::from_std).transpose().map_err(RunError::Listen)?;
    let (close, closing) = watch::channel(false);
    let shared = Arc::new(Shared::new(config, intakes, closing, PATIENCE));
    // Dropped with this future, which aborts what is left of them.
    let mut heartbeats = JoinSet::new();
    if let Some(udp) = udp {
        heartbeats.spawn(answer_heartbeats(udp));
    }
    let mut connections = JoinSet::new();
    let mut accepted: u64 = 0;
    let mut is_draining = false;
    loop {
        tokio::select! {
            peer = accept_tcp(tcp.as_ref()) => if let Some((stream, address)) = peer {
                accepted += 1;
                if has_room(&connections, &shared, Peer::Tcp(address)) {
                    connections.spawn(serve_tcp(stream, address, bound.tls.clone(), shared.clone()));
                }
            },
            stream = accept_unix(unix.as_ref()) => if let Some(stream) = stream {
                accepted += 1;
                if has_room(&connections, &shared, Peer::Unix(accepted)) {
                    connections.spawn(connection::serve(stream, Peer::Unix(accepted), shared.clone()));
                }
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
    drop((tcp, unix, socket_file));
    close.send_replace(true);
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
    if let Some(refused) = shared.refusals.lock().unwrap_or_else(PoisonError::into_inner).rest() {
        tracing::warn!(refused, "connections closed: too many");
    }
    Ok(())
}

/// Whether one more connection is served. If not, one that only blocks the way is given up for the next.
fn has_room<I: Intakes>(connections: &JoinSet<()>, shared: &Shared<I>, peer: Peer) -> bool {
    let connections_max = shared.config.connections_max;
    if connections.len() < connections_max {
        return true;
    }
    shared.intakes.refuse_connection();
    shared.room.make_way();
    let mut refusals = shared.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(refused) = refusals.count(1, now_ns()) {
        tracing::warn!(%peer, connections_max, refused, "connection closed: too many");
    }
    false
}

async fn accept_unix(listener: Option<&UnixListener>) -> Option<tokio::net::UnixStream> {
    let Some(listener) = listener else { return pending().await };
    accepted(listener.accept().await).await.map(|(stream, _)| stream)
}

/// Any datagram is answered by one zero byte, as fluentd does.
async fn answer_heartbeats(socket: UdpSocket) {
    let mut datagram = [0; 64];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((_, peer)) => {
                if let Err(error) = socket.send_to(&[0], peer).await {
                    tracing::debug!(%peer, %error, "cannot answer a heartbeat");
                }
            }
            // An earlier answer that nobody took; the socket is as good as before.
            Err(error) => {
                tracing::debug!(%error, "heartbeat socket");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_tcp<I: Intakes>(
    stream: tokio::net::TcpStream,
    address: SocketAddr,
    acceptor: Option<tls::Acceptor>,
    shared: Arc<Shared<I>>,
) {
    let peer = Peer::Tcp(address);
    let Some(acceptor) = acceptor else { return connection::serve(stream, peer, shared).await };
    match timeout(shared.patience, TlsAcceptor::from(acceptor.0).accept(stream)).await {
        Ok(Ok(stream)) => Box::pin(connection::serve(stream, peer, shared)).await,
        Ok(Err(error)) => tracing::warn!(%peer, %error, "connection closed: TLS failed"),
        Err(_) => tracing::warn!(%peer, "connection closed: no TLS handshake in time"),
    }
}

/// A connection, whatever it runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
