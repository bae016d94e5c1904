//! Formats through the binary, and the page that lists operators and presets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use meshlens::envoy::explain::describe;
use meshlens::envoy::operator::{Argument, Content, OPERATORS, meaning};
use meshlens::envoy::presets::{LAYOUTS, PRESETS};
use meshlens::envoy::shape::Shape;
use serde_json::{Value as Json, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the program on some input.
fn meshlens(arguments: &[&str], input: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshlens"))
        .args(arguments)
        .current_dir(directory.path())
        .env_remove("MESHLENS_CONFIG")
        .env_remove("MESHLENS_LOG")
        .env_remove("ECS_CONTAINER_METADATA_URI_V4")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A program that refuses its flags does not read.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn lines(output: &Output) -> Vec<Json> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const FORMAT: &str =
    "%START_TIME(%s.%3f)%|%REQ(X-TENANT)%|%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%|%RESPONSE_CODE%|%REQ(COOKIE)%";

#[test]
fn parse_reads_lines_by_a_format_of_ones_own() {
    let input = "1795305600.528|acme|/a?token=secret|200|-\nsome text\n";
    let records = lines(&meshlens(&["parse", "--format", FORMAT], input));
    assert_eq!(records[0]["log_type"], "access");
    assert_eq!(records[0]["header:x-tenant"], "acme");
    assert_eq!(records[0]["path"], "/a");
    assert_eq!(records[0]["response_code"], 200);
    assert_eq!(records[0]["header:cookie"], Json::Null);
    assert_eq!(records[1], json!({"log": "some text"}));
}

#[test]
fn a_format_may_stand_in_a_file_and_beside_presets() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), r#"{"t":"%START_TIME%","p":"%REQ(:PATH)%","tenant":"%REQ(X-TENANT)%"}"#).unwrap();
    let at = format!("@{}", file.path().display());
    let input = "{\"t\":\"2026-11-22T02:36:32.784Z\",\"p\":\"/a?token=secret\",\"tenant\":\"acme\"}\n\
        [2026-11-22T02:36:32.784Z] \"GET /a HTTP/1.1\" 200 - 0 11 1 1 \"-\" \"curl\" \"-\" \"app\" \"10.0.0.1:80\"\n";
    let records = lines(&meshlens(&["parse", "--format", &at, "--format", "envoy"], input));
    assert_eq!(records[0]["log_type"], "access");
    assert_eq!(records[1]["upstream_host"], "10.0.0.1:80");
    assert!(!records[0].to_string().contains("secret"), "{}", records[0]);
}

#[test]
fn what_does_not_compile_is_said_with_its_place() {
    let output = meshlens(&["parse", "--format", "[%START_TIME%] %REQ%", "--format", "haproxy"], "");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("at byte 15: %REQ% must have an argument in parentheses"), "{said}");
    assert!(said.contains("nor one of auto, service-connect,"), "{said}");
}

