//! The Amazon Data Firehose sink: `PutRecordBatch`.

use std::time::Duration;

use super::{Oversize, aws, retry};

/// A Firehose sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Delivery stream name.
    pub stream: String,
    /// Join lines into Firehose records up to this many bytes; 0 = one line a record. At most 1,024,000.
    pub record_bytes_max: usize,
    /// An open batch is sent after this time.
    pub batch_timeout: Duration,
    /// Records in a request, at most 500.
    pub batch_records_max: usize,
    /// Bytes in a request before base64, at most 4 MiB.
    pub batch_bytes_max: usize,
    /// Lines larger than the service takes.
    pub oversize: Oversize,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Retries.
    pub retry: retry::Config,
    /// The client.
    pub aws: aws::Config,
}
