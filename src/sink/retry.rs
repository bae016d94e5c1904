//! Retries: capped exponential backoff with full jitter, a budget in time, and fewer requests at once when throttled.
//!
//! One [`Retrier`] a sink. A piece of work that may be sent more than once takes a turn and keeps it until it is done, through
//! the sleeps between its attempts too, so that a destination in trouble sees fewer requests, not more:
//!
//! ```text
//! let mut turn = retrier.turn().await;              // waits for its place among `concurrency`
//! let outcome = loop {
//!     match turn.attempt(send(&body)).await {       // under `request_timeout`
//!         Ok(answer) => break Ok(answer),
//!         Err(failure) => match turn.pause(&failure).await {
//!             Ok(()) => {}                           // slept: again
//!             Err(end) => break Err((end, failure)), // refused, out of time, or the process ends
//!         },
//!     }
//! };
//! ```
//!
//! An attempt that half succeeded tells it by an `Err` whose [`Failure`] says what to do about the rest; what is left to send
//! is the caller's to remember.
//!
//! Full jitter after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): sleep = random(0, min(cap, base * 2^n)).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::telemetry::account::Reason;

use super::aws::{Failure, Kind, Refused};

mod gate;
mod lane;

use gate::{Gate, Permit};
use lane::InLane;
pub use lane::{Lane, Lanes};

/// How a sink retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// First upper bound of the sleep; doubles with each attempt.
    pub base: Duration,
    /// Greatest upper bound of the sleep.
    pub cap: Duration,
    /// A batch is given up (dropped, counted) after this time; none = never.
    pub give_up_after: Option<Duration>,
    /// Time limit of one attempt.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(20),
            give_up_after: None,
            request_timeout: super::REQUEST_TIMEOUT,
        }
    }
}

/// The longest wait a destination may ask for by `Retry-After`; more is not believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// The longest sleep once a shutdown has begun.
const SHUTDOWN_SLEEP_MAX: Duration = Duration::from_secs(1);

/// A longer sleep is cut to this once the destination takes requests of others again.
const RECOVERED_SLEEP_MAX: Duration = Duration::from_secs(1);

/// A sink in trouble says so at once, then this often.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Why no further attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The destination will never take it: count as rejected, [`crate::telemetry::account::Reason::Refused`].
    Refused,
    /// [`Config::give_up_after`] is over: count as dropped, [`crate::telemetry::account::Reason::RetriesExhausted`].
    Exhausted,
    /// The process ends now. Nothing is to be counted or settled: the records stay pending.
    Shutdown,
}

/// What all requests of one sink share: the settings, the number allowed at once, the shutdown, and what was last reported.
#[derive(Clone)]
pub struct Retrier {
    shared: Arc<Shared>,
    deadline: watch::Receiver<Option<Instant>>,
}

struct Shared {
    sink: Arc<str>,
    config: Config,
    gate: Arc<Gate>,
    credentials_refused: Refused,
    report: Mutex<Report>,
}

#[derive(Default)]
struct Report {
    last: Option<Instant>,
    unsaid: u64,
    troubled: bool,
    last_loss: Option<Instant>,
    records_unsaid: u64,
}

