//! Fields made from those of access logs, through the binary: by `parse`, and by `run`, where routes and names use them.

use serde_json::Value;

use crate::process::Run;
use crate::stage::SOON;

const LINES: &str = r#"[2026-11-22T02:36:32.784Z] "GET /users/123?token=secret HTTP/1.1" 503 UF,URX 0 89 12 7 "203.0.113.9, 10.1.2.3" "curl/8" "5eed0000-0000-4000-8000-000000000000" "orders:8080" "10.0.38.228:8080"
[2026-11-22T02:36:33.784Z] "GET /health HTTP/1.1" 200 - 0 89 12 7 "-" "curl/8" "5eed0000-0000-4000-8000-000000000001" "orders:8080" "10.0.38.228:8080"
GET /users/123 203.0.113.9
"#;

fn records(out: &[u8]) -> Vec<Value> {
    let lines = out.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn parse_makes_what_it_is_told_to() {
    let parse = |flags: &[&str]| {
        let run = Run::new(["parse"].iter().chain(flags).copied()).stdin(LINES.as_bytes().to_vec());
        let exit = run.start().wait(SOON);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        records(&exit.stdout)
    };
    let all = parse(&["--derive", "all"]);
    assert_eq!(all[0]["route"], "/users/{id}");
    assert_eq!(all[0]["response_flags_long"], "UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
    assert_eq!((&all[0]["status_class"], &all[1]["status_class"]), (&"5xx".into(), &"2xx".into()));
    assert_eq!(
        (&all[0]["forwarded_for"], &all[0]["forwarded_for_first"]),
        (&"203.0.113.0, 10.1.2.0".into(), &"203.0.113.0".into())
    );
    assert_eq!(all[0]["upstream_service_time"], 7);
    assert_eq!((all[1]["route"].as_str(), all[1].get("response_flags_long")), (Some("/health"), None));
    assert_eq!(all[2].as_object().unwrap().len(), 1, "no access log");
    let some = parse(&["--derive", "status_class,route"]);
    assert_eq!((&some[0]["status_class"], &some[0]["forwarded_for"]), (&"5xx".into(), &"203.0.113.9, 10.1.2.3".into()));
    assert_eq!(parse(&[])[0].get("route"), None);
}

#[test]
fn routes_and_names_use_what_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let (input, out, config) =
        (directory.path().join("in.log"), directory.path().join("out"), directory.path().join("meshlens.toml"));
    std::fs::write(&input, LINES).unwrap();
    let text = format!(
        r#"
[source.lines]
type = "lines"
path = "{}"

[derive]
status_class = true
client_address = true
truncate_addresses = {{ ipv4 = 16 }}
route = {{ patterns = ["/users/{{id}}"], defaults = false, field = "kind" }}

[[route]]
when.status_class = "5xx"
to = "failed"

[[route]]
to = "rest"

[sink.failed]
type = "file"
directory = "{}"
layout = "lines"
file = "{{status_class}}{{kind}}"

[sink.rest]
type = "stdout"
"#,
        input.display(),
        out.display()
    );
    std::fs::write(&config, text).unwrap();
    let exit = Run::new(["run", "--config", config.to_str().unwrap()]).start().wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    exit.account.assert_adds_up();
    let rest = records(&exit.stdout);
    assert_eq!(rest.len(), 2);
    assert_eq!((&rest[0]["status_class"], rest[0].get("kind")), (&"2xx".into(), None));
    let files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("5xx_users_"), "{name}");
    let failed = records(&std::fs::read(&files[0]).unwrap());
    assert_eq!(
        (&failed[0]["kind"], &failed[0]["forwarded_for"]),
        (&"/users/{id}".into(), &"203.0.0.0, 10.1.0.0".into())
    );
    assert_eq!(failed[0]["path"], "/users/123");
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let set = |text: &str| {
        let exit = Run::new(["check", "--set", text]).start().wait(SOON);
        assert_eq!(exit.code, Some(2), "{text}: {}", exit.stderr);
        exit.stderr
    };
    assert!(set("derive.route={ patterns = ['/a', 'b'] }").contains("derive.route.patterns[1] = "));
    assert!(set("derive.route={ defaults = false }").contains("derive.route.patterns"));
    assert!(set("derive.route={ field = 'path' }").contains("derive.route.field = "));
    assert!(set("derive.truncate_addresses={ ipv4 = 33 }").contains("derive.truncate_addresses.ipv4 = 33"));
    assert!(set("derive.status_clas=true").contains("status_class"));
}
