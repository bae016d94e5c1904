//! The configuration: what a user writes, checked as a whole, becomes one [`Config`] of built values.
//!
//! ```text
//! file (toml, fluent_bit) ─┐
//! flags ───────────────────┼─► document (tree with origins) ─► deserialize ─► raw (typed, optional) ─► build ─► Config
//! --set ───────────────────┘                                        └── every problem, with file and line ──┘
//! ```
//!
//! Nothing is bound, opened for writing or sent before a [`Config`] exists. `${VAR}` is not replaced in TOML.

use std::fs;
use std::path::Path;
use std::time::Duration;

pub mod build;
pub mod deserialize;
pub mod document;
pub mod flags;
pub mod fluent_bit;
pub mod fluentd;
pub mod given;
pub mod problem;
pub mod quantity;
pub mod raw;
pub mod remote;
pub mod toml;

use build::{Builder, Variables};
use document::Node;
use problem::{Problem, Problems};

/// The port of Fluent Forward, as FireLens and Docker's log driver use it.
pub const FORWARD_PORT: u16 = 24224;

/// A valid configuration. Only this module makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Sources; at least one.
    pub sources: Vec<crate::source::Config>,
    /// What is recognised.
    pub parse: crate::process::Parse,
    /// Redaction.
    pub redact: crate::redact::Config,
    /// Fields made from those of access logs.
    pub derive: crate::derive::Config,
    /// Enrichment.
    pub enrich: crate::enrich::Config,
    /// Filters.
    pub filter: crate::filter::Config,
    /// Routing.
    pub route: crate::route::Config,
    /// The journal.
    pub journal: crate::journal::Config,
    /// Where sinks leave what they reject or give up, if anywhere.
    pub dead_letters: Option<crate::sink::dead_letters::Config>,
    /// Sinks; at least one, at most [`crate::journal::block::SINKS_MAX`].
    pub sinks: Vec<crate::sink::Config>,
    /// How long a shutdown may take from the signal on.
    pub grace: Duration,
    /// How long a source must be quiet, after the signal, to be taken as done.
    pub quiet: Duration,
    /// The admin endpoints.
    pub admin: crate::admin::Config,
    /// meshlens's own log.
    pub log: crate::telemetry::logs::Config,
    /// Name of this host or container.
    pub hostname: String,
    /// Things that work but should be known; said at start and by `check`.
    pub warnings: Vec<String>,
}

/// A configuration with the text it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The built values.
    pub config: Config,
    /// What was written in file and flags, merged.
    pub document: Node,
}

/// Reads file and flags and builds the configuration; `variables` looks up the environment.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(file: Option<&Path>, flags: &flags::Flags, variables: Variables<'_>) -> Result<Loaded, Problems> {
    let Some(path) = file else { return load_text(None, flags, variables) };
    let name = path.display().to_string();
    let read = fs::read(path).map_err(|error| error.to_string());
    let text =
        read.and_then(|bytes| String::from_utf8(bytes).map_err(|error| format!("not UTF-8: {}", error.utf8_error())));
    match text {
        Ok(text) => load_text(Some((&name, &text)), flags, variables),
        Err(error) => Err(Problem::general(format!("{name}: cannot be read: {error}")).into()),
    }
}

/// As [`load`], with the file's name and text.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_text(
    file: Option<(&str, &str)>,
    flags: &flags::Flags,
    variables: Variables<'_>,
) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let file = file.map(|(name, text)| toml::parse(name, text, &mut problems));
    let is_whole = problems.is_empty();
    load_tree(file, is_whole, problems, Vec::new(), flags, variables)
}

/// As [`load`], with a file that was read into a tree, and what was found in doing so. What is missing in a tree that is not
/// whole is not said: it may stand in the part that could not be read.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_tree(
    file: Option<Node>,
    is_whole: bool,
    mut problems: Problems,
    mut warnings: Vec<String>,
    flags: &flags::Flags,
    variables: Variables<'_>,
) -> Result<Loaded, Problems> {
    let of_reading = problems.clone();
    let mut document = flags::assemble(file, flags, &mut problems, &mut warnings);
    let mut found = Problems::default();
    let root = deserialize::read::<raw::Root>(&mut document, &mut found);
    // A line that cannot be read leaves a stump behind that means nothing.
    problems.extend_except_same_place(found);
    let Some(root) = root.filter(|_| is_whole) else { return Err(problems.sorted()) };
    let mut builder = Builder::new(&document, variables, Problems::default(), warnings);
    let mut config = builder.build(root);
    let (found, warnings) = (builder.problems, builder.warnings);
    // What was refused in reading may have left a stand-in, which then is wrong too.
    found.except_at_places_of(&of_reading).into_iter().for_each(|problem| problems.push(problem));
    if !problems.is_empty() {
        return Err(problems.sorted());
    }
    config.warnings = warnings;
    Ok(Loaded { config, document })
}
