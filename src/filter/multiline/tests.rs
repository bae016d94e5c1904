//! Lines of stack traces, and what bounds them.

use super::*;
use crate::filter::Pending;
use crate::filter::tests::{NOW, Written, filters, record, run};

fn lines(source: &str, texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| serde_json::json!({ "log": text, "source": source }).to_string()).collect()
}

fn join(parser: &str, texts: &[&str]) -> Vec<String> {
    let toml = format!("[[filter]]\ntype = \"multiline\"\nmultiline_parser = {parser}");
    let lines = lines("stdout", texts);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let out = run(&toml, "t", &lines);
    out.iter().filter(|line| *line != "Joined").map(|line| line["t ".len()..].to_owned()).collect()
}

fn logs(joined: &[String]) -> Vec<String> {
    let log =
        |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned();
    joined.iter().map(log).collect()
}

#[test]
fn the_parsers_that_need_no_table_compile() {
    for (name, joiner) in builtins() {
        let needs_none = matches!(joiner.kind, Joining::Rules(_) | Joining::Envoy);
        assert!(needs_none == joiner.inner.is_none(), "{name}");
    }
}

#[test]
fn java() {
    let joined = join(
        "\"java\"",
        &[
            "before",
            "Exception in thread \"main\" java.lang.IllegalStateException: a",
            "\tat A.b(A.java:1)",
            "Caused by: java.lang.NullPointerException: b",
            "\tat C.d(C.java:2)",
            "\t... 1 more",
            "after",
        ],
    );
    assert_eq!(
        logs(&joined),
        [
            "before",
            "Exception in thread \"main\" java.lang.IllegalStateException: a\n\tat A.b(A.java:1)\nCaused by: java.lang.NullPointerException: b\n\tat C.d(C.java:2)\n\t... 1 more",
            "after"
        ]
    );
    assert!(joined[1].ends_with(r#","source":"stdout"}"#), "other fields are the first line's: {}", joined[1]);
}

#[test]
fn records_of_envoy_s_own_log() {
    let headers =
        "[2023-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] request headers complete (end_stream=true):";
    let access = r#"[2026-11-22T02:36:32.784Z] "GET / HTTP/1.1" 200 - 0 5 1 0 "-" "c" "id" "h" "10.0.0.1:80""#;
    let quiet = "[2023-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] new stream";
    let dump = "[2023-06-13 13:28:27.724][38][debug][filter] [source/a.cc:1] headers: ':authority', 'a:80'";
    let agent = "[2023-06-13 13:28:27.724][1][info] [AppNet Agent] ==OLD==";
    let istio = "2021-02-28T10:36:20.575312Z debug envoy http  [C1] request headers complete (end_stream=true):";
    let joined = join(
        "\"envoy\"",
        &[
            "before",
            headers,
            "':path', '/get'",
            "",
            "'a', 'b'",
            headers,
            headers,
            "x",
            access,
            "after",
            quiet,
            "after",
            dump,
            "':path', '/x'",
            r#"{"a":1}"#,
            agent,
            "---",
            "a: 1",
            "2024-08-07T09:34:15.747426Z\tinfo\tready",
            "b",
            istio,
            "':path', '/y'",
            "2024-08-07 09:34:15 INFO x",
            "c",
        ],
    );
    assert_eq!(
        logs(&joined),
        [
            "before".to_owned(),
            format!("{headers}\n':path', '/get'\n\n'a', 'b'"),
            headers.to_owned(),
            format!("{headers}\nx"),
            access.to_owned(),
            "after".to_owned(),
            quiet.to_owned(),
            "after".to_owned(),
            format!("{dump}\n':path', '/x'"),
            r#"{"a":1}"#.to_owned(),
            format!("{agent}\n---\na: 1"),
            "2024-08-07T09:34:15.747426Z\tinfo\tready".to_owned(),
            "b".to_owned(),
            format!("{istio}\n':path', '/y'"),
            "2024-08-07 09:34:15 INFO x".to_owned(),
            "c".to_owned(),
        ]
    );
}

#[test]
fn wrapped_records_of_envoy_s_own_log_are_joined_within_their_stream() {
    let open = "[2023-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] request headers complete:";
    let toml = "[[filter]]\ntype = \"multiline\"\nmultiline_parser = \"envoy\"";
    let time = "2027-01-30T12:10:13.682034460Z";
    let lines: Vec<String> = [
        format!("{time} stdout F {open}"),
        format!("{time} stderr F aside"),
        format!("{time} stdout F ':path', '/get'"),
        "bare".to_owned(),
        format!("envoy-1  | {open}"),
        "envoy-1  | ':path', '/get'".to_owned(),
        "app is up".to_owned(),
    ]
    .iter()
    .map(|line| serde_json::json!({ "log": line }).to_string())
    .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let out: Vec<String> = run(toml, "t", &lines).into_iter().filter(|line| line != "Joined").collect();
    let texts: Vec<String> = out.iter().map(|line| line["t ".len()..].to_owned()).collect();
    let mut texts = logs(&texts);
    texts.sort();
    let mut expected = [
        format!("{time} stdout F {open}\n':path', '/get'"),
        format!("{time} stderr F aside"),
        "bare".to_owned(),
        format!("envoy-1  | {open}\n':path', '/get'"),
        "app is up".to_owned(),
    ];
    expected.sort();
    assert_eq!(texts, expected);
}

#[test]
fn a_joined_record_of_envoy_has_a_limit_of_lines() {
    let open = "[2023-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] request headers complete:";
    let lines: Vec<&str> = std::iter::once(open).chain(std::iter::repeat_n("x", JOINED_LINES_MAX)).collect();
    let joined = join("\"envoy\"", &lines);
    let counts: Vec<usize> = logs(&joined).iter().map(|text| text.lines().count()).collect();
    assert_eq!(counts, [JOINED_LINES_MAX, 1]);
}

#[test]
fn python_go_and_ruby() {
    let python = [
        "Traceback (most recent call last):",
        "  File \"a.py\", line 1, in <module>",
        "    f()",
        "ValueError: x",
        "next",
    ];
    assert_eq!(logs(&join("\"python\"", &python)), [python[..4].join("\n"), "next".into()]);
    let go = [
        "panic: x",
        "",
        "goroutine 1 [running]:",
        "main.main()",
        "\t/a.go:1 +0x1",
        "created by main.f",
        "\t/a.go:2",
        "next",
    ];
    assert_eq!(
        logs(&join("\"go\"", &go)),
        ["panic: x\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:1 +0x1\ncreated by main.f\n\t/a.go:2", "next"]
    );
    let ruby = ["a.rb:1:in `/': divided by 0", "\tfrom a.rb:1:in `<main>'", "next"];
    assert_eq!(logs(&join("\"ruby\"", &ruby)), [ruby[..2].join("\n"), "next".into()]);
    assert_eq!(logs(&join("[\"go\", \"python\"]", &python)), [python[..4].join("\n"), "next".into()], "in order");
}

#[test]
fn rules_of_ones_own() {
    let parser = "\"mine\"\n[multiline_parser.mine]\ntype = \"regex\"\nflush_timeout = 1000\n\
        rule = ['\"start_state\" \"/^\\d{4}-/\" \"cont\"', '\"cont\" \"/^(?!\\d{4}-)/\" \"cont\"']";
    let joined = join(parser, &["2026-a", " b", "c", "2026-d", "2026-e", "f"]);
    assert_eq!(logs(&joined), ["2026-a\n b\nc", "2026-d", "2026-e\nf"]);
}

#[test]
fn lines_that_end_so_are_the_last() {
    let parser = "\"mine\"\n[multiline_parser.mine]\ntype = \"endswith\"\nmatch_string = \"\\\\\"\nnegate = true";
    assert_eq!(logs(&join(parser, &["a\\", "b\\", "c", "d"])), ["a\\b\\c", "d"]);
    let parser = "\"mine\"\n[multiline_parser.mine]\ntype = \"equal\"\nmatch_string = \"end\"";
    assert_eq!(logs(&join(parser, &["a", "b", "end", "c"])), ["abend", "c"]);
}

#[test]
fn docker_and_cri_read_the_line_first() {
    let docker = [
        r#"{"log":"one ","stream":"stdout","time":"2026-11-22T02:36:32.5Z"}"#,
        r#"{"log":"two\n","stream":"stdout","time":"2026-11-22T02:36:33Z"}"#,
        "plain",
    ];
    let joined = join("\"docker\"", &docker);
    assert_eq!(joined[0], r#"{"log":"one two\n","stream":"stdout","time":"2026-11-22T02:36:32.5Z"}"#);
    assert_eq!(logs(&joined), ["one two\n", "plain"]);
    let cri = [
        "2026-11-22T02:36:32.5Z stdout P one ",
        "2026-11-22T02:36:33Z stdout F two",
        "2026-11-22T02:36:34Z stdout F three",
    ];
    assert_eq!(logs(&join("\"cri\"", &cri)), ["one two", "three"]);
}

#[test]
fn stdout_and_stderr_do_not_mix() {
    let toml = "[[filter]]\ntype = \"multiline\"\nmultiline_parser = \"ruby\"";
    let out = lines("stdout", &["a.rb:1:in `x'", "\tfrom a.rb:2:in `y'"]);
    let err = lines("stderr", &["b.rb:1:in `x'", "\tfrom b.rb:2:in `y'"]);
    let lines = run(toml, "t", &[&out[0], &err[0], &out[1], &err[1]]);
    assert_eq!(lines[..2], ["Joined", "Joined"]);
    assert!(lines[2].contains("a.rb:1:in `x'\\n\\tfrom a.rb:2") && lines[3].contains("b.rb:1:in `x'\\n\\tfrom b.rb:2"));
}

#[test]
fn partial_mode_does_nothing() {
    let toml = "[[filter]]\ntype = \"multiline\"\nmode = \"partial_message\"\nmultiline_key_content = \"log\"";
    assert_eq!(run(toml, "t", &[r#"{"log":"a"}"#]), [r#"t {"log":"a"}"#]);
}

#[test]
fn what_waits_too_long_comes_out() {
    let filters = filters("[[filter]]\ntype = \"multiline\"\nmultiline_parser = \"ruby\"\nflush_ms = 100");
    let arena = Arena::new();
    let (mut pending, mut written) = (Pending::default(), Written::default());
    let view = filters.for_tag(b"t");
    let text = lines("stdout", &["a.rb:1:in `x'"]);
    filters.run(&arena, &mut pending, b"t", &view, &mut record(&text[0]), NOW, &mut written);
    assert_eq!((pending.held_records(), written.lines.len()), (1, 0));
    filters.flush(&arena, &mut pending, Some(NOW + 99_999_999), &mut written);
    assert!(!pending.is_empty());
    filters.flush(&arena, &mut pending, Some(NOW + 100_000_000), &mut written);
    assert!(pending.is_empty() && pending.held_bytes() == 0);
    assert_eq!(written.lines, [r#"t {"log":"a.rb:1:in `x'","source":"stdout"}"#]);
}

#[test]
fn what_is_held_is_bounded_and_nothing_is_cut() {
    let filters = filters(
        "[[filter]]\ntype = \"multiline\"\nmultiline_parser = \"mine\"\n\
         [multiline_parser.mine]\nrule = ['\"start_state\" \"/^s/\" \"c\"', '\"c\" \"/^c/\" \"c\"']",
    );
    let arena = Arena::new();
    let (mut pending, mut written) = (Pending::default(), Written::default());
    let view = filters.for_tag(b"t");
    let long = "c".repeat(300_000);
    let mut bytes = 0;
    for stream in 0..80 {
        let source = stream.to_string();
        for text in ["s", &long, &long, &long, &long] {
            let text = lines(&source, &[text]);
            bytes += text[0].matches('c').count() - 1;
            filters.run(&arena, &mut pending, b"t", &view, &mut record(&text[0]), NOW, &mut written);
            assert!(pending.held_bytes() <= OPEN_BYTES_MAX && pending.held_records() <= OPEN_RECORDS_MAX);
        }
    }
    filters.flush(&arena, &mut pending, None, &mut written);
    let passed: Vec<&String> = written.lines.iter().filter(|line| *line != "Joined").collect();
    let kept: usize = passed.iter().map(|line| line.matches('c').count() - 1).sum();
    assert_eq!(kept, bytes);
    assert!(passed.iter().all(|line| line.len() < JOINED_BYTES_MAX + 100));
}
