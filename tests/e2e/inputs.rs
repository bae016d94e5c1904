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
    let peer = "127.0.0.1";
    let expected = [
        json!({ "log": "one", "n": 1.5, "peer": peer }),
        json!({ "log": "two", "peer": peer }),
        json!({ "msg": [1, 2], "peer": peer }),
    ];
    assert_eq!(records(&exit.stdout), expected);
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
        write!(stream, "first of {number}\n").unwrap();
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
