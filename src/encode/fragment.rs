//! Enrichment, serialized once.

use std::ops::Range;

use super::names::Names;
use crate::record::Key;

/// Members that end every line, pre-serialized; made anew when the metadata changes, not for each record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fragment {
    /// `,"name":value` for each entry.
    bytes: Vec<u8>,
    /// Entries whose name is a known key.
    known: Vec<(Key, Range<usize>)>,
    /// All other entries.
    others: Vec<(String, Range<usize>)>,
}

impl Fragment {
    /// Serializes fields, in order. Of a name that comes twice the last value is taken, at the first one's place.
    pub fn new(fields: impl IntoIterator<Item = (String, serde_json::Value)>) -> Self {
        let mut unique: Vec<(String, serde_json::Value)> = Vec::new();
        for (name, value) in fields {
            match unique.iter_mut().find(|(earlier, _)| *earlier == name) {
                Some((_, earlier)) => *earlier = value,
                None => unique.push((name, value)),
            }
        }
        let mut fragment = Self::default();
        for (name, value) in unique {
            let start = fragment.bytes.len();
            super::write_new_name(name.as_bytes(), &mut fragment.bytes);
            // A JSON value displays as compact JSON: one line, names escaped.
            fragment.bytes.extend_from_slice(value.to_string().as_bytes());
            let range = start..fragment.bytes.len();
            match Key::from_name(name.as_bytes()) {
                Some(key) => fragment.known.push((key, range)),
                None => fragment.others.push((name, range)),
            }
        }
        fragment
    }

    /// The place of an entry among those whose name is no known key.
    pub(super) fn find_other(&self, name: &[u8]) -> Option<usize> {
        self.others.iter().position(|(other, _)| other.as_bytes() == name)
    }

    /// Appends what the line does not have yet.
    pub(super) fn write(&self, names: &Names, out: &mut Vec<u8>) {
        let hides_known = self.known.iter().any(|(key, _)| names.has(*key));
        if !hides_known && names.overridden == 0 && names.late.is_empty() {
            out.extend_from_slice(&self.bytes);
            return;
        }
        let known = self.known.iter().filter(|(key, _)| !names.has(*key)).map(|(_, range)| range);
        let is_left = |place: usize| match place {
            0..64 => names.overridden & (1 << place) == 0,
            _ => !names.late.contains(&place),
        };
        let others = self.others.iter().enumerate().filter(|(place, _)| is_left(*place)).map(|(_, (_, range))| range);
        let mut left: Vec<&Range<usize>> = known.chain(others).collect();
        left.sort_unstable_by_key(|range| range.start);
        for range in left {
            out.extend_from_slice(&self.bytes[range.clone()]);
        }
    }
}
