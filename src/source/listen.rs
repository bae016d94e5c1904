//! What every source that listens needs: a TCP socket, connections accepted, and how quiet it has become.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::BindError;

/// How often a drain looks whether it is over. Long enough for what is in the accept queue to be accepted.
pub(super) const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Pause after a failed accept (out of file descriptors), so as not to spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn bind_tcp(address: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let listen = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| BindError::Bind { what: format!("tcp {address}"), source })
}

/// When something last arrived, and who is still at work on it.
pub(super) struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    at_work: AtomicUsize,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0), at_work: AtomicUsize::new(0) }
    }

    /// Something arrived; called once a read.
    pub(super) fn touch(&self) {
        self.last_ms.fetch_max(self.start.elapsed().as_millis() as u64, Relaxed);
    }

    /// While the guard lives, nobody is quiet: a chunk waits for room, so what comes after it is not read.
    pub(super) fn work(&self) -> Work<'_> {
        self.at_work.fetch_add(1, Relaxed);
        Work(self)
    }

    pub(super) fn is_quiet_for(&self, quiet: Duration) -> bool {
        let since = self.start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Relaxed)));
        self.at_work.load(Relaxed) == 0 && since >= quiet
    }
}

/// See [`Activity::work`].
pub(super) struct Work<'a>(&'a Activity);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.touch();
        self.0.at_work.fetch_sub(1, Relaxed);
    }
}

/// Waits until a flag turns true; a sender that is gone will not turn it any more.
pub(super) async fn is_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|&is_true| is_true).await.is_err() {
        pending::<()>().await;
    }
}

pub(super) fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked");
    }
}

pub(super) async fn accept_tcp(listener: Option<&TcpListener>) -> Option<(tokio::net::TcpStream, SocketAddr)> {
    let Some(listener) = listener else { return pending().await };
    accepted(listener.accept().await).await
}

pub(super) async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
