//! `meshlens check --task-definition`: what a router would do in an ECS task, and what the task definition should say of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::{Args, STOP_TIMEOUT_DEFAULT, end_time, pipeline, printed, section};
use crate::cli::iam::{self, Permission};
use crate::cli::{Exit, say};
use crate::config::document::{Node, Value};
use crate::config::fluent_bit::init::Init;
use crate::config::fluent_bit::metadata;
use crate::config::remote::Remote;
use crate::config::{Loaded, given};
use crate::firelens::task::{Container, NetworkMode, TaskDefinition};
use crate::firelens::{self, Generated, Identity, Included};
use crate::pattern::Pattern;
use crate::pattern::wildcard::Wildcard;

/// A task id like those that ECS makes.
const TASK_ID: &str = "00000000000000000000000000000000";

/// A region, where the task's is used and not known.
const REGION: &str = "us-east-1";

/// What the process needs beside the records it holds, in MiB; see the fault table in docs/reliability.md.
const OWN_MEMORY_MIB: u64 = 48;

/// Checks and prints.
pub(super) fn check(args: &Args) -> Exit {
    let (name, directory, text) = match source(args) {
        Ok(source) => source,
        Err(error) => return refuse(&[error]),
    };
    let task = match firelens::task::read(&text) {
        Ok(task) => task,
        Err(error) => return refuse(&[format!("{name}: {error}")]),
    };
    let identity = Identity {
        cluster: "CLUSTER".to_owned(),
        task_arn: format!("arn:aws:ecs:{REGION}:000000000000:task/CLUSTER/{TASK_ID}"),
        instance_id: (!task.is_fargate).then(|| "i-00000000000000000".to_owned()),
    };
    let generated = match firelens::generate(&task, &identity) {
        Ok(generated) => generated,
        Err(problems) => {
            return refuse(&problems.iter().map(|problem| format!("{name}: {problem}")).collect::<Vec<_>>());
        }
    };
    let environment = environment(&task);
    let variables = |name: &str| environment.get(name).cloned();
    let path = Path::new(generated.path);
    let Brought { files, init, missing } = Brought::new(&task, &generated, &directory);
    missing.iter().for_each(say);
    match given::load_generated(path, &generated.text, files, init, &directory, &args.config.flags, &variables) {
        Err(problems) => {
            let lines: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
            refuse(&lines)
        }
        Ok(loaded) => printed(args, &loaded, |loaded| report(&task, &generated, loaded)),
    }
}

/// Objects that the agent and the init image would download, from files of their names beside the task definition.
struct Brought {
    files: Vec<(PathBuf, String)>,
    init: Init,
    /// What is not there.
    missing: Vec<String>,
}

impl Brought {
    fn new(task: &TaskDefinition, generated: &Generated, directory: &Path) -> Self {
        let own = task.router().into_iter().flat_map(|(router, _)| router.environment.clone());
        let mut init = Init::from_environment(&own.collect::<Vec<_>>());
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        let mut bring = |place: &Path, arn: &str| {
            let name = arn.rsplit('/').next().unwrap_or(arn);
            match std::fs::read_to_string(directory.join(name)) {
                Ok(text) => files.push((place.to_owned(), text)),
                Err(_) => missing.push(format!("{arn} is not looked at: put {name} beside the task definition")),
            }
            files.iter().any(|(known, _)| known == place)
        };
        if let Some(Included { path, arn: Some(arn) }) = &generated.included {
            bring(Path::new(path), arn);
        }
        init.places.retain(|place| match place.to_str() {
            Some(arn) if Remote::parse(arn).is_some() => bring(place, arn),
            _ => true,
        });
        Self { files, init, missing }
    }
}

fn refuse(problems: &[String]) -> Exit {
    problems.iter().for_each(say);
    let plural = if problems.len() == 1 { "" } else { "s" };
    say(format_args!("meshlens: {} error{plural}", problems.len()));
    Exit::Usage
}

