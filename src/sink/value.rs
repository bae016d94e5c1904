//! The value of one field in a record's line, for sinks that send nothing else of it (`log_key`).

use crate::record::{json, scan};

/// A value as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'l> {
    /// The inside of a JSON string, to be unescaped.
    Json(&'l [u8]),
    /// Any other value's JSON.
    Plain(&'l [u8]),
}

impl<'l> Text<'l> {
    /// The value of the field of that name, which is as it stands between quotes in JSON. None if it is absent or null.
    pub fn of(line: &'l [u8], key: &[u8]) -> Option<Self> {
        match &line[scan::member(line, key)?] {
            b"null" | b"" => None,
            [b'"', inside @ .., b'"'] => Some(Self::Json(inside)),
            value => Some(Self::Plain(value)),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Json(b"") | Self::Plain(b""))
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Json(inside) => json::unescape(inside, out),
            Self::Plain(value) => out.extend_from_slice(value),
        }
    }
}
