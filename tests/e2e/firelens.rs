//! Published task definitions, and the configurations that the ECS agent writes for them (tests/data/firelens), run unchanged and end to end.
//!
//! Each runs below a root of its own, laid out as in the router's container, and only its listeners are moved to free places. Lines go in as
//! Docker's log driver sends them. What must come out is worked out here from the task definition's options and, where a file is included, from
//! a table written by hand ([`Case::filtered`], [`Case::included_outputs`]): not from what reads configurations in the program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::Value;

use crate::ordered::Json;
use crate::process::{Exit, Run};
use crate::stage::SOON;
use crate::traffic::MARK;

mod case;
mod scene;

use case::Case;
use scene::{Scene, other_input};

/// The task of the derived files.
const TASK: &str = "0b69d5c0d6554fe4a2d2f9b5c7f6a1e3";
const TASK_ARN: &str = "arn:aws:ecs:us-west-2:123456789012:task/demo-cluster/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3";
const INSTANCE: &str = "i-0abcd1234ef567890";
/// Any free port.
pub const ANY: &str = "127.0.0.1:0";
const HOSTNAME: &str = "ip-10-0-0-1";

/// What a container writes, the access log of a Service Connect proxy aside.
const LINES: [&str; 7] = [
    "plain line",
    r#"{"level":"info","id":7,"nested":{"list":[1,2.5,null,true]}}"#,
    r#"127.0.0.1 - frank [10/Oct/2026:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326"#,
    "an error happened",
    "Error: again",
    r#"quotes "inside", a back\slash, a tab	and ünïcode 日本"#,
    "",
];
/// What `multiline-regex` puts together, and what it puts out.
const TRACE: [&str; 3] =
    ["Dec 14 06:41:08 Exception in thread \"main\"", "    at a.B.c(B.java:22)", "    at a.B.d(B.java:18)"];

/// What is out of scope in a published configuration, as the router must name it at the start.
const NAMED: &[(&str, &[&str])] = &[
    (
        "amp-prometheus-cloudwatch-go",
        &["fluent-bit.conf:5: [INPUT] node_exporter_metrics", "fluent-bit.conf:12: [OUTPUT] prometheus_remote_write"],
    ),
    ("internal-metrics-to-cw", &["/fluent-bit/configs/plugin-metrics-to-cloudwatch.conf:11: [INPUT] exec"]),
    ("load-test-cloudwatch-tcp", &["/fluent-bit/etc/external.conf:31: [OUTPUT] kinesis_streams"]),
    ("load-test-firehose-tcp", &["/fluent-bit/etc/external.conf:31: [OUTPUT] kinesis_streams"]),
    ("multiple-destinations", &["/fluent-bit/etc/external.conf:24: [OUTPUT] datadog", "unsupported_output"]),
    (
        "split-streams-fluentbit",
        &["/stream_processing.conf:1: [STREAM_TASK]", "/stream_processing.conf:17: [STREAM_TASK]"],
    ),
];

/// Values that agents' own tests expect, and that no router can run: patterns that are none, an output without its stream. Fluent Bit and
/// fluentd refuse them as well.
const REFUSED: &[(&str, &[&str])] = &[
    ("agent-fluentbit-config.conf", &[":21:", ":26:", ":42: [OUTPUT] kinesis_firehose: needs `delivery_stream`"]),
    ("agent-fluentbit-config-default-mem-buf-limit.conf", &[":21:", ":26:", ":42: [OUTPUT] kinesis_firehose"]),
    ("agent-fluentd-bridge-mode-config.conf", &[":17:", ":25:", ":41: <match container-firelens**>"]),
    ("agent-fluentd-config-without-ecs-metadata.conf", &[":17:", ":25:", ":31: <match container-firelens**>"]),
    ("agent-fluentd-default-mode-config.conf", &[":11:", ":19:", ":35: <match container-firelens**>"]),
    ("generator-fluent-bit.conf", &[":18:", ":23:"]),
];

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/firelens").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One record where it was delivered.
#[derive(Clone, Debug, PartialEq)]
struct Delivered {
    place: String,
    what: Json,
}

type Members = Vec<(String, Json)>;

fn member(name: &str, value: &str) -> (String, Json) {
    (name.to_owned(), Json::Text(value.to_owned()))
}

