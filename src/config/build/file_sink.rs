//! The file sink, and the services' rules for names.

use std::path::PathBuf;

use super::Builder;
use super::s3_sink::{S3_KEY, compression};
use crate::config::document::Path;
use crate::config::raw::sink as raw_sink;
use crate::sink::file;
use crate::sink::template::Template;

const DEFAULT_NAME: &str = "meshlens";

impl Builder<'_> {
    pub(super) fn file(&mut self, table: &Path, raw: raw_sink::File) -> file::Config {
        let directory = self.required(table, "directory", raw.directory, "must be the path of a directory");
        if !directory.is_empty() && std::path::Path::new(&directory).is_file() {
            self.refuse(&table.key("directory"), "must be a directory, not a file");
        }
        let layout = raw.layout.unwrap_or(raw_sink::Layout::S3);
        let (name, known): (_, &[&str]) = match layout {
            raw_sink::Layout::CloudwatchLogs => ("cloudwatch_logs", &["group", "stream"]),
            raw_sink::Layout::Firehose => ("firehose", &["stream"]),
            raw_sink::Layout::S3 => ("s3", &["key", "compression"]),
        };
        for key in ["group", "stream", "key", "compression"] {
            if !known.contains(&key) && self.is_set(&table.key(key)) {
                self.refuse(&table.key(key), format!("must not be set for the layout `{name}`"));
            }
        }
        let layout = match layout {
            raw_sink::Layout::CloudwatchLogs => file::Layout::CloudwatchLogs {
                group: self.log_group(&table.key("group"), raw.group.as_deref().unwrap_or(DEFAULT_NAME)),
                stream: self.log_stream(&table.key("stream"), raw.stream.as_deref().unwrap_or("{tag}")),
            },
            raw_sink::Layout::Firehose => {
                let stream = raw.stream.unwrap_or_else(|| DEFAULT_NAME.to_owned());
                self.check_delivery_stream(&table.key("stream"), &stream);
                file::Layout::Firehose { stream }
            }
            raw_sink::Layout::S3 => file::Layout::S3 {
                key: self.object_key(&table.key("key"), raw.key.as_deref().unwrap_or(S3_KEY), None),
                compression: compression(raw.compression),
            },
        };
        file::Config { directory: PathBuf::from(directory), layout }
    }

    /// A log group: 1 to 512 of `a-zA-Z0-9_-/.#`, where no template part can change it.
    pub(super) fn log_group(&mut self, path: &Path, text: &str) -> Template {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-/.#".contains(&b);
        if is_plain(text) && !text.is_empty() && (text.len() > 512 || !text.bytes().all(allowed)) {
            self.refuse(path, "must be a log group's name: 1 to 512 letters, digits or _-/.#");
        }
        self.template(path, text)
    }

    /// A log stream: 1 to 512 characters without `:` and `*`.
    pub(super) fn log_stream(&mut self, path: &Path, text: &str) -> Template {
        let outside = text.is_empty() || text.len() > 512 || text.contains([':', '*']);
        if text.is_empty() || (is_plain(text) && outside) {
            self.refuse(path, "must be a log stream's name: 1 to 512 characters without `:` and `*`");
        }
        self.template(path, text)
    }

    /// An object's key before its own name, at most 1,024 bytes together.
    pub(super) fn object_key(&mut self, path: &Path, text: &str, delimiters: Option<&str>) -> Template {
        if text.len() > 900 {
            self.refuse(path, "must be at most 900 bytes, which leaves room for the object's own name");
        }
        if text.starts_with('/') {
            self.refuse(path, "must not begin with `/`: S3 would make a folder without a name");
        }
        self.template_with(path, text, delimiters)
    }

    pub(super) fn check_delivery_stream(&mut self, path: &Path, name: &str) {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if !name.is_empty() && (name.len() > 64 || !name.bytes().all(allowed)) {
            self.refuse(path, "must be a delivery stream's name: 1 to 64 letters, digits or _-.");
        }
    }

    pub(super) fn check_bucket(&mut self, path: &Path, name: &str) {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let is_bucket = (3..=63).contains(&name.len())
            && name.bytes().all(allowed)
            && ends(name.as_bytes().first())
            && ends(name.as_bytes().last());
        // An access point's ARN may stand for a bucket.
        let is_access_point = name.starts_with("arn:") && name.contains(":s3");
        if !(name.is_empty() || is_bucket || is_access_point) {
            self.refuse(path, "must be a bucket's name: 3 to 63 lower-case letters, digits, `-` or `.`");
        }
    }

    /// `http://` or `https://`, a host, no user name: its value would be printed.
    pub(super) fn check_url(&mut self, path: &Path, url: &str) {
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let authority = host.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if authority.contains('@') {
            let place = self.tree.nearest(path).origin.clone();
            let text = format!("{path} = ***: must not hold a user name or password");
            self.problems.push(super::Problem::of_place(place, text));
        } else if authority.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            self.refuse(path, "must be a URL that begins with http:// or https://");
        }
    }
}

/// Whether a template is what it says: no names, no dates.
fn is_plain(text: &str) -> bool {
    !text.contains(['{', '%'])
}
