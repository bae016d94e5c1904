//! An object store in memory that keeps the rules of S3 that matter here, and fails as it is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

const PART_BYTES_MIN: usize = 5 << 20;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put,
    Head,
    Create,
    Part,
    Complete,
    Abort,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Refused with that status and code; nothing is done.
    Refuse(u16, &'static str),
    /// Done, and answered 500.
    DoneButFailed,
    /// Never answered.
    Hang,
    /// The upload it is about is aborted by another just before.
    EndUpload,
}

/// What becomes of the request at which everything stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never came.
    Lost,
    /// It is done, and nobody hears of it.
    Done,
    /// It is done later, when whoever sent it is long gone.
    Later,
}

/// A request that is done later.
struct Delayed {
    op: Op,
    key: String,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

/// A stored object.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub headers: HeaderMap,
    /// Sizes of its parts; empty if it was put whole.
    pub parts: Vec<usize>,
}

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Object>,
    pub requests: Vec<Op>,
    pub headers: Vec<(Op, HeaderMap)>,
    uploads: HashMap<String, Upload>,
    uploads_begun: usize,
    faults: VecDeque<(Op, Fault)>,
    always: Vec<(Op, Fault)>,
    /// After so many more requests everything stops.
    stop_after: Option<(usize, Fate)>,
    is_stopped: bool,
    delayed: Vec<Delayed>,
}

struct Upload {
    key: String,
    headers: HeaderMap,
    parts: BTreeMap<usize, Bytes>,
}

/// A running store.
#[derive(Clone)]
pub struct Store {
    pub state: Arc<Mutex<State>>,
    pub url: String,
    /// Told when everything stops.
    pub stopped: Arc<Notify>,
}

type Answer = Response<Full<Bytes>>;

impl Store {
    /// Starts a store on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        let stopped: Arc<Notify> = Arc::default();
        let shared = (state.clone(), stopped.clone());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (state, stopped) = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), stopped.clone(), request));
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    drop(serving.await);
                });
            }
        });
        Self { state, url, stopped }
    }

    /// The next request of that kind, after those told before, meets that fault.
    pub fn fail(&self, op: Op, fault: Fault) {
        self.state.lock().unwrap().faults.push_back((op, fault));
    }

    /// All requests of that kind meet that fault.
    pub fn fail_always(&self, op: Op, fault: Fault) {
        self.state.lock().unwrap().always.push((op, fault));
    }

    /// Faults end.
    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.always.clear();
        state.faults.clear();
    }

    /// Puts an object there as another would.
    pub fn plant(&self, key: &str) {
        let object = Object { bytes: b"another's".to_vec(), headers: HeaderMap::new(), parts: vec![] };
        self.state.lock().unwrap().objects.insert(key.to_owned(), object);
    }

    /// After that many more requests nothing is done or answered any more, until [`Self::go_on`].
    pub fn stop_after(&self, requests: usize, fate: Fate) {
        self.state.lock().unwrap().stop_after = Some((requests, fate));
    }

    /// Requests are answered again; those that were delayed are done among them.
    pub fn go_on(&self) {
        let mut state = self.state.lock().unwrap();
        (state.stop_after, state.is_stopped) = (None, false);
    }

    /// Bytes in uploads that are neither completed nor aborted.
    pub fn bytes_in_uploads(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.uploads.values().flat_map(|upload| upload.parts.values()).map(Bytes::len).sum()
    }

    /// How many requests of that kind came.
    pub fn count(&self, op: Op) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|seen| **seen == op).count()
    }

    /// The objects.
    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.state.lock().unwrap().objects.clone()
    }

    /// Uploads that are neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    stopped: Arc<Notify>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(error(400, "IncompleteBody")) };
    let body = body.to_bytes();
    let pairs = head.uri.query().unwrap_or_default().split('&');
    let query: HashMap<String, String> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let op = match (&head.method, query.contains_key("uploads"), query.contains_key("uploadId")) {
        (&Method::HEAD, ..) => Op::Head,
        (&Method::PUT, _, false) => Op::Put,
        (&Method::PUT, _, true) => Op::Part,
        (&Method::POST, true, _) => Op::Create,
        (&Method::POST, false, true) => Op::Complete,
        (&Method::DELETE, _, true) => Op::Abort,
        _ => return Ok(error(405, "MethodNotAllowed")),
    };
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(op);
        state.headers.push((op, head.headers.clone()));
        let next = state.faults.iter().position(|(at, _)| *at == op).and_then(|i| state.faults.remove(i));
        next.or_else(|| state.always.iter().find(|(at, _)| *at == op).copied()).map(|(_, fault)| fault)
    };
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Refuse(status, code)) => return Ok(error(status, code)),
        Some(Fault::EndUpload) => drop(state.lock().unwrap().uploads.remove(&query["uploadId"])),
        Some(Fault::DoneButFailed) | None => {}
    }
    let key = head.uri.path().strip_prefix("/bucket/").map(percent_decode);
    let Some(key) = key else { return Ok(error(404, "NoSuchBucket")) };
    let done = state.lock().unwrap().take(Delayed { op, key, query, headers: head.headers, body });
    let Some(done) = done else {
        stopped.notify_one();
        return std::future::pending().await;
    };
    Ok(if matches!(fault, Some(Fault::DoneButFailed)) { error(500, "InternalError") } else { done })
}