impl Retrier {
    /// For the sink of that name, with up to `concurrency` turns at once (at least one).
    pub fn new(sink: Arc<str>, config: Config, concurrency: usize, deadline: watch::Receiver<Option<Instant>>) -> Self {
        let gate = Gate::new(concurrency);
        Self {
            shared: Arc::new(Shared {
                sink,
                config,
                gate,
                credentials_refused: Refused::default(),
                report: Mutex::default(),
            }),
            deadline,
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Set by a failure that tells that the credentials are not good (any more); whoever provides them clears it.
    pub fn credentials_refused(&self) -> Refused {
        self.shared.credentials_refused.clone()
    }

    /// How many turns may be taken at once now; between 1 and `concurrency`.
    pub fn allowed(&self) -> usize {
        self.shared.gate.allowed()
    }

    /// Requests that may start in a second now; infinite if there is no limit.
    pub fn rate(&self) -> f64 {
        self.shared.gate.rate()
    }

    /// Waits for a turn. Cancel safe.
    pub async fn turn(&self) -> Turn {
        self.start(Some(self.shared.gate.acquire().await))
    }

    /// A turn outside the count and without end: for what must be done before any request, as building the client.
    pub fn free_turn(&self) -> Turn {
        let mut turn = self.start(None);
        turn.give_up_after = None;
        turn
    }

    /// Returns at the end of the process's shutdown: when [`super::Context::deadline`] is set and over.
    pub async fn shutdown_over(&self) {
        shutdown_over(&mut self.deadline.clone()).await;
    }

    /// Says that records were lost for good, at most every [`REPORT_EVERY`] with the number since; the caller counts them.
    pub fn report_loss(&self, reason: Reason, records: u64, failure: &Failure) {
        let mut report = self.shared.lock_report();
        let now = Instant::now();
        report.records_unsaid += records;
        if report.last_loss.is_some_and(|last| now < last + REPORT_EVERY) {
            return;
        }
        report.last_loss = Some(now);
        let records = std::mem::take(&mut report.records_unsaid);
        drop(report);
        tracing::error!(sink = &*self.shared.sink, reason = reason.label(), records, "records lost: {failure}");
    }

    fn start(&self, permit: Option<Permit>) -> Turn {
        let now = Instant::now();
        Turn {
            retrier: self.clone(),
            permit,
            lane: None,
            begun: now,
            attempt_begun: now,
            failures: 0,
            give_up_after: self.shared.config.give_up_after,
        }
    }
}

/// The right to have requests in flight, one at a time; given back when dropped.
pub struct Turn {
    retrier: Retrier,
    permit: Option<Permit>,
    lane: Option<InLane>,
    begun: Instant,
    attempt_begun: Instant,
    failures: u32,
    give_up_after: Option<Duration>,
}

impl Turn {
    /// The turn is for that target of the sink.
    pub fn enter(&mut self, lane: Arc<Lane>) {
        self.lane = Some(InLane::enter(lane));
    }

    /// How many attempts failed so far, since the turn began or was restarted.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Goes on with the next piece of the same work, as the next part of an upload: the backoff and the budget begin anew,
    /// the place is kept.
    pub fn restart(&mut self) {
        self.failures = 0;
        self.begun = Instant::now();
    }

    /// Makes one attempt under [`Config::request_timeout`], once the pace allows it, and not beyond the end of a shutdown. The
    /// future is dropped when the time is over: whether the destination took the request is then not known.
    pub async fn attempt<T>(&mut self, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let now = Instant::now();
        self.attempt_begun = self.permit.as_ref().map_or(now, Permit::start);
        let limit = self.retrier.shared.config.request_timeout;
        let paced = self.attempt_begun;
        let outcome = tokio::select! {
            biased;
            outcome = async {
                if paced > now {
                    sleep_until(paced).await;
                }
                attempt.await
            } => outcome,
            () = sleep_until(self.attempt_begun + limit) => Err(Failure::timed_out(limit)),
            () = shutdown_over(&mut self.retrier.deadline) => Err(Failure::timed_out(self.attempt_begun.elapsed())),
        };
        if outcome.is_ok() {
            if let Some(permit) = &self.permit {
                permit.succeeded();
            }
            if let Some(lane) = &self.lane {
                lane.lane().set_denied(false);
            }
            self.retrier.shared.report_success();
        }
        outcome
    }

    /// Sleeps before the next attempt, or says that there is to be none.
    pub async fn pause(&mut self, failure: &Failure) -> Result<(), End> {
        self.failures = self.failures.saturating_add(1);
        if failure.kind == Kind::Throttled
            && let Some(permit) = &self.permit
        {
            permit.throttled(self.attempt_begun);
        }
        if failure.kind == Kind::Credentials {
            self.retrier.shared.credentials_refused.store(true, Relaxed);
        }
        if !failure.is_retryable() {
            return Err(End::Refused);
        }
        let now = Instant::now();
        let mut wait = self.wait(failure);
        if let Some(budget) = self.give_up_after {
            let left = (self.begun + budget).saturating_duration_since(now);
            if left.is_zero() {
                return Err(End::Exhausted);
            }
            wait = wait.min(left);
        }
        self.retrier.shared.report_failure(failure, self.failures, wait);
        // These are about one target; all other trouble is the whole destination's.
        if matches!(failure.kind, Kind::Credentials | Kind::NotFound)
            && let Some(lane) = self.lane.as_ref().map(InLane::lane).cloned()
        {
            lane.set_denied(true);
            if lane.lend(self.retrier.allowed()) {
                return self.sleep_lending(&lane, now, wait).await;
            }
        }
        self.sleep(now, wait, matches!(failure.kind, Kind::Throttled | Kind::Transient)).await
    }

    /// Sleeps without its place among the turns, and waits for it after.
    async fn sleep_lending(&mut self, lane: &Lane, now: Instant, wait: Duration) -> Result<(), End> {
        self.permit = None;
        let slept = self.sleep(now, wait, false).await;
        let taken = match slept {
            Ok(()) => tokio::select! {
                permit = self.retrier.shared.gate.acquire() => {
                    self.permit = Some(permit);
                    Ok(())
                }
                () = shutdown_over(&mut self.retrier.deadline) => Err(End::Shutdown),
            },
            over => over,
        };
        lane.end_lending();
        taken
    }

    fn wait(&self, failure: &Failure) -> Duration {
        let config = &self.retrier.shared.config;
        let bound = backoff_bound(config, self.failures);
        let jittered = bound.mul_f64(fastrand::f64());
        // What the destination asks for is the least; the jitter on top keeps its clients apart.
        failure.retry_after.map_or(jittered, |after| after.min(RETRY_AFTER_MAX) + jittered.min(config.base))
    }

    /// Sleeps for `wait`; a shutdown cuts that to [`SHUTDOWN_SLEEP_MAX`] from its start, and to its deadline. So does, `if_recovers`,
    /// the first success of another turn: an outage that is over should not be slept through.
    async fn sleep(&mut self, now: Instant, wait: Duration, if_recovers: bool) -> Result<(), End> {
        let gate = self.retrier.shared.gate.clone();
        let mut listens = if_recovers && wait > RECOVERED_SLEEP_MAX;
        let deadline = &mut self.retrier.deadline;
        let mut until = now + wait;
        loop {
            let end = *deadline.borrow_and_update();
            if let Some(end) = end {
                until = until.min(Instant::now() + SHUTDOWN_SLEEP_MAX).min(end);
                sleep_until(until).await;
                return if Instant::now() < end { Ok(()) } else { Err(End::Shutdown) };
            }
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                () = gate.success(), if listens => {
                    listens = false;
                    // Not all at once.
                    until = until.min(Instant::now() + RECOVERED_SLEEP_MAX.mul_f64(fastrand::f64()));
                }
                changed = deadline.changed() => if changed.is_err() {
                    // Nobody is left who could begin a shutdown.
                    sleep_until(until).await;
                    return Ok(());
                },
            }
        }
    }
}

/// The upper bound of the sleep after that many failures.
fn backoff_bound(config: &Config, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    config.base.saturating_mul(1 << doublings).min(config.cap)
}

/// Returns at the end of the process's shutdown: when `deadline` is set and over. Never, if nobody can set it any more.
pub async fn shutdown_over(deadline: &mut watch::Receiver<Option<Instant>>) {
    let end = match deadline.wait_for(Option::is_some).await {
        Ok(end) => *end,
        Err(_) => None,
    };
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    fn lock_report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_failure(&self, failure: &Failure, failures: u32, wait: Duration) {
        let mut report = self.lock_report();
        let now = Instant::now();
        if report.last.is_some_and(|last| now < last + REPORT_EVERY) {
            report.unsaid += 1;
            return;
        }
        report.last = Some(now);
        report.troubled = true;
        let unsaid = std::mem::take(&mut report.unsaid);
        drop(report);
        tracing::warn!(
            sink = &*self.sink,
            failures,
            unsaid,
            retry_in_ms = wait.as_millis() as u64,
            "sending failed, will retry: {failure}"
        );
    }

    fn report_success(&self) {
        let mut report = self.lock_report();
        // Only once the trouble has been silent for a while: requests that succeed between throttled ones are no news.
        if report.troubled && report.last.is_none_or(|last| Instant::now() >= last + REPORT_EVERY) {
            (report.last, report.unsaid, report.troubled) = (None, 0, false);
            drop(report);
            tracing::info!(sink = &*self.sink, "sending works again");
        }
    }
}

#[cfg(test)]
mod tests;
