//! The router against a plain interpreter of the same configuration, and the cases that the documentation promises.

use proptest::prelude::*;

use super::sample::{Sample, Threshold, record_hash, xxh64};
use super::*;
use crate::record::{Name, Span, Value};

fn rule(when: Vec<(&str, Test)>, to: &[usize]) -> Rule {
    Rule {
        when: when.into_iter().map(|(field, test)| Condition { field: field.into(), test }).collect(),
        to: to.to_vec(),
        sample: None,
        and_continue: false,
        otherwise: None,
    }
}

fn one_of(values: &[&str]) -> Test {
    Test::OneOf(values.iter().map(|value| value.to_string()).collect())
}

fn record<'a>(kind: Kind, parsed: &[(&'a str, Value<'a>)]) -> Record<'a> {
    let mut record = Record::new();
    record.kind = kind;
    record.parsed.extend(
        parsed.iter().map(|(name, value)| crate::record::Field { name: Name::text(name.as_bytes()), value: *value }),
    );
    record
}

fn passes(test: Test, value: Value<'_>) -> bool {
    let router = Router::new(&Config { rules: vec![rule(vec![("field", test)], &[0])] }, 1).unwrap();
    router.route(b"", &record(Kind::Other, &[("field", value)])) == Decision::To(1)
}

fn range(low: Option<(f64, bool)>, high: Option<(f64, bool)>) -> Test {
    Test::Range { low, high }
}

#[test]
fn without_rules_every_sink_gets_every_record() {
    for (sinks, all) in [(1, 1), (3, 0b111), (64, u64::MAX)] {
        let router = Router::new(&Config::default(), sinks).unwrap();
        assert_eq!(router.route(b"t", &Record::new()), Decision::To(all));
    }
}

#[test]
fn a_value_is_one_of_texts_or_numbers() {
    for value in [
        Value::UInt(200),
        Value::Int(200),
        Value::Float(200.0),
        Value::Number(b"200"),
        Value::Number(b"2e2"),
        Value::Number(b"200.0"),
        Value::Text(b"200"),
        Value::Json(b"200"),
        Value::Json(br"\u0032\u0030\u0030"),
        Value::JsonValue(b"200"),
        Value::JsonValue(b"\"200\""),
    ] {
        assert!(passes(one_of(&["404", "200"]), value), "{value:?}");
        assert!(!passes(one_of(&["404", "2000", "20"]), value), "{value:?}");
        assert!(!passes(Test::Not(Box::new(one_of(&["200"]))), value), "{value:?}");
    }
    assert!(!passes(one_of(&["200"]), Value::Text(b"0200")), "texts are compared as texts");
    assert!(!passes(one_of(&["007"]), Value::UInt(7)), "007 is no JSON number");
    assert!(!passes(one_of(&["9007199254740993"]), Value::UInt(9_007_199_254_740_992)), "integers are exact");
    assert!(!passes(one_of(&["9007199254740993"]), Value::Float(9_007_199_254_740_992.0)));
    assert!(passes(one_of(&["18446744073709551615"]), Value::UInt(u64::MAX)));
    assert!(passes(one_of(&["-5"]), Value::Int(-5)));
    assert!(passes(one_of(&["true"]), Value::Bool(true)));
    assert!(!passes(one_of(&["true"]), Value::Bool(false)));
    assert!(!passes(one_of(&["", "null", "-"]), Value::Null));
    assert!(passes(one_of(&[""]), Value::Text(b"")));
}

