//! The S3 sink: newline-delimited JSON objects, compressed as they grow.
//!
//! ```text
//! block ─► objects (open, one a key prefix; gzip or zstd as they grow) ─► pieces ─► upload: PutObject, or parts of a
//!          cut by size, age, number                                                 multipart upload; If-None-Match: *
//! ```
//!
//! # Objects
//!
//! An object holds the lines of one key prefix, that is, of one set of names and one period of the dates in it (event time),
//! in the order of arrival. Its key is derived from the process's instance, the sink and the first record (see
//! [`objects`]), and it is written with `If-None-Match: *`: an attempt whose answer was lost and that is made again
//! finds the object there, and there is one object. What is stored is one gzip member or one Zstandard frame, and only
//! whole objects become visible: S3 shows an object when it is completed.
//!
//! # Exactly once
//!
//! Where the journal keeps every block (`journal.persist = "always"`), each record is in one visible object, once, whenever the
//! process is killed: before an object can become visible, the journal is told which records it holds ([`notes`]); after a
//! restart these come back into the same object under the same key, whatever the configuration says then, and an object that is
//! there bears a mark by which it is known ([`deliver`]). In the other modes what was in memory is lost, and nothing is stored twice.
//!
//! This rests on three things: the store honours `If-None-Match`, the bucket or directory of a sink stays the same while
//! objects are on their way, and nobody removes an object in the moments between its upload and the journal's knowing of it.
//! Looking at an object takes `s3:GetObject`; without it, what stands under our very key after a restart is taken to be ours.
//!
//! The type is `application/gzip`, `application/zstd` or `application/x-ndjson` unless another is given. There is no
//! `Content-Encoding` unless it is asked for (Fluent Bit sets it): with it HTTP clients decompress on the way, and a file saved as `….gz` would not be one. Athena, DuckDB, Spark and others go by
//! the key's suffix.
//!
//! Object metadata (`x-amz-meta-…`): `meshlens-mark`, a random number of the object's own; `meshlens-first`, the sequence number
//! of the first block; and on objects that were put whole `meshlens-last` and `meshlens-records`, which at the start of a
//! multipart upload are not known.
//!
//! # What may go wrong
//!
//! Bucket, credentials and permissions can be put right while the process runs: such errors are said and retried, as are
//! throttling and outages, until `give_up_after`. What S3 refuses for ever is counted as rejected. Either way a multipart upload
//! is aborted. Uploads that a killed process leaves are aborted after the next start, if the journal has a directory; without
//! one, or if the task never comes back, they cost storage: buckets should have a lifecycle rule with
//! `AbortIncompleteMultipartUpload`.
//!
//! At the end of a shutdown what is not stored stays pending: a journal on disk sends it after the next start.
//!
//! # Cost
//!
//! CPU: compression (see `benches/s3.rs`), and SHA-256 or CRC of the compressed bytes. Memory: see [`deliver`]. Requests: one
//! an object, or one a part and two more.

use std::time::Duration;

use super::template::Template;
use super::{Context, Error, aws, retry};

pub mod compress;
pub mod deliver;
pub mod lines;
pub mod naming;
pub mod notes;
pub mod object;
pub mod objects;
mod multipart;
mod returning;
pub mod spans;
mod upload;

use lines::Lines;
use naming::Naming;
use objects::{Dates, Plan};

/// The key's partitions, where the user gives only a prefix: Hive style, event time in UTC.
pub const DEFAULT_PARTITIONS: &str = "year=%Y/month=%m/day=%d/hour=%H/";

/// Amazon S3: a part of a multipart upload, except the last, has at least so many bytes.
pub const PART_BYTES_MIN: usize = 5 << 20;

/// Amazon S3: a part, and an object that is put whole, has at most so many bytes.
pub const PART_BYTES_MAX: usize = 5 << 30;

/// An object is finished at this size unless configured otherwise, in stored bytes.
pub const OBJECT_BYTES_DEFAULT: u64 = 64 << 20;

/// An object is finished at this age unless configured otherwise: as fresh as Firehose's default, and 12 objects an hour.
pub const OBJECT_AGE_DEFAULT: Duration = Duration::from_secs(300);

/// Objects open at once unless configured otherwise.
pub const OPEN_OBJECTS_DEFAULT: usize = 32;

/// Requests in flight at once unless configured otherwise.
pub const CONCURRENCY_DEFAULT: usize = 4;

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

impl Compression {
    /// What a name ends with, after its `.ndjson`.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::None => "",
        }
    }

    /// The media type of an object.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/gzip",
            Self::Zstd => "application/zstd",
            Self::None => "application/x-ndjson",
        }
    }
}

/// An S3 sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Bucket.
    pub bucket: String,
    /// Key up to the object's own name, with dates in event time, e.g. `logs/year=%Y/month=%m/day=%d/hour=%H/`.
    pub key: Template,
    /// Whether `key` is the whole key of an object instead, its dates being those of the object's first record.
    pub is_whole_key: bool,
    /// With a whole key that names nothing of an object's own: whether it stays so. See [`naming`].
    pub is_static_path: bool,
    /// What becomes of records.
    pub lines: Lines,
    /// Media type of objects; none = that of the compression.
    pub content_type: Option<String>,
    /// `Content-Encoding` of objects.
    pub content_encoding: Option<String>,
    /// Canned access control list, e.g. `bucket-owner-full-control`.
    pub canned_acl: Option<String>,
    /// Compression.
    pub compression: Compression,
    /// Compression level; none = [`compress::GZIP_LEVEL_DEFAULT`] or [`compress::ZSTD_LEVEL_DEFAULT`].
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

impl Config {
    /// A sink with the defaults.
    pub fn new(bucket: impl Into<String>, key: Template) -> Self {
        Self {
            bucket: bucket.into(),
            key,
            is_whole_key: false,
            is_static_path: false,
            lines: Lines::default(),
            content_type: None,
            content_encoding: None,
            canned_acl: None,
            compression: Compression::default(),
            compression_level: None,
            object_bytes_max: OBJECT_BYTES_DEFAULT,
            object_age_max: OBJECT_AGE_DEFAULT,
            open_objects_max: OPEN_OBJECTS_DEFAULT,
            part_bytes: PART_BYTES_MIN,
            storage_class: None,
            server_side_encryption: None,
            kms_key_id: None,
            checksum: None,
            concurrency: CONCURRENCY_DEFAULT,
            retry: retry::Config::default(),
            aws: aws::Config::default(),
        }
    }
}

/// Runs the sink until the journal is read to its end and all is stored, or the shutdown is over.
pub async fn run(config: Config, ctx: Context) -> Result<(), Error> {
    let plan = Plan {
        key: config.key.clone(),
        dates: Dates::Event,
        naming: match config.is_whole_key {
            true => Naming::whole(&ctx.instance, &ctx.name, config.is_static_path),
            false => Naming::sequence(&ctx.instance, &ctx.name),
        },
        lines: config.lines.clone(),
        compression: config.compression,
        compression_level: config.compression_level,
        object_bytes_max: config.object_bytes_max,
        object_age_max: config.object_age_max,
        open_objects_max: config.open_objects_max,
        part_bytes: config.part_bytes.clamp(PART_BYTES_MIN, PART_BYTES_MAX),
    };
    let bucket = upload::Bucket::new(config, &ctx);
    let left = notes::left_uploads(&ctx.reader);
    tokio::select! {
        result = deliver::run(plan, ctx, bucket.clone()) => result,
        // Tells early what is wrong with region or CA bundle, and cleans up; objects wait for the same client and no more.
        never = bucket.prepare(&left) => match never {},
    }
}
