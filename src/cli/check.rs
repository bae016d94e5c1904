//! `meshlens check`: what `run` does first, and what would come of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

mod task;

use super::iam::{self, Permission};
use super::{ConfigArgs, Exit, print, say};
use crate::config::document::{Node, Value};
use crate::config::quantity::{Period, Size};
use crate::config::{Config, Loaded};
use crate::enrich;
use crate::envoy::formats::Formats;
use crate::journal::{self, Persist, WhenFull};
use crate::process::Parse;
use crate::redact::{self, Application, Policy};
use crate::sink::{self, Kind};
use crate::{derive, source, topology};

/// What ECS grants a container between SIGTERM and SIGKILL if the task definition says nothing.
const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The most that a task definition can say on Fargate.
const STOP_TIMEOUT_FARGATE_MAX: Duration = Duration::from_secs(120);
/// What the end needs beside the grace: to tell the account, and for the signal to arrive.
const EXIT_TIME: Duration = Duration::from_secs(2);

/// What to check, and what to print.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the configuration as merged from file and flags, secrets masked, instead of the pipeline
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub print: Option<Print>,
    /// Check what a router would do for this ECS task definition (JSON): the configuration that the ECS agent would write for it, and the task around it. Files that it names are looked for beside it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "fluent_bit_config"])]
    pub task_definition: Option<PathBuf>,
    /// As --task-definition, for the task that this process runs in, by its metadata endpoint (on EC2, where that tells log options)
    #[arg(long, conflicts_with_all = ["config", "fluent_bit_config", "task_definition"])]
    pub metadata: bool,
}

/// How to print the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Print {
    /// As TOML
    Toml,
    /// As JSON
    Json,
}

/// Checks and prints.
pub fn check(args: &Args) -> Exit {
    if args.task_definition.is_some() || args.metadata {
        return task::check(args);
    }
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    printed(args, &loaded, pipeline)
}

/// Prints as asked, or what `report` makes of it.
fn printed(args: &Args, loaded: &Loaded, report: impl FnOnce(&Loaded) -> String) -> Exit {
    let text = match args.print {
        None => Ok(report(loaded)),
        Some(Print::Json) => {
            serde_json::to_string_pretty(&loaded.document.to_json()).map_err(|error| error.to_string())
        }
        Some(Print::Toml) => toml::to_string_pretty(&loaded.document.to_json()).map_err(|error| error.to_string()),
    };
    match text {
        Ok(text) => print(&format!("{}\n", text.trim_end())),
        Err(error) => {
            say(format_args!("meshlens: {error}"));
            Exit::Failure
        }
    }
}

/// The effective pipeline, for people.
fn pipeline(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = String::new();
    section(&mut out, "sources", config.sources.iter().map(source));
    section(&mut out, "filters", filters(&loaded.document));
    section(&mut out, "parse", formats(&config.parse));
    section(&mut out, "redact", [redaction(&config.redact)]);
    section(&mut out, "derive", derived(&config.derive));
    section(&mut out, "enrich", enrichment(&config.enrich));
    section(&mut out, "routes", routes(loaded));
    section(&mut out, "journal", [journal(&config.journal)]);
    section(&mut out, "sinks", config.sinks.iter().map(|sink| self::sink(sink, &loaded.document)));
    let shutdown = format!("within {}, a source is done when quiet for {}", Period(config.grace), Period(config.quiet));
    section(&mut out, "shutdown", [shutdown, stop_timeout(config)]);
    section(&mut out, "admin", admin(&config.admin));
    section(&mut out, "warnings", config.warnings.iter().cloned().chain(descriptors(&config.sources)));
    let permissions = iam::permissions(&config.sinks, &loaded.document);
    section(&mut out, "IAM actions", permissions.iter().map(permission));
    out.push_str("configuration is valid\n");
    out
}

/// A heading and its lines; nothing if there are none.
fn section(out: &mut String, heading: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    // Writing to a String cannot fail.
    writeln!(out, "{heading}").ok();
    for line in lines {
        writeln!(out, "  {line}").ok();
    }
    out.push('\n');
}

/// What is wrong with the limit of file descriptors, here: where it runs, it may be another.
fn descriptors(sources: &[source::Config]) -> Option<String> {
    let (wanted, limit) = (source::descriptors::wanted(sources), source::descriptors::limit()?);
    (wanted > limit).then(|| {
        format!("connections_max of all sources may need {wanted} file descriptors; the hard limit (ulimit -Hn) here is {limit}")
    })
}

