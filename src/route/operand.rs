//! One test on one value.

use std::io::Write as _;

use memchr::memmem;
use regex::bytes::Regex;

use crate::pattern::Pattern;
use crate::pattern::wildcard::Wildcard;
use crate::record::{Key, Record, Value};
use crate::route::text::{self, Text};
use crate::route::{Fault, Test};

/// Digits that always fit an `i64`.
const DIGITS_MAX: usize = 18;

/// Bytes of a double at its longest: `-1.7976931348623157e308` and some.
const FLOAT_BYTES_MAX: usize = 32;

/// Bytes of a text that may still spell a number.
const NUMBER_BYTES_MAX: usize = 64;

/// A value as tests see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand<'r> {
    /// Not there, or null.
    Absent,
    /// An object or array.
    Nested,
    /// Characters.
    Text(&'r [u8]),
    /// The inside of a JSON string that has escapes.
    Escaped(&'r [u8]),
    /// A JSON number as it is spelled.
    Digits(&'r [u8]),
    /// An integer.
    Int(i128),
    /// A finite number.
    Float(f64),
}

/// A number; integers stay exact.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

/// A compiled [`Test`].
#[derive(Debug)]
pub(super) enum Matcher {
    OneOf {
        texts: Box<[Box<[u8]>]>,
        numbers: Box<[Number]>,
    },
    Range {
        low: Option<(f64, bool)>,
        high: Option<(f64, bool)>,
    },
    Exactly(Box<[u8]>),
    Prefix(Box<[u8]>),
    Glob(Pieces),
    Wildcard(Wildcard),
    /// What a glob comes to.
    Regex(Regex),
    Pattern(Pattern),
    Absent,
    Not(Box<Matcher>),
}

/// A glob of literals and `*` only: `first*middle*…*last`.
#[derive(Debug)]
pub(super) struct Pieces {
    first: Box<[u8]>,
    middle: Box<[memmem::Finder<'static>]>,
    last: Box<[u8]>,
}

impl<'r> Operand<'r> {
    /// The value of a known key.
    #[inline]
    pub(super) fn known(record: &'r Record<'_>, key: Key) -> Self {
        match record.get(key) {
            Some(value) => Self::of(record, value),
            // Written by encode from the marks, as a list of names.
            None if key == Key::ParseAmbiguous && record.is_ambiguous() => Self::Nested,
            None => Self::Absent,
        }
    }

    /// The value of a field that is not a known key.
    pub(super) fn named(record: &'r Record<'_>, name: &[u8]) -> Self {
        record.get_by_name(name).map_or(Self::Absent, |value| Self::of(record, value))
    }

    fn of<'a>(record: &'r Record<'a>, value: &Value<'a>) -> Self {
        let bytes = record.bytes_of(value).unwrap_or_default();
        match *value {
            Value::Null => Self::Absent,
            Value::Bool(true) => Self::Text(b"true"),
            Value::Bool(false) => Self::Text(b"false"),
            Value::Int(number) => Self::Int(number.into()),
            Value::UInt(number) => Self::Int(number.into()),
            Value::Float(number) if number.is_finite() => Self::Float(number),
            Value::Float(_) => Self::Absent,
            Value::Number(_) => Self::Digits(bytes),
            Value::Text(_) | Value::Scratch(_) => Self::Text(bytes),
            Value::Json(_) => Self::inside(bytes),
            Value::JsonValue(_) | Value::ScratchJson(_) => Self::json(bytes.trim_ascii()),
            Value::MsgPack(_) => Self::Nested,
        }
    }

    fn inside(bytes: &'r [u8]) -> Self {
        match Text::json(bytes) {
            Text::Plain(bytes) => Self::Text(bytes),
            Text::Escaped(bytes) => Self::Escaped(bytes),
        }
    }

    /// A whole JSON value.
    fn json(value: &'r [u8]) -> Self {
        match value {
            [b'"', inside @ .., b'"'] => Self::inside(inside),
            b"null" | b"" => Self::Absent,
            b"true" | b"false" => Self::Text(value),
            [b'-' | b'0'..=b'9', ..] => Self::Digits(value),
            _ => Self::Nested,
        }
    }

    /// Whether the value has a text, and that passes.
    #[inline]
    fn text_is(&self, test: impl FnOnce(&[u8]) -> bool) -> bool {
        match *self {
            Self::Absent | Self::Nested => false,
            Self::Text(bytes) | Self::Digits(bytes) => test(bytes),
            Self::Escaped(inside) => test(&text::resolve(Text::Escaped(inside))),
            Self::Int(number) => test(itoa::Buffer::new().format(number).as_bytes()),
            Self::Float(number) => with_spelled(number, test),
        }
    }

    /// The number that the value is, or that its text spells.
    #[inline]
    fn number(&self) -> Option<Number> {
        match *self {
            Self::Absent | Self::Nested => None,
            Self::Int(number) => Some(Number::Int(number)),
            Self::Float(number) => Some(Number::Float(number)),
            Self::Text(bytes) | Self::Digits(bytes) => Number::parse(bytes),
            Self::Escaped(inside) => Number::parse(&text::resolve(Text::Escaped(inside))),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Digits(_) | Self::Int(_) | Self::Float(_))
    }
}

impl Number {
    /// As JSON spells numbers, leading zeros allowed; none if it spells no finite number.
    #[inline]
    fn parse(bytes: &[u8]) -> Option<Self> {
        if !bytes.is_empty() && bytes.len() <= DIGITS_MAX {
            let digits = bytes.iter().try_fold(0i64, |sum, byte| match byte {
                b'0'..=b'9' => Some(sum * 10 + i64::from(byte - b'0')),
                _ => None,
            });
            if let Some(number) = digits {
                return Some(Self::Int(number.into()));
            }
        }
        Self::parse_any(bytes)
    }

    fn parse_any(bytes: &[u8]) -> Option<Self> {
        let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
        let plausible = bytes.len() <= NUMBER_BYTES_MAX
            && unsigned.first().is_some_and(u8::is_ascii_digit)
            && unsigned.last().is_some_and(u8::is_ascii_digit)
            && bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let text = std::str::from_utf8(bytes).ok().filter(|_| plausible)?;
        if let Ok(number) = text.parse() {
            return Some(Self::Int(number));
        }
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Float)
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(one), Self::Int(two)) => one == two,
            (Self::Float(one), Self::Float(two)) => one == two,
            // An integer that a double does not hold equals no double.
            (Self::Int(int), Self::Float(float)) | (Self::Float(float), Self::Int(int)) => {
                int as f64 == float && float as i128 == int
            }
        }
    }
}

