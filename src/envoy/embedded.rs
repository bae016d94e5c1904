//! Lines that stand as a string in a JSON object: Docker's `json-file`, and what shippers of logs make.
//!
//! ```text
//! {"log":"[2026-11-22T02:36:32.784Z] \"GET / …\n","stream":"stdout","time":"2026-11-22T02:36:33.784034460Z"}
//! {"message":"[2026-11-22T02:36:32.784Z] \"GET / …","kubernetes":{…}}        also `msg`
//! ```
//!
//! Called for an object that is nothing known itself. Where the string is a line that is known, its fields come first, then the
//! object's other members, as they are. `stream` and `time` of a runtime become what those of other wrappers do
//! ([`super::wrapper`]). An object whose string is no such line is an application's, and stays as it is.
//!
//! # Escapes
//!
//! The line is read with its escapes resolved, in a buffer that is used again; its fields then borrow from the original line, which
//! outlives the buffer, wherever no escape stands within them, and are copied to the record's scratch buffer where one does.
//! Numbers have none. Cost: only such lines pay.

use memchr::memchr;

use super::{LAYERS_MAX, Parser, json, wrapper};
use crate::classify::{Class, class_of};
use crate::record::json::unescape;
use crate::record::{Field, Key, Kind, Name, Record, Span, Value};
use crate::timestamp::parse_rfc3339_ns;

/// Tables for the inner line, used again.
#[derive(Debug, Default)]
pub struct Spare(Option<Box<Record<'static>>>);

impl Clone for Spare {
    /// A copy has its own.
    fn clone(&self) -> Self {
        Self(None)
    }
}

/// Puts a line of Envoy's own log into the record: its level, and the line without its wrappers.
pub(super) fn own_line<'a>(line: &'a [u8], level: Option<Value<'a>>, layers: u8, record: &mut Record<'a>) -> Kind {
    if let Some(value) = level {
        record.parsed.push(Field { name: Name::Known(Key::Level), value });
    }
    if layers > 0 {
        record.put_log(Value::Text(line));
    }
    Kind::Envoy
}

