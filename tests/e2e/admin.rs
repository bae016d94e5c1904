//! The admin endpoints: what they say while records flow, while a sink is dead, at the end; and what hostile peers can do there.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::exposition::Exposition;
use crate::fake_aws::fault::{Fault, Rule, Service};
use crate::process::{Exit, Process, Run, free_address};
use crate::sender::{Connection, Mode, Target};
use crate::stage::{SOON, Stage};

const FATES: [&str; 4] = ["delivered", "filtered", "rejected", "dropped"];

/// An answer of an endpoint.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn metrics(&self) -> Exposition {
        Exposition::read(&self.body).unwrap_or_else(|wrong| panic!("{wrong} in\n{}", self.body))
    }
}

/// Sends these bytes and reads to the end; none if the connection breaks.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The other side may answer and close before it has read all.
    drop(stream.write_all(bytes));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("no end of an answer")
        }
        // A reset after the answer is an answer.
        Ok(_) | Err(_) => {}
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    exchange(address, request.as_bytes()).unwrap_or_else(|| panic!("no answer at {path}"))
}

/// Starts a run with admin endpoints, and waits for its socket.
fn start(stage: &Stage, run: Run) -> (Process, SocketAddr) {
    let admin = free_address();
    let mut process = stage.start(run.with(["--admin".to_owned(), admin.to_string()]));
    process.wait_tcp(admin, SOON);
    (process, admin)
}

/// received = delivered + filtered + rejected + dropped + pending, for each source and sink. Gives what is pending in all.
fn assert_metrics_add_up(metrics: &Exposition) -> f64 {
    let mut pending = 0.0;
    for component in ["source", "sink"] {
        for name in metrics.values("meshlens_received_records_total", "name") {
            let of = [("component", component), ("name", name)];
            let open = metrics.sum("meshlens_pending_records", &of);
            let fates = metrics.sum("meshlens_records_total", &of);
            assert_eq!(metrics.sum("meshlens_received_records_total", &of), fates + open, "{component} {name}");
            pending += open;
        }
    }
    pending
}

fn assert_status_adds_up(status: &Json) {
    let parts = ["sources", "sinks"].into_iter().flat_map(|key| status[key].as_array().unwrap());
    for part in parts {
        let of = |key: &str| part[key].as_u64().unwrap_or_else(|| panic!("no {key} in {part}"));
        let fates: u64 = FATES.iter().map(|fate| of(fate)).sum();
        assert_eq!(of("received"), fates + of("pending"), "{part}");
        let reasons: u64 = part["reasons"].as_object().unwrap().values().filter_map(Json::as_u64).sum();
        assert_eq!(reasons, of("filtered") + of("rejected") + of("dropped"), "{part}");
    }
}

#[test]
fn the_sum_holds_at_every_moment_of_a_load_with_a_dead_sink() {
    const MOMENTS: u64 = 60;
    // Fewer than the journal holds beside three sinks: a dead one would make the sender wait.
    let count = 32_000;
    let stage = Stage::new(count);
    stage.fake.misbehave(vec![
        Rule::new(Fault::ServerError).on(Service::Firehose),
        Rule::new(Fault::Throttle).on(Service::Logs).percent(30.0),
    ]);
    let (mut process, admin) = start(&stage, stage.run_quick().with(["--grace", "3"]));
    let sent = AtomicBool::new(false);
    let (mut moments, mut busy) = (0, 0);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            stage.sender(Mode::Forward).connections(2).rate(15_000).send(&stage.traffic, 0..count).unwrap();
            sent.store(true, SeqCst);
        });
        let mut earlier = get(admin, "/metrics").metrics();
        while moments < MOMENTS || !sent.load(SeqCst) {
            let metrics = get(admin, "/metrics").metrics();
            busy += u32::from(assert_metrics_add_up(&metrics) > 0.0 && !sent.load(SeqCst));
            assert_eq!(metrics.gone_back_since(&earlier), Vec::<String>::new());
            assert_status_adds_up(&get(admin, "/status").json());
            (earlier, moments) = (metrics, moments + 1);
        }
        sender.join().unwrap();
    });
    assert!(busy > 10, "{busy} of {moments} moments were under load");

    let delivered = |process: &Process, sink: &str| {
        let of = [("component", "sink"), ("name", sink), ("fate", "delivered")];
        assert!(process.id() > 0);
        get(admin, "/metrics").metrics().sum("meshlens_records_total", &of)
    };
    let all = count as f64;
    process.wait_until("delivering", SOON, |process| {
        delivered(process, "s3") >= all && delivered(process, "cloudwatch") >= all
    });
    let metrics = get(admin, "/metrics").metrics();
    assert_metrics_add_up(&metrics);
    let of_sink = |family: &str, sink: &str| metrics.sum(family, &[("component", "sink"), ("name", sink)]);
    let last = "meshlens_last_delivery_timestamp_seconds";
    assert_eq!((of_sink(last, "firehose"), of_sink("meshlens_pending_records", "firehose")), (0.0, all));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - of_sink(last, "s3")).abs() < SOON.as_secs_f64(), "{} is not now", of_sink(last, "s3"));
    let status = get(admin, "/status").json();
    assert_eq!((&status["phase"], &status["journal"]["persist"]), (&"running".into(), &"never".into()));
    assert!(status["journal"]["memory_bytes"].as_u64().unwrap() > 0, "{status}");

    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    exit.account.assert_adds_up();
    assert_eq!(exit.account.part("firehose").of("pending"), count);
    stage.assert_no_mark(&format!("{status}{}", exit.stderr));
}

