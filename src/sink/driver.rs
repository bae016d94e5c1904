//! The loop that AWS sinks share: read blocks, batch, send with retries, settle.
//!
//! ```text
//! journal::Reader ─► Batches::add ─► ready ─► one task a turn: frame, send, retry ─► Outcome ─► account, settle
//!                    (spans into        ▲
//!                     shared blocks)    └ full, due, journal closed, or too much held
//! ```
//!
//! The loop owns all of the sink's state and is the only one to account and to settle; tasks only send. A block is settled when
//! each of its records for this sink has a verdict. Reading stops while blocks of [`crate::journal::Reader::held_bytes_max`] are held unsettled,
//! so a dead destination keeps that much of the journal and leaves the rest to the journal's policy.
//!
//! The order within a destination is by time, not by request: batches of one stream may be in flight together.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::journal::Sequence;
use crate::journal::block::Block;
use crate::telemetry::account::{Fate, Ledger, Reason};

use super::Context;
use super::retry::{End, Lanes, Retrier, Turn};

mod shares;

use shares::Settlement;
pub use shares::{Share, Shares};

/// How records become batches; one implementation a service.
pub trait Batches {
    /// What a task sends.
    type Payload: Send + 'static;

    /// Adds every record of `block` for this sink to an open batch; batches that are full move to `ready`.
    /// Returns the indexes of the records that it did not add, and why: they are larger than the service takes
    /// ([`Reason::Oversize`]), or there is nothing to send of them ([`Reason::Empty`]).
    fn add(
        &mut self,
        sequence: Sequence,
        block: &Arc<Block>,
        ready: &mut VecDeque<Ready<Self::Payload>>,
    ) -> Vec<(u32, Reason)>;

    /// When the oldest open batch is due, if any is open.
    fn due(&self) -> Option<Instant>;

    /// Moves the open batches that are due at `until` to `ready`; all of them if none.
    fn flush(&mut self, until: Option<Instant>, ready: &mut VecDeque<Ready<Self::Payload>>);
}

/// A finished batch.
#[derive(Debug)]
pub struct Ready<P> {
    /// Which records of which blocks it holds.
    pub shares: Shares,
    /// A number for the target that it goes to; none if the sink has only one.
    pub target: Option<u64>,
    /// What is sent.
    pub payload: P,
}

/// What became of the records of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Taken by the destination.
    pub delivered: u64,
    /// Of those, how many were cut to its limit.
    pub truncated: u64,
    /// Not taken, and why.
    pub lost: Vec<(Reason, u64)>,
    /// Set if the process ended before all was said: the records that do have a verdict. The rest stays pending.
    pub unfinished: Option<Shares>,
}

impl Outcome {
    /// All were taken.
    pub fn delivered(records: u64, truncated: u64) -> Self {
        Self { delivered: records, truncated, ..Self::default() }
    }

    /// The process ended before anything was said.
    pub fn unsaid() -> Self {
        Self { unfinished: Some(Shares::default()), ..Self::default() }
    }

    /// `records` are lost for that reason.
    pub fn lose(&mut self, reason: Reason, records: u64) {
        match self.lost.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += records,
            None => self.lost.push((reason, records)),
        }
    }

    /// How many records have a verdict.
    fn records(&self) -> u64 {
        self.delivered + self.lost.iter().map(|(_, records)| records).sum::<u64>()
    }
}

/// The reason for which records are lost when their turn ended so; none at the end of the process, when nothing is lost.
pub fn reason_of(end: End) -> Option<Reason> {
    match end {
        End::Refused => Some(Reason::Refused),
        End::Exhausted => Some(Reason::RetriesExhausted),
        End::Shutdown => None,
    }
}

