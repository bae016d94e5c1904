//! The binary under test: started, watched, ended, and what it said.

#![allow(dead_code, reason = "tests and benches each use a part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);
/// Kernel clock ticks in `/proc/PID/stat` (USER_HZ, 100 on every architecture that Linux runs on by default).
const TICK: Duration = Duration::from_millis(10);

/// A run to be started.
pub struct Run {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    is_unread: bool,
}

impl Run {
    /// `meshlens` with these arguments, in an environment that knows nothing of AWS, ECS or proxies.
    pub fn new<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            stdin: None,
            is_unread: false,
        }
    }

    /// More arguments.
    pub fn with<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// More environment.
    pub fn environment(mut self, pairs: Vec<(String, String)>) -> Self {
        self.environment.extend(pairs);
        self
    }

    /// Bytes on its standard input; without, that is empty.
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Nobody reads its standard output: the pipe is closed on the other side.
    pub fn without_reader(mut self) -> Self {
        self.is_unread = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Process {
        // Another build of it, such as an image's or a release, by `MESHLENS_BINARY`.
        let binary = std::env::var_os("MESHLENS_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_meshlens").into());
        let mut child = Command::new(binary)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.environment)
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let (Some(bytes), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            // A process that ended early does not read; its exit tells more than this pipe.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        drop(child.stdout.take_if(|_| self.is_unread));
        let (stdout, stderr) = (Output::collect(child.stdout.take()), Output::collect(child.stderr.take()));
        Process { child, stdout, stderr, peak_kib: 0, begun: Instant::now(), arguments: self.arguments }
    }
}

struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&bytes);
        let reader = pipe.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
                }
            })
        });
        Self { bytes, reader }
    }

    fn now(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running process. Dropped, it is killed.
pub struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
    peak_kib: u64,
    begun: Instant,
    arguments: Vec<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process left behind.
#[derive(Debug)]
pub struct Exit {
    /// None when a signal killed it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The account it told last.
    pub account: Account,
    /// User and system time.
    pub cpu: Duration,
    /// The most memory it had resident, in KiB.
    pub peak_kib: u64,
    /// From start to exit.
    pub elapsed: Duration,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.now()).into_owned()
    }

    /// What it printed on standard output so far.
    pub fn printed(&self) -> Vec<u8> {
        self.stdout.now()
    }

    /// Waits until it takes connections there; panics with what it said if it does not.
    pub fn wait_tcp(&mut self, address: SocketAddr, within: Duration) {
        self.wait_until("listening", within, |_| TcpStream::connect(address).is_ok());
    }

    /// The same for a unix socket.
    pub fn wait_unix(&mut self, path: &Path, within: Duration) {
        self.wait_until("listening", within, |_| UnixStream::connect(path).is_ok());
    }

    /// Waits until something is so; panics with what the process said if it does not become so, or the process ends.
    pub fn wait_until(&mut self, what: &str, within: Duration, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + within;
        while !is_so(self) {
            let ended = self.state().is_none_or(|state| state == 'Z');
            assert!(!ended, "{:?} ended before {what}; it said:\n{}", self.arguments, self.said());
            assert!(
                Instant::now() < deadline,
                "{:?} not {what} in {within:?}; it said:\n{}",
                self.arguments,
                self.said()
            );
            self.sample();
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal, by name: `TERM`, `INT`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status().unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(self, within: Duration) -> Exit {
        self.signal("TERM");
        self.wait(within)
    }

    /// Waits for the end; panics with what it said if it does not come.
    pub fn wait(mut self, within: Duration) -> Exit {
        let deadline = Instant::now() + within;
        // Not reaped before its times are read.
        while self.state().is_some_and(|state| state != 'Z') {
            assert!(
                Instant::now() < deadline,
                "{:?} still runs after {within:?}; it said:\n{}",
                self.arguments,
                self.said()
            );
            self.sample();
            std::thread::sleep(POLL);
        }
        let elapsed = self.begun.elapsed();
        let cpu = cpu_of(self.id()).unwrap_or_default();
        let code = self.child.wait().unwrap().code();
        let stdout = self.stdout.finish();
        let stderr = String::from_utf8_lossy(&self.stderr.finish()).into_owned();
        let account = Account::last(&stderr);
        Exit { code, stdout, stderr, account, cpu, peak_kib: self.peak_kib, elapsed }
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.id()).unwrap_or_default()
    }

    /// The most memory it had resident so far, in KiB.
    pub fn sample(&mut self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        self.peak_kib = self.peak_kib.max(peak.unwrap_or_default());
        self.peak_kib
    }

    fn state(&self) -> Option<char> {
        stat_of(self.id())?.first()?.chars().next()
    }
}

