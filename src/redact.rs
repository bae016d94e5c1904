//! Redaction of query strings, before anything that can keep or print a record.
//!
//! [`Redactor::redact`] is called once for each record, after it was parsed and before it is routed and encoded;
//! [`Redactor::scrub_text`] for bytes that are no record (dead letters, diagnostics).
//!
//! # What is removed
//!
//! *In fields of an access log that hold a URL* (by name: `path`, `x-envoy-original-path`, `uri`, `referer`, …): everything
//! from the first `?`, encoded `?` or `#` on, and the user information of an absolute URL. `authority` loses its user
//! information; a field that is a query without `?` (`query_string`, …) counts as one.
//!
//! *In everything else* (other fields, names of fields, application logs, lines nobody understood, strings inside nested
//! values): every run of bytes that begins behind a `?` or an encoded `?` (`redact::mark` lists them), through to the next
//! blank or closing quote (`redact::quotes` says when). It fails closed: a user agent with a harmless `?` loses the word
//! behind it. A `?` with nothing behind it stays. Text that is a valid JSON object or array as a whole is scrubbed string by
//! string, so that it stays one; JSON within its strings likewise.
//!
//! Not recognised: what is left of a query that was cut off from its `?` (by a line break, by a log format that prints
//! single decoded parameters), and user information or fragments of a URL in running text.
//!
//! # What is left of it
//!
//! | policy | `/x?a=b&token=t` | `/x?t` | `/x%3Fa=b` |
//! |---|---|---|---|
//! | strip | `/x` | `/x` | `/x` |
//! | keep `a` | `/x?a=b` | `/x` | `/x` |
//! | mask | `/x?a=***&token=***` | `/x?***` | `/x` |
//! | hash | `/x?a=~…&token=~…` | `/x?~…` | `/x` |
//!
//! A second redaction changes nothing.
//!
//! # Cost
//!
//! Nothing is allocated once the record's buffers have grown. One search over the log line tells which of its fields need
//! a look; a clean record costs that search and one each over the few values that stand elsewhere.

mod action;
mod holds;
mod mark;
mod nested;
mod quotes;
mod text;
mod url;

use std::ops::Range;

use self::action::Action;
use self::holds::Holds;
use crate::record::json::unescape;
use crate::record::{Kind, Name, Record, Span, Value, msgpack};

/// What happens to a query string.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Removed, from the `?` on. The default.
    #[default]
    Strip,
    /// Kept: the listed parameters only, with their values; every parameter if the list is empty (redaction is then off).
    Keep(Vec<String>),
    /// Parameter names stay, values become `***`.
    Mask,
    /// Parameter names stay, values become a keyed hash, so that equal values stay equal.
    Hash {
        /// The key of the HMAC; never printed.
        key: Secret,
    },
}

/// A value that Debug does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What happens to the text of lines that are neither access logs nor Envoy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Application {
    /// Scrubbed: nobody knows what stands in it. The default.
    #[default]
    Scrub,
    /// Passed on byte for byte, unless the stream that it came on speaks Envoy.
    Pass,
}

/// How to redact.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// What happens to query strings.
    pub query: Policy,
    /// Which lines are looked at; whoever calls [`Redactor::redact`] decides by it.
    pub application: Application,
}

/// Redacts records and text by one policy. Cheap to share: it holds no state.
#[derive(Clone)]
pub struct Redactor {
    action: Action,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Makes a redactor of the configured policy.
    pub fn new(config: &Config) -> Self {
        Self { action: Action::new(&config.query) }
    }

    /// Redacts every name and value of a record, the log line included.
    pub fn redact(&self, record: &mut Record<'_>) {
        if matches!(self.action, Action::Off) {
            return;
        }
        let suspects = Suspects::of(record.log_line().unwrap_or_default());
        let Record { kind, envelope, parsed, scratch, spare, .. } = record;
        let [document, string] = spare;
        let mut pass = Pass { action: &self.action, kind: *kind, scratch, document, string };
        for field in envelope.iter_mut().chain(parsed.iter_mut()) {
            // The name is read before it is scrubbed, as it says what the value holds.
            let holds = holds_if_asked(*kind, &field.name, &field.value, &suspects);
            if let Some(holds) = holds {
                field.value = pass.value(holds, field.value);
            }
            let is_suspect = match field.name {
                Name::Known(_) => false,
                // Made before us, where no search over the line reaches.
                Name::Scratch(_) => true,
                Name::Text(name) | Name::Json(name) => suspects.include(name),
            };
            if is_suspect {
                field.name = pass.name(field.name);
            }
        }
    }

