//! Records that wait for their next line, owned beyond their chunk.

use std::ops::Range;

use super::{JOINED_BYTES_MAX, JOINED_LINES_MAX, is_kept};
use crate::filter::{Arena, Hops};
use crate::record::{Field, Name, Record, Value};

/// A record that waits for its next line.
#[derive(Debug)]
pub(in crate::filter) struct Open {
    /// The number of the filter that holds it.
    pub(in crate::filter) filter: u16,
    pub(in crate::filter) tag: Box<[u8]>,
    pub(in crate::filter) hops: Hops,
    stream: Box<[u8]>,
    pub(in crate::filter) joiner: usize,
    pub(in crate::filter) state: usize,
    pub(in crate::filter) touched_ns: i64,
    /// When its first line came.
    pub(in crate::filter) opened_ns: i64,
    time_ns: i64,
    /// The lines.
    text: Vec<u8>,
    /// How many.
    lines: usize,
    /// The first line's fields; ranges are of `bytes`. The text's own value is not kept.
    fields: Vec<(Range<usize>, bool, Owned)>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Owned {
    Plain(Value<'static>),
    Text(Range<usize>),
    Json(Range<usize>),
    JsonValue(Range<usize>),
    Number(Range<usize>),
    MsgPack(Range<usize>),
    /// The lines.
    Lines,
}

/// Which record a line could belong to.
#[derive(Clone, Copy, Debug)]
pub(in crate::filter) struct Whose<'k> {
    pub(in crate::filter) filter: u16,
    pub(in crate::filter) tag: &'k [u8],
    pub(in crate::filter) stream: &'k [u8],
}

impl Open {
    /// Begins one with its first line, which stands at that place of the record.
    pub(in crate::filter) fn begin(
        whose: Whose<'_>,
        hops: Hops,
        record: &Record<'_>,
        place: usize,
        line: &[u8],
    ) -> Self {
        let mut open = Self {
            filter: whose.filter,
            tag: whose.tag.into(),
            hops,
            stream: whose.stream.into(),
            joiner: 0,
            state: 0,
            touched_ns: 0,
            opened_ns: 0,
            time_ns: record.time_ns,
            text: line.to_vec(),
            lines: 1,
            fields: Vec::with_capacity(record.envelope.len()),
            bytes: Vec::new(),
        };
        for (number, field) in record.envelope.iter().enumerate() {
            debug_assert!(is_kept(&field.value), "filters make no scratch");
            let name = open.keep(record.name_bytes(&field.name));
            let value = match field.value {
                _ if number == place => Owned::Lines,
                Value::Text(bytes) => Owned::Text(open.keep(bytes)),
                Value::Json(bytes) => Owned::Json(open.keep(bytes)),
                Value::JsonValue(bytes) => Owned::JsonValue(open.keep(bytes)),
                Value::Number(bytes) => Owned::Number(open.keep(bytes)),
                Value::MsgPack(bytes) => Owned::MsgPack(open.keep(bytes)),
                Value::Bool(truth) => Owned::Plain(Value::Bool(truth)),
                Value::Int(number) => Owned::Plain(Value::Int(number)),
                Value::UInt(number) => Owned::Plain(Value::UInt(number)),
                Value::Float(number) => Owned::Plain(Value::Float(number)),
                Value::Null | Value::Scratch(_) | Value::ScratchJson(_) => Owned::Plain(Value::Null),
            };
            open.fields.push((name, matches!(field.name, Name::Json(_)), value));
        }
        open
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub(in crate::filter) fn is_of(&self, whose: Whose<'_>) -> bool {
        self.filter == whose.filter && *self.tag == *whose.tag && *self.stream == *whose.stream
    }

    /// What it holds, in bytes.
    pub(in crate::filter) fn held(&self) -> usize {
        self.text.len() + self.bytes.len() + self.tag.len()
    }

    /// Whether a line of that length may follow.
    pub(in crate::filter) fn has_room(&self, line_bytes: usize) -> bool {
        self.text.len() + line_bytes < JOINED_BYTES_MAX && self.lines < JOINED_LINES_MAX
    }

    /// Adds a line; with `newline` on a line of its own.
    pub(in crate::filter) fn append(&mut self, line: &[u8], newline: bool) {
        if newline {
            if !self.text.ends_with(b"\n") && !self.text.is_empty() {
                self.text.push(b'\n');
            }
            if line.is_empty() {
                self.text.push(b'\n');
            }
        }
        self.text.extend_from_slice(line);
        self.lines += 1;
    }

    /// Fills an empty record with the joined one.
    pub(in crate::filter) fn fill<'a>(&self, record: &mut Record<'a>, arena: &'a Arena) {
        let bytes: &'a [u8] = arena.alloc_slice_copy(&self.bytes);
        let lines: &'a [u8] = arena.alloc_slice_copy(&self.text);
        let of = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        record.time_ns = self.time_ns;
        for (name, is_json, value) in &self.fields {
            let name = if *is_json { Name::json(of(name)) } else { Name::text(of(name)) };
            let value = match value {
                Owned::Plain(value) => *value,
                Owned::Text(range) => Value::Text(of(range)),
                Owned::Json(range) => Value::Json(of(range)),
                Owned::JsonValue(range) => Value::JsonValue(of(range)),
                Owned::Number(range) => Value::Number(of(range)),
                Owned::MsgPack(range) => Value::MsgPack(of(range)),
                Owned::Lines => Value::Text(lines),
            };
            record.envelope.push(Field { name, value });
        }
        crate::filter::find_log(record, arena);
    }
}
