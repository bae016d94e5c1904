//! Envoy's log lines: access logs in JSON and text, its application log, the lines of the agent that runs it.
//!
//! Called once a line, after decode and before redact; synchronous, without I/O, and without allocation once the record's
//! tables have grown. Everything put into a record borrows from the line.
//!
//! | line | kind | put into [`Record::parsed`] |
//! |---|---|---|
//! | access log in text, of a layout in [`formats`] | `Access` | its fields, in the line's order |
//! | access log in JSON, known by its keys ([`json`]) | `Access` | its members, in the line's order |
//! | Envoy's own log, the agent's | `Envoy` | `level` |
//! | event of outlier detection, what the admin interface prints | `Envoy` | nothing |
//! | the rest | `Other` | nothing |
//!
//! Any of the first may stand in what a container's runtime or a tool puts around it ([`wrapper`], [`embedded`]); that is taken off, and
//! what it says is kept. The rest stays as it is, byte for byte, whatever is around it.
//!
//! An access log in JSON that somebody has parsed before us is recognised by its fields, which stay where they are.

use std::sync::Arc;

use crate::classify::{Class, class_of};
use crate::envoy::formats::Formats;
use crate::envoy::shape::Shape;
use crate::envoy::text::{Memory, Reading};
use crate::record::{Kind, Record, Value};
use crate::timestamp::parse_rfc3339_ns;

pub mod time;
pub mod shape;
pub mod operator;
pub mod format;
pub mod scan;
pub mod json_format;
pub mod presets;
pub mod formats;
pub mod text;
pub mod mend;
pub mod json;
pub mod wrapper;
pub mod embedded;
pub mod explain;
pub mod infer;

/// Parses the lines of one stream. Holds what it learned of the stream.
#[derive(Clone, Debug)]
pub struct Parser {
    formats: Arc<Formats>,
    /// What was learned of lines that begin `[time] `, and of others.
    bracketed: Memory,
    general: Memory,
    reading: Box<Reading>,
    /// Whether a line that no format fits may show a secret that nobody recognises.
    hides_unread: bool,
    spare: embedded::Spare,
}

/// What is left of a line that no format fits, where formats print secrets, is not longer than this.
const UNREAD_BYTES_MAX: usize = 128;

/// Wrappers around one line.
const LAYERS_MAX: u8 = 4;

impl Default for Parser {
    fn default() -> Self {
        Self::new(Formats::auto())
    }
}

impl Parser {
    /// A parser by those formats.
    pub fn new(formats: Arc<Formats>) -> Self {
        Self {
            hides_unread: formats.print_secrets(),
            formats,
            bracketed: Memory::default(),
            general: Memory::default(),
            reading: Box::default(),
            spare: embedded::Spare::default(),
        }
    }

    /// Recognises and parses one line (without its newline) into `record.parsed`, sets `record.kind`, and for an access log
    /// with a start time `record.time_ns`. What it does not recognise it leaves as it is, [`Kind::Other`]. True if Envoy, or
    /// the agent that runs it, wrote the line by the looks of it, understood or not.
    pub fn parse<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_envoys = self.layered(line, record, 0);
        if self.hides_unread && is_envoys && record.kind == Kind::Other {
            // What stands where is not known: only what comes before the time's end is left.
            let end = memchr::memchr(b']', line).map_or(0, |at| at + 1);
            record.put_log(Value::Text(&line[..end.min(UNREAD_BYTES_MAX)]));
        }
        is_envoys
    }

    /// A line within so many wrappers; takes off the next one if that makes it a line that is known.
    fn layered<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>, layers: u8) -> bool {
        let mut is_envoys = self.bare(line, record, layers);
        if record.kind == Kind::Other
            && !is_envoys
            && layers < LAYERS_MAX
            && let Some(wrapped) = wrapper::take_off(line)
        {
            is_envoys = self.within(wrapped, line, record, layers);
            if wrapped.is_piece {
                return is_envoys;
            }
            self.doubt_wrapper(wrapped.line, line, record);
        }
        // Last, as such a format may begin with anything, a wrapper too.
        if record.kind == Kind::Other && !self.formats.general.is_empty() {
            record.kind = self.general_text(line, record);
        }
        is_envoys || record.kind != Kind::Other
    }

    /// A format of one's own may begin with anything: if it reads the line with its wrapper as well as without, a client may have made the
    /// wrapper up, and all fields are marked.
    fn doubt_wrapper(&mut self, inner: &[u8], line: &[u8], record: &mut Record<'_>) {
        let layouts = &self.formats.general;
        let is_open = record.kind == Kind::Access && !layouts.is_empty() && class_of(inner) == Class::Other;
        if is_open && layouts.iter().any(|layout| text::is_likely(layout, line, &mut self.reading)) {
            for place in 0..record.parsed.len() {
                record.doubt(record.parsed[place].name, place);
            }
        }
    }

    /// What stands in a wrapper. The record is as before if it is nothing that is known.
    fn within<'a>(&mut self, wrapped: wrapper::Wrapped<'a>, line: &[u8], record: &mut Record<'a>, layers: u8) -> bool {
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

    /// A line as it stands, told by its start.
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
        match text::parse(&self.formats.bracketed, &mut self.bracketed, &mut self.reading, line, record) {
            Some(_) => {
                record.time_ns = start_ns;
                Kind::Access
            }
            None => Kind::Other,
        }
    }

    fn general_text<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>) -> Kind {
        let layouts = &self.formats.general;
        let Some(best) = text::parse(layouts, &mut self.general, &mut self.reading, line, record) else {
            return Kind::Other;
        };
        let layout = &layouts[best];
        if let Some(place) = layout.roles.start_time {
            let text = self.reading.at(line, place);
            let time_ns = match layout.slots[place].shape {
                Shape::TimeBy(format) => format.read(text).and_then(|(_, time_ns)| time_ns),
                _ => parse_rfc3339_ns(text),
            };
            record.time_ns = time_ns.unwrap_or(record.time_ns);
        }
        Kind::Access
    }
}
