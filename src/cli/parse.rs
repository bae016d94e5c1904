//! `meshlens parse`: lines of files or standard input, one JSON object a line out, redacted, not enriched.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use super::{Exit, print, say};
use crate::config::flags::format_text;
use crate::derive::{self, Derive};
use crate::envoy::Parser;
use crate::envoy::format::Options;
use crate::envoy::formats::Formats;
use crate::process::field_classes;
use crate::process::lines::{Stages, Stats, parse_lines};
use crate::redact::{Redactor, Report};
use crate::source::lines::open;

mod explain;

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
    /// Read access logs by this format (repeatable): the name of a preset, an Envoy's text_format or json_format, or @FILE that holds one; `auto` is what is read without it
    #[arg(long, value_name = "FORMAT")]
    pub format: Vec<String>,
    /// Instead of reading files: show by which format this line is read, field by field, redacted, and why others do not fit
    #[arg(long, value_name = "LINE", conflicts_with_all = ["files", "stats", "infer"])]
    pub explain: Option<String>,
    /// Propose a format for the lines of the files
    #[arg(long, conflicts_with_all = ["stats", "format"])]
    pub infer: bool,
    /// Values of headers to remove beside those that are known, with commas between the names
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub redact_headers: Vec<String>,
    /// Remove matrix parameters (`;k=v` in paths) too
    #[arg(long)]
    pub redact_matrix_parameters: bool,
    /// Secrets to look for by their own form, with commas between
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DETECTORS")]
    pub redact_detectors: Vec<Detector>,
    /// Say on stderr at the end how many lines were of which kind, and what was redacted how often
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

/// A form of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Detector {
    /// Addresses of e-mail
    Email,
    /// Tokens behind the word Bearer
    Bearer,
    /// JSON web tokens
    Jwt,
    /// Access keys of AWS
    #[value(name = "aws_key")]
    AwsKey,
    /// Numbers of payment cards
    Card,
}

impl Detector {
    fn built(self) -> crate::redact::Detector {
        match self {
            Self::Email => crate::redact::Detector::Email,
            Self::Bearer => crate::redact::Detector::Bearer,
            Self::Jwt => crate::redact::Detector::Jwt,
            Self::AwsKey => crate::redact::Detector::AwsKey,
            Self::Card => crate::redact::Detector::Card,
        }
    }
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
        Ok(crate::redact::Config {
            query,
            headers: self.redact_headers.clone(),
            matrix_parameters: self.redact_matrix_parameters,
            detectors: self.redact_detectors.iter().map(|detector| detector.built()).collect(),
            ..crate::redact::Config::default()
        })
    }
}

/// Parses what it is given.
pub fn parse(args: &Args) -> Exit {
    let key = || crate::redact::Secret(std::array::from_fn::<u8, 32, _>(|_| fastrand::u8(..)).into());
    let given = args.redaction(key).map_err(str::to_owned).and_then(|given| Ok((given, formats(&args.format)?)));
    let (mut redaction, formats) = match given {
        Ok(given) => given,
        Err(wrong) => {
            say(format_args!("{wrong}"));
            return Exit::Usage;
        }
    };
    redaction.operators.extend(field_classes(&formats));
    let redactor = Redactor::new(&redaction);
    if let Some(line) = &args.explain {
        return print(&explain::explanation(&formats, &redactor, line));
    }
    if args.infer {
        return explain::infer(&args.files);
    }
    // No pattern is given, so that none is wrong.
    let derive = Derive::new(&args.derived()).unwrap_or_default();
    let mut output = io::stdout().lock();
    let mut stats = Stats::default();
    let report = Report::default();
    let mut stages =
        Stages { parser: Parser::new(formats), redactor: &redactor, report: &report, derive: derive.as_ref() };
    let standard_input = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &standard_input[..] } else { &args.files };
    for file in files {
        if let Err(error) = parse_file(file, &mut output, &mut stages, &mut stats) {
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
        let summary = report.summary();
        say(format_args!("redacted: {}", if summary.is_empty() { "nothing" } else { &summary }));
    }
    Exit::Ok
}

/// The formats named, or what is read where none is; warnings go to stderr.
///
/// # Errors
/// Every format that does not compile, in words.
fn formats(specs: &[String]) -> Result<Arc<Formats>, String> {
    if specs.is_empty() {
        return Ok(Formats::auto());
    }
    let mut formats = Formats::default();
    let mut wrong = Vec::new();
    for (nth, spec) in specs.iter().enumerate() {
        let added = format_text(spec).and_then(|text| {
            formats.add(&format!("format {}", nth + 1), &text, &Options::default()).map_err(|error| error.to_string())
        });
        match added {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| say(format_args!("--format {spec}: warning: {warning}")))
            }
            Err(error) => wrong.push(format!("--format {spec}: {error}")),
        }
    }
    if wrong.is_empty() { Ok(Arc::new(formats)) } else { Err(wrong.join("\n")) }
}

fn parse_file(file: &Path, output: &mut impl Write, stages: &mut Stages<'_>, stats: &mut Stats) -> io::Result<()> {
    if file == Path::new("-") {
        return parse_lines(&mut io::stdin().lock(), output, stages, stats);
    }
    parse_lines(&mut open(file)?, output, stages, stats)
}
