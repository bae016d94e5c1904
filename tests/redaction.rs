//! No part of a query string, and no other secret, comes out of redact and encode, wherever and however it came in.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Read as _;

use meshlens::encode::{Fragment, encode};
use meshlens::envoy::Parser;
use meshlens::record::{Field, Kind, Name, Record, Span, Value, json};
use meshlens::redact::{Config, Detector, FieldClass, Parameters, Policy, Redactor, Secret};
use proptest::prelude::*;

const MARKER: &str = "MARKER9x";

/// Parts of names and values that a scanner may trip over. None holds a blank, and no quote is followed by what follows a
/// closing one.
const PIECES: &[&str] = &[
    "\"q",
    "'q",
    "`q",
    "=\"q",
    "='q",
    ",\"q",
    "{\"a\":\"",
    "{'a':'",
    "[\"\",\"b",
    "\",)q",
    "\"}]|q",
    "';q",
    "','q",
    "';\"]q",
    "\\\"q",
    "\\",
    "%22",
    "%26",
    "%3D",
    "%20",
    "+",
    ";",
    ",",
    ":",
    "/",
    "?",
    "%3F",
    "%3f",
    "%253f",
    "\\u003f",
    "%",
    "%25",
    "(",
    ")",
    "]",
    "}",
    ">",
    "\u{e9}",
    "\u{a0}",
    "\u{1}",
    "\0",
    "abc",
    "1",
    "~",
    "***",
    "@",
    "://",
];
const MARKS: &[&str] = &["?", "?", "?", "%3F", "%3f", "%253F", "%25253f", "\\u003f", "\\\\u003F", "\\x3f"];
/// What stands around a URL.
const AROUND: &[(&str, &str)] = &[
    ("", ""),
    ("GET ", " HTTP/1.1"),
    ("[t] \"GET ", " HTTP/1.1\" 200 - \"-\" \"agent\""),
    ("{\"url\":\"", "\",\"n\":1}"),
    ("{\"msg\":\"GET ", " now\",\"n\":1}"),
    ("{\\\"uri\\\":\\\"", "\\\",\\\"n\\\":1}"),
    ("':path', '", "'"),
    ("cluster 'c' match for URL '", "'"),
    ("b'", "', 'next'"),
    ("it's a 5\" (", ") one"),
    ("who? me? ", "\n':method', 'GET'"),
    ("/other?x=y ", " /third?z"),
    ("\"first\", 'second', `", "`"),
    ("100% \\", "\t"),
];

#[derive(Clone, Copy, Debug)]
enum Carrier {
    Text,
    JsonInside,
    Document,
    DocumentName,
    Packed,
    PackedName,
    Scratch,
    ScratchJson,
    NameText,
    NameJson,
}

const CARRIERS: &[Carrier] = &[
    Carrier::Text,
    Carrier::JsonInside,
    Carrier::Document,
    Carrier::DocumentName,
    Carrier::Packed,
    Carrier::PackedName,
    Carrier::Scratch,
    Carrier::ScratchJson,
    Carrier::NameText,
    Carrier::NameJson,
];
const NAMES: &[&str] = &[
    "log",
    "path",
    "authority",
    "user_agent",
    "forwarded_for",
    "x-envoy-original-path",
    "request",
    "referer",
    "other",
    "query_string",
    "",
];

fn secret_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Mask), Just(Policy::Hash { key: Secret(b"key".as_slice().into()) })]
}

fn pieces() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(PIECES), 0..5).prop_map(|pieces| pieces.concat())
}

/// A value with the marker somewhere in it.
fn marked() -> impl Strategy<Value = String> {
    (pieces(), pieces()).prop_map(|(before, after)| format!("{before}{MARKER}{after}"))
}

fn plain_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "token", "X-Amz-Signature", "a[]"][..])
}

