//! `rewrite_tag`: gives records whose value matches a new tag, under which they run through the filters anew.
//!
//! The first rule that matches decides. A rule is `$KEY REGEX NEW_TAG KEEP`; what holds blanks stands in double quotes. NEW_TAG may hold
//! `$TAG`, `$TAG[n]` (between dots, from 0), `$0` to `$9` (groups of the match) and `$key['member']`. With KEEP the record goes on under its
//! old tag as well. A new tag that comes out empty, or longer than [`TAG_BYTES_MAX`], is none: the record keeps its own.

use super::accessor::{Accessor, Template};
use super::words::word;
use super::{Arena, Fault, Faults};
use crate::pattern::{Groups, Pattern};
use crate::record::Record;

/// The longest tag that is made, in bytes.
pub const TAG_BYTES_MAX: usize = 4096;

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `$KEY REGEX NEW_TAG KEEP`, in order.
    pub rule: Vec<String>,
}

#[derive(Debug)]
pub(super) struct RewriteTag {
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    accessor: Accessor,
    pattern: Pattern,
    tag: Template,
    keep: bool,
}

/// What becomes of a record.
#[derive(Debug, PartialEq)]
pub(super) struct Rewritten<'a> {
    pub(super) tag: &'a [u8],
    /// It goes on under its old tag as well.
    pub(super) keep: bool,
}

impl RewriteTag {
    pub(super) fn new(config: &Config, faults: &mut Faults<'_>) -> Self {
        let mut rules = Vec::new();
        for (place, text) in config.rule.iter().enumerate() {
            rules.extend(faults.unless("rule", Some(place), rule(text)));
        }
        if config.rule.is_empty() {
            faults.add("rule", None, "must list at least one rule \"$KEY REGEX NEW_TAG KEEP\"");
        }
        Self { rules: rules.into() }
    }

    /// The record's new tag, if a rule gives it one.
    pub(super) fn rewrite<'a>(
        &self,
        tag: &[u8],
        record: &Record<'a>,
        arena: &'a Arena,
        groups: &mut Groups,
    ) -> Option<Rewritten<'a>> {
        for rule in &self.rules {
            let Some(text) = rule.accessor.find_text(record, arena) else { continue };
            if !rule.pattern.captures(text, groups) {
                continue;
            }
            let mut new_tag = Vec::new();
            rule.tag.write(tag, record, arena, (text, groups), &mut new_tag);
            if new_tag.is_empty() || new_tag.len() > TAG_BYTES_MAX {
                return None;
            }
            return Some(Rewritten { tag: arena.alloc_slice_copy(&new_tag), keep: rule.keep });
        }
        None
    }
}

fn rule(text: &str) -> Result<Rule, Fault> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some((next, behind)) = word(rest) {
        words.push(next);
        rest = behind;
    }
    let [key, source, tag, keep] = words.as_slice() else {
        return Err(Fault("must be \"$KEY REGEX NEW_TAG KEEP\"; what holds blanks stands in double quotes".into()));
    };
    let keep = match keep.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => true,
        "false" | "off" | "no" => false,
        _ => return Err(Fault("must end in true or false: whether the record is kept under its old tag too".into())),
    };
    Ok(Rule {
        accessor: if key.starts_with('$') { Accessor::parse(key)? } else { Accessor::key(key) },
        pattern: Pattern::new(source).map_err(|error| Fault(format!("must hold a regular expression: {error}")))?,
        tag: Template::parse(tag)?,
        keep,
    })
}
