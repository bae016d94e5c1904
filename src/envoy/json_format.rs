//! Access logs in JSON with keys of one's own: an Envoy `json_format`, compiled into what recognises its lines.
//!
//! JSON says itself where values begin and end; what the format adds is which lines are access logs, which members are
//! numbers though an old Envoy prints them as text, which one is the time, and which can hold a URL. A line has the format if
//! it has each of its top-level members and no other, in any order (with `omit_empty_values`: no other, and two at least).
//! Members keep the names that the format gives them.
//!
//! Cost: one scan of the line. Members are expected in the order of the line before, as Envoy prints them.

use serde_json::Value as Json;

use crate::envoy::format::{FormatError, FormatWarning, FormatWarningKind, Options, compile};
use crate::envoy::operator::Content;
use crate::envoy::scan::{Scanner, Token, is_number};
use crate::envoy::shape::Shape;
use crate::record::{Field, Name, Record, Value};
use crate::timestamp::parse_rfc3339_ns;

/// A format has no more top-level members than this: those seen in a line are a bit set.
pub const MEMBERS_MAX: usize = 128;

/// With `omit_empty_values` a line has at least so many members.
const MEMBERS_MIN: u32 = 2;

/// A compiled JSON format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFormat {
    /// For messages.
    pub name: String,
    members: Vec<Member>,
    omits_empty: bool,
}

/// A top-level member.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: Box<[u8]>,
    /// The grammar of its value; none for constants, objects, arrays, and text of several operators.
    shape: Option<Shape>,
    is_start: bool,
}

/// A compiled JSON format, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledJson {
    /// What recognises lines.
    pub format: JsonFormat,
    /// What was not as it should be.
    pub warnings: Vec<FormatWarning>,
    /// What redaction has to know, by the last name on the way to the value.
    pub contents: Vec<(String, Content)>,
}

/// Why a JSON format does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFormatError {
    /// Not a JSON object.
    #[error("must be a JSON object of keys and format strings: {0}")]
    Syntax(String),
    /// A format string in it.
    #[error("{0:?}: {1}")]
    Member(String, FormatError),
    /// None of its values is an operator.
    #[error("no operator in it")]
    NoOperator,
    /// Too many members.
    #[error("more than {MEMBERS_MAX} keys")]
    TooMany,
}

impl JsonFormat {
    /// Compiles the `json_format` of an Envoy.
    ///
    /// # Errors
    /// See [`JsonFormatError`].
    pub fn compile(name: &str, format: &str, options: &Options) -> Result<CompiledJson, JsonFormatError> {
        let object = match serde_json::from_str(format) {
            Ok(Json::Object(object)) => object,
            Ok(_) => return Err(JsonFormatError::Syntax("this is another value".to_owned())),
            Err(error) => return Err(JsonFormatError::Syntax(error.to_string())),
        };
        if object.len() > MEMBERS_MAX {
            return Err(JsonFormatError::TooMany);
        }
        let mut compiler = Compiler::default();
        let mut members = Vec::new();
        for (key, value) in &object {
            let (shape, is_start) = compiler.value(key, value)?;
            // As the line spells it.
            let quoted = Json::from(key.as_str()).to_string();
            let name = quoted.as_bytes()[1..quoted.len() - 1].into();
            members.push(Member { name, shape, is_start });
        }
        if compiler.operators == 0 {
            return Err(JsonFormatError::NoOperator);
        }
        let format = Self { name: name.to_owned(), members, omits_empty: options.omit_empty_values };
        Ok(CompiledJson { format, warnings: compiler.warnings, contents: compiler.contents })
    }

