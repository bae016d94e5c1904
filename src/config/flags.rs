//! Command line flags, as entries of the same tree that a file makes; and what stands in where nothing is said.
//!
//! | given | sources | sinks and routes |
//! |---|---|---|
//! | nothing | built-in `quickstart.toml` (its sample input if it is there, else `forward`) | built-in |
//! | `--config` | the file's, else `forward` on 127.0.0.1:24224 | the file's, else built-in |
//! | `--forward`, `--forward-unix`, `--input` | the flags', instead of the file's | unchanged |
//! | `--to` | unchanged | the flags', instead of the file's sinks and routes |
//! | `--set` | over all of these | over all of these |

use super::build;
use super::document::{Node, Origin, Step, Value};
use super::problem::{Problem, Problems, must_be_one_of};
use super::toml;

/// The configuration for a first look, used where neither file nor flags say anything.
pub const QUICKSTART: &str = include_str!("../../config/quickstart.toml");
const QUICKSTART_NAME: &str = "config/quickstart.toml (built in)";
const DEFAULT_SOURCE: &str = "[source.forward]\ntype = \"forward\"\n";

/// Flags that `run` and `check` share; each is another way to write configuration keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Listen for Fluent Forward on this address (repeatable)
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Sources")]
    pub forward: Vec<String>,
    /// Listen for Fluent Forward on this unix socket (repeatable)
    #[arg(long, value_name = "PATH", help_heading = "Sources")]
    pub forward_unix: Vec<String>,
    /// Read lines of this file, or of standard input for `-` (repeatable); without any --forward… the run ends with its inputs
    #[arg(long, value_name = "PATH|-", help_heading = "Sources")]
    pub input: Vec<String>,
    /// Go on as the input files grow, through rotation
    #[arg(long, help_heading = "Sources")]
    pub follow: bool,
    /// Send to this sink (repeatable): cloudwatch:GROUP/STREAM, firehose:STREAM, s3://BUCKET/PREFIX[?compression=gzip|zstd|none], file:DIR[?layout=s3|cloudwatch_logs|firehose], stdout, discard
    #[arg(long, value_name = "SINK", help_heading = "Sinks")]
    pub to: Vec<String>,
    /// Read access logs by this format (repeatable): the name of a preset, an Envoy's text_format or json_format, or @FILE that holds one; `auto` is what is read without it
    #[arg(long, value_name = "FORMAT", help_heading = "Parsing")]
    pub format: Vec<String>,
    /// Set any configuration key, over file and flags (repeatable), e.g. sink.s3.object_age_max=1m; the value is TOML, or plain text
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Longest time from SIGTERM to the end
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<String>,
    /// Serve metrics, status and health over HTTP on this address; a port alone is on 127.0.0.1
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<String>,
}

impl Flags {
    /// Whether sources are named.
    pub fn name_sources(&self) -> bool {
        !(self.forward.is_empty() && self.forward_unix.is_empty() && self.input.is_empty())
    }

    /// Whether `--set` makes a source or sink of its own, so that none has to stand in.
    fn set_makes(&self, kind: &str) -> bool {
        self.set.iter().filter_map(|text| text.split_once('=')).any(|(key, _)| {
            let keys: Vec<&str> = key.split('.').map(str::trim).collect();
            keys.first() == Some(&kind) && (keys.len() < 3 || keys.get(2) == Some(&"type"))
        })
    }
}

