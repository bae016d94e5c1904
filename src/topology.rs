//! Builds the pipeline from the configuration, runs it, drains it: the only file that knows all others.
//!
//! Start: signal handlers, then sockets, then everything that may take time (credentials, task metadata, log groups), off the
//! path of the records. End: on SIGTERM or SIGINT the sources go on reading until their peers hang up or fall quiet; the
//! journal closes when the last of them is gone; the sinks drain it until shortly before [`Config::grace`] after the signal,
//! and have the rest of it to count what was taken and to abort what was not; then one line tells the account. A second signal
//! ends at once. Without a signal (one-off runs) the end of the inputs starts the drain, which may take as long as it makes
//! progress: it ends when nothing was delivered for [`Config::grace`].
//!
//! A task that ends unasked, by an error or a panic, ends the process the same way, loudly: what is read is delivered as far as
//! the grace allows, the account is told, and the exit code is that of a failure. That goes for every task, those of connections
//! and of libraries too ([`panics`]): after a panic nobody knows which records are lost, so none of it may pass for a success.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::admin::{Kinds, Phase, View};
use crate::config::Config;
use crate::journal::disk::segment::Names;
use crate::journal::{self, Closed, Keeper, Opened, Recovery};
use crate::process::{self, Intakes, Pipeline};
use crate::sink::dead_letters::DeadLetters;
use crate::sink::template::Template;
use crate::telemetry::account::{Account, Fate, Ledger, Reason};
use crate::telemetry::logs::{self, ACCOUNT_TARGET};
use crate::telemetry::panics;
use crate::{admin, decode, enrich, sink, source};

/// How often a drain says who is still running.
const DRAIN_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Signals this soon after the first are the same wish to end: `timeout`, a terminal, and some inits send one to the process and
/// another to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// The most that sinks need to close: answers are counted, multipart uploads aborted.
const CLOSING_TIME_MAX: Duration = Duration::from_millis(1_500);

/// The most that the journal may take to write down what is left.
pub const JOURNAL_CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The most that the end waits for dead letters to be written: a disk that does not answer must not hold the process.
const DEAD_LETTERS_TIME_MAX: Duration = Duration::from_secs(1);

/// Distinct for each start of the process.
fn random_name() -> String {
    format!("{:012x}", fastrand::u64(..1 << 48))
}

/// The part of a grace that is kept for closing.
fn closing_time(grace: Duration) -> Duration {
    (grace / 8).min(CLOSING_TIME_MAX)
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The final account.
    pub account: Account,
    /// Why the process ended, if not by a signal or the end of its inputs; said already.
    pub failure: Option<anyhow::Error>,
}

impl Outcome {
    /// Whether any record was lost or left: dropped, rejected or pending.
    pub fn undelivered(&self) -> u64 {
        let tallies = self.account.sources.iter().chain(&self.account.sinks).map(|ledger| ledger.tally());
        tallies.map(|tally| tally.of(Fate::Rejected) + tally.of(Fate::Dropped) + tally.pending()).sum()
    }
}

/// The signals that ask for the end. Installed before anything that takes time: to process 1 of a container, one that comes earlier
/// never comes.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they are kept for [`run`]; needs a runtime.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn install() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM handler")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT handler")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs the pipeline until its inputs end or a signal comes, and drains it.
pub async fn run(config: Config, mut signals: Signals) -> anyhow::Result<Outcome> {
    let panics = panics::watch();
    source::descriptors::raise(source::descriptors::wanted(&config.sources));
    let bound = bind(&config)?;
    let admin = admin::bind(&config.admin).context("admin.listen")?;
    let mut account = Account {
        sources: ledgers(config.sources.iter().map(|each| each.name.as_str())),
        sinks: ledgers(config.sinks.iter().map(|each| each.name.as_str())),
    };
    let view = Arc::new(view(&config, account.clone()));
    // Before the journal is opened, which may take time: how far the start has come is one of the things it tells.
    let _admin = admin::serve(admin, view.clone()).context("admin endpoints")?;
    let (journal, recovered) = open_journal(&config, &account).await?;
    view.journal_is_open(journal.writer.monitor(), recovered.clone());
    account.sources.extend(recovered);
    let (mut running, keeper) = Running::build(&config, bound, journal, account, view, panics)?;
    let ending = running.until_end(&mut signals).await;
    let failure = running.drain(ending, &mut signals, config.grace).await;
    close_journal(keeper, &running.account, &config.journal).await;
    let account = running.account.clone();
    // The account is the last word.
    logs::flush();
    for (what, ledgers) in [("source", &account.sources), ("sink", &account.sinks)] {
        for ledger in ledgers {
            tracing::info!(target: ACCOUNT_TARGET, "{what} {}: {}", ledger.name, ledger.tally());
        }
    }
    if let Some(letters) = running.dead_letters.tally() {
        let (kept, not_kept) = (letters.kept, letters.not_kept + letters.queued);
        tracing::info!(target: ACCOUNT_TARGET, "dead letters: kept {kept} not kept {not_kept}");
    }
    tracing::info!(target: ACCOUNT_TARGET, "account: {account}");
    Ok(Outcome { account, failure })
}