    /// Appends `input` to `out`, scrubbed as text of unknown structure.
    pub fn scrub_text(&self, input: &[u8], out: &mut Vec<u8>) {
        match scrub_as(&self.action, Holds::Text, input, out, 0) {
            Outcome::Same => out.extend_from_slice(input),
            Outcome::Part(part) => out.extend_from_slice(&input[part]),
            Outcome::Written => {}
        }
    }
}

/// What scrubbing came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing had to change, nothing was written.
    Same,
    /// A part of the input is left, nothing was written.
    Part(Range<usize>),
    /// The result was appended to the output.
    Written,
}

/// Scrubs a value. `depth` counts the documents that it was found in as text.
fn scrub_as(action: &Action, holds: Holds, input: &[u8], out: &mut Vec<u8>, depth: usize) -> Outcome {
    match holds {
        _ if matches!(action, Action::Off) => Outcome::Same,
        Holds::Text => text::scrub(action, input, out, depth),
        Holds::Url => url::scrub(action, input, out),
        Holds::RequestLine => url::scrub_request_line(action, input, out),
        Holds::Authority => url::scrub_authority(input),
        Holds::Query => url::scrub_query(action, input, out),
    }
}

/// What a field holds; `None` if its value cannot hold anything to redact.
fn holds_if_asked(kind: Kind, name: &Name<'_>, value: &Value<'_>, suspects: &Suspects) -> Option<Holds> {
    let bytes = match *value {
        Value::Text(bytes) | Value::Json(bytes) | Value::JsonValue(bytes) | Value::MsgPack(bytes) => bytes,
        Value::Scratch(_) | Value::ScratchJson(_) => return Some(holds::of(kind, name)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Number(_) => {
            return None;
        }
    };
    (suspects.include(bytes) || holds::is_query(kind, name)).then(|| holds::of(kind, name))
}

/// The part of the log line, by address, in which bytes stand that redaction has to look at.
struct Suspects {
    line: Range<usize>,
    dirty: Range<usize>,
}

impl Suspects {
    fn of(line: &[u8]) -> Self {
        let start = line.as_ptr().addr();
        let first = [memchr::memchr3(b'?', b'%', b'\\', line), memchr::memchr2(b'#', b'@', line)];
        let last = [memchr::memrchr3(b'?', b'%', b'\\', line), memchr::memrchr2(b'#', b'@', line)];
        let dirty = match (first.into_iter().flatten().min(), last.into_iter().flatten().max()) {
            (Some(first), Some(last)) => start + first..start + last + 1,
            _ => 0..0,
        };
        Self { line: start..start + line.len(), dirty }
    }

    /// Whether these bytes may hold something to redact. Within the line no byte is read for it.
    fn include(&self, bytes: &[u8]) -> bool {
        let start = bytes.as_ptr().addr();
        let end = start + bytes.len();
        if self.line.start <= start && end <= self.line.end {
            return start < self.dirty.end && self.dirty.start < end;
        }
        url::may_hold(bytes)
    }
}

/// Redaction of one record: its buffers, lent out.
struct Pass<'p> {
    action: &'p Action,
    kind: Kind,
    scratch: &'p mut Vec<u8>,
    document: &'p mut Vec<u8>,
    string: &'p mut Vec<u8>,
}

