//! Fields made from what an access log holds: names for codes, numbers for texts, addresses alone or cut, the route of a path.
//!
//! Called by the process stage once for each access log, after redaction, so that routes and templates can use what is made
//! here, and no other record is touched. Everything is asked for ([`Config`]); what is not costs nothing, and without anything there is
//! no [`Derive`].
//!
//! # What is made
//!
//! | of | field | |
//! |---|---|---|
//! | `response_flags` | `response_flags_long` | Envoy's long names, in their order |
//! | `response_code` | `status_class` | `2xx` |
//! | `grpc_status`, `grpc_status_number` | `grpc_status_name`, `grpc_status_number` | `DEADLINE_EXCEEDED`, 4 |
//! | durations that came as text | the same | a number |
//! | `downstream_remote_address` | `client_address` | without port and brackets |
//! | `forwarded_for` | `forwarded_for_first` | its first entry, if that is an address |
//! | addresses of clients | the same, and the two before | cut to their network |
//! | `path` | `route` | see [`route`] |
//!
//! A field that the record has already is left as it is, so that a second look changes nothing. What cannot be made is left out.
//!
//! # Cost
//!
//! One pass over the record's fields, names compared by number; a few more steps for each field made. What has to be written goes
//! into the record's scratch, as in redaction; nothing is allocated once that has grown.

mod address;
pub mod route;
mod tables;

pub use address::Prefixes;

use route::Routes;

use crate::record::json::unescape;
use crate::record::{Field, Key, Kind, Name, Record, Span, Value, msgpack};

/// What to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `response_flags_long`.
    pub response_flags_long: bool,
    /// `status_class`.
    pub status_class: bool,
    /// `grpc_status_name` and `grpc_status_number`.
    pub grpc_status: bool,
    /// Numbers of durations.
    pub durations: bool,
    /// `client_address`.
    pub client_address: bool,
    /// `forwarded_for_first`.
    pub forwarded_for_first: bool,
    /// Addresses of clients are cut to these.
    pub truncate_addresses: Option<Prefixes>,
    /// The route of the path.
    pub route: Option<RouteConfig>,
}

/// How the route is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Patterns in order; the first that fits.
    pub patterns: Vec<String>,
    /// Where none fits, segments that name one thing become `{id}`.
    pub defaults: bool,
    /// The field.
    pub field: String,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self { patterns: Vec::new(), defaults: true, field: Key::Route.name().to_owned() }
    }
}

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {pattern}: {must}")]
pub struct Fault {
    /// Its place in the list, from 0.
    pub pattern: usize,
    /// What it must be, in the words of a message.
    pub must: String,
}

impl Config {
    /// Everything, addresses cut and routes by default.
    pub fn all() -> Self {
        Self {
            response_flags_long: true,
            status_class: true,
            grpc_status: true,
            durations: true,
            client_address: true,
            forwarded_for_first: true,
            truncate_addresses: Some(Prefixes::default()),
            route: Some(RouteConfig::default()),
        }
    }
}

/// Makes the fields that were asked for. Holds no state.
#[derive(Clone, Debug)]
pub struct Derive {
    config: Config,
    route: Option<(Routes, Option<Box<[u8]>>)>,
}

/// What fields hold whose names are none of ours.
enum Other {
    ForwardedFor,
    Address,
    Duration,
    Path,
    GrpcNumber,
}

impl Other {
    /// Names that Envoy's operators and other products' formats have. One length switch, one comparison.
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"x_forwarded_for" | b"x-forwarded-for" => Self::ForwardedFor,
            b"downstream_direct_remote_address"
            | b"downstream_remote_address_without_port"
            | b"downstream_direct_remote_address_without_port"
            | b"x-envoy-external-address"
            | b"x_envoy_external_address"
            | b"x-real-ip"
            | b"x_real_ip"
            | b"true-client-ip"
            | b"cf-connecting-ip"
            | b"client_ip"
            | b"forwarded" => Self::Address,
            b"x-envoy-upstream-service-time"
            | b"x_envoy_upstream_service_time"
            | b"request_duration"
            | b"request_tx_duration"
            | b"response_duration"
            | b"response_tx_duration"
            | b"roundtrip_duration"
            | b"downstream_handshake_duration"
            | b"upstream_connection_pool_ready_duration"
            | b"common_duration"
            | b"duration_ms" => Self::Duration,
            b":path" | b"x-envoy-original-path" | b"x-envoy-origin-path" => Self::Path,
            b"grpc_status_number" => Self::GrpcNumber,
            _ => return None,
        })
    }
}

