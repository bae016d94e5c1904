//! The S3 sink's work on each byte: records into objects, compressed as they grow; and the rendering of a key.
//!
//! `cargo bench --bench s3`. Bytes are those of the records, before compression.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use meshlens::enrich::ecs::Metadata;
use meshlens::journal::block::{Block, Entry, Partition};
use meshlens::sink::s3::lines::Lines;
use meshlens::sink::s3::naming::Naming;
use meshlens::sink::s3::objects::{Dates, Objects, Plan, Surroundings};
use meshlens::sink::s3::{Compression, DEFAULT_PARTITIONS, OBJECT_BYTES_DEFAULT, PART_BYTES_MIN};
use meshlens::sink::template::{Scope, Style, Template};
use tokio::time::Instant;

const TIME_MS: i64 = 1_709_175_845_678;

/// 2,000 access records of two containers, alternating, with what varies in real ones.
fn block() -> Block {
    let mut random = fastrand::Rng::with_seed(1);
    let partition =
        |name: &str| Partition { tag: format!("{name}-firelens-0123456789abcdef").into(), values: [].into() };
    let partitions = vec![partition("web"), partition("envoy")];
    let mut block = Block { sinks: 1, partitions, ..Block::default() };
    for i in 0..2000_u32 {
        let line = format!(
            "{{\"start_time\":\"2024-02-29T03:04:{:02}.{:03}Z\",\"method\":\"GET\",\"path\":\"/api/v1/orders/{}\",\"protocol\":\
             \"HTTP/1.1\",\"response_code\":{},\"response_flags\":null,\"bytes_received\":0,\"bytes_sent\":{},\"duration\":{},\
             \"upstream_service_time\":{},\"forwarded_for\":null,\"user_agent\":\"curl/8.5.0\",\"request_id\":\"{:032x}\",\
             \"authority\":\"orders.internal:8080\",\"upstream_host\":\"10.0.{}.{}:8080\",\"log_type\":\"access\",\
             \"ecs_cluster\":\"prod\",\"ecs_task_arn\":\"arn:aws:ecs:eu-west-1:123456789012:task/prod/0123456789abcdef\"}}\n",
            i % 60,
            i % 1000,
            random.u32(..100_000),
            [200, 200, 200, 404, 500][random.usize(..5)],
            random.u32(..9000),
            random.u32(..300),
            random.u32(..300),
            random.u128(..),
            random.u8(..4),
            random.u8(..),
        );
        block.bytes.extend_from_slice(line.as_bytes());
        let end = u32::try_from(block.bytes.len()).unwrap_or(u32::MAX);
        block.index.push(Entry { time_ns: (TIME_MS + i64::from(i)) * 1_000_000, sinks: 1, end, partition: i / 50 % 2 });
    }
    block
}

fn objects(compression: Compression, compression_level: Option<i32>, key: Template) -> Objects {
    let plan = Plan {
        key,
        lines: Lines::default(),
        dates: Dates::Event,
        naming: Naming::sequence("bench", "s3"),
        compression,
        compression_level,
        object_bytes_max: OBJECT_BYTES_DEFAULT,
        object_age_max: Duration::from_secs(300),
        open_objects_max: 32,
        part_bytes: PART_BYTES_MIN,
    };
    Objects::new(plan, Vec::new())
}

#[allow(clippy::expect_used, reason = "a bench that cannot start is to fail")]
fn append(criterion: &mut Criterion) {
    let block = block();
    let metadata = Metadata::default();
    let now = Instant::now();
    let around =
        Surroundings { sink: 0, partition_keys: &[], metadata: &metadata, hostname: "h", now, arrival_ms: TIME_MS };
    let template = Template::parse(&format!("logs/{{tag[0]}}/{DEFAULT_PARTITIONS}")).expect("a template");
    let mut group = criterion.benchmark_group("s3/append");
    group.throughput(Throughput::Bytes(block.bytes.len() as u64));
    let ways = [
        ("none", Compression::None, None),
        ("gzip-default", Compression::Gzip, None),
        ("gzip-1", Compression::Gzip, Some(1)),
        ("gzip-6", Compression::Gzip, Some(6)),
        ("zstd-default", Compression::Zstd, None),
        ("zstd-3", Compression::Zstd, Some(3)),
    ];
    for (name, compression, level) in ways {
        let mut objects = objects(compression, level, template.clone());
        let (mut pieces, mut sequence) = (Vec::new(), 0);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                objects.append(sequence, black_box(&block), &around, &mut pieces);
                sequence += 1;
                pieces.clear();
            });
        });
    }
    group.finish();
}

#[allow(clippy::expect_used, reason = "a bench that cannot start is to fail")]
fn render(criterion: &mut Criterion) {
    let template = Template::parse(&format!("logs/{{tag[0]}}/{DEFAULT_PARTITIONS}")).expect("a template");
    let block = block();
    let metadata = Metadata::default();
    criterion.bench_function("s3/render-key", |bencher| {
        bencher.iter_batched_ref(
            || String::with_capacity(200),
            |key| {
                let scope = Scope {
                    partition: &block.partitions[0],
                    partition_keys: &[],
                    metadata: &metadata,
                    hostname: "h",
                    time_ns: black_box(TIME_MS * 1_000_000),
                };
                template.render_into(&scope, Style::Path, key);
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, append, render);
criterion_main!(benches);
