//! Parsers as Fluent Bit's documentation describes them.

use crate::filter::tests::{NOW, filters, record, run};
use crate::filter::{Arena, Out, Pending};
use crate::record::Record;

fn parse(filter: &str, parser: &str, json: &str) -> String {
    let toml =
        format!("[[filter]]\ntype = \"parser\"\nkey_name = \"log\"\nparser = \"p\"\n{filter}\n[parser.p]\n{parser}");
    let lines = run(&toml, "t", &[json]);
    assert_eq!(lines.len(), 1);
    lines[0].strip_prefix("t ").unwrap().to_owned()
}

fn log(text: &str) -> String {
    serde_json::json!({ "log": text }).to_string()
}

/// The time that a record gets.
fn time(parser: &str, text: &str) -> i64 {
    #[derive(Default)]
    struct Times(Vec<i64>);
    impl<'a> Out<'a> for Times {
        fn pass(&mut self, _: &'a [u8], record: &mut Record<'a>) {
            self.0.push(record.time_ns);
        }
        fn lose(&mut self, why: crate::filter::Lost) {
            panic!("{why:?}");
        }
    }
    let toml = format!("[[filter]]\ntype = \"parser\"\nkey_name = \"log\"\nparser = \"p\"\n[parser.p]\n{parser}");
    let filters = filters(&toml);
    let arena = Arena::new();
    let mut times = Times::default();
    let json = log(text);
    let view = filters.for_tag(b"t");
    filters.run(&arena, &mut Pending::default(), b"t", &view, &mut record(&json), NOW, &mut times);
    times.0[0]
}

