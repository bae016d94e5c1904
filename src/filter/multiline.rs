//! `multiline`: joins the lines of one event, such as a stack trace, into one record.
//!
//! The joined record has the fields and the time of its first line; its text are the lines with newlines between (rules) or one behind the
//! other (`endswith`, `equal`). Parsers are tried in order, the one that has taken the last line first; a line that none takes ends what
//! was open and passes by itself. What is open waits `flush_ms` for its next line, and comes out at the end of the connection.
//!
//! Lines are told apart by connection, tag, filter and the field `source`, so that stdout and stderr do not mix. A line that would make a
//! record longer than [`JOINED_BYTES_MAX`], or [`JOINED_LINES_MAX`], begins the next one; beyond [`OPEN_BYTES_MAX`] in a connection the oldest comes out. Nothing is cut.
//!
//! `mode = "partial_message"` does nothing here: lines that Docker has split are joined for every source before filters run.

use super::field_name::FieldName;
use super::members::text;
use super::parser::{Parser, ParserConfig as LineParser};
use super::words::word;
use super::{Arena, Fault, Faults};
use crate::pattern::{Groups, Pattern};
use crate::record::{Field, Key, Name, Record, Value};

mod builtin;
mod envoy;
pub(super) mod open;

/// The longest record that is joined, in bytes of its text.
pub const JOINED_BYTES_MAX: usize = 1 << 20;

/// The longest record that is joined, in lines.
pub const JOINED_LINES_MAX: usize = 10_000;

/// What a connection may hold open, in bytes.
pub const OPEN_BYTES_MAX: usize = 4 << 20;

/// How many records a connection may hold open.
pub const OPEN_RECORDS_MAX: usize = 64;

/// How long a record waits for its next line, in milliseconds.
pub const FLUSH_MS_DEFAULT: u64 = 2000;

/// The configuration of the filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Key of the text.
    pub key_content: String,
    /// Names of multiline parsers, in order.
    pub parser: Vec<String>,
    /// How long a record waits for its next line, in milliseconds.
    pub flush_ms: u64,
    /// `partial_message`: nothing is to be done.
    pub is_partial_mode: bool,
}

/// How lines belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// By rules with states.
    #[default]
    Regex,
    /// A line that ends so is the last.
    EndsWith,
    /// A line that is this is the last.
    Equal,
}

/// The configuration of one multiline parser.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParserConfig {
    /// How lines belong together.
    pub kind: Kind,
    /// `"STATES" "/PATTERN/" "NEXT"`, for [`Kind::Regex`].
    pub rule: Vec<String>,
    /// For the other kinds.
    pub match_string: Option<String>,
    /// The opposite: a line that does not end so, or is not this, is the last.
    pub negate: bool,
    /// Name of a parser that reads the text first.
    pub parser: Option<String>,
    /// The field of what was read that is joined; the filter's key if none is given.
    pub key_content: Option<String>,
    /// The field of what was read that is compared.
    pub key_pattern: Option<String>,
    /// A field whose values are kept apart.
    pub key_group: Option<String>,
}

/// A compiled multiline parser.
#[derive(Debug)]
pub(super) struct Joiner {
    kind: Joining,
    inner: Option<Inner>,
    key_content: Option<FieldName>,
    key_pattern: Option<FieldName>,
    key_group: Option<FieldName>,
}

#[derive(Debug)]
enum Joining {
    Rules(Box<[Rule]>),
    Last {
        text: Box<[u8]>,
        whole: bool,
        negate: bool,
    },
    /// Records of Envoy's own log.
    Envoy,
}

#[derive(Debug)]
enum Inner {
    Named(usize),
    Own(Box<Parser>),
}

#[derive(Debug)]
struct Rule {
    starts: bool,
    pattern: Pattern,
    /// Rules that may take the next line.
    next: Box<[usize]>,
    /// What follows may be a start: the record is whole.
    is_end: bool,
}

