//! Which program this is: the image holds links to the one binary under the names that task definitions call.
//!
//! | called as | is |
//! |---|---|
//! | `fluent-bit` | Fluent Bit's command line ([`super::fluent_bit`]) |
//! | `entrypoint.sh`, `fluent_bit_init_entrypoint.sh` | the image's entry point ([`entrypoint`]) |
//! | `curl`, `nc` | as much of them as health checks use, without their libraries |
//! | anything else | `meshlens` |
//!
//! No shell stands between: what is started is process 1 and hears the signals.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

pub mod curl;
pub mod entrypoint;
pub mod nc;

/// Does what the name asks for that this process was called by; `None` if that is `meshlens`.
pub fn main(arguments: &[OsString]) -> Option<ExitCode> {
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).and_then(OsStr::to_str)?;
    Some(match name {
        "fluent-bit" => super::fluent_bit::main(arguments),
        "entrypoint.sh" | "fluent_bit_init_entrypoint.sh" | "fluent_bit_init_process" => entrypoint::main(arguments),
        "curl" => curl::main(arguments),
        "nc" => nc::main(arguments),
        _ => return None,
    })
}

/// Help and version go to stdout with 0; anything else that clap says to stderr, with `code`.
pub(super) fn say_clap(error: &clap::Error, code: u8) -> ExitCode {
    error.print().ok();
    if error.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(code) }
}