#[test]
fn ready_until_the_end_begins_and_alive_until_it_is_over() {
    let stage = Stage::new(1);
    let (mut process, admin) = start(&stage, stage.run_quick().with(["--grace", "60", "--set", "shutdown.quiet=60s"]));
    assert_eq!(get(admin, "/livez").status, 200);
    process.wait_until("ready", SOON, |_| get(admin, "/readyz").status == 200);
    let mut held = Connection::open(&Target::Tcp(stage.address)).unwrap();
    let mut bytes = Vec::new();
    stage.sender(Mode::Message).message(&stage.traffic, &[0], None, &mut bytes);
    held.write_all(&bytes[..1]).unwrap();
    process.signal("TERM");
    process.wait_until("draining", SOON, |_| get(admin, "/readyz").status == 503);
    let ready = get(admin, "/readyz").json();
    assert_eq!((&ready["ready"], &ready["phase"]), (&false.into(), &"draining".into()));
    assert_eq!((get(admin, "/livez").status, get(admin, "/healthz").status), (200, 200));
    assert_eq!(get(admin, "/metrics").metrics().sum("meshlens_ready", &[]), 0.0);
    assert_eq!(healthcheck(admin, &["--ready"]).code, Some(1));
    held.write_all(&bytes[1..]).unwrap();
    held.finish().unwrap();
    let exit = process.wait(SOON);
    assert_eq!((exit.code, exit.account.part("s3").of("delivered")), (Some(0), 1), "{}", exit.stderr);
}

fn healthcheck(admin: SocketAddr, flags: &[&str]) -> Exit {
    Run::new(["healthcheck", "--admin", &admin.to_string()]).with(flags.iter().copied()).start().wait(SOON)
}

#[test]
fn a_dead_destination_is_told_and_fails_nothing_unless_asked_to() {
    let stage = Stage::new(10);
    stage.fake.misbehave(vec![Rule::new(Fault::ServerError).on(Service::Firehose)]);
    let (mut process, admin) = start(&stage, stage.run_quick().with(["--grace", "1"]));
    stage.sender(Mode::Forward).send(&stage.traffic, 0..10).unwrap();
    let sink = |name: &str| -> Json {
        let health = get(admin, "/healthz");
        assert_eq!(health.status, 200, "{health:?}");
        let sinks = health.json()["sinks"].as_array().unwrap().clone();
        sinks.into_iter().find(|sink| sink["name"] == name).unwrap()
    };
    process.wait_until("delivering", SOON, |_| sink("s3")["last_delivery_age_seconds"].is_number());
    assert_eq!(sink("s3")["state"], "idle");
    let dead = sink("firehose");
    assert_eq!((&dead["state"], &dead["pending"]), (&"pending".into(), &10.into()), "{dead}");
    assert_eq!(dead["last_delivery_age_seconds"], Json::Null);
    let said = healthcheck(admin, &[]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(String::from_utf8_lossy(&said.stdout).contains("\"healthy\": true"));
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(3));
    assert_eq!(healthcheck(admin, &["--live"]).code, Some(1), "nobody listens any more");
}

