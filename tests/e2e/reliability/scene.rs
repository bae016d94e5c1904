//! The setting of one row: a router, the strict fake it delivers to, a client that keeps accounts, and a clock.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::client::{Client, Tally};
use super::super::fake_aws::fault::{Fault, Rule};
use super::super::fake_aws::{FakeAws, Options};
use super::super::process::{Exit, Process, Run, free_address};
use super::super::traffic::{MARK, Seen, Traffic, Witness};
use super::{MEMORY_MIB, Persist, Scale};

const GROUP: &str = "/mesh/orders";
const STREAM: &str = "orders-1";
const FIREHOSE: &str = "mesh-audit";
const BUCKET: &str = "mesh-logs";
/// Upper bound for what takes moments.
const SOON: Duration = Duration::from_secs(60);
/// Upper bound for a backlog to be delivered.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A stretch of time in which connections between router and fake were cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub from: Instant,
    pub until: Instant,
}

/// A row under way.
pub struct Scene {
    pub scale: Scale,
    pub persist: Persist,
    pub to: &'static [Seen],
    pub fake: FakeAws,
    pub witness: Arc<Witness>,
    pub tally: Arc<Tally>,
    pub client: Client,
    /// Further lines of configuration: under `[journal]`, under each sink, and a source.
    pub journal: String,
    pub sink: String,
    pub source: String,
    /// Time limit of one attempt.
    pub request_timeout: &'static str,
    pub environment: Vec<(String, String)>,
    /// What the router is started by.
    pub under: Vec<String>,
    pub directory: TempDir,
    pub cuts: Vec<Cut>,
    /// Records that may come again though their request was answered.
    pub repeats_max: u64,
    /// How often the router was killed.
    pub kills: u64,
    pub exits: Vec<Exit>,
    pub recovery: Option<Duration>,
    pub peak_kib: u64,
    traffic: Traffic,
    address: SocketAddr,
    process: Option<Process>,
    /// When the fault ended, and how many records had been sent then.
    ended: Option<(Instant, u64)>,
}

impl Scene {
    /// For `count` records at most. `seed` is that of the fake's dice.
    pub fn new(scale: Scale, persist: Persist, to: &'static [Seen], count: u64, seed: u64) -> Self {
        Self::of(Traffic::recent(), scale, persist, to, count, seed)
    }

    /// The same with other records.
    pub fn of(traffic: Traffic, scale: Scale, persist: Persist, to: &'static [Seen], count: u64, seed: u64) -> Self {
        let witness = Witness::new(traffic.clone(), count);
        let observer = Some(witness.observer());
        let fake =
            FakeAws::start(Options { seed, forget: true, observer, marks: vec![MARK.into()], ..Options::default() });
        fake.logs().seed(GROUP, &[STREAM]);
        fake.seed_firehose(FIREHOSE);
        fake.seed_bucket(BUCKET);
        let address = free_address();
        Self {
            scale,
            persist,
            to,
            environment: fake.environment(),
            fake,
            witness,
            tally: Arc::new(Tally::new(count)),
            client: Client::new(address),
            journal: String::new(),
            sink: String::new(),
            source: String::new(),
            request_timeout: "30s",
            under: Vec::new(),
            directory: TempDir::new().unwrap(),
            cuts: Vec::new(),
            repeats_max: 0,
            kills: 0,
            exits: Vec::new(),
            recovery: None,
            peak_kib: 0,
            traffic,
            address,
            process: None,
            ended: None,
        }
    }

    /// One time in the table, another in its short version.
    pub fn time(&self, full: Duration, short: Duration) -> Duration {
        if self.scale == Scale::Full { full } else { short }
    }