#[test]
fn ranges_take_numbers_however_they_are_written() {
    let server_error = || range(Some((500.0, true)), None);
    for value in
        [Value::UInt(500), Value::Number(b"503"), Value::Text(b"599"), Value::Json(b"500"), Value::Float(500.5)]
    {
        assert!(passes(server_error(), value), "{value:?}");
    }
    for value in [
        Value::UInt(499),
        Value::Number(b"499.999"),
        Value::Text(b"inf"),
        Value::Text(b"NaN"),
        Value::Text(b"600ms"),
        Value::Text(b" 600"),
        Value::Text(b"6_00"),
        Value::Text(b""),
        Value::Text(b"-"),
        Value::Int(-600),
        Value::Text(b"-600"),
        Value::Float(f64::INFINITY),
        Value::Null,
        Value::Bool(true),
        Value::JsonValue(b"[600]"),
    ] {
        assert!(!passes(server_error(), value), "{value:?}");
    }
    let open = || range(Some((1.0, false)), Some((2.0, false)));
    assert!(
        !passes(open(), Value::UInt(1)) && !passes(open(), Value::UInt(2)) && passes(open(), Value::Number(b"1.5"))
    );
    assert!(passes(range(None, Some((-1.5, true))), Value::Text(b"-1.5")));
    assert!(passes(range(Some((1e18, true)), None), Value::Text(b"12345678901234567890123")));
}

