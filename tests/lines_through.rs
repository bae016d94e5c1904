//! Lines as they come, through the binary: pieces and records of several lines out of a file, and what is said of them.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::process::Command;

use serde_json::{Value, json};

/// The records that come out of a file with that text, and the account.
fn run(text: &str, more: &[&str]) -> (Vec<Value>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("in.log");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_meshlens"))
        .args(["run", "--input", file.to_str().unwrap(), "--to", "stdout"])
        .args(more)
        .current_dir(directory.path())
        .env_clear()
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let records = String::from_utf8(output.stdout).unwrap();
    (records.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

const TIME: &str = "2027-01-30T12:10:13.682034460Z";

#[test]
fn records_of_several_lines_are_joined_on_request_and_counted() {
    let first =
        "[2026-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] request headers complete (end_stream=true):";
    let text =
        format!("{first}\n':path', '/get?token=SECRET'\n'cookie', 'a'\n[2026-06-13 13:28:27.725][38][info][main] x\n");
    let (records, account) = run(&text, &["--set", "parse.join_lines=true"]);
    let joined = format!("{first}\n':path', '/get'\n'cookie', '***'");
    assert_eq!(records[0], json!({"log": joined, "level": "debug", "log_type": "envoy"}));
    assert_eq!(records.len(), 2);
    assert!(account.contains("received=4 delivered=2 (stdout=2) filtered=2 (input.joined=2)"), "{account}");
    let (records, account) = run(&text, &[]);
    assert_eq!(records.len(), 4);
    assert_eq!(records[1], json!({"log": "':path', '/get'"}));
    assert!(account.contains("received=4 delivered=4 (stdout=4)"), "{account}");
}

#[test]
fn the_last_record_of_several_lines_comes_out_at_the_end() {
    let text =
        "envoy-1  | [2026-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] headers:\nenvoy-1  | ':path', '/get'\n";
    let (records, _) = run(text, &["--set", "parse.join_lines=true"]);
    let log = "[2026-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] headers:\n':path', '/get'";
    assert_eq!(records, [json!({"log": log, "level": "debug", "container_name": "envoy-1", "log_type": "envoy"})]);
}

#[test]
fn a_node_s_file_gives_whole_lines() {
    let access = r#"[2026-11-22T02:36:32.784Z] "GET /a?token=SECRET HTTP/1.1" 200 - 0 5 1 0 "-" "c" "6d6e08ba-02a3-4a26-968a-2183aa33a56d" "h" "10.0.0.1:80""#;
    for cut in (0..access.len()).step_by(9) {
        let (head, tail) = access.split_at(cut);
        let text =
            format!("{TIME} stdout P {head}\n{TIME} stderr F aside\n{TIME} stdout F {tail}\n{TIME} stdout P /x?tok\n");
        let (mut records, account) = run(&text, &[]);
        records.sort_by_key(|record| record["log"].to_string());
        assert_eq!(records.len(), 3, "{cut} {account}");
        assert_eq!(records[0]["log"], format!("{TIME} stderr F aside"));
        assert_eq!(records[1]["log"], format!("{TIME} stdout P /x"), "as it came, redacted");
        assert_eq!((&records[2]["path"], &records[2]["source"]), (&json!("/a"), &json!("stdout")), "{cut}");
        assert_eq!(records[2]["upstream_host"], "10.0.0.1:80");
        if cut > 60 {
            break;
        }
    }
}
