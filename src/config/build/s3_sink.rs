//! `[sink.NAME]` of type `s3`.

use super::sink::{AwsKeys, DAY, KIB};
use super::{Builder, MIB, SECOND};
use crate::config::document::Path;
use crate::config::raw::sink as raw_sink;
use crate::sink::s3;
use crate::sink::s3::lines::{DateFormat, Lines};
use crate::sink::template::Template;

/// Hive partitions by event time.
pub const S3_KEY: &str = "year=%Y/month=%m/day=%d/hour=%H/";
const STORAGE_CLASSES: [&str; 8] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "GLACIER_IR",
];
const CANNED_ACLS: [&str; 7] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];
/// S3: the least part of a multipart upload, the largest single put.
const S3_PART_BYTES_MIN: u64 = 5 << 20;
const S3_OBJECT_BYTES_MAX: u64 = 5 << 30;

impl Builder<'_> {
    pub(super) fn s3(&mut self, table: &Path, raw: raw_sink::S3) -> s3::Config {
        let aws = AwsKeys {
            region: raw.region,
            endpoint_url: raw.endpoint_url,
            role_arn: raw.role_arn,
            external_id: raw.external_id,
            use_fips: raw.use_fips,
            use_dual_stack: raw.use_dual_stack,
        };
        let delimiters = self.not_empty(table, "tag_delimiters", raw.tag_delimiters);
        let is_whole_key = raw.object_key.is_some();
        let key = match raw.object_key {
            Some(text) => self.whole_key(table, &text, delimiters.as_deref()),
            None => self.object_key(&table.key("key"), raw.key.as_deref().unwrap_or(S3_KEY), delimiters.as_deref()),
        };
        if raw.static_path.is_some() && !is_whole_key {
            self.refuse(&table.key("static_path"), "must not be set without `object_key`");
        }
        let lines = self.object_lines(table, raw.date_key, raw.date_format, raw.log_key);
        let bucket = self.required(table, "bucket", raw.bucket, "must be the name of a bucket");
        self.check_bucket(&table.key("bucket"), &bucket);
        let compression = compression(raw.compression);
        let server_side_encryption = self.choice(
            table,
            "server_side_encryption",
            raw.server_side_encryption,
            &["AES256", "aws:kms", "aws:kms:dsse"],
        );
        let kms_key_id = self.not_empty(table, "kms_key_id", raw.kms_key_id);
        if kms_key_id.is_some() && server_side_encryption.as_deref() == Some("AES256") {
            self.refuse(&table.key("kms_key_id"), "must not be set with `server_side_encryption = \"AES256\"`");
        }
        let implied = kms_key_id.is_some().then(|| "aws:kms".to_owned());
        let checksums = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"];
        s3::Config {
            bucket,
            key,
            is_whole_key,
            is_static_path: raw.static_path.unwrap_or(false),
            lines,
            content_type: self.header(table, "content_type", raw.content_type),
            content_encoding: self.header(table, "content_encoding", raw.content_encoding),
            canned_acl: self.choice(table, "canned_acl", raw.canned_acl, &CANNED_ACLS),
            compression,
            compression_level: self.compression_level(
                &table.key("compression_level"),
                raw.compression_level,
                compression,
            ),
            object_bytes_max: self.bytes(
                table,
                "object_bytes_max",
                raw.object_bytes_max,
                s3::OBJECT_BYTES_DEFAULT,
                KIB,
                S3_OBJECT_BYTES_MAX,
            ),
            object_age_max: self.period(table, "object_age_max", raw.object_age_max, 300 * SECOND, SECOND, DAY),
            open_objects_max: self.count(
                table,
                "open_objects_max",
                raw.open_objects_max,
                s3::OPEN_OBJECTS_DEFAULT as u64,
                1,
                1024,
            ),
            part_bytes: self.bytes_usize(
                table,
                "part_bytes",
                raw.part_bytes,
                S3_PART_BYTES_MIN,
                S3_PART_BYTES_MIN,
                512 * MIB,
            ),
            storage_class: self.choice(table, "storage_class", raw.storage_class, &STORAGE_CLASSES),
            server_side_encryption: server_side_encryption.or(implied),
            kms_key_id,
            checksum: self.choice(table, "checksum", raw.checksum, &checksums),
            concurrency: self.count(table, "concurrency", raw.concurrency, 4, 1, 64),
            retry: self.retry(table, raw.retry),
            aws: self.aws(table, aws),
        }
    }

    /// A template that is all of an object's key.
    fn whole_key(&mut self, table: &Path, text: &str, delimiters: Option<&str>) -> Template {
        let path = table.key("object_key");
        if self.is_set(&table.key("key")) {
            self.refuse(&table.key("key"), "must not be set with `object_key`, which is the whole key");
        }
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            self.refuse(&path, "must be the key of an object");
        }
        if text.len() > 900 {
            self.refuse(&path, "must be at most 900 bytes");
        }
        self.any_template(&path, text, delimiters)
    }

    fn object_lines(
        &mut self,
        table: &Path,
        date_key: Option<String>,
        format: Option<raw_sink::DateFormat>,
        log_key: Option<String>,
    ) -> Lines {
        let date_key = self.not_empty(table, "date_key", date_key).filter(|key| key != "false");
        let log_key = self.not_empty(table, "log_key", log_key);
        if format.is_some() && date_key.is_none() {
            self.refuse(&table.key("date_format"), "must not be set without `date_key`");
        }
        match (date_key, log_key) {
            (Some(_), Some(_)) => {
                self.refuse(
                    &table.key("date_key"),
                    "must not be set with `log_key`: there is no record to put it into",
                );
                Lines::Whole
            }
            (Some(key), None) => {
                let format = match format {
                    None | Some(raw_sink::DateFormat::Iso8601) => DateFormat::Iso8601,
                    Some(raw_sink::DateFormat::JavaSqlTimestamp) => DateFormat::JavaSqlTimestamp,
                    Some(raw_sink::DateFormat::Epoch) => DateFormat::Epoch,
                    Some(raw_sink::DateFormat::EpochMs) => DateFormat::EpochMs,
                    Some(raw_sink::DateFormat::Double) => DateFormat::Double,
                };
                Lines::dated(&key, format)
            }
            (None, Some(key)) => Lines::value(&key),
            (None, None) => Lines::Whole,
        }
    }

    /// What may stand in a header.
    pub(super) fn header(&mut self, table: &Path, key: &str, value: Option<String>) -> Option<String> {
        let value = self.not_empty(table, key, value)?;
        if !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            self.refuse(&table.key(key), "must be of printable ASCII characters");
        }
        Some(value)
    }

    fn compression_level(
        &mut self,
        path: &Path,
        level: Option<crate::config::quantity::Count>,
        compression: s3::Compression,
    ) -> Option<i32> {
        let level = level?;
        let (low, high) = match compression {
            s3::Compression::Gzip => (0, 9),
            s3::Compression::Zstd => (1, 22),
            s3::Compression::None => {
                self.refuse(path, "must not be set with `compression = \"none\"`");
                return None;
            }
        };
        if !(low..=high).contains(&level.0) {
            self.refuse(path, format!("must be between {low} and {high} for this compression"));
            return None;
        }
        i32::try_from(level.0).ok()
    }
}

pub(super) fn compression(raw: Option<raw_sink::Compression>) -> s3::Compression {
    match raw {
        None | Some(raw_sink::Compression::Gzip) => s3::Compression::Gzip,
        Some(raw_sink::Compression::Zstd) => s3::Compression::Zstd,
        Some(raw_sink::Compression::None) => s3::Compression::None,
    }
}
