//! `meshlens completions`: a shell's completions.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit, print, say};

/// Which shell.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The shell, e.g. for bash: meshlens completions bash > /etc/bash_completion.d/meshlens
    pub shell: Shell,
}

/// Prints the completions.
pub fn completions(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "meshlens", &mut script);
    match String::from_utf8(script) {
        Ok(script) => print(&script),
        Err(error) => {
            say(format_args!("meshlens: completions: {error}"));
            Exit::Failure
        }
    }
}
