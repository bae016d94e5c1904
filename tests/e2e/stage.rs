//! What most tests share: a fake with its group, stream and bucket, a witness, a directory, an address to listen on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::fake_aws::{FakeAws, Observer, Options};
use crate::process::{Process, Run, free_address};
use crate::sender::{Mode, Sender};
use crate::traffic::{MARK, Seen, Traffic, Verdict, Witness};

/// The names that a stage's flags and its configuration use.
pub const GROUP: &str = "/mesh/orders";
pub const STREAM: &str = "orders-1";
pub const FIREHOSE: &str = "mesh-audit";
pub const BUCKET: &str = "mesh-logs";
/// Upper bound for anything that should take moments, on a machine busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// The setting of a test.
pub struct Stage {
    pub fake: FakeAws,
    pub witness: Arc<Witness>,
    pub traffic: Traffic,
    pub directory: TempDir,
    pub address: SocketAddr,
    pub count: u64,
}

impl Stage {
    /// For `count` records from forward clients.
    pub fn new(count: u64) -> Self {
        Self::of(Traffic::recent(), count)
    }

    /// For `count` records of that traffic.
    pub fn of(traffic: Traffic, count: u64) -> Self {
        let witness = Witness::new(traffic.clone(), count);
        Self::with(traffic, count, witness.observer().into(), witness)
    }

    /// For whatever comes; the fake keeps it.
    pub fn keeping() -> Self {
        Self::with(Traffic::recent(), 0, None, Witness::new(Traffic::recent(), 0))
    }

    fn with(traffic: Traffic, count: u64, observer: Option<Observer>, witness: Arc<Witness>) -> Self {
        let options = Options {
            seed: count,
            forget: observer.is_some(),
            observer,
            marks: vec![MARK.into()],
            ..Options::default()
        };
        let fake = FakeAws::start(options);
        fake.logs().seed(GROUP, &[STREAM]);
        fake.seed_firehose(FIREHOSE);
        fake.seed_bucket(BUCKET);
        Self { fake, witness, traffic, directory: TempDir::new().unwrap(), address: free_address(), count }
    }

    /// Path of the unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("forward.sock")
    }

    /// The three sinks, as flags.
    pub fn aws_flags() -> [String; 6] {
        let to = || "--to".to_owned();
        let s3 = format!("s3://{BUCKET}/logs");
        [to(), format!("cloudwatch:{GROUP}/{STREAM}"), to(), format!("firehose:{FIREHOSE}"), to(), s3]
    }

    /// `run` by flags: forward in, all three sinks out.
    pub fn run_by_flags(&self) -> Run {
        let listen = self.address.to_string();
        let run = Run::new(["run", "--forward", &listen, "--forward-unix", self.socket().to_str().unwrap()]);
        run.with(Self::aws_flags()).environment(self.fake.environment())
    }

    /// `run` by a file: the same, with small quick batches and quick retries, so that a short test makes many requests.
    pub fn run_quick(&self) -> Run {
        let path = self.directory.path().join("meshlens.toml");
        let retry = r#"retry = { base = "20ms", cap = "500ms", request_timeout = "2s" }"#;
        let text = format!(
            r#"
[source.forward]
type = "forward"
listen = "{}"
unix_path = "{}"

[sink.cloudwatch]
type = "cloudwatch_logs"
group = "{GROUP}"
stream = "{STREAM}"
batch_timeout = "50ms"
batch_events_max = 200
{retry}

[sink.firehose]
type = "firehose"
stream = "{FIREHOSE}"
batch_timeout = "50ms"
record_bytes_max = "4KiB"
batch_records_max = 20
{retry}

[sink.s3]
type = "s3"
bucket = "{BUCKET}"
key = "logs/year=%Y/month=%m/day=%d/hour=%H/"
object_bytes_max = "32KiB"
object_age_max = "1s"
{retry}
"#,
            self.address,
            self.socket().display()
        );
        std::fs::write(&path, text).unwrap();
        Run::new(["run", "--config", path.to_str().unwrap()]).environment(self.fake.environment())
    }

    /// Starts a run and waits until it listens.
    pub fn start(&self, run: Run) -> Process {
        let mut process = run.start();
        process.wait_tcp(self.address, SOON);
        process
    }

    /// A sender to the TCP address.
    pub fn sender(&self, mode: Mode) -> Sender {
        Sender::tcp(self.address, mode)
    }

    /// Asserts that a sink has every record, unaltered, with no more copies than `copies_max`.
    pub fn assert_whole(&self, sink: Seen, copies_max: u64) {
        let verdict = self.witness.verdict(sink);
        assert!(verdict.duplicated <= copies_max, "{sink:?}: more than {copies_max} copies: {verdict:?}");
        assert_eq!(Verdict { duplicated: 0, ..verdict }, Verdict::default(), "{sink:?}");
    }

    /// Asserts that no mark was seen by the fake, or said by the process.
    pub fn assert_no_mark(&self, said: &str) {
        assert_eq!(self.fake.leaks(), Vec::<String>::new());
        assert!(!said.contains(MARK), "the process said a query string:\n{said}");
    }
}
