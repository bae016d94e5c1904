//! Redaction, before anything that can keep or print a record: query strings, and what else is nobody's business.
//!
//! [`Redactor::redact`] is called once for each record, after it was parsed and before it is routed and encoded;
//! [`Redactor::scrub_text`] for bytes that are no record (tags, diagnostics). docs/redaction.md says for users what goes, by
//! which rule, and what is not recognised.
//!
//! ```text
//! record ─► field, by name ─► class (field)
//!             ├ Url, RequestLine, Authority, Query   url ─► action (policies), matrix
//!             ├ Parameter, Secret                    the whole value, whatever it is
//!             └ Text                                 text ─► queries (mark, quotes) ─► userinfo ─► matrix
//!                  │                                      ─► headers (secret) ─► variables (environment)
//!                  └ a JSON document                 nested: each member as a field, each string as a text
//!           all but whole values ─► detect
//! ```
//!
//! # What holds
//!
//! - It fails closed: what a text may be, it is taken for; a user agent with a harmless `?` loses the word behind it.
//! - A second redaction changes nothing. Passes over running text are repeated for as long as one that came late found
//!   something.
//! - Text stays UTF-8 if it was, a JSON document stays one.
//! - Work is linear in the text, but for the rounds, of which there are eight at most, and documents within documents, which
//!   are taken apart to a depth of eight.
//! - What is counted ([`Counts`], [`Report`]) is a rule and a known key; nothing of the record is kept.
//!
//! # Cost
//!
//! Nothing is allocated once the record's buffers have grown. Two searches over the log line tell which of its fields need
//! a look; a clean access log costs these and one each over the few values that stand elsewhere. Other lines cost one search
//! more, for names of headers. `benches/redact.rs` measures it.

mod action;
mod detect;
mod doubt;
mod edit;
mod environment;
mod field;
mod mark;
mod matrix;
mod nested;
mod quotes;
mod report;
mod rules;
mod secret;
mod suspects;
mod text;
mod url;
mod userinfo;

use std::ops::Range;

use self::action::MASK;
pub use self::detect::Detector;
use self::doubt::{Doubt, Marks};
pub use self::field::FieldClass;
use self::report::Place;
pub use self::report::{Counts, Line, Report, Rule};
use self::rules::{Holder, Rules, Scrub};
use self::suspects::Suspects;
use crate::record::json::unescape;
use crate::record::{Field, Key, Kind, Name, Record, Span, Value, msgpack};

/// What happens to a query string.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Removed, from the `?` on. The default.
    #[default]
    Strip,
    /// Kept: the listed parameters only, with their values; every parameter if the list is empty. Where nothing else is
    /// configured redaction is then off.
    Keep(Vec<String>),
    /// Parameter names stay, values become `***`.
    Mask,
    /// Parameter names stay, values become a keyed hash, so that equal values stay equal.
    Hash {
        /// The key of the HMAC; never printed.
        key: Secret,
    },
}

/// What happens to single parameters, whatever the policy is. A name in several lists is treated as in the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Parameters {
    /// Removed.
    pub strip: Vec<String>,
    /// Their values become `***`.
    pub mask: Vec<String>,
    /// Their values become a keyed hash.
    pub hash: Vec<String>,
    /// Kept.
    pub keep: Vec<String>,
    /// The key of the hash, if the policy has none.
    pub key: Option<Secret>,
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
    /// What happens to single parameters.
    pub parameters: Parameters,
    /// Which lines are looked at; whoever calls [`Redactor::redact`] decides by it.
    pub application: Application,
    /// What fields hold, by name, in any case, in every record. The first entry of a name counts, before what its name would mean.
    pub fields: Vec<(String, FieldClass)>,
    /// The same, as the operators of formats say; for access logs, and behind `fields`.
    pub operators: Vec<(String, FieldClass)>,
    /// Headers whose values are secrets, beside those that everybody knows.
    pub headers: Vec<String>,
    /// Whether `;k=v` in paths is redacted as queries are.
    pub matrix_parameters: bool,
    /// Secrets looked for by their own form.
    pub detectors: Vec<Detector>,
}

