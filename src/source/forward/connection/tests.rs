use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::super::Config;
use super::*;
use crate::chunk::SourceId;
use crate::journal::{Durable, Sequence};
use crate::process::Submitted;
use crate::process::repeats::ChunkKey;
use crate::source::Intake;

const MESSAGE: &[u8] = b"\x93\xa1t\x01\x80";
const LONG: Duration = Duration::from_secs(30);

/// Answers chunk n (from 1) with a reply of bytes n, to be written when the journal is durable to n.
#[derive(Clone)]
struct Replying {
    inner: Arc<Inner>,
}

struct Inner {
    durable: watch::Sender<Sequence>,
    reply_bytes: usize,
    chunks: AtomicUsize,
    finished: AtomicUsize,
    /// No chunk after this many is taken.
    is_full_after: AtomicUsize,
    acknowledged: Mutex<Vec<u8>>,
    unacknowledged: Mutex<Vec<(u8, Sequence)>>,
}

impl Replying {
    fn new(reply_bytes: usize, durable: Sequence) -> Self {
        Self {
            inner: Arc::new(Inner {
                durable: watch::channel(durable).0,
                reply_bytes,
                chunks: AtomicUsize::new(0),
                finished: AtomicUsize::new(0),
                is_full_after: AtomicUsize::new(usize::MAX),
                acknowledged: Mutex::default(),
                unacknowledged: Mutex::default(),
            }),
        }
    }

    fn chunks(&self) -> usize {
        self.inner.chunks.load(Relaxed)
    }

    async fn until_chunks(&self, chunks: usize) {
        let wait = async {
            while self.chunks() < chunks {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, wait).await.expect("chunks");
    }
}

impl Intakes for Replying {
    type Intake = Self;

    fn intake(&self) -> Self {
        self.clone()
    }

    fn durable(&self) -> Durable {
        self.inner.durable.subscribe().into()
    }

    fn source(&self) -> SourceId {
        0
    }

    fn acknowledged(&self, messages: &[ChunkKey]) {
        self.inner.acknowledged.lock().unwrap().extend(messages.iter().map(|key| key[0]));
    }

    fn unacknowledged(&self, messages: &[ChunkKey], after: Sequence) {
        self.inner.unacknowledged.lock().unwrap().extend(messages.iter().map(|key| (key[0], after)));
    }
}

impl Intake for Replying {
    async fn submit(&mut self, _chunk: Chunk) -> Submitted {
        if self.chunks() >= self.inner.is_full_after.load(Relaxed) {
            pending::<()>().await;
        }
        let number = self.inner.chunks.fetch_add(1, Relaxed) + 1;
        let (after, reply) = (number as Sequence, number as u8);
        Submitted {
            replies: vec![reply; self.inner.reply_bytes],
            after,
            acked: vec![[reply; 16]],
            ..Submitted::default()
        }
    }

    async fn finish(&mut self) {
        self.inner.finished.fetch_add(1, Relaxed);
    }

    async fn flush_partials(&mut self, _now_ns: i64) {}

    fn lose_frame(&self, kind: FrameErrorKind) {
        panic!("{kind}");
    }

    fn truncate(&self, _records: u64) {}
}

/// A connection being served.
struct Served {
    client: DuplexStream,
    task: JoinHandle<()>,
    close: watch::Sender<bool>,
}

impl Served {
    /// With a pipe of that many bytes each way.
    fn new(intakes: &Replying, pipe_bytes: usize, patience: Duration) -> Self {
        let (close, closing) = watch::channel(false);
        let (client, server) = duplex(pipe_bytes);
        let shared = Arc::new(Shared::new(Config::default(), intakes.clone(), closing, patience));
        let task = tokio::spawn(serve(server, Peer::Unix(1), shared));
        Self { client, task, close }
    }

    async fn send(&mut self, messages: usize) {
        timeout(LONG, self.client.write_all(&MESSAGE.repeat(messages))).await.unwrap().unwrap();
    }

    async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        timeout(LONG, self.client.read_exact(&mut read)).await.expect("a reply").unwrap();
        read
    }

