//! The configuration of Fluent Bit, as the ECS agent writes it and users include it, as the tree that our TOML makes.
//!
//! ```text
//! /fluent-bit/etc/fluent-bit.conf ─► classic, yaml ─► sections ─► variables ─► translate ─► document (tree with origins)
//!        @INCLUDE, Parsers_File ─┘                                                │
//!        @INCLUDE of a TOML ───────────────────────────────────────────► merge ───┘
//! ```
//!
//! Each value keeps the file and line of Fluent Bit's key, so that what [`crate::config::build`] says of it leads there. What
//! becomes of each key is data, in [`table`]. What we do not serve is never an error while another output does: it is named,
//! with what happens to its records.
//!
//! # What is set beside what the file says
//!
//! Records pass as Fluent Bit would deliver them, but for access logs: `redact.application = "pass"`,
//! `parse.application = false`, `enrich.ecs = "none"` (the generated `record_modifier` adds those fields). A full memory drops
//! the oldest records (`journal.when_full = "drop_oldest"`): a log driver that has to wait loses what it holds when its
//! container ends, and one destination's trouble would be that of all. A TOML that is included changes each of these.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::Variables;
use super::document::{Node, Value};
use super::problem::{Problems, closest};

pub mod classic;
pub mod files;
pub mod filters;
pub mod init;
pub mod inputs;
pub mod merge;
pub mod metadata;
pub mod outputs;
pub mod section;
pub mod service;
pub mod table;
pub mod template;
pub mod translate;
pub mod values;
pub mod variables;
pub mod yaml;

use classic::Reader;
use files::Files;
use section::{Section, origin, place};
use translate::Translation;

/// What stands for a file's name where the text is the command line's.
const COMMAND_LINE: &str = "command line";

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The files, in order; what the first names relatively, it names beside itself.
    pub files: Vec<PathBuf>,
    /// Text that stands before them: what Fluent Bit's command line says.
    pub text: String,
    /// Files with parsers, as `-R` names them.
    pub parsers: Vec<PathBuf>,
    /// Where files come from.
    pub from: Files,
    /// The sink for outputs that we do not know.
    pub fallback: Option<Node>,
}

/// What came of it.
#[derive(Debug)]
pub struct Translated {
    /// The configuration; good only if there are no problems.
    pub tree: Node,
    /// What is wrong.
    pub problems: Problems,
    /// What is well but should be known.
    pub warnings: Vec<String>,
    /// All of it could be read.
    pub is_whole: bool,
}

/// Reads and translates.
pub fn read(request: &Request, variables: Variables<'_>) -> Translated {
    let mut reader = Reader::new(&request.from, variables);
    request.files.iter().for_each(|path| reader.file(path));
    if !request.text.is_empty() {
        let after = std::mem::take(&mut reader.read.sections);
        reader.text(Path::new(COMMAND_LINE), &request.text);
        reader.read.sections.extend(after);
    }
    let given = reader.read.sections.len();
    request.parsers.iter().for_each(|path| reader.file(path));
    let mut parsers = reader.read.sections.split_off(given);
    replace_variables(&mut reader, variables);
    // Those of the command line come first, as in Fluent Bit.
    parsers.extend(named_files(&mut reader));
    parsers.retain(|section| section.name.ends_with("PARSER"));
    let set = reader.read.set.clone();
    variables::replace_in(&mut parsers, &set, variables, &mut reader.warnings);

    // A line that is no key says nothing of others; a TOML with one may.
    let is_whole = !reader.has_broken_toml;
    let name = request.files.first().map_or(COMMAND_LINE.into(), |path| path.display().to_string());
    let name: Arc<str> = name.into();
    let mut translation = Translation::new(origin(&name, 1));
    std::mem::swap(&mut translation.problems, &mut reader.problems);
    std::mem::swap(&mut translation.warnings, &mut reader.warnings);
    parsers.extend(reader.read.sections.iter().filter(|section| section.name.ends_with("PARSER")).cloned());
    let sections = &reader.read.sections;
    others(&mut translation, sections);
    let service = service::service(&mut translation, sections);
    service::parsers(&mut translation, &parsers);
    inputs::inputs(&mut translation, sections, &service);
    filters::filters(&mut translation, sections);
    service::keep_used_parsers(&mut translation.tree);
    outputs::outputs(&mut translation, sections, &service, request.fallback.clone());
    defaults(&mut translation);
    for tree in reader.read.toml.drain(..) {
        merge::toml(&mut translation, tree);
    }
    outputs::refuse_if_useless(&mut translation, sections);
    let Translation { tree, problems, warnings, .. } = translation;
    Translated { tree, problems, warnings, is_whole }
}

