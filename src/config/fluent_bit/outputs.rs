//! `[OUTPUT]`: sinks, and a rule for each.
//!
//! Every output that matches gets the record: each rule goes on with the next. What no output matches is left out, counted as
//! filtered.

use std::time::Duration;

use super::section::{Section, place};
use super::service::Service;
use super::table::{self, Stage};
use super::template;
use super::translate::{Translation, append, period, table as table_of};
use crate::config::document::{Node, Origin, Value};

mod cloudwatch;
mod s3;

/// The tag of the agent's health check, whose records go nowhere.
const HEALTH_CHECK: &str = "firelens-healthcheck";
/// The name of the sink for what cannot go where it should.
pub const FALLBACK: &str = "fallback";

/// Retries are tried for this long at least.
const RETRY_MIN: Duration = Duration::from_secs(600);
/// The longest `give_up_after`.
const RETRY_MAX: Duration = Duration::from_secs(30 * 86_400);
/// What one attempt may take.
const ATTEMPT: u64 = 10;

/// All `[OUTPUT]`s. `fallback` is the sink for outputs that we do not know.
pub fn outputs(translation: &mut Translation, sections: &[Section], service: &Service, fallback: Option<Node>) {
    let mut is_usable = false;
    let has_fallback = fallback.is_some();
    if has_fallback {
        translation.names.insert(("sink".to_owned(), FALLBACK.to_owned()));
    }
    let mut unknown = Vec::new();
    for section in sections.iter().filter(|section| section.name == "OUTPUT") {
        let name = translation.instance("sink", section);
        if section.plugin().is_empty() {
            translation.refuse(section, "needs a `Name`");
            continue;
        }
        let Some(when) = condition(translation, section) else {
            translation.warn(section, "has no `Match`: it gets nothing, as in Fluent Bit");
            continue;
        };
        let sink = sink(translation, section, service);
        let to = match sink {
            Some(sink) => {
                is_usable |= !is_health_check(section);
                insert_sink(translation, &name, sink);
                name
            }
            None => {
                unknown.push(section);
                if has_fallback {
                    FALLBACK.to_owned()
                } else {
                    let mut sink = Node::table(section.origin.clone());
                    sink.insert("type", Node::text("unsupported", section.origin.clone()));
                    sink.insert("plugin", Node::text(section.plugin(), section.origin.clone()));
                    insert_sink(translation, &name, sink);
                    name
                }
            }
        };
        let mut rule = Node::table(section.origin.clone());
        rule.insert("when", when);
        let to = Node::new(Value::List(vec![Node::text(to, section.origin.clone())]), section.origin.clone());
        rule.insert("to", to);
        rule.insert("continue", Node::new(Value::Bool(true), section.origin.clone()));
        append(&mut translation.tree, "route", rule);
    }
    // Where every output is known, there is nothing for it.
    if let Some(sink) = fallback.filter(|_| !unknown.is_empty()) {
        insert_sink(translation, FALLBACK, sink);
        is_usable = true;
    }
    for section in unknown {
        let matched = section.get("match").or_else(|| section.get("match_regex"));
        let tags = matched.map(|entry| entry.written.clone()).unwrap_or_default();
        let fate = if has_fallback {
            format!("records of {tags} go to MESHLENS_FALLBACK instead")
        } else {
            format!(
                "records of {tags} are counted as dropped for it, reason unsupported_output; other outputs get theirs, and MESHLENS_FALLBACK takes what this one would get"
            )
        };
        translation.warn(section, &format!("this output is not supported: {fate}"));
    }
    translation.usable_output = is_usable;
}

/// That a configuration of which no output can be used is refused. One without any output runs, as in Fluent Bit: it leaves
/// all records out.
pub fn refuse_if_useless(translation: &mut Translation, sections: &[Section]) {
    if translation.usable_output {
        return;
    }
    let mut outputs = sections.iter().filter(|section| section.name == "OUTPUT" && !is_health_check(section));
    if let Some(section) = outputs.next() {
        let text = "there is no output that can be used: every record would be lost; must have one of cloudwatch_logs, cloudwatch, kinesis_firehose, firehose, s3, forward, file, stdout or null, or MESHLENS_FALLBACK";
        return translation.refuse(section, text);
    }
    let origin = translation.tree.origin.clone();
    translation.warnings.push(format!("{}: there is no [OUTPUT]: all records are left out", place(&origin)));
    if translation.tree.get("sink").is_none() {
        let mut sink = Node::table(origin.clone());
        sink.insert("type", Node::text("discard", origin.clone()));
        insert_sink(translation, "none", sink);
        let rule = table_of("drop", Node::new(Value::Bool(true), origin));
        append(&mut translation.tree, "route", rule);
    }
}