    async fn end(mut self) {
        let mut rest = Vec::new();
        timeout(LONG, self.client.read_to_end(&mut rest)).await.expect("closed").unwrap();
        assert_eq!(rest, b"");
        timeout(LONG, self.task).await.expect("ends").unwrap();
    }
}

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_peer_that_takes_no_replies_is_given_up() {
    let intakes = Replying::new(100, Sequence::MAX);
    let mut served = Served::new(&intakes, 256, SHORT);
    let write = async { while served.client.write_all(MESSAGE).await.is_ok() {} };
    timeout(LONG, write).await.unwrap();
    served.task.await.unwrap();
    assert!(intakes.chunks() >= 3, "256 bytes hold two replies of 100");
    assert_eq!(intakes.inner.finished.load(Relaxed), 1);
    // The third did not fit, and whether the first two were read nobody knows.
    let mut unacknowledged = intakes.inner.unacknowledged.lock().unwrap().clone();
    unacknowledged.sort_unstable();
    assert_eq!(unacknowledged, [(1, 0), (2, 0), (3, 3)]);
    assert_eq!(*intakes.inner.acknowledged.lock().unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_silent_peer_is_let_go_when_the_source_ends() {
    let intakes = Replying::new(100, Sequence::MAX);
    let mut served = Served::new(&intakes, 256, SHORT);
    served.send(1).await;
    served.read(100).await;
    served.close.send(true).unwrap();
    served.end().await;
    assert_eq!((intakes.chunks(), intakes.inner.finished.load(Relaxed)), (1, 1));
    assert_eq!(*intakes.inner.unacknowledged.lock().unwrap(), []);
}

#[tokio::test]
async fn acknowledgements_wait_for_the_journal_and_reading_does_not() {
    let intakes = Replying::new(2, 0);
    let mut served = Served::new(&intakes, 256, LONG);
    for chunks in 1..=5 {
        served.send(1).await;
        intakes.until_chunks(chunks).await;
    }
    assert!(timeout(SHORT, served.client.read_u8()).await.is_err(), "nothing is durable");
    intakes.inner.durable.send_replace(2);
    assert_eq!(served.read(4).await, [1, 1, 2, 2]);
    assert!(timeout(SHORT, served.client.read_u8()).await.is_err(), "no more is durable");
    intakes.inner.durable.send_replace(5);
    assert_eq!(served.read(6).await, [3, 3, 4, 4, 5, 5]);
    drop(served.client);
    timeout(LONG, served.task).await.unwrap().unwrap();
    assert_eq!(*intakes.inner.acknowledged.lock().unwrap(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_peer_that_has_closed_its_side_gets_its_acknowledgements() {
    let intakes = Replying::new(1, 0);
    let mut served = Served::new(&intakes, 256, LONG);
    served.send(1).await;
    intakes.until_chunks(1).await;
    served.client.shutdown().await.unwrap();
    assert!(timeout(SHORT, served.client.read_u8()).await.is_err());
    intakes.inner.durable.send_replace(1);
    assert_eq!(served.read(1).await, [1]);
    served.end().await;
    assert_eq!(*intakes.inner.unacknowledged.lock().unwrap(), []);
}

#[tokio::test]
async fn what_is_never_durable_is_never_acknowledged_and_will_be_known() {
    for is_ours in [true, false] {
        let intakes = Replying::new(1, 1);
        let mut served = Served::new(&intakes, 256, SHORT);
        for chunks in 1..=3 {
            served.send(1).await;
            intakes.until_chunks(chunks).await;
        }
        assert_eq!(served.read(1).await, [1]);
        if is_ours {
            served.close.send(true).unwrap();
        } else {
            served.client.shutdown().await.unwrap();
        }
        served.end().await;
        assert_eq!(*intakes.inner.unacknowledged.lock().unwrap(), [(2, 2), (3, 3)]);
        assert_eq!(*intakes.inner.acknowledged.lock().unwrap(), [1]);
    }
}

#[tokio::test]
async fn a_full_window_stops_the_reading() {
    let intakes = Replying::new(40 << 10, 0);
    let mut served = Served::new(&intakes, 1 << 20, LONG);
    for chunks in 1..=2 {
        served.send(1).await;
        intakes.until_chunks(chunks).await;
    }
    // 80 KiB wait: the next is read, and not taken in.
    served.send(1).await;
    assert!(timeout(SHORT, intakes.until_chunks(3)).await.is_err());
    intakes.inner.durable.send_replace(1);
    intakes.until_chunks(3).await;
    assert_eq!(served.read(40 << 10).await, vec![1; 40 << 10]);
    // The end of the source takes in what has been read, whatever the window.
    served.send(1).await;
    assert!(timeout(SHORT, intakes.until_chunks(4)).await.is_err());
    served.close.send(true).unwrap();
    intakes.until_chunks(4).await;
    intakes.inner.durable.send_replace(4);
    assert_eq!(served.read(3 * (40 << 10)).await.last(), Some(&4));
    served.end().await;
}

#[tokio::test]
async fn acknowledgements_are_written_while_the_journal_has_no_room() {
    let intakes = Replying::new(1, 0);
    intakes.inner.is_full_after.store(2, Relaxed);
    let mut served = Served::new(&intakes, 256, LONG);
    for chunks in 1..=2 {
        served.send(1).await;
        intakes.until_chunks(chunks).await;
    }
    served.send(1).await;
    intakes.inner.durable.send_replace(2);
    assert_eq!(served.read(2).await, [1, 2]);
    assert_eq!(intakes.chunks(), 2, "the third waits for room");
    served.task.abort();
}
