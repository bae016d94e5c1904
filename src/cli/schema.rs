//! `meshlens schema`: the JSON Schema of the configuration, for editors and other tools.

use super::{Exit, print, say};

/// Prints the schema.
pub fn schema() -> Exit {
    match serde_json::to_string_pretty(&crate::config::raw::schema()) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            say(format_args!("meshlens: schema: {error}"));
            Exit::Failure
        }
    }
}
