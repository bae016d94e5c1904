//! CPU, rate and memory of the whole process: forward in, parse, redact, enrich, and out to nowhere or to each service.
//!
//! `cargo bench --bench end_to_end`, records by `MESHLENS_BENCH_RECORDS`. The sender and the fake of the AWS services run in
//! this process; what is told is of the router's process alone, from the kernel's account of it (10 ms steps), idle use
//! between start and the first record left out. To `discard` go the real lines of `tests/data/envoy-generated` (printed by an
//! Envoy), each in Docker's envelope; to the services go made-up lines with times of now, as the services refuse old ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unused_imports,
    reason = "unit tests of the shared modules are not built here; a failed assumption ends the bench; its result is what it prints"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../tests/e2e"]
mod e2e {
    pub mod fake_aws;
    pub mod process;
    pub mod sender;
    pub mod traffic;
}

use e2e::fake_aws::{FakeAws, Options};
use e2e::process::{Run, free_address};
use e2e::sender::{Mode, write_event, write_str};
use e2e::traffic::{CONTAINER_ID, CONTAINER_NAME, SOURCE, Traffic};

const RECORDS: usize = 1_000_000;
/// Distinct records before the stream repeats: more than any cache of the processor holds.
const DISTINCT: usize = 40_000;
/// Records in a message of the batching modes.
const BATCH: usize = 500;
const SOON: Duration = Duration::from_secs(300);

/// One stream of messages, made before the clock starts.
struct Stream {
    bytes: Vec<u8>,
    records: usize,
    line_bytes: usize,
}

fn main() {
    let records = std::env::var("MESHLENS_BENCH_RECORDS").map_or(RECORDS, |text| text.parse().unwrap());
    let real = real_lines();
    let traffic = Traffic::recent();
    let made: Vec<Vec<u8>> = (0..DISTINCT as u64).map(|n| line(&traffic, n)).collect();
    let real = if real.is_empty() { &made } else { &real };
    println!("records {records}; to discard: {} distinct lines; to the services: {DISTINCT}", real.len());
    println!(
        "{:<12} {:<10} {:>5} {:>10} {:>12} {:>9} {:>9}",
        "to", "mode", "B", "CPU ns/rec", "records/s", "MB/s", "peak MiB"
    );
    for (mode, connections) in [(Mode::Message, 1), (Mode::Message, 4), (Mode::Packed, 1), (Mode::Compressed, 1)] {
        measure("discard", &["--to", "discard"], &stream(real, mode), mode, connections, records);
    }
    for (name, to) in [("cloudwatch", "cloudwatch:g/s"), ("firehose", "firehose:f"), ("s3", "s3://bucket/p")] {
        measure(name, &["--to", to], &stream(&made, Mode::Message), Mode::Message, 1, records);
    }
    let directory = tempfile::tempdir().unwrap();
    let journal = format!("journal.dir={}", directory.path().display());
    let always = ["--set", "journal.persist=always", "--set", &journal];
    let (discard, all_kept) =
        (["--to", "discard"], ["--to", "cloudwatch:g/s", "--to", "firehose:f", "--to", "s3://bucket/p"]);
    measure("disk", &[&discard[..], &always].concat(), &stream(real, Mode::Message), Mode::Message, 1, records);
    measure(
        "disk, three",
        &[&all_kept[..], &always].concat(),
        &stream(&made, Mode::Message),
        Mode::Message,
        1,
        records,
    );
    let all = ["--to", "cloudwatch:g/s", "--to", "firehose:f", "--to", "s3://bucket/p"];
    measure("all three", &all, &stream(&made, Mode::Message), Mode::Message, 1, records);
}

fn line(traffic: &Traffic, n: u64) -> Vec<u8> {
    let mut line = Vec::new();
    traffic.line(n, &mut line);
    line
}

/// The lines of the generated corpus, files with debug logs left out; none where the corpus is not there.
fn real_lines() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/envoy-generated");
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".log.gz") && !name.contains("debug")
    });
    paths.sort();
    let mut lines = Vec::new();
    for path in paths {
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut text).unwrap();
        lines.extend(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    lines
}

fn stream(lines: &[Vec<u8>], mode: Mode) -> Stream {
    let per_message = if mode == Mode::Message { 1 } else { BATCH };
    let mut bytes = Vec::new();
    let time_ms = Traffic::recent().base_ms;
    let envelope = |line: &[u8], out: &mut Vec<u8>| {
        let fields: [(&str, &[u8]); 4] = [
            ("container_id", CONTAINER_ID.as_bytes()),
            ("container_name", CONTAINER_NAME.as_bytes()),
            ("source", SOURCE.as_bytes()),
            ("log", line),
        ];
        write_event(out, time_ms, &fields);
    };
    for message in lines.chunks(per_message) {
        bytes.push(if mode == Mode::Message { 0x94 } else { 0x93 });
        write_str(&mut bytes, b"service-connect-firelens-8d0ffc2fa0a5");
        if mode == Mode::Message {
            envelope(&message[0], &mut bytes);
            bytes.push(0x80);
            continue;
        }
        let mut body = Vec::new();
        for line in message {
            body.push(0x92);
            envelope(line, &mut body);
        }
        if mode == Mode::Compressed {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(&body).unwrap();
            body = gzip.finish().unwrap();
        }
        bytes.push(0xc6);
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&body);
        if mode == Mode::Compressed {
            bytes.push(0x81);
            write_str(&mut bytes, b"compressed");
            write_str(&mut bytes, b"gzip");
        } else {
            bytes.push(0x80);
        }
    }
    Stream { bytes, records: lines.len(), line_bytes: lines.iter().map(Vec::len).sum::<usize>() / lines.len() }
}

fn measure(name: &str, to: &[&str], stream: &Stream, mode: Mode, connections: usize, records: usize) {
    let fake = FakeAws::start(Options { forget: true, ..Options::default() });
    fake.logs().seed("g", &["s"]);
    fake.seed_firehose("f");
    fake.seed_bucket("bucket");
    let address = free_address();
    let run = Run::new(["run", "--forward", &address.to_string(), "--grace", "240"]).with(to.iter().copied());
    let mut process = run.environment(fake.environment()).start();
    process.wait_tcp(address, SOON);

    // Whole streams only, so that the last message of each is whole.
    let rounds = records.div_ceil(stream.records * connections).max(1);
    let total = rounds * connections * stream.records;
    let (idle, begun) = (process.cpu(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut connection = TcpStream::connect(address).unwrap();
                (0..rounds).for_each(|_| connection.write_all(&stream.bytes).unwrap());
                connection.shutdown(std::net::Shutdown::Write).unwrap();
                // The router closes when it has read everything.
                connection.read_to_end(&mut Vec::new()).unwrap();
            });
        }
    });
    let read = begun.elapsed();
    process.sample();
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    exit.account.assert_adds_up();
    for part in &exit.account.parts {
        assert_eq!((part.of("received"), part.of("delivered")), (total as u64, total as u64), "{part:?}");
    }
    let seconds = read.as_secs_f64();
    println!(
        "{name:<12} {:<10} {:>5} {:>10.0} {:>12.0} {:>9.0} {:>9.1}",
        format!("{mode:?} x{connections}"),
        stream.line_bytes,
        (exit.cpu - idle).as_nanos() as f64 / total as f64,
        total as f64 / seconds,
        (total * stream.line_bytes) as f64 / seconds / 1e6,
        exit.peak_kib as f64 / 1024.0
    );
}