/// One tree of file and flags.
pub fn assemble(file: Option<Node>, flags: &Flags, problems: &mut Problems, warnings: &mut Vec<String>) -> Node {
    let is_bare = file.is_none()
        && !flags.name_sources()
        && flags.to.is_empty()
        && !flags.set_makes("source")
        && !flags.set_makes("sink");
    let mut tree = match file {
        Some(file) => file,
        None if is_bare => quickstart(warnings),
        None => Node::table(Origin::Flag { text: "command line".into(), shows_value: false }),
    };
    add_sources(&mut tree, flags, problems);
    add_sinks(&mut tree, flags, problems, warnings);
    fill(&mut tree, flags);
    add_formats(&mut tree, flags, problems);
    if let Some(grace) = &flags.grace {
        let origin = Origin::Flag { text: format!("--grace {grace}").into(), shows_value: true };
        let keys = ["shutdown", "grace"].map(str::to_owned);
        set(&mut tree, &keys, scalar(grace, &origin), &origin, problems);
    }
    if let Some(listen) = &flags.admin {
        let origin = Origin::Flag { text: format!("--admin {listen}").into(), shows_value: true };
        let keys = ["admin", "listen"].map(str::to_owned);
        set(&mut tree, &keys, Node::text(listen, origin.clone()), &origin, problems);
    }
    for text in &flags.set {
        apply_set(&mut tree, text, problems);
    }
    tree
}

fn built_in(name: &str, text: &str) -> Node {
    // A test holds that the built-in texts have no problems.
    toml::parse(name, text, &mut Problems::default())
}

/// The built-in configuration; without its sample input it listens instead.
fn quickstart(warnings: &mut Vec<String>) -> Node {
    let mut tree = built_in(QUICKSTART_NAME, QUICKSTART);
    let sources = tree.get("source");
    let names: Vec<&str> = sources.map(|sources| sources.keys().collect()).unwrap_or_default();
    let paths = names.iter().filter_map(|name| match &sources?.get(name)?.get("path")?.value {
        Value::Text(path) => Some(path.clone()),
        _ => None,
    });
    let missing: Vec<String> = paths.filter(|path| path != "-" && !std::path::Path::new(path).is_file()).collect();
    if !missing.is_empty() {
        warnings.push(format!(
            "no configuration given, and no sample input {} here: listening for Fluent Forward on 127.0.0.1:{}",
            missing.join(", "),
            super::FORWARD_PORT
        ));
        tree.remove("source");
    }
    tree
}

/// What stands in for sources and sinks that nobody named.
fn fill(tree: &mut Node, flags: &Flags) {
    let is_empty = |node: Option<&Node>| match node.map(|node| &node.value) {
        None => true,
        Some(Value::Table(entries)) => entries.is_empty(),
        Some(_) => false,
    };
    if is_empty(tree.get("source")) && !flags.set_makes("source") {
        let default = built_in("built-in default", DEFAULT_SOURCE).remove("source");
        default.map(|source| tree.insert("source", source)).unwrap_or_default();
    }
    if is_empty(tree.get("sink")) && !flags.set_makes("sink") {
        let mut built_in = built_in(QUICKSTART_NAME, QUICKSTART);
        for key in ["sink", "route"] {
            if let Some(node) = built_in.remove(key)
                && is_empty(tree.get(key))
            {
                tree.insert(key, node);
            }
        }
    }
}

fn add_sources(tree: &mut Node, flags: &Flags, problems: &mut Problems) {
    if flags.follow && flags.input.iter().all(|path| path == "-") {
        let origin = Origin::Flag { text: "--follow".into(), shows_value: true };
        problems.push(Problem::of_place(origin, "must stand beside an --input that is a file"));
    }
    if !flags.name_sources() {
        return;
    }
    let mut sources = Node::table(Origin::Flag { text: "command line".into(), shows_value: false });
    let entry = |flag: &str, value: &str, kind: &str, key: &str| {
        let origin = Origin::Flag { text: format!("{flag} {value}").into(), shows_value: true };
        let mut source = Node::table(origin.clone());
        source.insert("type", Node::text(kind, origin.clone()));
        source.insert(key, Node::text(value, origin));
        source
    };
    // One of each is one source with two listeners.
    for nth in 0..flags.forward.len().max(flags.forward_unix.len()) {
        let tcp = flags.forward.get(nth).map(|listen| entry("--forward", listen, "forward", "listen"));
        let unix = flags.forward_unix.get(nth).map(|path| entry("--forward-unix", path, "forward", "unix_path"));
        let source = match (tcp, unix) {
            (Some(mut source), Some(mut unix)) => {
                unix.remove("unix_path").map(|path| source.insert("unix_path", path)).unwrap_or_default();
                source
            }
            (Some(source), None) | (None, Some(source)) => source,
            (None, None) => continue,
        };
        sources.insert(&free_name(&sources, "forward"), source);
    }
    for path in &flags.input {
        let mut source = entry("--input", path, "lines", "path");
        if flags.follow && path != "-" {
            let origin = Origin::Flag { text: "--follow".into(), shows_value: true };
            source.insert("follow", Node::new(Value::Bool(true), origin));
        }
        sources.insert(&free_name(&sources, "input"), source);
    }
    tree.insert("source", sources);
}