/// Redacts records and text by one policy. Cheap to share: it holds no state.
#[derive(Clone)]
pub struct Redactor {
    rules: Rules,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Makes a redactor of the configured policy.
    pub fn new(config: &Config) -> Self {
        Self { rules: Rules::new(config) }
    }

    /// Redacts every name and value of a record, the log line included.
    pub fn redact(&self, record: &mut Record<'_>) {
        self.pass(record, None);
    }

    /// The same, and counts what was redacted.
    pub fn redact_and_count(&self, record: &mut Record<'_>, counts: &mut Counts) {
        self.pass(record, Some(counts));
    }

    /// Appends `input` to `out`, scrubbed as text of unknown structure.
    pub fn scrub_text(&self, input: &[u8], out: &mut Vec<u8>) {
        match Scrub::of_text(&self.rules).value(Holder::TEXT, input, out, 0) {
            Outcome::Same => out.extend_from_slice(input),
            Outcome::Part(part) => out.extend_from_slice(&input[part]),
            Outcome::Written => {}
        }
    }

    fn pass(&self, record: &mut Record<'_>, counts: Option<&mut Counts>) {
        if self.rules.are_off() {
            return;
        }
        let suspects = Suspects::of(&self.rules, record.log_line().unwrap_or_default());
        let marks = Marks { keys: record.ambiguous, places: record.ambiguous_places };
        let Record { kind, envelope, parsed, scratch, spare, log, .. } = record;
        // What an access log's line holds is in its fields, and counted there.
        let uncounted = log.filter(|_| *kind == Kind::Access && !parsed.is_empty());
        let [document, string, room] = spare;
        let scrub = Scrub {
            rules: &self.rules,
            kind: *kind,
            dumps: false,
            place: Place::OTHER,
            counts,
            is_counting: true,
            late: 0,
            room: std::mem::take(room),
        };
        let mut pass = Pass { scrub, scratch, document, string };
        for (place, field) in envelope.iter_mut().enumerate() {
            if pass.may_change(&suspects, field) {
                pass.scrub.is_counting = uncounted != Some(place);
                pass.field(&suspects, field, None);
            }
        }
        pass.scrub.is_counting = true;
        let mut doubt = Doubt::of(marks, parsed, &mut pass);
        for (place, field) in parsed.iter_mut().enumerate() {
            let least = doubt.least(place, field, pass.scratch);
            if least.is_some() || pass.may_change(&suspects, field) {
                pass.field(&suspects, field, least);
            }
        }
        *room = pass.scrub.room;
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

impl Outcome {
    /// What is left of the input, which may be what was written.
    fn left<'a>(&self, input: &'a [u8], written: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Same => input,
            Self::Part(part) => &input[part.clone()],
            Self::Written => written,
        }
    }
}

/// Redaction of one record: its buffers, lent out.
struct Pass<'p> {
    scrub: Scrub<'p>,
    scratch: &'p mut Vec<u8>,
    document: &'p mut Vec<u8>,
    string: &'p mut Vec<u8>,
}