#[test]
fn health_fails_while_a_record_waits_for_too_long_if_asked_to() {
    let stage = Stage::new(10);
    stage.fake.misbehave(vec![Rule::new(Fault::ServerError).on(Service::Firehose)]);
    let (mut process, admin) = start(&stage, stage.run_quick().with(["--set", "admin.unhealthy_after=2s"]));
    assert_eq!(get(admin, "/healthz").status, 200, "nothing waits");
    stage.sender(Mode::Forward).send(&stage.traffic, 0..10).unwrap();
    process.wait_until("unhealthy", SOON, |_| get(admin, "/healthz").status == 503);
    let health = get(admin, "/healthz").json();
    assert_eq!((&health["healthy"], &health["unhealthy_after_seconds"]), (&false.into(), &2.0.into()));
    let stalled = |sink: &&Json| sink["state"] == "stalled";
    let stalled: Vec<&Json> = health["sinks"].as_array().unwrap().iter().filter(stalled).collect();
    assert!(stalled.len() == 1 && stalled[0]["name"] == "firehose", "{health}");
    assert!(stalled[0]["oldest_pending_age_seconds"].as_f64() > Some(2.0), "{health}");
    let age = [("component", "sink"), ("name", "firehose")];
    assert!(get(admin, "/metrics").metrics().sum("meshlens_oldest_pending_age_seconds", &age) > 2.0);
    assert_eq!(get(admin, "/readyz").status, 200, "records are taken all the same");
    assert_eq!(healthcheck(admin, &[]).code, Some(1));
    stage.fake.misbehave(Vec::new());
    process.wait_until("healthy", SOON, |_| get(admin, "/healthz").status == 200);
    assert_eq!(process.terminate(SOON).code, Some(0));
}

#[test]
fn what_an_earlier_run_left_is_in_the_account_of_the_next() {
    let count = 500;
    let stage = Stage::new(count);
    let journal = stage.directory.path().join("journal").display().to_string();
    let run = || {
        let set = ["--set", "journal.persist=always", "--set", &format!("journal.dir={journal}")].map(str::to_owned);
        stage.run_quick().with(set)
    };
    stage.fake.misbehave(vec![Rule::new(Fault::ServerError)]);
    let (process, admin) = start(&stage, run());
    stage.sender(Mode::Forward).ack().send(&stage.traffic, 0..count).unwrap();
    let metrics = get(admin, "/metrics").metrics();
    let of = |family: &str| metrics.sum(family, &[]);
    assert!(of("meshlens_journal_disk_bytes") > 0.0 && of("meshlens_journal_segments") > 0.0);
    assert!(of("meshlens_journal_written_blocks_total") > 0.0 && of("meshlens_journal_syncs_total") > 0.0);
    assert_eq!((of("meshlens_journal_degraded"), of("meshlens_journal_disk_limit_bytes")), (0.0, f64::from(1 << 30)));
    process.signal("KILL");
    process.wait(SOON);

    stage.fake.misbehave(Vec::new());
    let (mut process, admin) = start(&stage, run());
    process.wait_until("delivering", SOON, |_| {
        let status = get(admin, "/status").json();
        assert_status_adds_up(&status);
        assert_metrics_add_up(&get(admin, "/metrics").metrics());
        status["sinks"].as_array().unwrap().iter().all(|sink| sink["delivered"] == count)
    });
    let status = get(admin, "/status").json();
    let left = status["sources"].as_array().unwrap().iter().find(|source| source["name"] == "journal").unwrap();
    assert_eq!((&left["received"], &left["delivered"]), (&count.into(), &count.into()), "{left}");
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(
        exit.stderr.lines().last().is_some_and(|line| line.contains("received=500 delivered=1500")),
        "{}",
        exit.stderr
    );
}

#[test]
fn hostile_peers_cost_themselves_only() {
    const SILENT: usize = 200;
    let count = 20_000;
    let stage = Stage::new(count);
    let (process, admin) = start(&stage, stage.run_quick().with(["--grace", "30"]));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| stage.sender(Mode::Message).rate(5_000).send(&stage.traffic, 0..count).unwrap());
        // Peers that say nothing or never finish, more of them than there is room for.
        let mut silent: Vec<TcpStream> = Vec::new();
        for place in 0..SILENT {
            let mut stream = TcpStream::connect(admin).unwrap();
            if place % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            }
            silent.push(stream);
            // They keep nobody out.
            assert_eq!(get(admin, "/livez").status, 200, "behind {place} silent peers");
        }
        let open = get(admin, "/metrics").metrics().sum("process_open_fds", &[]);
        assert!(open < 150.0, "{open} descriptors are open for {SILENT} silent peers");
        // The first had to make room.
        silent[0].set_read_timeout(Some(SOON)).unwrap();
        assert!(matches!(silent[0].read(&mut [0; 1]), Ok(0) | Err(_)));

        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
        let one = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1 << 20));
        for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\0\0\0\0\r\n\r\n", b"\r\n\r\n\r\n", b"GET\r\n\r\n"]
            .into_iter()
            .chain([long.as_bytes(), many.as_bytes(), one.as_bytes()])
        {
            let mut stream = TcpStream::connect(admin).unwrap();
            drop(stream.write_all(bytes));
            drop(stream.shutdown(std::net::Shutdown::Write));
            let mut answer = Vec::new();
            stream.set_read_timeout(Some(SOON)).unwrap();
            drop(stream.read_to_end(&mut answer));
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(bytes).get(..40));
        }
        let ask = |request: &str| exchange(admin, request.as_bytes()).map(|answer| answer.status);
        assert_eq!(ask("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), Some(405));
        assert_eq!(ask("DELETE /status HTTP/1.1\r\nHost: a\r\n\r\n"), Some(405));
        assert_eq!(ask("GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"), Some(404));
        assert_eq!(ask("GET /livez?x=y HTTP/1.0\r\n\r\n"), Some(200));
        let head = exchange(admin, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert!(head.head.contains("content-type: text/plain; version=0.0.4"), "{head:?}");
        sender.join().unwrap();
        drop(silent);
    });
    assert_metrics_add_up(&get(admin, "/metrics").metrics());
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for sink in ["cloudwatch", "firehose", "s3"] {
        assert_eq!(exit.account.part(sink).of("delivered"), count);
    }
    assert!(!exit.stderr.contains("defect"), "{}", exit.stderr);
}