    /// Reads a line that begins as a JSON object. True if it has this format; then its members are in the record, with its
    /// time. Otherwise the record is as it was.
    pub fn parse<'a>(&self, line: &'a [u8], record: &mut Record<'a>) -> bool {
        let (before, time_ns) = (record.parsed.len(), record.time_ns);
        let is_it = self.read(line, record).is_some();
        if !is_it {
            record.parsed.truncate(before);
            record.time_ns = time_ns;
        }
        is_it
    }

    fn read<'a>(&self, line: &'a [u8], record: &mut Record<'a>) -> Option<()> {
        let mut scanner = Scanner::new(str::from_utf8(line).ok()?);
        let mut seen = 0_u128;
        let mut expected = 0;
        scanner.open()?;
        while let Some((name, token)) = scanner.member(expected == 0 && seen == 0)? {
            let place = self.find(name, expected)?;
            expected = place + 1;
            seen |= 1 << place;
            let member = &self.members[place];
            if member.is_start
                && let Token::String(text) = token
                && let Some(time_ns) = member.time_ns(text)
            {
                record.time_ns = time_ns;
            }
            record.parsed.push(Field { name: Name::json(name), value: member.value(token) });
        }
        let count = seen.count_ones();
        let enough = if self.omits_empty { count >= MEMBERS_MIN } else { count as usize == self.members.len() };
        enough.then_some(())
    }

    fn find(&self, name: &[u8], expected: usize) -> Option<usize> {
        let is_it = |member: &Member| *member.name == *name;
        if self.members.get(expected).is_some_and(is_it) {
            return Some(expected);
        }
        self.members.iter().position(is_it)
    }

    /// How many top-level members it has, and how many of them a line has that has the format or not; for explanations.
    pub fn compare(&self, line: &[u8]) -> (usize, Vec<String>, Vec<String>) {
        let mut seen = vec![false; self.members.len()];
        let mut foreign = Vec::new();
        let text = String::from_utf8_lossy(line);
        let mut scanner = Scanner::new(&text);
        let mut is_first = true;
        if scanner.open().is_some() {
            while let Some(Some((name, _))) = scanner.member(is_first) {
                is_first = false;
                match self.find(name, 0) {
                    Some(place) => seen[place] = true,
                    None => foreign.push(String::from_utf8_lossy(name).into_owned()),
                }
            }
        }
        let missing = self.members.iter().zip(&seen).filter(|(_, seen)| !**seen);
        let missing = missing.map(|(member, _)| String::from_utf8_lossy(&member.name).into_owned()).collect();
        (self.members.len(), missing, foreign)
    }
}

impl Member {
    fn value<'a>(&self, token: Token<'a>) -> Value<'a> {
        let is_numeric = matches!(self.shape, Some(Shape::Code | Shape::Count | Shape::Signed));
        match token {
            // Releases without typed JSON print every value as text, what is absent as a dash.
            Token::String(b"-") if self.shape.is_some() => Value::Null,
            Token::String(text) if is_numeric && is_number(text) => Value::Number(text),
            Token::String(text) => Value::Json(text),
            Token::Number(text) => Value::Number(text),
            Token::Nested(text) => Value::JsonValue(text),
            Token::Bool(truth) => Value::Bool(truth),
            Token::Null => Value::Null,
        }
    }

    fn time_ns(&self, text: &[u8]) -> Option<i64> {
        match self.shape? {
            Shape::TimeBy(format) => format.read(text).and_then(|(_, time_ns)| time_ns),
            _ => parse_rfc3339_ns(text),
        }
    }
}

#[derive(Default)]
struct Compiler {
    warnings: Vec<FormatWarning>,
    contents: Vec<(String, Content)>,
    operators: usize,
}

impl Compiler {
    /// The grammar of a member's value, and whether it is the start time.
    fn value(&mut self, key: &str, value: &Json) -> Result<(Option<Shape>, bool), JsonFormatError> {
        match value {
            Json::String(text) if text.contains('%') => self.text(key, text),
            Json::Array(values) => {
                values.iter().try_for_each(|value| self.value(key, value).map(drop))?;
                Ok((None, false))
            }
            Json::Object(members) => {
                members.iter().try_for_each(|(key, value)| self.value(key, value).map(drop))?;
                Ok((None, false))
            }
            _ => Ok((None, false)),
        }
    }

