//! A Forward client that can be held to account: each message is a chunk that asks for an ack, a window of chunks is under way
//! at once, and a chunk whose ack did not come is sent again, under the same id, over the next connection, as fluentd and
//! Fluent Bit do. It knows of every record how often it was sent and whether it was acknowledged.

#![allow(dead_code, reason = "tests and benches each use a part")]

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::sender::{Mode, Sender};
use super::traffic::Traffic;

/// An ack that takes longer is not waited for: the chunk goes out again over a new connection. Fluentd's default is 190 s.
const ACK_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two attempts to connect.
const RECONNECT_EVERY: Duration = Duration::from_millis(5);
/// A connection that is to be closed waits so long for the acks that are due.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a client sends.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub mode: Mode,
    /// Records in a chunk.
    pub batch: usize,
    /// Chunks under way at once, for each connection.
    pub window: usize,
    pub connections: u64,
    /// Records a second over all connections; none = as fast as they are taken.
    pub rate: Option<u64>,
    /// How long a connection lives, and how it ends.
    pub reconnect: Option<(Duration, Farewell)>,
    /// Whether chunks without an ack are sent again when their connection is gone. If not, they are given up.
    pub resend: bool,
}

/// How a connection ends that has lived long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The client says that nothing more comes, and reads the acks that are due.
    Polite,
    /// Cut, whatever is under way.
    Cut,
}

/// What a client did, record by record. Shared with whoever watches.
pub struct Tally {
    count: u64,
    next: AtomicU64,
    sends: Vec<AtomicU8>,
    acked: Vec<AtomicBool>,
    acked_count: AtomicU64,
    connections: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    /// For records 0 to `count`.
    pub fn new(count: u64) -> Self {
        Self {
            count,
            next: AtomicU64::new(0),
            sends: (0..count).map(|_| AtomicU8::new(0)).collect(),
            acked: (0..count).map(|_| AtomicBool::new(false)).collect(),
            acked_count: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// No new records from now on; what is under way is brought to its end.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Records that were begun: 0 to this.
    pub fn sent(&self) -> u64 {
        self.next.load(Relaxed).min(self.count)
    }

    /// Records acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked_count.load(Relaxed)
    }

    /// Whether a record was acknowledged.
    pub fn is_acked(&self, n: u64) -> bool {
        self.acked[n as usize].load(Relaxed)
    }

    /// How often a record was written to a connection, whole or in part.
    pub fn sends(&self, n: u64) -> u64 {
        u64::from(self.sends[n as usize].load(Relaxed))
    }

    /// Records written, each counted as often as it was.
    pub fn written(&self) -> u64 {
        self.sends.iter().map(|sends| u64::from(sends.load(Relaxed))).sum()
    }

    /// Connections that were made.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Records that were written to a file: sent, and as good as acknowledged.
    pub fn write(&self, records: Range<u64>) {
        for n in records.clone() {
            self.sends[n as usize].fetch_add(1, Relaxed);
        }
        self.ack(&records);
        self.next.store(records.end, Relaxed);
    }

    fn take(&self, batch: usize) -> Option<Range<u64>> {
        if self.stop.load(Relaxed) {
            return None;
        }
        let first = self.next.fetch_add(batch as u64, Relaxed);
        (first < self.count).then(|| first..(first + batch as u64).min(self.count))
    }

    fn ack(&self, chunk: &Range<u64>) {
        for n in chunk.clone() {
            if !self.acked[n as usize].swap(true, Relaxed) {
                self.acked_count.fetch_add(1, Relaxed);
            }
        }
    }
}

/// What the two sides of one connection share: chunks without an ack by their first record, and whether reading is over.
#[derive(Default)]
struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: BTreeMap<u64, Range<u64>>,
    is_over: bool,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until that is so or the connection is over; false if it is over, or time is up.
    fn wait(&self, within: Duration, mut is_so: impl FnMut(&State) -> bool) -> bool {
        let waiting = |state: &mut State| !state.is_over && !is_so(state);
        let guard = self.changed.wait_timeout_while(self.lock(), within, waiting);
        let (state, timeout) = guard.unwrap_or_else(PoisonError::into_inner);
        !state.is_over && !timeout.timed_out()
    }
}

