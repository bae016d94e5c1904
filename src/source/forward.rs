//! The Fluent Forward source: TCP and unix socket listeners, UDP heartbeat, handshake, TLS.
//!
//! Protocol: Fluentd's Forward Protocol Specification v1 (and v1.5 additions as fluentd reads them).

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::redact::Secret;

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
