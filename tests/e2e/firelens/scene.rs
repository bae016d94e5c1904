//! A router of a case in a root of its own, its fake, and the lines that its containers write.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::case::Case;
use super::{ANY, Delivered, LINES, Members, TASK, TASK_ARN, TRACE, member};
use crate::fake_aws::s3::Object;
use crate::fake_aws::{FakeAws, Options};
use crate::ordered::{Json, json, key_shape, lines_of, text};
use crate::process::{Process, Run};
use crate::stage::SOON;
use crate::traffic::{CONTAINER_ID, MARK, Traffic};

/// What a task's containers are told of it, by an agent that knows one task.
pub(super) static METADATA: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let body = serde_json::json!({
            "Cluster": "arn:aws:ecs:us-west-2:123456789012:cluster/demo-cluster", "TaskARN": TASK_ARN,
            "Family": "family", "Revision": "7", "AvailabilityZone": "us-west-2a", "LaunchType": "EC2", "Containers": [],
            "KnownStatus": "RUNNING", "DesiredStatus": "RUNNING", "DockerId": "d0", "Name": "log_router",
        })
        .to_string();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One small request; who asks no more has gone.
            drop(stream.read(&mut [0; 4096]));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    address
});

/// A line as Docker's log driver sends it: `[tag, time, record, {}]`.
pub(super) fn message(tag: &str, members: &Members, out: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    out.push(0x94);
    text(tag.as_bytes(), out);
    out.extend_from_slice(&[0xd7, 0]);
    out.extend_from_slice(&(now.as_secs() as u32).to_be_bytes());
    out.extend_from_slice(&now.subsec_nanos().to_be_bytes());
    out.push(0x80 | members.len() as u8);
    for (key, value) in members {
        let Json::Text(value) = value else { unreachable!() };
        text(key.as_bytes(), out);
        text(value.as_bytes(), out);
    }
    out.push(0x80);
}

/// What Docker tells of a line.
pub(super) fn of_docker(container: &str, line: &str) -> Members {
    vec![
        member("container_id", CONTAINER_ID),
        member("container_name", &format!("/ecs-demo-7-{container}-c0ffee")),
        member("source", "stdout"),
        member("log", line),
    ]
}

/// Inputs beside those of FireLens: plugin, tag, files.
pub(super) fn other_input(case: &str) -> Option<(&'static str, &'static str)> {
    match case {
        "emf-over-tcp-bridge" => Some(("tcp", "emf-ip-10-0-0-1")),
        "load-test-cloudwatch-tcp" => Some(("tcp", "cloudwatch")),
        "load-test-firehose-tcp" => Some(("tcp", "firehose")),
        "log-collection-tcp" => Some(("tcp", "tcp-logs")),
        "log-collection-tail" => Some(("tail", "service-log")),
        "multi-config-init" => Some(("tail", "app")),
        _ => None,
    }
}

/// A running router of a case, its fake, and where it listens.
pub(super) struct Scene {
    pub(super) root: tempfile::TempDir,
    pub(super) fake: FakeAws,
    /// Flags that move what has a place of its own.
    pub(super) moved: Vec<String>,
    pub(super) socket: PathBuf,
}

