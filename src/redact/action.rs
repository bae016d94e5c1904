//! What becomes of one query string, and of each of its parameters, under each policy.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::quotes::OPENING;
use super::{Parameters, Policy, mark};

/// A parameter name longer than this is a value in disguise.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of the digest that a hashed value shows, as hexadecimal: 64 bits keep distinct values apart in any one log.
const DIGEST_BYTES: usize = 8;
/// Bytes of the check behind it: by chance one value in 2^32 that looks like our own hash passes as one.
const CHECK_BYTES: usize = 4;
/// What a masked value reads, and a secret.
pub(super) const MASK: &[u8] = b"***";

/// What becomes of one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    Strip,
    Keep,
    Mask,
    Hash,
}

/// A [`Policy`] and the rules for single parameters, ready for use.
#[derive(Clone)]
pub(super) struct Action {
    /// Of parameters that are not named.
    default: Treatment,
    /// The first that fits counts.
    named: Box<[(Box<[u8]>, Treatment)]>,
    hmac: Option<Box<Hmac<Sha256>>>,
}

impl Action {
    pub fn new(policy: &Policy, parameters: &Parameters) -> Self {
        let mut named = Vec::new();
        let mut name = |names: &[String], treatment: Treatment| {
            named.extend(names.iter().map(|name| {
                // A name that cannot be shown would not be known again, and its value would be another parameter's.
                let is_shown = treatment == Treatment::Keep || is_shown(name.as_bytes());
                (name.as_bytes().into(), if is_shown { treatment } else { Treatment::Strip })
            }));
        };
        name(&parameters.strip, Treatment::Strip);
        name(&parameters.mask, Treatment::Mask);
        name(&parameters.hash, Treatment::Hash);
        name(&parameters.keep, Treatment::Keep);
        let default = match policy {
            Policy::Strip => Treatment::Strip,
            Policy::Keep(names) if names.is_empty() => Treatment::Keep,
            // What is not listed goes.
            Policy::Keep(names) => {
                name(names, Treatment::Keep);
                Treatment::Strip
            }
            Policy::Mask => Treatment::Mask,
            Policy::Hash { .. } => Treatment::Hash,
        };
        let key = match policy {
            Policy::Hash { key } => Some(key),
            _ => parameters.key.as_ref(),
        };
        // HMAC takes keys of any length. Were it not so, or were there no key, masking is what shows less.
        let hmac = key.and_then(|key| Hmac::new_from_slice(&key.0).ok()).map(Box::new);
        Self { default, named: named.into(), hmac }
    }

    /// Whether nothing happens to any query.
    pub fn is_off(&self) -> bool {
        self.default == Treatment::Keep && self.named.is_empty()
    }

    /// Whether a query goes as a whole, its mark with it.
    ///
    /// Behind an encoded `?` it always does: which of its separators are encoded, and how often, is anyone's guess.
    pub fn removes(&self, plain: bool) -> bool {
        !plain || (self.default == Treatment::Strip && self.named.is_empty())
    }

    /// Appends what is left of a query, its `?` in front; nothing if nothing is left.
    pub fn write(&self, plain: bool, query: &[u8], out: &mut Vec<u8>) {
        if self.removes(plain) {
            return;
        }
        let start = out.len();
        out.push(b'?');
        self.write_parameters(query, b'&', out);
        if out.len() == start + 1 {
            out.truncate(start);
        }
    }

    /// Appends what is left of the parameters of a query, or of a path's segment.
    pub fn write_parameters(&self, query: &[u8], separator: u8, out: &mut Vec<u8>) {
        let start = out.len();
        for parameter in query.split(|&byte| byte == separator).filter(|parameter| !parameter.is_empty()) {
            let before = out.len();
            if before > start {
                out.push(separator);
            }
            if !self.write_parameter(parameter, out) {
                out.truncate(before);
            }
        }
    }

    /// Appends what is left of the value of the parameter of that name.
    pub fn write_value(&self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        match self.treatment_of(name).0 {
            Treatment::Keep => out.extend_from_slice(value),
            Treatment::Strip => {}
            Treatment::Mask => out.extend_from_slice(MASK),
            Treatment::Hash => self.write_hash(value, out),
        }
    }

