//! The configuration of fluentd, as the ECS agent writes it for `type: fluentd`, as the tree that our TOML makes.
//!
//! Served are the sources `unix`, `forward` and `tail`; the filters `grep` and `record_transformer` with fixed values; the
//! outputs `kinesis_firehose`, `cloudwatch_logs` and `s3` of their plugins, `forward`, `stdout`, `null`, and `copy` of these.
//! Whatever else stands there is named, with what happens to its records.
//!
//! A record goes to the first `<match>` that matches, unlike in Fluent Bit; what none matches is left out, in both. `*` is one
//! part of a tag between dots, `**` any number of parts.

use std::path::Path;

use super::build::Variables;
use super::document::{Node, Value};
use super::fluent_bit::files::Files;
use super::fluent_bit::section::{Entry, place};
use super::fluent_bit::translate::{Translation, append, table};
use super::fluent_bit::{Translated, defaults};
use super::problem::Problem;

mod outputs;
pub mod parse;

use parse::{Element, Reader};

/// Whether a text is a configuration of fluentd.
pub fn is_fluentd(text: &str) -> bool {
    let heads = ["<source>", "<match ", "<filter ", "<match>", "<filter>"];
    text.lines().map(str::trim_start).any(|line| heads.iter().any(|head| line.starts_with(head)))
}

/// Reads and translates.
pub fn read(path: &Path, files: &Files, variables: Variables<'_>, fallback: Option<Node>) -> Translated {
    let mut reader = Reader::new(files, variables);
    let root = reader.file(path);
    let mut translation = Translation::new(root.origin.clone());
    translation.problems = reader.problems;
    translation.warnings = reader.warnings;
    for element in &root.children {
        match element.name.as_str() {
            "source" => source(&mut translation, element),
            "filter" => filter(&mut translation, element),
            "match" => {}
            "system" => system(&mut translation, element),
            _ => warn(&mut translation, element, "not supported, ignored with all that stands in it"),
        }
    }
    outputs::outputs(&mut translation, &root, fallback);
    defaults(&mut translation);
    let Translation { tree, problems, warnings, .. } = translation;
    Translated { tree, problems, warnings, is_whole: true }
}

/// Notes what should be known of an element.
fn warn(translation: &mut Translation, element: &Element, text: &str) {
    translation.warnings.push(format!("{}: {}: {text}", place(&element.origin), element.title()));
}

/// Notes what is wrong with an element.
fn refuse(translation: &mut Translation, element: &Element, text: &str) {
    let text = format!("{}: {text}", element.title());
    translation.problems.push(Problem::of_place(element.origin.clone(), text));
}

/// Notes what is wrong with a parameter.
fn refuse_entry(translation: &mut Translation, element: &Element, entry: &Entry, must: &str) {
    let text = format!("{}: {} = {}: {must}", element.title(), entry.key, entry.written);
    translation.problems.push(Problem::of_place(entry.origin.clone(), text));
}

/// Notes parameters that have no meaning here.
fn warn_unknown(translation: &mut Translation, element: &Element, known: &[&str]) {
    for entry in element.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        let text = format!("{}: {}: {}: not supported, ignored", place(&entry.origin), element.title(), entry.key);
        translation.warnings.push(text);
    }
}

fn text(entry: &Entry) -> Node {
    Node::text(&entry.value, entry.origin.clone())
}

fn system(translation: &mut Translation, element: &Element) {
    if let Some(level) = element.get("log_level") {
        let ours = match level.value.as_str() {
            "fatal" => "error",
            level => level,
        };
        if ["trace", "debug", "info", "warn", "error"].contains(&ours) {
            translation.set("log.level", Node::text(ours, level.origin.clone()));
        } else {
            refuse_entry(translation, element, level, "must be fatal, error, warn, info, debug or trace");
        }
    }
    warn_unknown(translation, element, &["log_level", "workers"]);
}