    fn text(&mut self, key: &str, text: &str) -> Result<(Option<Shape>, bool), JsonFormatError> {
        let options = Options::default();
        let compiled = match compile(key, text, &options) {
            Ok(compiled) => compiled,
            // Only percent signs.
            Err(FormatError { kind: crate::envoy::format::FormatErrorKind::NoOperator, .. }) => {
                return Ok((None, false));
            }
            Err(error) => return Err(JsonFormatError::Member(key.to_owned(), error)),
        };
        // Borders do not matter here.
        let is_unknown = |warning: &FormatWarning| matches!(warning.kind, FormatWarningKind::UnknownOperator(_));
        self.warnings.extend(compiled.warnings.into_iter().filter(is_unknown));
        self.operators += compiled.layout.slots.len();
        for (_, content) in &compiled.contents {
            self.contents.push((key.to_owned(), *content));
        }
        let is_alone = compiled.layout.head.len() + compiled.layout.tail.len() <= 1 && compiled.layout.slots.len() == 1;
        let [slot] = compiled.layout.slots.as_slice() else { return Ok((None, false)) };
        let is_start = slot.is(crate::record::Key::StartTime) && is_alone;
        Ok((is_alone.then_some(slot.shape), is_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = r#"{
        "ts": "%START_TIME(%s.%3f)%", "m": "%REQ(:METHOD)%", "p": "%REQ(:PATH)%", "c": "%RESPONSE_CODE%",
        "d": "%DURATION%", "both": "%PROTOCOL% %RESPONSE_FLAGS%", "service": "checkout", "n": 7,
        "up": {"host": "%UPSTREAM_HOST%", "list": ["%REQ(REFERER)%"]}, "cookie \"x\"": "%REQ(COOKIE)%"
    }"#;

    fn compiled(format: &str) -> CompiledJson {
        JsonFormat::compile("test", format, &Options::default()).unwrap()
    }

    const LINE: &str = r#"{"ts":"1795305600.528","m":"GET","p":"/x?a=b","c":"200","d":1e+06,"both":"HTTP/1.1 -","service":"checkout","n":7,"up":{"host":"-","list":[null]},"cookie \"x\"":"-"}"#;

    #[test]
    fn lines_are_known_by_their_members() {
        let CompiledJson { format, warnings, contents } = compiled(FORMAT);
        assert_eq!(warnings, []);
        let content = |key: &str| contents.iter().find(|(name, _)| name == key).map(|(_, content)| *content);
        assert_eq!(content("p"), Some(Content::Url));
        assert_eq!(content("list"), Some(Content::Url));
        assert_eq!(content("cookie \"x\""), Some(Content::Secret));
        let mut record = Record::new();
        assert!(format.parse(LINE.as_bytes(), &mut record));
        assert_eq!(record.time_ns, 1_795_305_600_528_000_000);
        let value = |name: &[u8]| record.parsed.iter().find(|field| field.name.bytes() == name).unwrap().value;
        assert_eq!(value(b"c"), Value::Number(b"200"));
        assert_eq!(value(b"d"), Value::Number(b"1e+06"));
        assert_eq!(value(b"both"), Value::Json(b"HTTP/1.1 -"));
        assert_eq!(value(br#"cookie \"x\""#), Value::Null);
    }

    #[test]
    fn other_lines_leave_the_record_as_it_was() {
        let CompiledJson { format, .. } = compiled(FORMAT);
        let more = LINE.replace("\"n\":7", "\"n\":7,\"more\":1");
        let less = LINE.replace("\"n\":7,", "");
        for line in [&more[..], &less, "{}", "{", "x", &LINE[..LINE.len() - 1]] {
            let mut record = Record::new();
            record.time_ns = 7;
            assert!(!format.parse(line.as_bytes(), &mut record), "{line}");
            assert_eq!((record.parsed.len(), record.time_ns), (0, 7));
        }
        let (members, missing, foreign) = format.compare(more.replace("\"m\":\"GET\",", "").as_bytes());
        assert_eq!((members, missing, foreign), (10, vec!["m".to_owned()], vec!["more".to_owned()]));
    }

    #[test]
    fn what_is_empty_may_be_left_out() {
        let options = Options { omit_empty_values: true, ..Options::default() };
        let format = JsonFormat::compile("test", FORMAT, &options).unwrap().format;
        let mut record = Record::new();
        assert!(format.parse(br#"{"m":"GET","c":200}"#, &mut record));
        record.clear();
        assert!(!format.parse(br#"{"m":"GET"}"#, &mut record));
    }

    #[test]
    fn what_does_not_compile() {
        let error = |format: &str| JsonFormat::compile("test", format, &Options::default()).unwrap_err().to_string();
        assert!(error("[]").starts_with("must be a JSON object"));
        assert!(error("{").starts_with("must be a JSON object"));
        assert_eq!(error(r#"{"a":"b"}"#), "no operator in it");
        assert_eq!(
            error(r#"{"a":{"b":"x %PROTOCOL"}}"#),
            "\"b\": at byte 2: %PROTOCOL has no closing %; an operator reads %NAME%, %NAME(ARGUMENT)% or %NAME(ARGUMENT):LENGTH%, a percent sign %%"
        );
    }
}
