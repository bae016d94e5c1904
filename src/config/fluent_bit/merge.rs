//! A TOML of ours that a Fluent Bit configuration includes (`config-file-value` of a task definition names one): read as what
//! it is, and over what the files around it say.
//!
//! - Tables are merged, values replace values.
//! - Its rules come before those that the `[OUTPUT]`s make; its filters come after.
//! - Its sinks without any rule get everything but the agent's health check.
//! - Its sources take the place of those that listen at the same address or path.

use super::inputs::is_same_place;
use super::translate::Translation;
use crate::config::document::{Node, Value};

/// Merges one.
pub fn toml(translation: &mut Translation, mut toml: Node) {
    let sinks: Vec<String> =
        toml.get("sink").map(|sinks| sinks.keys().map(str::to_owned).collect()).unwrap_or_default();
    translation.usable_output |= !sinks.is_empty();
    if toml.get("route").is_none() && !sinks.is_empty() {
        let rule = everything(&toml, sinks);
        toml.insert("route", rule);
    }
    drop_replaced_sources(&mut translation.tree, &toml);
    let Value::Table(entries) = toml.value else { return };
    for (key, node) in entries {
        match key.as_str() {
            "route" => put_list(&mut translation.tree, &key, node, true),
            "filter" => put_list(&mut translation.tree, &key, node, false),
            _ => put(&mut translation.tree, &key, node),
        }
    }
}

/// A rule for sinks that have none.
fn everything(toml: &Node, sinks: Vec<String>) -> Node {
    let origin = toml.get("sink").map_or(&toml.origin, |sinks| &sinks.origin);
    let text = |text: String| Node::text(text, origin.clone());
    let mut not = Node::table(origin.clone());
    not.insert("not", text("match:firelens-healthcheck".to_owned()));
    let mut when = Node::table(origin.clone());
    when.insert("tag", not);
    let mut rule = Node::table(origin.clone());
    rule.insert("when", when);
    rule.insert("to", Node::new(Value::List(sinks.into_iter().map(text).collect()), origin.clone()));
    rule.insert("continue", Node::new(Value::Bool(true), origin.clone()));
    Node::new(Value::List(vec![rule]), origin.clone())
}

fn drop_replaced_sources(tree: &mut Node, toml: &Node) {
    let Some(own) = toml.get("source") else { return };
    let Some(mut sources) = tree.remove("source") else { return };
    let is_replaced = |source: &Node| own.keys().filter_map(|name| own.get(name)).any(|own| is_same_place(own, source));
    let names: Vec<String> = sources.keys().map(str::to_owned).collect();
    for name in names {
        if sources.get(&name).is_some_and(is_replaced) {
            sources.remove(&name);
        }
    }
    tree.insert("source", sources);
}

/// Puts a value into a table, key by key where both are tables.
fn put(tree: &mut Node, key: &str, node: Node) {
    match (tree.remove(key), node.value) {
        (Some(mut old), Value::Table(entries)) if matches!(old.value, Value::Table(_)) => {
            entries.into_iter().for_each(|(key, node)| put(&mut old, &key, node));
            tree.insert(key, old);
        }
        (_, value) => tree.insert(key, Node { value, ..Node::new(Value::Bool(true), node.origin) }),
    }
}

fn put_list(tree: &mut Node, key: &str, node: Node, is_first: bool) {
    let (old, new) = match (tree.remove(key), node.value) {
        (Some(Node { value: Value::List(old), .. }), Value::List(new)) => (old, new),
        // No list: said when it is read.
        (_, value) => return tree.insert(key, Node::new(value, node.origin)),
    };
    let list = if is_first { new.into_iter().chain(old).collect() } else { old.into_iter().chain(new).collect() };
    tree.insert(key, Node::new(Value::List(list), node.origin));
}
