//! `record_modifier`: appends fields with fixed values, takes fields away by name.
//!
//! Names are compared without regard to the case of ASCII letters; a `*` at the end of a name makes it a prefix, as in Fluent Bit. What
//! is appended stands behind what was there and takes the place of a field of that name. A record that is left without any field is lost.

use super::field_name::FieldName;
use super::words::key_and_value;
use super::{Arena, Fault, Faults};
use crate::record::{Field, Record, Value};

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `KEY VALUE`
    pub record: Vec<String>,
    /// Names to take away.
    pub remove_key: Vec<String>,
    /// Names to leave; all others are taken away.
    pub allowlist_key: Vec<String>,
    /// Name of a field with a random UUID.
    pub uuid_key: Option<String>,
}

#[derive(Debug)]
pub(super) struct RecordModifier {
    record: Box<[(FieldName, Box<[u8]>)]>,
    names: Box<[NamePattern]>,
    /// Whether `names` are those to take away.
    removes: bool,
    uuid_key: Option<FieldName>,
}

#[derive(Debug)]
struct NamePattern {
    name: Box<[u8]>,
    is_prefix: bool,
}

impl NamePattern {
    fn new(text: &str) -> Self {
        let prefix = text.strip_suffix('*');
        Self { name: prefix.unwrap_or(text).as_bytes().into(), is_prefix: prefix.is_some() }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self.is_prefix {
            true => name.get(..self.name.len()).is_some_and(|front| front.eq_ignore_ascii_case(&self.name)),
            false => name.eq_ignore_ascii_case(&self.name),
        }
    }
}

impl RecordModifier {
    pub(super) fn new(config: &Config, faults: &mut Faults<'_>) -> Self {
        let mut record = Vec::new();
        for (place, text) in config.record.iter().enumerate() {
            let pair = key_and_value(text).ok_or_else(|| {
                Fault("must be \"KEY VALUE\"; a value with blanks at its ends stands in double quotes".into())
            });
            let pair = faults.unless("record", Some(place), pair);
            record.extend(pair.map(|(key, value)| (FieldName::new(&key), value.into_bytes().into())));
        }
        let removes = config.allowlist_key.is_empty();
        if !removes && !config.remove_key.is_empty() {
            faults.add("allowlist_key", None, "must not be set beside `remove_key`");
        }
        for (key, list) in [("remove_key", &config.remove_key), ("allowlist_key", &config.allowlist_key)] {
            for (place, _) in list.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                faults.add(key, Some(place), "must be the name of a field, or the start of names and a `*`");
            }
        }
        let names = if removes { &config.remove_key } else { &config.allowlist_key };
        Self {
            record: record.into(),
            names: names.iter().map(|name| NamePattern::new(name)).collect(),
            removes,
            uuid_key: config.uuid_key.as_deref().map(FieldName::new),
        }
    }

    /// False if nothing is left of the record.
    pub(super) fn apply<'a>(&'a self, record: &mut Record<'a>, arena: &'a Arena) -> bool {
        if !self.names.is_empty() {
            let stays = |field: &Field<'a>| {
                let name = super::members::name_text(&field.name, arena);
                self.names.iter().any(|pattern| pattern.matches(name)) != self.removes
            };
            // Nothing would be left: Fluent Bit then leaves the record as it was.
            if !self.record.is_empty() || record.envelope.iter().any(stays) {
                record.envelope.retain(stays);
                super::find_log(record, arena);
            }
        }
        // In JSON Fluent Bit writes the last of a name only.
        let is_replaced = |field: &Field<'a>| self.record.iter().any(|(name, _)| name.is(&field.name));
        if record.envelope.iter().any(is_replaced) {
            record.envelope.retain(|field| !is_replaced(field));
            super::find_log(record, arena);
        }
        let fixed = self.record.iter().map(|(name, value)| Field { name: name.name(), value: Value::Text(value) });
        record.envelope.extend(fixed);
        if let Some(name) = &self.uuid_key {
            let uuid = Value::Text(arena.alloc(uuid()));
            record.envelope.push(Field { name: name.name(), value: uuid });
        }
        if record.log.is_none() && !self.record.is_empty() {
            super::find_log(record, arena);
        }
        !record.envelope.is_empty()
    }
}

/// A random UUID of version 4.
fn uuid() -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let number = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    let mut digits = (0..32_u32).map(|digit| HEX[(number >> (124 - 4 * digit)) as usize & 15]);
    for (place, byte) in text.iter_mut().enumerate() {
        if !matches!(place, 8 | 13 | 18 | 23) {
            *byte = digits.next().unwrap_or(b'0');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_version_and_variant() {
        for _ in 0..100 {
            let uuid = String::from_utf8(uuid().to_vec()).unwrap();
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
            assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        }
    }
}
