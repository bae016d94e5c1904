//! Filters as the configuration makes them: what Fluent Bit's documentation and sources say comes out.

use proptest::prelude::*;

use super::*;
use crate::config::flags::Flags;
use crate::encode::{Fragment, encode};

/// 2026-11-22T02:36:32Z
pub(super) const NOW: i64 = 1_795_314_992_000_000_000;

pub(super) fn problems(toml: &str) -> String {
    crate::config::load_text(Some(("f.toml", toml)), &Flags::default(), &|_| None).unwrap_err().to_string()
}

pub(super) fn filters(toml: &str) -> Filters {
    let loaded = crate::config::load_text(Some(("f.toml", toml)), &Flags::default(), &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    Filters::new(&loaded.config.filter).unwrap()
}

/// Writes down what comes out, a line each.
#[derive(Default)]
pub(super) struct Written {
    pub(super) lines: Vec<String>,
    passed: usize,
    lost: usize,
}

impl<'a> Out<'a> for Written {
    fn pass(&mut self, tag: &'a [u8], record: &mut Record<'a>) {
        let mut json = Vec::new();
        encode(record, &Fragment::new([]), &mut json);
        self.passed += 1;
        self.lines.push(format!("{} {}", String::from_utf8_lossy(tag), String::from_utf8(json).unwrap().trim_end()));
        for field in &record.envelope {
            assert!(!matches!(field.value, Value::Scratch(_) | Value::ScratchJson(_)), "redaction would not see it");
        }
        assert!(record.parsed.is_empty() && record.scratch.is_empty());
        let log = record
            .envelope
            .iter()
            .position(|field| field.name == Name::Known(Key::Log) && matches!(field.value, Value::Text(_)));
        assert_eq!(record.log, log, "the log line is known");
    }

    fn lose(&mut self, why: Lost) {
        self.lost += 1;
        self.lines.push(format!("{why:?}"));
    }
}

/// Runs records of one tag, given as JSON objects, through the filters; then ends the connection.
pub(super) fn run(toml: &str, tag: &str, records: &[&str]) -> Vec<String> {
    let filters = filters(toml);
    let mut pending = Pending::default();
    let mut written = Written::default();
    let arena = Arena::new();
    for (place, json) in records.iter().enumerate() {
        let mut record = record(json);
        let view = filters.for_tag(tag.as_bytes());
        let now = NOW + place as i64;
        filters.run(&arena, &mut pending, tag.as_bytes(), &view, &mut record, now, &mut written);
    }
    filters.flush(&arena, &mut pending, None, &mut written);
    assert!(pending.is_empty() && pending.held_bytes() == 0);
    written.lines
}

/// A record as decode makes it: texts as raw text, maps and arrays as MessagePack.
pub(super) fn record(json: &str) -> Record<'static> {
    let serde_json::Value::Object(object) = serde_json::from_str(json).unwrap() else { panic!("an object: {json}") };
    let mut record = Record::new();
    record.time_ns = NOW;
    // The order is that of the text, which serde_json does not keep.
    let mut members: Vec<_> = object.into_iter().collect();
    members.sort_by_key(|(name, _)| json.find(&format!("\"{name}\"")));
    for (name, value) in members {
        let name = Name::text(name.leak().as_bytes());
        record.push_envelope(name, packed(value));
    }
    record
}

fn packed(value: serde_json::Value) -> Value<'static> {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::UInt(number),
            (_, Some(number)) => Value::Int(number),
            _ => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => Value::Text(text.leak().as_bytes()),
        nested => Value::MsgPack(rmp_serde::to_vec(&nested).unwrap().leak()),
    }
}

fn one(toml: &str, json: &str) -> String {
    let lines = run(toml, "t", &[json]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].strip_prefix("t ").unwrap_or(&lines[0]).to_owned()
}

fn grep(keys: &str, json: &str) -> bool {
    match one(&format!("[[filter]]\ntype = \"grep\"\n{keys}"), json).as_str() {
        "Grep" => false,
        line => {
            assert_eq!(line, json);
            true
        }
    }
}

