//! Dead letters through the binary: what was rejected comes again as the same record, at its own time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::CREDENTIALS;
use crate::server::{Reply, Server, serve_with};

/// Access logs in JSON and text, Envoy's own log, applications' lines; with query strings, quotes, and names that meshlens uses.
const INPUT: &str = r#"{"start_time":"2026-11-22T02:36:32.784Z","method":"GET","path":"/a?token=secret","protocol":"HTTP/1.1","response_code":200,"bytes_received":0,"bytes_sent":11,"duration":1,"request_id":"c1","authority":"app","user_agent":"a \"quoted\" one?x=secret"}
{"start_time":"2026-11-22T02:36:33.001Z","method":"GET","path":"/b","response_code":503,"duration":42,"bytes_sent":"-","log":"own","log_type":"mine","nested":{"a":[1,2.50,null]}}
[2026-11-22T02:36:34.123Z] "GET /c?q=secret HTTP/1.1" 200 - 0 135 2 1 "-" "curl/7 "x" y" "c2" "app:80" "1.2.3.4:80"
[2026-11-22 02:31:33.634][7768][info][main] [source/server/server.cc:404] initializing
plain text, é and 	tab, with ?a=secret behind
{"level":"info","msg":"an application's own","log_type":"access","n":1e3}
{"meshlens_dead_letter":1,"sink":"x"}

"#;

fn meshlens(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshlens"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent").envs(CREDENTIALS);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> Vec<String> {
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// What arrived: by message its timestamp, stream and number.
type Arrived = Arc<Mutex<BTreeMap<String, (i64, String, usize)>>>;

/// A service that takes everything, or says of everything that it is too old.
async fn service(takes: bool) -> (Server, Arrived) {
    let arrived = Arrived::default();
    let kept = arrived.clone();
    let server = serve_with(None, 0, move |request| {
        if request.target != "putlogevents" {
            return Reply::Answer(200, "{}".to_owned());
        }
        let events = request.body["logEvents"].as_array().unwrap();
        for event in events {
            let stream = request.body["logStreamName"].as_str().unwrap().to_owned();
            let message = event["message"].as_str().unwrap().to_owned();
            let time = event["timestamp"].as_i64().unwrap();
            kept.lock().unwrap().entry(message).or_insert((time, stream, 0)).2 += 1;
        }
        let info = format!(r#"{{"rejectedLogEventsInfo":{{"tooOldLogEventEndIndex":{}}}}}"#, events.len());
        Reply::Answer(200, if takes { "{}".to_owned() } else { info })
    });
    (server.await, arrived)
}

pub async fn run(arguments: Vec<String>, variables: Vec<(&'static str, String)>) -> Output {
    let work = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        meshlens(&arguments, &variables)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn letters(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[tokio::test]
async fn rejected_records_come_again_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (input, dead) = (dir.path().join("app.log"), dir.path().join("dead"));
    std::fs::write(&input, INPUT).unwrap();
    let flags = |input: &Path, more: &[&str]| -> Vec<String> {
        let flags = ["run", "--input", input.to_str().unwrap(), "--set", "enrich.fields.team=\"blue\""];
        flags.iter().chain(more).map(|flag| (*flag).to_owned()).collect()
    };
    let to_logs = ["--to", "cloudwatch:/group/{tag}"];

    // Everything is rejected, and kept.
    let (rejecting, first) = service(false).await;
    let place = format!("dead_letters.dir={:?}", dead.to_str().unwrap());
    let more = [to_logs.as_slice(), &["--set", &place, "--set", "source.input.tag=\"app-firelens-1\""]].concat();
    let output = run(flags(&input, &more), vec![("AWS_ENDPOINT_URL", rejecting.url.clone())]).await;
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let count = INPUT.lines().count();
    assert!(stderr.contains(&format!("dead letters: kept {count} not kept 0")), "{stderr}");
    assert!(stderr.contains(&format!("cloudwatch_logs.too_old={count}")), "{stderr}");
    let first = first.lock().unwrap().clone();
    assert!(!letters(&dead).contains("secret") && !first.keys().any(|line| line.contains("secret")));
    assert_eq!(letters(&dead).lines().count(), count);

    // Sent again, they are the same: every key and value, time, and stream.
    let letters_file = dir.path().join("letters.ndjson");
    std::fs::write(&letters_file, letters(&dead)).unwrap();
    let (taking, second) = service(true).await;
    let output = run(flags(&letters_file, &to_logs), vec![("AWS_ENDPOINT_URL", taking.url.clone())]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let second = second.lock().unwrap().clone();
    assert_eq!(second, first);
    assert_eq!(second.values().map(|(.., times)| times).sum::<usize>(), count);
    assert!(second.values().all(|(_, stream, _)| stream == "app-firelens-1"), "{second:?}");
    assert_eq!(second.values().next().map(|(time, ..)| *time), first.values().next().map(|(time, ..)| *time));

    // `parse` gives them in order, and without a tag or sink.
    let parsed = run(vec!["parse".into(), letters_file.to_str().unwrap().into()], Vec::new()).await;
    let parsed = stdout(&parsed);
    assert_eq!(parsed.len(), count);
    let mut by_parse = parsed.clone();
    by_parse.sort();
    let mut sent: Vec<String> = first.iter().flat_map(|(line, (.., times))| vec![line.clone(); *times]).collect();
    sent.sort();
    assert_eq!(by_parse, sent);
}

#[tokio::test]
async fn letters_are_redacted_again_by_whoever_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("letters.ndjson");
    let letter = r#"{"meshlens_dead_letter":1,"sink":"s","reason":"refused","time":"2026-11-22T02:36:32.784Z","tag":"t?x=secret","record":{"path":"/a?b=secret#secret","authority":"user:secret@app","log_type":"access","note":"x?secret"}}"#;
    std::fs::write(&file, format!("{letter}\n")).unwrap();
    for arguments in [vec!["parse"], vec!["run", "--to", "stdout", "--input"]] {
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        arguments.push(file.to_str().unwrap().to_owned());
        let output = run(arguments, Vec::new()).await;
        assert_eq!(stdout(&output), [r#"{"path":"/a","authority":"app","log_type":"access","note":"x"}"#]);
    }
}