impl Client {
    /// One connection, a window of eight chunks of 500 records, chunks sent again.
    pub fn new(address: SocketAddr) -> Self {
        let (mode, batch, window, connections) = (Mode::Packed, 500, 8, 1);
        Self { address, mode, batch, window, connections, rate: None, reconnect: None, resend: true }
    }

    /// Whether its connections end in the middle of what they say.
    pub fn is_cut(&self) -> bool {
        self.reconnect.is_some_and(|(_, farewell)| farewell == Farewell::Cut)
    }

    /// Sends until all records of the tally are sent or it is stopped, and all is acknowledged or given up.
    pub fn send(&self, traffic: &Traffic, tally: &Tally) {
        std::thread::scope(|scope| {
            for _ in 0..self.connections {
                scope.spawn(|| self.send_one(traffic, tally));
            }
        });
    }

    fn send_one(&self, traffic: &Traffic, tally: &Tally) {
        let mut pace = Pace { begun: Instant::now(), records: 0, rate: self.rate.map(|rate| rate / self.connections) };
        let mut left = BTreeMap::new();
        let mut is_done = false;
        while !is_done || !left.is_empty() {
            let Ok(stream) = TcpStream::connect(self.address) else {
                if tally.stop.load(Relaxed) && !self.resend {
                    return;
                }
                std::thread::sleep(RECONNECT_EVERY);
                continue;
            };
            tally.connections.fetch_add(1, Relaxed);
            let window = Window::default();
            std::thread::scope(|scope| {
                scope.spawn(|| read_acks(&stream, &window, tally));
                is_done |= self.write(&stream, &window, std::mem::take(&mut left), traffic, tally, &mut pace);
                // Ends the reader, if it is not at its end already.
                drop(stream.shutdown(Shutdown::Both));
            });
            if self.resend {
                left = window.state.into_inner().unwrap_or_else(PoisonError::into_inner).open;
            }
        }
    }

    /// Writes until the connection's end; true if no more records are to come.
    fn write(
        &self,
        mut stream: &TcpStream,
        window: &Window,
        again: BTreeMap<u64, Range<u64>>,
        traffic: &Traffic,
        tally: &Tally,
        pace: &mut Pace,
    ) -> bool {
        let begun = Instant::now();
        let sender = Sender { batch: self.batch, ..Sender::tcp(self.address, self.mode) };
        let mut again = again.into_values().collect::<std::collections::VecDeque<_>>();
        // All of them are due, also those that this connection does not live to send.
        window.lock().open = again.iter().map(|chunk| (chunk.start, chunk.clone())).collect();
        let mut bytes = Vec::new();
        loop {
            if self.reconnect.is_some_and(|(life, farewell)| farewell == Farewell::Cut && begun.elapsed() >= life) {
                return false;
            }
            let is_old = self.reconnect.is_some_and(|(life, _)| begun.elapsed() >= life);
            let (chunk, is_new) = match again.pop_front() {
                Some(chunk) => (chunk, false),
                None if is_old => break,
                None => match tally.take(self.batch) {
                    Some(chunk) => (chunk, true),
                    None => {
                        drop(stream.shutdown(Shutdown::Write));
                        window.wait(ACK_TIMEOUT, |state| state.open.is_empty());
                        return true;
                    }
                },
            };
            window.lock().open.insert(chunk.start, chunk.clone());
            let numbers: Vec<u64> = chunk.clone().collect();
            bytes.clear();
            sender.message(traffic, &numbers, Some(&chunk_id(chunk.start)), &mut bytes);
            for n in &numbers {
                tally.sends[*n as usize].fetch_add(1, Relaxed);
            }
            if stream.write_all(&bytes).is_err() {
                return false;
            }
            if is_new {
                pace.keep(numbers.len() as u64);
            }
            let room = again.len() + self.window;
            if !window.wait(ACK_TIMEOUT, |state| state.open.len() < room) {
                return false;
            }
        }
        drop(stream.shutdown(Shutdown::Write));
        window.wait(CLOSE_TIMEOUT, |state| state.open.is_empty());
        false
    }
}

