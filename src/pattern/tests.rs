//! Patterns of Fluent Bit's users.

use proptest::prelude::*;

use super::*;

fn pattern(source: &str) -> Pattern {
    Pattern::new(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn is_match(source: &str, text: &str) -> bool {
    pattern(source).is_match(text.as_bytes())
}

/// Named groups that matched, in the order of the pattern.
fn named<'t>(source: &str, text: &'t str) -> Vec<(String, &'t str)> {
    let pattern = pattern(source);
    let mut groups = Groups::default();
    assert!(pattern.captures(text.as_bytes(), &mut groups), "{source}: {text}");
    let group = |(name, group): &(Box<str>, usize)| Some((name.to_string(), &text[groups.get(*group)?]));
    pattern.names().iter().filter_map(group).collect()
}

#[test]
fn look_around_works() {
    let health = r"^(?=.*ELB-HealthChecker\/2\.0).*$";
    assert!(is_match(health, r#"GET / "ELB-HealthChecker/2.0""#));
    assert!(!is_match(health, r#"GET / "curl""#));
    let lines = |text: &str| is_match("^(?!.*health).*$", text);
    assert!(lines("a\nhealth") && !lines("health\nhealth") && !lines("ünhealthy"), "of any line, as Ruby has it");
    let pattern = pattern(health);
    let mut groups = Groups::default();
    let line = b"\xff ELB-HealthChecker/2.0";
    assert!(pattern.is_match(line) && pattern.captures(line, &mut groups) && groups.get(0) == Some(0..line.len()));
    assert!(is_match("(?<!x)y", "y") && !is_match("(?<!x)y", "xy"));
    assert!(is_match("^(?!.*health)", "GET /") && !is_match("^(?!.*health)", "GET /health"));
    assert!(!pattern.is_linear() && self::pattern("a+b").is_linear());
    assert!(is_match(r"(a)\1", "aa") && !is_match(r"(a)\1", "ab"));
    assert!(is_match(r"(?<q>['x]).*\k<q>", "'a'") && !is_match(r"(?<q>['x]).*\k<q>", "'ax"));
}

#[test]
fn what_is_no_pattern_is_said() {
    for (source, reason) in [
        ("*failure*", "nothing before it to repeat"),
        ("a(b", "unclosed group"),
        ("a)", "unmatched"),
        ("[a", "unclosed character class"),
        (r"\", "backslash"),
        (r"\g<a>", "not supported"),
        (r"(?~a)", "not supported"),
        (r"\1", "not before it"),
        ("(|+)", "nothing before it"),
        ("[z-a]", ""),
    ] {
        let error = Pattern::new(source).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains('\n'), "{source}: {error}");
    }
}

#[test]
fn anchors_are_of_lines_and_the_dot_is_no_newline() {
    assert!(is_match("^b$", "a\nb\nc"));
    assert!(!is_match(r"\Ab\z", "a\nb\nc"));
    assert!(is_match(r"\Aa\Z", "a\n") && !is_match(r"\Aa\z", "a\n"));
    assert!(!is_match("a.b", "a\nb") && is_match("(?m)a.b", "a\nb") && is_match("/a.b/m", "a\nb"));
    assert!(is_match("(?m:a.b)", "a\nb") && !is_match("(?m:a.)(?-m:.)", "a\n\n"));
}

#[test]
fn delimiters_and_flags() {
    assert!(is_match("/^Abc/i", "aBC") && !is_match("/^Abc/", "aBC"));
    assert!(is_match("/a b # c\n/x", "ab"));
    assert!(is_match("/a[ ]b/x", "a b"), "in Ruby blanks count within a class");
    assert!(is_match("/a/q", "/a/q"), "no flag: the slashes are part of it");
    assert!(is_match("(?i)ab", "AB") && is_match("a(?i)b", "aB") && !is_match("a(?i)b", "AB"));
    assert!(is_match("(?x) a  b ", "ab") && is_match("(?x: a b)c d", "abc d"));
}

#[test]
fn what_ruby_takes_as_it_stands() {
    assert!(is_match(r"^{.*}$", "{a}") && is_match("a{,2}b", "aab") && is_match("a{x}", "a{x}"));
    assert!(is_match(r"^]}$", "]}"));
    assert!(is_match(r"[\w-.]", "-") && is_match(r"[\w-.]", ".") && !is_match(r"^[\w-.]$", "/"));
    assert!(is_match(r"^[a-c-]+$", "a-c") && is_match(r"^[-a]+$", "-a") && is_match(r"^[^\]~&]+$", "x"));
    assert!(is_match(r"\<\>\/\'\:\@", "<>/':@"));
    assert!(is_match(r"^\h+\H$", "0aFg") && is_match(r"[\h.]+", "ff.ff") && !is_match(r"[^\H]", "g"));
    assert!(!is_match(r"^\d$", "٣") && !is_match(r"^\w$", "é"), "ASCII, as in Ruby");
    assert!(is_match(r"^[[:alpha:]]+$", "é") && is_match(r"^\p{Alpha}+$", "é") && is_match(r"^[^[:space:]]+$", "é"));
    assert!(is_match(r"\x41\u0042\x{43}\103", "ABCC") && is_match(r"\e\t", "\x1b\t"));
    assert!(is_match("a{2}{2}b", "aaaab") && is_match("^(?:a+)*$", "aa"));
    assert!(!is_match("a++ab", "aab") && is_match("a{1}+ab", "aab"), "possessive, and a repetition");
    assert!(is_match("(?#a comment)b", "b"));
    assert!(is_match(r"\R$", "a\r\n"));
    assert!(is_match("é+", "éé") && is_match("[é]", "é"));
}

#[test]
fn named_groups_come_in_order_and_plain_ones_do_not_capture() {
    assert_eq!(named(r"^(?<b>[^ ]*) (x|y) (?<a>[^ ]*)( (?<c>z))?$", "1 x 2"), [("b".into(), "1"), ("a".into(), "2")]);
    assert_eq!(pattern("(?<a>x)(y)").group_count(), 2);
    assert_eq!(pattern("(x)(y)").group_count(), 3);
    assert_eq!(named("(?<a>x)|(?<a>y)", "y"), [("a".into(), "y")], "a name may repeat");
    assert_eq!(named("(?'k-1'x)", "x"), [("k-1".into(), "x")]);
}

#[test]
fn bytes_that_are_not_utf_8_are_matched_by_bytes() {
    for source in ["^(?<a>.*)=(?<b>.*)$", "^(?=.)(?<a>.*)=(?<b>.*)$"] {
        let pattern = pattern(source);
        let mut groups = Groups::default();
        let text = b"\xff\xfe=caf\xe9 ok";
        assert!(pattern.captures(text, &mut groups), "{source}");
        let places: Vec<_> = pattern.names().iter().map(|(_, group)| &text[groups.get(*group).unwrap()]).collect();
        assert_eq!(places, [&b"\xff\xfe"[..], b"caf\xe9 ok"]);
    }
    assert!(pattern("[^a]").is_match(b"\xff") && pattern("é").is_match("\u{e9}\u{e9}".as_bytes()));
}

#[test]
fn a_match_that_takes_too_long_is_none() {
    let pattern = pattern(r"^(?=a)(a|aa)+(?!.)$");
    assert!(!pattern.is_match(format!("{}b", "a".repeat(60)).as_bytes()));
}

#[test]
fn parsers_of_fluent_bit() {
    let apache = r#"^(?<host>[^ ]*) [^ ]* (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^\"]*?)(?: +\S*)?)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^\"]*)" "(?<agent>[^\"]*)")?$"#;
    let line = r#"10.0.0.1 - - [22/Nov/2026:02:36:32 +0000] "GET /a?b HTTP/1.1" 200 12 "-" "curl""#;
    let found = named(apache, line);
    assert_eq!(found.len(), 9);
    assert_eq!(found[4], ("path".into(), "/a?b"));
    let nginx = r#"^(?<remote>[^ ]*) (?<host>[^ ]*) (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^\"]*?)(?: +\S*)?)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^\"]*)" "(?<agent>[^\"]*)")"#;
    assert_eq!(named(nginx, line).len(), 10);
    let error = r"^\[[^ ]* (?<time>[^\]]*)\] \[(?<level>[^\]]*)\](?: \[pid (?<pid>[^\]]*)\])?( \[client (?<client>[^\]]*)\])? (?<message>.*)$";
    assert_eq!(named(error, "[Sun Nov 22 2026] [error] [pid 7] went").len(), 4);
    let rfc5424 = r"^\<(?<pri>[0-9]{1,5})\>1 (?<time>[^ ]+) (?<host>[^ ]+) (?<ident>[^ ]+) (?<pid>[-0-9]+) (?<msgid>[^ ]+) (?<extradata>(\[(.*?)\]|-)) (?<message>.+)$";
    assert_eq!(named(rfc5424, r#"<34>1 2026-11-22T02:36:32Z h app 7 ID [a b="c"] text"#)[6].1, r#"[a b="c"]"#);
    let rfc3164 = r"/^\<(?<pri>[0-9]+)\>(?<time>[^ ]* {1,2}[^ ]* [^ ]*) (?<host>[^ ]*) (?<ident>[a-zA-Z0-9_\/\.\-]*)(?:\[(?<pid>[0-9]+)\])?(?:[^\:]*\:)? *(?<message>.*)$/";
    assert_eq!(named(rfc3164, "<34>Nov  2 02:36:32 host su[12]: failed").last().unwrap().1, "failed");
    let envoy = r#"^\[(?<start_time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^\"]*?)(?: +\S*)?)? (?<protocol>\S+)" (?<code>[^ ]*) (?<response_flags>[^ ]*) (?<bytes_received>[^ ]*) (?<bytes_sent>[^ ]*) (?<duration>[^ ]*) (?<x_envoy_upstream_service_time>[^ ]*) "(?<x_forwarded_for>[^ ]*)" "(?<user_agent>[^\"]*)" "(?<request_id>[^\"]*)" "(?<authority>[^ ]*)" "(?<upstream_host>[^ ]*)""#;
    let line = r#"[2026-11-22T02:36:32.784Z] "GET /a HTTP/1.1" 200 - 0 5 1 0 "-" "curl/8" "id" "host" "10.0.0.1:80""#;
    assert_eq!(named(envoy, line).len(), 15);
    let cri = r"^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>[^ ]*) (?<message>.*)$";
    assert_eq!(named(cri, "2026-11-22T02:36:32Z stdout F text").len(), 4);
    let kube = r"(?<tag>[^.]+)?\.?(?<pod_name>[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)_(?<namespace_name>[^_]+)_(?<container_name>.+)-(?<docker_id>[a-z0-9]{64})\.log$";
    assert!(pattern(kube).is_linear());
    let mongodb = r"^(?<time>[^ ]*)\s+(?<severity>\w)\s+(?<component>[^ ]+)\s+\[(?<context>[^\]]+)]\s+(?<message>.*?) *(?<ms>(\d+))?(:?ms)?$";
    assert_eq!(named(mongodb, "t I NET [conn1] end 12ms").last().unwrap().1, "12");
}

#[test]
fn patterns_of_routes_are_those_of_the_regex_crate_and_more() {
    assert!(Pattern::rust("^a.$").unwrap().is_match(b"ab"));
    assert!(!Pattern::rust("^b$").unwrap().is_match(b"a\nb"), "anchors are of the whole text there");
    assert!(Pattern::rust("a(?!b)").unwrap().is_match(b"ac"));
    assert!(!Pattern::rust("a(").unwrap_err().to_string().contains('\n'));
}

proptest! {
    #[test]
    fn no_pattern_panics(source in "\\PC{0,30}", text in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(pattern) = Pattern::new(&source) {
            let mut groups = Groups::default();
            let found = pattern.captures(&text, &mut groups);
            prop_assert_eq!(found, pattern.is_match(&text));
            for group in 0..groups.count() {
                prop_assert!(groups.get(group).is_none_or(|range| text.get(range).is_some()));
            }
        }
    }

    #[test]
    fn no_pattern_of_meta_characters_panics(source in r"[\\\[\](){}?*+^$.|<>='a-c0-9:#&~,!kpPuxdwshR-]{0,24}", text in "[a-c0-9\n]{0,20}") {
        if let Ok(pattern) = Pattern::new(&source) {
            let _ = pattern.is_match(text.as_bytes());
        }
    }
}
