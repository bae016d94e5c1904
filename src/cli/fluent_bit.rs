//! Fluent Bit's command line, for task definitions and images that call `/fluent-bit/bin/fluent-bit` themselves.
//!
//! It becomes a command line of `meshlens run` (of `meshlens check` for a dry run): the configuration file as
//! `--fluent-bit-config`, the parsers' files as `--fluent-bit-parsers`. Plug-ins given by flags (`-i`, `-F`, `-o` with the `-p`, `-m`
//! and `-t` that follow them) and service keys become the text of a classic configuration, `--fluent-bit-sections`, which stands
//! before that of the file, as in Fluent Bit. What has no meaning here is said and ignored, or refused if the result would not be
//! what was asked for.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser};

use super::called::say_clap;
use super::{Exit, print, say};

/// Fluent Bit's command line, run by meshlens
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "fluent-bit", disable_version_flag = true, max_term_width = 120)]
#[command(about = "Fluent Bit's command line, run by meshlens", after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file of parsers (repeatable)
    #[arg(short = 'R', long = "parser", value_name = "FILE")]
    parsers: Vec<PathBuf>,
    /// A plug-in of Fluent Bit: ignored, what is needed of AWS's is built in
    #[arg(short = 'e', long = "plugin", value_name = "FILE")]
    plugins: Vec<String>,
    /// An input (repeatable)
    #[arg(short, long, value_name = "NAME")]
    input: Vec<String>,
    /// A filter (repeatable)
    #[arg(short = 'F', long, value_name = "NAME")]
    filter: Vec<String>,
    /// An output (repeatable)
    #[arg(short, long, value_name = "NAME")]
    output: Vec<String>,
    /// A key of the plug-in named before (repeatable)
    #[arg(short, long = "prop", value_name = "KEY=VALUE")]
    property: Vec<String>,
    /// What the filter or output named before matches
    #[arg(short, long = "match", value_name = "MATCH")]
    matches: Vec<String>,
    /// The tag of the input named before
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<String>,
    /// Service key Flush
    #[arg(short, long, value_name = "SECONDS")]
    flush: Option<String>,
    /// Service key Grace
    #[arg(short, long, value_name = "SECONDS")]
    grace: Option<String>,
    /// Service key storage.path
    #[arg(short = 'b', long = "storage_path", value_name = "PATH")]
    storage_path: Option<String>,
    /// Service key HTTP_Server
    #[arg(short = 'H', long = "http", alias = "http_server")]
    http: bool,
    /// Service key HTTP_Listen
    #[arg(short = 'L', long = "http_listen", value_name = "ADDR")]
    http_listen: Option<String>,
    /// Service key HTTP_Port
    #[arg(short = 'P', long = "port", alias = "http_port", value_name = "PORT")]
    http_port: Option<String>,
    /// The working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Check the configuration, run nothing
    #[arg(short = 'D', long = "dry-run")]
    dry_run: bool,
    /// Say more; twice, all
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,
    #[command(flatten)]
    other: Other,
    /// Ignored, as Fluent Bit does
    #[arg(hide = true)]
    rest: Vec<String>,
}

/// Known, without a meaning here.
#[derive(Clone, Debug, Default, clap::Args)]
struct Other {
    /// Refused: it stays in the foreground
    #[arg(short, long, hide = true)]
    daemon: bool,
    /// Refused: TLS here is not OpenSSL's
    #[arg(long = "enable-fips", hide = true)]
    fips: bool,
    /// Refused: the log goes to stderr
    #[arg(short, long = "log_file", hide = true, value_name = "FILE")]
    log_file: Option<String>,
    /// Ignored
    #[arg(long, hide = true)]
    supervisor: bool,
    /// Ignored
    #[arg(short = 'C', long, hide = true, value_name = "NAME")]
    custom: Vec<String>,
    /// Ignored
    #[arg(short = 'r', long, hide = true, value_name = "NAME")]
    processor: Vec<String>,
    /// Ignored
    #[arg(short = 'T', long = "sp-task", hide = true, value_name = "SQL")]
    stream_task: Vec<String>,
    /// Ignored
    #[arg(short = 's', long = "coro_stack_size", hide = true, value_name = "BYTES")]
    stack: Option<String>,
    /// Ignored
    #[arg(short = 'S', long = "sosreport", hide = true)]
    report: bool,
    /// Ignored
    #[arg(short = 'Y', long = "enable-hot-reload", hide = true)]
    hot_reload: bool,
    /// Ignored
    #[arg(short = 'W', long = "disable-thread-safety-on-hot-reload", hide = true)]
    hot_reload_unsafe: bool,
    /// Ignored
    #[arg(short = 'Z', long = "enable-chunk-trace", hide = true)]
    chunk_trace: bool,
    /// Ignored
    #[arg(long = "trace", alias = "trace-input", alias = "trace-output", alias = "trace-output-property", hide = true)]
    trace: Vec<String>,
}