#[test]
fn texts_are_tested_with_their_escapes_resolved() {
    let quoted = Value::Json(br#"say \"hi\"\u00e9"#);
    assert!(passes(Test::Prefix("say \"h".into()), quoted));
    assert!(passes(Test::Glob("*\"hi\"é".into()), quoted));
    assert!(passes(Test::Regex("\"hi\".$".into()), quoted));
    assert!(passes(Test::Regex("^(?=say).*(?<!b)é$".into()), quoted), "look-around");
    assert!(passes(Test::Wildcard("say*é".into()), quoted) && !passes(Test::Wildcard("say*[é]".into()), quoted));
    assert!(!passes(Test::Prefix("say \\".into()), quoted));
    assert!(passes(Test::Prefix("say \\".into()), Value::Text(b"say \\\"")), "raw text has no escapes");
    let mut record = record(Kind::Other, &[("field", Value::Scratch(Span { start: 1, end: 4 }))]);
    record.scratch.extend_from_slice(b"xabcx");
    let router = Router::new(&Config { rules: vec![rule(vec![("field", one_of(&["abc"]))], &[0])] }, 1).unwrap();
    assert_eq!(router.route(b"", &record), Decision::To(1));
}

#[test]
fn globs() {
    let app = |pattern: &str, text: &str| passes(Test::Glob(pattern.into()), Value::Text(text.as_bytes()));
    for (pattern, text) in [
        ("*", ""),
        ("*", "any/thing"),
        ("app-firelens*", "app-firelens-0b69"),
        ("*-firelens-*", "envoy-firelens-0b69"),
        ("/api/*", "/api/v1/users/1"),
        ("a*b*c", "a/b/b/c"),
        ("**", "x"),
        ("a?c", "aéc"),
        ("a?c*", "abc\nd"),
        ("{app,envoy}-*", "envoy-firelens/1"),
        ("v[12]", "v2"),
        ("a\\*b", "a*b"),
        ("exact", "exact"),
    ] {
        assert!(app(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("", "x"),
        ("exact", "exact "),
        ("app-*", "xapp-1"),
        ("ab*ba", "aba"),
        ("a*b*c", "acb"),
        ("a?c", "ac"),
        ("a?c", "abcd"),
        ("v[12]", "v3"),
        ("a.c", "abc"),
    ] {
        assert!(!app(pattern, text), "{pattern} {text}");
    }
    assert!(passes(Test::Glob("a*z".into()), Value::Text(b"a\xff\xfez")), "not UTF-8");
    assert!(passes(Test::Glob("200".into()), Value::UInt(200)), "numbers are spelled");
    assert!(passes(Test::Glob("5??".into()), Value::Number(b"503")));
}

#[test]
fn what_is_absent_passes_only_tests_for_it() {
    let absent = |test: Test| {
        let router = Router::new(&Config { rules: vec![rule(vec![("field", test)], &[0])] }, 1).unwrap();
        router.route(b"", &Record::new()) == Decision::To(1)
    };
    for make in [
        || Test::Prefix(String::new()),
        || Test::Glob("*".into()),
        || Test::Regex(String::new()),
        || one_of(&[""]),
        || range(Some((f64::NEG_INFINITY, true)), None),
    ] {
        assert!(!absent(make()));
        assert!(absent(Test::Not(Box::new(make()))));
        assert!(!passes(make(), Value::Null));
        assert!(!passes(make(), Value::MsgPack(b"\x80")));
        assert!(!passes(make(), Value::JsonValue(b"{}")));
    }
    assert!(absent(Test::Absent) && passes(Test::Absent, Value::Null));
    assert!(!absent(Test::Not(Box::new(Test::Absent))));
    assert!(!passes(Test::Absent, Value::Text(b"")) && !passes(Test::Absent, Value::JsonValue(b"[]")));
}

#[test]
fn log_type_is_the_kind_and_else_the_records_own() {
    let rules = vec![rule(vec![("log_type", one_of(&["access"]))], &[0]), rule(vec![("log_type", Test::Absent)], &[1])];
    let router = Router::new(&Config { rules }, 2).unwrap();
    let own = [("log_type", Value::Text(b"access"))];
    assert_eq!(router.route(b"", &record(Kind::Access, &[])), Decision::To(1));
    assert_eq!(router.route(b"", &record(Kind::Other, &own)), Decision::To(1));
    assert_eq!(router.route(b"", &record(Kind::Other, &[])), Decision::To(2));
    assert_eq!(router.route(b"", &record(Kind::Envoy, &own)), Decision::Filtered(Reason::Rule));
}

#[test]
fn tags_are_not_fields() {
    let router =
        Router::new(&Config { rules: vec![rule(vec![("tag", Test::Glob("app-*".into()))], &[0])] }, 1).unwrap();
    let field = record(Kind::Other, &[("tag", Value::Text(b"app-1"))]);
    assert_eq!(router.route(b"web-1", &field), Decision::Filtered(Reason::Rule));
    assert_eq!(router.route(b"app-1", &Record::new()), Decision::To(1));
}

#[test]
fn drop_else_and_continue() {
    let mut archive = rule(vec![("tag", one_of(&["a"]))], &[0]);
    archive.and_continue = true;
    let health = rule(vec![("path", one_of(&["/health"]))], &[]);
    let mut last = rule(vec![("log_type", one_of(&["access"]))], &[1]);
    last.otherwise = Some(vec![2]);
    let router = Router::new(&Config { rules: vec![archive, health, last] }, 3).unwrap();
    let health = record(Kind::Access, &[("path", Value::Text(b"/health"))]);
    assert_eq!(router.route(b"b", &health), Decision::Filtered(Reason::Rule));
    assert_eq!(router.route(b"a", &health), Decision::To(0b001), "what an earlier rule gave stays");
    assert_eq!(router.route(b"a", &record(Kind::Access, &[])), Decision::To(0b011));
    assert_eq!(router.route(b"a", &record(Kind::Envoy, &[])), Decision::To(0b101));
    assert_eq!(router.route(b"b", &Record::new()), Decision::To(0b100));
}

#[test]
fn every_problem_is_named() {
    let mut first = rule(vec![("path", Test::Regex("(".into())), ("tag", Test::Glob("[".into()))], &[0, 7]);
    first.otherwise = Some(vec![9]);
    let mut second = rule(
        vec![
            ("", Test::Absent),
            ("duration", range(Some((5.0, true)), Some((4.0, true)))),
            ("method", Test::Not(Box::new(Test::OneOf(vec![])))),
            ("bytes_sent", range(None, None)),
            ("grpc_status", range(Some((f64::NAN, true)), None)),
            ("path", Test::Regex("(?=x".into())),
        ],
        &[1],
    );
    second.sample = Some(1.5);
    let error = Router::new(&Config { rules: vec![first, second] }, 2).unwrap_err();
    let places: Vec<_> = error.problems.iter().map(|problem| (problem.rule, problem.field.as_str())).collect();
    assert_eq!(
        places,
        [
            (1, "else"),
            (1, "path"),
            (1, "tag"),
            (1, "to"),
            (1, "else"),
            (2, ""),
            (2, "duration"),
            (2, "method"),
            (2, "bytes_sent"),
            (2, "grpc_status"),
            (2, "path"),
            (2, "sample"),
        ]
        .map(|(rule, field)| (rule, if field.is_empty() { "when" } else { field }))
    );
    let text = error.to_string();
    assert_eq!(text.lines().count(), error.problems.len(), "{text}");
    assert!(text.contains("rule 1, path: `(` is not a regular expression: unclosed group"), "{text}");
    assert!(text.contains("rule 2, duration: "), "{text}");
    assert!(text.contains("no number may be both >=5 and <=4"), "{text}");
    for part in [f64::NAN, -0.1, f64::INFINITY] {
        let mut sampled = rule(vec![], &[0]);
        sampled.sample = Some(part);
        assert!(Router::new(&Config { rules: vec![sampled] }, 1).is_err(), "{part}");
    }
    let many = vec![rule(vec![], &[0]); RULES_MAX + 1];
    assert_eq!(Router::new(&Config { rules: many }, 1).unwrap_err().problems[0].fault, Fault::TooManyRules);
}

#[test]
fn the_hash_is_xxh64() {
    assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
    assert_eq!(xxh64(b"abc", 0), 0x44bc_2cf5_ad77_0999);
    assert_eq!(xxh64(b"4f5a1c2e-9b3d-4e6f-8a7b-0c1d2e3f4a5b", 0), 0x71b3_54e2_e426_ba59);
    assert_eq!(xxh64(&(0..101).collect::<Vec<u8>>(), 7), 0xe878_e979_1dbc_64fa);
}

#[test]
fn both_sides_of_a_call_agree() {
    let id = b"4f5a1c2e-9b3d-4e6f-8a7b-0c1d2e3f4a5b";
    let inbound = record(Kind::Access, &[("request_id", Value::Text(id)), ("path", Value::Text(b"/a"))]);
    let outbound = record(Kind::Access, &[("request_id", Value::Json(id)), ("path", Value::Json(b"/b"))]);
    assert_eq!(record_hash(&inbound), xxh64(id, 0));
    assert_eq!(record_hash(&outbound), xxh64(id, 0));
    let stream = record(Kind::Access, &[("request_id", Value::Null), ("stream_id", Value::Text(id))]);
    assert_eq!(record_hash(&stream), xxh64(id, 0));
}

#[test]
fn records_without_an_identity_fare_the_same_twice() {
    let line = |time_ns, line| {
        let mut record = Record::new();
        record.push_envelope(Name::text(b"log"), Value::Text(line));
        record.time_ns = time_ns;
        record_hash(&record)
    };
    assert_eq!(line(5, b"a"), line(5, b"a"));
    assert_ne!(line(5, b"a"), line(5, b"b"));
    assert_ne!(line(5, b"a"), line(6, b"a"));
    let fields = |names: [&'static str; 2]| {
        let mut record = Record::new();
        for name in names {
            record.push_envelope(Name::text(name.as_bytes()), Value::Text(name.as_bytes()));
        }
        record_hash(&record)
    };
    assert_eq!(fields(["x", "y"]), fields(["y", "x"]), "senders write maps in any order");
    assert_ne!(fields(["x", "y"]), fields(["x", "z"]));
}

#[test]
fn a_sample_counts_as_sampled() {
    let mut some = rule(vec![("path", one_of(&["/a"]))], &[0]);
    some.sample = Some(0.0);
    let path = record(Kind::Access, &[("path", Value::Text(b"/a"))]);
    let router = |rules| Router::new(&Config { rules }, 2).unwrap();
    assert_eq!(router(vec![some.clone(), rule(vec![], &[1])]).route(b"", &path), Decision::Filtered(Reason::Sampled));
    some.and_continue = true;
    assert_eq!(router(vec![some.clone(), rule(vec![], &[1])]).route(b"", &path), Decision::To(0b10));
    assert_eq!(router(vec![some.clone()]).route(b"", &path), Decision::Filtered(Reason::Sampled));
    assert_eq!(router(vec![some.clone(), rule(vec![], &[])]).route(b"", &path), Decision::Filtered(Reason::Rule));
    some.sample = Some(1.0);
    assert_eq!(router(vec![some]).route(b"", &path), Decision::To(0b01));
}

#[test]
fn regression_an_empty_else_is_a_rules_word_whether_or_not_its_rule_could_match() {
    let mut sampled = rule(vec![], &[0]);
    sampled.sample = Some(0.0);
    sampled.and_continue = true;
    let mut last = rule(vec![("log_type", one_of(&["envoy"]))], &[1]);
    last.otherwise = Some(vec![]);
    let router = Router::new(&Config { rules: vec![sampled, last] }, 2).unwrap();
    for kind in [Kind::Access, Kind::Other] {
        assert_eq!(router.route(b"", &record(kind, &[])), Decision::Filtered(Reason::Rule));
    }
}

fn is_kept(id: &[u8; 16], part: f64) -> bool {
    let text = id.map(|byte| format!("{byte:02x}")).concat();
    let record = record(Kind::Access, &[("request_id", Value::Text(text.as_bytes()))]);
    Sample::new(&record).is_kept(Threshold::new(part))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_part_kept_is_near_the_part_asked(part in 0.0..=1.0f64, seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let total = 4000;
        let kept = (0..total).filter(|_| is_kept(&std::array::from_fn(|_| random.u8(..)), part)).count();
        // Six standard deviations of a binomial, at most sqrt(4000) / 2 each.
        prop_assert!((kept as f64 - part * f64::from(total)).abs() < 6.0 * 32.0, "{kept} of {total} at {part}");
    }

    #[test]
    fn kept_at_a_part_is_kept_at_any_greater(id in any::<[u8; 16]>(), one in 0.0..=1.0f64, two in 0.0..=1.0f64) {
        let (less, more) = (one.min(two), one.max(two));
        prop_assert!(!is_kept(&id, less) || is_kept(&id, more));
        prop_assert!(!is_kept(&id, 0.0) && is_kept(&id, 1.0));
    }
}

// --- the oracle
// ---------------------------------------------------------------------------------------------------------

/// A value before it is put in one of the record's forms: what the interpreter sees.
#[derive(Clone, Debug)]
enum Plain {
    Null,
    Text(String),
    Int(i64),
    Decimal(i32),
    Object,
}

/// How a value is put into the record.
#[derive(Clone, Copy, Debug)]
enum Form {
    Raw,
    Json,
    Scratch,
    Digits,
}

#[derive(Clone, Debug)]
struct Made {
    kind: Kind,
    tag: String,
    fields: Vec<(&'static str, Plain, Form)>,
}

fn spelled(value: &Plain) -> Option<String> {
    match value {
        Plain::Null | Plain::Object => None,
        Plain::Text(text) => Some(text.clone()),
        Plain::Int(number) => Some(number.to_string()),
        Plain::Decimal(tenths) => Some(format!("{:?}", f64::from(*tenths) / 10.0)),
    }
}

/// Case by case what the documentation says, on owned strings; globs by recursion, numbers by serde_json.
fn naive_test(test: &Test, value: &Plain) -> bool {
    let text = spelled(value);
    let by_text = |matches: &dyn Fn(&str) -> bool| text.as_deref().is_some_and(matches);
    let number = || {
        let text = text.as_deref()?;
        let zeros = text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_digit());
        let text =
            if zeros { format!("{}.0", text.trim_start_matches('0')).replacen("..", ".", 1) } else { text.into() };
        let text = if text.starts_with('.') { format!("0{text}") } else { text };
        (text.trim() == text).then(|| serde_json::from_str::<f64>(&text).ok()).flatten()
    };
    match test {
        Test::Absent => matches!(value, Plain::Null),
        Test::Not(inner) => !naive_test(inner, value),
        Test::OneOf(values) => by_text(&|text| {
            values.iter().any(|other| {
                other == text
                    || !matches!(value, Plain::Text(_))
                        && serde_json::from_str::<f64>(other).is_ok_and(|other| Some(other) == number())
            })
        }),
        Test::Range { low, high } => number().is_some_and(|number| {
            low.is_none_or(|(bound, with)| if with { bound <= number } else { bound < number })
                && high.is_none_or(|(bound, with)| if with { bound >= number } else { bound > number })
        }),
        Test::Prefix(prefix) => by_text(&|text| text.starts_with(prefix.as_str())),
        Test::Glob(pattern) => by_text(&|text| naive_glob(pattern, text)),
        // The same, but that `?` is itself, which no text below holds.
        Test::Wildcard(pattern) => by_text(&|text| !pattern.contains('?') && naive_glob(pattern, text)),
        // The patterns made below are literals with anchors.
        Test::Regex(pattern) => by_text(&|text| match pattern.strip_prefix('^') {
            Some(start) => text.starts_with(start),
            None => text.contains(pattern.as_str()),
        }),
    }
}

fn naive_glob(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| naive_glob(rest.as_str(), &text[at..]))
        }
        Some(wanted) => {
            let mut left = text.chars();
            left.next()
                .is_some_and(|found| (wanted == '?' || wanted == found) && naive_glob(rest.as_str(), left.as_str()))
        }
    }
}

