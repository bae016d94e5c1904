//! `grep`: keeps or leaves out records by what a value matches.
//!
//! A value that is missing, or no text, matches nothing. In `legacy` mode rules are tried in order, and the first that decides ends the
//! search: an `exclude` that matches leaves the record out, and the first `regex` keeps it if it matches and leaves it out if not, so that
//! what stands behind it is never reached, as in Fluent Bit. With `and` or `or` all rules are of one kind, and all of them, or any, must match.

use super::accessor::Accessor;
use super::words::key_and_rest;
use super::{Arena, Fault, Faults};
use crate::pattern::Pattern;
use crate::record::Record;

/// How the rules come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogicalOp {
    /// In order, the first that decides.
    #[default]
    Legacy,
    /// All must match.
    And,
    /// One must match.
    Or,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What does not match is left out.
    Regex,
    /// What matches is left out.
    Exclude,
}

impl Action {
    /// The key of the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Regex => "regex",
            Self::Exclude => "exclude",
        }
    }
}

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Rules in order.
    pub rules: Vec<Rule>,
    /// How they come together.
    pub logical_op: LogicalOp,
}

/// A rule as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The key it stands at, if that is not the action's own.
    pub key: Option<&'static str>,
    /// The place in that key's list, from 0.
    pub place: usize,
    /// `KEY PATTERN`
    pub text: String,
}

#[derive(Debug)]
pub(super) struct Grep {
    rules: Box<[Compiled]>,
    logical_op: LogicalOp,
}

#[derive(Debug)]
struct Compiled {
    action: Action,
    accessor: Accessor,
    pattern: Pattern,
}

impl Grep {
    pub(super) fn new(config: &Config, faults: &mut Faults<'_>) -> Self {
        let mut rules = Vec::new();
        let first = config.rules.first().map(|rule| rule.action);
        for rule in &config.rules {
            let key = rule.key.unwrap_or(rule.action.key());
            rules.extend(faults.unless(key, Some(rule.place), compile(rule.action, &rule.text)));
            if config.logical_op != LogicalOp::Legacy && Some(rule.action) != first {
                faults.add("logical_op", None, "must be \"legacy\" where both `regex` and `exclude` are set");
            }
        }
        if config.rules.is_empty() {
            faults.add("regex", None, "must be set, or `exclude`: a list of texts \"KEY PATTERN\"");
        }
        Self { rules: rules.into(), logical_op: config.logical_op }
    }

    pub(super) fn keeps<'a>(&self, record: &Record<'a>, arena: &'a Arena) -> bool {
        let matches = |rule: &Compiled| match rule.accessor.find_text(record, arena) {
            Some(text) => rule.pattern.is_match(text),
            None => false,
        };
        if self.logical_op != LogicalOp::Legacy {
            let found = match self.logical_op {
                LogicalOp::Or => self.rules.iter().any(matches),
                _ => self.rules.iter().all(matches),
            };
            return found == self.rules.first().is_none_or(|rule| rule.action == Action::Regex);
        }
        for rule in &self.rules {
            match (rule.action, matches(rule)) {
                (Action::Regex, found) => return found,
                (Action::Exclude, true) => return false,
                (Action::Exclude, false) => {}
            }
        }
        true
    }
}

fn compile(action: Action, text: &str) -> Result<Compiled, Fault> {
    let (key, pattern) = key_and_rest(text)
        .ok_or_else(|| Fault("must be \"KEY PATTERN\": a key, a blank, a regular expression".into()))?;
    let accessor = Accessor::parse(key)?;
    let pattern = Pattern::new(pattern).map_err(|error| Fault(format!("must hold a regular expression: {error}")))?;
    Ok(Compiled { action, accessor, pattern })
}
