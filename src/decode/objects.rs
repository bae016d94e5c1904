//! Finds JSON objects in a stream that nothing frames but their own brackets, and goes on behind what is none.
//!
//! The scanner remembers its place, so each byte is looked at once however the bytes are cut. It checks no more than it needs to find
//! ends; what it finds may still be no JSON. Where a stream is broken, it goes on at the next place where an object can begin:
//!
//! - outside of objects: behind the next newline;
//! - a newline within a string, which JSON does not have: behind it;
//! - `{` or `[` on a new line where a comma, a colon or a closing bracket should be: there.

use std::ops::Range;

use memchr::{memchr, memchr3};

/// What was found in the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An object or an array, from its first to its last bracket.
    Value(Range<usize>),
    /// Bytes up to there that are none.
    Broken(usize),
    /// The end of what was [given up](ObjectScanner::give_up) before.
    GivenUp(usize),
}

/// Where objects begin and end, for one connection.
#[derive(Clone, Debug, Default)]
pub struct ObjectScanner {
    /// Where the next byte stands.
    at: usize,
    /// Where the object begins that is being read.
    start: usize,
    /// Brackets open in it.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last byte outside of strings that is no blank.
    last: u8,
    /// There was a newline since.
    is_new_line: bool,
    /// Not in an object: everything up to a newline is passed over.
    is_broken: bool,
    is_given_up: bool,
}