fn insert_sink(translation: &mut Translation, name: &str, sink: Node) {
    let origin = translation.tree.origin.clone();
    let mut sinks = translation.tree.remove("sink").unwrap_or_else(|| Node::table(origin));
    sinks.insert(name, sink);
    translation.tree.insert("sink", sinks);
}

fn is_health_check(section: &Section) -> bool {
    section.plugin().eq_ignore_ascii_case("null") && section.value("match") == Some(HEALTH_CHECK)
}

/// The condition on the tag, and on what the record is.
fn condition(translation: &mut Translation, section: &Section) -> Option<Node> {
    let tag = match (section.get("match"), section.get("match_regex")) {
        // Fluent Bit looks at the expression first.
        (_, Some(regex)) => Node::text(format!("regex:{}", regex.value), regex.origin.clone()),
        (Some(glob), None) => Node::text(format!("match:{}", glob.value), glob.origin.clone()),
        (None, None) => return None,
    };
    let mut when = table_of("tag", tag);
    if let Some(entry) = section.get("log_type").filter(|entry| !entry.value.is_empty()) {
        let kind = entry.value.to_ascii_lowercase();
        if matches!(kind.as_str(), "access" | "envoy" | "other") {
            if kind != "access" {
                // Envoy's own lines are told from others only if they are looked for.
                translation.set("parse.application", Node::new(Value::Bool(true), entry.origin.clone()));
            }
            when.insert("log_type", Node::text(kind, entry.origin.clone()));
        } else {
            translation.refuse_entry(section, entry, "must be access, envoy or other");
        }
    }
    Some(when)
}

/// One sink, or none if we do not know its kind.
fn sink(translation: &mut Translation, section: &Section, service: &Service) -> Option<Node> {
    let plugin = table::plugin(Stage::Output, section.plugin())?;
    if plugin.name == "forward" && translation.is_on(section, "tls") {
        translation.warn(section, "TLS towards another router is not supported");
        return None;
    }
    let mut node = Node::table(section.origin.clone());
    let kind = match plugin.name {
        "cloudwatch" => "cloudwatch_logs",
        "kinesis_firehose" => "firehose",
        "null" => "discard",
        name => name,
    };
    node.insert("type", Node::text(kind, section.origin.clone()));
    translation.entries(section, &[plugin.keys, table::common(Stage::Output)], &mut node);
    match plugin.name {
        "cloudwatch_logs" | "cloudwatch" => {
            cloudwatch::sink(translation, section, plugin.name == "cloudwatch", &mut node);
        }
        "kinesis_firehose" | "firehose" => {
            required(translation, section, "delivery_stream", &node, "stream");
            compression(translation, section, &mut node);
        }
        "s3" => s3::sink(translation, section, &mut node),
        "forward" => forward(translation, section, &mut node),
        "file" => file(section, &mut node),
        _ => return Some(node),
    }
    if matches!(kind, "cloudwatch_logs" | "firehose")
        && let Some(flush) = &service.flush
    {
        node.insert("batch_timeout", flush.clone());
    }
    if matches!(kind, "cloudwatch_logs" | "firehose" | "s3") {
        endpoint(translation, section, &mut node);
    }
    if kind != "file" {
        retry(translation, section, &mut node);
    }
    Some(node)
}

/// A key of Fluent Bit's that has to be there.
fn required(translation: &mut Translation, section: &Section, key: &str, node: &Node, to: &str) {
    if node.get(to).is_some() {
        return;
    }
    match section.get(key) {
        Some(entry) if entry.value.is_empty() => {
            translation.refuse_entry(section, entry, "is empty, since its variables are not set");
        }
        // Refused for what it is.
        Some(_) => {}
        None => translation.refuse(section, &format!("needs `{key}`")),
    }
}

/// `Retry_Limit`: what that many retries of Fluent Bit's scheduler take at most.
fn retry(translation: &mut Translation, section: &Section, node: &mut Node) {
    let Some(entry) = section.get("retry_limit").filter(|entry| !entry.value.is_empty()) else { return };
    let time = match entry.value.to_ascii_lowercase().as_str() {
        "no_limits" | "false" | "off" => return,
        "no_retries" => Duration::from_secs(1),
        number => match number.parse::<u32>() {
            Ok(number) => retries(number.max(1)),
            Err(_) => {
                return translation.refuse_entry(
                    section,
                    entry,
                    "must be a number of retries, no_limits or no_retries",
                );
            }
        },
    };
    let retry = table_of("give_up_after", period(time, &entry.origin));
    node.insert("retry", retry);
}

