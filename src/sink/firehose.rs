//! The Amazon Data Firehose sink: `PutRecordBatch`.
//!
//! Lines are joined into Firehose records, in order of arrival, each ended by its newline: Firehose bills a record rounded up to
//! the next 5 KB, so records of 64 KiB waste 4 % at most where single lines of 500 bytes would cost ten times their size.
//! Entries that the service failed are sent again, those alone and with the same bytes. At least once: a request whose answer is
//! lost is sent again.
//!
//! Limits after the API reference of `PutRecordBatch` (November 2026): 500 records, 4 MiB, 1,000 KiB a record before base64.
//! Cost: base64 straight from the blocks into the request body; one copy more where a record spans blocks or leaves lines out.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_firehose::Client;
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::{PutRecordBatchResponseEntry, Record};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};

use crate::enrich::ecs::Metadata;

use super::aws::{Failure, Kind};
use super::driver::{self, Outcome};
use super::retry::{End, Retrier, Turn};
use super::{Context, Error, Oversize, aws, retry};

mod batch;
mod body;

use batch::{Batch, Open};
use body::Body;

/// Greatest size of one Firehose record before base64.
pub const RECORD_BYTES_MAX: usize = 1_024_000;

/// Greatest number of records in a request.
pub const BATCH_RECORDS_MAX: usize = 500;

/// Greatest size of a request. The service's documentation leaves open whether it counts the data before or after base64;
/// we count the body as it is sent, which is within the limit either way.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The default size of a record: large against Firehose's rounding to 5 KB, small against what one failed entry sends again.
const RECORD_BYTES_DEFAULT: usize = 64 << 10;

/// A Firehose sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Delivery stream name.
    pub stream: String,
    /// Join lines into Firehose records up to this many bytes; 0 = one line a record. At most 1,024,000.
    /// A longer line is a record by itself.
    pub record_bytes_max: usize,
    /// An open batch is sent after this time.
    pub batch_timeout: Duration,
    /// Records in a request, at most 500.
    pub batch_records_max: usize,
    /// Bytes in a request as it is sent, base64 and its JSON included, at most 4 MiB. A single larger record goes alone.
    pub batch_bytes_max: usize,
    /// Lines larger than the service takes. Truncation cuts the text of the JSON object at a character boundary and keeps the
    /// newline: what is left is a prefix and no longer an object.
    pub oversize: Oversize,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Retries.
    pub retry: retry::Config,
    /// The client.
    pub aws: aws::Config,
}

impl Config {
    /// With the defaults: records of 64 KiB, requests of 3 MB no older than a second, 4 at once.
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            record_bytes_max: RECORD_BYTES_DEFAULT,
            batch_timeout: Duration::from_secs(1),
            batch_records_max: BATCH_RECORDS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            oversize: Oversize::default(),
            concurrency: 4,
            retry: retry::Config::default(),
            aws: aws::Config::default(),
        }
    }
}

/// Reads the journal to its end and delivers.
pub async fn run(config: Config, ctx: Context) -> Result<(), Error> {
    let retrier = Retrier::new(ctx.name.clone(), config.retry.clone(), config.concurrency, ctx.deadline.clone());
    let batches = Open::new(&config, ctx.id);
    let sender =
        Arc::new(Sender { config, retrier: retrier.clone(), metadata: ctx.metadata.clone(), client: OnceCell::new() });
    let prepare = std::future::ready(());
    driver::run(ctx, retrier, prepare, batches, move |batch, turn| deliver(sender.clone(), batch, turn)).await;
    Ok(())
}

struct Sender {
    config: Config,
    retrier: Retrier,
    metadata: watch::Receiver<Arc<Metadata>>,
    /// Built by the first batch that needs it.
    client: OnceCell<Client>,
}

/// Sends one batch until every record has a verdict, or the process ends.
async fn deliver(sender: Arc<Sender>, batch: Batch, mut turn: Turn) -> Outcome {
    let client = sender.client.get_or_try_init(|| aws::firehose(&sender.config.aws, &sender.retrier, &sender.metadata));
    let Ok(client) = client.await else { return Outcome { unfinished: true, ..Outcome::default() } };
    let mut rest = Rest::new(body::frame(&sender.config.stream, &batch), &batch);
    drop(batch);
    loop {
        let sent = put(client, &sender.config.stream, rest.body.bytes.clone());
        let attempt = turn.attempt(async { rest.sort_out(sent.await?, &sender.retrier) }).await;
        let Err(failure) = attempt else { return rest.outcome };
        if let Err(end) = turn.pause(&failure).await {
            let lines = rest.lines();
            rest.outcome.lose(end, lines, &sender.retrier, &failure);
            return rest.outcome;
        }
    }
}