const GRPC_STATUS_NUMBER: &[u8] = b"grpc_status_number";

/// Status classes, from 1 on.
const CLASSES: [&[u8]; 5] = [b"1xx", b"2xx", b"3xx", b"4xx", b"5xx"];

/// What of a record's fields the others are made from. The first of a name counts.
#[derive(Default)]
struct Seen<'a> {
    flags: Option<Value<'a>>,
    code: Option<Value<'a>>,
    grpc_status: Option<Value<'a>>,
    grpc_number: Option<Value<'a>>,
    address: Option<Value<'a>>,
    forwarded_for: Option<Value<'a>>,
    path: Option<Value<'a>>,
    /// Known keys that are there, as a bit set.
    known: u64,
    has_grpc_number: bool,
    has_route: bool,
}

impl Seen<'_> {
    fn has(&self, key: Key) -> bool {
        self.known & (1 << key as u8) != 0
    }
}

impl Derive {
    /// Compiles what was asked for; none if that is nothing.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn new(config: &Config) -> Result<Option<Self>, Fault> {
        if *config == Config::default() {
            return Ok(None);
        }
        let own = |field: &str| (Key::from_name(field.as_bytes()) != Some(Key::Route)).then(|| field.as_bytes().into());
        let route = match &config.route {
            Some(route) => Some((Routes::new(&route.patterns, route.defaults)?, own(&route.field))),
            None => None,
        };
        Ok(Some(Self { config: config.clone(), route }))
    }

    /// Adds the fields to an access log, and changes those that are changed in place.
    pub fn apply(&self, record: &mut Record<'_>) {
        if record.kind != Kind::Access {
            return;
        }
        let Record { envelope, parsed, scratch, spare: [_, spare, _], .. } = record;
        let mut room = Room { scratch, spare };
        let mut seen = Seen::default();
        for field in parsed.iter_mut().chain(envelope.iter_mut()) {
            match field.name {
                Name::Known(key) => self.look_at(key, field, &mut room, &mut seen),
                Name::Text(name) | Name::Json(name) => self.look_at_other(name, field, &mut room, &mut seen),
                // Redaction rewrote it: nobody's name.
                Name::Scratch(_) => {}
            }
        }
        self.add_codes(&seen, &mut room, parsed);
        self.add_addresses(&seen, &mut room, parsed);
        self.add_route(&seen, &mut room, parsed);
    }

    #[inline]
    fn look_at<'a>(&self, key: Key, field: &mut Field<'a>, room: &mut Room<'_>, seen: &mut Seen<'a>) {
        seen.known |= 1 << key as u8;
        match key {
            Key::ResponseFlags => note(&mut seen.flags, field.value),
            Key::ResponseCode => note(&mut seen.code, field.value),
            Key::GrpcStatus => note(&mut seen.grpc_status, field.value),
            Key::Duration | Key::UpstreamServiceTime => self.number(field),
            // Ours goes before that of another name.
            Key::Path if !matches!(field.value, Value::Null) => seen.path = Some(field.value),
            Key::DownstreamRemoteAddress => {
                self.truncate(field, room);
                note(&mut seen.address, field.value);
            }
            Key::ForwardedFor => {
                self.truncate(field, room);
                note(&mut seen.forwarded_for, field.value);
            }
            Key::ClientAddress | Key::ForwardedForFirst => self.truncate(field, room),
            _ => {}
        }
    }

    fn look_at_other<'a>(&self, name: &[u8], field: &mut Field<'a>, room: &mut Room<'_>, seen: &mut Seen<'a>) {
        match Other::of(name) {
            Some(Other::ForwardedFor) => {
                self.truncate(field, room);
                note(&mut seen.forwarded_for, field.value);
            }
            Some(Other::Address) => {
                self.truncate(field, room);
                if name == b"downstream_remote_address_without_port" {
                    note(&mut seen.address, field.value);
                }
            }
            Some(Other::Duration) => self.number(field),
            Some(Other::Path) => note(&mut seen.path, field.value),
            Some(Other::GrpcNumber) => {
                seen.has_grpc_number = true;
                note(&mut seen.grpc_number, field.value);
            }
            None => {}
        }
        if let Some((_, Some(own))) = &self.route {
            seen.has_route |= **own == *name;
        }
    }

    /// A duration that is text becomes the number that it spells; `ms` behind it goes.
    fn number(&self, field: &mut Field<'_>) {
        if let Value::Text(text) | Value::Json(text) = field.value
            && self.config.durations
        {
            let digits = text.strip_suffix(b"ms").unwrap_or(text).trim_ascii();
            if is_number(digits) {
                field.value = Value::Number(digits);
            }
        }
    }

    fn truncate(&self, field: &mut Field<'_>, room: &mut Room<'_>) {
        if let Some(prefixes) = self.config.truncate_addresses
            && let Some(value) = room.truncated(prefixes, field.value)
        {
            field.value = value;
        }
    }

    fn add_codes<'a>(&self, seen: &Seen<'a>, room: &mut Room<'_>, parsed: &mut Vec<Field<'a>>) {
        if self.config.response_flags_long
            && !seen.has(Key::ResponseFlagsLong)
            && let Some(value) = seen.flags.and_then(|flags| room.long_flags(flags))
        {
            parsed.push(Field { name: Name::Known(Key::ResponseFlagsLong), value });
        }
        if self.config.status_class
            && !seen.has(Key::StatusClass)
            && let Some(code) = seen.code.and_then(|code| room.whole_number(code))
            && let Some(class) = (code / 100).checked_sub(1).and_then(|class| CLASSES.get(class as usize))
        {
            parsed.push(Field { name: Name::Known(Key::StatusClass), value: Value::Text(class) });
        }
        if self.config.grpc_status {
            let number = seen.grpc_number.and_then(|number| room.whole_number(number));
            let number = number.or_else(|| room.grpc_number(seen.grpc_status?));
            let Some(number) = number else { return };
            if let Some(name) = tables::grpc_name(number).filter(|_| !seen.has(Key::GrpcStatusName)) {
                let value = Value::Text(name.as_bytes());
                parsed.push(Field { name: Name::Known(Key::GrpcStatusName), value });
            }
            if !seen.has_grpc_number {
                parsed.push(Field { name: Name::Text(GRPC_STATUS_NUMBER), value: Value::UInt(number) });
            }
        }
    }

    fn add_addresses<'a>(&self, seen: &Seen<'a>, room: &mut Room<'_>, parsed: &mut Vec<Field<'a>>) {
        if self.config.client_address
            && !seen.has(Key::ClientAddress)
            && let Some(value) = seen.address.and_then(|address| room.part(address, address::find))
        {
            parsed.push(Field { name: Name::Known(Key::ClientAddress), value });
        }
        if self.config.forwarded_for_first
            && !seen.has(Key::ForwardedForFirst)
            && let Some(value) =
                seen.forwarded_for.and_then(|list| room.part(list, |list| address::find(address::first_entry(list))))
        {
            parsed.push(Field { name: Name::Known(Key::ForwardedForFirst), value });
        }
    }

    fn add_route<'a>(&self, seen: &Seen<'a>, room: &mut Room<'_>, parsed: &mut Vec<Field<'a>>) {
        let (Some((routes, own)), Some(path)) = (&self.route, seen.path) else { return };
        let is_there = if own.is_some() { seen.has_route } else { seen.has(Key::Route) };
        if is_there {
            return;
        }
        let Some(path) = text(path, room.scratch, room.spare) else { return };
        let start = room.scratch.len();
        if !routes.write(path, room.scratch) {
            return;
        }
        let value = Value::Scratch(span_from(start, room.scratch));
        let name = match own {
            None => Name::Known(Key::Route),
            Some(own) => {
                let start = room.scratch.len();
                room.scratch.extend_from_slice(own);
                Name::Scratch(span_from(start, room.scratch))
            }
        };
        parsed.push(Field { name, value });
    }
}

