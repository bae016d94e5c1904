//! Which names a line has: a bit for each known key, a short list of the others.

use super::{Fragment, fields};
use crate::record::{Key, Name, Record};

/// Unknown names that are compared one by one; with more, clashes are looked for with a hash table.
const OTHERS_MAX: usize = 16;

/// The names of one line.
pub(super) struct Names {
    known: u64,
    /// Bit set over the fragment's entries that the record overrides; entries from the 64th on are in [`Self::late`].
    pub overridden: u64,
    /// Overridden entries of the fragment beyond the 64th.
    pub late: Vec<usize>,
}

impl Names {
    /// The names that meshlens itself adds to this record.
    pub fn new(record: &Record<'_>) -> Self {
        let mut names = Self { known: 0, overridden: 0, late: Vec::new() };
        if record.kind.log_type().is_some() {
            names.known |= bit(Key::LogType);
        }
        if record.is_ambiguous() {
            names.known |= bit(Key::ParseAmbiguous);
        }
        names
    }

    /// Takes in the names of all fields; false if two are the same or if it takes more than a look to tell.
    pub fn add_all(&mut self, record: &Record<'_>, fragment: &Fragment) -> bool {
        let mut others: [&[u8]; OTHERS_MAX] = [b""; OTHERS_MAX];
        let mut count = 0;
        for field in fields(record) {
            if let Name::Known(key) = field.name {
                if self.has(key) {
                    return false;
                }
                self.add(key);
                continue;
            }
            let name = record.name_bytes(&field.name);
            if count == OTHERS_MAX || !says_what_it_is(&field.name, name) || others[..count].contains(&name) {
                return false;
            }
            others[count] = name;
            count += 1;
            self.override_fragment(fragment, name);
        }
        true
    }

    pub fn has(&self, key: Key) -> bool {
        self.known & bit(key) != 0
    }

    pub fn add(&mut self, key: Key) {
        self.known |= bit(key);
    }

    /// Marks the fragment's entry of that name (no known key's) as overridden.
    pub fn override_fragment(&mut self, fragment: &Fragment, name: &[u8]) {
        match fragment.find_other(name) {
            Some(place @ 0..64) => self.overridden |= 1 << place,
            Some(place) => self.late.push(place),
            None => {}
        }
    }
}

const fn bit(key: Key) -> u64 {
    1 << key as u8
}

/// Whether two such names are the same exactly if their bytes are.
fn says_what_it_is(name: &Name<'_>, bytes: &[u8]) -> bool {
    if memchr::memchr(b'\\', bytes).is_some() || Key::from_name(bytes).is_some() {
        return false;
    }
    matches!(name, Name::Json(_)) || bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}
