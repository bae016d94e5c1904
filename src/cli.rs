//! The command line: one file a subcommand.
//!
//! A flag is another way to write a configuration key (see [`crate::config::flags`]); what a command refuses, it refuses
//! before anything is opened, bound or sent. Results go to stdout, everything else to stderr.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::flags::Flags;
use crate::config::given::Given;
use crate::source;

pub mod called;
pub mod check;
pub mod completions;
pub mod fluent_bit;
pub mod healthcheck;
pub mod http;
pub mod iam;
pub mod parse;
pub mod run;
pub mod schema;

/// What the process says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done; every record was delivered, or filtered by a rule.
    Ok = 0,
    /// 1: something failed while running: an address in use, an input that cannot be read, a file that cannot be written.
    Failure = 1,
    /// 2: the configuration or the command line is wrong; nothing was started.
    Usage = 2,
    /// 3: ended, but records were rejected, dropped, or still pending.
    Undelivered = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const ABOUT: &str = "A log router for Amazon ECS that understands Envoy";
const LONG_ABOUT: &str = "A log router for Amazon ECS that understands Envoy.

meshlens takes log lines in (Fluent Forward from FireLens or Docker, files, standard input), tells Envoy access logs from
application logs, redacts query strings, adds ECS task metadata, and delivers to CloudWatch Logs, Firehose and S3.";

const EXAMPLES: &str = "Examples:
  See what a log becomes, here on the terminal:
    meshlens run --input access.log --to stdout
  Turn a file or a pipe into JSON lines, redacted:
    meshlens parse access.log | jq .path
  Send a pipe to several places at once:
    ./app | meshlens run --input - --to s3://bucket/prefix --to cloudwatch:/app/web --to firehose:access
  Look at a configuration before it runs, with the IAM actions that it needs:
    meshlens check --config config/service-connect.toml
  Run as a FireLens sidecar:
    meshlens run --config /etc/meshlens/service-connect.toml

Exit codes:
  0  done; every record was delivered, or filtered by a rule
  1  something failed while running (address in use, input or output not usable)
  2  the configuration or the command line is wrong; nothing was started
  3  ended, but records were rejected, dropped, or still pending

Environment:
  MESHLENS_CONFIG   the configuration file, if --config is not given
  MESHLENS_SET      more of --set, one a line or between `;`
  MESHLENS_FALLBACK the sink, as --to writes it, for outputs of Fluent Bit that are not supported
  MESHLENS_LOG      how much meshlens says of itself: off, error, warn, info, debug, trace
  AWS_…             credentials, region and endpoints, as for every AWS SDK";

const RUN_EXAMPLES: &str = "Examples:
  meshlens run                                                  the built-in quick start
  meshlens run --config service-connect.toml --grace 100
  meshlens run --admin :24220 --input access.log --follow --to firehose:access
  meshlens run --forward 127.0.0.1:24224 --forward-unix /var/run/fluent.sock --to cloudwatch:/mesh/{ecs_task_id}
  meshlens run --input access.log --follow --to s3://bucket/logs?compression=zstd --set sink.s3.object_age_max=1m
  zcat access.log.gz | meshlens run --input - --to file:out --set redact.query=mask

Sinks of --to are named cloudwatch_logs, firehose, s3, file, stdout, discard, the second of a kind s3-2 and so on; --set
knows them by these names. Flags that name sources replace those of the file; --to replaces its sinks and routes; --set
applies over everything.";

const HEALTHCHECK_EXAMPLES: &str = "Exit codes: 0 if the answer is good, 1 if it is not or there is none.

Examples:
  meshlens healthcheck                    are records delivered? Fails only if admin.unhealthy_after is set
  meshlens healthcheck --ready            are records taken?
  meshlens healthcheck --admin :9000      asks where `run --admin :9000` listens";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "meshlens", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, subcommand_required = true, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Route logs until the inputs end or a signal comes
    #[command(after_help = RUN_EXAMPLES)]
    Run(ConfigArgs),
    /// Do what run does first: read the configuration, show the pipeline and the IAM actions it needs
    Check(check::Args),
    /// Turn lines of files or standard input into one JSON object a line, redacted
    Parse(parse::Args),
    /// Ask a running meshlens how it is; for the health checks of containers
    #[command(after_help = HEALTHCHECK_EXAMPLES)]
    Healthcheck(healthcheck::Args),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print completions for a shell
    Completions(completions::Args),
}

/// What `run` and `check` are given.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML); see `meshlens schema` and docs/configuration.md
    #[arg(long, short, value_name = "FILE", env = "MESHLENS_CONFIG")]
    pub config: Option<OsString>,
    /// Configuration of Fluent Bit to read instead, as the ECS agent writes it for FireLens
    #[arg(long, value_name = "FILE")]
    pub fluent_bit_config: Option<PathBuf>,
    /// Sections of Fluent Bit, as text in its classic format, before those of the file
    #[arg(long, value_name = "TEXT")]
    pub fluent_bit_sections: Option<String>,
    /// File with parsers of Fluent Bit (repeatable)
    #[arg(long, short = 'R', value_name = "FILE")]
    pub fluent_bit_parsers: Vec<PathBuf>,
    /// The rest.
    #[command(flatten)]
    pub flags: Flags,
}

impl ConfigArgs {
    /// The configuration of file, flags and environment.
    ///
    /// # Errors
    /// Everything that is wrong has been said on stderr.
    pub fn load(&self) -> Result<crate::config::Loaded, Exit> {
        // What is no UTF-8 is no name or value of ours.
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let given = Given {
            // An empty MESHLENS_CONFIG is none.
            config: self.config.as_deref().filter(|path| !path.is_empty()).map(Path::new),
            fluent_bit: self.fluent_bit_config.as_deref(),
            sections: self.fluent_bit_sections.as_deref(),
            parsers: &self.fluent_bit_parsers,
            environment: &environment,
        };
        let refuse = |problems: &dyn Display, count: usize| {
            let plural = if count == 1 { "" } else { "s" };
            say(format_args!("{problems}\nmeshlens: {count} configuration error{plural}; nothing was started"));
            Exit::Usage
        };
        let loaded = given.load(&self.flags).map_err(|problems| refuse(&problems, problems.len()))?;
        let sources = loaded.config.sources.iter();
        let wrong: Vec<String> =
            sources.filter_map(|each| Some(format!("source.{}: {}", each.name, source::verify(each).err()?))).collect();
        if wrong.is_empty() { Ok(loaded) } else { Err(refuse(&wrong.join("\n"), wrong.len())) }
    }
}

/// Does what the name and the command line say.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    called::main(&arguments).unwrap_or_else(|| meshlens(&arguments))
}

/// Reads meshlens's own command line, does what it says, and ends with an [`Exit`].
fn meshlens(arguments: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; a closed stdout is none either.
            error.print().ok();
            return if error.exit_code() == 0 { Exit::Ok.into() } else { Exit::Usage.into() };
        }
    };
    let exit = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Parse(args) => parse::parse(&args),
        Command::Healthcheck(args) => healthcheck::healthcheck(&args),
        Command::Schema => schema::schema(),
        Command::Completions(args) => completions::completions(&args),
    };
    crate::telemetry::logs::flush();
    exit.into()
}

/// Prints a result. A reader that has gone (`| head`) is no failure.
fn print(text: &str) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            say(format_args!("meshlens: stdout: {error}"));
            Exit::Failure
        }
    }
}

/// Says something on stderr; if that is closed, there is nobody to tell.
fn say(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}
