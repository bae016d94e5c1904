//! `/metrics`: the account, the journal and the process in Prometheus's text format 0.0.4.
//!
//! Names follow Prometheus's conventions: base units, `_total` on counters, one `HELP` and `TYPE` a family. Every series that
//! can be is there from the first scrape on, with 0, so that `rate` and `increase` see the first loss too; but for redactions in
//! fields that hardly ever hold anything. Labels hold names of
//! the configuration and words of ours, nothing of a record.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::reading::{Part, Reading};
use crate::telemetry::account::Reason;

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "counter", help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "gauge", help }
}

const BUILD: Metric = gauge("meshlens_build_info", "Always 1; the label is the version.");
const READY: Metric = gauge("meshlens_ready", "1 while records are taken, 0 at the start and once draining.");
const RECEIVED: Metric = counter("meshlens_received_records_total", "Records read by a source, or routed to a sink.");
const RECORDS: Metric = counter(
    "meshlens_records_total",
    "Records by what became of them: delivered (a source's: handed to the journal), filtered, rejected or dropped, and why.",
);
const PENDING: Metric = gauge("meshlens_pending_records", "Records received whose fate is open.");
const TRUNCATED: Metric =
    counter("meshlens_truncated_records_total", "Records cut to a size limit; they have a fate as well.");
const REFUSED: Metric = counter(
    "meshlens_refused_connections_total",
    "Connections that a source closed at once because there were too many.",
);
const UNPARSED: Metric = counter(
    "meshlens_unparsed_records_total",
    "Records of a source whose line begins as an access log and has none of the formats; they pass on redacted.",
);
const OLDEST: Metric =
    gauge("meshlens_oldest_pending_age_seconds", "How long a sink's oldest pending record has waited; 0 if none is.");
const LAST: Metric = gauge(
    "meshlens_last_delivery_timestamp_seconds",
    "When a sink's destination last took records, in seconds since 1970 UTC; 0 if not since the start.",
);
const REDACTIONS: Metric = counter(
    "meshlens_redactions_total",
    "What was redacted, by rule, and by the field it stood in: a known key, or other.",
);
const MEMORY: Metric = gauge("meshlens_journal_memory_bytes", "Bytes of records that the journal holds in memory.");
const MEMORY_MAX: Metric = gauge("meshlens_journal_memory_limit_bytes", "journal.memory_bytes_max.");
const DISK: Metric = gauge("meshlens_journal_disk_bytes", "Bytes of the journal's files on disk.");
const DISK_MAX: Metric =
    gauge("meshlens_journal_disk_limit_bytes", "journal.disk_bytes_max; 0 if nothing is written to disk.");
const SEGMENTS: Metric = gauge("meshlens_journal_segments", "Files of the journal on disk.");
const WRITTEN: Metric = counter("meshlens_journal_written_blocks_total", "Blocks written to disk.");
const SYNCS: Metric = counter("meshlens_journal_syncs_total", "Times that the journal's file was made durable.");
const IO_ERRORS: Metric =
    counter("meshlens_journal_io_errors_total", "Errors in reading or writing the journal's files.");
const DEGRADED: Metric =
    gauge("meshlens_journal_degraded", "1 while records that should be on disk are kept in memory only.");
const START: Metric = gauge("process_start_time_seconds", "When the process started, in seconds since 1970 UTC.");
const CPU: Metric = counter("process_cpu_seconds_total", "User and system CPU time.");
const RESIDENT: Metric = gauge("process_resident_memory_bytes", "Resident memory.");
const OPEN_FILES: Metric = gauge("process_open_fds", "Open file descriptors.");
const OPEN_FILES_MAX: Metric = gauge("process_max_fds", "The most file descriptors that may be open.");

/// All of them, in the order of [`render`].
pub const METRICS: [Metric; 25] = [
    BUILD,
    READY,
    RECEIVED,
    RECORDS,
    PENDING,
    TRUNCATED,
    REFUSED,
    UNPARSED,
    OLDEST,
    LAST,
    REDACTIONS,
    MEMORY,
    MEMORY_MAX,
    DISK,
    DISK_MAX,
    SEGMENTS,
    WRITTEN,
    SYNCS,
    IO_ERRORS,
    DEGRADED,
    START,
    CPU,
    RESIDENT,
    OPEN_FILES,
    OPEN_FILES_MAX,
];

type Labels<'a> = &'a [(&'a str, &'a str)];

struct Text(String);