#[test]
fn an_address_that_was_asked_for_is_needed_and_the_default_is_not() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = || Run::new(["run", "--forward", "127.0.0.1:0", "--to", "discard"]);
    let exit = run().with(["--admin", &address]).start().wait(SOON);
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("admin.listen"), "{}", exit.stderr);

    // The default port, held by us or by a test of another tree.
    let deadline = Instant::now() + SOON;
    let default = loop {
        match TcpListener::bind(("127.0.0.1", meshlens::admin::PORT)) {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let metadata = ("ECS_CONTAINER_METADATA_URI_V4".to_owned(), format!("http://{}/v4/x", free_address()));
    let mut process = run().environment(vec![metadata]).start();
    process.wait_until("warning", SOON, |process| process.said().contains("no admin endpoints"));
    process.wait_until("listening", SOON, |process| process.said().contains("forward source listens"));
    assert_eq!(process.terminate(SOON).code, Some(0));
    drop(default);
}

/// Names in a text that begin as ours do.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("meshlens_") || word.starts_with("process_")).map(str::to_owned).collect()
}

fn repository(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let stage = Stage::new(1);
    let (process, admin) = start(&stage, stage.run_quick());
    let metrics = get(admin, "/metrics").metrics();
    assert_eq!(process.terminate(SOON).code, Some(0));
    let text = repository("docs/operations.md");
    let section = text.split("### Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let printed: BTreeSet<String> = metrics.types.keys().cloned().collect();
    assert_eq!(names(section), printed);
    for (name, kind) in &metrics.types {
        let row = section.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        assert!(row.contains(kind.as_str()), "{row} is a {kind}");
    }
    for reason in metrics.values("meshlens_records_total", "reason").into_iter().filter(|reason| !reason.is_empty()) {
        assert!(text.contains(&format!("| `{reason}`")), "{reason} is not explained");
    }
}

/// Read by an independent reader of YAML: the one of the Python environment that the live tests use.
#[test]
fn the_alert_rules_are_rules_over_metrics_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = Command::new(root.join(".venv/bin/python"))
        .args(["-c", script])
        .arg(root.join("config/prometheus-alerts.yml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Json = serde_json::from_slice(&output.stdout).unwrap();
    let known: BTreeSet<String> =
        meshlens::admin::metrics::METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    let operations = repository("docs/operations.md");
    let mut alerts = BTreeSet::new();
    for rule in document["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let text = |of: &Json| of.as_str().unwrap_or_else(|| panic!("not a text in {rule}")).to_owned();
        let (alert, expression) = (text(&rule["alert"]), text(&rule["expr"]));
        assert!(["warning", "critical"].contains(&text(&rule["labels"]["severity"]).as_str()), "{rule}");
        assert!(
            !text(&rule["annotations"]["summary"]).is_empty() && !text(&rule["annotations"]["description"]).is_empty()
        );
        let used = names(&expression);
        assert!(!used.is_empty() && used.is_subset(&known), "{alert}: {used:?}");
        assert_eq!(expression.matches('(').count(), expression.matches(')').count(), "{alert}");
        assert!(operations.contains(&format!("| `{alert}`")), "{alert} is not explained");
        assert!(alerts.insert(alert), "an alert comes twice");
    }
    assert!(alerts.len() >= 8, "{alerts:?}");
    let explained = operations.split("| `").filter(|cell| cell.starts_with("Meshlens")).count();
    assert_eq!(explained, alerts.len(), "what is explained is there");
}
