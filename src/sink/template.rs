//! Names made from what is known of a record: `{tag}`, `{container_name}`, `{ecs_task_id}`, `{hostname}`, record fields, dates.
//!
//! ```text
//! name        what stands for itself, with these in it:
//! {tag}       the record's tag; {tag[0]} is its first part between dots
//! {hostname}  name of the host
//! {ecs_…}     any of [`crate::enrich::ecs::NAMES`]; {ecs_task_id} is read off a FireLens tag where metadata lacks it
//! {name}      any other name: the record's top-level field
//! {name|text} what stands there while the value is not known or empty; `unknown` if not given
//! %Y %m …     the record's time in UTC, see [`DATES`]; %% is a percent sign
//! {{ }}       braces
//! ```
//!
//! A template is parsed once; rendering appends to a string and allocates nothing else. What comes from outside and becomes
//! part of a path or of an object's key is rendered in [`Style::Path`], so that no record can choose where it is written.

use std::fmt::Write as _;

use time::OffsetDateTime;

use crate::enrich::ecs::{Metadata, NAMES};
use crate::journal::block::Partition;

/// What stands for a value that is not known, where the template gives no text for that.
pub const UNKNOWN: &str = "unknown";

/// The conversions for dates, as in `strftime`.
pub const DATES: &str = "%Y %m %d %H %M %S %y %j";

/// The longest value that [`path_component`] lets through, in bytes.
pub const VALUE_BYTES_MAX: usize = 128;

const TASK_ID: &str = "ecs_task_id";

/// 9999-12-31T23:59:59.999Z; the calendar of this module begins with 1970 and ends there.
const TIME_MS_MAX: i64 = 253_402_300_799_999;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    segments: Box<[Segment]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(Box<str>),
    Date(DatePart),
    Value { value: Named, fallback: Box<str> },
}

#[derive(Clone, Debug, PartialEq)]
enum Named {
    Tag,
    TagPart(usize),
    Hostname,
    Metadata(&'static str),
    Field(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatePart {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    YearOfCentury,
    DayOfYear,
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
    /// Time for the dates, in milliseconds since 1970 UTC.
    pub time_ms: i64,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
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
            let (segment, length) = parse_segment(rest, at)?;
            if !literal.is_empty() {
                segments.push(Segment::Literal(std::mem::take(&mut literal).into()));
            }
            segments.push(segment);
            at += length;
        }
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal.into()));
        }
        Ok(Self { segments: segments.into() })
    }

    /// A template that is this very text, whatever stands in it.
    pub fn literal(text: &str) -> Self {
        let literal = (!text.is_empty()).then(|| Segment::Literal(text.into()));
        Self { segments: literal.into_iter().collect() }
    }

    /// The record fields it names, each once, for `process::Pipeline::partition_keys`.
    pub fn record_fields(&self) -> Vec<String> {
        let mut fields: Vec<String> = Vec::new();
        for named in self.values() {
            if let Named::Field(name) = named
                && !fields.iter().any(|field| **field == **name)
            {
                fields.push(name.to_string());
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
        let dates = self.segments.iter().filter_map(|segment| match segment {
            Segment::Date(part) => Some(part.period_ms()),
            _ => None,
        });
        dates.min()
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
        let mut date = None;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Date(part) => part.write(*date.get_or_insert_with(|| calendar(scope.time_ms)), out),
                Segment::Value { value, fallback } => match (value.find(scope), style) {
                    (None, _) => out.push_str(fallback),
                    (Some(value), Style::Plain) => out.push_str(value),
                    (Some(value), Style::Path) => path_component(value, out),
                },
            }
        }
    }

    fn values(&self) -> impl Iterator<Item = &Named> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Value { value, .. } => Some(value),
            _ => None,
        })
    }
}

impl Named {
    fn find<'a>(&self, scope: &Scope<'a>) -> Option<&'a str> {
        let value = match self {
            Self::Tag => Some(&*scope.partition.tag),
            Self::TagPart(n) => scope.partition.tag.split('.').nth(*n),
            Self::Hostname => Some(scope.hostname),
            Self::Metadata(name) => {
                let known = scope.metadata.get(name).filter(|value| !value.is_empty());
                known.or_else(|| if *name == TASK_ID { firelens_task_id(&scope.partition.tag) } else { None })
            }
            Self::Field(name) => {
                let place = scope.partition_keys.iter().position(|key| key == name);
                place.and_then(|place| scope.partition.values.get(place)).map(|value| &**value)
            }
        };
        value.filter(|value| !value.is_empty())
    }
}