impl State {
    /// Does what is asked for, unless everything has stopped or stops with it.
    fn take(&mut self, request: Delayed) -> Option<Answer> {
        if self.is_stopped {
            return None;
        }
        if !self.delayed.is_empty() && fastrand::u8(..3) == 0 {
            let delayed = self.delayed.swap_remove(fastrand::usize(..self.delayed.len()));
            drop(self.apply(delayed));
        }
        match &mut self.stop_after {
            Some((0, fate)) => {
                self.is_stopped = true;
                match fate {
                    Fate::Lost => {}
                    Fate::Done => drop(self.apply(request)),
                    Fate::Later => self.delayed.push(request),
                }
                return None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        Some(self.apply(request))
    }

    fn apply(&mut self, Delayed { op, key, query, headers, body }: Delayed) -> Answer {
        let headers = &headers;
        let upload_id = query.get("uploadId").cloned().unwrap_or_default();
        let taken = headers.get("if-none-match").is_some_and(|value| value == "*") && self.objects.contains_key(&key);
        match op {
            Op::Head => match self.objects.get(&key) {
                Some(object) => {
                    let mut answer = Response::new(Full::default());
                    let kept = object.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
                    answer.headers_mut().extend(kept.map(|(name, value)| (Some(name.clone()), value.clone())));
                    answer
                }
                None => Response::builder().status(404).body(Full::default()).unwrap(),
            },
            Op::Put if taken => error(412, "PreconditionFailed"),
            Op::Put => {
                assert!(key.len() <= 1024 && !headers.contains_key("transfer-encoding"));
                self.objects.insert(key, Object { bytes: body.to_vec(), headers: headers.clone(), parts: vec![] });
                Response::builder().header("etag", "\"whole\"").body(Full::default()).unwrap()
            }
            Op::Create => {
                self.uploads_begun += 1;
                let id = format!("u{}", self.uploads_begun);
                let xml = format!(
                    "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                );
                self.uploads.insert(id, Upload { key, headers: headers.clone(), parts: BTreeMap::new() });
                Response::new(Full::from(xml))
            }
            Op::Part => {
                let Some(upload) = self.uploads.get_mut(&upload_id) else { return error(404, "NoSuchUpload") };
                let number: usize = query["partNumber"].parse().unwrap();
                let etag = format!("\"{number}-{}\"", body.len());
                upload.parts.insert(number, body);
                let checksum = headers.get("x-amz-checksum-crc32").cloned();
                let mut answer = Response::builder().header("etag", etag);
                if let Some(checksum) = checksum {
                    answer = answer.header("x-amz-checksum-crc32", checksum);
                }
                answer.body(Full::default()).unwrap()
            }
            Op::Complete if !self.uploads.contains_key(&upload_id) => error(404, "NoSuchUpload"),
            Op::Complete if taken => error(412, "PreconditionFailed"),
            Op::Complete => {
                let upload = &self.uploads[&upload_id];
                assert_eq!(upload.key, key);
                let listed = String::from_utf8(body.to_vec()).unwrap();
                let sizes: Vec<usize> = upload.parts.values().map(Bytes::len).collect();
                for (number, bytes) in &upload.parts {
                    let etag = format!("<ETag>&quot;{number}-{}&quot;</ETag>", bytes.len());
                    assert!(listed.contains(&etag) || listed.contains(&etag.replace("&quot;", "\"")), "{listed}");
                }
                assert_eq!(listed.matches("<PartNumber>").count(), sizes.len());
                assert_eq!(listed.matches("<ChecksumCRC32>").count(), sizes.len(), "announced when it began");
                assert_eq!(upload.headers.get("x-amz-checksum-algorithm").unwrap(), "CRC32");
                if sizes[..sizes.len() - 1].iter().any(|bytes| *bytes < PART_BYTES_MIN) {
                    return error(400, "EntityTooSmall");
                }
                let Upload { headers, parts, .. } = self.uploads.remove(&upload_id).unwrap();
                let bytes = parts.into_values().flatten().collect();
                self.objects.insert(key, Object { bytes, headers, parts: sizes });
                Response::new(Full::from("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"))
            }
            Op::Abort => match self.uploads.remove(&upload_id) {
                Some(_) => Response::builder().status(204).body(Full::default()).unwrap(),
                None => error(404, "NoSuchUpload"),
            },
        }
    }
}

fn error(status: u16, code: &str) -> Answer {
    let xml = format!("<Error><Code>{code}</Code><Message>m</Message><RequestId>r</RequestId></Error>");
    Response::builder().status(status).body(Full::from(xml)).unwrap()
}

fn percent_decode(path: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex: String = bytes.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&hex, 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}