/// Reads the journal to its end, or to the end of the process's shutdown. `prepare` is awaited once a first block is there.
pub async fn run<B, D, F>(ctx: Context, retrier: Retrier, prepare: impl Future<Output = ()>, mut batches: B, deliver: D)
where
    B: Batches,
    D: Fn(B::Payload, Turn) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    let Context { id, mut reader, ledger, dead_letters, .. } = ctx;
    let held_bytes_max = reader.held_bytes_max();
    let mut settlement = Settlement::new(reader.settler(), id);
    let mut ready = VecDeque::new();
    let mut in_flight = JoinSet::new();
    let mut lanes = Lanes::default();
    let mut open = true;
    let mut prepare = Some(std::pin::pin!(prepare));
    let over = retrier.shutdown_over();
    let mut over = std::pin::pin!(over);
    while open || batches.due().is_some() || !ready.is_empty() || !in_flight.is_empty() {
        let crowded = settlement.held_bytes() >= held_bytes_max;
        if !open || (crowded && ready.is_empty() && in_flight.is_empty()) {
            batches.flush(None, &mut ready);
        }
        let due = batches.due();
        let next_up = next_up(&ready, &lanes, &retrier);
        tokio::select! {
            biased;
            () = &mut over => break,
            Some(joined) = in_flight.join_next(), if !in_flight.is_empty() => {
                enter(unwind(joined), &ledger, &mut settlement);
            }
            mut turn = retrier.turn(), if next_up.is_some() => {
                if let Some(Ready { shares, target, payload }) = next_up.and_then(|place| ready.remove(place)) {
                    if let Some(target) = target {
                        turn.enter(lanes.get(target));
                    }
                    let sending = deliver(payload, turn);
                    in_flight.spawn(async move { (shares, sending.await) });
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                batches.flush(Some(Instant::now()), &mut ready);
            }
            next = reader.next(), if open && !crowded => match next {
                Some((sequence, block)) => {
                    if let Some(prepare) = prepare.take() {
                        prepare.await;
                    }
                    settlement.begin(sequence, &block);
                    let refused = batches.add(sequence, &block, &mut ready);
                    if !refused.is_empty() {
                        let mut letters = dead_letters.letters(Reason::Oversize);
                        let mut shares = Shares::default();
                        for (record, reason) in refused {
                            ledger.lose(reason, 1);
                            if reason.fate() != Fate::Filtered {
                                letters.add(&block, record as usize);
                            }
                            shares.add_run(sequence, record..record + 1);
                        }
                        settlement.settle(&shares);
                    }
                }
                None => open = false,
            },
        }
    }
    // At the end of a shutdown every task sees it as well and ends at once, perhaps with a part delivered.
    while let Some(joined) = in_flight.join_next().await {
        enter(unwind(joined), &ledger, &mut settlement);
    }
}

/// The place of the oldest batch whose target may have one more turn.
fn next_up<P>(ready: &VecDeque<Ready<P>>, lanes: &Lanes, retrier: &Retrier) -> Option<usize> {
    let allowed = retrier.allowed();
    ready.iter().position(|batch| batch.target.is_none_or(|target| lanes.may_begin(target, allowed)))
}

/// Accounts for a batch and settles it.
fn enter((shares, outcome): Sent, ledger: &Ledger, settlement: &mut Settlement) {
    let said = outcome.unfinished.as_ref().unwrap_or(&shares);
    debug_assert_eq!(said.records(), outcome.records(), "every record of a batch has one verdict");
    ledger.deliver(outcome.delivered);
    ledger.truncate(outcome.truncated);
    for &(reason, records) in &outcome.lost {
        ledger.lose(reason, records);
    }
    settlement.settle(said);
}

/// A panic of a sending task is one of this sink's: carried on, so that it ends loudly and not with records that nobody holds.
fn unwind(joined: Result<Sent, JoinError>) -> Sent {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // Cancelled with the runtime.
        Err(_) => (Shares::default(), Outcome::unsaid()),
    })
}

/// The records of a batch and what became of them.
type Sent = (Shares, Outcome);

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