impl Scene {
    /// Lays out the root: `generated` where the agent mounts it, the files of the case where it names them.
    pub(super) fn new(case: &Case, generated: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let mount = if case.is_fluentd() { "/fluentd/etc/fluent.conf" } else { "/fluent-bit/etc/fluent-bit.conf" };
        write(mount, generated);
        let fake = FakeAws::start(Options { any_region: true, marks: vec![MARK.to_owned()], ..Options::default() });
        for bucket in ["your-bucket", "load-test-bucket"] {
            fake.seed_bucket(bucket);
        }
        for stream in ["my-stream", "stream-one", "stream-two", "log-loss-test", "demo-stream", "custom-ds-1"] {
            fake.seed_firehose(stream);
        }
        // Its options do not create it.
        fake.logs().seed("load-test-group", &[]);
        let mut texts = vec![generated.to_owned()];
        if case.name == "oomkill-memory-full" {
            texts.clear();
        }
        for (path, text) in case.files() {
            write(path, &text);
            texts.push(text);
        }
        for (bucket, key, text) in case.objects() {
            texts.push(text.clone());
            let (etag, headers) = ("\"1\"".to_owned(), BTreeMap::new());
            let object = Object { body: text.into(), etag, headers, parts: Vec::new() };
            fake.s3().buckets.entry(bucket).or_default().insert(key, object);
        }
        let socket = root.path().join("fluent.sock");
        let mut scene = Self { root, fake, moved: Vec::new(), socket };
        scene.set("shutdown.quiet", "100ms");
        scene.set("admin.listen", "off");
        let is_fluentd = case.is_fluentd();
        texts.iter().for_each(|text| if is_fluentd { scene.move_sources(text) } else { scene.move_inputs(text) });
        scene
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.moved.extend(["--set".to_owned(), format!("{key}={value}")]);
    }

    /// Moves the inputs of a text behind those that were moved before.
    pub(super) fn move_inputs(&mut self, text: &str) {
        for section in text.split("\n[").filter(|section| section.trim_start_matches('[').starts_with("INPUT]")) {
            let value = |key: &str| {
                section.lines().find_map(|line| {
                    let (name, value) = line.trim().split_once(' ')?;
                    name.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
                })
            };
            let plugin = value("name").unwrap();
            let count = self.moved.iter().filter(|flag| flag.contains(&format!("\"{plugin}."))).count();
            let count = if plugin == "tail" { 0 } else { count };
            let name = format!("source.\"{plugin}.{count}\"");
            match plugin.as_str() {
                "forward" if value("unix_path").is_some() => {
                    let socket = self.socket.display().to_string();
                    self.set(&format!("{name}.unix_path"), &socket);
                }
                "forward" | "tcp" => {
                    self.set(&format!("{name}.listen"), ANY);
                }
                "tail" => {
                    let below =
                        |path: String| self.root.path().join(path.trim_start_matches('/')).display().to_string();
                    let (path, db) = (below(value("path").unwrap()), value("db").map(below));
                    self.set(&format!("{name}.path"), &path);
                    if let Some(db) = db {
                        self.set(&format!("{name}.db"), &db);
                    }
                }
                _ => {}
            }
        }
        if text.contains("HTTP_Server") {
            self.set("admin.fluent_bit_listen", ANY);
        }
    }

    /// The same for sources of fluentd.
    pub(super) fn move_sources(&mut self, text: &str) {
        if text.contains("@type unix") {
            let socket = self.socket.display().to_string();
            self.set("source.\"unix.0\".unix_path", &socket);
        }
        if text.contains("@type forward") {
            self.set("source.\"forward.0\".listen", ANY);
        }
    }

    pub(super) fn run(&self, case: &Case) -> Run {
        let mut environment = self.fake.environment();
        environment.push(("MESHLENS_FIRELENS_ROOT".to_owned(), self.root.path().display().to_string()));
        environment.extend(case.variables());
        Run::new(["run"]).with(self.moved.iter().cloned()).environment(environment)
    }