/// A query whose values hold the marker; in the first parameter's name too if `in_names`.
fn query(in_names: bool) -> BoxedStrategy<String> {
    let name =
        if in_names { prop_oneof![marked(), pieces()].boxed() } else { plain_name().prop_map(str::to_owned).boxed() };
    let parameter = (name, marked()).prop_map(|(name, value)| format!("{name}={value}"));
    let bare = marked().prop_map(|value| value.replace('=', ""));
    let parameter = if in_names { prop_oneof![parameter, bare].boxed() } else { parameter.boxed() };
    proptest::collection::vec(parameter, 1..3).prop_map(|parameters| parameters.join("&")).boxed()
}

fn line(in_names: bool) -> impl Strategy<Value = String> {
    (prop::sample::select(AROUND), prop::sample::select(MARKS), query(in_names))
        .prop_map(|((before, after), mark, query)| format!("{before}/x{mark}{query}{after}"))
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Access), Just(Kind::Envoy), Just(Kind::Other)]
}

/// The line as the inside of a JSON string, marks escaped if asked for.
fn inside(line: &str, escape_marks: bool) -> String {
    let mut out = Vec::new();
    json::escape(line.as_bytes(), &mut out);
    let inside = String::from_utf8(out).unwrap();
    if escape_marks { inside.replace('?', "\\u003f").replace('/', "\\/") } else { inside }
}

/// What comes out for a record that carries the line in the given way.
fn output(policy: Policy, kind: Kind, carrier: Carrier, name: &str, line: &str, escape_marks: bool) -> String {
    output_of(&Config { query: policy, ..Config::default() }, kind, carrier, name, line, escape_marks)
}

