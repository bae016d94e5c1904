//! JSON messages, rewritten as MessagePack, so that one decoder serves both.
//!
//! Only home-made clients and tests send JSON; a copy per chunk is cheap enough here. Keys keep their order and may repeat. Numbers beyond 64 bits
//! become floats.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;

use super::{FrameError, FrameErrorKind};

/// Rewrites whole JSON messages as MessagePack ones into `out`, which is emptied first.
///
/// # Errors
/// A message is not valid JSON, or nests deeper than 128 levels; `out` holds the messages before it.
pub fn transcode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    out.clear();
    // JSON must be UTF-8; a client that is careless about a log line loses the odd characters, not the line.
    let text = String::from_utf8_lossy(bytes);
    let mut deserializer = Deserializer::from_str(&text);
    loop {
        if deserializer.end().is_ok() {
            return Ok(());
        }
        let whole = out.len();
        if let Err(error) = Rewrite(out).deserialize(&mut deserializer) {
            out.truncate(whole);
            return Err(FrameError::at(offset(text.as_bytes(), &error), FrameErrorKind::Json));
        }
    }
}

/// Appends one JSON value as MessagePack to `out`, which is left as it was if the text is no value.
pub(super) fn append(text: &str, out: &mut Vec<u8>) -> Result<(), FrameErrorKind> {
    let whole = out.len();
    let mut deserializer = Deserializer::from_str(text);
    let read = Rewrite(out).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|_| {
        out.truncate(whole);
        FrameErrorKind::Json
    })
}

/// Where an error lies. Its message is not passed on: it could quote the log.
fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let line_start = match lines_before.checked_sub(1) {
        Some(nth) => memchr::memchr_iter(b'\n', text).nth(nth).map_or(0, |newline| newline + 1),
        None => 0,
    };
    line_start + error.column().saturating_sub(1)
}

/// Appends the value it visits.
struct Rewrite<'o>(&'o mut Vec<u8>);

impl Rewrite<'_> {
    fn head(&mut self, marker: u8, bytes: &[u8]) {
        self.0.push(marker);
        self.0.extend_from_slice(bytes);
    }

    /// Writes the head of a container whose size is not known yet.
    fn open(&mut self, marker: u8) -> usize {
        self.head(marker, &[0; 4]);
        self.0.len()
    }

    fn close(&mut self, opened: usize, count: u32) {
        self.0[opened - 4..opened].copy_from_slice(&count.to_be_bytes());
    }
}

impl<'de> DeserializeSeed<'de> for Rewrite<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rewrite<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.head(0xc0, &[]);
        Ok(())
    }

    fn visit_bool<E>(mut self, truth: bool) -> Result<(), E> {
        self.head(if truth { 0xc3 } else { 0xc2 }, &[]);
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.head(0xcf, &number.to_be_bytes());
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.head(0xd3, &number.to_be_bytes());
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.head(0xcb, &number.to_be_bytes());
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<(), E> {
        match u8::try_from(text.len()) {
            Ok(length @ 0..=31) => self.head(0xa0 | length, &[]),
            _ => {
                let length = u32::try_from(text.len()).map_err(|_| E::custom("text too long"))?;
                self.head(0xdb, &length.to_be_bytes());
            }
        }
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let opened = self.open(0xdd);
        let mut count = 0_u32;
        while elements.next_element_seed(Rewrite(self.0))?.is_some() {
            count = count.checked_add(1).ok_or_else(|| A::Error::custom("array too long"))?;
        }
        self.close(opened, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut pairs: A) -> Result<(), A::Error> {
        let opened = self.open(0xdf);
        let mut count = 0_u32;
        while pairs.next_key_seed(Rewrite(self.0))?.is_some() {
            pairs.next_value_seed(Rewrite(self.0))?;
            count = count.checked_add(1).ok_or_else(|| A::Error::custom("object too long"))?;
        }
        self.close(opened, count);
        Ok(())
    }
}