fn ledgers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Arc<Ledger>> {
    names.map(|name| Arc::new(Ledger::new(name))).collect()
}

/// Opens the journal; with what an earlier run left in it, which is a source of its own in the account.
async fn open_journal(config: &Config, account: &Account) -> anyhow::Result<(Opened, Option<Arc<Ledger>>)> {
    let texts = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect::<Vec<String>>();
    let names = Names {
        sinks: texts(&mut config.sinks.iter().map(|each| each.name.as_str())),
        sources: texts(&mut config.sources.iter().map(|each| each.name.as_str())),
        keys: texts(&mut partition_keys(&config.sinks).iter().map(|key| &**key)),
    };
    let follows: Vec<usize> = config.sources.iter().map(source::Config::files_max).collect();
    let sinks = account.sinks.clone();
    // The budget is for all that is not delivered yet, wherever it is; but the journal is where records wait.
    let held: usize = config.sinks.iter().map(sink::Config::memory_bytes).sum();
    let memory_bytes_max = config.journal.memory_bytes_max;
    let journal = journal::Config {
        memory_bytes_max: memory_bytes_max.saturating_sub(held).max(memory_bytes_max / 2),
        ..config.journal.clone()
    };
    let open = move || journal::open_with(journal, sinks, names, &follows);
    let opened = tokio::task::spawn_blocking(open).await.context("journal")?.context("journal")?;
    let Recovery { records, orphans, gaps } = opened.recovery;
    if records + gaps == 0 {
        return Ok((opened, None));
    }
    tracing::info!(records, orphans, gaps, "journal: an earlier run left records, they are delivered first");
    let ledger = Ledger::new(source::JOURNAL);
    ledger.receive(records + gaps);
    ledger.hand_on(records - orphans);
    ledger.lose(Reason::SinkRemoved, orphans);
    ledger.lose(Reason::Corrupt, gaps);
    Ok((opened, Some(Arc::new(ledger))))
}

/// Writes what may be kept of what is pending, and says what becomes of it.
async fn close_journal(keeper: Keeper, account: &Account, config: &journal::Config) {
    let closing = tokio::time::timeout(JOURNAL_CLOSE_TIME_MAX, tokio::task::spawn_blocking(|| keeper.close())).await;
    let closed = match closing {
        Ok(Ok(closed)) => closed,
        Ok(Err(error)) => Closed::Lost(error.to_string()),
        Err(_) => Closed::Lost("the disk did not answer in time".to_owned()),
    };
    let pending: u64 = account.sinks.iter().map(|ledger| ledger.tally().pending()).sum();
    if pending == 0 {
        return;
    }
    let dir = config.dir.as_deref().map(|dir| dir.display().to_string()).unwrap_or_default();
    match closed {
        Closed::Kept => {
            tracing::warn!("{pending} records pending: on disk in {dir}, delivered after the next start with it");
        }
        Closed::Lost(why) => tracing::error!("{pending} records pending: lost with this process ({why})"),
    }
}

/// The record fields that the sinks' templates name, each once.
fn partition_keys(sinks: &[sink::Config]) -> Arc<[Box<str>]> {
    let mut keys: Vec<Box<str>> = Vec::new();
    for field in sinks.iter().flat_map(sink::Config::templates).flat_map(Template::record_fields) {
        if !keys.iter().any(|key| **key == *field) {
            keys.push(field.into());
        }
    }
    keys.into()
}

/// Sockets first: what a peer finds listening within milliseconds of exec.
fn bind(config: &Config) -> anyhow::Result<Vec<source::Bound>> {
    config.sources.iter().map(|each| source::bind(each).with_context(|| format!("source {}", each.name))).collect()
}

fn view(config: &Config, account: Account) -> View {
    let kinds = Kinds {
        sources: config.sources.iter().map(|each| each.kind.label()).collect(),
        sinks: config.sinks.iter().map(|each| each.kind.label()).collect(),
    };
    View::new(&config.admin, &config.journal, account, kinds)
}

