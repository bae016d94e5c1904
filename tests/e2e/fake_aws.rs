//! A strict stand-in for CloudWatch Logs, Firehose and S3 on one loopback port.
//!
//! It enforces the documented limits with the services' own error codes and body shapes (AWS JSON 1.1 and XML), checks
//! signatures and checksums, and misbehaves when told to ([`fault`]). It runs on threads of its own, so tests stay plain
//! code: start it, seed it, point a process at [`FakeAws::url`], then look into [`FakeAws::logs`] and its kin.

#![allow(dead_code, reason = "tests and benches each use a part")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub mod digest;
pub mod fault;
pub mod firehose;
pub mod logs;
pub mod s3;
pub mod sigv4;
mod wire;

use fault::{Fault, Faults, Rule, Service};
use sigv4::{Credentials, Refusal, header};
use wire::{Peer, Wire};

/// What the fake took in, told record by record, before the answer goes out.
pub enum Delivered<'a> {
    /// An event of `PutLogEvents` that was not rejected.
    Event { group: &'a str, stream: &'a str, time_ms: i64, message: &'a str },
    /// A record of `PutRecordBatch` that did not fail.
    FirehoseRecord { stream: &'a str, data: &'a [u8] },
    /// An object, whole.
    Object { bucket: &'a str, key: &'a str, object: &'a s3::Object },
}

/// The number of a request, in order of arrival.
pub type RequestNumber = u32;

/// Told of all that is taken in, and by which request; called under the lock of its service.
pub type Observer = Arc<dyn Fn(RequestNumber, &Delivered<'_>) + Send + Sync>;

/// An observer, for one request.
type Telling<'a> = dyn Fn(&Delivered<'_>) + 'a;

/// How a fake behaves.
#[derive(Default)]
pub struct Options {
    /// Seed of the dice.
    pub seed: u64,
    /// Forget events and Firehose records once the observer saw them (objects are always kept).
    pub forget: bool,
    /// Told of all that is taken in.
    pub observer: Option<Observer>,
    /// Byte strings that no request may contain.
    pub marks: Vec<String>,
    /// Stand in for the services of every region, not of one.
    pub any_region: bool,
}

/// Counters of one operation.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Requests, faults included.
    pub requests: u64,
    /// Requests carried out.
    pub carried_out: u64,
    /// Refused requests by error code.
    pub errors: BTreeMap<&'static str, u64>,
    /// Request bodies, in bytes.
    pub body_bytes: u64,
    /// The largest request carried out, in records.
    pub batch_records_max: usize,
    /// The largest request carried out, in bytes as the service counts them.
    pub batch_bytes_max: usize,
    /// Records taken; for Firehose the lines in them.
    pub records: u64,
    /// Records taken whose answer was cut off: the sender must send them again.
    pub unanswered_records: u64,
}

