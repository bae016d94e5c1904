//! Names made from what is known of a record: `{tag}`, `{container_name}`, `{ecs_task_id}`, `{hostname}`, record fields, dates.
//!
//! ```text
//! name        what stands for itself, with these in it:
//! {tag}       the record's tag; {tag[0]} is its first part between dots
//!             or between the delimiters that the template was parsed with
//! {hostname}  name of the host
//! {ecs_…}     any of [`crate::enrich::ecs::NAMES`]; {ecs_task_id} is read off a FireLens tag where metadata lacks it
//! {name}      any other name: the record's field of that name, else the member of a nested field, {a.b}
//! {$name}     the record's own field of that name, though it be one of the names above, or `container_name`, which else is that of the tag
//! {uuid}      8 characters, an object's own ┐ where the template makes the whole key
//! {index}     a number that rises           ┘ of an object (see [`ObjectName`])
//! {name|text} what stands there while the value is not known or empty; `unknown` if not given, or, where there is one, another
//!             template in place of the whole, see [`Template::or`]
//! %Y %m …     the record's time in UTC, see [`date`]; %% is a percent sign
//! {{ }}       braces
//! ```
//!
//! A template is parsed once; rendering appends to a string and allocates nothing else. What comes from outside and becomes
//! part of a path or of an object's key is rendered in [`Style::Path`], so that no record can choose where it is written.

use std::fmt::Write as _;

use crate::enrich::ecs::{Metadata, NAMES};
use crate::journal::block::Partition;

pub mod date;

pub(crate) use date::calendar;
use date::{DatePart, Moment};

/// What stands for a value that is not known, where the template gives no text for that.
pub const UNKNOWN: &str = "unknown";

/// The longest value that [`path_component`] lets through, in bytes.
pub const VALUE_BYTES_MAX: usize = 128;

const TASK_ID: &str = "ecs_task_id";

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    segments: Box<[Segment]>,
    /// Stands for all of it where a value without a text of its own is not known.
    other: Option<Box<Template>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(Box<str>),
    Date(DatePart),
    Value { value: Named, fallback: Option<Box<str>> },
    Uuid,
    Index,
}

#[derive(Clone, Debug, PartialEq)]
enum Named {
    Tag,
    TagPart {
        n: usize,
        /// The characters that part a tag; none = a dot, and parts may be empty.
        delimiters: Option<Box<str>>,
    },
    Hostname,
    Metadata(&'static str),
    Field(Box<str>),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at}")]
pub struct TemplateError {
    /// What is wrong, and what is allowed.
    pub message: String,
    /// Where, in bytes.
    pub at: usize,
}

/// How values are written; the template's own text is written as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As they are.
    Plain,
    /// As a part of one path component, see [`path_component`].
    Path,
}

/// What a template is rendered from.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Tag and record fields.
    pub partition: &'a Partition,
    /// Names of `partition.values`, in order.
    pub partition_keys: &'a [Box<str>],
    /// The task.
    pub metadata: &'a Metadata,
    /// Name of the host.
    pub hostname: &'a str,
    /// Time for the dates, in nanoseconds since 1970 UTC.
    pub time_ns: i64,
}

/// What only an object's own key may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Characters that no other object has.
    pub uuid: Box<str>,
    /// A number that rises from object to object.
    pub index: u128,
}

