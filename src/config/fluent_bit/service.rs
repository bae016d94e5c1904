//! `[SERVICE]`, `[PARSER]` and `[MULTILINE_PARSER]`.

use std::time::Duration;

use super::section::Section;
use super::table::service::{MULTILINE_PARSER, PARSER, SERVICE};
use super::translate::{Translation, period};
use super::values;
use crate::config::document::{Node, Origin, Path, Value};

/// What inputs and outputs need to know of `[SERVICE]`.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// How long outputs gather.
    pub flush: Option<Node>,
    /// Where chunks may be kept.
    pub storage_path: Option<Node>,
    /// All inputs are kept there.
    pub keeps: bool,
}

/// What ECS gives between SIGTERM and SIGKILL if nothing is said; from this grace on, ours ends before.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How much before.
const CLOSING: Duration = Duration::from_secs(5);

/// Where the HTTP server of Fluent Bit listens.
const HTTP_LISTEN: &str = "0.0.0.0";
const HTTP_PORT: &str = "2020";

/// `[SERVICE]`: all such sections together, the last word counts.
pub fn service(translation: &mut Translation, sections: &[Section]) -> Service {
    let mut found = sections.iter().filter(|section| section.name == "SERVICE");
    let Some(first) = found.next() else { return Service::default() };
    let mut all = first.clone();
    found.for_each(|section| all.entries.extend(section.entries.iter().cloned()));
    let all = &all;
    let mut unused = Node::table(all.origin.clone());
    translation.entries(all, &[SERVICE], &mut unused);
    grace(translation, all);
    log_level(translation, all);
    http(translation, all);
    let mut service = Service::default();
    if let Some(flush) = all.get("flush").filter(|entry| !entry.value.is_empty()) {
        match values::time(&flush.value).filter(|time| !time.is_zero()) {
            Some(time) => service.flush = Some(period(time.max(Duration::from_millis(10)), &flush.origin)),
            None => translation.refuse_entry(all, flush, "must be a number of seconds, more than 0"),
        }
    }
    service.storage_path = all.get("storage.path").map(|path| Node::text(&path.value, path.origin.clone()));
    service.keeps = all.value("storage.type").is_some_and(|kind| kind.eq_ignore_ascii_case("filesystem"));
    service
}

fn grace(translation: &mut Translation, section: &Section) {
    let Some(entry) = section.get("grace").filter(|entry| !entry.value.is_empty()) else { return };
    match values::time(&entry.value) {
        Some(time) => {
            let ours =
                if time >= STOP_TIMEOUT { time.saturating_sub(CLOSING) } else { time.min(STOP_TIMEOUT - CLOSING) };
            translation.set("shutdown.grace", period(ours, &entry.origin));
        }
        None => translation.refuse_entry(section, entry, values::TIME),
    }
}

fn log_level(translation: &mut Translation, section: &Section) {
    let Some(entry) = section.get("log_level").filter(|entry| !entry.value.is_empty()) else { return };
    let level = match entry.value.to_ascii_lowercase().as_str() {
        "warning" | "warn" => "warn",
        "off" => "off",
        "error" => "error",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return translation.refuse_entry(section, entry, "must be off, error, warn, info, debug or trace"),
    };
    translation.set("log.level", Node::text(level, entry.origin.clone()));
}

fn http(translation: &mut Translation, section: &Section) {
    if !translation.is_on(section, "http_server") {
        return;
    }
    let Some(server) = section.get("http_server") else { return };
    let host = section.value("http_listen").filter(|host| !host.is_empty()).unwrap_or(HTTP_LISTEN);
    let port = section.value("http_port").filter(|port| !port.is_empty()).unwrap_or(HTTP_PORT);
    if let Some(entry) = section.get("http_port")
        && port.parse::<u16>().is_err()
    {
        return translation.refuse_entry(section, entry, "must be a port, 1 to 65535");
    }
    translation.set("admin.fluent_bit_listen", Node::text(address(host, port), server.origin.clone()));
    if !translation.is_on(section, "health_check") {
        return;
    }
    let Some(check) = section.get("health_check") else { return };
    let mut health = Node::table(check.origin.clone());
    // Fluent Bit's defaults.
    let keys = [
        ("hc_errors_count", "errors_count", 5),
        ("hc_retry_failure_count", "retry_failure_count", 5),
        ("hc_period", "period", 60),
    ];
    for (key, to, default) in keys {
        let entry = section.get(key).filter(|entry| !entry.value.is_empty());
        let value = match entry {
            Some(entry) => translation.count(section, entry).unwrap_or(default),
            None => default,
        };
        let origin = entry.map_or(&check.origin, |entry| &entry.origin).clone();
        health.insert(to, Node::new(Value::Integer(value), origin));
    }
    translation.set("admin.fluent_bit_health", health);
}

