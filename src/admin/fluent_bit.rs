//! What Fluent Bit's HTTP server answers, for the health checks and scrapers of those who had it before.
//!
//! ```text
//! GET /                           {"fluent-bit":{"version":…,"edition":…,"flags":[]}}
//! GET /api/v1/uptime              {"uptime_sec":N,"uptime_hr":"Fluent Bit has been running:  …"}
//! GET /api/v1/health, v2          200 `ok`, or 500 `error`; see below
//! GET /api/v1/metrics             {"input":{"forward.0":{"records":N}},"filter":{},"output":{"s3.0":{…}}}
//! GET /api/v1/metrics/prometheus  the same, as fluentbit_input_records_total{name="forward.0"} N TIME, …; v2 without the time
//! GET /api/v1/plugins             {"inputs":[…],"filters":[],"outputs":[…]}
//! GET /api/v1/storage             {"storage_layer":{"chunks":{…}},"input_chunks":{}}
//! ```
//!
//! Parts have the names that Fluent Bit would give them: the plugin's, and a number that counts up for each plugin. Only what is known is
//! said: there are no bytes, and no retries that have not failed yet.
//!
//! **Health.** Without `admin.fluent_bit_health` it is always `ok`: the process answers, and its sources take records. With it, a
//! look each second counts an error where a sink had records refused since the last one, and a failed retry where it gave records up; more than
//! the allowed number within the period, and it is `error`. Fluent Bit counts chunks, of which it makes one each flush, a second as a rule.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::reading::{Part, Reading, View};
use crate::telemetry::account::{Fate, Reason, now_ms};

/// How often errors are looked for.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

const VERSION: &str = env!("CARGO_PKG_VERSION");
const EDITION: &str = "meshlens";

/// When `/api/v1/health` says `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// More errors within the period than this.
    pub errors_max: u64,
    /// More failed retries within the period than this.
    pub retry_failures_max: u64,
    /// The period; whole seconds.
    pub period: Duration,
}

/// Errors and failed retries, as counted so far.
type Counts = [u64; 2];

/// What the looks have found.
#[derive(Debug)]
pub struct Checks {
    rule: Option<Health>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// For each sink, what it had lost at the last look.
    lost: Vec<Counts>,
    counts: Counts,
    /// The counts of the last looks, one more than make a period.
    looks: VecDeque<Counts>,
}

impl Checks {
    /// By that rule, if there is one.
    pub fn new(rule: Option<Health>) -> Self {
        Self { rule, state: Mutex::default() }
    }

    /// Looks once; to be called each [`LOOK_INTERVAL`].
    pub fn look(&self, view: &View) {
        let Some(rule) = self.rule else { return };
        let lost = view.losses([Reason::Refused, Reason::RetriesExhausted]);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (sink, now) in lost.iter().enumerate() {
            let Some(before) = state.lost.get(sink).copied() else { break };
            for kind in 0..before.len() {
                state.counts[kind] += u64::from(now[kind] > before[kind]);
            }
        }
        state.lost = lost;
        let counts = state.counts;
        state.looks.push_back(counts);
        let seconds = usize::try_from(rule.period.as_secs()).unwrap_or(usize::MAX);
        while state.looks.len() > seconds.saturating_add(1) {
            state.looks.pop_front();
        }
    }

    fn is_healthy(&self) -> bool {
        let Some(rule) = self.rule else { return true };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.looks.front().copied().unwrap_or_default();
        let [errors, failures] = [0, 1].map(|kind| state.counts[kind] - since[kind]);
        errors <= rule.errors_max && failures <= rule.retry_failures_max
    }
}

/// What is said, and of what type; none where there is nothing.
pub(super) enum Said {
    Json(Json),
    Text(String),
    Healthy(bool),
}

/// The answer at a path.
pub(super) fn answer(view: &View, checks: &Checks, path: &str) -> Option<Said> {
    // Fluent Bit does not mind a slash at the end.
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    Some(match path {
        "/" => Said::Json(json!({ "fluent-bit": { "version": VERSION, "edition": EDITION, "flags": [] } })),
        "/api/v1/uptime" | "/api/v2/uptime" => Said::Json(uptime(view.uptime())),
        "/api/v1/health" | "/api/v2/health" => Said::Healthy(checks.is_healthy()),
        "/api/v1/metrics" => Said::Json(metrics(&Reading::of(view))),
        "/api/v1/metrics/prometheus" => Said::Text(prometheus(&Reading::of(view), Some(now_ms()))),
        "/api/v2/metrics" | "/api/v2/metrics/prometheus" => Said::Text(prometheus(&Reading::of(view), None)),
        "/api/v1/plugins" => Said::Json(plugins(&Reading::of(view))),
        "/api/v1/storage" => Said::Json(storage(&Reading::of(view))),
        _ => return None,
    })
}

