//! An intake that writes down what it is given, in place of the pipeline.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshlens::chunk::{Chunk, Encoding, SourceId};
use meshlens::decode::{FrameErrorKind, Limits, message, transcode, write_ack};
use meshlens::journal::Durable;
use meshlens::process::Submitted;
use meshlens::source::{Intake, Intakes};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Longer than anything here takes; ends a test that hangs.
pub const LONG: Duration = Duration::from_secs(30);

/// What all connections of a source brought.
#[derive(Clone, Default)]
pub struct Recorder {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Bytes of all chunks, by connection in the order in which they came.
    pub streams: Vec<Vec<u8>>,
    pub chunks: usize,
    pub lost: Vec<FrameErrorKind>,
    pub truncated: u64,
    pub finished: usize,
}

#[allow(dead_code, reason = "not each test file uses all")]
impl Recorder {
    pub fn seen(&self) -> Seen {
        self.inner.seen.lock().unwrap().clone()
    }

    /// All bytes, if one connection brought them.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen().streams.concat()
    }

    /// Waits until what was seen is as wanted.
    pub async fn until(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let wait = async {
            loop {
                let news = self.inner.news.notified();
                let seen = self.seen();
                if wanted(&seen) {
                    return seen;
                }
                news.await;
            }
        };
        match timeout(LONG, wait).await {
            Ok(seen) => seen,
            Err(_) => panic!("waited in vain; {} chunks, {:?} lost", self.seen().chunks, self.seen().lost),
        }
    }

    fn write(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.inner.seen.lock().unwrap());
        // A permit for one who has not begun to wait, and a call for those who have.
        self.inner.news.notify_waiters();
        self.inner.news.notify_one();
    }
}

impl Intakes for Recorder {
    type Intake = Connection;

    fn intake(&self) -> Connection {
        let mut number = 0;
        self.write(|seen| {
            number = seen.streams.len();
            seen.streams.push(Vec::new());
        });
        Connection { recorder: self.clone(), number }
    }

    fn durable(&self) -> Durable {
        Durable::at_once()
    }

    fn source(&self) -> SourceId {
        7
    }
}

pub struct Connection {
    recorder: Recorder,
    number: usize,
}

impl Intake for Connection {
    async fn submit(&mut self, chunk: Chunk) -> Submitted {
        assert_eq!(chunk.source, 7);
        assert!(chunk.received_ns > 1_700_000_000_000_000_000);
        let mut submitted = Submitted::default();
        if chunk.encoding != Encoding::Lines {
            submitted.broken = acknowledge(&chunk, &mut submitted.replies).err();
        }
        if let Some(error) = submitted.broken {
            self.lose_frame(error.kind);
        }
        self.recorder.write(|seen| {
            seen.chunks += 1;
            seen.streams[self.number].extend_from_slice(&chunk.bytes);
        });
        submitted
    }

    async fn finish(&mut self) {
        self.recorder.write(|seen| seen.finished += 1);
    }

    async fn flush_partials(&mut self, _now_ns: i64) {}

    fn lose_frame(&self, kind: FrameErrorKind) {
        self.recorder.write(|seen| seen.lost.push(kind));
    }

    fn truncate(&self, records: u64) {
        self.recorder.write(|seen| seen.truncated += records);
    }
}

fn acknowledge(chunk: &Chunk, replies: &mut Vec<u8>) -> Result<(), meshlens::decode::FrameError> {
    let mut transcoded = Vec::new();
    let mut rest = match chunk.encoding {
        Encoding::ForwardJson => {
            transcode(&chunk.bytes, &mut transcoded)?;
            &transcoded[..]
        }
        _ => &chunk.bytes[..],
    };
    while !rest.is_empty() {
        let (decoded, used) = message(rest, &Limits::default())?;
        rest = &rest[used..];
        if let Some(id) = decoded.and_then(|decoded| decoded.chunk) {
            write_ack(&id, chunk.encoding, replies);
        }
    }
    Ok(())
}