const AFTER_HELP: &str = "This is meshlens under the name of Fluent Bit; `meshlens --help` tells more.";

/// Accepted for the sake of old command lines: the flag's id, and what becomes of it.
const IGNORED: [(&str, &str); 10] = [
    ("supervisor", "there is one process"),
    ("custom", "custom plug-ins do not exist here"),
    ("processor", "processors do not exist here"),
    ("stream_task", "the stream processor does not exist here; the records that it would make are missing"),
    ("stack", "there are no coroutines"),
    ("report", "meshlens check shows the configuration"),
    ("hot_reload", "a changed configuration takes a restart"),
    ("hot_reload_unsafe", "a changed configuration takes a restart"),
    ("chunk_trace", "there is no tracing of chunks"),
    ("trace", "there is no tracing of chunks"),
];

/// Reads Fluent Bit's command line and does the same as meshlens.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let read = Arguments::command().try_get_matches_from(arguments);
    let parsed = read.and_then(|matches| Arguments::from_arg_matches(&matches).map(|parsed| (parsed, matches)));
    let (parsed, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return say_clap(&error, Exit::Usage as u8),
    };
    if parsed.version {
        return print(&format!("meshlens v{} in place of Fluent Bit\n", env!("CARGO_PKG_VERSION"))).into();
    }
    if let Some(directory) = &parsed.workdir
        && let Err(error) = std::env::set_current_dir(directory)
    {
        say(format_args!("fluent-bit: -w {}: {error}", directory.display()));
        return Exit::Usage.into();
    }
    match translate(&parsed, &matches) {
        Ok((command, notes)) => {
            notes.iter().filter(|_| !parsed.quiet).for_each(|note| say(format_args!("fluent-bit: {note}")));
            super::meshlens(&command)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| say(format_args!("fluent-bit: {problem}")));
            Exit::Usage.into()
        }
    }
}

/// The command line of meshlens, and what should be known about it; or all that is wrong.
fn translate(given: &Arguments, matches: &ArgMatches) -> Result<(Vec<OsString>, Vec<String>), Vec<String>> {
    let mut problems = Vec::new();
    if given.other.daemon {
        problems.push("--daemon: meshlens stays in the foreground; leave the flag out".to_owned());
    }
    if given.other.fips {
        problems.push("--enable-fips: the TLS library of meshlens is not certified; leave the flag out".to_owned());
    }
    if given.other.log_file.is_some() {
        problems.push("--log_file: meshlens logs to stderr; leave the flag out".to_owned());
    }
    let sections = sections(given, matches, &mut problems);
    if given.config.is_none() && sections.is_empty() {
        problems.push("no configuration: -c FILE, or an input (-i) and an output (-o)".to_owned());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut command: Vec<OsString> = vec!["meshlens".into(), if given.dry_run { "check" } else { "run" }.into()];
    let mut add = |flag: &str, value: OsString| command.extend([flag.into(), value]);
    if let Some(config) = &given.config {
        add("--fluent-bit-config", config.into());
    }
    given.parsers.iter().for_each(|file| add("--fluent-bit-parsers", file.into()));
    if !sections.is_empty() {
        add("--fluent-bit-sections", sections.into());
    }
    let level = match (given.quiet, given.verbose) {
        (true, _) => Some("off"),
        (_, 0) => None,
        (_, 1) => Some("debug"),
        _ => Some("trace"),
    };
    if let Some(level) = level {
        add("--set", format!("log.level={level}").into());
    }
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let ignored = IGNORED.iter().filter(|(id, _)| is_given(id));
    let notes = ignored.map(|(id, why)| format!("--{} is ignored: {why}", flag(id))).collect();
    Ok((command, notes))
}

/// The long name of a flag.
fn flag(id: &str) -> String {
    let command = Arguments::command();
    let long = command.get_arguments().find(|each| each.get_id() == id).and_then(clap::Arg::get_long);
    long.unwrap_or(id).to_owned()
}

/// What the flags say, as a classic configuration.
fn sections(given: &Arguments, matches: &ArgMatches, problems: &mut Vec<String>) -> String {
    let mut out = String::new();
    let on = given.http.then(|| "On".to_owned());
    let service = [
        ("Flush", &given.flush),
        ("Grace", &given.grace),
        ("storage.path", &given.storage_path),
        ("HTTP_Server", &on),
        ("HTTP_Listen", &given.http_listen),
        ("HTTP_Port", &given.http_port),
    ];
    for (key, value) in service.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        if out.is_empty() {
            out.push_str("[SERVICE]\n");
        }
        line(&mut out, key, value, problems);
    }
    // Flags are read by kind, but mean something by their order.
    let mut flags = Vec::new();
    for id in ["input", "filter", "output", "property", "matches", "tag"] {
        let values = matches.get_many::<String>(id).into_iter().flatten();
        flags.extend(matches.indices_of(id).into_iter().flatten().zip(values).map(|(at, value)| (at, id, value)));
    }
    flags.sort_unstable();
    let mut section = "";
    for (_, id, value) in flags {
        match id {
            "input" | "filter" | "output" => {
                section = id;
                writeln!(out, "[{}]", id.to_uppercase()).ok();
                line(&mut out, "Name", value, problems);
            }
            _ if section.is_empty() => problems.push(format!("{value}: names no plug-in; -i, -F or -o comes first")),
            "property" => match value.split_once('=') {
                Some((key, value)) => line(&mut out, key.trim(), value.trim(), problems),
                None => problems.push(format!("-p {value}: must be KEY=VALUE")),
            },
            // Fluent Bit ignores the match of an input as well.
            "matches" if section == "input" => {}
            "matches" => line(&mut out, "Match", value, problems),
            _ => line(&mut out, "Tag", value, problems),
        }
    }
    out
}

