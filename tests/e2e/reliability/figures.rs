//! What a row came to, and whether it holds: sender, fake and the router's own account are laid side by side.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::super::process::Part;
use super::super::traffic::{MARK, Seen};
use super::scene::Scene;
use super::{MEMORY_MIB, MEMORY_MORE_MIB, Persist};

/// An answer handed to its socket this shortly before connections were cut may not have been read, or not been acted on: the
/// request counts as in flight.
pub const IN_FLIGHT: Duration = Duration::from_millis(250);

/// One line of the table.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub row: &'static str,
    pub to: String,
    pub persist: &'static str,
    pub sent: u64,
    pub acked: u64,
    /// Distinct records, in the destination that has the fewest.
    pub delivered: u64,
    /// Records missing, over all destinations.
    pub lost: u64,
    pub acked_lost: u64,
    /// Records that the router says it dropped or saw rejected.
    pub dropped: u64,
    pub duplicates: u64,
    /// Duplicates whose earlier request's answer never arrived, or which the sender sent twice.
    pub explained: u64,
    /// How long before a cut an answer was given whose records had to be repeated, for each copy, in order.
    pub in_flight: Vec<Duration>,
    pub peak_kib: u64,
    pub recovery: Option<Duration>,
    /// What does not hold; nothing, if all is well.
    pub problems: Vec<String>,
}

/// The heading of the table.
pub const HEADING: &str = "\
| fault | to | journal | sent | acked | delivered | lost | acked lost | dropped | duplicates | explained | peak MiB | recovered in s |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Figures {
    /// As a line of the table.
    pub fn line(&self) -> String {
        let mut line = format!("| {} | {} | {} |", self.row, self.to, self.persist);
        let counts = [
            self.sent,
            self.acked,
            self.delivered,
            self.lost,
            self.acked_lost,
            self.dropped,
            self.duplicates,
            self.explained,
        ];
        for count in counts {
            write!(line, " {} |", grouped(count)).unwrap();
        }
        let recovery = self.recovery.map_or_else(|| "never".into(), |time| format!("{:.1}", time.as_secs_f64()));
        write!(line, " {:.0} | {recovery} |", self.peak_kib as f64 / 1024.0).unwrap();
        line
    }
}

/// What one destination got.
struct Sums {
    lost: u64,
    acked_lost: u64,
    duplicates: u64,
    unexplained: u64,
    in_flight: Vec<Duration>,
    /// Records taken, each as often as it was.
    taken: u64,
    /// Of these, in requests that were certainly never answered.
    unanswered_min: u64,
    /// The same with those that were in flight when connections were cut.
    unanswered_max: u64,
}

/// Whether an answer given at `at` may have been lost in a cut, and how long before the cut it was given.
fn cut_off(scene: &Scene, at: Instant) -> Option<Duration> {
    let cut = scene.cuts.iter().find(|cut| at + IN_FLIGHT >= cut.from && at <= cut.until)?;
    Some(cut.from.saturating_duration_since(at))
}

fn sums(scene: &Scene, sink: Seen) -> Sums {
    let sent = scene.tally.sent();
    let missing = |n: &u64| !scene.witness.has(sink, *n);
    let mut sums = Sums {
        lost: (0..sent).filter(missing).count() as u64,
        acked_lost: (0..sent).filter(missing).filter(|n| scene.tally.is_acked(*n)).count() as u64,
        duplicates: scene.witness.verdict(sink).duplicated,
        unexplained: 0,
        in_flight: Vec::new(),
        taken: 0,
        unanswered_min: 0,
        unanswered_max: 0,
    };
    // By record: copies, and those of them whose request's answer arrived for sure.
    let (mut copies, mut answered) = (vec![0u64; sent as usize], vec![0u64; sent as usize]);
    let mut in_flight: Vec<(u32, Duration)> = Vec::new();
    for (n, request) in scene.witness.takes(sink) {
        sums.taken += 1;
        copies[n as usize] += 1;
        match scene.fake.answered(request) {
            None => (sums.unanswered_min, sums.unanswered_max) = (sums.unanswered_min + 1, sums.unanswered_max + 1),
            Some(at) => match cut_off(scene, at) {
                Some(before) => {
                    sums.unanswered_max += 1;
                    in_flight.push((n, before));
                }
                None => answered[n as usize] += 1,
            },
        }
    }
    // An object is known by its name: that its answer was lost explains no second one.
    let counted = if sink == Seen::S3 { &copies } else { &answered };
    sums.unexplained = (0..sent).map(|n| counted[n as usize].saturating_sub(scene.tally.sends(n).max(1))).sum();
    let again = in_flight.into_iter().filter(|(n, _)| copies[*n as usize] > scene.tally.sends(u64::from(*n)));
    sums.in_flight = again.map(|(_, before)| before).collect();
    sums
}

