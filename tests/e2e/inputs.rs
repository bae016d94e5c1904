//! The sources beside forward: what Fluent Bit calls `tcp`, `tail` and `dummy`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Process, Run, free_address};
use crate::stage::SOON;

/// Runs this configuration, with standard output as its only sink.
fn run(directory: &Path, sources: &str) -> Process {
    let path = directory.join("meshlens.toml");
    std::fs::write(&path, format!("{sources}\n[sink.out]\ntype = \"stdout\"\n")).unwrap();
    Run::new(["run", "--config", path.to_str().unwrap()]).start()
}

fn records(out: &[u8]) -> Vec<Value> {
    let lines = out.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn tcp(address: SocketAddr, settings: &str) -> (tempfile::TempDir, Process) {
    let directory = tempfile::tempdir().unwrap();
    let source = format!("[source.tcp]\ntype = \"tcp\"\nlisten = \"{address}\"\n{settings}");
    let mut process = run(directory.path(), &source);
    process.wait_tcp(address, SOON);
    (directory, process)
}

#[test]
fn the_health_check_of_a_generated_configuration_is_answered_by_a_clean_close() {
    let address = free_address();
    let (_directory, process) = tcp(address, "tag = \"firelens-healthcheck\"");
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"{\"health\": \"check\"}\n").unwrap();
        // What `nc` does at the end of its input.
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = Vec::new();
        assert_eq!(stream.read_to_end(&mut answer).unwrap(), 0, "nothing is answered, and nothing reset");
    }
    let exit = process.terminate(SOON);
    assert_eq!(records(&exit.stdout), vec![json!({ "health": "check" }); 3]);
    assert_eq!((exit.code, exit.account.total("received")), (Some(0), 3), "{}", exit.stderr);
}

#[test]
fn json_over_tcp_is_read_on_behind_what_is_none() {
    let address = free_address();
    let (_directory, mut process) = tcp(address, "source_address_key = \"peer\"\nrecord_bytes_max = \"2KiB\"");
    let mut stream = TcpStream::connect(address).unwrap();
    let large = "x".repeat(5000);
    let text = format!(
        "{{\"log\":\"one\",\"n\":1.5}}{{\n  \"log\": \"two\"\n}}\nGET / HTTP/1.1\n{{\"log\":\"{large}\"}}\n[1,2]\n{{\"log\":\"cut"
    );
    for piece in text.as_bytes().chunks(700) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    process.wait_until("reading", SOON, |process| records(&process.printed()).len() == 3);
    drop(stream);
    process.wait_until("counting", SOON, |process| !process.said().is_empty());
    let exit = process.terminate(SOON);
    let mut records = records(&exit.stdout);
    for record in &mut records {
        let peer = record.as_object_mut().unwrap().remove("peer").unwrap();
        assert!(peer.as_str().unwrap().starts_with("tcp://127.0.0.1:"), "{peer}");
    }
    assert_eq!(records, [json!({ "log": "one", "n": 1.5 }), json!({ "log": "two" }), json!({ "msg": [1, 2] })]);
    exit.account.assert_adds_up();
    assert_eq!(exit.account.detail("dropped", "tcp.malformed_frame"), 2, "{}", exit.stderr);
    assert_eq!(exit.account.detail("dropped", "tcp.too_large"), 1, "{}", exit.stderr);
}

#[test]
fn text_over_tcp_is_read_to_the_end_of_its_connections_after_the_signal() {
    let address = free_address();
    let (_directory, mut process) = tcp(address, "format = \"none\"\nconnections_max = 3\n");
    let mut streams = [0, 1].map(|_| TcpStream::connect(address).unwrap());
    for (number, stream) in streams.iter_mut().enumerate() {
        writeln!(stream, "first of {number}").unwrap();
    }
    process.wait_until("reading", SOON, |process| records(&process.printed()).len() == 2);
    // The connection of `wait_tcp` may still count, or not any more.
    let mut more = [0, 1].map(|_| TcpStream::connect(address).unwrap());
    more[1].set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(more[1].read(&mut [0]), Ok(0) | Err(_)), "one too many");
    drop(more);
    process.signal("TERM");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        for stream in &mut streams {
            stream.write_all(b"after the signal\n").unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    write!(streams[0], "without a newline").unwrap();
    drop(streams);
    let exit = process.wait(SOON);
    let records = records(&exit.stdout);
    let count = |text: &str| records.iter().filter(|record| record["log"] == text).count();
    assert!(count("after the signal") >= 10, "{records:?}");
    assert_eq!((count("without a newline"), exit.code), (1, Some(0)), "{}", exit.stderr);
    exit.account.assert_adds_up();
}

