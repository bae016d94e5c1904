//! The file sink: the layouts of the services under a local directory, without an AWS account.

use std::path::PathBuf;

use super::s3::Compression;
use super::template::Template;

/// How files are laid out.
#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    /// `DIR/GROUP/STREAM.jsonl`, one `{"timestamp":…,"message":"…"}` a line, as `GetLogEvents` shows events.
    CloudwatchLogs {
        /// Log group name.
        group: Template,
        /// Log stream name.
        stream: Template,
    },
    /// `DIR/STREAM/YYYY/MM/DD/HH/…`, records as Firehose writes them to its bucket.
    Firehose {
        /// Delivery stream name.
        stream: String,
    },
    /// `DIR/KEY`, objects as the S3 sink writes them.
    S3 {
        /// Key up to the object's own name.
        key: Template,
        /// Compression.
        compression: Compression,
    },
}

/// A file sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The directory; made if missing.
    pub directory: PathBuf,
    /// The layout.
    pub layout: Layout,
}
