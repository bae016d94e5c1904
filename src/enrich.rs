//! Enrichment: fields that are the same for every record of the process, as one pre-serialized JSON fragment.

pub mod ecs;

/// What to add to every record.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// Names to add from ECS task metadata, of those in [`ecs::NAMES`]; what is not known (yet) is left out.
    pub ecs: Vec<String>,
    /// Base URL of the task metadata endpoint v4; none = no metadata.
    pub metadata_uri: Option<String>,
    /// Fields with fixed values, in order. Values from the environment are resolved into this list at start.
    pub fields: Vec<(String, serde_json::Value)>,
}
