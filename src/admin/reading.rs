//! What the admin endpoints look at ([`View`]), and one look at it ([`Reading`]).

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Config;
use crate::journal::{self, Monitor, Persist, Snapshot};
use crate::redact::{self, Report};
use crate::source::JOURNAL;
use crate::telemetry::account::{Account, Ledger, Reason, Tally, now_ms};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Sockets listen; the journal is being opened, or the sources are about to read.
    Starting,
    /// Records are taken.
    Running,
    /// The end has begun: what peers still write is read, nobody new should come.
    Draining,
}

impl Phase {
    /// Whether records are taken, and will be.
    pub fn is_ready(self) -> bool {
        self == Self::Running
    }

    /// As it stands in answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// The parts of the process that the endpoints look at.
pub struct View {
    account: Account,
    kinds: Kinds,
    phase: AtomicU8,
    journal: OnceLock<Monitor>,
    /// What an earlier run left in the journal, as a source.
    recovered: OnceLock<Arc<Ledger>>,
    /// What was redacted, once records are taken.
    redactions: OnceLock<Arc<Report>>,
    persist: Persist,
    memory_bytes_max: u64,
    disk_bytes_max: u64,
    unhealthy_after: Option<Duration>,
    started: Instant,
    started_ms: u64,
}

/// What the sources and sinks of the account are, in its order.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// Types of the sources.
    pub sources: Vec<&'static str>,
    /// Types of the sinks.
    pub sinks: Vec<&'static str>,
}

impl View {
    /// At the start of a process.
    pub fn new(config: &Config, journal: &journal::Config, account: Account, kinds: Kinds) -> Self {
        Self {
            account,
            kinds,
            phase: AtomicU8::new(Phase::Starting as u8),
            journal: OnceLock::new(),
            recovered: OnceLock::new(),
            redactions: OnceLock::new(),
            persist: journal.persist,
            memory_bytes_max: journal.memory_bytes_max as u64,
            disk_bytes_max: if journal.persist == Persist::Never { 0 } else { journal.disk_bytes_max },
            unhealthy_after: config.unhealthy_after,
            started: Instant::now(),
            started_ms: now_ms(),
        }
    }

    /// The journal is open, perhaps with what an earlier run left.
    pub fn journal_is_open(&self, monitor: Monitor, recovered: Option<Arc<Ledger>>) {
        // There is one journal, opened once.
        self.journal.set(monitor).ok();
        recovered.map(|ledger| self.recovered.set(ledger)).transpose().ok();
    }

    /// Where redactions are counted.
    pub fn redacts(&self, report: Arc<Report>) {
        // There is one pipeline, made once.
        self.redactions.set(report).ok();
    }

    /// The process goes on to its next phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Where the process is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Running as u8 => Phase::Running,
            _ => Phase::Draining,
        }
    }

    /// Since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// What each sink has lost for these reasons.
    pub(super) fn losses<const N: usize>(&self, reasons: [Reason; N]) -> Vec<[u64; N]> {
        let tallies = self.account.sinks.iter().map(|ledger| ledger.tally());
        tallies.map(|tally| reasons.map(|reason| tally.lost[reason as usize])).collect()
    }

    #[cfg(test)]
    pub(super) fn lose_for_tests(&self, reason: Reason) {
        self.account.sinks[0].receive(1);
        self.account.sinks[0].lose(reason, 1);
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        let account = Account {
            sources: vec![Ledger::new("forward").into()],
            sinks: vec![Ledger::new("dead").into(), Ledger::new("live").into()],
        };
        account.sources[0].receive(10);
        account.sources[0].lose(Reason::Rule, 1);
        account.sources[0].hand_on(9);
        for sink in &account.sinks {
            sink.receive(9);
        }
        account.sinks[0].lose(Reason::Refused, 2);
        account.sinks[1].deliver(8);
        account.sinks[1].truncate(1);
        let kinds = Kinds { sources: vec!["forward"], sinks: vec!["firehose", "discard"] };
        Self::new(&Config::default(), &journal::Config::default(), account, kinds)
    }
}