    /// Whether the parameter of that name keeps its value.
    pub fn keeps(&self, name: &[u8]) -> bool {
        self.treatment_of(name).0 == Treatment::Keep
    }

    fn write_parameter(&self, parameter: &[u8], out: &mut Vec<u8>) -> bool {
        // What has no `=` may be a token as well as a name, and is taken for a value.
        let (name, value) = match memchr::memchr(b'=', parameter) {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (&parameter[..0], parameter),
        };
        let kept = if self.named.is_empty() { parameter } else { kept_part(parameter) };
        let (treatment, listed) = self.treatment_of(kept.split(|byte| *byte == b'=').next().unwrap_or_default());
        let is_bare = name.is_empty();
        let treatment = if is_bare && treatment != Treatment::Keep { self.default } else { treatment };
        // A listed name is shown as it was listed, so that it is known again.
        let name = listed.filter(|_| !is_bare).unwrap_or(name);
        match treatment {
            Treatment::Strip => return false,
            Treatment::Keep => {
                let kept = kept_part(parameter);
                out.extend_from_slice(kept);
                return !kept.is_empty();
            }
            Treatment::Mask => {
                write_name(name, out);
                out.extend_from_slice(MASK);
            }
            Treatment::Hash => {
                write_name(name, out);
                self.write_hash(value, out);
            }
        }
        true
    }

    /// What becomes of a parameter, and its name in the list if it stands in one.
    fn treatment_of(&self, name: &[u8]) -> (Treatment, Option<&[u8]>) {
        if self.named.is_empty() {
            return (self.default, None);
        }
        let is = |(listed, treatment): &&(Box<[u8]>, Treatment)| match treatment {
            // What is kept is what was listed, to the letter.
            Treatment::Keep => **listed == *name,
            _ => is_same_name(name, listed),
        };
        match self.named.iter().find(is) {
            Some((listed, treatment)) => (*treatment, Some(listed)),
            // A name that hides what it is may be a listed one.
            None if self.default == Treatment::Keep && !name.iter().all(is_plain) => (Treatment::Strip, None),
            None => (self.default, None),
        }
    }

    fn write_hash(&self, value: &[u8], out: &mut Vec<u8>) {
        match &self.hmac {
            Some(hmac) => write_hash(hmac, value, out),
            None => out.extend_from_slice(MASK),
        }
    }
}

/// Whether a name reads as the listed one, in any case and however often percent-encoded.
fn is_same_name(name: &[u8], listed: &[u8]) -> bool {
    let mut at = 0;
    let mut next = || {
        let byte = *name.get(at)?;
        at += 1;
        if byte != b'%' {
            return Some(byte);
        }
        while name[at..].starts_with(b"25") {
            at += 2;
        }
        let digit = |at: usize| char::from(*name.get(at)?).to_digit(16);
        match (digit(at), digit(at + 1)) {
            (Some(high), Some(low)) => {
                at += 2;
                Some((high * 16 + low) as u8)
            }
            _ => Some(byte),
        }
    };
    listed.iter().all(|byte| next().is_some_and(|other| other.eq_ignore_ascii_case(byte))) && next().is_none()
}

/// Whether a name is one, and not a value in disguise.
fn is_shown(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX && name.iter().all(is_plain)
}

/// Bytes that names of parameters are made of.
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~[]*:$@".contains(byte)
}

/// Appends a name and its `=`; a name that may hide a value is masked as one.
fn write_name(name: &[u8], out: &mut Vec<u8>) {
    if name.is_empty() {
        return;
    }
    let shown = if is_shown(name) { name } else { MASK };
    out.extend_from_slice(shown);
    out.push(b'=');
}

/// What is kept of a parameter: its value ends where another parameter or query might begin (`;`, an escape, a quote, a mark):
/// what follows was not asked for.
fn kept_part(parameter: &[u8]) -> &[u8] {
    let end = parameter.iter().position(|byte| b";\\\"'`#".contains(byte)).unwrap_or(parameter.len());
    let end = mark::find(&parameter[..end], 0).map_or(end, |mark| mark.start);
    // Ends that make a quote behind them look like the beginning of a string: a second redaction would read on.
    let end = parameter[..end].iter().rposition(|byte| !OPENING.contains(byte)).map_or(0, |last| last + 1);
    &parameter[..end]
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
