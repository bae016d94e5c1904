//! Scanning and decoding of Forward messages that hold 500-byte lines, as a chunk of 256 KiB: what one record costs before it is parsed.
//!
//! `cargo bench --bench decode`; elements are records.

#![allow(clippy::expect_used, reason = "a failed assumption is a failed bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use meshlens::decode::{Body, Entries, FrameScanner, Limits, decompress, message};
use meshlens::record::Record;

const RECORDS: usize = 500;

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        length @ 0..=31 => out.push(0xa0 | length as u8),
        length @ 32..=255 => out.extend([0xd9, length as u8]),
        length => {
            out.push(0xda);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend(text);
}

/// Time and record as Docker's driver sends them for FireLens.
fn put_pair(nth: usize, out: &mut Vec<u8>) {
    out.extend([0xd7, 0x00, 0x6b, 0x00, 0x00, 0x01]);
    out.extend((nth as u32).to_be_bytes());
    out.push(0x84);
    put_text(b"container_id", out);
    put_text(&[b'4'; 64], out);
    put_text(b"container_name", out);
    put_text(b"/ecs-svc-1-envoy-a0b1c2d3e4f5a6b7c801", out);
    put_text(b"source", out);
    put_text(b"stdout", out);
    put_text(b"log", out);
    put_text(&[b'L'; 500], out);
}

fn messages() -> Vec<u8> {
    let mut out = Vec::new();
    for nth in 0..RECORDS {
        out.push(0x94);
        put_text(b"envoy-firelens-4b1f0c9e8d7a46b5a3c2d1e0f9a8b7c6", &mut out);
        put_pair(nth, &mut out);
        out.push(0x80);
    }
    out
}

fn entries() -> Vec<u8> {
    let mut out = Vec::new();
    for nth in 0..RECORDS {
        out.push(0x92);
        put_pair(nth, &mut out);
    }
    out
}

fn forward() -> Vec<u8> {
    let mut out = vec![0x93];
    put_text(b"envoy", &mut out);
    out.push(0xdc);
    out.extend((RECORDS as u16).to_be_bytes());
    out.extend(entries());
    out.push(0x80);
    out
}

fn packed(body: &[u8], compressed: &[u8]) -> Vec<u8> {
    let mut out = vec![0x93];
    put_text(b"envoy", &mut out);
    out.push(0xc6);
    out.extend((body.len() as u32).to_be_bytes());
    out.extend(body);
    out.push(0x81);
    put_text(b"compressed", &mut out);
    put_text(compressed, &mut out);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::default());
    std::io::Read::read_to_end(&mut encoder, &mut out).expect("memory takes it");
    out
}

/// What source and process stage do with a chunk.
fn decode(bytes: &[u8], limits: &Limits, inflated: &mut Vec<u8>) -> usize {
    let whole = FrameScanner::new(limits).scan(bytes).expect("whole messages");
    let mut rest = &bytes[..whole];
    let mut records = 0;
    while !rest.is_empty() {
        let (message, used) = message(rest, limits).expect("a message");
        rest = &rest[used..];
        let Some(message) = message else { continue };
        let mut entries = match message.body {
            Body::Entries(entries) => entries,
            Body::Compressed { compression, bytes } => {
                decompress(compression, bytes, limits, inflated).expect("a body");
                Entries::packed(inflated, limits)
            }
            Body::OtherSignal(_) => continue,
        };
        let mut record = Record::new();
        while let Some(result) = entries.next_into(&mut record, 0) {
            result.expect("an entry");
            black_box(record.log_line());
            records += 1;
        }
    }
    records
}

/// The same for Message mode, where a chunk is many messages: one record table for all, as the process stage keeps it.
fn decode_messages(bytes: &[u8], limits: &Limits) -> usize {
    let whole = FrameScanner::new(limits).scan(bytes).expect("whole messages");
    let mut rest = &bytes[..whole];
    let mut record = Record::new();
    let mut records = 0;
    while !rest.is_empty() {
        let (message, used) = message(rest, limits).expect("a message");
        rest = &rest[used..];
        let Some(Body::Entries(mut entries)) = message.map(|message| message.body) else { continue };
        while let Some(result) = entries.next_into(&mut record, 0) {
            result.expect("an entry");
            black_box(record.log_line());
            records += 1;
        }
    }
    records
}

fn bench(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let bytes = messages();
    group.bench_function("scan only, message", |b| {
        b.iter(|| FrameScanner::new(&limits).scan(black_box(&bytes)).expect("whole messages"));
    });
    group.bench_function("message", |b| {
        b.iter(|| assert_eq!(decode_messages(black_box(&bytes), &limits), RECORDS));
    });
    let compressed = gzip(&entries());
    for (name, bytes) in
        [("forward", forward()), ("packed", packed(&entries(), b"text")), ("packed gzip", packed(&compressed, b"gzip"))]
    {
        let mut inflated = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(decode(black_box(&bytes), &limits, &mut inflated), RECORDS));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
