//! What stands inside a value: members of maps and objects, elements of arrays, and the text of a text.
//!
//! Values are looked into where they stand, MessagePack or JSON; what comes out borrows from them. Only escapes of JSON strings are
//! resolved into the arena, and only where there are some.

use std::borrow::Cow;

use super::Arena;
use crate::envoy::scan::{Scanner, Token};
use crate::record::json::unescape;
use crate::record::msgpack::{Head, Reader, write_json};
use crate::record::{Name, Value};

/// Calls `each` for every member of a map or an object, in order; false if the value is neither, or broken.
pub(super) fn members<'a>(value: &Value<'a>, arena: &'a Arena, mut each: impl FnMut(Name<'a>, Value<'a>)) -> bool {
    match *value {
        Value::MsgPack(packed) => {
            let mut reader = Reader { rest: packed };
            let Some(Head::Map(count)) = reader.head() else { return false };
            for _ in 0..count {
                let Some((key, value)) = pair(&mut reader) else { return false };
                each(name(key, arena), value);
            }
            true
        }
        Value::JsonValue(json) => object_members(json, |name, token| each(Name::json(name), of_token(token))),
        _ => false,
    }
}

/// Calls `each` for every member of a JSON object; false if the text is none, or broken (members before that were called).
pub(super) fn object_members<'a>(json: &'a [u8], mut each: impl FnMut(&'a [u8], Token<'a>)) -> bool {
    let Ok(text) = std::str::from_utf8(json) else { return false };
    let mut scanner = Scanner::new(text);
    if scanner.open().is_none() {
        return false;
    }
    let mut is_first = true;
    loop {
        match scanner.member(is_first) {
            Some(Some((name, token))) => each(name, token),
            Some(None) => return true,
            None => return false,
        }
        is_first = false;
    }
}

/// Whether the value is a map or an object.
pub(super) fn is_map(value: &Value<'_>) -> bool {
    match value {
        Value::MsgPack([first, ..]) => matches!(first, 0x80..=0x8f | 0xde | 0xdf),
        Value::JsonValue(json) => json.trim_ascii_start().first() == Some(&b'{'),
        _ => false,
    }
}

/// Whether the value is an array.
pub(super) fn is_array(value: &Value<'_>) -> bool {
    match value {
        Value::MsgPack([first, ..]) => matches!(first, 0x90..=0x9f | 0xdc | 0xdd),
        Value::JsonValue(json) => json.trim_ascii_start().first() == Some(&b'['),
        _ => false,
    }
}

/// The last member of that name.
pub(super) fn member<'a>(value: &Value<'a>, wanted: &[u8]) -> Option<Value<'a>> {
    let mut found = None;
    let whole = match *value {
        Value::MsgPack(packed) => {
            let mut reader = Reader { rest: packed };
            let Some(Head::Map(count)) = reader.head() else { return None };
            let mut whole = true;
            for _ in 0..count {
                let Some((key, value)) = pair(&mut reader) else {
                    whole = false;
                    break;
                };
                if matches!(key, Value::Text(key) if key == wanted) {
                    found = Some(value);
                }
            }
            whole
        }
        Value::JsonValue(json) => object_members(json, |name, token| {
            if is_json_text(name, wanted) {
                found = Some(of_token(token));
            }
        }),
        _ => false,
    };
    found.filter(|_| whole)
}

/// The element at that place, from 0.
pub(super) fn element<'a>(value: &Value<'a>, index: usize) -> Option<Value<'a>> {
    match *value {
        Value::MsgPack(packed) => {
            let mut reader = Reader { rest: packed };
            let Some(Head::Array(count)) = reader.head() else { return None };
            if index >= usize::try_from(count).ok()? {
                return None;
            }
            reader.skip(index as u64)?;
            value_of(&mut reader)
        }
        Value::JsonValue(json) => {
            let mut scanner = Scanner::new(std::str::from_utf8(json).ok()?);
            scanner.open_list()?;
            for at in 0..=index {
                let token = scanner.element(at == 0)??;
                if at == index {
                    return Some(of_token(token));
                }
            }
            None
        }
        _ => None,
    }
}

