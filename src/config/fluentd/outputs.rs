//! `<match>`: sinks and rules. The first that matches gets the record.

use super::{parse::Element, refuse, refuse_entry, tag_condition, text, warn, warn_unknown};
use crate::config::document::{Node, Value};
use crate::config::fluent_bit::outputs::FALLBACK;
use crate::config::fluent_bit::template::literal;
use crate::config::fluent_bit::translate::{Translation, append, period};
use crate::config::fluent_bit::values;

/// Parameters that every output has.
const COMMON: [&str; 5] = ["@type", "@id", "@log_level", "@label", "type"];

/// fluent-plugin-s3's defaults.
const S3_KEY: &str = "%{path}%{time_slice}_%{index}.%{file_extension}";
const S3_TIME_SLICE: &str = "%Y%m%d";

/// All `<match>`es.
pub fn outputs(translation: &mut Translation, root: &Element, fallback: Option<Node>) {
    let origin = root.origin.clone();
    let mut sinks = Node::table(origin.clone());
    let has_fallback = fallback.is_some();
    if let Some(sink) = fallback {
        sinks.insert(FALLBACK, sink);
    }
    let mut is_usable = false;
    let mut needs_fallback = false;
    let mut first_unknown = None;
    for element in root.children("match") {
        let stores: Vec<&Element> = match element.kind() {
            "copy" => element.children("store").collect(),
            _ => vec![element],
        };
        let mut to = Vec::new();
        for store in stores {
            if store.kind().is_empty() {
                refuse(translation, store, "needs an @type");
                continue;
            }
            let name = free_name(&sinks, store);
            match sink(translation, store) {
                Some(sink) => {
                    is_usable = true;
                    sinks.insert(&name, sink);
                    to.push(name);
                }
                None if has_fallback => {
                    needs_fallback = true;
                    warn(
                        translation,
                        store,
                        "this output is not supported: its records go to MESHLENS_FALLBACK instead",
                    );
                    to.push(FALLBACK.to_owned());
                }
                None => {
                    first_unknown.get_or_insert(store);
                    warn(
                        translation,
                        store,
                        "this output is not supported: its records are counted as dropped for it, reason unsupported_output",
                    );
                    let mut sink = Node::table(store.origin.clone());
                    sink.insert("type", Node::text("unsupported", store.origin.clone()));
                    sink.insert("plugin", Node::text(store.kind(), store.origin.clone()));
                    sinks.insert(&name, sink);
                    to.push(name);
                }
            }
        }
        let mut rule = Node::table(element.origin.clone());
        rule.insert("when", tag_condition(element));
        let names = to.into_iter().map(|name| Node::text(name, element.origin.clone())).collect();
        rule.insert("to", Node::new(Value::List(names), element.origin.clone()));
        append(&mut translation.tree, "route", rule);
    }
    // Where every output is known, there is nothing for it.
    if !needs_fallback {
        sinks.remove(FALLBACK);
    }
    match first_unknown {
        Some(element) if !is_usable => {
            refuse(
                translation,
                element,
                "there is no output that can be used: every record would be lost; must have one of kinesis_firehose, cloudwatch_logs, s3, forward, stdout or null, or MESHLENS_FALLBACK",
            );
        }
        _ => {}
    }
    if sinks.keys().next().is_none() {
        warn(translation, root, "there is no <match>: all records are left out");
        let mut sink = Node::table(origin.clone());
        sink.insert("type", Node::text("discard", origin.clone()));
        sinks.insert("none", sink);
        let mut rule = Node::table(origin.clone());
        rule.insert("drop", Node::new(Value::Bool(true), origin));
        append(&mut translation.tree, "route", rule);
    }
    translation.tree.insert("sink", sinks);
}

fn free_name(sinks: &Node, element: &Element) -> String {
    if let Some(id) = element.value("@id").map(super::clean).filter(|id| sinks.get(id).is_none()) {
        return id;
    }
    let kind = super::clean(element.kind());
    (0..).map(|number| format!("{kind}.{number}")).find(|name| sinks.get(name).is_none()).unwrap_or(kind)
}

/// One sink, or none if we do not know its kind.
fn sink(translation: &mut Translation, element: &Element) -> Option<Node> {
    let mut node = Node::table(element.origin.clone());
    let kind = match element.kind() {
        "kinesis_firehose" => "firehose",
        "cloudwatch_logs" => "cloudwatch_logs",
        "s3" => "s3",
        "stdout" => "stdout",
        "null" => "discard",
        "forward" => "forward",
        _ => return None,
    };
    node.insert("type", Node::text(kind, element.origin.clone()));
    match kind {
        "firehose" => firehose(translation, element, &mut node),
        "cloudwatch_logs" => cloudwatch(translation, element, &mut node),
        "s3" => s3(translation, element, &mut node),
        "forward" => forward(translation, element, &mut node),
        _ => {}
    }
    if let Some(interval) = element.children("buffer").find_map(|buffer| buffer.get("flush_interval"))
        && matches!(kind, "firehose" | "cloudwatch_logs")
    {
        match values::time(&interval.value) {
            Some(time) => {
                node.insert("batch_timeout", period(time.max(std::time::Duration::from_millis(10)), &interval.origin))
            }
            None => refuse_entry(translation, element, interval, values::TIME),
        }
    }
    Some(node)
}

