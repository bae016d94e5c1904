//! `cloudwatch_logs`, and the Go plugin `cloudwatch`.

use super::{origin_of, required};
use crate::config::document::{Node, Value};
use crate::config::fluent_bit::section::{Entry, Section};
use crate::config::fluent_bit::template;
use crate::config::fluent_bit::translate::Translation;

/// What the table does not translate.
pub fn sink(translation: &mut Translation, section: &Section, is_go: bool, node: &mut Node) {
    if is_go {
        go_names(translation, section, node);
    } else {
        names(translation, section, node);
    }
    required(translation, section, "log_group_name", node, "group");
    let asks = |key: &str| set(section, key).is_some();
    if node.get("stream").is_none() && !asks("log_stream_name") && !asks("log_stream_prefix") {
        translation.warn(section, "has no log_stream_name or log_stream_prefix: the stream is the tag");
        node.insert("stream", Node::text("{tag}", section.origin.clone()));
    }
    let creates = translation.is_on(section, "auto_create_group");
    node.insert("create_group", Node::new(Value::Bool(creates), origin_of(section, "auto_create_group")));
    let days = section.get("log_retention_days").filter(|entry| !entry.value.is_empty());
    if let Some(entry) = days
        && let Some(days) = translation.count(section, entry).filter(|days| *days > 0)
    {
        node.insert("retention_days", Node::new(Value::Integer(days), entry.origin.clone()));
    }
}

fn set<'a>(section: &'a Section, key: &str) -> Option<&'a Entry> {
    section.get(key).filter(|entry| !entry.value.is_empty())
}

/// The C plugin's: names stand for themselves, unless there is a template.
fn names(translation: &mut Translation, section: &Section, node: &mut Node) {
    for key in ["log_group_name", "log_stream_name", "log_stream_prefix"] {
        if let Some(entry) = set(section, key).filter(|entry| entry.value.contains("$(")) {
            let text = "$(…) stands for itself here, as in Fluent Bit: only the Go plugin `cloudwatch` replaces it";
            translation.warn_entry(section, entry, text);
        }
    }
    let group = set(section, "log_group_name");
    if let Some(group) = group {
        node.insert("group", Node::text(template::literal(&group.value), group.origin.clone()));
    }
    let name = set(section, "log_stream_name").map(|entry| (entry, template::literal(&entry.value)));
    let prefix =
        set(section, "log_stream_prefix").map(|entry| (entry, format!("{}{{tag}}", template::literal(&entry.value))));
    if let (Some((name, _)), Some(_)) = (&name, &prefix) {
        translation.refuse_entry(section, name, "must not be set beside log_stream_prefix");
    }
    if let Some((entry, stream)) = name.or(prefix) {
        node.insert("stream", Node::text(stream, entry.origin.clone()));
    }
    for (key, to) in [("log_group_template", "group"), ("log_stream_template", "stream")] {
        let Some(entry) = set(section, key) else { continue };
        match template::accessor(&entry.value) {
            Ok(text) => {
                // The plain name is for records that lack a key of the template.
                if let Some(name) = node.remove(to).filter(|_| entry.value.contains('$')) {
                    node.insert(&format!("{to}_fallback"), name);
                }
                node.insert(to, Node::text(text, entry.origin.clone()));
            }
            Err(must) => translation.refuse_entry(section, entry, &must),
        }
    }
}

/// The Go plugin's: `$(…)`. Where a variable is not known, the default name stands for the whole.
fn go_names(translation: &mut Translation, section: &Section, node: &mut Node) {
    let mut name = |key: &str, suffix: &str, to: &str, default: (&str, &str)| {
        let Some(entry) = set(section, key) else { return };
        match template::go(&format!("{}{suffix}", entry.value)) {
            Ok(text) => {
                if entry.value.contains("$(") {
                    let fallback = section.value(default.0).filter(|text| !text.is_empty()).unwrap_or(default.1);
                    let fallback = Node::text(template::literal(fallback), origin_of(section, default.0));
                    node.insert(&format!("{to}_fallback"), fallback);
                }
                node.insert(to, Node::text(text, entry.origin.clone()));
            }
            Err(must) => translation.refuse_entry(section, entry, &must),
        }
    };
    let (group, stream) =
        (("default_log_group_name", "fluentbit-default"), ("default_log_stream_name", "/fluentbit-default"));
    name("log_group_name", "", "group", group);
    if set(section, "log_stream_prefix").is_some() {
        name("log_stream_prefix", "$(tag)", "stream", stream);
    } else {
        name("log_stream_name", "", "stream", stream);
    }
}
