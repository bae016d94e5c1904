//! Lines that begin as an access log and have none of the formats: what the user is told of them.
//!
//! They pass on as they came, redacted, and are counted. The first of each tag is shown in the log by its *shape*, so that a
//! missing format can be recognised without a look at the stream; of its content nothing is shown.
//!
//! Shared by all connections, and touched by a connection once a tag: a lock and an allocation are no matter here.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Tags beyond these are counted only.
const TAGS_MAX: usize = 256;

/// A shape is cut here, in bytes.
const SHAPE_BYTES_MAX: usize = 240;

/// Tags that were told of.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashSet<Box<str>>>);

impl Strangers {
    /// Says once a tag that there are such lines on it.
    pub(super) fn say(&self, tag: &str, line: &[u8]) {
        {
            let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= TAGS_MAX || !told.insert(tag.into()) {
                return;
            }
        }
        tracing::warn!(
            tag,
            shape = shape(line),
            "a line begins as an access log and has none of the formats; such lines pass on redacted, and count as unparsed: \
             see `parse.formats`, `meshlens parse --explain` and `--infer`"
        );
    }
}

/// What a line looks like: `A` for letters, `9` for digits, `U` for what is not ASCII; marks stand as they are.
fn shape(line: &[u8]) -> String {
    let mut shape = String::new();
    for byte in line {
        let sign = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => 'A',
            b'0'..=b'9' => '9',
            b' '..=b'~' => char::from(*byte),
            b'\t' => ' ',
            0x80.. => 'U',
            _ => 'C',
        };
        if !shape.ends_with(sign) {
            shape.push(sign);
        }
        if shape.len() >= SHAPE_BYTES_MAX {
            shape.push_str("...");
            break;
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_shows_no_content() {
        assert_eq!(
            shape(
                "[2026-11-22T02:36:32.784Z] \"GET /users/jane?token=s3cr3t HTTP/1.1\" 200 \u{e9}\u{e9}\t--".as_bytes()
            ),
            "[9-9-9A9:9:9.9A] \"A /A/A?A=A9A9A A/9.9\" 9 U -"
        );
        let long = shape(&b"a1".repeat(1000));
        assert_eq!(long.len(), SHAPE_BYTES_MAX + 3);
    }

    #[test]
    fn a_tag_is_told_of_once_and_not_without_end() {
        let strangers = Strangers::default();
        for number in 0..2 * TAGS_MAX {
            strangers.say(&number.to_string(), b"x");
            strangers.say("same", b"x");
        }
        assert_eq!(strangers.0.lock().unwrap().len(), TAGS_MAX);
    }
}
