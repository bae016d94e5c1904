//! What the image is made of: the names that the one binary answers to, and the examples for ECS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value as Json;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The binary under the names that the image gives it.
struct Names(TempDir);

impl Names {
    fn new() -> Self {
        let names = Self(tempfile::tempdir().unwrap());
        for name in ["fluent-bit", "entrypoint.sh", "fluent_bit_init_entrypoint.sh", "curl", "nc"] {
            symlink(env!("CARGO_BIN_EXE_meshlens"), names.0.path().join(name)).unwrap();
        }
        names
    }

    fn run(&self, name: &str, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(self.0.path().join(name));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for variable in ["MESHLENS_CONFIG", "MESHLENS_LOG", "ECS_CONTAINER_METADATA_URI_V4"] {
            command.env_remove(variable);
        }
        let mut child = command.spawn().expect("the binary starts");
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        // Who does not read its input may have ended.
        drop(written);
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().expect("no signal"), text(stdout), text(stderr))
    }
}

/// Answers each connection by what `answer` makes of the lines up to the first empty one, then closes.
fn server(answer: fn(&str) -> String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |mut stream: TcpStream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut request = String::new();
        while lines.read_line(&mut request).unwrap_or(0) > 2 {}
        stream.write_all(answer(&request).as_bytes()).ok();
    };
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

fn http(request: &str) -> String {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        "/ok" => ("200 OK", "ok\n"),
        "/sick" => ("500 Internal Server Error", "error\n"),
        _ => ("404 Not Found", "what?\n"),
    };
    format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A port where nobody listens.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn curl_ends_as_curl_does() {
    let names = Names::new();
    let port = server(http);
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let curl = |arguments: &[&str]| names.run("curl", arguments, "");
    assert_eq!(curl(&["-f", &url("/ok")]), (0, "ok\n".into(), String::new()));
    assert_eq!(curl(&["-sf", "-m", "5", &url("/ok")]).1, "ok\n");
    let (code, out, error) = curl(&["-f", &url("/sick")]);
    assert_eq!((code, out.as_str()), (22, ""));
    assert!(error.contains("500"), "{error}");
    assert_eq!(curl(&["-fs", &url("/none")]), (22, String::new(), String::new()));
    assert_eq!(curl(&[&url("/none")]), (0, "what?\n".into(), String::new()), "without -f any answer is one");
    assert_eq!(curl(&["-s", "-o", "/dev/null", "-w", "%{http_code}", &url("/sick")]).1, "500");
    assert_eq!(curl(&["-s", &format!("http://127.0.0.1:{}/", nobody())]).0, 7);
    assert_eq!(curl(&["-s", "-m", "0.2", "https://127.0.0.1/"]).0, 1);
    assert_eq!(curl(&["--no-such"]).0, 2);
    assert!(curl(&["-sI", &url("/ok")]).1.starts_with("HTTP/1.0 200 OK\r\n"));
}

#[test]
fn nc_sends_and_ends() {
    let names = Names::new();
    let port = server(|request| format!("got {request}")).to_string();
    let check = "{\"health\": \"check\"}\n";
    // The connection ends when standard input does: the server's loop ends with it.
    let (code, out, _) = names.run("nc", &["127.0.0.1", &port], check);
    assert_eq!((code, out.as_str()), (0, format!("got {check}").as_str()));
    assert_eq!(names.run("nc", &["-z", "127.0.0.1", &port], "").0, 0);
    let closed = nobody().to_string();
    assert_eq!(names.run("nc", &["127.0.0.1", &closed], check).0, 1);
    assert_eq!(names.run("nc", &["-z", "-w", "1", "127.0.0.1", &closed], "").0, 1);
    assert_eq!(names.run("nc", &["127.0.0.1"], "").0, 2);

    // A peer that takes the line and says nothing, as a source does: an end all the same.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port().to_string();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        got
    });
    assert_eq!(names.run("nc", &["-q", "1", "127.0.0.1", &silent], check).0, 0);
    assert_eq!(peer.join().unwrap(), check);
}

#[test]
fn fluent_bit_and_the_entry_point_answer_for_themselves() {
    let names = Names::new();
    for name in ["fluent-bit", "entrypoint.sh", "fluent_bit_init_entrypoint.sh"] {
        let (code, out, _) = names.run(name, &["--version"], "");
        assert!(code == 0 && out.contains(env!("CARGO_PKG_VERSION")), "{name}: {out}");
    }
    let (code, _, error) = names.run("fluent-bit", &["--no-such"], "");
    assert!(code == 2 && error.contains("--no-such"), "{error}");
    let (code, _, error) = names.run("fluent-bit", &[], "");
    assert!(code == 2 && error.contains("-c FILE"), "{error}");
    let (code, _, error) = names.run("fluent-bit", &["-c", "/no/such.conf"], "");
    assert!(code == 2 && error.contains("/no/such.conf"), "{error}");
    assert_eq!(
        names.run("entrypoint.sh", &["/bin/sh", "-c", "echo hello; exit 7"], ""),
        (7, "hello\n".into(), String::new())
    );
    assert_eq!(names.run("entrypoint.sh", &["/no/such"], "").0, 127);
    let (code, out, error) = names.run(
        "entrypoint.sh",
        &["parse", "-"],
        "[2026-11-22T02:37:45.593Z] \"GET /a?b HTTP/1.1\" 200 - 0 7 7 6 \"-\" \"c\" \"d\" \"e\" \"127.0.0.1:80\"\n",
    );
    assert!(code == 0 && out.contains("\"path\":\"/a\""), "{out} {error}");
}

