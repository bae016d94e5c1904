//! The S3 sink: newline-delimited JSON objects, compressed as they grow.

use std::time::Duration;

use super::template::Template;
use super::{aws, retry};

/// How objects are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip, `.gz`.
    #[default]
    Gzip,
    /// Zstandard, `.zst`.
    Zstd,
    /// Not at all.
    None,
}

/// An S3 sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Bucket.
    pub bucket: String,
    /// Key up to the object's own name, with dates in event time, e.g. `logs/year=%Y/month=%m/day=%d/hour=%H/`.
    pub key: Template,
    /// Compression.
    pub compression: Compression,
    /// Compression level; none = the library's default.
    pub compression_level: Option<i32>,
    /// An object is finished at about this size, as stored.
    pub object_bytes_max: u64,
    /// An object is finished at this age.
    pub object_age_max: Duration,
    /// Objects open at once; the oldest is finished when one more is needed.
    pub open_objects_max: usize,
    /// Size of a part of a multipart upload, at least 5 MiB; objects up to it are put whole.
    pub part_bytes: usize,
    /// Storage class, e.g. `INTELLIGENT_TIERING`.
    pub storage_class: Option<String>,
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub server_side_encryption: Option<String>,
    /// KMS key for `aws:kms`.
    pub kms_key_id: Option<String>,
    /// Additional checksum: `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1` or `SHA256`; none = the SDK's default.
    pub checksum: Option<String>,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Retries.
    pub retry: retry::Config,
    /// The client.
    pub aws: aws::Config,
}
