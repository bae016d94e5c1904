//! `modify`: sets, adds, removes, renames, copies and moves fields, where all conditions hold.
//!
//! Rules run in order, each on what the one before it left. As in Fluent Bit, `rename` and `copy` do nothing if their key is missing or
//! stands more than once, or the target is there; the `hard_` ones take the target's place. `remove_wildcard` and `move_to_…` take the start
//! of names, without a `*`. A record that is left without fields passes.

use super::accessor::Accessor;
use super::field_name::FieldName;
use super::members::{name_text, text};
use super::words::words;
use super::{Arena, Fault, Faults};
use crate::pattern::Pattern;
use crate::record::{Field, Record, Value};

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `OPERATION KEY [VALUE]`, in order.
    pub rule: Vec<String>,
    /// `CONDITION KEY [VALUE]`; all must hold.
    pub condition: Vec<String>,
}

/// The operations of `rule`, with how many words follow.
const OPERATIONS: [(&str, usize); 12] = [
    ("set", 2),
    ("add", 2),
    ("add_if_not_present", 2),
    ("remove", 1),
    ("remove_wildcard", 1),
    ("remove_regex", 1),
    ("rename", 2),
    ("hard_rename", 2),
    ("copy", 2),
    ("hard_copy", 2),
    ("move_to_start", 1),
    ("move_to_end", 1),
];

#[derive(Debug)]
pub(super) struct Modify {
    conditions: Box<[Condition]>,
    rules: Box<[Rule]>,
}

#[derive(Debug)]
enum Rule {
    Set(FieldName, Box<[u8]>),
    Add(FieldName, Box<[u8]>),
    Remove(FieldName),
    RemovePrefix(Box<[u8]>),
    RemoveRegex(Pattern),
    Rename { from: FieldName, to: FieldName, hard: bool },
    Copy { from: FieldName, to: FieldName, hard: bool },
    MoveToStart(Box<[u8]>),
    MoveToEnd(Box<[u8]>),
}

#[derive(Debug)]
enum Condition {
    KeyExists { accessor: Accessor, wanted: bool },
    AKeyMatches { pattern: Pattern, wanted: bool },
    ValueEquals { accessor: Accessor, value: Box<[u8]>, wanted: bool },
    ValueMatches { accessor: Accessor, pattern: Pattern, wanted: bool },
    MatchingKeys { keys: Pattern, values: Pattern, wanted: bool },
}

impl Modify {
    pub(super) fn new(config: &Config, faults: &mut Faults<'_>) -> Self {
        let mut rules = Vec::new();
        for (place, text) in config.rule.iter().enumerate() {
            rules.extend(faults.unless("rule", Some(place), rule(text)));
        }
        let mut conditions = Vec::new();
        for (place, text) in config.condition.iter().enumerate() {
            conditions.extend(faults.unless("condition", Some(place), condition(text)));
        }
        if config.rule.is_empty() {
            faults.add("rule", None, "must list at least one operation, such as \"rename FROM TO\"");
        }
        Self { conditions: conditions.into(), rules: rules.into() }
    }

    pub(super) fn apply<'a>(&'a self, record: &mut Record<'a>, arena: &'a Arena) {
        if !self.conditions.iter().all(|condition| condition.holds(record, arena)) {
            return;
        }
        for rule in &self.rules {
            rule.apply(&mut record.envelope, arena);
        }
        super::find_log(record, arena);
    }
}

impl Rule {
    fn apply<'a>(&'a self, fields: &mut Vec<Field<'a>>, arena: &'a Arena) {
        let count = |fields: &[Field<'a>], name: &FieldName| fields.iter().filter(|field| name.is(&field.name)).count();
        match self {
            Self::Set(name, value) => {
                fields.retain(|field| !name.is(&field.name));
                fields.push(Field { name: name.name(), value: Value::Text(value) });
            }
            Self::Add(name, value) => {
                if count(fields, name) == 0 {
                    fields.push(Field { name: name.name(), value: Value::Text(value) });
                }
            }
            Self::Remove(name) => fields.retain(|field| !name.is(&field.name)),
            Self::RemovePrefix(prefix) => fields.retain(|field| !name_text(&field.name, arena).starts_with(prefix)),
            Self::RemoveRegex(pattern) => fields.retain(|field| !pattern.is_match(name_text(&field.name, arena))),
            Self::Rename { from, to, hard } => {
                let (sources, targets) = (count(fields, from), count(fields, to));
                let applies = if *hard { sources > 0 } else { sources == 1 && targets == 0 };
                if applies {
                    // With the same name on both sides it is its own target, and goes.
                    fields.retain(|field| !to.is(&field.name));
                    for field in fields.iter_mut().filter(|field| from.is(&field.name)) {
                        field.name = to.name();
                    }
                }
            }
            Self::Copy { from, to, hard } => {
                let (sources, targets) = (count(fields, from), count(fields, to));
                if sources != 1 || targets > usize::from(*hard) {
                    return;
                }
                fields.retain(|field| !to.is(&field.name));
                if let Some(place) = fields.iter().position(|field| from.is(&field.name)) {
                    let value = fields[place].value;
                    fields.insert(place + 1, Field { name: to.name(), value });
                }
            }
            Self::MoveToStart(prefix) => {
                fields.sort_by_key(|field| !name_text(&field.name, arena).starts_with(prefix));
            }
            Self::MoveToEnd(prefix) => {
                fields.sort_by_key(|field| name_text(&field.name, arena).starts_with(prefix));
            }
        }
    }
}

