use proptest::prelude::*;

use super::*;

fn redactor(query: Policy) -> Redactor {
    Redactor::new(&Config { query, ..Config::default() })
}

fn hash() -> Policy {
    Policy::Hash { key: Secret(b"a key".as_slice().into()) }
}

fn scrubbed(query: Policy, text: &str) -> String {
    let mut out = b"before ".to_vec();
    redactor(query).scrub_text(text.as_bytes(), &mut out);
    String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
}

fn stripped(text: &str) -> String {
    scrubbed(Policy::Strip, text)
}

#[test]
fn a_query_ends_at_a_blank_or_its_closing_quote() {
    for (text, expected) in [
        (r#""GET /a?x=y HTTP/1.1""#, r#""GET /a HTTP/1.1""#),
        ("GET /a?x=y\tb?c\nd?e\x0bf?g\x0ch?i\rj", "GET /a\tb\nd\x0bf\x0ch\rj"),
        ("':path', '/get?token=x'", "':path', '/get'"),
        ("cluster 'c' match for URL '/x?token='", "cluster 'c' match for URL '/x'"),
        ("URL '/x?token=', then '/y?b=c' ends", "URL '/x', then '/y' ends"),
        (r#"{"url":"/x?t=S","n":1}"#, r#"{"url":"/x","n":1}"#),
        (r#"{"url":"/x?t=","n":"a"}"#, r#"{"url":"/x","n":"a"}"#),
        (r#"{"url":"/x?t=S"}"#, r#"{"url":"/x"}"#),
        (r#"{"u":["/x?t=S","/y?t"]}"#, r#"{"u":["/x","/y"]}"#),
        (r#"{"msg":"GET /x?t=S","n":1}"#, r#"{"msg":"GET /x","n":1}"#),
        (r#"x {"u":"/x?y","a b":{"c":1}}"#, r#"x {"u":"/x","a b":{"c":1}}"#),
        (r#"x [["/x?y"],["z"]]"#, r#"x [["/x"],["z"]]"#),
        (r#"x \"say \\\"/x?y\\\"\",\"z\""#, r#"x \"say \\\"/x\\\"\",\"z\""#),
        (r#"x {\"a\":\"{\\\"u\\\":\\\"/x?y\\\"}\",\"z\":1}"#, r#"x {\"a\":\"{\\\"u\\\":\\\"/x\\\"}\",\"z\":1}"#),
        (r#"x {'u': '/x?y', 'z': 1}"#, r#"x {'u': '/x', 'z': 1}"#),
        (r#"{\"uri\":\"/x?y\",\"z\":1}"#, r#"{\"uri\":\"/x\",\"z\":1}"#),
        (r#"\\\"uri\\\":\\\"/x?y\\\","#, r#"\\\"uri\\\":\\\"/x\\\","#),
        ("<a href=\"/x?t=S\">", "<a href=\"/x\">"),
        ("`/x?t=S`", "`/x`"),
        ("see (/x?t=S) there", "see (/x there"),
    ] {
        assert_eq!(stripped(text), expected, "{text}");
    }
}

#[test]
fn a_quote_within_a_query_does_not_end_it() {
    for (text, expected) in [
        (r#"GET /x?a="SECRET HTTP"#, "GET /x HTTP"),
        ("GET /x?a='SECRET HTTP", "GET /x HTTP"),
        (r#""GET /x?a="SECRET" HTTP/1.1" 200"#, r#""GET /x HTTP/1.1" 200"#),
        (r#""GET /x?f={"a":"SECRET","b":"SECRET"} HTTP/1.1""#, r#""GET /x HTTP/1.1""#),
        (r#""GET /x?f=["SECRET","SECRET"]&g=it's,SECRET HTTP/1.1""#, r#""GET /x HTTP/1.1""#),
        (r#""GET /x?f=a",SECRET HTTP/1.1""#, r#""GET /x HTTP/1.1""#),
        (r#"{"url":"/x?f={\"a\":\"SECRET\"}","n":1}"#, r#"{"url":"/x","n":1}"#),
        (r#"{"url":"/x?a='y',SECRET","n":1}"#, r#"{"url":"/x","n":1}"#),
        (r#"reason "/x?a=%",)&sig=SECRET""#, r#"reason "/x""#),
        (r#"reason "/x?a="::9;SECRET" end"#, r#"reason "/x end"#),
        (r#"':path', '/x?t=';"]SECRET' end"#, "':path', '/x end"),
        ("':path', '/x?t=','SECRET' end", "':path', '/x end"),
        (r"':path', '/x?t='\'{SECRET' end", "':path', '/x end"),
        (r#"reason "/x?t=":"SECRET>" end"#, r#"reason "/x end"#),
        (r#"'/x?a=b"', SECRET"#, "'/x', SECRET"),
        ("no quote open /x?a=b', 'SECRET'", "no quote open /x 'SECRET'"),
    ] {
        assert_eq!(stripped(text), expected, "{text}");
    }
}

#[test]
fn a_document_stays_one_whatever_the_query_holds() {
    for (text, expected) in [
        (r#"["/x?a=b|", "kept"]"#, r#"["/x", "kept"]"#),
        (r#"{"u":"/x?a=\"SECRET","n":"kept"}"#, r#"{"u":"/x","n":"kept"}"#),
        (r#" {"u?SECRET=":1,"n":"kept"} "#, r#" {"u":1,"n":"kept"} "#),
        (r#"{"u":"/x?a='(","n":[null,2.50,"who? me"]}"#, r#"{"u":"/x","n":[null,2.50,"who? me"]}"#),
        (r#"{"u":"/x%\u0033fSECRET"}"#, r#"{"u":"/x"}"#),
        (r#"{"log":"{\"u\":\"/x?a=|\",\"n\":1}\n"}"#, r#"{"log":"{\"u\":\"/x\",\"n\":1}\n"}"#),
        (r#"{"u":"/x","n":"\u00e9 \/ %"}"#, r#"{"u":"/x","n":"\u00e9 \/ %"}"#),
    ] {
        assert_eq!(stripped(text), expected, "{text}");
    }
}

#[test]
fn documents_within_documents_end_somewhere() {
    let mut text = r#"["/x?SECRET"]"#.to_owned();
    for _ in 0..64 {
        text = format!("[\"{}\"]", text.replace('\\', "\\u005c").replace('"', "\\u0022"));
    }
    let out = stripped(&text);
    assert!(!out.contains("SECRET"));
    assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
}

#[test]
fn encoded_marks_begin_a_query_too() {
    for mark in ["%3F", "%3f", "%253F", "%25253f", r"\u003f", r"\\u003F", r"\x3f", r"\077", r"\u00253f"] {
        let text = format!("GET /x{mark}token%3DSECRET+more%20of+it HTTP");
        for policy in [Policy::Strip, Policy::Mask, hash(), Policy::Keep(vec!["token".into()])] {
            assert_eq!(scrubbed(policy, &text), "GET /x HTTP", "{mark}");
        }
    }
}

#[test]
fn control_and_foreign_bytes_do_not_end_a_query() {
    let mut out = Vec::new();
    redactor(Policy::Strip).scrub_text(b"/x?a\0b\x01\x7f\xff\xc2\xa0SECRET end", &mut out);
    assert_eq!(out, b"/x end");
}

#[test]
fn a_question_stays() {
    for text in [
        "",
        "?",
        "who? me",
        "\"who?\", he said",
        "'?' \"?\"",
        "100 % of \\n it",
        "what ?",
        "/x? HTTP/1.1",
        "%3F",
        "a %3F b",
        "#a=b",
    ] {
        assert_eq!(stripped(text), text);
    }
}

#[test]
fn policies_rewrite_text() {
    let text = r#""GET /a?x=1&token=t HTTP/1.1" '/b?token=t&x=2'"#;
    assert_eq!(scrubbed(Policy::Keep(vec!["x".into()]), text), r#""GET /a?x=1 HTTP/1.1" '/b?x=2'"#);
    assert_eq!(scrubbed(Policy::Keep(vec!["y".into()]), text), r#""GET /a HTTP/1.1" '/b'"#);
    assert_eq!(scrubbed(Policy::Keep(vec![]), text), text);
    assert_eq!(scrubbed(Policy::Mask, text), r#""GET /a?x=***&token=*** HTTP/1.1" '/b?token=***&x=***'"#);
}

#[test]
fn equal_values_have_equal_hashes_and_only_under_one_key() {
    let parts = |policy: Policy, text: &str| -> Vec<String> {
        let text = scrubbed(policy, text);
        text.split(['=', '&', ' ']).map(str::to_owned).collect()
    };
    let one = parts(hash(), "/a?x=v&y=v&z=w");
    assert_eq!(one[0], "/a?x");
    assert_eq!(one[1], one[3]);
    assert_ne!(one[1], one[5]);
    assert_eq!(one[1].len(), 25);
    assert!(one[1].starts_with('~') && one[1][1..].bytes().all(|digit| digit.is_ascii_hexdigit()));
    let other = parts(Policy::Hash { key: Secret(b"other".as_slice().into()) }, "/a?x=v");
    assert_ne!(one[1], other[1]);
}

#[test]
fn a_value_that_imitates_a_hash_is_hashed() {
    let own = scrubbed(hash(), "/a?x=v");
    assert_eq!(scrubbed(hash(), &own), own);
    let imitated = "/a?x=~0123456789abcdef01234567";
    let result = scrubbed(hash(), imitated);
    assert!(!result.contains("0123456789abcdef"), "{result}");
    // Another key's hash is a value like any other.
    let other = scrubbed(Policy::Hash { key: Secret(b"other".as_slice().into()) }, &own);
    assert_ne!(other, own);
}

#[test]
fn nothing_shows_the_key() {
    let config = Config { query: Policy::Hash { key: Secret(b"visible".as_slice().into()) }, ..Config::default() };
    let shown = format!("{config:?} {:?}", Redactor::new(&config));
    assert!(!shown.contains("visible") && !shown.contains("118"), "{shown}");
}

#[test]
fn strip_of_a_usual_record_writes_nothing() {
    let line = br#"[t] "GET /a?x=y HTTP/1.1" 200 "agent" "h:1""#;
    let mut record = Record::new();
    record.kind = Kind::Access;
    record.push_envelope(Name::text(b"container_id"), Value::Text(b"0123"));
    record.parsed.push(crate::record::Field { name: Name::Known(Key::Path), value: Value::Text(&line[9..15]) });
    record.parsed.push(crate::record::Field { name: Name::Known(Key::UserAgent), value: Value::Text(&line[31..36]) });
    redactor(Policy::Strip).redact(&mut record);
    assert_eq!(record.get(Key::Path), Some(&Value::Text(b"/a")));
    assert_eq!(record.get(Key::UserAgent), Some(&Value::Text(b"agent")));
    assert!(record.scratch.is_empty());
}

#[test]
fn names_are_scrubbed_and_become_known_ones() {
    let mut record = Record::new();
    record.push_envelope(Name::text(b"log_type?a=b"), Value::Null);
    record.push_envelope(Name::json(br"/x\u003fa c"), Value::Null);
    record.push_envelope(Name::json(b"/x?a c"), Value::Null);
    redactor(Policy::Strip).redact(&mut record);
    assert_eq!(record.envelope[0].name, Name::Known(Key::LogType));
    assert_eq!(record.name_bytes(&record.envelope[1].name), b"/x c");
    assert_eq!(record.name_bytes(&record.envelope[2].name), b"/x c");
}

#[test]
fn only_the_dirty_part_of_the_line_is_suspect() {
    let line = b"clean ?dirty# clean";
    let rules = Rules::new(&Config::default());
    let suspects = Suspects::of(&rules, line);
    assert!(!suspects.include(&line[..6]));
    assert!(suspects.include(&line[..7]));
    assert!(suspects.include(&line[12..]));
    assert!(!suspects.include(&line[13..]));
    assert!(suspects.include(b"?") && !suspects.include(b"a"));
    assert!(!Suspects::of(&rules, b"clean").include(b"") && Suspects::of(&rules, b"").include(b"@"));
}

#[test]
fn single_parameters_have_rules_of_their_own() {
    let parameters = Parameters {
        strip: vec!["sid".into()],
        mask: vec!["token".into()],
        hash: vec!["user".into()],
        keep: vec!["page".into()],
        key: Some(Secret(b"a key".as_slice().into())),
    };
    let with = |query: Policy, text: &str| {
        let mut out = Vec::new();
        let config = Config { query, parameters: parameters.clone(), ..Config::default() };
        Redactor::new(&config).scrub_text(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    };
    let text = "/a?sid=1&token=2&user=3&page=4&other=5&bare";
    let hashed = with(Policy::Strip, "/a?user=3").split_once('=').unwrap().1.to_owned();
    assert_eq!(with(Policy::Strip, text), format!("/a?token=***&user={hashed}&page=4"));
    assert_eq!(with(Policy::Mask, text), format!("/a?token=***&user={hashed}&page=4&other=***&***"));
    assert_eq!(with(Policy::Keep(vec![]), text), format!("/a?token=***&user={hashed}&page=4&other=5&bare"));
    assert_eq!(with(Policy::Keep(vec!["other".into()]), text), format!("/a?token=***&user={hashed}&page=4&other=5"));
    // A name is known however it is written, unless it is to be kept.
    let text = "/a?TOKEN=S&%74oken=S&tok%2565n=S&PAGE=S&pag%65=S&t%6fk\"en=S";
    assert_eq!(with(Policy::Strip, text), "/a?token=***&token=***&token=***");
    assert_eq!(with(Policy::Keep(vec![]), text), "/a?token=***&token=***&token=***&PAGE=S");
}

#[test]
fn urls_in_text_lose_users_and_fragments() {
    for (text, expected) in [
        ("get https://u:p@h/x#f now", "get https://h/x now"),
        ("to /cb#access_token=S&x=S now", "to /cb now"),
        ("'/cb#access_token=S', 'x'", "'/cb', 'x'"),
        ("url=/cb#t=S", "url=/cb"),
        ("https://a/b https://c/d#S", "https://a/b https://c/d"),
        (r#"{"u":"https://u:p@h/#S"}"#, r#"{"u":"https://h/"}"#),
        ("https%3A%2F%2Fu%3Ap%40h%2Fx", "https%3A%2F%2Fh%2Fx"),
    ] {
        assert_eq!(stripped(text), expected, "{text}");
    }
    for text in
        ["a # b", "jane@example.com", "issue #12", "/x.cc#L10", "C# is", "a=#b", "git@h:x/y", "#a=b", "https://h/x # y"]
    {
        assert_eq!(stripped(text), text);
    }
}

#[test]
fn fields_go_by_what_their_names_say() {
    let config = Config {
        fields: vec![("tenant".to_owned(), FieldClass::Secret), ("target".to_owned(), FieldClass::Url)],
        ..Config::default()
    };
    let document = br#"{"req":{"Headers":{"Cookie":["a=S"],"n":1},"tenant":{"id":"S"},"cookie":"-","x-api-key":null},"query_params":{"t":"S","n":4},"target":"/x#S"}"#;
    let mut record = Record::new();
    record.kind = Kind::Access;
    record.push_envelope(Name::text(b"tenant"), Value::Int(7));
    record.push_envelope(Name::text(b"header:cookie"), Value::Text(b"S"));
    record.push_envelope(Name::text(b"query_param:token"), Value::Text(b"S"));
    record.push_envelope(Name::json(b"auth\\u006frization"), Value::Json(b"S"));
    record.push_envelope(Name::text(b"x-api-key"), Value::MsgPack(b"\x91\xa1S"));
    record.push_envelope(Name::text(b"cookie?x"), Value::Text(b"S"));
    record.push_envelope(Name::text(b"set-cookie"), Value::Null);
    record.push_envelope(Name::text(b"deep"), Value::JsonValue(document));
    record.push_envelope(Name::text(b"url"), Value::Text(b"/p/https%3A%2F%2Fu%3AS%40h%2Fx"));
    Redactor::new(&config).redact(&mut record);
    let shown =
        |place: usize| record.bytes_of(&record.envelope[place].value).unwrap_or_default().escape_ascii().to_string();
    let all: Vec<String> = (0..7).map(shown).collect();
    assert_eq!(all, ["***", "***", "", "***", "***", "***", ""]);
    assert_eq!(record.bytes_of(&record.envelope[8].value), Some(&b"/p/https%3A%2F%2Fh%2Fx"[..]));
    assert_eq!(
        record.bytes_of(&record.envelope[7].value),
        Some(&br#"{"req":{"Headers":{"Cookie":"***","n":1},"tenant":"***","cookie":"-","x-api-key":null},"query_params":{"t":"","n":"***"},"target":"/x"}"#[..])
    );
}

#[test]
fn what_was_redacted_is_counted_by_rule_and_field() {
    let line = br#"[t] "GET http://u:p@h/a?x=y HTTP/1.1""#;
    let mut record = Record::new();
    record.kind = Kind::Access;
    record.push_envelope(Name::text(b"log"), Value::Text(line));
    record.push_envelope(Name::text(b"cookie"), Value::Text(b"a=b"));
    record.parsed.push(crate::record::Field { name: Name::Known(Key::Path), value: Value::Text(&line[9..27]) });
    let (report, mut counts) = (Report::default(), Counts::default());
    redactor(Policy::Mask).redact_and_count(&mut record, &mut counts);
    report.enter(&mut counts);
    assert_eq!(report.summary(), "query path=1, userinfo path=1, secret other=1");
    // Nothing is left to count.
    redactor(Policy::Mask).redact_and_count(&mut record, &mut counts);
    report.enter(&mut counts);
    assert_eq!(report.summary(), "query path=1, userinfo path=1, secret other=1");
}

#[test]
fn without_redaction_only_what_is_asked_for_by_name_goes() {
    let text = "cookie: a=b https://u:p@h/x?y#z jane@example.com x-mine: S";
    let keep = Policy::Keep(vec![]);
    assert_eq!(scrubbed(keep.clone(), text), text);
    let config =
        Config { query: keep, detectors: vec![Detector::Email], headers: vec!["x-mine".into()], ..Config::default() };
    let mut out = Vec::new();
    Redactor::new(&config).scrub_text(text.as_bytes(), &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "cookie: a=b https://u:p@h/x?y#z [email] x-mine: ***");
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Strip), Just(Policy::Mask), Just(hash()), Just(Policy::Keep(vec!["a".into(), "q".into()])),]
}

fn configs() -> impl Strategy<Value = Config> {
    let lists = prop_oneof![
        Just(Parameters::default()),
        Just(Parameters {
            strip: vec!["q".into()],
            mask: vec!["a".into()],
            hash: vec!["token".into()],
            keep: vec!["page".into()],
            key: Some(Secret(b"a key".as_slice().into())),
        }),
    ];
    let detectors = prop::sample::subsequence(Detector::ALL.to_vec(), 0..=5);
    let headers = prop_oneof![Just(vec![]), Just(vec!["x-mine".to_owned()])];
    let policies = prop_oneof![4 => policies(), 1 => Just(Policy::Keep(vec![]))];
    (policies, lists, detectors, headers, any::<bool>()).prop_map(
        |(query, parameters, detectors, headers, matrix_parameters)| Config {
            query,
            parameters,
            detectors,
            headers,
            matrix_parameters,
            ..Config::default()
        },
    )
}

/// Text of the pieces that matter to the scanner, in any order.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"?",
        b"%3F",
        b"%253f",
        b"%",
        b"25",
        b"3F",
        b"\\u003f",
        b"u003f",
        b"\\",
        b"\\\\",
        b"\"",
        b"'",
        b"`",
        b"\\\"",
        b" ",
        b"\n",
        b",",
        b";",
        b":",
        b"{",
        b"}",
        b"[",
        b"]",
        b"=",
        b"&",
        b"a",
        b"a=b",
        b"q=",
        b"/x",
        b"#",
        b"@",
        b"://",
        b"\0",
        b"\xff",
        b"***",
        b"~",
        b"x3f",
        b"%46",
        b"%33",
        b"&#63;",
        "\u{ff1f}".as_bytes(),
        b"%EF%BC%9F",
        b"%2F%2F",
        b"%40",
        b"cookie",
        b"'cookie', '",
        b"authorization: ",
        b"Bearer ",
        b"x-api-key=",
        b"x-mine:",
        b"\"authorization\":\"",
        b"eyJhbGciOiJIUzI1NiJ9.e30.abcdefgh",
        b"0123456789abcdef",
        b"a@b.org",
        b"4111 1111 1111 1111",
        b"AKIAABCDEFGHIJKLMNOP",
        b"secret=",
        b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        b"env: [",
        b"A=",
        b"B=b",
        b"https://u:p",
        b"#token=",
        b";t=",
        b"=>",
        b"::",
        b"Cookie:[",
        b"token",
    ];
    proptest::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Every class, and text as it stands in records of each kind.
const CLASSES: [FieldClass; 7] = [
    FieldClass::Text,
    FieldClass::Url,
    FieldClass::RequestLine,
    FieldClass::Authority,
    FieldClass::Query,
    FieldClass::Parameter,
    FieldClass::Secret,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_second_scrub_changes_nothing(config in configs(), text in nasty()) {
        let rules = Rules::new(&config);
        for class in CLASSES {
            let once = applied(&rules, class, &text);
            let twice = applied(&rules, class, &once);
            prop_assert_eq!(twice.escape_ascii().to_string(), once.escape_ascii().to_string(), "{:?} of {}", class, text.escape_ascii());
        }
    }

    #[test]
    fn text_without_a_mark_is_left_alone(policy in policies(), text in nasty()) {
        let text: Vec<u8> = text.into_iter().filter(|byte| !b"?%\\#@kz\xef[".contains(byte)).collect();
        let rules = Rules::new(&Config { query: policy, ..Config::default() });
        prop_assert_eq!(applied(&rules, FieldClass::Text, &text), text);
    }

    #[test]
    fn strip_leaves_no_byte_behind_a_mark(text in nasty()) {
        let rules = Rules::new(&Config::default());
        let left = applied(&rules, FieldClass::Text, &text);
        let mut from = 0;
        while let Some(mark) = mark::find(&left, from) {
            let next = left.get(mark.end).copied();
            prop_assert!(next.is_none_or(|byte| quotes::is_blank(byte) || b"\"'`\\".contains(&byte)), "{}", left.escape_ascii());
            from = mark.end;
        }
        let url = applied(&rules, FieldClass::Url, &text);
        prop_assert!(mark::find(&url, 0).is_none_or(|mark| mark.end == url.len()), "{}", url.escape_ascii());
    }
}

fn applied(rules: &Rules, class: FieldClass, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match Scrub::of_text(rules).value(Holder { class, name: b"x" }, input, &mut out, 0) {
        Outcome::Same => input.to_vec(),
        Outcome::Part(part) => input[part].to_vec(),
        Outcome::Written => out,
    }
}
