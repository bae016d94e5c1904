//! Enrichment: fields that are the same for every record of the process, as one pre-serialized JSON fragment.
//!
//! The process stage asks for [`fields`] when it starts and each time [`ecs::watch`] brings news, never for a record.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

pub mod ecs;

/// What to add to every record.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// Names to add from ECS task metadata, of those in [`ecs::NAMES`]; what is not known (yet) is left out.
    pub ecs: Vec<String>,
    /// Fields whose values are made from such metadata; each is left out until all of it is known.
    pub metadata: Vec<(String, Text)>,
    /// Base URL of the task metadata endpoint v4; none = no metadata.
    pub metadata_uri: Option<String>,
    /// Fields with fixed values, in order. Values from the environment are resolved into this list at start.
    pub fields: Vec<(String, Value)>,
}

/// A text with metadata in it: `{ecs_task_id}` is one of [`ecs::NAMES`]; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Name(&'static str),
}

impl Text {
    /// Reads it.
    ///
    /// # Errors
    /// What it must be, in the words of a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let behind = &rest[at + 1..];
            if behind.as_bytes().first() == rest.as_bytes().get(at) {
                literal.push_str(&behind[..1]);
                rest = &behind[1..];
                continue;
            }
            let inside = behind.split_once('}').filter(|_| rest[at..].starts_with('{'));
            let Some((name, behind)) = inside else {
                return Err("must close `{` with `}`; a brace that stands for itself is written twice".to_owned());
            };
            let Some(name) = ecs::NAMES.iter().find(|known| **known == name) else {
                return Err(format!("must hold names that `ecs` knows in braces, not {{{name}}}"));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Name(name));
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts.into()))
    }

    /// The names in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Name(name) => Some(*name),
            Part::Literal(_) => None,
        })
    }

    /// With what is known; none until all of it is.
    fn render(&self, metadata: &ecs::Metadata) -> Option<String> {
        let part = |part: &Part| match part {
            Part::Literal(text) => Some(text.to_string()),
            Part::Name(name) => metadata.get(name).map(str::to_owned),
        };
        self.0.iter().map(part).collect()
    }
}

impl Config {
    /// The names of metadata that are asked for.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        let of_texts = self.metadata.iter().flat_map(|(_, text)| text.names());
        self.ecs.iter().map(String::as_str).chain(of_texts)
    }
}

/// The fields to add at this moment, each name once: the names of [`Config::ecs`] and the fields of [`Config::metadata`] that are
/// known, in the order given there, then the fixed ones. A fixed value takes the place of metadata of the same name; of equal
/// fixed names the last counts.
pub fn fields(config: &Config, metadata: &ecs::Metadata) -> Vec<(String, Value)> {
    let fixed: BTreeMap<&str, &Value> = config.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut fields: Vec<(String, Value)> = Vec::with_capacity(config.ecs.len() + config.metadata.len() + fixed.len());
    let mut add = |name: &str, value: Value| {
        if fields.iter().all(|(known, _)| known != name) {
            fields.push((name.to_owned(), value));
        }
    };
    let names = config.ecs.iter().map(|name| (name, metadata.get(name).map(Cow::Borrowed)));
    let texts = config.metadata.iter().map(|(name, text)| (name, text.render(metadata).map(Cow::Owned)));
    for (name, value) in names.chain(texts).filter(|(name, _)| !fixed.contains_key(name.as_str())) {
        if let Some(value) = value {
            add(name, Value::from(value));
        }
    }
    for (name, _) in &config.fields {
        if let Some(value) = fixed.get(name.as_str()) {
            add(name, (*value).clone());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn known_metadata_first_then_fixed_fields_each_once() {
        let config = Config {
            ecs: names(&["ecs_task_id", "ecs_service_name", "ecs_cluster", "ecs_task_id"]),
            metadata: vec![
                ("az".into(), Text::parse("{ecs_availability_zone}").unwrap()),
                ("place".into(), Text::parse("{{{ecs_cluster}/{ecs_task_id}").unwrap()),
            ],
            metadata_uri: None,
            fields: vec![
                ("env".into(), json!("test")),
                ("ecs_cluster".into(), json!("mine")),
                ("env".into(), json!({"stage": 1})),
            ],
        };
        let mut metadata = ecs::Metadata::default();
        for name in ["ecs_cluster", "ecs_task_id", "aws_region"] {
            metadata.values.insert(name.into(), format!("{name} value"));
        }
        let expected = [
            ("ecs_task_id", json!("ecs_task_id value")),
            ("place", json!("{ecs_cluster value/ecs_task_id value")),
            ("env", json!({"stage": 1})),
            ("ecs_cluster", json!("mine")),
        ];
        assert_eq!(fields(&config, &metadata), expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(fields(&Config::default(), &metadata), []);
        let wanted: Vec<&str> = config.wanted().collect();
        assert_eq!(wanted[3..], ["ecs_task_id", "ecs_availability_zone", "ecs_cluster", "ecs_task_id"]);
        for wrong in ["{", "}", "{x}", "a}b", "{ecs_task_id", "{{{"] {
            assert!(Text::parse(wrong).unwrap_err().starts_with("must "), "{wrong}");
        }
        assert_eq!(Text::parse("é{{}}").unwrap().render(&metadata).as_deref(), Some("é{}"));
    }
}
