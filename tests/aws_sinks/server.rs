//! A server that answers as it is told to, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::EXPIRED;

#[derive(Clone, Debug)]
pub struct Request {
    pub target: String,
    pub headers: String,
    pub text: String,
    /// The same as JSON, if it is.
    pub body: serde_json::Value,
    /// The number of the connection that it came on, and its own number on that.
    pub connection: usize,
    pub nth: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> String {
        header(&self.headers, name)
    }
}

fn header(headers: &str, name: &str) -> String {
    headers.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

/// What the server does with a request.
pub enum Reply {
    Answer(u16, String),
    /// With header lines, each ended by a line break.
    With(u16, String, String),
    /// Answers, then closes the connection without having said so.
    AnswerAndClose(u16, String),
    /// Closes the connection instead of an answer.
    Close,
    /// Neither answers nor closes.
    Silence,
}

pub struct Server {
    pub url: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

/// Answers with what it is given, in order.
pub async fn serve(answers: Vec<(u16, &'static str)>, tls: Option<TlsAcceptor>) -> Server {
    serve_to(None, answers, tls).await
}

/// The same; whoever signs with another key is told that it has expired.
pub async fn serve_to(
    key: Option<&'static str>,
    answers: Vec<(u16, &'static str)>,
    tls: Option<TlsAcceptor>,
) -> Server {
    let answers = Mutex::new(VecDeque::from(answers));
    let handler = move |request: &Request| {
        let knows = key.is_none_or(|key| request.headers.contains(&format!("credential={key}/")));
        let (status, text) = if knows { answers.lock().unwrap().pop_front().unwrap_or((500, "{}")) } else { EXPIRED };
        Reply::Answer(status, text.to_owned())
    };
    serve_with(tls, 0, handler).await
}

/// Answers as `handler` says; the first `dropped` connections are closed as soon as they are made.
pub async fn serve_with(
    tls: Option<TlsAcceptor>,
    dropped: usize,
    handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (kept, handler, connections) = (requests.clone(), Arc::new(handler), AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = connections.fetch_add(1, Relaxed);
            if connection < dropped {
                continue;
            }
            let (kept, handler, tls) = (kept.clone(), handler.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream, connection, &*handler, &kept).await;
                        }
                    }
                    None => answer(stream, connection, &*handler, &kept).await,
                }
            });
        }
    });
    Server { url, requests }
}

async fn answer(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    connection: usize,
    handler: &(impl Fn(&Request) -> Reply + Send + Sync),
    kept: &Mutex<Vec<Request>>,
) {
    let mut stream = BufReader::new(stream);
    for nth in 0.. {
        let mut headers = String::new();
        while !headers.ends_with("\r\n\r\n") {
            if stream.read_line(&mut headers).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let headers = headers.to_ascii_lowercase();
        let mut body = vec![0; header(&headers, "content-length:").parse().unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let target = header(&headers, "x-amz-target:").rsplit('.').next().unwrap_or_default().to_owned();
        let text = String::from_utf8(body).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        let request = Request { target, headers, text, body, connection, nth };
        let reply = handler(&request);
        kept.lock().unwrap().push(request);
        let (status, headers, text, closes) = match reply {
            Reply::Answer(status, text) => (status, String::new(), text, false),
            Reply::With(status, headers, text) => (status, headers, text, false),
            Reply::AnswerAndClose(status, text) => (status, String::new(), text, true),
            Reply::Close => return,
            Reply::Silence => std::future::pending().await,
        };
        let length = text.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        if stream.write_all(format!("{head}{text}").as_bytes()).await.is_err()
            || stream.flush().await.is_err()
            || closes
        {
            return;
        }
    }
}