impl Pass<'_> {
    /// Whether a field needs a look. Of the usual ones, under names of ours, most do not, and cost hardly more than this.
    #[inline]
    fn may_change(&self, suspects: &Suspects<'_>, field: &Field<'_>) -> bool {
        let Name::Known(key) = field.name else { return true };
        let rules = self.scrub.rules;
        if rules.names.of_known(self.scrub.kind, key).is_whole() || rules.names.are_configured() {
            return true;
        }
        match field.value {
            Value::Text(bytes) | Value::Json(bytes) => suspects.include(bytes) || self.holds_dumps(key),
            Value::Number(_) | Value::Int(_) | Value::UInt(_) => suspects.look_at_numbers(),
            Value::Null | Value::Bool(_) | Value::Float(_) => false,
            Value::JsonValue(_) | Value::MsgPack(_) | Value::Scratch(_) | Value::ScratchJson(_) => true,
        }
    }

    /// Whether header dumps and the like are looked for in that field: not in what access logs print under names of ours, nor in
    /// names and numbers of containers.
    fn holds_dumps(&self, key: Key) -> bool {
        self.scrub.kind != Kind::Access && !matches!(key, Key::ContainerId | Key::ContainerName | Key::Source)
    }

    /// Redacts a field, as one of the class of its name, or of a worse one.
    fn field(&mut self, suspects: &Suspects<'_>, field: &mut Field<'_>, least: Option<FieldClass>) {
        let Field { name, value } = field;
        let rules = self.scrub.rules;
        let given = *name;
        (self.scrub.place, self.scrub.dumps) = match given {
            Name::Known(key) => (Place::of(key), self.holds_dumps(key)),
            _ => (Place::OTHER, true),
        };
        let mut class = self.class_of(&given);
        let is_suspect = match given {
            Name::Known(_) => false,
            // Made before us, where no search over the line reaches.
            Name::Scratch(_) => true,
            Name::Text(name) | Name::Json(name) => suspects.include(name),
        };
        if is_suspect {
            *name = self.name(given);
            if class == FieldClass::Text && *name != given {
                class = self.class_of(name);
            }
        }
        class = least.map_or(class, |least| doubt::worse(class, least));
        let is_asked = class.is_whole()
            || least.is_some()
            || match *value {
                Value::Text(bytes) | Value::Json(bytes) => {
                    suspects.include(bytes)
                        || (self.scrub.dumps && rules.may_hold_dumps(bytes))
                        || rules.names.are_configured()
                }
                // Names in it may say more than its bytes.
                Value::JsonValue(_) | Value::MsgPack(_) | Value::Scratch(_) | Value::ScratchJson(_) => true,
                Value::Number(_) | Value::Int(_) | Value::UInt(_) => suspects.look_at_numbers(),
                Value::Null | Value::Bool(_) | Value::Float(_) => false,
            };
        if is_asked {
            *value = self.value(Holder { class, name: given.bytes() }, *value);
        }
    }

    fn class_of(&mut self, name: &Name<'_>) -> FieldClass {
        let (names, kind) = (&self.scrub.rules.names, self.scrub.kind);
        match *name {
            Name::Known(key) => names.of_known(kind, key),
            Name::Json(inside) if memchr::memchr(b'\\', inside).is_some() => {
                self.string.clear();
                unescape(inside, self.string);
                names.of(kind, self.string)
            }
            Name::Text(name) | Name::Json(name) => names.of(kind, name),
            Name::Scratch(span) => names.of(kind, self.scratch.get(span.range()).unwrap_or_default()),
        }
    }

    fn value<'a>(&mut self, holder: Holder<'_>, value: Value<'a>) -> Value<'a> {
        match value {
            Value::Text(bytes) => match self.bytes(holder, bytes) {
                Change::None => value,
                Change::Part(part) => Value::Text(part),
                Change::Written(span) => Value::Scratch(span),
            },
            Value::Json(inside) if memchr::memchr(b'\\', inside).is_none() => match self.bytes(holder, inside) {
                Change::None => value,
                Change::Part(part) => Value::Json(part),
                Change::Written(span) => Value::Scratch(span),
            },
            Value::Json(inside) => self.resolved(holder, inside).map_or(value, Value::Scratch),
            Value::Scratch(span) => self.rewritten(holder, span).map_or(value, Value::Scratch),
            Value::JsonValue(_) | Value::MsgPack(_) | Value::ScratchJson(_) if self.goes_as_a_whole(holder) => {
                Value::Text(MASK)
            }
            Value::JsonValue(document) => self.nested(holder, document).map_or(value, Value::ScratchJson),
            Value::MsgPack(packed) => {
                self.document.clear();
                msgpack::write_json(packed, self.document);
                self.own_document(holder).map_or(value, Value::ScratchJson)
            }
            Value::ScratchJson(span) => {
                self.document.clear();
                self.document.extend_from_slice(self.scratch.get(span.range()).unwrap_or_default());
                self.own_document(holder).map_or(value, Value::ScratchJson)
            }
            Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Number(_) => self.number(holder, value),
            Value::Null | Value::Bool(_) => value,
        }
    }

    /// Whether a value goes whose parts are nobody's business.
    fn goes_as_a_whole(&mut self, holder: Holder<'_>) -> bool {
        let rule = match holder.class {
            FieldClass::Secret => Rule::Secret,
            FieldClass::Parameter if !self.scrub.rules.action.keeps(field::parameter(holder.name)) => Rule::Parameter,
            _ => return false,
        };
        self.scrub.count(rule);
        true
    }

    fn number<'a>(&mut self, holder: Holder<'_>, value: Value<'a>) -> Value<'a> {
        let holder = match holder.class {
            FieldClass::Query => Holder { class: FieldClass::Parameter, ..holder },
            _ => holder,
        };
        if self.goes_as_a_whole(holder) {
            return Value::Text(MASK);
        }
        let Some(detectors) = &self.scrub.rules.detectors else { return value };
        let is_card = match value {
            Value::Number(digits) => detectors.is_card(digits),
            Value::UInt(number) => detectors.is_card(itoa::Buffer::new().format(number).as_bytes()),
            Value::Int(number) => detectors.is_card(itoa::Buffer::new().format(number).as_bytes()),
            _ => false,
        };
        if !is_card {
            return value;
        }
        self.scrub.count(Rule::Card);
        Value::Text(b"[card]")
    }

    /// A name that becomes another may become one of ours.
    fn name<'a>(&mut self, name: Name<'a>) -> Name<'a> {
        match name {
            Name::Known(_) => name,
            Name::Text(bytes) => match self.bytes(Holder::TEXT, bytes) {
                Change::None => name,
                Change::Part(part) => Name::text(part),
                Change::Written(span) => Name::Scratch(span),
            },
            Name::Json(inside) if memchr::memchr(b'\\', inside).is_none() => match self.bytes(Holder::TEXT, inside) {
                Change::None => name,
                Change::Part(part) => Name::json(part),
                Change::Written(span) => Name::Scratch(span),
            },
            Name::Json(inside) => self.resolved(Holder::TEXT, inside).map_or(name, Name::Scratch),
            Name::Scratch(span) => self.rewritten(Holder::TEXT, span).map_or(name, Name::Scratch),
        }
    }

    fn bytes<'a>(&mut self, holder: Holder<'_>, bytes: &'a [u8]) -> Change<'a> {
        let start = self.scratch.len();
        match self.scrub.value(holder, bytes, self.scratch, 0) {
            Outcome::Same => Change::None,
            Outcome::Part(part) => Change::Part(&bytes[part]),
            Outcome::Written => Change::Written(span_from(start, self.scratch)),
        }
    }

    /// Scrubs the inside of a JSON string that has escapes; the result has none.
    fn resolved(&mut self, holder: Holder<'_>, inside: &[u8]) -> Option<Span> {
        self.string.clear();
        unescape(inside, self.string);
        self.own_string(holder)
    }

    /// Scrubs what stands in the scratch buffer already.
    fn rewritten(&mut self, holder: Holder<'_>, span: Span) -> Option<Span> {
        self.string.clear();
        self.string.extend_from_slice(self.scratch.get(span.range()).unwrap_or_default());
        self.own_string(holder)
    }

    fn own_string(&mut self, holder: Holder<'_>) -> Option<Span> {
        let start = self.scratch.len();
        match self.scrub.value(holder, self.string, self.scratch, 0) {
            Outcome::Same => return None,
            Outcome::Part(part) => self.scratch.extend_from_slice(&self.string[part]),
            Outcome::Written => {}
        }
        Some(span_from(start, self.scratch))
    }

    fn nested(&mut self, holder: Holder<'_>, document: &[u8]) -> Option<Span> {
        let start = self.scratch.len();
        nested::scrub(&mut self.scrub, holder, document, self.scratch, self.string, 0)
            .then(|| span_from(start, self.scratch))
    }

    fn own_document(&mut self, holder: Holder<'_>) -> Option<Span> {
        let start = self.scratch.len();
        nested::scrub(&mut self.scrub, holder, self.document, self.scratch, self.string, 0)
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
