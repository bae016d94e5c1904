//! The configuration of fluentd, as the ECS agent writes it for `type: fluentd`.

use std::path::Path;

use super::build::Variables;
use super::document::Node;
use super::fluent_bit::Translated;
use super::fluent_bit::files::Files;
use super::fluent_bit::section::origin;
use super::problem::{Problem, Problems};

/// Whether a text is a configuration of fluentd.
pub fn is_fluentd(text: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .any(|line| ["<source", "<match", "<filter"].iter().any(|tag| line.starts_with(tag)))
}

/// Reads and translates.
pub fn read(path: &Path, _files: &Files, _variables: Variables<'_>, _fallback: Option<Node>) -> Translated {
    let name = path.display().to_string();
    let problem = Problem::general(format!("{name}: configurations of fluentd are not read yet"));
    let tree = Node::table(origin(&name.into(), 1));
    Translated { tree, problems: Problems::from(problem), warnings: Vec::new(), is_whole: false }
}
