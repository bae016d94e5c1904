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
//! | event of outlier detection, what the admin interface prints | `Envoy` | nothing |
//! | the rest | `Other` | nothing |
//!
//! Any of the first may stand in what a container's runtime or a tool puts around it ([`wrapper`], [`embedded`]); that is taken off, and
//! what it says is kept. The rest stays as it is, byte for byte, whatever is around it.
//!
//! An access log in JSON that somebody has parsed before us is recognised by its fields, which stay where they are.

use crate::classify::{Class, class_of};
use crate::envoy::text::Memory;
use crate::record::{Kind, Record, Value};

pub mod format;
pub mod shape;
pub mod presets;
pub mod text;
pub mod scan;
pub mod mend;
pub mod json;
pub mod wrapper;
pub mod embedded;

/// Parses the lines of one stream. Holds what it learned of the stream; cheap to make.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    memory: Memory,
    spare: embedded::Spare,
}

/// Wrappers around one line.
const LAYERS_MAX: u8 = 4;

impl Parser {
    /// Recognises and parses one line (without its newline) into `record.parsed`, sets `record.kind`, and for an access log
    /// with a start time `record.time_ns`. What it does not recognise it leaves as it is, [`Kind::Other`]. True if Envoy, or
    /// the agent that runs it, wrote the line by the looks of it, understood or not.
    pub fn parse<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.layered(line, record, 0)
    }

    /// A line within so many wrappers; takes off the next one if that makes it a line that is known.
    fn layered<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>, layers: u8) -> bool {
        let is_envoys = self.bare(line, record, layers);
        if is_envoys || layers >= LAYERS_MAX {
            return is_envoys;
        }
        let Some(wrapped) = wrapper::take_off(line) else { return false };
        if wrapped.is_piece {
            // Its other pieces are not here.
            return class_of(wrapper::inner(line)) != Class::Other;
        }
        let time_ns = record.time_ns;
        record.time_ns = wrapped.time_ns.unwrap_or(time_ns);
        let is_envoys = self.layered(wrapped.line, record, layers + 1);
        if record.kind == Kind::Other {
            record.time_ns = time_ns;
        } else {
            wrapped.keep(record);
        }
        is_envoys
    }

    /// A line as it stands.
    fn bare<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>, layers: u8) -> bool {
        let class = class_of(line);
        record.kind = match class {
            Class::JsonObject => return self.object(line, record, layers),
            Class::AccessText { line, start_ns } => self.access_text(line, start_ns, record),
            Class::EnvoyApplication { level } | Class::Agent { level } => {
                let level = Some(level).filter(|level| !level.is_empty());
                embedded::own_line(line, level.map(Value::Text), layers, record)
            }
            Class::Other => Kind::Other,
        };
        record.kind != Kind::Other || matches!(class, Class::AccessText { .. })
    }

    /// Recognises an access log, or an event of outlier detection, that came as fields instead of as a line: somebody before us has
    /// parsed its JSON. Or a line that came as `message` or `msg` instead of as `log`. True as for [`Self::parse`].
    pub fn recognise(&mut self, record: &mut Record<'_>) -> bool {
        let (kind, start_ns) = json::weigh(&record.envelope);
        record.kind = kind;
        if let Some(start_ns) = start_ns.filter(|_| kind == Kind::Access) {
            record.time_ns = start_ns;
        }
        kind != Kind::Other || self.other_line(record)
    }

    fn access_text<'a>(&mut self, line: &'a [u8], start_ns: i64, record: &mut Record<'a>) -> Kind {
        if !text::parse(presets::layouts(), &mut self.memory, line, record) {
            return Kind::Other;
        }
        record.time_ns = start_ns;
        Kind::Access
    }
}