impl Text {
    fn family(&mut self, metric: Metric) {
        let Metric { name, kind, help } = metric;
        // Writing to a String cannot fail, here and below.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn sample(&mut self, metric: Metric, labels: Labels<'_>, value: impl Display) {
        self.0.push_str(metric.name);
        for (place, (label, text)) in labels.iter().enumerate() {
            write!(self.0, "{}{label}=\"", if place == 0 { '{' } else { ',' }).ok();
            escape(text, &mut self.0);
            self.0.push('"');
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        writeln!(self.0, "{value}").ok();
    }

    /// A family of one series.
    fn single(&mut self, metric: Metric, value: impl Display) {
        self.family(metric);
        self.sample(metric, &[], value);
    }

    /// The same, if it is known.
    fn known(&mut self, metric: Metric, value: Option<impl Display>) {
        if let Some(value) = value {
            self.single(metric, value);
        }
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// The whole answer.
pub fn render(reading: &Reading) -> String {
    let mut text = Text(String::with_capacity(16 << 10));
    text.family(BUILD);
    text.sample(BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.single(READY, u8::from(reading.phase.is_ready()));
    account(&mut text, reading);
    redactions(&mut text, reading);
    journal(&mut text, reading);
    let resources = &reading.resources;
    text.single(START, seconds_of_ms(reading.started_ms));
    text.known(CPU, resources.cpu.map(seconds));
    text.known(RESIDENT, resources.resident_bytes);
    text.known(OPEN_FILES, resources.open_files);
    text.known(OPEN_FILES_MAX, resources.open_files_max);
    text.0
}

fn account(text: &mut Text, reading: &Reading) {
    let sources = reading.sources.iter().map(|part| ("source", part));
    let parts: Vec<(&str, &Part)> = sources.chain(reading.sinks.iter().map(|part| ("sink", part))).collect();
    let each = |text: &mut Text, metric: Metric, value: fn(&Part) -> u64| {
        text.family(metric);
        for (component, part) in &parts {
            text.sample(metric, &[("component", component), ("name", &part.name)], value(part));
        }
    };
    each(text, RECEIVED, |part| part.tally.received);
    text.family(RECORDS);
    for (component, part) in &parts {
        let (component, name) = (("component", *component), ("name", part.name.as_str()));
        text.sample(RECORDS, &[component, name, ("fate", "delivered"), ("reason", "")], part.tally.delivered);
        for reason in Reason::ALL {
            let labels = [component, name, ("fate", reason.fate().label()), ("reason", reason.label())];
            text.sample(RECORDS, &labels, part.tally.lost[reason as usize]);
        }
    }
    each(text, PENDING, |part| part.tally.pending());
    each(text, TRUNCATED, |part| part.tally.truncated);
    text.family(REFUSED);
    for source in &reading.sources {
        let labels = [("component", "source"), ("name", source.name.as_str())];
        text.sample(REFUSED, &labels, source.connections_refused);
    }
    text.family(UNPARSED);
    for source in &reading.sources {
        let labels = [("component", "source"), ("name", source.name.as_str())];
        text.sample(UNPARSED, &labels, source.unparsed);
    }
    text.family(OLDEST);
    for sink in &reading.sinks {
        let labels = [("component", "sink"), ("name", sink.name.as_str())];
        text.sample(OLDEST, &labels, seconds(sink.oldest_pending.unwrap_or_default()));
    }
    text.family(LAST);
    for sink in &reading.sinks {
        let labels = [("component", "sink"), ("name", sink.name.as_str())];
        text.sample(LAST, &labels, seconds_of_ms(sink.last_delivered_ms.unwrap_or(0)));
    }
}

/// Fields that hardly ever hold anything are there once they did.
fn redactions(text: &mut Text, reading: &Reading) {
    text.family(REDACTIONS);
    for line in &reading.redactions {
        text.sample(REDACTIONS, &[("rule", line.rule.label()), ("field", line.field)], line.count);
    }
}

fn journal(text: &mut Text, reading: &Reading) {
    // While it is being opened nothing is in it.
    let journal = reading.journal.clone().unwrap_or_default();
    text.single(MEMORY, journal.memory_bytes);
    text.single(MEMORY_MAX, reading.memory_bytes_max);
    text.single(DISK, journal.disk_bytes);
    text.single(DISK_MAX, reading.disk_bytes_max);
    text.single(SEGMENTS, journal.segments);
    text.single(WRITTEN, journal.blocks_written);
    text.single(SYNCS, journal.syncs);
    text.single(IO_ERRORS, journal.io_errors);
    text.single(DEGRADED, u8::from(journal.degraded.is_some()));
}

fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::View;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text(String::new());
        text.sample(READY, &[("a", "b\"c\\d\ne"), ("f", "")], 1);
        assert_eq!(text.0, "meshlens_ready{a=\"b\\\"c\\\\d\\ne\",f=\"\"} 1\n");
    }

    #[test]
    fn every_family_is_announced_once_and_in_order() {
        let text = render(&Reading::of(&View::for_tests()));
        let announced: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let expected: Vec<String> = METRICS.iter().map(|metric| format!("{} {}", metric.name, metric.kind)).collect();
        assert_eq!(announced, expected);
    }

    #[test]
    fn the_account_is_all_there() {
        let text = render(&Reading::of(&View::for_tests()));
        for line in [
            "meshlens_received_records_total{component=\"source\",name=\"forward\"} 10",
            "meshlens_records_total{component=\"source\",name=\"forward\",fate=\"filtered\",reason=\"rule\"} 1",
            "meshlens_records_total{component=\"source\",name=\"forward\",fate=\"delivered\",reason=\"\"} 9",
            "meshlens_records_total{component=\"sink\",name=\"dead\",fate=\"rejected\",reason=\"refused\"} 2",
            "meshlens_pending_records{component=\"sink\",name=\"dead\"} 7",
            "meshlens_truncated_records_total{component=\"sink\",name=\"live\"} 1",
            "meshlens_last_delivery_timestamp_seconds{component=\"sink\",name=\"dead\"} 0",
            "meshlens_ready 0",
            "meshlens_redactions_total{rule=\"query\",field=\"path\"} 0",
            "meshlens_redactions_total{rule=\"card\",field=\"other\"} 0",
        ] {
            assert!(text.lines().any(|each| each == line), "no {line} in\n{text}");
        }
    }
}
