//! What a Firehose record holds of a record: its line, its line with the time as last member, or one field's value.
//!
//! Where it is not the line itself, a second block is made beside each: same records, other bytes. So all that follows works
//! on spans of blocks, whatever is sent. Cost then: a copy of what is sent, for as long as its batch.

use std::sync::Arc;

use crate::journal::block::{Block, Entry};
use crate::record::json;
use crate::sink::template::date::Format;
use crate::sink::value::Text;
use crate::telemetry::account::Reason;

/// What is sent of a record.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Form {
    /// Its line.
    #[default]
    Line,
    /// Its line with its time as the last member.
    Timed {
        /// The member's name as it stands between quotes in JSON.
        key: Box<str>,
        /// How it is written.
        format: Format,
    },
    /// One field's value and a newline: a text unescaped, anything else as its JSON. The whole line where it is absent or
    /// null; nothing at all where it is empty.
    Value {
        /// The field's name as it stands between quotes in JSON.
        key: Box<str>,
    },
}

impl Form {
    /// With the time under that name.
    pub fn timed(key: &str, format: Format) -> Self {
        Self::Timed { key: escaped(key), format }
    }

    /// With that field's value alone.
    pub fn value(key: &str) -> Self {
        Self::Value { key: escaped(key) }
    }

    /// A block with what is sent of each record for sink `sink`, and the records of which nothing is.
    pub(super) fn of(&self, block: &Arc<Block>, sink: usize) -> (Arc<Block>, Vec<(u32, Reason)>) {
        if *self == Self::Line {
            return (block.clone(), Vec::new());
        }
        let mut framed = Block { index: Vec::with_capacity(block.index.len()), ..Block::default() };
        framed.bytes.reserve(block.bytes.len());
        let mut empty = Vec::new();
        let mut date = String::new();
        for (i, entry) in block.index.iter().enumerate() {
            let is_sent = entry.sinks & (1 << sink) != 0;
            if is_sent && !self.write(entry, block.line(i), &mut date, &mut framed.bytes) {
                empty.push((i as u32, Reason::Empty));
            } else if !is_sent {
                // One byte, so that what stands before and after it are no neighbours.
                framed.bytes.push(b'\n');
            }
            framed.index.push(Entry { end: framed.bytes.len() as u32, ..*entry });
        }
        (Arc::new(framed), empty)
    }

    /// Writes what is sent of a record. False if that is nothing; a byte is written then as well.
    fn write(&self, entry: &Entry, line: &[u8], date: &mut String, out: &mut Vec<u8>) -> bool {
        let object = line.strip_suffix(b"\n").unwrap_or(line);
        match self {
            Self::Line => out.extend_from_slice(object),
            Self::Timed { key, format } => {
                date.clear();
                format.write(entry.time_ns, date);
                match object.trim_ascii_end().strip_suffix(b"}") {
                    Some(members) => {
                        out.extend_from_slice(members);
                        if members.trim_ascii_end() != b"{" {
                            out.push(b',');
                        }
                        out.push(b'"');
                        out.extend_from_slice(key.as_bytes());
                        out.extend_from_slice(b"\":\"");
                        json::escape(date.as_bytes(), out);
                        out.extend_from_slice(b"\"}");
                    }
                    None => out.extend_from_slice(object),
                }
            }
            Self::Value { key } => match Text::of(line, key.as_bytes()) {
                Some(text) if text.is_empty() => {
                    out.push(b'\n');
                    return false;
                }
                Some(text) => text.write(out),
                None => out.extend_from_slice(object),
            },
        }
        out.push(b'\n');
        true
    }
}

fn escaped(key: &str) -> Box<str> {
    let mut name = Vec::new();
    json::escape(key.as_bytes(), &mut name);
    String::from_utf8(name).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::driver::testing::{Line, block};

    fn framed(form: &Form, texts: &[&str]) -> (Vec<String>, Vec<u32>) {
        let lines: Vec<Line> = texts.iter().map(|text| Line::new(1_709_175_845_678, *text)).collect();
        let (framed, empty) = form.of(&Arc::new(block(&lines)), 0);
        let text = |i| String::from_utf8(framed.line(i).to_vec()).unwrap();
        ((0..texts.len()).map(text).collect(), empty.into_iter().map(|(record, _)| record).collect())
    }

    #[test]
    fn the_time_comes_last() {
        let form = Form::timed("t\"", Format::parse("%Y-%m-%dT%H:%M:%S.%3N").unwrap());
        let (lines, empty) = framed(&form, &["{\"a\":1}", "{}"]);
        assert_eq!(lines[0], "{\"a\":1,\"t\\\"\":\"2024-02-29T03:04:05.678\"}\n");
        assert_eq!(lines[1], "{\"t\\\"\":\"2024-02-29T03:04:05.678\"}\n");
        assert!(empty.is_empty());
    }

    #[test]
    fn a_value_stands_alone_and_an_empty_one_not_at_all() {
        let texts = [r#"{"log":"a \"b\""}"#, r#"{"log":""}"#, r#"{"x":1}"#, r#"{"log":{"a":1}}"#];
        let (lines, empty) = framed(&Form::value("log"), &texts);
        assert_eq!(lines, ["a \"b\"\n", "\n", "{\"x\":1}\n", "{\"a\":1}\n"]);
        assert_eq!(empty, [1]);
    }

    #[test]
    fn records_of_others_part_what_is_sent() {
        let lines = [Line::new(0, "{\"log\":\"a\"}"), Line { sinks: 2, ..Line::new(0, "{\"log\":\"b\"}") }];
        let (framed, _) = Form::value("log").of(&Arc::new(block(&lines)), 0);
        assert_eq!((framed.line(0), framed.line(1)), (&b"a\n"[..], &b"\n"[..]));
    }
}
