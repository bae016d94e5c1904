//! What every notation of a Fluent Bit configuration comes down to: sections with entries, each with its line.

use std::sync::Arc;

use crate::config::document::{Node, Origin};

/// A section: `[OUTPUT]` and what stands below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Upper case: `INPUT`, `SERVICE`.
    pub name: String,
    /// Where its head stands.
    pub origin: Origin,
    /// What stands below it.
    pub entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Lower case.
    pub key: String,
    /// As it stands in the file; variables may be secrets, so that messages show this.
    pub written: String,
    /// With variables replaced.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// All files, read.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    /// In the order read.
    pub sections: Vec<Section>,
    /// `@SET name=value`, in order.
    pub set: Vec<(String, String)>,
    /// TOML files of ours that were included.
    pub toml: Vec<Node>,
}

impl Section {
    /// The last entry of this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// Its value.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|entry| entry.value.as_str())
    }

    /// The plugin's name.
    pub fn plugin(&self) -> &str {
        self.value("name").unwrap_or_default()
    }

    /// `[OUTPUT] s3`, for messages.
    pub fn title(&self) -> String {
        match self.get("name") {
            Some(name) => format!("[{}] {}", self.name, name.written),
            None => format!("[{}]", self.name),
        }
    }
}

/// `file:line`.
pub fn place(origin: &Origin) -> String {
    match origin {
        Origin::File { name, line } => format!("{name}:{line}"),
        Origin::Flag { text, .. } => text.to_string(),
    }
}

/// A line of a file.
pub fn origin(name: &Arc<str>, line: usize) -> Origin {
    Origin::File { name: name.clone(), line }
}
