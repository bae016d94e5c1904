//! `meshlens parse --explain` and `--infer`: what is asked before a format is configured.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Exit, print, say};
use crate::encode::write_value;
use crate::envoy::Parser;
use crate::envoy::explain::{Explanation, explain};
use crate::envoy::formats::Formats;
use crate::envoy::infer::{self, LINES_MAX, Proposal};
use crate::record::{Key, Kind, Name, Record, Value};
use crate::redact::Redactor;
use crate::source::lines::open;

/// Which format a line is read by, field by field, and why others are not; redacted as `parse` would.
pub(super) fn explanation(formats: &Arc<Formats>, redactor: &Redactor, line: &str) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    let mut record = Record::new();
    record.push_envelope(Name::Known(Key::Log), Value::Text(line.as_bytes()));
    Parser::new(formats.clone()).parse(line.as_bytes(), &mut record);
    redactor.redact(&mut record);
    let Explanation { class, chosen, others } = explain(formats, line.as_bytes());
    // Writing to a String cannot fail.
    let mut out = format!("line    {class}\n");
    match (record.kind, chosen) {
        (Kind::Access, Some(format)) => writeln!(out, "format  {format}").ok(),
        (Kind::Access, None) => writeln!(out, "format  JSON, known by its keys").ok(),
        (Kind::Envoy, _) => writeln!(out, "format  none: passed on as a line of Envoy's, redacted").ok(),
        (Kind::Other, _) => writeln!(out, "format  none: passed on as it is, redacted").ok(),
    };
    for (place, field) in record.parsed.iter().enumerate() {
        let mut value = Vec::new();
        write_value(&record, &field.value, &mut value);
        let name = String::from_utf8_lossy(record.name_bytes(&field.name)).into_owned();
        let is_open = match field.name {
            Name::Known(key) => record.ambiguous & (1 << key as u8) != 0,
            _ => place < 64 && record.ambiguous_places & (1 << place) != 0,
        };
        let mark = if is_open { "  (parse_ambiguous: the line can be read differently)" } else { "" };
        writeln!(out, "  {name:<32} {}{mark}", String::from_utf8_lossy(&value)).ok();
    }
    for (format, why) in others {
        // It may name keys of the line.
        let mut scrubbed = Vec::new();
        redactor.scrub_text(why.as_bytes(), &mut scrubbed);
        writeln!(out, "not     {format}: {}", String::from_utf8_lossy(&scrubbed)).ok();
    }
    out
}

/// Proposes a format for the lines of files, or of standard input.
pub(super) fn infer(files: &[PathBuf]) -> Exit {
    let mut lines = Vec::new();
    let standard_input = [PathBuf::from("-")];
    for file in if files.is_empty() { &standard_input[..] } else { files } {
        if let Err(error) = read(file, &mut lines) {
            say(format_args!("meshlens: {}: {error}", file.display()));
            return Exit::Failure;
        }
    }
    let borrowed: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    match infer::infer(&borrowed) {
        None => {
            say("no two lines are alike in a way that a format could print");
            Exit::Failure
        }
        Some(Proposal { format, read, lines, guesses }) => {
            say(format_args!("reads {read} of {lines} lines"));
            if !guesses.is_empty() {
                say(format_args!("guessed, compare with Envoy's configuration: {}", guesses.join(", ")));
            }
            print(&format!("{format}\n"))
        }
    }
}

fn read(file: &Path, lines: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let mut reader: Box<dyn BufRead> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(open(file)?)),
    };
    while lines.len() < LINES_MAX {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        line.truncate(line.trim_ascii_end().len());
        lines.push(line);
    }
    Ok(())
}
