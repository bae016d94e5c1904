//! What holds for any bytes: no panic, output that is valid JSON, no marked secret in it, and a second pass that changes nothing.
//!
//! Used by the fuzz targets under `fuzz/`, and by `tests/invariants.rs` on their seeds.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

use std::sync::{Arc, LazyLock};

use meshlens::encode::{Fragment, encode};
use meshlens::envoy::Parser;
use meshlens::envoy::explain::explain;
use meshlens::envoy::format::{Options, compile};
use meshlens::envoy::formats::Formats;
use meshlens::record::{Key, Name, Record, Value};
use meshlens::redact::{self, Policy, Redactor, Secret};

/// Stands behind a `?` wherever the input has a byte 0x01.
const SECRET: &[u8] = b"s3cr3tm4rk";

/// The input with its secrets; nothing if it holds the word itself, which a fuzzer learns from what is compared with it.
fn with_secrets(data: &[u8]) -> Vec<u8> {
    if holds_secret(data) {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(data.len() + 32);
    for byte in data {
        match byte {
            1 => out.extend_from_slice(&[b"?q=", SECRET].concat()),
            b'\n' => out.push(b' '),
            byte => out.push(*byte),
        }
    }
    out
}

fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}

/// One line through parse, redact and encode.
fn pass(formats: Arc<Formats>, redactor: &Redactor, line: &[u8]) -> Vec<u8> {
    let mut record = Record::new();
    record.push_envelope(Name::Known(Key::Log), Value::Text(line));
    Parser::new(formats).parse(line, &mut record);
    redactor.redact(&mut record);
    let mut out = Vec::new();
    encode(&record, &Fragment::default(), &mut out);
    out
}

/// What goes out is a JSON object. Numbers beyond a double are valid JSON, and an error only to the oracle.
fn check_json(line: &[u8], out: &[u8]) {
    match serde_json::from_slice::<serde_json::Value>(out) {
        Ok(json) => assert!(json.is_object()),
        Err(error) => {
            assert!(error.to_string().starts_with("number out of range"), "{}", String::from_utf8_lossy(line))
        }
    }
}

fn check_output(line: &[u8], out: &[u8]) {
    check_json(line, out);
    assert!(!holds_secret(out), "{}", String::from_utf8_lossy(line));
}

static STRIP: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(&redact::Config::default()));

static FORMATS: LazyLock<Arc<Formats>> = LazyLock::new(|| {
    let mut formats = Formats::default();
    for spec in [
        "auto",
        "%START_TIME(%s.%3f)%|%REQ(X-TENANT)%|%REQ(:PATH)%|%RESPONSE_CODE%",
        "%REQ(:METHOD)% %REQ(:PATH)% %REQ(USER-AGENT)%%REQ(REFERER)% %DURATION%",
        r#"{"a":"%REQ(:PATH)%","d":%DURATION%}"#,
        r#"{"ts":"%START_TIME(%s)%","p":"%REQ(:PATH)%","c":"%RESPONSE_CODE%"}"#,
    ] {
        formats.add("fuzz", spec, &Options::default()).expect("it compiles");
    }
    Arc::new(formats)
});

/// A line of text.
pub fn text(data: &[u8]) {
    let line = with_secrets(data);
    let out = pass(FORMATS.clone(), &STRIP, &line);
    check_output(&line, &out);
    let _ = explain(&FORMATS, &line);
}

/// A line that begins as JSON.
pub fn json(data: &[u8]) {
    let mut line = b"{".to_vec();
    line.extend_from_slice(&with_secrets(data));
    let out = pass(FORMATS.clone(), &STRIP, &line);
    check_output(&line, &out);
    // What comes out is a line like any other.
    let again = pass(FORMATS.clone(), &STRIP, &out);
    check_output(&out, &again);
}

/// A format string and, behind a line break, a line.
pub fn format(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (spec, line) = data.split_at(end);
    let Ok(spec) = str::from_utf8(spec) else { return };
    let options = Options { omit_empty_values: data.len().is_multiple_of(2), ..Options::default() };
    if let Err(error) = compile("fuzz", spec, &options) {
        assert!(error.at <= spec.len());
        assert!(!error.to_string().is_empty());
    }
    let mut formats = Formats::default();
    if formats.add("fuzz", spec, &options).is_ok() {
        let line = with_secrets(line.get(1..).unwrap_or_default());
        let formats = Arc::new(formats);
        let out = pass(formats.clone(), &STRIP, &line);
        // A format may say that another field begins in the middle of what looks like a query.
        if spec.contains(['?', '=', 'q']) {
            check_json(&line, &out)
        } else {
            check_output(&line, &out)
        }
        let _ = explain(&formats, &line);
    }
}

/// Text under each policy.
pub fn redact(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let policy = match choice % 4 {
        0 => Policy::Strip,
        1 => Policy::Keep(vec!["page".into(), "sort".into()]),
        2 => Policy::Mask,
        _ => Policy::Hash { key: Secret(b"0123456789abcdef0123456789abcdef".as_slice().into()) },
    };
    let redactor = Redactor::new(&redact::Config { query: policy, ..redact::Config::default() });
    let text = with_secrets(data);
    let mut once = Vec::new();
    redactor.scrub_text(&text, &mut once);
    assert!(!holds_secret(&once), "{}", String::from_utf8_lossy(&text));
    let mut twice = Vec::new();
    redactor.scrub_text(&once, &mut twice);
    // Bytes that are no UTF-8 become characters where they stand in a document, which what goes out never has.
    // And broken JSON that the first redaction has mended is read as a document by the second, which may take more.
    let is_document = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok();
    if str::from_utf8(&once).is_ok() && is_document(&text) == is_document(&once) {
        assert_eq!(once, twice, "{}", String::from_utf8_lossy(&text));
    }
    if str::from_utf8(&text).is_ok() {
        assert!(str::from_utf8(&once).is_ok());
    }
    let out = pass(FORMATS.clone(), &redactor, &text);
    check_output(&text, &out);
}