impl Matcher {
    /// Compiles a test.
    pub(super) fn new(test: &Test) -> Result<Self, Fault> {
        Ok(match test {
            Test::OneOf(values) if values.is_empty() => return Err(Fault::NoValues),
            Test::OneOf(values) => Self::OneOf {
                texts: values.iter().map(|value| value.as_bytes().into()).collect(),
                // As a number only what JSON takes as one: 007 is a text.
                numbers: values
                    .iter()
                    .filter(|value| value.trim() == *value && serde_json::from_str::<f64>(value).is_ok())
                    .filter_map(|value| Number::parse(value.as_bytes()))
                    .collect(),
            },
            Test::Range { low, high } => {
                check_range(*low, *high)?;
                Self::Range { low: *low, high: *high }
            }
            Test::Prefix(prefix) => Self::Prefix(prefix.as_bytes().into()),
            Test::Glob(pattern) => glob(pattern)?,
            Test::Wildcard(pattern) => Self::Wildcard(Wildcard::new(pattern)),
            Test::Regex(pattern) => Self::Pattern(
                Pattern::rust(pattern)
                    .map_err(|error| Fault::Regex { pattern: pattern.clone(), reason: error.to_string() })?,
            ),
            Test::Absent => Self::Absent,
            Test::Not(inner) => Self::Not(Box::new(Self::new(inner)?)),
        })
    }