/// Keeps the first value that is one.
fn note<'a>(slot: &mut Option<Value<'a>>, value: Value<'a>) {
    if slot.is_none() && value != Value::Null {
        *slot = Some(value);
    }
}

/// As JSON spells numbers, without an exponent.
fn is_number(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let dot = memchr::memchr(b'.', unsigned);
    let (whole, fraction) = (&unsigned[..dot.unwrap_or(unsigned.len())], dot.map(|dot| &unsigned[dot + 1..]));
    let are_digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    are_digits(whole) && (whole.len() == 1 || whole[0] != b'0') && fraction.is_none_or(are_digits)
}

/// Where is written, and where texts are copied to that have to be resolved before they are read.
struct Room<'r> {
    scratch: &'r mut Vec<u8>,
    spare: &'r mut Vec<u8>,
}

impl Room<'_> {
    /// A whole number, or the text of one.
    fn whole_number(&mut self, value: Value<'_>) -> Option<u64> {
        match value {
            Value::UInt(number) => Some(number),
            Value::Int(number) => u64::try_from(number).ok(),
            value => number_of(text(value, self.scratch, self.spare)?),
        }
    }

    fn grpc_number(&mut self, status: Value<'_>) -> Option<u64> {
        self.whole_number(status).or_else(|| {
            let name = text(status, self.scratch, self.spare)?;
            tables::grpc_number(name).map(|number| number as u64)
        })
    }

    /// The long names of flags with commas between; those that are not known as they are.
    fn long_flags<'a>(&mut self, flags: Value<'a>) -> Option<Value<'a>> {
        let flags = text(flags, self.scratch, self.spare).filter(|flags| !matches!(*flags, b"" | b"-"))?;
        if let Some(long) = tables::flag(flags) {
            return Some(Value::Text(long.as_bytes()));
        }
        let start = self.scratch.len();
        for flag in flags.split(|byte| *byte == b',') {
            if self.scratch.len() > start {
                self.scratch.push(b',');
            }
            self.scratch.extend_from_slice(tables::flag(flag).map_or(flag, str::as_bytes));
        }
        Some(Value::Scratch(span_from(start, self.scratch)))
    }

    /// A part of a text.
    fn part<'a>(
        &mut self,
        value: Value<'a>,
        find: impl FnOnce(&[u8]) -> Option<std::ops::Range<usize>>,
    ) -> Option<Value<'a>> {
        let found = text(value, self.scratch, self.spare)?;
        let range = find(found)?;
        Some(match value {
            Value::Text(bytes) => Value::Text(&bytes[range]),
            Value::Json(bytes) if is_plain(bytes) => Value::Text(&bytes[range]),
            Value::Scratch(span) => {
                let place = |at: usize| span.start + at as u32;
                Value::Scratch(Span { start: place(range.start), end: place(range.end) })
            }
            _ => {
                let start = self.scratch.len();
                self.scratch.extend_from_slice(&found[range]);
                Value::Scratch(span_from(start, self.scratch))
            }
        })
    }

    /// The value with its addresses cut; none if it stays. Of a list or an object that holds an address nothing is left: nobody has
    /// such a field, and it must not be the way past this.
    fn truncated<'a>(&mut self, prefixes: Prefixes, value: Value<'a>) -> Option<Value<'a>> {
        let start = self.scratch.len();
        let nested: &[u8] = match value {
            Value::JsonValue(json) => json,
            Value::ScratchJson(span) => {
                self.spare.clear();
                self.spare.extend_from_slice(self.scratch.get(span.range()).unwrap_or_default());
                self.spare
            }
            Value::MsgPack(packed) => {
                self.spare.clear();
                msgpack::write_json(packed, self.spare);
                self.spare
            }
            value => {
                let bytes = text(value, self.scratch, self.spare)?;
                let is_cut = address::truncate(prefixes, bytes, self.scratch);
                return is_cut.then(|| Value::Scratch(span_from(start, self.scratch)));
            }
        };
        let is_cut = memchr::memchr(b'\\', nested).is_some() || address::truncate(prefixes, nested, self.scratch);
        self.scratch.truncate(start);
        is_cut.then_some(Value::Null)
    }
}

