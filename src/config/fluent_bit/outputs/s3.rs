//! `s3`.

use std::time::Duration;

use super::{compression, origin_of};
use crate::config::document::{Node, Value};
use crate::config::fluent_bit::section::Section;
use crate::config::fluent_bit::translate::{Translation, period, size};
use crate::config::fluent_bit::{template, values};

/// Fluent Bit's defaults.
const KEY_FORMAT: &str = "/fluent-bit-logs/$TAG/%Y/%m/%d/%H/%M/%S";
const OBJECT_BYTES: u64 = 100_000_000;
const OBJECT_AGE: Duration = Duration::from_secs(600);
const REGION: &str = "us-east-1";

/// What one object of ours may be, and how old.
const OBJECT_BYTES_MAX: u64 = 5 << 30;
const OBJECT_AGE_MAX: Duration = Duration::from_secs(86_400);
/// Smaller parts are not taken by S3.
const PART_BYTES_MIN: u64 = 5 << 20;
const PART_BYTES_MAX: u64 = 512 << 20;

/// Date formats of Fluent Bit.
const DATE_FORMATS: [&str; 5] = ["iso8601", "epoch", "epoch_ms", "double", "java_sql_timestamp"];

/// What the table does not translate.
pub fn sink(translation: &mut Translation, section: &Section, node: &mut Node) {
    if node.get("bucket").is_none() {
        super::required(translation, section, "bucket", node, "bucket");
    }
    let region = section.get("region");
    match region.filter(|entry| !entry.value.is_empty()) {
        Some(entry) => node.insert("region", Node::text(&entry.value, entry.origin.clone())),
        // With a variable that is not set, the task's own region is nearer.
        None if region.is_some() => {}
        None => node.insert("region", Node::text(REGION, section.origin.clone())),
    }
    key(translation, section, node);
    limits(translation, section, node);
    node.insert("compression", Node::text("none", section.origin.clone()));
    compression(translation, section, node);
    if let Some(kind) = node.get("compression").filter(|kind| kind.value != Value::Text("none".into())).cloned() {
        // As Fluent Bit says it: clients decompress such objects on the way.
        node.insert("content_encoding", kind);
    }
    if let Some(entry) = section.get("format").filter(|entry| !entry.value.is_empty())
        && !matches!(entry.value.to_ascii_lowercase().as_str(), "json_lines" | "json")
    {
        translation.refuse_entry(section, entry, "must be json_lines");
    }
    date(translation, section, node);
}

fn key(translation: &mut Translation, section: &Section, node: &mut Node) {
    let is_static = translation.is_on(section, "static_file_path");
    let entry = section.get("s3_key_format").filter(|entry| !entry.value.is_empty());
    let format = entry.map_or(KEY_FORMAT, |entry| entry.value.as_str());
    if is_static {
        node.insert("static_path", Node::new(Value::Bool(true), origin_of(section, "static_file_path")));
    }
    match (template::s3_key(format, is_static), entry) {
        (Ok(key), _) => node.insert("object_key", Node::text(key, origin_of(section, "s3_key_format"))),
        (Err(must), Some(entry)) => translation.refuse_entry(section, entry, &must),
        (Err(must), None) => translation.refuse(section, &must),
    }
}

fn limits(translation: &mut Translation, section: &Section, node: &mut Node) {
    let entry = |key: &str| section.get(key).filter(|entry| !entry.value.is_empty());
    let mut bytes = OBJECT_BYTES;
    if let Some(entry) = entry("total_file_size") {
        match values::size(&entry.value).filter(|bytes| *bytes >= 1_000_000) {
            Some(size) if size > OBJECT_BYTES_MAX => {
                translation.warn_entry(section, entry, "objects are 5GiB at most");
                bytes = OBJECT_BYTES_MAX;
            }
            Some(size) => bytes = size,
            None => translation.refuse_entry(section, entry, "must be a size of 1M or more"),
        }
    }
    node.insert("object_bytes_max", size(bytes, &origin_of(section, "total_file_size")));
    let mut age = OBJECT_AGE;
    if let Some(entry) = entry("upload_timeout") {
        match values::time(&entry.value).filter(|time| !time.is_zero()) {
            Some(time) => age = time.clamp(Duration::from_secs(1), OBJECT_AGE_MAX),
            None => translation.refuse_entry(section, entry, values::TIME),
        }
    }
    node.insert("object_age_max", period(age, &origin_of(section, "upload_timeout")));
    if let Some(entry) = entry("upload_chunk_size") {
        match values::size(&entry.value) {
            Some(part) => node.insert("part_bytes", size(part.clamp(PART_BYTES_MIN, PART_BYTES_MAX), &entry.origin)),
            None => translation.refuse_entry(section, entry, values::SIZE),
        }
    }
}

fn date(translation: &mut Translation, section: &Section, node: &mut Node) {
    // With one value alone there is no record to put it into.
    if node.get("log_key").is_some() {
        return;
    }
    let key = section.value("json_date_key").filter(|key| !key.is_empty()).unwrap_or("date");
    if values::boolean(key) == Some(false) {
        return;
    }
    node.insert("date_key", Node::new(Value::Text(key.to_owned()), origin_of(section, "json_date_key")));
    if let Some(entry) = section.get("json_date_format").filter(|entry| !entry.value.is_empty()) {
        let format = entry.value.to_ascii_lowercase();
        if DATE_FORMATS.contains(&format.as_str()) {
            node.insert("date_format", Node::text(format, entry.origin.clone()));
        } else {
            translation.refuse_entry(section, entry, "must be iso8601, epoch, epoch_ms, double or java_sql_timestamp");
        }
    }
}
