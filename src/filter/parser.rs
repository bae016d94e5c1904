//! `parser`: reads the fields that stand in a text, by the parsers that `[parser.NAME]` define.
//!
//! Parsers are tried in order; the first that can read the text decides. Its fields take the record's place; with `reserve_data` the other
//! fields follow, with `preserve_key` the text itself does. A name that is there twice counts with what stands last. A text that no parser
//! can read, and a record without it, pass as they are.
//!
//! Nothing is copied: members of a JSON object, groups of a match, values of `key=value` are spans of the text. JSON values keep the
//! spelling they had.

use super::accessor::Accessor;
use super::field_name::FieldName;
use super::members::{is_named, object_members, of_token, text};
use super::{Arena, Fault, Faults};
use crate::pattern::{Groups, Pattern};
use crate::record::{Field, Name, Record, Value};

mod decode;
mod pairs;
mod time;

use decode::Decoders;
use time::TimeFormat;

/// The configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Key of the text, or a record accessor.
    pub key_name: String,
    /// Names of parsers, in order.
    pub parser: Vec<String>,
    /// Other fields stay, behind the new ones.
    pub reserve_data: bool,
    /// The text itself stays.
    pub preserve_key: bool,
}

/// How a text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// A regular expression with named groups.
    Regex,
    /// `key=value key="value" key`
    Logfmt,
    /// `key:value`, tabs between.
    Ltsv,
}

/// The configuration of one parser.
#[derive(Clone, Debug, PartialEq)]
pub struct ParserConfig {
    /// How the text is written.
    pub format: Format,
    /// For [`Format::Regex`].
    pub regex: Option<String>,
    /// The field with the time; `time` if none is given.
    pub time_key: Option<String>,
    /// Format of the time; without one the record keeps its own.
    pub time_format: Option<String>,
    /// Offset of times that do not say theirs, `+hhmm`.
    pub time_offset: Option<String>,
    /// The field with the time stays.
    pub time_keep: bool,
    /// `NAME:TYPE`; types are string, integer, float, bool, hex.
    pub types: Vec<String>,
    /// For [`Format::Regex`]: groups without text are left out.
    pub skip_empty_values: bool,
    /// For [`Format::Logfmt`]: a key without `=` makes the text unreadable.
    pub logfmt_no_bare_keys: bool,
    /// `DECODER KEY [ACTION]`: what a field holds is added to the record.
    pub decode_field: Vec<String>,
    /// `DECODER KEY [ACTION]`: what a field holds takes its place.
    pub decode_field_as: Vec<String>,
}

impl Default for ParserConfig {
    fn default() -> Self {
        Self {
            format: Format::Json,
            regex: None,
            time_key: None,
            time_format: None,
            time_offset: None,
            time_keep: false,
            types: Vec::new(),
            skip_empty_values: true,
            logfmt_no_bare_keys: false,
            decode_field: Vec::new(),
            decode_field_as: Vec::new(),
        }
    }
}

/// A compiled parser.
#[derive(Debug)]
pub(super) struct Parser {
    format: Compiled,
    time: Option<(FieldName, TimeFormat)>,
    time_keep: bool,
    types: Box<[(Box<[u8]>, Type)]>,
    decoders: Decoders,
}

#[derive(Debug)]
enum Compiled {
    Json,
    Regex { pattern: Pattern, names: Box<[(FieldName, usize)]>, skip_empty: bool },
    Logfmt { bare_keys: bool },
    Ltsv,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Text,
    Integer,
    Float,
    Bool,
    Hex,
}

/// What was read beside the fields.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    /// In nanoseconds since 1970 UTC, if the text says it.
    pub(super) time_ns: Option<i64>,
}

