//! `[redact]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::Named;

/// Redaction, before anything stores or prints a record; see docs/redaction.md.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redact {
    /// What happens to a query string. Default: `strip`.
    pub query: Option<Query>,
    /// With `keep`, a list: the parameters that are kept, with their values. Default: all, which turns redaction off but for what is configured below. With any `query`, a table `[redact.parameters]`.
    pub parameters: Option<Parameters>,
    /// With `hash`, of queries or of parameters: the key of the hash; never printed. Better given by `hash_key_env`.
    pub hash_key: Option<String>,
    /// With `hash`: the environment variable that holds the key.
    pub hash_key_env: Option<String>,
    /// What happens to lines that are neither access logs nor Envoy's own. Default: `scrub`; `pass` where a FireLens configuration is run.
    pub application: Option<Application>,
    /// What fields hold, by name in any case, in records of every kind, nested ones too: `{ ssn = "secret", target = "url" }`; one of `text`, `url`, `request_line`, `authority`, `query`, `parameter`, `secret`. It counts before what the name would mean otherwise.
    pub fields: Option<Named<FieldClass>>,
    /// Headers whose values are secrets, beside `cookie`, `authorization` and those that docs/redaction.md lists.
    pub headers: Option<Vec<String>>,
    /// Whether matrix parameters (`;k=v` in paths) are redacted as queries are. Default: false.
    pub matrix_parameters: Option<bool>,
    /// Secrets to look for by their own form: `email`, `bearer`, `jwt`, `aws_key`, `card`. Default: none.
    pub detectors: Option<Vec<Detector>>,
}

/// What happens to lines that are neither access logs nor Envoy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Application {
    /// Redacted as text.
    Scrub,
    /// Passed on byte for byte, unless anything on the same stream (tag of a connection) looked like Envoy's before, or the tag begins with `ecs-service-connect`: such a stream is redacted.
    Pass,
}

/// What happens to a query string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// Removed, from the `?` on.
    Strip,
    /// Kept: the parameters listed in `parameters` only, or all.
    Keep,
    /// Names stay, values become `***`.
    Mask,
    /// Names stay, values become a keyed hash, so that equal values stay equal.
    Hash,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldClass {
    /// Anything.
    Text,
    /// A URL or a path.
    Url,
    /// Method, URL and protocol.
    RequestLine,
    /// Host and port, perhaps with user information.
    Authority,
    /// A query without its `?`.
    Query,
    /// The value of one query parameter.
    Parameter,
    /// A value that nobody may see.
    Secret,
}

/// A form of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detector {
    /// Addresses of e-mail.
    Email,
    /// Tokens behind the word `Bearer`.
    Bearer,
    /// JSON web tokens.
    Jwt,
    /// Access keys of AWS.
    AwsKey,
    /// Numbers of payment cards.
    Card,
}

/// `parameters`: a list, or a table.
#[derive(Clone, Debug)]
pub enum Parameters {
    /// `["page", "sort"]`
    Kept(Vec<String>),
    /// `[redact.parameters]`
    Rules(ParameterRules),
}

/// What happens to single parameters, whatever `query` says; the others follow `query`. Names are compared in any case and decoded, those of `keep` to the letter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterRules {
    /// Parameters that are removed.
    pub strip: Option<Vec<String>>,
    /// Parameters whose values become `***`.
    pub mask: Option<Vec<String>>,
    /// Parameters whose values become a keyed hash; needs `redact.hash_key_env`.
    pub hash: Option<Vec<String>>,
    /// Parameters that are kept, with their values.
    pub keep: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct ListOrTable;
        impl<'de> de::Visitor<'de> for ListOrTable {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of parameter names, or a table of such lists")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Parameters, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Parameters::Kept(names))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Parameters, A::Error> {
                ParameterRules::deserialize(de::value::MapAccessDeserializer::new(map)).map(Parameters::Rules)
            }
        }
        reader.deserialize_any(ListOrTable)
    }
}

impl JsonSchema for Parameters {
    fn schema_name() -> Cow<'static, str> {
        "Parameters".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rules = generator.subschema_for::<ParameterRules>();
        schemars::json_schema!({
            "type": ["array", "object"],
            "anyOf": [{ "type": "array", "items": { "type": "string" } }, rules]
        })
    }
}