/// What a template's parts that differ from object to object are rendered as, in [`Template::render_group`].
const OPEN: char = '\0';

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_with(text, None)
    }

    /// Parses a template whose `{tag[0]}` are the parts of a tag between any of those characters, empty ones not counted; between
    /// dots if there are none.
    pub fn parse_with(text: &str, delimiters: Option<&str>) -> Result<Self, TemplateError> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let plain = rest.find(['{', '}', '%']).unwrap_or(rest.len());
            literal.push_str(&rest[..plain]);
            at += plain;
            let rest = &rest[plain..];
            if rest.is_empty() {
                break;
            }
            if let Some(escaped) = escape(rest) {
                literal.push(escaped);
                at += 2;
                continue;
            }
            let (segment, length) = parse_segment(rest, at, delimiters)?;
            if !literal.is_empty() {
                segments.push(Segment::Literal(std::mem::take(&mut literal).into()));
            }
            segments.push(segment);
            at += length;
        }
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal.into()));
        }
        Ok(Self { segments: segments.into(), other: None })
    }

    /// The same, but for records of which a value is not known that has no `|text`: those get `other`.
    pub fn or(self, other: Self) -> Self {
        Self { other: Some(Box::new(other)), ..self }
    }

    /// A template that is this very text, whatever stands in it.
    pub fn literal(text: &str) -> Self {
        let literal = (!text.is_empty()).then(|| Segment::Literal(text.into()));
        Self { segments: literal.into_iter().collect(), other: None }
    }

    /// The record fields it names, each once, for `process::Pipeline::partition_keys`.
    pub fn record_fields(&self) -> Vec<String> {
        let mut fields: Vec<String> = Vec::new();
        for named in self.values() {
            let (name, other) = match named {
                Named::Field(name) => (&**name, None),
                // The sender may have brought it, or what holds it.
                Named::Metadata(name) => (*name, holder(name)),
                Named::Tag | Named::TagPart { .. } | Named::Hostname => continue,
            };
            for name in [Some(name), other].into_iter().flatten() {
                if !fields.iter().any(|field| field == name) {
                    fields.push(name.to_owned());
                }
            }
        }
        fields
    }

    /// Whether it holds dates, and so depends on a record's time.
    pub fn has_dates(&self) -> bool {
        self.date_period_ms().is_some()
    }

    /// How long the dates in it stay the same, in milliseconds: two times with the same quotient by this period render
    /// alike. `None` if there are no dates.
    pub fn date_period_ms(&self) -> Option<i64> {
        let dates = self.segments().filter_map(|segment| match segment {
            Segment::Date(part) => Some(part.period_ms()),
            _ => None,
        });
        dates.min()
    }

    /// Whether its dates are finer than a second.
    pub fn has_fractions(&self) -> bool {
        self.date_period_ms() == Some(date::FRACTION_PERIOD_MS)
    }

    /// Whether it holds `{uuid}` or `{index}`.
    pub fn names_objects(&self) -> bool {
        self.has_uuid() || self.segments().any(|segment| *segment == Segment::Index)
    }

    /// Whether it holds `{uuid}`.
    pub fn has_uuid(&self) -> bool {
        self.segments().any(|segment| *segment == Segment::Uuid)
    }

    /// Whether it names task metadata that is not known yet, and may become known.
    pub fn waits_for(&self, metadata: &Metadata) -> bool {
        !metadata.complete
            && self.values().any(|named| match named {
                Named::Metadata(name) => metadata.get(name).is_none_or(str::is_empty),
                _ => false,
            })
    }

    /// The name for this scope, values as they are.
    pub fn render(&self, scope: &Scope<'_>) -> String {
        let mut out = String::new();
        self.render_into(scope, Style::Plain, &mut out);
        out
    }

    /// Appends the name for this scope to `out`.
    pub fn render_into(&self, scope: &Scope<'_>, style: Style, out: &mut String) {
        self.write(scope, style, &Filling::Plain, out);
    }

    /// Appends the key of an object to `out`, values as parts of path components.
    pub fn render_object(&self, scope: &Scope<'_>, name: &ObjectName, out: &mut String) {
        self.write(scope, Style::Path, &Filling::Object(name), out);
    }

    /// Appends what the keys of objects have in common whose records may stand in one: dates, `{uuid}` and `{index}` are open.
    pub fn render_group(&self, scope: &Scope<'_>, out: &mut String) {
        self.write(scope, Style::Path, &Filling::Open, out);
    }

    fn write(&self, scope: &Scope<'_>, style: Style, filling: &Filling<'_>, out: &mut String) {
        if let Some(other) = self.other.as_ref().filter(|_| self.lacks_a_value(scope)) {
            return other.write(scope, style, filling, out);
        }
        let mut moment = None;
        for segment in &self.segments {
            match (segment, filling) {
                (Segment::Date(_) | Segment::Uuid | Segment::Index, Filling::Open) => out.push(OPEN),
                (Segment::Literal(text), _) => out.push_str(text),
                (Segment::Date(part), _) => part.write(moment.get_or_insert_with(|| Moment::new(scope.time_ns)), out),
                (Segment::Uuid, Filling::Object(name)) => out.push_str(&name.uuid),
                (Segment::Index, Filling::Object(name)) => {
                    let written = write!(out, "{}", name.index);
                    debug_assert!(written.is_ok(), "a string takes everything");
                }
                // The configuration lets neither stand where there is no object.
                (Segment::Uuid | Segment::Index, Filling::Plain) => out.push_str(UNKNOWN),
                (Segment::Value { value, fallback }, _) => match (value.find(scope), style) {
                    (None, _) => out.push_str(fallback.as_deref().unwrap_or(UNKNOWN)),
                    (Some(value), Style::Plain) => out.push_str(value),
                    (Some(value), Style::Path) => path_component(value, out),
                },
            }
        }
    }

    fn lacks_a_value(&self, scope: &Scope<'_>) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Value { value, fallback: None } => value.find(scope).is_none(),
            _ => false,
        })
    }

    /// Its own and those of what may stand for it.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().chain(self.other.iter().flat_map(|other| &other.segments))
    }

    fn values(&self) -> impl Iterator<Item = &Named> {
        self.segments().filter_map(|segment| match segment {
            Segment::Value { value, .. } => Some(value),
            _ => None,
        })
    }
}

