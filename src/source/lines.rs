//! Lines of stdin or of a file; a file may be followed as it grows, through rotation by rename and by truncation.

use std::path::PathBuf;

/// Where lines come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Standard input, to its end.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// A lines source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where lines come from.
    pub input: Input,
    /// Go on after the end of the file, until shutdown.
    pub follow: bool,
    /// Start at the end of a followed file instead of its beginning.
    pub from_end: bool,
    /// Tag of the records.
    pub tag: String,
    /// Longer lines are cut to this many bytes, and counted as truncated.
    pub line_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { input: Input::Stdin, follow: false, from_end: false, tag: "stdin".into(), line_bytes_max: 1 << 20 }
    }
}