/// Why the sources' part of a run came to its end.
enum Ending {
    InputsEnded,
    Signal(&'static str),
    Failure(anyhow::Error),
}

type TaskResult = (Arc<str>, anyhow::Result<()>);

struct Running {
    account: Account,
    view: Arc<View>,
    panics: panics::Watch,
    sources: JoinSet<TaskResult>,
    sinks: JoinSet<TaskResult>,
    others: JoinSet<()>,
    dead_letters: DeadLetters,
    draining: watch::Sender<bool>,
    deadline: watch::Sender<Option<Instant>>,
}

impl Running {
    fn build(
        config: &Config,
        bound: Vec<source::Bound>,
        journal: Opened,
        account: Account,
        view: Arc<View>,
        panics: panics::Watch,
    ) -> anyhow::Result<(Self, Keeper)> {
        let Opened { writer, readers, keeper, instance, mut positions, mut chunk_ids, .. } = journal;
        let is_kept = instance.is_some() && config.journal.persist != journal::Persist::Never;
        let mut others = JoinSet::new();
        let metadata = enrich::ecs::watch(&config.enrich, &enrich::ecs::Environment::from_process());
        let partition_keys = partition_keys(&config.sinks);
        let stages = process::Config {
            filter: config.filter.clone(),
            parse: config.parse.clone(),
            redact: config.redact.clone(),
            derive: config.derive.clone(),
            enrich: config.enrich.clone(),
            route: config.route.clone(),
            sinks: config.sinks.len(),
            partition_keys: partition_keys.clone(),
        };
        let pipeline = Pipeline::new(&stages, metadata.clone(), &mut others).context("pipeline")?;
        view.redacts(pipeline.redactions());
        // In the names of S3 objects: that of the journal's directory, or, without one, distinct for each start of the process.
        let instance: Arc<str> = instance.unwrap_or_else(random_name).into();
        let dead_letters = match &config.dead_letters {
            Some(kept) => DeadLetters::start(kept.clone(), &random_name()).context("dead letters")?,
            None => DeadLetters::default(),
        };
        let (deadline, _) = watch::channel(None);
        let (draining, _) = watch::channel(false);

        let mut sinks = JoinSet::new();
        for (id, (each, reader)) in config.sinks.iter().zip(readers).enumerate() {
            let context = sink::Context {
                id,
                name: each.name.as_str().into(),
                reader,
                dead_letters: dead_letters.of_sink(&account.sinks[id].name),
                ledger: account.sinks[id].clone(),
                metadata: metadata.clone(),
                partition_keys: partition_keys.clone(),
                deadline: deadline.subscribe(),
                instance: instance.clone(),
                hostname: config.hostname.as_str().into(),
            };
            let name = context.name.clone();
            spawn(&mut sinks, name, run_sink(each.kind.clone(), context));
        }

        let mut sources = JoinSet::new();
        for (id, (each, bound)) in config.sources.iter().zip(bound).enumerate() {
            let limits = match &each.kind {
                source::Kind::Forward(config) => config.limits(),
                _ => decode::Limits::default(),
            };
            let ledger = account.sources[id].clone();
            let mut intakes = Intakes::new(pipeline.clone(), writer.clone(), ledger, id as u16, limits);
            if is_kept {
                // A client that got no answer before the restart sends these again.
                let known = std::mem::take(&mut chunk_ids[id]);
                intakes = intakes.with_keys(known.iter().filter_map(|key| (**key).try_into().ok()));
            }
            let run = source::run(
                each.kind.clone(),
                bound,
                intakes,
                draining.subscribe(),
                config.quiet,
                std::mem::take(&mut positions[id]),
            );
            spawn(&mut sources, each.name.as_str().into(), async move { run.await.map_err(anyhow::Error::from) });
        }
        view.enter(Phase::Running);
        Ok((Self { account, view, panics, sources, sinks, others, dead_letters, draining, deadline }, keeper))
    }

    /// Waits for what ends the reading: the inputs, a signal, or a task that ended unasked.
    async fn until_end(&mut self, signals: &mut Signals) -> Ending {
        loop {
            tokio::select! {
                biased;
                name = signals.next() => return Ending::Signal(name),
                panic = panics::next(&mut self.panics) => return Ending::Failure(anyhow!("{panic}")),
                Some(ended) = self.sinks.join_next() => match ended {
                    // It read the journal to its end, so the last source is just now gone.
                    Ok((_, Ok(()))) => {}
                    failed => return Ending::Failure(unasked("sink", failed)),
                },
                ended = self.sources.join_next() => match ended {
                    None => return Ending::InputsEnded,
                    Some(Ok((_, Ok(())))) => {}
                    Some(failed) => return Ending::Failure(unasked("source", failed)),
                },
            }
        }
    }