#[test]
fn a_dummy_makes_its_samples_and_waits() {
    let directory = tempfile::tempdir().unwrap();
    let source =
        "[source.d]\ntype = \"dummy\"\ndummy = '{\"a\":1,\"log\":\"x\"}'\nrate = 1000\nsamples = 25\ntag = \"t\"";
    let mut process = run(directory.path(), source);
    process.wait_until("making", SOON, |process| records(&process.printed()).len() == 25);
    std::thread::sleep(Duration::from_millis(50));
    let exit = process.terminate(SOON);
    assert_eq!(records(&exit.stdout), vec![json!({ "a": 1, "log": "x" }); 25]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[test]
fn a_forward_source_gives_tags_of_its_own_and_a_line_has_another_name() {
    for (setting, expected) in
        [("tag = \"mine\"", "mine"), ("tag_prefix = \"pre.\"", "pre.app-firelens-1"), ("", "app-firelens-1")]
    {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let sources = format!(
            "[source.f]\ntype = \"forward\"\nlisten = \"{address}\"\n{setting}\n[[route]]\nwhen.tag = \"{expected}\"\nto = \"out\"\n"
        );
        let mut process = run(directory.path(), &sources);
        process.wait_tcp(address, SOON);
        TcpStream::connect(address).unwrap().write_all(b"\x93\xaeapp-firelens-1\x01\x81\xa3log\xa1x").unwrap();
        process.wait_until("reading", SOON, |process| !process.printed().is_empty());
        let exit = process.terminate(SOON);
        assert_eq!(records(&exit.stdout), [json!({ "log": "x" })], "{setting}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meshlens.toml");
    std::fs::write(
        &path,
        "[source.l]\ntype = \"lines\"\npath = \"-\"\nkey = \"text\"\n[sink.out]\ntype = \"stdout\"\n",
    )
    .unwrap();
    let run = Run::new(["run", "--config", path.to_str().unwrap()]).stdin(b"one\ntwo".to_vec());
    assert_eq!(records(&run.start().wait(SOON).stdout), [json!({ "text": "one" }), json!({ "text": "two" })]);
}

/// Appends lines `from..to` to a file.
fn append(path: &Path, name: &str, range: std::ops::Range<u64>) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    range.for_each(|number| writeln!(file, "{name} {number}").unwrap());
}

/// How often each line is there.
fn counts(out: &[u8]) -> std::collections::BTreeMap<String, u32> {
    let mut counts = std::collections::BTreeMap::new();
    for record in records(out) {
        *counts.entry(record["log"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn tail(directory: &Path, settings: &str) -> Process {
    let logs = directory.join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let source = format!(
        "[source.t]\ntype = \"tail\"\npath = [\"{0}/*.log\"]\nexclude_path = \"{0}/not*\"\nrefresh_interval = \"100ms\"\nrotate_wait = \"500ms\"\n{settings}",
        logs.display()
    );
    run(directory, &source)
}

#[test]
fn tail_follows_files_old_and_new_through_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    append(&logs.join("a.log"), "old", 0..10);
    append(&logs.join("not.log"), "not", 0..10);
    let mut process = tail(directory.path(), "path_key = \"path\"\noffset_key = \"offset\"\n");
    process.wait_until("following", SOON, |process| process.said().contains("following"));
    append(&logs.join("a.log"), "a", 0..100);
    append(&logs.join("b.log"), "b", 0..100);
    append(&logs.join("c.txt"), "c", 0..100);
    process.wait_until("reading", SOON, |process| records(&process.printed()).len() == 200);
    append(&logs.join("a.log"), "a", 100..150);
    // Rotated to a name that the pattern matches as well: it is the same file.
    std::fs::rename(logs.join("a.log"), logs.join("a-1.log")).unwrap();
    append(&logs.join("a.log"), "a", 150..200);
    process.wait_until("reading", SOON, |process| records(&process.printed()).len() == 300);
    append(&logs.join("a-1.log"), "late", 0..10);
    append(&logs.join("a.log"), "a", 200..250);
    std::fs::remove_file(logs.join("b.log")).unwrap();
    process.wait_until("letting go", SOON, |process| process.said().contains("not following any more"));
    append(&logs.join("b.log"), "again", 0..10);
    process.wait_until("reading", SOON, |process| records(&process.printed()).len() >= 370);
    append(&logs.join("d.log"), "last", 0..10);
    let exit = process.terminate(SOON);
    let counts = counts(&exit.stdout);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let named = |name: &str| counts.keys().filter(|line| line.split(' ').next() == Some(name)).count();
    let seen = ["old", "not", "c", "a", "b", "late", "again", "last"].map(named);
    assert_eq!(seen, [0, 0, 0, 250, 100, 10, 10, 10], "{}", exit.stderr);
    let first = records(&exit.stdout).into_iter().find(|record| record["log"] == "a 1").unwrap();
    assert_eq!(first["path"], logs.join("a.log").to_str().unwrap());
    assert_eq!(first["offset"], 10 * 6 + 4);
    assert_eq!(exit.code, Some(0));
    exit.account.assert_adds_up();
}

#[test]
fn tail_goes_on_after_a_restart_in_each_of_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let settings = format!("read_from_head = true\ndb = \"{}/tail.db\"\n", directory.path().display());
    let mut out = Vec::new();
    let names = ["a", "b", "c"];
    for round in 0..4_u64 {
        let start = round * 100;
        for name in names {
            append(&logs.join(format!("{name}.log")), name, start..start + 60);
        }
        let mut process = tail(directory.path(), &settings);
        let expected = 3 * (start + 60);
        process.wait_until("reading", SOON, |process| {
            counts(&[&out[..], &process.printed()].concat()).len() as u64 == expected
        });
        let exit = process.terminate(SOON);
        out.extend_from_slice(&exit.stdout);
        for name in names {
            append(&logs.join(format!("{name}.log")), name, start + 60..start + 100);
        }
        // One is rotated while nobody looks, out of the pattern; the new one begins empty.
        if round == 1 {
            std::fs::rename(logs.join("b.log"), logs.join("b.log.1")).unwrap();
            append(&logs.join("b.log"), "b", 0..0);
        }
    }
    let process = tail(directory.path(), &settings);
    let mut process = process;
    process.wait_until("reading", SOON, |process| counts(&[&out[..], &process.printed()].concat()).len() == 1200);
    out.extend_from_slice(&process.terminate(SOON).stdout);
    let counts = counts(&out);
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!((counts.len(), repeated.len()), (1200, 0), "{repeated:?}");
}

#[test]
fn the_last_record_of_several_lines_comes_without_another() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "read_from_head = true\n[[filter]]\ntype = \"multiline\"\nmultiline_parser = [\"java\"]\n";
    let mut process = tail(directory.path(), settings);
    let lines = "Exception in thread \"main\" java.lang.RuntimeException: x\n    at a.b(C.java:1)\n";
    std::fs::write(directory.path().join("logs/a.log"), lines).unwrap();
    process.wait_until("delivering", SOON, |process| records(&process.printed()).len() == 1);
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(records(&exit.stdout)[0]["log"], lines.trim_end());
    assert_eq!(exit.account.detail("filtered", "t.joined"), 1, "{}", exit.stderr);
}

#[test]
fn tail_leaves_long_lines_out_if_asked_to() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join("a.log"), format!("one\n{}\ntwo\n", "x".repeat(100_000))).unwrap();
    let settings = "read_from_head = true\nskip_long_lines = true\nline_bytes_max = \"4KiB\"\n";
    let mut process = tail(directory.path(), settings);
    process.wait_until("reading", SOON, |process| records(&process.printed()).len() == 2);
    let exit = process.terminate(SOON);
    assert_eq!(records(&exit.stdout), [json!({ "log": "one" }), json!({ "log": "two" })]);
    assert_eq!(exit.account.detail("dropped", "t.too_large"), 1, "{}", exit.stderr);
}

/// Asks for a path: status and body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn health_checks_for_fluent_bit_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let settings = format!(
        "[admin]\nfluent_bit_listen = \"{address}\"\nfluent_bit_health = {{ errors_count = 5, retry_failure_count = 5, period = 60 }}\n\
         [source.d]\ntype = \"dummy\"\nsamples = 3\nrate = 1000\n"
    );
    let mut process = run(directory.path(), &settings);
    process.wait_tcp(address, SOON);
    process.wait_until("making", SOON, |process| records(&process.printed()).len() == 3);
    assert_eq!(get(address, "/api/v1/health"), (200, "ok\n".into()));
    assert_eq!(get(address, "/api/v2/health"), (200, "ok\n".into()));
    let json = |path: &str| -> Value {
        let (status, body) = get(address, path);
        assert_eq!(status, 200, "{path}");
        serde_json::from_str(&body).unwrap()
    };
    assert!(json("/")["fluent-bit"]["version"].is_string());
    let uptime = json("/api/v1/uptime");
    assert!(
        uptime["uptime_sec"].is_u64()
            && uptime["uptime_hr"].as_str().unwrap().starts_with("Fluent Bit has been running:")
    );
    let metrics = json("/api/v1/metrics");
    assert_eq!(metrics["input"], json!({ "dummy.0": { "records": 3 } }));
    assert_eq!(metrics["output"]["stdout.0"]["proc_records"], 3);
    for path in ["/api/v1/metrics/prometheus", "/api/v2/metrics/prometheus"] {
        let (status, text) = get(address, path);
        assert!(status == 200 && text.contains("fluentbit_input_records_total{name=\"dummy.0\"} 3"), "{text}");
    }
    assert_eq!(json("/api/v1/storage")["storage_layer"]["chunks"]["total_chunks"], 0);
    for path in ["/healthz", "/metrics", "/api/v1/nothing"] {
        assert_eq!(get(address, path).0, 404, "{path}");
    }
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

