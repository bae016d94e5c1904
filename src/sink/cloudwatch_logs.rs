//! The CloudWatch Logs sink: `PutLogEvents`.
//!
//! A batch holds the records of one stream and one UTC day (so never 24 hours), in time order. Groups and streams are made when
//! the service says that they are missing; nothing is listed or described. What the service rejects of a batch
//! (`rejectedLogEventsInfo`) is counted by its reason, the rest is delivered. At least once: a request whose answer is lost is sent
//! again.
//!
//! Several batches of one stream may be in flight together: the service needs no sequence tokens any more and shows a stream in
//! the order of its timestamps. Concurrency is therefore counted for the sink, not for each stream.
//!
//! Limits after the API reference of `PutLogEvents` and the quotas of CloudWatch Logs (November 2026).
//! Cost: one pass over the bytes (escape and copy) a record, 24 bytes a record while its batch is open, one request body.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::{LogGroupClass, RejectedLogEventsInfo};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use crate::enrich::ecs::Metadata;
use crate::journal::Settler;
use crate::telemetry::account::Reason;

use super::aws::{Failure, Kind};
use super::dead_letters::DeadLetters;
use super::driver::{self, Outcome};
use super::retry::{End, Retrier, Turn};
use super::search::{Hopeless, Search};
use super::template::Template;
use super::{Context, Error, Oversize, aws, retry};

mod batch;
mod body;
mod message;
mod name;

use batch::{Batch, Open};
use name::Target;

/// Bytes that the service counts for each event beside its message.
pub const EVENT_OVERHEAD_BYTES: usize = 26;

/// Greatest size of a request as the service counts it: messages in UTF-8 and [`EVENT_OVERHEAD_BYTES`] each.
pub const BATCH_BYTES_MAX: usize = 1_048_576;

/// Greatest number of events in a request.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// Greatest size of one message: an event of 1 MiB less its overhead.
pub const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX - EVENT_OVERHEAD_BYTES;

/// How long names wait for task metadata that they name, from the sink's start.
const METADATA_WAIT: Duration = Duration::from_secs(10);

/// A CloudWatch Logs sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Log group name. Characters the service does not allow become `_`.
    pub group: Template,
    /// Log stream name. Characters the service does not allow become `_`.
    pub stream: Template,
    /// Create a missing group. Missing streams are always created.
    pub create_group: bool,
    /// Retention of a group that we create, in days.
    pub retention_days: Option<i32>,
    /// Class of a group that we create: `STANDARD`, `INFREQUENT_ACCESS` or `DELIVERY`.
    pub log_group_class: Option<String>,
    /// Send only this field's value instead of the whole record: a string unescaped, anything else as its JSON. Records
    /// without it, or with null, are sent whole. Of those with an empty string nothing is sent, since the service takes no
    /// empty message ([`Reason::Empty`]).
    pub log_key: Option<String>,
    /// What the service is told of the format of messages, as `json/emf`: a header of each request.
    pub log_format: Option<String>,
    /// An open batch is sent after this time.
    pub batch_timeout: Duration,
    /// Events in a request, at most 10,000.
    pub batch_events_max: usize,
    /// Bytes in a request as the service counts them (UTF-8 + 26 an event), at most 1,048,576. A single larger event, up to
    /// the service's limit, goes alone.
    pub batch_bytes_max: usize,
    /// Events larger than the service takes. Truncation cuts the text of the JSON object at a character boundary: what is left
    /// is a prefix and no longer an object.
    pub oversize: Oversize,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Retries.
    pub retry: retry::Config,
    /// The client.
    pub aws: aws::Config,
}