fn source(translation: &mut Translation, element: &Element) {
    let mut node = Node::table(element.origin.clone());
    let known: &[&str] = match element.kind() {
        "unix" => {
            let path = element
                .get("path")
                .map_or_else(|| Node::text("/var/run/fluent/fluent.sock", element.origin.clone()), text);
            node.insert("type", Node::text("forward", element.origin.clone()));
            node.insert("unix_path", path);
            &["@type", "@id", "@log_level", "path", "backlog"]
        }
        "forward" => {
            let host = element.value("bind").unwrap_or("0.0.0.0");
            let port = element.value("port").unwrap_or("24224");
            if let Some(entry) = element.get("port")
                && port.parse::<u16>().is_err()
            {
                refuse_entry(translation, element, entry, "must be a port, 0 to 65535");
                return;
            }
            node.insert("type", Node::text("forward", element.origin.clone()));
            let listen = super::fluent_bit::service::address(host, port);
            node.insert("listen", Node::text(listen, element.origin.clone()));
            for (key, to) in [("tag", "tag"), ("add_tag_prefix", "tag_prefix")] {
                if let Some(entry) = element.get(key) {
                    node.insert(to, text(entry));
                }
            }
            &[
                "@type",
                "@id",
                "@log_level",
                "bind",
                "port",
                "tag",
                "add_tag_prefix",
                "chunk_size_limit",
                "backlog",
                "linger_timeout",
                "source_address_key",
                "skip_invalid_event",
            ]
        }
        "tail" => {
            node.insert("type", Node::text("tail", element.origin.clone()));
            let Some(path) = element.get("path") else { return refuse(translation, element, "needs a `path`") };
            for path in path.value.split(',').map(str::trim).filter(|path| !path.is_empty()) {
                append(&mut node, "path", Node::text(path, element.origin.clone()));
            }
            node.insert("key", Node::text("message", element.origin.clone()));
            for (key, to) in [("tag", "tag"), ("pos_file", "db"), ("path_key", "path_key")] {
                if let Some(entry) = element.get(key) {
                    node.insert(to, text(entry));
                }
            }
            let from_head = element.value("read_from_head") == Some("true");
            node.insert("read_from_head", Node::new(Value::Bool(from_head), element.origin.clone()));
            if element.children("parse").any(|parse| parse.kind() != "none") {
                warn(translation, element, "lines are not parsed: each is one text");
            }
            &[
                "@type",
                "@id",
                "@log_level",
                "path",
                "tag",
                "pos_file",
                "path_key",
                "read_from_head",
                "refresh_interval",
                "rotate_wait",
            ]
        }
        _ => {
            return warn(
                translation,
                element,
                "this source is not supported and does nothing: what it would read is not read",
            );
        }
    };
    warn_unknown(translation, element, known);
    let place_of = |translation: &Translation| {
        translation
            .tree
            .get("source")
            .map_or(0, |sources| sources.keys().filter(|name| name.starts_with(element.kind())).count())
    };
    let name = element.value("@id").map_or_else(|| format!("{}.{}", element.kind(), place_of(translation)), clean);
    let mut sources = translation.tree.remove("source").unwrap_or_else(|| Node::table(element.origin.clone()));
    sources.insert(&name, node);
    translation.tree.insert("source", sources);
}

/// A name that may be that of a source or sink.
fn clean(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    format!("x{}", name.chars().map(allowed).take(60).collect::<String>())[usize::from(!name.starts_with('.'))..]
        .to_owned()
}

fn filter(translation: &mut Translation, element: &Element) {
    let mut node = Node::table(element.origin.clone());
    let (key, condition) = condition(&element.argument);
    let condition = Node::text(condition, element.origin.clone());
    match element.kind() {
        "grep" => {
            // Each <regexp> has to match, and no <exclude> may: one filter for each.
            for (name, to) in [("regexp", "regex"), ("exclude", "exclude")] {
                for rule in element.children(name) {
                    let (Some(of), Some(pattern)) = (rule.value("key"), rule.get("pattern")) else {
                        refuse(translation, rule, "needs `key` and `pattern`");
                        continue;
                    };
                    let mut node = Node::table(element.origin.clone());
                    node.insert("type", Node::text("grep", element.origin.clone()));
                    node.insert(key, condition.clone());
                    let text = format!("{of} {}", expression(&pattern.value));
                    append(&mut node, to, Node::text(text, pattern.origin.clone()));
                    append(&mut translation.tree, "filter", node);
                }
            }
            return warn_unknown(translation, element, &["@type", "@id", "@log_level"]);
        }
        "record_transformer" => {
            node.insert("type", Node::text("modify", element.origin.clone()));
            node.insert(key, condition);
            for entry in element.children("record").flat_map(|record| &record.entries) {
                if entry.value.contains("${") {
                    let text = format!("{}: values made from the record are not supported: not added", entry.key);
                    warn(translation, element, &text);
                } else if !entry.value.is_empty() {
                    let rule = format!("set {} {}", entry.key, quoted(&entry.value));
                    append(&mut node, "rule", Node::text(rule, entry.origin.clone()));
                }
            }
            if let Some(entry) = element.get("remove_keys") {
                for key in entry.value.split(',').map(str::trim).filter(|key| !key.is_empty()) {
                    append(&mut node, "rule", Node::text(format!("remove {key}"), entry.origin.clone()));
                }
            }
            warn_unknown(
                translation,
                element,
                &["@type", "@id", "@log_level", "remove_keys", "enable_ruby", "auto_typecast"],
            );
        }
        _ => return warn(translation, element, "this filter is not supported: records pass it unchanged"),
    }
    if node.keys().count() > 2 {
        append(&mut translation.tree, "filter", node);
    }
}