    /// Lets sources and sinks come to their end; what is left when time is up stays pending in the account.
    async fn drain(&mut self, ending: Ending, signals: &mut Signals, grace: Duration) -> Option<anyhow::Error> {
        let mut failure = None;
        let (mut signalled, mut end) = (Some(Instant::now()), None);
        match ending {
            Ending::InputsEnded => signalled = None,
            Ending::Signal(name) => end = Some(self.limit(name, grace)),
            Ending::Failure(error) => {
                tracing::error!("ending: {error:#}");
                end = Some(self.limit("a failure", grace));
                failure = Some(error);
            }
        }
        self.view.enter(Phase::Draining);
        self.draining.send_replace(true);
        let mut report = tokio::time::interval(DRAIN_REPORT_INTERVAL);
        report.reset();
        let mut progress = (self.settled(), Instant::now());
        while !(self.sources.is_empty() && self.sinks.is_empty()) {
            let time_is_up = end.unwrap_or(progress.1 + grace);
            tokio::select! {
                biased;
                name = signals.next() => {
                    if signalled.is_some_and(|at: Instant| at.elapsed() < SAME_SIGNAL) {
                        continue;
                    }
                    if signalled.is_some() {
                        tracing::warn!("second signal ({name}): ending at once");
                        break;
                    }
                    signalled = Some(Instant::now());
                    end = Some(self.limit(name, grace));
                }
                panic = panics::next(&mut self.panics), if failure.is_none() => {
                    tracing::error!("ending: {panic}");
                    failure = Some(anyhow!("{panic}"));
                }
                Some(ended) = self.sources.join_next() => failure = failure.or(ended_badly("source", ended)),
                Some(ended) = self.sinks.join_next() => failure = failure.or(ended_badly("sink", ended)),
                () = sleep_until(time_is_up) => {
                    if end.is_some() {
                        break;
                    }
                    if self.settled() == progress.0 {
                        self.deadline.send_replace(Some(Instant::now()));
                        end = Some(Instant::now() + closing_time(grace));
                    }
                }
                _ = report.tick() => tracing::info!("draining: {}", self.running()),
            }
            let settled = self.settled();
            if settled != progress.0 {
                progress = (settled, Instant::now());
            }
        }
        if self.account.sinks.iter().any(|ledger| ledger.tally().pending() > 0) || !self.sources.is_empty() {
            tracing::warn!("time is up: {}", self.running());
        }
        self.sources.shutdown().await;
        self.sinks.shutdown().await;
        self.others.shutdown().await;
        self.dead_letters.finish(DEAD_LETTERS_TIME_MAX).await;
        failure
    }

    /// Sets the time by which all must be over, and gives it; for the sinks it is a little earlier.
    fn limit(&self, why: &str, grace: Duration) -> Instant {
        tracing::info!(
            "{why}: reading on until peers close or fall quiet, then draining; at most {} s",
            grace.as_secs_f64()
        );
        let end = Instant::now() + grace;
        self.deadline.send_replace(Some(end - closing_time(grace)));
        end
    }

    /// Records whose fate is known, over all sinks: what progress is measured by.
    fn settled(&self) -> u64 {
        self.account.sinks.iter().map(|ledger| ledger.tally()).map(|tally| tally.received - tally.pending()).sum()
    }

    /// Who is still at work, and with how much.
    fn running(&self) -> String {
        let pending = self.account.sinks.iter().filter_map(|ledger| {
            let pending = ledger.tally().pending();
            (pending > 0).then(|| format!("{} has {pending} records pending", ledger.name))
        });
        let mut who: Vec<String> = pending.collect();
        if !self.sources.is_empty() {
            who.insert(0, format!("{} sources are reading", self.sources.len()));
        }
        if who.is_empty() { "sinks are closing".into() } else { who.join(", ") }
    }
}

fn spawn(
    set: &mut JoinSet<TaskResult>,
    name: Arc<str>,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    set.spawn(async move { (name, task.await) });
}

/// The error of a task that ended though nobody asked it to.
fn unasked(what: &str, ended: Result<TaskResult, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow!("{what} {name} ended unasked"),
        Ok((name, Err(error))) => error.context(format!("{what} {name}")),
        // Its message is not for the log: it may hold a piece of a record.
        Err(_) => anyhow!("a {what} panicked"),
    }
}

