//! The account: where every record is, by source and by sink.
//!
//! One identity holds at any moment, per source and per sink:
//! `received = delivered + filtered + rejected + dropped + pending`.
//! For a source, *delivered + rejected + pending* of its records is what it routed on; a sink's *received* is what was routed to it.
//! Counters are atomics, added to once a block or a request, never once a record.
//!
//! *Pending* is no counter but what is left. It cannot become negative, whoever looks and when: a record is received before it has
//! a fate, fates are written with release and read with acquire, and *received* is read last. So whoever sees a record's fate
//! sees that it was received, and what came in between shows as pending.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why records were lost (dropped), refused by a destination (rejected), or left out by the user's wish (filtered).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Dropped: the journal was full and `journal.when_full` is `drop_oldest`.
    JournalFull,
    /// Dropped: an entry of a forward message that is not `[time, record]`.
    MalformedEntry,
    /// Dropped: a frame that could not be decoded; its records are not known, so it counts once.
    MalformedFrame,
    /// Dropped: larger than a limit of ours (frame, decompressed size, line).
    TooLarge,
    /// Rejected: larger than the service takes and `oversize = "reject"`.
    Oversize,
    /// Rejected: older than the service takes.
    TooOld,
    /// Rejected: further in the future than the service takes.
    TooNew,
    /// Rejected: older than the group's retention.
    Expired,
    /// Rejected: the service refused the request for ever.
    Refused,
    /// Dropped: the retry budget ended.
    RetriesExhausted,
    /// Dropped: it waited on disk for a sink that the configuration does not have any more.
    SinkRemoved,
    /// Dropped: a part of the journal on disk could not be read; its records are not known, so each gap counts once.
    Corrupt,
    /// Dropped: its output is of a kind that this program does not have.
    UnsupportedOutput,
    /// Filtered: a rule drops it, or no rule matches.
    Rule,
    /// Filtered: left out by sampling.
    Sampled,
    /// Filtered: the one field that is sent of a record is empty, and its service takes nothing empty.
    Empty,
    /// Filtered: it became part of a record that was put together from several lines.
    Joined,
    /// Filtered: its message came again because the acknowledgement did not arrive; it was taken in before.
    Duplicate,
    /// Filtered: a line of this process's own log, which came back to it.
    OwnLog,
}

/// Number of [`Reason`]s.
pub const REASONS: usize = Reason::OwnLog as usize + 1;

/// What becomes of a record for a given reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The user asked for it to be left out, or it is there already.
    Filtered,
    /// The destination refused it.
    Rejected,
    /// We had to lose it.
    Dropped,
}

impl Fate {
    /// All of them, in the order of the identity.
    pub const ALL: [Self; 3] = [Self::Filtered, Self::Rejected, Self::Dropped];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
        }
    }
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; REASONS] = [
        Self::JournalFull,
        Self::MalformedEntry,
        Self::MalformedFrame,
        Self::TooLarge,
        Self::Oversize,
        Self::TooOld,
        Self::TooNew,
        Self::Expired,
        Self::Refused,
        Self::RetriesExhausted,
        Self::SinkRemoved,
        Self::Corrupt,
        Self::UnsupportedOutput,
        Self::Rule,
        Self::Sampled,
        Self::Empty,
        Self::Joined,
        Self::Duplicate,
        Self::OwnLog,
    ];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::JournalFull => "journal_full",
            Self::MalformedEntry => "malformed_entry",
            Self::MalformedFrame => "malformed_frame",
            Self::TooLarge => "too_large",
            Self::Oversize => "oversize",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::RetriesExhausted => "retries_exhausted",
            Self::SinkRemoved => "sink_removed",
            Self::Corrupt => "corrupt",
            Self::UnsupportedOutput => "unsupported_output",
            Self::Rule => "rule",
            Self::Sampled => "sampled",
            Self::Empty => "empty",
            Self::Joined => "joined",
            Self::Duplicate => "repeated",
            Self::OwnLog => "own_log",
        }
    }

    /// Filtered, rejected or dropped.
    pub const fn fate(self) -> Fate {
        match self {
            Self::Rule | Self::Sampled | Self::Empty | Self::Joined | Self::Duplicate | Self::OwnLog => Fate::Filtered,
            Self::Oversize | Self::TooOld | Self::TooNew | Self::Expired | Self::Refused => Fate::Rejected,
            Self::JournalFull
            | Self::MalformedEntry
            | Self::MalformedFrame
            | Self::TooLarge
            | Self::RetriesExhausted
            | Self::SinkRemoved
            | Self::Corrupt
            | Self::UnsupportedOutput => Fate::Dropped,
        }
    }
}