impl Pass<'_> {
    fn value<'a>(&mut self, holds: Holds, value: Value<'a>) -> Value<'a> {
        match value {
            Value::Text(bytes) => match self.bytes(holds, bytes) {
                Change::None => value,
                Change::Part(part) => Value::Text(part),
                Change::Written(span) => Value::Scratch(span),
            },
            Value::Json(inside) if memchr::memchr(b'\\', inside).is_none() => match self.bytes(holds, inside) {
                Change::None => value,
                Change::Part(part) => Value::Json(part),
                Change::Written(span) => Value::Scratch(span),
            },
            Value::Json(inside) => self.resolved(holds, inside).map_or(value, Value::Scratch),
            Value::Scratch(span) => self.rewritten(holds, span).map_or(value, Value::Scratch),
            Value::JsonValue(document) => self.nested(holds, document).map_or(value, Value::ScratchJson),
            Value::MsgPack(packed) => {
                self.document.clear();
                msgpack::write_json(packed, self.document);
                self.own_document(holds).map_or(value, Value::ScratchJson)
            }
            Value::ScratchJson(span) => {
                self.document.clear();
                self.document.extend_from_slice(self.scratch.get(span.range()).unwrap_or_default());
                self.own_document(holds).map_or(value, Value::ScratchJson)
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Number(_) => value,
        }
    }

    /// A name that becomes another may become one of ours.
    fn name<'a>(&mut self, name: Name<'a>) -> Name<'a> {
        match name {
            Name::Known(_) => name,
            Name::Text(bytes) => match self.bytes(Holds::Text, bytes) {
                Change::None => name,
                Change::Part(part) => Name::text(part),
                Change::Written(span) => Name::Scratch(span),
            },
            Name::Json(inside) if memchr::memchr(b'\\', inside).is_none() => match self.bytes(Holds::Text, inside) {
                Change::None => name,
                Change::Part(part) => Name::json(part),
                Change::Written(span) => Name::Scratch(span),
            },
            Name::Json(inside) => self.resolved(Holds::Text, inside).map_or(name, Name::Scratch),
            Name::Scratch(span) => self.rewritten(Holds::Text, span).map_or(name, Name::Scratch),
        }
    }

    fn bytes<'a>(&mut self, holds: Holds, bytes: &'a [u8]) -> Change<'a> {
        let start = self.scratch.len();
        match scrub_as(self.action, holds, bytes, self.scratch, 0) {
            Outcome::Same => Change::None,
            Outcome::Part(part) => Change::Part(&bytes[part]),
            Outcome::Written => Change::Written(span_from(start, self.scratch)),
        }
    }

    /// Scrubs the inside of a JSON string that has escapes; the result has none.
    fn resolved(&mut self, holds: Holds, inside: &[u8]) -> Option<Span> {
        self.string.clear();
        unescape(inside, self.string);
        self.own_string(holds)
    }

    /// Scrubs what stands in the scratch buffer already.
    fn rewritten(&mut self, holds: Holds, span: Span) -> Option<Span> {
        self.string.clear();
        self.string.extend_from_slice(self.scratch.get(span.range()).unwrap_or_default());
        self.own_string(holds)
    }

    fn own_string(&mut self, holds: Holds) -> Option<Span> {
        let start = self.scratch.len();
        match scrub_as(self.action, holds, self.string, self.scratch, 0) {
            Outcome::Same => return None,
            Outcome::Part(part) => self.scratch.extend_from_slice(&self.string[part]),
            Outcome::Written => {}
        }
        Some(span_from(start, self.scratch))
    }

    fn nested(&mut self, holds: Holds, document: &[u8]) -> Option<Span> {
        let start = self.scratch.len();
        nested::scrub(self.action, self.kind, holds, document, self.scratch, self.string, 0)
            .then(|| span_from(start, self.scratch))
    }

    fn own_document(&mut self, holds: Holds) -> Option<Span> {
        let start = self.scratch.len();
        nested::scrub(self.action, self.kind, holds, self.document, self.scratch, self.string, 0)
            .then(|| span_from(start, self.scratch))
    }
}

/// What became of bytes that outlive the record.
enum Change<'a> {
    None,
    Part(&'a [u8]),
    Written(Span),
}

/// The end of the scratch buffer, from `start` on. Beyond 4 GiB nothing can be addressed and the span is empty.
fn span_from(start: usize, scratch: &[u8]) -> Span {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: place(start), end: place(scratch.len()) }
}

#[cfg(test)]
mod tests;
