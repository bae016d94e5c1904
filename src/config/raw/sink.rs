//! `[sink.NAME]` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::quantity::{Count, Period, Size};

/// A sink, of the kind that its key `type` says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "type")]
pub enum Sink {
    /// Amazon CloudWatch Logs.
    CloudwatchLogs(Box<CloudwatchLogs>),
    /// Amazon Data Firehose.
    Firehose(Box<Firehose>),
    /// Amazon S3: newline-delimited JSON objects.
    S3(Box<S3>),
    /// Another log router, in the Fluentd Forward protocol.
    Forward(Box<Forward>),
    /// Files under a directory, laid out as one of the services would.
    File(File),
    /// Standard output, one JSON object a line.
    Stdout(Nothing),
    /// Nowhere; counted as delivered.
    Discard(Nothing),
    /// Nowhere, since this program lacks the output that was asked for; counted as dropped (`unsupported_output`).
    Unsupported(Unsupported),
}

/// A sink without keys of its own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// An output that this program does not have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    /// Name of the output, for messages. Required.
    #[schemars(required)]
    pub plugin: Option<String>,
}

/// Amazon CloudWatch Logs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudwatchLogs {
    /// Log group, a template. Required.
    #[schemars(required)]
    pub group: Option<String>,
    /// Log stream, a template. Default: `{tag}`.
    pub stream: Option<String>,
    /// The log group, a template, for records of which a value that `group` names without a `|text` is not known. Default: none, `unknown` stands for the value.
    pub group_fallback: Option<String>,
    /// The same for `stream`. Default: none.
    pub stream_fallback: Option<String>,
    /// Create a missing group. Missing streams are always created. Default: true.
    pub create_group: Option<bool>,
    /// Retention of a group that we create, in days; one of the numbers that the service takes. Default: for ever.
    pub retention_days: Option<Count>,
    /// Class of a group that we create: `STANDARD`, `INFREQUENT_ACCESS` or `DELIVERY`. Default: the service's.
    pub log_group_class: Option<String>,
    /// The characters that part a tag into `{tag[0]}`, `{tag[1]}` and so on; empty parts do not count. Default: dots, and empty parts count.
    pub tag_delimiters: Option<String>,
    /// Send only this field's value instead of the whole record; records without it are sent whole, those in which it is empty not at all. Default: the whole record.
    pub log_key: Option<String>,
    /// What the service is told of the messages' format, such as `json/emf` for metrics in the embedded metric format. Default: nothing.
    pub log_format: Option<String>,
    /// An open batch is sent after this time, as a duration. Default: 5s. Limits: 10ms to 1h.
    pub batch_timeout: Option<Period>,
    /// Events in a request. Default and most: 10000.
    pub batch_events_max: Option<Count>,
    /// Bytes in a request, counted as the service does (26 more for each event), as a size. Default and most: 1048576. Least: 1KiB.
    pub batch_bytes_max: Option<Size>,
    /// What to do with events larger than the service takes. Default: `truncate`.
    pub oversize: Option<Oversize>,
    /// Requests in flight at once. Default: 4. Limits: 1 to 64.
    pub concurrency: Option<Count>,
    /// Retries.
    pub retry: Option<Retry>,
    /// Region. Default: the SDK's chain (environment, profile, task).
    pub region: Option<String>,
    /// Endpoint URL. Default: `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`, `AWS_ENDPOINT_URL`, or the service's own.
    pub endpoint_url: Option<String>,
    /// Role to assume for this sink. Default: none.
    pub role_arn: Option<String>,
    /// External id that the role asks for. Default: none.
    pub external_id: Option<String>,
    /// Use FIPS endpoints. Default: the SDK's chain.
    pub use_fips: Option<bool>,
    /// Use dual-stack (IPv6) endpoints. Default: the SDK's chain.
    pub use_dual_stack: Option<bool>,
}