fn part_name(sink: Seen) -> &'static str {
    match sink {
        Seen::Logs => "cloudwatch",
        Seen::Firehose => "firehose",
        _ => "s3",
    }
}

/// Lays the account of one destination beside what the sender and the fake counted.
fn compare(scene: &Scene, sink: Seen, part: &Part, sums: &Sums, problems: &mut Vec<String>) {
    let mut check = |holds: bool, what: String| {
        if !holds {
            problems.push(format!("{sink:?}: {what}; account: {part:?}"));
        }
    };
    let (sent, written) = (scene.tally.sent(), scene.tally.written());
    let received = part.of("received");
    check((sent..=written).contains(&received), format!("received {received}, sender: {sent} sent, {written} written"));
    // The fake takes an object under its name once; the router delivers what is in it once, whoever told it so.
    let (least, most) = match sink {
        Seen::S3 => (sums.taken, sums.taken),
        _ => (sums.taken - sums.unanswered_max, sums.taken - sums.unanswered_min),
    };
    let delivered = part.of("delivered");
    check((least..=most).contains(&delivered), format!("delivered {delivered}, fake: {least} to {most}"));
}

/// Adds up a row that has come to its end.
pub fn judge(row: &'static str, scene: &Scene, may_lose_unacked: bool) -> Figures {
    let names: Vec<&str> = scene.to.iter().map(|sink| part_name(*sink)).collect();
    let mut figures = Figures {
        row,
        to: if names.len() == 3 { "all three".into() } else { names.join(", ") },
        persist: scene.persist.label(),
        sent: scene.tally.sent(),
        acked: scene.tally.acked(),
        delivered: u64::MAX,
        peak_kib: scene.peak_kib,
        recovery: scene.recovery,
        ..Figures::default()
    };
    let mut problems = Vec::new();
    let Some(exit) = scene.exits.last() else {
        figures.problems.push("the router never ended".into());
        return figures;
    };
    // Half a message, left when its sender cut the connection, is counted: nobody can know that it comes again, whole.
    let halves = exit.account.detail("dropped", "forward.malformed_frame");
    let may_have_halves = scene.client.is_cut();
    let code = if halves > 0 { 3 } else { 0 };
    if exit.code != Some(code) {
        problems.push(format!("exit code {:?}", exit.code));
    }
    exit.account.assert_adds_up();
    let mut unexplained = 0;
    for sink in scene.to {
        let sums = sums(scene, *sink);
        figures.delivered = figures.delivered.min(scene.witness.arrived(*sink));
        figures.lost += sums.lost;
        figures.acked_lost += sums.acked_lost;
        figures.duplicates += sums.duplicates;
        figures.in_flight.extend(&sums.in_flight);
        unexplained += sums.unexplained;
        let verdict = scene.witness.verdict(*sink);
        if verdict.altered > 0 {
            problems.push(format!("{sink:?}: {verdict:?}"));
        }
        let part = exit.account.part(part_name(*sink));
        // A router that was killed took its account with it.
        if scene.kills == 0 {
            compare(scene, *sink, part, &sums, &mut problems);
        }
    }
    figures.in_flight.sort_unstable();
    figures.explained = figures.duplicates.saturating_sub(unexplained);
    figures.dropped = ["dropped", "rejected"].into_iter().map(|word| exit.account.total(word)).sum::<u64>() - halves;
    let pending = exit.account.total("pending");
    let unacked = figures.sent - figures.acked;
    // For the table's rows: with many kills, what each life left open in S3 is there at once.
    let limit_mib = MEMORY_MIB + MEMORY_MORE_MIB;
    for (holds, what) in [
        (figures.acked_lost == 0, "acknowledged records are lost"),
        (figures.lost == 0 || (may_lose_unacked && figures.lost <= unacked * names.len() as u64), "records are lost"),
        (unacked == 0 || may_lose_unacked, "records were never acknowledged"),
        (figures.dropped == 0, "records were dropped or rejected"),
        (halves == 0 || may_have_halves, "messages were dropped"),
        (pending == 0, "records are pending at the end"),
        (unexplained <= scene.repeats_max, "duplicates that nothing explains"),
        (figures.recovery.is_some() || may_lose_unacked, "it never recovered"),
        (figures.peak_kib <= limit_mib * 1024 || scene.kills > 1, "more memory than promised"),
        (scene.fake.leaks().is_empty(), "a query string was sent"),
        (!exit.stderr.contains(MARK), "a query string was said"),
    ] {
        if !holds {
            problems.push(what.to_owned());
        }
    }
    if !problems.is_empty() {
        problems.push(format!("{} duplicates unexplained; the router said:\n{}", unexplained, tail(&exit.stderr)));
    }
    figures.problems = problems;
    figures
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

impl Persist {
    /// As the table names it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Positions => "positions",
            Self::Always => "always",
        }
    }
}