impl Condition {
    fn holds<'a>(&self, record: &Record<'a>, arena: &'a Arena) -> bool {
        match self {
            Self::KeyExists { accessor, wanted } => accessor.find(record).is_some() == *wanted,
            Self::AKeyMatches { pattern, wanted } => {
                record.envelope.iter().any(|field| pattern.is_match(name_text(&field.name, arena))) == *wanted
            }
            Self::ValueEquals { accessor, value, wanted } => match accessor.find(record) {
                Some(found) => text(&found, arena).is_some_and(|text| *text == **value) == *wanted,
                None => false,
            },
            Self::ValueMatches { accessor, pattern, wanted } => match accessor.find(record) {
                Some(found) => matches(pattern, &found, arena) == *wanted,
                None => false,
            },
            Self::MatchingKeys { keys, values, wanted } => {
                let all = record
                    .envelope
                    .iter()
                    .filter(|field| keys.is_match(name_text(&field.name, arena)))
                    .all(|field| matches(values, &field.value, arena));
                all == *wanted
            }
        }
    }
}

/// Texts and truth values can match, nothing else.
fn matches<'a>(pattern: &Pattern, value: &Value<'a>, arena: &'a Arena) -> bool {
    match value {
        Value::Bool(true) => pattern.is_match(b"true"),
        Value::Bool(false) => pattern.is_match(b"false"),
        value => text(value, arena).is_some_and(|text| pattern.is_match(text)),
    }
}

fn pattern(source: &str) -> Result<Pattern, Fault> {
    if source.is_empty() {
        return Err(Fault("must hold a regular expression that is not empty".into()));
    }
    Pattern::new(source).map_err(|error| Fault(format!("must hold a regular expression: {error}")))
}

fn rule(text: &str) -> Result<Rule, Fault> {
    let words = words(text);
    let (operation, rest) = words.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let operation = operation.to_ascii_lowercase();
    let Some((name, count)) = OPERATIONS.into_iter().find(|(name, _)| *name == operation) else {
        let known: Vec<&str> = OPERATIONS.into_iter().map(|(name, _)| name).collect();
        return Err(Fault(format!("must begin with one of {}", known.join(", "))));
    };
    if rest.len() != count {
        let shape = if count == 1 { "KEY" } else { "KEY VALUE" };
        return Err(Fault(format!("must be \"{name} {shape}\"; what holds blanks stands in quotes")));
    }
    let key = rest.first().map_or("", String::as_str);
    let value = rest.get(1).map_or("", String::as_str);
    let bytes = |text: &str| text.as_bytes().into();
    let names = || (FieldName::new(key), FieldName::new(value));
    Ok(match name {
        "set" => Rule::Set(FieldName::new(key), bytes(value)),
        "add" | "add_if_not_present" => Rule::Add(FieldName::new(key), bytes(value)),
        "remove" => Rule::Remove(FieldName::new(key)),
        "remove_wildcard" => Rule::RemovePrefix(bytes(key)),
        "remove_regex" => Rule::RemoveRegex(pattern(key)?),
        "rename" | "hard_rename" => {
            let (from, to) = names();
            Rule::Rename { from, to, hard: name == "hard_rename" }
        }
        "copy" | "hard_copy" => {
            let (from, to) = names();
            Rule::Copy { from, to, hard: name == "hard_copy" }
        }
        "move_to_start" => Rule::MoveToStart(bytes(key)),
        _ => Rule::MoveToEnd(bytes(key)),
    })
}

fn condition(text: &str) -> Result<Condition, Fault> {
    const KNOWN: &str = "must begin with key_exists, key_does_not_exist, a_key_matches, no_key_matches, key_value_equals, \
        key_value_does_not_equal, key_value_matches, key_value_does_not_match, matching_keys_have_matching_values or \
        matching_keys_do_not_have_matching_values, and a key";
    let words = words(text);
    let [name, key, rest @ ..] = words.as_slice() else { return Err(Fault(KNOWN.into())) };
    let accessor = |key: &str| if key.starts_with('$') { Accessor::parse(key) } else { Ok(Accessor::key(key)) };
    let value = || match rest {
        [value] => Ok(value.as_str()),
        _ => Err(Fault(format!("must be \"{name} KEY VALUE\"; what holds blanks stands in quotes"))),
    };
    Ok(match name.to_ascii_lowercase().as_str() {
        "key_exists" => Condition::KeyExists { accessor: accessor(key)?, wanted: true },
        "key_does_not_exist" => Condition::KeyExists { accessor: accessor(key)?, wanted: false },
        "a_key_matches" => Condition::AKeyMatches { pattern: pattern(key)?, wanted: true },
        "no_key_matches" => Condition::AKeyMatches { pattern: pattern(key)?, wanted: false },
        name @ ("key_value_equals" | "key_value_does_not_equal") => Condition::ValueEquals {
            accessor: accessor(key)?,
            value: value()?.as_bytes().into(),
            wanted: name == "key_value_equals",
        },
        name @ ("key_value_matches" | "key_value_does_not_match") => Condition::ValueMatches {
            accessor: accessor(key)?,
            pattern: pattern(value()?)?,
            wanted: name == "key_value_matches",
        },
        name @ ("matching_keys_have_matching_values" | "matching_keys_do_not_have_matching_values") => {
            Condition::MatchingKeys {
                keys: pattern(key)?,
                values: pattern(value()?)?,
                wanted: name == "matching_keys_have_matching_values",
            }
        }
        _ => return Err(Fault(KNOWN.into())),
    })
}