fn naive_route(config: &Config, sinks: usize, made: &Made, hash: u64) -> Decision {
    if config.rules.is_empty() {
        return Decision::To((0..sinks).map(|sink| 1 << sink).sum());
    }
    let field =
        |name: &str| made.fields.iter().find(|field| field.0 == name).map_or(Plain::Null, |field| field.1.clone());
    let value = |name: &str| match (name, made.kind.log_type()) {
        ("tag", _) => Plain::Text(made.tag.clone()),
        ("log_type", Some(log_type)) => Plain::Text(log_type.into()),
        (name, _) => field(name),
    };
    let mut to = std::collections::BTreeSet::<usize>::new();
    let mut reason = Reason::Rule;
    for rule in &config.rules {
        if rule.when.iter().all(|condition| naive_test(&condition.test, &value(&condition.field))) {
            let kept = rule.sample.is_none_or(|part| ((hash >> 11) as f64) / 2f64.powi(53) < part);
            if kept {
                to.extend(rule.to.iter().copied());
                reason = if rule.and_continue { reason } else { Reason::Rule };
            } else {
                reason = Reason::Sampled;
            }
            if !rule.and_continue {
                break;
            }
        } else if let Some(otherwise) = &rule.otherwise {
            to.extend(otherwise.iter().copied());
            reason = Reason::Rule;
        }
    }
    if to.is_empty() { Decision::Filtered(reason) } else { Decision::To(to.into_iter().map(|sink| 1 << sink).sum()) }
}

