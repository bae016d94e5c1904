//! The configuration as written: one type for each table, every key optional, nothing judged but types.
//!
//! Doc comments here are the reference: they become the JSON Schema (`meshlens schema`) and `docs/configuration.md`.
//! Defaults and limits are said here and enforced in [`super::build`].

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de};

use super::quantity::{Count, Period, Size};

pub mod derive;
pub mod filter;
pub mod parse;
pub mod redact;
pub mod route;
pub mod sink;
pub mod source;

pub use self::redact::{Application, Detector, FieldClass, ParameterRules, Parameters, Query, Redact};

/// Configuration of meshlens. `${VAR}` is not replaced: values stand as written, and secrets have `…_env` keys that name an environment variable.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "meshlens configuration")]
pub struct Root {
    /// Sources by name: `[source.NAME]`. Default: one `forward` source on 127.0.0.1:24224.
    pub source: Option<Named<source::Source>>,
    /// Sinks by name: `[sink.NAME]`; at most 64. Default: `stdout` and three `file` sinks under `out/`.
    pub sink: Option<Named<sink::Sink>>,
    /// Filters in order: `[[filter]]`, with the keys and the semantics of Fluent Bit. Default: none.
    pub filter: Option<Vec<filter::Filter>>,
    /// Parsers by name, for `parser` filters: `[parser.NAME]`.
    pub parser: Option<Named<filter::Parser>>,
    /// Multiline parsers by name, for `multiline` filters: `[multiline_parser.NAME]`.
    pub multiline_parser: Option<Named<filter::MultilineParser>>,
    /// Rules in order: `[[route]]`; the first that matches decides. Default: every record goes to every sink.
    pub route: Option<Vec<route::Rule>>,
    /// What is recognised.
    pub parse: Option<parse::Parse>,
    /// Redaction, before anything stores or prints a record.
    pub redact: Option<Redact>,
    /// Fields made from those of access logs.
    pub derive: Option<derive::Derive>,
    /// Fields added to every record.
    pub enrich: Option<Enrich>,
    /// What is kept between sources and sinks.
    pub journal: Option<Journal>,
    /// Files for records that sinks reject or give up.
    pub dead_letters: Option<DeadLetters>,
    /// How the process ends.
    pub shutdown: Option<Shutdown>,
    /// Metrics, status and health over HTTP.
    pub admin: Option<Admin>,
    /// meshlens's own log, on stderr.
    pub log: Option<Log>,
    /// Name of this host, for `{hostname}` in templates and the forward handshake. Default: the system's host name.
    pub hostname: Option<String>,
}

/// Fields added to every record.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrich {
    /// Names to add from the ECS task metadata, or `"auto"` (`ecs_cluster`, `ecs_task_arn`, `ecs_task_definition` where the task metadata endpoint is there), or `"none"`. Default: `"auto"`.
    pub ecs: Option<OneOrMany>,
    /// Fields made from the ECS task metadata, by names of your own: `{ az = "{ecs_availability_zone}" }`, with names that `ecs` knows in braces. A field is left out until all that it is made of is known.
    pub metadata: Option<Named<String>>,
    /// Base URL of the task metadata endpoint version 4. Default: the environment variable `ECS_CONTAINER_METADATA_URI_V4`, which ECS sets.
    pub metadata_uri: Option<String>,
    /// Fields with fixed values.
    pub fields: Option<Named<Constant>>,
    /// Fields with values from the environment: `{ field = "VARIABLE" }`. A variable that is not set is left out, with a warning.
    pub env: Option<Named<String>>,
}

/// The journal between sources and sinks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Memory for records that not every sink has delivered yet, as a size. What sinks copy for requests and objects under way is part of it, up to a half. Default: 64MiB. Limits: 1MiB to 64GiB.
    pub memory_bytes_max: Option<Size>,
    /// What happens when there is no room any more. Default: `block`.
    pub when_full: Option<WhenFull>,
    /// When records are written to disk; see docs/reliability.md for what each mode promises. Default: `never`.
    pub persist: Option<Persist>,
    /// Directory of the journal and of the positions of followed files, made if missing; of this process alone. Needed for `overflow` and `always`.
    pub dir: Option<String>,
    /// Room on disk for records that not every sink has delivered yet, as a size. Default: 1GiB. Limits: 4MiB to 256GiB.
    pub disk_bytes_max: Option<Size>,
    /// Space that is left free on the file system, as a size; when there is less, records are kept in memory only. Default: 64MiB, or a tenth of a file system below 640MiB. Limits: 0 to 16TiB.
    pub disk_free_bytes_min: Option<Size>,
    /// Size of one file of the journal, as a size; between a 1024th and a quarter of `disk_bytes_max`. Default: 16MiB, or what these allow. Limits: 1MiB to 1GiB.
    pub segment_bytes: Option<Size>,
}

