//! Messages: records as MessagePack, from the JSON they are kept as.
//!
//! Containers get heads of 32 bits, whose count is set once they are read to their end: nothing is read twice.

use std::io::Write as _;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::record::json::unescape;
use crate::sink::s3::compress::GZIP_LEVEL_DEFAULT;

use super::Config;
use super::batch::Batch;

/// How deep objects and arrays may nest; sources let through less. What is deeper is nil.
const NESTING_MAX: usize = 200;

/// A message to be sent.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// What its acknowledgement holds; empty if none is asked for.
    pub(super) chunk: String,
}

/// The message with the records of a batch.
pub(super) fn message(batch: &Batch, config: &Config) -> Message {
    let mut entries = Vec::new();
    let mut text = Vec::new();
    for (entry, line) in batch.iter() {
        entries.push(0x92);
        put_time(entry.time_ns, config.time_as_integer, &mut entries);
        put_record(line, &mut text, &mut entries);
    }
    if config.is_gzip {
        entries = gzip(&entries);
    }
    let chunk = match config.requires_ack {
        true => BASE64_STANDARD.encode(fastrand::u128(..).to_le_bytes()),
        false => String::new(),
    };
    let mut bytes = Vec::with_capacity(entries.len() + batch.tag.len() + 128);
    bytes.push(0x93);
    put_text(batch.tag.as_bytes(), &mut bytes);
    bytes.push(0xc6);
    bytes.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&entries);
    bytes.push(0x81 + u8::from(config.requires_ack) + u8::from(config.is_gzip));
    put_text(b"size", &mut bytes);
    put_unsigned(batch.records() as u64, &mut bytes);
    if config.requires_ack {
        put_text(b"chunk", &mut bytes);
        put_text(chunk.as_bytes(), &mut bytes);
    }
    if config.is_gzip {
        put_text(b"compressed", &mut bytes);
        put_text(b"gzip", &mut bytes);
    }
    Message { bytes, chunk }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::new(GZIP_LEVEL_DEFAULT.unsigned_abs());
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(data.len() / 4 + 64), level);
    let written = encoder.write_all(data).and_then(|()| encoder.finish());
    debug_assert!(written.is_ok(), "a vector takes everything");
    written.unwrap_or_default()
}

/// EventTime, or whole seconds. What lies outside of 32 bits of seconds is moved to the nearest end.
fn put_time(time_ns: i64, is_integer: bool, out: &mut Vec<u8>) {
    let seconds = time_ns.div_euclid(1_000_000_000).clamp(0, i64::from(u32::MAX)) as u32;
    let nanos = time_ns.rem_euclid(1_000_000_000) as u32;
    if is_integer {
        out.push(0xce);
        out.extend_from_slice(&seconds.to_be_bytes());
    } else {
        out.extend_from_slice(&[0xd7, 0]);
        out.extend_from_slice(&seconds.to_be_bytes());
        out.extend_from_slice(&nanos.to_be_bytes());
    }
}

/// A line as a map; one that is no JSON object as the text of `log`.
fn put_record(line: &[u8], text: &mut Vec<u8>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut reader = Reader { json: line, at: 0, text };
    let is_object = reader.peek() == Some(b'{');
    if !is_object || reader.value(NESTING_MAX, out).is_none() {
        out.truncate(start);
        out.push(0x81);
        put_text(b"log", out);
        put_text(line.strip_suffix(b"\n").unwrap_or(line), out);
    }
}

struct Reader<'a> {
    json: &'a [u8],
    at: usize,
    /// Where strings are unescaped.
    text: &'a mut Vec<u8>,
}

impl Reader<'_> {
    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.json.get(self.at)?, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, nesting_left: usize, out: &mut Vec<u8>) -> Option<()> {
        match self.peek()? {
            b'{' => self.container(b'}', 0xdf, nesting_left.checked_sub(1)?, out),
            b'[' => self.container(b']', 0xdd, nesting_left.checked_sub(1)?, out),
            b'"' => self.string(out),
            b't' => self.word(b"true", 0xc3, out),
            b'f' => self.word(b"false", 0xc2, out),
            b'n' => self.word(b"null", 0xc0, out),
            _ => self.number(out),
        }
    }

    fn container(&mut self, end: u8, head: u8, nesting_left: usize, out: &mut Vec<u8>) -> Option<()> {
        self.at += 1;
        out.push(head);
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            if end == b'}' {
                self.peek().filter(|byte| *byte == b'"')?;
                self.string(out)?;
                self.expect(b':')?;
            }
            self.value(nesting_left, out)?;
            count += 1;
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                next if next == end => break,
                _ => return None,
            }
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
        Some(())
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let start = self.at + 1;
        let mut at = start;
        let end = loop {
            let found = at + memchr::memchr2(b'"', b'\\', self.json.get(at..)?)?;
            if self.json[found] == b'"' {
                break found;
            }
            at = found + 2;
        };
        self.at = end + 1;
        let inside = &self.json[start..end];
        if memchr::memchr(b'\\', inside).is_none() {
            put_text(inside, out);
        } else {
            self.text.clear();
            unescape(inside, self.text);
            put_text(self.text, out);
        }
        Some(())
    }

    fn word(&mut self, word: &[u8], byte: u8, out: &mut Vec<u8>) -> Option<()> {
        self.json[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            out.push(byte);
        })
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let rest = &self.json[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        let number = str::from_utf8(&rest[..length]).ok()?;
        self.at += length;
        if let Ok(number) = number.parse::<u64>() {
            put_unsigned(number, out);
        } else if let Ok(number) = number.parse::<i64>() {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        } else {
            out.push(0xcb);
            out.extend_from_slice(&number.parse::<f64>().ok()?.to_be_bytes());
        }
        Some(())
    }
}

/// A str; what is no UTF-8 is one all the same, as the log drivers send it.
pub(super) fn put_text(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..256 => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 256..65_536 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn put_unsigned(number: u64, out: &mut Vec<u8>) {
    match number {
        0..128 => out.push(number as u8),
        128..4_294_967_296 => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}
