use std::collections::HashSet;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::json;

use super::*;
use crate::record::Span;

fn fragment() -> Fragment {
    Fragment::new([
        ("ecs_cluster".to_owned(), json!("c")),
        ("source".to_owned(), json!("fragment")),
        ("n".to_owned(), json!({"a": [1, null]})),
    ])
}

fn line(record: &Record<'_>, fragment: &Fragment) -> String {
    let mut out = b"earlier\n".to_vec();
    encode(record, fragment, &mut out);
    String::from_utf8(out).unwrap().strip_prefix("earlier\n").unwrap().to_owned()
}

/// Members of an object in order, doubles included.
struct Members(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

fn names(line: &str) -> Vec<String> {
    serde_json::from_str::<Members>(line).unwrap().0.into_iter().map(|(name, _)| name).collect()
}

fn field<'a>(name: Name<'a>, value: Value<'a>) -> Field<'a> {
    Field { name, value }
}

#[test]
fn an_access_log_stands_in_place_of_its_line() {
    let mut record = Record::new();
    record.kind = Kind::Access;
    record.push_envelope(Name::text(b"container_name"), Value::Text(b"envoy"));
    record.push_envelope(Name::text(b"log"), Value::Text(b"the line"));
    record.push_envelope(Name::text(b"source"), Value::Text(b"stdout"));
    record.parsed.push(field(Name::Known(Key::Path), Value::Json(br"\/a")));
    record.parsed.push(field(Name::Known(Key::ResponseCode), Value::Number(b"2e2")));
    record.mark_ambiguous(Key::UserAgent);
    record.mark_ambiguous(Key::Path);
    assert_eq!(
        line(&record, &fragment()),
        concat!(
            r#"{"container_name":"envoy","path":"\/a","response_code":2e2,"source":"stdout","log_type":"access","#,
            r#""parse_ambiguous":["path","user_agent"],"ecs_cluster":"c","n":{"a":[1,null]}}"#,
            "\n"
        )
    );
}

#[test]
fn any_other_record_keeps_its_line() {
    let mut record = Record::new();
    record.push_envelope(Name::text(b"log"), Value::Text(b"a \"line\""));
    record.push_envelope(Name::text(b"x"), Value::Null);
    assert_eq!(line(&record, &Fragment::default()), "{\"log\":\"a \\\"line\\\"\",\"x\":null}\n");
    record.kind = Kind::Envoy;
    record.parsed.push(field(Name::Known(Key::Level), Value::Text(b"info")));
    assert_eq!(
        line(&record, &Fragment::default()),
        "{\"log\":\"a \\\"line\\\"\",\"level\":\"info\",\"x\":null,\"log_type\":\"envoy\"}\n"
    );
}

#[test]
fn a_record_without_fields_is_an_object() {
    assert_eq!(line(&Record::new(), &Fragment::default()), "{}\n");
    assert_eq!(line(&Record::new(), &Fragment::new([("a".to_owned(), json!(1))])), "{\"a\":1}\n");
}

#[test]
fn every_value_is_valid_json_on_one_line() {
    let mut record = Record::new();
    record.scratch.extend_from_slice(b"te\"xt[1,\n2]");
    for (name, value) in [
        (&b"a"[..], Value::Bool(true)),
        (b"b", Value::Int(-7)),
        (b"c", Value::UInt(u64::MAX)),
        (b"d", Value::Float(0.1)),
        (b"e", Value::Float(f64::INFINITY)),
        (b"f", Value::Text(b"caf\xe9\n")),
        (b"g", Value::JsonValue(b"{\"x\":\r\n[ ]}")),
        (b"h", Value::MsgPack(b"\x81\xa1k\x93\xc0\xc2\x05")),
        (b"i", Value::Scratch(Span { start: 0, end: 5 })),
        (b"j", Value::ScratchJson(Span { start: 5, end: 11 })),
        (b"k", Value::Scratch(Span { start: 9, end: 99 })),
        (b"l", Value::ScratchJson(Span { start: 7, end: 3 })),
        (b"m", Value::MsgPack(b"\x81")),
        (b"o", Value::Number(b"")),
    ] {
        record.push_envelope(Name::text(name), value);
    }
    assert_eq!(
        line(&record, &Fragment::default()),
        concat!(
            r#"{"a":true,"b":-7,"c":18446744073709551615,"d":0.1,"e":null,"f":"café\n","g":{"x":  [ ]},"#,
            r#""h":{"k":[null,false,5]},"i":"te\"xt","j":[1, 2],"k":"","l":null,"m":null,"o":null}"#,
            "\n"
        )
    );
}

#[test]
fn names_that_clash_are_told_apart() {
    let mut record = Record::new();
    record.kind = Kind::Access;
    for name in ["source", "log_type", "log_source", "x", "x", "x_2", "log"] {
        record.push_envelope(Name::text(name.as_bytes()), Value::Text(b"own"));
    }
    record.push_envelope(Name::text(b"late"), Value::Null);
    record.mark_ambiguous(Key::Path);
    for name in ["source", "log_type", "late", "p", "p", "parse_ambiguous", "log"] {
        record.parsed.push(field(Name::text(name.as_bytes()), Value::Null));
    }
    assert_eq!(
        names(&line(&record, &fragment())),
        [
            "source",
            "log_log_type",
            "log_source",
            "x",
            "x_3",
            "x_2",
            "log_source_2",
            "log_log_type_2",
            "log_late",
            "p",
            "p_2",
            "log_parse_ambiguous",
            "log",
            "late",
            "log_type",
            "parse_ambiguous",
            "ecs_cluster",
            "n"
        ]
    );
}

#[test]
fn names_are_the_same_if_they_say_the_same() {
    for (one, other) in [
        (Name::json(b"a"), Name::json(br"\u0061")),
        (Name::text(b"caf\xe9"), Name::text("café".as_bytes())),
        (Name::text(b"a\\"), Name::json(br"a\\")),
        (Name::Text(b"path"), Name::Known(Key::Path)),
        (Name::json(br"pat\u0068"), Name::Known(Key::Path)),
        (Name::text(b"a"), Name::text(b"a")),
        (Name::Known(Key::Path), Name::Known(Key::Path)),
    ] {
        for (first, second) in [(one, other), (other, one)] {
            let mut record = Record::new();
            record.push_envelope(first, Value::Null);
            record.push_envelope(second, Value::Null);
            let names = names(&line(&record, &Fragment::default()));
            assert_eq!(names.len(), 2);
            assert_eq!(names[1], format!("{}_2", names[0]), "{first:?} {second:?}");
        }
    }
}

#[test]
fn the_record_wins_over_enrichment_except_for_what_meshlens_says() {
    let fragment = Fragment::new([
        ("log_type".to_owned(), json!("mine")),
        ("ecs_cluster".to_owned(), json!(1)),
        ("a".to_owned(), json!(1)),
        ("ecs_cluster".to_owned(), json!(2)),
    ]);
    let mut record = Record::new();
    assert_eq!(line(&record, &fragment), "{\"log_type\":\"mine\",\"ecs_cluster\":2,\"a\":1}\n");
    record.push_envelope(Name::json(br"ecs_\u0063luster"), Value::Null);
    assert_eq!(names(&line(&record, &fragment)), ["ecs_cluster", "log_type", "a"]);
    record.kind = Kind::Envoy;
    assert_eq!(line(&record, &fragment), "{\"ecs_\\u0063luster\":null,\"log_type\":\"envoy\",\"a\":1}\n");
}

#[test]
fn enrichment_beyond_64_entries_can_be_overridden() {
    let fragment = Fragment::new((0..100).map(|at| (format!("f{at}"), json!(at))));
    let mut record = Record::new();
    record.push_envelope(Name::text(b"f99"), Value::Null);
    record.push_envelope(Name::text(b"f3"), Value::Null);
    let names = names(&line(&record, &fragment));
    assert_eq!(names.len(), 100);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), 100);
}

