//! The CloudWatch Logs sink: `PutLogEvents`.

use std::time::Duration;

use super::template::Template;
use super::{Oversize, aws, retry};

/// A CloudWatch Logs sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Log group name.
    pub group: Template,
    /// Log stream name.
    pub stream: Template,
    /// Create a missing group. Missing streams are always created.
    pub create_group: bool,
    /// Retention of a group that we create, in days.
    pub retention_days: Option<i32>,
    /// Class of a group that we create: `STANDARD`, `INFREQUENT_ACCESS` or `DELIVERY`.
    pub log_group_class: Option<String>,
    /// Send only this field's value instead of the whole record; records without it are sent whole.
    pub log_key: Option<String>,
    /// An open batch is sent after this time.
    pub batch_timeout: Duration,
    /// Events in a request, at most 10,000.
    pub batch_events_max: usize,
    /// Bytes in a request as the service counts them (UTF-8 + 26 an event), at most 1,048,576.
    pub batch_bytes_max: usize,
    /// Events larger than the service takes.
    pub oversize: Oversize,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Retries.
    pub retry: retry::Config,
    /// The client.
    pub aws: aws::Config,
}
