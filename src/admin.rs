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
//! Beside them, on an address of their own, what Fluent Bit answers there ([`fluent_bit`]).
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
use std::future::pending;
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

pub mod fluent_bit;
pub mod metrics;
pub mod reading;
pub mod status;

pub use reading::{Kinds, Phase, View};

use fluent_bit::{Checks, Health, LOOK_INTERVAL, Said};
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
    /// Where to answer as Fluent Bit does; none = nowhere.
    pub fluent_bit_listen: Option<SocketAddr>,
    /// When Fluent Bit's health fails; none = never.
    pub fluent_bit_health: Option<Health>,
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

/// Sockets to serve.
#[derive(Debug)]
pub struct Bound {
    own: Option<TcpListener>,
    fluent_bit: Option<(TcpListener, Checks)>,
}

/// Binds the sockets.
///
/// # Errors
/// The address of our own endpoints was asked for, and cannot be had. Not to get Fluent Bit's is worth a warning: logs matter more.
pub fn bind(config: &Config) -> io::Result<Bound> {
    let own = match config.listen.map(|listen| (listen, listener(listen.address))) {
        None => None,
        Some((listen, Ok(listener))) => {
            tracing::info!(address = %listener.local_addr().unwrap_or(listen.address), "admin endpoints listen");
            Some(listener)
        }
        Some((listen, Err(error))) if listen.is_asked => return Err(error),
        Some((listen, Err(error))) => {
            tracing::warn!(address = %listen.address, %error, "no admin endpoints: their default address is not free");
            None
        }
    };
    let fluent_bit = match config.fluent_bit_listen.map(|address| (address, listener(address))) {
        None => None,
        Some((address, Ok(listener))) => {
            tracing::info!(address = %listener.local_addr().unwrap_or(address), "Fluent Bit's endpoints listen");
            Some((listener, Checks::new(config.fluent_bit_health)))
        }
        Some((address, Err(error))) => {
            tracing::warn!(%address, %error, "Fluent Bit's endpoints do not answer: cannot bind admin.fluent_bit_listen");
            None
        }
    };
    Ok(Bound { own, fluent_bit })
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Ends serving when dropped.
#[derive(Debug)]
pub struct Server {
    _end: oneshot::Sender<Infallible>,
}

/// Serves on a thread of its own, until the [`Server`] is dropped; none if there is nothing to serve.
///
/// # Errors
/// There is no thread to be had.
pub fn serve(bound: Bound, view: Arc<View>) -> io::Result<Option<Server>> {
    if bound.own.is_none() && bound.fluent_bit.is_none() {
        return Ok(None);
    }
    let (end, mut ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = async move {
        let (fluent_bit, checks) = bound.fluent_bit.unzip();
        let checks = Arc::new(checks.unwrap_or_else(|| Checks::new(None)));
        tokio::select! {
            // No value is ever sent: it ends because the sender is gone.
            _ = &mut ended => Ok(()),
            result = accept(bound.own, Surface::Own, view.clone()) => result,
            result = accept(fluent_bit, Surface::FluentBit(checks.clone()), view.clone()) => result,
            () = look(&checks, &view) => Ok(()),
        }
    };
    std::thread::Builder::new().name(ADMIN_THREAD.into()).spawn(move || {
        if let Err(error) = runtime.block_on(all) {
            tracing::error!(%error, "admin endpoints are gone");
        }
    })?;
    Ok(Some(Server { _end: end }))
}

/// Which endpoints an address has.
#[derive(Clone)]
enum Surface {
    Own,
    FluentBit(Arc<Checks>),
}

async fn look(checks: &Checks, view: &View) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        checks.look(view);
    }
}

async fn accept(listener: Option<TcpListener>, surface: Surface, view: Arc<View>) -> io::Result<()> {
    let Some(listener) = listener else { return pending().await };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
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
        connections.push_back(tokio::spawn(connection(stream, surface.clone(), view.clone())).abort_handle());
    }
}

/// One request, or none in time. Whatever goes wrong with it is the peer's affair.
async fn connection(stream: TcpStream, surface: Surface, view: Arc<View>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(&surface, &view, request.method(), request.uri().path());
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

fn answer(surface: &Surface, view: &View, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Surface::FluentBit(checks) = surface {
        return match fluent_bit::answer(view, checks, path) {
            Some(Said::Json(json)) => respond(StatusCode::OK, JSON, json.to_string()),
            Some(Said::Text(text)) => respond(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Some(Said::Healthy(true)) => respond(StatusCode::OK, TEXT, "ok\n".to_owned()),
            Some(Said::Healthy(false)) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "error\n".to_owned()),
            None => respond(StatusCode::NOT_FOUND, TEXT, String::new()),
        };
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
        let status = |path: &str| answer(&Surface::Own, &view, &Method::GET, path).status().as_u16();
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
        let refused = answer(&Surface::Own, &view, &Method::POST, "/metrics");
        assert_eq!((refused.status().as_u16(), refused.headers()[ALLOW].as_bytes()), (405, &b"GET, HEAD"[..]));
    }
}