/// What a joiner says of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not one of mine.
    NotMine,
    /// The first of a record.
    Starts { state: usize, is_last: bool },
    /// Belongs to the record that is open.
    Continues { state: usize, is_last: bool, newline: bool },
}

impl Joiner {
    pub(super) fn new(config: &ParserConfig, find: impl Fn(&str) -> Option<usize>, faults: &mut Faults<'_>) -> Self {
        let kind = match config.kind {
            Kind::Regex => Joining::Rules(rules(&config.rule, faults)),
            kind @ (Kind::EndsWith | Kind::Equal) => {
                if !config.rule.is_empty() {
                    faults.add("rule", None, "must not be set unless `type` is \"regex\"");
                }
                let text = config.match_string.as_deref().unwrap_or_default();
                if text.is_empty() {
                    faults.add("match_string", None, "must be the text that the last line ends with, or is");
                }
                Joining::Last { text: text.as_bytes().into(), whole: kind == Kind::Equal, negate: config.negate }
            }
        };
        let inner = config.parser.as_deref().and_then(|name| {
            let place = find(name).ok_or_else(|| Fault(format!("must name a parser: there is no [parser.{name}]")));
            faults.unless("parser", None, place).map(Inner::Named)
        });
        let field = |name: &Option<String>| name.as_deref().map(FieldName::new);
        Self {
            kind,
            inner,
            key_content: field(&config.key_content),
            key_pattern: field(&config.key_pattern),
            key_group: field(&config.key_group),
        }
    }

    /// What a line is, given the state of the record that this joiner has open.
    fn judge(&self, content: &[u8], pattern: &[u8], state: Option<usize>) -> Verdict {
        match &self.kind {
            Joining::Rules(rules) => {
                let next = state.and_then(|state| rules.get(state)).map_or(&[][..], |rule| &rule.next);
                for &number in next {
                    if let Some(rule) = rules.get(number).filter(|rule| !rule.starts && rule.pattern.is_match(content))
                    {
                        return Verdict::Continues { state: number, is_last: rule.is_end, newline: true };
                    }
                }
                let start = rules.iter().position(|rule| rule.starts && rule.pattern.is_match(content));
                match start.and_then(|number| Some((number, rules.get(number)?))) {
                    Some((number, rule)) => Verdict::Starts { state: number, is_last: rule.is_end },
                    None => Verdict::NotMine,
                }
            }
            Joining::Last { text, whole, negate } => {
                if !whole && pattern.len() < text.len() {
                    return Verdict::NotMine;
                }
                let found = if *whole { *pattern == **text } else { pattern.ends_with(text) };
                let is_last = found != *negate;
                match state {
                    None => Verdict::Starts { state: 0, is_last },
                    Some(_) => Verdict::Continues { state: 0, is_last, newline: false },
                }
            }
            Joining::Envoy => envoy::judge(content, state),
        }
    }

    /// What of a line is joined.
    fn part<'a>(&self, line: &'a [u8], verdict: Verdict) -> &'a [u8] {
        match (&self.kind, verdict) {
            (Joining::Envoy, Verdict::Continues { state, .. }) => envoy::within(line, state).unwrap_or(line),
            _ => line,
        }
    }
}