/// Keeps to a rate, from the first record on: what an interruption cost is made up for.
struct Pace {
    begun: Instant,
    records: u64,
    rate: Option<u64>,
}

impl Pace {
    fn keep(&mut self, records: u64) {
        self.records += records;
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(self.records as f64 / rate as f64);
        if let Some(wait) = due.checked_sub(self.begun.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}

fn chunk_id(first: u64) -> String {
    STANDARD.encode(u128::from(first).to_be_bytes())
}

/// The first record of the chunk that an ack is for; none if it is no ack of ours.
fn acked(answer: &rmpv::Value) -> Option<u64> {
    let [(key, chunk)] = answer.as_map()?.as_slice() else { return None };
    let bytes = STANDARD.decode(chunk.as_str().filter(|_| key.as_str() == Some("ack"))?).ok()?;
    u64::try_from(u128::from_be_bytes(bytes.try_into().ok()?)).ok()
}

fn read_acks(stream: &TcpStream, window: &Window, tally: &Tally) {
    let mut reader = BufReader::new(stream);
    // A value cut off in the middle ends it like the connection's end does; what is no ack of an open chunk is a defect.
    while let Ok(answer) = rmpv::decode::read_value(&mut reader.by_ref()) {
        let first = acked(&answer).unwrap_or_else(|| panic!("not an ack: {answer}"));
        let mut state = window.lock();
        let chunk = state.open.remove(&first).unwrap_or_else(|| panic!("an ack that nobody asked for: {answer}"));
        tally.ack(&chunk);
        drop(state);
        window.changed.notify_all();
    }
    window.lock().is_over = true;
    window.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Reads whole messages from one connection and acknowledges as many as it is told; returns the chunks' ids.
    fn serve(listener: &TcpListener, acks: usize, messages: usize) -> Vec<String> {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(&stream);
        let mut seen = Vec::new();
        while seen.len() < messages {
            let Ok(message) = rmpv::decode::read_value(&mut reader) else { break };
            let id = message[2]["chunk"].as_str().unwrap().to_owned();
            if seen.len() < acks {
                let ack = rmpv::Value::Map(vec![("ack".into(), id.as_str().into())]);
                rmpv::encode::write_value(&mut &stream, &ack).unwrap();
            }
            seen.push(id);
        }
        // Closed with bytes unread, the connection would be reset, and acknowledgements under way be lost.
        stream.shutdown(std::net::Shutdown::Write).ok();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        std::io::copy(&mut reader, &mut std::io::sink()).ok();
        seen
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_under_its_old_id() {
        // More than the window of the first connection, so that there is a second one in any case.
        const COUNT: u64 = 300;
        for resend in [true, false] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let client = Client { batch: 10, resend, ..Client::new(listener.local_addr().unwrap()) };
            let (tally, traffic) = (Tally::new(COUNT), Traffic::recent());
            let (first, second) = std::thread::scope(|scope| {
                scope.spawn(|| client.send(&traffic, &tally));
                (serve(&listener, 2, 4), serve(&listener, usize::MAX, usize::MAX))
            });
            assert_eq!(first.len(), 4);
            let again: Vec<&String> = first[2..].iter().filter(|id| second.contains(id)).collect();
            assert_eq!(again.len(), if resend { 2 } else { 0 }, "{first:?} {second:?}");
            assert!(!second.contains(&first[0]) && !second.contains(&first[1]));
            assert_eq!(tally.connections(), 2);
            assert_eq!(tally.sent(), COUNT);
            let lost = (0..COUNT).filter(|n| !tally.is_acked(*n)).count() as u64;
            assert_eq!(tally.acked(), COUNT - lost);
            assert_eq!(lost > 0, !resend);
            assert!(tally.written() >= COUNT + if resend { 20 } else { 0 });
        }
    }
}
