//! The Amazon Data Firehose sink: `PutRecordBatch`.
//!
//! Lines are joined into Firehose records, in order of arrival, each ended by its newline: Firehose bills a record rounded up to
//! the next 5 KB, so records of 64 KiB waste 4 % at most where single lines of 500 bytes would cost ten times their size.
//! Entries that the service failed are sent again, those alone, in their order and with the same bytes. At least once: a request whose answer is
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
use crate::journal::Settler;
use crate::telemetry::account::Reason;

use super::aws::{Failure, Kind};
use super::dead_letters::DeadLetters;
use super::driver::{self, Outcome};
use super::retry::{Retrier, Turn};
use super::search::{Hopeless, Search};
use super::{Context, Error, Oversize, aws, retry};

mod batch;
mod body;
pub mod form;

use batch::{Batch, Joined, Open};
use body::Body;
use form::Form;

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
    /// What is sent of each record.
    pub form: Form,
    /// Whether the data of each Firehose record is one gzip member.
    pub is_gzip: bool,
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
            form: Form::default(),
            is_gzip: false,
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
    let sender = Arc::new(Sender {
        config,
        retrier: retrier.clone(),
        metadata: ctx.metadata.clone(),
        client: OnceCell::new(),
        dead_letters: ctx.dead_letters.clone(),
        settler: ctx.reader.settler(),
        hopeless: Hopeless::default(),
    });
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
    dead_letters: DeadLetters,
    settler: Settler,
    hopeless: Hopeless,
}

/// Sends one batch until every record has a verdict, or the process ends. What is refused for ever is searched for its culprits:
/// among the Firehose records of a request, then among the lines of one.
async fn deliver(sender: Arc<Sender>, mut batch: Batch, mut turn: Turn) -> Outcome {
    let client = sender.client.get_or_try_init(|| aws::firehose(&sender.config.aws, &sender.retrier, &sender.metadata));
    let Ok(client) = client.await else { return Outcome::unsaid() };
    let mut said = Said::default();
    let records = std::mem::take(&mut batch.records);
    let whole = records.len();
    let mut search = Search::new(records, &sender.hopeless);
    while let Some(part) = search.next_part() {
        let mut rest = Rest::new(body::frame(&sender.config.stream, &batch, &part, sender.config.is_gzip), part);
        let ended = loop {
            let sent = put(client, &sender.config.stream, rest.body.bytes.clone());
            let attempt = turn.attempt(async { rest.sort_out(sent.await?) }).await;
            let taken = std::mem::take(&mut rest.taken);
            if (1..whole).contains(&taken.len()) {
                // While others go on, a restart must not send these again.
                sender.settler.settle_part(&batch.shares(&taken).spans());
            }
            if !taken.is_empty() {
                search.taken();
            }
            said.taken(taken);
            let Err(failure) = attempt else { break None };
            if let Err(end) = turn.pause(&failure).await {
                break Some((end, failure));
            }
        };
        for (record, failure) in std::mem::take(&mut rest.refused) {
            refused(&sender, &mut batch, vec![record], &failure, &mut search, &mut said);
        }
        if let Some((end, failure)) = ended {
            match driver::reason_of(end) {
                None => {
                    said.outcome.unfinished = Some(batch.shares(&said.records));
                    return said.outcome;
                }
                Some(Reason::Refused) => refused(&sender, &mut batch, rest.records, &failure, &mut search, &mut said),
                Some(reason) => {
                    let parts = std::iter::once(rest.records).chain(search.rest());
                    parts.for_each(|part| said.lose(&sender, &batch, reason, part, &failure));
                }
            }
        }
        turn.restart();
    }
    said.outcome
}

/// Splits what was refused. Where that is a single line it is given up; where the search is over, so is all that waits.
fn refused(
    sender: &Sender,
    batch: &mut Batch,
    records: Vec<Joined>,
    failure: &Failure,
    search: &mut Search<'_, Vec<Joined>>,
    said: &mut Said,
) {
    let halves = match records.as_slice() {
        [record] => batch.halves(record).map(|halves| halves.map(|half| vec![half])),
        _ => Some(<[_; 2]>::from(records.split_at(records.len() / 2)).map(<[_]>::to_vec)),
    };
    let is_single = halves.is_none();
    let goes_on = search.refused(halves);
    if is_single || !goes_on {
        said.lose(sender, batch, Reason::Refused, records, failure);
    }
    if !goes_on {
        search.rest().for_each(|part| said.lose(sender, batch, Reason::Refused, part, failure));
    }
}

/// What is said of a batch so far.
#[derive(Default)]
struct Said {
    outcome: Outcome,
    /// Firehose records whose lines have a verdict.
    records: Vec<Joined>,
}

impl Said {
    fn taken(&mut self, records: Vec<Joined>) {
        self.outcome.delivered += lines(&records);
        self.outcome.truncated += records.iter().map(|record| u64::from(record.truncated)).sum::<u64>();
        self.records.extend(records);
    }

    fn lose(&mut self, sender: &Sender, batch: &Batch, reason: Reason, records: Vec<Joined>, failure: &Failure) {
        let lines = lines(&records);
        let mut letters = sender.dead_letters.letters(reason);
        records.iter().for_each(|record| batch.bury(record, &mut letters));
        sender.retrier.report_loss(reason, lines, failure);
        self.outcome.lose(reason, lines);
        self.records.extend(records);
    }
}

fn lines(records: &[Joined]) -> u64 {
    records.iter().map(|record| u64::from(record.lines)).sum()
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

/// What of a request is still to be sent, and what the service has said of its other entries since that was last asked.
struct Rest {
    body: Body,
    /// The entries of the body.
    records: Vec<Joined>,
    taken: Vec<Joined>,
    /// Entries that are refused for ever, though the request as a whole was not.
    refused: Vec<(Joined, Failure)>,
}

impl Rest {
    fn new(body: Body, records: Vec<Joined>) -> Self {
        Self { body, records, taken: Vec::new(), refused: Vec::new() }
    }

    /// Puts aside what was taken and what never will be, and keeps the rest: an error then, which says how to go on with it.
    fn sort_out(&mut self, answer: Answer) -> Result<(), Failure> {
        let sent = std::mem::take(&mut self.records);
        let entries = sent.len();
        let mut again = vec![false; entries];
        let mut cause: Option<Failure> = None;
        for (place, record) in sent.into_iter().enumerate() {
            match verdict(&answer, place) {
                None => self.taken.push(record),
                Some(failure) if failure.is_retryable() => {
                    again[place] = true;
                    self.records.push(record);
                    // One throttled entry is reason enough to slow down.
                    if cause.is_none() || failure.kind == Kind::Throttled {
                        cause = Some(failure);
                    }
                }
                Some(failure) => self.refused.push((record, failure)),
            }
        }
        let Some(mut cause) = cause else { return Ok(()) };
        let kept = self.records.len();
        if kept < entries {
            self.body = self.body.retain(|place| again[place]);
        }
        cause.detail = format!("{kept} of {entries} entries failed").into();
        cause.is_partial = kept * 2 < entries;
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

#[cfg(test)]
mod tests;