impl Parser {
    pub(super) fn new(config: &ParserConfig, faults: &mut Faults<'_>) -> Self {
        let time = config.time_format.as_deref().and_then(|format| {
            let key = config.time_key.as_deref().filter(|key| !key.is_empty()).unwrap_or("time");
            match TimeFormat::new(format, config.time_offset.as_deref()) {
                Ok(format) => Some((FieldName::new(key), format)),
                Err((key, fault)) => {
                    faults.add(key, None, fault);
                    None
                }
            }
        });
        let mut types = Vec::new();
        for (place, text) in config.types.iter().enumerate() {
            types.extend(faults.unless("types", Some(place), type_of(text)));
        }
        if config.format != Format::Regex && config.regex.is_some() {
            faults.add("regex", None, "must not be set unless `format` is \"regex\"");
        }
        Self {
            format: Compiled::new(config, faults),
            time,
            time_keep: config.time_keep,
            types: types.into(),
            decoders: Decoders::new(config, faults),
        }
    }

    /// Appends the fields that stand in a text; none, and nothing appended, if it cannot be read.
    pub(super) fn parse<'a>(
        &'a self,
        text: &'a [u8],
        arena: &'a Arena,
        now_ns: i64,
        fields: &mut Vec<Field<'a>>,
        groups: &mut Groups,
    ) -> Option<Parsed> {
        let start = fields.len();
        let mut time_ns = None;
        let whole = match &self.format {
            Compiled::Json => self.json(text, arena, now_ns, fields, &mut time_ns),
            Compiled::Regex { pattern, names, skip_empty } => {
                let found = !names.is_empty() && pattern.captures(text, groups);
                for (name, group) in if found { &names[..] } else { &[] } {
                    let value = text.get(groups.get(*group).unwrap_or_default()).unwrap_or_default();
                    if value.is_empty() && *skip_empty {
                        continue;
                    }
                    match self.time_of(name, value, now_ns) {
                        Some(Some(time)) => {
                            time_ns = Some(time);
                            if !self.time_keep {
                                continue;
                            }
                        }
                        // As in Fluent Bit a time that cannot be read is left out.
                        Some(None) => continue,
                        None => {}
                    }
                    fields.push(Field { name: name.name(), value: self.typed(name.bytes(), value) });
                }
                found
            }
            Compiled::Logfmt { bare_keys } => {
                pairs::logfmt(text, *bare_keys, |key, value| self.pair(key, value, arena, now_ns, fields, &mut time_ns))
                    && fields.len() > start
            }
            Compiled::Ltsv => {
                pairs::ltsv(text, |key, value| {
                    self.pair(key, pairs::Value::Text(value), arena, now_ns, fields, &mut time_ns)
                }) && fields.len() > start
            }
        };
        if !whole {
            fields.truncate(start);
            return None;
        }
        self.decoders.apply(fields, start, arena);
        Some(Parsed { time_ns })
    }

    fn json<'a>(
        &'a self,
        text: &'a [u8],
        arena: &'a Arena,
        now_ns: i64,
        fields: &mut Vec<Field<'a>>,
        time_ns: &mut Option<i64>,
    ) -> bool {
        // Bytes that are no characters become U+FFFD, as JSON cannot hold them.
        let text = match std::str::from_utf8(text) {
            Ok(_) => text,
            Err(_) if text.trim_ascii_start().starts_with(b"{") => {
                arena.alloc_str(&String::from_utf8_lossy(text)).as_bytes()
            }
            Err(_) => return false,
        };
        let start = fields.len();
        if !object_members(text, |name, token| fields.push(Field { name: Name::json(name), value: of_token(token) })) {
            return false;
        }
        if let Some((key, format)) = &self.time
            && let Some(place) = fields.get(start..).and_then(|new| new.iter().position(|field| key.is(&field.name)))
            && let Value::Json(inside) = fields[start + place].value
            && let Some(time) = format.parse(super::members::resolved(inside, arena), now_ns)
        {
            *time_ns = Some(time);
            if !self.time_keep {
                fields.remove(start + place);
            }
        }
        true
    }

    /// A pair of logfmt or LTSV; false if the text cannot be read with it.
    fn pair<'a>(
        &'a self,
        key: &'a [u8],
        value: pairs::Value<'a>,
        arena: &'a Arena,
        now_ns: i64,
        fields: &mut Vec<Field<'a>>,
        time_ns: &mut Option<i64>,
    ) -> bool {
        let bytes = value.bytes();
        if let Some((time_key, format)) = self.time.as_ref().filter(|(time_key, _)| time_key.bytes() == key)
            && !bytes.is_empty()
        {
            let _ = time_key;
            match format.parse(bytes, now_ns) {
                Some(time) => *time_ns = Some(time),
                None => return false,
            }
            if !self.time_keep {
                return true;
            }
        }
        let value = match value {
            _ if !self.types.is_empty() => self.typed(key, bytes),
            pairs::Value::None => Value::Bool(true),
            pairs::Value::Text(text) => Value::Text(text),
            pairs::Value::Escaped(inside) => Value::Text(super::members::resolved(inside, arena)),
        };
        fields.push(Field { name: Name::text(key), value });
        true
    }

    /// If the field is the one with the time: the time, if it can be read.
    fn time_of(&self, name: &FieldName, value: &[u8], now_ns: i64) -> Option<Option<i64>> {
        let (key, format) = self.time.as_ref()?;
        (key == name).then(|| format.parse(value, now_ns))
    }

    fn typed<'a>(&self, name: &[u8], value: &'a [u8]) -> Value<'a> {
        let kind = self.types.iter().find(|(typed, _)| **typed == *name).map_or(Type::Text, |(_, kind)| *kind);
        match kind {
            Type::Text => Value::Text(value),
            Type::Integer => Value::Int(integer(value)),
            Type::Hex => Value::UInt(hexadecimal(value)),
            Type::Float => Value::Float(float(value)),
            Type::Bool if value.get(..4).is_some_and(|front| front.eq_ignore_ascii_case(b"true")) => Value::Bool(true),
            Type::Bool if value.get(..5).is_some_and(|front| front.eq_ignore_ascii_case(b"false")) => {
                Value::Bool(false)
            }
            Type::Bool => Value::Text(value),
        }
    }
}

