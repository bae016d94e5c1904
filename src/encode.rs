//! The single write: a record as one flat JSON line, straight into its block.
//!
//! Called once for each record, after redaction. Nothing is allocated but the block's own growth, unless
//! two names of the record are the same (`encode::clash`).
//!
//! # Order
//!
//! The sender's fields in the sender's order. In place of the log line of an access log stand its parsed fields; in any
//! other record the log line stays, and parsed fields follow it. Then `log_type` and `parse_ambiguous` where they apply, then
//! the enrichment.
//!
//! # Names are unique
//!
//! * What the sender sent keeps its name; a parsed field of the same name becomes `log_<name>`.
//! * A name that still was there before gets `_2`, `_3`, ….
//! * Where meshlens writes `log_type` or `parse_ambiguous`, the record's own becomes `log_log_type`, `log_parse_ambiguous`.
//! * Enrichment whose name the record has is left out.
//!
//! Names are the same if they say the same: `"a"` and `"\u0061"` do.

mod clash;
mod fragment;
mod names;

pub use fragment::Fragment;

use self::names::Names;
use crate::record::json::{escape, mend_surrogates};
use crate::record::{Field, KEY_COUNT, KEYS, Key, Kind, Name, Record, Value, msgpack};

/// Appends a record and its enrichment as one JSON object and a line feed.
pub fn encode(record: &Record<'_>, fragment: &Fragment, out: &mut Vec<u8>) {
    let start = out.len();
    let mut names = Names::new(record);
    if names.add_all(record, fragment) {
        for field in fields(record) {
            write_name(record, &field.name, out);
            write_value(record, &field.value, out);
        }
    } else {
        for (field, name) in clash::resolve(record, fragment, &mut names) {
            match name {
                Some(name) => write_new_name(&name, out),
                None => write_name(record, &field.name, out),
            }
            write_value(record, &field.value, out);
        }
    }
    if let Some(log_type) = record.kind.log_type() {
        write_known_name(Key::LogType, out);
        out.push(b'"');
        out.extend_from_slice(log_type.as_bytes());
        out.push(b'"');
    }
    if record.is_ambiguous() {
        write_ambiguous(record, out);
    }
    fragment.write(&names, out);
    // Each member was written with a comma in front; the first of them opens the object instead.
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.extend_from_slice(b"}\n");
}

/// The fields that are written, in order.
fn fields<'r, 'a>(record: &'r Record<'a>) -> impl Iterator<Item = &'r Field<'a>> {
    let (before, log, after) = around_log(record);
    before.iter().chain(log).chain(&record.parsed).chain(after)
}

/// The sender's fields before the log line, the log line if it is written, and the sender's fields behind it.
fn around_log<'r, 'a>(record: &'r Record<'a>) -> (&'r [Field<'a>], &'r [Field<'a>], &'r [Field<'a>]) {
    let envelope = record.envelope.as_slice();
    let at = record.log.filter(|&at| at < envelope.len()).unwrap_or(envelope.len());
    let (before, rest) = envelope.split_at(at);
    let (log, after) = rest.split_at(rest.len().min(1));
    (before, if record.kind == Kind::Access { &[] } else { log }, after)
}

fn write_name(record: &Record<'_>, name: &Name<'_>, out: &mut Vec<u8>) {
    match *name {
        Name::Known(key) => write_known_name(key, out),
        Name::Json(inside) => {
            out.push(b',');
            write_inside(inside, out);
            out.push(b':');
        }
        Name::Text(_) | Name::Scratch(_) => write_new_name(record.name_bytes(name), out),
    }
}

fn write_new_name(name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    escape(name, out);
    out.extend_from_slice(b"\":");
}

fn write_known_name(key: Key, out: &mut Vec<u8>) {
    let (member, length) = &MEMBERS[key as usize];
    out.extend_from_slice(&member[..*length]);
}

/// Longest known name, comma, two quotes and colon.
const MEMBER_BYTES_MAX: usize = 48;

/// `,"name":` of every key.
static MEMBERS: [([u8; MEMBER_BYTES_MAX], usize); KEY_COUNT] = {
    let mut members = [([0; MEMBER_BYTES_MAX], 0); KEY_COUNT];
    let mut at = 0;
    while at < KEY_COUNT {
        members[at] = member(KEYS[at].name().as_bytes());
        at += 1;
    }
    members
};

const fn member(name: &[u8]) -> ([u8; MEMBER_BYTES_MAX], usize) {
    let mut text = [0; MEMBER_BYTES_MAX];
    text[0] = b',';
    text[1] = b'"';
    let mut at = 0;
    while at < name.len() {
        text[at + 2] = name[at];
        at += 1;
    }
    text[at + 2] = b'"';
    text[at + 3] = b':';
    (text, at + 4)
}

/// Appends a value of a record as JSON.
pub(crate) fn write_value(record: &Record<'_>, value: &Value<'_>, out: &mut Vec<u8>) {
    match *value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Value::UInt(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Value::Float(value) => msgpack::write_float(&value, out),
        Value::Number(digits) => write_json(digits, out),
        Value::Text(text) => write_text(text, out),
        Value::Json(inside) => write_inside(inside, out),
        Value::JsonValue(json) => write_json(json, out),
        Value::MsgPack(packed) => msgpack::write_json(packed, out),
        Value::Scratch(span) => write_text(record.scratch.get(span.range()).unwrap_or_default(), out),
        Value::ScratchJson(span) => write_json(record.scratch.get(span.range()).unwrap_or_default(), out),
    }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// Appends the inside of a JSON string, and its quotes.
fn write_inside(inside: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.extend_from_slice(inside);
    mend_surrogates(&mut out[start..]);
    out.push(b'"');
}

/// Appends JSON as it is, on one line: valid JSON has line breaks between its tokens only.
fn write_json(json: &[u8], out: &mut Vec<u8>) {
    if json.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let start = out.len();
    out.extend_from_slice(json);
    if memchr::memchr2(b'\n', b'\r', json).is_some() {
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    mend_surrogates(&mut out[start..]);
}

fn write_ambiguous(record: &Record<'_>, out: &mut Vec<u8>) {
    write_known_name(Key::ParseAmbiguous, out);
    let start = out.len();
    for key in record.ambiguous_keys() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.name().as_bytes());
        out.push(b'"');
    }
    for field in record.ambiguous_others() {
        out.push(b',');
        write_text(record.name_bytes(&field.name), out);
    }
    match out.get_mut(start) {
        Some(first) => *first = b'[',
        // Bits that stand for no key.
        None => out.push(b'['),
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
