//! Records as tests compare them: JSON with its members in order, keys of objects with what is chance in them taken out.

use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::fake_aws::object_text;

/// A JSON value that keeps the order of members, and repeated ones.
#[derive(Clone, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            // Fluent Bit prints times as doubles with fewer digits than they have.
            (Self::Number(one), Self::Number(other)) => (one - other).abs() <= 1e-12 * one.abs().max(1.0),
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::List(one), Self::List(other)) => one == other,
            (Self::Object(one), Self::Object(other)) => one == other,
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Json::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }
        reader.deserialize_any(Any)
    }
}

/// Its value, or itself where it is no JSON.
pub fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::Text(text.to_owned()))
}

/// A key with what differs from run to run made alike: digits of times, eight random characters.
pub fn key_shape(key: &str) -> String {
    let mut shape = String::new();
    for part in key.split('/') {
        let (stem, random) = part.rsplit_once("-object").unwrap_or((part, ""));
        let stem: String = stem.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let (name, suffix) = stem.split_once('.').unwrap_or((&stem, ""));
        shape.push('/');
        if name.len() == 8 && name.chars().all(|c| c.is_ascii_alphanumeric()) {
            write!(shape, "xxxxxxxx.{suffix}").unwrap();
        } else {
            shape.push_str(&stem);
        }
        if !random.is_empty() || part.contains("-object") {
            write!(shape, "-object{}", "x".repeat(random.len())).unwrap();
        }
    }
    shape
}

/// The lines of what was delivered in one piece.
pub fn lines_of(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(&object_text(bytes)).lines().map(str::to_owned).collect()
}

/// A MessagePack string.
pub fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(0xdb);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}