#[test]
fn plugins_of_the_command_line_run() {
    let names = Names::new();
    let words = [
        &["-i", "stdin", "-t", "app.x", "-F", "record_modifier", "-m", "app*", "-p", "record=a b"][..],
        &["-o", "stdout", "-m", "*", "-p", "format=json_lines", "-D"],
    ];
    let (code, out, error) = names.run("fluent-bit", &words.concat(), "");
    assert_eq!(code, 0, "{out} {error}");
    assert!(out.contains("configuration is valid"), "{out}");
}

/// Checks a configuration of Fluent Bit.
fn check(path: &Path, variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshlens"));
    command.args(["check", "--fluent-bit-config"]).arg(path).env("MESHLENS_FIRELENS_ROOT", ROOT);
    let output = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_example_of_service_connect_is_whole() {
    let directory = Path::new(ROOT).join("config/firelens");
    let read =
        |name: &str| -> Json { serde_json::from_str(&fs::read_to_string(directory.join(name)).unwrap()).expect(name) };
    let task = read("task-definition.json");
    let policy = read("task-role-policy.json");
    let router = &task["containerDefinitions"][0];
    let included = router["firelensConfiguration"]["options"]["config-file-value"].as_str().unwrap();
    let config = Path::new(ROOT).join("image").join(included.trim_start_matches('/'));
    for format in ["JSON", "TEXT"] {
        let service = read(&format!("service-{}.json", format.to_lowercase()));
        let connect = &service["serviceConnectConfiguration"];
        assert_eq!(connect["logConfiguration"], serde_json::json!({ "logDriver": "awsfirelens" }));
        assert_eq!(connect["accessLogConfiguration"]["format"], format);
        assert_eq!(service["taskDefinition"], task["family"]);
    }
    let variables: Vec<(&str, &str)> = router["environment"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| (each["name"].as_str().unwrap(), each["value"].as_str().unwrap()))
        .collect();
    let (code, out, error) = check(&config, &variables);
    assert_eq!(code, 0, "{out}{error}");
    // Each action that the check asks for is in the policy.
    let allowed = policy.to_string();
    let asked = out
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| ["s3:", "firehose:", "logs:"].iter().any(|service| word.starts_with(service)));
    let asked: Vec<&str> = asked.collect();
    assert!(asked.len() >= 5, "{out}");
    for action in asked {
        assert!(allowed.contains(action), "{action} is not in the policy");
    }
}

#[test]
fn configurations_of_the_image_are_read() {
    let directory = Path::new(ROOT).join("image/fluent-bit");
    let files = |name: &str| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory.join(name)).unwrap().map(|each| each.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let scratch = tempfile::tempdir().unwrap();
    let mut text = String::from("[SERVICE]\n");
    for path in files("parsers") {
        text.push_str(&format!("    Parsers_File {}\n", path.display()));
    }
    text.push_str("[INPUT]\n    Name stdin\n[OUTPUT]\n    Name null\n    Match *\n");
    let all = scratch.path().join("all.conf");
    fs::write(&all, text).unwrap();
    let (code, out, error) = check(&all, &[]);
    assert_eq!(code, 0, "{out}{error}");
    // As the agent includes them: behind an input and before an output.
    for path in files("configs").into_iter().filter(|path| !path.ends_with("plugin-metrics-parser.conf")) {
        let config = scratch.path().join("generated.conf");
        let text = format!(
            "[INPUT]\n    Name forward\n    unix_path {}/s\n@INCLUDE {}\n[OUTPUT]\n    Name null\n    Match *\n",
            scratch.path().display(),
            path.display()
        );
        fs::write(&config, text).unwrap();
        let variables = ["AWS_REGION", "FLUENT_BIT_METRICS_LOG_REGION"].map(|name| (name, "us-east-1"));
        let names =
            ["ACCESS_LOG_BUCKET", "ACCESS_LOG_STREAM", "PROXY_LOG_GROUP", "FLUENT_BIT_METRICS_LOG_GROUP", "HOSTNAME"];
        let variables: Vec<_> = variables.into_iter().chain(names.map(|name| (name, "some-name"))).collect();
        let (code, out, error) = check(&config, &variables);
        assert_eq!(code, 0, "{}: {out}{error}", path.display());
    }
}