/// `host:port`, with brackets around an IPv6 address.
pub fn address(host: &str, port: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `[PARSER]` and `[MULTILINE_PARSER]`. Of two with one name, the first counts, as in Fluent Bit.
pub fn parsers(translation: &mut Translation, sections: &[Section]) {
    for section in sections {
        let (kind, keys) = match section.name.as_str() {
            "PARSER" => ("parser", PARSER),
            "MULTILINE_PARSER" => ("multiline_parser", MULTILINE_PARSER),
            _ => continue,
        };
        let Some(name) = section.get("name").filter(|name| !name.value.is_empty()) else {
            translation.refuse(section, "needs a `Name`");
            continue;
        };
        let is_known = |tree: &Node| tree.get(kind).is_some_and(|parsers| parsers.get(&name.value).is_some());
        if is_known(&translation.tree) {
            translation.warn(section, "a parser of this name was read before: that one is used");
            continue;
        }
        let mut node = Node::table(section.origin.clone());
        translation.entries(section, &[keys], &mut node);
        let text = |node: &Node, key: &str| match node.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text.to_lowercase()),
            _ => None,
        };
        for key in ["format", "type"] {
            if let (Some(lower), Some(old)) = (text(&node, key), node.get(key)) {
                let origin: Origin = old.origin.clone();
                node.insert(key, Node::text(lower, origin));
            }
        }
        let mut table = translation.tree.remove(kind).unwrap_or_else(|| Node::table(section.origin.clone()));
        table.insert(&name.value, node);
        translation.tree.insert(kind, table);
    }
}

/// Leaves out parsers that nothing names: the files of the image have many. Names that differ in letter case only are one, as
/// in Fluent Bit.
pub fn keep_used_parsers(tree: &mut Node) {
    const PARSERS: [&str; 2] = ["parser", "multiline_parser"];
    let known: Vec<String> =
        PARSERS.iter().filter_map(|kind| tree.get(kind)).flat_map(Node::keys).map(str::to_owned).collect();
    let mut used: Vec<String> = Vec::new();
    for kind in ["filter", "source", "multiline_parser"] {
        let users: Vec<&mut Node> = match tree.at_mut(&Path::root().key(kind)).map(|node| &mut node.value) {
            Some(Value::List(list)) => list.iter_mut().collect(),
            Some(Value::Table(entries)) => entries.iter_mut().map(|(_, node)| node).collect(),
            _ => continue,
        };
        for user in users {
            for key in PARSERS {
                user.at_mut(&Path::root().key(key)).into_iter().for_each(|node| name_parsers(node, &known, &mut used));
            }
        }
    }
    for kind in PARSERS {
        let Some(mut table) = tree.remove(kind) else { continue };
        if let Value::Table(entries) = &mut table.value {
            entries.retain(|(name, _)| used.contains(name));
        }
        if table.keys().next().is_some() {
            tree.insert(kind, table);
        }
    }
}

/// Gives references to parsers the letter case of the parsers' own names, and notes them.
fn name_parsers(node: &mut Node, known: &[String], used: &mut Vec<String>) {
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(|node| name_parsers(node, known, used)),
        Value::Text(text) => {
            let same = |name: &&String| **name == *text;
            let found = known.iter().find(same).or_else(|| known.iter().find(|name| name.eq_ignore_ascii_case(text)));
            if let Some(name) = found {
                text.clone_from(name);
                used.push(name.clone());
            }
        }
        _ => {}
    }
}
