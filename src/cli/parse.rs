//! `meshlens parse`: lines of files or standard input, one JSON object a line out, redacted, not enriched.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{Exit, say};
use crate::derive::{self, Derive};
use crate::process::lines::{Stats, parse_lines};
use crate::redact::Redactor;
use crate::source::lines::open;

/// What to parse, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files to read, one after the other (`.gz` and `.zst` decompressed); `-`, or none, is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What happens to query strings
    #[arg(long, value_enum, default_value = "strip", value_name = "POLICY")]
    pub redact: Redact,
    /// With --redact keep: the parameters to keep, with commas between; all if not given
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub redact_parameters: Vec<String>,
    /// Make these fields of access logs, with commas between, or all; see docs/derive.md
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub derive: Vec<Derived>,
    /// Say on stderr at the end how many lines were of which kind
    #[arg(long)]
    pub stats: bool,
}

/// What happens to query strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Redact {
    /// Remove them
    Strip,
    /// Keep them, or the listed parameters
    Keep,
    /// Names stay, values become ***
    Mask,
    /// Names stay, values become a hash with a key made for this run
    Hash,
}

/// What is made of an access log's fields, as by the keys of `[derive]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Derived {
    /// All of these
    All,
    /// Envoy's long names of response flags
    ResponseFlagsLong,
    /// 2xx
    StatusClass,
    /// Name and number of the gRPC status
    GrpcStatus,
    /// Numbers of durations that come as text
    Durations,
    /// The address of the peer without its port
    ClientAddress,
    /// The first address of forwarded_for
    ForwardedForFirst,
    /// Addresses of clients cut to /24 and /48
    TruncateAddresses,
    /// The path with {id} for what names one thing
    Route,
}

impl Args {
    /// What was asked for of `[derive]`.
    fn derived(&self) -> derive::Config {
        let all = derive::Config::all();
        let has = |name| self.derive.contains(&Derived::All) || self.derive.contains(&name);
        derive::Config {
            response_flags_long: has(Derived::ResponseFlagsLong),
            status_class: has(Derived::StatusClass),
            grpc_status: has(Derived::GrpcStatus),
            durations: has(Derived::Durations),
            client_address: has(Derived::ClientAddress),
            forwarded_for_first: has(Derived::ForwardedForFirst),
            truncate_addresses: all.truncate_addresses.filter(|_| has(Derived::TruncateAddresses)),
            route: all.route.filter(|_| has(Derived::Route)),
        }
    }

    /// The redaction asked for; `key` is used for `hash`.
    ///
    /// # Errors
    /// Flags that do not go together, in words.
    pub fn redaction(
        &self,
        key: impl FnOnce() -> crate::redact::Secret,
    ) -> Result<crate::redact::Config, &'static str> {
        use crate::redact::Policy;
        if self.redact != Redact::Keep && !self.redact_parameters.is_empty() {
            return Err("--redact-parameters: must stand beside --redact keep");
        }
        let query = match self.redact {
            Redact::Strip => Policy::Strip,
            Redact::Keep => Policy::Keep(self.redact_parameters.clone()),
            Redact::Mask => Policy::Mask,
            Redact::Hash => Policy::Hash { key: key() },
        };
        Ok(crate::redact::Config { query, ..crate::redact::Config::default() })
    }
}

/// Parses what it is given.
pub fn parse(args: &Args) -> Exit {
    let key = || crate::redact::Secret(std::array::from_fn::<u8, 32, _>(|_| fastrand::u8(..)).into());
    let redactor = match args.redaction(key) {
        Ok(redaction) => Redactor::new(&redaction),
        Err(wrong) => {
            say(format_args!("{wrong}"));
            return Exit::Usage;
        }
    };
    // No pattern is given, so that none is wrong.
    let derive = Derive::new(&args.derived()).unwrap_or_default();
    let mut output = io::stdout().lock();
    let mut stats = Stats::default();
    let standard_input = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &standard_input[..] } else { &args.files };
    for file in files {
        if let Err(error) = parse_file(file, &mut output, &redactor, derive.as_ref(), &mut stats) {
            // A reader that has seen enough, as `head`, is no failure.
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Exit::Ok;
            }
            say(format_args!("meshlens: {}: {error}", file.display()));
            return Exit::Failure;
        }
    }
    if args.stats {
        let Stats { lines, access, ambiguous, envoy, other, truncated, bytes } = stats;
        say(format_args!(
            "lines={lines} access={access} (ambiguous={ambiguous}) envoy={envoy} other={other} truncated={truncated} bytes={bytes}"
        ));
    }
    Exit::Ok
}

fn parse_file(
    file: &Path,
    output: &mut impl Write,
    redactor: &Redactor,
    derive: Option<&Derive>,
    stats: &mut Stats,
) -> io::Result<()> {
    if file == Path::new("-") {
        return parse_lines(&mut io::stdin().lock(), output, redactor, derive, stats);
    }
    parse_lines(&mut open(file)?, output, redactor, derive, stats)
}