fn rules(texts: &[String], faults: &mut Faults<'_>) -> Box<[Rule]> {
    struct Written {
        from: Vec<String>,
        pattern: Pattern,
        to: Option<String>,
    }
    let mut written: Vec<Written> = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        let read = || {
            let bad = || Fault("must be '\"STATES\" \"/PATTERN/\" \"NEXT STATE\"'".into());
            let (states, rest) = word(text).ok_or_else(bad)?;
            let (pattern, rest) = word(rest).ok_or_else(bad)?;
            let to = word(rest).map(|(to, _)| to).filter(|to| !to.is_empty());
            let from: Vec<String> =
                states.split(',').map(|state| state.trim().to_owned()).filter(|state| !state.is_empty()).collect();
            if from.is_empty() {
                return Err(bad());
            }
            if place == 0 && !from.iter().any(|state| state == "start_state") {
                return Err(Fault("must have \"start_state\" among its states, as the first rule".into()));
            }
            let pattern =
                Pattern::new(&pattern).map_err(|error| Fault(format!("must hold a regular expression: {error}")))?;
            Ok(Written { from, pattern, to })
        };
        written.extend(faults.unless("rule", Some(place), read()));
    }
    if texts.is_empty() {
        faults.add("rule", None, "must list at least one rule, that of the \"start_state\"");
    }
    let starts = |rule: &Written| rule.from.iter().any(|state| state == "start_state");
    let mut next_of = Vec::new();
    for (place, rule) in written.iter().enumerate() {
        let follows = |other: &Written| rule.to.as_ref().is_some_and(|to| other.from.contains(to));
        let next: Box<[usize]> = (0..written.len()).filter(|number| follows(&written[*number])).collect();
        if let Some(to) = rule.to.as_ref().filter(|_| next.is_empty() && written.len() == texts.len()) {
            faults.add("rule", Some(place), format!("must lead to a state that a rule has: none has `{to}`"));
        }
        let is_end = next.iter().any(|number| starts(&written[*number]));
        next_of.push((starts(rule), next, is_end));
    }
    let rule = |(written, (starts, next, is_end)): (Written, (bool, Box<[usize]>, bool))| Rule {
        starts,
        pattern: written.pattern,
        next,
        is_end,
    };
    written.into_iter().zip(next_of).map(rule).collect()
}

/// The compiled filter.
#[derive(Debug)]
pub(super) struct Multiline {
    key: FieldName,
    joiners: Box<[usize]>,
    pub(super) flush_ns: i64,
}

/// What a filter uses that is not its own.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) joiners: &'a [Joiner],
    pub(super) parsers: &'a [Parser],
    pub(super) arena: &'a Arena,
    pub(super) now_ns: i64,
}

/// A line that a joiner has looked at.
pub(super) struct Looked<'a> {
    pub(super) verdict: Verdict,
    pub(super) joiner: usize,
    /// What is joined.
    pub(super) content: &'a [u8],
    /// The place of the text in the record.
    pub(super) place: usize,
}

impl Multiline {
    pub(super) fn new(config: &Config, find: impl Fn(&str) -> Option<usize>, faults: &mut Faults<'_>) -> Self {
        let mut joiners = Vec::new();
        for (place, name) in config.parser.iter().enumerate() {
            let known = || {
                let builtin = builtin::NAMES.join(", ");
                Fault(format!("must be one of {builtin}, or have a table [multiline_parser.{name}]"))
            };
            joiners.extend(faults.unless("multiline_parser", Some(place), find(name).ok_or_else(known)));
        }
        if config.parser.is_empty() && !config.is_partial_mode {
            faults.add("multiline_parser", None, "must name at least one multiline parser");
        }
        if config.key_content.is_empty() {
            faults.add("multiline_key_content", None, "must name the field to join");
        }
        Self {
            key: FieldName::new(&config.key_content),
            joiners: if config.is_partial_mode { Box::default() } else { joiners.into() },
            flush_ns: i64::try_from(config.flush_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000),
        }
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.joiners.is_empty()
    }

