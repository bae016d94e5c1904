//! Restarts with a real journal on disk: the sinks are killed at any request or moment, shut down, or left to end, under changing
//! settings, and every record that was acknowledged is in one visible object, once.
//!
//! More on demand: `MESHLENS_CASES=2000 cargo test --test object_sinks restart`; one case again: `MESHLENS_SEED=…`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use meshlens::enrich::ecs::Metadata;
use meshlens::journal::block::{Block, Entry, Partition};
use meshlens::journal::disk::segment::Names;
use meshlens::journal::{self, Opened, Persist};
use meshlens::sink::s3::{self, Compression, Config};
use meshlens::sink::template::Template;
use meshlens::sink::{Context, Error, file};
use meshlens::telemetry::account::{Ledger, Tally};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::rig::{PATIENCE, TIME_MS, decompress, has_credentials, until};
use crate::store::{Fate, Fault, Op, Store};

const HOUR_MS: i64 = 3_600_000;
const MIB: usize = 1 << 20;

/// What survives the process: its journal's directory, and what its peers remember.
struct World {
    dir: TempDir,
    /// Whether a line was acknowledged, by its number.
    sent: BTreeMap<u64, bool>,
    /// Told when a life that is to be killed has no more input.
    input_ended: Arc<Notify>,
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// By a kill.
    Killed,
    /// By a kill, and the directory as it is at that moment.
    Copied,
    /// By a shutdown with so many milliseconds.
    Shutdown(u64),
    /// The input ends, all is stored.
    Drained,
}

/// A directory that costs no syncs, if there is one.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(dir: &Path, ledger: &Arc<Ledger>) -> Opened {
    let config = journal::Config {
        persist: Persist::Always,
        dir: Some(dir.to_owned()),
        segment_bytes: 64 << 10,
        disk_free_bytes_min: Some(0),
        ..journal::Config::default()
    };
    let names = Names { sinks: vec!["s".into()], sources: vec!["x".into()], keys: vec![] };
    journal::open_with(config, vec![ledger.clone()], names, &[0]).unwrap()
}

/// The files of a directory in the order of their names. Again from the start if one goes away meanwhile.
fn copy(from: &Path, to: &Path) {
    'again: loop {
        let mut names: Vec<PathBuf> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for entry in fs::read_dir(to).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for path in names {
            if fs::copy(&path, to.join(path.file_name().unwrap())).is_err() {
                continue 'again;
            }
        }
        return;
    }
}

impl World {
    fn new() -> Self {
        Self { dir: directory(), sent: BTreeMap::new(), input_ended: Arc::default() }
    }

    fn block(&mut self, random: &mut Rng, bytes_max: usize) -> Block {
        let mut block = Block { sinks: 1, ..Block::default() };
        block.partitions = ["a", "b", "c"].map(|tag| Partition { tag: tag.into(), values: [].into() }).into();
        for _ in 0..random.u8(1..10) {
            let number = self.sent.len() as u64;
            self.sent.insert(number, false);
            let noise: String = (0..random.usize(..bytes_max)).map(|_| random.alphanumeric()).collect();
            block.bytes.extend_from_slice(format!("{{\"n\":{number},\"x\":\"{noise}\"}}\n").as_bytes());
            block.index.push(Entry {
                time_ns: (TIME_MS + HOUR_MS * random.i64(0..3)) * 1_000_000,
                sinks: 1,
                end: u32::try_from(block.bytes.len()).unwrap(),
                partition: random.u32(..3),
            });
        }
        block
    }

