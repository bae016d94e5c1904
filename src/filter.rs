//! Filters with the semantics of Fluent Bit: they leave records out, change their fields, parse, join and re-tag them.
//!
//! Called by the process stage between decode and parse, so that redaction sees whatever comes out. A filter works on the borrowed record:
//! fixed texts are borrowed from the compiled [`Filters`], what has to be computed is put into an [`Arena`] that is given back with the
//! chunk, and nothing is copied that need not be. A tag that no filter matches costs one look at an empty list a record.
//!
//! # Order
//!
//! Filters run in the order of the configuration, each on what the one before it left. What `multiline` joins goes on behind it. What
//! `rewrite_tag` sends on runs through all filters of its new tag, except the `rewrite_tag`s that it has been through, at most
//! [`HOPS_MAX`] of them.
//!
//! # Every record has a fate
//!
//! [`Out`] is told of each: it comes out, or is lost with a reason. A record that is held back is told of later: when it comes out as the
//! first line of a joined one, the other lines are [`Lost::Joined`] when they are taken in.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pattern::Pattern;
use crate::pattern::wildcard::Wildcard;
use crate::record::{Key, Name, Record, Value};

mod accessor;
mod field_name;
pub mod grep;
mod members;
pub mod modify;
pub mod multiline;
pub mod nest;
pub mod parser;
pub mod record_modifier;
pub mod rewrite_tag;
#[cfg(test)]
mod tests;
mod walk;
mod words;

pub use walk::Pending;

use grep::Grep;
use modify::Modify;
use multiline::{Joiner, Multiline};
use nest::Nest;
use parser::{Parser, ParserFilter};
use record_modifier::RecordModifier;
use rewrite_tag::RewriteTag;
use walk::{Hops, Walk};

/// Memory of what filters compute, reset with each chunk.
pub type Arena = bumpalo::Bump;

/// How often one record may be re-tagged.
pub const HOPS_MAX: usize = 8;

/// Filters of one configuration.
pub const FILTERS_MAX: usize = 1024;

/// The filters, in order, and the parsers that they name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// In the order in which they run.
    pub filters: Vec<FilterConfig>,
    /// Parsers by name.
    pub parsers: Vec<(String, parser::ParserConfig)>,
    /// Multiline parsers by name; those that Fluent Bit brings along need none.
    pub multiline_parsers: Vec<(String, multiline::ParserConfig)>,
}

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterConfig {
    /// Which tags it is for.
    pub tags: Tags,
    /// What it does.
    pub kind: Kind,
}

/// Which tags a filter is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `match`: a wildcard.
    Wildcard(String),
    /// `match_regex`: a pattern that matches at the tag's start, at least one byte.
    Regex(String),
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Leaves out.
    Grep(grep::Config),
    /// Appends and takes away.
    RecordModifier(record_modifier::Config),
    /// Sets, removes, renames.
    Modify(modify::Config),
    /// Into maps and out of them.
    Nest(nest::Config),
    /// Reads what stands in a text.
    Parser(parser::Config),
    /// Joins lines.
    Multiline(multiline::Config),
    /// Gives new tags.
    RewriteTag(rewrite_tag::Config),
}

/// What is wrong with the filters; everything at once.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct FilterErrors {
    /// Filters first, in order, then parsers.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {key}: {must}")]
pub struct Problem {
    /// Of what.
    pub place: Place,
    /// The key; empty for the whole.
    pub key: &'static str,
    /// The place in the key's list, from 0.
    pub index: Option<usize>,
    /// What must be, in the words of a message.
    pub must: String,
}

/// What has a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The filter of that number, from 0.
    Filter(usize),
    /// The parser of that name.
    Parser(String),
    /// The multiline parser of that name.
    MultilineParser(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Filter(number) => write!(f, "filter {number}"),
            Self::Parser(name) => write!(f, "parser {name}"),
            Self::MultilineParser(name) => write!(f, "multiline_parser {name}"),
        }
    }
}

