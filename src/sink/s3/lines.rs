//! What stands in an object for each record: its line as it is, its line with a date in front, or one field's value.
//!
//! ```text
//! as it is     {"log":"x"}
//! date         {"date":"2026-11-28T12:00:00.123456Z","log":"x"}
//! log_key      x                                                 no line of its own is JSON then, nor needs to be one line
//! ```
//!
//! A record whose field is absent or null is written whole. Cost beside plain lines: a copy; with `log_key` a search for the
//! field, and its escapes resolved.

use std::fmt::Write as _;

use crate::journal::block::{Block, Entry};
use crate::record::{json, scan};
use crate::sink::value::Text;
use crate::timestamp::write_rfc3339;

/// How the date is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DateFormat {
    /// `"2026-11-28T12:00:00.123456Z"`.
    #[default]
    Iso8601,
    /// `"2026-11-28 12:00:00.123456"`.
    JavaSqlTimestamp,
    /// Seconds since 1970 UTC.
    Epoch,
    /// Milliseconds since 1970 UTC.
    EpochMs,
    /// Seconds since 1970 UTC with a fraction, to 16 digits.
    Double,
}

/// What a record becomes.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Lines {
    /// Its line.
    #[default]
    Whole,
    /// Its line with its time as the first member.
    Dated {
        /// The member's name as it stands between quotes in JSON.
        key: Box<str>,
        /// How it is written.
        format: DateFormat,
    },
    /// One field's value: a text unescaped, anything else as its JSON.
    Value {
        /// The field's name as it stands between quotes in JSON.
        key: Box<str>,
    },
}

impl Lines {
    /// With that date.
    pub fn dated(key: &str, format: DateFormat) -> Self {
        Self::Dated { key: escaped(key), format }
    }

    /// With that field's value alone.
    pub fn value(key: &str) -> Self {
        Self::Value { key: escaped(key) }
    }

    /// What stands for those records of a block, which follow each other in it: its own bytes, or what is put together in
    /// `scratch`.
    pub(super) fn of<'b>(
        &self,
        block: &'b Block,
        records: std::ops::Range<usize>,
        scratch: &'b mut Vec<u8>,
    ) -> &'b [u8] {
        scratch.clear();
        match self {
            Self::Whole => {
                let start = records.start.checked_sub(1).map_or(0, |before| block.index[before].end as usize);
                return &block.bytes
                    [start..records.end.checked_sub(1).map_or(start, |last| block.index[last].end as usize)];
            }
            Self::Dated { key, format } => {
                for record in records {
                    dated(&block.index[record], block.line(record), key, *format, scratch);
                }
            }
            Self::Value { key } => {
                for record in records {
                    let line = block.line(record);
                    match Text::of(line, key.as_bytes()) {
                        Some(text) => text.write(scratch),
                        None => scratch.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line)),
                    }
                    scratch.push(b'\n');
                }
            }
        }
        scratch
    }
}

fn escaped(key: &str) -> Box<str> {
    let mut name = Vec::new();
    json::escape(key.as_bytes(), &mut name);
    String::from_utf8(name).unwrap_or_default().into()
}

fn dated(entry: &Entry, line: &[u8], key: &str, format: DateFormat, out: &mut Vec<u8>) {
    let Some(members) = line.strip_prefix(b"{") else { return out.extend_from_slice(line) };
    // A date of the record's own stays the only one. Most lines do not hold the name at all.
    if memchr::memmem::find(line, key.as_bytes()).is_some() && scan::member(line, key.as_bytes()).is_some() {
        return out.extend_from_slice(line);
    }
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    write_date(entry.time_ns, format, out);
    if !members.trim_ascii_start().starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(members);
}