/// What stands for the parts that differ from object to object.
enum Filling<'a> {
    /// There is no object.
    Plain,
    Object(&'a ObjectName),
    Open,
}

impl Named {
    fn find<'a>(&self, scope: &Scope<'a>) -> Option<&'a str> {
        let value = match self {
            Self::Tag => Some(&*scope.partition.tag),
            Self::TagPart { n, delimiters: None } => scope.partition.tag.split('.').nth(*n),
            Self::TagPart { n, delimiters: Some(delimiters) } => {
                let parts = scope.partition.tag.split(|c| delimiters.contains(c));
                parts.filter(|part| !part.is_empty()).nth(*n)
            }
            Self::Hostname => Some(scope.hostname),
            Self::Metadata(name) => {
                let known = scope.metadata.get(name).filter(|value| !value.is_empty());
                let known = known.or_else(|| field(scope, name));
                let known = known.or_else(|| field(scope, holder(name)?)?.rsplit('/').next());
                known.or_else(|| if *name == TASK_ID { firelens_task_id(&scope.partition.tag) } else { None })
            }
            Self::Field(name) => field(scope, name),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// The field that the ECS agent's generated configuration adds to records, whose last part is that value.
fn holder(name: &str) -> Option<&'static str> {
    match name {
        TASK_ID => Some("ecs_task_arn"),
        "ecs_cluster_name" => Some("ecs_cluster"),
        _ => None,
    }
}

/// The value of a record's field, unless it is empty.
fn field<'a>(scope: &Scope<'a>, name: &str) -> Option<&'a str> {
    let place = scope.partition_keys.iter().position(|key| **key == *name)?;
    scope.partition.values.get(place).map(|value| &**value).filter(|value| !value.is_empty())
}

/// The task id in a FireLens tag, `<container>-firelens-<task id>`. The agent makes the tag; a container's name may hold
/// `-firelens-` itself, a task id (hexadecimal, old ones with dashes) cannot, hence the last one counts.
fn firelens_task_id(tag: &str) -> Option<&str> {
    let (container, id) = tag.rsplit_once("-firelens-")?;
    let valid = !container.is_empty() && !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    valid.then_some(id)
}

