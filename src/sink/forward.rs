//! The forward sink: records to another log router (fluentd, Fluent Bit, meshlens) in the Fluentd Forward protocol.
//!
//! ```text
//! [tag, bin of ([EventTime, record])*, {"size": n, "chunk": id, "compressed": "gzip"}]   ─►   {"ack": id}
//! ```
//!
//! A message holds records of one tag, written as MessagePack from their JSON lines. With `require_ack_response` (the default)
//! it is delivered when the peer has acknowledged it: at least once, since a message whose acknowledgement is lost is sent
//! again, with the same id, by which the peer may know it. Without, it is delivered when the system has taken it, and what a
//! peer that dies had not read is lost unseen.
//!
//! Connections are opened when needed and kept. Names are resolved anew for each. Cost: one pass over the bytes, one copy.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::redact::Secret;
use crate::telemetry::account::Reason;

use super::dead_letters::DeadLetters;
use super::driver::{self, Outcome};
use super::retry::{Retrier, Turn};
use super::template::Template;
use super::{Context, Error, retry};

mod batch;
mod connection;
mod pack;

use batch::{Batch, Open};
use connection::Connection;

/// Bytes of lines in a message unless configured otherwise.
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// Where the peer listens.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// Host, name or address, and port.
    Tcp(String, u16),
    /// Path of a unix socket.
    Unix(PathBuf),
}

/// A forward sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The peer.
    pub address: Address,
    /// The tag that records are sent with.
    pub tag: Template,
    /// The key of the handshake; none = no handshake.
    pub shared_key: Option<Secret>,
    /// Our name in the handshake; none = the host's.
    pub self_hostname: Option<String>,
    /// User name and password, if the peer asks for them.
    pub user: Option<(String, Secret)>,
    /// Whether the peer has to acknowledge what it has taken.
    pub requires_ack: bool,
    /// Send times in whole seconds, for peers that know no other.
    pub time_as_integer: bool,
    /// Whether records are compressed.
    pub is_gzip: bool,
    /// An open batch is sent after this time.
    pub batch_timeout: Duration,
    /// Bytes of lines in a message. A single larger record goes alone.
    pub batch_bytes_max: usize,
    /// Connections at once.
    pub concurrency: usize,
    /// Retries.
    pub retry: retry::Config,
}

/// Reads the journal to its end and delivers.
pub async fn run(config: Config, ctx: Context) -> Result<(), Error> {
    let retrier = Retrier::new(ctx.name.clone(), config.retry.clone(), config.concurrency, ctx.deadline.clone());
    let batches = Open::new(&config, &ctx);
    let hostname = config.self_hostname.clone().unwrap_or_else(|| ctx.hostname.to_string());
    let sender = Arc::new(Sender {
        config,
        hostname,
        retrier: retrier.clone(),
        dead_letters: ctx.dead_letters.clone(),
        idle: Mutex::default(),
    });
    let prepare = std::future::ready(());
    driver::run(ctx, retrier, prepare, batches, move |batch, turn| deliver(sender.clone(), batch, turn)).await;
    Ok(())
}

struct Sender {
    config: Config,
    hostname: String,
    retrier: Retrier,
    dead_letters: DeadLetters,
    /// Connections without a message on its way.
    idle: Mutex<Vec<Connection>>,
}

impl Sender {
    /// Sends a message over an idle connection or a new one; one that failed is not used again.
    async fn send(&self, message: &pack::Message) -> Result<(), super::aws::Failure> {
        let idle = self.idle().pop().filter(Connection::is_alive);
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.config, &self.hostname).await?,
        };
        connection.send(message, self.config.requires_ack).await?;
        self.idle().push(connection);
        Ok(())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends one batch until it is taken, given up, or the process ends.
async fn deliver(sender: Arc<Sender>, batch: Batch, mut turn: Turn) -> Outcome {
    let records = batch.records() as u64;
    let message = pack::message(&batch, &sender.config);
    loop {
        let Err(failure) = turn.attempt(sender.send(&message)).await else {
            return Outcome::delivered(records, 0);
        };
        let Err(end) = turn.pause(&failure).await else { continue };
        let Some(reason) = driver::reason_of(end) else { return Outcome::unsaid() };
        debug_assert_ne!(reason, Reason::Refused, "a peer refuses connections, not records");
        batch.bury(&mut sender.dead_letters.letters(reason));
        sender.retrier.report_loss(reason, records, &failure);
        let mut outcome = Outcome::default();
        outcome.lose(reason, records);
        return outcome;
    }
}

#[cfg(test)]
mod tests;