fn add_sinks(tree: &mut Node, flags: &Flags, problems: &mut Problems, warnings: &mut Vec<String>) {
    if flags.to.is_empty() {
        return;
    }
    let mut sinks = Node::table(Origin::Flag { text: "command line".into(), shows_value: false });
    for (nth, spec) in flags.to.iter().enumerate() {
        let shown = |shows_value| Origin::Flag { text: format!("--to {spec}").into(), shows_value };
        if flags.to[..nth].contains(spec) {
            problems.push(Problem::of_place(shown(true), "must not be given twice"));
            continue;
        }
        match sink_node(spec, &shown(false)) {
            Err(must) => problems.push(Problem::of_place(shown(true), must)),
            Ok(sink) => {
                let kind = match sink.get("type").map(|kind| &kind.value) {
                    Some(Value::Text(kind)) => kind.clone(),
                    _ => String::new(),
                };
                sinks.insert(&free_name(&sinks, &kind), sink);
            }
        }
    }
    if tree.remove("route").is_some() {
        warnings.push(
            "--to replaces the sinks and the routes of the configuration file: every record goes to every --to".into(),
        );
    }
    tree.insert("sink", sinks);
}

/// `--format` replaces the file's `parse.formats`.
fn add_formats(tree: &mut Node, flags: &Flags, problems: &mut Problems) {
    if flags.format.is_empty() {
        return;
    }
    let mut formats = Vec::new();
    for given in &flags.format {
        let origin = Origin::Flag { text: format!("--format {given}").into(), shows_value: true };
        match format_text(given) {
            Ok(text) => formats.push(Node::text(text, origin)),
            Err(error) => problems.push(Problem::of_place(origin, error)),
        }
    }
    let origin = Origin::Flag { text: "--format".into(), shows_value: true };
    let keys = ["parse", "formats"].map(str::to_owned);
    set(tree, &keys, Node::new(Value::List(formats), origin.clone()), &origin, problems);
}

/// A `--format` value: itself, or what the file behind the `@` holds.
///
/// # Errors
/// The file cannot be read.
pub fn format_text(given: &str) -> Result<String, String> {
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}")),
        None => Ok(given.to_owned()),
    }
}

/// `s3`, then `s3-2`, `s3-3`, …
fn free_name(table: &Node, base: &str) -> String {
    let mut name = base.to_owned();
    let mut number = 1;
    while table.get(&name).is_some() {
        number += 1;
        name = format!("{base}-{number}");
    }
    name
}