const FIELDS: [&str; 5] = ["path", "response_code", "custom", "log_type", "request_id"];

fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[ab*é\"\\\\]{0,4}", Just("access".into()), Just("200".into()), Just("0200".into()), "[0-9]{1,3}"]
}

fn plain() -> impl Strategy<Value = Plain> {
    prop_oneof![
        Just(Plain::Null),
        Just(Plain::Object),
        word().prop_map(Plain::Text),
        (-2i64..600).prop_map(Plain::Int),
        (-20i32..6000).prop_map(Plain::Decimal),
    ]
}

fn bound() -> impl Strategy<Value = Option<(f64, bool)>> {
    proptest::option::of(((-2i32..600).prop_map(f64::from), any::<bool>()))
}

fn test() -> impl Strategy<Value = Test> {
    let leaf = prop_oneof![
        proptest::collection::vec(word(), 1..4).prop_map(Test::OneOf),
        (bound(), bound())
            .prop_filter("a range", |(low, high)| match (low, high) {
                (None, None) => false,
                (Some((low, _)), Some((high, _))) => low < high,
                _ => true,
            })
            .prop_map(|(low, high)| Test::Range { low, high }),
        "[abé\"]{0,2}".prop_map(Test::Prefix),
        "[ab*?é\"2]{0,5}".prop_map(Test::Glob),
        "[ab*?é\"2]{0,5}".prop_map(Test::Wildcard),
        "\\^?[abé\"2]{1,2}".prop_map(Test::Regex),
        Just(Test::Absent),
    ];
    leaf.prop_recursive(2, 3, 1, |inner| inner.prop_map(|test| Test::Not(Box::new(test))))
}