/// Counters of one source or one sink.
#[derive(Debug)]
pub struct Ledger {
    /// Its name in the configuration.
    pub name: Arc<str>,
    received: AtomicU64,
    delivered: AtomicU64,
    truncated: AtomicU64,
    lost: [AtomicU64; REASONS],
    connections_refused: AtomicU64,
    unparsed: AtomicU64,
    /// Milliseconds since 1970 UTC; 0 = never.
    last_delivered_ms: AtomicU64,
}

impl Ledger {
    /// All zero.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            received: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
            lost: [const { AtomicU64::new(0) }; REASONS],
            connections_refused: AtomicU64::new(0),
            unparsed: AtomicU64::new(0),
            last_delivered_ms: AtomicU64::new(0),
        }
    }

    /// Source: records read. Sink: records routed to it.
    pub fn receive(&self, records: u64) {
        self.received.fetch_add(records, Relaxed);
    }

    /// Source: records handed to the journal.
    pub fn hand_on(&self, records: u64) {
        self.delivered.fetch_add(records, Release);
    }

    /// Sink: records the destination took, just now. Reads the clock: once a request or block.
    pub fn deliver(&self, records: u64) {
        if records > 0 {
            self.last_delivered_ms.fetch_max(now_ms(), Relaxed);
            self.delivered.fetch_add(records, Release);
        }
    }

    /// Records that were not delivered, and why.
    pub fn lose(&self, reason: Reason, records: u64) {
        self.lost[reason as usize].fetch_add(records, Release);
    }

    /// Records that were cut to the service's limit; they count as delivered as well.
    pub fn truncate(&self, records: u64) {
        self.truncated.fetch_add(records, Relaxed);
    }

    /// Source: a connection was closed at once because there are too many.
    pub fn refuse_connection(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    /// Source: records whose line begins as an access log and has none of the formats; they have a fate as well.
    pub fn leave_unparsed(&self, records: u64) {
        if records > 0 {
            self.unparsed.fetch_add(records, Relaxed);
        }
    }

    /// See [`Self::leave_unparsed`].
    pub fn unparsed(&self) -> u64 {
        self.unparsed.load(Relaxed)
    }

    /// See [`Self::refuse_connection`]; what they would have brought is not known.
    pub fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Relaxed)
    }

    /// When the destination last took records, in milliseconds since 1970 UTC; none if never.
    pub fn last_delivered_ms(&self) -> Option<u64> {
        Some(self.last_delivered_ms.load(Relaxed)).filter(|ms| *ms > 0)
    }

    /// The counters now.
    pub fn tally(&self) -> Tally {
        let lost = std::array::from_fn(|i| self.lost[i].load(Acquire));
        Tally {
            delivered: self.delivered.load(Acquire),
            truncated: self.truncated.load(Relaxed),
            lost,
            // Last: what was received meanwhile shows as pending, never as a negative.
            received: self.received.load(Relaxed),
        }
    }
}

/// Milliseconds since 1970 UTC.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Counters of one ledger at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// See [`Ledger::receive`].
    pub received: u64,
    /// See [`Ledger::hand_on`] and [`Ledger::deliver`].
    pub delivered: u64,
    /// See [`Ledger::truncate`].
    pub truncated: u64,
    /// By [`Reason`].
    pub lost: [u64; REASONS],
}

impl Tally {
    /// Records of that fate.
    pub fn of(&self, fate: Fate) -> u64 {
        Reason::ALL.into_iter().filter(|reason| reason.fate() == fate).map(|reason| self.lost[reason as usize]).sum()
    }

    /// Received, and nothing said of it yet.
    pub fn pending(&self) -> u64 {
        self.received.saturating_sub(self.delivered + self.lost.iter().sum::<u64>())
    }
}

impl fmt::Display for Tally {
    /// `received 10 delivered 8 filtered 1 rejected 0 dropped 1 (journal_full 1) pending 0`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {} delivered {}", self.received, self.delivered)?;
        for fate in Fate::ALL {
            write!(f, " {} {}", fate.label(), self.of(fate))?;
            let mut reasons = Reason::ALL
                .into_iter()
                .filter(|reason| reason.fate() == fate && self.lost[*reason as usize] > 0)
                .map(|reason| format!("{} {}", reason.label(), self.lost[reason as usize]))
                .peekable();
            if reasons.peek().is_some() {
                write!(f, " ({})", reasons.collect::<Vec<_>>().join(", "))?;
            }
        }
        if self.truncated > 0 {
            write!(f, " truncated {}", self.truncated)?;
        }
        write!(f, " pending {}", self.pending())
    }
}

/// The ledgers of a running process.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// By [`crate::chunk::SourceId`].
    pub sources: Vec<Arc<Ledger>>,
    /// By sink number.
    pub sinks: Vec<Arc<Ledger>>,
}

