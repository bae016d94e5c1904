//! Envoy's log lines: access logs in JSON and text, its application log, the lines of the agent that runs it.

use crate::record::{Kind, Record};

pub mod format;
pub mod json;
pub mod presets;
pub mod text;

/// Parses the lines of one stream. Holds what it learned of the stream; cheap to make.
#[derive(Debug, Default)]
pub struct Parser {}

impl Parser {
    /// Recognises and parses one line (without its newline) into `record.parsed`, sets `record.kind`, and for an access log
    /// with a start time `record.time_ns`. What it does not recognise it leaves as it is, [`Kind::Other`].
    pub fn parse<'a>(&mut self, _line: &'a [u8], record: &mut Record<'a>) {
        record.kind = Kind::Other;
    }
}