#[test]
fn many_fields_of_one_name_stay_cheap_and_distinct() {
    let mut record = Record::new();
    for _ in 0..20_000 {
        record.push_envelope(Name::text(b"a"), Value::Null);
    }
    let names = names(&line(&record, &Fragment::default()));
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), 20_000);
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"a_2",
    b"log_a",
    b"log",
    b"log_log",
    b"path",
    b"log_type",
    b"log_log_type",
    b"parse_ambiguous",
    b"ecs_cluster",
    b"source",
    b"n",
    b"",
    b"caf\xe9",
    b"caf\xc3\xa9",
    b"\"",
    b"\n",
    b"\\",
    b"log_path",
    b"path_2",
    b"container_id",
];
const JSON_NAMES: &[&[u8]] = &[
    br"\u0061",
    b"a",
    br"lo\u0067",
    br"\\",
    br"\n",
    br"\u000a",
    b"caf\xc3\xa9",
    br"caf\u00e9",
    br"ecs\u005fcluster",
    br"\ud800",
    b"",
];
const SCRATCH: &[u8] = b"path[1,\"ab\"]\xff\"";

fn name() -> impl Strategy<Value = Name<'static>> {
    prop_oneof![
        4 => prop::sample::select(NAMES).prop_map(Name::text),
        1 => prop::sample::select(NAMES).prop_map(Name::Text),
        2 => prop::sample::select(JSON_NAMES).prop_map(Name::json),
        1 => prop::sample::select(&KEYS[..]).prop_map(Name::Known),
        1 => (0_u32..5, 0_u32..20).prop_map(|(start, end)| Name::Scratch(Span { start, end })),
    ]
}