/// Retry n waits up to 5 s * 2^n, at most 2000 s (`scheduler.base`, `scheduler.cap`).
fn retries(number: u32) -> Duration {
    let wait = |n: u32| 2000.min(5u64.saturating_mul(1u64.checked_shl(n).unwrap_or(u64::MAX))) + ATTEMPT;
    let most = RETRY_MAX.as_secs();
    let seconds = (1..=number).map(wait).scan(0u64, |sum, wait| {
        *sum += wait;
        Some(*sum)
    });
    let sum = seconds.take_while(|sum| *sum < most).last().unwrap_or(0);
    Duration::from_secs(if number > 2_000 { most } else { sum }).clamp(RETRY_MIN, RETRY_MAX)
}

/// `endpoint`, with `port`; with TLS unless it says otherwise.
fn endpoint(translation: &mut Translation, section: &Section, node: &mut Node) {
    let Some(entry) = section.get("endpoint").filter(|entry| !entry.value.is_empty()) else { return };
    let tls = section.get("tls").filter(|entry| !entry.value.is_empty());
    let is_plain = tls.is_some_and(|entry| translation.boolean(section, entry) == Some(false));
    let scheme = if is_plain { "http" } else { "https" };
    let mut url = match entry.value.split_once("://") {
        Some(_) => entry.value.clone(),
        None => format!("{scheme}://{}", entry.value),
    };
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    if let Some(port) = section.value("port").filter(|port| !port.is_empty())
        && !host.contains([':', '/'])
    {
        url = format!("{url}:{port}");
    }
    node.insert("endpoint_url", Node::text(url, entry.origin.clone()));
}

/// `compression`; what is not lines of JSON in the end is refused.
fn compression(translation: &mut Translation, section: &Section, node: &mut Node) {
    let Some(entry) = section.get("compression").filter(|entry| !entry.value.is_empty()) else { return };
    match entry.value.to_ascii_lowercase().as_str() {
        kind @ ("gzip" | "zstd" | "none") => {
            node.insert("compression", Node::text(kind, entry.origin.clone()));
        }
        _ => translation.refuse_entry(section, entry, "must be gzip, zstd or none"),
    }
}

fn forward(translation: &mut Translation, section: &Section, node: &mut Node) {
    if node.get("unix_path").is_none() {
        for (key, default) in [("host", Value::Text("127.0.0.1".into())), ("port", Value::Integer(24224))] {
            if node.get(key).is_none() {
                node.insert(key, Node::new(default, section.origin.clone()));
            }
        }
    }
    if let Some(entry) = section.get("tag").filter(|entry| !entry.value.is_empty()) {
        match template::accessor(&entry.value) {
            Ok(tag) => node.insert("tag", Node::text(tag, entry.origin.clone())),
            Err(must) => translation.refuse_entry(section, entry, &must),
        }
    }
    if let Some(entry) = section.get("compress").filter(|entry| !entry.value.is_empty()) {
        match entry.value.to_ascii_lowercase().as_str() {
            "gzip" => node.insert("compress", Node::text("gzip", entry.origin.clone())),
            "text" | "none" => {}
            _ => translation.refuse_entry(section, entry, "must be gzip or text"),
        }
    }
}

fn file(section: &Section, node: &mut Node) {
    node.insert("layout", Node::text("lines", section.origin.clone()));
    if node.get("directory").is_none() {
        node.insert("directory", Node::text(".", section.origin.clone()));
    }
    if let Some(entry) = section.get("file").filter(|entry| !entry.value.is_empty()) {
        node.insert("file", Node::text(template::literal(&entry.value), entry.origin.clone()));
    }
}

/// Where a section or its key stands.
fn origin_of(section: &Section, key: &str) -> Origin {
    section.get(key).map_or(&section.origin, |entry| &entry.origin).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_last_at_least_as_long_as_those_of_fluent_bit() {
        assert_eq!(retries(1), RETRY_MIN);
        assert_eq!(retries(2), RETRY_MIN);
        // 10 + 20 + 40 + … + 1280, and 10 for each attempt.
        assert_eq!(retries(8), Duration::from_secs(2550 + 80));
        assert_eq!(retries(u32::MAX), RETRY_MAX);
    }
}
