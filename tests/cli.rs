//! The command line through the binary: help, exit codes, check, schema, completions.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the program in a directory of its own, without what the environment may say.
fn meshlens(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshlens"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("MESHLENS_CONFIG")
        .env_remove("MESHLENS_LOG")
        .env_remove("ECS_CONTAINER_METADATA_URI_V4")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    meshlens(directory.path(), arguments, &[])
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn config(name: &str) -> String {
    format!("{ROOT}/config/{name}")
}

#[test]
fn help_teaches_and_version_says_the_version() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = stdout(&help);
    for word in
        ["run", "check", "parse", "schema", "healthcheck", "completions", "Examples:", "Exit codes:", "MESHLENS_CONFIG"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = stdout(&run(&["run", "--help"]));
    for flag in [
        "--config",
        "--forward ",
        "--forward-unix",
        "--input",
        "--follow",
        "--to",
        "--set",
        "--grace",
        "--admin",
        "cloudwatch:GROUP/STREAM",
    ] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
    let version = run(&["--version"]);
    assert_eq!(
        (version.status.code(), stdout(&version)),
        (Some(0), format!("meshlens {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        &[][..],
        &["rnu"],
        &["run", "--no-such-flag"],
        &["check", "--to", "elsewhere"],
        &["run", "--set", "journal.memory_bytes_max=0"],
        &["run", "--config", "/nonexistent.toml"],
        &["run", "--input", "/nonexistent.log"],
        &["completions", "tcsh"],
        &["run", "--admin", "host:1"],
        &["healthcheck", "--admin", "host:1"],
        &["healthcheck", "--ready", "--live"],
        &["parse", "--redact", "mask", "--redact-parameters", "a"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert_ne!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn nothing_is_bound_or_made_when_the_configuration_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("fluent.sock");
    let arguments = ["run", "--forward-unix", socket.to_str().unwrap(), "--to", "file:made", "--grace", "soon"];
    let output = meshlens(directory.path(), &arguments, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("--grace soon: must be a duration"), "{}", stderr(&output));
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn check_says_pipeline_and_iam_actions() {
    let output = run(&["check", "--config", &config("service-connect.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for word in [
        "unix /var/run/fluent.sock",
        "log_type = \"access\"",
        "archive, stream",
        "logs:PutLogEvents",
        "firehose:PutRecordBatch",
        "s3:PutObject",
        "arn:aws:s3:::my-access-logs/service-connect/year=*",
        "configuration is valid",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn check_advises_on_stop_timeout_and_tells_the_admin_address() {
    let text = |arguments: &[&str]| {
        let output = run(&[&["check", "--to", "discard", "--forward", "127.0.0.1:0"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let said = text(&[]);
    assert!(said.contains("fits the stopTimeout of a container in ECS, 30s by default"), "{said}");
    assert!(said.contains("admin\n  off\n"), "{said}");
    let said = text(&["--grace", "100", "--admin", "9000", "--set", "admin.unhealthy_after=5m"]);
    assert!(said.contains("set \"stopTimeout\": 102 or more") && !said.contains("Fargate"), "{said}");
    assert!(said.contains("http://127.0.0.1:9000/; /healthz fails when a record waits for more than 5m"), "{said}");
    let disk = ["--set", "journal.persist=always", "--set", "journal.dir=/var/lib/meshlens", "--grace", "26"];
    let said = text(&disk);
    assert!(said.contains("set \"stopTimeout\": 31 or more"), "the journal may need its time too: {said}");
    assert!(said.contains("disk, 1GiB in /var/lib/meshlens, then sources wait"), "{said}");
    let said = text(&["--grace", "119"]);
    assert!(said.contains("set \"stopTimeout\": 121 or more") && said.contains("Fargate takes 120 at most"), "{said}");
}

#[test]
fn every_configuration_in_the_repository_passes_check() {
    // The sample log is read relative to the working directory.
    let directory = tempfile::tempdir().unwrap();
    let samples = directory.path().join("config/samples");
    std::fs::create_dir_all(&samples).unwrap();
    std::fs::write(samples.join("service-connect.log"), "{}\n").unwrap();
    let mut names: Vec<PathBuf> =
        Path::new(&config("")).read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        let inside = [("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")];
        let output = meshlens(directory.path(), &["check", "--config", name.to_str().unwrap()], &inside);
        assert_eq!(output.status.code(), Some(0), "{}: {}", name.display(), stderr(&output));
        assert!(!stdout(&output).contains("warnings"), "{}", stdout(&output));
    }
}

#[test]
fn the_task_definition_uses_a_configuration_of_the_repository() {
    let read = |name: &str| serde_json::from_str::<Json>(&std::fs::read_to_string(config(name)).unwrap()).unwrap();
    let task = read("ecs-task-definition.json");
    let router = &task["containerDefinitions"][0];
    let command: Vec<&str> = router["command"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    let ["run", "--config", file] = command.as_slice() else { panic!("{command:?}") };
    let name = file.strip_prefix("/etc/meshlens/").unwrap();
    let printed = stdout(&run(&["check", "--config", &config(name), "--print", "json"]));
    let document: Json = serde_json::from_str(&printed).unwrap();
    let grace = document["shutdown"]["grace"].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    assert!(grace < router["stopTimeout"].as_u64().unwrap(), "the process must end before ECS kills it");
    let service = read("ecs-service.json");
    assert_eq!(service["serviceConnectConfiguration"]["logConfiguration"]["logDriver"], "awsfirelens");
}

#[test]
fn the_environment_names_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = config("local.toml");
    let output = meshlens(directory.path(), &["check"], &[("MESHLENS_CONFIG", &file)]);
    assert!(stdout(&output).contains("/meshlens/app"), "{}", stdout(&output));
    let output = meshlens(directory.path(), &["check"], &[("MESHLENS_CONFIG", "")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = meshlens(directory.path(), &["check"], &[("MESHLENS_LOG", "loud")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("MESHLENS_LOG"), "{}", stderr(&output));
}

#[test]
fn without_its_sample_the_built_in_configuration_listens() {
    let output = run(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("forward on tcp 127.0.0.1:24224") && text.contains("warnings"), "{text}");
}

#[test]
fn print_shows_what_was_merged_without_secrets() {
    let set = ["--set", "source.f.type=forward", "--set", "source.f.shared_key=sesame", "--to", "stdout"];
    for format in ["toml", "json"] {
        let arguments = [&["check", "--print", format][..], &set[..]].concat();
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains("***") && !stdout(&output).contains("sesame"), "{}", stdout(&output));
    }
}

#[test]
fn the_schema_is_json_and_knows_every_table() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: Json = serde_json::from_str(&stdout(&output)).unwrap();
    for key in ["source", "sink", "route", "redact", "enrich", "journal", "shutdown", "admin", "log", "hostname"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
    for (table, kinds) in [
        ("Sink", &["cloudwatch_logs", "firehose", "s3", "file", "forward", "stdout", "discard", "unsupported"][..]),
        ("Source", &["forward", "lines", "tail", "tcp", "dummy"]),
    ] {
        let variants = schema["$defs"][table]["oneOf"].as_array().unwrap();
        let named: Vec<&str> =
            variants.iter().map(|variant| variant["properties"]["type"]["const"].as_str().unwrap()).collect();
        assert_eq!(named.len(), kinds.len(), "{table}: {named:?}");
        kinds.iter().for_each(|kind| assert!(named.contains(kind), "{table}: {kind}"));
    }
    assert!(!stdout(&output).contains("\"null\""));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("meshlens"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshlens"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

#[test]
fn parse_reads_compressed_files_as_run_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"one\n").unwrap();
    std::fs::write(directory.path().join("a.gz"), gzip.finish().unwrap()).unwrap();
    std::fs::write(directory.path().join("b.zst"), zstd::encode_all(&b"two\n"[..], 1).unwrap()).unwrap();
    let output = meshlens(directory.path(), &["parse", "a.gz", "b.zst"], &[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "{\"log\":\"one\"}\n{\"log\":\"two\"}\n"));
}

#[test]
fn check_looks_into_the_files_of_tls() {
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("cert.pem"), key.cert.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let check = |certificate: &str, key: &str| {
        let tls = format!("source.forward.tls={{certificate=\"{certificate}\",key=\"{key}\"}}");
        let listen = ["check", "--forward", "127.0.0.1:0", "--to", "discard", "--set", &tls];
        meshlens(directory.path(), &listen, &[])
    };
    let good = check("cert.pem", "key.pem");
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    let swapped = check("key.pem", "cert.pem");
    assert_eq!(swapped.status.code(), Some(2));
    assert!(stderr(&swapped).contains("source.forward: key.pem: "), "{}", stderr(&swapped));
}
