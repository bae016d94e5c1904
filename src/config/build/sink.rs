//! `[sink.NAME]`: names, the services' limits, retries, the AWS client.

use std::time::Duration;

use super::{Builder, HOUR, SECOND, is_name};
use crate::config::document::Path;
use crate::config::problem::must_be_one_of;
use crate::config::quantity::{Period, Size};
use crate::config::raw::{self, sink as raw_sink};
use crate::journal::block::SINKS_MAX;
use crate::sink::firehose::form::Form;
use crate::sink::template::Template;
use crate::sink::template::date::Format;
use crate::sink::{self, Kind, Oversize, aws, cloudwatch_logs, firehose, retry, unsupported};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const DAY: Duration = Duration::from_secs(86_400);
const MILLISECOND: Duration = Duration::from_millis(1);
/// What `PutRetentionPolicy` takes.
const RETENTION_DAYS: [i32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
/// `PutLogEvents`: 1 MiB, 10,000 events.
const LOGS_BATCH_BYTES_MAX: u64 = 1_048_576;
/// `PutRecordBatch`: 4 MiB, 500 records of at most 1,000 KiB.
const FIREHOSE_BATCH_BYTES_MAX: u64 = 4 << 20;
const FIREHOSE_RECORD_BYTES_MAX: u64 = 1_024_000;
const FIREHOSE_RECORD_BYTES: u64 = 64 << 10;
/// As Fluent Bit has it.
const TIME_KEY_FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// The keys that all AWS sinks have.
pub(super) struct AwsKeys {
    pub(super) region: Option<String>,
    pub(super) endpoint_url: Option<String>,
    pub(super) role_arn: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) use_fips: Option<bool>,
    pub(super) use_dual_stack: Option<bool>,
}