/// By which formats access logs are read; nothing if nobody named any.
fn formats(parse: &Parse) -> Vec<String> {
    let Formats { bracketed, general, json, .. } = &*parse.formats;
    if !parse.envoy {
        return vec!["nothing is recognised (parse.envoy = false)".to_owned()];
    }
    if *parse.formats == *Formats::auto() {
        return Vec::new();
    }
    let layouts = bracketed.iter().chain(general);
    let text = layouts.map(|layout| format!("{}: text of {} fields", layout.name, layout.slots.len()));
    let json = json.iter().map(|format| format!("{}: JSON", format.name));
    text.chain(json).collect()
}

fn source(source: &source::Config) -> String {
    let what = match &source.kind {
        source::Kind::Forward(forward) => {
            let tcp = forward
                .listen
                .map(|address| format!("tcp {address}{}", if forward.tls.is_some() { " (TLS)" } else { "" }));
            let unix = forward.unix_path.as_ref().map(|path| format!("unix {}", path.display()));
            let listeners: Vec<String> = tcp.into_iter().chain(unix).collect();
            let key = if forward.shared_key.is_some() { ", shared key" } else { "" };
            format!(
                "forward on {}{key}; messages up to {}, {} decompressed, {} connections",
                listeners.join(" and "),
                Size(forward.frame_bytes_max as u64),
                Size(forward.decompressed_bytes_max as u64),
                forward.connections_max
            )
        }
        source::Kind::Tcp(tcp) => {
            let format = match tcp.format {
                source::tcp::Format::Json => "JSON objects",
                source::tcp::Format::None => "text",
            };
            let (size, connections) = (Size(tcp.record_bytes_max as u64), tcp.connections_max);
            format!(
                "{format} over tcp {}; tag {}, records up to {size}, {connections} connections",
                tcp.listen, tcp.tag
            )
        }
        source::Kind::Tail(tail) => {
            let (size, files) = (Size(tail.line_bytes_max as u64), tail.files_max);
            let start = if tail.read_from_head { "beginning" } else { "end" };
            let paths = tail.paths.join(", ");
            format!(
                "lines of {paths}, followed from their {start}; tag {}, {files} files, lines up to {size}",
                tail.tag
            )
        }
        source::Kind::Dummy(dummy) => format!("{} records a second, made up; tag {}", dummy.rate, dummy.tag),
        source::Kind::Lines(lines) => {
            let input = match &lines.input {
                source::lines::Input::Stdin => "standard input".to_owned(),
                source::lines::Input::File(path) => path.display().to_string(),
            };
            let end = if lines.follow { "followed" } else { "to its end" };
            format!("lines of {input}, {end}; tag {}, lines up to {}", lines.tag, Size(lines.line_bytes_max as u64))
        }
    };
    format!("{}: {what}", source.name)
}

/// What records pass through before they are parsed, as it was written.
fn filters(document: &Node) -> Vec<String> {
    let written = match document.get("filter").map(|node| &node.value) {
        Some(Value::List(list)) => list.as_slice(),
        _ => &[],
    };
    written.iter().enumerate().map(|(number, filter)| format!("{}. {filter}", number + 1)).collect()
}

fn redaction(redact: &redact::Config) -> String {
    let policy = match &redact.query {
        Policy::Strip => "query strings are stripped",
        Policy::Keep(names) if names.is_empty() && redact.parameters == redact::Parameters::default() => {
            "query strings are kept: redaction is off"
        }
        Policy::Keep(names) if names.is_empty() => "query strings are kept, but for the parameters configured",
        Policy::Keep(_) => "query strings keep the listed parameters only",
        Policy::Mask => "values in query strings are masked",
        Policy::Hash { .. } => "values in query strings are hashed",
    };
    match redact.application {
        Application::Scrub => policy.to_owned(),
        Application::Pass => format!("{policy}, on streams that speak Envoy; lines of applications pass as they are"),
    }
}

