use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::testing::{Line, Rig, block};
use super::*;
use crate::sink::aws::{Failure, Kind};
use crate::sink::retry;
use crate::telemetry::account::{Fate, REASONS};

/// Batches of up to three lines; a line "huge" is too large.
struct Threes {
    lines: Vec<String>,
    shares: Shares,
    /// Given to every batch.
    target: Option<u64>,
    due: Option<Instant>,
    timeout: Duration,
    /// Blocks added.
    seen: Arc<AtomicUsize>,
}

impl Threes {
    fn new(timeout: Duration) -> Self {
        Self { lines: Vec::new(), shares: Shares::default(), target: None, due: None, timeout, seen: Arc::default() }
    }
}

impl Batches for Threes {
    type Payload = Vec<String>;

    fn add(
        &mut self,
        sequence: Sequence,
        block: &Arc<Block>,
        ready: &mut VecDeque<Ready<Vec<String>>>,
    ) -> Vec<(u32, Reason)> {
        self.seen.fetch_add(1, Relaxed);
        let mut refused = Vec::new();
        for (i, entry) in block.index.iter().enumerate() {
            let line = std::str::from_utf8(block.line(i)).unwrap().trim_end().to_owned();
            if entry.sinks & 1 == 0 {
                continue;
            }
            if line == "huge" {
                refused.push((i as u32, Reason::Oversize));
                continue;
            }
            self.lines.push(line);
            self.shares.add_run(sequence, i as u32..i as u32 + 1);
            self.due.get_or_insert(Instant::now() + self.timeout);
            if self.lines.len() == 3 {
                self.flush(None, ready);
            }
        }
        refused
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, until: Option<Instant>, ready: &mut VecDeque<Ready<Vec<String>>>) {
        if self.due.is_some_and(|due| until.is_none_or(|until| due <= until)) {
            self.due = None;
            ready.push_back(Ready {
                shares: std::mem::take(&mut self.shares),
                target: self.target,
                payload: std::mem::take(&mut self.lines),
            });
        }
    }
}

fn quick() -> retry::Config {
    retry::Config {
        base: Duration::from_millis(1),
        cap: Duration::from_millis(4),
        give_up_after: Some(Duration::from_millis(60)),
        request_timeout: Duration::from_secs(20),
    }
}

/// A destination that remembers what it took, and fails by a script: the text of a line says what happens to its batch.
#[derive(Default)]
struct Destination {
    taken: Mutex<Vec<String>>,
    attempts: Mutex<BTreeMap<String, u32>>,
}

impl Destination {
    fn answer(&self, lines: &[String]) -> Result<(), Failure> {
        let first = lines[0].clone();
        let attempt = *self.attempts.lock().unwrap().entry(first.clone()).and_modify(|n| *n += 1).or_insert(1);
        let failure = |kind| Err(Failure::new(kind, "scripted"));
        match first.split('-').next().unwrap() {
            "refuse" => failure(Kind::Refused),
            "dead" => failure(Kind::Transient),
            "throttle" if attempt < 4 => failure(Kind::Throttled),
            "later" if attempt < 3 => failure(Kind::Credentials),
            _ => {
                self.taken.lock().unwrap().extend_from_slice(lines);
                Ok(())
            }
        }
    }
}

async fn send(destination: Arc<Destination>, retrier: Retrier, lines: Vec<String>, mut turn: Turn) -> Outcome {
    loop {
        let Err(failure) = turn.attempt(async { destination.answer(&lines) }).await else {
            return Outcome::delivered(lines.len() as u64, 0);
        };
        if let Err(end) = turn.pause(&failure).await {
            let Some(reason) = reason_of(end) else { return Outcome::unsaid() };
            let mut outcome = Outcome::default();
            outcome.lose(reason, lines.len() as u64);
            retrier.report_loss(reason, lines.len() as u64, &failure);
            return outcome;
        }
    }
}

fn start(ctx: Context, retrier: Retrier, timeout: Duration) -> (Arc<Destination>, tokio::task::JoinHandle<()>) {
    let destination = Arc::new(Destination::default());
    let (to, by) = (destination.clone(), retrier.clone());
    let deliver = move |lines, turn| send(to.clone(), by.clone(), lines, turn);
    let running = tokio::spawn(run(ctx, retrier, std::future::ready(()), Threes::new(timeout), deliver));
    (destination, running)
}