type Keys = Vec<(&'static str, String)>;

/// A `--to` value as a sink that stands at `origin`.
///
/// # Errors
/// What it must be.
pub fn sink_node(spec: &str, origin: &Origin) -> Result<Node, String> {
    let (kind, keys) = sink(spec)?;
    let mut node = Node::table(origin.clone());
    node.insert("type", Node::text(kind, origin.clone()));
    keys.into_iter().for_each(|(key, value)| node.insert(key, Node::text(value, origin.clone())));
    Ok(node)
}

/// A `--to` value as the keys of a sink.
fn sink(spec: &str) -> Result<(&'static str, Keys), String> {
    const ALLOWED: &str =
        "must be cloudwatch:GROUP/STREAM, firehose:STREAM, s3://BUCKET/PREFIX, file:DIR, stdout or discard";
    match spec {
        "stdout" => return Ok(("stdout", Vec::new())),
        "discard" => return Ok(("discard", Vec::new())),
        _ => {}
    }
    if let Some(rest) = spec.strip_prefix("s3://") {
        return s3_sink(rest);
    }
    let Some((kind, rest)) = spec.split_once(':') else { return Err(ALLOWED.into()) };
    match kind {
        "cloudwatch" => match rest.rsplit_once('/') {
            Some((group, stream)) if !group.is_empty() && !stream.is_empty() => {
                Ok(("cloudwatch_logs", vec![("group", group.to_owned()), ("stream", stream.to_owned())]))
            }
            _ => Err("must be cloudwatch:GROUP/STREAM; the stream follows the last `/`".into()),
        },
        "firehose" if rest.is_empty() => Err("must be firehose:STREAM".into()),
        "firehose" => Ok(("firehose", vec![("stream", rest.to_owned())])),
        "s3" => Err("must be s3://BUCKET/PREFIX".into()),
        "file" => {
            let (directory, query) = options(rest, &["layout", "compression", "group", "stream", "key"])?;
            let directory = directory.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(directory);
            if directory.is_empty() {
                return Err("must be file:DIR".into());
            }
            let mut keys = vec![("directory", directory.to_owned())];
            keys.extend(query);
            Ok(("file", keys))
        }
        _ => Err(ALLOWED.into()),
    }
}

fn s3_sink(rest: &str) -> Result<(&'static str, Keys), String> {
    let (place, query) = options(rest, &["compression"])?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err("must be s3://BUCKET/PREFIX".into());
    }
    let mut keys = vec![("bucket", bucket.to_owned())];
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() {
        keys.push(("key", format!("{prefix}/{}", build::S3_KEY)));
    }
    keys.extend(query);
    Ok(("s3", keys))
}

/// What follows the last `?`, as `name=value&…`.
fn options<'a>(text: &'a str, allowed: &[&'static str]) -> Result<(&'a str, Keys), String> {
    let Some((place, query)) = text.rsplit_once('?') else { return Ok((text, Vec::new())) };
    let mut keys = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
            return Err(format!("option `{name}`: {}", must_be_one_of(name, allowed)));
        };
        keys.push((*name, value.to_owned()));
    }
    Ok((place, keys))
}

/// `--set key=value`.
fn apply_set(tree: &mut Node, text: &str, problems: &mut Problems) {
    let must =
        |shown: String, must: String| Problem::of_place(Origin::Flag { text: shown.into(), shows_value: true }, must);
    let Some((key, value)) = text.split_once('=') else {
        problems.push(must(format!("--set {text}"), "must be KEY=VALUE".into()));
        return;
    };
    let Some(keys) = dotted(key) else {
        problems.push(must(format!("--set {key}"), "must have a dotted key before the `=`".into()));
        return;
    };
    let path = super::document::Path(keys.iter().cloned().map(Step::Key).collect());
    let value = value.trim();
    let unnamed = Origin::Flag { text: "--set".into(), shows_value: true };
    let mut node = scalar(value, &unnamed);
    let is_text = matches!(node.value, Value::Text(_));
    let shown = if path.is_secret() { "***" } else { value };
    let shown = format!("--set {}={shown}", key.trim());
    if is_text && value.starts_with(['[', '{', '"', '\'']) && toml_value(value).is_none() {
        problems.push(must(
            format!("--set {}", key.trim()),
            "must have a TOML value; its brackets or quotes do not close".into(),
        ));
        return;
    }
    let is_table = matches!(node.value, Value::Table(_) | Value::List(_));
    // Only the value itself may be shown with its text: a table made on the way to it may hold a misspelt secret.
    let way = Origin::Flag { text: format!("--set {}", key.trim()).into(), shows_value: false };
    stamp(&mut node, &way);
    if !is_table {
        node.origin = Origin::Flag { text: shown.into(), shows_value: true };
    }
    set(tree, &keys, node, &way, problems);
}

/// Puts a flag's value into the tree; a path through something that is no table is a problem.
fn set(tree: &mut Node, keys: &[String], node: Node, way: &Origin, problems: &mut Problems) {
    if let Err(part) = tree.set(keys, node, way) {
        let text = format!("nothing can stand at `{part}` there: must be a key below a table");
        problems.push(Problem::of_place(way.clone(), text));
    }
}

