//! `[INPUT]`: sources, and what their memory limits say of the journal's.

use super::section::{Section, place};
use super::service::{Service, address};
use super::table::{self, Stage};
use super::translate::{Translation, append, size, table as table_of};
use super::values;
use crate::config::document::{Node, Origin, Value};

/// Memory of the journal at least: less would not outlast a few seconds of trouble.
const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Messages of the forward protocol may be this large by default; see `frame_bytes_max`.
const FRAME_BYTES_DEFAULT: u64 = 64 << 20;
/// Lines may be this long by default; see `line_bytes_max`.
const LINE_BYTES_DEFAULT: u64 = 1 << 20;

/// All `[INPUT]`s.
pub fn inputs(translation: &mut Translation, sections: &[Section], service: &Service) {
    let mut sources = Node::table(translation.tree.origin.clone());
    // Bytes by source.
    let mut limits: Vec<(String, u64, Origin)> = Vec::new();
    let mut keeps = service.keeps.then(|| translation.tree.origin.clone());
    for section in sections.iter().filter(|section| section.name == "INPUT") {
        let name = translation.instance("source", section);
        let Some(source) = source(translation, section, &name) else { continue };
        let merged = merge(translation, &mut sources, name, source, section);
        if let Some(entry) = section.get("mem_buf_limit").filter(|entry| !entry.value.is_empty()) {
            match values::size(&entry.value) {
                None => translation.refuse_entry(section, entry, values::SIZE),
                Some(bytes) => match limits.iter_mut().find(|(name, ..)| *name == merged) {
                    Some((_, limit, _)) => *limit = bytes.max(*limit),
                    None => limits.push((merged, bytes, entry.origin.clone())),
                },
            }
        }
        let kind = section.get("storage.type");
        if let Some(entry) = kind.filter(|entry| entry.value.eq_ignore_ascii_case("filesystem")) {
            keeps.get_or_insert(entry.origin.clone());
        }
    }
    if sources.keys().next().is_some() {
        translation.tree.insert("source", sources);
    }
    if let Some((.., origin)) = limits.first() {
        let sum: u64 = limits.iter().map(|(_, bytes, _)| bytes).sum();
        translation.set("journal.memory_bytes_max", size(sum.clamp(MEMORY_BYTES_MIN, 64 << 30), origin));
    }
    journal(translation, service, keeps);
}

/// `storage.type filesystem`.
fn journal(translation: &mut Translation, service: &Service, keeps: Option<Origin>) {
    let Some(origin) = keeps else { return };
    match service.storage_path.clone() {
        Some(path) => {
            translation.set("journal.persist", Node::text("overflow", origin));
            translation.set("journal.dir", path);
        }
        None => translation.warnings.push(format!(
            "{}: storage.type filesystem without storage.path in [SERVICE]: records are kept in memory only",
            place(&origin)
        )),
    }
}

/// One source, or none if we do not know its kind.
fn source(translation: &mut Translation, section: &Section, name: &str) -> Option<Node> {
    let Some(plugin) = table::plugin(Stage::Input, section.plugin()) else {
        if section.plugin().is_empty() {
            translation.refuse(section, "needs a `Name`");
        } else {
            translation.warn(section, "this input is not supported and does nothing: what it would read is not read");
        }
        return None;
    };
    let mut node = Node::table(section.origin.clone());
    let kind = if plugin.name == "stdin" { "lines" } else { plugin.name };
    node.insert("type", Node::text(kind, section.origin.clone()));
    translation.entries(section, &[plugin.keys, table::common(Stage::Input)], &mut node);
    match plugin.name {
        "forward" => forward(translation, section, &mut node),
        "tcp" => tcp(translation, section, &mut node),
        "stdin" => node.insert("path", Node::text("-", section.origin.clone())),
        "tail" => {
            if node.get("path").is_none() {
                translation.refuse(section, "needs a `Path`");
            }
            larger(translation, section, "buffer_max_size", "line_bytes_max", LINE_BYTES_DEFAULT, &mut node);
        }
        _ => {}
    }
    if plugin.name != "forward" && node.get("tag").is_none() {
        // As Fluent Bit names it.
        node.insert("tag", Node::text(name, section.origin.clone()));
    }
    if plugin.name != "forward" {
        parsers(translation, section, &node);
    }
    Some(node)
}

/// The parsers of an input, as filters for its tag: all filters run in order, and inputs come first.
fn parsers(translation: &mut Translation, section: &Section, source: &Node) {
    let Some(tag) = source.get("tag").cloned() else { return };
    let key = source.get("key").cloned().unwrap_or_else(|| Node::text("log", section.origin.clone()));
    let filter = |kind: &str, origin: &Origin| {
        let mut filter = Node::table(origin.clone());
        filter.insert("type", Node::text(kind, origin.clone()));
        filter.insert("match", tag.clone());
        filter
    };
    if let Some(entry) = section.get("multiline.parser").filter(|entry| !entry.value.is_empty()) {
        let mut filter = filter("multiline", &entry.origin);
        filter.insert("multiline_key_content", key.clone());
        for name in values::words(&entry.value) {
            append(&mut filter, "multiline_parser", Node::text(name, entry.origin.clone()));
        }
        append(&mut translation.tree, "filter", filter);
    }
    if let Some(entry) = section.get("parser").filter(|entry| !entry.value.is_empty()) {
        let parsers = translation.tree.get("parser");
        if !parsers.is_some_and(|parsers| parsers.keys().any(|name| name.eq_ignore_ascii_case(&entry.value))) {
            // As Fluent Bit: an input goes on without it.
            return translation.warn_entry(section, entry, "names no parser: lines pass as they are");
        }
        let mut filter = filter("parser", &entry.origin);
        filter.insert("key_name", key);
        append(&mut filter, "parser", Node::text(&entry.value, entry.origin.clone()));
        // What the input itself adds stays.
        filter.insert("reserve_data", Node::new(Value::Bool(true), entry.origin.clone()));
        append(&mut translation.tree, "filter", filter);
    }
}

