//! Record accessors: `$key`, `$key['member'][0]`, and templates with them (`$TAG[1].$0`), as Fluent Bit reads them.
//!
//! A key that stands more than once counts with its last value. An accessor that asks for members of a value that has none gets
//! the value itself.

use super::members::{element, is_array, is_map, is_named, member, text};
use super::{Arena, Fault};
use crate::pattern::Groups;
use crate::record::msgpack::{write_float, write_json};
use crate::record::{Key, Name, Record, Value};

/// Where a value stands in a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accessor {
    key: Box<[u8]>,
    known: Option<Key>,
    steps: Box<[Step]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(Box<[u8]>),
    Element(usize),
}

impl Accessor {
    /// A key of the record, as it is.
    pub(super) fn key(key: &str) -> Self {
        Self { key: key.as_bytes().into(), known: Key::from_name(key.as_bytes()), steps: Box::default() }
    }

    /// `$key…`, or a key alone. As in Fluent Bit a key ends at a dot, unless there are brackets to say where.
    ///
    /// # Errors
    /// Brackets that do not fit.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let inside = text.strip_prefix('$').unwrap_or(text);
        let (accessor, rest) = Self::front(inside)?;
        match rest.is_empty() || rest.starts_with('.') {
            true => Ok(accessor),
            false => Err(Fault(format!("`{rest}` is no part of a record accessor such as $key['member'][0]"))),
        }
    }

    /// The accessor that a text begins with (behind its `$`), and what is behind it.
    fn front(text: &str) -> Result<(Self, &str), Fault> {
        let end = text.find(['[', '.', ' ', ',', '"', '$']).unwrap_or(text.len());
        let (key, mut rest) = text.split_at(end);
        if key.is_empty() {
            return Err(Fault("a record accessor needs a key, such as $log or $kubernetes['pod_name']".into()));
        }
        let mut steps = Vec::new();
        while let Some(inside) = rest.strip_prefix('[') {
            let bad = || Fault(format!("`{rest}` must be ['member'] or [0]"));
            if let Some(quoted) = inside.strip_prefix('\'') {
                let (member, behind) = quoted_member(quoted).ok_or_else(bad)?;
                steps.push(Step::Member(member.into_bytes().into()));
                rest = behind;
            } else {
                let (digits, behind) = inside.split_once(']').ok_or_else(bad)?;
                steps.push(Step::Element(digits.trim().parse().map_err(|_| bad())?));
                rest = behind;
            }
        }
        let accessor = Self { steps: steps.into(), ..Self::key(key) };
        Ok((accessor, rest))
    }

    /// The place in the envelope of the key's last value.
    #[inline]
    pub(super) fn place(&self, record: &Record<'_>) -> Option<usize> {
        match self.known {
            Some(key) => record.envelope.iter().rposition(|field| field.name == Name::Known(key)),
            None => record.envelope.iter().rposition(|field| is_named(&field.name, &self.key)),
        }
    }

    /// The value, if it is there.
    #[inline]
    pub(super) fn find<'a>(&self, record: &Record<'a>) -> Option<Value<'a>> {
        let value = record.envelope.get(self.place(record)?)?.value;
        if self.steps.is_empty() || !(is_map(&value) || is_array(&value)) {
            return Some(value);
        }
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Member(name) => member(&value, name),
            Step::Element(index) => element(&value, *index),
        })
    }

    /// The value's text, if it is there and a text.
    #[inline]
    pub(super) fn find_text<'a>(&self, record: &Record<'a>, arena: &'a Arena) -> Option<&'a [u8]> {
        text(&self.find(record)?, arena)
    }
}

/// `member']rest` with doubled quotes for one.
fn quoted_member(text: &str) -> Option<(String, &str)> {
    let mut member = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('\'')?;
        member.push_str(before);
        match behind.strip_prefix('\'') {
            Some(more) => {
                member.push('\'');
                rest = more;
            }
            None => return behind.strip_prefix(']').map(|rest| (member, rest)),
        }
    }
}

/// A text with accessors in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Box<[Part]>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(Box<[u8]>),
    Value(Accessor),
    /// `$0` to `$9`
    Group(usize),
    /// `$TAG`
    Tag,
    /// `$TAG[n]`: between dots, from 0.
    BetweenDots(usize),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// An accessor in it that is none.
    pub(super) fn parse(template: &str) -> Result<Self, Fault> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((before, behind)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(before.as_bytes().into()));
            }
            let (part, behind) = Self::part(behind)?;
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.as_bytes().into()));
        }
        Ok(Self(parts.into()))
    }

    fn part(behind: &str) -> Result<(Part, &str), Fault> {
        if let Some(digit) = behind.chars().next().and_then(|character| character.to_digit(10)) {
            return Ok((Part::Group(digit as usize), behind.get(1..).unwrap_or_default()));
        }
        if let Some(rest) = behind.strip_prefix("TAG") {
            let Some(inside) = rest.strip_prefix('[') else { return Ok((Part::Tag, rest)) };
            let part = inside.split_once(']').and_then(|(digits, rest)| Some((digits.trim().parse().ok()?, rest)));
            let (part, rest) = part.ok_or_else(|| Fault("$TAG[n] needs a number, from 0".into()))?;
            return Ok((Part::BetweenDots(part), rest));
        }
        if behind.is_empty() {
            return Ok((Part::Text(b"$".as_slice().into()), behind));
        }
        Accessor::front(behind).map(|(accessor, rest)| (Part::Value(accessor), rest))
    }

    /// Writes it out. `groups` are of a match in `matched`. What is not there is left out.
    pub(super) fn write<'a>(
        &self,
        tag: &[u8],
        record: &Record<'a>,
        arena: &'a Arena,
        (matched, groups): (&[u8], &Groups),
        out: &mut Vec<u8>,
    ) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Tag => out.extend_from_slice(tag),
                Part::BetweenDots(part) => {
                    out.extend_from_slice(tag.split(|byte| *byte == b'.').nth(*part).unwrap_or_default());
                }
                Part::Group(group) => {
                    let range = groups.get(*group).unwrap_or_default();
                    out.extend_from_slice(matched.get(range).unwrap_or_default());
                }
                Part::Value(accessor) => {
                    if let Some(value) = accessor.find(record) {
                        write_plain(&value, arena, out);
                    }
                }
            }
        }
    }
}

/// A value as text: texts as they are, all else as JSON; arrays are left out, as in Fluent Bit.
fn write_plain<'a>(value: &Value<'a>, arena: &'a Arena, out: &mut Vec<u8>) {
    if let Some(text) = text(value, arena) {
        out.extend_from_slice(text);
        return;
    }
    match *value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(truth) => out.extend_from_slice(if truth { b"true" } else { b"false" }),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::UInt(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Float(number) => write_float(&number, out),
        Value::Number(digits) => out.extend_from_slice(digits),
        Value::JsonValue(json) if !is_array(value) => out.extend_from_slice(json),
        Value::MsgPack(packed) if !is_array(value) => write_json(packed, out),
        _ => {}
    }
}