    /// Sends what the case's containers write, and returns what must arrive.
    pub(super) fn send(&self, case: &Case, process: &mut Process) -> Vec<Delivered> {
        let mut expected = Vec::new();
        let mut proxy = Vec::new();
        let traffic = Traffic::recent();
        traffic.line(0, &mut proxy);
        let proxy = String::from_utf8(proxy).unwrap();
        assert!(proxy.contains(MARK), "{proxy}");
        for sender in case.senders() {
            let tag = format!("{}-firelens-{TASK}", sender.name);
            let mut bytes = Vec::new();
            for line in LINES {
                let record = of_docker(&sender.name, line);
                message(&tag, &record, &mut bytes);
                case.arrives(&tag, record, Some(&sender), &mut expected);
            }
            if case.name == "multiline-regex" {
                TRACE.iter().for_each(|line| message(&tag, &of_docker(&sender.name, line), &mut bytes));
                case.arrives(&tag, of_docker(&sender.name, &TRACE.join("\n")), Some(&sender), &mut expected);
            }
            UnixStream::connect(&self.socket).unwrap().write_all(&bytes).unwrap();
            // On a stream of its own, as a proxy's is: on its stream everything counts as the proxy's.
            let mut bytes = Vec::new();
            let record = of_docker(&sender.name, &proxy);
            message(&tag, &record, &mut bytes);
            UnixStream::connect(&self.socket).unwrap().write_all(&bytes).unwrap();
            case.arrives(&tag, record, Some(&sender), &mut expected);
        }
        let lines = ["first line", r#"{"_aws":{"Timestamp":1},"n":1}"#];
        match other_input(&case.name) {
            Some(("tcp", tag)) => {
                let inputs = self.moved.iter().filter(|flag| flag.starts_with("source.\"tcp.")).count();
                let mut address = None;
                process.wait_until("listening", SOON, |process| {
                    let said = process.said();
                    let addresses = said.split("tcp source listens address=").skip(1);
                    let all: Vec<String> =
                        addresses.filter_map(|rest| Some(rest.split_once(char::is_whitespace)?.0.to_owned())).collect();
                    address = all.last().cloned();
                    all.len() == inputs
                });
                TcpStream::connect(address.unwrap()).unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
                lines.iter().for_each(|line| case.arrives(tag, vec![member("log", line)], None, &mut expected));
            }
            Some(("tail", tag)) => {
                let path = self.tail_path(case);
                process.wait_until("following", SOON, |process| {
                    let open = std::fs::read_dir(format!("/proc/{}/fd", process.id()));
                    open.into_iter()
                        .flatten()
                        .flatten()
                        .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == path))
                });
                let file = std::fs::OpenOptions::new().append(true).open(path);
                file.unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
                lines.iter().for_each(|line| case.arrives(tag, vec![member("log", line)], None, &mut expected));
            }
            _ => {}
        }
        expected
    }

    /// The file that the case's tail input reads.
    pub(super) fn tail_path(&self, case: &Case) -> PathBuf {
        let name = if case.name == "log-collection-tail" { "var/log/service-1.log" } else { "logs/app.log" };
        let path = self.root.path().join(name);
        if !path.exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
        }
        path.canonicalize().unwrap()
    }

    /// All that arrived.
    pub(super) fn arrived(&self) -> Vec<Delivered> {
        let mut all = Vec::new();
        for (group, held) in &self.fake.logs().groups {
            for (stream, events) in &held.streams {
                let place = format!("logs {group} {stream}");
                all.extend(events.iter().map(|event| Delivered { place: place.clone(), what: json(&event.message) }));
            }
        }
        for (stream, records) in &self.fake.firehose().streams {
            let place = format!("firehose {stream}");
            let lines = records.iter().flat_map(|record| lines_of(record));
            all.extend(lines.map(|line| Delivered { place: place.clone(), what: json(&line) }));
        }
        for (bucket, objects) in &self.fake.s3().buckets {
            for (key, object) in objects.iter().filter(|(key, _)| !key.ends_with(".conf")) {
                let place = format!("s3 {}", key_shape(&format!("/{bucket}/{key}")));
                for line in lines_of(&object.body) {
                    let Json::Object(mut members) = json(&line) else { panic!("{line}") };
                    let date = members.remove(0);
                    let is_date = matches!(&date.1, Json::Text(text) if text.len() == 27 && text.ends_with('Z'));
                    assert!(date.0 == "date" && is_date, "{line}");
                    all.push(Delivered { place: place.clone(), what: Json::Object(members) });
                }
            }
        }
        all
    }
}
