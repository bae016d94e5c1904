//! Routing: ordered rules on tag, log type and fields, compiled once into tests that yield a set of sinks.
//!
//! Called by the process stage, after redaction: once a tag for [`Router::for_tag`], once a record for
//! [`Router::decide`]. Everything that a tag and a record's kind already decide is decided in the [`TagView`]:
//! which rules can still match, whether one of them ends the search, where the rest goes. What is left for a record
//! is to look up the fields that the remaining rules name. Cost: some nanoseconds a field looked up, 30 ns for a
//! sample; no allocation, except to resolve the escapes of a JSON text that has some and is compared.
//!
//! # What a rule does
//!
//! Rules are tried in order. A rule *matches* if all its conditions hold; the first that matches ends the search,
//! unless it says `and_continue`. The last rule's `otherwise` is the other branch of that rule alone: it adds its
//! sinks to those of earlier rules that said `and_continue`. A record with no sink at the end is filtered:
//! [`Reason::Sampled`] where a rule's sample left it out, [`Reason::Rule`] where a rule without sinks, or none,
//! matched.
//!
//! # What a value is to a test
//!
//! A text is its characters, with JSON escapes resolved. A number or truth value is compared as JSON spells it, and
//! numbers by value as well: `200` is one of `"200"`, `"200.0"`, `"2e2"`. Ranges take numbers, and texts that spell
//! one. Objects and arrays are there, but have no text: they pass [`Test::Not`] only. `log_type` is what the record
//! was recognised as, and else its own field of that name; `tag` is the tag, never a field.

use crate::journal::block::{SINKS_MAX, SinkSet};
use crate::record::{Key, Kind, Record};
use crate::telemetry::account::Reason;

mod operand;
mod sample;
#[cfg(test)]
mod tests;
mod text;

use operand::{Matcher, Operand};

/// The greatest number of rules in one configuration.
pub const RULES_MAX: usize = 1024;

/// A condition on one field, tag or log type.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// `tag`, `log_type`, or the name of a record field.
    pub field: String,
    /// What it must be.
    pub test: Test,
}

/// What a field must be. A field that is absent or null fails every test but [`Test::Absent`].
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// One of these texts or numbers, exactly.
    OneOf(Vec<String>),
    /// A number within these bounds (each with whether the bound itself belongs).
    Range {
        /// Lower bound; `true` = inclusive.
        low: Option<(f64, bool)>,
        /// Upper bound; `true` = inclusive.
        high: Option<(f64, bool)>,
    },
    /// Starts with.
    Prefix(String),
    /// Matches this glob (`*` any run of characters, `?` one).
    Glob(String),
    /// Matches this wildcard of Fluent Bit (`*` any run of bytes, all else itself).
    Wildcard(String),
    /// Holds a match of this regular expression, see [`Pattern::rust`](crate::pattern::Pattern::rust).
    Regex(String),
    /// The field is not there, or null.
    Absent,
    /// The inner test fails (a field that is absent passes).
    Not(Box<Test>),
}

/// What a rule does with what it matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// All must hold; none = everything matches.
    pub when: Vec<Condition>,
    /// Sinks by number; empty = leave the record out (filtered).
    pub to: Vec<usize>,
    /// Keep only this part of the matches, 0.0 to 1.0, by a hash of `request_id`; the rest is filtered.
    pub sample: Option<f64>,
    /// Go on with the next rule after a match, adding its sinks.
    pub and_continue: bool,
    /// Where what does not match goes; ends the evaluation. Only on the last rule.
    pub otherwise: Option<Vec<usize>>,
}

/// Ordered rules. Without any rule every record goes to every sink.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// The first that matches decides, unless it says to go on.
    pub rules: Vec<Rule>,
}

/// What is wrong with a routing configuration; everything at once.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct RouteError {
    /// In the order of the rules.
    pub problems: Vec<Problem>,
}