impl Parser {
    /// A line that begins as a JSON object. True if it is Envoy's by the looks of it.
    pub(super) fn object<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>, layers: u8) -> bool {
        if self.formats.json.iter().any(|format| format.parse(line, record)) {
            record.kind = Kind::Access;
            return true;
        }
        let before = (record.parsed.len(), record.scratch.len());
        let reading = json::parse(line, record);
        record.kind = reading.kind;
        if reading.kind == Kind::Access {
            return true;
        }
        let mut is_envoys = reading.looks_like_envoy;
        if reading.kind == Kind::Other
            && layers < LAYERS_MAX
            && let Some(place) = reading.line
        {
            is_envoys |= self.member(place, before.0, record, layers);
            if record.kind != Kind::Other {
                return true;
            }
        }
        record.parsed.truncate(before.0);
        record.scratch.truncate(before.1);
        if reading.kind == Kind::Envoy {
            own_line(line, reading.level.map(Value::Json), layers, record);
        }
        is_envoys
    }

    /// A record that has no log line: perhaps the line is a text under another name. True as for [`Parser::parse`].
    pub(super) fn other_line<'a>(&mut self, record: &mut Record<'a>) -> bool {
        let is_line = |field: &Field<'a>| {
            matches!(field.name, Name::Text(b"message" | b"msg")) && matches!(field.value, Value::Text(_))
        };
        let Some(place) = record.envelope.iter().position(is_line) else { return false };
        record.log = Some(place);
        let is_envoys = record.log_line().is_some_and(|line| self.parse(line, record));
        if record.kind == Kind::Other {
            record.log = None;
        }
        is_envoys
    }

    /// The member at that place of `record.parsed`, where the members begin at `first`. If it is a line that is known the record
    /// holds that, and has its kind. True if it is Envoy's by the looks of it.
    fn member<'a>(&mut self, place: usize, first: usize, record: &mut Record<'a>, layers: u8) -> bool {
        let Some(Value::Json(inside)) = record.parsed.get(place).map(|field| field.value) else { return false };
        if memchr(b'\\', inside).is_none() && !self.may_be_known(inside) {
            return false;
        }
        let members = record.parsed.len() - first;
        let stamp = Stamp::of(record.parsed.get(first..).unwrap_or_default());
        let time_ns = record.time_ns;
        record.time_ns = stamp.as_ref().map_or(time_ns, |stamp| stamp.time_ns);
        let is_envoys = self.string(inside, first, record, layers + 1);
        if record.kind == Kind::Other {
            record.time_ns = time_ns;
            return is_envoys;
        }
        let left_out = |number: usize| {
            let is_stamp = stamp.as_ref().is_some_and(|stamp| number == stamp.time || number == stamp.stream);
            is_stamp || number == place - first
        };
        let source = stamp.as_ref().and_then(|stamp| record.parsed.get(first + stamp.stream)).map(|field| field.value);
        let mut number = 0;
        // Members stand first; of what is left they are to come last.
        let mut kept = 0;
        record.parsed.retain(|_| {
            let is_member = (first..first + members).contains(&number);
            let is_kept = !is_member || !left_out(number - first);
            kept += usize::from(is_member && is_kept);
            number += 1;
            is_kept
        });
        if let Some(fields) = record.parsed.get_mut(first..) {
            fields.rotate_left(kept);
        }
        if let Some(source) = source {
            wrapper::add(record, Key::Source, source);
        }
        true
    }

    /// Whether a text without escapes is worth a look; most messages of applications are not.
    fn may_be_known(&self, text: &[u8]) -> bool {
        class_of(text) != Class::Other || wrapper::take_off(text).is_some() || !self.formats.general.is_empty()
    }

    /// The inside of a JSON string. Its fields are added, and will stand from `first` on.
    fn string<'a>(&mut self, inside: &'a [u8], first: usize, record: &mut Record<'a>, layers: u8) -> bool {
        let mut text = std::mem::take(&mut record.spare[0]);
        text.clear();
        unescape(inside, &mut text);
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut inner = self.spare.0.take().map(|spare| *spare).unwrap_or_default().recycle();
        inner.push_envelope(Name::Known(Key::Log), Value::Text(line));
        inner.time_ns = record.time_ns;
        let is_envoys = self.layered(line, &mut inner, layers);
        record.kind = inner.kind;
        if inner.kind != Kind::Other {
            let mut original = Original { inside, at: 0, text: &text, text_at: 0 };
            record.time_ns = inner.time_ns;
            record.ambiguous |= inner.ambiguous;
            let places = u32::try_from(first).ok().and_then(|first| inner.ambiguous_places.checked_shl(first));
            record.ambiguous_places |= places.unwrap_or_default();
            for field in &inner.parsed {
                let field = original.field(field, &inner.scratch, &mut record.scratch);
                record.parsed.push(field);
            }
            if inner.kind == Kind::Envoy
                && let Some(line) = inner.envelope.first()
            {
                let value = original.value(line.value, &inner.scratch, &mut record.scratch);
                record.put_log(value);
            }
        }
        self.spare.0 = Some(Box::new(inner.recycle()));
        record.spare[0] = text;
        is_envoys
    }
}

/// What a container's runtime says beside the line.
struct Stamp {
    time_ns: i64,
    /// The places of its members.
    time: usize,
    stream: usize,
}

