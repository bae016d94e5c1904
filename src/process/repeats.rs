//! Messages that come twice because their acknowledgement did not arrive.
//!
//! A client that asked for an acknowledgement and lost its connection before it came sends the same message again over another one.
//! If the first was taken in, the second is acknowledged and left out, and counted as
//! [`Reason::Duplicate`](crate::telemetry::account::Reason::Duplicate). One table for each source says which messages are known:
//!
//! ```text
//!            begin            taken              acknowledged (written to the socket)
//!  unknown ────────► taking ────────► taken ───────────────────────────────────────────► unknown
//!     ▲    forget      │                │ unacknowledged (the connection broke)
//!     └────────────────┘                ▼
//!     ▲   10 minutes, or too many   unacknowledged ──── begin: a repeat, once ──► taken
//!     └─────────────────────────────────┘
//! ```
//!
//! A repeat that comes while the first is still being taken in (it waits for room in the journal) waits for it; on the connection of
//! the first it is no repeat: no client sends again there.
//!
//! A message is known by a [`ChunkKey`], over its tag, its id and a checksum of all its bytes: a client whose ids are not unique loses nothing.
//! Keys hold nothing that could be read, so they may go to disk. After a restart, those of blocks found there count as
//! unacknowledged.
//!
//! Cost: nothing for messages without an id; else a digest of some 60 bytes, the checksum (a few GB/s), and a lock twice a message.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::journal::Sequence;

/// What a message with an id is known by.
pub type ChunkKey = [u8; 16];

/// Messages known in all; those that come when there are as many are not watched.
const KNOWN_MAX: usize = 16 << 10;

/// Unacknowledged messages remembered; the oldest give way.
const UNACKNOWLEDGED_MAX: usize = 4 << 10;
const _: () = assert!(UNACKNOWLEDGED_MAX < KNOWN_MAX);

/// How long an unacknowledged message is remembered. Clients try again after seconds, fluentd at most after some minutes.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The key of a message: its tag, its id as it was sent, and all its bytes.
pub fn key(tag: &[u8], id: &[u8], message: &[u8]) -> ChunkKey {
    let digest = Sha256::new()
        .chain_update((tag.len() as u64).to_be_bytes())
        .chain_update(tag)
        .chain_update(crc32fast::hash(message).to_be_bytes())
        .chain_update((message.len() as u64).to_be_bytes())
        .chain_update(id)
        .finalize();
    let mut key = ChunkKey::default();
    key.copy_from_slice(&digest[..size_of::<ChunkKey>()]);
    key
}

/// Where a known message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// That connection is at work on it.
    Taking { connection: u64 },
    /// All of it is in blocks below `after`; that connection is to acknowledge it.
    Taken { connection: u64, after: Sequence },
    /// The same, and nobody is left to acknowledge it.
    Unacknowledged { after: Sequence, since: Instant },
}

/// What [`Repeats::begin`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Not known: to be taken in, and then to be [`taken`](Repeats::taken) or [forgotten](Repeats::forget).
    New,
    /// Not known, and not watched either.
    Unwatched,
    /// It is in blocks below this already: to be acknowledged and left out.
    Repeat(Sequence),
    /// Another connection is at work on it: to be asked again after [`Repeats::change`].
    Busy,
}

/// The messages of one source that could come again.
#[derive(Debug, Default)]
pub struct Repeats {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<ChunkKey, Standing>,
    /// The unacknowledged ones by age; some may be acknowledged since.
    unacknowledged: VecDeque<(Instant, ChunkKey)>,
    connections: u64,
}

impl Repeats {
    /// Knows these as unacknowledged: what the journal holds from before a restart.
    pub fn with(keys: impl IntoIterator<Item = ChunkKey>) -> Self {
        let repeats = Self::default();
        let keys: Vec<ChunkKey> = keys.into_iter().collect();
        repeats.unacknowledged(&keys, 0);
        repeats
    }

    /// A number for one more connection.
    pub fn connect(&self) -> u64 {
        let mut state = self.lock();
        state.connections += 1;
        state.connections
    }

    /// A whole message of that key has come over that connection.
    pub fn begin(&self, key: ChunkKey, connection: u64) -> Begun {
        let state = &mut *self.lock();
        match state.known.get(&key).copied() {
            Some(Standing::Unacknowledged { after, since }) if since.elapsed() < REMEMBERED => {
                state.known.insert(key, Standing::Taken { connection, after });
                Begun::Repeat(after)
            }
            Some(Standing::Taking { connection: other }) if other != connection => Begun::Busy,
            Some(Standing::Taken { connection: other, after }) if other != connection => {
                state.known.insert(key, Standing::Taken { connection, after });
                Begun::Repeat(after)
            }
            Some(Standing::Taking { .. } | Standing::Taken { .. }) => Begun::Unwatched,
            None if state.known.len() >= KNOWN_MAX => Begun::Unwatched,
            None | Some(Standing::Unacknowledged { .. }) => {
                state.known.insert(key, Standing::Taking { connection });
                Begun::New
            }
        }
    }

