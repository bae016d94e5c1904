//! Entries of a message, one after the other, into a reused record.

use thiserror::Error;

use super::msgpack::{Fault, Reader, Token};
use super::{Limits, NESTING_CAP};
use crate::record::{Name, Record, Value};

const NANOSECONDS: i64 = 1_000_000_000;

/// Why one entry is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Not an array of time and record.
    #[error("entry is not an array of time and record")]
    NotAnEntry,
    /// The record is not a map.
    #[error("record is not a map")]
    NotARecord,
    /// The time is none that we can read.
    #[error("time is not a time")]
    Time,
    /// A name of the record is not text.
    #[error("record has a key that is not a string")]
    Key,
    /// A value nests deeper than [`Limits::nesting_max`].
    #[error("record nests deeper than nesting_max = {nesting_max}")]
    TooDeep {
        /// The limit.
        nesting_max: usize,
    },
    /// Packed entries end, or break, inside this one; those behind it are lost with it.
    #[error("packed entries are cut off or broken")]
    Broken,
}

/// The entries of a message.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    form: Form,
    nesting_max: usize,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// Time and record stand side by side, once.
    Single,
    /// As many entries.
    Array(u32),
    /// Entries up to the end of the bytes.
    Packed,
}

impl<'a> Entries<'a> {
    /// Of a packed body, inflated if need be: entries one after the other.
    pub fn packed(bytes: &'a [u8], limits: &Limits) -> Self {
        Self::new(Reader::new(bytes), Form::Packed, limits)
    }

    /// Of a Message: time and record stand at the reader's place.
    pub(super) fn single(reader: Reader<'a>, limits: &Limits) -> Self {
        Self::new(reader, Form::Single, limits)
    }

    /// Of a Forward message: as many entries stand at the reader's place.
    pub(super) fn array(reader: Reader<'a>, count: u32, limits: &Limits) -> Self {
        Self::new(reader, Form::Array(count), limits)
    }

    fn new(reader: Reader<'a>, form: Form, limits: &Limits) -> Self {
        Self { reader, form, nesting_max: limits.nesting_max.min(NESTING_CAP) }
    }

    /// Whether all have been asked for.
    pub fn is_at_end(&self) -> bool {
        match self.form {
            Form::Single => false,
            Form::Array(left) => left == 0,
            Form::Packed => self.reader.is_at_end(),
        }
    }

    /// Clears `record` and fills its envelope and time with the next entry. A record without a time gets `received_ns`
    /// (nanoseconds since 1970 UTC). After an error the record is to be ignored, and the next entry may be asked for.
    #[inline]
    pub fn next_into<'s>(&mut self, record: &mut Record<'s>, received_ns: i64) -> Option<Result<(), EntryError>>
    where
        'a: 's,
    {
        match self.form {
            Form::Array(0) => return None,
            Form::Array(left) => self.form = Form::Array(left - 1),
            Form::Single => {
                self.form = Form::Array(0);
                record.clear();
                return Some(self.pair(record, received_ns));
            }
            Form::Packed if self.reader.is_at_end() => return None,
            Form::Packed => {}
        }
        record.clear();
        let start = self.reader;
        let result = self.entry(record, received_ns);
        if result.is_err() {
            self.reader = start;
            if self.reader.skip(1).is_err() {
                // The end of this entry cannot be known, and so not the start of the next.
                self.form = Form::Array(0);
                self.reader.finish();
                return Some(Err(EntryError::Broken));
            }
        }
        Some(result)
    }

    #[inline]
    fn entry<'s>(&mut self, record: &mut Record<'s>, received_ns: i64) -> Result<(), EntryError>
    where
        'a: 's,
    {
        match self.reader.token()? {
            Token::Array(2) => self.pair(record, received_ns),
            Token::Array(elements) if elements > 2 => {
                self.pair(record, received_ns)?;
                self.reader.skip(u64::from(elements - 2))?;
                Ok(())
            }
            _ => Err(EntryError::NotAnEntry),
        }
    }

    #[inline]
    fn pair<'s>(&mut self, record: &mut Record<'s>, received_ns: i64) -> Result<(), EntryError>
    where
        'a: 's,
    {
        record.time_ns = time(&mut self.reader)?.unwrap_or(received_ns);
        let Token::Map(fields) = self.reader.token()? else { return Err(EntryError::NotARecord) };
        for _ in 0..fields {
            let Token::Text(name) = self.reader.token()? else { return Err(EntryError::Key) };
            let value = value(&mut self.reader, self.nesting_max)?;
            record.push_envelope(Name::text(name), value);
        }
        Ok(())
    }
}

