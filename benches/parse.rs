//! Parsing of Envoy's lines, per layout: `cargo bench --bench parse`. Text is read twice, side by side: with every layout that is
//! known (`auto`), and with the one that was named (`named`), by its preset's name and as a format string of one's own (`custom`).
//!
//! Each bench goes over the access lines of one file of `tests/data/envoy-generated` with one parser and one record, as the
//! pipeline does; criterion's `elem/s` are lines. Bytes per second and ns per line follow from the totals printed first.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench that cannot read its data has no result"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::MultiGzDecoder;
use meshlens::envoy::Parser;
use meshlens::envoy::format::Options;
use meshlens::envoy::formats::Formats;
use meshlens::envoy::presets::LAYOUTS;
use meshlens::record::{Kind, Record};

/// Layout and the file that holds it.
const FILES: [(&str, &str); 13] = [
    ("json/service-connect-http-14-keys", "ecs-http-json-noquery"),
    ("json/service-connect-http-13-keys", "ecs-http-json-query"),
    ("json/service-connect-http2", "ecs-h2-json"),
    ("json/service-connect-grpc", "ecs-grpc-json"),
    ("json/service-connect-tcp", "ecs-tcp-json"),
    ("json/blog-11-keys", "blog-11-keys-json"),
    ("text/service-connect-http", "ecs-http-text-noquery"),
    ("text/service-connect-http2", "ecs-h2-text"),
    ("text/service-connect-grpc", "ecs-grpc-text"),
    ("text/service-connect-tcp", "ecs-tcp-text"),
    ("text/envoy", "envoy-default-text"),
    ("text/istio", "istio-default-text"),
    ("text/service-connect-mixed", "mixed-ecs-text"),
];

fn access_lines(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/envoy-generated/{name}.log.gz"));
    let mut bytes = Vec::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let mut parser = Parser::default();
    let mut lines = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut record = Record::new();
        parser.parse(line, &mut record);
        if record.kind == Kind::Access {
            lines.push(line.to_vec());
        }
    }
    lines
}

fn parse(criterion: &mut Criterion) {
    for (layout, file) in FILES {
        let lines = access_lines(file);
        let bytes: usize = lines.iter().map(Vec::len).sum();
        println!("{layout}: {} lines of {} bytes on average", lines.len(), bytes / lines.len());
        let mut group = criterion.benchmark_group(format!("parse/{layout}"));
        group.throughput(Throughput::Elements(lines.len() as u64));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for (name, formats) in formats_for(layout) {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let mut parser = Parser::new(formats.clone());
                    let mut record = Record::new();
                    for line in &lines {
                        record.clear();
                        parser.parse(line, &mut record);
                        black_box(&record.parsed);
                    }
                });
            });
        }
        group.finish();
    }
}

/// The same lines within what a runtime or a tool puts around them.
fn wrapped(criterion: &mut Criterion) {
    let lines = access_lines("envoy-default-text");
    let prefixed =
        |prefix: &str| -> Vec<Vec<u8>> { lines.iter().map(|line| [prefix.as_bytes(), line].concat()).collect() };
    let json_file = |line: &Vec<u8>| {
        let text = serde_json::to_string(&format!("{}\n", String::from_utf8_lossy(line))).unwrap();
        format!(r#"{{"log":{text},"stream":"stdout","time":"2026-11-22T02:36:33.682034460Z"}}"#).into_bytes()
    };
    for (name, lines) in [
        ("bare", lines.clone()),
        ("cri", prefixed("2026-11-22T02:36:33.682034460Z stdout F ")),
        ("compose", prefixed("envoy-1  | ")),
        ("json-file", lines.iter().map(json_file).collect()),
    ] {
        let mut group = criterion.benchmark_group("parse/wrapped");
        group.throughput(Throughput::Elements(lines.len() as u64));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut parser = Parser::default();
                let mut record = Record::new();
                for line in &lines {
                    record.clear();
                    parser.parse(line, &mut record);
                    black_box(&record.parsed);
                }
            });
        });
        group.finish();
    }
}

/// The formats that a file's lines are read by.
fn formats_for(layout: &str) -> Vec<(&'static str, Arc<Formats>)> {
    let mut all = vec![("auto", Formats::auto())];
    let formats = |spec: &str| {
        let mut formats = Formats::default();
        formats.add("bench", spec, &Options::default()).unwrap();
        Arc::new(formats)
    };
    if let Some(preset) = layout.strip_prefix("text/") {
        all.push(("named", formats(preset.trim_end_matches("-mixed"))));
        all.extend(LAYOUTS.iter().find(|(name, _)| *name == preset).map(|(_, text)| ("custom", formats(text))));
    }
    all
}

criterion_group!(benches, parse, wrapped);
criterion_main!(benches);