/// Runs a case; what is different.
fn difference(case: &Case, generated: &str) -> Result<(), String> {
    let scene = Scene::new(case, generated);
    if other_input(&case.name).is_some_and(|(plugin, _)| plugin == "tail") {
        scene.tail_path(case);
    }
    let mut process = scene.run(case).start();
    process.wait_unix(&scene.socket, SOON);
    let expected = scene.send(case, &mut process);
    if format!("{}{:?}", case.generated, case.files()).contains("$(ecs_") {
        // Names wait for what they are made of, but not when the end comes first.
        process.wait_until("told of its task", SOON, |process| process.said().contains("ecs task metadata complete"));
    }
    let exit: Exit = process.terminate(SOON);
    let mut wrong = String::new();
    let code = if case.name == "multiple-destinations" { 3 } else { 0 };
    if exit.code != Some(code) {
        writeln!(wrong, "  exit {:?}: {}", exit.code, exit.stderr).unwrap();
    }
    exit.account.assert_adds_up();
    assert_eq!(scene.fake.leaks(), Vec::<String>::new());
    let mut ours = scene.arrived();
    if case.name.starts_with("log-collection") {
        // `Name aws`: on records that come once the task's metadata is known.
        for Delivered { what, .. } in &mut ours {
            let Json::Object(members) = what else { continue };
            members.retain(|member| *member != self::member("az", "us-west-2a"));
        }
    }
    for each in expected {
        match ours.iter().position(|other| *other == each) {
            Some(at) => drop(ours.remove(at)),
            None => writeln!(wrong, "  missing {each:?}").unwrap(),
        }
    }
    ours.iter().for_each(|each| writeln!(wrong, "  unexpected {each:?}").unwrap());
    if case.level != "C" && exit.stderr.contains("not supported") {
        writeln!(wrong, "  something is not supported: {}", exit.stderr).unwrap();
    }
    for needle in NAMED.iter().filter(|(name, _)| *name == case.name).flat_map(|(_, needles)| needles.iter()) {
        if !exit.stderr.contains(needle) {
            writeln!(wrong, "  {needle:?} is not said: {}", exit.stderr).unwrap();
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// In parallel; all that is wrong, by case.
fn all_wrong(cases: &[Case], generated: impl Fn(&Case) -> String + Sync) -> String {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let text = generated(case);
                    let found = std::panic::catch_unwind(|| difference(case, &text))
                        .unwrap_or_else(|_| Err("  panicked, see above\n".to_owned()));
                    if let Err(text) = found {
                        wrong.lock().unwrap().insert(case.file.clone(), text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let count = |level: &str| cases.iter().filter(|case| case.level == level).count();
    eprintln!("{} of level A, {} of B, {} of C; {} wrong", count("A"), count("B"), count("C"), wrong.len());
    wrong.iter().map(|(file, text)| format!("{file}:\n{text}")).collect()
}

fn cases() -> Vec<Case> {
    let only = std::env::var("MESHLENS_CASE").unwrap_or_default();
    let derived = std::fs::read_dir(data("generated-config/derived")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = derived.chain([data("generated-config/real-fluent-bit.conf")]).collect();
    paths.sort();
    paths.retain(|path| path.display().to_string().contains(&only));
    paths.iter().map(|path| Case::of(path)).collect()
}

/// The same sections in another order, as agents write those of containers: a run of outputs, or of filters that take lines by a pattern.
fn shuffled(text: &str, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sections: Vec<&str> = text.split("\n\n").map(|section| section.trim_matches('\n')).collect();
    let kind = |section: &&str| {
        let is_grep = section.contains("grep") && !section.contains("record_modifier");
        match section.split_whitespace().next() {
            Some("[OUTPUT]" | "<match") => 1,
            Some("[FILTER]" | "<filter") if is_grep => 2,
            _ => 0,
        }
    };
    for run in sections.chunk_by_mut(|one, other| kind(one) == kind(other)).filter(|run| kind(&run[0]) > 0) {
        random.shuffle(run);
    }
    format!("\n{}\n", sections.join("\n\n"))
}

fn seed() -> u64 {
    let seed =
        std::env::var("MESHLENS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("MESHLENS_SEED={seed}");
    seed
}

/// A task of three containers, with the options of three published ones.
fn several() -> Case {
    let router =
        serde_json::json!({ "name": "log_router", "image": "x", "firelensConfiguration": { "type": "fluentbit" } });
    let published = [("app", "cloudwatch-c"), ("api", "uth-generated-fluentbit"), ("web", "s3-put-object")];
    let containers = published.map(|(name, case)| {
        let path = data("task-definitions").join(case).join("task-definition.json");
        let task: Value = serde_json::from_str(&read(&path)).unwrap();
        let sends = |one: &&Value| one["logConfiguration"]["logDriver"] == "awsfirelens";
        let mut container = task["containerDefinitions"].as_array().unwrap().iter().find(sends).unwrap().clone();
        container["name"] = name.into();
        container
    });
    let task = serde_json::json!({
        "family": "several", "revision": 7, "networkMode": "awsvpc", "containerDefinitions": [router, containers[0], containers[1], containers[2]],
    });
    let generated = generated(&task.to_string());
    Case { name: "several".to_owned(), file: "several.awsvpc.conf".to_owned(), generated, level: "A".to_owned(), task }
}

/// What the agent would write on Fargate.
fn generated(task: &str) -> String {
    let task = meshlens::firelens::task::read(task).unwrap();
    let (cluster, task_arn) = ("demo-cluster".to_owned(), TASK_ARN.to_owned());
    let identity = meshlens::firelens::Identity { cluster, task_arn, instance_id: None };
    meshlens::firelens::generate(&task, &identity).unwrap().text
}

#[test]
fn every_published_configuration_delivers_unchanged() {
    let wrong = all_wrong(&cases(), |case| case.generated.clone());
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_order_of_containers_does_not_matter() {
    let seed = seed();
    let wrong = all_wrong(&cases(), |case| shuffled(&case.generated, seed));
    assert!(wrong.is_empty(), "{wrong}");
    let several = several();
    for seed in seed..seed.saturating_add(6) {
        let text = shuffled(&several.generated, seed);
        difference(&several, &text).unwrap_or_else(|wrong| panic!("MESHLENS_SEED={seed}: {text}\n{wrong}"));
    }
}

#[test]
fn what_cannot_run_is_refused_with_every_line() {
    for (file, needles) in REFUSED {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let mount = if file.contains("fluentd") { "fluentd/etc/fluent.conf" } else { "fluent-bit/etc/fluent-bit.conf" };
        write(mount, &read(&data("generated-config").join(file)));
        let empty = ["head_file", "after_inputs", "after_filters", "end_file"].map(|name| format!("etc/{name}.conf"));
        empty.iter().for_each(|path| write(path, "# nothing\n"));
        write("tmp/dummy.conf", "# nothing\n");
        write("fluent-bit/etc/external.conf", "# nothing\n");
        let below = ("MESHLENS_FIRELENS_ROOT".to_owned(), root.path().display().to_string());
        let exit = Run::new(["run"]).environment(vec![below]).start().wait(SOON);
        assert_eq!(exit.code, Some(2), "{file}: {}", exit.stderr);
        for needle in *needles {
            assert!(exit.stderr.contains(&format!("/{mount}{needle}")), "{file}: {needle}: {}", exit.stderr);
        }
    }
}

/// Destinations that are out of scope: refused by name and line where nothing else is left, unless a destination is given for them.
#[test]
fn other_destinations_are_named_and_may_be_replaced() {
    for entry in std::fs::read_dir(data("task-definitions/other-sinks")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let task: Value = serde_json::from_str(&read(&path)).unwrap();
        let generated = generated(&task.to_string());
        // No published case has this name: no files of its own.
        let case = Case { name: "other-sinks".to_owned(), file: file.clone(), generated, level: "C".to_owned(), task };
        let sender = &case.senders()[0];
        let scene = Scene::new(&case, &case.generated);
        let named = format!("[OUTPUT] {}", sender.options["Name"]);
        if file != "forward-to-aggregator.json" {
            let exit = scene.run(&case).start().wait(SOON);
            assert_eq!(exit.code, Some(2), "{file}: {}", exit.stderr);
            let line = case.generated.lines().enumerate().filter(|(_, line)| *line == "[OUTPUT]").last().unwrap().0 + 1;
            let place = format!("/fluent-bit/etc/fluent-bit.conf:{line}: {named}: ");
            assert!(exit.stderr.contains(&place), "{file}: {place}: {}", exit.stderr);
        }
        let fallback = ("MESHLENS_FALLBACK".to_owned(), "cloudwatch:fallback/stream".to_owned());
        scene.fake.logs().seed("fallback", &["stream"]);
        let mut run = scene.run(&case).environment(vec![fallback]);
        let mut aggregator = None;
        if file == "forward-to-aggregator.json" {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            run = run.with([
                "--set",
                "sink.\"forward.0\".host=127.0.0.1",
                "--set",
                &format!("sink.\"forward.0\".port={port}"),
            ]);
            aggregator = Some(std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let (mut bytes, mut buffer) = (Vec::new(), [0; 1 << 16]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    bytes.extend_from_slice(&buffer[..length]);
                    // One batch is all there is: acknowledged by the text behind `chunk`, once that is there, whole.
                    if let Some(at) = memchr::memmem::rfind(&bytes, b"\xa5chunk") {
                        let chunk = &bytes[at + 6..];
                        let length = 1 + usize::from(chunk[0] & 0x1f);
                        stream.write_all(&[b"\x81\xa3ack", &chunk[..length]].concat()).unwrap();
                    }
                }
                bytes
            }));
        }
        let mut process = run.start();
        process.wait_unix(&scene.socket, SOON);
        scene.send(&case, &mut process);
        let exit = process.terminate(SOON);
        assert_eq!(exit.code, Some(0), "{file}: {}", exit.stderr);
        exit.account.assert_adds_up();
        assert_eq!(scene.fake.leaks(), Vec::<String>::new());
        match aggregator {
            None => assert_eq!(scene.arrived().len(), LINES.len() + 1, "{file}"),
            Some(aggregator) => {
                let bytes = aggregator.join().unwrap();
                for line in LINES {
                    assert!(memchr::memmem::find(&bytes, line.as_bytes()).is_some(), "{line}");
                }
                assert!(memchr::memmem::find(&bytes, MARK.as_bytes()).is_none());
            }
        }
    }
}
