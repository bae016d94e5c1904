//! Real counterparts: a live Envoy, moto, DuckDB. They come from `tests/requirements.txt`, installed by `tests/setup.sh`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed assumption is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    assert!(python.exists(), "the real counterparts are not installed; run ./tests/setup.sh first");
    python
}

fn run(script: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python())
        .arg(root.join("tests/live").join(script))
        .arg(env!("CARGO_BIN_EXE_meshlens"))
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert!(output.status.success(), "{script}: {}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn a_live_envoy_on_four_protocols_is_told_as_envoy_tells_it() {
    run("envoy.py", &[]);
}

#[test]
fn random_formats_of_a_live_envoy_are_read_as_envoy_means_them() {
    run("formats.py", &[]);
}

#[test]
fn moto_and_duckdb_agree_with_envoys_answer_key() {
    let data = "tests/data/envoy-generated";
    run(
        "moto.py",
        &[&format!("{data}/ecs-http-json-query.log.gz"), &format!("{data}/ecs-http-json-query.truth.jsonl.gz")],
    );
}
