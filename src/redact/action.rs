//! What becomes of one query string under each policy.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::quotes::OPENING;
use super::{Policy, mark};

/// A parameter name longer than this is a value in disguise.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of the digest that a hashed value shows, as hexadecimal: 64 bits keep distinct values apart in any one log.
const DIGEST_BYTES: usize = 8;
/// Bytes of the check behind it: by chance one value in 2^32 that looks like our own hash passes as one.
const CHECK_BYTES: usize = 4;
/// What a masked value reads.
const MASK: &[u8] = b"***";

/// A [`Policy`], ready for use.
#[derive(Clone)]
pub(super) enum Action {
    Off,
    Strip,
    Keep(Box<[Box<[u8]>]>),
    Mask,
    Hash(Box<Hmac<Sha256>>),
}

impl Action {
    pub fn new(policy: &Policy) -> Self {
        match policy {
            Policy::Strip => Self::Strip,
            Policy::Keep(names) if names.is_empty() => Self::Off,
            Policy::Keep(names) => Self::Keep(names.iter().map(|name| name.as_bytes().into()).collect()),
            Policy::Mask => Self::Mask,
            Policy::Hash { key } => match Hmac::new_from_slice(&key.0) {
                Ok(hmac) => Self::Hash(Box::new(hmac)),
                // HMAC takes keys of any length. Were it not so, masking is what shows less.
                Err(_) => Self::Mask,
            },
        }
    }

    /// Whether a query goes as a whole, its mark with it.
    ///
    /// Behind an encoded `?` it always does: which of its separators are encoded, and how often, is anyone's guess.
    pub fn removes(&self, plain: bool) -> bool {
        !plain || matches!(self, Self::Strip)
    }

    /// Appends what is left of a query, its `?` in front; nothing if nothing is left.
    pub fn write(&self, plain: bool, query: &[u8], out: &mut Vec<u8>) {
        if self.removes(plain) {
            return;
        }
        let start = out.len();
        out.push(b'?');
        self.write_parameters(query, out);
        if out.len() == start + 1 {
            out.truncate(start);
        }
    }

    /// Appends what is left of the parameters of a query.
    pub fn write_parameters(&self, query: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        for parameter in query.split(|&byte| byte == b'&').filter(|parameter| !parameter.is_empty()) {
            let before = out.len();
            if before > start {
                out.push(b'&');
            }
            if !self.write_parameter(parameter, out) {
                out.truncate(before);
            }
        }
    }

    fn write_parameter(&self, parameter: &[u8], out: &mut Vec<u8>) -> bool {
        // What has no `=` may be a token as well as a name, and is taken for a value.
        let (name, value) = match memchr::memchr(b'=', parameter) {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (&parameter[..0], parameter),
        };
        match self {
            Self::Off => out.extend_from_slice(parameter),
            Self::Strip => return false,
            Self::Keep(names) => return write_kept(names, parameter, out),
            Self::Mask => {
                write_name(name, out);
                out.extend_from_slice(MASK);
            }
            Self::Hash(hmac) => {
                write_name(name, out);
                write_hash(hmac, value, out);
            }
        }
        true
    }
}

/// Appends a name and its `=`; a name that may hide a value is masked as one.
fn write_name(name: &[u8], out: &mut Vec<u8>) {
    if name.is_empty() {
        return;
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~[]*:$@".contains(byte);
    let shown = if name.len() <= NAME_BYTES_MAX && name.iter().all(is_plain) { name } else { MASK };
    out.extend_from_slice(shown);
    out.push(b'=');
}

/// Appends a parameter if it is listed. Its value ends where another parameter or query might begin (`;`, an escape, a
/// quote, a mark): what follows was not asked for.
fn write_kept(names: &[Box<[u8]>], parameter: &[u8], out: &mut Vec<u8>) -> bool {
    let end = parameter.iter().position(|byte| b";\\\"'`#".contains(byte)).unwrap_or(parameter.len());
    let end = mark::find(&parameter[..end], 0).map_or(end, |mark| mark.start);
    // Ends that make a quote behind them look like the beginning of a string: a second redaction would read on.
    let end = parameter[..end].iter().rposition(|byte| !OPENING.contains(byte)).map_or(0, |last| last + 1);
    let kept = &parameter[..end];
    let name = kept.split(|&byte| byte == b'=').next().unwrap_or_default();
    let listed = names.iter().any(|listed| **listed == *name);
    if listed {
        out.extend_from_slice(kept);
    }
    listed
}

/// Appends `~` and 24 hexadecimal digits: 16 of the value's HMAC-SHA256, and 8 that prove that this key made those 16.
///
/// The proof makes a second redaction recognise its own work, and nothing else: who sends a value of that form cannot know
/// the key, so the value is hashed like any other.
fn write_hash(hmac: &Hmac<Sha256>, value: &[u8], out: &mut Vec<u8>) {
    if is_hash(hmac, value) {
        out.extend_from_slice(value);
        return;
    }
    let digest: [u8; 32] = hmac.clone().chain_update(b"value\0").chain_update(value).finalize().into_bytes().into();
    out.push(b'~');
    let start = out.len();
    write_hex(&digest[..DIGEST_BYTES], out);
    let check = check(hmac, &out[start..]);
    write_hex(&check, out);
}

fn is_hash(hmac: &Hmac<Sha256>, value: &[u8]) -> bool {
    let Some(digits) = value.strip_prefix(b"~") else { return false };
    if digits.len() != 2 * (DIGEST_BYTES + CHECK_BYTES) {
        return false;
    }
    let (digest, shown) = digits.split_at(2 * DIGEST_BYTES);
    let mut expected = [0; 2 * CHECK_BYTES];
    for (pair, byte) in expected.chunks_exact_mut(2).zip(check(hmac, digest)) {
        pair.copy_from_slice(&hex(byte));
    }
    shown == expected
}

fn check(hmac: &Hmac<Sha256>, digits: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: [u8; 32] = hmac.clone().chain_update(b"check\0").chain_update(digits).finalize().into_bytes().into();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.extend_from_slice(&hex(byte));
    }
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    [digit(byte >> 4), digit(byte & 15)]
}