impl Compiled {
    fn new(config: &ParserConfig, faults: &mut Faults<'_>) -> Self {
        match config.format {
            Format::Json => Self::Json,
            Format::Ltsv => Self::Ltsv,
            Format::Logfmt => Self::Logfmt { bare_keys: !config.logfmt_no_bare_keys },
            Format::Regex => {
                let Some(source) = &config.regex else {
                    faults.add("regex", None, "must be set: a regular expression with named groups `(?<name>…)`");
                    return Self::Ltsv;
                };
                let pattern = match Pattern::new(source) {
                    Ok(pattern) => pattern,
                    Err(error) => {
                        faults.add("regex", None, format!("must be a regular expression: {error}"));
                        return Self::Ltsv;
                    }
                };
                let names = pattern.names().iter().map(|(name, group)| (FieldName::new(name), *group)).collect();
                Self::Regex { pattern, names, skip_empty: config.skip_empty_values }
            }
        }
    }
}

fn type_of(text: &str) -> Result<(Box<[u8]>, Type), Fault> {
    let bad = || Fault("must be \"NAME:TYPE\" with one of the types string, integer, float, bool, hex".into());
    let (name, kind) = text.rsplit_once(':').ok_or_else(bad)?;
    let kind = match kind.to_ascii_lowercase().as_str() {
        "string" => Type::Text,
        "integer" => Type::Integer,
        "float" => Type::Float,
        "bool" => Type::Bool,
        "hex" => Type::Hex,
        _ => return Err(bad()),
    };
    Ok((name.as_bytes().into(), kind))
}

/// As atoll(3): what stands at the start, 0 if that is no number; the nearest where it is too large.
fn integer(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0_i64, |sum, digit| {
        let digit = i64::from(digit - b'0');
        sum.saturating_mul(10).saturating_add(if negative { -digit } else { digit })
    })
}

