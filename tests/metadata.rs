//! ECS task metadata against a small endpoint on loopback: every published document, and everything that can go wrong.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meshlens::enrich::ecs::{self, Environment, Metadata, NAMES, Pace};
use meshlens::enrich::{Config, fields};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Upper bound of any wait: reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(20);

const QUICK: Pace = Pace {
    pause_first: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
    timeout_first: Duration::from_secs(5),
    timeout_max: Duration::from_secs(5),
    rereads_max: 3,
};

/// What the endpoint does with one request.
#[derive(Clone)]
enum Answer {
    Body(u16, Vec<u8>),
    /// Bytes one at a time, with this pause before each.
    Drip(Vec<u8>, Duration),
    /// Says that this many bytes follow, sends fewer, and goes.
    BreakOff(Vec<u8>, usize),
    /// Any bytes in place of HTTP.
    Raw(Vec<u8>),
    Hang,
}

/// Answers of one path, in turn; the last one is repeated.
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    requests: AtomicUsize,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), requests: AtomicUsize::new(0) })
    }

    fn next(&self) -> Answer {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn document(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/ecs-metadata/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn found(name: &str) -> Answer {
    Answer::Body(200, document(name))
}

fn json(text: &str) -> Answer {
    Answer::Body(200, text.as_bytes().to_vec())
}

fn failing() -> Answer {
    Answer::Body(500, b"\"failed to get container metadata\"".to_vec())
}

/// Serves both paths; gives the base URL, which ends as given.
async fn serve(id: &str, container: &Arc<Script>, task: &Arc<Script>) -> String {
    serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), id, container, task)
}

fn serve_on(listener: TcpListener, id: &str, container: &Arc<Script>, task: &Arc<Script>) -> String {
    let base = format!("http://{}/v4/{id}", listener.local_addr().unwrap());
    let (container, task, id) = (container.clone(), task.clone(), id.to_owned());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (container, task, id) = (container.clone(), task.clone(), id.clone());
            tokio::spawn(async move { respond(stream, &id, &container, &task).await.ok() });
        }
    });
    base
}

async fn respond(mut stream: TcpStream, id: &str, container: &Script, task: &Script) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    let answer = match path.strip_prefix(&format!("/v4/{id}")) {
        Some("") => container.next(),
        Some("/task") => task.next(),
        _ => panic!("nobody should ask for {path}"),
    };
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
    };
    match answer {
        Answer::Body(status, body) => {
            stream.write_all(head(status, body.len()).as_bytes()).await?;
            stream.write_all(&body).await?;
        }
        Answer::Drip(body, pause) => {
            stream.write_all(head(200, body.len()).as_bytes()).await?;
            for byte in body {
                tokio::time::sleep(pause).await;
                stream.write_all(&[byte]).await?;
            }
        }
        Answer::BreakOff(body, length) => {
            stream.write_all(head(200, length).as_bytes()).await?;
            stream.write_all(&body).await?;
        }
        Answer::Raw(bytes) => stream.write_all(&bytes).await?,
        Answer::Hang => std::future::pending().await,
    }
    stream.shutdown().await
}

fn wanting(uri: String, names: &[&str]) -> Config {
    Config { ecs: names.iter().map(|name| name.to_string()).collect(), metadata_uri: Some(uri), ..Config::default() }
}

/// Waits until what is known is as asked.
async fn until(receiver: &mut watch::Receiver<Arc<Metadata>>, test: impl Fn(&Metadata) -> bool) -> Arc<Metadata> {
    let waited = tokio::time::timeout(PATIENCE, receiver.wait_for(|metadata| test(metadata))).await;
    let known = waited.ok().map(|metadata| metadata.unwrap().clone());
    known.unwrap_or_else(|| panic!("still: {:?}", receiver.borrow()))
}

/// All that is known once nothing more is expected.
async fn learned(container: Answer, task: Answer) -> Metadata {
    let (container, task) = (Script::new([container]), Script::new([task]));
    let uri = serve("e0c5a3a4-79e8-4d3c-a5e4-0b1d2f3a4c5d", &container, &task).await;
    let mut receiver = ecs::watch_at(&wanting(uri, &[]), &Environment::default(), QUICK);
    let metadata = until(&mut receiver, |metadata| metadata.complete).await;
    (*metadata).clone()
}