#[test]
fn check_says_what_a_format_leaves_open_and_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meshlens.toml");
    let check = |parse: &str| {
        fs::write(
            &path,
            format!("{parse}\n[source.in]\ntype = \"lines\"\npath = \"-\"\n[sink.out]\ntype = \"stdout\"\n"),
        )
        .unwrap();
        meshlens(&["check", "--config", path.to_str().unwrap()], "")
    };
    let output = check(
        "[parse]\nformats = ['%REQ(A)% %REQ(B)%', 'istio', 'edge']\n[parse.format.edge]\ntext = '%UNHEARD_OF% %DURATION%'\n",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in [
        "parse.formats[0]: at byte 9: header:a and header:b can both hold what stands between them",
        "parse.format.edge.text: at byte 0: operator %UNHEARD_OF% is not known and read as text",
        "istio",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let output = check(
        "[parse]\nformats = ['own']\n[parse.format.own]\njson = '{\"a\":\"%PROTOCOL%\"}'\nkeys = { PROTOCOL = \"p\" }\n",
    );
    assert!(text(&output.stdout).contains("parse.format.own.keys is not used"), "{}", text(&output.stdout));
    let output = check(
        "[parse]\nformats = ['%REQ(A)', 'edge', 'other']\n[parse.format.edge]\ntext = '%X%'\njson = '{}'\n[parse.format.other]\njson = '{\"a\":1}'",
    );
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for part in [
        "meshlens.toml:2: parse.formats[0] = \"%REQ(A)\": does not compile as a text format: at byte 0: %REQ has no closing %",
        "meshlens.toml:3: parse.format.edge",
        "must have either `text` or `json`",
        "meshlens.toml:7: parse.format.other.json",
        "no operator in it",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn explain_shows_fields_redacted_and_why_others_do_not_fit() {
    let line = "[2026-11-22T02:36:32.784Z] \"GET /a?token=secret HTTP/1.1\" 200 - 0 11 1 1 \"-\" \"a\" \"b\" \"-\" \"app\" \"10.0.0.1:80\"";
    let output = meshlens(&["parse", "--explain", line], "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in [
        "format  envoy\n",
        "  path                             \"/a\"\n",
        "parse_ambiguous",
        "not     service-connect-http: ",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!said.contains("secret"), "{said}");
    let output =
        meshlens(&["parse", "--format", r#"{"a":"%PROTOCOL%"}"#, "--explain", r#"{"a":"-","/b?token=secret":1}"#], "");
    let said = text(&output.stdout);
    assert!(said.contains("the line has keys that it has not: /b") && !said.contains("secret"), "{said}");
}

#[test]
fn infer_proposes_what_parse_then_reads() {
    let input = "1795305600 GET /a 200 acme\n1795305601 POST /b 404 globex\n";
    let output = meshlens(&["parse", "--infer"], input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let format = text(&output.stdout).trim_end();
    assert!(text(&output.stderr).contains("reads 2 of 2 lines"), "{}", text(&output.stderr));
    let records = lines(&meshlens(&["parse", "--format", format], input));
    assert_eq!(records[1]["path"], "/b");
}

#[test]
fn run_reads_by_the_formats_of_flags() {
    let input = "1795305600.528|acme|/a?token=secret|200|-\n";
    let output = meshlens(&["run", "--input", "-", "--to", "stdout", "--format", FORMAT], input);
    let records = lines(&output);
    assert_eq!(records[0]["header:x-tenant"], "acme");
    assert_eq!(records[0]["path"], "/a");
}

/// What the documentation says of formats.
fn markdown() -> String {
    let mut out = String::from("\n## Presets\n\n| name | what |\n|---|---|\n");
    for (name, _, what) in PRESETS {
        writeln!(out, "| `{name}` | {what} |").unwrap();
    }
    out.push_str("\nTheir text layouts:\n\n");
    for (name, format) in LAYOUTS {
        writeln!(out, "- `{name}`\n\n  ```\n  {format}\n  ```\n").unwrap();
    }
    out.push_str("## Operators\n\n| operator | key | type | value | holds |\n|---|---|---|---|---|\n");
    for operator in OPERATORS {
        let argument = match operator.argument {
            Argument::None => "",
            Argument::Style => "(…)",
            Argument::Time => "(time)",
            Argument::Selects => "(X)",
            Argument::Header => "(X?Y)",
        };
        let length = if operator.has_length { ":Z" } else { "" };
        let names: Vec<String> = operator.names.iter().map(|name| format!("`%{name}{argument}{length}%`")).collect();
        let example = match operator.argument {
            Argument::Selects | Argument::Header => Some("X"),
            _ => None,
        };
        let meaning = meaning(operator, example);
        writeln!(
            out,
            "| {} | `{}` | {} | {} | {} |",
            names.join(", "),
            meaning.key,
            kind(meaning.shape),
            describe(meaning.shape),
            holds(meaning.content)
        )
        .unwrap();
    }
    out.push_str("\nRequest headers with a key or a grammar of their own:\n\n| header | key | value | holds |\n|---|---|---|---|\n");
    let request = OPERATORS.iter().find(|operator| operator.names[0] == "REQ").unwrap();
    for header in [
        ":METHOD",
        ":PATH",
        "X-ENVOY-ORIGINAL-PATH?:PATH",
        ":AUTHORITY",
        ":SCHEME",
        "X-FORWARDED-FOR",
        "USER-AGENT",
        "X-REQUEST-ID",
        "REFERER",
        "COOKIE",
        "AUTHORIZATION",
        "X-API-KEY",
    ] {
        let meaning = meaning(request, Some(header));
        writeln!(out, "| `{header}` | `{}` | {} | {} |", meaning.key, describe(meaning.shape), holds(meaning.content))
            .unwrap();
    }
    out.push_str("\n`%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%` has the key `upstream_service_time`.\n\n");
    out
}

fn kind(shape: Shape) -> &'static str {
    match shape {
        Shape::Code | Shape::Count | Shape::Signed => "number",
        _ => "string",
    }
}

fn holds(content: Content) -> &'static str {
    match content {
        Content::Text => "text",
        Content::Url => "a URL",
        Content::Authority => "a host",
        Content::Query => "a query",
        Content::Parameter => "a parameter",
        Content::Secret => "a secret",
    }
}

#[test]
fn the_page_of_formats_is_what_the_code_says() {
    let path = Path::new(ROOT).join("docs/formats.md");
    let page = fs::read_to_string(&path).unwrap();
    let begin = "writes it: begin -->\n";
    let (Some(from), Some(to)) = (page.find(begin), page.find("<!-- made from the code: end -->")) else {
        panic!("docs/formats.md has no markers for its tables")
    };
    let from = from + begin.len();
    let made = markdown();
    if page[from..to] != made && std::env::var_os("MESHLENS_UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{made}{}", &page[..from], &page[to..])).unwrap();
        return;
    }
    assert_eq!(&page[from..to], made, "MESHLENS_UPDATE_DOCS=1 writes them again");
}
