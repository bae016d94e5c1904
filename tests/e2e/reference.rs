//! What Fluent Bit delivers, recorded (tests/data/firelens/reference), against what meshlens delivers of the same configuration and the same messages.
//!
//! Outputs that only people look at (`stdout`, `file`) become `s3` here, with a date as precise as their own: it is filters, times and tags that
//! these cases are about. Records are compared member by member in order, numbers by value, and as a bag: their order over tags is nobody's promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::fake_aws::sigv4::REGION;
use crate::fake_aws::{FakeAws, Options};
use crate::ordered::{Json, json, key_shape, lines_of, text};
use crate::process::{Run, free_address};
use crate::stage::SOON;

/// Cases whose outcome differs, and why that is right. A case here that does not differ any more fails the test.
const DIFFERENT: &[(&str, &str)] = &include!("reference/differences.in");

/// Cases about the notation of outputs that only people look at: ours is one JSON object a line.
const OF_NOTATION: &[&str] = &["stdout-", "file-"];

/// A text without what became of bytes that are no UTF-8: Fluent Bit leaves them out, or makes characters of its own of them; here each is
/// the character of its number.
fn utf8_of(text: &str) -> String {
    text.chars().filter(|c| !matches!(*c, '\u{80}'..='\u{ff}' | '\u{e000}'..='\u{e0ff}')).collect()
}

/// One record where it was delivered: where, when (milliseconds, or a text), what.
#[derive(Clone, Debug, PartialEq)]
struct Delivered {
    place: String,
    time: Json,
    what: Json,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/firelens/reference")
}

struct Case {
    name: String,
    document: Value,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let document = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            cases.push(Case { name, document });
        }
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    let only = std::env::var("MESHLENS_REFERENCE").unwrap_or_default();
    cases.retain(|case| case.name.contains(&only) && !OF_NOTATION.iter().any(|prefix| case.name.starts_with(prefix)));
    cases
}

