//! Fields made of access logs: `cargo bench --bench derive`.
//!
//! Lines of `tests/data/envoy-generated` are parsed and redacted as in the pipeline, without and with what is made of them;
//! criterion's `elem/s` are lines. What a field costs is the difference from `parsed and redacted`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot read its data has no result")]

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::MultiGzDecoder;
use meshlens::derive::{Config, Derive, Prefixes, RouteConfig};
use meshlens::envoy::Parser;
use meshlens::record::{Key, Kind, Name, Record, Value};
use meshlens::redact::{self, Redactor};

/// Layout and the file that holds it.
const LAYOUTS: [(&str, &str); 3] = [
    ("json, service connect", "ecs-http-json-noquery"),
    ("text, service connect", "ecs-http-text-noquery"),
    ("text, istio", "istio-default-text"),
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

/// As users with an API of their own have them.
fn patterns() -> RouteConfig {
    let kinds =
        ["users", "orders", "carts", "items", "invoices", "payments", "shipments", "reviews", "stores", "sessions"];
    let forms = ["", "/{id}", "/{id}/history", "/{id}/notes/{note}", "/search/**"];
    let patterns =
        kinds.iter().flat_map(|kind| forms.iter().map(move |form| format!("/api/v1/{kind}{form}"))).collect();
    RouteConfig { patterns, ..RouteConfig::default() }
}

fn derive(criterion: &mut Criterion) {
    let codes = Config {
        response_flags_long: true,
        status_class: true,
        grpc_status: true,
        durations: true,
        ..Config::default()
    };
    let addresses = Config { client_address: true, forwarded_for_first: true, ..Config::default() };
    let cut = Config { truncate_addresses: Some(Prefixes::default()), ..addresses.clone() };
    let route = Config { route: Some(RouteConfig::default()), ..Config::default() };
    let fifty = Config { route: Some(patterns()), ..Config::default() };
    let configs = [
        ("parsed and redacted", Config::default()),
        ("codes", codes),
        ("addresses", addresses),
        ("addresses, cut", cut),
        ("route by defaults", route),
        ("route, 50 patterns", fifty),
        ("all", Config::all()),
    ];
    let redactor = Redactor::new(&redact::Config::default());
    for (layout, file) in LAYOUTS {
        let lines = access_lines(file);
        let mut group = criterion.benchmark_group(format!("derive/{layout}"));
        group.throughput(Throughput::Elements(lines.len() as u64)).sample_size(20);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for (name, config) in &configs {
            let derive = Derive::new(config).unwrap();
            group.bench_function(*name, |bencher| {
                bencher.iter(|| {
                    let mut parser = Parser::default();
                    let mut record = Record::new();
                    for line in &lines {
                        record.clear();
                        record.push_envelope(Name::Known(Key::Log), Value::Text(line));
                        parser.parse(line, &mut record);
                        redactor.redact(&mut record);
                        if let Some(derive) = &derive {
                            derive.apply(&mut record);
                        }
                        black_box((&record.parsed, &record.scratch));
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, derive);
criterion_main!(benches);
