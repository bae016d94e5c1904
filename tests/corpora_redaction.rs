//! Every line of every corpus in the tree, generated and public, through parse, redact and encode: what goes out is JSON, no value of a
//! query is in it, and redacting it again changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use meshlens::encode::{Fragment, encode};
use meshlens::envoy::Parser;
use meshlens::record::{Key, Name, Record, Value};
use meshlens::redact::{Config, Redactor};
use regex::bytes::Regex;

/// Shorter values of a query stand elsewhere in a line by chance.
const VALUE_BYTES_MIN: usize = 6;

fn files() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let list = |directory: &str| fs::read_dir(data.join(directory)).unwrap().map(|entry| entry.unwrap().path());
    let all = list("envoy-generated").chain(list("envoy-public")).chain(list("envoy-public/synthetic"));
    let is_log =
        |path: &PathBuf| path.to_string_lossy().ends_with(".log") || path.to_string_lossy().ends_with(".log.gz");
    let mut logs: Vec<PathBuf> = all.filter(is_log).collect();
    logs.sort();
    logs
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    } else {
        { file }.read_to_end(&mut bytes).unwrap();
    }
    bytes
}

fn pass(parser: &mut Parser, redactor: &Redactor, line: &[u8]) -> Vec<u8> {
    let mut record = Record::new();
    record.push_envelope(Name::Known(Key::Log), Value::Text(line));
    parser.parse(line, &mut record);
    redactor.redact(&mut record);
    let mut out = Vec::new();
    encode(&record, &Fragment::default(), &mut out);
    out
}

#[test]
fn no_value_of_a_query_is_left_of_any_line() {
    let redactor = Redactor::new(&Config::default());
    // A path, its query, up to a blank, a quote or a fragment.
    let query = Regex::new(r#"/[^\s"'?]*\?([A-Za-z0-9_.%-]+=[^\s"'#]+)"#).unwrap();
    let (mut lines, mut values) = (0, 0);
    for path in files() {
        let mut parser = Parser::default();
        for line in read(&path).split(|byte| *byte == b'\n') {
            lines += 1;
            let out = pass(&mut parser, &redactor, line);
            let json: serde_json::Value = serde_json::from_slice(&out).expect("what goes out is JSON");
            let rest = query.replace_all(line, &b""[..]);
            for found in query.captures_iter(line) {
                let parameters = found[1].split(|byte| b"&;\\".contains(byte));
                let secrets = parameters.filter_map(|parameter| parameter.split(|byte| *byte == b'=').nth(1));
                for secret in secrets.filter(|secret| secret.len() >= VALUE_BYTES_MIN) {
                    let holds = |text: &[u8]| memchr::memmem::find(text, secret).is_some();
                    // What the line says outside of queries too is no secret of the query's.
                    if !holds(&rest) {
                        values += 1;
                        assert!(!holds(&out), "{}\n{}", path.display(), String::from_utf8_lossy(line));
                    }
                }
            }
            let mut again = Vec::new();
            if let Some(log) = json.get("log").and_then(serde_json::Value::as_str) {
                redactor.scrub_text(log.as_bytes(), &mut again);
                assert_eq!(again, log.as_bytes(), "{}", path.display());
            }
        }
    }
    assert!(lines > 40_000 && values > 5_000, "{lines} lines, {values} values");
}
