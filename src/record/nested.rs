//! A text within a field that holds an object, by its path: `kubernetes.pod_name`.
//!
//! Names may hold dots themselves, so at each level the whole rest of the path is tried as a name, and what stands before any
//! of its dots. Called for names that templates hold, once a record where there are such; nothing is allocated.

use super::scan::Members;
use super::{Record, Value, msgpack};

/// How deep objects are looked into.
const NESTING_MAX: usize = 16;

impl<'a> Record<'a> {
    /// The text or number at that path, as [`Record::bytes_of`] has it. None if a field of the whole name is there: that one
    /// is meant.
    pub fn nested_bytes<'s>(&'s self, path: &[u8]) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        let dots = path.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        for dot in dots {
            let Some(value) = self.get_by_name(&path[..dot]) else { continue };
            let rest = &path[dot + 1..];
            let found = match *value {
                Value::JsonValue(json) => in_json(json, rest, NESTING_MAX),
                Value::ScratchJson(span) => in_json(self.scratch.get(span.range())?, rest, NESTING_MAX),
                Value::MsgPack(packed) => msgpack::text_at(packed, rest, NESTING_MAX),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// What a member's name leaves of a path: nothing if it is the whole of it, what follows its dot if it is the beginning.
pub(super) fn rest_of<'p>(path: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(name)? {
        [] => Some(&[]),
        [b'.', rest @ ..] if !rest.is_empty() => Some(rest),
        _ => None,
    }
}

/// The text (escapes kept) or number at that path of a valid JSON object.
fn in_json<'j>(json: &'j [u8], path: &[u8], nesting_left: usize) -> Option<&'j [u8]> {
    if nesting_left == 0 {
        return None;
    }
    let mut members = Members::new(json)?;
    while let Some((name, value)) = members.find(|name, _| rest_of(path, name).is_some()) {
        let value = &json[value];
        let found = match (rest_of(path, name)?, value) {
            ([], [b'"', inside @ .., b'"']) => Some(inside),
            ([], [b'-' | b'0'..=b'9', ..]) => Some(value),
            (rest @ [_, ..], [b'{', ..]) => in_json(value, rest, nesting_left - 1),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Name;

    fn found<'a>(value: Value<'a>, path: &str) -> Option<Vec<u8>> {
        let mut record = Record::new();
        record.push_envelope(Name::text(b"k"), value);
        record.nested_bytes(path.as_bytes()).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_path_leads_through_objects_whose_names_may_hold_dots() {
        let json = br#"{ "a" : {"b.c":"x\"y", "b":{"d":12}, "l":[{"d":1}]}, "a.b":{"e":"dot"} , "n":null}"#;
        for (path, expected) in [
            ("k.a.b.c", Some(&b"x\\\"y"[..])),
            ("k.a.b.d", Some(b"12")),
            ("k.a.b.e", Some(b"dot")),
            ("k.a", None),
            ("k.n", None),
            ("k.a.l.d", None),
            ("k.z", None),
            ("k.", None),
            ("k", None),
            ("a.b", None),
        ] {
            assert_eq!(found(Value::JsonValue(json), path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn nested_messagepack_is_read_as_well() {
        // {"a": {"b": "x", "c": 1}, "d": [], "e": "y"}
        let packed = b"\x83\xa1a\x82\xa1b\xa1x\xa1c\x01\xa1d\x90\xa1e\xa1y";
        assert_eq!(found(Value::MsgPack(packed), "k.a.b").as_deref(), Some(&b"x"[..]));
        assert_eq!(found(Value::MsgPack(packed), "k.e").as_deref(), Some(&b"y"[..]));
        assert_eq!(found(Value::MsgPack(packed), "k.a.c"), None, "a number has no text to borrow");
        assert_eq!(found(Value::MsgPack(packed), "k.d.x"), None);
        assert_eq!(found(Value::MsgPack(&packed[..7]), "k.e"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80), path in "[ab.]{0,6}") {
            let path = format!("k.{path}");
            let _ = (found(Value::JsonValue(&bytes), &path), found(Value::MsgPack(&bytes), &path));
        }
    }
}
