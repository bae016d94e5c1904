//! Published task definitions (tests/data/firelens): what the ECS agent would write for them, and what `meshlens check` says of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use meshlens::firelens::{Identity, generate, task};
use serde_json::Value;

/// What is not delivered of the cases that have parts out of scope, as `check` names it.
const NAMED: [(&str, &[&str]); 4] = [
    (
        "amp-prometheus-cloudwatch-go",
        &["fluent-bit.conf:5: [INPUT] node_exporter_metrics", "fluent-bit.conf:12: [OUTPUT] prometheus_remote_write"],
    ),
    ("internal-metrics-to-cw", &["plugin-metrics-to-cloudwatch.conf:11: [INPUT] exec"]),
    ("multiple-destinations", &["external.conf:24: [OUTPUT] datadog", "NOT to datadog.0, which is not supported"]),
    ("split-streams-fluentbit", &["stream_processing.conf:1: [STREAM_TASK]", "NOT DELIVERED: no output matches"]),
];

/// Cases that are refused, as they stand, by Fluent Bit and fluentd as well: they include a file that was never published, or their sample of
/// a key does not begin with `/`.
const REFUSED: [(&str, &str); 4] = [
    ("load-test-cloudwatch-tcp", "[OUTPUT] s3: s3_key_format = ${CUSTOM_S3_OBJECT_NAME}: must begin with `/`"),
    ("load-test-firehose-tcp", "[OUTPUT] s3: s3_key_format = ${CUSTOM_S3_OBJECT_NAME}: must begin with `/`"),
    ("uth-generated-fluentbit", "@INCLUDE /fluent-bit.conf: there is no such file"),
    ("uth-generated-fluentd", "@include /fluentd/etc/external.conf: there is no such file"),
];

/// Templates that leave the output of their container to the user, or to a file of the image that takes the generated one's place.
const WITHOUT_OUTPUT: [&str; 2] = ["crash-repro-template", "oomkill-memory-full"];

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/firelens").join(path)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn document(case: &str, name: &str) -> Value {
    let path = data("task-definitions").join(case).join(name);
    serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap()
}

fn cases() -> Vec<String> {
    let mut names = names(&data("task-definitions"));
    names.retain(|name| data("task-definitions").join(name).join("case.json").is_file());
    names
}

#[test]
fn the_agents_file_is_derived_for_every_task_and_network_mode() {
    let mut seen = BTreeSet::new();
    for file in names(&data("generated-config/derived")) {
        let (case, mode) = file.trim_end_matches(".conf").rsplit_once('.').unwrap();
        let task = document(case, "task-definition.json");
        let mut task = task.get("taskDefinition").cloned().unwrap_or(task);
        task["networkMode"] = mode.into();
        task["revision"] = 7.into();
        // What decides whether the file exists is not what it says: EC2 for the agent, in any mode.
        task["requiresCompatibilities"] = Value::Array(Vec::new());
        let identity = Identity {
            cluster: "demo-cluster".to_owned(),
            task_arn: "arn:aws:ecs:us-west-2:123456789012:task/demo-cluster/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3"
                .to_owned(),
            instance_id: (mode != "awsvpc").then(|| "i-0abcd1234ef567890".to_owned()),
        };
        let generated = generate(&task::read(&task.to_string()).unwrap(), &identity).unwrap();
        let expected = fs::read_to_string(data("generated-config/derived").join(&file)).unwrap();
        assert_eq!(generated.text, expected, "{file}");
        seen.insert(case.to_owned());
    }
    assert_eq!(seen, cases().into_iter().collect());
}

#[test]
fn check_says_what_becomes_of_every_published_task_definition() {
    for case in cases() {
        let path = data("task-definitions").join(&case).join("task-definition.json");
        let output = Command::new(env!("CARGO_BIN_EXE_meshlens"))
            .args(["check", "--task-definition"])
            .arg(&path)
            .env_clear()
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        if let Some((_, missing)) = REFUSED.iter().find(|(name, _)| *name == case) {
            assert!(output.status.code() == Some(2) && said.contains(missing), "{case}: {said}");
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{case}: {said}");
        for needle in NAMED.iter().filter(|(name, _)| *name == case).flat_map(|(_, needles)| needles.iter()) {
            assert!(said.contains(needle), "{case}: {needle}: {said}");
        }
        if document(&case, "case.json")["level"] != "C" {
            let is_delivered = !said.contains("NOT ") && said.contains(" -> ");
            assert_eq!(is_delivered, !WITHOUT_OUTPUT.contains(&case.as_str()), "{case}: {said}");
            assert!(!said.contains("not supported"), "{case}: {said}");
        }
    }
}
