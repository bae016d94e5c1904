//! Names for the fields of a record that has the same name twice. Rare, so it may allocate.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::names::Names;
use super::{Fragment, around_log};
use crate::record::json::unescape;
use crate::record::{Field, Key, Name, Record};

/// Every field that is written, in order, with its new name if it gets one. Tells `names` what there is.
pub(super) fn resolve<'r, 'a>(
    record: &'r Record<'a>,
    fragment: &Fragment,
    names: &mut Names,
) -> Vec<(&'r Field<'a>, Option<Vec<u8>>)> {
    let (before, log, after) = around_log(record);
    let own = before.iter().chain(log).chain(after).map(|field| said_by(record, &field.name));
    let own: HashSet<Vec<u8>> = own.map(Cow::into_owned).collect();
    let mut names_left = NamesLeft::new(record, &own);
    // The sender's come first, whatever the order in the line.
    let mut named = |fields: &'r [Field<'a>], is_own: bool| -> Vec<(&'r Field<'a>, Option<Vec<u8>>)> {
        fields.iter().map(|field| (field, names_left.take(&said_by(record, &field.name), is_own))).collect()
    };
    let mut all = named(before, true);
    all.extend(named(log, true));
    let tail = named(after, true);
    all.extend(named(&record.parsed, false));
    all.extend(tail);
    for name in &names_left.taken {
        match Key::from_name(name) {
            Some(key) => names.add(key),
            None => names.override_fragment(fragment, name),
        }
    }
    all
}

/// What a name says, as UTF-8: escapes resolved, bytes that are not UTF-8 as the characters that encode makes of them.
fn said_by<'r>(record: &'r Record<'_>, name: &Name<'_>) -> Cow<'r, [u8]> {
    let bytes = match name {
        Name::Known(key) => return Cow::Borrowed(key.name().as_bytes()),
        Name::Json(inside) => {
            let mut text = Vec::with_capacity(inside.len());
            unescape(inside, &mut text);
            return Cow::Owned(text);
        }
        Name::Text(bytes) => *bytes,
        Name::Scratch(_) => record.name_bytes(name),
    };
    match std::str::from_utf8(bytes) {
        Ok(_) => Cow::Owned(bytes.to_vec()),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes()),
    }
}

struct NamesLeft<'s> {
    /// Names the sender gave: nobody else is renamed to one of these.
    own: &'s HashSet<Vec<u8>>,
    /// Names that meshlens writes itself.
    reserved: Vec<&'static [u8]>,
    /// Names in use.
    taken: HashSet<Vec<u8>>,
    /// By name, the number that the next field of that name tries: many fields of one name stay cheap.
    numbers: HashMap<Vec<u8>, u64>,
}

impl<'s> NamesLeft<'s> {
    fn new(record: &Record<'_>, own: &'s HashSet<Vec<u8>>) -> Self {
        let mut reserved: Vec<&'static [u8]> = Vec::new();
        if record.kind.log_type().is_some() {
            reserved.push(Key::LogType.name().as_bytes());
        }
        if record.is_ambiguous() {
            reserved.push(Key::ParseAmbiguous.name().as_bytes());
        }
        Self { own, reserved, taken: HashSet::new(), numbers: HashMap::new() }
    }

    /// Takes the name for a field; the new name if it cannot have its own.
    fn take(&mut self, name: &[u8], is_own: bool) -> Option<Vec<u8>> {
        let is_reserved = self.reserved.contains(&name);
        let is_senders = !is_own && self.own.contains(name);
        if !is_reserved && !is_senders && self.taken.insert(name.to_vec()) {
            return None;
        }
        let mut base = name.to_vec();
        if is_reserved || is_senders {
            base = [b"log_", name].concat();
            if self.is_free(&base) {
                self.taken.insert(base.clone());
                return Some(base);
            }
        }
        let mut number = self.numbers.get(&base).copied().unwrap_or(2);
        loop {
            let candidate = [&base, b"_".as_slice(), number.to_string().as_bytes()].concat();
            number += 1;
            if self.is_free(&candidate) {
                self.numbers.insert(base, number);
                self.taken.insert(candidate.clone());
                return Some(candidate);
            }
        }
    }

    fn is_free(&self, name: &[u8]) -> bool {
        !self.reserved.contains(&name) && !self.taken.contains(name) && !self.own.contains(name)
    }
}