/// Sends a finished body: the SDK addresses, signs and sends it, and reads the answer.
async fn put(client: &Client, stream: &str, body: Bytes) -> Result<Answer, Failure> {
    // The SDK wants a record; what is sent is the body.
    let placeholder =
        Record::builder().data(Blob::new(Vec::new())).build().map_err(|error| Failure::setup(error.to_string()))?;
    let request =
        client.put_record_batch().delivery_stream_name(stream).records(placeholder).customize().mutate_request(
            move |request| {
                // Before signing, so the signature is over these bytes.
                request.headers_mut().insert("content-length", body.len().to_string());
                *request.body_mut() = SdkBody::from(body.clone());
            },
        );
    // Boxed: the SDK's future is several kilobytes.
    let answer = Box::pin(request.send()).await?;
    Ok(Answer { failed: answer.failed_put_count, entries: answer.request_responses })
}

/// What the service says of a request, entry by entry.
struct Answer {
    failed: i32,
    entries: Vec<PutRecordBatchResponseEntry>,
}

/// What of a batch is still to be sent, and what became of the other part.
struct Rest {
    body: Body,
    /// Lines in each entry of the body.
    lines: Vec<u32>,
    /// Of them, how many were cut.
    truncated: Vec<u32>,
    outcome: Outcome,
}

impl Rest {
    fn new(body: Body, batch: &Batch) -> Self {
        let lines = batch.records.iter().map(|record| record.lines).collect();
        let truncated = batch.records.iter().map(|record| record.truncated).collect();
        Self { body, lines, truncated, outcome: Outcome::default() }
    }

    fn lines(&self) -> u64 {
        self.lines.iter().copied().map(u64::from).sum()
    }

    /// Counts what was taken and what never will be, and keeps the rest: an error then, which says how to go on with it.
    fn sort_out(&mut self, answer: Answer, retrier: &Retrier) -> Result<(), Failure> {
        let mut again = vec![false; self.body.len()];
        let mut cause: Option<Failure> = None;
        let mut refused: Option<(Failure, u64)> = None;
        for (place, again) in again.iter_mut().enumerate() {
            let lines = u64::from(self.lines[place]);
            match verdict(&answer, place) {
                None => {
                    self.outcome.delivered += lines;
                    self.outcome.truncated += u64::from(self.truncated[place]);
                }
                Some(failure) if failure.is_retryable() => {
                    *again = true;
                    // One throttled entry is reason enough to slow down.
                    if cause.is_none() || failure.kind == Kind::Throttled {
                        cause = Some(failure);
                    }
                }
                Some(failure) => {
                    let before = refused.map_or(0, |(_, lines)| lines);
                    refused = Some((failure, before + lines));
                }
            }
        }
        if let Some((failure, lines)) = refused {
            self.outcome.lose(End::Refused, lines, retrier, &failure);
        }
        let Some(mut cause) = cause else {
            self.lines.clear();
            return Ok(());
        };
        let (sent, kept) = (again.len(), again.iter().filter(|again| **again).count());
        if kept < sent {
            self.body = self.body.retain(|place| again[place]);
            keep(&mut self.lines, &again);
            keep(&mut self.truncated, &again);
        }
        cause.detail = format!("{kept} of {sent} entries failed").into();
        Err(cause)
    }
}

/// What the service says of an entry: none = taken. A verdict it does not give counts as not taken.
fn verdict(answer: &Answer, place: usize) -> Option<Failure> {
    if answer.failed == 0 {
        return None;
    }
    match answer.entries.get(place) {
        Some(entry) => entry.error_code.as_deref().map(Failure::from_code),
        None => Some(Failure::new(Kind::Transient, "")),
    }
}

fn keep<T: Copy>(list: &mut Vec<T>, which: &[bool]) {
    let mut which = which.iter();
    list.retain(|_| which.next().copied().unwrap_or(false));
}

#[cfg(test)]
mod tests;