fn line(out: &mut String, key: &str, value: &str, problems: &mut Vec<String>) {
    if key.is_empty() || format!("{key}{value}").contains(['\n', '\r']) {
        problems.push(format!("{key}={value}: must be a key and a value on one line"));
    }
    writeln!(out, "    {key} {value}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<(Vec<String>, Vec<String>), Vec<String>> {
        let words = ["fluent-bit"].iter().chain(words);
        let matches = Arguments::command().try_get_matches_from(words).map_err(|error| vec![error.to_string()])?;
        let parsed = Arguments::from_arg_matches(&matches).unwrap();
        let (command, notes) = translate(&parsed, &matches)?;
        Ok((command.into_iter().map(|word| word.into_string().unwrap()).collect(), notes))
    }

    #[test]
    fn what_images_call_becomes_a_run() {
        let of = |text: &str| read(&text.split_whitespace().collect::<Vec<_>>()).unwrap().0.join(" ");
        assert_eq!(of("-c /a.conf"), "meshlens run --fluent-bit-config /a.conf");
        let plugins = "-e /fluent-bit/firehose.so -e /fluent-bit/cloudwatch.so -c /a.conf";
        assert_eq!(of(plugins), "meshlens run --fluent-bit-config /a.conf");
        let parsers = "--config=/a.conf -R /p.conf -R/q.conf -vv";
        let wanted =
            "meshlens run --fluent-bit-config /a.conf --fluent-bit-parsers /p.conf --fluent-bit-parsers /q.conf";
        assert_eq!(of(parsers), format!("{wanted} --set log.level=trace"));
        assert_eq!(of("-c /a.conf --dry-run"), "meshlens check --fluent-bit-config /a.conf");
        // Images that have the program as entry point and as first argument.
        assert_eq!(
            of("/fluent-bit/bin/fluent-bit -c /a.conf -q"),
            "meshlens run --fluent-bit-config /a.conf --set log.level=off"
        );
    }

    #[test]
    fn plugins_given_by_flags_become_sections_in_their_order() {
        let words =
            ["-i", "dummy", "-t", "app.x", "-p", "rate=2", "-F", "grep", "-m", "*", "-p", "regex=log ^a b$", "-f", "1"];
        let (command, _) =
            read(&[&words[..], &["-o", "stdout", "-p", "format=json", "-m", "app*", "-H"]].concat()).unwrap();
        let wanted = "[SERVICE]\n    Flush 1\n    HTTP_Server On\n[INPUT]\n    Name dummy\n    Tag app.x\n    rate 2\n\
                      [FILTER]\n    Name grep\n    Match *\n    regex log ^a b$\n\
                      [OUTPUT]\n    Name stdout\n    format json\n    Match app*\n";
        assert_eq!(command, ["meshlens", "run", "--fluent-bit-sections", wanted]);
    }

    #[test]
    fn what_is_ignored_is_said_and_what_would_mislead_is_refused() {
        let (_, notes) = read(&["-c", "a", "-T", "SELECT 1", "-Y"]).unwrap();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("--sp-task is ignored: "), "{notes:?}");
        let refused = |words: &[&str]| read(words).unwrap_err().join("\n");
        assert_eq!(refused(&["-c", "a", "-d", "-l", "x", "--enable-fips"]).lines().count(), 3);
        assert!(refused(&[]).contains("no configuration"));
        assert!(refused(&["-p", "a=b", "-i", "dummy"]).contains("names no plug-in"));
        assert!(refused(&["-i", "dummy", "-p", "rate"]).contains("KEY=VALUE"));
        assert!(refused(&["-i", "dummy", "-p", "a=b\n[OUTPUT]"]).contains("one line"));
        assert!(refused(&["--no-such"]).contains("--no-such"));
    }
}
