//! `nest`: puts fields into a map of their own, or lifts the members of a map up to the record.
//!
//! What is nested stands at the end of the record, as a JSON value made in the arena. What is lifted stands at the end as well and borrows
//! from the map it came from; a value that is no map stays. Prefixes are put before, or taken off, the names of what moves.

use super::field_name::FieldName;
use super::members::{is_map, members, name_text};
use super::{Arena, Faults};
use crate::encode::write_value;
use crate::record::json::escape;
use crate::record::{Field, Name, Record, Value};

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// Fields into a map.
    #[default]
    Nest,
    /// A map's members into the record.
    Lift,
}

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What is done; it must be said.
    pub operation: Option<Operation>,
    /// Which fields are nested: names, or starts of names with `*` behind.
    pub wildcard: Vec<String>,
    /// Name of the map that is made.
    pub nest_under: Option<String>,
    /// Name of the map that is lifted.
    pub nested_under: Option<String>,
    /// Put before names.
    pub add_prefix: Option<String>,
    /// Taken off names that begin so.
    pub remove_prefix: Option<String>,
}

#[derive(Debug)]
pub(super) struct Nest {
    operation: Operation,
    under: FieldName,
    wildcards: Box<[(Box<[u8]>, bool)]>,
    prefix: Prefix,
}

#[derive(Debug)]
enum Prefix {
    None,
    Add(Box<[u8]>),
    Remove(Box<[u8]>),
}

impl Nest {
    pub(super) fn new(config: &Config, faults: &mut Faults<'_>) -> Self {
        if config.operation.is_none() {
            faults.add("operation", None, "must be \"nest\" or \"lift\"");
        }
        let operation = config.operation.unwrap_or_default();
        // Fluent Bit takes either name for either operation.
        let under = config.nest_under.as_deref().or(config.nested_under.as_deref());
        match (operation, under) {
            (Operation::Nest, None) => faults.add("nest_under", None, "must name the map to nest fields in"),
            (Operation::Lift, None) => faults.add("nested_under", None, "must name the map to lift"),
            _ => {}
        }
        if operation == Operation::Nest && config.wildcard.is_empty() {
            faults.add("wildcard", None, "must list the fields to nest: names, or the start of names and a `*`");
        }
        let prefix = match (&config.add_prefix, &config.remove_prefix) {
            (Some(_), Some(_)) => {
                faults.add("remove_prefix", None, "must not be set beside `add_prefix`");
                Prefix::None
            }
            (Some(prefix), None) => Prefix::Add(prefix.as_bytes().into()),
            (None, Some(prefix)) => Prefix::Remove(prefix.as_bytes().into()),
            (None, None) => Prefix::None,
        };
        let wildcard = |text: &String| match text.strip_suffix('*') {
            Some(prefix) => (prefix.as_bytes().into(), true),
            None => (text.as_bytes().into(), false),
        };
        Self {
            operation,
            under: FieldName::new(under.unwrap_or_default()),
            wildcards: config.wildcard.iter().map(wildcard).collect(),
            prefix,
        }
    }

    pub(super) fn apply<'a>(&'a self, record: &mut Record<'a>, arena: &'a Arena) {
        match self.operation {
            Operation::Nest => self.nest(record, arena),
            Operation::Lift => self.lift(record, arena),
        }
    }

    fn nests(&self, name: &[u8]) -> bool {
        self.wildcards.iter().any(|(text, is_prefix)| if *is_prefix { name.starts_with(text) } else { name == &**text })
    }

    fn nest<'a>(&'a self, record: &mut Record<'a>, arena: &'a Arena) {
        let mut json = vec![b'{'];
        for field in &record.envelope {
            let name = name_text(&field.name, arena);
            if self.nests(name) {
                if json.len() > 1 {
                    json.push(b',');
                }
                json.push(b'"');
                escape(self.renamed(name, arena), &mut json);
                json.extend_from_slice(b"\":");
                write_value(record, &field.value, &mut json);
            }
        }
        if json.len() == 1 {
            return;
        }
        json.push(b'}');
        record.envelope.retain(|field| !self.nests(name_text(&field.name, arena)));
        let value = Value::JsonValue(arena.alloc_slice_copy(&json));
        record.envelope.push(Field { name: self.under.name(), value });
        super::find_log(record, arena);
    }

    fn lift<'a>(&'a self, record: &mut Record<'a>, arena: &'a Arena) {
        let is_lifted = |field: &Field<'a>| self.under.is(&field.name) && is_map(&field.value);
        let mut maps = record.envelope.iter().filter(|field| is_lifted(field)).map(|field| field.value).peekable();
        if maps.peek().is_none() {
            return;
        }
        let mut lifted = Vec::new();
        let mut whole = true;
        for map in maps {
            whole &= members(&map, arena, |name, value| {
                let name = match self.prefix {
                    Prefix::None => name,
                    _ => Name::text(self.renamed(name_text(&name, arena), arena)),
                };
                lifted.push(Field { name, value });
            });
        }
        // A map that cannot be read to its end stays as it is.
        if whole {
            record.envelope.retain(|field| !is_lifted(field));
            record.envelope.extend(lifted);
            super::keep_last_of_each(record);
            super::find_log(record, arena);
        }
    }

    fn renamed<'a>(&'a self, name: &'a [u8], arena: &'a Arena) -> &'a [u8] {
        match &self.prefix {
            Prefix::None => name,
            Prefix::Add(prefix) => arena.alloc_slice_copy(&[prefix, name].concat()),
            Prefix::Remove(prefix) => name.strip_prefix(&**prefix).unwrap_or(name),
        }
    }
}