#[tokio::test]
async fn every_record_gets_one_verdict_and_every_block_is_settled() {
    let (mut rig, ctx) = Rig::new();
    let retrier = Retrier::new("test".into(), quick(), 3, ctx.deadline.clone());
    let (destination, running) = start(ctx, retrier, Duration::from_secs(600));
    let texts = [
        "a",
        "b",
        "huge",
        "c",
        "refuse-1",
        "d",
        "e",
        "throttle-1",
        "f",
        "g",
        "dead-1",
        "h",
        "huge",
        "i",
        "later-1",
        "j",
    ];
    for pair in texts.chunks(2) {
        let lines: Vec<Line> = pair.iter().map(|text| Line::new(0, *text)).collect();
        rig.append(block(&lines)).await;
    }
    // A record for another sink in the same block is not ours.
    rig.append(block(&[Line { sinks: 2, ..Line::new(0, "other") }, Line::new(0, "k")])).await;
    rig.close();
    running.await.unwrap();

    let tally = rig.settled();
    let mut lost = [0; REASONS];
    lost[Reason::Oversize as usize] = 2;
    lost[Reason::Refused as usize] = 3;
    lost[Reason::RetriesExhausted as usize] = 3;
    assert_eq!((tally.received, tally.lost), (17, lost));
    let mut taken = destination.taken.lock().unwrap().clone();
    taken.sort();
    assert_eq!(taken, ["a", "b", "c", "f", "g", "j", "k", "later-1", "throttle-1"]);
    assert_eq!(tally.delivered, taken.len() as u64);
    assert_eq!(rig.settler.watermark(), 9);
}

#[tokio::test]
async fn an_open_batch_is_sent_when_it_is_due() {
    let (mut rig, ctx) = Rig::new();
    let retrier = Retrier::new("test".into(), quick(), 1, ctx.deadline.clone());
    let (_, running) = start(ctx, retrier, Duration::from_millis(5));
    rig.append(block(&[Line::new(0, "alone")])).await;
    while rig.ledger.tally().delivered == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(rig.settled().delivered, 1);
    rig.close();
    running.await.unwrap();
}

#[tokio::test]
async fn a_dead_destination_holds_a_bounded_part_of_the_journal() {
    let (mut rig, ctx) = Rig::new();
    let held_bytes_max = ctx.reader.held_bytes_max();
    let retrier = Retrier::new("test".into(), quick(), 2, ctx.deadline.clone());
    let (seen, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let batches = Threes { seen: seen.clone(), ..Threes::new(Duration::from_secs(600)) };
    let gate = opened.clone();
    let deliver = move |lines: Vec<String>, _turn: Turn| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Outcome::delivered(lines.len() as u64, 0)
        }
    };
    let running = tokio::spawn(run(ctx, retrier, std::future::ready(()), batches, deliver));
    for _ in 0..8 {
        rig.append(block(&[Line::new(0, "x".repeat(held_bytes_max / 4))])).await;
    }
    while seen.load(Relaxed) < 4 {
        tokio::task::yield_now().await;
    }
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    // Four blocks are all it holds; the batch is not full and not due, and goes out since nothing else can.
    assert_eq!(seen.load(Relaxed), 4);
    opened.add_permits(100);
    rig.close();
    running.await.unwrap();
    assert_eq!((rig.settled().delivered, seen.load(Relaxed)), (8, 8));
}

#[tokio::test]
async fn a_shutdown_ends_on_time_and_leaves_the_rest_pending() {
    let (mut rig, ctx) = Rig::new();
    let config = retry::Config {
        base: Duration::from_secs(600),
        cap: Duration::from_secs(600),
        give_up_after: None,
        ..retry::Config::default()
    };
    let retrier = Retrier::new("test".into(), config, 2, ctx.deadline.clone());
    let (_, running) = start(ctx, retrier, Duration::ZERO);
    rig.append(block(&[Line::new(0, "a"), Line::new(0, "b"), Line::new(0, "c")])).await;
    rig.append(block(&[Line::new(0, "dead-1"), Line::new(0, "d"), Line::new(0, "huge")])).await;
    rig.close();
    let begun = std::time::Instant::now();
    rig.deadline.send(Some(Instant::now() + Duration::from_millis(300))).unwrap();
    running.await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(250) && begun.elapsed() < Duration::from_secs(20));
    let tally = rig.ledger.tally();
    assert_eq!((tally.received, tally.delivered, tally.of(Fate::Rejected), tally.pending()), (6, 3, 1, 2));
    assert_eq!(rig.settler.watermark(), 1);
}

#[tokio::test]
async fn nothing_is_prepared_before_the_first_block() {
    let (mut rig, ctx) = Rig::new();
    let retrier = Retrier::new("test".into(), quick(), 1, ctx.deadline.clone());
    let deliver = |lines: Vec<String>, _turn| async move { Outcome::delivered(lines.len() as u64, 0) };
    rig.close();
    run(ctx, retrier, std::future::pending(), Threes::new(Duration::ZERO), deliver).await;
    assert_eq!(rig.settled().received, 0);
}
