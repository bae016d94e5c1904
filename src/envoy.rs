//! Envoy's log lines: access logs in JSON and text, its application log, the lines of the agent that runs it.
//!
//! Called once a line, after decode and before redact; synchronous, without I/O, and without allocation once the record's
//! tables have grown. Everything put into a record borrows from the line.
//!
//! | line | kind | put into [`Record::parsed`] |
//! |---|---|---|
//! | access log in text, of a layout in [`presets`] | `Access` | its fields, in the line's order |
//! | access log in JSON, known by its keys ([`json`]) | `Access` | its members, in the line's order |
//! | Envoy's own log, the agent's | `Envoy` | `level` |
//! | event of outlier detection | `Envoy` | nothing |
//! | the rest | `Other` | nothing |
//!
//! An access log in JSON that somebody has parsed before us is recognised by its fields, which stay where they are.

use crate::classify::{Class, class_of};
use crate::envoy::text::Memory;
use crate::record::{Field, Key, Kind, Name, Record, Value};

pub mod format;
pub mod shape;
pub mod presets;
pub mod text;
pub mod scan;
pub mod json;

/// Parses the lines of one stream. Holds what it learned of the stream; cheap to make.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    memory: Memory,
}

impl Parser {
    /// Recognises and parses one line (without its newline) into `record.parsed`, sets `record.kind`, and for an access log
    /// with a start time `record.time_ns`. What it does not recognise it leaves as it is, [`Kind::Other`]. True if Envoy, or
    /// the agent that runs it, wrote the line by the looks of it, understood or not.
    pub fn parse<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let class = class_of(line);
        record.kind = match class {
            Class::JsonObject => json::parse(line, record),
            Class::AccessText { line, start_ns } => self.access_text(line, start_ns, record),
            Class::EnvoyApplication { level } | Class::Agent { level } => {
                record.parsed.push(Field { name: Name::Known(Key::Level), value: Value::Text(level) });
                Kind::Envoy
            }
            Class::Other => Kind::Other,
        };
        record.kind != Kind::Other || matches!(class, Class::AccessText { .. })
    }

    /// Recognises an access log, or an event of outlier detection, that came as fields instead of as a line: somebody before us has
    /// parsed its JSON. True if it is one.
    pub fn recognise(&self, record: &mut Record<'_>) -> bool {
        let (kind, start_ns) = json::weigh(&record.envelope);
        record.kind = kind;
        if let Some(start_ns) = start_ns.filter(|_| kind == Kind::Access) {
            record.time_ns = start_ns;
        }
        kind != Kind::Other
    }

    fn access_text<'a>(&mut self, line: &'a [u8], start_ns: i64, record: &mut Record<'a>) -> Kind {
        if !text::parse(presets::layouts(), &mut self.memory, line, record) {
            return Kind::Other;
        }
        record.time_ns = start_ns;
        Kind::Access
    }
}
