//! The JSON answers: `/status`, `/livez`, `/readyz`, `/healthz`.
//!
//! Keys are stable: they may be added to, not renamed. Ages and spans are in seconds.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::reading::{Part, Reading, View};
use crate::journal::Persist;
use crate::telemetry::account::{Fate, Reason, now_ms};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The process is there.
pub(super) fn live(view: &View) -> String {
    text(&json!({ "alive": true, "version": VERSION, "uptime_seconds": seconds(view.uptime()) }))
}

/// Whether records are taken.
pub(super) fn ready(view: &View) -> String {
    let phase = view.phase();
    text(&json!({ "ready": phase.is_ready(), "phase": phase.label() }))
}

/// Whether sinks deliver.
pub(super) fn health(reading: &Reading) -> String {
    let sinks: Vec<Json> = reading.sinks.iter().map(|sink| Json::Object(delivery(reading, sink))).collect();
    text(&json!({
        "healthy": reading.is_healthy(),
        "unhealthy_after_seconds": reading.unhealthy_after.map(seconds),
        "sinks": sinks,
    }))
}

/// Everything.
pub(super) fn status(reading: &Reading) -> String {
    let journal = reading.journal.clone().unwrap_or_default();
    let resources = &reading.resources;
    let sources = reading.sources.iter().map(|source| {
        let mut all = counts(source);
        all.insert("connections_refused".into(), source.connections_refused.into());
        all.insert("unparsed".into(), source.unparsed.into());
        Json::Object(all)
    });
    let sinks = reading.sinks.iter().map(|sink| {
        let mut all = counts(sink);
        all.extend(delivery(reading, sink));
        Json::Object(all)
    });
    text(&json!({
        "version": VERSION,
        "phase": reading.phase.label(),
        "started_at_ms": reading.started_ms,
        "uptime_seconds": seconds(reading.uptime),
        "sources": sources.collect::<Vec<_>>(),
        "sinks": sinks.collect::<Vec<_>>(),
        "journal": {
            "open": reading.journal.is_some(),
            "persist": match reading.persist {
                Persist::Never => "never",
                Persist::Overflow => "overflow",
                Persist::Always => "always",
            },
            "memory_bytes": journal.memory_bytes,
            "memory_bytes_max": reading.memory_bytes_max,
            "disk_bytes": journal.disk_bytes,
            "disk_bytes_max": reading.disk_bytes_max,
            "segments": journal.segments,
            "blocks_written": journal.blocks_written,
            "syncs": journal.syncs,
            "io_errors": journal.io_errors,
            "degraded": journal.degraded,
        },
        "redactions": redactions(reading),
        "process": {
            "cpu_seconds": resources.cpu.map(seconds),
            "resident_memory_bytes": resources.resident_bytes,
            "open_fds": resources.open_files,
            "max_fds": resources.open_files_max,
        },
    }))
}

/// What was redacted: by rule, then by field; what never came up is left out.
fn redactions(reading: &Reading) -> Map<String, Json> {
    let mut rules = Map::new();
    for line in reading.redactions.iter().filter(|line| line.count > 0) {
        let fields = rules.entry(line.rule.label()).or_insert_with(|| json!({}));
        if let Json::Object(fields) = fields {
            fields.insert(line.field.into(), line.count.into());
        }
    }
    rules
}

/// The account of a source or sink; reasons that never came up are left out.
fn counts(part: &Part) -> Map<String, Json> {
    let tally = &part.tally;
    let mut counts = Map::new();
    counts.insert("name".into(), part.name.as_str().into());
    counts.insert("kind".into(), part.kind.into());
    counts.insert("received".into(), tally.received.into());
    counts.insert("delivered".into(), tally.delivered.into());
    for fate in Fate::ALL {
        counts.insert(fate.label().into(), tally.of(fate).into());
    }
    counts.insert("pending".into(), tally.pending().into());
    counts.insert("truncated".into(), tally.truncated.into());
    let lost = Reason::ALL.into_iter().map(|reason| (reason.label().to_owned(), tally.lost[reason as usize]));
    let reasons: Map<String, Json> =
        lost.filter(|(_, records)| *records > 0).map(|(label, records)| (label, records.into())).collect();
    counts.insert("reasons".into(), reasons.into());
    counts
}

/// How a sink gets on.
fn delivery(reading: &Reading, sink: &Part) -> Map<String, Json> {
    let state = match sink.tally.pending() {
        0 => "idle",
        _ if reading.is_stalled(sink) => "stalled",
        _ => "pending",
    };
    let since = |ms: u64| Duration::from_millis(now_ms().saturating_sub(ms));
    let facts = [
        ("name", sink.name.as_str().into()),
        ("kind", sink.kind.into()),
        ("state", state.into()),
        ("pending", sink.tally.pending().into()),
        ("oldest_pending_age_seconds", sink.oldest_pending.map(seconds).into()),
        ("last_delivery_age_seconds", sink.last_delivered_ms.map(|ms| seconds(since(ms))).into()),
    ];
    facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

fn text(value: &Json) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_adds_up_and_names_reasons() {
        let status: Json = serde_json::from_str(&status(&Reading::of(&View::for_tests()))).unwrap();
        let parts: Vec<&Json> =
            ["sources", "sinks"].into_iter().flat_map(|key| status[key].as_array().unwrap()).collect();
        assert_eq!(parts.len(), 3);
        for part in parts {
            let of = |key: &str| part[key].as_u64().unwrap();
            let fates = ["delivered", "filtered", "rejected", "dropped", "pending"].map(of);
            assert_eq!(of("received"), fates.iter().sum::<u64>(), "{part}");
        }
        assert_eq!(status["sinks"][0]["reasons"], json!({ "refused": 2 }));
        assert_eq!(status["sinks"][0]["last_delivery_age_seconds"], Json::Null);
        assert!(status["sinks"][1]["last_delivery_age_seconds"].is_number());
        assert_eq!(status["phase"], "starting");
    }

    #[test]
    fn health_fails_only_if_asked_to_and_then_by_the_oldest_record() {
        let mut reading = Reading::of(&View::for_tests());
        reading.sinks[0].oldest_pending = Some(Duration::from_secs(61));
        let state = |reading: &Reading| -> (bool, Json) {
            let said: Json = serde_json::from_str(&health(reading)).unwrap();
            (reading.is_healthy(), said["sinks"][0]["state"].clone())
        };
        assert_eq!(state(&reading), (true, "pending".into()));
        reading.unhealthy_after = Some(Duration::from_secs(61));
        assert_eq!(state(&reading), (true, "pending".into()));
        reading.unhealthy_after = Some(Duration::from_secs(60));
        assert_eq!(state(&reading), (false, "stalled".into()));
    }
}
