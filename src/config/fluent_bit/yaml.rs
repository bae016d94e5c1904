//! The YAML format. Not read yet.

use std::path::Path;

use super::classic::Reader;
use crate::config::problem::Problem;

/// Refuses a YAML configuration, and says what to do.
pub fn read(reader: &mut Reader<'_>, path: &Path, _text: &str) {
    reader.problems.push(Problem::general(format!(
        "{}: YAML configurations of Fluent Bit are not read: write the classic format, or TOML of meshlens",
        path.display()
    )));
}
