//! Makes entries for a chunk of [`Encoding::Entries`](crate::chunk::Encoding::Entries), where a source does not get records that way.
//!
//! ```text
//! entry    0x92  nil (the chunk's time)  map32 of fields, in order
//! ```
//!
//! One copy of each record, for sources that add fields to it or that read JSON. Fields added to an entry stand behind those it has.

use super::FrameErrorKind;
use super::json::append;

/// Head of an entry: an array of two, no time, a map whose size follows.
const HEAD: [u8; 3] = [0x92, 0xc0, 0xdf];

/// The name that Fluent Bit's `in_tcp` gives to an array that stands where a record should.
const ARRAY_NAME: &[u8] = b"msg";

/// Entries being made.
#[derive(Debug, Default)]
pub struct Packer {
    bytes: Vec<u8>,
    /// Where the fields of the last entry are counted.
    count_at: usize,
}

impl Packer {
    /// Begins an entry without fields.
    pub fn begin(&mut self) {
        self.bytes.extend_from_slice(&HEAD);
        self.count_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
    }

    /// An entry with the members of a JSON object as its fields; or with an array as `msg`.
    ///
    /// # Errors
    /// It is neither, or nests deeper than 128 levels: nothing is added.
    pub fn json(&mut self, text: &[u8]) -> Result<(), FrameErrorKind> {
        let start = self.bytes.len();
        // JSON must be UTF-8; a client that is careless about a log line loses the odd characters, not the line.
        let text = String::from_utf8_lossy(text);
        if text.trim_start().starts_with('[') {
            self.begin();
            self.name(ARRAY_NAME);
        } else {
            self.bytes.extend_from_slice(&HEAD[..2]);
            self.count_at = self.bytes.len() + 1;
        }
        let value_at = self.bytes.len();
        let added = append(&text, &mut self.bytes);
        // An object is written as the same kind of map.
        let is_fields = matches!(self.bytes.get(value_at), Some(0xdd | 0xdf));
        if added.is_err() || !is_fields {
            self.bytes.truncate(start);
            return Err(FrameErrorKind::Json);
        }
        Ok(())
    }

    /// A field of the last entry.
    pub fn text(&mut self, name: &[u8], value: &[u8]) {
        self.name(name);
        self.string(value);
    }

    /// A field of the last entry.
    pub fn number(&mut self, name: &[u8], value: u64) {
        self.name(name);
        self.bytes.push(0xcf);
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entries made since; none are left.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    fn name(&mut self, name: &[u8]) {
        if let Some(count) = self.bytes.get_mut(self.count_at..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *count = u32::from_be_bytes(*count).saturating_add(1).to_be_bytes();
        }
        self.string(name);
    }

    /// Text that is not UTF-8 stays as it is, as log drivers send it.
    fn string(&mut self, text: &[u8]) {
        // Lines have a limit far below; what is beyond it could not be said in the head.
        let text = &text[..text.len().min(u32::MAX as usize)];
        self.bytes.push(0xdb);
        self.bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entries, Limits};
    use super::*;
    use crate::record::{Record, Value};

    /// The fields of each entry.
    fn fields(bytes: &[u8]) -> Vec<Vec<(&[u8], Value<'_>)>> {
        let mut entries = Entries::packed(bytes, &Limits::default());
        let mut record = Record::new();
        let mut all = Vec::new();
        while let Some(entry) = entries.next_into(&mut record, 77) {
            entry.unwrap();
            assert_eq!(record.time_ns, 77);
            all.push(record.envelope.iter().map(|field| (field.name.bytes(), field.value)).collect());
        }
        all
    }

    #[test]
    fn entries_are_read_as_they_were_made() {
        let mut packer = Packer::default();
        packer.begin();
        packer.text(b"log", b"not \xff text");
        packer.number(b"offset", 5);
        packer.json(br#" {"b":1,"a":"\u00e9","b":[1]} "#).unwrap();
        packer.text(b"source", b"10.0.0.1");
        packer.json(br#"[1,2]"#).unwrap();
        packer.json(b"{}").unwrap();
        packer.begin();
        let bytes = packer.take();
        let told = |(name, value): &(&[u8], Value<'_>)| {
            let value = match value {
                Value::MsgPack(raw) => format!("array of {}", raw[4]),
                Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                value => format!("{value:?}"),
            };
            format!("{}={value}", String::from_utf8_lossy(name))
        };
        let read: Vec<Vec<String>> = fields(&bytes).iter().map(|entry| entry.iter().map(told).collect()).collect();
        assert_eq!(
            read,
            [
                vec!["log=not \u{fffd} text", "offset=UInt(5)"],
                vec!["b=UInt(1)", "a=é", "b=array of 1", "source=10.0.0.1"],
                vec!["msg=array of 2"],
                vec![],
                vec![],
            ]
        );
        assert!(packer.is_empty());
    }

    #[test]
    fn what_is_no_object_leaves_no_trace() {
        let mut packer = Packer::default();
        for text in ["", "{", "{\"a\":}", "1", "\"x\"", "null", "{} {}", "{\"a\":1,}", "[1"] {
            assert_eq!(packer.json(text.as_bytes()), Err(FrameErrorKind::Json), "{text}");
            assert!(packer.is_empty(), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(packer.json(deep.as_bytes()).is_err() && packer.is_empty());
    }
}
