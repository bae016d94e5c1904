//! One connection: handshake, then messages in and acknowledgements out, until the peer hangs up, breaks the protocol, or we end.
//!
//! ```text
//! socket ─ read_buf ─► buffer ─ FrameScanner ─► whole messages, split off without a copy ─ Intake::submit ─┐
//!    ▲                                                                                                       │
//!    └────────────────── the journal is durable to there ─ Acks (a bounded window) ◄── acknowledgements ─────┘
//! ```
//!
//! Reading and writing take turns in one task: a peer that does not take its acknowledgements is not read either, and closed after
//! [`PATIENCE`](super::PATIENCE). Nobody waits for an acknowledgement in order to read on, until the window is full. Messages whose
//! acknowledgement was not written, or was when the connection broke, are told to the intakes: they will come again.
//!
//! Memory: the buffer grows with what has arrived, never with what was announced, as far as there is [`room`](super::room), and is given back
//! when the connection rests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::acks::{Ack, Acks};
use super::handshake::{Handshake, PING_BYTES_MAX};
use super::room::Held;
use super::{Peer, Shared, Stream};
use crate::chunk::Chunk;
use crate::decode::{FrameErrorKind, FrameScanner, Limits};
use crate::process::Submitted;
use crate::source::listen::is_true;
use crate::source::{Intake as _, Intakes, now_ns};

/// Bytes asked for by one read: the first of a connection, and most. A read that is full doubles it, one that is nearly empty halves it.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 256 << 10;
/// The same while a connection rests.
const READ_BYTES_RESTING: usize = 1 << 10;

/// Docker writes one message a line. A connection that brings less than [`READ_BYTES_MIN`] at a time is read again after this
/// pause only: what gathers in the socket meanwhile makes one chunk and one block, instead of a wake-up of every stage for each line.
/// Well below what a socket's buffer holds even at 40 MB/s; a client that waits for acknowledgements is not kept waiting.
const GATHER_PAUSE: Duration = Duration::from_millis(5);

/// How long a connection is silent before it counts as resting. While it rests it is looked at again after twice as long each time:
/// ten thousand that never speak must not wake anybody five thousand times a second.
const REST_INTERVAL_MIN: Duration = Duration::from_secs(2);
const REST_INTERVAL_MAX: Duration = Duration::from_secs(64);

/// What a wait for bytes came to.
enum Arrival {
    Bytes,
    /// None, but acknowledgements are due.
    AckDue,
    /// The peer closed.
    End,
    /// Nothing for some seconds.
    Nothing,
    /// We are to end.
    Closing,
    /// Others need the room of this half message.
    GiveWay,
}