fn copy(element: &Element, keys: &[(&str, &str)], node: &mut Node) {
    for (key, to) in keys {
        if let Some(entry) = element.get(key).filter(|entry| !entry.value.is_empty()) {
            node.insert(to, text(entry));
        }
    }
}

fn boolean(translation: &mut Translation, element: &Element, key: &str) -> bool {
    let Some(entry) = element.get(key) else { return false };
    // A parameter without a value is on, in fluentd.
    if entry.value.is_empty() {
        return true;
    }
    values::boolean(&entry.value).unwrap_or_else(|| {
        refuse_entry(translation, element, entry, values::BOOLEAN);
        false
    })
}

fn role(element: &Element, node: &mut Node) {
    for child in element.children("assume_role_credentials") {
        copy(child, &[("role_arn", "role_arn"), ("external_id", "external_id")], node);
    }
}

fn firehose(translation: &mut Translation, element: &Element, node: &mut Node) {
    copy(
        element,
        &[
            ("delivery_stream_name", "stream"),
            ("region", "region"),
            ("endpoint", "endpoint_url"),
            ("data_key", "log_key"),
        ],
        node,
    );
    role(element, node);
    if node.get("stream").is_none() {
        refuse(translation, element, "needs `delivery_stream_name`");
    }
    let known = [
        "delivery_stream_name",
        "region",
        "endpoint",
        "data_key",
        "append_new_line",
        "batch_request_max_count",
        "batch_request_max_size",
        "retries_on_batch_request",
    ];
    warn_unknown(translation, element, &[&COMMON[..], &known].concat());
}

fn cloudwatch(translation: &mut Translation, element: &Element, node: &mut Node) {
    copy(
        element,
        &[
            ("region", "region"),
            ("endpoint", "endpoint_url"),
            ("aws_sts_role_arn", "role_arn"),
            ("log_group_class", "log_group_class"),
        ],
        node,
    );
    role(element, node);
    for (kind, to) in [("group", "group"), ("stream", "stream")] {
        let name = element.get(&format!("log_{kind}_name"));
        let key = element.get(&format!("log_{kind}_name_key"));
        let value = if boolean(translation, element, &format!("use_tag_as_{kind}")) {
            Some(("{tag}".to_owned(), &element.origin))
        } else if let Some(key) = key {
            Some((format!("{{{}}}", key.value), &key.origin))
        } else {
            name.map(|name| (placeholders(&name.value), &name.origin))
        };
        match value {
            Some((value, origin)) => node.insert(to, Node::text(value, origin.clone())),
            None if kind == "group" => {
                refuse(translation, element, "needs `log_group_name`, `log_group_name_key` or `use_tag_as_group`")
            }
            None => {}
        }
    }
    let creates = boolean(translation, element, "auto_create_stream");
    node.insert("create_group", Node::new(Value::Bool(creates), element.origin.clone()));
    if let Some(entry) = element.get("retention_in_days") {
        match values::count(&entry.value) {
            Some(days) => node.insert("retention_days", Node::new(Value::Integer(days), entry.origin.clone())),
            None => refuse_entry(translation, element, entry, values::COUNT),
        }
    }
    if let Some(entry) = element.get("message_keys") {
        match values::words(&entry.value).collect::<Vec<_>>().as_slice() {
            [key] => node.insert("log_key", Node::text(*key, entry.origin.clone())),
            _ => warn(translation, element, "message_keys: only one key can be sent alone: the whole record is sent"),
        }
    }
    let known = [
        "region",
        "endpoint",
        "aws_sts_role_arn",
        "aws_use_sts",
        "log_group_class",
        "log_group_name",
        "log_group_name_key",
        "use_tag_as_group",
        "log_stream_name",
        "log_stream_name_key",
        "use_tag_as_stream",
        "auto_create_stream",
        "retention_in_days",
        "message_keys",
        "concurrency",
        "max_events_per_batch",
        "max_message_length",
        "put_log_events_retry_limit",
        "put_log_events_retry_wait",
        "json_handler",
    ];
    warn_unknown(translation, element, &[&COMMON[..], &known].concat());
}

