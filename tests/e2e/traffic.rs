//! Log lines that carry a number, what must become of them, and a witness that compares.
//!
//! Each record's request id ends in its number, so lost, duplicated and altered records are found by arithmetic: the witness
//! keeps a byte a record and sink, and the hash of the one form that was proven right field by field.

#![allow(dead_code, reason = "tests and benches each use a part")]

use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::fake_aws::{Delivered, Observer, RequestNumber, object_text};

/// In every query string that is sent, and nowhere else.
pub const MARK: &str = "SECRETMARK";
/// What every request id begins with; twelve hexadecimal digits follow, the record's number.
const ID_PREFIX: &str = "5eed0000-0000-4000-8000-";
const EXAMPLES_MAX: usize = 5;

/// The container that Docker would name.
pub const CONTAINER_ID: &str = "8d0ffc2fa0a5bc9c5ef6b3f0d6d9a3cc9a0b4aa3ff0a8dbbd3a6a05c6b1fb91e";
pub const CONTAINER_NAME: &str = "/ecs-service-connect-x7Fq2";
pub const SOURCE: &str = "stdout";

/// A made-up but well-formed stream of records.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Time of record 0.
    pub base_ms: i64,
    /// Whether the records come with a Docker envelope.
    pub envelope: bool,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    HttpJson,
    HttpText,
    Http2Json,
    Http2Text,
    GrpcJson,
    GrpcText,
    Application,
}

struct Request {
    shape: Shape,
    start_time: String,
    method: &'static str,
    path: String,
    query: String,
    code: u32,
    grpc_status: Option<&'static str>,
    received: u64,
    sent: u64,
    duration: u64,
    service_time: Option<u64>,
    forwarded_for: Option<&'static str>,
    user_agent: &'static str,
    id: String,
    upstream: Option<String>,
}