impl Config {
    /// With the defaults: missing groups are created and keep their events for ever, batches as large as the service takes but
    /// no older than a second, 4 requests at once.
    pub fn new(group: Template, stream: Template) -> Self {
        Self {
            group,
            stream,
            create_group: true,
            retention_days: None,
            log_group_class: None,
            log_key: None,
            log_format: None,
            batch_timeout: Duration::from_secs(1),
            batch_events_max: BATCH_EVENTS_MAX,
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
    let config = Arc::new(config);
    let batches = Open::new(config.clone(), &ctx);
    let prepare =
        wait_for_names(config.clone(), ctx.metadata.clone(), ctx.deadline.clone(), Instant::now() + METADATA_WAIT);
    let sender = Arc::new(Sender {
        config,
        retrier: retrier.clone(),
        metadata: ctx.metadata.clone(),
        client: OnceCell::new(),
        dead_letters: ctx.dead_letters.clone(),
        settler: ctx.reader.settler(),
        hopeless: Hopeless::default(),
    });
    driver::run(ctx, retrier, prepare, batches, move |batch, turn| deliver(sender.clone(), batch, turn)).await;
    Ok(())
}

/// Waits until the templates can be rendered, `until` is over, or a shutdown begins.
async fn wait_for_names(
    config: Arc<Config>,
    mut metadata: watch::Receiver<Arc<Metadata>>,
    mut deadline: watch::Receiver<Option<Instant>>,
    until: Instant,
) {
    let known =
        metadata.wait_for(|known| known.complete || !(config.group.waits_for(known) || config.stream.waits_for(known)));
    let shutdown = async {
        if deadline.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // An error means that nothing more will be known.
        _ = known => {}
        () = shutdown => {}
        () = tokio::time::sleep_until(until) => {}
    }
}

struct Sender {
    config: Arc<Config>,
    retrier: Retrier,
    metadata: watch::Receiver<Arc<Metadata>>,
    /// Built by the first batch that needs it.
    client: OnceCell<Client>,
    dead_letters: DeadLetters,
    settler: Settler,
    hopeless: Hopeless,
}

/// Sends one batch until every event has a verdict, or the process ends. What is refused for ever is searched for its culprits.
async fn deliver(sender: Arc<Sender>, batch: Batch, mut turn: Turn) -> Outcome {
    let client =
        sender.client.get_or_try_init(|| aws::cloudwatch_logs(&sender.config.aws, &sender.retrier, &sender.metadata));
    let Ok(client) = client.await else { return Outcome::unsaid() };
    let mut delivery = Delivery { sender: &sender, batch: &batch, outcome: Outcome::default(), said: Vec::new() };
    let mut search = Search::new(0..batch.events.len(), &sender.hopeless);
    while let Some(part) = search.next_part() {
        let (end, failure) = match send(&sender, client, &batch, part.clone(), &mut turn).await {
            Ok(rejected) => {
                search.taken();
                delivery.answered(part, rejected.as_ref());
                continue;
            }
            Err(ended) => ended,
        };
        let Some(reason) = driver::reason_of(end) else {
            delivery.outcome.unfinished = Some(batch.shares(delivery.said.into_iter().flatten()));
            return delivery.outcome;
        };
        let middle = part.start + part.len() / 2;
        let halves = (part.len() > 1).then_some([part.start..middle, middle..part.end]);
        let is_single = halves.is_none();
        let goes_on = end == End::Refused && search.refused(halves);
        if is_single || !goes_on {
            delivery.lose(reason, part, &failure);
        }
        if !goes_on {
            search.rest().for_each(|part| delivery.lose(reason, part, &failure));
        }
        turn.restart();
    }
    delivery.outcome
}

/// What has become of a batch so far.
struct Delivery<'d> {
    sender: &'d Sender,
    batch: &'d Batch,
    outcome: Outcome,
    /// Events that have a verdict.
    said: Vec<Range<usize>>,
}

impl Delivery<'_> {
    /// The service took that part, except what it rejected of it.
    fn answered(&mut self, part: Range<usize>, rejected: Option<&RejectedLogEventsInfo>) {
        let events = |range: Range<usize>| part.start + range.start..part.start + range.end;
        let verdict = Verdict::new(part.len(), rejected);
        for (reason, rejected) in verdict.rejected.into_iter().filter(|(_, rejected)| !rejected.is_empty()) {
            self.batch.bury(events(rejected.clone()), &mut self.sender.dead_letters.letters(reason));
            self.outcome.lose(reason, rejected.len() as u64);
        }
        self.outcome.delivered += verdict.taken.len() as u64;
        self.outcome.truncated += self.batch.truncated(events(verdict.taken));
        self.say(part);
    }

    fn lose(&mut self, reason: Reason, part: Range<usize>, failure: &Failure) {
        let records = part.len() as u64;
        self.batch.bury(part.clone(), &mut self.sender.dead_letters.letters(reason));
        self.sender.retrier.report_loss(reason, records, failure);
        self.outcome.lose(reason, records);
        self.say(part);
    }

    /// That part has its verdict. While others of the batch go on, a restart must not send it again.
    fn say(&mut self, part: Range<usize>) {
        if part.len() < self.batch.events.len() {
            self.sender.settler.settle_part(&self.batch.shares(part.clone()).spans());
        }
        self.said.push(part);
    }
}

/// Sends events of a batch as one request until the service takes or refuses them.
async fn send(
    sender: &Sender,
    client: &Client,
    batch: &Batch,
    events: Range<usize>,
    turn: &mut Turn,
) -> Result<Option<RejectedLogEventsInfo>, (End, Failure)> {
    let target = &batch.target;
    let body = Bytes::from(body::frame(batch, events));
    let mut created = false;
    loop {
        let failure = match turn.attempt(put(client, target, sender.config.log_format.as_deref(), body.clone())).await {
            Ok(rejected) => return Ok(rejected),
            Err(failure) if failure.kind == Kind::AlreadyAccepted => return Ok(None),
            Err(failure) => failure,
        };
        if failure.kind == Kind::NotFound && !created {
            // Once without a pause; a service that goes on to miss what was made is asked again like one in trouble.
            created = true;
            create(sender, client, target, turn).await?;
        } else {
            created = false;
            turn.pause(&failure).await.map_err(|end| (end, failure))?;
        }
    }
}

