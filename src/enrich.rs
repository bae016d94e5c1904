//! Enrichment: fields that are the same for every record of the process, as one pre-serialized JSON fragment.
//!
//! The process stage asks for [`fields`] when it starts and each time [`ecs::watch`] brings news, never for a record.

use std::collections::BTreeMap;

use serde_json::Value;

pub mod ecs;

/// What to add to every record.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// Names to add from ECS task metadata, of those in [`ecs::NAMES`]; what is not known (yet) is left out.
    pub ecs: Vec<String>,
    /// Base URL of the task metadata endpoint v4; none = no metadata.
    pub metadata_uri: Option<String>,
    /// Fields with fixed values, in order. Values from the environment are resolved into this list at start.
    pub fields: Vec<(String, Value)>,
}

/// The fields to add at this moment, each name once: the names of [`Config::ecs`] that are known, in the order
/// given there, then the fixed ones. A fixed value takes the place of metadata of the same name; of equal fixed
/// names the last counts.
pub fn fields(config: &Config, metadata: &ecs::Metadata) -> Vec<(String, Value)> {
    let fixed: BTreeMap<&str, &Value> = config.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut fields: Vec<(String, Value)> = Vec::with_capacity(config.ecs.len() + fixed.len());
    let mut add = |name: &str, value: Value| {
        if fields.iter().all(|(known, _)| known != name) {
            fields.push((name.to_owned(), value));
        }
    };
    for name in &config.ecs {
        if let (false, Some(value)) = (fixed.contains_key(name.as_str()), metadata.get(name)) {
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
        let expected =
            [("ecs_task_id", json!("ecs_task_id value")), ("env", json!({"stage": 1})), ("ecs_cluster", json!("mine"))];
        assert_eq!(fields(&config, &metadata), expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(fields(&Config::default(), &metadata), []);
    }
}