/// A value as TOML reads it; what TOML does not read is text.
fn scalar(text: &str, origin: &Origin) -> Node {
    let mut node = match toml_value(text) {
        Some(Node { value: Value::Datetime(_), .. }) | None => Node::text(text, origin.clone()),
        Some(node) => node,
    };
    stamp(&mut node, origin);
    if matches!(node.value, Value::Integer(_) | Value::Float(_) | Value::Bool(_)) {
        node.bare = Some(text.into());
    }
    node
}

fn toml_value(text: &str) -> Option<Node> {
    let mut problems = Problems::default();
    let mut tree = toml::parse("--set", &format!("value = {text}\n"), &mut problems);
    // A line break in the text could begin another key.
    (problems.is_empty() && tree.keys().count() == 1).then(|| tree.remove("value")).flatten()
}

/// `sink.s3.key`, with quotes where a part needs them.
fn dotted(key: &str) -> Option<Vec<String>> {
    let mut problems = Problems::default();
    let tree = toml::parse("--set", &format!("{} = 0\n", key.trim()), &mut problems);
    let mut keys = Vec::new();
    let mut node = &tree;
    while let Value::Table(entries) = &node.value {
        let [(key, below)] = entries.as_slice() else { return None };
        keys.push(key.clone());
        node = below;
    }
    (problems.is_empty() && !keys.is_empty()).then_some(keys)
}

/// Gives a value and all below it one origin.
fn stamp(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(|node| stamp(node, origin)),
        Value::Table(entries) => entries.iter_mut().for_each(|(_, node)| stamp(node, origin)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_follows_the_last_slash() {
        let (kind, keys) = sink("cloudwatch:/aws/app/{ecs_task_id}").unwrap();
        assert_eq!(kind, "cloudwatch_logs");
        assert_eq!(keys, [("group", "/aws/app".to_owned()), ("stream", "{ecs_task_id}".to_owned())]);
        for wrong in ["cloudwatch:", "cloudwatch:group", "cloudwatch:/stream", "cloudwatch:group/"] {
            assert!(sink(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn buckets_prefixes_and_options() {
        let (_, keys) = sink("s3://b/logs/x/?compression=zstd").unwrap();
        let key = format!("logs/x/{}", build::S3_KEY);
        assert_eq!(keys, [("bucket", "b".to_owned()), ("key", key), ("compression", "zstd".to_owned())]);
        assert_eq!(sink("s3://b").unwrap().1, [("bucket", "b".to_owned())]);
        assert_eq!(sink("file:///tmp/x").unwrap().1, [("directory", "/tmp/x".to_owned())]);
        for wrong in ["s3://", "s3://b?compresion=gzip", "s3:b", "file:", "firehose:", "elsewhere", "kafka:x", ""] {
            assert!(sink(wrong).is_err(), "{wrong}");
        }
        assert!(sink("s3://b?compresion=gzip").unwrap_err().contains("did you mean `compression`?"));
    }

    #[test]
    fn values_are_toml_or_text() {
        let origin = Origin::Flag { text: "".into(), shows_value: true };
        assert_eq!(scalar("10s", &origin).value, Value::Text("10s".into()));
        assert_eq!(scalar("\"10s\"", &origin).value, Value::Text("10s".into()));
        assert_eq!(scalar("16", &origin).value, Value::Integer(16));
        assert_eq!(scalar("1\nb = 2", &origin).value, Value::Text("1\nb = 2".into()));
        assert!(matches!(scalar("[1, 2]", &origin).value, Value::List(_)));
    }

    #[test]
    fn keys_are_dotted_and_may_be_quoted() {
        assert_eq!(dotted("a.\"b.c\".d-e").unwrap(), ["a", "b.c", "d-e"]);
        assert_eq!(dotted("route.0.sample").unwrap(), ["route", "0", "sample"]);
        for wrong in ["", ".", "a..b", "a b", "a = 1\nb"] {
            assert_eq!(dotted(wrong), None, "{wrong}");
        }
    }
}
