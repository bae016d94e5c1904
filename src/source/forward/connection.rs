//! One connection: handshake, then messages in and acknowledgements out, until the peer hangs up, breaks the protocol, or we end.
//!
//! ```text
//! socket ─ read_buf ─► buffer ─ FrameScanner ─► whole messages, split off without a copy ─ Intake::submit ─► replies ─► socket
//! ```
//!
//! Reading and writing take turns in one task: a peer that does not take its acknowledgements is not read either, and closed after
//! [`PATIENCE`](super::PATIENCE). Memory: the buffer grows with what has arrived, never with what was announced, and is given back when the connection rests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::handshake::{Handshake, PING_BYTES_MAX};
use super::{Peer, Shared, Stream, is_true};
use crate::chunk::Chunk;
use crate::decode::{FrameErrorKind, FrameScanner, Limits};
use crate::source::{Intake as _, Intakes, now_ns};

/// Bytes asked for by one read: the first of a connection, and most. A read that is full doubles it, one that is nearly empty halves it.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// Docker writes one message a line. A connection that brings less than [`READ_BYTES_MIN`] at a time is read again after this
/// pause only: what gathers in the socket meanwhile makes one chunk and one block, instead of a wake-up of every stage for each line.
/// Well below what a socket's buffer holds even at 40 MB/s; a client that waits for acknowledgements is not kept waiting.
const GATHER_PAUSE: Duration = Duration::from_millis(5);

/// How long a connection is silent before it counts as resting.
const REST_INTERVAL: Duration = Duration::from_secs(2);

/// What a wait for bytes came to.
enum Arrival {
    Bytes,
    /// The peer closed.
    End,
    /// Nothing for [`REST_INTERVAL`].
    Nothing,
    /// We are to end.
    Closing,
}

struct Connection<S> {
    stream: S,
    peer: Peer,
    /// What arrived and is not yet handed on.
    buffer: BytesMut,
    read_bytes: usize,
    /// The last read brought little.
    is_trickle: bool,
    closing: watch::Receiver<bool>,
    patience: Duration,
}

/// Serves one peer until either side ends.
pub(super) async fn serve<S: Stream, I: Intakes>(stream: S, peer: Peer, shared: Arc<Shared<I>>) {
    let closing = shared.closing.clone();
    let patience = shared.patience;
    let mut connection = Connection {
        stream,
        peer,
        buffer: BytesMut::new(),
        read_bytes: READ_BYTES_MIN,
        is_trickle: false,
        closing,
        patience,
    };
    shared.activity.touch();
    tracing::debug!(%peer, "connected");
    let limits = shared.config.limits();
    let taken = if shared.config.shared_key.is_some() {
        match timeout(patience, connection.handshake(&shared)).await {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            Err(_) => return tracing::warn!(%peer, "connection closed: no handshake in time"),
        }
    } else {
        0
    };
    let mut intake = shared.intakes.intake();
    connection.messages(&shared, &limits, taken, &mut intake).await;
    // What is held back for more pieces goes on now.
    let work = shared.activity.work();
    intake.finish().await;
    drop(work);
    if let Err(error) = timeout(patience, connection.stream.shutdown()).await.unwrap_or(Ok(())) {
        tracing::trace!(%peer, %error, "shutdown");
    }
    tracing::debug!(%peer, "closed");
}

impl<S: Stream> Connection<S> {
    /// Lets the client in, or not. Returns how many bytes it took.
    async fn handshake<I: Intakes>(&mut self, shared: &Shared<I>) -> Option<u64> {
        let peer = self.peer;
        let handshake = Handshake::new(&shared.config)?;
        self.reply(&handshake.helo()).await.ok()?;
        let mut scanner = FrameScanner::new(&Limits { frame_bytes_max: PING_BYTES_MAX, ..Limits::default() });
        let ping = loop {
            match scanner.scan_one(&self.buffer) {
                Ok(0) => {}
                Ok(bytes) => break self.buffer.split_to(bytes),
                Err(error) => {
                    tracing::warn!(%peer, %error, "connection closed: handshake failed");
                    return None;
                }
            }
            match self.arrival(0).await {
                Ok(Arrival::Bytes | Arrival::Nothing) => {}
                Ok(Arrival::End | Arrival::Closing) | Err(_) => return None,
            }
        };
        let (pong, verdict) = handshake.answer(&ping);
        let replied = self.reply(&pong).await;
        if let Err(refusal) = verdict {
            tracing::warn!(%peer, reason = %refusal, "connection closed: handshake failed");
            // Only what was asked for is answered: the client may read why before the reset.
            self.stream.shutdown().await.ok()?;
            return None;
        }
        replied.ok()?;
        Some(ping.len() as u64)
    }