/// The task definition's name, where files beside it are, and its text.
fn source(args: &Args) -> Result<(String, PathBuf, String), String> {
    if let Some(path) = &args.task_definition {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        return Ok((name, path.parent().unwrap_or(Path::new("")).to_owned(), text));
    }
    let uri = std::env::var("ECS_CONTAINER_METADATA_URI_V4").unwrap_or_default();
    if uri.is_empty() {
        return Err("--metadata: ECS_CONTAINER_METADATA_URI_V4 is not set: this is no ECS task".to_owned());
    }
    let task = metadata::document(&uri).map_err(|error| format!("{uri}/task: {error}"))?;
    Ok((format!("{uri}/task"), PathBuf::from("/"), of_metadata(&task).to_string()))
}

/// A task's metadata in the shape of a task definition. Only the agent on EC2 tells log options.
fn of_metadata(task: &serde_json::Value) -> serde_json::Value {
    let own = task.get("Containers").and_then(serde_json::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_fargate = task["LaunchType"] == "FARGATE";
    let is_router = |container: &serde_json::Value| {
        let id = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let docker = container["DockerId"].as_str().unwrap_or_default();
        !docker.is_empty()
            && (id.contains(docker) || docker.starts_with(hostname.trim()) && !hostname.trim().is_empty())
    };
    let containers = own.iter().map(|container| {
        let mut out = json!({ "name": container["Name"], "logConfiguration": {
            "logDriver": container["LogDriver"], "options": container["LogOptions"] } });
        if is_router(container) {
            out["firelensConfiguration"] = json!({ "type": "fluentbit" });
        }
        out["memory"] = container["Limits"]["Memory"].clone();
        out
    });
    json!({
        "family": task["Family"], "revision": task["Revision"].as_str().and_then(|text| text.parse::<u64>().ok()),
        "networkMode": own.first().map_or(&serde_json::Value::Null, |one| &one["Networks"][0]["NetworkMode"]),
        "requiresCompatibilities": if is_fargate { json!(["FARGATE"]) } else { json!([]) },
        "taskRoleArn": std::env::var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").ok(),
        "containerDefinitions": containers.collect::<Vec<_>>(),
    })
}

/// What the router's environment would be: its own, its secrets, and what the agent adds.
fn environment(task: &TaskDefinition) -> BTreeMap<String, String> {
    let Some((router, _)) = task.router() else { return BTreeMap::new() };
    let mut environment = router.environment.clone();
    for (place, container) in task.containers.iter().enumerate() {
        for name in &container.secret_options {
            environment.insert(format!("{name}_{place}"), "SECRET".to_owned());
        }
    }
    let added = [
        ("ECS_CLUSTER", "CLUSTER"),
        ("ECS_TASK_ID", TASK_ID),
        ("ECS_TASK_ARN", "TASK_ARN"),
        ("ECS_FAMILY", task.family.as_str()),
        ("ECS_TASK_DEFINITION", task.family.as_str()),
        ("ECS_REVISION", "1"),
        ("ECS_LAUNCH_TYPE", if task.is_fargate { "FARGATE" } else { "EC2" }),
        ("AWS_REGION", REGION),
        ("AWS_AVAILABILITY_ZONE", "ZONE"),
        ("HOSTNAME", "HOSTNAME"),
    ];
    for (name, value) in added {
        environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    environment
}

/// The whole report.
fn report(task: &TaskDefinition, generated: &Generated, loaded: &Loaded) -> String {
    let mut out = String::new();
    let Some((router, _)) = task.router() else { return out };
    let mode = match task.network_mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Awsvpc => "awsvpc",
        NetworkMode::Other => "host or none",
    };
    let revision = task.revision.map(|revision| format!(":{revision}")).unwrap_or_default();
    let place = if task.is_fargate { "Fargate" } else { "EC2" };
    writeln!(out, "task {}{revision}, network mode {mode}, {place}; router: {}\n", task.family, router.name).ok();
    let container = |each: &Container| delivery(each, loaded);
    section(&mut out, "containers", task.containers.iter().filter(|each| each.firelens.is_none()).map(container));
    section(
        &mut out,
        "included",
        generated.included.iter().map(|included| match &included.arn {
            Some(arn) => format!("{} from {arn}", included.path),
            None => included.path.clone(),
        }),
    );
    section(&mut out, "task definition", advice(task, router, loaded));
    out.push_str(&pipeline(loaded));
    let permissions = iam::permissions(&loaded.config.sinks, &loaded.document);
    if !permissions.is_empty() {
        writeln!(out, "\nIAM policy of the task role\n{}", policy(&permissions)).ok();
    }
    out
}

/// Where a container's records go.
fn delivery(container: &Container, loaded: &Loaded) -> String {
    let name = &container.name;
    match container.log_driver.as_deref() {
        None => return format!("{name}: no log configuration: its logs are not kept by ECS"),
        Some("awsfirelens") => {}
        Some(driver) => return format!("{name}: log driver {driver}: its logs do not come here"),
    }
    let tag = format!("{name}-firelens-{TASK_ID}");
    let sinks = sinks_of(&tag, &loaded.document);
    let is_lost = |sink: &&String| {
        loaded.config.sinks.iter().any(|each| each.name == **sink && each.kind.label() == "unsupported")
    };
    let lost: Vec<&str> = sinks.iter().filter(is_lost).map(String::as_str).collect();
    let named = sinks.join(", ");
    match (sinks.is_empty(), lost.is_empty()) {
        (true, _) => format!("{name} (tag {tag}): NOT DELIVERED: no output matches"),
        (false, true) => format!("{name} (tag {tag}) -> {named}"),
        (false, false) if lost.len() == sinks.len() => {
            format!("{name} (tag {tag}): NOT DELIVERED: {named} is not supported; records are counted as dropped")
        }
        (false, false) => {
            format!("{name} (tag {tag}) -> {named}; NOT to {}, which is not supported", lost.join(", "))
        }
    }
}

/// The sinks of the rules whose condition on the tag holds, in order; with what else they ask for.
fn sinks_of(tag: &str, document: &Node) -> Vec<String> {
    let Some(Value::List(rules)) = document.get("route").map(|node| &node.value) else {
        return document.get("sink").map(|sinks| sinks.keys().map(str::to_owned).collect()).unwrap_or_default();
    };
    let mut found = Vec::new();
    for rule in rules {
        let when = rule.get("when");
        let holds = match when.and_then(|when| when.get("tag")).map(|node| &node.value) {
            None => true,
            Some(Value::Text(text)) => match (text.strip_prefix("match:"), text.strip_prefix("regex:")) {
                (Some(wildcard), _) => Wildcard::new(wildcard).matches(tag.as_bytes()),
                (None, Some(regex)) => Pattern::new(regex).is_ok_and(|pattern| pattern.is_match(tag.as_bytes())),
                (None, None) => Wildcard::new(text).matches(tag.as_bytes()),
            },
            Some(_) => false,
        };
        if !holds {
            continue;
        }
        let others: Vec<String> = when
            .into_iter()
            .flat_map(|when| when.keys().map(|key| (key, when.get(key))))
            .filter(|(key, _)| *key != "tag")
            .filter_map(|(key, node)| Some(format!("{key} = {}", node?)))
            .collect();
        let only = if others.is_empty() { String::new() } else { format!(" (only {})", others.join(", ")) };
        match rule.get("to").map(|node| &node.value) {
            Some(Value::Text(name)) => found.push(format!("{name}{only}")),
            Some(Value::List(names)) => {
                let texts = names.iter().filter_map(|name| match &name.value {
                    Value::Text(name) => Some(format!("{name}{only}")),
                    _ => None,
                });
                found.extend(texts);
            }
            _ => {}
        }
        if rule.get("continue").is_none() {
            break;
        }
    }
    found
}

/// What the task definition should say.
fn advice(task: &TaskDefinition, router: &Container, loaded: &Loaded) -> Vec<String> {
    let mut lines = Vec::new();
    let config = &loaded.config;
    let permissions = iam::permissions(&config.sinks, &loaded.document);
    if !task.has_task_role && !permissions.is_empty() {
        lines.push("taskRoleArn is missing: the router has no permission to send anything (policy below)".to_owned());
    }
    lines.push(stop_timeout(router, end_time(config)));
    lines.push(memory(router, (config.journal.memory_bytes_max as u64) >> 20));
    lines.extend(health_check(router, loaded));
    if router.has_dependencies {
        lines.push(
            "the router has dependsOn: the agent then adds none to the other containers; give each that logs through it \
             \"dependsOn\": [{ \"containerName\": \"…\", \"condition\": \"START\" }], or its last lines are lost at the end"
                .to_owned(),
        );
    }
    if router.log_driver.as_deref() == Some("awsfirelens") {
        lines.push(
            "the router logs to itself: its own lines are left out (own_log); give it the awslogs driver".to_owned(),
        );
    }
    if router.user.as_deref().is_some_and(|user| !matches!(user, "0" | "root" | "0:0")) {
        lines.push("the router's user is not root: the agent must be 1.96.0 or newer (on EC2)".to_owned());
    }
    for container in task.senders() {
        if let Some(limit) = container.options.get("log-driver-buffer-limit") {
            lines.push(format!("{}: log-driver-buffer-limit {limit} counts events, not bytes", container.name));
        }
    }
    lines
}

fn stop_timeout(router: &Container, needed: Duration) -> String {
    let given = router.stop_timeout_s.map_or(STOP_TIMEOUT_DEFAULT, Duration::from_secs);
    let seconds = needed.as_millis().div_ceil(1_000);
    if given >= needed {
        format!("stopTimeout of {} s is enough: the end takes up to {seconds} s", given.as_secs())
    } else {
        format!(
            "stopTimeout is {} s, and the end may take {seconds} s: set \"stopTimeout\": {seconds}, or Grace lower",
            given.as_secs()
        )
    }
}

fn memory(router: &Container, journal_mib: u64) -> String {
    let needed = journal_mib + OWN_MEMORY_MIB;
    match (router.memory_mib, router.memory_reservation_mib) {
        (Some(limit), _) if limit < needed => format!(
            "memory is limited to {limit} MiB, and records may take {journal_mib} MiB and the process {OWN_MEMORY_MIB}: set \
             \"memory\": {needed} or more, or MESHLENS_SET=journal.memory_bytes_max={}MiB",
            limit.saturating_sub(OWN_MEMORY_MIB).max(1)
        ),
        (Some(limit), _) => format!("memory limit of {limit} MiB is enough for {needed} MiB"),
        (None, Some(reserved)) if reserved < needed => format!(
            "memoryReservation is {reserved} MiB; {needed} MiB may be needed while a destination is out of reach ({journal_mib} for records)"
        ),
        (None, _) => format!("up to {needed} MiB may be needed while a destination is out of reach"),
    }
}

fn health_check(router: &Container, loaded: &Loaded) -> Option<String> {
    let words = router.health_check.join(" ");
    if words.is_empty() {
        return Some(
            "no healthCheck: add \"healthCheck\": { \"command\": [\"CMD\", \"/usr/local/bin/meshlens\", \"healthcheck\", \"--ready\"] } \
             and let the other containers wait for it (dependsOn HEALTHY)"
                .to_owned(),
        );
    }
    let has_server = loaded.document.get("admin").is_some_and(|admin| admin.get("fluent_bit_listen").is_some());
    if words.contains("2020") && !has_server {
        return Some(
            "the healthCheck asks port 2020, where nothing listens: set HTTP_Server On in [SERVICE]".to_owned(),
        );
    }
    let listens = |port: &str| loaded.document.get("source").is_some_and(|sources| sources.to_string().contains(port));
    if words.contains("8877") && !listens(":8877") {
        return Some("the healthCheck asks port 8877, where nothing listens in this network mode".to_owned());
    }
    Some("the healthCheck works: it tells whether the router takes records, not whether they arrive".to_owned())
}

/// A policy document for what the task role needs.
fn policy(permissions: &[Permission]) -> String {
    let mut statements: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for permission in permissions.iter().filter(|permission| permission.role == "task role") {
        let resources = statements.entry(permission.actions.clone()).or_default();
        if !resources.contains(&permission.resource.as_str()) {
            resources.push(&permission.resource);
        }
    }
    let statements: Vec<_> = statements
        .into_iter()
        .map(|(actions, resources)| json!({ "Effect": "Allow", "Action": actions, "Resource": resources }))
        .collect();
    let document = json!({ "Version": "2012-10-17", "Statement": statements });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
