//! The admin endpoints: the account and the state of the process over HTTP, for Prometheus, for health checks, for people.
//!
//! ```text
//! GET /metrics   Prometheus text format 0.0.4
//! GET /status    the same facts as JSON
//! GET /livez     200 while the process answers
//! GET /readyz    200 while records are taken; 503 at the start and once draining
//! GET /healthz   200, with the state of each sink; 503 only if `admin.unhealthy_after` is set and a record waits longer
//! ```
//!
//! They read and change nothing, and cannot stand in the way of the records: one thread of its own with a runtime of its own, so
//! that a flood of requests gets the share of one thread; at most [`CONNECTIONS_MAX`] connections, of which the oldest makes
//! room for a new one, so that peers which say nothing keep nobody out; one request a connection, over within
//! [`CONNECTION_TIME_MAX`]; heads of at most [`HEAD_BYTES_MAX`]. What fails here is said and ends nothing else.
//!
//! Each answer is made from one [`Reading`], in which `received = delivered + filtered + rejected + dropped + pending` holds for
//! every source and sink. Cost: some tens of microseconds an answer, one short lock of the journal; nothing while nobody asks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::telemetry::ADMIN_THREAD;

pub mod metrics;
pub mod reading;
pub mod status;

pub use reading::{Kinds, Phase, View};

use reading::Reading;

/// The port where nothing else is said; next to Fluent Forward's, and the one of fluentd's own monitor.
pub const PORT: u16 = 24220;
/// The address where nothing else is said.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// From accepting a connection to its end.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and of what is read at once.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/` answers.
const INDEX: &str = "/metrics\n/status\n/livez\n/readyz\n/healthz\n";

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// Where to listen; none = nowhere.
    pub listen: Option<Listen>,
    /// `/healthz` fails when a sink's oldest record waits for longer than this; none = it never fails.
    pub unhealthy_after: Option<Duration>,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// The user wrote it: not to get it ends the start. Not to get the default is worth a warning.
    pub is_asked: bool,
}

/// The address in a text: `127.0.0.1:24220`, `[::1]:24220`, `localhost:24220`; a port alone, `:24220` or `24220`, is on 127.0.0.1.
pub fn address(text: &str) -> Option<SocketAddr> {
    let port = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).unwrap_or(text);
    // `u16::from_str` takes a sign.
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_port { Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()) } else { text.parse().ok() }
}

/// Binds the socket.
///
/// # Errors
/// The address was asked for, and cannot be had.
pub fn bind(config: &Config) -> io::Result<Option<TcpListener>> {
    let Some(listen) = config.listen else { return Ok(None) };
    let bound = TcpListener::bind(listen.address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        tracing::info!(address = %listener.local_addr()?, "admin endpoints listen");
        Ok(listener)
    });
    match bound {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if listen.is_asked => Err(error),
        Err(error) => {
            tracing::warn!(address = %listen.address, %error, "no admin endpoints: their default address is not free");
            Ok(None)
        }
    }
}

/// Ends serving when dropped.
#[derive(Debug)]
pub struct Server {
    _end: oneshot::Sender<Infallible>,
}

/// Serves on a thread of its own, until the [`Server`] is dropped.
///
/// # Errors
/// There is no thread to be had.
pub fn serve(listener: TcpListener, view: Arc<View>) -> io::Result<Server> {
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(ADMIN_THREAD.into()).spawn(move || {
        if let Err(error) = runtime.block_on(accept(listener, view, ended)) {
            tracing::error!(%error, "admin endpoints are gone");
        }
    })?;
    Ok(Server { _end: end })
}

async fn accept(listener: TcpListener, view: Arc<View>, mut ended: oneshot::Receiver<Infallible>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            // No value is ever sent: it ends because the sender is gone.
            _ = &mut ended => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin endpoints cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        connections.push_back(tokio::spawn(connection(stream, view.clone())).abort_handle());
    }
}

/// One request, or none in time. Whatever goes wrong with it is the peer's affair.
async fn connection(stream: TcpStream, view: Arc<View>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(&view, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIME_MAX, served).await {
        tracing::debug!(%error, "admin connection");
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn answer(view: &View, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let with = |is_well: bool| if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match path {
        "/" => respond(StatusCode::OK, TEXT, INDEX.to_owned()),
        "/metrics" => respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&Reading::of(view))),
        "/status" => respond(StatusCode::OK, JSON, status::status(&Reading::of(view))),
        "/livez" => respond(StatusCode::OK, JSON, status::live(view)),
        "/readyz" => respond(with(view.phase().is_ready()), JSON, status::ready(view)),
        "/healthz" => {
            let reading = Reading::of(view);
            respond(with(reading.is_healthy()), JSON, status::health(&reading))
        }
        _ => respond(StatusCode::NOT_FOUND, TEXT, format!("not here; there are:\n{INDEX}")),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_this_host() {
        for text in ["24220", ":24220", "localhost:24220", "127.0.0.1:24220"] {
            assert_eq!(address(text), Some(ADDRESS), "{text}");
        }
        assert_eq!(address("[::]:1"), "[::]:1".parse().ok());
        assert_eq!(address("0.0.0.0:0"), "0.0.0.0:0".parse().ok());
        for text in ["", ":", "host:1", "65536", "+1", "1.2.3.4", "localhost:", "::1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn readiness_follows_the_phase_and_health_does_not() {
        let view = View::for_tests();
        let status = |path: &str| answer(&view, &Method::GET, path).status().as_u16();
        let mut seen = Vec::new();
        for phase in [Phase::Starting, Phase::Running, Phase::Draining] {
            view.enter(phase);
            seen.push(["/livez", "/readyz", "/healthz", "/metrics", "/status", "/", "/nothing"].map(status));
        }
        assert_eq!(
            seen,
            [
                [200, 503, 200, 200, 200, 200, 404],
                [200, 200, 200, 200, 200, 200, 404],
                [200, 503, 200, 200, 200, 200, 404]
            ]
        );
        let refused = answer(&view, &Method::POST, "/metrics");
        assert_eq!((refused.status().as_u16(), refused.headers()[ALLOW].as_bytes()), (405, &b"GET, HEAD"[..]));
    }
}