/// From the environment, else from what the agent wrote of the task, else from the task's metadata.
fn replace_variables(reader: &mut Reader<'_>, variables: Variables<'_>) {
    let generated = variables::of_generated(&reader.read);
    let known = |name: &str| {
        let value = variables(name).filter(|value| !value.is_empty());
        value.or_else(|| generated.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    };
    let is_own = |name: &String| reader.read.set.iter().any(|(own, _)| own == name);
    let used = variables::used(&reader.read);
    let is_missing =
        |name: &&String| variables::TASK.contains(&name.as_str()) && known(name).is_none() && !is_own(name);
    let missing: Vec<&String> = used.iter().filter(is_missing).collect();
    let mut fetched = Vec::new();
    if !missing.is_empty()
        && let Some(uri) = variables("ECS_CONTAINER_METADATA_URI_V4").filter(|uri| !uri.is_empty())
    {
        match metadata::task(&uri) {
            Ok(task) => fetched = task,
            Err(error) => {
                let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
                reader.warnings.push(format!("{} is not known: {uri}/task: {error}", names.join(", ")));
            }
        }
    }
    let all = |name: &str| {
        known(name)
            .or_else(|| fetched.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
            .or_else(|| (name == "HOSTNAME").then(|| super::build::system_hostname(variables)))
    };
    let set = reader.read.set.clone();
    variables::replace_in(&mut reader.read.sections, &set, &all, &mut reader.warnings);
}

/// The files that `[SERVICE]` names. Their sections, without those of others.
fn named_files(reader: &mut Reader<'_>) -> Vec<Section> {
    let services = reader.read.sections.iter().filter(|section| section.name == "SERVICE");
    let entries: Vec<_> = services.flat_map(|section| section.entries.iter().cloned()).collect();
    let given = reader.read.sections.len();
    for entry in &entries {
        match entry.key.as_str() {
            "parsers_file" => {
                values::words(&entry.value).for_each(|path| reader.named(path, &entry.origin, "Parsers_File"))
            }
            // So that its tasks are named.
            "streams_file" if reader.finds(&entry.value, &entry.origin) => {
                reader.named(&entry.value, &entry.origin, "Streams_File");
            }
            "streams_file" => reader.warnings.push(format!(
                "{}: Streams_File {}: there is no such file; stream processing is not supported",
                place(&entry.origin),
                entry.written
            )),
            _ => {}
        }
    }
    let named = reader.read.sections.split_off(given);
    let (tasks, named) = named.into_iter().partition(|section: &Section| section.name == "STREAM_TASK");
    reader.read.sections.extend::<Vec<_>>(tasks);
    named
}

/// Sections that we do not serve.
fn others(translation: &mut Translation, sections: &[Section]) {
    for section in sections {
        let text = match section.name.as_str() {
            "SERVICE" | "INPUT" | "FILTER" | "OUTPUT" | "PARSER" | "MULTILINE_PARSER" => continue,
            "STREAM_TASK" => "stream processing is not supported: no records come from this task; `rewrite_tag` gives records another tag".to_owned(),
            "PLUGINS" => "plugins cannot be loaded; the AWS outputs are built in".to_owned(),
            "UPSTREAM" | "NODE" | "CUSTOM" => "not supported, ignored".to_owned(),
            name => match closest(name, &classic::SECTIONS) {
                Some(near) => format!("unknown section, ignored; did you mean [{near}]?"),
                None => "unknown section, ignored".to_owned(),
            },
        };
        translation.warnings.push(format!("{}: {}: {text}", place(&section.origin), section.title()));
    }
}

/// What is set beside what the file says.
fn defaults(translation: &mut Translation) {
    let origin = translation.tree.origin.clone();
    let text = |text: &str| Node::text(text, origin.clone());
    let is_set = |translation: &Translation, table: &str, key: &str| {
        translation.tree.get(table).is_some_and(|table| table.get(key).is_some())
    };
    if !is_set(translation, "parse", "application") {
        translation.set("parse.application", Node::new(Value::Bool(false), origin.clone()));
    }
    translation.set("redact.application", text("pass"));
    if !is_set(translation, "enrich", "ecs") {
        translation.set("enrich.ecs", text("none"));
    }
    translation.set("journal.when_full", text("drop_oldest"));
}