    /// Directory of the journal.
    pub fn journal_dir(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    fn configuration(&self) -> String {
        let timeout = self.request_timeout;
        let (batches, retry) = match self.scale {
            Scale::Full => (["batch_timeout = \"1s\""; 2], format!("retry = {{ request_timeout = \"{timeout}\" }}")),
            // Small quick requests, so that a few thousand records make many.
            Scale::Short => (
                [
                    "batch_timeout = \"50ms\"\nbatch_events_max = 200",
                    "batch_timeout = \"50ms\"\nrecord_bytes_max = \"4KiB\"\nbatch_records_max = 20",
                ],
                format!("retry = {{ base = \"20ms\", cap = \"500ms\", request_timeout = \"{timeout}\" }}"),
            ),
        };
        let retry = format!("{retry}\n{}", self.sink);
        let object = self.time(Duration::from_secs(2), Duration::from_secs(1)).as_secs();
        let mut text = format!("[source.forward]\ntype = \"forward\"\nlisten = \"{}\"\n{}", self.address, self.source);
        for sink in self.to {
            text.push_str(&match sink {
                Seen::Logs => format!(
                    "[sink.cloudwatch]\ntype = \"cloudwatch_logs\"\ngroup = \"{GROUP}\"\nstream = \"{STREAM}\"\n{}\n{retry}\n",
                    batches[0]
                ),
                Seen::Firehose => {
                    format!("[sink.firehose]\ntype = \"firehose\"\nstream = \"{FIREHOSE}\"\n{}\n{retry}\n", batches[1])
                }
                _ => format!(
                    "[sink.s3]\ntype = \"s3\"\nbucket = \"{BUCKET}\"\nkey = \"logs/\"\nobject_age_max = \"{object}s\"\n{retry}\n"
                ),
            });
        }
        text.push_str(&format!("[shutdown]\ngrace = \"60s\"\n[journal]\nmemory_bytes_max = \"{MEMORY_MIB}MiB\"\n"));
        let mode = match self.persist {
            Persist::Memory => None,
            Persist::Positions => Some("never"),
            Persist::Always => Some("always"),
        };
        if let Some(mode) = mode {
            text.push_str(&format!("persist = \"{mode}\"\ndir = \"{}\"\n", self.journal_dir().display()));
        }
        text + &self.journal
    }

    /// Starts the router and waits until it listens.
    pub fn start(&mut self) {
        self.start_unready();
        if let Some(process) = &mut self.process {
            process.wait_tcp(self.address, SOON);
        }
    }

    /// Starts the router.
    pub fn start_unready(&mut self) {
        let path = self.directory.path().join("meshlens.toml");
        std::fs::write(&path, self.configuration()).unwrap();
        let run = Run::new(["run", "--config", path.to_str().unwrap()]).environment(self.environment.clone());
        self.process = Some(run.under(self.under.clone()).start());
    }

    /// Sends in the background while something else happens, and waits until all is sent and acknowledged.
    pub fn sending(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let sender = self.send();
        meanwhile(self);
        let ended = self.ended_since(&sender);
        sender.join().unwrap();
        self.ended.get_or_insert(ended);
    }

    fn send(&self) -> JoinHandle<()> {
        let (client, traffic, tally) = (self.client.clone(), self.traffic.clone(), Arc::clone(&self.tally));
        std::thread::spawn(move || client.send(&traffic, &tally))
    }

    /// Watches until the sender is done. A fault that nobody ended counts as ended when the last record was sent.
    fn ended_since(&mut self, sender: &JoinHandle<()>) -> (Instant, u64) {
        let mut last = (Instant::now(), self.tally.sent());
        while !sender.is_finished() {
            self.watch();
            if self.tally.sent() != last.1 {
                last = (Instant::now(), self.tally.sent());
            }
            std::thread::sleep(POLL);
        }
        last
    }

    /// One look at the router: its memory, and whether it has caught up.
    fn watch(&mut self) {
        if let Some(process) = &mut self.process {
            self.peak_kib = self.peak_kib.max(process.sample());
        }
        if let (Some((at, backlog)), None) = (self.ended, self.recovery)
            && self.to.iter().all(|sink| self.witness.arrived(*sink) >= backlog)
        {
            self.recovery = Some(at.elapsed());
        }
    }

    /// Lets time pass.
    pub fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.watch();
            std::thread::sleep(POLL);
        }
    }

    /// Waits until that is so; false if it does not become so.
    pub fn until(&mut self, within: Duration, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + within;
        while !is_so(self) {
            if Instant::now() > end {
                return false;
            }
            self.watch();
            std::thread::sleep(POLL);
        }
        true
    }

    /// Waits until that part of all records is sent.
    pub fn until_sent(&mut self, part: f64, count: u64) {
        let wanted = (count as f64 * part) as u64;
        assert!(self.until(SOON, |scene| scene.tally.sent() >= wanted), "{} of {wanted} sent", self.tally.sent());
    }

    /// From now on all is well again.
    pub fn fault_ends(&mut self) {
        self.fake.misbehave(Vec::new());
        self.ended = Some((Instant::now(), self.tally.sent()));
        self.recovery = None;
    }

    /// This fault, for that time, in all services.
    pub fn fault_for(&mut self, fault: Fault, time: Duration) {
        self.fake.misbehave(vec![Rule::new(fault)]);
        self.pause(time);
        self.fault_ends();
    }

    /// The services refuse connections for that time; those that are open are cut.
    pub fn outage(&mut self, time: Duration) {
        let from = Instant::now();
        self.fake.close();
        self.pause(time);
        self.cuts.push(Cut { from, until: Instant::now() });
        self.fake.reopen();
        self.fault_ends();
    }

    /// Sends a signal to the router.
    pub fn signal(&mut self, name: &str) {
        if let Some(process) = &self.process {
            process.signal(name);
        }
        self.ended = Some((Instant::now(), self.tally.sent()));
    }

    /// Kills the router; all that it had sent is carried out, or will never be, when this returns.
    pub fn kill(&mut self) {
        let from = Instant::now();
        self.kills += 1;
        self.signal("KILL");
        if let Some(process) = self.process.take() {
            drop(process.wait(SOON));
        }
        assert!(self.until(SOON, |scene| scene.fake.connections() == 0), "connections of a dead process");
        self.cuts.push(Cut { from, until: Instant::now() });
    }

    /// What the router said so far.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Waits until all that was sent has arrived, ends the router, and notes how it ended.
    pub fn finish(&mut self) {
        self.until(RECOVERY_MAX, |scene| {
            let sent = scene.tally.sent();
            scene.to.iter().all(|sink| scene.witness.arrived(*sink) >= sent)
        });
        self.watch();
        if let Some(process) = self.process.take() {
            self.exits.push(process.terminate(2 * SOON));
        }
        self.note_peak();
    }

    /// Waits for the end of a router that was told to end; its end is the recovery.
    pub fn finish_ended(&mut self) {
        if let Some(process) = self.process.take() {
            self.exits.push(process.wait(2 * SOON));
        }
        self.recovery = self.ended.map(|(at, _)| at.elapsed());
        self.note_peak();
    }

    fn note_peak(&mut self) {
        self.peak_kib = self.exits.iter().map(|exit| exit.peak_kib).fold(self.peak_kib, u64::max);
    }
}

/// A listener that takes connections and never says a word.
pub struct Silent {
    listener: TcpListener,
}

impl Silent {
    /// Listens on a free port. The backlog takes the connections, so nobody has to.
    pub fn listen() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).unwrap() }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}