/// The text of a value that is one, escapes resolved.
#[inline]
pub(super) fn text<'a>(value: &Value<'a>, arena: &'a Arena) -> Option<&'a [u8]> {
    match *value {
        Value::Text(text) => Some(text),
        Value::Json(inside) => Some(resolved(inside, arena)),
        Value::JsonValue(json) => match json.trim_ascii() {
            [b'"', inside @ .., b'"'] => Some(resolved(inside, arena)),
            _ => None,
        },
        _ => None,
    }
}

/// The bytes of a name, escapes resolved.
pub(super) fn name_text<'a>(name: &Name<'a>, arena: &'a Arena) -> &'a [u8] {
    match *name {
        Name::Json(inside) => resolved(inside, arena),
        other => other.bytes(),
    }
}

/// Whether a name says this.
#[inline]
pub(super) fn is_named(name: &Name<'_>, wanted: &[u8]) -> bool {
    match *name {
        Name::Json(inside) => is_json_text(inside, wanted),
        other => other.bytes() == wanted,
    }
}

/// The text that is the inside of a JSON string.
pub(super) fn resolved<'a>(inside: &'a [u8], arena: &'a Arena) -> &'a [u8] {
    if memchr::memchr(b'\\', inside).is_none() {
        return inside;
    }
    let mut text = Vec::with_capacity(inside.len());
    unescape(inside, &mut text);
    arena.alloc_slice_copy(&text)
}

/// What a JSON token is as a value.
pub(super) fn of_token(token: Token<'_>) -> Value<'_> {
    match token {
        Token::String(inside) => Value::Json(inside),
        Token::Number(digits) => Value::Number(digits),
        Token::Nested(json) => Value::JsonValue(json),
        Token::Bool(truth) => Value::Bool(truth),
        Token::Null => Value::Null,
    }
}

fn is_json_text(inside: &[u8], wanted: &[u8]) -> bool {
    if memchr::memchr(b'\\', inside).is_none() {
        return inside == wanted;
    }
    let mut text = Vec::with_capacity(inside.len());
    unescape(inside, &mut text);
    text == wanted
}

fn pair<'a>(reader: &mut Reader<'a>) -> Option<(Value<'a>, Value<'a>)> {
    let key = value_of(reader)?;
    Some((key, value_of(reader)?))
}

/// A key that is no text is the text of its JSON.
fn name<'a>(key: Value<'a>, arena: &'a Arena) -> Name<'a> {
    let mut json = Cow::Borrowed(&b""[..]);
    match key {
        Value::Text(text) => return Name::text(text),
        Value::MsgPack(packed) => write_json(packed, json.to_mut()),
        Value::Null => json = Cow::Borrowed(b"null"),
        Value::Bool(truth) => json = Cow::Borrowed(if truth { b"true" } else { b"false" }),
        Value::Int(number) => json.to_mut().extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::UInt(number) => json.to_mut().extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Float(number) => crate::record::msgpack::write_float(&number, json.to_mut()),
        _ => {}
    }
    Name::text(arena.alloc_slice_copy(&json))
}

/// The next value; containers and extensions stay as they are.
fn value_of<'a>(reader: &mut Reader<'a>) -> Option<Value<'a>> {
    let start = reader.rest;
    let children = match reader.head()? {
        Head::Nil => return Some(Value::Null),
        Head::Bool(truth) => return Some(Value::Bool(truth)),
        Head::Int(number) => return Some(Value::Int(number)),
        Head::UInt(number) => return Some(Value::UInt(number)),
        Head::Float32(number) => return Some(Value::Float(number.into())),
        Head::Float64(number) => return Some(Value::Float(number)),
        Head::Text(text) => return Some(Value::Text(text)),
        Head::Array(count) => u64::from(count),
        Head::Map(count) => 2 * u64::from(count),
        Head::Ext(..) => 0,
    };
    reader.skip(children)?;
    start.get(..start.len() - reader.rest.len()).map(Value::MsgPack)
}