fn write_date(time_ns: i64, format: DateFormat, out: &mut Vec<u8>) {
    match format {
        DateFormat::Iso8601 => {
            out.push(b'"');
            write_rfc3339(time_ns, 6, out);
            out.push(b'"');
        }
        DateFormat::JavaSqlTimestamp => {
            out.push(b'"');
            let start = out.len();
            write_rfc3339(time_ns, 6, out);
            out[start + 10] = b' ';
            out.pop();
            out.push(b'"');
        }
        DateFormat::Epoch => write_number(time_ns.div_euclid(1_000_000_000), out),
        DateFormat::EpochMs => write_number(time_ns.div_euclid(1_000_000), out),
        DateFormat::Double => write_double(time_ns, out),
    }
}

fn write_number(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// As C writes a double with `%.16g`, but for whole numbers, which keep a zero after their point.
fn write_double(time_ns: i64, out: &mut Vec<u8>) {
    let seconds = time_ns.div_euclid(1_000_000_000) as f64 + time_ns.rem_euclid(1_000_000_000) as f64 / 1e9;
    let mut text = String::new();
    let whole_digits = (seconds.abs().max(1.0).log10() as usize) + 1;
    let written = write!(text, "{seconds:.*}", 16_usize.saturating_sub(whole_digits).max(1));
    debug_assert!(written.is_ok(), "a string takes everything");
    let trimmed = text.trim_end_matches('0');
    out.extend_from_slice(trimmed.as_bytes());
    if trimmed.ends_with('.') {
        out.push(b'0');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::driver::testing::{Line, block};

    const TIME_NS: i64 = 1_795_910_399_123_456_789;

    fn written(lines: &Lines, texts: &[&str]) -> String {
        let mut block = block(&texts.iter().map(|text| Line::new(0, *text)).collect::<Vec<_>>());
        block.index.iter_mut().for_each(|entry| entry.time_ns = TIME_NS);
        String::from_utf8(lines.of(&block, 0..texts.len(), &mut Vec::new()).to_vec()).unwrap()
    }

    #[test]
    fn lines_as_they_are_cost_no_copy() {
        let block = block(&["{}", "{\"a\":1}", "{\"b\":1}"].map(|text| Line::new(0, text)));
        let mut scratch = Vec::new();
        assert_eq!(Lines::Whole.of(&block, 1..3, &mut scratch), b"{\"a\":1}\n{\"b\":1}\n");
        assert_eq!(Lines::Whole.of(&block, 1..1, &mut scratch), b"");
    }

    #[test]
    fn the_date_comes_first() {
        let date = |format| written(&Lines::dated("date", format), &["{\"log\":\"x\"}"]);
        assert_eq!(date(DateFormat::Iso8601), "{\"date\":\"2026-11-28T23:59:59.123456Z\",\"log\":\"x\"}\n");
        assert_eq!(date(DateFormat::JavaSqlTimestamp), "{\"date\":\"2026-11-28 23:59:59.123456\",\"log\":\"x\"}\n");
        assert_eq!(date(DateFormat::Epoch), "{\"date\":1795910399,\"log\":\"x\"}\n");
        assert_eq!(date(DateFormat::EpochMs), "{\"date\":1795910399123,\"log\":\"x\"}\n");
        assert_eq!(date(DateFormat::Double), "{\"date\":1795910399.123457,\"log\":\"x\"}\n");
        let odd = written(&Lines::dated("a\"b", DateFormat::Epoch), &["{}"]);
        assert_eq!(odd, "{\"a\\\"b\":1795910399}\n");
        let mut whole = Vec::new();
        write_double(TIME_NS / 1_000_000_000 * 1_000_000_000, &mut whole);
        assert_eq!(whole, b"1795910399.0");
    }

    #[test]
    fn a_value_stands_alone_unescaped() {
        let texts = [
            r#"{"a":1,"log":"{\"x\":\"é\u00e9\"}\nb"}"#,
            r#"{"log":""}"#,
            r#"{"log":{"a":[1]}}"#,
            r#"{"b":1}"#,
            r#"{"log":null}"#,
        ];
        let expected = "{\"x\":\"éé\"}\nb\n\n{\"a\":[1]}\n{\"b\":1}\n{\"log\":null}\n";
        assert_eq!(written(&Lines::value("log"), &texts), expected);
    }
}
