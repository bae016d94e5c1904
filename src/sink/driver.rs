//! The loop that AWS sinks share: read blocks, batch, send with retries, settle.
//!
//! ```text
//! journal::Reader ─► Batches::add ─► ready ─► one task a turn: frame, send, retry ─► Outcome ─► account, settle
//!                    (spans into        ▲
//!                     shared blocks)    └ full, due, journal closed, or too much held
//! ```
//!
//! The loop owns all of the sink's state and is the only one to account and to settle; tasks only send. A block is settled when
//! each of its records for this sink has a verdict. Reading stops while blocks of [`HELD_BYTES_MAX`], or of the sink's share of a
//! smaller journal, are held unsettled, so a dead destination keeps that much and leaves the rest to the journal's policy.
//!
//! The order within a destination is by time, not by request: batches of one stream may be in flight together.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::journal::block::Block;
use crate::journal::{Sequence, Settler};
use crate::telemetry::account::{Ledger, Reason};

use super::Context;
use super::aws::Failure;
use super::retry::{End, Retrier, Turn};

/// Bytes of unsettled blocks at which a sink stops reading: room for several full requests at once, a quarter of the journal's
/// default memory.
pub const HELD_BYTES_MAX: usize = 16 << 20;

/// How records become batches; one implementation a service.
pub trait Batches {
    /// What a task sends.
    type Payload: Send + 'static;

    /// Adds every record of `block` for this sink to an open batch; batches that are full move to `ready`.
    /// Returns how many records it did not add because they are larger than the service takes.
    fn add(&mut self, sequence: Sequence, block: &Arc<Block>, ready: &mut VecDeque<Ready<Self::Payload>>) -> u64;

    /// When the oldest open batch is due, if any is open.
    fn due(&self) -> Option<Instant>;

    /// Moves the open batches that are due at `until` to `ready`; all of them if none.
    fn flush(&mut self, until: Option<Instant>, ready: &mut VecDeque<Ready<Self::Payload>>);
}

/// A finished batch.
#[derive(Debug)]
pub struct Ready<P> {
    /// How many records of which block it holds.
    pub shares: Vec<(Sequence, u32)>,
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
    /// The process ended before all was said: the rest stays pending, nothing is settled.
    pub unfinished: bool,
}

impl Outcome {
    /// All were taken.
    pub fn delivered(records: u64, truncated: u64) -> Self {
        Self { delivered: records, truncated, ..Self::default() }
    }

    /// `records` could not be delivered for that reason; said in the log as well.
    pub fn lose(&mut self, end: End, records: u64, retrier: &Retrier, failure: &Failure) {
        let reason = match end {
            End::Refused => Reason::Refused,
            End::Exhausted => Reason::RetriesExhausted,
            End::Shutdown => {
                self.unfinished = true;
                return;
            }
        };
        retrier.report_loss(reason, records, failure);
        self.lost.push((reason, records));
    }
}

/// Reads the journal to its end, or to the end of the process's shutdown. `prepare` is awaited once a first block is there.
pub async fn run<B, D, F>(ctx: Context, retrier: Retrier, prepare: impl Future<Output = ()>, mut batches: B, deliver: D)
where
    B: Batches,
    D: Fn(B::Payload, Turn) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    let Context { id, mut reader, ledger, .. } = ctx;
    let held_bytes_max = HELD_BYTES_MAX.min(reader.share_bytes());
    let mut settlement = Settlement::new(reader.settler(), id);
    let mut ready = VecDeque::new();
    let mut in_flight = JoinSet::new();
    let mut open = true;
    let mut prepare = Some(std::pin::pin!(prepare));
    let over = retrier.shutdown_over();
    let mut over = std::pin::pin!(over);
    while open || batches.due().is_some() || !ready.is_empty() || !in_flight.is_empty() {
        let crowded = settlement.held_bytes >= held_bytes_max;
        if !open || (crowded && ready.is_empty() && in_flight.is_empty()) {
            batches.flush(None, &mut ready);
        }
        let due = batches.due();
        tokio::select! {
            biased;
            () = &mut over => break,
            Some(joined) = in_flight.join_next(), if !in_flight.is_empty() => {
                let (shares, outcome) = unwind(joined);
                account(&ledger, &outcome);
                settlement.done(&shares, &outcome);
            }
            turn = retrier.turn(), if !ready.is_empty() => {
                if let Some(Ready { shares, payload }) = ready.pop_front() {
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
                    if refused > 0 {
                        ledger.lose(Reason::Oversize, refused);
                        settlement.settle(sequence, refused as usize);
                    }
                }
                None => open = false,
            },
        }
    }
    // At the end of a shutdown every task sees it as well and ends at once, perhaps with a part delivered.
    while let Some(joined) = in_flight.join_next().await {
        let (shares, outcome) = unwind(joined);
        account(&ledger, &outcome);
        settlement.done(&shares, &outcome);
    }
}

fn account(ledger: &Ledger, outcome: &Outcome) {
    ledger.deliver(outcome.delivered);
    ledger.truncate(outcome.truncated);
    for &(reason, records) in &outcome.lost {
        ledger.lose(reason, records);
    }
}

/// A panic of a sending task is one of this sink's: carried on, so that it ends loudly and not with records that nobody holds.
fn unwind(joined: Result<Sent, JoinError>) -> Sent {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // Cancelled with the runtime.
        Err(_) => (Vec::new(), Outcome { unfinished: true, ..Outcome::default() }),
    })
}

/// The shares of a batch and what became of it.
type Sent = (Vec<(Sequence, u32)>, Outcome);

/// How many records of each block are without a verdict, for one sink.
struct Settlement {
    settler: Settler,
    sink: usize,
    held: HashMap<Sequence, Held>,
    held_bytes: usize,
}

struct Held {
    records: usize,
    bytes: usize,
}

impl Settlement {
    fn new(settler: Settler, sink: usize) -> Self {
        Self { settler, sink, held: HashMap::new(), held_bytes: 0 }
    }

    fn begin(&mut self, sequence: Sequence, block: &Block) {
        let held = Held { records: block.records_for(self.sink), bytes: block.cost_bytes() };
        self.held_bytes += held.bytes;
        self.held.insert(sequence, held);
    }

    fn done(&mut self, shares: &[(Sequence, u32)], outcome: &Outcome) {
        if outcome.unfinished {
            return;
        }
        debug_assert_eq!(
            shares.iter().map(|(_, records)| u64::from(*records)).sum::<u64>(),
            outcome.delivered + outcome.lost.iter().map(|(_, records)| records).sum::<u64>(),
            "every record of a batch has one verdict"
        );
        for &(sequence, records) in shares {
            self.settle(sequence, records as usize);
        }
    }

    fn settle(&mut self, sequence: Sequence, records: usize) {
        let Some(held) = self.held.get_mut(&sequence) else { return };
        debug_assert!(held.records >= records, "no record has two verdicts");
        held.records = held.records.saturating_sub(records);
        if held.records == 0 {
            self.held_bytes -= held.bytes;
            self.held.remove(&sequence);
            self.settler.settle(sequence);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