impl Stamp {
    fn of(members: &[Field<'_>]) -> Option<Self> {
        let find = |wanted: &[u8]| members.iter().position(|field| field.name.bytes() == wanted);
        let (time, stream) = (find(b"time")?, find(b"stream")?);
        let Value::Json(text) = members.get(time)?.value else { return None };
        let time_ns = parse_rfc3339_ns(text)?;
        matches!(members.get(stream)?.value, Value::Json(b"stdout" | b"stderr")).then_some(Self {
            time_ns,
            time,
            stream,
        })
    }
}

/// The inside of a JSON string and its text, with a place in both.
struct Original<'a, 't> {
    inside: &'a [u8],
    at: usize,
    text: &'t [u8],
    text_at: usize,
}

impl<'a> Original<'a, '_> {
    fn field(&mut self, field: &Field<'_>, inner: &[u8], scratch: &mut Vec<u8>) -> Field<'a> {
        let name = match field.name {
            Name::Known(key) => Name::Known(key),
            Name::Text(text) => match self.of(text) {
                Some(raw) => Name::text(raw),
                None => Name::Scratch(put(text, scratch)),
            },
            Name::Json(inside) => match self.of(inside) {
                Some(raw) => Name::json(raw),
                None => Name::Scratch(put_resolved(inside, scratch)),
            },
            Name::Scratch(span) => Name::Scratch(put(inner.get(span.range()).unwrap_or_default(), scratch)),
        };
        Field { name, value: self.value(field.value, inner, scratch) }
    }

    fn value(&mut self, value: Value<'_>, inner: &[u8], scratch: &mut Vec<u8>) -> Value<'a> {
        let copied = |span: Span| inner.get(span.range()).unwrap_or_default();
        match value {
            Value::Null => Value::Null,
            Value::Bool(truth) => Value::Bool(truth),
            Value::Int(number) => Value::Int(number),
            Value::UInt(number) => Value::UInt(number),
            Value::Float(number) => Value::Float(number),
            Value::Text(text) => match self.of(text) {
                Some(raw) => Value::Text(raw),
                None => Value::Scratch(put(text, scratch)),
            },
            Value::Json(inside) => match self.of(inside) {
                Some(raw) => Value::Json(raw),
                None => Value::Scratch(put_resolved(inside, scratch)),
            },
            Value::Number(digits) => match self.of(digits) {
                Some(raw) => Value::Number(raw),
                None => Value::ScratchJson(put(digits, scratch)),
            },
            Value::JsonValue(json) => match self.of(json) {
                Some(raw) => Value::JsonValue(raw),
                None => Value::ScratchJson(put(json, scratch)),
            },
            Value::Scratch(span) => Value::Scratch(put(copied(span), scratch)),
            Value::ScratchJson(span) => Value::ScratchJson(put(copied(span), scratch)),
            // No line holds any.
            Value::MsgPack(_) => Value::Null,
        }
    }

    /// The same bytes in the original, if they stand there without an escape.
    fn of(&mut self, part: &[u8]) -> Option<&'a [u8]> {
        let start = part.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        if start + part.len() > self.text.len() {
            return None;
        }
        let from = self.place(start)?;
        let raw = self.inside.get(from..from + part.len())?;
        memchr(b'\\', raw).is_none().then_some(raw)
    }

    /// Where the text's byte of that place stands; none within what one escape says.
    fn place(&mut self, text_at: usize) -> Option<usize> {
        if text_at < self.text_at {
            (self.at, self.text_at) = (0, 0);
        }
        while self.text_at < text_at {
            let rest = self.inside.get(self.at..)?;
            let plain = memchr(b'\\', rest).unwrap_or(rest.len());
            let wanted = text_at - self.text_at;
            if wanted <= plain {
                (self.at, self.text_at) = (self.at + wanted, text_at);
                break;
            }
            let (escape, says) = escape_length(&rest[plain..]);
            (self.at, self.text_at) = (self.at + plain + escape, self.text_at + plain + says);
        }
        (self.text_at == text_at).then_some(self.at)
    }
}

/// How long the escape is that begins here, and how long what it says, as UTF-8. Of valid JSON.
fn escape_length(text: &[u8]) -> (usize, usize) {
    let code =
        |digits: Option<&[u8]>| digits.and_then(|digits| u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
    match (text.get(1), code(text.get(2..6))) {
        (Some(b'u'), Some(0xd800..0xdc00)) => (12, 4),
        (Some(b'u'), Some(0..0x80)) => (6, 1),
        (Some(b'u'), Some(0x80..0x800)) => (6, 2),
        (Some(b'u'), Some(_)) => (6, 3),
        _ => (2, 1),
    }
}

fn put(text: &[u8], scratch: &mut Vec<u8>) -> Span {
    let start = scratch.len();
    scratch.extend_from_slice(text);
    span(start, scratch.len())
}

fn put_resolved(inside: &[u8], scratch: &mut Vec<u8>) -> Span {
    let start = scratch.len();
    unescape(inside, scratch);
    span(start, scratch.len())
}

fn span(start: usize, end: usize) -> Span {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: place(start), end: place(end) }
}