fn condition() -> impl Strategy<Value = Condition> {
    let field = proptest::sample::select(vec!["tag", "path", "response_code", "custom", "log_type"]);
    (field, test()).prop_map(|(field, test)| Condition { field: field.into(), test })
}

fn config() -> impl Strategy<Value = Config> {
    let numbers = || proptest::collection::vec(0..4usize, 0..3);
    let rule = (
        proptest::collection::vec(condition(), 0..3),
        numbers(),
        proptest::option::of(0.0..=1.0f64),
        any::<bool>(),
        proptest::option::of(numbers()),
    )
        .prop_map(|(when, to, sample, and_continue, otherwise)| Rule { when, to, sample, and_continue, otherwise });
    proptest::collection::vec(rule, 0..5).prop_map(|mut rules| {
        let last = rules.len().saturating_sub(1);
        rules.iter_mut().take(last).for_each(|rule| rule.otherwise = None);
        Config { rules }
    })
}

fn made() -> impl Strategy<Value = Made> {
    let kind = proptest::sample::select(vec![Kind::Access, Kind::Envoy, Kind::Other]);
    let form = proptest::sample::select(vec![Form::Raw, Form::Json, Form::Scratch, Form::Digits]);
    let values = proptest::collection::vec(proptest::option::of((plain(), form)), FIELDS.len());
    (kind, word(), values).prop_map(|(kind, tag, values)| Made {
        kind,
        tag,
        fields: FIELDS
            .into_iter()
            .zip(values)
            .filter_map(|(name, value)| value.map(|(plain, form)| (name, plain, form)))
            .collect(),
    })
}