/// As strtoull(3) with base 16.
fn hexadecimal(text: &[u8]) -> u64 {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")).unwrap_or(text);
    let digits = digits.iter().map_while(|byte| char::from(*byte).to_digit(16));
    digits.fold(0_u64, |sum, digit| sum.saturating_mul(16).saturating_add(digit.into()))
}

/// As atof(3), of decimal numbers.
fn float(text: &[u8]) -> f64 {
    let text = text.trim_ascii_start();
    let plausible =
        text.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
    let text = std::str::from_utf8(text.get(..plausible.min(64)).unwrap_or_default()).unwrap_or_default();
    (0..=text.len()).rev().find_map(|end| text.get(..end)?.parse().ok()).unwrap_or(0.0)
}

/// The compiled filter.
#[derive(Debug)]
pub(super) struct ParserFilter {
    key: Accessor,
    /// A key alone, which goes when its text was read.
    plain_key: Option<FieldName>,
    parsers: Box<[usize]>,
    reserve_data: bool,
    preserve_key: bool,
}

impl ParserFilter {
    /// `find` gives the place of the parser of a name.
    pub(super) fn new(config: &Config, find: impl Fn(&str) -> Option<usize>, faults: &mut Faults<'_>) -> Self {
        let key = match config.key_name.as_str() {
            "" => Err(Fault("must name the field to parse".into())),
            text if text.starts_with('$') => Accessor::parse(text),
            text => Ok(Accessor::key(text)),
        };
        let key = faults.unless("key_name", None, key);
        let mut parsers = Vec::new();
        for (place, name) in config.parser.iter().enumerate() {
            let parser = find(name).ok_or_else(|| Fault(format!("must name a parser: there is no [parser.{name}]")));
            parsers.extend(faults.unless("parser", Some(place), parser));
        }
        if config.parser.is_empty() {
            faults.add("parser", None, "must name at least one parser");
        }
        Self {
            key: key.unwrap_or_else(|| Accessor::key("")),
            plain_key: (!config.key_name.starts_with('$')).then(|| FieldName::new(&config.key_name)),
            parsers: parsers.into(),
            reserve_data: config.reserve_data,
            preserve_key: config.preserve_key,
        }
    }

    pub(super) fn apply<'a>(
        &self,
        parsers: &'a [Parser],
        record: &mut Record<'a>,
        arena: &'a Arena,
        now_ns: i64,
        groups: &mut Groups,
    ) {
        let Some(line) = self.key.find(record).and_then(|value| text(&value, arena)) else { return };
        let mut fields = std::mem::take(&mut record.parsed);
        fields.clear();
        let parsed = self
            .parsers
            .iter()
            .filter_map(|place| parsers.get(*place))
            .find_map(|parser| parser.parse(line, arena, now_ns, &mut fields, groups));
        if let Some(parsed) = &parsed {
            let new = fields.len();
            let is_key = |field: &Field<'a>| self.plain_key.as_ref().is_some_and(|key| key.is(&field.name));
            for field in &record.envelope {
                let stays = if is_key(field) { self.preserve_key } else { self.reserve_data };
                if stays {
                    fields.push(*field);
                }
            }
            let (new, old) = fields.split_at(new);
            let replaced = |field: &Field<'a>| old.iter().any(|other| same_name(&field.name, &other.name));
            let any_replaced = !old.is_empty() && new.iter().any(replaced);
            std::mem::swap(&mut record.envelope, &mut fields);
            if any_replaced {
                super::keep_last_of_each(record);
            }
            if let Some(time) = parsed.time_ns.filter(|time| *time != 0) {
                record.time_ns = time;
            }
        }
        fields.clear();
        record.parsed = fields;
        if parsed.is_some() {
            super::find_log(record, arena);
        }
    }
}

/// Whether two names say the same.
pub(super) fn same_name(one: &Name<'_>, other: &Name<'_>) -> bool {
    match other {
        Name::Json(inside) if memchr::memchr(b'\\', inside).is_some() => one == other,
        _ => is_named(one, other.bytes()),
    }
}

#[cfg(test)]
mod tests;
