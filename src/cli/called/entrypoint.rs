//! `/entrypoint.sh`: what the image runs. Without arguments, the router of FireLens; with arguments, what they name.
//!
//! | arguments | what runs |
//! |---|---|
//! | none | `meshlens run`: the file of `MESHLENS_CONFIG`, else what the ECS agent mounts |
//! | a command or option of meshlens (`run …`, `check …`, `--version`) | meshlens |
//! | other options (`-c FILE`) | Fluent Bit's command line |
//! | a path or program (`/fluent-bit/bin/fluent-bit -c FILE`, `sh -c …`) | that program, in place of this one |
//!
//! So `command` of a task definition works as in an image without an entry point, and as in one that has a router there.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::CommandFactory as _;

use crate::cli::{Cli, fluent_bit, print, say};

/// Does what the arguments say.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let given = arguments.get(1..).unwrap_or_default();
    match classify(given) {
        Entry::Router => router(),
        Entry::Meshlens => crate::cli::meshlens(arguments),
        Entry::FluentBit => fluent_bit::main(arguments),
        Entry::Program(program) => execute(program, given.get(1..).unwrap_or_default()),
    }
}

#[derive(Debug, PartialEq)]
enum Entry<'a> {
    Router,
    Meshlens,
    FluentBit,
    Program(&'a OsStr),
}

fn classify(given: &[OsString]) -> Entry<'_> {
    let Some(first) = given.first() else { return Entry::Router };
    let text = first.to_string_lossy();
    if text == "help" || Cli::command().find_subcommand(&*text).is_some() {
        return Entry::Meshlens;
    }
    match &*text {
        "--help" | "--version" | "-h" | "-V" => Entry::Meshlens,
        option if option.starts_with('-') => Entry::FluentBit,
        _ => Entry::Program(first),
    }
}

/// The router of FireLens.
fn router() -> ExitCode {
    // Scripts look for a line that ends in the version at the start of the log.
    print(&format!("meshlens Container Image Version {}\n", env!("CARGO_PKG_VERSION")));
    crate::cli::meshlens(&["meshlens", "run"].map(OsString::from))
}

/// Becomes the program. 126 and 127 are what a shell ends with.
fn execute(program: &OsStr, arguments: &[OsString]) -> ExitCode {
    let error = Command::new(program).args(arguments).exec();
    say(format_args!("meshlens: cannot run {}: {error}", program.to_string_lossy()));
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let given: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        match classify(&given) {
            Entry::Program(program) => program.to_string_lossy().into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_first_argument_says_what_runs() {
        assert_eq!(of(""), "Router");
        for text in ["run --config x", "check", "healthcheck --live", "help", "--version", "-h"] {
            assert_eq!(of(text), "Meshlens", "{text}");
        }
        assert_eq!(of("-c /my.conf"), "FluentBit");
        assert_eq!(of("/fluent-bit/bin/fluent-bit -c /my.conf"), "/fluent-bit/bin/fluent-bit");
        assert_eq!(of("sh -c true"), "sh");
    }

    #[test]
    fn what_cannot_be_run_ends_as_in_a_shell() {
        let code = execute(OsStr::new("/no/such/program"), &[]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(127)));
    }
}