/// A forward message: tag, and a record with one line.
fn message(tag: &str, line: &str) -> Vec<u8> {
    let mut bytes = vec![0x93, 0xd9, tag.len() as u8];
    bytes.extend_from_slice(tag.as_bytes());
    bytes.extend_from_slice(b"\x01\x81\xa3log\xda");
    bytes.extend_from_slice(&(line.len() as u16).to_be_bytes());
    bytes.extend_from_slice(line.as_bytes());
    bytes
}

#[test]
fn a_router_that_logs_to_itself_does_not_feed_itself() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut process = run(directory.path(), &format!("[source.f]\ntype = \"forward\"\nlisten = \"{address}\"\n"));
    process.wait_tcp(address, SOON);
    let tag = "log_router-firelens-0123";
    let mut stream = TcpStream::connect(address).unwrap();
    // As the log driver does: whatever the process says is sent to it, over and over.
    let mut told = 0;
    for _ in 0..20 {
        let said = process.said();
        for line in said[told..].lines() {
            stream.write_all(&message(tag, line)).unwrap();
        }
        told = said.len();
        std::thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(&message(tag, "a later line without the word")).unwrap();
    TcpStream::connect(address).unwrap().write_all(&message("app-firelens-0123", "an application's")).unwrap();
    process.wait_until("reading", SOON, |process| !process.printed().is_empty());
    drop(stream);
    let exit = process.terminate(SOON);
    assert_eq!(records(&exit.stdout), [json!({ "log": "an application's" })], "{}", exit.stderr);
    assert!(exit.account.detail("filtered", "f.own_log") >= 3, "{}", exit.stderr);
    assert_eq!(exit.stderr.matches("own log comes back").count(), 1, "{}", exit.stderr);
    exit.account.assert_adds_up();
}