/// The error of a task that ended when it was time to, if it ended with one; said at once.
fn ended_badly(what: &str, ended: Result<TaskResult, tokio::task::JoinError>) -> Option<anyhow::Error> {
    if matches!(ended, Ok((_, Ok(())))) {
        return None;
    }
    let error = unasked(what, ended);
    tracing::error!("{error:#}");
    Some(error)
}

async fn run_sink(kind: sink::Kind, context: sink::Context) -> anyhow::Result<()> {
    match kind {
        sink::Kind::CloudwatchLogs(config) => sink::cloudwatch_logs::run(config, context).await,
        sink::Kind::Firehose(config) => sink::firehose::run(config, context).await,
        sink::Kind::S3(config) => sink::s3::run(config, context).await,
        sink::Kind::Forward(config) => sink::forward::run(config, context).await,
        sink::Kind::File(config) => sink::file::run(config, context).await,
        sink::Kind::Stdout => sink::stdout::run(context).await,
        sink::Kind::Discard => sink::stdout::discard(context).await,
        sink::Kind::Unsupported(config) => sink::unsupported::run(&config, context).await,
    }
    .map_err(anyhow::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::account::Reason;

    /// A run with one source and one sink that do what they are told.
    fn running(
        source: impl Future<Output = anyhow::Result<()>> + Send + 'static,
        sink: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> (Running, watch::Sender<Option<panics::Panic>>) {
        let account = Account { sources: vec![Ledger::new("in").into()], sinks: vec![Ledger::new("out").into()] };
        let kinds = Kinds { sources: vec!["lines"], sinks: vec!["discard"] };
        let view = View::new(&admin::Config::default(), &journal::Config::default(), account.clone(), kinds);
        let (mut sources, mut sinks) = (JoinSet::new(), JoinSet::new());
        spawn(&mut sources, "in".into(), source);
        spawn(&mut sinks, "out".into(), sink);
        let (panic, panics) = watch::channel(None);
        let running = Running {
            account,
            view: view.into(),
            panics,
            sources,
            sinks,
            dead_letters: DeadLetters::default(),
            others: JoinSet::new(),
            draining: watch::channel(false).0,
            deadline: watch::channel(None).0,
        };
        (running, panic)
    }

    /// The failure that a run ends with, told in full.
    async fn failure_of(mut running: Running) -> (String, Arc<View>) {
        let mut signals = Signals::install().unwrap();
        let view = running.view.clone();
        let ending = running.until_end(&mut signals).await;
        assert!(matches!(ending, Ending::Failure(_)), "the end has a cause");
        let failure = running.drain(ending, &mut signals, Duration::from_millis(50)).await;
        (format!("{:#}", failure.unwrap()), view)
    }

    async fn for_ever() -> anyhow::Result<()> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_or_panics_ends_the_run_with_a_failure() {
        let broken = async || Err(anyhow!("no space left"));
        let panicking = async || panic!("{}", String::from("GET /?token=sesame"));
        assert_eq!(failure_of(running(for_ever(), broken()).0).await.0, "sink out: no space left");
        assert_eq!(failure_of(running(broken(), for_ever()).0).await.0, "source in: no space left");
        assert_eq!(failure_of(running(for_ever(), panicking()).0).await.0, "a sink panicked");
        assert_eq!(failure_of(running(panicking(), for_ever()).0).await.0, "a source panicked");
    }

    #[tokio::test]
    async fn a_panic_that_nobody_waits_for_ends_the_run_with_a_failure() {
        let (run, panic) = running(for_ever(), for_ever());
        panic.send_replace(Some(panics::Panic::at("src/x.rs:1")));
        let (failure, view) = failure_of(run).await;
        assert_eq!(failure, "a task panicked at src/x.rs:1");
        assert_eq!(view.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn what_is_left_or_lost_shows_in_the_outcome() {
        let (run, _panic) = running(for_ever(), for_ever());
        let outcome = Outcome { account: run.account.clone(), failure: None };
        outcome.account.sources[0].receive(5);
        outcome.account.sources[0].lose(Reason::Rule, 1);
        outcome.account.sources[0].hand_on(4);
        outcome.account.sinks[0].receive(4);
        assert_eq!(outcome.undelivered(), 4);
        outcome.account.sinks[0].deliver(3);
        outcome.account.sinks[0].lose(Reason::Refused, 1);
        assert_eq!(outcome.undelivered(), 1);
    }
}