impl From<Fault> for EntryError {
    fn from(_: Fault) -> Self {
        Self::Broken
    }
}

/// Reads a field's value; containers and extensions stay as they are.
#[inline]
fn value<'a>(reader: &mut Reader<'a>, nesting_max: usize) -> Result<Value<'a>, EntryError> {
    let start = reader.at();
    Ok(match reader.token()? {
        Token::Text(text) => Value::Text(text),
        Token::Nil => Value::Null,
        Token::Bool(truth) => Value::Bool(truth),
        Token::UInt(number) => Value::UInt(number),
        Token::Int(number) => Value::Int(number),
        Token::Float(number) => Value::Float(number),
        Token::Ext(..) => Value::MsgPack(reader.since(start)),
        Token::Array(count) => {
            walk(reader, u64::from(count), nesting_max, nesting_max)?;
            Value::MsgPack(reader.since(start))
        }
        Token::Map(count) => {
            walk(reader, 2 * u64::from(count), nesting_max, nesting_max)?;
            Value::MsgPack(reader.since(start))
        }
    })
}

/// Passes over the children of a container; recursion ends at the limit, [`NESTING_CAP`] at most.
fn walk(reader: &mut Reader<'_>, values: u64, levels_left: usize, nesting_max: usize) -> Result<(), EntryError> {
    let Some(levels_left) = levels_left.checked_sub(1) else { return Err(EntryError::TooDeep { nesting_max }) };
    for _ in 0..values {
        match reader.token()? {
            Token::Array(count) => walk(reader, u64::from(count), levels_left, nesting_max)?,
            Token::Map(count) => walk(reader, 2 * u64::from(count), levels_left, nesting_max)?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads a time, with or without metadata; `None` where the sender gave none (nil, zero, empty).
#[inline]
fn time(reader: &mut Reader<'_>) -> Result<Option<i64>, EntryError> {
    match reader.token()? {
        Token::Ext(0, bytes) if bytes.len() == 8 => event_time(bytes),
        Token::Array(0) => Ok(None),
        Token::Array(elements) => {
            let token = reader.token()?;
            let time = scalar_time(token);
            if let Token::Array(_) | Token::Map(_) = token {
                return Err(EntryError::Time);
            }
            reader.skip(u64::from(elements - 1))?;
            time
        }
        Token::Map(_) => Err(EntryError::Time),
        token => scalar_time(token),
    }
}

/// Fluentd's EventTime: seconds and nanoseconds, 32 bits each. The seconds are read as unsigned, which is right until 2106; a signed reading
/// would end in 2038, and no log is older than 1970.
#[inline]
fn event_time(bytes: &[u8]) -> Result<Option<i64>, EntryError> {
    let number = bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let (seconds, nanoseconds) = ((number >> 32) as i64, (number & 0xffff_ffff) as i64);
    Ok(if seconds == 0 { None } else { Some(seconds * NANOSECONDS + nanoseconds) })
}

fn scalar_time(token: Token<'_>) -> Result<Option<i64>, EntryError> {
    match token {
        Token::Nil | Token::Bool(false) | Token::Text(b"") => Ok(None),
        Token::UInt(number) => i64::try_from(number).map_or(Err(EntryError::Time), integer_time),
        Token::Int(number) => integer_time(number),
        Token::Float(number) => float_time(number),
        Token::Text(text) => text_time(text),
        Token::Ext(0, bytes) if bytes.len() == 8 => event_time(bytes),
        Token::Ext(-1, bytes) => timestamp_extension(bytes),
        Token::Ext(..) | Token::Bool(true) | Token::Array(_) | Token::Map(_) => Err(EntryError::Time),
    }
}

/// Units that home-made clients send instead of seconds, by the size of the number: as seconds it would lie after the year 5138, as milliseconds
/// it lies after 1973. (npm's fluent-logger sends `Date.now()` in its compressed mode.)
const UNITS: [(u64, i64); 4] =
    [(100_000_000_000, NANOSECONDS), (100_000_000_000_000, 1_000_000), (100_000_000_000_000_000, 1_000), (u64::MAX, 1)];

fn unit_nanoseconds(magnitude: u64) -> i64 {
    UNITS.into_iter().find(|(below, _)| magnitude < *below).map_or(1, |(_, nanoseconds)| nanoseconds)
}

fn integer_time(number: i64) -> Result<Option<i64>, EntryError> {
    if number == 0 {
        return Ok(None);
    }
    number.checked_mul(unit_nanoseconds(number.unsigned_abs())).map(Some).ok_or(EntryError::Time)
}

fn float_time(number: f64) -> Result<Option<i64>, EntryError> {
    if !number.is_finite() {
        return Err(EntryError::Time);
    }
    // Whole and fraction apart: together they do not fit into a float's 53 bits.
    let unit = unit_nanoseconds(number.abs() as u64);
    let whole = number.trunc() as i64;
    let fraction = ((number - number.trunc()) * unit as f64).round() as i64;
    let time = whole.checked_mul(unit).and_then(|time| time.checked_add(fraction)).ok_or(EntryError::Time)?;
    Ok(if time == 0 { None } else { Some(time) })
}

fn text_time(text: &[u8]) -> Result<Option<i64>, EntryError> {
    let text = std::str::from_utf8(text).map_err(|_| EntryError::Time)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(EntryError::Time);
    }
    match text.parse::<i64>() {
        Ok(number) => integer_time(number),
        Err(_) => text.parse::<f64>().map_or(Err(EntryError::Time), float_time),
    }
}

/// MessagePack's own timestamp: 32, 64 or 96 bits.
fn timestamp_extension(bytes: &[u8]) -> Result<Option<i64>, EntryError> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let (seconds, nanoseconds) = match bytes.len() {
        4 => (number(bytes) as i64, 0),
        8 => ((number(bytes) & 0x3_ffff_ffff) as i64, (number(bytes) >> 34) as i64),
        12 => (number(&bytes[4..]) as i64, number(&bytes[..4]) as i64),
        _ => return Err(EntryError::Time),
    };
    let time = seconds.checked_mul(NANOSECONDS).and_then(|time| time.checked_add(nanoseconds));
    time.map(Some).ok_or(EntryError::Time)
}

#[cfg(test)]
mod tests {
    use super::super::{Body, message};
    use super::*;

    const RECEIVED_NS: i64 = 77;
    const SECOND: i64 = NANOSECONDS;

    /// Time and the `log` of a record, or why there is none.
    type Outcome<'a> = Result<(i64, Option<&'a [u8]>), EntryError>;

    /// The outcomes of all entries of one message.
    fn outcomes(bytes: &[u8]) -> Vec<Outcome<'_>> {
        let limits = Limits::default();
        let (message, used) = message(bytes, &limits).unwrap();
        assert_eq!(used, bytes.len());
        let Body::Entries(mut entries) = message.unwrap().body else { panic!("entries") };
        let mut record = Record::new();
        let mut outcomes = Vec::new();
        while let Some(result) = entries.next_into(&mut record, RECEIVED_NS) {
            outcomes.push(result.map(|()| (record.time_ns, record.log_line())));
        }
        outcomes
    }

    fn time_of(time: &[u8]) -> Result<i64, EntryError> {
        let in_message = outcomes(&[b"\x93\xa1t", time, b"\x80"].concat()).remove(0).map(|(time, _)| time);
        let entry = [b"\x92\xa1t\x91\x92\x92", time, b"\x80\x80"].concat();
        let with_metadata = outcomes(&entry).remove(0).map(|(time, _)| time);
        let message = [b"\x94\xa1t\x92", time, b"\x81\xa1k\x01\x80\xc0"].concat();
        assert_eq!(outcomes(&message), [with_metadata.map(|time| (time, None))], "metadata in a message, option nil");
        assert_eq!(in_message, with_metadata);
        in_message
    }

    #[test]
    fn times_of_every_kind_are_read() {
        let seconds = 0xf000_0001_i64;
        for (time, expected) in [
            // EventTime, after 2038, in both forms.
            (&b"\xd7\x00\xf0\x00\x00\x01\x00\x00\x00\x05"[..], seconds * SECOND + 5),
            (b"\xc7\x08\x00\xf0\x00\x00\x01\x00\x00\x00\x05", seconds * SECOND + 5),
            // Seconds that are negative where they are signed, as Docker writes them; more nanoseconds than a second has.
            (b"\xd7\x00\xff\xff\xff\xff\x00\x00\x00\x05", 0xffff_ffff * SECOND + 5),
            (b"\xd7\x00\x00\x00\x00\x07\xff\xff\xff\xff", 7 * SECOND + 0xffff_ffff),
            (b"\xd7\x00\xff\xff\xff\xff\xff\xff\xff\xff", 0xffff_ffff * SECOND + 0xffff_ffff),
            // Integers, unsigned and signed, of several widths.
            (b"\x07", 7 * SECOND),
            (b"\xce\xf0\x00\x00\x01", seconds * SECOND),
            (b"\xd3\x00\x00\x00\x00\xf0\x00\x00\x01", seconds * SECOND),
            (b"\xff", -SECOND),
            // Floats and digits.
            (b"\xcb\x41\xd9\x55\x25\x44\x20\x00\x00", 1_700_042_000 * SECOND + SECOND / 2),
            (b"\xaa1700042000", 1_700_042_000 * SECOND),
            (b"\xac1700042000.5", 1_700_042_000 * SECOND + SECOND / 2),
            // Milliseconds: integer, and the float that Node sends.
            (b"\xcf\x00\x00\x01\x8b\xd2\x93\x5e\x85", 1_700_044_955_269 * 1_000_000),
            (b"\xcb\x42\x78\xbd\x29\x35\xe8\x50\x00", 1_700_044_955_269 * 1_000_000),
            // MessagePack's own timestamps.
            (b"\xd6\xff\xf0\x00\x00\x01", seconds * SECOND),
            (b"\xd7\xff\x00\x00\x00\x14\xf0\x00\x00\x01", seconds * SECOND + 5),
            (b"\xc7\x0c\xff\x00\x00\x00\x05\x00\x00\x00\x00\xf0\x00\x00\x01", seconds * SECOND + 5),
            // None given.
            (b"\xc0", RECEIVED_NS),
            (b"\x00", RECEIVED_NS),
            (b"\xa0", RECEIVED_NS),
            (b"\xd7\x00\x00\x00\x00\x00\x00\x00\x00\x00", RECEIVED_NS),
        ] {
            // A text in second place would be packed entries; a time there it can only be within an entry.
            let read = if time[0] & 0xe0 == 0xa0 { in_entry(time) } else { time_of(time) };
            assert_eq!(read, Ok(expected), "{time:02x?}");
        }
    }

    fn in_entry(time: &[u8]) -> Result<i64, EntryError> {
        outcomes(&[b"\x92\xa1t\x91\x92", time, b"\x80"].concat()).remove(0).map(|(time, _)| time)
    }

    #[test]
    fn what_is_no_time_costs_its_entry_alone() {
        for time in [
            &b"\xa3now"[..],
            b"\xc3",
            b"\x80",
            b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xd6\x05\x00\x00\x00\x01",
            b"\xa3nan",
            b"\xa41e30",
        ] {
            let bytes = [b"\x92\xa1t\x92\x92", time, b"\x80\x92\x01\x81\xa3log\xa1x"].concat();
            assert_eq!(outcomes(&bytes), [Err(EntryError::Time), Ok((SECOND, Some(&b"x"[..])))], "{time:02x?}");
        }
        // Empty, and one that is only metadata.
        assert_eq!(in_entry(b"\x90"), Ok(RECEIVED_NS));
        assert_eq!(in_entry(b"\x92\x80\x80"), Err(EntryError::Time));
    }

    #[test]
    fn bad_entries_stand_between_good_ones() {
        let good = b"\x92\x01\x81\xa3log\xc4\x01x";
        for (bad, error) in [
            (&b"\xc0"[..], EntryError::NotAnEntry),
            (b"\x90", EntryError::NotAnEntry),
            (b"\x91\x01", EntryError::NotAnEntry),
            (b"\x81\x01\x80", EntryError::NotAnEntry),
            (b"\x92\x01\xa3log", EntryError::NotARecord),
            (b"\x92\x01\xc0", EntryError::NotARecord),
            (b"\x92\x01\x81\x05\x05", EntryError::Key),
        ] {
            let entries = [&good[..], bad, good].concat();
            let fine = Ok((SECOND, Some(&b"x"[..])));
            let expected = [fine, Err(error), fine];
            assert_eq!(outcomes(&[b"\x92\xa1t\x93", &entries[..]].concat()), expected, "{bad:02x?}");
            let packed = [b"\x92\xa1t\xc4", &[entries.len() as u8][..], &entries].concat();
            assert_eq!(outcomes(&packed), expected, "{bad:02x?}");
        }
        // More than time and record: the rest is nobody's.
        assert_eq!(outcomes(b"\x92\xa1t\x91\x93\x01\x80\x05"), [Ok((SECOND, None))]);
    }

    #[test]
    fn packed_entries_that_break_off_end_there() {
        for tail in [&b"\x92\x01\x81\xa3lo"[..], b"\xc1", b"\x92\x01\x81\xa1k\x91"] {
            let entries = [&b"\x92\x01\x80"[..], tail].concat();
            let packed = [b"\x92\xa1t\xd9", &[entries.len() as u8][..], &entries].concat();
            assert_eq!(outcomes(&packed), [Ok((SECOND, None)), Err(EntryError::Broken)], "{tail:02x?}");
        }
    }

    #[test]
    fn repeated_keys_are_all_kept() {
        let limits = Limits::default();
        let (message, _) = message(b"\x93\xa1t\x01\x82\xa1k\x01\xa1k\x02", &limits).unwrap();
        let Body::Entries(mut entries) = message.unwrap().body else { panic!("entries") };
        let mut record = Record::new();
        assert_eq!(entries.next_into(&mut record, 0), Some(Ok(())));
        let values: Vec<_> = record.envelope.iter().map(|field| field.value).collect();
        assert_eq!(values, [Value::UInt(1), Value::UInt(2)]);
    }

    #[test]
    fn nesting_is_counted_from_the_value() {
        let limits = Limits { nesting_max: 2, ..Limits::default() };
        for (value, is_fine) in [(&b"\x91\x91\x01"[..], true), (b"\x91\x91\x91\x01", false), (b"\x81\x01\x90", true)] {
            let bytes = [b"\x93\xa1t\x01\x81\xa1k", value].concat();
            let (message, _) = message(&bytes, &limits).unwrap();
            let Body::Entries(mut entries) = message.unwrap().body else { panic!("entries") };
            let mut record = Record::new();
            assert_eq!(entries.next_into(&mut record, 0).unwrap().is_ok(), is_fine, "{value:02x?}");
            if is_fine {
                assert_eq!(record.envelope[0].value, Value::MsgPack(value));
            }
        }
    }
}