/// The fields of `/proc/PID/stat` after the command's name, state first.
fn stat_of(id: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name may hold anything; the last parenthesis ends it.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn cpu_of(id: u32) -> Option<Duration> {
    let stat = stat_of(id)?;
    let ticks: u32 = stat.get(11)?.parse::<u32>().ok()? + stat.get(12)?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// The words of the account.
const WORDS: [&str; 6] = ["received", "delivered", "filtered", "rejected", "dropped", "pending"];

/// The account line, read: one part for each sink, as every test here sends every record to every sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub parts: Vec<Part>,
    pub totals: BTreeMap<&'static str, u64>,
    /// Word, name, count: what stands in brackets.
    details: Vec<(&'static str, String, u64)>,
}

/// Where the records of one sink are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    counts: BTreeMap<&'static str, u64>,
}

impl Part {
    /// A number by its word.
    pub fn of(&self, word: &str) -> u64 {
        self.counts.get(word).copied().unwrap_or_else(|| panic!("no {word} in {self:?}"))
    }
}

impl Account {
    /// The last line that is an account; empty if there is none.
    pub fn last(log: &str) -> Self {
        let line = log.lines().rfind(|line| WORDS.iter().all(|word| line.contains(&format!("{word}="))));
        line.map(Self::read).unwrap_or_default()
    }

    /// Reads `received=10 delivered=19 (cw=10 s3=9) filtered=0 rejected=1 (s3.too_old=1) dropped=0 pending=0`.
    fn read(line: &str) -> Self {
        let mut account = Self::default();
        let mut word = WORDS[0];
        for pair in line.split([' ', '(', ')', '"', ',']) {
            let Some((name, count)) = pair.split_once('=') else { continue };
            let Ok(count) = count.parse() else { continue };
            match WORDS.iter().find(|known| **known == name) {
                Some(known) => {
                    word = known;
                    account.totals.insert(word, count);
                }
                None if name == "truncated" => {}
                None => account.details.push((word, name.to_owned(), count)),
            }
        }
        let is_sink = |detail: &&(&str, String, u64)| detail.0 == "delivered";
        let sinks: Vec<String> = account.details.iter().filter(is_sink).map(|(_, name, _)| name.clone()).collect();
        let owner = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let kept: u64 =
            account.details.iter().filter(|(_, name, _)| !sinks.contains(&owner(name))).map(|(_, _, n)| n).sum();
        let received = account.totals.get(WORDS[0]).copied().unwrap_or_default();
        account.parts = sinks
            .into_iter()
            .map(|name| {
                let of = |word: &str| {
                    let own = |detail: &&(&str, String, u64)| detail.0 == word && owner(&detail.1) == name;
                    account.details.iter().filter(own).map(|(_, _, count)| count).sum()
                };
                let mut counts: BTreeMap<_, u64> = WORDS[1..].iter().map(|word| (*word, of(word))).collect();
                // What the sources kept back, filtered or dropped, came to no sink.
                counts.insert(WORDS[0], received.saturating_sub(kept));
                Part { name, counts }
            })
            .collect();
        account
    }

    /// The part of the sink whose name holds this text.
    pub fn part(&self, name: &str) -> &Part {
        self.parts.iter().find(|part| part.name.contains(name)).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// Asserts that each sink adds up, received = delivered + filtered + rejected + dropped + pending, and each total too.
    pub fn assert_adds_up(&self) {
        assert!(!self.parts.is_empty(), "no account was told");
        for part in &self.parts {
            let rest: u64 = WORDS[1..].iter().map(|word| part.of(word)).sum();
            assert_eq!(part.of("received"), rest, "{part:?} of {self:?}");
        }
        for word in &WORDS[1..] {
            let sum: u64 = self.details.iter().filter(|detail| detail.0 == *word).map(|detail| detail.2).sum();
            assert_eq!(self.totals.get(word), Some(&sum), "{word} of {self:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_in_text_and_json() {
        let line = "2026-11-22T05:00:00Z  INFO account: received=10 delivered=13 (cw=8 s3=5) filtered=1 (forward.rule=1) \
                    rejected=1 (s3.too_old=1) dropped=1 (forward.too_large=1) pending=2 (s3=2) truncated=3";
        for log in [line.to_owned(), format!("x\n{{\"level\":\"INFO\",\"message\":\"{line}\"}}\nreceived nothing\n")] {
            let account = Account::last(&log);
            account.assert_adds_up();
            assert_eq!(account.part("s3").of("pending"), 2);
            assert_eq!(account.part("cw").of("received"), 8);
        }
    }

    #[test]
    #[should_panic(expected = "left: 3")]
    fn an_account_that_does_not_add_up_is_found() {
        Account::last("received=3 delivered=1 (a=1) filtered=0 rejected=0 dropped=0 pending=1 (a=1)").assert_adds_up();
    }
}