impl Traffic {
    /// Records of the last minutes.
    pub fn recent() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        Self { base_ms: now - 600_000, envelope: true }
    }

    /// The same without an envelope, as lines of a file have none.
    pub fn bare(mut self) -> Self {
        self.envelope = false;
        self
    }

    /// When request `n` began. Lines are written at a request's end, so neighbours go back in time.
    pub fn start_ms(&self, n: u64) -> i64 {
        self.base_ms + (n / 20) as i64 - (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as i64
    }

    /// When the line of record `n` was read, as the envelope says.
    pub fn sent_ms(&self, n: u64) -> i64 {
        self.base_ms + (n / 20) as i64 + 7
    }

    /// The time that record `n` must be stored under, in milliseconds, if the line or its envelope says one.
    pub fn event_ms(&self, n: u64) -> Option<i64> {
        match self.request(n).shape {
            Shape::Application => self.envelope.then(|| self.sent_ms(n)),
            _ => Some(self.start_ms(n)),
        }
    }

    fn request(&self, n: u64) -> Request {
        use Shape::{Application, GrpcJson, GrpcText, Http2Json, Http2Text, HttpJson, HttpText};
        let shapes =
            [HttpJson, HttpText, HttpJson, Http2Json, GrpcJson, Http2Text, HttpText, GrpcText, HttpJson, Application];
        let pick = |count: u64, salt: u64| (n.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % count;
        let shape = shapes[(n % 10) as usize];
        let answered = pick(9, 1) != 0;
        let begin = ["?", "?", "?", "%3F", "%253F"][pick(5, 2) as usize];
        let grpc = matches!(shape, GrpcJson | GrpcText);
        Request {
            shape,
            start_time: timestamp(self.start_ms(n)),
            method: if grpc { "POST" } else { ["GET", "POST", "PUT", "DELETE"][pick(4, 3) as usize] },
            path: if grpc {
                "/shop.v1.Orders/Get".into()
            } else {
                format!("/v1/orders/{}/items/{}", pick(5_000, 4), n % 7)
            },
            query: format!("{begin}token={MARK}{n}&page={}", n % 9),
            code: if answered { [200, 201, 301, 404, 500][pick(5, 5) as usize] } else { 503 },
            grpc_status: grpc.then(|| ["OK", "NotFound", "Unavailable"][pick(3, 6) as usize]),
            received: pick(2_000, 7),
            sent: pick(90_000, 8),
            duration: pick(3_000, 9),
            service_time: answered.then(|| pick(3_000, 10)),
            forwarded_for: [None, Some("203.0.113.7"), Some("203.0.113.7,10.0.0.4")][pick(3, 11) as usize],
            user_agent: ["curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "grpc-go/1.64.0"]
                [pick(3, 12) as usize],
            id: format!("{ID_PREFIX}{n:012x}"),
            upstream: answered.then(|| format!("10.0.{}.{}:8080", pick(200, 13), pick(250, 14))),
        }
    }

    /// Appends the line of record `n`, without a line feed.
    pub fn line(&self, n: u64, out: &mut Vec<u8>) {
        let r = self.request(n);
        match r.shape {
            Shape::Application => {
                write!(
                    out,
                    "INFO fetched https://api.example.com{}{} in {} ms id={}",
                    r.path, r.query, r.duration, r.id
                )
                .unwrap();
            }
            Shape::HttpJson | Shape::Http2Json | Shape::GrpcJson => write_json(out, &r),
            Shape::HttpText | Shape::Http2Text | Shape::GrpcText => write_text(out, &r),
        }
    }

    /// Every field that must come out of record `n`, and none besides.
    pub fn expected(&self, n: u64) -> Map<String, Value> {
        let r = self.request(n);
        let mut fields = match r.shape {
            Shape::Application => {
                let log = format!("INFO fetched https://api.example.com{} in {} ms id={}", r.path, r.duration, r.id);
                json!({ "log": log })
            }
            _ => json!({
                "start_time": r.start_time, "method": r.method, "path": r.path, "protocol": protocol(r.shape),
                "response_code": r.code, "bytes_received": r.received, "bytes_sent": r.sent, "duration": r.duration,
                "upstream_service_time": r.service_time, "forwarded_for": r.forwarded_for, "user_agent": r.user_agent,
                "request_id": r.id, "authority": "orders.internal:8080", "upstream_host": r.upstream, "log_type": "access",
            }),
        };
        if let Some(status) = r.grpc_status {
            fields["grpc_status"] = status.into();
        }
        if !matches!(r.shape, Shape::HttpJson | Shape::HttpText | Shape::Application) {
            fields["stream_id"] = r.id.clone().into();
        }
        if self.envelope {
            fields["container_id"] = CONTAINER_ID.into();
            fields["container_name"] = CONTAINER_NAME.into();
            fields["source"] = SOURCE.into();
        }
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

fn protocol(shape: Shape) -> &'static str {
    if matches!(shape, Shape::HttpJson | Shape::HttpText) { "HTTP/1.1" } else { "HTTP/2" }
}

fn write_json(out: &mut Vec<u8>, r: &Request) {
    let text = |value: Option<&str>| value.map_or_else(|| "null".to_owned(), |value| format!("\"{value}\""));
    write!(
        out,
        r#"{{"authority":"orders.internal:8080","bytes_received":{},"bytes_sent":{},"duration":{},"forwarded_for":{},"#,
        r.received,
        r.sent,
        r.duration,
        text(r.forwarded_for)
    )
    .unwrap();
    if let Some(status) = r.grpc_status {
        write!(out, r#""grpc_status":"{status}","#).unwrap();
    }
    write!(
        out,
        r#""method":"{}","path":"{}{}","protocol":"{}","request_id":"{}","response_code":{},"start_time":"{}","#,
        r.method,
        r.path,
        r.query,
        protocol(r.shape),
        r.id,
        r.code,
        r.start_time
    )
    .unwrap();
    if r.shape != Shape::HttpJson {
        write!(out, r#""stream_id":"{}","#, r.id).unwrap();
    }
    write!(
        out,
        r#""upstream_host":{},"upstream_service_time":{},"user_agent":"{}"}}"#,
        text(r.upstream.as_deref()),
        text(r.service_time.map(|time| time.to_string()).as_deref()),
        r.user_agent
    )
    .unwrap();
}

fn write_text(out: &mut Vec<u8>, r: &Request) {
    let or_dash = |value: Option<&str>| value.unwrap_or("-").to_owned();
    write!(out, r#"[{}] "{} {}{} {}" {} "#, r.start_time, r.method, r.path, r.query, protocol(r.shape), r.code)
        .unwrap();
    if let Some(status) = r.grpc_status {
        write!(out, "{status} ").unwrap();
    }
    write!(
        out,
        r#"{} {} {} {} "{}" "{}" "{}" "orders.internal:8080" "{}""#,
        r.received,
        r.sent,
        r.duration,
        or_dash(r.service_time.map(|time| time.to_string()).as_deref()),
        or_dash(r.forwarded_for),
        r.user_agent,
        r.id,
        or_dash(r.upstream.as_deref())
    )
    .unwrap();
    if r.shape != Shape::HttpText {
        write!(out, r#" "{}""#, r.id).unwrap();
    }
}

/// `2026-11-22T05:00:35.123Z`.
pub fn timestamp(ms: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// A record's number, from the request id in its output.
pub fn number(line: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(line, ID_PREFIX.as_bytes())? + ID_PREFIX.len();
    u64::from_str_radix(std::str::from_utf8(line.get(start..start + 12)?).ok()?, 16).ok()
}

/// What a sink received, compared with what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    pub altered: u64,
    pub examples: Vec<String>,
}

/// The sinks that a witness tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Logs,
    Firehose,
    S3,
    Other,
}

#[derive(Default)]
struct Sheet {
    copies: Vec<AtomicU8>,
    /// Records of which there is a copy.
    arrived: AtomicU64,
    /// Each copy that a request brought: the record, and the request.
    takes: Mutex<Vec<(u32, RequestNumber)>>,
    altered: AtomicU64,
    examples: Mutex<Vec<String>>,
}

/// Watches records arrive.
pub struct Witness {
    traffic: Traffic,
    count: u64,
    /// Hash of the line of each record that was compared field by field; 0 = not yet.
    proven: Vec<AtomicU64>,
    sheets: [Sheet; 4],
}

impl Witness {
    /// Expects records 0 to `count`.
    pub fn new(traffic: Traffic, count: u64) -> Arc<Self> {
        let sheet = || Sheet { copies: (0..count).map(|_| AtomicU8::new(0)).collect(), ..Sheet::default() };
        let proven = (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { traffic, count, proven, sheets: std::array::from_fn(|_| sheet()) })
    }

    /// What a fake tells, this notes.
    pub fn observer(self: &Arc<Self>) -> Observer {
        let witness = Arc::clone(self);
        Arc::new(move |request, delivered| match delivered {
            Delivered::Event { time_ms, message, .. } => witness.event(request, *time_ms, message),
            Delivered::FirehoseRecord { data, .. } => witness.lines_of(Some(request), Seen::Firehose, data),
            Delivered::Object { object, .. } => {
                witness.lines_of(Some(request), Seen::S3, &object_text(&object.body));
            }
        })
    }

    /// Notes lines, each ended by a line feed.
    pub fn lines(&self, sink: Seen, bytes: &[u8]) {
        self.lines_of(None, sink, bytes);
    }

    fn lines_of(&self, request: Option<RequestNumber>, sink: Seen, bytes: &[u8]) {
        if !bytes.ends_with(b"\n") {
            self.note(sink, "not ended by a line feed", bytes);
        }
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.take(request, sink, line);
        }
    }

    fn event(&self, request: RequestNumber, time_ms: i64, message: &str) {
        let expected = number(message.as_bytes()).and_then(|n| self.traffic.event_ms(n));
        if expected.is_some_and(|expected| expected != time_ms) {
            self.note(Seen::Logs, &format!("stored under {time_ms}"), message.as_bytes());
        }
        self.take(Some(request), Seen::Logs, message.as_bytes());
    }

    /// Notes one line.
    pub fn line(&self, sink: Seen, line: &[u8]) {
        self.take(None, sink, line);
    }

    fn take(&self, request: Option<RequestNumber>, sink: Seen, line: &[u8]) {
        let Some(n) = number(line).filter(|n| *n < self.count) else {
            return self.note(sink, "nobody sent this", line);
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(line);
        let hash = hasher.finish().max(1);
        let proven = &self.proven[n as usize];
        if proven.load(Relaxed) != hash {
            match self.compare(n, line) {
                Ok(()) => proven.store(hash, Relaxed),
                Err(what) => self.note(sink, &what, line),
            }
        }
        let sheet = &self.sheets[sink as usize];
        // Lines of one sink come one after the other, so nobody counts in between.
        let copies = sheet.copies[n as usize].load(Relaxed);
        sheet.copies[n as usize].store(copies.saturating_add(1), Relaxed);
        sheet.arrived.fetch_add(u64::from(copies == 0), Relaxed);
        if let Some(request) = request {
            sheet.takes.lock().unwrap_or_else(PoisonError::into_inner).push((n as u32, request));
        }
    }

    /// Each copy that a request brought, in order: the record, and the request.
    pub fn takes(&self, sink: Seen) -> Vec<(u32, RequestNumber)> {
        self.sheets[sink as usize].takes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a sink has this record.
    pub fn has(&self, sink: Seen, n: u64) -> bool {
        self.sheets[sink as usize].copies[n as usize].load(Relaxed) > 0
    }

    fn compare(&self, n: u64, line: &[u8]) -> Result<(), String> {
        let found: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let expected = self.traffic.expected(n);
        for (key, value) in &expected {
            let same = match (found.get(key), value) {
                // Envoy's JSON has this number as a string, its text without quotes; both are right.
                (Some(Value::String(text)), Value::Number(number)) if key == "upstream_service_time" => {
                    *text == number.to_string()
                }
                (found, value) => found == Some(value),
            };
            if !same {
                return Err(format!("{key} should be {value}"));
            }
        }
        match found.keys().find(|key| !expected.contains_key(*key)) {
            Some(key) => Err(format!("{key} should not be there")),
            None => Ok(()),
        }
    }

    fn note(&self, sink: Seen, what: &str, line: &[u8]) {
        let sheet = &self.sheets[sink as usize];
        sheet.altered.fetch_add(1, Relaxed);
        let mut examples = sheet.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES_MAX {
            let shown = &line[..line.len().min(1_000)];
            examples.push(format!("{what}: {}", String::from_utf8_lossy(shown)));
        }
    }

    /// Distinct records that a sink has.
    pub fn arrived(&self, sink: Seen) -> u64 {
        self.sheets[sink as usize].arrived.load(Relaxed)
    }

    /// What became of the records.
    pub fn verdict(&self, sink: Seen) -> Verdict {
        let sheet = &self.sheets[sink as usize];
        let copies = || sheet.copies.iter().map(|copies| u64::from(copies.load(Relaxed)));
        let mut examples = sheet.examples.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first_lost = copies().position(|copies| copies == 0);
        examples.extend(first_lost.map(|n| {
            let mut line = Vec::new();
            self.traffic.line(n as u64, &mut line);
            format!("lost first: {}", String::from_utf8_lossy(&line))
        }));
        Verdict {
            lost: copies().filter(|copies| *copies == 0).count() as u64,
            duplicated: copies().map(|copies| copies.saturating_sub(1)).sum(),
            altered: sheet.altered.load(Relaxed),
            examples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(witness: &Witness, n: u64) {
        witness.line(Seen::Other, Value::Object(witness.traffic.expected(n)).to_string().as_bytes());
    }

    #[test]
    fn a_witness_tells_lost_duplicated_and_altered_apart() {
        let witness = Witness::new(Traffic::recent(), 20);
        (0..20).for_each(|n| arrive(&witness, n));
        assert_eq!(witness.verdict(Seen::Other), Verdict::default());
        assert_eq!(witness.verdict(Seen::S3).lost, 20);

        let witness = Witness::new(Traffic::recent(), 20);
        (1..20).for_each(|n| arrive(&witness, n));
        arrive(&witness, 3);
        let mut changed = witness.traffic.expected(0);
        changed["duration"] = json!(-1);
        witness.line(Seen::Other, Value::Object(changed).to_string().as_bytes());
        let mut more = witness.traffic.expected(9);
        more.insert("extra".into(), Value::Null);
        witness.line(Seen::Other, Value::Object(more).to_string().as_bytes());
        witness.line(Seen::Other, b"{}");
        let verdict = witness.verdict(Seen::Other);
        assert_eq!((verdict.lost, verdict.duplicated, verdict.altered), (0, 2, 3), "{:?}", verdict.examples);
    }

    #[test]
    fn json_lines_are_json_and_every_line_is_marked() {
        let traffic = Traffic::recent();
        for n in 0..200 {
            let mut line = Vec::new();
            traffic.line(n, &mut line);
            assert!(memchr::memmem::find(&line, MARK.as_bytes()).is_some());
            assert_eq!(number(&line), Some(n));
            if line.starts_with(b"{") {
                serde_json::from_slice::<Map<String, Value>>(&line).unwrap();
            }
            assert!(!Value::Object(traffic.expected(n)).to_string().contains(MARK));
        }
    }
}