/// Appends a value that comes from outside as a part of one path component: it cannot end the component (`/`, `\`), be or
/// complete a `..` with what stands beside it, look like a `key=value` partition, hold control characters, or be longer
/// than [`VALUE_BYTES_MAX`]. What is not allowed becomes `_`; an empty value becomes `_` as well.
pub fn path_component(value: &str, out: &mut String) {
    let mut end = value.len().min(VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value[..end];
    if value.is_empty() {
        out.push('_');
    }
    let mut before = '.';
    for (at, char) in value.char_indices() {
        let last = at + char.len_utf8() == value.len();
        let kept = match char {
            // A dot only between others: neither at an end, where it would meet the template's own, nor beside another.
            '.' => before != '.' && !last,
            '-' | '_' | '@' | ':' | '+' | ',' | '~' | '!' | '(' | ')' => true,
            _ => char.is_alphanumeric(),
        };
        before = char;
        out.push(if kept { char } else { '_' });
    }
}

/// The literal character that an escape at the start of `rest` stands for.
fn escape(rest: &str) -> Option<char> {
    match rest.as_bytes() {
        [b'{', b'{', ..] => Some('{'),
        [b'}', b'}', ..] => Some('}'),
        [b'%', b'%', ..] => Some('%'),
        _ => None,
    }
}

/// Parses what `{`, `}` or `%` at the start of `rest` begins; returns its length as well.
fn parse_segment(rest: &str, at: usize, delimiters: Option<&str>) -> Result<(Segment, usize), TemplateError> {
    let fail = |message: String| Err(TemplateError { message, at });
    if rest.starts_with('}') {
        return fail("`}` without `{`; a brace that stands for itself is written `}}`".to_owned());
    }
    if let Some(conversion) = rest.strip_prefix('%') {
        return match DatePart::parse(conversion) {
            Ok((part, length)) => Ok((Segment::Date(part), 1 + length)),
            Err(message) => fail(message),
        };
    }
    let Some(end) = rest.find('}') else {
        return fail("`{` without `}`; a brace that stands for itself is written `{{`".to_owned());
    };
    let inside = &rest[1..end];
    match inside {
        "uuid" => return Ok((Segment::Uuid, end + 1)),
        "index" => return Ok((Segment::Index, end + 1)),
        _ => {}
    }
    if let Some(brace) = inside.find('{') {
        let message = "`{` inside `{…}`; a name holds no braces".to_owned();
        return Err(TemplateError { message, at: at + 1 + brace });
    }
    let (name, fallback) = match inside.split_once('|') {
        Some((_, "")) => return fail("`|` without the text to use instead, as in `{name|text}`".to_owned()),
        Some((name, fallback)) => (name, Some(fallback)),
        None => (inside, None),
    };
    if let Some(place) = fallback.and_then(|fallback| fallback.find(char::is_control)) {
        let at = at + 1 + name.len() + 1 + place;
        return Err(TemplateError { message: "control character".to_owned(), at });
    }
    let value = parse_name(name, delimiters).map_err(|message| TemplateError { message, at: at + 1 })?;
    Ok((Segment::Value { value, fallback: fallback.map(Box::from) }, end + 1))
}

fn parse_name(name: &str, delimiters: Option<&str>) -> Result<Named, String> {
    if name.is_empty() {
        return Err("a name is missing between `{` and `}`".to_owned());
    }
    if let Some(index) = name.strip_prefix("tag[").and_then(|rest| rest.strip_suffix(']')) {
        // `parse` alone would let `+1` pass.
        let digits = index.bytes().all(|b| b.is_ascii_digit());
        let n = index.parse().ok().filter(|_| digits);
        let part = |n| Named::TagPart { n, delimiters: delimiters.map(Box::from) };
        return n.map(part).ok_or_else(|| format!("`{{{name}}}`: expected a number, as in `{{tag[0]}}`"));
    }
    if name.contains(|c: char| c.is_control() || matches!(c, '[' | ']')) || name.trim() != name {
        return Err(format!("bad name `{}`: no brackets, control characters or spaces around it", name.escape_debug()));
    }
    if let Some(known) = NAMES.iter().find(|known| **known == name) {
        return Ok(Named::Metadata(known));
    }
    Ok(match name {
        "tag" => Named::Tag,
        "hostname" => Named::Hostname,
        _ => Named::Field(name.into()),
    })
}

#[cfg(test)]
mod tests;