/// What access logs get beside what they hold.
fn derived(derive: &derive::Config) -> Vec<String> {
    let mut lines = Vec::new();
    let fields = [
        (derive.response_flags_long, "response_flags_long"),
        (derive.status_class, "status_class"),
        (derive.grpc_status, "grpc_status_name, grpc_status_number"),
        (derive.client_address, "client_address"),
        (derive.forwarded_for_first, "forwarded_for_first"),
    ];
    let names: Vec<&str> = fields.into_iter().filter_map(|(is_on, name)| is_on.then_some(name)).collect();
    if !names.is_empty() {
        lines.push(format!("fields of access logs: {}", names.join(", ")));
    }
    if derive.durations {
        lines.push("durations that come as text become numbers".to_owned());
    }
    if let Some(prefixes) = derive.truncate_addresses {
        lines.push(format!("addresses of clients are cut to /{} and /{}", prefixes.ipv4, prefixes.ipv6));
    }
    if let Some(route) = &derive.route {
        let how = match (route.patterns.len(), route.defaults) {
            (0, _) => "by defaults".to_owned(),
            (count, true) => format!("by {count} patterns, else by defaults"),
            (count, false) => format!("by {count} patterns"),
        };
        lines.push(format!("{}, the route of the path: {how}", route.field));
    }
    lines
}

fn enrichment(enrich: &enrich::Config) -> Vec<String> {
    let mut lines = Vec::new();
    let made: Vec<&str> = enrich.metadata.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<&str> = enrich.ecs.iter().map(String::as_str).chain(made).collect();
    if !names.is_empty() {
        lines.push(format!("from the ECS task: {}", names.join(", ")));
    }
    if !enrich.fields.is_empty() {
        // Values may come from the environment, and may be secrets there.
        let names: Vec<&str> = enrich.fields.iter().map(|(name, _)| name.as_str()).collect();
        lines.push(format!("fields: {}", names.join(", ")));
    }
    lines
}

fn routes(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let names = |numbers: &[usize]| {
        let names: Vec<&str> = numbers.iter().filter_map(|n| config.sinks.get(*n)).map(|s| s.name.as_str()).collect();
        if names.is_empty() { "left out (filtered)".to_owned() } else { names.join(", ") }
    };
    let rules = &config.route.rules;
    let Some(last) = rules.last() else {
        let all: Vec<usize> = (0..config.sinks.len()).collect();
        return vec![format!("everything -> {}", names(&all))];
    };
    let written = match loaded.document.get("route").map(|node| &node.value) {
        Some(Value::List(list)) => list.as_slice(),
        _ => &[],
    };
    let mut lines = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let when = written.get(number).and_then(|rule| rule.get("when")).filter(|_| !rule.when.is_empty());
        let when = when.map_or("everything".to_owned(), Node::to_string);
        let sample = rule.sample.map(|sample| format!(", {sample} of it")).unwrap_or_default();
        let next = if rule.and_continue { ", then on" } else { "" };
        lines.push(format!("{}. {when}{sample} -> {}{next}", number + 1, names(&rule.to)));
    }
    match &last.otherwise {
        Some(sinks) => lines.push(format!("else -> {}", names(sinks))),
        None if last.when.is_empty() && !last.and_continue => {}
        None => lines.push("else -> left out (filtered)".to_owned()),
    }
    lines
}

