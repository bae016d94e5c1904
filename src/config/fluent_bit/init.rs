//! Which configuration a FireLens container has: the one that the agent mounts, and what the init image's variables add.
//!
//! | variable | |
//! |---|---|
//! | `aws_fluent_bit_init_file_…` | a file: one that has a parser is read for its parsers, others as if included |
//! | `aws_fluent_bit_init_s3_…` | the same, from S3: the ARN of an object |
//! | `aws_fluent_bit_init_ignore_firelens_config` | the generated file is left out |

use std::path::{Path, PathBuf};

use super::Request;
use super::files::Files;
use super::values;

/// Where the agent mounts the configuration for `type: fluentbit`.
pub const FLUENT_BIT: &str = "/fluent-bit/etc/fluent-bit.conf";
/// And for `type: fluentd`.
pub const FLUENTD: &str = "/fluentd/etc/fluent.conf";
/// Below this directory absolute paths are looked for first; for tests.
pub const ROOT_VARIABLE: &str = "MESHLENS_FIRELENS_ROOT";

const FILE: &str = "aws_fluent_bit_init_file";
const S3: &str = "aws_fluent_bit_init_s3";
const IGNORE: &str = "aws_fluent_bit_init_ignore_firelens_config";

/// What the variables ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// Files, and ARNs of objects, in the order of the environment.
    pub places: Vec<PathBuf>,
    /// The generated file is left out.
    pub ignores_generated: bool,
}

impl Init {
    /// From the environment, in its order.
    pub fn from_environment(environment: &[(String, String)]) -> Self {
        let mut init = Self::default();
        for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            let name = name.to_ascii_lowercase();
            if name == IGNORE {
                init.ignores_generated = values::boolean(value) != Some(false);
            } else if name.starts_with(FILE) || name.starts_with(S3) {
                init.places.push(PathBuf::from(value));
            }
        }
        init
    }

    /// Adds files to what is read.
    pub fn add(request: &mut Request, path: PathBuf, text: &str) {
        if text.contains("[PARSER]") || text.contains("[MULTILINE_PARSER]") {
            request.parsers.push(path);
        } else {
            request.files.push(path);
        }
    }
}

/// The generated file, if this is a FireLens container.
pub fn generated(files: &Files) -> Option<&'static Path> {
    [FLUENT_BIT, FLUENTD].into_iter().map(Path::new).find(|path| files.place(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_init_image_in_any_case_and_in_order() {
        let environment = [
            ("aws_fluent_bit_init_S3_1", "arn:aws:s3:::b/k.conf"),
            ("PATH", "/bin"),
            ("aws_fluent_bit_init_file_2", "/a.conf"),
            ("aws_fluent_bit_init_ignore_firelens_config", "true"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let init = Init::from_environment(&environment);
        assert_eq!(init.places, [Path::new("arn:aws:s3:::b/k.conf"), Path::new("/a.conf")]);
        assert!(init.ignores_generated);
    }
}