fn s3(translation: &mut Translation, element: &Element, node: &mut Node) {
    copy(
        element,
        &[
            ("s3_bucket", "bucket"),
            ("s3_region", "region"),
            ("s3_endpoint", "endpoint_url"),
            ("storage_class", "storage_class"),
            ("acl", "canned_acl"),
        ],
        node,
    );
    role(element, node);
    if node.get("bucket").is_none() {
        refuse(translation, element, "needs `s3_bucket`");
    }
    let store_as = element.value("store_as").unwrap_or("gzip");
    let (compression, extension) = match store_as {
        "gzip" | "gzip_command" => ("gzip", "gz"),
        "json" => ("none", "json"),
        "text" => ("none", "txt"),
        _ => {
            if let Some(entry) = element.get("store_as") {
                refuse_entry(translation, element, entry, "must be gzip, json or text");
            }
            ("none", "txt")
        }
    };
    node.insert("compression", Node::text(compression, element.origin.clone()));
    let buffer = element.children("buffer").next();
    let slice = element.value("time_slice_format").or_else(|| element.value("timekey_format")).unwrap_or(S3_TIME_SLICE);
    let format = element.value("s3_object_key_format").unwrap_or(S3_KEY);
    let mut key = format
        .replace("%{path}", element.value("path").unwrap_or_default())
        .replace("%{time_slice}", slice)
        .replace("%{file_extension}", extension);
    // Names of fluentd's, which ours are made of.
    for (name, ours) in [
        ("%{index}", "\u{1}index\u{2}"),
        ("%{uuid_flush}", "\u{1}uuid\u{2}"),
        ("%{uuid_hash}", "\u{1}uuid\u{2}"),
        ("%{hex_random}", "\u{1}uuid\u{2}"),
        ("%{hostname}", "\u{1}hostname\u{2}"),
    ] {
        key = key.replace(name, ours);
    }
    if !key.contains('\u{1}') {
        key.push_str("-\u{1}uuid\u{2}");
    }
    // Dates stand as they are; braces do not.
    let key = placeholders(&key).replace("%%", "%").replace('\u{1}', "{").replace('\u{2}', "}");
    node.insert("object_key", Node::text(key.trim_start_matches('/'), element.origin.clone()));
    if let Some(entry) = buffer.and_then(|buffer| buffer.get("timekey")) {
        match values::time(&entry.value).filter(|time| !time.is_zero()) {
            Some(time) => {
                node.insert("object_age_max", period(time.min(std::time::Duration::from_secs(86_400)), &entry.origin))
            }
            None => refuse_entry(translation, element, entry, values::TIME),
        }
    }
    if !element.children("format").any(|format| format.kind() == "json") {
        warn(translation, element, "objects hold one JSON object a line, whatever `format` says");
    }
    let known = [
        "s3_bucket",
        "s3_region",
        "s3_endpoint",
        "storage_class",
        "acl",
        "store_as",
        "path",
        "time_slice_format",
        "timekey_format",
        "s3_object_key_format",
        "check_apikey_on_start",
        "check_bucket",
        "check_object",
        "auto_create_bucket",
        "force_path_style",
        "utc",
        "hex_random_length",
        "index_format",
    ];
    warn_unknown(translation, element, &[&COMMON[..], &known].concat());
}

fn forward(translation: &mut Translation, element: &Element, node: &mut Node) {
    let mut servers = element.children("server");
    let Some(server) = servers.next() else { return refuse(translation, element, "needs a <server>") };
    copy(server, &[("host", "host"), ("username", "username"), ("password", "password")], node);
    let port = server.value("port").unwrap_or("24224");
    match port.parse::<u16>() {
        Ok(port) => node.insert("port", Node::new(Value::Integer(port.into()), server.origin.clone())),
        Err(_) => refuse(translation, server, "port: must be a port, 1 to 65535"),
    }
    if servers.next().is_some() {
        warn(translation, element, "only its first <server> is used");
    }
    for security in element.children("security") {
        copy(security, &[("self_hostname", "self_hostname"), ("shared_key", "shared_key")], node);
    }
    if boolean(translation, element, "require_ack_response") {
        node.insert("require_ack_response", Node::new(Value::Bool(true), element.origin.clone()));
    }
    copy(element, &[("compress", "compress")], node);
    warn_unknown(
        translation,
        element,
        &[
            &COMMON[..],
            &["require_ack_response", "compress", "heartbeat_type", "send_timeout", "recover_wait", "hard_timeout"],
        ]
        .concat(),
    );
}

/// `${tag}`, `${tag[n]}` and `${key}` as ours; everything else stands for itself.
fn placeholders(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        out.push_str(&literal(&rest[..start]));
        let name = &rest[start + 2..start + length];
        if name.is_empty() || name.contains(['{', '|']) {
            out.push_str(&literal(&rest[start..=start + length]));
        } else {
            out.push_str(&format!("{{{}}}", name.trim_start_matches("$.")));
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(&literal(rest));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_names() {
        assert_eq!(placeholders("logs-${tag[1]}-${$.a.b}-{x}"), "logs-{tag[1]}-{a.b}-{{x}}");
        assert_eq!(placeholders("${}${tag"), "${{}}${{tag");
    }
}