fn forward(translation: &mut Translation, section: &Section, node: &mut Node) {
    if node.get("unix_path").is_none() {
        listen(translation, section, "24224", node);
    }
    larger(translation, section, "buffer_max_size", "frame_bytes_max", FRAME_BYTES_DEFAULT, node);
    if !translation.is_on(section, "tls") {
        return;
    }
    let text = |key: &str| section.get(key).map(|entry| Node::text(&entry.value, entry.origin.clone()));
    let (Some(certificate), Some(key)) = (text("tls.crt_file"), text("tls.key_file")) else {
        return translation.refuse(section, "tls on needs tls.crt_file and tls.key_file");
    };
    let mut tls = table_of("certificate", certificate);
    tls.insert("key", key);
    if translation.is_on(section, "tls.verify_client_cert")
        && let Some(authorities) = text("tls.ca_file")
    {
        tls.insert("client_ca", authorities);
    }
    node.insert("tls", tls);
}

fn tcp(translation: &mut Translation, section: &Section, node: &mut Node) {
    listen(translation, section, "5170", node);
    if let Some(entry) = section.get("separator").filter(|entry| !entry.value.is_empty()) {
        node.insert("separator", Node::text(unescape(&entry.value), entry.origin.clone()));
    }
    let format = match section.get("format").filter(|entry| !entry.value.is_empty()) {
        Some(entry) => Node::text(entry.value.to_ascii_lowercase(), entry.origin.clone()),
        None => Node::text("json", section.origin.clone()),
    };
    node.insert("format", format);
}

/// `Listen` and `Port`, as one address.
fn listen(translation: &mut Translation, section: &Section, port: &str, node: &mut Node) {
    let entry = section.get("port").filter(|entry| !entry.value.is_empty());
    let port = entry.map_or(port, |entry| entry.value.as_str());
    if let Some(entry) = entry
        && port.parse::<u16>().is_err()
    {
        translation.refuse_entry(section, entry, "must be a port, 0 to 65535");
        return;
    }
    let host = section.value("listen").filter(|host| !host.is_empty()).unwrap_or("0.0.0.0");
    let origin = section.get("listen").or(entry).map_or(&section.origin, |entry| &entry.origin);
    node.insert("listen", Node::text(address(host, port), origin.clone()));
}

/// A limit that is only ever raised.
fn larger(translation: &mut Translation, section: &Section, key: &str, to: &str, default: u64, node: &mut Node) {
    let Some(entry) = section.get(key).filter(|entry| !entry.value.is_empty()) else { return };
    match values::size(&entry.value) {
        None => translation.refuse_entry(section, entry, values::SIZE),
        Some(bytes) if bytes > default => node.insert(to, size(bytes, &entry.origin)),
        Some(_) => {}
    }
}

/// Puts a source among the others; one that listens where another does becomes part of that. Returns the name under which it
/// stands.
fn merge(translation: &mut Translation, sources: &mut Node, name: String, source: Node, section: &Section) -> String {
    let same = sources.keys().find(|other| sources.get(other).is_some_and(|other| is_same_place(other, &source)));
    let Some(same) = same.map(str::to_owned) else {
        sources.insert(&name, source);
        return name;
    };
    let first = sources.get(&same).map(|node| place(&node.origin)).unwrap_or_default();
    let text = format!("listens where the input at {first} does: they are one, with the keys of both");
    translation.warn(section, &text);
    if let (Some(mut old), Value::Table(entries)) = (sources.remove(&same), source.value) {
        for (key, value) in entries {
            // Of two addresses, the one that holds the other.
            let is_wider =
                matches!(&value.value, Value::Text(text) if is_any(text.rsplit_once(':').map_or("", |(host, _)| host)));
            if key != "type" && (key != "listen" || is_wider) {
                old.insert(&key, value);
            }
        }
        sources.insert(&same, old);
    }
    same
}

/// Whether two sources cannot both listen.
pub fn is_same_place(one: &Node, other: &Node) -> bool {
    let text = |node: &Node, key: &str| match node.get(key).map(|node| &node.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let unix = (text(one, "unix_path"), text(other, "unix_path"));
    if matches!(&unix, (Some(one), Some(other)) if one == other) {
        return true;
    }
    let (Some(one), Some(other)) = (text(one, "listen"), text(other, "listen")) else { return false };
    let (Some((one, port)), Some((other, other_port))) = (one.rsplit_once(':'), other.rsplit_once(':')) else {
        return false;
    };
    port == other_port && port != "0" && (one == other || is_any(one) || is_any(other))
}

/// Whether this host stands for all addresses.
fn is_any(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "[::]")
}

/// `\n`, `\t`, `\r`, `\0` and `\\` in a separator.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match (c, chars.clone().next()) {
            ('\\', Some(next @ ('n' | 't' | 'r' | '0' | '\\'))) => {
                chars.next();
                match next {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }
            }
            _ => c,
        };
        out.push(c);
    }
    out
}