/// Sends a finished body: the SDK addresses, signs and sends it, and reads the answer.
async fn put(
    client: &Client,
    target: &Target,
    log_format: Option<&str>,
    body: Bytes,
) -> Result<Option<RejectedLogEventsInfo>, Failure> {
    let log_format = log_format.map(str::to_owned);
    let request = client
        .put_log_events()
        .log_group_name(&*target.group)
        .log_stream_name(&*target.stream)
        .set_log_events(Some(Vec::new()))
        .customize()
        .mutate_request(move |request| {
            // Before signing, so the signature is over these bytes.
            if let Some(format) = &log_format {
                request.headers_mut().insert("x-amzn-logs-format", format.clone());
            }
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = SdkBody::from(body.clone());
        });
    // Boxed: the SDK's future is several kilobytes.
    let answer = Box::pin(request.send()).await?;
    Ok(answer.rejected_log_events_info)
}

/// What the service says of a request's events, by their places in it: old ones at its start, new ones at its end.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    taken: Range<usize>,
    rejected: [(Reason, Range<usize>); 3],
}

impl Verdict {
    fn new(events: usize, rejected: Option<&RejectedLogEventsInfo>) -> Self {
        let place = |index: Option<i32>| index.map(|index| usize::try_from(index).unwrap_or(0).min(events));
        let told = |end: fn(&RejectedLogEventsInfo) -> Option<i32>| place(rejected.and_then(end));
        // "Too old" and "expired" ends are exclusive and both count from the start, so they overlap; each event counts once.
        let too_old = told(|rejected| rejected.too_old_log_event_end_index).unwrap_or(0);
        let start = told(|rejected| rejected.expired_log_event_end_index).unwrap_or(0).max(too_old);
        let end = told(|rejected| rejected.too_new_log_event_start_index).unwrap_or(events).max(start);
        let rejected = [(Reason::TooOld, 0..too_old), (Reason::Expired, too_old..start), (Reason::TooNew, end..events)];
        Self { taken: start..end, rejected }
    }
}

/// Makes the stream, and before it the group if that is missing and may be made.
async fn create(sender: &Sender, client: &Client, target: &Target, turn: &mut Turn) -> Result<(), (End, Failure)> {
    loop {
        let stream = client.create_log_stream().log_group_name(&*target.group).log_stream_name(&*target.stream);
        let failure = match turn.attempt(async { Ok(Box::pin(stream.send()).await?) }).await {
            Ok(_) => {
                tracing::info!(group = &*target.group, stream = &*target.stream, "log stream created");
                return Ok(());
            }
            Err(failure) if failure.kind == Kind::Exists => return Ok(()),
            Err(failure) => failure,
        };
        if failure.kind == Kind::NotFound && sender.config.create_group {
            create_group(sender, client, target, turn).await?;
        } else {
            turn.pause(&failure).await.map_err(|end| (end, failure))?;
        }
    }
}

async fn create_group(
    sender: &Sender,
    client: &Client,
    target: &Target,
    turn: &mut Turn,
) -> Result<(), (End, Failure)> {
    let class = sender.config.log_group_class.as_deref().map(LogGroupClass::from);
    loop {
        let group = client.create_log_group().log_group_name(&*target.group).set_log_group_class(class.clone());
        match turn.attempt(async { Ok(Box::pin(group.send()).await?) }).await {
            Ok(_) => {
                tracing::info!(group = &*target.group, "log group created");
                retain(sender, client, target, turn).await;
                return Ok(());
            }
            // Made meanwhile by another; right after a deletion the stream may still be refused: a pause, not a spin.
            Err(failure) if failure.kind == Kind::Exists => {
                let busy = Failure::new(Kind::Transient, "the log group is being made or deleted by another");
                return turn.pause(&busy).await.map_err(|end| (end, busy));
            }
            Err(failure) => turn.pause(&failure).await.map_err(|end| (end, failure))?,
        }
    }
}

/// Sets the retention of a group just made. Without it events are kept for ever, which is no reason not to deliver them.
async fn retain(sender: &Sender, client: &Client, target: &Target, turn: &mut Turn) {
    let Some(days) = sender.config.retention_days else { return };
    loop {
        let policy = client.put_retention_policy().log_group_name(&*target.group).retention_in_days(days);
        let Err(failure) = turn.attempt(async { Ok(Box::pin(policy.send()).await?) }).await else { return };
        // Permissions do not come back soon, and the group works without.
        if failure.kind == Kind::Credentials || turn.pause(&failure).await.is_err() {
            tracing::error!(group = &*target.group, days, "retention not set, events are kept for ever: {failure}");
            return;
        }
    }
}

#[cfg(test)]
mod tests;