    /// One life of the process, with up to so many rounds of input. `sink` starts it, `killed` tells when it dies.
    async fn live(
        &mut self,
        random: &mut Rng,
        end: End,
        (rounds_max, bytes_max): (u8, usize),
        sink: impl AsyncFnOnce(Context) -> Result<(), Error> + 'static,
        killed: impl Future<Output = ()>,
    ) -> Tally {
        let ledger = Arc::new(Ledger::new("s"));
        let Opened { writer, mut readers, keeper, instance, recovery, .. } = open(self.dir.path(), &ledger);
        let notes: Vec<String> = readers[0].notes().into_iter().map(|(key, _)| key).collect();
        eprintln!("a life from line {} to be {end:?}; {recovery:?}, {notes:?}", self.sent.len());
        let (deadline, deadline_seen) = watch::channel(None);
        let (_metadata, metadata_seen) = watch::channel(Arc::new(Metadata { complete: true, ..Metadata::default() }));
        let context = Context {
            id: 0,
            name: "s".into(),
            reader: readers.remove(0),
            dead_letters: Default::default(),
            ledger: ledger.clone(),
            metadata: metadata_seen,
            partition_keys: [].into(),
            deadline: deadline_seen,
            instance: instance.unwrap().into(),
            hostname: "h".into(),
        };
        let tasks = tokio::task::LocalSet::new();
        let running = tasks.spawn_local(async move { sink(context).await.unwrap() });
        let life = async {
            for _ in 0..random.u8(..=rounds_max) {
                let from = self.sent.len() as u64;
                let mut reached = 0;
                for _ in 0..random.u8(1..4) {
                    reached = writer.append(self.block(random, bytes_max)).await + 1;
                }
                writer.durable().reach(reached).await;
                for (_, is_acknowledged) in self.sent.range_mut(from..) {
                    *is_acknowledged = true;
                }
            }
            match end {
                End::Shutdown(ms) => {
                    deadline.send_replace(Some(Instant::now() + Duration::from_millis(ms)));
                }
                End::Drained => {}
                End::Killed | End::Copied => {
                    // Its end lets the sink finish what is open, until it is killed.
                    let writer = random.bool().then_some(writer);
                    self.input_ended.notify_one();
                    std::future::pending::<()>().await;
                    drop(writer);
                    return;
                }
            }
            drop(writer);
            timeout(PATIENCE, running).await.expect("the sink ends in time").unwrap();
        };
        tasks
            .run_until(async {
                tokio::select! {
                    () = life => {}
                    () = killed => {}
                }
            })
            .await;
        if matches!(end, End::Copied) {
            let dir = directory();
            copy(self.dir.path(), dir.path());
            self.dir = dir;
        }
        drop(tasks);
        match end {
            End::Shutdown(_) => drop(keeper.close()),
            _ => drop(keeper),
        }
        eprintln!("  {}", ledger.tally());
        ledger.tally()
    }

    /// Asserts that every line that was acknowledged is in one of the objects, once.
    fn assert_stored<'a>(&self, objects: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) {
        let mut found = BTreeMap::<u64, Vec<&String>>::new();
        let objects: Vec<_> = objects.into_iter().collect();
        for (key, bytes) in &objects {
            for line in decompress(key, bytes).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: serde_json::Value = serde_json::from_slice(line).unwrap();
                found.entry(line["n"].as_u64().unwrap()).or_default().push(key);
            }
        }
        let mut lost = Vec::new();
        for (number, is_acknowledged) in &self.sent {
            let keys = found.remove(number).unwrap_or_default();
            assert!(keys.len() < 2, "{number} is in {keys:?}");
            if *is_acknowledged && keys.is_empty() {
                lost.push(*number);
            }
        }
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(found.is_empty());
    }

    /// Asserts that the journal has nothing left, not even a note.
    fn assert_settled(&self) {
        let ledger = Arc::new(Ledger::new("s"));
        let opened = open(self.dir.path(), &ledger);
        assert_eq!((opened.recovery.records, opened.recovery.gaps), (0, 0));
        assert_eq!(opened.readers[0].notes(), []);
    }
}

