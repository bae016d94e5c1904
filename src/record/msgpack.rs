//! A MessagePack value as JSON text.
//!
//! | MessagePack | JSON |
//! |---|---|
//! | nil, booleans, integers, floats | the same; a float that is not finite is `null` |
//! | str, bin | string, by the rule of [`super::json::escape`] |
//! | array, map | array, object; a key that is no string is the string of its JSON; a key that was there before gets `_2`, `_3`, … |
//! | ext 0 of 8 bytes (EventTime), ext -1 (timestamp) | string, RFC 3339 with nanoseconds, UTC |
//! | other ext | string, its bytes in hexadecimal |
//!
//! What nests deeper than [`NESTING_MAX`] is `null`; so is a value that is cut off or broken, as a whole. Nothing is
//! allocated for maps of up to 32 keys that are strings or numbers.

use std::collections::HashMap;

use super::json::escape;

/// How deep arrays and maps may nest, in levels.
pub const NESTING_MAX: usize = 64;

/// Keys of one map that are compared in place; beyond, they are hashed.
const KEYS_IN_PLACE_MAX: usize = 32;

/// Appends the JSON of the first MessagePack value in `value`: always one valid JSON value.
pub fn write_json(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if write_value(&mut Reader { rest: value }, NESTING_MAX, out).is_none() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// A scalar, or the head of a container.
pub(crate) enum Head<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float32(f32),
    Float64(f64),
    Text(&'a [u8]),
    Array(u32),
    Map(u32),
    Ext(i8, &'a [u8]),
}

/// Reads values one after the other.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// An unsigned number of 1, 2, 4 or 8 bytes.
    fn number(&mut self, bytes: u32) -> Option<u64> {
        self.take(bytes as usize).map(|taken| taken.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    }

    fn length(&mut self, bytes: u32) -> Option<usize> {
        usize::try_from(self.number(bytes)?).ok()
    }

    fn count(&mut self, bytes: u32) -> Option<u32> {
        u32::try_from(self.number(bytes)?).ok()
    }

    fn ext(&mut self, length: usize) -> Option<Head<'a>> {
        let [kind] = self.array::<1>()?;
        Some(Head::Ext(kind.cast_signed(), self.take(length)?))
    }

    /// The next value, or the head of it.
    pub(crate) fn head(&mut self) -> Option<Head<'a>> {
        let [first] = self.array::<1>()?;
        Some(match first {
            0x00..=0x7f => Head::UInt(first.into()),
            0x80..=0x8f => Head::Map((first & 0x0f).into()),
            0x90..=0x9f => Head::Array((first & 0x0f).into()),
            0xa0..=0xbf => Head::Text(self.take((first & 0x1f).into())?),
            0xc0 => Head::Nil,
            0xc1 => return None,
            0xc2 | 0xc3 => Head::Bool(first == 0xc3),
            0xc4..=0xc6 => {
                let length = self.length(1 << (first - 0xc4))?;
                Head::Text(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (first - 0xc7))?;
                self.ext(length)?
            }
            0xca => Head::Float32(f32::from_be_bytes(self.array()?)),
            0xcb => Head::Float64(f64::from_be_bytes(self.array()?)),
            0xcc..=0xcf => Head::UInt(self.number(1 << (first - 0xcc))?),
            0xd0 => Head::Int(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Head::Int(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Head::Int(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Head::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.ext(1 << (first - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (first - 0xd9))?;
                Head::Text(self.take(length)?)
            }
            0xdc | 0xdd => Head::Array(self.count(2 << (first - 0xdc))?),
            0xde | 0xdf => Head::Map(self.count(2 << (first - 0xde))?),
            0xe0..=0xff => Head::Int(first.cast_signed().into()),
        })
    }

    /// Passes over so many values, however deep they nest.
    pub(crate) fn skip(&mut self, values: u64) -> Option<()> {
        let mut pending = values;
        while pending > 0 {
            pending -= 1;
            match self.head()? {
                Head::Array(count) => pending += u64::from(count),
                Head::Map(count) => pending += 2 * u64::from(count),
                _ => {}
            }
        }
        Some(())
    }
}

/// The text at that path of a map, without descending into arrays.
pub(super) fn text_at<'a>(value: &'a [u8], path: &[u8], nesting_left: usize) -> Option<&'a [u8]> {
    let mut reader = Reader { rest: value };
    let Head::Map(count) = reader.head()? else { return None };
    for _ in 0..count {
        let Head::Text(name) = reader.head()? else { return None };
        let value = reader.rest;
        reader.skip(1)?;
        let found = match super::nested::rest_of(path, name) {
            Some([]) => match (Reader { rest: value }).head()? {
                Head::Text(text) => Some(text),
                _ => None,
            },
            Some(rest) if nesting_left > 1 => text_at(value, rest, nesting_left - 1),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn write_value(reader: &mut Reader<'_>, nesting_left: usize, out: &mut Vec<u8>) -> Option<()> {
    match reader.head()? {
        Head::Array(count) if nesting_left > 0 => write_array(reader, count, nesting_left - 1, out),
        Head::Map(count) if nesting_left > 0 => write_map(reader, count, nesting_left - 1, out),
        Head::Array(count) => {
            out.extend_from_slice(b"null");
            reader.skip(count.into())
        }
        Head::Map(count) => {
            out.extend_from_slice(b"null");
            reader.skip(2 * u64::from(count))
        }
        Head::Text(text) => {
            out.push(b'"');
            escape(text, out);
            out.push(b'"');
            Some(())
        }
        Head::Ext(kind, bytes) => {
            out.push(b'"');
            write_ext(kind, bytes, out);
            out.push(b'"');
            Some(())
        }
        scalar => {
            write_scalar(&scalar, out);
            Some(())
        }
    }
}

fn write_array(reader: &mut Reader<'_>, count: u32, nesting_left: usize, out: &mut Vec<u8>) -> Option<()> {
    out.push(b'[');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        write_value(reader, nesting_left, out)?;
    }
    out.push(b']');
    Some(())
}

fn write_map(reader: &mut Reader<'_>, count: u32, nesting_left: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut seen = SeenKeys::new();
    out.push(b'{');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'"');
        let start = out.len();
        write_key(reader, nesting_left, out)?;
        seen.make_unique(start, out);
        out.extend_from_slice(b"\":");
        write_value(reader, nesting_left, out)?;
    }
    out.push(b'}');
    Some(())
}

fn write_key(reader: &mut Reader<'_>, nesting_left: usize, out: &mut Vec<u8>) -> Option<()> {
    let before = reader.rest;
    match reader.head()? {
        Head::Text(text) => escape(text, out),
        Head::Ext(kind, bytes) => write_ext(kind, bytes, out),
        Head::Array(_) | Head::Map(_) => {
            reader.rest = before;
            let mut json = Vec::new();
            write_value(reader, nesting_left, &mut json)?;
            escape(&json, out);
        }
        scalar => write_scalar(&scalar, out),
    }
    Some(())
}

fn write_scalar(head: &Head<'_>, out: &mut Vec<u8>) {
    match *head {
        Head::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Head::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Head::UInt(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Head::Float32(value) => write_float(&value, out),
        Head::Float64(value) => write_float(&value, out),
        _ => out.extend_from_slice(b"null"),
    }
}

/// Appends a float in its shortest form that reads back equal; `null` if it is not finite.
pub fn write_float<F: serde::Serialize>(value: &F, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn write_ext(kind: i8, bytes: &[u8], out: &mut Vec<u8>) {
    let time = match (kind, bytes.len()) {
        (0, 8) => Some((i64::from(be_u32(bytes)), be_u32(&bytes[4..]))),
        (-1, 4) => Some((i64::from(be_u32(bytes)), 0)),
        (-1, 8) => {
            let both = u64::from(be_u32(bytes)) << 32 | u64::from(be_u32(&bytes[4..]));
            Some(((both & 0x3_ffff_ffff).cast_signed(), (both >> 34) as u32))
        }
        (-1, 12) => {
            let seconds = u64::from(be_u32(&bytes[4..])) << 32 | u64::from(be_u32(&bytes[8..]));
            Some((seconds.cast_signed(), be_u32(bytes)))
        }
        _ => None,
    };
    if time.and_then(|(seconds, nanos)| write_time(seconds, nanos, out)).is_none() {
        for byte in bytes {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |word| u32::from_be_bytes(*word))
}

fn write_time(seconds: i64, nanos: u32, out: &mut Vec<u8>) -> Option<()> {
    use std::io::Write as _;
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?.replace_nanosecond(nanos).ok()?;
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (hour, minute, second) = time.to_hms();
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z").ok()
}

/// The keys of one map, as they were written.
struct SeenKeys {
    places: [(usize, usize); KEYS_IN_PLACE_MAX],
    count: usize,
    /// From the 33rd key on: every key, and the number its next double gets.
    hashed: HashMap<Vec<u8>, u64>,
}

impl SeenKeys {
    fn new() -> Self {
        Self { places: [(0, 0); KEYS_IN_PLACE_MAX], count: 0, hashed: HashMap::new() }
    }

    /// Appends a suffix to the key that stands in `out` from `start` on if it was there before, and remembers it.
    fn make_unique(&mut self, start: usize, out: &mut Vec<u8>) {
        if self.count < KEYS_IN_PLACE_MAX {
            let end = out.len();
            let mut number = 2_u64;
            while self.places[..self.count].iter().any(|&(from, to)| out[from..to] == out[start..]) {
                out.truncate(end);
                write_suffix(number, out);
                number += 1;
            }
            self.places[self.count] = (start, out.len());
            self.count += 1;
            return;
        }
        if self.hashed.is_empty() {
            self.hashed.extend(self.places.iter().map(|&(from, to)| (out[from..to].to_vec(), 2)));
        }
        let plain = out[start..].to_vec();
        while let Some(taken) = self.hashed.get(&out[start..]) {
            let mut number = *taken;
            if out.len() != start + plain.len() {
                number = self.hashed.get(&plain).copied().unwrap_or(2);
            }
            self.hashed.insert(plain.clone(), number + 1);
            out.truncate(start + plain.len());
            write_suffix(number, out);
        }
        self.hashed.insert(out[start..].to_vec(), 2);
    }
}

fn write_suffix(number: u64, out: &mut Vec<u8>) {
    out.push(b'_');
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_json(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn packed(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        let value = Value::Map(vec![
            ("nil".into(), Value::Nil),
            (Value::from(7), Value::from(true)),
            (Value::Nil, Value::from(-3)),
            ("f".into(), Value::F64(0.5)),
            ("f32".into(), Value::F32(0.1)),
            ("nan".into(), Value::F64(f64::NAN)),
            ("bin".into(), Value::Binary(b"caf\xe9".to_vec())),
            ("ext".into(), Value::Ext(5, vec![0xca, 0xfe])),
            ("time".into(), Value::Ext(0, vec![0, 0, 0, 1, 0, 0, 0, 2])),
            (Value::Array(vec!["a".into()]), Value::Array(vec![1.into(), u64::MAX.into()])),
        ]);
        assert_eq!(
            json(&packed(&value)),
            r#"{"nil":null,"7":true,"null":-3,"f":0.5,"f32":0.1,"nan":null,"bin":"café","ext":"cafe","#.to_owned()
                + r#""time":"1970-01-01T00:00:01.000000002Z","[\"a\"]":[1,18446744073709551615]}"#
        );
    }

    #[test]
    fn a_key_that_was_there_before_gets_a_suffix() {
        let key = |name: &str| (Value::from(name), Value::from(1));
        let value = Value::Map(vec![key("a"), key("a"), key("a_2"), key("a")]);
        assert_eq!(json(&packed(&value)), r#"{"a":1,"a_2":1,"a_2_2":1,"a_3":1}"#);
        let many = Value::Map((0..200).map(|_| key("a")).collect());
        let read: std::collections::BTreeMap<String, u8> = serde_json::from_str(&json(&packed(&many))).unwrap();
        assert_eq!(read.len(), 200);
    }

    #[test]
    fn what_nests_too_deep_is_null() {
        let mut bytes = vec![0x91; NESTING_MAX + 3];
        bytes.push(0x01);
        let expected = format!("{}null{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX));
        assert_eq!(json(&bytes), expected);
    }

    #[test]
    fn what_is_cut_off_is_null() {
        let whole = packed(&Value::Map(vec![("key".into(), Value::Array(vec!["text".into(), 1.into()]))]));
        for end in 0..whole.len() {
            assert_eq!(json(&whole[..end]), "null", "cut at {end}");
        }
        assert_eq!(json(&[0xdd, 0xff, 0xff, 0xff, 0xff]), "null");
        assert_eq!(json(&[0xc1]), "null");
    }

    proptest! {
        #[test]
        fn any_bytes_give_one_json_value(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = json(&bytes);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