/// An answer.
pub struct Reply {
    pub status: u16,
    pub code: Option<&'static str>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    fn empty(status: u16) -> Self {
        Self { status, code: None, headers: Vec::new(), body: Vec::new() }
    }

    fn json(status: u16, document: &serde_json::Value) -> Self {
        let body = document.to_string().into_bytes();
        Self { body, ..Self::empty(status).with("content-type", "application/x-amz-json-1.1") }
    }

    fn json_error(status: u16, code: &'static str, message: &str) -> Self {
        Self { code: Some(code), ..Self::json(status, &json!({"__type": code, "message": message})) }
    }

    fn xml(status: u16, document: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{document}").into_bytes();
        Self { body, ..Self::empty(status).with("content-type", "application/xml") }
    }

    fn xml_error(status: u16, code: &'static str, message: &str) -> Self {
        let message = escape_xml(message);
        let document =
            format!("<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>");
        Self { code: Some(code), ..Self::xml(status, &document) }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An answer and what was taken with it.
pub struct Outcome {
    pub reply: Reply,
    pub accepted: usize,
    pub offered: usize,
    pub bytes: usize,
}

impl Outcome {
    fn accepted(reply: Reply, accepted: usize, offered: usize, bytes: usize) -> Self {
        Self { reply, accepted, offered, bytes }
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self { reply, accepted: 0, offered: 0, bytes: 0 }
    }
}

/// `&`, `<`, `>` and quotes as entities.
pub fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Shared {
    any_region: bool,
    credentials: Mutex<Vault>,
    faults: Faults,
    logs: Mutex<logs::Logs>,
    firehose: Mutex<firehose::Firehose>,
    s3: Mutex<s3::S3>,
    statistics: Mutex<BTreeMap<(Service, String), Statistics>>,
    observer: Option<Observer>,
    marks: Vec<String>,
    leaks: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// When each request's answer was handed to its socket; none = not yet, or never.
    answers: Mutex<Vec<Option<Instant>>>,
}

/// The credentials in force.
struct Vault {
    current: Credentials,
    expired: bool,
    issued: u64,
}

impl Vault {
    /// Whether the request is signed with credentials that were issued before those in force.
    fn is_of_old(&self, head: &Parts) -> bool {
        let authorization = header(head, "authorization").unwrap_or_default();
        (0..self.issued).any(|number| authorization.contains(&Credentials::numbered(number).access_key))
    }
}

/// Where credentials are issued, as the ECS agent does.
const CREDENTIALS_PATH: &str = "/v2/credentials/fake";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running fake. Dropped, it is gone.
pub struct FakeAws {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
    listener: Option<JoinHandle<()>>,
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl FakeAws {
    /// Starts on a free port.
    pub fn start(options: Options) -> Self {
        let keep = !options.forget;
        let shared = Arc::new(Shared {
            credentials: Mutex::new(Vault { current: Credentials::numbered(0), expired: false, issued: 0 }),
            any_region: options.any_region,
            faults: Faults::new(options.seed),
            logs: Mutex::new(logs::Logs { keep, ..logs::Logs::default() }),
            firehose: Mutex::new(firehose::Firehose { keep, ..firehose::Firehose::default() }),
            s3: Mutex::default(),
            statistics: Mutex::default(),
            observer: options.observer,
            marks: options.marks,
            leaks: Mutex::default(),
            connections: AtomicUsize::new(0),
            answers: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut fake = Self { shared, address: ([127, 0, 0, 1], 0).into(), runtime: Some(runtime), listener: None };
        fake.reopen();
        fake
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub fn close(&mut self) {
        if let (Some(listener), Some(runtime)) = (self.listener.take(), &self.runtime) {
            listener.abort();
            // Cancelled, of course; the port is free once it is over.
            drop(runtime.block_on(listener));
        }
    }

    /// Takes connections again, at the same address.
    pub fn reopen(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        self.listener = Some(runtime.spawn(accept(listener, Arc::clone(&self.shared))));
    }

    /// The endpoint URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment that leads the SDK here and nowhere else.
    pub fn environment(&self) -> Vec<(String, String)> {
        let credentials = lock(&self.shared.credentials).current.clone();
        let keys = [
            ("AWS_ACCESS_KEY_ID", credentials.access_key),
            ("AWS_SECRET_ACCESS_KEY", credentials.secret_key),
            ("AWS_SESSION_TOKEN", credentials.session_token.unwrap_or_default()),
        ];
        keys.into_iter().chain(self.whereabouts()).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The same with credentials asked for as a task on ECS does, at an endpoint: those can expire and be renewed.
    pub fn environment_of_task(&self) -> Vec<(String, String)> {
        let endpoint = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}{CREDENTIALS_PATH}", self.url()));
        [endpoint].into_iter().chain(self.whereabouts()).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn whereabouts(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", sigv4::REGION.into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("AWS_CONFIG_FILE", "/nonexistent".into()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".into()),
        ]
    }

    /// From now on requests signed with the credentials that were issued are refused as expired. The endpoint goes on to
    /// issue them.
    pub fn expire_credentials(&self) {
        lock(&self.shared.credentials).expired = true;
    }

    /// The endpoint issues other credentials from now on, and these are good.
    pub fn renew_credentials(&self) {
        let mut vault = lock(&self.shared.credentials);
        vault.issued += 1;
        *vault = Vault { current: Credentials::numbered(vault.issued), expired: false, issued: vault.issued };
    }

    /// When the answer to a request was handed to its socket; none if it was not, or if the peer closed without reading it.
    pub fn answered(&self, request: RequestNumber) -> Option<Instant> {
        lock(&self.shared.answers).get(request as usize).copied().flatten()
    }

    /// Replaces the rules of misbehaviour.
    pub fn misbehave(&self, rules: Vec<Rule>) {
        self.shared.faults.set(rules);
    }

    /// CloudWatch Logs as it stands.
    pub fn logs(&self) -> MutexGuard<'_, logs::Logs> {
        lock(&self.shared.logs)
    }

    /// Firehose as it stands.
    pub fn firehose(&self) -> MutexGuard<'_, firehose::Firehose> {
        lock(&self.shared.firehose)
    }

    /// S3 as it stands.
    pub fn s3(&self) -> MutexGuard<'_, s3::S3> {
        lock(&self.shared.s3)
    }

    /// Makes a delivery stream.
    pub fn seed_firehose(&self, stream: &str) {
        self.firehose().streams.insert(stream.to_owned(), Vec::new());
    }

    /// Makes a bucket.
    pub fn seed_bucket(&self, bucket: &str) {
        self.s3().buckets.insert(bucket.to_owned(), BTreeMap::new());
    }

    /// Counters of an operation.
    pub fn statistics(&self, service: Service, operation: &str) -> Statistics {
        lock(&self.shared.statistics).get(&(service, operation.to_owned())).cloned().unwrap_or_default()
    }

    /// Counters of all operations, to print.
    pub fn all_statistics(&self) -> BTreeMap<(Service, String), Statistics> {
        lock(&self.shared.statistics).clone()
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Where one of the marks was seen: in a request, or in an object after decompression.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = lock(&self.shared.leaks).clone();
        for (bucket, objects) in &self.s3().buckets {
            for (key, object) in objects {
                let found = find_mark(&self.shared.marks, &object_text(&object.body));
                leaks.extend(found.map(|mark| format!("{mark} in object {bucket}/{key}")));
            }
        }
        leaks
    }
}

/// An object's content, decompressed if it is gzip (of any number of members) or zstd.
pub fn object_text(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match body {
        [0x1f, 0x8b, ..] => {
            flate2::read::MultiGzDecoder::new(body).read_to_end(&mut text).expect("an object is whole gzip");
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => text = zstd::decode_all(body).expect("an object is whole zstd"),
        _ => text.extend_from_slice(body),
    }
    text
}

fn find_mark<'a>(marks: &'a [String], bytes: &[u8]) -> Option<&'a str> {
    marks.iter().map(String::as_str).find(|mark| memchr::memmem::find(bytes, mark.as_bytes()).is_some())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A dropped connection is then a reset on the wire, not a polite end.
        stream.set_zero_linger().unwrap();
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _open = OpenConnection::new(&shared);
            let (wire, peer) = Wire::new(stream);
            let last = AtomicU32::new(RequestNumber::MAX);
            let service = service_fn(|request| handle(&shared, &peer, &last, request));
            let mut http = hyper::server::conn::http1::Builder::new();
            // Ends with an error when a fault cuts it; that is the wish.
            drop(http.pipeline_flush(true).serve_connection(TokioIo::new(wire), service).await);
            if peer.has_reset() {
                shared.take_back(last.into_inner());
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a connection for as long as it lasts, however it ends.
struct OpenConnection(Arc<Shared>);

impl OpenConnection {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

async fn handle(
    shared: &Arc<Shared>,
    peer: &Peer,
    last: &AtomicU32,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    if head.uri.path() == CREDENTIALS_PATH {
        return Ok(respond(shared.issue_credentials()));
    }
    let number = shared.number();
    let (service, operation) = called(&head);
    let fault = shared.faults.decide(service, &operation);
    shared.count(service, &operation, |statistics| statistics.requests += 1);
    if fault == Some(Fault::ResetBefore) {
        return Err(Cut);
    }
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    shared.count(service, &operation, |statistics| statistics.body_bytes += body.len() as u64);
    shared.look_for_marks(&head, &body, service, &operation);
    match fault {
        Some(Fault::Hang) => std::future::pending::<()>().await,
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let outcome = match refused_by_fault(service, fault) {
        Some(reply) => reply.into(),
        None => shared.carry_out(number, service, &operation, &head, &body, fault),
    };
    shared.count(service, &operation, |statistics| {
        match outcome.reply.code {
            Some(code) => *statistics.errors.entry(code).or_default() += 1,
            None => statistics.carried_out += 1,
        }
        statistics.batch_bytes_max = statistics.batch_bytes_max.max(outcome.bytes);
        statistics.batch_records_max = statistics.batch_records_max.max(outcome.offered);
        statistics.records += outcome.accepted as u64;
        if matches!(fault, Some(Fault::ResetAfter | Fault::HangAfter)) {
            statistics.unanswered_records += outcome.accepted as u64;
        }
    });
    match fault {
        Some(Fault::ResetAfter) => return Err(Cut),
        Some(Fault::HangAfter) => std::future::pending::<()>().await,
        _ => {}
    }
    if peer.is_gone() {
        return Err(Cut);
    }
    // What follows does not wait for anything: the answer is on the socket before this task rests again.
    lock(&shared.answers)[number as usize] = Some(Instant::now());
    last.store(number, Ordering::Relaxed);
    Ok(respond(outcome.reply))
}

fn respond(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(reply.status)
        .header("x-amzn-requestid", "00000000-0000-0000-0000-000000000001")
        .header("x-amz-request-id", "0000000000000001");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(reply.body.into())).unwrap()
}

fn called(head: &Parts) -> (Service, String) {
    let target = header(head, "x-amz-target").and_then(|target| target.split_once('.'));
    match target {
        Some(("Logs_20140328", operation)) => (Service::Logs, operation.to_owned()),
        Some(("Firehose_20150804", operation)) => (Service::Firehose, operation.to_owned()),
        _ => (Service::S3, s3::Target::of(head).operation.to_owned()),
    }
}

fn refused_by_fault(service: Service, fault: Option<Fault>) -> Option<Reply> {
    use Service::{Firehose, Logs, S3};
    let json = Reply::json_error;
    let xml = Reply::xml_error;
    Some(match (fault?, service) {
        (Fault::Throttle, Logs) => json(400, "ThrottlingException", "Rate exceeded"),
        (Fault::Throttle, Firehose) => json(503, "ServiceUnavailableException", "Slow down."),
        (Fault::Throttle, S3) => xml(503, "SlowDown", "Please reduce your request rate."),
        (Fault::ServerError, Logs | Firehose) => json(500, "InternalFailure", "We encountered an internal error."),
        (Fault::ServerError, S3) => xml(500, "InternalError", "We encountered an internal error. Please try again."),
        (Fault::ExpiredToken, Logs | Firehose) => {
            json(400, "ExpiredTokenException", "The security token included in the request is expired")
        }
        (Fault::ExpiredToken, S3) => xml(400, "ExpiredToken", "The provided token has expired."),
        (Fault::AccessDenied, Logs | Firehose) => json(400, "AccessDeniedException", "User is not authorized"),
        (Fault::AccessDenied, S3) => xml(403, "AccessDenied", "Access Denied"),
        (Fault::BadGateway, _) => Reply {
            code: Some("503"),
            body: b"<html><body><h1>503 Service Unavailable</h1></body></html>".to_vec(),
            ..Reply::empty(503).with("content-type", "text/html")
        },
        _ => return None,
    })
}

impl Shared {
    fn count(&self, service: Service, operation: &str, change: impl FnOnce(&mut Statistics)) {
        change(lock(&self.statistics).entry((service, operation.to_owned())).or_default());
    }

    fn look_for_marks(&self, head: &Parts, body: &[u8], service: Service, operation: &str) {
        if self.marks.is_empty() {
            return;
        }
        let mut found = find_mark(&self.marks, body).or_else(|| find_mark(&self.marks, format!("{head:?}").as_bytes()));
        if service == Service::Firehose {
            let records = firehose::decoded(body);
            found = found.or_else(|| records.iter().find_map(|record| find_mark(&self.marks, record)));
        }
        if let Some(mark) = found {
            lock(&self.leaks).push(format!("{mark} in {operation}"));
        }
    }

    fn number(&self) -> RequestNumber {
        let mut answers = lock(&self.answers);
        answers.push(None);
        (answers.len() - 1) as RequestNumber
    }

    /// The answer to this request, the last of its connection, was not read.
    fn take_back(&self, number: RequestNumber) {
        if let Some(answer) = lock(&self.answers).get_mut(number as usize) {
            *answer = None;
        }
    }

    /// What the endpoint of the ECS agent answers. The end is far: what expires, expires before its time.
    fn issue_credentials(&self) -> Reply {
        let credentials = lock(&self.credentials).current.clone();
        let document = json!({
            "RoleArn": "arn:aws:iam::123456789012:role/task",
            "AccessKeyId": credentials.access_key,
            "SecretAccessKey": credentials.secret_key,
            "Token": credentials.session_token,
            "Expiration": "2099-01-01T00:00:00Z",
        });
        Reply { body: document.to_string().into_bytes(), ..Reply::empty(200).with("content-type", "application/json") }
    }

    fn carry_out(
        &self,
        number: RequestNumber,
        service: Service,
        operation: &str,
        head: &Parts,
        body: &Bytes,
        fault: Option<Fault>,
    ) -> Outcome {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let hash = match (service, header(head, "x-amz-content-sha256")) {
            (Service::S3, Some(hash)) => hash.to_owned(),
            _ => digest::sha256_hex(body),
        };
        let (mut credentials, is_expired) = {
            let vault = lock(&self.credentials);
            (vault.current.clone(), vault.expired || vault.is_of_old(head))
        };
        if is_expired && let Some(reply) = refused_by_fault(service, Some(Fault::ExpiredToken)) {
            return reply.into();
        }
        if self.any_region
            && let Some(region) = sigv4::region_of(head)
        {
            credentials.region = region.to_owned();
        }
        if let Err(refusal) = sigv4::verify(head, &hash, service.scope(), &credentials, now.as_secs() as i64) {
            return not_let_in(service, &refusal).into();
        }
        let telling = self.observer.as_ref().map(|observer| |taken: &Delivered<'_>| observer(number, taken));
        let observer = telling.as_ref().map(|telling| telling as &Telling<'_>);
        match service {
            Service::Logs | Service::Firehose => {
                if header(head, "content-type") != Some("application/x-amz-json-1.1") {
                    return Reply::json_error(404, "UnknownOperationException", "content-type").into();
                }
                let Some(body) = decompressed(head, body) else {
                    return Reply::json_error(400, "SerializationException", "content-encoding").into();
                };
                let now_ms = now.as_millis() as i64;
                match service {
                    Service::Logs => lock(&self.logs).call(operation, &body, now_ms, observer),
                    _ => lock(&self.firehose).call(operation, &body, fault, &self.faults, observer),
                }
            }
            Service::S3 => match s3::payload(head, body) {
                Ok(content) => lock(&self.s3).call(&s3::Target::of(head), head, content, fault, observer),
                Err(refusal) => refusal,
            },
        }
    }
}

fn decompressed(head: &Parts, body: &Bytes) -> Option<Bytes> {
    match header(head, "content-encoding") {
        None => Some(body.clone()),
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(body.as_ref()).read_to_end(&mut plain).ok()?;
            Some(plain.into())
        }
        Some(_) => None,
    }
}

fn not_let_in(service: Service, refusal: &Refusal) -> Reply {
    let (json, xml, message) = match refusal {
        Refusal::Incomplete(what) => ("IncompleteSignatureException", "AccessDenied", (*what).to_owned()),
        Refusal::UnknownKey => ("UnrecognizedClientException", "InvalidAccessKeyId", "The key is not known".to_owned()),
        Refusal::Token => ("UnrecognizedClientException", "InvalidToken", "The security token is invalid".to_owned()),
        Refusal::Scope(what) => ("InvalidSignatureException", "RequestTimeTooSkewed", what.clone()),
        Refusal::Mismatch(what) => ("InvalidSignatureException", "SignatureDoesNotMatch", what.clone()),
    };
    match service {
        Service::S3 => Reply::xml_error(403, xml, &message),
        Service::Logs | Service::Firehose => Reply::json_error(403, json, &message),
    }
}