    /// Whether a value passes.
    #[inline]
    pub(super) fn matches(&self, value: &Operand<'_>) -> bool {
        match self {
            Self::OneOf { texts, numbers } => {
                one_of_texts(texts, value)
                    || value.is_number()
                        && !numbers.is_empty()
                        && value.number().is_some_and(|number| numbers.iter().any(|other| number.equals(*other)))
            }
            Self::Range { low, high } => value.number().map(Number::as_f64).is_some_and(|number| {
                low.is_none_or(|(bound, with)| number > bound || with && number == bound)
                    && high.is_none_or(|(bound, with)| number < bound || with && number == bound)
            }),
            Self::Exactly(other) => value.text_is(|text| *text == **other),
            Self::Prefix(prefix) => value.text_is(|text| text.starts_with(prefix)),
            Self::Glob(pieces) => value.text_is(|text| pieces.matches(text)),
            Self::Wildcard(wildcard) => value.text_is(|text| wildcard.matches(text)),
            Self::Pattern(pattern) => value.text_is(|text| pattern.is_match(text)),
            Self::Regex(regex) => value.text_is(|text| regex.is_match(text)),
            Self::Absent => matches!(value, Operand::Absent),
            Self::Not(inner) => !inner.matches(value),
        }
    }
}

/// A double as JSON spells it, without an allocation.
fn with_spelled(number: f64, test: impl FnOnce(&[u8]) -> bool) -> bool {
    let mut buffer = [0; FLOAT_BYTES_MAX];
    let mut room = &mut buffer[..];
    if write!(room, "{number:?}").is_err() {
        return false;
    }
    let left = room.len();
    test(&buffer[..FLOAT_BYTES_MAX - left])
}

fn one_of_texts(texts: &[Box<[u8]>], value: &Operand<'_>) -> bool {
    // Integers are compared by value alone: no need to spell them.
    !matches!(value, Operand::Int(_)) && value.text_is(|text| texts.iter().any(|other| **other == *text))
}

fn check_range(low: Option<(f64, bool)>, high: Option<(f64, bool)>) -> Result<(), Fault> {
    let spell = |bound: Option<(f64, bool)>, sign: &str| {
        bound.map(|(number, with)| format!("{sign}{}{number}", if with { "=" } else { "" }))
    };
    let not_a_number = [low, high].into_iter().flatten().any(|(bound, _)| bound.is_nan());
    let nothing_between = match (low, high) {
        (Some((low, with_low)), Some((high, with_high))) => low > high || low == high && !(with_low && with_high),
        (None, None) => true,
        _ => false,
    };
    if not_a_number || nothing_between {
        let bounds: Vec<_> = [spell(low, ">"), spell(high, "<")].into_iter().flatten().collect();
        return Err(Fault::Range(bounds.join(" and ")));
    }
    Ok(())
}

/// A glob: literals and `*` as pieces, anything else as a regular expression.
fn glob(pattern: &str) -> Result<Matcher, Fault> {
    let fault = |reason: String| Fault::Glob { pattern: pattern.to_owned(), reason: one_line(&reason) };
    if pattern.contains(['[', ']', '{', '}', '\\']) {
        let glob = globset::GlobBuilder::new(pattern)
            .literal_separator(false)
            .backslash_escape(true)
            .build()
            .map_err(|error| fault(error.kind().to_string()))?;
        return Regex::new(glob.regex()).map(Matcher::Regex).map_err(|error| fault(error.to_string()));
    }
    if pattern.contains('?') {
        // `?` is one character, `*` any bytes.
        let regex = regex::escape(pattern).replace(r"\*", "(?s-u:.*)").replace(r"\?", "(?s:.)");
        return Regex::new(&format!(r"\A{regex}\z")).map(Matcher::Regex).map_err(|error| fault(error.to_string()));
    }
    match pattern.split_once('*') {
        None => Ok(Matcher::Exactly(pattern.as_bytes().into())),
        Some((first, rest)) => {
            let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
            let middle = middle.split('*').filter(|piece| !piece.is_empty());
            Ok(Matcher::Glob(Pieces {
                first: first.as_bytes().into(),
                middle: middle.map(|piece| memmem::Finder::new(piece).into_owned()).collect(),
                last: last.as_bytes().into(),
            }))
        }
    }
}

impl Pieces {
    fn matches(&self, text: &[u8]) -> bool {
        let Some(mut rest) = text.strip_prefix(&*self.first).and_then(|rest| rest.strip_suffix(&*self.last)) else {
            return false;
        };
        for piece in &self.middle {
            match piece.find(rest) {
                Some(at) => rest = &rest[at + piece.needle().len()..],
                None => return false,
            }
        }
        true
    }
}

/// Messages of the regex crate span lines; the last says what is wrong.
fn one_line(message: &str) -> String {
    let last = message.lines().next_back().unwrap_or(message).trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