/// Puts the fields into a record, each in its form; half of them in the envelope.
fn build<'a>(made: &Made, arena: &'a [Vec<u8>]) -> Record<'a> {
    let mut record = Record::new();
    record.kind = made.kind;
    for (at, ((name, plain, form), bytes)) in made.fields.iter().zip(arena).enumerate() {
        let value = match (plain, form) {
            (Plain::Null, _) => Value::Null,
            (Plain::Object, Form::Raw) => Value::MsgPack(b"\x80"),
            (Plain::Object, _) => Value::JsonValue(b"{\"a\":1}"),
            (Plain::Int(number), Form::Raw) => Value::Int(*number),
            (Plain::Decimal(tenths), Form::Raw) => Value::Float(f64::from(*tenths) / 10.0),
            (Plain::Int(_) | Plain::Decimal(_), Form::Json) => Value::JsonValue(bytes),
            (Plain::Int(_) | Plain::Decimal(_), _) => Value::Number(bytes),
            (Plain::Text(_), Form::Json) => Value::Json(bytes),
            (Plain::Text(_), Form::Scratch) => {
                let start = record.scratch.len() as u32;
                record.scratch.extend_from_slice(bytes);
                Value::Scratch(Span { start, end: record.scratch.len() as u32 })
            }
            (Plain::Text(_), _) => Value::Text(bytes),
        };
        let name =
            FIELDS.into_iter().find(|known| known == name).map_or(Name::Text(b""), |name| Name::text(name.as_bytes()));
        if at % 2 == 0 {
            record.parsed.push(crate::record::Field { name, value });
        } else {
            record.push_envelope(name, value);
        }
    }
    record
}

fn bytes_of(plain: &Plain, form: Form) -> Vec<u8> {
    let text = spelled(plain).unwrap_or_default();
    match (plain, form) {
        (Plain::Text(text), Form::Json) => {
            let quoted = serde_json::to_string(text).unwrap();
            quoted.as_bytes()[1..quoted.len() - 1].to_vec()
        }
        _ => text.into_bytes(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_router_decides_as_a_plain_interpreter_does(config in config(), made in made()) {
        let router = Router::new(&config, 4).unwrap();
        let arena: Vec<_> = made.fields.iter().map(|(_, plain, form)| bytes_of(plain, *form)).collect();
        let record = build(&made, &arena);
        let expected = naive_route(&config, 4, &made, record_hash(&record));
        prop_assert_eq!(router.route(made.tag.as_bytes(), &record), expected);
    }
}