/// Runs that many cases, each with a seed that is printed should it fail.
fn cases(default: u64, case: impl Fn(&mut Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("MESHLENS_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = fastrand::u64(..1 << 40);
            first..first + number("MESHLENS_CASES").unwrap_or(default)
        }
    };
    for seed in seeds {
        eprintln!("MESHLENS_SEED={seed}");
        case(&mut Rng::with_seed(seed));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn some_end(random: &mut Rng) -> End {
    match random.u8(..8) {
        0..=2 => End::Killed,
        3..=5 => End::Copied,
        6 => End::Shutdown(random.u64(..80)),
        _ => End::Drained,
    }
}

fn s3_config(store: &Store, random: &mut Rng, is_large: bool) -> Config {
    let key = random.choice(["{tag}/", "a/", "{tag}/%H/"]).unwrap();
    let mut config = Config::new("bucket", Template::parse(key).unwrap());
    config.aws.endpoint_url = Some(store.url.clone());
    config.retry.base = Duration::from_millis(1);
    config.retry.cap = Duration::from_millis(3);
    config.concurrency = random.usize(1..5);
    config.open_objects_max = random.usize(1..5);
    config.compression = random.choice([Compression::None, Compression::Gzip, Compression::Zstd]).unwrap();
    if is_large {
        config.object_bytes_max = random.u64(6..16) << 20;
        config.compression = Compression::None;
    } else {
        config.object_bytes_max = random.u64(300..4000);
    }
    config.object_age_max = Duration::from_millis(random.choice([5, 50, 10_000]).unwrap());
    config
}

fn s3_case(random: &mut Rng, is_large: bool) {
    // The store outlives the processes.
    let outside = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = outside.block_on(Store::start());
    if random.u8(..4) == 0 {
        store.fail_always(Op::Head, Fault::Refuse(403, ""));
    }
    // Large records, few of them.
    let input = if is_large { (4, MIB) } else { (12, 300) };
    let mut world = World::new();
    for _ in 0..random.u8(1..6) {
        let end = some_end(random);
        store.go_on();
        for op in [Op::Put, Op::Part, Op::Complete, Op::Head, Op::Abort, Op::Create] {
            if random.u8(..6) == 0 {
                store.fail(op, random.choice([Fault::DoneButFailed, Fault::Refuse(503, "SlowDown")]).unwrap());
            }
        }
        let killed = async {
            if matches!(end, End::Killed | End::Copied) {
                store.stopped.notified().await;
            } else {
                std::future::pending().await
            }
        };
        if matches!(end, End::Killed | End::Copied) {
            let fate = random.choice([Fate::Lost, Fate::Done, Fate::Later]).unwrap();
            store.stop_after(random.usize(..if is_large { 12 } else { 25 }), fate);
        }
        let mut config = s3_config(&store, random, is_large);
        if matches!(end, End::Killed | End::Copied) {
            // It has to come to that request.
            config.object_age_max = Duration::from_millis(5);
        }
        let mut doings = random.fork();
        // Nothing left to be sent: killed all the same.
        let killed = async { drop(timeout(Duration::from_millis(if is_large { 1000 } else { 150 }), killed).await) };
        let killed = async {
            match end {
                End::Killed | End::Copied => killed.await,
                _ => std::future::pending().await,
            }
        };
        let sink = async move |context| s3::run(config, context).await;
        runtime().block_on(world.live(&mut doings, end, input, sink, killed));
    }
    store.go_on();
    let config = s3_config(&store, random, is_large);
    let sink = async move |context| s3::run(config, context).await;
    let mut doings = random.fork();
    let tally = runtime().block_on(world.live(&mut doings, End::Drained, input, sink, std::future::pending()));
    assert_eq!((tally.delivered, tally.pending()), (tally.received, 0), "{tally}");
    // A process without input has the time to abort what is left.
    let config = s3_config(&store, random, is_large);
    let idle = store.clone();
    let sink = async move |context: Context| {
        tokio::select! {
            ended = s3::run(config, context) => ended,
            () = until("what was left is aborted", || idle.bytes_in_uploads() == 0) => Ok(()),
        }
    };
    let nothing = async {
        until("what was left is aborted", || store.bytes_in_uploads() == 0).await;
    };
    runtime().block_on(world.live(&mut doings, End::Killed, (0, 1), sink, nothing));
    let objects: BTreeMap<String, Vec<u8>> =
        store.objects().into_iter().map(|(key, object)| (key, object.bytes)).collect();
    world.assert_stored(&objects);
}

#[test]
fn s3_holds_every_record_once_over_kills() {
    if has_credentials("restart::s3_holds_every_record_once_over_kills") {
        cases(60, |random| s3_case(random, false));
    }
}

#[test]
fn s3_holds_every_record_once_over_kills_in_uploads() {
    if has_credentials("restart::s3_holds_every_record_once_over_kills_in_uploads") {
        cases(5, |random| s3_case(random, true));
    }
}

/// All files below a directory.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn files_hold_every_record_once_over_kills() {
    cases(60, |random| {
        let mut world = World::new();
        let root = directory();
        let lives = random.u8(1..6);
        for life in 0..=lives {
            // A directory and its journal cannot be stopped at one moment from outside: no copy is taken.
            let end = match some_end(random) {
                _ if life == lives => End::Drained,
                End::Copied => End::Killed,
                end => end,
            };
            let key = Template::parse(random.choice(["{tag}/", "a/", "{tag}/%H/"]).unwrap()).unwrap();
            let compression = random.choice([Compression::None, Compression::Gzip]).unwrap();
            let layout = match random.u8(..4) {
                0 => file::Layout::Firehose { stream: "logs".into() },
                _ => file::Layout::S3 { key, compression },
            };
            let config = file::Config { directory: root.path().to_owned(), layout };
            let mut doings = random.fork();
            let moment = Duration::from_micros(random.u64(..30_000));
            let input_ended = random.bool().then(|| world.input_ended.clone());
            let killed = async {
                match (end, input_ended) {
                    (End::Killed, None) => tokio::time::sleep(moment).await,
                    (End::Killed, Some(input_ended)) => {
                        input_ended.notified().await;
                        tokio::time::sleep(moment / 10).await;
                    }
                    _ => std::future::pending().await,
                }
            };
            let sink = async move |context| file::run(config, context).await;
            // Its end waits for what is being written; what was decided after it is not begun.
            let tally = runtime().block_on(world.live(&mut doings, end, (12, 300), sink, killed));
            if life == lives {
                assert_eq!((tally.delivered, tally.pending()), (tally.received, 0), "{tally}");
            }
        }
        world.assert_settled();
        let files = files(root.path());
        assert!(files.keys().all(|name| !name.ends_with(".part")), "{:?}", files.keys());
        world.assert_stored(&files);
    });
}
