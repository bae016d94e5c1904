//! No part of a query string comes out of redact and encode, wherever and however it came in.

#![allow(clippy::unwrap_used, reason = "a test")]

use meshlens::encode::{Fragment, encode};
use meshlens::record::{Field, Kind, Name, Record, Span, Value, json};
use meshlens::redact::{Config, Policy, Redactor, Secret};
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
    Redactor::new(&Config { query: policy, ..Config::default() }).redact(&mut record);
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
