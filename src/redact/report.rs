//! What was redacted, counted by rule and field; never what it was.
//!
//! A pass adds to its own [`Counts`], plain numbers; they are entered into the shared [`Report`] once a block. Fields are
//! known keys by name; all others are one, so that no name a sender chose becomes a label.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::record::{KEY_COUNT, KEYS, Key};

/// Why something was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rule {
    /// A query, or parameters of it.
    Query,
    /// A fragment of a URL.
    Fragment,
    /// User information of a URL or an authority.
    Userinfo,
    /// The value of a single query parameter, in a field of its own.
    Parameter,
    /// Matrix parameters of a path.
    Matrix,
    /// A field whose name says that it is a secret.
    Secret,
    /// A header's value in running text.
    Header,
    /// A variable's value in a dump of the environment.
    Environment,
    /// An e-mail address.
    Email,
    /// A bearer token.
    Bearer,
    /// A JSON web token.
    Jwt,
    /// An access key of AWS.
    AwsKey,
    /// A card number.
    Card,
}

/// How many [`Rule`]s there are.
pub const RULES: usize = Rule::Card as usize + 1;

impl Rule {
    /// All of them.
    pub const ALL: [Self; RULES] = [
        Self::Query,
        Self::Fragment,
        Self::Userinfo,
        Self::Parameter,
        Self::Matrix,
        Self::Secret,
        Self::Header,
        Self::Environment,
        Self::Email,
        Self::Bearer,
        Self::Jwt,
        Self::AwsKey,
        Self::Card,
    ];

    /// The label in metrics and reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Fragment => "fragment",
            Self::Userinfo => "userinfo",
            Self::Parameter => "parameter",
            Self::Matrix => "matrix",
            Self::Secret => "secret",
            Self::Header => "header",
            Self::Environment => "environment",
            Self::Email => "email",
            Self::Bearer => "bearer",
            Self::Jwt => "jwt",
            Self::AwsKey => "aws_key",
            Self::Card => "card",
        }
    }
}

/// Where counts of a field stand: a known key's number, or the place of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

const PLACES: usize = KEY_COUNT + 1;

/// What all fields that are no known key count as.
const OTHER: &str = "other";

/// Fields that are shown from the start on, with 0: what a record usually holds.
const USUAL: [Key; 3] = [Key::Path, Key::Authority, Key::Log];

impl Place {
    pub const OTHER: Self = Self(KEY_COUNT);

    pub const fn of(key: Key) -> Self {
        Self(key as usize)
    }

    fn label(self) -> &'static str {
        KEYS.get(self.0).map_or(OTHER, |key| key.name())
    }

    fn is_usual(self) -> bool {
        KEYS.get(self.0).is_none_or(|key| USUAL.contains(key))
    }
}

/// Counts of one pass.
#[derive(Debug, Default)]
pub struct Counts {
    /// By rule and place; nothing until the first redaction.
    cells: Vec<u64>,
    is_dirty: bool,
}

impl Counts {
    pub(super) fn add(&mut self, rule: Rule, place: Place) {
        if !self.is_dirty {
            self.cells.resize(RULES * PLACES, 0);
            self.is_dirty = true;
        }
        if let Some(cell) = self.cells.get_mut(rule as usize * PLACES + place.0) {
            *cell += 1;
        }
    }
}

/// Counts of all passes of a process.
#[derive(Debug)]
pub struct Report {
    cells: Box<[AtomicU64]>,
}

impl Default for Report {
    fn default() -> Self {
        Self { cells: (0..RULES * PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

/// One line of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Why.
    pub rule: Rule,
    /// In which field: a known key, or `other`.
    pub field: &'static str,
    /// How often.
    pub count: u64,
}

impl Report {
    /// Adds the counts, and empties them.
    pub fn enter(&self, counts: &mut Counts) {
        if !counts.is_dirty {
            return;
        }
        for (total, count) in self.cells.iter().zip(&mut counts.cells).filter(|(_, count)| **count > 0) {
            total.fetch_add(*count, Relaxed);
            *count = 0;
        }
        counts.is_dirty = false;
    }

    /// The counts now, by rule and then field: all that are not 0, and of usual fields those as well.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let lines = Rule::ALL.into_iter().flat_map(|rule| (0..PLACES).map(move |place| (rule, Place(place))));
        lines.zip(&self.cells).filter_map(|((rule, place), cell)| {
            let count = cell.load(Relaxed);
            (count > 0 || place.is_usual()).then(|| Line { rule, field: place.label(), count })
        })
    }

    /// `query path=3 log=1, userinfo authority=1`; nothing if nothing was redacted.
    pub fn summary(&self) -> String {
        let mut summary = String::new();
        let mut last = None;
        for Line { rule, field, count } in self.lines().filter(|line| line.count > 0) {
            if last != Some(rule) {
                summary.push_str(if last.is_some() { ", " } else { "" });
                summary.push_str(rule.label());
                last = Some(rule);
            }
            summary.push_str(&format!(" {field}={count}"));
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_stands_at_its_place() {
        for (place, rule) in Rule::ALL.into_iter().enumerate() {
            assert_eq!(rule as usize, place);
        }
    }

    #[test]
    fn counts_are_entered_once() {
        let (report, mut counts) = (Report::default(), Counts::default());
        report.enter(&mut counts);
        assert_eq!(report.summary(), "");
        counts.add(Rule::Query, Place::of(Key::Path));
        counts.add(Rule::Query, Place::of(Key::Path));
        counts.add(Rule::Query, Place::OTHER);
        counts.add(Rule::Card, Place::of(Key::Source));
        report.enter(&mut counts);
        report.enter(&mut counts);
        counts.add(Rule::Query, Place::of(Key::Path));
        report.enter(&mut counts);
        assert_eq!(report.summary(), "query path=3 other=1, card source=1");
        let zeros = report.lines().filter(|line| line.count == 0);
        assert_eq!(zeros.count(), 4 * RULES - 2);
    }
}
