//! Acknowledgements of one connection that wait for the journal.
//!
//! Messages are submitted one after the other; their acknowledgements may be written once the journal is durable to their end,
//! which in mode `always` is a sync later. Meanwhile the connection is read on, up to a window of [`BYTES_MAX`] and
//! [`MESSAGES_MAX`]. Durable is a level that only rises, so those that are due stand at the front of the queue.

use std::collections::VecDeque;

use crate::journal::{Durable, Sequence};
use crate::process::Submitted;
use crate::process::repeats::ChunkKey;

/// Bytes of acknowledgements that may wait; when they are reached, nothing more is read.
const BYTES_MAX: usize = 64 << 10;

/// Messages whose acknowledgements may wait.
const MESSAGES_MAX: usize = 1024;

/// How many of the last acknowledgements written could still be lost on their way.
const ON_THE_WAY_MAX: usize = 64;

/// Acknowledgements of one or more chunks.
#[derive(Debug, Default)]
pub(super) struct Ack {
    /// To be written once the journal is durable to here.
    pub(super) after: Sequence,
    pub(super) bytes: Vec<u8>,
    /// The messages acknowledged.
    pub(super) messages: Vec<ChunkKey>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Acks {
    durable: Durable,
    waiting: VecDeque<Ack>,
    bytes: usize,
    messages: usize,
    /// The last ones written: a connection that breaks may not have carried them to its end.
    on_the_way: VecDeque<ChunkKey>,
    /// The peer has asked for an acknowledgement.
    is_asked_for: bool,
}

impl Acks {
    pub(super) fn new(durable: Durable) -> Self {
        Self {
            durable,
            waiting: VecDeque::new(),
            bytes: 0,
            messages: 0,
            on_the_way: VecDeque::new(),
            is_asked_for: false,
        }
    }

    /// Whether the peer asks for acknowledgements, and so perhaps waits for one before it sends more.
    pub(super) fn is_asked_for(&self) -> bool {
        self.is_asked_for
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing more is to be read before some are written.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX || self.messages >= MESSAGES_MAX
    }

    /// Puts what a chunk is to be answered with at the end.
    pub(super) fn push(&mut self, submitted: Submitted) {
        if submitted.replies.is_empty() {
            return;
        }
        self.is_asked_for = true;
        self.bytes += submitted.replies.len();
        self.messages += submitted.acked.len();
        let Submitted { replies: bytes, after, acked: messages, .. } = submitted;
        self.waiting.push_back(Ack { after, bytes, messages });
    }

    /// Waits until [`Self::take_due`] gives something. For ever, if nothing waits.
    pub(super) async fn due(&mut self) {
        match self.waiting.front() {
            Some(first) => self.durable.reach(first.after).await,
            None => std::future::pending().await,
        }
    }

    /// Takes all that may be written now, as one.
    pub(super) fn take_due(&mut self) -> Option<Ack> {
        let mut due: Option<Ack> = None;
        while self.waiting.front().is_some_and(|first| self.durable.has_reached(first.after)) {
            let Some(first) = self.waiting.pop_front() else { break };
            match &mut due {
                None => due = Some(first),
                Some(due) => {
                    due.after = due.after.max(first.after);
                    due.bytes.extend_from_slice(&first.bytes);
                    due.messages.extend_from_slice(&first.messages);
                }
            }
        }
        if let Some(due) = &due {
            self.bytes -= due.bytes.len();
            self.messages -= due.messages.len();
        }
        due
    }

    /// These were written.
    pub(super) fn wrote(&mut self, ack: &Ack) {
        let last = &ack.messages[ack.messages.len().saturating_sub(ON_THE_WAY_MAX)..];
        self.on_the_way.drain(..(self.on_the_way.len() + last.len()).saturating_sub(ON_THE_WAY_MAX));
        self.on_the_way.extend(last);
    }

    /// What still waits, one by one.
    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = Ack> {
        (self.bytes, self.messages) = (0, 0);
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// What was written last, and is lost if the connection broke.
    pub(super) fn take_on_the_way(&mut self) -> Vec<ChunkKey> {
        std::mem::take(&mut self.on_the_way).into()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    fn submitted(after: Sequence, replies: &[u8], number: u8) -> Submitted {
        Submitted { replies: replies.into(), after, acked: vec![[number; 16]], ..Submitted::default() }
    }

    #[test]
    fn what_is_due_comes_together_and_in_order() {
        let (durable, receiver) = watch::channel(0);
        let mut acks = Acks::new(receiver.into());
        acks.push(Submitted::default());
        assert!(acks.is_empty() && !acks.is_asked_for());
        for number in 1..=3 {
            acks.push(submitted(u64::from(number), &[number], number));
        }
        assert!(acks.take_due().is_none());
        durable.send_replace(2);
        let due = acks.take_due().unwrap();
        assert_eq!((due.after, due.bytes, due.messages), (2, vec![1, 2], vec![[1; 16], [2; 16]]));
        assert!(acks.take_due().is_none());
        // A message left out because it came before is durable at once, yet does not overtake.
        acks.push(submitted(0, &[4], 4));
        assert!(acks.take_due().is_none());
        durable.send_replace(3);
        assert_eq!(acks.take_due().unwrap().bytes, [3, 4]);
        assert!(acks.is_empty());
    }

    #[test]
    fn the_window_is_bounded_in_bytes_and_messages() {
        let (durable, receiver) = watch::channel(0);
        let mut acks = Acks::new(receiver.into());
        acks.push(submitted(1, &vec![0; BYTES_MAX], 0));
        assert!(acks.is_full());
        durable.send_replace(1);
        acks.take_due();
        assert!(!acks.is_full());
        for _ in 0..MESSAGES_MAX {
            assert!(!acks.is_full());
            acks.push(submitted(2, &[0], 0));
        }
        assert!(acks.is_full());
        assert_eq!(acks.take_waiting().count(), MESSAGES_MAX);
        assert!(!acks.is_full());
    }

    #[test]
    fn the_last_written_are_remembered() {
        let mut acks = Acks::new(Durable::at_once());
        for number in 0..100 {
            acks.wrote(&Ack { messages: vec![[number; 16]; 2], ..Ack::default() });
        }
        let on_the_way = acks.take_on_the_way();
        assert_eq!(on_the_way.len(), ON_THE_WAY_MAX);
        assert_eq!(on_the_way[ON_THE_WAY_MAX - 1], [99; 16]);
    }
}