#[test]
fn members_of_json_stand_as_they_stood() {
    let line = log(r#" {"a":1.50,"b":"x\/\u00e9","c":[1, 2],"d":null,"e":true,"f":{"g":1e3}} "#);
    let members = r#"{"a":1.50,"b":"x\/\u00e9","c":[1, 2],"d":null,"e":true,"f":{"g":1e3}}"#;
    assert_eq!(parse("", "format = \"json\"", &line), members);
    for text in ["{\"a\":1", "[1]", "text", "", "{\"a\":1} x", "1"] {
        let line = log(text);
        assert_eq!(parse("", "format = \"json\"", &line), line, "what cannot be read passes");
    }
}

#[test]
fn other_fields_follow_if_they_are_reserved() {
    let record = r#"{"container_id":"1","log":"{\"a\":1,\"source\":\"inner\"}","source":"stdout"}"#;
    assert_eq!(parse("", "format = \"json\"", record), r#"{"a":1,"source":"inner"}"#);
    assert_eq!(
        parse("reserve_data = true", "format = \"json\"", record),
        r#"{"a":1,"container_id":"1","source":"stdout"}"#,
        "the last of a name counts"
    );
    assert_eq!(
        parse("preserve_key = true", "format = \"json\"", record),
        r#"{"a":1,"source":"inner","log":"{\"a\":1,\"source\":\"inner\"}"}"#
    );
    let both = parse("reserve_data = true\npreserve_key = true", "format = \"json\"", record);
    assert!(both.starts_with(r#"{"a":1,"container_id":"1","log":""#), "{both}");
}

#[test]
fn a_log_line_within_the_line_is_text_again() {
    assert_eq!(parse("", "format = \"json\"", &log(r#"{"log":"in\tside"}"#)), r#"{"log":"in\tside"}"#);
}

#[test]
fn groups_become_fields_with_types() {
    let parser = r#"
        format = "regex"
        regex = '^(?<n>\S+) (?<f>\S+) (?<b>\S+) (?<h>\S+) (?<s>\S*) ?(?<empty>.*)$'
        types = ["n:integer", "f:float", "b:bool", "h:hex", "s:string"]
    "#;
    assert_eq!(parse("", parser, &log("-12ms 1.5x TRUE 0xff 7 ")), r#"{"n":-12,"f":1.5,"b":true,"h":255,"s":"7"}"#);
    assert_eq!(parse("", parser, &log("x . maybe g 7 ")), r#"{"n":0,"f":0.0,"b":"maybe","h":0,"s":"7"}"#);
    let keep = format!("{parser}\nskip_empty_values = false");
    assert_eq!(parse("", &keep, &log("1 2 false 3 ")), r#"{"n":1,"f":2.0,"b":false,"h":3,"s":"","empty":""}"#);
    let line = log("too few");
    assert_eq!(parse("", parser, &line), line);
}

#[test]
fn times_of_lines_become_the_records() {
    let expected = crate::timestamp::parse_rfc3339_ns(b"2026-11-22T01:36:32.25Z").unwrap();
    let json = "format = \"json\"\ntime_key = \"ts\"\ntime_format = \"%Y-%m-%dT%H:%M:%S.%L%z\"";
    let line = r#"{"ts":"2026-11-22T02:36:32.25+0100","m":1}"#;
    assert_eq!(time(json, line), expected);
    assert_eq!(parse("", json, &log(line)), r#"{"m":1}"#);
    assert_eq!(parse("", &format!("{json}\ntime_keep = true"), &log(line)), line);
    assert_eq!(time(json, r#"{"ts":"yesterday"}"#), NOW);
    assert_eq!(parse("", json, &log(r#"{"ts":"yesterday","m":1}"#)), r#"{"ts":"yesterday","m":1}"#);
    let apache = r#"
        format = "regex"
        regex = '^(?<host>[^ ]*) [^ ]* (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^\"]*?)(?: +\S*)?)?" (?<code>[^ ]*)'
        time_format = "%d/%b/%Y:%H:%M:%S %z"
        types = "code:integer"
    "#;
    let line = r#"10.0.0.1 - - [22/Nov/2026:02:36:32 +0100] "GET /a HTTP/1.1" 200 12"#;
    assert_eq!(time(apache, line), expected - 250_000_000);
    assert_eq!(
        parse("", apache, &log(line)),
        r#"{"host":"10.0.0.1","user":"-","method":"GET","path":"/a","code":200}"#
    );
}

#[test]
fn logfmt_and_ltsv() {
    assert_eq!(
        parse("", "format = \"logfmt\"", &log(r#"level=info msg="a \"b\"" bare empty="" n=1 x="#)),
        r#"{"level":"info","msg":"a \"b\"","bare":true,"empty":"","n":"1","x":true}"#
    );
    let line = log("just text");
    assert_eq!(parse("", "format = \"logfmt\"\nlogfmt_no_bare_keys = true", &line), line);
    assert_eq!(parse("", "format = \"logfmt\"\ntypes = \"n:integer\"", &log("n=1 m")), r#"{"n":1,"m":""}"#);
    assert_eq!(
        parse("", "format = \"ltsv\"", &log("host:1.2.3.4\tpath:/a:b\tx:")),
        r#"{"host":"1.2.3.4","path":"/a:b","x":""}"#
    );
    let line = log("no label");
    assert_eq!(parse("", "format = \"ltsv\"", &line), line);
}

#[test]
fn decoders_look_into_fields() {
    let line = log(r#"{"log":"{\"status\":\"up\",\"n\":[1]}\n","s":"a\\tb"}"#);
    assert_eq!(
        parse("", "format = \"json\"\ndecode_field_as = [\"json log\", \"escaped_utf8 s\"]", &line),
        r#"{"log":{"status":"up","n":[1]},"s":"a\tb"}"#
    );
    let added = parse("", "format = \"json\"\ndecode_field = \"json log\"", &line);
    assert!(added.ends_with(r#","s":"a\\tb","status":"up","n":[1]}"#), "{added}");
    let escaped = log(r#"{"m":"{\\\"a\\\":1}"}"#);
    assert_eq!(
        parse("", "format = \"json\"\ndecode_field_as = [\"escaped m do_next\", \"json m\"]", &escaped),
        r#"{"m":{"a":1}}"#
    );
    let text = log(r#"{"m":"text"}"#);
    assert_eq!(parse("", "format = \"json\"\ndecode_field_as = \"json m\"", &text), r#"{"m":"text"}"#);
}

#[test]
fn parsers_are_tried_in_order_and_keys_may_be_accessors() {
    let toml = "[[filter]]\ntype = \"parser\"\nkey_name = \"$a['b']\"\nparser = [\"p\", \"q\"]\nreserve_data = true\n\
        [parser.p]\nformat = \"json\"\n[parser.q]\nformat = \"regex\"\nregex = \"^(?<word>x+)$\"";
    let lines = run(toml, "t", &[r#"{"a":{"b":"{\"j\":1}"}}"#, r#"{"a":{"b":"xx"}}"#, r#"{"a":{"b":"y"}}"#]);
    assert_eq!(
        lines,
        [r#"t {"j":1,"a":{"b":"{\"j\":1}"}}"#, r#"t {"word":"xx","a":{"b":"xx"}}"#, r#"t {"a":{"b":"y"}}"#]
    );
}