    /// Asks the joiners, first the one that has a record open (with its state). A joiner whose parser reads the text replaces the record by
    /// what it reads.
    pub(super) fn look<'a>(
        &self,
        means: Means<'a>,
        open: Option<(usize, usize)>,
        record: &mut Record<'a>,
        groups: &mut Groups,
    ) -> Option<Looked<'a>> {
        let Means { joiners, parsers, arena, now_ns } = means;
        let is_text = |field: &Field<'a>| self.key.is(&field.name) && text(&field.value, arena).is_some();
        let place = record.envelope.iter().position(is_text)?;
        let line = text(&record.envelope.get(place)?.value, arena)?;
        let first = open.map(|(joiner, _)| joiner);
        let others = self.joiners.iter().copied().filter(|joiner| Some(*joiner) != first);
        for number in first.into_iter().chain(others) {
            let Some(joiner) = joiners.get(number) else { continue };
            let state = open.filter(|(open, _)| *open == number).map(|(_, state)| state);
            let Some(inner) = &joiner.inner else {
                let of = |name: &Option<FieldName>| {
                    let field =
                        record.envelope.iter().find(|field| name.as_ref().is_some_and(|name| name.is(&field.name)));
                    field.and_then(|field| text(&field.value, arena))
                };
                let pattern = of(&joiner.key_pattern).unwrap_or(line);
                match joiner.judge(line, pattern, state) {
                    Verdict::NotMine => continue,
                    verdict => {
                        return Some(Looked { verdict, joiner: number, content: joiner.part(line, verdict), place });
                    }
                }
            };
            let parser = match inner {
                Inner::Own(parser) => Some(&**parser),
                Inner::Named(place) => parsers.get(*place),
            };
            let mut fields = std::mem::take(&mut record.parsed);
            let parsed = parser.and_then(|parser| parser.parse(line, arena, now_ns, &mut fields, groups));
            let of = |name: &FieldName| {
                let place = fields.iter().position(|field| name.is(&field.name))?;
                Some((place, text(&fields.get(place)?.value, arena)?))
            };
            let content = parsed.is_some().then(|| of(joiner.key_content.as_ref().unwrap_or(&self.key))).flatten();
            let looked = content.and_then(|(place, content)| {
                let pattern = joiner.key_pattern.as_ref().and_then(of).map_or(content, |(_, pattern)| pattern);
                let verdict = joiner.judge(content, pattern, state);
                (verdict != Verdict::NotMine).then_some(Looked { verdict, joiner: number, content, place })
            });
            if looked.is_some() {
                std::mem::swap(&mut record.envelope, &mut fields);
                if let Some(time) = parsed.and_then(|parsed| parsed.time_ns) {
                    record.time_ns = time;
                }
                super::find_log(record, arena);
            }
            fields.clear();
            record.parsed = fields;
            if looked.is_some() {
                return looked;
            }
        }
        None
    }

    /// What tells records of one connection and tag apart that interleave.
    pub(super) fn stream<'a>(&self, joiners: &[Joiner], record: &Record<'a>, arena: &'a Arena) -> &'a [u8] {
        let source = |field: &&Field<'a>| field.name == Name::Known(Key::Source);
        let group = self.joiners.iter().find_map(|number| joiners.get(*number)?.key_group.as_ref());
        let own = group.and_then(|group| record.envelope.iter().find(|field| group.is(&field.name)));
        let field = own.or_else(|| record.envelope.iter().find(source));
        let is_envoys =
            |number: &usize| joiners.get(*number).is_some_and(|joiner| matches!(joiner.kind, Joining::Envoy));
        if field.is_none() && self.joiners.iter().any(is_envoys) {
            let line = record.envelope.iter().find(|field| self.key.is(&field.name));
            return line.and_then(|line| envoy::stream(text(&line.value, arena)?)).unwrap_or_default();
        }
        field.and_then(|field| text(&field.value, arena)).unwrap_or_default()
    }
}

/// The configuration that joins Envoy's own log, for all tags.
pub fn of_envoy() -> super::FilterConfig {
    let config = Config {
        key_content: Key::Log.name().to_owned(),
        parser: vec![builtin::ENVOY.to_owned()],
        flush_ms: FLUSH_MS_DEFAULT,
        is_partial_mode: false,
    };
    super::FilterConfig { tags: super::Tags::Wildcard("*".into()), kind: super::Kind::Multiline(config) }
}

/// The multiline parsers that need no table, with their names.
pub(super) fn builtins() -> Vec<(&'static str, Joiner)> {
    builtin::NAMES.into_iter().map(|name| (name, builtin::joiner(name))).collect()
}

/// What has become of a value that was kept.
fn is_kept(value: &Value<'_>) -> bool {
    !matches!(value, Value::Scratch(_) | Value::ScratchJson(_))
}

#[cfg(test)]
mod tests;