impl Builder<'_> {
    pub(super) fn sinks(&mut self, raw: raw::Named<raw_sink::Sink>) -> Vec<sink::Config> {
        if raw.0.len() > SINKS_MAX {
            let found = raw.0.len();
            let text = format!("sink: there are {found} sinks: must be at most {SINKS_MAX}");
            let place = self.tree.nearest(&Path::root().key("sink")).origin.clone();
            self.problems.push(super::Problem::of_place(place, text));
        }
        let mut sinks = Vec::new();
        for (name, sink) in raw.0 {
            let table = Path::root().key("sink").key(&name);
            if !is_name(&name) {
                self.refuse(&table, "must have a name of 1 to 64 letters, digits, `_` or `-`");
            }
            let kind = match sink {
                raw_sink::Sink::CloudwatchLogs(raw) => Kind::CloudwatchLogs(self.cloudwatch_logs(&table, *raw)),
                raw_sink::Sink::Firehose(raw) => Kind::Firehose(self.firehose(&table, *raw)),
                raw_sink::Sink::S3(raw) => Kind::S3(self.s3(&table, *raw)),
                raw_sink::Sink::Forward(raw) => Kind::Forward(self.forward_sink(&table, *raw)),
                raw_sink::Sink::File(raw) => Kind::File(self.file(&table, raw)),
                raw_sink::Sink::Stdout(_) => Kind::Stdout,
                raw_sink::Sink::Discard(_) => Kind::Discard,
                raw_sink::Sink::Unsupported(raw) => {
                    let plugin = self.required(&table, "plugin", raw.plugin, "must be the name of an output");
                    Kind::Unsupported(unsupported::Config { plugin })
                }
            };
            sinks.push(sink::Config { name, kind });
        }
        sinks
    }

    fn cloudwatch_logs(&mut self, table: &Path, raw: raw_sink::CloudwatchLogs) -> cloudwatch_logs::Config {
        let aws = AwsKeys {
            region: raw.region,
            endpoint_url: raw.endpoint_url,
            role_arn: raw.role_arn,
            external_id: raw.external_id,
            use_fips: raw.use_fips,
            use_dual_stack: raw.use_dual_stack,
        };
        let group = self.required(table, "group", raw.group, "must be the name of a log group");
        let delimiters = self.not_empty(table, "tag_delimiters", raw.tag_delimiters);
        let create_group = raw.create_group.unwrap_or(true);
        if !create_group {
            for key in ["retention_days", "log_group_class"].map(|key| table.key(key)) {
                if self.is_set(&key) {
                    self.refuse(&key, "must not be set with `create_group = false`");
                }
            }
        }
        let classes = ["STANDARD", "INFREQUENT_ACCESS", "DELIVERY"];
        let delimiters = delimiters.as_deref();
        let mut group = self.log_group(&table.key("group"), &group, delimiters);
        if let Some(other) = raw.group_fallback {
            group = group.or(self.log_group(&table.key("group_fallback"), &other, delimiters));
        }
        let mut stream = self.log_stream(&table.key("stream"), raw.stream.as_deref().unwrap_or("{tag}"), delimiters);
        if let Some(other) = raw.stream_fallback {
            stream = stream.or(self.log_stream(&table.key("stream_fallback"), &other, delimiters));
        }
        cloudwatch_logs::Config {
            group,
            stream,
            create_group,
            retention_days: self.retention(&table.key("retention_days"), raw.retention_days),
            log_group_class: self.choice(table, "log_group_class", raw.log_group_class, &classes),
            log_key: self.not_empty(table, "log_key", raw.log_key),
            log_format: self.header(table, "log_format", raw.log_format),
            batch_timeout: self.period(table, "batch_timeout", raw.batch_timeout, 5 * SECOND, 10 * MILLISECOND, HOUR),
            batch_events_max: self.count(table, "batch_events_max", raw.batch_events_max, 10_000, 1, 10_000),
            batch_bytes_max: self.bytes_usize(
                table,
                "batch_bytes_max",
                raw.batch_bytes_max,
                LOGS_BATCH_BYTES_MAX,
                KIB,
                LOGS_BATCH_BYTES_MAX,
            ),
            oversize: oversize(raw.oversize),
            concurrency: self.count(table, "concurrency", raw.concurrency, 4, 1, 64),
            retry: self.retry(table, raw.retry),
            aws: self.aws(table, aws),
        }
    }

    fn firehose(&mut self, table: &Path, raw: raw_sink::Firehose) -> firehose::Config {
        let aws = AwsKeys {
            region: raw.region,
            endpoint_url: raw.endpoint_url,
            role_arn: raw.role_arn,
            external_id: raw.external_id,
            use_fips: raw.use_fips,
            use_dual_stack: raw.use_dual_stack,
        };
        let stream = self.required(table, "stream", raw.stream, "must be the name of a delivery stream");
        self.check_delivery_stream(&table.key("stream"), &stream);
        let most = FIREHOSE_BATCH_BYTES_MAX;
        let batch_bytes_max = self.bytes_usize(table, "batch_bytes_max", raw.batch_bytes_max, most, KIB, most);
        let record_bytes_max = raw.record_bytes_max;
        let mut record_bytes = self.bytes_usize(
            table,
            "record_bytes_max",
            record_bytes_max,
            FIREHOSE_RECORD_BYTES,
            0,
            FIREHOSE_RECORD_BYTES_MAX,
        );
        if record_bytes > batch_bytes_max {
            let batch = Size(batch_bytes_max as u64);
            if record_bytes_max.is_some() {
                let must = format!("must not be more than `batch_bytes_max`, which is {batch}");
                self.refuse(&table.key("record_bytes_max"), must);
            } else {
                self.warn(format!(
                    "{table}.record_bytes_max is {batch} instead of 64KiB, since batch_bytes_max is {batch}"
                ));
                record_bytes = batch_bytes_max;
            }
        }
        let form = self.form(table, raw.log_key, raw.time_key, raw.time_key_format);
        if raw.compression == Some(raw_sink::Compression::Zstd) {
            self.refuse(&table.key("compression"), "must be `gzip` or `none`: Firehose's readers know no other");
        }
        firehose::Config {
            stream,
            record_bytes_max: record_bytes,
            form,
            is_gzip: raw.compression == Some(raw_sink::Compression::Gzip),
            batch_timeout: self.period(table, "batch_timeout", raw.batch_timeout, 5 * SECOND, 10 * MILLISECOND, HOUR),
            batch_records_max: self.count(table, "batch_records_max", raw.batch_records_max, 500, 1, 500),
            batch_bytes_max,
            oversize: oversize(raw.oversize),
            concurrency: self.count(table, "concurrency", raw.concurrency, 4, 1, 64),
            retry: self.retry(table, raw.retry),
            aws: self.aws(table, aws),
        }
    }

    /// What Firehose records hold.
    fn form(
        &mut self,
        table: &Path,
        log_key: Option<String>,
        time_key: Option<String>,
        format: Option<String>,
    ) -> Form {
        let log_key = self.not_empty(table, "log_key", log_key);
        let time_key = self.not_empty(table, "time_key", time_key);
        if log_key.is_some() && time_key.is_some() {
            self.refuse(&table.key("time_key"), "must not be set with `log_key`: there is no record to put it into");
        }
        if format.is_some() && time_key.is_none() {
            self.refuse(&table.key("time_key_format"), "must not be set without `time_key`");
        }
        let format = format.unwrap_or_else(|| TIME_KEY_FORMAT.to_owned());
        match (log_key, time_key, Format::parse(&format)) {
            (Some(key), ..) => Form::value(&key),
            (None, Some(key), Ok(format)) => Form::timed(&key, format),
            (None, Some(_), Err(error)) => {
                self.refuse(&table.key("time_key_format"), format!("must be a format of times: {error}"));
                Form::Line
            }
            (None, None, _) => Form::Line,
        }
    }

    pub(super) fn retry(&mut self, sink: &Path, raw: Option<raw_sink::Retry>) -> retry::Config {
        let table = sink.key("retry");
        let raw = raw.unwrap_or_default();
        let default = retry::Config::default();
        let minute = 60 * SECOND;
        let cap = self.period(&table, "cap", raw.cap, default.cap, MILLISECOND, HOUR);
        let mut base = self.period(&table, "base", raw.base, default.base, MILLISECOND, minute);
        if base > cap {
            if raw.base.is_some() {
                self.refuse(&table.key("base"), format!("must not be more than `cap`, which is {}", Period(cap)));
            } else {
                let cap = Period(cap);
                self.warn(format!("{table}.base is {cap} instead of {}, since cap is {cap}", Period(base)));
                base = cap.0;
            }
        }
        let give_up_after = raw.give_up_after;
        let never = Duration::ZERO;
        let give_up = self.period(&table, "give_up_after", give_up_after, never, SECOND, 30 * DAY);
        retry::Config {
            base,
            cap,
            give_up_after: give_up_after.map(|_| give_up),
            request_timeout: self.period(
                &table,
                "request_timeout",
                raw.request_timeout,
                default.request_timeout,
                100 * MILLISECOND,
                10 * minute,
            ),
        }
    }

    pub(super) fn aws(&mut self, table: &Path, keys: AwsKeys) -> aws::Config {
        if let Some(region) = &keys.region
            && (region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        {
            self.refuse(&table.key("region"), "must be a region, such as \"eu-central-1\"");
        }
        if let Some(url) = &keys.endpoint_url {
            self.check_url(&table.key("endpoint_url"), url);
        }
        if let Some(role) = &keys.role_arn
            && !(role.starts_with("arn:") && role.contains(":iam::") && role.contains(":role/"))
        {
            self.refuse(
                &table.key("role_arn"),
                "must be a role's ARN, such as \"arn:aws:iam::123456789012:role/logs\"",
            );
        }
        if keys.external_id.is_some() && !self.is_set(&table.key("role_arn")) {
            self.refuse(&table.key("external_id"), "must not be set without `role_arn`");
        }
        aws::Config {
            region: keys.region,
            endpoint_url: keys.endpoint_url,
            role_arn: keys.role_arn,
            external_id: keys.external_id,
            use_fips: keys.use_fips,
            use_dual_stack: keys.use_dual_stack,
        }
    }

    fn retention(&mut self, path: &Path, days: Option<crate::config::quantity::Count>) -> Option<i32> {
        let days = days?;
        let known = i32::try_from(days.0).ok().filter(|days| RETENTION_DAYS.contains(days));
        if known.is_none() {
            let list = RETENTION_DAYS.map(|days| days.to_string()).join(", ");
            self.refuse(path, format!("must be a number of days that the service takes: {list}"));
        }
        known
    }

    /// One of the words that the service knows.
    pub(super) fn choice(
        &mut self,
        table: &Path,
        key: &str,
        value: Option<String>,
        allowed: &[&str],
    ) -> Option<String> {
        let value = value?;
        if !allowed.contains(&value.as_str()) {
            self.refuse(&table.key(key), must_be_one_of(&value, allowed));
        }
        Some(value)
    }

    pub(super) fn not_empty(&mut self, table: &Path, key: &str, value: Option<String>) -> Option<String> {
        let value = value?;
        if value.is_empty() {
            self.refuse(&table.key(key), "must not be empty");
        }
        Some(value)
    }

    pub(super) fn template(&mut self, path: &Path, text: &str) -> Template {
        self.template_with(path, text, None)
    }

    /// A name that is the same for many records: not made from what one object has of its own.
    pub(super) fn template_with(&mut self, path: &Path, text: &str, delimiters: Option<&str>) -> Template {
        let template = self.any_template(path, text, delimiters);
        if template.names_objects() {
            self.refuse(path, "must not hold `{uuid}` or `{index}`: these are for `object_key`");
        }
        if template.has_fractions() {
            self.refuse(path, "must not hold fractions of a second: each record would have a name of its own");
        }
        template
    }

    pub(super) fn any_template(&mut self, path: &Path, text: &str, delimiters: Option<&str>) -> Template {
        match Template::parse_with(text, delimiters) {
            Ok(template) => template,
            Err(error) => {
                self.refuse(path, format!("must be a template: {error}"));
                // Any template will do: the configuration is refused.
                stand_in_template()
            }
        }
    }
}

/// A template for the time until the configuration is refused.
fn stand_in_template() -> Template {
    #[allow(clippy::expect_used, reason = "a plain letter is a template whatever the syntax")]
    Template::parse("x").expect("a plain letter is a template")
}

fn oversize(raw: Option<raw_sink::Oversize>) -> Oversize {
    match raw {
        None | Some(raw_sink::Oversize::Truncate) => Oversize::Truncate,
        Some(raw_sink::Oversize::Reject) => Oversize::Reject,
    }
}