/// The process at one moment.
pub struct Reading {
    pub(super) phase: Phase,
    pub(super) uptime: Duration,
    pub(super) started_ms: u64,
    pub(super) sources: Vec<Part>,
    pub(super) sinks: Vec<Part>,
    pub(super) persist: Persist,
    pub(super) memory_bytes_max: u64,
    pub(super) disk_bytes_max: u64,
    /// None while it is being opened.
    pub(super) journal: Option<Snapshot>,
    pub(super) resources: Resources,
    /// What was redacted, by rule and field.
    pub(super) redactions: Vec<redact::Line>,
    pub(super) unhealthy_after: Option<Duration>,
}

/// A source or sink at one moment.
pub struct Part {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) tally: Tally,
    /// Of a source.
    pub(super) connections_refused: u64,
    pub(super) unparsed: u64,
    /// Of a sink.
    pub(super) last_delivered_ms: Option<u64>,
    /// Of a sink: how long its oldest pending record has waited; none if nothing is pending.
    pub(super) oldest_pending: Option<Duration>,
}

impl Part {
    /// What it is, as `type` in the configuration.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

impl Reading {
    /// Looks at everything once.
    pub fn of(view: &View) -> Self {
        let journal = view.journal.get().map(Monitor::snapshot);
        let now_ms = now_ms();
        let part = |ledger: &Ledger, kind, oldest_ms: Option<i64>| {
            let tally = ledger.tally();
            let waited =
                oldest_ms.map(|ms| Duration::from_millis(now_ms.saturating_sub(u64::try_from(ms).unwrap_or(0))));
            Part {
                name: ledger.name.to_string(),
                kind,
                tally,
                connections_refused: ledger.connections_refused(),
                unparsed: ledger.unparsed(),
                last_delivered_ms: ledger.last_delivered_ms(),
                // The journal was asked a moment before the tally.
                oldest_pending: waited.filter(|_| tally.pending() > 0),
            }
        };
        let sources = view.account.sources.iter().zip(view.kinds.sources.iter().copied());
        let sources = sources.chain(view.recovered.get().map(|ledger| (ledger, JOURNAL)));
        let oldest = |sink: usize| journal.as_ref()?.oldest_pending_ms.get(sink).copied().flatten();
        let sinks = view.account.sinks.iter().zip(&view.kinds.sinks).enumerate();
        Self {
            phase: view.phase(),
            uptime: view.uptime(),
            started_ms: view.started_ms,
            sources: sources.map(|(ledger, kind)| part(ledger, kind, None)).collect(),
            sinks: sinks.map(|(sink, (ledger, kind))| part(ledger, *kind, oldest(sink))).collect(),
            persist: view.persist,
            memory_bytes_max: view.memory_bytes_max,
            disk_bytes_max: view.disk_bytes_max,
            resources: Resources::read(),
            redactions: match view.redactions.get() {
                Some(report) => report.lines().collect(),
                None => Report::default().lines().collect(),
            },
            unhealthy_after: view.unhealthy_after,
            journal,
        }
    }

    /// Whether no sink is stalled.
    pub fn is_healthy(&self) -> bool {
        !self.sinks.iter().any(|sink| self.is_stalled(sink))
    }

    pub(super) fn is_stalled(&self, sink: &Part) -> bool {
        self.unhealthy_after.is_some_and(|limit| sink.oldest_pending.is_some_and(|waited| waited > limit))
    }
}

/// What the process has of the machine, as far as the system tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resources {
    /// User and system time.
    pub(super) cpu: Option<Duration>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
}

/// Kernel clock ticks in `/proc` (`USER_HZ`, 100 on every architecture that Linux runs on by default).
const TICK: Duration = Duration::from_millis(10);

impl Resources {
    fn read() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let resident_kib =
            field(&read("status"), "VmRSS:").and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
        let open_files_max =
            field(&read("limits"), "Max open files").and_then(|limits| limits.split_whitespace().next()?.parse().ok());
        Self {
            cpu: cpu(&read("stat")),
            resident_bytes: resident_kib.map(|kib| kib << 10),
            // One of them is the directory that is being read.
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
            open_files_max,
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The 14th and 15th fields; the second is a name in brackets that may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * TICK.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_this_process_has() {
        let Resources { cpu, resident_bytes, open_files, open_files_max } = Resources::read();
        assert!(cpu.is_some() && resident_bytes > Some(1 << 20));
        assert!(open_files >= Some(3) && open_files_max >= open_files, "{open_files:?} {open_files_max:?}");
    }

    #[test]
    fn times_stand_behind_the_name_whatever_it_is() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 25 0 0 20 0";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(cpu("nothing"), None);
    }
}