    /// Waits until some message is not [busy](Begun::Busy) any more. To be made before the look at it, and awaited after.
    pub fn change(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// All of these are in blocks below `after` now.
    pub fn taken(&self, keys: &[ChunkKey], connection: u64, after: Sequence) {
        self.update(keys, |state, key| {
            state.known.insert(*key, Standing::Taken { connection, after });
        });
    }

    /// These were not taken in as a whole.
    pub fn forget(&self, keys: &[ChunkKey]) {
        self.update(keys, |state, key| {
            state.known.remove(key);
        });
    }

    /// The acknowledgements of these are written.
    pub fn acknowledged(&self, keys: &[ChunkKey]) {
        self.update(keys, |state, key| {
            // Nobody waits for these: a message being taken in has no acknowledgement yet.
            if !matches!(state.known.get(key), Some(Standing::Taking { .. })) {
                state.known.remove(key);
            }
        });
    }

    /// The acknowledgements of these, which are in blocks below `after`, did not arrive, as far as we know.
    pub fn unacknowledged(&self, keys: &[ChunkKey], after: Sequence) {
        if keys.is_empty() {
            return;
        }
        let since = Instant::now();
        self.update(keys, |state, key| {
            if matches!(state.known.get(key), Some(Standing::Taking { .. })) {
                return;
            }
            state.known.insert(*key, Standing::Unacknowledged { after, since });
            state.unacknowledged.push_back((since, *key));
        });
        self.lock().expire(since);
    }

    fn update(&self, keys: &[ChunkKey], mut update: impl FnMut(&mut State, &ChunkKey)) {
        if keys.is_empty() {
            return;
        }
        let mut state = self.lock();
        keys.iter().for_each(|key| update(&mut state, key));
        drop(state);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; were it to, the table is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets what is too old or too much.
    fn expire(&mut self, now: Instant) {
        while let Some(&(since, key)) = self.unacknowledged.front() {
            if self.unacknowledged.len() <= UNACKNOWLEDGED_MAX && now.duration_since(since) < REMEMBERED {
                break;
            }
            self.unacknowledged.pop_front();
            // It may have been acknowledged since, or be unacknowledged anew.
            if matches!(self.known.get(&key), Some(Standing::Unacknowledged { since: known, .. }) if *known == since) {
                self.known.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<ChunkKey> {
        (0..count).map(|number| key(b"tag", &number.to_be_bytes(), b"message")).collect()
    }

    #[test]
    fn an_unacknowledged_message_is_a_repeat_once() {
        let (repeats, key) = (Repeats::default(), keys(1)[0]);
        assert_eq!(repeats.begin(key, 1), Begun::New);
        repeats.taken(&[key], 1, 9);
        repeats.unacknowledged(&[key], 9);
        assert_eq!(repeats.begin(key, 2), Begun::Repeat(9));
        repeats.acknowledged(&[key]);
        assert_eq!(repeats.begin(key, 3), Begun::New, "known no more");
    }

    #[test]
    fn an_acknowledged_or_half_taken_message_is_not_known() {
        let (repeats, key) = (Repeats::default(), keys(1)[0]);
        assert_eq!(repeats.begin(key, 1), Begun::New);
        repeats.forget(&[key]);
        assert_eq!(repeats.begin(key, 2), Begun::New);
        repeats.taken(&[key], 2, 1);
        repeats.acknowledged(&[key]);
        assert_eq!(repeats.begin(key, 3), Begun::New);
    }

    #[test]
    fn a_message_in_hand_elsewhere_is_waited_for_and_then_a_repeat() {
        let (repeats, key) = (Repeats::default(), keys(1)[0]);
        assert_eq!(repeats.begin(key, 1), Begun::New);
        assert_eq!(repeats.begin(key, 2), Begun::Busy);
        assert_eq!(repeats.begin(key, 1), Begun::Unwatched, "no client sends again over the same connection");
        repeats.taken(&[key], 1, 5);
        assert_eq!(repeats.begin(key, 2), Begun::Repeat(5));
        // The first connection breaks only now: its acknowledgement is the second's to give, or the third's.
        repeats.unacknowledged(&[key], 5);
        assert_eq!(repeats.begin(key, 3), Begun::Repeat(5));
    }

    #[test]
    fn a_key_is_over_tag_id_and_bytes() {
        let all = [key(b"t", b"i", b"m"), key(b"u", b"i", b"m"), key(b"t", b"j", b"m"), key(b"t", b"i", b"n")];
        for (place, one) in all.iter().enumerate() {
            assert_eq!(all.iter().filter(|other| *other == one).count(), 1, "{place}");
        }
        assert_eq!(all[0], key(b"t", b"i", b"m"));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_are_remembered() {
        let all = keys(2 * KNOWN_MAX);
        let repeats = Repeats::with(all[..2 * UNACKNOWLEDGED_MAX].iter().copied());
        assert_eq!(repeats.lock().known.len(), UNACKNOWLEDGED_MAX);
        assert_eq!(repeats.begin(all[0], 1), Begun::New);
        assert_eq!(repeats.begin(all[2 * UNACKNOWLEDGED_MAX - 1], 1), Begun::Repeat(0));
        for key in &all {
            repeats.begin(*key, 1);
        }
        assert_eq!(repeats.lock().known.len(), KNOWN_MAX);
        for key in &all {
            repeats.unacknowledged(&[*key], 1);
            repeats.acknowledged(&[*key]);
        }
        assert!(repeats.lock().unacknowledged.len() <= UNACKNOWLEDGED_MAX);
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let (repeats, keys) = (Repeats::default(), keys(2));
        repeats.unacknowledged(&keys[..1], 1);
        let later = Instant::now() + REMEMBERED;
        repeats.lock().expire(later);
        assert!(repeats.lock().known.is_empty());
    }
}
