//! Sinks: readers of the journal that frame requests to a destination's limits and deliver them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::enrich::ecs::Metadata;
use crate::journal::Reader;
use crate::telemetry::account::Ledger;

pub mod aws;
pub mod cloudwatch_logs;
pub mod dead_letters;
pub mod driver;
pub mod file;
pub mod firehose;
pub mod retry;
pub mod s3;
pub mod search;
pub mod stdout;
pub mod template;
pub mod unsupported;
pub mod value;

/// One configured sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its name; in routes, metrics and the account.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

impl Config {
    /// What it holds at most beside the journal, in bytes: bodies of requests under way, objects that are being built.
    pub fn memory_bytes(&self) -> usize {
        match &self.kind {
            Kind::CloudwatchLogs(config) => config.concurrency.saturating_mul(config.batch_bytes_max),
            Kind::Firehose(config) => config.concurrency.saturating_mul(config.batch_bytes_max),
            Kind::S3(config) => s3::deliver::memory_bytes_max(config.part_bytes),
            Kind::File(_) => s3::deliver::memory_bytes_max(0),
            Kind::Stdout | Kind::Discard | Kind::Unsupported(_) => 0,
        }
    }

    /// The templates that its names are made from.
    pub fn templates(&self) -> Vec<&template::Template> {
        match &self.kind {
            Kind::CloudwatchLogs(config) => vec![&config.group, &config.stream],
            Kind::S3(config) => vec![&config.key],
            Kind::File(config) => match &config.layout {
                file::Layout::CloudwatchLogs { group, stream } => vec![group, stream],
                file::Layout::S3 { key, .. } => vec![key],
                file::Layout::Firehose { .. } => Vec::new(),
            },
            Kind::Firehose(_) | Kind::Stdout | Kind::Discard | Kind::Unsupported(_) => Vec::new(),
        }
    }
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Amazon CloudWatch Logs.
    CloudwatchLogs(cloudwatch_logs::Config),
    /// Amazon Data Firehose.
    Firehose(firehose::Config),
    /// Amazon S3.
    S3(s3::Config),
    /// Files under a directory, laid out as one of the services would.
    File(file::Config),
    /// Standard output, one JSON object a line.
    Stdout,
    /// Nowhere; counted as delivered.
    Discard,
    /// Nowhere, since this program lacks the output that was asked for; counted as dropped.
    Unsupported(unsupported::Config),
}

impl Kind {
    /// As `type` in the configuration.
    pub fn label(&self) -> &'static str {
        match self {
            Self::CloudwatchLogs(_) => "cloudwatch_logs",
            Self::Firehose(_) => "firehose",
            Self::S3(_) => "s3",
            Self::File(_) => "file",
            Self::Stdout => "stdout",
            Self::Discard => "discard",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// How long a record may wait for its request to fill: what is pending for no longer is no sign of trouble. With the key
    /// that says so.
    pub fn gathering(&self) -> Option<(&'static str, Duration)> {
        match self {
            Self::CloudwatchLogs(config) => Some(("batch_timeout", config.batch_timeout)),
            Self::Firehose(config) => Some(("batch_timeout", config.batch_timeout)),
            Self::S3(config) => Some(("object_age_max", config.object_age_max)),
            Self::File(_) | Self::Stdout | Self::Discard | Self::Unsupported(_) => None,
        }
    }
}

/// What to do with a record that is larger than the service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Oversize {
    /// Cut at a character boundary, sent, counted as truncated.
    #[default]
    Truncate,
    /// Not sent, counted as rejected (`oversize`).
    Reject,
}

/// What every sink is given at its start.
pub struct Context {
    /// Its number: the bit in a [`crate::journal::block::SinkSet`].
    pub id: usize,
    /// Its name.
    pub name: Arc<str>,
    /// Where it reads.
    pub reader: Reader,
    /// Where it leaves what it rejects or gives up.
    pub dead_letters: dead_letters::DeadLetters,
    /// Where it accounts. The journal counts `received`; the sink counts all else.
    pub ledger: Arc<Ledger>,
    /// ECS task metadata as it becomes known.
    pub metadata: watch::Receiver<Arc<Metadata>>,
    /// The record fields in [`crate::journal::block::Partition::values`], in order.
    pub partition_keys: Arc<[Box<str>]>,
    /// Set at the start of a shutdown: when the process will end. Retries must not sleep past it.
    pub deadline: watch::Receiver<Option<tokio::time::Instant>>,
    /// Distinct for each start of the process; part of the names of S3 objects.
    pub instance: Arc<str>,
    /// Name of the host or container; for templates.
    pub hostname: Arc<str>,
}

/// Why a sink ended other than by reading the journal to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or stream could not be written.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The AWS client could not be built.
    #[error("aws client: {0}")]
    Aws(String),
}

/// How long an operation of a sink may take by default.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
