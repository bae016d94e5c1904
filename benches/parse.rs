//! Parsing of Envoy's lines, per layout: `cargo bench --bench parse`.
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
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::MultiGzDecoder;
use meshlens::envoy::Parser;
use meshlens::record::{Kind, Record};

/// Layout and the file that holds it.
const LAYOUTS: [(&str, &str); 13] = [
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
    for (layout, file) in LAYOUTS {
        let lines = access_lines(file);
        let bytes: usize = lines.iter().map(Vec::len).sum();
        println!("{layout}: {} lines of {} bytes on average", lines.len(), bytes / lines.len());
        for (unit, throughput) in
            [("lines", Throughput::Elements(lines.len() as u64)), ("bytes", Throughput::Bytes(bytes as u64))]
        {
            let mut group = criterion.benchmark_group(format!("parse/{layout}"));
            group.throughput(throughput).sample_size(20).warm_up_time(Duration::from_millis(300));
            group.measurement_time(Duration::from_secs(1));
            group.bench_function(unit, |bencher| {
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
}

criterion_group!(benches, parse);
criterion_main!(benches);