struct Connection<S> {
    stream: S,
    peer: Peer,
    /// What arrived and is not yet handed on.
    buffer: BytesMut,
    /// The room it takes.
    held: Held,
    read_bytes: usize,
    /// The last read brought little.
    is_trickle: bool,
    /// How long it may be silent before it is looked at.
    rest_interval: Duration,
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
        held: shared.room.enter(),
        read_bytes: READ_BYTES_RESTING,
        is_trickle: false,
        rest_interval: REST_INTERVAL_MIN,
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
    let mut acks = Acks::new(shared.intakes.durable());
    let mut is_sound = connection.messages(&shared, &limits, taken, &mut intake, &mut acks).await;
    is_sound = is_sound && connection.write_last(&shared, &mut acks).await;
    // What is held back for more pieces goes on now.
    let work = shared.activity.work();
    intake.finish().await;
    drop(work);
    if let Err(error) = timeout(patience, connection.stream.shutdown()).await.unwrap_or(Ok(())) {
        tracing::trace!(%peer, %error, "shutdown");
        is_sound = false;
    }
    acks.take_waiting().for_each(|ack| shared.intakes.unacknowledged(&ack.messages, ack.after));
    if !is_sound {
        // Written is not read: a peer that broke off may have missed these.
        shared.intakes.unacknowledged(&acks.take_on_the_way(), 0);
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
        let mut acks = Acks::new(shared.intakes.durable());
        let ping = loop {
            match scanner.scan_one(&self.buffer) {
                Ok(0) => {}
                Ok(bytes) => break self.buffer.split_to(bytes),
                Err(error) => {
                    tracing::warn!(%peer, %error, "connection closed: handshake failed");
                    return None;
                }
            }
            match self.arrival(0, &mut acks).await {
                Ok(Arrival::Bytes | Arrival::AckDue | Arrival::Nothing) => {}
                Ok(Arrival::End | Arrival::Closing | Arrival::GiveWay) | Err(_) => return None,
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

    /// Reads messages to the end; `taken` bytes of the connection were the handshake's. False if the connection is no good any more,
    /// not even for acknowledgements.
    async fn messages<I: Intakes>(
        &mut self,
        shared: &Shared<I>,
        limits: &Limits,
        taken: u64,
        intake: &mut I::Intake,
        acks: &mut Acks,
    ) -> bool {
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
                    tracing::warn!(%peer, offset, reason = %error.kind, "connection closed: broken frame");
                    return true;
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
                self.held.set_half(false);
                let (submitted, mut is_sound) = self.submit(shared, intake, chunk, acks).await;
                let broken = submitted.broken;
                let is_silent = submitted.replies.is_empty();
                acks.push(submitted);
                is_sound = is_sound && self.write_due(shared, acks).await;
                if let Some(error) = broken {
                    let offset = offset + error.offset;
                    tracing::warn!(%peer, offset, reason = %error.kind, "connection closed: broken frame");
                    return is_sound;
                }
                if !is_sound {
                    return false;
                }
                if self.is_trickle && is_silent && !acks.is_asked_for() {
                    tokio::time::sleep(GATHER_PAUSE).await;
                }
                // An error behind these messages shows now, not with the next bytes.
                continue;
            }
            let arrival = self.arrival(scanner.missing(self.buffer.len()), acks).await;
            let is_sound = arrival.is_ok();
            let ended = match arrival {
                Ok(Arrival::Bytes) => {
                    shared.activity.touch();
                    continue;
                }
                Ok(Arrival::AckDue) => {
                    if self.write_due(shared, acks).await {
                        continue;
                    }
                    "acknowledgements were not taken"
                }
                Ok(Arrival::Nothing) => {
                    self.rest();
                    intake.flush_partials(now_ns()).await;
                    continue;
                }
                Ok(Arrival::End) => "the peer closed",
                Ok(Arrival::Closing) => "the source ended",
                Ok(Arrival::GiveWay) => "too many others wait for their rest as well",
                Err(error) => {
                    tracing::debug!(%peer, %error, "connection lost");
                    "the connection was lost"
                }
            };
            self.end(ended, taken + scanner.offset(), intake);
            return is_sound;
        }
    }

    /// Takes a chunk in, once the window of acknowledgements has room; writes those that come due meanwhile, as the journal may
    /// be full for long. False if one could not be written.
    async fn submit<I: Intakes>(
        &mut self,
        shared: &Shared<I>,
        intake: &mut I::Intake,
        chunk: Chunk,
        acks: &mut Acks,
    ) -> (Submitted, bool) {
        let work = shared.activity.work();
        let mut is_sound = true;
        let mut closing = self.closing.clone();
        while is_sound && acks.is_full() {
            tokio::select! {
                () = acks.due() => is_sound = self.write_due(shared, acks).await,
                // What has been read is taken in all the same.
                () = is_true(&mut closing) => break,
            }
        }
        let mut submit = std::pin::pin!(intake.submit(chunk));
        let submitted = loop {
            tokio::select! {
                biased;
                submitted = &mut submit => break submitted,
                () = acks.due(), if is_sound => is_sound = self.write_due(shared, acks).await,
            }
        };
        drop(work);
        (submitted, is_sound)
    }

    /// Writes the acknowledgements that are due. False if the peer did not take them.
    async fn write_due<I: Intakes>(&mut self, shared: &Shared<I>, acks: &mut Acks) -> bool {
        let Some(due) = acks.take_due() else { return true };
        let Ack { after, bytes, messages } = &due;
        let is_sound = self.reply(bytes).await.is_ok();
        if is_sound {
            acks.wrote(&due);
            shared.intakes.acknowledged(messages);
        } else {
            shared.intakes.unacknowledged(messages, *after);
        }
        is_sound
    }

    /// Nothing more is read; writes the acknowledgements that come due in time. False if the peer did not take them.
    async fn write_last<I: Intakes>(&mut self, shared: &Shared<I>, acks: &mut Acks) -> bool {
        let deadline = tokio::time::Instant::now() + self.patience;
        while !acks.is_empty() {
            match timeout_at(deadline, acks.due()).await {
                Ok(()) => {
                    if !self.write_due(shared, acks).await {
                        return false;
                    }
                }
                Err(_) => {
                    tracing::warn!(peer = %self.peer, "connection closed: the journal is not durable in time to acknowledge");
                    break;
                }
            }
        }
        true
    }

    /// The stream is at its end: half a message is lost.
    fn end(&mut self, why: &str, offset: u64, intake: &impl crate::source::Intake) {
        if !self.buffer.is_empty() {
            intake.lose_frame(FrameErrorKind::CutOff);
            let bytes = self.buffer.len();
            tracing::warn!(peer = %self.peer, offset, bytes, "half a message dropped: {why}");
        }
    }

    /// Waits for bytes behind those in the buffer, of which at least `missing` are known to come, or for something else to do.
    async fn arrival(&mut self, missing: usize, acks: &mut Acks) -> io::Result<Arrival> {
        self.held.set_half(!self.buffer.is_empty());
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MIN && self.held.is_room_short() {
            self.rest();
        }
        // The buffer at most doubles, whatever was announced.
        let unread = self.buffer.len();
        let at_least = |read_bytes: usize| missing.clamp(read_bytes, unread.max(read_bytes));
        if !self.buffer.try_reclaim(at_least(self.read_bytes)) && !self.try_grow(at_least(self.read_bytes)) {
            // No room for comfort.
            self.read_bytes = READ_BYTES_MIN;
            let least = at_least(READ_BYTES_MIN);
            if !self.buffer.try_reclaim(least) && !self.try_grow(least) {
                tokio::select! {
                    biased;
                    () = acks.due() => return Ok(Arrival::AckDue),
                    () = is_true(&mut self.closing) => return Ok(Arrival::Closing),
                    () = self.held.give_way() => return Ok(Arrival::GiveWay),
                    () = self.held.grow(unread + least) => self.reallocate(unread + least),
                }
            }
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = tokio::select! {
            biased;
            () = acks.due() => return Ok(Arrival::AckDue),
            () = self.held.give_way() => return Ok(Arrival::GiveWay),
            read = self.stream.read_buf(&mut self.buffer) => read?,
            () = is_true(&mut self.closing) => return Ok(Arrival::Closing),
            () = tokio::time::sleep(self.rest_interval) => return Ok(Arrival::Nothing),
        };
        self.rest_interval = REST_INTERVAL_MIN;
        self.is_trickle = read < READ_BYTES_MIN;
        if read == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(if read == 0 { Arrival::End } else { Arrival::Bytes })
    }

    /// A larger buffer, with that room behind what is in it; if there is room for it.
    fn try_grow(&mut self, room: usize) -> bool {
        let bytes = self.buffer.len() + room;
        let is_taken = self.held.try_grow(bytes);
        if is_taken {
            self.reallocate(bytes);
        }
        is_taken
    }

    fn reallocate(&mut self, bytes: usize) {
        let mut buffer = BytesMut::with_capacity(bytes);
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
        self.held.shrink(bytes);
    }

    /// Gives back what a busy time left.
    fn rest(&mut self) {
        self.read_bytes = READ_BYTES_RESTING;
        self.rest_interval = (self.rest_interval * 2).min(REST_INTERVAL_MAX);
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_RESTING {
            self.buffer = BytesMut::new();
            self.held.shrink(0);
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
mod tests;
