//! The shared-key handshake, for servers that have a key.
//!
//! ```text
//! server  ["HELO", {"nonce": bin, "auth": bin (empty without users), "keepalive": true}]
//! client  ["PING", hostname, salt, hex(sha512(salt + hostname + nonce + key)), user, hex(sha512(auth + user + password))]
//! server  ["PONG", ok, reason, our hostname, hex(sha512(salt + our hostname + nonce + key))]
//! ```
//!
//! Salts and digests come as str or bin, salts with any bytes. The nonce goes out as bin: some clients (Node's) take a str for UTF-8 and then
//! compute a wrong digest. All of it in MessagePack; digests are compared in constant time.

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha512};
use thiserror::Error;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::Config;
use crate::decode::msgpack::{Reader, Token};
use crate::redact::Secret;

/// Bytes of nonce and auth salt, as in fluentd.
const SALT_BYTES: usize = 16;

/// The largest PING, in bytes: names and passwords are short.
pub(super) const PING_BYTES_MAX: usize = 16 << 10;

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    /// Not the PING we asked for: a client without a key, or not of this protocol.
    #[error("no PING")]
    NoPing,
    /// Another key.
    #[error("shared_key mismatch")]
    Key,
    /// A user we do not know, or another password.
    #[error("username/password mismatch")]
    User,
}

/// The server's side of one handshake.
pub(super) struct Handshake<'c> {
    shared_key: &'c [u8],
    users: &'c [(String, Secret)],
    hostname: &'c str,
    nonce: Vec<u8>,
    /// Empty if users are not asked for.
    auth: Vec<u8>,
}

impl<'c> Handshake<'c> {
    /// With fresh random salts; `None` if the configuration asks for no handshake, or the system has no randomness to give.
    pub(super) fn new(config: &'c Config) -> Option<Self> {
        let shared_key = config.shared_key.as_ref()?;
        let auth = if config.users.is_empty() { Vec::new() } else { random_salt() };
        Some(Self {
            shared_key: &shared_key.0,
            users: &config.users,
            hostname: &config.self_hostname,
            nonce: random_salt(),
            auth,
        })
    }

    /// What we say first.
    pub(super) fn helo(&self) -> Vec<u8> {
        packed(&("HELO", Helo { nonce: Bin(&self.nonce), auth: Bin(&self.auth), keepalive: true }))
    }

    /// Our answer to the client's PING (a whole message), and whether it is let in.
    pub(super) fn answer(&self, ping: &[u8]) -> (Vec<u8>, Result<(), Refusal>) {
        match parse(ping).ok_or(Refusal::NoPing).and_then(|ping| self.check(&ping).map(|()| ping)) {
            Ok(ping) => {
                let digest = self.key_digest(ping.salt, self.hostname.as_bytes());
                (packed(&("PONG", true, "", self.hostname, String::from_utf8_lossy(&digest))), Ok(()))
            }
            Err(refusal) => (packed(&("PONG", false, refusal.to_string(), "", "")), Err(refusal)),
        }
    }

    fn check(&self, ping: &Ping<'_>) -> Result<(), Refusal> {
        if !is_equal(&self.key_digest(ping.salt, ping.hostname), ping.key_digest) {
            return Err(Refusal::Key);
        }
        if self.users.is_empty() {
            return Ok(());
        }
        // All are compared, so that time does not tell which names exist.
        let known = self.users.iter().fold(false, |known, (name, password)| {
            let digest = hex_sha512(&[&self.auth, name.as_bytes(), &password.0]);
            known | (is_equal(name.as_bytes(), ping.user) & is_equal(&digest, ping.password_digest))
        });
        if known { Ok(()) } else { Err(Refusal::User) }
    }

    fn key_digest(&self, salt: &[u8], hostname: &[u8]) -> Vec<u8> {
        hex_sha512(&[salt, hostname, &self.nonce, self.shared_key])
    }
}

struct Ping<'a> {
    hostname: &'a [u8],
    salt: &'a [u8],
    key_digest: &'a [u8],
    user: &'a [u8],
    password_digest: &'a [u8],
}

fn parse(message: &[u8]) -> Option<Ping<'_>> {
    let mut reader = Reader::new(message);
    let Ok(Token::Array(6..)) = reader.token() else { return None };
    let mut text = || match reader.token() {
        Ok(Token::Text(text)) => Some(text),
        Ok(Token::Nil) => Some(&b""[..]),
        _ => None,
    };
    if text()? != b"PING" {
        return None;
    }
    Some(Ping { hostname: text()?, salt: text()?, key_digest: text()?, user: text()?, password_digest: text()? })
}