impl fmt::Display for Account {
    /// One line: the total of each fate, and in brackets where it happened.
    ///
    /// `received=10 delivered=19 (cw=10 s3=9) filtered=0 rejected=1 (s3.too_old=1) dropped=0 pending=0`
    ///
    /// *received* counts each record once; the fates after routing count it once for each sink it went to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tallies = |ledgers: &[Arc<Ledger>]| {
            ledgers.iter().map(|ledger| (ledger.name.clone(), ledger.tally())).collect::<Vec<_>>()
        };
        let sources = tallies(&self.sources);
        let sinks = tallies(&self.sinks);
        write!(f, "received={}", sources.iter().map(|(_, tally)| tally.received).sum::<u64>())?;
        let delivered: Vec<_> = sinks.iter().map(|(name, tally)| format!("{name}={}", tally.delivered)).collect();
        write!(
            f,
            " delivered={} ({})",
            sinks.iter().map(|(_, tally)| tally.delivered).sum::<u64>(),
            delivered.join(" ")
        )?;
        for fate in Fate::ALL {
            let mut total = 0;
            let mut details = Vec::new();
            for (name, tally) in sources.iter().chain(&sinks) {
                total += tally.of(fate);
                for reason in Reason::ALL.into_iter().filter(|reason| reason.fate() == fate) {
                    let records = tally.lost[reason as usize];
                    if records > 0 {
                        details.push(format!("{name}.{}={records}", reason.label()));
                    }
                }
            }
            write_total(f, fate.label(), total, &details)?;
        }
        let pending =
            |(name, tally): &(Arc<str>, Tally)| (tally.pending() > 0).then(|| format!("{name}={}", tally.pending()));
        let details: Vec<_> = sources.iter().chain(&sinks).filter_map(pending).collect();
        write_total(f, "pending", sources.iter().chain(&sinks).map(|(_, tally)| tally.pending()).sum(), &details)?;
        let truncated: u64 = sources.iter().chain(&sinks).map(|(_, tally)| tally.truncated).sum();
        if truncated > 0 { write!(f, " truncated={truncated}") } else { Ok(()) }
    }
}

fn write_total(f: &mut fmt::Formatter<'_>, word: &str, total: u64, details: &[String]) -> fmt::Result {
    write!(f, " {word}={total}")?;
    if details.is_empty() { Ok(()) } else { write!(f, " ({})", details.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_adds_up_and_reads_well() {
        let ledger = Ledger::new("s");
        ledger.receive(10);
        ledger.deliver(6);
        ledger.lose(Reason::Rule, 1);
        ledger.lose(Reason::TooOld, 2);
        let tally = ledger.tally();
        assert_eq!(tally.pending(), 1);
        assert_eq!(
            tally.to_string(),
            "received 10 delivered 6 filtered 1 (rule 1) rejected 2 (too_old 2) dropped 0 pending 1"
        );
    }

    #[test]
    fn nobody_sees_a_fate_before_its_record_was_received() {
        let ledger = Ledger::new("s");
        std::thread::scope(|scope| {
            let writers = [0, 1].map(|which| {
                let ledger = &ledger;
                scope.spawn(move || {
                    for _ in 0..100_000 {
                        ledger.receive(2);
                        ledger.deliver(1);
                        ledger.lose(if which == 0 { Reason::Refused } else { Reason::Sampled }, 1);
                    }
                })
            });
            while !writers.iter().all(|writer| writer.is_finished()) {
                let tally = ledger.tally();
                let fates = tally.delivered + tally.lost.iter().sum::<u64>();
                assert!(tally.received >= fates, "{tally:?}");
            }
        });
        assert_eq!((ledger.tally().received, ledger.tally().pending()), (400_000, 0));
    }

    #[test]
    fn only_a_delivery_counts_as_one() {
        let ledger = Ledger::new("s");
        ledger.hand_on(1);
        ledger.deliver(0);
        assert_eq!(ledger.last_delivered_ms(), None);
        let before = now_ms();
        ledger.deliver(1);
        assert!(ledger.last_delivered_ms() >= Some(before));
    }

    #[test]
    fn the_account_is_one_line_of_fixed_words() {
        let (source, fast, slow) = (Ledger::new("forward"), Ledger::new("cw"), Ledger::new("s3"));
        source.receive(12);
        source.lose(Reason::Rule, 2);
        source.hand_on(10);
        for sink in [&fast, &slow] {
            sink.receive(10);
        }
        fast.deliver(10);
        slow.deliver(6);
        slow.lose(Reason::TooOld, 1);
        let account = Account { sources: vec![source.into()], sinks: vec![fast.into(), slow.into()] };
        assert_eq!(
            account.to_string(),
            "received=12 delivered=16 (cw=10 s3=6) filtered=2 (forward.rule=2) rejected=1 (s3.too_old=1) dropped=0 \
             pending=3 (s3=3)"
        );
    }

    #[test]
    fn every_reason_stands_at_its_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
