//! Places of members and values in a JSON object, without descending into others and without a copy.
//!
//! For lines that are JSON already; what is none gives `None` or a place within the line, never a panic.

use std::ops::Range;

use memchr::memchr2;

/// Where the value of the first member of that name stands in a JSON object. The name is as between quotes in JSON.
pub fn member(json: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let mut members = Members::new(json)?;
    members.find(|found, _| found == name).map(|(_, value)| value)
}

/// The members of a JSON object, one after the other: the name's bytes, and where the value stands.
pub struct Members<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Members<'j> {
    /// None if that is no object.
    pub fn new(json: &'j [u8]) -> Option<Self> {
        let at = skip_blanks(json, 0);
        (json.get(at) == Some(&b'{')).then(|| Self { json, at: skip_blanks(json, at + 1) })
    }

    /// The first member, from here on, that is wanted.
    pub fn find(
        &mut self,
        mut is_wanted: impl FnMut(&'j [u8], &Range<usize>) -> bool,
    ) -> Option<(&'j [u8], Range<usize>)> {
        let json = self.json;
        while json.get(self.at) == Some(&b'"') {
            let name_end = skip_string(json, self.at)?;
            let name = &json[self.at + 1..name_end - 1];
            let colon = skip_blanks(json, name_end);
            if json.get(colon) != Some(&b':') {
                return None;
            }
            let start = skip_blanks(json, colon + 1);
            let value = start..skip_value(json, start)?;
            let comma = skip_blanks(json, value.end);
            self.at = if json.get(comma) == Some(&b',') { skip_blanks(json, comma + 1) } else { json.len() };
            if is_wanted(name, &value) {
                return Some((name, value));
            }
        }
        None
    }
}

fn skip_blanks(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// One past the closing quote of the string that begins at `at`.
fn skip_string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let found = at + memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// One past the value that begins at `at`.
fn skip_value(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match *json.get(at)? {
            b'"' => {
                at = skip_string(json, at)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            // The end of a number or word.
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return Some(at),
            _ => at += 1,
        }
    }
}
