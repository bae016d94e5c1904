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

use crate::pattern::Pattern;
use crate::pattern::wildcard::Wildcard;
use crate::record::{Key, Name, Record, Value};

mod accessor;
mod field_name;
pub mod grep;
mod members;
pub mod record_modifier;
mod words;

use grep::Grep;
use record_modifier::RecordModifier;

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
}

/// What the filters hold of one connection between its records.
#[derive(Debug, Default)]
pub struct Pending {}

impl Pending {
    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        true
    }
}

/// The filters of one tag, in order. Valid for the [`Filters`] that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFilters(Box<[u16]>);

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
        let mut filters = Vec::new();
        for (number, filter) in config.filters.iter().enumerate() {
            let mut faults = Faults { place: Place::Filter(number), problems: &mut problems };
            if number == FILTERS_MAX {
                faults.add("", None, format!("must be one of at most {FILTERS_MAX} filters"));
                break;
            }
            filters.push(Filter {
                tags: TagTest::new(&filter.tags, &mut faults),
                action: match &filter.kind {
                    Kind::Grep(config) => Action::Grep(Grep::new(config, &mut faults)),
                    Kind::RecordModifier(config) => Action::RecordModifier(RecordModifier::new(config, &mut faults)),
                },
            });
        }
        match problems.is_empty() {
            true => Ok(Self { filters: filters.into() }),
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
        let _ = (pending, now_ns);
        for number in &filters.0 {
            let Some(filter) = self.filters.get(usize::from(*number)) else { continue };
            match &filter.action {
                Action::Grep(grep) => {
                    if !grep.keeps(record, arena) {
                        return out.lose(Lost::Grep);
                    }
                }
                Action::RecordModifier(modifier) => {
                    if !modifier.apply(record, arena) {
                        return out.lose(Lost::Grep);
                    }
                }
            }
        }
        out.pass(tag, record);
    }

    /// Passes on what `multiline` holds back: what is due by `now_ns`, or all of it (none), at the end of a connection.
    pub fn flush<'a>(&'a self, arena: &'a Arena, pending: &mut Pending, now_ns: Option<i64>, out: &mut impl Out<'a>) {
        let _ = (arena, pending, now_ns, out);
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