/// Amazon Data Firehose.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Firehose {
    /// Delivery stream. Required.
    #[schemars(required)]
    pub stream: Option<String>,
    /// Join lines into Firehose records up to this size (each record is billed rounded up to 5 KB); 0 = one line a record. Default: 64KiB. Most: 1024000.
    pub record_bytes_max: Option<Size>,
    /// Send only this field's value, a text unescaped, instead of the whole record; records without it are sent whole, those in which it is empty not at all. Default: the whole record.
    pub log_key: Option<String>,
    /// A member with the record's time, put last into each line. Default: none.
    pub time_key: Option<String>,
    /// How that is written, as by `strftime` in UTC, with `%3N`, `%6N` and `%9N` for fractions of a second. Default: `%Y-%m-%dT%H:%M:%S`.
    pub time_key_format: Option<String>,
    /// Compress the data of each Firehose record: `gzip` or `none`. Default: `none`.
    pub compression: Option<Compression>,
    /// An open batch is sent after this time, as a duration. Default: 5s. Limits: 10ms to 1h.
    pub batch_timeout: Option<Period>,
    /// Firehose records in a request. Default and most: 500.
    pub batch_records_max: Option<Count>,
    /// Bytes in a request, base64 included, as a size. Default and most: 4MiB. Least: 1KiB, and not less than `record_bytes_max`.
    pub batch_bytes_max: Option<Size>,
    /// What to do with lines larger than the service takes. Default: `truncate`.
    pub oversize: Option<Oversize>,
    /// Requests in flight at once. Default: 4. Limits: 1 to 64.
    pub concurrency: Option<Count>,
    /// Retries.
    pub retry: Option<Retry>,
    /// Region. Default: the SDK's chain (environment, profile, task).
    pub region: Option<String>,
    /// Endpoint URL. Default: `AWS_ENDPOINT_URL_FIREHOSE`, `AWS_ENDPOINT_URL`, or the service's own.
    pub endpoint_url: Option<String>,
    /// Role to assume for this sink. Default: none.
    pub role_arn: Option<String>,
    /// External id that the role asks for. Default: none.
    pub external_id: Option<String>,
    /// Use FIPS endpoints. Default: the SDK's chain.
    pub use_fips: Option<bool>,
    /// Use dual-stack (IPv6) endpoints. Default: the SDK's chain.
    pub use_dual_stack: Option<bool>,
}

/// Amazon S3: newline-delimited JSON objects.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Bucket. Required.
    #[schemars(required)]
    pub bucket: Option<String>,
    /// Key up to the object's own name, a template with dates in event time. Default: `year=%Y/month=%m/day=%d/hour=%H/`.
    pub key: Option<String>,
    /// The whole key of an object instead, a template: `{uuid}` is 8 characters of the object's own, `{index}` a number that rises, dates are those of its first record. Where it has neither, `-object` and 8 characters are appended, as Fluent Bit does. A leading `/` is left out. Default: none.
    pub object_key: Option<String>,
    /// With `object_key`: append nothing to it. Objects whose key is taken get a further one. Default: false.
    pub static_path: Option<bool>,
    /// The characters that part a tag into `{tag[0]}`, `{tag[1]}` and so on; empty parts do not count. Default: dots, and empty parts count.
    pub tag_delimiters: Option<String>,
    /// A member with the record's time, put first into each line. Default: none, as is `false`.
    pub date_key: Option<String>,
    /// How that is written. Default: `iso8601`.
    pub date_format: Option<DateFormat>,
    /// Store only this field's value, a text unescaped, instead of the whole record; records without it are stored whole. Default: the whole record.
    pub log_key: Option<String>,
    /// Media type of objects. Default: that of the compression.
    pub content_type: Option<String>,
    /// `Content-Encoding` of objects, such as `gzip`: clients then decompress them on the way. Default: none.
    pub content_encoding: Option<String>,
    /// Canned access control list, such as `bucket-owner-full-control`; needs `s3:PutObjectAcl`. Default: none.
    pub canned_acl: Option<String>,
    /// How objects are compressed. Default: `gzip`.
    pub compression: Option<Compression>,
    /// Compression level. Default: the library's. Limits: 0 to 9 for gzip, 1 to 22 for zstd.
    pub compression_level: Option<Count>,
    /// An object is finished at about this size as stored, as a size. Default: 64MiB. Limits: 1KiB to 5GiB.
    pub object_bytes_max: Option<Size>,
    /// An object is finished at this age, as a duration. Default: 5m. Limits: 1s to 1d.
    pub object_age_max: Option<Period>,
    /// Objects open at once; the oldest is finished when one more is needed. Default: 32. Limits: 1 to 1024.
    pub open_objects_max: Option<Count>,
    /// Part of a multipart upload, as a size; smaller objects are put whole. Each open object holds up to this in memory. Default: 5MiB. Limits: 5MiB to 512MiB.
    pub part_bytes: Option<Size>,
    /// Storage class, such as `STANDARD_IA` or `INTELLIGENT_TIERING`. Default: the bucket's.
    pub storage_class: Option<String>,
    /// `AES256`, `aws:kms` or `aws:kms:dsse`. Default: the bucket's.
    pub server_side_encryption: Option<String>,
    /// KMS key; implies `aws:kms`. Default: none.
    pub kms_key_id: Option<String>,
    /// Additional checksum: `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1` or `SHA256`. Default: the SDK's.
    pub checksum: Option<String>,
    /// Requests in flight at once. Default: 4. Limits: 1 to 64.
    pub concurrency: Option<Count>,
    /// Retries.
    pub retry: Option<Retry>,
    /// Region. Default: the SDK's chain (environment, profile, task).
    pub region: Option<String>,
    /// Endpoint URL. Default: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or the service's own.
    pub endpoint_url: Option<String>,
    /// Role to assume for this sink. Default: none.
    pub role_arn: Option<String>,
    /// External id that the role asks for. Default: none.
    pub external_id: Option<String>,
    /// Use FIPS endpoints. Default: the SDK's chain.
    pub use_fips: Option<bool>,
    /// Use dual-stack (IPv6) endpoints. Default: the SDK's chain.
    pub use_dual_stack: Option<bool>,
}

