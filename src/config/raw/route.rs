//! `[[route]]` as written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{Named, OneOrMany};

/// A rule: what it matches, and where that goes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Conditions by `tag`, `log_type` (`access`, `envoy` or `other`), or name of a record field; all must hold. Default: everything matches.
    pub when: Option<Named<Condition>>,
    /// Names of sinks; `[]` leaves the record out, as `drop` does. Required unless `drop = true`.
    pub to: Option<OneOrMany>,
    /// Leave the record out; counted as filtered. Default: false.
    pub drop: Option<bool>,
    /// Keep only this part of the matches, chosen by `request_id`, so that the same request is kept on both sides of a call; the rest is filtered. Default: 1.0. Limits: 0.0 to 1.0.
    pub sample: Option<f64>,
    /// Go on with the next rule after a match, and add its sinks. Default: false.
    pub r#continue: Option<bool>,
    /// Sinks for what does not match; only on the last rule. Default: what matches no rule is left out, counted as filtered.
    pub r#else: Option<OneOrMany>,
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Text: a pattern.
    Text(String),
    /// A number or truth value: equality with this text of it.
    Literal(String),
    /// One of these.
    Many(Vec<Self>),
    /// `{ not = … }`
    Not(Box<Self>),
    /// `{ absent = true }`
    Absent(bool),
}

const EXPECTED: &str = "text, a number, true or false, a list of these, { not = … } or { absent = true }";

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(ConditionVisitor)
    }
}

struct ConditionVisitor;

impl<'de> de::Visitor<'de> for ConditionVisitor {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
        Ok(Condition::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Condition, E> {
        Ok(Condition::Literal(truth.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Condition, E> {
        Ok(Condition::Literal(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Condition, E> {
        Ok(Condition::Literal(number.to_string()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Condition, A::Error> {
        let mut conditions = Vec::new();
        while let Some(condition) = list.next_element()? {
            conditions.push(condition);
        }
        Ok(Condition::Many(conditions))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Condition, A::Error> {
        let mut condition = None;
        while let Some(word) = map.next_key::<String>()? {
            let next = match word.as_str() {
                "not" => Condition::Not(Box::new(map.next_value()?)),
                "absent" => Condition::Absent(map.next_value()?),
                _ => return Err(de::Error::custom(format_args!("must be {EXPECTED}"))),
            };
            if condition.replace(next).is_some() {
                return Err(de::Error::custom(format_args!("must be {EXPECTED}")));
            }
        }
        condition.ok_or_else(|| de::Error::custom(format_args!("must be {EXPECTED}")))
    }
}

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let condition = generator.subschema_for::<Self>();
        json_schema!({
            "description": "What a field must be: a value, a list of values, or text with a pattern: `glob:`, `match:`, `prefix:`, `regex:`, `>=500`, `500..599`, `!…` for not, `=…` for exactly this text.",
            "anyOf": [
                { "type": ["string", "number", "boolean"] },
                { "type": "array", "items": { "type": ["string", "number", "boolean"] }, "minItems": 1 },
                { "type": "object", "properties": { "not": condition }, "required": ["not"], "additionalProperties": false },
                { "type": "object", "properties": { "absent": { "type": "boolean" } }, "required": ["absent"], "additionalProperties": false }
            ]
        })
    }
}
