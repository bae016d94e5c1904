//! Redact and encode: a parsed access log of 14 fields with its FireLens envelope and enrichment, and scrubbing of text.
//!
//! `cargo bench --bench encode`; bytes per second are bytes of the log line.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meshlens::encode::{Fragment, encode};
use meshlens::record::{Field, Key, Kind, Name, Record, Value, json};
use meshlens::redact::{Config, Policy, Redactor, Secret};

/// Fields between bars, as a parser would cut them.
const CLEAN: &str = "[|2026-11-22T02:36:50.805Z|] \"|POST|  |/v2/users/reports/items| |HTTP/1.1|\" |201| |120| |15000| |37| |31| \"|203.0.113.7|\" \"|Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0|\" \"|41eb3500-6cf7-4b81-84a6-b82614939c9c|\" \"|orders.svc.cluster.local:8080|\" \"|10.0.12.34:8080|\"";
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

fn fill<'a>(record: &mut Record<'a>, line: &'a str, fields: &[std::ops::Range<usize>]) {
    record.clear();
    record.kind = Kind::Access;
    let id = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    record.push_envelope(Name::Known(Key::ContainerId), Value::Text(id));
    record.push_envelope(Name::Known(Key::ContainerName), Value::Text(b"ecs-service-connect-q5yZ"));
    record.push_envelope(Name::Known(Key::Source), Value::Text(b"stdout"));
    record.push_envelope(Name::Known(Key::Log), Value::Text(line.as_bytes()));
    for (key, field) in KEYS.into_iter().zip(fields) {
        let bytes = &line.as_bytes()[field.clone()];
        let is_number = matches!(key, Key::ResponseCode | Key::BytesReceived | Key::BytesSent | Key::Duration);
        let value = if is_number { Value::Number(bytes) } else { Value::Text(bytes) };
        record.parsed.push(Field { name: Name::Known(key), value });
    }
}

fn access(criterion: &mut Criterion) {
    let fragment = Fragment::new(
        [
            ("ecs_cluster", "arn:aws:ecs:eu-central-1:123456789012:cluster/production"),
            ("ecs_task_arn", "arn:aws:ecs:eu-central-1:123456789012:task/production/0123456789abcdef0123456789abcdef"),
            ("ecs_task_definition", "orders:42"),
        ]
        .map(|(name, value)| (name.to_owned(), value.into())),
    );
    let query = CLEAN.replace("/items|", "/items?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0&page=2|");
    let mut group = criterion.benchmark_group("access_14_fields");
    let policies = [
        ("strip", Policy::Strip),
        ("mask", Policy::Mask),
        ("hash", Policy::Hash { key: Secret(b"a key of the benchmark".as_slice().into()) }),
    ];
    for (content, marked) in [("clean", CLEAN), ("query", &query)] {
        let (line, fields) = cut(marked);
        group.throughput(Throughput::Bytes(line.len() as u64));
        for (name, policy) in &policies {
            let redactor = Redactor::new(&Config { query: policy.clone(), ..Config::default() });
            let (mut record, mut out) = (Record::new(), Vec::with_capacity(1 << 20));
            group.bench_function(BenchmarkId::new(format!("redact_{name}"), content), |bencher| {
                bencher.iter(|| {
                    fill(&mut record, black_box(&line), &fields);
                    redactor.redact(&mut record);
                    record.parsed.len()
                });
            });
            group.bench_function(BenchmarkId::new(format!("redact_{name}_encode"), content), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    fill(&mut record, black_box(&line), &fields);
                    redactor.redact(&mut record);
                    encode(&record, &fragment, &mut out);
                    out.len()
                });
            });
        }
    }
    group.finish();
}

fn text(criterion: &mut Criterion) {
    let redactor = Redactor::new(&Config::default());
    let clean = cut(CLEAN).0;
    let dirty = r#"{"msg":"GET /v2/users?token=eyJhbGciOiJIUzI1NiJ9&page=2 took 3 ms","url":"/v2?a=b","agent":"100%25 %7Bpct%7D"}"#;
    let mut group = criterion.benchmark_group("text");
    for (name, text) in [("clean_line", clean.as_str()), ("dirty_line", dirty), ("clean_64_kib", &clean.repeat(215))] {
        let mut out = Vec::with_capacity(1 << 20);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("scrub", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                redactor.scrub_text(black_box(text.as_bytes()), &mut out);
                out.len()
            });
        });
        // Without quotes: how fast text passes that needs no escape.
        let plain = text.replace(['"', '\\'], "_");
        group.bench_function(BenchmarkId::new("escape", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                json::escape(black_box(plain.as_bytes()), &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, access, text);
criterion_main!(benches);
