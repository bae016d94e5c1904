//! What is around a line changes nothing about what the line means, and a line that only looks wrapped stays as it is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use meshlens::encode::{Fragment, encode};
use meshlens::envoy::Parser;
use meshlens::envoy::format::Options;
use meshlens::envoy::formats::Formats;
use meshlens::record::{Key, Kind, Name, Record, Value};
use meshlens::redact::{Config, Redactor};
use meshlens::timestamp::parse_rfc3339_ns;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const STAMP: &str = "2027-01-30T12:10:13.682034460Z";

/// Kind, time and the record as it would be written.
fn read(parser: &mut Parser, line: &[u8]) -> (Kind, i64, Json) {
    let mut record = Record::new();
    record.push_envelope(Name::Known(Key::Log), Value::Text(line));
    parser.parse(line, &mut record);
    let mut out = Vec::new();
    encode(&record, &Fragment::default(), &mut out);
    let json =
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)));
    (record.kind, record.time_ns, json)
}

fn json_string(text: &[u8]) -> String {
    serde_json::to_string(&String::from_utf8(text.to_vec()).unwrap()).unwrap()
}

/// The ways a line may be wrapped. Not all of them take bytes that are not UTF-8.
const WRAPPERS: usize = 12;

fn wrap(wrapper: usize, line: &[u8]) -> Option<(Vec<u8>, Option<Json>)> {
    let prefixed = |prefix: String| [prefix.as_bytes(), line].concat();
    let string = str::from_utf8(line).is_ok().then(|| json_string(line));
    // As Go escapes: `<`, `>`, `&`, and the newline of the line.
    let escaped = || {
        let string = string.clone()?.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        Some(format!("{}\\n\"", &string[..string.len() - 1]))
    };
    let source = Some(json!({"source": "stderr"}));
    Some(match wrapper {
        0 => (prefixed(format!("{STAMP} ")), None),
        1 => (prefixed(format!("{STAMP} stderr F ")), source),
        2 => (prefixed(format!("{STAMP} stderr F:x ")), source),
        3 => (prefixed("envoy-1  | ".into()), Some(json!({"container_name": "envoy-1"}))),
        4 => (prefixed("\x1b[36menvoy_1  |\x1b[0m ".into()), Some(json!({"container_name": "envoy_1"}))),
        5 => (prefixed(format!("\x1b[36menvoy-1  | \x1b[0m{STAMP} ")), Some(json!({"container_name": "envoy-1"}))),
        6 => (format!(r#"{{"log":{},"stream":"stderr","time":"{STAMP}"}}"#, escaped()?).into_bytes(), source),
        7 => (
            format!(r#"{{"kubernetes":{{"pod":"p\u0031"}},"message":{},"shard":1.5}}"#, string?).into_bytes(),
            Some(json!({"kubernetes": {"pod": "p1"}, "shard": 1.5})),
        ),
        8 => (format!(r#"{{"msg":{}}}"#, string?).into_bytes(), None),
        9 => (
            format!(r#"{STAMP} stderr F {{"log":{},"a":null}}"#, string?).into_bytes(),
            Some(json!({"source": "stderr", "a": null})),
        ),
        10 => {
            let inner = [format!("{STAMP} stderr F ").as_bytes(), line].concat();
            string?;
            (format!(r#"{{"message":{}}}"#, json_string(&inner)).into_bytes(), source)
        }
        _ => {
            let inner = format!(r#"{{"log":{},"x":"y"}}"#, string?);
            (format!(r#"{{"message":{}}}"#, json_string(inner.as_bytes())).into_bytes(), Some(json!({"x": "y"})))
        }
    })
}

/// The line means the same within the wrapper, and what the wrapper says is there besides.
fn check(line: &[u8], wrapper: usize) {
    check_by(&Parser::default(), line, wrapper);
}

fn check_by(parser: &Parser, line: &[u8], wrapper: usize) {
    let Some((wrapped, says)) = wrap(wrapper, line) else { return };
    let shown = String::from_utf8_lossy(&wrapped);
    let (bare_kind, bare_time, mut expected) = read(&mut parser.clone(), line);
    let (kind, time_ns, found) = read(&mut parser.clone(), &wrapped);
    assert_eq!(kind, bare_kind, "{shown}");
    if kind == Kind::Other {
        // Bytes that are not UTF-8 are written as the characters of their numbers.
        let latin = || wrapped.iter().map(|byte| char::from(*byte)).collect();
        assert_eq!(found["log"], String::from_utf8(wrapped.clone()).unwrap_or_else(|_| latin()), "{shown}");
        return;
    }
    for (name, value) in says.iter().flat_map(|says| says.as_object().unwrap()) {
        expected[name] = value.clone();
    }
    assert_eq!(found, expected, "{shown}");
    let is_stamped = !matches!(wrapper, 3 | 4 | 7 | 8 | 11);
    let expected_time =
        if bare_time == 0 && is_stamped { parse_rfc3339_ns(STAMP.as_bytes()).unwrap() } else { bare_time };
    assert_eq!(time_ns, expected_time, "{shown}");
}

fn generated(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/envoy-generated/{name}.log.gz"));
    let mut bytes = Vec::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn wrapped_lines_mean_what_they_mean_bare() {
    let mut lines = 0;
    for (name, step) in [
        ("mixed-ecs-json", 7),
        ("mixed-ecs-text", 7),
        ("ecs-http-json-query", 31),
        ("ecs-http-text-query", 31),
        ("ecs-h2-text", 41),
        ("ecs-grpc-text", 41),
        ("ecs-tcp-text", 41),
        ("ecs-tcp-json", 41),
        ("envoy-default-text-debug", 23),
        ("istio-default-text", 41),
    ] {
        let log = generated(name);
        for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).step_by(step) {
            lines += 1;
            (0..WRAPPERS).for_each(|wrapper| check(line, wrapper));
        }
    }
    assert!(lines > 500, "{lines}");
}

#[test]
fn known_lines_of_every_kind_are_known_when_wrapped() {
    for line in [
        r#"time="2023-08-15T08:04:18Z" level=info msg="Envoy Environment Variables: [ENVOY_X=1]""#,
        "[2026-11-22 02:31:33.634][1][warning] [AppNet Agent] exited",
        "2020-08-14T11:35:02.046337Z\ttrace\tenvoy http\t[x.cc:1] y\tthread=4",
        "2022-04-26T13:18:45.676013Z\twarn\txdsproxy\tconnected",
        "I0814 11:35:02.046 24 envoy/source/server/server.cc:404] [24][main]x",
        "cluster.app.upstream_cx_total: 5",
        "app::10.0.0.1:80::cx_active::0",
        r#"{"level":"debug","time":"2023-02-28T10:36:20.575312Z","scope":"envoy http","msg":"[C1] \"new\" stream"}"#,
        r#"{"level":"warning","scope":"envoy config","msg":"desc = "x""}"#,
        r#"{"type":"CONSECUTIVE_5XX","cluster_name":"egress","action":"EJECT"}"#,
        r#"ACCESS [2026-11-22T02:36:32.784Z] "GET /a?b=\u0041 HTTP/1.1" 200 - 0 5 1 0 "-" "c\"" "6d6e08ba-02a3-4a26-968a-2183aa33a56d" "h" "10.0.0.1:80""#,
    ] {
        let (kind, ..) = read(&mut Parser::default(), line.as_bytes());
        assert_ne!(kind, Kind::Other, "{line}");
        (0..WRAPPERS).for_each(|wrapper| check(line.as_bytes(), wrapper));
    }
}

#[test]
fn formats_of_one_s_own_are_read_within_wrappers() {
    let mut formats = Formats::default();
    for spec in [
        "%START_TIME% %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %REQ(X-TENANT)% %REQ(USER-AGENT)%|",
        r#"{"at":"%START_TIME%","p":"%REQ(:PATH)%"}"#,
        "auto",
    ] {
        formats.add("own", spec, &Options::default()).unwrap();
    }
    let parser = Parser::new(Arc::new(formats));
    for line in [
        "2026-11-22T02:36:32.784Z GET /a?b=\"c\" 200 a b|",
        "2026-11-22T02:36:32.784Z GET /a 200 a b c d|",
        "2026-11-22T02:36:32.784Z - - 0 - -|",
        r#"{"p":"/a\"b","at":"2026-11-22T02:36:32.784Z"}"#,
    ] {
        assert_eq!(read(&mut parser.clone(), line.as_bytes()).0, Kind::Access, "{line}");
        (0..WRAPPERS).for_each(|wrapper| check_by(&parser, line.as_bytes(), wrapper));
    }
}

#[test]
fn the_stream_and_the_container_are_said_once() {
    let line = br#"2027-01-30T12:10:13.682034460Z stdout F [2026-11-22 02:31:33.634][1][info][main] x"#;
    let read = |source: &'static [u8]| {
        let mut record = Record::new();
        record.push_envelope(Name::Known(Key::Source), Value::Text(source));
        record.push_envelope(Name::Known(Key::Log), Value::Text(line));
        Parser::default().parse(line, &mut record);
        let mut out = Vec::new();
        encode(&record, &Fragment::default(), &mut out);
        serde_json::from_slice::<Json>(&out).unwrap()
    };
    let log = "[2026-11-22 02:31:33.634][1][info][main] x";
    assert_eq!(read(b"stdout"), json!({"source": "stdout", "log": log, "level": "info", "log_type": "envoy"}));
    let expected =
        json!({"source": "stderr", "log": log, "level": "info", "log_source": "stdout", "log_type": "envoy"});
    assert_eq!(read(b"stderr"), expected);
}

#[test]
fn a_line_may_come_as_a_field_of_another_name() {
    let line = br#"2027-01-30T12:10:13.682034460Z stdout F [2026-11-22 02:31:33.634][1][info][main] x"#;
    let read = |line: &'static [u8]| {
        let mut record = Record::new();
        record.push_envelope(Name::text(b"pod"), Value::Text(b"p"));
        record.push_envelope(Name::text(b"message"), Value::Text(line));
        let is_envoys = Parser::default().recognise(&mut record);
        let mut out = Vec::new();
        encode(&record, &Fragment::default(), &mut out);
        (is_envoys, serde_json::from_slice::<Json>(&out).unwrap())
    };
    let expected = json!({"pod": "p", "message": "[2026-11-22 02:31:33.634][1][info][main] x", "level": "info", "source": "stdout", "log_type": "envoy"});
    assert_eq!(read(line), (true, expected));
    assert_eq!(read(b"web-1  | up"), (false, json!({"pod": "p", "message": "web-1  | up"})));
}

#[test]
fn applications_lines_stay_as_they_are() {
    for line in [
        "web-1  | listening on :8080",
        "2027-01-30T12:10:13.682034460Z listening",
        "2027-01-30T12:10:13.682034460Z stdout F listening",
        "2027-01-30T12:10:13.682034460Z stdout P [2026-11-22T02:36:32.784Z] \"GET / HT",
        r#"{"log":"listening\n","stream":"stdout","time":"2027-01-30T12:10:13.682034460Z"}"#,
        r#"{"level":"info","message":"[1] done"}"#,
        r#"{"message":"{\"level\":\"info\",\"message\":\"web-1 | done\"}"}"#,
        r#"{"message":7,"log":null,"msg":{}}"#,
        "a | b",
        "web-1  | ',path', '/x'",
    ] {
        let (kind, time_ns, json) = read(&mut Parser::default(), line.as_bytes());
        assert_eq!((kind, time_ns, json), (Kind::Other, 0, json!({ "log": line })), "{line}");
    }
}

#[test]
fn nothing_of_a_query_is_left_in_any_form() {
    let redactor = Redactor::new(&Config::default());
    let object = |path: &str, rest: &str| {
        format!(
            r#"{{"start_time":"2026-11-22T02:36:32.784Z","method":"GET","response_code":200,"authority":"a","path":"{path}"{rest}}}"#
        )
    };
    let lines = [
        r#"[2026-11-22T02:36:32.784Z] "GET /x?token=SECRET HTTP/1.1" 200 - 0 5 1 0 "-" "c \" "6d6e08ba-02a3-4a26-968a-2183aa33a56d" "h" "10.0.0.1:80""#.to_owned(),
        r#"[2026-11-22T02:36:32.784Z] unknown layout /x?token=SECRET"#.to_owned(),
        r#"[2026-11-22 02:31:33.634][1][debug][router] [x.cc:1] cluster 'c' match for URL '/x?token=SECRET'"#.to_owned(),
        r#"{"level":"warning","scope":"envoy config","msg":"see "/x?token=SECRET"""#.to_owned(),
        r#"{"level":"warning","scope":"envoy config","msg":"see \"/x?token=SECRET\""}"#.to_owned(),
        r#"time="2023-08-15T08:04:18Z" level=info msg="Envoy Environment Variables: [ENVOY_TOKEN=SECRET]""#.to_owned(),
        "[2026-11-22 02:31:33.634][1][debug][http] [x.cc:1] headers: ':path', '/x?token=SECRET'".to_owned(),
        "[2026-11-22 02:31:33.634][1][debug][http] [x.cc:1] headers: 'authorization', 'Bearer SECRET'".to_owned(),
        object("/x?token=SECRET", ""),
        object(r"/x\u003ftoken=SECRET", ""),
        object(r"/x\077token=SECRET\303", ""),
        object(r"/\303?token=SECRET", ""),
        object("/", r#","n":{"url":["/\303?token=SECRET"]}"#),
        object("/", r#","/\303?token=SECRET":1"#),
        object("/", r#","path":"/y?token=SECRET""#),
        object("/", r#","user_agent":"{"a":1}","x":"/y?token=SECRET""#),
        object("/x?token=SECRET", r#","user_agent":"{"a":1}""#),
    ];
    for line in lines {
        let wrapped = (0..WRAPPERS).filter_map(|wrapper| wrap(wrapper, line.as_bytes())).map(|(wrapped, _)| wrapped);
        for line in std::iter::once(line.clone().into_bytes()).chain(wrapped) {
            let mut record = Record::new();
            record.push_envelope(Name::Known(Key::Log), Value::Text(&line));
            Parser::default().parse(&line, &mut record);
            redactor.redact(&mut record);
            let mut out = Vec::new();
            encode(&record, &Fragment::default(), &mut out);
            let shown = String::from_utf8_lossy(&out);
            assert!(!shown.contains("SECRET"), "{shown}of {}", String::from_utf8_lossy(&line));
            serde_json::from_slice::<Json>(&out).unwrap();
        }
    }
}

#[test]
fn lines_of_a_megabyte_are_read_whole() {
    let filler = "a\\u00e9".repeat(150_000);
    let line = format!(
        r#"{{"start_time":"2026-11-22T02:36:32.784Z","method":"GET","response_code":200,"authority":"a","path":"/{filler}"}}"#
    );
    for wrapper in [1, 6, 11] {
        check(line.as_bytes(), wrapper);
    }
    let (kind, _, json) = read(&mut Parser::default(), line.as_bytes());
    assert_eq!((kind, json["path"].as_str().unwrap().len()), (Kind::Access, 1 + 3 * 150_000));
}

#[test]
fn nothing_of_a_cut_line_does_harm() {
    let object = br#"{"start_time":"2026-11-22T02:36:32.784Z","method":"GET","response_code":200,"authority":"a","path":"/\303\u00e9\\"}"#;
    for wrapper in 0..WRAPPERS {
        let (wrapped, _) = wrap(wrapper, object).unwrap();
        for cut in 0..wrapped.len() {
            let (kind, ..) = read(&mut Parser::default(), &wrapped[..cut]);
            assert_ne!(kind, Kind::Access, "{cut}");
            let _ = read(&mut Parser::default(), &wrapped[cut..]);
        }
    }
    let line = br#"[2026-11-22T02:36:32.784Z] "GET /a?b=1 HTTP/1.1" 200 - 0 5 1 0 "-" "c" "6d6e08ba-02a3-4a26-968a-2183aa33a56d" "h" "10.0.0.1:80""#;
    for wrapper in 0..WRAPPERS {
        let (wrapped, _) = wrap(wrapper, line).unwrap();
        for cut in 0..wrapped.len() {
            let (kind, _, json) = read(&mut Parser::default(), &wrapped[..cut]);
            assert!(kind != Kind::Access || json["upstream_host"].is_null() || cut + 3 > wrapped.len(), "{cut} {json}");
            let _ = read(&mut Parser::default(), &wrapped[cut..]);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_outcome_in_every_wrapper(
        wrapper in 0..WRAPPERS,
        start in prop::sample::select(vec!["", "{", "[2026-11-22T02:36:32.784Z] \"GET ", "[2026-11-22 02:31:33.634][1][info]", "{\"log\":\"", "{\"start_time\":\""]),
        rest in proptest::collection::vec(any::<u8>().prop_filter("a line has no newline", |byte| !b"\n\r".contains(byte)), 0..40),
    ) {
        check(&[start.as_bytes(), &rest].concat(), wrapper);
    }

    #[test]
    fn json_with_anything_in_it_comes_out_as_json(
        path in proptest::collection::vec(prop_oneof![
            prop::sample::select(vec![&b"\\303"[..], b"\\042", b"\\\"", b"\\\\", b"\\ud800", b"\\u00e9", b"\xff", b"\t", b"/a", b"?x=1", b"\\\\\\\""])
        ], 0..6),
        wrapper in 0..WRAPPERS,
    ) {
        let path = path.concat();
        let line = [
            &b"{\"start_time\":\"2026-11-22T02:36:32.784Z\",\"method\":\"GET\",\"response_code\":200,\"authority\":\"a\",\"duration\":1e+06,\"n\":[{\"p\":\""[..],
            &path, b"\"}],\"path\":\"", &path, b"\"}",
        ].concat();
        let (kind, _, json) = read(&mut Parser::default(), &line);
        prop_assert_eq!(kind, Kind::Access);
        prop_assert_eq!(&json["path"], &json["n"][0]["p"]);
        check(&line, wrapper);
    }
}
