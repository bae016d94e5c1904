//! `[enrich]`: names from task metadata, fixed fields, fields from the environment.

use serde_json::Value as Json;

use super::Builder;
use crate::config::document::{Node, Path, Value};
use crate::config::problem::must_be_one_of;
use crate::config::raw;
use crate::enrich::{Config, Text, ecs};

/// Set by ECS in every container: the base URL of the task metadata endpoint.
pub const METADATA_VARIABLE: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// What FireLens itself adds.
const FIRELENS_NAMES: [&str; 3] = ["ecs_cluster", "ecs_task_arn", "ecs_task_definition"];

impl Builder<'_> {
    pub(super) fn enrich(&mut self, raw: raw::Enrich) -> Config {
        let table = Path::root().key("enrich");
        if let Some(uri) = &raw.metadata_uri {
            self.check_url(&table.key("metadata_uri"), uri);
        }
        let metadata_uri =
            raw.metadata_uri.or_else(|| (self.variables)(METADATA_VARIABLE).filter(|uri| !uri.is_empty()));
        let names = self.ecs_names(&table.key("ecs"), raw.ecs.as_ref(), metadata_uri.is_some());
        let mut metadata: Vec<(String, Text)> = Vec::new();
        for (name, text) in raw.metadata.unwrap_or_default().0 {
            let path = table.key("metadata").key(&name);
            self.check_field(&path, &name, &names, &[]);
            match Text::parse(&text) {
                Ok(text) => metadata.push((name, text)),
                Err(must) => self.refuse(&path, must),
            }
        }
        if !metadata.is_empty() && metadata_uri.is_none() {
            self.warn_of_no_endpoint(&table.key("metadata"));
        }
        let mut fields: Vec<(String, Json)> = Vec::new();
        for (name, value) in raw.fields.unwrap_or_default().0 {
            let path = table.key("fields").key(&name);
            self.check_field(&path, &name, &names, &fields);
            if self.tree.at(&path).is_some_and(holds_no_json) {
                self.refuse(&path, "must be a value that JSON can hold: no date, `inf` or `nan`");
            }
            fields.push((name, value.0));
        }
        for (name, variable) in raw.env.unwrap_or_default().0 {
            let path = table.key("env").key(&name);
            self.check_field(&path, &name, &names, &fields);
            if variable.is_empty() || variable.contains(['=', '\0']) {
                self.refuse(&path, "must be the name of an environment variable");
                continue;
            }
            match (self.variables)(&variable) {
                Some(value) => fields.push((name, Json::from(value))),
                None => {
                    self.warn(format!("{path}: the environment variable {variable} is not set; the field is left out"))
                }
            }
        }
        Config { ecs: names, metadata, metadata_uri, fields }
    }

    fn check_field(&mut self, path: &Path, name: &str, ecs: &[String], fields: &[(String, Json)]) {
        if name.is_empty() {
            self.refuse(path, "must have the name of a field as its key");
        }
        if ecs.iter().any(|other| other == name) {
            self.refuse(path, "must not be a name that `ecs` lists too");
        }
        if fields.iter().any(|(other, _)| other == name) {
            self.refuse(path, "must not be a name that `fields` holds too");
        }
    }

    fn warn_of_no_endpoint(&mut self, path: &Path) {
        self.warn(format!(
            "{path}: there is no task metadata endpoint ({METADATA_VARIABLE} is not set); names that it would give are left out"
        ));
    }

    fn ecs_names(&mut self, path: &Path, raw: Option<&raw::OneOrMany>, has_endpoint: bool) -> Vec<String> {
        let names = match raw {
            None => return if has_endpoint { FIRELENS_NAMES.map(str::to_owned).to_vec() } else { Vec::new() },
            Some(raw::OneOrMany::One(word)) => match word.as_str() {
                "auto" => return self.ecs_names(path, None, has_endpoint),
                "none" => return Vec::new(),
                word => {
                    let must = must_be_one_of(word, &["auto", "none"]);
                    self.refuse(path, format!("{must}, or a list of names"));
                    return Vec::new();
                }
            },
            Some(raw::OneOrMany::Many(names)) => names,
        };
        let places = self.kept_places(path);
        for (name, place) in names.iter().zip(places) {
            if !ecs::NAMES.contains(&name.as_str()) {
                self.refuse(&path.index(place), must_be_one_of(name, ecs::NAMES));
            }
        }
        if !names.is_empty() && !has_endpoint {
            self.warn_of_no_endpoint(path);
        }
        let mut unique: Vec<String> = Vec::with_capacity(names.len());
        for name in names {
            if !unique.contains(name) {
                unique.push(name.clone());
            }
        }
        unique
    }
}

fn holds_no_json(node: &Node) -> bool {
    match &node.value {
        Value::Datetime(_) => true,
        Value::Float(number) => !number.is_finite(),
        Value::List(list) => list.iter().any(holds_no_json),
        Value::Table(entries) => entries.iter().any(|(_, node)| holds_no_json(node)),
        Value::Text(_) | Value::Integer(_) | Value::Bool(_) => false,
    }
}
