//! One connection to a peer: the handshake from the client's side, messages, acknowledgements.
//!
//! ```text
//! peer  ["HELO", {"nonce", "auth" (empty without users), "keepalive"}]
//! us    ["PING", hostname, salt, hex(sha512(salt + hostname + nonce + key)), user, hex(sha512(auth + user + password))]
//! peer  ["PONG", ok, reason, its hostname, hex(sha512(salt + its hostname + nonce + key))]
//! ```
//!
//! What the peer says is read up to [`ANSWER_BYTES_MAX`]. Its reasons are not repeated in our messages.

use std::io;

use sha2::{Digest as _, Sha512};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::crypto::aws_lc_rs;

use crate::decode::msgpack::{Fault, Reader, Token, head};
use crate::sink::aws::{Failure, Kind};

use super::pack::{Message, put_text};
use super::{Address, Config};

/// The largest answer of a peer: a handshake or an acknowledgement, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Bytes of our salt.
const SALT_BYTES: usize = 16;

pub(super) struct Connection {
    stream: Stream,
    /// What was read beyond the last answer.
    read: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Connects, and shakes hands if there is a key.
    pub(super) async fn open(config: &Config, hostname: &str) -> Result<Self, Failure> {
        let connecting = async {
            Ok::<_, io::Error>(match &config.address {
                Address::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Stream::Tcp(stream)
                }
                Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            })
        };
        let stream = connecting.await.map_err(|error| transient("connecting", &error))?;
        let mut connection = Self { stream, read: Vec::new() };
        if config.shared_key.is_some() {
            connection.shake_hands(config, hostname).await?;
        }
        Ok(connection)
    }

    /// Whether the peer has not closed it.
    pub(super) fn is_alive(&self) -> bool {
        let mut byte = [0];
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut byte),
            Stream::Unix(stream) => stream.try_read(&mut byte),
        };
        // Nothing is asked for, so there is nothing to read: bytes are as bad as an end.
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a message, and waits for its acknowledgement if that is asked for.
    pub(super) async fn send(&mut self, message: &Message, requires_ack: bool) -> Result<(), Failure> {
        self.write(&message.bytes).await.map_err(|error| transient("sending", &error))?;
        while requires_ack {
            let answer = self.answer().await.map_err(|error| transient("waiting for the acknowledgement", &error))?;
            // One of a message whose answer was not waited for is passed over.
            if acknowledged(&answer) == Some(message.chunk.as_bytes()) {
                break;
            }
        }
        Ok(())
    }

    async fn shake_hands(&mut self, config: &Config, hostname: &str) -> Result<(), Failure> {
        let io = |error: io::Error| transient("shaking hands", &error);
        let key = config.shared_key.as_ref().map(|key| &*key.0).unwrap_or_default();
        let answer = self.answer().await.map_err(io)?;
        let Some((nonce, auth)) = helo(&answer) else { return Err(refused("the peer does not begin with HELO")) };
        let mut salt = [0; SALT_BYTES];
        if aws_lc_rs::default_provider().secure_random.fill(&mut salt).is_err() {
            return Err(Failure::setup("the system has no random numbers"));
        }
        let user = config.user.as_ref();
        let (name, password) = user.map_or((&b""[..], &b""[..]), |(name, password)| (name.as_bytes(), &*password.0));
        let password = if auth.is_empty() { Vec::new() } else { hex_sha512(&[auth, name, password]) };
        let mut ping = vec![0x96];
        let digest = hex_sha512(&[&salt, hostname.as_bytes(), nonce, key]);
        for text in [&b"PING"[..], hostname.as_bytes(), &salt, &digest, name, &password] {
            put_text(text, &mut ping);
        }
        self.write(&ping).await.map_err(io)?;
        let pong = self.answer().await.map_err(io)?;
        match pong_digest(&pong) {
            Some((peer, digest)) if digest == hex_sha512(&[&salt, peer, nonce, key]) => Ok(()),
            Some(_) => Err(refused("the peer does not know the shared key")),
            None => Err(refused("the peer refuses the shared key, the user or the password")),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    /// The peer's next message, whole.
    async fn answer(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = end_of_message(&self.read)? {
                let rest = self.read.split_off(end);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            if self.read.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("the peer's answer is too long"));
            }
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read_buf(&mut self.read).await?,
                Stream::Unix(stream) => stream.read_buf(&mut self.read).await?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Where the first message ends, if all of it is there.
fn end_of_message(bytes: &[u8]) -> io::Result<Option<usize>> {
    let (mut at, mut pending) = (0_usize, 1_u64);
    while pending > 0 {
        let Some(rest) = bytes.get(at..) else { return Ok(None) };
        let (length, children) = match head(rest) {
            Ok(head) => head,
            Err(Fault::Short) => return Ok(None),
            Err(Fault::Reserved) => return Err(io::Error::other("the peer's answer is no MessagePack")),
        };
        at = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        pending = (pending - 1).saturating_add(children);
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Nonce and salt for passwords of a HELO.
fn helo(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(answer);
    let (Ok(Token::Array(2..)), Ok(Token::Text(b"HELO"))) = (reader.token(), reader.token()) else { return None };
    let Ok(Token::Map(pairs)) = reader.token() else { return None };
    let (mut nonce, mut auth) = (None, &b""[..]);
    for _ in 0..pairs {
        let Ok(Token::Text(name)) = reader.token() else { return None };
        match (name, reader.token().ok()?) {
            (b"nonce", Token::Text(text)) => nonce = Some(text),
            (b"auth", Token::Text(text)) => auth = text,
            (_, Token::Array(1..) | Token::Map(1..)) => return None,
            _ => {}
        }
    }
    Some((nonce?, auth))
}

/// The peer's name and digest in a PONG that lets us in.
fn pong_digest(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(answer);
    let (Ok(Token::Array(5..)), Ok(Token::Text(b"PONG"))) = (reader.token(), reader.token()) else { return None };
    let (Ok(Token::Bool(true)), Ok(_reason)) = (reader.token(), reader.token()) else { return None };
    match (reader.token(), reader.token()) {
        (Ok(Token::Text(peer)), Ok(Token::Text(digest))) => Some((peer, digest)),
        _ => None,
    }
}

/// The chunk that an acknowledgement is for.
fn acknowledged(answer: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(answer);
    let Ok(Token::Map(1..)) = reader.token() else { return None };
    match (reader.token(), reader.token()) {
        (Ok(Token::Text(b"ack")), Ok(Token::Text(chunk))) => Some(chunk),
        _ => None,
    }
}

fn hex_sha512(parts: &[&[u8]]) -> Vec<u8> {
    let digest = parts.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part)).finalize();
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 0x0f)];
    digest.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

fn transient(what: &str, error: &io::Error) -> Failure {
    Failure::new(Kind::Transient, format!("{what}: {error}"))
}

/// What an operator puts right, here or there.
fn refused(what: &str) -> Failure {
    Failure::new(Kind::Credentials, what)
}
