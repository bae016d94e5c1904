//! `[FILTER]`: in order.

use super::section::Section;
use super::table::{self, Stage};
use super::template;
use super::translate::{Translation, append};
use crate::config::document::{Node, Value};

/// All `[FILTER]`s.
pub fn filters(translation: &mut Translation, sections: &[Section]) {
    let mut enrich: Vec<(String, Node)> = Vec::new();
    for section in sections.iter().filter(|section| section.name == "FILTER") {
        let Some(plugin) = table::plugin(Stage::Filter, section.plugin()) else {
            if section.plugin().is_empty() {
                translation.refuse(section, "needs a `Name`");
            } else {
                translation.warn(section, "this filter is not supported: records pass it unchanged");
            }
            continue;
        };
        let mut node = Node::table(section.origin.clone());
        node.insert("type", Node::text(plugin.name, section.origin.clone()));
        translation.entries(section, &[plugin.keys, table::common(Stage::Filter)], &mut node);
        if node.get("match").is_none() && node.get("match_regex").is_none() {
            translation.warn(section, "has no `Match`: it does nothing, as in Fluent Bit");
            continue;
        }
        match plugin.name {
            "aws" => aws(translation, section, &mut enrich),
            "ecs" => ecs(translation, section, &mut enrich),
            _ => {
                if own(translation, section, plugin.name, &mut node) {
                    append(&mut translation.tree, "filter", node);
                }
            }
        }
    }
    for (name, node) in enrich {
        let origin = node.origin.clone();
        let mut table = translation.tree.remove("enrich").unwrap_or_else(|| Node::table(origin.clone()));
        let mut fields = table.remove("metadata").unwrap_or_else(|| Node::table(origin));
        // The first of a name counts.
        if fields.get(&name).is_none() {
            fields.insert(&name, node);
        }
        table.insert("metadata", fields);
        translation.tree.insert("enrich", table);
    }
}

/// `Regex` and `Exclude` in the order written, where both stand.
fn grep(section: &Section, node: &mut Node) {
    if node.get("regex").is_none() || node.get("exclude").is_none() {
        return;
    }
    for key in ["regex", "exclude"] {
        node.remove(key);
    }
    for entry in section.entries.iter().filter(|entry| matches!(entry.key.as_str(), "regex" | "exclude")) {
        append(node, "rule", Node::text(format!("{} {}", entry.key, entry.value), entry.origin.clone()));
    }
}

/// What a filter's own keys become beside the table; whether there is anything to do.
fn own(translation: &mut Translation, section: &Section, plugin: &str, node: &mut Node) -> bool {
    match plugin {
        "record_modifier" => record_modifier(translation, section, node),
        "modify" => {
            modify(translation, section, node);
            true
        }
        "grep" | "nest" | "multiline" => {
            for key in ["logical_op", "operation", "mode"] {
                if let Some(entry) = section.get(key).filter(|entry| !entry.value.is_empty()) {
                    node.insert(key, Node::text(entry.value.to_ascii_lowercase(), entry.origin.clone()));
                }
            }
            if plugin == "grep" {
                grep(section, node);
            }
            if plugin == "multiline"
                && node.get("mode").is_some_and(|mode| mode.value == Value::Text("partial_message".into()))
            {
                // Lines that Docker split are joined before any filter.
                translation.warn(section, "partial messages are joined without this filter");
                return false;
            }
            true
        }
        _ => true,
    }
}

/// A record without a value: Fluent Bit does not start; a variable that is not set is no reason for that.
fn record_modifier(translation: &mut Translation, section: &Section, node: &mut Node) -> bool {
    for entry in section.entries.iter().filter(|entry| entry.key == "record") {
        let (key, value) = entry.value.split_once([' ', '\t']).unwrap_or((&entry.value, ""));
        if !value.trim().is_empty() {
            append(node, "record", Node::text(&entry.value, entry.origin.clone()));
        } else if entry.written.contains("${") {
            translation.warn_entry(section, entry, &format!("{key} has no value and is not added"));
        } else {
            translation.refuse_entry(section, entry, "must be a key and a value");
        }
    }
    node.keys().any(|key| !matches!(key, "type" | "match" | "match_regex"))
}