/// Files for records that sinks reject (too old, too new, expired, refused, oversize) or give up (retries exhausted); without this table they are lost. One JSON object a line, redacted; `meshlens run --input FILE` sends them again, with their time and tag. For `cloudwatch_logs` and `firehose` sinks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetters {
    /// Directory, made if missing. Files are named `SINK-REASON-TIME-….ndjson`, readable by their owner only, and never removed by meshlens.
    pub dir: Option<String>,
    /// Room for all files in the directory, as a size; beyond it records are counted as not kept. Default: 256MiB. Limits: 1MiB to 16TiB.
    pub bytes_max: Option<Size>,
}

/// When records are written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Persist {
    /// Never. With `dir`, only the positions of followed files are.
    Never,
    /// When memory is used up, and at a shutdown that could not deliver.
    Overflow,
    /// Each, before it is acknowledged.
    Always,
}

/// What happens when the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Sources wait, and with them the senders.
    Block,
    /// The oldest records are dropped for the sinks that have not read them, and counted.
    DropOldest,
}

/// How the process ends.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Longest time from SIGTERM or SIGINT to the end, as a duration; keep it below the container's `stopTimeout`. Default: 25s. Limits: 0s to 1h.
    pub grace: Option<Period>,
    /// A source that was quiet this long after the signal is taken as done, as a duration; not more than `grace`. Default: 1s.
    pub quiet: Option<Period>,
}

/// Metrics, status and health over HTTP; see docs/operations.md for the endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port to listen on, or a port alone for 127.0.0.1, or `"off"`. Default: `"127.0.0.1:24220"` inside an ECS task (where the environment variable `ECS_CONTAINER_METADATA_URI_V4` is set), else `"off"`. A default that is taken by another process is left to it, with a warning.
    pub listen: Option<String>,
    /// `/healthz` fails when the oldest record of a sink has waited for longer than this, as a duration; for who wants a container replaced when its destination is out of reach. Default: it never fails. Limits: 1s to 7d, and more than every `batch_timeout` and `object_age_max`.
    pub unhealthy_after: Option<Period>,
    /// Address and port where to answer as Fluent Bit's HTTP server does, for health checks and scrapers that know that one. An address that cannot be had gives a warning. Default: none.
    pub fluent_bit_listen: Option<String>,
    /// When `/api/v1/health` there answers `error`. Default: never, as long as the process answers.
    pub fluent_bit_health: Option<FluentBitHealth>,
}

/// When Fluent Bit's health fails: for more errors, or more failed retries, within the period. An error is a second in which a sink had records refused, a failed retry one in which it gave records up.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FluentBitHealth {
    /// Errors within the period that are still healthy. Default: 5. Limits: 0 to 1000000.
    pub errors_count: Option<Count>,
    /// Failed retries within the period that are still healthy. Default: 5. Limits: 0 to 1000000.
    pub retry_failure_count: Option<Count>,
    /// The period, as a duration. Default: 60s. Limits: 1s to 1h.
    pub period: Option<Period>,
}

/// meshlens's own log, on stderr. It never shows a record's content.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How much is said. The environment variable `MESHLENS_LOG` comes first. Default: `info`.
    pub level: Option<Level>,
    /// How it is written. Default: `text`.
    pub format: Option<LogFormat>,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// A table whose keys are names of the user's choice, in the order written.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        reader.deserialize_map(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        std::collections::BTreeMap::<String, T>::json_schema(generator)
    }
}

/// One text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOrMany {
    /// `"a"`
    One(String),
    /// `["a", "b"]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// The texts.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> de::Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in quotes, or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany::Many(texts))
            }
        }
        reader.deserialize_any(Texts)
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

/// Any value that JSON can hold.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Constant(pub serde_json::Value);

/// The JSON Schema of [`Root`].
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Root).to_value();
    forbid_null(&mut schema);
    schema
}

/// TOML has no null: a key is there or not.
fn forbid_null(schema: &mut serde_json::Value) {
    use serde_json::Value as Json;
    let is_null = |schema: &Json| schema.get("type").is_some_and(|kind| kind == "null");
    match schema {
        Json::Array(list) => list.iter_mut().for_each(forbid_null),
        Json::Object(object) => {
            if let Some(Json::Array(kinds)) = object.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [kind] = kinds.as_slice() {
                    let kind = kind.clone();
                    object.insert("type".into(), kind);
                }
            }
            if let Some(Json::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| !is_null(choice));
                if let [Json::Object(choice)] = choices.as_slice() {
                    let choice = choice.clone();
                    object.remove("anyOf");
                    object.extend(choice);
                }
            }
            object.values_mut().for_each(forbid_null);
        }
        _ => {}
    }
}