fn uptime(uptime: Duration) -> Json {
    let seconds = uptime.as_secs();
    let plural = |number: u64, unit: &str| format!("{number} {unit}{}", if number > 1 { "s" } else { "" });
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let text = format!(
        "Fluent Bit has been running:  {}, {}, {} and {}",
        plural(days, "day"),
        plural(hours, "hour"),
        plural(minutes, "minute"),
        plural(rest, "second")
    );
    json!({ "uptime_sec": seconds, "uptime_hr": text })
}

/// What Fluent Bit calls it.
fn plugin(kind: &'static str) -> &'static str {
    match kind {
        "lines" => "tail",
        "firehose" => "kinesis_firehose",
        "discard" => "null",
        kind => kind,
    }
}

/// A part with its name, in the order of the configuration.
fn named(parts: &[Part]) -> Vec<(String, &Part)> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let name = |part| {
        let kind = plugin(Part::kind(part));
        let number = numbers.entry(kind).or_default();
        *number += 1;
        (format!("{kind}.{}", *number - 1), part)
    };
    parts.iter().map(name).collect()
}

fn input(part: &Part) -> [(&'static str, u64); 1] {
    [("records", part.tally.received)]
}

fn output(part: &Part) -> [(&'static str, u64); 4] {
    let lost = |reason: Reason| part.tally.lost[reason as usize];
    let dropped = part.tally.of(Fate::Dropped) + part.tally.of(Fate::Rejected);
    [
        ("proc_records", part.tally.delivered),
        ("errors", lost(Reason::Refused)),
        ("retries_failed", lost(Reason::RetriesExhausted)),
        ("dropped_records", dropped),
    ]
}

fn object<const N: usize>(parts: &[Part], numbers: fn(&Part) -> [(&'static str, u64); N]) -> Json {
    let each = |(name, part): (String, &Part)| {
        let numbers: Map<String, Json> = numbers(part).into_iter().map(|(key, n)| (key.to_owned(), n.into())).collect();
        (name, Json::Object(numbers))
    };
    Json::Object(named(parts).into_iter().map(each).collect())
}

fn metrics(reading: &Reading) -> Json {
    json!({ "input": object(&reading.sources, input), "filter": {}, "output": object(&reading.sinks, output) })
}

fn plugins(reading: &Reading) -> Json {
    let of = |parts: &[Part]| parts.iter().map(|part| plugin(part.kind())).collect::<Vec<_>>();
    json!({ "inputs": of(&reading.sources), "filters": [], "outputs": of(&reading.sinks) })
}

fn storage(reading: &Reading) -> Json {
    let files = reading.journal.as_ref().map_or(0, |journal| journal.segments);
    let chunks = json!({
        "total_chunks": files, "mem_chunks": 0, "fs_chunks": files, "fs_chunks_up": 0, "fs_chunks_down": files,
    });
    json!({ "storage_layer": { "chunks": chunks }, "input_chunks": {} })
}

const FAMILIES: [(&str, &str, &str); 5] = [
    ("input", "records", "Number of input records."),
    ("output", "proc_records", "Number of processed output records."),
    ("output", "errors", "Number of output errors."),
    ("output", "retries_failed", "Number of records given up because the retries ended."),
    ("output", "dropped_records", "Number of dropped records."),
];

fn prometheus(reading: &Reading, now_ms: Option<u64>) -> String {
    let mut text = String::with_capacity(4 << 10);
    let time = now_ms.map(|ms| format!(" {ms}")).unwrap_or_default();
    let inputs = named(&reading.sources).into_iter().map(|(name, part)| (name, "input", input(part).to_vec()));
    let outputs = named(&reading.sinks).into_iter().map(|(name, part)| (name, "output", output(part).to_vec()));
    let parts: Vec<_> = inputs.chain(outputs).collect();
    // Writing to a String cannot fail, here and below.
    for (component, key, help) in FAMILIES {
        let name = format!("fluentbit_{component}_{key}_total");
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter").ok();
        for (part, _, numbers) in parts.iter().filter(|(_, of, _)| *of == component) {
            for (_, number) in numbers.iter().filter(|(of, _)| *of == key) {
                writeln!(text, "{name}{{name=\"{part}\"}} {number}{time}").ok();
            }
        }
    }
    let uptime = reading.uptime.as_secs();
    writeln!(text, "# HELP fluentbit_uptime Number of seconds that Fluent Bit has been running.").ok();
    writeln!(text, "# TYPE fluentbit_uptime counter\nfluentbit_uptime {uptime}{time}").ok();
    writeln!(text, "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.").ok();
    writeln!(text, "# TYPE process_start_time_seconds gauge").ok();
    writeln!(text, "process_start_time_seconds {}", reading.started_ms / 1_000).ok();
    writeln!(text, "# HELP fluentbit_build_info Build version information.").ok();
    writeln!(text, "# TYPE fluentbit_build_info gauge").ok();
    writeln!(text, "fluentbit_build_info{{version=\"{VERSION}\",edition=\"{EDITION}\"}} 1").ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_at(view: &View, path: &str) -> Json {
        match answer(view, &Checks::new(None), path) {
            Some(Said::Json(json)) => json,
            _ => panic!("no JSON at {path}"),
        }
    }

    #[test]
    fn parts_are_named_and_counted_as_fluent_bit_does() {
        let view = View::for_tests();
        let metrics = json_at(&view, "/api/v1/metrics");
        assert_eq!(metrics["input"], json!({ "forward.0": { "records": 10 } }));
        assert_eq!(
            metrics["output"]["kinesis_firehose.0"],
            json!({ "proc_records": 0, "errors": 2, "retries_failed": 0, "dropped_records": 2 })
        );
        assert_eq!(metrics["output"]["null.0"]["proc_records"], 8);
        assert_eq!(json_at(&view, "/api/v1/plugins/")["outputs"], json!(["kinesis_firehose", "null"]));
        assert_eq!(json_at(&view, "/")["fluent-bit"]["version"], VERSION);
        assert!(json_at(&view, "/api/v1/storage")["storage_layer"]["chunks"].is_object());
        assert!(answer(&view, &Checks::new(None), "/api/v1/nothing").is_none());
        let Some(Said::Text(text)) = answer(&view, &Checks::new(None), "/api/v2/metrics/prometheus") else { panic!() };
        for line in [
            "fluentbit_input_records_total{name=\"forward.0\"} 10",
            "fluentbit_output_errors_total{name=\"kinesis_firehose.0\"} 2",
            "fluentbit_output_proc_records_total{name=\"null.0\"} 8",
        ] {
            assert!(text.lines().any(|each| each == line), "no {line} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE fluentbit_output_errors_total counter").count(), 1);
    }

    #[test]
    fn the_uptime_is_said_as_fluent_bit_says_it() {
        let said = uptime(Duration::from_secs(2 * 86_400 + 3_600 + 61));
        assert_eq!(said["uptime_sec"], 176_461);
        assert_eq!(said["uptime_hr"], "Fluent Bit has been running:  2 days, 1 hour, 1 minute and 1 second");
    }

    #[test]
    fn health_fails_for_a_period_after_too_many_errors() {
        let view = View::for_tests();
        let checks = Checks::new(Some(Health { errors_max: 1, retry_failures_max: 0, period: Duration::from_secs(3) }));
        assert!(checks.is_healthy(), "before the first look");
        // What was lost before the first look is none of its business; then once or twice within three seconds.
        let mut look = |losses: &[Reason]| {
            losses.iter().for_each(|&reason| view.lose_for_tests(reason));
            checks.look(&view);
            checks.is_healthy()
        };
        let seen = [
            look(&[]),
            look(&[Reason::Refused, Reason::Refused]),
            look(&[Reason::Refused]),
            look(&[]),
            look(&[]),
            look(&[Reason::TooOld]),
            look(&[Reason::RetriesExhausted]),
            look(&[]),
        ];
        assert_eq!(seen, [true, true, false, false, true, true, false, false]);
        let always = Checks::new(None);
        always.look(&view);
        assert!(always.is_healthy());
    }
}