fn modify(translation: &mut Translation, section: &Section, node: &mut Node) {
    // Rules are applied in the order written, so that the list that the table has made is made again.
    node.remove("rule");
    for entry in &section.entries {
        let key = match entry.key.as_str() {
            // Another name for it.
            "add_if_not_present" => "add",
            key @ ("set" | "add" | "remove" | "remove_wildcard" | "remove_regex" | "rename" | "hard_rename"
            | "copy" | "hard_copy" | "move_to_start" | "move_to_end") => key,
            "condition" => {
                let (word, rest) = entry.value.split_once([' ', '\t']).unwrap_or((&entry.value, ""));
                let text = format!("{} {}", word.to_ascii_lowercase(), rest.trim());
                append(node, "condition", Node::text(text.trim_end(), entry.origin.clone()));
                continue;
            }
            _ => continue,
        };
        // As Fluent Bit: such a rule is no reason not to start.
        let is_pair = matches!(key, "set" | "add" | "rename" | "hard_rename" | "copy" | "hard_copy");
        if is_pair && !entry.value.contains('"') && entry.value.split_whitespace().count() > 2 {
            translation.warn_entry(
                section,
                entry,
                "is left out: it takes two words; a text of several stands in quotes",
            );
            continue;
        }
        append(node, "rule", Node::text(format!("{key} {}", entry.value), entry.origin.clone()));
    }
}

/// Keys of the filter `aws` whose values the task's metadata holds: name, value, and whether it is there if not asked for.
const AWS: [(&str, &str, bool); 2] =
    [("az", "{ecs_availability_zone}", true), ("account_id", "{aws_account_id}", false)];

/// Variables of the filter `ecs`, as Fluent Bit names them.
const ECS: [(&str, &str); 9] = [
    ("ClusterName", "ecs_cluster_name"),
    ("TaskARN", "ecs_task_arn"),
    ("TaskID", "ecs_task_id"),
    ("TaskDefinitionFamily", "ecs_task_definition_family"),
    ("TaskDefinitionVersion", "ecs_task_definition_revision"),
    ("ECSContainerName", "ecs_container_name"),
    ("ContainerID", "ecs_container_id"),
    ("ContainerInstanceArn", "ecs_container_instance_arn"),
    ("ContainerInstanceID", "ecs_container_instance_id"),
];

fn aws(translation: &mut Translation, section: &Section, enrich: &mut Vec<(String, Node)>) {
    for (key, text, is_default) in AWS {
        let entry = section.get(key).filter(|entry| !entry.value.is_empty());
        let is_wanted = match entry {
            Some(entry) => translation.boolean(section, entry).unwrap_or(false),
            None => is_default,
        };
        if is_wanted {
            let origin = entry.map_or(&section.origin, |entry| &entry.origin);
            enrich.push((key.to_owned(), Node::text(text, origin.clone())));
        }
    }
    translation.warn(
        section,
        "the EC2 metadata service is not asked: az and account_id come from the task's metadata, ec2_instance_id is what the generated configuration adds",
    );
}

fn ecs(translation: &mut Translation, section: &Section, enrich: &mut Vec<(String, Node)>) {
    for entry in section.entries.iter().filter(|entry| entry.key == "add") {
        let mut words = entry.value.splitn(2, char::is_whitespace);
        let (name, text) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
        if name.is_empty() || text.is_empty() {
            translation.refuse_entry(section, entry, "must be a key and a value");
            continue;
        }
        match template::names(text, &ECS) {
            Ok(text) => enrich.push((name.to_owned(), Node::text(text, entry.origin.clone()))),
            Err(variable) => {
                let text = format!("the task's metadata does not know ${variable}; nothing is added");
                translation.warn_entry(section, entry, &text);
            }
        }
    }
}