impl DatePart {
    fn of(conversion: char) -> Option<Self> {
        Some(match conversion {
            'Y' => Self::Year,
            'm' => Self::Month,
            'd' => Self::Day,
            'H' => Self::Hour,
            'M' => Self::Minute,
            'S' => Self::Second,
            'y' => Self::YearOfCentury,
            'j' => Self::DayOfYear,
            _ => return None,
        })
    }

    fn period_ms(self) -> i64 {
        match self {
            Self::Second => 1000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            // Months and years change with a day too.
            Self::Day | Self::DayOfYear | Self::Month | Self::Year | Self::YearOfCentury => 86_400_000,
        }
    }

    fn write(self, date: OffsetDateTime, out: &mut String) {
        let written = match self {
            Self::Year => write!(out, "{:04}", date.year()),
            Self::Month => write!(out, "{:02}", u8::from(date.month())),
            Self::Day => write!(out, "{:02}", date.day()),
            Self::Hour => write!(out, "{:02}", date.hour()),
            Self::Minute => write!(out, "{:02}", date.minute()),
            Self::Second => write!(out, "{:02}", date.second()),
            Self::YearOfCentury => write!(out, "{:02}", date.year().rem_euclid(100)),
            Self::DayOfYear => write!(out, "{:03}", date.ordinal()),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}

/// The time as a date in UTC; what lies outside 1970 to 9999 is moved to its nearest end.
pub(crate) fn calendar(time_ms: i64) -> OffsetDateTime {
    let seconds = time_ms.clamp(0, TIME_MS_MAX) / 1000;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
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
fn parse_segment(rest: &str, at: usize) -> Result<(Segment, usize), TemplateError> {
    let fail = |message: String| Err(TemplateError { message, at });
    if rest.starts_with('}') {
        return fail("`}` without `{`; a brace that stands for itself is written `}}`".to_owned());
    }
    if let Some(conversion) = rest.strip_prefix('%') {
        let Some(conversion) = conversion.chars().next() else {
            return fail(format!("`%` at the end; allowed are {DATES} and %%"));
        };
        return match DatePart::of(conversion) {
            Some(part) => Ok((Segment::Date(part), 2)),
            None => {
                fail(format!("unknown date conversion `%{}`; allowed are {DATES} and %%", conversion.escape_debug()))
            }
        };
    }
    let Some(end) = rest.find('}') else {
        return fail("`{` without `}`; a brace that stands for itself is written `{{`".to_owned());
    };
    let inside = &rest[1..end];
    if let Some(brace) = inside.find('{') {
        let message = "`{` inside `{…}`; a name holds no braces".to_owned();
        return Err(TemplateError { message, at: at + 1 + brace });
    }
    let (name, fallback) = match inside.split_once('|') {
        Some((_, "")) => return fail("`|` without the text to use instead, as in `{name|text}`".to_owned()),
        Some((name, fallback)) => (name, fallback),
        None => (inside, UNKNOWN),
    };
    if let Some(place) = fallback.find(char::is_control) {
        let at = at + 1 + name.len() + 1 + place;
        return Err(TemplateError { message: "control character".to_owned(), at });
    }
    let value = parse_name(name).map_err(|message| TemplateError { message, at: at + 1 })?;
    Ok((Segment::Value { value, fallback: fallback.into() }, end + 1))
}

fn parse_name(name: &str) -> Result<Named, String> {
    if name.is_empty() {
        return Err("a name is missing between `{` and `}`".to_owned());
    }
    if let Some(index) = name.strip_prefix("tag[").and_then(|rest| rest.strip_suffix(']')) {
        // `parse` alone would let `+1` pass.
        let digits = index.bytes().all(|b| b.is_ascii_digit());
        let n = index.parse().ok().filter(|_| digits);
        return n.map(Named::TagPart).ok_or_else(|| format!("`{{{name}}}`: expected a number, as in `{{tag[0]}}`"));
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2024-02-29T03:04:05.678Z, day 60 of a leap year.
    const TIME_MS: i64 = 1_709_175_845_678;

    fn partition(tag: &str, values: &[&str]) -> Partition {
        Partition { tag: tag.into(), values: values.iter().map(|v| Box::from(*v)).collect() }
    }

    fn render(text: &str, tag: &str, fields: &[(&str, &str)], ecs: &[(&str, &str)], style: Style) -> String {
        let keys: Vec<Box<str>> = fields.iter().map(|(key, _)| Box::from(*key)).collect();
        let values: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
        let values_of = ecs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let scope = Scope {
            partition: &partition(tag, &values),
            partition_keys: &keys,
            metadata: &Metadata { values: values_of, ..Metadata::default() },
            hostname: "host-1",
            time_ms: TIME_MS,
        };
        let mut out = String::new();
        Template::parse(text).unwrap().render_into(&scope, style, &mut out);
        out
    }

    #[test]
    fn values_stand_where_they_are_named() {
        let plain = |text: &str| {
            let fields = [("container_name", "web"), ("a.b-c", "x/y"), ("none", "")];
            render(text, "app.web.1", &fields, &[("ecs_cluster_name", "prod")], Style::Plain)
        };
        assert_eq!(plain(""), "");
        assert_eq!(plain("/ecs/{container_name}"), "/ecs/web");
        assert_eq!(plain("{tag}/{tag[0]}/{tag[2]}/{tag[3]}/{tag[3]|z}"), "app.web.1/app/1/unknown/z");
        assert_eq!(plain("{hostname}{ecs_cluster_name}"), "host-1prod");
        assert_eq!(plain("{a.b-c}"), "x/y");
        assert_eq!(plain("{none|no}|{missing}|{missing|a|b}"), "no|unknown|a|b");
        assert_eq!(plain("{{{container_name}}}"), "{web}");
        assert_eq!(plain("100%% {{x}}"), "100% {x}");
    }

    #[test]
    fn dates_are_in_utc() {
        let date = |text: &str| render(text, "t", &[], &[], Style::Plain);
        assert_eq!(date("year=%Y/month=%m/day=%d/hour=%H/"), "year=2024/month=02/day=29/hour=03/");
        assert_eq!(date("%M%S %y %j %%Y"), "0405 24 060 %Y");
    }

    #[test]
    fn times_outside_the_calendar_do_no_harm() {
        assert_eq!(calendar(i64::MIN), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(calendar(-1), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(calendar(i64::MAX).year(), 9999);
        assert_eq!(calendar(TIME_MS_MAX).ordinal(), 365);
    }

    #[test]
    fn the_task_id_is_read_off_a_firelens_tag() {
        let id = "3f1c0b9de0d2402b9f3cbb1a6a4d1c0e";
        let text = "{ecs_task_id|none}";
        let from_tag = |tag: &str| render(text, tag, &[], &[], Style::Plain);
        assert_eq!(from_tag(&format!("web-firelens-{id}")), id);
        assert_eq!(from_tag(&format!("a-firelens-b-firelens-{id}")), id);
        assert_eq!(from_tag("web-firelens-../x"), "none");
        assert_eq!(from_tag("web-firelens-"), "none");
        assert_eq!(from_tag("-firelens-abc"), "none");
        assert_eq!(from_tag("app"), "none");
        let tag = format!("web-firelens-{id}");
        assert_eq!(render(text, &tag, &[], &[("ecs_task_id", "meta")], Style::Plain), "meta");
        assert_eq!(render("{ecs_cluster}", &tag, &[], &[], Style::Plain), "unknown");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let at = |text: &str| {
            let error = Template::parse(text).unwrap_err();
            (error.at, error.message)
        };
        assert_eq!(at("ab{tag").0, 2);
        assert_eq!(at("ab}").0, 2);
        assert_eq!(at("ab{}").0, 3);
        assert_eq!(at("ab{|x}").0, 3);
        assert_eq!(at("ab{x|}").0, 2);
        assert_eq!(at("{a{b}").0, 2);
        assert_eq!(at("{tag[x]}").0, 1);
        assert_eq!(at("{tag[+1]}").0, 1);
        assert_eq!(at("{tag[]}").0, 1);
        assert_eq!(at("{a[0]}").0, 1);
        assert_eq!(at("{ a }").0, 1);
        assert_eq!(at("{a|\n}").0, 3);
        assert_eq!(at("é%").0, 2);
        let (place, message) = at("year=%Y/%q");
        assert_eq!(place, 8);
        assert_eq!(message, "unknown date conversion `%q`; allowed are %Y %m %d %H %M %S %y %j and %%");
    }

    #[test]
    fn fields_dates_and_waiting_are_known_before_rendering() {
        let template = Template::parse("{a}/{b}/{a}/{tag}/{ecs_cluster}/%H").unwrap();
        assert_eq!(template.record_fields(), ["a", "b"]);
        assert_eq!(template.date_period_ms(), Some(3_600_000));
        assert_eq!(Template::parse("%Y-%M").unwrap().date_period_ms(), Some(60_000));
        assert_eq!(Template::parse("%m").unwrap().date_period_ms(), Some(86_400_000));
        assert!(!Template::parse("%%Y{a}").unwrap().has_dates());

        let mut metadata = Metadata::default();
        assert!(template.waits_for(&metadata));
        assert!(!Template::parse("{a}").unwrap().waits_for(&metadata));
        metadata.values.insert("ecs_cluster".to_owned(), String::new());
        assert!(template.waits_for(&metadata));
        metadata.complete = true;
        assert!(!template.waits_for(&metadata), "nothing more is expected");
        metadata.complete = false;
        metadata.values.insert("ecs_cluster".to_owned(), "c".to_owned());
        assert!(!template.waits_for(&metadata));
    }

    #[test]
    fn a_literal_is_not_parsed() {
        let scope_free = Template::literal("{tag}%Y");
        assert!(scope_free.record_fields().is_empty() && !scope_free.has_dates());
        assert_eq!(scope_free, Template::parse("{{tag}}%%Y").unwrap());
        assert_eq!(Template::literal(""), Template::parse("").unwrap());
    }

    #[test]
    fn values_cannot_leave_their_component() {
        let path = |value: &str| render("logs/{v}/x", "t", &[("v", value)], &[], Style::Path);
        assert_eq!(path("10.0.0.1:80"), "logs/10.0.0.1:80/x");
        assert_eq!(path("../../etc/passwd"), "logs/___.__etc_passwd/x");
        assert_eq!(path("."), "logs/_/x");
        assert_eq!(path("a.."), "logs/a._/x");
        assert_eq!(path("year=2020"), "logs/year_2020/x");
        assert_eq!(path("a\0b\u{7f}\\c"), "logs/a_b__c/x");
        assert_eq!(path("grün"), "logs/grün/x");
        // Two dots from two values, or from a value and the template, are no parent directory.
        assert_eq!(render("{v}{v}/.{v}./", "t", &[("v", ".")], &[], Style::Path), "__/._./");
        assert_eq!(render("a/{v|b/c}", "t", &[], &[], Style::Path), "a/b/c", "the template's own text is its author's");
    }

    proptest! {
        #[test]
        fn any_value_is_one_harmless_component(value in any::<String>(), long in 0usize..300) {
            let value = value + &"é".repeat(long);
            let mut out = String::new();
            path_component(&value, &mut out);
            prop_assert!(!out.is_empty());
            prop_assert!(out.len() <= VALUE_BYTES_MAX);
            prop_assert!(!out.contains(['/', '\\', '=', '\0', '\n']));
            prop_assert!(!out.contains("..") && !out.starts_with('.') && !out.ends_with('.'));
        }

        #[test]
        fn parsing_is_total_and_text_without_signs_is_itself(text in any::<String>(), plain in "[^{}%]*") {
            if let Err(error) = Template::parse(&text) {
                prop_assert!(text.is_char_boundary(error.at), "{error}");
            }
            prop_assert_eq!(Template::parse(&plain).unwrap(), Template::literal(&plain));
        }

        #[test]
        fn a_period_holds_the_same_dates(time in 0i64..4_000_000_000_000, offset in 0i64..86_400_000) {
            for text in ["%Y%m%d%H%M%S", "%Y%m%d%H%M", "%y%j%H", "%Y%m%d"] {
                let template = Template::parse(text).unwrap();
                let period = template.date_period_ms().unwrap();
                let start = time / period * period;
                let (partition, metadata) = (Partition::default(), Metadata::default());
                let name = |time_ms| {
                    let (partition, metadata) = (&partition, &metadata);
                    template.render(&Scope { partition, partition_keys: &[], metadata, hostname: "h", time_ms })
                };
                prop_assert_eq!(name(start), name(start + offset % period));
                prop_assert_ne!(name(start), name(start + period));
            }
        }
    }
}