fn sink(sink: &sink::Config, document: &Node) -> String {
    let written =
        |key: &str, default: &str| iam::written(document, &sink.name, key).unwrap_or_else(|| default.to_owned());
    let fallback = |key: &str| match iam::written(document, &sink.name, key) {
        Some(name) => format!(" (else {name})"),
        None => String::new(),
    };
    let what = match &sink.kind {
        Kind::CloudwatchLogs(logs) => format!(
            "cloudwatch_logs, group {}{}, stream {}{}; requests up to {} bytes, {} events, every {}; {}",
            written("group", ""),
            fallback("group_fallback"),
            written("stream", "{tag}"),
            fallback("stream_fallback"),
            logs.batch_bytes_max,
            logs.batch_events_max,
            Period(logs.batch_timeout),
            give_up(&logs.retry)
        ),
        Kind::Firehose(firehose) => format!(
            "firehose, stream {}; records up to {}, requests up to {}, {} records, every {}; {}",
            firehose.stream,
            Size(firehose.record_bytes_max as u64),
            Size(firehose.batch_bytes_max as u64),
            firehose.batch_records_max,
            Period(firehose.batch_timeout),
            give_up(&firehose.retry)
        ),
        Kind::S3(s3) => format!(
            "s3, bucket {}, key {}; objects up to {} or {}, compression {}; {}",
            s3.bucket,
            written(if s3.is_whole_key { "object_key" } else { "key" }, crate::config::build::S3_KEY),
            Size(s3.object_bytes_max),
            Period(s3.object_age_max),
            format!("{:?}", s3.compression).to_lowercase(),
            give_up(&s3.retry)
        ),
        Kind::Forward(forward) => {
            let address = match &forward.address {
                sink::forward::Address::Tcp(host, port) => format!("{host}:{port}"),
                sink::forward::Address::Unix(path) => path.display().to_string(),
            };
            let acks = if forward.requires_ack { "acknowledged" } else { "not acknowledged" };
            let (timeout, tries) = (Period(forward.batch_timeout), give_up(&forward.retry));
            format!("forward, to {address}, {acks}; messages every {timeout}; {tries}")
        }
        Kind::File(file) => {
            let layout = match &file.layout {
                sink::file::Layout::CloudwatchLogs { .. } => "cloudwatch_logs",
                sink::file::Layout::Firehose { .. } => "firehose",
                sink::file::Layout::S3 { .. } => "s3",
                sink::file::Layout::Lines { .. } => "lines",
            };
            format!("file, under {}, laid out as {layout}", file.directory.display())
        }
        Kind::Stdout => "stdout".to_owned(),
        Kind::Discard => "discard".to_owned(),
        Kind::Unsupported(config) => format!("unsupported: drops what would go to {}", config.plugin),
    };
    format!("{}: {what}", sink.name)
}

/// What the end may take.
fn end_time(config: &Config) -> Duration {
    let closing =
        if config.journal.persist == Persist::Never { Duration::ZERO } else { topology::JOURNAL_CLOSE_TIME_MAX };
    config.grace + closing.max(EXIT_TIME)
}

/// What the end may take of the time that ECS leaves it, and what to do if that is too little.
fn stop_timeout(config: &Config) -> String {
    let needed = end_time(config);
    if needed <= STOP_TIMEOUT_DEFAULT {
        return format!("fits the stopTimeout of a container in ECS, {} by default", Period(STOP_TIMEOUT_DEFAULT));
    }
    let seconds = needed.as_millis().div_ceil(1_000);
    let limit = if needed > STOP_TIMEOUT_FARGATE_MAX {
        format!("; Fargate takes {} at most and kills what is not over by then", STOP_TIMEOUT_FARGATE_MAX.as_secs())
    } else {
        String::new()
    };
    format!(
        "set \"stopTimeout\": {seconds} or more for the container in the task definition: ECS's default is {}{limit}",
        STOP_TIMEOUT_DEFAULT.as_secs()
    )
}

fn admin(admin: &crate::admin::Config) -> Vec<String> {
    let Some(listen) = admin.listen else { return vec!["off".to_owned()] };
    let default = if listen.is_asked { "" } else { " (the default inside an ECS task)" };
    let health = match admin.unhealthy_after {
        None => "/healthz never fails".to_owned(),
        Some(after) => format!("/healthz fails when a record waits for more than {}", Period(after)),
    };
    vec![format!("http://{}/{default}; {health}", listen.address)]
}

fn journal(journal: &journal::Config) -> String {
    let full = match journal.when_full {
        WhenFull::Block => "then sources wait",
        WhenFull::DropOldest => "then the oldest records are dropped and counted",
    };
    let memory = Size(journal.memory_bytes_max as u64);
    let (disk, dir) = (Size(journal.disk_bytes_max), journal.dir.as_deref().unwrap_or(Path::new("")).display());
    match journal.persist {
        Persist::Never => format!("memory, {memory}, {full}"),
        Persist::Overflow => {
            format!("memory, {memory}, then disk, {disk} in {dir}, {full}; the rest is kept at the end")
        }
        Persist::Always => format!("disk, {disk} in {dir}, {full}; {memory} of it in memory too"),
    }
}

fn give_up(retry: &sink::retry::Config) -> String {
    match retry.give_up_after {
        None => "retries for ever".to_owned(),
        Some(after) => format!("retries for {}", Period(after)),
    }
}

fn permission(permission: &Permission) -> String {
    let Permission { sink, role, actions, resource } = permission;
    format!("{sink}: {} on {resource} ({role})", actions.join(", "))
}