/// A value of a rule; blanks in it need quotes.
fn quoted(value: &str) -> String {
    if value.contains(char::is_whitespace) { format!("\"{}\"", value.replace('"', "\\\"")) } else { value.to_owned() }
}

/// An expression without its slashes; flags after them stand before it.
fn expression(text: &str) -> String {
    let slashed = text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    match slashed {
        Some((inside, flags)) if flags.chars().all(|flag| "imx".contains(flag)) => {
            if flags.is_empty() {
                inside.to_owned()
            } else {
                format!("(?{flags}){inside}")
            }
        }
        _ => text.to_owned(),
    }
}

/// A pattern on tags as a key of a filter and its value: a wildcard of Fluent Bit where that says the same, else an expression.
fn condition(pattern: &str) -> (&'static str, String) {
    let is_plain = |pattern: &str| {
        let stars = pattern.replace("**", "");
        !stars.contains(['*', '{', '}', ' ']) && !pattern.contains(".**") && !pattern.contains("**.")
    };
    if is_plain(pattern) {
        ("match", pattern.replace("**", "*"))
    } else {
        let alternatives: Vec<String> = pattern.split_whitespace().map(regex).collect();
        ("match_regex", format!("^(?:{})$", alternatives.join("|")))
    }
}

/// The condition of a rule, the same as [`condition`].
fn tag_condition(element: &Element) -> Node {
    let pattern = if element.argument.is_empty() { "**" } else { &element.argument };
    let (key, value) = condition(pattern);
    let prefix = if key == "match" { "match:" } else { "regex:" };
    table("tag", Node::text(format!("{prefix}{value}"), element.origin.clone()))
}

/// One pattern as an expression.
fn regex(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(".**") {
            out.push_str("(?:\\..*)?");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**.") {
            out.push_str("(?:.*\\.)?");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**") {
            out.push_str(".*");
            rest = after;
        } else {
            match c {
                '*' => out.push_str("[^.]*"),
                '{' => out.push_str("(?:"),
                '}' => out.push(')'),
                ',' => out.push('|'),
                c if c.is_ascii_punctuation() && c != '_' && c != '-' => {
                    out.push('\\');
                    out.push(c);
                }
                c => out.push(c),
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_on_tags() {
        assert_eq!(condition("app-firelens**"), ("match", "app-firelens*".into()));
        assert_eq!(condition("**"), ("match", "*".into()));
        assert_eq!(condition("a.*"), ("match_regex", "^(?:a\\.[^.]*)$".into()));
        assert_eq!(condition("a.** {b,c}"), ("match_regex", "^(?:a(?:\\..*)?|(?:b|c))$".into()));
    }

    #[test]
    fn expressions_and_names() {
        assert_eq!(expression("/a/b/i"), "(?i)a/b");
        assert_eq!(expression("*failure*"), "*failure*");
        assert_eq!(clean(".a b"), "x.a-b");
        assert_eq!(clean("a"), "a");
        assert_eq!(quoted("a b"), "\"a b\"");
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_panics_and_each_is_an_expression(pattern in "[a-z*.{},ü-]*") {
            let _ = condition(&pattern);
        }
    }
}