/// What is wrong with one value: "must …".
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault(String);

/// Collects what is wrong at one place.
struct Faults<'p> {
    place: Place,
    problems: &'p mut Vec<Problem>,
}

impl Faults<'_> {
    fn add(&mut self, key: &'static str, index: Option<usize>, must: impl Into<String>) {
        let problem = Problem { place: self.place.clone(), key, index, must: must.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The value, or none and a problem.
    fn unless<T>(&mut self, key: &'static str, index: Option<usize>, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|Fault(must)| self.add(key, index, must)).ok()
    }
}

/// Compiled filters, shared by all connections.
#[derive(Debug)]
pub struct Filters {
    filters: Box<[Filter]>,
    parsers: Box<[Parser]>,
    joiners: Box<[Joiner]>,
}

#[derive(Debug)]
struct Filter {
    tags: TagTest,
    action: Action,
}

#[derive(Debug)]
enum TagTest {
    Wildcard(Wildcard),
    Regex(Pattern),
    Never,
}

#[derive(Debug)]
enum Action {
    Grep(Grep),
    RecordModifier(RecordModifier),
    Modify(Modify),
    Nest(Nest),
    Parser(ParserFilter),
    Multiline(Multiline),
    RewriteTag(RewriteTag),
}

/// The filters of one tag, in order. Valid for the [`Filters`] that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFilters(Arc<[u16]>);

impl TagFilters {
    /// Whether records of the tag pass as they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a record did not come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A `grep` left it out, or a filter took its last field away, or `rewrite_tag` could give it no tag.
    Grep,
    /// It is part of another record now.
    Joined,
}

/// Where records go.
pub trait Out<'a> {
    /// A record that came out, with its tag.
    fn pass(&mut self, tag: &'a [u8], record: &mut Record<'a>);
    /// A record did not.
    fn lose(&mut self, why: Lost);
}

impl Filters {
    /// Compiles filters.
    ///
    /// # Errors
    /// All problems at once.
    pub fn new(config: &Config) -> Result<Self, FilterErrors> {
        let mut problems = Vec::new();
        let mut parsers = Vec::new();
        let mut parser_names = HashMap::new();
        for (name, config) in &config.parsers {
            let mut faults = Faults { place: Place::Parser(name.clone()), problems: &mut problems };
            parser_names.insert(name.as_str(), parsers.len());
            parsers.push(Parser::new(config, &mut faults));
        }
        let find_parser = |name: &str| parser_names.get(name).copied();
        let mut joiners = Vec::new();
        let mut joiner_names = HashMap::new();
        for (name, joiner) in multiline::builtins() {
            joiner_names.insert(name, joiners.len());
            joiners.push(joiner);
        }
        for (name, config) in &config.multiline_parsers {
            let mut faults = Faults { place: Place::MultilineParser(name.clone()), problems: &mut problems };
            joiner_names.insert(name.as_str(), joiners.len());
            joiners.push(Joiner::new(config, find_parser, &mut faults));
        }
        let find_joiner = |name: &str| joiner_names.get(name).copied();
        let mut filters = Vec::new();
        for (number, filter) in config.filters.iter().enumerate() {
            let mut faults = Faults { place: Place::Filter(number), problems: &mut problems };
            if number == FILTERS_MAX {
                faults.add("", None, format!("must be one of at most {FILTERS_MAX} filters"));
                break;
            }
            let tags = TagTest::new(&filter.tags, &mut faults);
            let action = match &filter.kind {
                Kind::Grep(config) => Action::Grep(Grep::new(config, &mut faults)),
                Kind::RecordModifier(config) => Action::RecordModifier(RecordModifier::new(config, &mut faults)),
                Kind::Modify(config) => Action::Modify(Modify::new(config, &mut faults)),
                Kind::Nest(config) => Action::Nest(Nest::new(config, &mut faults)),
                Kind::Parser(config) => Action::Parser(ParserFilter::new(config, find_parser, &mut faults)),
                Kind::Multiline(config) => Action::Multiline(Multiline::new(config, find_joiner, &mut faults)),
                Kind::RewriteTag(config) => Action::RewriteTag(RewriteTag::new(config, &mut faults)),
            };
            filters.push(Filter { tags, action });
        }
        match problems.is_empty() {
            true => Ok(Self { filters: filters.into(), parsers: parsers.into(), joiners: joiners.into() }),
            false => Err(FilterErrors { problems }),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Which filters a tag's records run through; to be kept as long as the tag stays.
    pub fn for_tag(&self, tag: &[u8]) -> TagFilters {
        let matching = self.filters.iter().zip(0..).filter(|(filter, _)| filter.tags.matches(tag));
        TagFilters(matching.map(|(_, number)| number).collect())
    }

    /// Runs all filters of that tag over the record, and tells `out` what becomes of it. `now_ns` is the time for timeouts, in
    /// nanoseconds since 1970 UTC. The record is not to be used after this.
    #[allow(clippy::too_many_arguments, reason = "each is a thing of its own that the caller holds")]
    pub fn run<'a>(
        &'a self,
        arena: &'a Arena,
        pending: &mut Pending,
        tag: &'a [u8],
        filters: &TagFilters,
        record: &mut Record<'a>,
        now_ns: i64,
        out: &mut impl Out<'a>,
    ) {
        let mut walk = Walk { filters: self, arena, pending, now_ns, out };
        walk.run(tag, &filters.0, Hops::default(), record);
    }

    /// Passes on what `multiline` holds back: what is due by `now_ns`, or all of it (none), at the end of a connection.
    pub fn flush<'a>(&'a self, arena: &'a Arena, pending: &mut Pending, now_ns: Option<i64>, out: &mut impl Out<'a>) {
        if !pending.is_empty() {
            Walk { filters: self, arena, pending, now_ns: now_ns.unwrap_or_default(), out }.flush(now_ns);
        }
    }
}

