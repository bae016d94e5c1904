//! Redaction alone: `cargo bench --bench redact`; `elem/s` are records.
//!
//! `record` is a parsed access log of 14 fields as the pipeline gives it; what filling it costs is in all figures, and alone
//! in `fill`. `line` is a line that nobody parsed. Detectors are measured over the same lines, one by one and all together.

#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meshlens::record::{Field, Key, Kind, Name, Record, Value};
use meshlens::redact::{Config, Policy, Redactor, Secret};

/// Fields between bars, as a parser would cut them.
const CLEAN: &str = "[|2026-11-22T02:36:50.805Z|] \"|POST| |/v2/users/reports/items| |HTTP/1.1|\" |201| |120| |15000| |37| |31| \"|203.0.113.7|\" \"|Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0|\" \"|41eb3500-6cf7-4b81-84a6-b82614939c9c|\" \"|orders.svc.cluster.local:8080|\" \"|10.0.12.34:8080|\"";
const KEYS: [Key; 14] = [
    Key::StartTime,
    Key::Method,
    Key::Path,
    Key::Protocol,
    Key::ResponseCode,
    Key::BytesReceived,
    Key::BytesSent,
    Key::Duration,
    Key::UpstreamServiceTime,
    Key::ForwardedFor,
    Key::UserAgent,
    Key::RequestId,
    Key::Authority,
    Key::UpstreamHost,
];
const APPLICATION: &str = "2026-11-22T02:36:50.805Z INFO orders worker-3 took job 41eb3500 from the queue, 12 of 40 items checked, next look in 30 s; backlog 17, oldest 4.2 s, tokens left 300";
const DEBUG: &str = "[2026-11-22 02:37:52.915][25161][debug][router] [source/common/router/router.cc:894] [Tags: \"ConnectionId\":\"152\"] router decoding headers: ':authority', 'orders.svc.cluster.local' ':path', '/img/reports' ':method', 'GET' 'user-agent', 'kube-probe/1.29'";

/// The line, and where its fields are.
fn cut(marked: &str) -> (String, Vec<std::ops::Range<usize>>) {
    let (mut line, mut fields) = (String::new(), Vec::new());
    for (place, part) in marked.split('|').enumerate() {
        if place % 2 == 1 {
            fields.push(line.len()..line.len() + part.len());
        }
        line.push_str(part);
    }
    assert_eq!(fields.len(), KEYS.len());
    (line, fields)
}

fn envelope<'a>(record: &mut Record<'a>, line: &'a str) {
    record.clear();
    let id = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    record.push_envelope(Name::Known(Key::ContainerId), Value::Text(id));
    record.push_envelope(Name::Known(Key::ContainerName), Value::Text(b"ecs-service-connect-q5yZ"));
    record.push_envelope(Name::Known(Key::Source), Value::Text(b"stdout"));
    record.push_envelope(Name::Known(Key::Log), Value::Text(line.as_bytes()));
}

fn fill<'a>(record: &mut Record<'a>, line: &'a str, fields: &[std::ops::Range<usize>]) {
    envelope(record, line);
    record.kind = Kind::Access;
    for (key, field) in KEYS.into_iter().zip(fields) {
        let bytes = &line.as_bytes()[field.clone()];
        let is_number = matches!(key, Key::ResponseCode | Key::BytesReceived | Key::BytesSent | Key::Duration);
        let value = if is_number { Value::Number(bytes) } else { Value::Text(bytes) };
        record.parsed.push(Field { name: Name::Known(key), value });
    }
}

fn policies(criterion: &mut Criterion) {
    let query = CLEAN.replace("/items|", "/items?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0&page=2|");
    let mut group = criterion.benchmark_group("record");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let policies = [
        ("strip", Policy::Strip),
        ("keep", Policy::Keep(vec!["page".to_owned()])),
        ("mask", Policy::Mask),
        ("hash", Policy::Hash { key: Secret(b"a key of the benchmark".as_slice().into()) }),
    ];
    for (content, marked) in [("clean", CLEAN), ("query", &query)] {
        let (line, fields) = cut(marked);
        let mut record = Record::new();
        group.bench_function(BenchmarkId::new("fill", content), |bencher| {
            bencher.iter(|| {
                fill(&mut record, black_box(&line), &fields);
                record.parsed.len()
            });
        });
        for (name, policy) in &policies {
            let redactor = Redactor::new(&Config { query: policy.clone(), ..Config::default() });
            let mut record = Record::new();
            group.bench_function(BenchmarkId::new(*name, content), |bencher| {
                bencher.iter(|| {
                    fill(&mut record, black_box(&line), &fields);
                    redactor.redact(&mut record);
                    record.parsed.len()
                });
            });
        }
    }
    group.finish();
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let redactor = Redactor::new(&Config::default());
    let json = r#"{"time":"2026-11-22T02:36:50.805Z","severity":"info","logger":"orders","msg":"job taken","job":"41eb3500","items":40}"#;
    let dirty = format!("{APPLICATION} GET /v2/users/x?token=eyJhbGciOiJIUzI1NiJ9&page=2 took 3 ms");
    let cookie = format!("{DEBUG} 'cookie', 'a=b; session=0123456789'");
    for (name, line, kind) in [
        ("application", APPLICATION, Kind::Other),
        ("application_json", json, Kind::Other),
        ("application_query", dirty.as_str(), Kind::Other),
        ("envoy_debug", DEBUG, Kind::Envoy),
        ("envoy_debug_cookie", cookie.as_str(), Kind::Envoy),
    ] {
        let mut record = Record::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                envelope(&mut record, black_box(line));
                record.kind = kind;
                redactor.redact(&mut record);
                record.envelope.len()
            });
        });
    }
    group.finish();
}

fn detectors(criterion: &mut Criterion) {
    use meshlens::redact::Detector;
    let mut group = criterion.benchmark_group("detectors");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let (line, fields) = cut(CLEAN);
    let found =
        format!("{APPLICATION} jane@example.com Bearer abcdefghijklmnop12 4111111111111111 AKIAIOSFODNN7EXAMPLE");
    let mut sets = vec![("none", vec![])];
    sets.extend(Detector::ALL.map(|detector| (detector.label(), vec![detector])));
    sets.push(("all", Detector::ALL.to_vec()));
    for (name, set) in sets {
        let redactor = Redactor::new(&Config { detectors: set, ..Config::default() });
        let mut record = Record::new();
        group.bench_function(BenchmarkId::new(name, "record_clean"), |bencher| {
            bencher.iter(|| {
                fill(&mut record, black_box(&line), &fields);
                redactor.redact(&mut record);
                record.parsed.len()
            });
        });
        for (content, text) in [("line_clean", APPLICATION), ("line_found", &found)] {
            let mut record = Record::new();
            group.bench_function(BenchmarkId::new(name, content), |bencher| {
                bencher.iter(|| {
                    envelope(&mut record, black_box(text));
                    record.kind = Kind::Other;
                    redactor.redact(&mut record);
                    record.envelope.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, policies, lines, detectors);
criterion_main!(benches);
