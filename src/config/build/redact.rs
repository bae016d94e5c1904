//! `[redact]`.

use super::Builder;
use crate::config::document::Path;
use crate::config::raw;
use crate::redact::{self, Secret};

/// A name of a header is not longer than this, in bytes.
const HEADER_BYTES_MAX: usize = 64;

impl Builder<'_> {
    pub(super) fn redact(&mut self, raw: raw::Redact) -> redact::Config {
        let table = Path::root().key("redact");
        let query = raw.query.unwrap_or(raw::Query::Strip);
        let (kept, rules) = match raw.parameters {
            Some(raw::Parameters::Kept(names)) => (Some(names), None),
            Some(raw::Parameters::Rules(rules)) => (None, Some(rules)),
            None => (None, None),
        };
        if query != raw::Query::Keep && kept.is_some() {
            self.refuse(&table.key("parameters"), "must be a table, or not be set, unless `query` is \"keep\"");
        }
        let mut parameters = self.parameter_rules(&table, rules);
        let hashes = query == raw::Query::Hash || !parameters.hash.is_empty();
        let key = self.hash_key(&table, hashes, raw.hash_key, raw.hash_key_env);
        let query = match query {
            raw::Query::Strip => redact::Policy::Strip,
            raw::Query::Mask => redact::Policy::Mask,
            raw::Query::Keep => redact::Policy::Keep(self.kept_parameters(&table, kept, &parameters)),
            raw::Query::Hash => redact::Policy::Hash { key: key.clone().unwrap_or(Secret(Box::default())) },
        };
        parameters.key = key.filter(|_| !parameters.hash.is_empty());
        redact::Config {
            query,
            parameters,
            application: match raw.application {
                None | Some(raw::Application::Scrub) => redact::Application::Scrub,
                Some(raw::Application::Pass) => redact::Application::Pass,
            },
            fields: self.fields(&table, raw.fields.unwrap_or_default()),
            // Whoever has the formats says.
            operators: Vec::new(),
            headers: self.headers(&table, raw.headers.unwrap_or_default()),
            matrix_parameters: raw.matrix_parameters.unwrap_or(false),
            detectors: raw.detectors.unwrap_or_default().into_iter().map(detector).collect(),
        }
    }

    fn hash_key(
        &mut self,
        table: &Path,
        hashes: bool,
        given: Option<String>,
        variable: Option<String>,
    ) -> Option<Secret> {
        let is_set = given.is_some() || variable.is_some();
        if !hashes {
            if is_set {
                let key = if given.is_some() { "hash_key" } else { "hash_key_env" };
                self.refuse(&table.key(key), "must not be set unless `query` is \"hash\", or `parameters.hash` is set");
            }
            return None;
        }
        let key = self.secret(table, "hash_key", given, variable);
        if key.is_none() && !is_set && !self.is_set(&table.key("hash_key")) {
            self.refuse(&table.key("hash_key_env"), "must name the environment variable with the key of the hash");
        }
        key
    }

    fn kept_parameters(&mut self, table: &Path, kept: Option<Vec<String>>, rules: &redact::Parameters) -> Vec<String> {
        let has_rules = *rules != redact::Parameters::default();
        let is_list = kept.is_some();
        let kept = kept.unwrap_or_default();
        let path = table.key("parameters");
        if kept.iter().any(String::is_empty) {
            self.refuse(&path, "must be a list of parameter names, none of them empty");
        } else if is_list && kept.is_empty() {
            self.refuse(&path, "must list at least one parameter; leave the key out to keep all");
        } else if kept.is_empty() && !has_rules && !self.is_set(&path) {
            self.warn("redact.query = \"keep\" without `parameters`: query strings are not redacted");
        }
        kept
    }

    fn parameter_rules(&mut self, table: &Path, rules: Option<raw::ParameterRules>) -> redact::Parameters {
        let rules = rules.unwrap_or_default();
        let table = table.key("parameters");
        let mut seen: Vec<(String, &str)> = Vec::new();
        let mut list = |key: &'static str, names: Option<Vec<String>>| {
            let names = names.unwrap_or_default();
            if names.iter().any(String::is_empty) {
                self.refuse(&table.key(key), "must be a list of parameter names, none of them empty");
            }
            for name in names.iter().map(|name| name.to_ascii_lowercase()) {
                match seen.iter().find(|(other, place)| *other == name && *place != key) {
                    Some((_, place)) => {
                        self.refuse(&table.key(key), format!("must not list {name:?}, which is in `{place}` as well"));
                    }
                    None => seen.push((name, key)),
                }
            }
            names
        };
        redact::Parameters {
            strip: list("strip", rules.strip),
            mask: list("mask", rules.mask),
            hash: list("hash", rules.hash),
            keep: list("keep", rules.keep),
            key: None,
        }
    }

    fn fields(&mut self, table: &Path, raw: raw::Named<raw::FieldClass>) -> Vec<(String, redact::FieldClass)> {
        if raw.0.iter().any(|(name, _)| name.is_empty()) {
            self.refuse(&table.key("fields"), "must name fields, none of them empty");
        }
        raw.0.into_iter().map(|(name, class)| (name, field_class(class))).collect()
    }

    fn headers(&mut self, table: &Path, names: Vec<String>) -> Vec<String> {
        let is_name = |name: &String| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=HEADER_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_letter)
        };
        if !names.iter().all(is_name) {
            self.refuse(
                &table.key("headers"),
                format!(
                    "must be a list of header names: letters, digits, `-` and `_`, 1 to {HEADER_BYTES_MAX} of them"
                ),
            );
        }
        names
    }
}

fn field_class(raw: raw::FieldClass) -> redact::FieldClass {
    match raw {
        raw::FieldClass::Text => redact::FieldClass::Text,
        raw::FieldClass::Url => redact::FieldClass::Url,
        raw::FieldClass::RequestLine => redact::FieldClass::RequestLine,
        raw::FieldClass::Authority => redact::FieldClass::Authority,
        raw::FieldClass::Query => redact::FieldClass::Query,
        raw::FieldClass::Parameter => redact::FieldClass::Parameter,
        raw::FieldClass::Secret => redact::FieldClass::Secret,
    }
}

fn detector(raw: raw::Detector) -> redact::Detector {
    match raw {
        raw::Detector::Email => redact::Detector::Email,
        raw::Detector::Bearer => redact::Detector::Bearer,
        raw::Detector::Jwt => redact::Detector::Jwt,
        raw::Detector::AwsKey => redact::Detector::AwsKey,
        raw::Detector::Card => redact::Detector::Card,
    }
}