/// What the task's document says on its own; the container's is at hand only to end the reading.
async fn learned_of_task(name: &str) -> Metadata {
    let mut metadata = learned(json(r#"{"DockerId":"self","Name":"me"}"#), found(name)).await;
    assert_eq!(metadata.values.remove("ecs_container_id").as_deref(), Some("self"));
    assert_eq!(metadata.values.remove("ecs_container_name").as_deref(), Some("me"));
    metadata.containers.retain(|container| container.id != "self");
    metadata
}

/// Asserts all values, and that there are no others.
#[track_caller]
fn assert_values(metadata: &Metadata, expected: &[(&str, &str)]) {
    let mut expected: Vec<_> = expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    expected.sort();
    assert_eq!(metadata.values.clone().into_iter().collect::<Vec<_>>(), expected);
    assert!(metadata.values.keys().all(|name| NAMES.contains(&name.as_str())));
}

fn task_values<'a>(
    [cluster, cluster_arn, task_arn, task_id]: [&'a str; 4],
    [definition, definition_arn, family, revision]: [&'a str; 4],
    [zone, region, account]: [&'a str; 3],
) -> Vec<(&'a str, &'a str)> {
    vec![
        ("ecs_cluster", cluster),
        ("ecs_cluster_name", cluster),
        ("ecs_cluster_arn", cluster_arn),
        ("ecs_task_arn", task_arn),
        ("ecs_task_id", task_id),
        ("ecs_task_definition", definition),
        ("ecs_task_definition_arn", definition_arn),
        ("ecs_task_definition_family", family),
        ("ecs_task_definition_revision", revision),
        ("ecs_availability_zone", zone),
        ("aws_region", region),
        ("aws_account_id", account),
    ]
}

fn containers(metadata: &Metadata) -> Vec<(&str, &str)> {
    metadata.containers.iter().map(|container| (container.id.as_str(), container.name.as_str())).collect()
}

#[tokio::test]
async fn ec2_awsvpc() {
    for name in ["ec2-awsvpc-task", "ec2-awsvpc-taskWithTags", "ec2-awsvpc-taskWithTags-errors"] {
        let metadata = learned_of_task(name).await;
        let mut expected = task_values(
            [
                "default",
                "arn:aws:ecs:us-west-2:111122223333:cluster/default",
                "arn:aws:ecs:us-west-2:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c",
                "158d1c8083dd49d6b527399fd6414f5c",
            ],
            ["curltest:26", "arn:aws:ecs:us-west-2:111122223333:task-definition/curltest:26", "curltest", "26"],
            ["us-west-2d", "us-west-2", "111122223333"],
        );
        expected.extend([("ecs_service_name", "MyService"), ("ecs_launch_type", "EC2")]);
        assert_values(&metadata, &expected);
        let curl = "ee08638adaaf009d78c248913f629e38299471d45fe7dc944d1039077e3424ca";
        let pause = "598cba581fe3f939459eaba1e071d5c93bb2c49b7d1ba7db6bb19deeb70d8e38";
        assert_eq!(containers(&metadata), [(pause, "~internal~ecs~pause"), (curl, "curl")]);
        let container = metadata.container(curl).unwrap();
        assert_eq!(container.docker_name, "ecs-curltest-26-curl-a0e7dba5aca6d8cb2e00");
        assert_eq!(container.arn, "arn:aws:ecs:us-west-2:111122223333:container/abb51bdd-11b4-467f-8f6c-adcfe1fe059d");
        assert_eq!(metadata.container(&curl[..12]), None);
    }
}

#[tokio::test]
async fn ec2_awsvpc_with_every_field() {
    let metadata = learned_of_task("ec2-awsvpc-task-all-fields").await;
    let mut expected = task_values(
        [
            "default",
            "arn:aws:ecs:us-west-2:123456789012:cluster/default",
            "arn:aws:ecs:us-west-2:123456789012:task/default/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3",
            "0b69d5c0d6554fe4a2d2f9b5c7f6a1e3",
        ],
        ["sleep:1", "arn:aws:ecs:us-west-2:123456789012:task-definition/sleep:1", "sleep", "1"],
        ["us-west-2b", "us-west-2", "123456789012"],
    );
    expected.extend([("ecs_service_name", "my-service"), ("ecs_launch_type", "EC2")]);
    assert_values(&metadata, &expected);
    assert_eq!(containers(&metadata), [("cid", "sleepy")]);
}

#[tokio::test]
async fn ec2_bridge_firelens() {
    let router = "8c928beb55e3989caf270cee85835e7f199715ffe44e6d54f5aeb68bf79a275c";
    let app = "f2eb74ec6624e8f0ed4763f3c1b5dd6da6fc7810d4df83245fe419f28d34cbf4";
    for (name, cluster_arn, launch_type) in [
        ("ec2-bridge-firelens-task", "arn:aws:ecs:us-west-2:123456789123:cluster/ecs-cluster", Some("EC2")),
        // An ARN is taken as it is, another account and all.
        ("ec2-bridge-firelens-task-cluster-arn", "arn:aws:ecs:us-west-2:111122223333:cluster/ecs-cluster", Some("EC2")),
        ("ec2-bridge-firelens-task-no-launchtype", "arn:aws:ecs:us-west-2:123456789123:cluster/ecs-cluster", None),
    ] {
        let metadata = learned_of_task(name).await;
        let mut expected = task_values(
            [
                "ecs-cluster",
                cluster_arn,
                "arn:aws:ecs:us-west-2:123456789123:task/ecs-cluster/4ca5a280e68947cd84a8357f0d008fb5",
                "4ca5a280e68947cd84a8357f0d008fb5",
            ],
            [
                "code_test_A:35",
                "arn:aws:ecs:us-west-2:123456789123:task-definition/code_test_A:35",
                "code_test_A",
                "35",
            ],
            ["us-west-2a", "us-west-2", "123456789123"],
        );
        expected.extend(launch_type.map(|launch_type| ("ecs_launch_type", launch_type)));
        assert_values(&metadata, &expected);
        assert_eq!(containers(&metadata), [(router, "log_router"), (app, "app")]);
    }
}

#[tokio::test]
async fn ec2_with_a_stopped_container() {
    let metadata = learned_of_task("ec2-bridge-stopped-container-task").await;
    let mut expected = task_values(
        [
            "test200",
            "arn:aws:ecs:us-west-2:803860917211:cluster/test200",
            "arn:aws:ecs:us-west-2:803860917211:task/test200/d22aaa11bf0e4ab19c2c940a1cbabbee",
            "d22aaa11bf0e4ab19c2c940a1cbabbee",
        ],
        ["three-nginx:1", "arn:aws:ecs:us-west-2:803860917211:task-definition/three-nginx:1", "three-nginx", "1"],
        ["us-west-2a", "us-west-2", "803860917211"],
    );
    expected.push(("ecs_launch_type", "ec2"));
    assert_values(&metadata, &expected);
    assert_eq!(
        metadata.containers.iter().map(|one| &one.name).collect::<Vec<_>>(),
        ["nginx100", "nginx300", "nginx200"]
    );
    assert!(metadata.containers.iter().all(|one| one.arn.is_empty()));
}

#[tokio::test]
async fn fargate() {
    let metadata = learned_of_task("fargate-awsvpc-task").await;
    let mut expected = task_values(
        [
            "default",
            "arn:aws:ecs:us-west-2:111122223333:cluster/default",
            "arn:aws:ecs:us-west-2:111122223333:task/default/e9028f8d5d8e4f258373e7b93ce9a3c3",
            "e9028f8d5d8e4f258373e7b93ce9a3c3",
        ],
        ["curltest:3", "arn:aws:ecs:us-west-2:111122223333:task-definition/curltest:3", "curltest", "3"],
        ["us-west-2a", "us-west-2", "111122223333"],
    );
    expected.push(("ecs_launch_type", "FARGATE"));
    assert_values(&metadata, &expected);
    assert_eq!(metadata.container("e9028f8d5d8e4f258373e7b93ce9a3c3-2495160603").unwrap().name, "curl");
}

#[tokio::test]
async fn a_log_router_on_fargate() {
    let metadata = learned_of_task("fargate-log-router-taskWithTags").await;
    let mut expected = task_values(
        [
            "ecs-cluster",
            "arn:aws:ecs:us-east-1:123457279990:cluster/ecs-cluster",
            "arn:aws:ecs:us-east-1:123457279990:task/ecs-cluster/938f6d263c464aa5985dc67ab7f38a7e",
            "938f6d263c464aa5985dc67ab7f38a7e",
        ],
        ["my-redis:1", "arn:aws:ecs:us-east-1:123457279990:task-definition/my-redis:1", "my-redis", "1"],
        ["us-east-1d", "us-east-1", "123457279990"],
    );
    expected.push(("ecs_launch_type", "EC2"));
    assert_values(&metadata, &expected);
    assert_eq!(metadata.containers.iter().map(|one| &one.name).collect::<Vec<_>>(), ["log_router", "datadog-agent"]);
}

#[tokio::test]
async fn managed_instances_and_the_container_itself() {
    let metadata = learned(found("managed-instances-container"), found("managed-instances-task")).await;
    let mut expected = task_values(
        [
            "managed-instances-cluster",
            "arn:aws:ecs:us-west-2:111122223333:cluster/managed-instances-cluster",
            "arn:aws:ecs:us-west-2:111122223333:task/managed-instances-cluster/400c0466d1e54c0691aae0f86e0f9dc6",
            "400c0466d1e54c0691aae0f86e0f9dc6",
        ],
        // The labels of the container's document name another family: the task's own word counts.
        [
            "managed-instances-task-def:7",
            "arn:aws:ecs:us-west-2:111122223333:task-definition/managed-instances-task-def:7",
            "managed-instances-task-def",
            "7",
        ],
        ["us-west-2d", "us-west-2", "111122223333"],
    );
    expected.extend([
        ("ecs_service_name", "exec-service-2"),
        ("ecs_launch_type", "MANAGED_INSTANCES"),
        ("ecs_container_id", "400c0466d1e54c0691aae0f86e0f9dc6-2531612879"),
        ("ecs_container_name", "nginx"),
        (
            "ecs_container_arn",
            "arn:aws:ecs:us-west-2:111122223333:container/managed-instances-cluster/\
             400c0466d1e54c0691aae0f86e0f9dc6/3703f0e4-a351-4f1e-a0e7-6981ea7adc8b",
        ),
    ]);
    assert_values(&metadata, &expected);
    assert_eq!(metadata.containers.len(), 1);
}

/// The values that a container's document gives while the task's cannot be read.
async fn learned_of_container(name: &str, id: &str) -> Metadata {
    let (container, task) = (Script::new([found(name)]), Script::new([failing()]));
    let uri = serve("x", &container, &task).await;
    let mut receiver = ecs::watch_at(&wanting(uri, &[]), &Environment::default(), QUICK);
    let metadata = until(&mut receiver, |metadata| metadata.get("ecs_container_id") == Some(id)).await;
    assert!(!metadata.complete, "the task is still missing");
    (*metadata).clone()
}

#[tokio::test]
async fn labels_tell_of_the_task_when_its_own_document_fails() {
    let id = "ea32192c8553fbff06c9340478a2ff089b2bb5646fb718b4ee206641c9086d66";
    let metadata = learned_of_container("ec2-awsvpc-container", id).await;
    let mut expected = task_values(
        [
            "default",
            "arn:aws:ecs:us-west-2:111122223333:cluster/default",
            "arn:aws:ecs:us-west-2:111122223333:task/default/8f03e41243824aea923aca126495f665",
            "8f03e41243824aea923aca126495f665",
        ],
        ["curltest:24", "arn:aws:ecs:us-west-2:111122223333:task-definition/curltest:24", "curltest", "24"],
        ["", "us-west-2", "111122223333"],
    );
    expected.retain(|(name, _)| *name != "ecs_availability_zone");
    expected.extend([
        ("ecs_container_id", id),
        ("ecs_container_name", "curl"),
        ("ecs_container_arn", "arn:aws:ecs:us-west-2:111122223333:container/0206b271-b33f-47ab-86c6-a0ba208a70a9"),
    ]);
    assert_values(&metadata, &expected);

    let id = "325c979aea914acd93be2fdd2429e1d9-3811061257";
    let metadata = learned_of_container("fargate-container", id).await;
    let mut expected = task_values(
        [
            "a-cluster",
            "arn:aws:ecs:us-east-1:906783545488:cluster/a-cluster",
            "arn:aws:ecs:us-east-1:906783545488:task/a-task/325c979bea914acd93bd2fdd2429e1d9",
            "325c979bea914acd93bd2fdd2429e1d9",
        ],
        ["a-task:1", "arn:aws:ecs:us-east-1:906783545488:task-definition/a-task:1", "a-task", "1"],
        ["", "us-east-1", "906783545488"],
    );
    expected.retain(|(name, _)| *name != "ecs_availability_zone");
    expected.extend([
        ("ecs_container_id", id),
        ("ecs_container_name", "an-image"),
        ("ecs_container_arn", "arn:aws:ecs:us-east-1:123456789123:an-image/123"),
    ]);
    assert_values(&metadata, &expected);
}

#[tokio::test]
async fn a_task_that_starts_is_read_again_until_it_runs() {
    let early = "fargate-awsvpc-task-at-start";
    let running = String::from_utf8(document(early)).unwrap().replace("\"NONE\"", "\"RUNNING\"");
    assert_ne!(running.as_bytes(), document(early));
    let more =
        r#""ServiceName": "late", "Containers": [{"DockerId": "5261e761e0e2a3d92da3f02c8e5bab1f-1", "Name": "app"},"#;
    let late = running.replacen("\"Containers\": [", more, 1);
    assert_ne!(late, running);
    let task = Script::new([found(early), found(early), found(early), json(&late)]);
    let container = Script::new([
        json("{\"DockerId\":\"\"}"),
        json(r#"{"DockerId":"5261e761e0e2a3d92da3f02c8e5bab1f-3356750833","Name":"profiler-metadata"}"#),
    ]);
    let uri = serve("x", &container, &task).await;
    let mut receiver = ecs::watch_at(&wanting(uri, &["ecs_service_name"]), &Environment::default(), QUICK);
    let first = until(&mut receiver, |metadata| metadata.get("ecs_task_id").is_some()).await;
    assert_eq!(first.get("ecs_task_id"), Some("5261e761e0e2a3d92da3f02c8e5bab1f"));
    assert_eq!(first.get("ecs_launch_type"), Some("FARGATE"));
    let last = until(&mut receiver, |metadata| metadata.complete).await;
    assert_eq!(last.get("ecs_service_name"), Some("late"));
    assert_eq!(last.container("5261e761e0e2a3d92da3f02c8e5bab1f-1").unwrap().name, "app");
    assert_eq!(last.get("ecs_container_name"), Some("profiler-metadata"));
    assert_eq!(task.requests(), 4, "and then no more");
}

#[tokio::test]
async fn a_service_name_that_never_comes_is_not_waited_for_without_end() {
    let task = Script::new([found("fargate-awsvpc-task")]);
    let container = Script::new([json(r#"{"DockerId":"c","Name":"n"}"#)]);
    let uri = serve("x", &container, &task).await;
    let names = ["ecs_service_name", "ecs_container_instance_arn"];
    let mut receiver = ecs::watch_at(&wanting(uri, &names), &Environment::default(), QUICK);
    let metadata = until(&mut receiver, |metadata| metadata.complete).await;
    assert_eq!(metadata.get("ecs_service_name"), None);
    assert_eq!(task.requests(), 1 + QUICK.rereads_max as usize);
}

/// Every way to fail that is known, then the truth.
fn troubles() -> Vec<Answer> {
    let errors: serde_json::Value = serde_json::from_slice(&document("error-responses")).unwrap();
    let mut troubles: Vec<_> = errors["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| {
            let body = case["body"].as_str().unwrap().as_bytes().to_vec();
            Answer::Body(u16::try_from(case["status"].as_u64().unwrap()).unwrap(), body)
        })
        .collect();
    assert_eq!(troubles.len(), 7);
    let whole = document("ec2-awsvpc-task");
    let mut huge = b"{\"Cluster\":\"".to_vec();
    huge.resize(2 << 20, b'x');
    huge.extend_from_slice(b"\"}");
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    troubles.extend([
        json("\"failed to get task metadata\""),
        json(""),
        json("{}"),
        json("null"),
        json("[1]"),
        json("<html>502</html>"),
        json("{\"Cluster\": \"default\", "),
        json(r#"{"Cluster":7e400,"TaskARN":["x"],"Family":null,"Revision":{},"Containers":{"a":1}}"#),
        json(r#"{"TaskARN":"not an arn","Containers":[1,null,{"Name":"no id"},{"DockerId":""}],"KnownStatus":true}"#),
        json(r#"{"TaskARN":"arn:aws:ecs:::","Cluster":"","KnownStatus":"NONE"}"#),
        Answer::Body(200, b"{\"Cluster\":\"\xff\xfe\"}".to_vec()),
        Answer::Body(200, huge),
        Answer::Body(200, deep),
        Answer::Body(204, vec![]),
        Answer::Body(301, vec![]),
        Answer::BreakOff(whole.clone(), whole.len() + 1),
        Answer::Raw(b"SSH-2.0-nonsense\r\n".to_vec()),
        Answer::Raw(vec![]),
        Answer::Hang,
    ]);
    troubles
}

#[tokio::test]
async fn every_trouble_is_survived() {
    let troubles = troubles();
    let count = troubles.len();
    let task = Script::new(troubles.iter().cloned().chain([found("ec2-awsvpc-task")]));
    let container = Script::new(troubles.iter().rev().cloned().chain([found("ec2-awsvpc-container")]));
    let uri = serve("x", &container, &task).await;
    let limit = Duration::from_millis(600);
    let pace = Pace { timeout_first: limit, timeout_max: limit, ..QUICK };
    let mut receiver = ecs::watch_at(&wanting(uri, &["ecs_service_name"]), &Environment::default(), pace);
    assert!(receiver.borrow().values.is_empty());
    let metadata = until(&mut receiver, |metadata| metadata.complete).await;
    assert_eq!(metadata.get("ecs_service_name"), Some("MyService"));
    assert_eq!(metadata.get("ecs_container_name"), Some("curl"));
    assert_eq!(metadata.get("ecs_cluster"), Some("default"));
    assert_eq!(task.requests(), count + 1);
}

#[tokio::test]
async fn what_is_known_outlives_a_poorer_answer() {
    let start = found("fargate-awsvpc-task-at-start");
    let container = Script::new([failing()]);
    let task = Script::new([start, json("{}"), failing(), json("{\"AvailabilityZone\":\"us-east-1z\"}")]);
    let uri = serve("x", &container, &task).await;
    let mut receiver = ecs::watch_at(&wanting(uri, &[]), &Environment::default(), QUICK);
    let metadata = until(&mut receiver, |metadata| metadata.get("ecs_availability_zone") == Some("us-east-1z")).await;
    assert_eq!(metadata.get("ecs_task_id"), Some("5261e761e0e2a3d92da3f02c8e5bab1f"));
    assert_eq!(metadata.containers.len(), 1);
}

#[tokio::test]
async fn a_hanging_endpoint_delays_nobody_and_the_environment_speaks_first() {
    let (container, task) = (Script::new([Answer::Hang]), Script::new([Answer::Hang]));
    let uri = serve("cd189a933e5849daa93386466019ab50-2495160603", &container, &task).await;
    let environment = Environment::from_iter([("AWS_REGION", "eu-west-1"), ("ECS_CLUSTER", "env"), ("ECS_FAMILY", "")]);
    let begin = Instant::now();
    let receiver = ecs::watch(&wanting(uri, &["ecs_task_id"]), &environment);
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    assert_values(
        &receiver.borrow(),
        &[
            ("aws_region", "eu-west-1"),
            ("ecs_cluster", "env"),
            ("ecs_cluster_name", "env"),
            // On Fargate the URL says these.
            ("ecs_task_id", "cd189a933e5849daa93386466019ab50"),
            ("ecs_container_id", "cd189a933e5849daa93386466019ab50-2495160603"),
        ],
    );
    assert!(!receiver.borrow().complete);
}

#[tokio::test]
async fn a_slow_answer_is_given_more_time() {
    let body = br#"{"TaskARN":"arn:aws-us-gov:ecs:us-gov-west-1:1:task/old",
        "Family":"f","Revision":3,"KnownStatus":"RUNNING"}"#;
    // Some 220 ms at the least: four times the first limit.
    let task = Script::new([Answer::Drip(body.to_vec(), Duration::from_millis(2))]);
    let container = Script::new([json(r#"{"DockerId":"c","Name":"n","Labels":null}"#)]);
    let uri = serve("x", &container, &task).await;
    let pace = Pace { timeout_first: Duration::from_millis(50), ..QUICK };
    let mut receiver = ecs::watch_at(&wanting(format!("{uri}/"), &[]), &Environment::default(), pace);
    let metadata = until(&mut receiver, |metadata| metadata.complete).await;
    assert!(task.requests() > 1, "the first attempts ran out of time");
    assert_values(
        &metadata,
        &[
            ("ecs_task_arn", "arn:aws-us-gov:ecs:us-gov-west-1:1:task/old"),
            ("ecs_task_id", "old"),
            ("ecs_task_definition", "f:3"),
            ("ecs_task_definition_arn", "arn:aws-us-gov:ecs:us-gov-west-1:1:task-definition/f:3"),
            ("ecs_task_definition_family", "f"),
            ("ecs_task_definition_revision", "3"),
            ("ecs_container_id", "c"),
            ("ecs_container_name", "n"),
            ("aws_region", "us-gov-west-1"),
            ("aws_account_id", "1"),
        ],
    );
}

#[tokio::test]
async fn nobody_listens_at_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = wanting(format!("http://{address}/v4/x"), &[]);
    let mut receiver = ecs::watch_at(&config, &Environment::default(), QUICK);
    tokio::time::sleep(QUICK.pause_max).await;
    assert!(receiver.borrow().values.is_empty());
    let task = Script::new([found("fargate-awsvpc-task")]);
    let container = Script::new([json(r#"{"DockerId":"c","Name":"n"}"#)]);
    serve_on(TcpListener::bind(address).await.unwrap(), "x", &container, &task);
    let metadata = until(&mut receiver, |metadata| metadata.complete).await;
    assert_eq!(metadata.get("ecs_cluster"), Some("default"));
}

#[tokio::test]
async fn without_an_endpoint_the_environment_is_all() {
    let environment = Environment::from_iter([
        ("ECS_TASK_ARN", "arn:aws-cn:ecs:cn-north-1:111122223333:task/main/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3"),
        ("ECS_TASK_DEFINITION", "web:12"),
        ("ECS_LAUNCH_TYPE", "FARGATE"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_AVAILABILITY_ZONE", "cn-north-1a"),
        ("ECS_CONTAINER_INSTANCE_ARN", "arn:aws-cn:ecs:cn-north-1:111122223333:container-instance/main/2dd1b186"),
        ("PATH", "/bin"),
    ]);
    for uri in [None, Some("ftp://x/v4"), Some("not a url"), Some(""), Some("http://"), Some("/v4/x")] {
        let config =
            Config { ecs: vec!["ecs_service_name".into()], metadata_uri: uri.map(str::to_owned), ..Config::default() };
        let mut receiver = ecs::watch(&config, &environment);
        assert!(receiver.borrow().complete, "{uri:?}");
        let mut expected = task_values(
            [
                "main",
                "arn:aws-cn:ecs:cn-north-1:111122223333:cluster/main",
                "arn:aws-cn:ecs:cn-north-1:111122223333:task/main/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3",
                "0b69d5c0d6554fe4a2d2f9b5c7f6a1e3",
            ],
            ["web:12", "arn:aws-cn:ecs:cn-north-1:111122223333:task-definition/web:12", "web", "12"],
            ["cn-north-1a", "cn-north-1", "111122223333"],
        );
        expected.extend([
            ("ecs_launch_type", "FARGATE"),
            ("ecs_container_instance_arn", "arn:aws-cn:ecs:cn-north-1:111122223333:container-instance/main/2dd1b186"),
            ("ecs_container_instance_id", "2dd1b186"),
        ]);
        assert_values(&receiver.borrow(), &expected);
        // The sender stays: who waits for a change goes on waiting.
        let change = tokio::time::timeout(Duration::from_millis(20), receiver.changed()).await;
        assert!(change.is_err(), "{change:?}");
    }
}

#[tokio::test]
async fn reading_ends_with_the_last_receiver() {
    let (container, task) = (Script::new([failing()]), Script::new([failing()]));
    let uri = serve("x", &container, &task).await;
    let receiver = ecs::watch_at(&wanting(uri, &[]), &Environment::default(), QUICK);
    while task.requests() < 3 {
        tokio::task::yield_now().await;
    }
    let runtime = tokio::runtime::Handle::current().metrics();
    drop(receiver);
    // What is left are the server and its connections, which end by themselves.
    tokio::time::timeout(PATIENCE, async {
        while runtime.num_alive_tasks() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_fields_of_a_record() {
    let metadata = learned_of_task("ec2-bridge-firelens-task").await;
    let mut config =
        wanting(String::new(), &["ecs_cluster", "ecs_task_arn", "ecs_service_name", "ecs_task_definition"]);
    config.fields.push(("environment".into(), "test".into()));
    let text = serde_json::Value::Object(fields(&config, &metadata).into_iter().collect()).to_string();
    let expected = serde_json::json!({
        "ecs_cluster": "ecs-cluster",
        "ecs_task_arn": "arn:aws:ecs:us-west-2:123456789123:task/ecs-cluster/4ca5a280e68947cd84a8357f0d008fb5",
        "ecs_task_definition": "code_test_A:35",
        "environment": "test",
    });
    assert_eq!(text, expected.to_string());
}
