//! What objects are called.
//!
//! ```text
//! Sequence   PREFIX + INSTANCE-SINK-FIRST[-N].ndjson[.gz|.zst]    FIRST: sequence number of the block that began it, 16 hex
//!                                                                digits; N: its first record's place in that block, unless 0
//! Firehose   PREFIX + STREAM-1-YYYY-MM-DD-HH-MM-SS-UUID           with the time of arrival, as Firehose names its objects
//! Whole      KEY[-objectUUID]                                    the template is all; for keys as Fluent Bit makes them
//! ```
//!
//! Names by sequence and whole keys follow from the first record alone, so an object that comes back after a restart would be
//! called the same. `{uuid}` is 8 of `0-9A-Za-z`, a hash of instance, sink and first record; `{index}` is the place of the first
//! record as one number: it rises from object to object, with gaps, as long as the journal's directory lives.
//!
//! A whole key without either gets `-object` and the 8 characters, as Fluent Bit appends them to objects that it puts whole,
//! unless it is told that the path is fixed. Names of objects that turn out to be taken, as they will be then, are made
//! further ones, see [`Identity::further_key`](super::object::Identity::further_key).

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::journal::Place;
use crate::sink::template::{ObjectName, Scope, Template, calendar, path_component};

use super::Compression;

/// How an object is called within its prefix.
#[derive(Clone, Debug, PartialEq)]
pub enum Naming {
    /// `STEM-FIRST[-N].ndjson[.gz|.zst]`; the same first record makes the same name.
    Sequence {
        /// Distinct for each sink of each process; a path component.
        stem: Box<str>,
    },
    /// `STREAM-1-YYYY-MM-DD-HH-MM-SS-UUID` with the time of arrival, as Firehose names its objects.
    Firehose {
        /// The stream; a path component.
        stream: Box<str>,
    },
    /// The template is the whole key; its dates are those of the object's first record.
    Whole {
        /// Distinct for each sink of each process.
        seed: Box<str>,
        /// Whether keys without `{uuid}` and `{index}` get no end of their own.
        is_fixed: bool,
    },
}

impl Naming {
    /// Names made of the process's instance and the sink's name.
    pub fn sequence(instance: &str, sink: &str) -> Self {
        let mut stem = String::new();
        path_component(instance, &mut stem);
        stem.push('-');
        path_component(sink, &mut stem);
        Self::Sequence { stem: stem.into() }
    }

    /// Whole keys. `is_fixed`: nothing is appended to them.
    pub fn whole(instance: &str, sink: &str, is_fixed: bool) -> Self {
        Self::Whole { seed: format!("{instance}\0{sink}").into(), is_fixed }
    }

    /// The object's own name, after its prefix; nothing for whole keys.
    pub(super) fn name(&self, first: Place, arrival_ms: i64, compression: Compression) -> String {
        let mut name = String::new();
        let written = match self {
            Self::Sequence { stem } => {
                let Place { sequence, record } = first;
                let record = if record == 0 { String::new() } else { format!("-{record}") };
                write!(name, "{stem}-{sequence:016x}{record}.ndjson{}", compression.suffix())
            }
            Self::Firehose { stream } => {
                let date = calendar(arrival_ms);
                let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
                let (hour, minute, second) = date.time().as_hms();
                let random = fastrand::u128(..);
                write!(
                    name,
                    "{stream}-1-{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}-{}{}",
                    uuid(random),
                    compression.suffix(),
                )
            }
            Self::Whole { .. } => Ok(()),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
        name
    }
}

/// A whole key, for an object that begins with that record.
pub(super) fn whole_key(template: &Template, seed: &str, is_fixed: bool, scope: &Scope<'_>, first: Place) -> String {
    let name = ObjectName { uuid: characters(seed, first).into(), index: index(first) };
    let mut key = String::new();
    template.render_object(scope, &name, &mut key);
    if !is_fixed && !template.names_objects() {
        key.push_str("-object");
        key.push_str(&name.uuid);
    }
    key
}

/// A number that rises with the place of a record. No block has a million records.
fn index(first: Place) -> u64 {
    first.sequence << 20 | u64::from(first.record & 0xf_ffff)
}

/// 8 characters that the record and the process's instance determine.
fn characters(seed: &str, first: Place) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let digest = Sha256::new()
        .chain_update(seed.as_bytes())
        .chain_update(first.sequence.to_le_bytes())
        .chain_update(first.record.to_le_bytes())
        .finalize();
    let mut number = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    (0..8)
        .map(|_| {
            let character = ALPHABET[(number % 62) as usize];
            number /= 62;
            char::from(character)
        })
        .collect()
}

/// A random UUID (version 4).
fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