/// One thing wrong with a rule.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("rule {rule}, {field}: {fault}")]
pub struct Problem {
    /// Number of the rule, from 1.
    pub rule: usize,
    /// The condition's field, or the rule's key (`to`, `sample`, `else`).
    pub field: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a rule.
#[derive(Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Fault {
    #[error("more than {RULES_MAX} rules")]
    TooManyRules,
    #[error("a condition names no field")]
    NoField,
    #[error("`{pattern}` is not a glob: {reason}")]
    Glob { pattern: String, reason: String },
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Regex { pattern: String, reason: String },
    #[error("a list of values without any matches nothing")]
    NoValues,
    #[error("a range needs a bound, bounds must be numbers, and no number may be both {0}")]
    Range(String),
    #[error("{found} must be between 0 and 1")]
    Sample { found: f64 },
    #[error("there is no sink {sink}, only {sinks}")]
    NoSuchSink { sink: usize, sinks: usize },
    #[error("only the last rule may say where the rest goes")]
    ElseBeforeTheLast,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To these sinks; never empty.
    To(SinkSet),
    /// Nowhere: [`Reason::Rule`] or [`Reason::Sampled`].
    Filtered(Reason),
}

/// Compiled rules.
#[derive(Debug)]
pub struct Router {
    rules: Box<[Compiled]>,
    /// Every sink: where records go without rules.
    all: SinkSet,
}

/// What the rules come to for one tag. Valid for the router that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagView {
    access: Plan,
    envoy: Plan,
    /// Not recognised, no `log_type` of its own.
    plain: Plan,
    /// Not recognised, a `log_type` of its own: those conditions are left for each record.
    typed: Plan,
}

/// What the rules come to for one tag and one kind of record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Rules that may match, in order, up to the first that must and ends the search.
    rules: Box<[u16]>,
    /// Where what comes to the end of them goes: the `otherwise` of a rule that cannot match.
    rest: Option<SinkSet>,
}

#[derive(Debug)]
struct Compiled {
    tags: Box<[Matcher]>,
    log_types: Box<[Matcher]>,
    fields: Box<[(Lookup, Matcher)]>,
    to: SinkSet,
    sample: Option<sample::Threshold>,
    and_continue: bool,
    otherwise: Option<SinkSet>,
}

#[derive(Debug)]
enum Lookup {
    Known(Key),
    Named(Box<[u8]>),
}

impl Router {
    /// Compiles the rules for that many sinks.
    ///
    /// # Errors
    /// All problems at once: patterns that do not compile, numbers out of range, an `else` before the last rule.
    pub fn new(config: &Config, sinks: usize) -> Result<Self, RouteError> {
        let sinks = sinks.min(SINKS_MAX);
        let mut problems = Vec::new();
        if config.rules.len() > RULES_MAX {
            problems.push(Problem { rule: RULES_MAX + 1, field: "route".into(), fault: Fault::TooManyRules });
        }
        let last = config.rules.len();
        let rules: Box<[_]> = config
            .rules
            .iter()
            .take(RULES_MAX)
            .zip(1..)
            .map(|(rule, number)| {
                let mut report =
                    |field: &str, fault| problems.push(Problem { rule: number, field: field.to_owned(), fault });
                if number < last && rule.otherwise.is_some() {
                    report("else", Fault::ElseBeforeTheLast);
                }
                compile(rule, sinks, &mut report)
            })
            .collect();
        match problems.is_empty() {
            true => Ok(Self { rules, all: SinkSet::MAX.checked_shr((SINKS_MAX - sinks) as u32).unwrap_or(0) }),
            false => Err(RouteError { problems }),
        }
    }

    /// What the rules come to for the records of one tag; to be kept as long as the tag stays.
    pub fn for_tag(&self, tag: &[u8]) -> TagView {
        let tag = Operand::Text(tag);
        let of = |kind: Kind| {
            let log_type = kind.log_type().map_or(Operand::Absent, |name| Operand::Text(name.as_bytes()));
            self.plan(&tag, Some(&log_type))
        };
        TagView {
            access: of(Kind::Access),
            envoy: of(Kind::Envoy),
            plain: of(Kind::Other),
            typed: self.plan(&tag, None),
        }
    }