const TEXTS: &[&[u8]] =
    &[b"", b"text", b"\xff\"\\\x00\x1f\x7f", "日本\u{2028}".as_bytes(), b"0123456789abcdef\n0123456789abcdef"];
const NUMBERS: &[&[u8]] = &[b"1", b"-0.5e-7", b"1e+06"];
const INSIDES: &[&[u8]] = &[b"", br#"\"\\\/\u0000"#, br"\ude00", "日本".as_bytes()];
const DOCUMENTS: &[&[u8]] = &[b"{}", b"[1,\n{\"a\":null}]", br#"["\ud800"]"#];
const PACKED: &[&[u8]] = &[
    b"\xc0",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\x91\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\xd4\x05\xff",
    b"\xd7\x00\0\0\0\x01\0\0\0\x02",
    b"\x81",
    b"",
    b"\xc1",
    b"\x81\x90\x90",
];

fn value() -> impl Strategy<Value = Value<'static>> {
    let span = || (0_u32..20, 0_u32..20).prop_map(|(start, end)| Span { start, end });
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        any::<f64>().prop_map(Value::Float),
        prop::sample::select(NUMBERS).prop_map(Value::Number),
        prop::sample::select(TEXTS).prop_map(Value::Text),
        prop::sample::select(INSIDES).prop_map(Value::Json),
        prop::sample::select(DOCUMENTS).prop_map(Value::JsonValue),
        prop::sample::select(PACKED).prop_map(Value::MsgPack),
        span().prop_map(Value::Scratch),
        Just(Value::ScratchJson(Span { start: 4, end: 12 })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_record_is_one_line_of_json_with_unique_names(
        kind in prop_oneof![Just(Kind::Access), Just(Kind::Envoy), Just(Kind::Other)],
        envelope in proptest::collection::vec((name(), value()), 0..24),
        parsed in proptest::collection::vec((name(), value()), 0..8),
        ambiguous in prop_oneof![Just(0), any::<u64>()],
        log in prop_oneof![Just(None), (0_usize..30).prop_map(Some)],
    ) {
        let mut record = Record::new();
        record.kind = kind;
        record.ambiguous = ambiguous;
        record.scratch.extend_from_slice(SCRATCH);
        for (name, value) in &envelope {
            record.push_envelope(*name, *value);
        }
        record.log = record.log.or(log);
        record.parsed.extend(parsed.iter().map(|(name, value)| field(*name, *value)));

        let line = line(&record, &fragment());
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1), "{}", line);
        let members = serde_json::from_str::<Members>(&line).map_err(|error| TestCaseError::fail(format!("{error}: {line}")))?.0;
        let unique: HashSet<&String> = members.iter().map(|(name, _)| name).collect();
        prop_assert_eq!(unique.len(), members.len(), "{}", line);
        // Nothing is lost: each field, and each name that is added, is there.
        let log_written = record.log.is_none_or(|at| at >= envelope.len() || kind != Kind::Access);
        prop_assert!(members.len() >= envelope.len() - usize::from(!log_written) + parsed.len());
        for name in ["ecs_cluster", "source", "n"] {
            prop_assert!(unique.contains(&name.to_owned()), "{}", name);
        }
        prop_assert_eq!(kind.log_type().is_some(), members.iter().any(|(name, value)| name == "log_type" && Some(value.as_str()) == Some(kind.log_type()) && value.is_string()));
    }
}