    /// Reads messages to the end; `taken` bytes of the connection were the handshake's.
    async fn messages<I: Intakes>(&mut self, shared: &Shared<I>, limits: &Limits, taken: u64, intake: &mut I::Intake) {
        let peer = self.peer;
        let mut scanner = FrameScanner::new(limits);
        // The messages say their tags.
        let tag: Arc<str> = Arc::from("");
        loop {
            let whole = match scanner.scan(&self.buffer) {
                Ok(whole) => whole,
                Err(error) => {
                    intake.lose_frame(error.kind);
                    let offset = taken + error.offset;
                    return tracing::warn!(%peer, offset, reason = %error.kind, "connection closed: broken frame");
                }
            };
            if whole > 0 {
                let offset = taken + scanner.offset();
                scanner.consumed(whole);
                let bytes = self.buffer.split_to(whole).freeze();
                let chunk = Chunk {
                    source: shared.intakes.source(),
                    tag: tag.clone(),
                    bytes,
                    encoding: scanner.encoding(),
                    received_ns: now_ns(),
                    position: None,
                };
                let work = shared.activity.work();
                let submitted = intake.submit(chunk).await;
                drop(work);
                let replied = self.reply(&submitted.replies).await;
                if let Some(error) = submitted.broken {
                    let offset = offset + error.offset;
                    return tracing::warn!(%peer, offset, reason = %error.kind, "connection closed: broken frame");
                }
                if replied.is_err() {
                    return;
                }
                if self.is_trickle && submitted.replies.is_empty() {
                    tokio::time::sleep(GATHER_PAUSE).await;
                }
                // An error behind these messages shows now, not with the next bytes.
                continue;
            }
            let ended = match self.arrival(scanner.missing(self.buffer.len())).await {
                Ok(Arrival::Bytes) => {
                    shared.activity.touch();
                    continue;
                }
                Ok(Arrival::Nothing) => {
                    self.rest();
                    intake.flush_partials(now_ns()).await;
                    continue;
                }
                Ok(Arrival::End) => "the peer closed",
                Ok(Arrival::Closing) => "the source ended",
                Err(error) => {
                    tracing::debug!(%peer, %error, "connection lost");
                    "the connection was lost"
                }
            };
            return self.end(ended, taken + scanner.offset(), intake);
        }
    }

    /// The stream is at its end: half a message is lost.
    fn end(&mut self, why: &str, offset: u64, intake: &impl crate::source::Intake) {
        if !self.buffer.is_empty() {
            intake.lose_frame(FrameErrorKind::CutOff);
            let bytes = self.buffer.len();
            tracing::warn!(peer = %self.peer, offset, bytes, "half a message dropped: {why}");
        }
    }

    /// Waits for bytes behind those in the buffer; `missing` of them at least are known to come.
    async fn arrival(&mut self, missing: usize) -> io::Result<Arrival> {
        // The buffer at most doubles, whatever was announced.
        let room = missing.clamp(self.read_bytes, self.buffer.len().max(self.read_bytes));
        self.buffer.reserve(room);
        let room = self.buffer.capacity() - self.buffer.len();
        let read = tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.buffer) => read?,
            () = is_true(&mut self.closing) => return Ok(Arrival::Closing),
            () = tokio::time::sleep(REST_INTERVAL) => return Ok(Arrival::Nothing),
        };
        self.is_trickle = read < READ_BYTES_MIN;
        if read == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(if read == 0 { Arrival::End } else { Arrival::Bytes })
    }

    /// Gives back what a busy time left.
    fn rest(&mut self) {
        self.read_bytes = READ_BYTES_MIN;
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MIN {
            self.buffer = BytesMut::new();
        }
    }

    /// Sends a reply; a peer that does not take it in time is given up.
    async fn reply(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = timeout(self.patience, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        let sent = sent.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.inspect_err(|error| tracing::warn!(peer = %self.peer, %error, "connection closed: reply not taken"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::io::{DuplexStream, duplex};

    use super::super::{Activity, Config};
    use super::*;
    use crate::chunk::SourceId;
    use crate::journal::Durable;
    use crate::process::Submitted;
    use crate::source::Intake;

    const MESSAGE: &[u8] = b"\x93\xa1t\x01\x80";

    /// Answers each chunk with a long reply, and counts.
    #[derive(Clone, Default)]
    struct Replying {
        chunks: Arc<AtomicUsize>,
        finished: Arc<AtomicUsize>,
    }

    impl Intakes for Replying {
        type Intake = Self;

        fn intake(&self) -> Self {
            self.clone()
        }

        fn durable(&self) -> Durable {
            Durable::at_once()
        }

        fn source(&self) -> SourceId {
            0
        }
    }

    impl Intake for Replying {
        async fn submit(&mut self, _chunk: Chunk) -> Submitted {
            self.chunks.fetch_add(1, Relaxed);
            Submitted { replies: vec![b'r'; 100], ..Submitted::default() }
        }

        async fn finish(&mut self) {
            self.finished.fetch_add(1, Relaxed);
        }

        async fn flush_partials(&mut self, _now_ns: i64) {}

        fn lose_frame(&self, kind: FrameErrorKind) {
            panic!("{kind}");
        }

        fn truncate(&self, _records: u64) {}
    }

    fn shared(intakes: Replying, closing: watch::Receiver<bool>) -> Arc<Shared<Replying>> {
        let patience = Duration::from_millis(50);
        Arc::new(Shared { config: Config::default(), intakes, activity: Activity::new(), closing, patience })
    }

    async fn write_until_refused(client: &mut DuplexStream) {
        while client.write_all(MESSAGE).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_replies_is_given_up() {
        let intakes = Replying::default();
        let (_close, closing) = watch::channel(false);
        let (mut client, server) = duplex(256);
        let served = tokio::spawn(serve(server, Peer::Unix(1), shared(intakes.clone(), closing)));
        timeout(Duration::from_secs(30), write_until_refused(&mut client)).await.unwrap();
        served.await.unwrap();
        assert!(intakes.chunks.load(Relaxed) >= 3, "256 bytes hold two replies of 100");
        assert_eq!(intakes.finished.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_silent_peer_is_let_go_when_the_source_ends() {
        let intakes = Replying::default();
        let (close, closing) = watch::channel(false);
        let (mut client, server) = duplex(256);
        let served = tokio::spawn(serve(server, Peer::Unix(1), shared(intakes.clone(), closing)));
        client.write_all(MESSAGE).await.unwrap();
        client.read_exact(&mut [0; 100]).await.unwrap();
        close.send(true).unwrap();
        served.await.unwrap();
        assert_eq!(client.read(&mut [0; 100]).await.unwrap(), 0);
        assert_eq!((intakes.chunks.load(Relaxed), intakes.finished.load(Relaxed)), (1, 1));
    }
}