/// Random bytes that cannot be foreseen: an old PING must not fit.
fn random_salt() -> Vec<u8> {
    let mut salt = vec![0; SALT_BYTES];
    #[allow(clippy::expect_used, reason = "see the message; a guessable nonce would be worse than a lost connection")]
    aws_lc_rs::default_provider().secure_random.fill(&mut salt).expect("aws-lc's generator aborts rather than fails");
    salt
}

fn hex_sha512(parts: &[&[u8]]) -> Vec<u8> {
    let digest = parts.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part)).finalize();
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 0x0f)];
    digest.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// Takes as long for any two texts of the same length.
fn is_equal(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours.iter().zip(theirs).fold(0, |difference, (our, their)| difference | (our ^ their));
    ours.len() == theirs.len() && std::hint::black_box(difference) == 0
}

#[derive(Serialize)]
struct Helo<'a> {
    nonce: Bin<'a>,
    auth: Bin<'a>,
    keepalive: bool,
}

/// Bytes that go out as bin: serde's slices would be arrays of numbers.
struct Bin<'a>(&'a [u8]);

impl Serialize for Bin<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

fn packed(message: &impl Serialize) -> Vec<u8> {
    #[allow(clippy::expect_used, reason = "see the message")]
    rmp_serde::to_vec_named(message).expect("texts, bytes and booleans can be written to memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURES: [(&[u8], &[u8]); 3] = [
        (
            include_bytes!("../../../tests/data/forward-bytes/fluent-bit-shared-key.bin"),
            include_bytes!("../../../tests/data/forward-bytes/fluent-bit-shared-key.reply.bin"),
        ),
        (
            include_bytes!("../../../tests/data/forward-bytes/node-fluent-logger-shared-key.bin"),
            include_bytes!("../../../tests/data/forward-bytes/node-fluent-logger-shared-key.reply.bin"),
        ),
        (
            include_bytes!("../../../tests/data/forward-bytes/node-fluent-org-shared-key.bin"),
            include_bytes!("../../../tests/data/forward-bytes/node-fluent-org-shared-key.reply.bin"),
        ),
    ];

    fn texts(value: &rmpv::ValueRef<'_>) -> Vec<Vec<u8>> {
        let bytes = |value: &rmpv::ValueRef<'_>| match value {
            rmpv::ValueRef::String(text) => text.as_bytes().to_vec(),
            rmpv::ValueRef::Binary(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        };
        match value {
            rmpv::ValueRef::Array(elements) => elements.iter().map(bytes).collect(),
            _ => panic!("an array"),
        }
    }

    fn of_capture(reply: &[u8], shared_key: &'static [u8]) -> Handshake<'static> {
        let helo = rmpv::decode::read_value_ref(&mut &reply[..]).unwrap().to_owned();
        Handshake {
            shared_key,
            users: &[],
            hostname: "sink.local",
            nonce: helo[1]["nonce"].as_slice().unwrap().to_vec(),
            auth: Vec::new(),
        }
    }

    #[test]
    fn real_clients_are_let_in_and_answered_as_they_were() {
        for (sent, mut reply) in CAPTURES {
            let handshake = of_capture(reply, b"sesame");
            let (pong, verdict) = handshake.answer(sent);
            assert_eq!(verdict, Ok(()));
            rmpv::decode::read_value_ref(&mut reply).unwrap();
            let captured = rmpv::decode::read_value_ref(&mut reply).unwrap();
            assert_eq!(rmpv::decode::read_value_ref(&mut &pong[..]).unwrap(), captured);
        }
    }

    #[test]
    fn another_key_or_another_nonce_is_refused() {
        for (sent, reply) in CAPTURES {
            let (pong, verdict) = of_capture(reply, b"Sesame").answer(sent);
            assert_eq!(verdict, Err(Refusal::Key));
            let pong = rmpv::decode::read_value_ref(&mut &pong[..]).unwrap();
            assert_eq!(texts(&pong), [&b"PONG"[..], b"", b"shared_key mismatch", b"", b""]);
            let mut handshake = of_capture(reply, b"sesame");
            handshake.nonce[0] ^= 1;
            assert_eq!(handshake.answer(sent).1, Err(Refusal::Key));
        }
    }

    #[test]
    fn logs_without_a_ping_are_refused() {
        let handshake = of_capture(CAPTURES[0].1, b"sesame");
        for sent in [&b"\x93\xa1t\x01\x80"[..], b"", b"\xc0", b"\x96\xa4PING\xa1h", b"\x92\xa4PING\xa1h"] {
            assert_eq!(handshake.answer(sent).1, Err(Refusal::NoPing));
        }
    }
}
