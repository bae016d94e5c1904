//! Lines to JSON lines, without enrichment, routing or journal: the work of `meshlens parse`.
//!
//! Reads through one buffer that only rolls its partial tail, so that memory does not grow with the input.

use std::io::{self, Read, Write};

use crate::derive::Derive;
use crate::encode::{Fragment, encode};
use crate::envoy::Parser;
use crate::letter;
use crate::record::{Key, Kind, Name, Record, Value};
use crate::redact::{Counts, Redactor, Report};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// Longer lines are cut here, and counted.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lines read.
    pub lines: u64,
    /// Of these, access log entries.
    pub access: u64,
    /// Of these, access log entries with a field that the line does not determine.
    pub ambiguous: u64,
    /// Lines of Envoy's own log and of the agent beside it.
    pub envoy: u64,
    /// All else.
    pub other: u64,
    /// Lines cut at [`LINE_BYTES_MAX`].
    pub truncated: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// What lines go through.
#[derive(Debug)]
pub struct Stages<'s> {
    /// Parses, by what it learns of the stream.
    pub parser: Parser,
    /// Redacts.
    pub redactor: &'s Redactor,
    /// Counts what was redacted.
    pub report: &'s Report,
    /// Makes fields of access logs.
    pub derive: Option<&'s Derive>,
}

/// Writes each line of `input` to `output` as one JSON object, parsed where it is recognised, redacted always; access logs with
/// the fields that `derive` makes.
///
/// # Errors
/// Reading or writing failed.
pub fn parse_lines(
    input: &mut impl Read,
    output: &mut impl Write,
    stages: &mut Stages<'_>,
    stats: &mut Stats,
) -> io::Result<()> {
    let mut counts = Counts::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut encoded = Vec::new();
    let mut filled = 0;
    // The rest of a line that was cut is passed over.
    let mut skipping = false;
    loop {
        if filled == buffer.len() && buffer.len() < LINE_BYTES_MAX {
            buffer.resize((buffer.len() * 2).min(LINE_BYTES_MAX), 0);
        }
        let read = match input.read(&mut buffer[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        stats.bytes += read as u64;
        let end = filled + read;
        let is_last = read == 0;
        let whole = match memchr::memrchr(b'\n', &buffer[..end]) {
            Some(newline) => newline + 1,
            None if is_last || end >= LINE_BYTES_MAX => end,
            None => 0,
        };
        let mut lines = &buffer[..if is_last { end } else { whole }];
        if skipping {
            let Some(newline) = memchr::memchr(b'\n', lines) else {
                filled = 0;
                if is_last {
                    return output.flush();
                }
                continue;
            };
            lines = &lines[newline + 1..];
            skipping = false;
        }
        let is_cut = !is_last && !lines.is_empty() && lines.last() != Some(&b'\n');
        encode_lines(lines, stages, &mut counts, stats, &mut encoded);
        stages.report.enter(&mut counts);
        if is_cut {
            stats.truncated += 1;
            skipping = true;
        }
        output.write_all(&encoded)?;
        encoded.clear();
        if is_last {
            return output.flush();
        }
        buffer.copy_within(whole..end, 0);
        filled = end - whole;
    }
}

fn encode_lines(lines: &[u8], stages: &mut Stages<'_>, counts: &mut Counts, stats: &mut Stats, encoded: &mut Vec<u8>) {
    let fragment = Fragment::default();
    let mut record = Record::new();
    let mut letter_tag = Vec::new();
    let mut start = 0;
    let unended = (lines.last().is_some_and(|last| *last != b'\n')).then_some(lines.len());
    for end in memchr::memchr_iter(b'\n', lines).chain(unended) {
        let line = &lines[start..end];
        start = end + 1;
        record.clear();
        let is_letter = letter::read(line, &mut record, &mut letter_tag).is_some();
        if !is_letter {
            record.push_envelope(Name::Known(Key::Log), Value::Text(line));
            stages.parser.parse(line, &mut record);
        }
        stages.redactor.redact_and_count(&mut record, counts);
        if let Some(derive) = stages.derive {
            derive.apply(&mut record);
        }
        stats.lines += 1;
        match record.kind {
            Kind::Access => stats.access += 1,
            Kind::Envoy => stats.envoy += 1,
            Kind::Other => stats.other += 1,
        }
        if is_letter {
            // Its `log_type` is one of its fields.
            record.kind = Kind::Other;
        }
        stats.ambiguous += u64::from(record.is_ambiguous());
        encode(&record, &fragment, encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact;

    /// Gives its bytes in pieces of the given sizes, over and over.
    struct Pieces<'a>(&'a [u8], Vec<usize>, usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.1[self.2 % self.1.len()].min(buffer.len()).min(self.0.len());
            self.2 += 1;
            buffer[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn parsed(input: &[u8], pieces: Vec<usize>) -> (Vec<String>, Stats) {
        let (mut output, mut stats) = (Vec::new(), Stats::default());
        let redactor = Redactor::new(&redact::Config::default());
        let (mut input, report) = (Pieces(input, pieces, 0), Report::default());
        let mut stages = Stages { parser: Parser::default(), redactor: &redactor, report: &report, derive: None };
        parse_lines(&mut input, &mut output, &mut stages, &mut stats).unwrap();
        (String::from_utf8(output).unwrap().lines().map(str::to_owned).collect(), stats)
    }

    #[test]
    fn lines_come_out_the_same_however_they_are_read() {
        let input = b"one\n\nthree /x?token=secret\r\nlast without newline";
        let (whole, stats) = parsed(input, vec![1 << 20]);
        assert_eq!(stats.lines, 4);
        assert_eq!(stats.bytes, input.len() as u64);
        assert_eq!(whole[0], r#"{"log":"one"}"#);
        assert_eq!(whole[3], r#"{"log":"last without newline"}"#);
        assert!(!whole.concat().contains("secret"));
        for size in 1..input.len() {
            assert_eq!(parsed(input, vec![size]), (whole.clone(), stats));
        }
    }

    #[test]
    fn an_endless_line_is_cut_once_and_the_next_one_is_whole() {
        let mut input = vec![b'a'; LINE_BYTES_MAX * 3 + 7];
        input.extend_from_slice(b"\nnext\n");
        let (lines, stats) = parsed(&input, vec![100_000, 7]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LINE_BYTES_MAX + r#"{"log":""}"#.len());
        assert_eq!(lines[1], r#"{"log":"next"}"#);
        assert_eq!((stats.lines, stats.truncated), (2, 1));
    }
}
