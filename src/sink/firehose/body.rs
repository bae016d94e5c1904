//! The request body of `PutRecordBatch` in AWS JSON 1.1, framed straight from the blocks.
//!
//! `{"DeliveryStreamName":"…","Records":[{"Data":"…base64…"},…]}`

use std::io::Write as _;
use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::batch::{Batch, Joined};
use crate::sink::s3::compress::GZIP_LEVEL_DEFAULT;

/// Bytes of an entry beside its data: `{"Data":""},`.
pub(super) const ENTRY_FRAME_BYTES: usize = 12;

/// Bytes of a body beside its entries, at most: a stream's name has at most 64 characters.
pub(super) const HEAD_BYTES_MAX: usize = 128;

/// What gzip adds to data that it cannot make smaller, at most: its frame, and 5 bytes for each 16 KiB.
pub(super) const GZIP_BYTES_MAX: usize = 512;

/// A finished body, and where each entry stands in it.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// One past `[`.
    head: usize,
    entries: Vec<Range<usize>>,
}

/// The body for those records of a batch.
pub(super) fn frame(stream: &str, batch: &Batch, records: &[Joined], is_gzip: bool) -> Body {
    let data: usize = records.iter().map(|record| record.bytes.div_ceil(3) * 4 + ENTRY_FRAME_BYTES).sum();
    let mut bytes = Vec::with_capacity(data + stream.len() + 64);
    bytes.extend_from_slice(b"{\"DeliveryStreamName\":");
    // A string is written to memory without fail.
    bytes.extend_from_slice(serde_json::Value::from(stream).to_string().as_bytes());
    bytes.extend_from_slice(b",\"Records\":[");
    let head = bytes.len();
    let mut entries = Vec::with_capacity(records.len());
    let mut scratch = Vec::new();
    for record in records {
        separate(&mut bytes, head);
        let start = bytes.len();
        bytes.extend_from_slice(b"{\"Data\":\"");
        let data = batch.data(record, &mut scratch);
        if is_gzip {
            encode(&gzip(data), &mut bytes);
        } else {
            encode(data, &mut bytes);
        }
        bytes.extend_from_slice(b"\"}");
        entries.push(start..bytes.len());
    }
    bytes.extend_from_slice(b"]}");
    Body { bytes: bytes.into(), head, entries }
}

impl Body {
    /// The body with those entries alone for which `keep` says so by place, their bytes and order as they are.
    pub(super) fn retain(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept = || self.entries.iter().enumerate().filter(|(place, _)| keep(*place)).map(|(_, entry)| entry.clone());
        let size = self.head + kept().map(|entry| entry.len() + 1).sum::<usize>() + 2;
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&self.bytes[..self.head]);
        let mut entries = Vec::new();
        for entry in kept() {
            separate(&mut bytes, self.head);
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[entry]);
            entries.push(start..bytes.len());
        }
        bytes.extend_from_slice(b"]}");
        Self { bytes: bytes.into(), head: self.head, entries }
    }
}

/// One gzip member. Equal data makes equal bytes: what is sent again is the same.
fn gzip(data: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::new(GZIP_LEVEL_DEFAULT.unsigned_abs());
    let mut encoder = flate2::GzBuilder::new().write(Vec::with_capacity(data.len() / 4 + 64), level);
    // A vector takes everything.
    let written = encoder.write_all(data).and_then(|()| encoder.finish());
    debug_assert!(written.is_ok(), "a vector takes everything");
    written.unwrap_or_default()
}

fn separate(bytes: &mut Vec<u8>, head: usize) {
    if bytes.len() > head {
        bytes.push(b',');
    }
}

fn encode(data: &[u8], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + data.len().div_ceil(3) * 4, 0);
    // The room is exactly that of the padded encoding, so there is no other error.
    let written = BASE64_STANDARD.encode_slice(data, &mut bytes[start..]).unwrap_or(0);
    debug_assert_eq!(start + written, bytes.len(), "the room for base64 is exact");
}