impl TagTest {
    fn new(tags: &Tags, faults: &mut Faults<'_>) -> Self {
        match tags {
            Tags::Wildcard(text) => Self::Wildcard(Wildcard::new(text)),
            Tags::Regex(text) => match Pattern::new(text) {
                Ok(pattern) => Self::Regex(pattern),
                Err(error) => {
                    faults.add("match_regex", None, format!("must be a regular expression: {error}"));
                    Self::Never
                }
            },
        }
    }

    fn matches(&self, tag: &[u8]) -> bool {
        match self {
            Self::Wildcard(wildcard) => wildcard.matches(tag),
            Self::Regex(pattern) => {
                let mut groups = crate::pattern::Groups::default();
                pattern.captures(tag, &mut groups)
                    && groups.get(0).is_some_and(|found| found.start == 0 && !found.is_empty())
            }
            Self::Never => false,
        }
    }
}

/// Finds the log line anew, after fields have changed. A line that came out of JSON becomes text, so that it is parsed as one.
fn find_log<'a>(record: &mut Record<'a>, arena: &'a Arena) {
    record.log = None;
    for (place, field) in record.envelope.iter_mut().enumerate() {
        if field.name != Name::Known(Key::Log) {
            continue;
        }
        if let Value::Json(inside) = field.value {
            field.value = Value::Text(members::resolved(inside, arena));
        }
        if matches!(field.value, Value::Text(_)) {
            record.log = Some(place);
            return;
        }
    }
}

/// Leaves of fields of the same name the last, as Fluent Bit does when it writes JSON.
fn keep_last_of_each(record: &mut Record<'_>) {
    let fields = &mut record.envelope;
    let mut place = 0;
    while place < fields.len() {
        let (earlier, later) = fields.split_at(place + 1);
        let name = earlier.last().map(|field| field.name);
        if name.is_some_and(|name| later.iter().any(|field| parser::same_name(&field.name, &name))) {
            fields.remove(place);
        } else {
            place += 1;
        }
    }
}