#[test]
fn grep_keeps_what_matches_and_excludes() {
    let log = |text: &str| serde_json::json!({ "log": text }).to_string();
    assert!(grep(r#"regex = "log ^a""#, &log("ab")) && !grep(r#"regex = "log ^a""#, &log("ba")));
    assert!(!grep(r#"exclude = ["log ^a"]"#, &log("ab")) && grep(r#"exclude = ["log ^a"]"#, &log("ba")));
    let health = r#"exclude = 'log ^(?=.*ELB-HealthChecker\/2\.0).*$'"#;
    assert!(!grep(health, &log("GET / ELB-HealthChecker/2.0")) && grep(health, &log("GET /")));
    // A pattern holds blanks; a value that is missing or no text matches nothing.
    assert!(grep(r#"regex = "log a b""#, &log("xa by")));
    assert!(!grep(r#"regex = "other .""#, &log("a")) && grep(r#"exclude = "other .""#, &log("a")));
    assert!(!grep(r#"regex = "n 1""#, r#"{"n":1}"#) && grep(r#"exclude = "n 1""#, r#"{"n":1}"#));
}

#[test]
fn grep_looks_into_maps() {
    let nested = r#"{"k":{"labels":{"app.kubernetes.io/name":"x"},"list":["a","b"]}}"#;
    assert!(grep(r#"regex = "$k['labels']['app.kubernetes.io/name'] ^x$""#, nested));
    assert!(!grep(r#"regex = "$k['labels']['other'] ^x$""#, nested));
    assert!(grep(r#"regex = "$k['list'][1] ^b$""#, nested) && !grep(r#"regex = "$k['list'][2] .""#, nested));
    assert!(!grep(r#"regex = "$k['labels'] .""#, nested), "a map is no text");
    assert!(grep(r#"regex = "$log['x'] a""#, r#"{"log":"a"}"#), "a text has no members: it is meant itself");
}

#[test]
fn the_first_rule_that_decides_does() {
    let ab = r#"{"a":"1","b":"1"}"#;
    assert!(grep("regex = \"a 1\"\nexclude = \"b 1\"", ab), "the regex decided before");
    assert!(!grep("exclude = \"b 1\"\nregex = \"a 1\"", ab));
    assert!(grep(r#"rule = ["exclude b 2", "regex a 1", "regex b 2", "exclude a 1"]"#, ab));
    assert!(!grep(r#"regex = ["a 2", "b 1"]"#, ab), "only the first regex is ever reached");
    assert!(!grep("logical_op = \"and\"\nregex = [\"a 1\", \"b 2\"]", ab));
    assert!(grep("logical_op = \"and\"\nregex = [\"a 1\", \"b 1\"]", ab));
    assert!(grep("logical_op = \"or\"\nregex = [\"a 2\", \"b 1\"]", ab));
    assert!(!grep("logical_op = \"or\"\nexclude = [\"a 2\", \"b 1\"]", ab));
    assert!(grep("logical_op = \"and\"\nexclude = [\"a 2\", \"b 1\"]", ab));
}

#[test]
fn record_modifier_appends_and_takes_away() {
    let modify = |keys: &str, json: &str| one(&format!("[[filter]]\ntype = \"record_modifier\"\n{keys}"), json);
    assert_eq!(
        modify(
            r#"record = ["ecs_cluster c", 'note "two  words"', "three words more"]"#,
            r#"{"log":"a","source":"stdout"}"#
        ),
        r#"{"log":"a","source":"stdout","ecs_cluster":"c","note":"two  words","three":"words more"}"#
    );
    assert_eq!(
        modify(r#"record = "log b""#, r#"{"log":"a","x":1}"#),
        r#"{"x":1,"log":"b"}"#,
        "the last of a name counts"
    );
    let record = r#"{"Container_Id":"1","container_name":"2","log":"3"}"#;
    assert_eq!(modify(r#"remove_key = ["container_id"]"#, record), r#"{"container_name":"2","log":"3"}"#);
    assert_eq!(modify(r#"remove_key = ["CONTAINER_*"]"#, record), r#"{"log":"3"}"#);
    assert_eq!(modify(r#"allowlist_key = ["LOG", "x"]"#, record), r#"{"log":"3"}"#);
    assert_eq!(modify("whitelist_key = \"log\"\nrecord = \"a b\"", record), r#"{"log":"3","a":"b"}"#);
    assert_eq!(
        modify(r#"remove_key = "*""#, record),
        record,
        "as Fluent Bit: what would leave nothing changes nothing"
    );
    let with_uuid = modify(r#"uuid_key = "id""#, r#"{"log":"a"}"#);
    assert!(with_uuid.starts_with(r#"{"log":"a","id":""#) && with_uuid.len() == 55, "{with_uuid}");
}

fn modify(rules: &str, json: &str) -> String {
    one(&format!("[[filter]]\ntype = \"modify\"\nrule = {rules}"), json)
}

#[test]
fn modify_does_what_is_documented() {
    let abc = r#"{"a":"1","b":"2","c":3}"#;
    assert_eq!(modify(r#"["set a 9", "add b 9", "add d 'x y'"]"#, abc), r#"{"b":"2","c":3,"a":"9","d":"x y"}"#);
    assert_eq!(modify(r#"["remove a", "remove_wildcard b"]"#, abc), r#"{"c":3}"#);
    assert_eq!(modify(r#"["remove_regex ^[ab]$"]"#, abc), r#"{"c":3}"#);
    assert_eq!(modify(r#"["rename a x"]"#, abc), r#"{"x":"1","b":"2","c":3}"#);
    assert_eq!(modify(r#"["rename a b", "rename z y"]"#, abc), abc);
    assert_eq!(modify(r#"["Hard_Rename a b"]"#, abc), r#"{"b":"1","c":3}"#);
    assert_eq!(modify(r#"["copy a x"]"#, abc), r#"{"a":"1","x":"1","b":"2","c":3}"#);
    assert_eq!(modify(r#"["copy a b"]"#, abc), abc);
    assert_eq!(modify(r#"["hard_copy a c"]"#, abc), r#"{"a":"1","c":"1","b":"2"}"#);
    assert_eq!(modify(r#"["move_to_start c", "move_to_end a"]"#, abc), r#"{"c":3,"b":"2","a":"1"}"#);
    assert_eq!(modify(r#"["rename log message"]"#, r#"{"log":"x"}"#), r#"{"message":"x"}"#);
    assert_eq!(modify(r#"["rename a log"]"#, abc), r#"{"log":"1","b":"2","c":3}"#);
    assert_eq!(modify(r#"["remove a"]"#, r#"{"a":1}"#), "{}", "a record without fields passes");
}

#[test]
fn modify_looks_at_all_conditions() {
    let holds = |conditions: &str| {
        let record = r#"{"a":"one","b":2,"t":true,"m":{"n":"x"}}"#;
        let toml = format!("[[filter]]\ntype = \"modify\"\nrule = \"add hit yes\"\ncondition = {conditions}");
        one(&toml, record).contains("hit")
    };
    for conditions in [
        r#""key_exists a""#,
        r#"["Key_Exists $m['n']", "key_does_not_exist z"]"#,
        r#""a_key_matches ^[a-b]$""#,
        r#""no_key_matches ^z""#,
        r#""key_value_equals a one""#,
        r#""key_value_equals $m['n'] x""#,
        r#""key_value_does_not_equal b 2""#,
        r#""key_value_matches a ^o""#,
        r#""key_value_matches t tru""#,
        r#""key_value_does_not_match a z""#,
        r#""matching_keys_have_matching_values ^a$ one""#,
        r#""matching_keys_do_not_have_matching_values ^[ab]$ one""#,
    ] {
        assert!(holds(conditions), "{conditions}");
    }
    for conditions in [
        r#"["key_exists a", "key_exists z"]"#,
        r#""key_value_equals b 2""#,
        r#""key_value_does_not_equal z x""#,
        r#""key_value_matches b 2""#,
        r#""a_key_matches z""#,
    ] {
        assert!(!holds(conditions), "{conditions}");
    }
}

#[test]
fn nest_and_lift() {
    let nest = |keys: &str, json: &str| one(&format!("[[filter]]\ntype = \"nest\"\n{keys}"), json);
    assert_eq!(
        nest(
            "operation = \"nest\"\nwildcard = [\"container_*\", \"b\"]\nnest_under = \"c\"\nremove_prefix = \"container_\"",
            r#"{"container_id":"\"1\"","log":"x","container_name":"n","b":[1,{"y":null}]}"#
        ),
        r#"{"log":"x","c":{"id":"\"1\"","name":"n","b":[1,{"y":null}]}}"#
    );
    assert_eq!(nest("operation = \"nest\"\nwildcard = \"z*\"\nnest_under = \"c\"", r#"{"a":1}"#), r#"{"a":1}"#);
    assert_eq!(
        nest(
            "operation = \"lift\"\nnested_under = \"c\"\nadd_prefix = \"c_\"",
            r#"{"c":{"x":1,"y":{"z":"s"}},"log":"l"}"#
        ),
        r#"{"log":"l","c_x":1,"c_y":{"z":"s"}}"#
    );
    assert_eq!(nest("operation = \"lift\"\nnested_under = \"c\"", r#"{"c":"text"}"#), r#"{"c":"text"}"#);
    let there_and_back = "[[filter]]\ntype = \"nest\"\noperation = \"nest\"\nwildcard = \"*\"\nnest_under = \"n\"\n\
        [[filter]]\ntype = \"nest\"\noperation = \"lift\"\nnested_under = \"n\"";
    let record = r#"{"log":"a \"b\"","n":null,"m":{"x":[]}}"#;
    assert_eq!(one(there_and_back, record), record);
}

#[test]
fn rewrite_tag_runs_the_filters_of_the_new_tag() {
    let toml = r#"
        [[filter]]
        type = "record_modifier"
        match = "new.*"
        record = "seen yes"
        [[filter]]
        type = "rewrite_tag"
        match = "app*"
        rule = ["$log ^(\\w+)=(.*)$ new.$TAG[1].$1.$source false", "$log keep copy.$TAG true"]
    "#;
    assert_eq!(
        run(toml, "app.one", &[r#"{"log":"k=v","source":"stdout"}"#, r#"{"log":"-keep-"}"#, r#"{"log":"-"}"#]),
        [
            r#"new.one.k.stdout {"log":"k=v","source":"stdout","seen":"yes"}"#,
            r#"copy.app.one {"log":"-keep-"}"#,
            r#"app.one {"log":"-keep-"}"#,
            r#"app.one {"log":"-"}"#,
        ]
    );
}

#[test]
fn no_record_goes_round_for_ever() {
    let loops = r#"
        [[filter]]
        type = "rewrite_tag"
        rule = "$log . x$TAG true"
        [[filter]]
        type = "rewrite_tag"
        rule = "$log . y$TAG false"
    "#;
    let lines = run(loops, "t", &[r#"{"log":"a"}"#]);
    assert_eq!(lines, [r#"yxt {"log":"a"}"#, r#"xyt {"log":"a"}"#, r#"yt {"log":"a"}"#]);
    let many = "[[filter]]\ntype = \"rewrite_tag\"\nrule = \"$log . $TAG+ false\"\n".repeat(12);
    assert_eq!(run(&many, "t", &[r#"{"log":"a"}"#]), [r#"t++++++++ {"log":"a"}"#]);
}

#[test]
fn filters_are_for_tags() {
    let toml = "[[filter]]\ntype = \"grep\"\nmatch = \"a-firelens*\"\nregex = \"log x\"\n\
        [[filter]]\ntype = \"grep\"\nmatch_regex = \"^b|c\"\nregex = \"log x\"";
    for (tag, count) in [("a-firelens-1", 1), ("b", 1), ("c", 1), ("ac", 0), ("", 0), ("my-a-firelens-1", 0)] {
        assert_eq!(filters(toml).for_tag(tag.as_bytes()).0.len(), count, "{tag}");
    }
    assert!(filters("").is_empty() && filters(toml).for_tag(b"z").is_empty());
}

#[test]
fn every_problem_is_told_at_its_place() {
    let toml = r#"
[[filter]]
type = "grep"
regex = ["log a", "log *failure*", "log"]
[[filter]]
type = "grep"
logical_op = "or"
regex = "log a"
exclude = "log b"
[[filter]]
type = "record_modifier"
match = "a"
match_regex = "b("
record = ["key"]
remove_key = "x"
allowlist_key = "y"
[[filter]]
type = "modify"
rule = ["renam a b", "rename a"]
condition = "key_value_equals a"
[[filter]]
type = "nest"
add_prefix = "a"
remove_prefix = "b"
[[filter]]
type = "parser"
parser = ["json", "mine"]
[[filter]]
type = "multiline"
multiline_parser = ["go", "no"]
flush_ms = 3600001
[[filter]]
type = "rewrite_tag"
rule = ["$[x] a b true", "$log a b maybe", "$log (a b true"]
[parser.mine]
format = "regex"
time_format = "%Q"
types = "a:number"
[parser.other]
regex = "("
decode_field_as = "gzip log"
[multiline_parser.mine]
rule = ['"other" "/a/" "b"', '"start_state" "/(/" "b"', '"b" "/a/" "c"']
[multiline_parser.text]
type = "endswith"
"#;
    insta::assert_snapshot!(problems(toml));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_every_record_has_a_fate(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
        nested in proptest::collection::vec(any::<u8>(), 0..20),
        json in "\\PC{0,20}",
    ) {
        let filters = filters(EVERYTHING);
        let arena = Arena::new();
        let mut pending = Pending::default();
        let mut written = Written::default();
        for (place, line) in lines.iter().enumerate() {
            let mut record = Record::new();
            record.push_envelope(Name::text(b"log"), Value::Text(line));
            record.push_envelope(Name::text(b"nested"), Value::MsgPack(&nested));
            record.push_envelope(Name::json(b"\\u0061"), Value::JsonValue(json.as_bytes()));
            record.push_envelope(Name::text(line), Value::Float(f64::NAN));
            let view = filters.for_tag(b"t");
            filters.run(&arena, &mut pending, b"t", &view, &mut record, NOW + place as i64, &mut written);
            filters.flush(&arena, &mut pending, Some(NOW), &mut written);
        }
        filters.flush(&arena, &mut pending, None, &mut written);
        prop_assert_eq!(written.passed + written.lost, lines.len());
    }

    #[test]
    fn filters_without_effect_leave_a_record_as_it_is(log in any::<String>(), number in any::<i64>(), name in "[b-z]{1,8}") {
        let json = serde_json::json!({ "log": log, name: number }).to_string();
        let mut plain = Vec::new();
        encode(&record(&json), &Fragment::new([]), &mut plain);
        let toml = r#"
            [[filter]]
            type = "grep"
            exclude = "aaa ."
            [[filter]]
            type = "record_modifier"
            remove_key = "aaa*"
            [[filter]]
            type = "modify"
            rule = ["rename aaa b", "remove aaa"]
            [[filter]]
            type = "nest"
            operation = "lift"
            nested_under = "log"
            [[filter]]
            type = "parser"
            key_name = "aaa"
            parser = "j"
            [[filter]]
            type = "multiline"
            multiline_key_content = "aaa"
            multiline_parser = "java"
            [[filter]]
            type = "rewrite_tag"
            rule = "$aaa . b false"
            [parser.j]
            format = "json"
        "#;
        let plain = String::from_utf8(plain).unwrap();
        prop_assert_eq!(one(toml, &json), plain.trim_end());
    }
}

/// Filters of every kind that take what comes.
const EVERYTHING: &str = r#"
    [[filter]]
    type = "multiline"
    multiline_parser = ["mine", "java", "docker", "cri"]
    [[filter]]
    type = "grep"
    exclude = ["log ^(?!.*\\d).{30}", "$nested['x'][0] ."]
    [[filter]]
    type = "modify"
    rule = ["hard_copy nested copy", "move_to_start a"]
    condition = "no_key_matches ^z"
    [[filter]]
    type = "parser"
    key_name = "log"
    parser = ["j", "l", "t", "r"]
    reserve_data = true
    preserve_key = true
    [[filter]]
    type = "nest"
    operation = "nest"
    wildcard = ["a*", "n*"]
    nest_under = "under"
    [[filter]]
    type = "nest"
    operation = "lift"
    nested_under = "under"
    add_prefix = "p_"
    [[filter]]
    type = "rewrite_tag"
    rule = "$log ([0-9]) x.$1.$p_nested['y'] false"
    [[filter]]
    type = "record_modifier"
    record = "log_router meshlens"
    [parser.j]
    format = "json"
    time_format = "%s"
    decode_field_as = ["escaped log do_next", "json log"]
    decode_field = "json a"
    [parser.l]
    format = "logfmt"
    logfmt_no_bare_keys = true
    types = ["a:integer", "b:float", "c:bool", "d:hex"]
    [parser.t]
    format = "ltsv"
    [parser.r]
    format = "regex"
    regex = "^(?<time>\\d+)(?<log>.*)$"
    time_format = "%s"
    types = "log:integer"
    [multiline_parser.mine]
    rule = ['"start_state" "/^\d/" "cont"', '"cont" "/^\s/" "cont"']
"#;