fn output_of(config: &Config, kind: Kind, carrier: Carrier, name: &str, line: &str, escape_marks: bool) -> String {
    let inside = inside(line, escape_marks);
    let deep =
        |value: rmpv::Value| rmpv::Value::Map(vec![(name.into(), rmpv::Value::Array(vec![rmpv::Value::Nil, value]))]);
    let (text, mut packed, mut document) = (line.as_bytes(), Vec::new(), String::new());
    let mut record = Record::new();
    record.kind = kind;
    record.scratch.extend_from_slice(text);
    let own_name = Name::text(name.as_bytes());
    let (name, value) = match carrier {
        Carrier::Text => (own_name, Value::Text(text)),
        Carrier::JsonInside => (own_name, Value::Json(inside.as_bytes())),
        Carrier::Scratch => (own_name, Value::Scratch(Span { start: 0, end: text.len() as u32 })),
        Carrier::Document | Carrier::ScratchJson => {
            document = format!("[1,{{\"{name}\" : [\"{inside}\",null]}},\"{inside}\"]");
            (own_name, Value::JsonValue(document.as_bytes()))
        }
        Carrier::DocumentName => {
            document = format!("{{\"{inside}\":{{\"{inside}\" :1}}}}");
            (own_name, Value::JsonValue(document.as_bytes()))
        }
        Carrier::Packed => {
            rmpv::encode::write_value(&mut packed, &deep(line.into())).unwrap();
            (own_name, Value::MsgPack(&packed))
        }
        Carrier::PackedName => {
            let value = rmpv::Value::Map(vec![(rmpv::Value::Binary(text.to_vec()), 1.into())]);
            rmpv::encode::write_value(&mut packed, &deep(value)).unwrap();
            (own_name, Value::MsgPack(&packed))
        }
        Carrier::NameText => (Name::text(text), Value::Null),
        Carrier::NameJson => (Name::json(inside.as_bytes()), Value::Null),
    };
    let value = if matches!(carrier, Carrier::ScratchJson) {
        let start = record.scratch.len() as u32;
        record.scratch.extend_from_slice(document.as_bytes());
        Value::ScratchJson(Span { start, end: record.scratch.len() as u32 })
    } else {
        value
    };
    record.push_envelope(name, value);
    record.parsed.push(Field { name, value });
    Redactor::new(config).redact(&mut record);
    let mut out = Vec::new();
    encode(&record, &Fragment::default(), &mut out);
    String::from_utf8(out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn strip_lets_no_query_through(kind in kind(), carrier in prop::sample::select(CARRIERS), name in prop::sample::select(NAMES), line in line(true), escape_marks: bool) {
        let out = output(Policy::Strip, kind, carrier, name, &line, escape_marks);
        prop_assert!(!out.contains(MARKER), "{}\n -> {}", line.escape_debug(), out);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
    }

    #[test]
    fn mask_and_hash_let_no_value_through(policy in secret_policy(), kind in kind(), carrier in prop::sample::select(CARRIERS), name in prop::sample::select(NAMES), line in line(false), escape_marks: bool) {
        let out = output(policy, kind, carrier, name, &line, escape_marks);
        prop_assert!(!out.contains(MARKER), "{}\n -> {}", line.escape_debug(), out);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
    }

    #[test]
    fn keep_lets_nothing_else_through(kind in kind(), carrier in prop::sample::select(CARRIERS), name in prop::sample::select(NAMES), line in line(false), escape_marks: bool) {
        let out = output(Policy::Keep(vec!["b".to_owned()]), kind, carrier, name, &line, escape_marks);
        prop_assert!(!out.contains(MARKER), "{}\n -> {}", line.escape_debug(), out);
    }

    #[test]
    fn a_line_as_scrubbed_text_holds_no_query(line in line(true)) {
        let mut out = Vec::new();
        Redactor::new(&Config::default()).scrub_text(line.as_bytes(), &mut out);
        prop_assert!(!String::from_utf8(out).unwrap().contains(MARKER), "{}", line);
    }

    #[test]
    fn what_holds_no_query_comes_out_as_it_went_in(kind in kind(), carrier in prop::sample::select(CARRIERS), text in "[a-zA-Z0124-689 \"'\\\\,.:;=&{}\\[\\]/_-]{0,60}") {
        let clean = output(Policy::Strip, kind, carrier, "other", &text, false);
        let off = output(Policy::Keep(Vec::new()), kind, carrier, "other", &text, false);
        prop_assert_eq!(clean, off);
    }
}

/// Any policy that does not turn redaction off, with rules and detectors beside it.
fn configs() -> impl Strategy<Value = Config> {
    let policies = prop_oneof![Just(Policy::Strip), Just(Policy::Keep(vec!["b".to_owned()])), secret_policy()];
    let parameters = prop_oneof![
        Just(Parameters::default()),
        Just(Parameters { mask: vec!["token".to_owned()], keep: vec!["b".to_owned()], ..Parameters::default() }),
    ];
    let detectors = prop::sample::subsequence(Detector::ALL.to_vec(), 0..=5);
    (policies, parameters, detectors, any::<bool>()).prop_map(|(query, parameters, detectors, matrix_parameters)| {
        Config {
            query,
            parameters,
            detectors,
            matrix_parameters,
            fields: vec![("mine".to_owned(), FieldClass::Secret)],
            headers: vec!["x-mine".to_owned()],
            ..Config::default()
        }
    })
}

/// Carriers under whose name the line stands as a value.
const VALUES: &[Carrier] =
    &[Carrier::Text, Carrier::JsonInside, Carrier::Document, Carrier::Packed, Carrier::Scratch, Carrier::ScratchJson];

/// Names of secrets, in several spellings.
const SECRETS: &[&str] = &[
    "cookie",
    "Set-Cookie",
    "header:cookie",
    "req.headers.cookie",
    "authorization",
    "PROXY_AUTHORIZATION",
    "x-api-key",
    "xApiKey",
    "x-amz-security-token",
    "X-Auth-Token",
    "x_csrf_token",
    "mine",
    "MINE",
    "x-mine",
    "response_headers.X_MINE",
];

/// Notations of headers in running text; `NAME` and `@` are the places of name and value.
const NOTATIONS: &[&str] = &[
    "[debug] request headers complete:\n':path', '/'\n'NAME', '@'\n':method', 'GET'",
    "'NAME', '@'",
    "x {\"NAME\":\"@\",\"n\":1} y",
    "x {\"NAME\": \"@\"}",
    "x {\\\"NAME\\\":\\\"@\\\",\\\"n\\\":1} y",
    "{'NAME': '@', 'n': 1}",
    "map[NAME:[@] Accept:[x]]",
    "(b\"NAME\", b\"@\")",
    "\"NAME\"=>\"@\"",
    "> NAME: @\r\n> Host: h",
    "NAME=@ next=1",
    "msg=\"NAME: @\" level=info",
];

/// Lines with a marked secret that is no query.
fn other_line() -> impl Strategy<Value = String> {
    let word = "[a-zA-Z0-9._~+/=%-]{0,8}";
    let value = (word, word).prop_map(|(before, after)| format!("{before}{MARKER}{after}"));
    let host = (word, word).prop_map(|(before, after)| {
        let clean = |text: String| text.replace(['/', '%'], "");
        format!("{}{MARKER}{}", clean(before), clean(after))
    });
    let header = (prop::sample::select(NOTATIONS), prop::sample::select(SECRETS), value.clone()).prop_map(
        |(notation, name, value)| {
            let name = if name.eq_ignore_ascii_case("mine") { "x-mine" } else { name };
            notation.replace("NAME", name).replace('@', &value)
        },
    );
    let cookie =
        (value.clone(), value.clone()).prop_map(|(one, other)| format!("> cookie: a={one}; b={other}\n> x: y"));
    let bearer = value.clone().prop_map(|value| format!("Authorization: Bearer {value} rest"));
    let digest = value.clone().prop_map(|value| format!("authorization: Digest a=\"{value}\", b=\"{value}\""));
    let dump = (value.clone(), value.clone()).prop_map(|(one, other)| {
        format!("level=info msg=\"Envoy Environment Variables: [A={one} B_2=c {other} D= E={{\\\"{other}\\\":1}}]\"")
    });
    let user = (prop::sample::select(&["", "see ", "url=\""][..]), host)
        .prop_map(|(before, host)| format!("{before}https://u:{host}@h.example/x"));
    let fragment = value.prop_map(|value| format!("to https://h.example/cb#{value} now, /cb#access_token={value}"));
    prop_oneof![4 => header, 1 => cookie, 1 => bearer, 1 => digest, 1 => dump, 1 => user, 1 => fragment]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_value_of_a_secret_comes_through(config in configs(), kind in kind(), carrier in prop::sample::select(VALUES), name in prop::sample::select(SECRETS), before in "\\PC{0,12}", after in "\\PC{0,12}", escape_marks: bool) {
        let out = output_of(&config, kind, carrier, name, &format!("{before}{MARKER}{after}"), escape_marks);
        // The document that some carriers are has the value once more, under the outer name.
        prop_assert!(!out.contains(MARKER), "{}", out);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
    }

    #[test]
    fn no_other_secret_comes_through(config in configs(), kind in prop_oneof![Just(Kind::Other), Just(Kind::Envoy)], carrier in prop::sample::select(VALUES), name in prop::sample::select(NAMES), line in other_line(), escape_marks: bool) {
        let out = output_of(&config, kind, carrier, name, &line, escape_marks);
        prop_assert!(!out.contains(MARKER), "{}\n -> {}", line.escape_debug(), out);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
        let mut text = Vec::new();
        Redactor::new(&config).scrub_text(line.as_bytes(), &mut text);
        let text = String::from_utf8(text).unwrap();
        prop_assert!(!text.contains(MARKER), "{}\n -> {}", line.escape_debug(), text);
    }

    #[test]
    fn a_second_redaction_changes_nothing(config in configs(), line in prop_oneof![line(true), other_line()], name in prop::sample::select(NAMES)) {
        let redactor = Redactor::new(&config);
        let scrub = |text: &str| {
            let mut out = Vec::new();
            redactor.scrub_text(text.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let once = scrub(&line);
        prop_assert_eq!(&scrub(&once), &once, "{}", line.escape_debug());
        // And of a record, through what a dead letter is read from.
        let first = output_of(&config, Kind::Access, Carrier::Text, name, &line, false);
        let value = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&first).unwrap();
        if let Some(serde_json::Value::String(value)) = value.get(name) {
            let second = output_of(&config, Kind::Access, Carrier::Text, name, value, false);
            prop_assert_eq!(second, first);
        }
    }

    /// Within the line, one search tells for all fields whether they are looked at; elsewhere each is searched.
    #[test]
    fn fields_of_the_line_fare_as_fields_elsewhere(config in configs(), kind in kind(), parts in proptest::collection::vec((prop::sample::select(NAMES), prop_oneof![line(true), other_line(), pieces()]), 1..4)) {
        let whole: String = parts.iter().map(|(_, part)| format!(" {part}")).collect();
        let copies: Vec<String> = parts.iter().map(|(_, part)| part.clone()).collect();
        let mut outputs = Vec::new();
        for within in [true, false] {
            let mut record = Record::new();
            record.kind = kind;
            record.push_envelope(Name::text(b"log"), Value::Text(whole.as_bytes()));
            let mut at = 0;
            for ((name, part), copy) in parts.iter().zip(&copies) {
                let here = &whole[at + 1..at + 1 + part.len()];
                at += 1 + part.len();
                let value = if within { here.as_bytes() } else { copy.as_bytes() };
                record.parsed.push(Field { name: Name::text(name.as_bytes()), value: Value::Text(value) });
            }
            Redactor::new(&config).redact(&mut record);
            let mut out = Vec::new();
            encode(&record, &Fragment::default(), &mut out);
            outputs.push(String::from_utf8(out).unwrap());
        }
        prop_assert_eq!(&outputs[0], &outputs[1]);
    }
}

/// Lines that real programs printed.
fn corpus() -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/envoy-generated");
    let mut lines = Vec::new();
    for file in [
        "ecs-http-json-query",
        "ecs-http-json-debug",
        "envoy-default-text-debug",
        "mixed-ecs-text",
        "istio-default-text",
    ] {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(directory.join(format!("{file}.log.gz"))).unwrap();
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        lines.extend(bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    lines
}

#[test]
fn real_lines_are_redacted_once_and_stay_what_they_were() {
    let keep = Policy::Keep(vec!["page".to_owned()]);
    let hash = Policy::Hash { key: Secret(b"key".as_slice().into()) };
    for query in [Policy::Strip, keep, Policy::Mask, hash] {
        let config = Config { query, detectors: Detector::ALL.to_vec(), matrix_parameters: true, ..Config::default() };
        let redactor = Redactor::new(&config);
        let (mut parser, mut changed) = (Parser::default(), 0);
        for line in corpus() {
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            redactor.scrub_text(&line, &mut once);
            redactor.scrub_text(&once, &mut twice);
            assert_eq!(once.escape_ascii().to_string(), twice.escape_ascii().to_string(), "{}", line.escape_ascii());
            assert_eq!(
                std::str::from_utf8(&line).is_ok(),
                std::str::from_utf8(&once).is_ok(),
                "{}",
                line.escape_ascii()
            );
            let is_json = |line: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
            assert_eq!(is_json(&line), is_json(&once), "{}", line.escape_ascii());
            changed += usize::from(once != line);
            let (mut record, mut out) = (Record::new(), Vec::new());
            record.push_envelope(Name::text(b"log"), Value::Text(&line));
            parser.parse(&line, &mut record);
            redactor.redact(&mut record);
            encode(&record, &Fragment::default(), &mut out);
            assert!(is_json(&out), "{}", line.escape_ascii());
        }
        assert!(changed > 1000, "{changed}");
    }
}
