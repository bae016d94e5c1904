//! Deterministic sampling: the same request is kept, or left out, by every process that sees it.
//!
//! A record is kept at the part `p` if `XXH64(request_id, seed 0) >> 11 < p * 2^53`. The hash is the published
//! XXH64, so that any other program can decide the same; 53 bits are what a double holds exactly, so that 0 keeps
//! none, 1 keeps all, and what is kept at `p` is kept at any greater part.
//!
//! Records without a `request_id` take the first of: `stream_id`; the log line, hashed with the event time in
//! nanoseconds as seed; the wrapping sum of the hashes of all textual values, that seed again. So a record that
//! comes twice fares the same twice.

use std::borrow::Cow;

use crate::record::{Key, Record};
use crate::route::text::{self, Text};

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// Bits of a hash that decide.
const BITS: u32 = f64::MANTISSA_DIGITS;

/// The part of the records to keep, as a bound on the hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threshold(u64);

impl Threshold {
    /// `part` is between 0 and 1.
    pub(super) fn new(part: f64) -> Self {
        // A float-to-integer cast saturates; the product is at most 2^53. Rounding up, a part that is not 0 keeps
        // something.
        Self((part * (1u64 << BITS) as f64).ceil() as u64)
    }
}

/// The hash of one record, taken when a rule first asks for it.
pub(super) struct Sample<'r, 'a> {
    record: &'r Record<'a>,
    hash: Option<u64>,
}

impl<'r, 'a> Sample<'r, 'a> {
    pub(super) fn new(record: &'r Record<'a>) -> Self {
        Self { record, hash: None }
    }

    pub(super) fn is_kept(&mut self, threshold: Threshold) -> bool {
        let hash = *self.hash.get_or_insert_with(|| record_hash(self.record));
        hash >> (u64::BITS - BITS) < threshold.0
    }
}

/// The hash that decides about a record.
pub(super) fn record_hash(record: &Record<'_>) -> u64 {
    if let Some(id) = identity(record, Key::RequestId).or_else(|| identity(record, Key::StreamId)) {
        return xxh64(&id, 0);
    }
    let seed = record.time_ns as u64;
    if let Some(line) = record.log_line() {
        return xxh64(line, seed);
    }
    let values = record.envelope.iter().chain(&record.parsed);
    values.filter_map(|field| record.bytes_of(&field.value)).fold(seed, |sum, text| sum.wrapping_add(xxh64(text, seed)))
}

/// The text of a field that identifies a request; none if it is empty.
fn identity<'r>(record: &'r Record<'_>, key: Key) -> Option<Cow<'r, [u8]>> {
    use crate::record::Value;
    let value = record.get(key)?;
    let id = match *value {
        Value::UInt(number) => Cow::Owned(number.to_string().into_bytes()),
        Value::Int(number) => Cow::Owned(number.to_string().into_bytes()),
        Value::Json(_) => text::resolve(Text::json(record.bytes_of(value)?)),
        _ => Cow::Borrowed(record.bytes_of(value)?),
    };
    (!id.is_empty()).then_some(id)
}

/// XXH64 (Yann Collet, `xxhash_spec.md`).
pub(super) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, _) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() { seed.wrapping_add(PRIME_5) } else { fold(stripes, seed) };
    hash = hash.wrapping_add(bytes.len() as u64);
    let (lanes, tail) = bytes[stripes.len() * 32..].as_chunks::<8>();
    for lane in lanes {
        hash = (hash ^ round(0, u64::from_le_bytes(*lane))).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let (words, tail) = tail.as_chunks::<4>();
    for word in words {
        let word = u64::from(u32::from_le_bytes(*word)).wrapping_mul(PRIME_1);
        hash = (hash ^ word).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
    }
    for byte in tail {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

fn fold(stripes: &[[u8; 32]], seed: u64) -> u64 {
    let mut sums = [
        seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
        seed.wrapping_add(PRIME_2),
        seed,
        seed.wrapping_sub(PRIME_1),
    ];
    for stripe in stripes {
        let (lanes, _) = stripe.as_chunks::<8>();
        for (sum, lane) in sums.iter_mut().zip(lanes) {
            *sum = round(*sum, u64::from_le_bytes(*lane));
        }
    }
    let turned = sums.iter().zip([1, 7, 12, 18]).fold(0u64, |hash, (sum, by)| hash.wrapping_add(sum.rotate_left(by)));
    sums.iter().fold(turned, |hash, sum| (hash ^ round(0, *sum)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
}

fn round(sum: u64, lane: u64) -> u64 {
    sum.wrapping_add(lane.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}
