//! Everything Envoy 1.40.0 printed for us, against the answer key it printed itself: its own JSON record of each request,
//! made by no parser of ours. See `tests/data/envoy-generated/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

#[path = "support/envoy_answers.rs"]
mod envoy_answers;

use std::path::Path;

use envoy_answers::{answer_name, data, expected, lines, manifest, rendered};
use meshlens::envoy::Parser;
use meshlens::record::{Field, Key, Kind, Name, Record, Value};
use serde_json::Value as Json;

/// How many places in a text line look like a border between two quoted values, more than there are: computed from the
/// answer, not from the line.
fn surplus_borders(answer: &Json, fields: &[Field<'_>]) -> usize {
    let quoted = [Key::ForwardedFor, Key::UserAgent, Key::RequestId, Key::Authority, Key::UpstreamHost, Key::StreamId];
    let carried = quoted.iter().filter(|key| fields.iter().any(|field| field.name == Name::Known(**key)));
    let values: Vec<String> =
        carried.map(|key| format!("\"{}\"", answer[answer_name(*key)].as_str().unwrap_or("-"))).collect();
    let text = values.join(" ");
    text.as_bytes().windows(3).filter(|window| window == b"\" \"").count() + 1 - values.len()
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    access: u64,
    own_prefixed: u64,
    other: u64,
    marked_lines: u64,
    marked_fields: u64,
    marked_and_different: u64,
}

fn key_of(field: &Field<'_>) -> Key {
    match field.name {
        Name::Known(key) => key,
        other => panic!("a name that no format of the corpus has: {other:?}"),
    }
}

fn compare(record: &Record<'_>, answer: &Json, without_query: bool, line: &[u8], counts: &mut Counts) {
    let is_text = line[0] == b'[';
    let shown = String::from_utf8_lossy(line);
    if is_text && answer.get("tcp").is_none() {
        assert_eq!(record.ambiguous != 0, surplus_borders(answer, &record.parsed) != 0, "{shown}");
    } else {
        assert_eq!(record.ambiguous, 0, "{shown}");
    }
    counts.marked_lines += u64::from(record.ambiguous != 0);
    counts.marked_fields += u64::from(record.ambiguous.count_ones());
    for field in &record.parsed {
        let key = key_of(field);
        let Some(expected) = expected(answer, key, without_query) else {
            // The answer key lacks what only Istio's layout carries and nothing in these runs varies.
            assert!(
                is_text
                    && matches!(
                        key,
                        Key::ConnectionTerminationDetails
                            | Key::UpstreamTransportFailureReason
                            | Key::UpstreamLocalAddress
                            | Key::DownstreamLocalAddress
                            | Key::RequestedServerName
                            | Key::RouteName
                    ),
                "{key:?}"
            );
            continue;
        };
        let marked = record.ambiguous_keys().any(|mark| mark == key);
        let right = rendered(field.value) == expected;
        assert!(right || marked, "{key:?}: {:?} instead of {expected:?} in {shown}", rendered(field.value));
        counts.marked_and_different += u64::from(!right);
    }
}

fn field_count(name: &str, answer: &Json) -> usize {
    let (tcp, grpc) = (answer.get("tcp").is_some(), answer.get("g").is_some_and(|status| !status.is_null()));
    match name {
        _ if tcp => 8,
        "blog-11-keys-json" => 11,
        "ecs-http-json-query" => 13,
        "ecs-grpc-json" | "ecs-grpc-text" => 16,
        "ecs-h2-json" | "ecs-h2-text" => 15,
        "envoy-default-text" | "envoy-default-text-debug" => 15,
        "istio-default-text" => 24,
        _ if name.starts_with("mixed") && (grpc || answer["uc"] == "grpc") => 16,
        _ => 14,
    }
}

fn check(name: &str, about: &Json) -> Counts {
    let log = data(&format!("{name}.log.gz"));
    let answers = data(&format!("{name}.truth.jsonl.gz"));
    let mut answers = lines(&answers).map(|line| serde_json::from_slice::<Json>(line).unwrap());
    let without_query = about["format"].to_string().contains("REQ_WITHOUT_QUERY");
    let mut counts = Counts::default();
    let mut parser = Parser::default();
    let mut record = Record::new();
    for line in lines(&log) {
        record.clear();
        parser.parse(line, &mut record);
        match record.kind {
            Kind::Access => {
                counts.access += 1;
                let answer = answers.next().expect("more access lines than requests");
                compare(&record, &answer, without_query, line, &mut counts);
                assert_eq!(record.parsed.len(), field_count(name, &answer), "{}", String::from_utf8_lossy(line));
                let started = rendered(record.get(Key::StartTime).copied().unwrap());
                assert_eq!(
                    Some(record.time_ns),
                    meshlens::timestamp::parse_rfc3339_ns(started.as_str().unwrap().as_bytes())
                );
            }
            Kind::Envoy => {
                counts.own_prefixed += 1;
                assert!(line.starts_with(b"[2026-11-22 "));
                assert_eq!(record.parsed.len(), 1);
                assert!(matches!(
                    record.get(Key::Level),
                    Some(Value::Text(b"debug" | b"info" | b"warning" | b"error"))
                ));
            }
            Kind::Other => {
                counts.other += 1;
                assert!(!line.starts_with(b"[2026-11-22 "), "{}", String::from_utf8_lossy(line));
                assert!(record.parsed.is_empty() && record.ambiguous == 0);
            }
        }
    }
    assert!(answers.next().is_none(), "{name}: a request without its line");
    assert_eq!(Json::from(counts.access), about["access_lines"], "{name}");
    assert_eq!(Json::from(counts.own_prefixed + counts.other), about["envoy_log_lines"], "{name}");
    counts
}

#[test]
fn every_file_is_read_as_its_answer_key_says() {
    let manifest = manifest();
    assert_eq!(manifest.len(), 17);
    let marked: [(&str, u64, u64); 7] = [
        ("ecs-h2-text", 11, 66),
        ("ecs-http-text-noquery", 19, 57),
        ("ecs-http-text-query", 23, 69),
        ("envoy-default-text", 17, 51),
        ("envoy-default-text-debug", 2, 6),
        ("istio-default-text", 17, 51),
        ("mixed-ecs-text", 6, 18),
    ];
    let (mut access, mut own) = (0, 0);
    for (name, about) in &manifest {
        let counts = check(name, about);
        access += counts.access;
        own += counts.own_prefixed + counts.other;
        let (_, lines, fields) = marked.into_iter().find(|(marked, ..)| marked == name).unwrap_or_default();
        assert_eq!((counts.marked_lines, counts.marked_fields), (lines, fields), "{name}");
        // Even where the line leaves it open, what is taken is what was sent.
        assert_eq!(counts.marked_and_different, 0, "{name}");
    }
    assert_eq!((access, own), (35_609, 7_580));
}

#[test]
fn a_line_means_the_same_without_the_lines_before() {
    for name in manifest().keys() {
        let log = data(&format!("{name}.log.gz"));
        let mut parser = Parser::default();
        let (mut known, mut first) = (Record::new(), Record::new());
        for line in lines(&log) {
            known.clear();
            first.clear();
            parser.parse(line, &mut known);
            Parser::default().parse(line, &mut first);
            assert_eq!((known.kind, &known.parsed), (first.kind, &first.parsed), "{}", String::from_utf8_lossy(line));
            // Without a past there may be more doubt, never less.
            assert_eq!(known.ambiguous & !first.ambiguous, 0, "{}", String::from_utf8_lossy(line));
            assert!(known.ambiguous != 0 || first.ambiguous == 0, "{}", String::from_utf8_lossy(line));
        }
    }
}

#[test]
fn torn_lines_are_no_access_logs() {
    // When both streams of Envoy share a pipe, a line of its own log can split an access line in two.
    let own = b"[2026-11-22 02:31:33.634][7768][info][main] [source/server/server.cc:404] \"initializing\" epoch 0";
    let log = data("mixed-ecs-text.log.gz");
    let mut parser = Parser::default();
    let mut record = Record::new();
    for line in lines(&log).filter(|line| line.starts_with(b"[2026-11-22T")).step_by(7) {
        record.clear();
        parser.parse(line, &mut record);
        for cut in 0..line.len() {
            let torn = [&line[..cut], own].concat();
            let mut record = Record::new();
            parser.clone().parse(&torn, &mut record);
            assert_eq!(record.kind == Kind::Envoy, cut == 0, "{}", String::from_utf8_lossy(&torn));
            assert!(record.kind != Kind::Access, "{}", String::from_utf8_lossy(&torn));
        }
    }
}

#[test]
fn carriage_returns_and_newlines_at_the_end_change_nothing() {
    let log = data("mixed-ecs-json.log.gz");
    for line in lines(&log).step_by(50) {
        let (mut plain, mut ended) = (Record::new(), Record::new());
        let with_end = [line, b"\r\n"].concat();
        Parser::default().parse(line, &mut plain);
        Parser::default().parse(&with_end, &mut ended);
        assert_eq!((plain.kind, &plain.parsed, plain.time_ns), (ended.kind, &ended.parsed, ended.time_ns));
    }
}

#[test]
fn hostile_lines_cost_time_in_proportion_to_their_length() {
    let time = |repeats: usize, piece: &str| {
        let filler = piece.repeat(repeats);
        let line = format!(
            "[2026-11-22T02:36:32.784Z] \"GET {filler} HTTP/1.1\" 200 0 0 1 - \"-\" \"{filler}\" \"id\" \"shop\" \"1.2.3.4:5\""
        );
        let start = std::time::Instant::now();
        Parser::default().parse(line.as_bytes(), &mut Record::new());
        start.elapsed()
    };
    for piece in ["\" \"", "\"", " HTTP/1.1\" 200 0 0 1 - \"", "{", "\" \"a\" \"-\"", " HTTP/1.1\" 200 - {", "Z] ", "x"]
    {
        // Half a megabyte; quadratic work would take minutes.
        assert!(time(500_000 / piece.len(), piece) < std::time::Duration::from_secs(5), "{piece}");
    }
}

#[test]
fn the_sample_is_what_its_readme_says() {
    let sample =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples/service-connect.log")).unwrap();
    let mut parser = Parser::default();
    let mut record = Record::new();
    let (mut access, mut own, mut queries) = (0, 0, 0);
    for line in lines(&sample) {
        record.clear();
        parser.parse(line, &mut record);
        access += u32::from(record.kind == Kind::Access);
        own += u32::from(record.kind == Kind::Envoy);
        queries += u32::from(record.kind == Kind::Access && line.contains(&b'?'));
    }
    assert_eq!((access, own, queries), (255, 55, 90));
}