impl ObjectScanner {
    /// Looks for the next value. `unread` holds what was given before, less what was [consumed](Self::consumed), and what has arrived since.
    /// `None`: more is needed.
    pub fn next(&mut self, unread: &[u8]) -> Option<Found> {
        while let Some(&byte) = unread.get(self.at) {
            if self.is_broken {
                let Some(newline) = memchr(b'\n', &unread[self.at..]) else {
                    self.at = unread.len();
                    return None;
                };
                self.at += newline + 1;
                return Some(self.broken());
            }
            if self.in_string {
                if self.is_string_broken(unread) {
                    return Some(self.broken());
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.is_new_line |= byte == b'\n',
                b'{' | b'[' if self.depth > 0 && self.is_new_line && !matches!(self.last, b',' | b':' | b'[') => {
                    return Some(self.broken());
                }
                b'{' | b'[' => {
                    if self.depth == 0 {
                        self.start = self.at;
                    }
                    self.depth += 1;
                }
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.at += 1;
                        let end = self.at;
                        let is_given_up = std::mem::take(&mut self.is_given_up);
                        return Some(if is_given_up { Found::GivenUp(end) } else { Found::Value(self.start..end) });
                    }
                }
                b'"' if self.depth > 0 => self.in_string = true,
                _ if self.depth == 0 => {
                    self.is_broken = true;
                    continue;
                }
                _ => {}
            }
            if !byte.is_ascii_whitespace() {
                self.last = byte;
                self.is_new_line = false;
            }
            self.at += 1;
        }
        None
    }

    /// Passes over a string's inside. True if it is none: a newline stands in it.
    fn is_string_broken(&mut self, unread: &[u8]) -> bool {
        if std::mem::take(&mut self.escaped) {
            self.at += 1;
            return false;
        }
        let Some(place) = memchr3(b'"', b'\\', b'\n', &unread[self.at..]) else {
            self.at = unread.len();
            return false;
        };
        let byte = unread[self.at + place];
        self.at += place + 1;
        match byte {
            b'"' => self.in_string = false,
            b'\\' => self.escaped = true,
            _ => return true,
        }
        false
    }

    /// Starts afresh at this place.
    fn broken(&mut self) -> Found {
        let (at, is_given_up) = (self.at, self.is_given_up);
        *self = Self { at, ..Self::default() };
        if is_given_up { Found::GivenUp(at) } else { Found::Broken(at) }
    }

    /// The caller took `bytes` off the front of what is unread: no more than was found, or all when giving up.
    pub fn consumed(&mut self, bytes: usize) {
        self.at = self.at.saturating_sub(bytes);
        self.start = self.start.saturating_sub(bytes);
    }

    /// What has arrived of the current value is not kept, and the rest of it is to be passed over: it is too large.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Where the value begins that is being read, in so many unread bytes: what is before is not needed any more, nor is all of it where nothing
    /// is kept.
    pub fn wanted_from(&self, unread_bytes: usize) -> usize {
        let is_kept = self.depth > 0 && !self.is_given_up;
        if is_kept { self.start.min(unread_bytes) } else { unread_bytes }
    }

    /// Whether the end of the stream would cut something off.
    pub fn is_inside(&self) -> bool {
        self.depth > 0 || self.is_broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is found when the text comes in pieces of that size: values as they stand, `!` for what is broken, `-` for what was given up.
    fn found(text: &str, size: usize) -> (Vec<String>, bool) {
        let mut scanner = ObjectScanner::default();
        let (mut unread, mut found) = (Vec::new(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            unread.extend_from_slice(piece);
            while let Some(next) = scanner.next(&unread) {
                let end = match next {
                    Found::Value(range) => {
                        found.push(String::from_utf8_lossy(&unread[range.clone()]).into_owned());
                        range.end
                    }
                    Found::Broken(end) => {
                        found.push("!".into());
                        end
                    }
                    Found::GivenUp(end) => {
                        found.push("-".into());
                        end
                    }
                };
                unread.drain(..end);
                scanner.consumed(end);
            }
        }
        (found, scanner.is_inside())
    }

    #[test]
    fn objects_are_found_in_whatever_stands_between() {
        for (text, expected, is_inside) in [
            ("", vec![], false),
            ("{\"a\":1}", vec!["{\"a\":1}"], false),
            (" {} \r\n\n[1,{}]{\"}\":\"\\\"{\"}\n", vec!["{}", "[1,{}]", "{\"}\":\"\\\"{\"}"], false),
            ("{\n  \"a\": [\n    {},\n    {\n }\n  ]\n}\n", vec!["{\n  \"a\": [\n    {},\n    {\n }\n  ]\n}"], false),
            ("GET / HTTP/1.1\r\nHost: x\n{}\n", vec!["!", "!", "{}"], false),
            ("nonsense", vec![], true),
            ("{\"a\": \"half\n{\"b\":1}", vec!["!", "{\"b\":1}"], false),
            ("{\"a\": 1\n{\"b\":1}\n", vec!["!", "{\"b\":1}"], false),
            ("{}}\n{}", vec!["{}", "!", "{}"], false),
            ("{\"a\":", vec![], true),
            ("{]{}", vec!["{]", "{}"], false),
        ] {
            for size in 1..=text.len().max(1) {
                let (found, inside) = found(text, size);
                assert_eq!(
                    (found, inside),
                    (expected.iter().map(|&s| s.to_owned()).collect(), is_inside),
                    "{text:?} {size}"
                );
            }
        }
    }

    #[test]
    fn what_is_given_up_is_passed_over_to_its_end() {
        let mut scanner = ObjectScanner::default();
        for (text, given_up) in [("{\"a\": [1, 2", "\n], \"b\": \"}\"}"), ("garbage", " more\n"), ("{\"a", "b\n")] {
            assert_eq!(scanner.next(text.as_bytes()), None);
            scanner.give_up();
            scanner.consumed(text.len());
            assert_eq!(scanner.next(given_up.as_bytes()), Some(Found::GivenUp(given_up.len())), "{text}");
            scanner.consumed(given_up.len());
            assert!(!scanner.is_given_up());
            assert_eq!(scanner.next(b"{}"), Some(Found::Value(0..2)));
            scanner.consumed(2);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_however_they_are_cut(text in "[{}\\[\\]\",:\\\\ \na1]{0,40}", size in 1_usize..8) {
            prop_assert_eq!(found(&text, size), found(&text, 1000));
        }

        #[test]
        fn lines_of_json_are_all_found(values in proptest::collection::vec(
            proptest::collection::btree_map("[a-z{}\"\\\\\n]{0,4}", "[ -~\n]{0,8}", 0..4), 0..6), pretty: bool) {
            let texts: Vec<String> = values.iter().map(|value| match pretty {
                true => serde_json::to_string_pretty(value).unwrap(),
                false => serde_json::to_string(value).unwrap(),
            }).collect();
            prop_assert_eq!(found(&texts.join("\n"), 7).0, texts);
        }
    }
}