impl Case {
    fn lines(value: &Value) -> Vec<String> {
        match value {
            Value::Array(lines) => lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect(),
            Value::String(text) => text.lines().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    fn is_input(&self) -> bool {
        self.name.starts_with("input-")
    }

    /// The configuration, with outputs for people turned into S3.
    fn config(&self, dir: &Path, port: u16, socket: &Path) -> String {
        let mut out = "[SERVICE]\n    Flush 0.2\n    Grace 20\n".to_owned();
        if !self.is_input() {
            writeln!(out, "[INPUT]\n    Name forward\n    unix_path {}", socket.display()).unwrap();
        }
        let mut sections: Vec<Vec<String>> = Vec::new();
        for line in Self::lines(&self.document["config"]) {
            let line = line.replace("@DIR@", &dir.display().to_string()).replace("@PORT@", &port.to_string());
            // Where the fake is.
            let line = line.replace("us-east-1", REGION);
            // A name that S3 has, which Fluent Bit does not ask for.
            let line = if line.trim() == "bucket b" { line.replace("bucket b", "bucket bbb") } else { line };
            if line.starts_with('[') || line.starts_with('@') || sections.is_empty() {
                sections.push(Vec::new());
            }
            sections.last_mut().unwrap().push(line);
        }
        for section in sections {
            let value = |key: &str| {
                section.iter().find_map(|line| {
                    let (name, value) = line.trim().split_once(char::is_whitespace)?;
                    name.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
                })
            };
            let plugin = value("name").unwrap_or_default();
            if section[0].eq_ignore_ascii_case("[output]") && ["stdout", "file"].contains(&plugin.as_str()) {
                out.push_str("[OUTPUT]\n    Name s3\n    bucket people\n    use_put_object On\n");
                writeln!(out, "    region {REGION}").unwrap();
                out.push_str("    s3_key_format /$TAG\n    json_date_key __date\n    json_date_format double\n");
                for key in ["Match", "Match_Regex"] {
                    if let Some(value) = value(key) {
                        writeln!(out, "    {key} {value}").unwrap();
                    }
                }
                continue;
            }
            for line in section {
                writeln!(out, "{line}").unwrap();
            }
        }
        out
    }

    /// What Fluent Bit delivered.
    fn expected(&self, dir: &Path) -> Vec<Delivered> {
        let output = &self.document["output"];
        let mut all = Vec::new();
        for line in Self::lines(&output["stdout"]) {
            all.push(of_people("", json(&line)));
        }
        for (name, text) in output["files"].as_object().into_iter().flatten() {
            let name = name.strip_prefix("out/").unwrap_or(name);
            for line in text.as_str().unwrap().lines() {
                let (tag, rest) = line.split_once(": [").unwrap_or((name, line));
                let (time, record) = rest.split_once(", ").unwrap_or(("", rest));
                let tag = tag.replace("@DIR@", &dir.display().to_string().trim_start_matches('/').replace('/', "."));
                let record = record.strip_suffix(']').unwrap_or(record).replace("@DIR@", &dir.display().to_string());
                let time = time.parse().map_or(Json::Null, Json::Number);
                all.push(Delivered { place: tag, time: rounded(time), what: json(&record) });
            }
        }
        for call in output["calls"].as_array().into_iter().flatten() {
            let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
            match text("call").as_str() {
                "PutLogEvents" => {
                    let place = format!("logs {} {}", text("logGroupName"), text("logStreamName"));
                    for event in call["logEvents"].as_array().into_iter().flatten() {
                        let what = json(&String::from_utf8(bytes_of(&event["message"])).unwrap());
                        let time = Json::Number(event["timestamp"].as_f64().unwrap());
                        all.push(Delivered { place: place.clone(), time, what });
                    }
                }
                "PutRecordBatch" => {
                    let place = format!("firehose {}", text("DeliveryStreamName"));
                    for record in call["Records"].as_array().into_iter().flatten() {
                        for line in record.get("gzip").unwrap_or(record).as_str().unwrap().lines() {
                            all.push(Delivered { place: place.clone(), time: Json::Null, what: json(line) });
                        }
                    }
                }
                "PUT" => {
                    let place = format!("s3 {}", key_shape(&text("path").replacen("/b/", "/bbb/", 1)));
                    for line in call["body"].as_str().unwrap_or_default().lines() {
                        all.push(Delivered { place: place.clone(), time: Json::Null, what: json(line) });
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// Sends what the case sends.
    fn send(&self, dir: &Path, port: u16, socket: &Path) {
        let inputs = self.document["input"].as_array().unwrap();
        if !self.is_input() {
            let mut bytes = Vec::new();
            for input in inputs {
                bytes.push(0x94);
                text(input["tag"].as_str().unwrap().as_bytes(), &mut bytes);
                bytes.extend_from_slice(&[0xd7, 0]);
                bytes.extend_from_slice(&(input["sec"].as_u64().unwrap() as u32).to_be_bytes());
                bytes.extend_from_slice(&(input["nsec"].as_u64().unwrap() as u32).to_be_bytes());
                let pairs = input["record"].as_array().unwrap();
                bytes.push(0xdf);
                bytes.extend_from_slice(&(pairs.len() as u32).to_be_bytes());
                for pair in pairs {
                    pack(&pair[0], &mut bytes);
                    pack(&pair[1], &mut bytes);
                }
                bytes.push(0x80);
            }
            UnixStream::connect(socket).unwrap().write_all(&bytes).unwrap();
            return;
        }
        for step in inputs {
            // As at the recording, a moment apart.
            std::thread::sleep(Duration::from_millis(300));
            let name = |place: usize| dir.join(step[place].as_str().unwrap());
            match step[0].as_str().unwrap() {
                "connect" => {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    for piece in step[1].as_array().unwrap() {
                        stream.write_all(&bytes_of(piece)).unwrap();
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                "append" => {
                    let file = std::fs::OpenOptions::new().append(true).create(true).open(name(1));
                    file.unwrap().write_all(&bytes_of(&step[2])).unwrap();
                }
                "rename" => std::fs::rename(name(1), name(2)).unwrap(),
                other => panic!("{}: {other}", self.name),
            }
        }
        std::thread::sleep(Duration::from_millis(1_500));
    }

    /// What meshlens delivers, or what it says where it refuses the configuration.
    fn delivered(&self) -> Result<(PathBuf, Vec<Delivered>), String> {
        let dir = tempfile::Builder::new().prefix("reference").tempdir().unwrap();
        let fake = FakeAws::start(Options::default());
        for bucket in ["people", "bbb"] {
            fake.seed_bucket(bucket);
        }
        for line in Self::lines(&self.document["config"]) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["delivery_stream", stream] => fake.seed_firehose(stream),
                ["log_group_name" | "Log_Group_Name", group] => drop(fake.logs().seed(group, &[])),
                ["bucket", bucket] => fake.seed_bucket(bucket),
                _ => {}
            }
        }
        for (name, text) in self.document["files"].as_object().into_iter().flatten() {
            if !name.starts_with('/') {
                let joined = match text {
                    Value::Array(_) => Self::lines(text).join("\n") + "\n",
                    other => other.as_str().unwrap().to_owned(),
                };
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, joined.replace("@DIR@", &dir.path().display().to_string())).unwrap();
            }
        }
        let (address, socket) = (free_address(), dir.path().join("fluent.sock"));
        let path = dir.path().join("fluent-bit.conf");
        std::fs::write(&path, self.config(dir.path(), address.port(), &socket)).unwrap();
        let flags = ["run", "--fluent-bit-config", path.to_str().unwrap(), "--set", "shutdown.quiet=100ms"];
        let mut process = Run::new(flags).environment(fake.environment()).start();
        if self.document["exit"] != 0 {
            let exit = process.wait(Duration::from_secs(10));
            return if exit.code == Some(2) { Err(exit.stderr) } else { panic!("{}: {}", self.name, exit.stderr) };
        }
        if !self.is_input() {
            process.wait_unix(&socket, SOON);
        } else if self.name.starts_with("input-tcp") {
            process.wait_tcp(address, SOON);
        } else {
            std::thread::sleep(Duration::from_millis(1_000));
        }
        self.send(dir.path(), address.port(), &socket);
        let exit = process.terminate(SOON);
        assert!(matches!(exit.code, Some(0 | 3)), "{}: {}", self.name, exit.stderr);
        if exit.code == Some(3) {
            eprintln!("{}: {}", self.name, exit.stderr);
        }
        exit.account.assert_adds_up();
        let mut all = Vec::new();
        for (group, held) in &fake.logs().groups {
            for (stream, events) in &held.streams {
                for event in events {
                    let place = format!("logs {group} {stream}");
                    let time = Json::Number(event.time_ms as f64);
                    all.push(Delivered { place, time, what: json(&event.message) });
                }
            }
        }
        for (stream, records) in &fake.firehose().streams {
            for line in records.iter().flat_map(|record| lines_of(record)) {
                all.push(Delivered { place: format!("firehose {stream}"), time: Json::Null, what: json(&line) });
            }
        }
        for (bucket, objects) in &fake.s3().buckets {
            for (key, object) in objects {
                for line in lines_of(&object.body) {
                    if bucket == "people" {
                        let stem = key.rsplit_once("-object").map_or(key.as_str(), |(stem, _)| stem);
                        all.push(of_people(stem.trim_start_matches('/'), json(&line)));
                    } else {
                        let place = format!("s3 {}", key_shape(&format!("/{bucket}/{key}")));
                        all.push(Delivered { place, time: Json::Null, what: json(&line) });
                    }
                }
            }
        }
        Ok((dir.path().to_owned(), all))
    }

    /// What is different.
    fn difference(&self) -> Option<String> {
        let (dir, mut ours) = match self.delivered() {
            Err(_refused) => return None,
            Ok(delivered) => delivered,
        };
        let theirs = self.expected(&dir);
        let has_places = !theirs.iter().any(|each| each.place.is_empty());
        let mut missing = Vec::new();
        for each in theirs {
            let is_same = |other: &Delivered| {
                (!has_places || other.place == each.place)
                    && (each.time == Json::Null || other.time == each.time)
                    && same(&each.what, &other.what)
            };
            match ours.iter().position(is_same) {
                Some(place) => drop(ours.remove(place)),
                None => missing.push(each),
            }
        }
        if missing.is_empty() && ours.is_empty() {
            return None;
        }
        let mut text = String::new();
        missing.iter().for_each(|each| writeln!(text, "  theirs {each:?}").unwrap());
        ours.iter().for_each(|each| writeln!(text, "  ours   {each:?}").unwrap());
        Some(text)
    }
}

/// The port of a client is its own.
fn same(theirs: &Json, ours: &Json) -> bool {
    match (theirs, ours) {
        (Json::Text(theirs), Json::Text(ours)) if theirs == "tcp://127.0.0.1:PORT" => {
            ours.starts_with("tcp://127.0.0.1:")
        }
        (Json::Object(theirs), Json::Object(ours)) => {
            theirs.len() == ours.len()
                && theirs.iter().zip(ours).all(|(one, other)| one.0 == other.0 && same(&one.1, &other.1))
        }
        (Json::List(theirs), Json::List(ours)) => {
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(one, other)| same(one, other))
        }
        (Json::Text(theirs), Json::Text(ours)) => theirs == ours || utf8_of(theirs) == utf8_of(ours),
        _ => theirs == ours,
    }
}

/// A record of an output for people: its date taken out.
fn of_people(place: &str, record: Json) -> Delivered {
    let Json::Object(mut members) = record else {
        return Delivered { place: place.to_owned(), time: Json::Null, what: record };
    };
    let is_date = members.first().is_some_and(|(name, _)| name == "date" || name == "__date");
    let time = if is_date { members.remove(0).1 } else { Json::Null };
    Delivered { place: place.to_owned(), time: rounded(time), what: Json::Object(members) }
}

/// To what a double shows of a time in every notation: 10 µs.
fn rounded(time: Json) -> Json {
    match time {
        Json::Number(seconds) => Json::Number((seconds * 1e4).floor()),
        other => other,
    }
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(object) if object.contains_key("base64") => {
            base64::engine::general_purpose::STANDARD.decode(object["base64"].as_str().unwrap()).unwrap()
        }
        Value::Object(object) if object.contains_key("repeat") => {
            object["repeat"].as_str().unwrap().repeat(object["times"].as_u64().unwrap() as usize).into_bytes()
        }
        other => panic!("{other}"),
    }
}

/// As MessagePack.
fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => {
                out.push(0xcf);
                out.extend_from_slice(&number.to_be_bytes());
            }
            (None, Some(number)) => {
                out.push(0xd3);
                out.extend_from_slice(&number.to_be_bytes());
            }
            (None, None) => {
                out.push(0xcb);
                out.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(string) => text(string.as_bytes(), out),
        Value::Array(list) => {
            out.push(0xdd);
            out.extend_from_slice(&(list.len() as u32).to_be_bytes());
            list.iter().for_each(|value| pack(value, out));
        }
        Value::Object(object) if object.contains_key("base64") || object.contains_key("repeat") => {
            text(&bytes_of(value), out);
        }
        Value::Object(object) => {
            out.push(0xdf);
            out.extend_from_slice(&(object.len() as u32).to_be_bytes());
            for (key, value) in object {
                text(key.as_bytes(), out);
                pack(value, out);
            }
        }
    }
}

#[test]
fn what_fluent_bit_delivers_is_delivered() {
    let cases = cases();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let found_here = std::panic::catch_unwind(|| case.difference())
                        .unwrap_or_else(|_| Some("  panicked, see above\n".to_owned()));
                    if let Some(difference) = found_here {
                        found.lock().unwrap().insert(case.name.clone(), difference);
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let run: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let known: BTreeMap<&str, &str> = DIFFERENT.iter().copied().filter(|(name, _)| run.contains(name)).collect();
    let mut wrong = String::new();
    for (name, difference) in &found {
        if !known.contains_key(name.as_str()) {
            writeln!(wrong, "{name} differs:\n{difference}").unwrap();
        }
    }
    for name in known.keys().filter(|name| !found.contains_key(**name)) {
        writeln!(wrong, "{name} is listed as different and is not").unwrap();
    }
    eprintln!("{} cases compared with Fluent Bit, {} differ, each listed with its reason", run.len(), found.len());
    assert!(wrong.is_empty(), "{wrong}");
}
