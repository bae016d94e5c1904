//! The configuration: what a user writes, checked as a whole, becomes one [`Config`] of built values.

use std::time::Duration;

pub mod flags;
pub mod toml;

/// A valid configuration. Only this module makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Sources; at least one.
    pub sources: Vec<crate::source::Config>,
    /// Redaction.
    pub redact: crate::redact::Config,
    /// Enrichment.
    pub enrich: crate::enrich::Config,
    /// Routing.
    pub route: crate::route::Config,
    /// The journal.
    pub journal: crate::journal::Config,
    /// Sinks; at least one, at most [`crate::journal::block::SINKS_MAX`].
    pub sinks: Vec<crate::sink::Config>,
    /// How long a shutdown may take from the signal on.
    pub grace: Duration,
    /// How long a source must be quiet, after the signal, to be taken as done.
    pub quiet: Duration,
    /// Name of this host or container.
    pub hostname: String,
    /// Things that work but should be known; said at start and by `check`.
    pub warnings: Vec<String>,
}