/// Files under a directory, laid out as one of the services would.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The directory; made if missing. Required.
    #[schemars(required)]
    pub directory: Option<String>,
    /// How files are laid out. Default: `s3`.
    pub layout: Option<Layout>,
    /// Layout `cloudwatch_logs`: log group, a template. Default: `meshlens`.
    pub group: Option<String>,
    /// Layouts `cloudwatch_logs` (log stream, a template; default `{tag}`) and `firehose` (delivery stream; default `meshlens`).
    pub stream: Option<String>,
    /// Layout `s3`: key up to the object's own name, a template. Default: `year=%Y/month=%m/day=%d/hour=%H/`.
    pub key: Option<String>,
    /// Layout `s3`: how objects are compressed. Default: `gzip`.
    pub compression: Option<Compression>,
    /// Layout `lines`: path of the file below the directory, a template. Default: `{tag}`.
    pub file: Option<String>,
}

/// How files are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `DIR/GROUP/STREAM.jsonl`, one event with its timestamp a line.
    CloudwatchLogs,
    /// `DIR/STREAM/YYYY/MM/DD/HH/…`, as Firehose writes to its bucket.
    Firehose,
    /// `DIR/KEY…`, objects as the S3 sink writes them.
    S3,
    /// `DIR/FILE`, one JSON object a line, appended to.
    Lines,
}

/// Another log router, in the Fluentd Forward protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Host name or address. Default: `127.0.0.1`, unless `unix_path` is set.
    pub host: Option<String>,
    /// Port. Default: 24224. Limits: 1 to 65535.
    pub port: Option<Count>,
    /// Path of a unix socket, instead of host and port. Default: none.
    pub unix_path: Option<String>,
    /// The tag that records are sent with, a template. Default: `{tag}`.
    pub tag: Option<String>,
    /// The key of the handshake; never printed. Better given by `shared_key_env`. Default: no handshake.
    pub shared_key: Option<String>,
    /// The environment variable that holds the shared key.
    pub shared_key_env: Option<String>,
    /// Our name in the handshake. Default: `hostname`.
    pub self_hostname: Option<String>,
    /// User name in the handshake. Default: none.
    pub username: Option<String>,
    /// Password of that user; never printed. Better given by `password_env`.
    pub password: Option<String>,
    /// The environment variable that holds the password.
    pub password_env: Option<String>,
    /// Count a message as delivered when the peer has acknowledged it, not when it is sent. Default: true.
    pub require_ack_response: Option<bool>,
    /// Send times in whole seconds. Default: false.
    pub time_as_integer: Option<bool>,
    /// Compress records: `gzip` or `none`. Default: `none`.
    pub compress: Option<Compression>,
    /// An open batch is sent after this time, as a duration. Default: 1s. Limits: 10ms to 1h.
    pub batch_timeout: Option<Period>,
    /// Bytes of records in a message, as a size. Default: 1MiB. Limits: 1KiB to 16MiB.
    pub batch_bytes_max: Option<Size>,
    /// Connections at once; more than one mixes the order of messages. Default: 1. Limits: 1 to 64.
    pub concurrency: Option<Count>,
    /// Retries.
    pub retry: Option<Retry>,
}

/// How a date is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DateFormat {
    /// `"2026-11-28T12:00:00.123456Z"`.
    Iso8601,
    /// `"2026-11-28 12:00:00.123456"`.
    JavaSqlTimestamp,
    /// Seconds since 1970.
    Epoch,
    /// Milliseconds since 1970.
    EpochMs,
    /// Seconds since 1970 with a fraction.
    Double,
}

/// Compression of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// gzip, `.gz`.
    Gzip,
    /// Zstandard, `.zst`.
    Zstd,
    /// None.
    None,
}

/// What to do with a record larger than the service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    /// Cut at a character boundary, and counted.
    Truncate,
    /// Not sent, counted as rejected.
    Reject,
}

/// Retries of a sink: capped exponential backoff with full jitter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// First upper bound of the wait, as a duration; doubles with each attempt. Default: 200ms. Limits: 1ms to 1m, not more than `cap`.
    pub base: Option<Period>,
    /// Greatest upper bound of the wait, as a duration. Default: 20s. Limits: 1ms to 1h.
    pub cap: Option<Period>,
    /// A batch is dropped, and counted, after this time, as a duration. Default: never. Limits: 1s to 30d.
    pub give_up_after: Option<Period>,
    /// Time limit of one attempt, as a duration. Default: 30s. Limits: 100ms to 10m.
    pub request_timeout: Option<Period>,
}