/// The text of a value, escapes resolved; `spare` holds it where it does not stand in the input.
fn text<'s, 'a: 's>(value: Value<'a>, scratch: &[u8], spare: &'s mut Vec<u8>) -> Option<&'s [u8]> {
    match value {
        Value::Text(bytes) | Value::Number(bytes) => return Some(bytes),
        Value::Json(bytes) if is_plain(bytes) => return Some(bytes),
        Value::Json(bytes) => {
            spare.clear();
            unescape(bytes, spare);
        }
        Value::Scratch(span) => {
            spare.clear();
            spare.extend_from_slice(scratch.get(span.range()).unwrap_or_default());
        }
        _ => return None,
    }
    Some(spare)
}

/// Whether the inside of a JSON string says what it is.
fn is_plain(inside: &[u8]) -> bool {
    memchr::memchr(b'\\', inside).is_none()
}

fn number_of(text: &[u8]) -> Option<u64> {
    // 19 digits fit.
    let digits = Some(text).filter(|text| (1..=19).contains(&text.len()))?;
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// The end of the scratch buffer, from `start` on. Beyond 4 GiB nothing can be addressed and the span is empty.
fn span_from(start: usize, scratch: &[u8]) -> Span {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: place(start), end: place(scratch.len()) }
}

#[cfg(test)]
mod tests;