    /// Where a record goes, given what is known by its tag.
    pub fn decide(&self, view: &TagView, record: &Record<'_>) -> Decision {
        if self.rules.is_empty() {
            return decision(self.all, Reason::Rule);
        }
        let (plan, own_type) = match record.kind {
            Kind::Access => (&view.access, None),
            Kind::Envoy => (&view.envoy, None),
            Kind::Other => match Operand::known(record, Key::LogType) {
                Operand::Absent => (&view.plain, None),
                own => (&view.typed, Some(own)),
            },
        };
        let mut sinks = 0;
        let mut why = Reason::Rule;
        let mut sampled = sample::Sample::new(record);
        for rule in plan.rules.iter().filter_map(|number| self.rules.get(usize::from(*number))) {
            if rule.matches(record, own_type.as_ref()) {
                let kept = rule.sample.is_none_or(|threshold| sampled.is_kept(threshold));
                sinks |= if kept { rule.to } else { 0 };
                if !rule.and_continue {
                    return decision(sinks, if kept { Reason::Rule } else { Reason::Sampled });
                }
                if !kept {
                    why = Reason::Sampled;
                }
            } else if let Some(otherwise) = rule.otherwise {
                return decision(sinks | otherwise, Reason::Rule);
            }
        }
        match plan.rest {
            Some(rest) => decision(sinks | rest, Reason::Rule),
            None => decision(sinks, why),
        }
    }

    /// Where a record with that tag goes. For single records; else [`Self::for_tag`] once and [`Self::decide`] for
    /// each.
    pub fn route(&self, tag: &[u8], record: &Record<'_>) -> Decision {
        self.decide(&self.for_tag(tag), record)
    }

    /// `log_type`: what every record has; none if each has its own.
    fn plan(&self, tag: &Operand<'_>, log_type: Option<&Operand<'_>>) -> Plan {
        let mut rules = Vec::new();
        for (rule, number) in self.rules.iter().zip(0..) {
            let by_tag = rule.tags.iter().all(|test| test.matches(tag));
            let by_kind = log_type.is_none_or(|log_type| rule.log_types.iter().all(|test| test.matches(log_type)));
            if !by_tag || !by_kind {
                if rule.otherwise.is_some() {
                    return Plan { rules: rules.into(), rest: rule.otherwise };
                }
                continue;
            }
            rules.push(number);
            let always = rule.fields.is_empty() && (log_type.is_some() || rule.log_types.is_empty());
            if always && !rule.and_continue {
                break;
            }
        }
        Plan { rules: rules.into(), rest: None }
    }
}

impl Compiled {
    /// Whether the fields of a record pass, and its own log type where that was left open; the tag is known to.
    fn matches(&self, record: &Record<'_>, own_type: Option<&Operand<'_>>) -> bool {
        own_type.is_none_or(|own| self.log_types.iter().all(|test| test.matches(own)))
            && self.fields.iter().all(|(lookup, test)| {
                test.matches(&match lookup {
                    Lookup::Known(key) => Operand::known(record, *key),
                    Lookup::Named(name) => Operand::named(record, name),
                })
            })
    }
}

fn decision(sinks: SinkSet, otherwise: Reason) -> Decision {
    if sinks == 0 { Decision::Filtered(otherwise) } else { Decision::To(sinks) }
}

fn compile(rule: &Rule, sinks: usize, report: &mut impl FnMut(&str, Fault)) -> Compiled {
    let mut tags = Vec::new();
    let mut log_types = Vec::new();
    let mut fields = Vec::new();
    for condition in &rule.when {
        let name = condition.field.as_str();
        let matcher = match Matcher::new(&condition.test) {
            Ok(matcher) => matcher,
            Err(fault) => {
                report(name, fault);
                continue;
            }
        };
        match (name, Key::from_name(name.as_bytes())) {
            ("", _) => report("when", Fault::NoField),
            ("tag", _) => tags.push(matcher),
            (_, Some(Key::LogType)) => log_types.push(matcher),
            (_, Some(key)) => fields.push((Lookup::Known(key), matcher)),
            (_, None) => fields.push((Lookup::Named(name.as_bytes().into()), matcher)),
        }
    }
    let sample = rule.sample.filter(|part| {
        let valid = (0.0..=1.0).contains(part);
        if !valid {
            report("sample", Fault::Sample { found: *part });
        }
        valid
    });
    Compiled {
        tags: tags.into(),
        log_types: log_types.into(),
        fields: fields.into(),
        to: set("to", &rule.to, sinks, report),
        sample: sample.map(sample::Threshold::new),
        and_continue: rule.and_continue,
        otherwise: rule.otherwise.as_ref().map(|numbers| set("else", numbers, sinks, report)),
    }
}

fn set(field: &str, numbers: &[usize], sinks: usize, report: &mut impl FnMut(&str, Fault)) -> SinkSet {
    let mut set = 0;
    for &sink in numbers {
        if sink < sinks {
            set |= 1 << sink;
        } else {
            report(field, Fault::NoSuchSink { sink, sinks });
        }
    }
    set
}
