//! Room for messages that have not arrived whole, over all connections of a source.
//!
//! A connection's buffer grows with what has arrived, up to the largest message; a thousand of them could hold a thousand times that, byte by
//! byte and for ever (a "slow loris"). So buffers beyond [`FREE_BYTES`] are taken from one account. When it is used up, a connection
//! waits with reading; and the oldest half message that has been waited for longer than the patience is given up, with its
//! connection: whoever waits for room gets it in the end. The same makes way when there are too many connections.
//!
//! Cost: two atomic stores a chunk, and a few operations when a buffer grows. Looking for the oldest goes over all connections, and happens only
//! under such an attack.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

/// What each connection may hold without asking: two small reads.
pub(super) const FREE_BYTES: usize = 8 << 10;

/// How often a waiting connection looks again, in parts of the patience.
const LOOKS: u32 = 10;

/// The account.
#[derive(Debug)]
pub(super) struct Room {
    bytes_max: usize,
    patience: Duration,
    held: AtomicUsize,
    places: Mutex<HashMap<u64, Arc<Place>>>,
    numbers: AtomicU64,
    /// Told when room becomes free.
    freed: Notify,
    start: Instant,
}

/// One connection's part.
#[derive(Debug)]
struct Place {
    bytes: AtomicUsize,
    /// Since when, in milliseconds from the start and 1 at least, it has waited for the rest of a message; 0: it does not.
    half_since_ms: AtomicU64,
    /// It is to give up that message, and was told so.
    gives_way: AtomicBool,
    told: Notify,
}

/// One connection's part, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    number: u64,
    place: Arc<Place>,
}

impl Room {
    /// For messages up to that size: one that doubles its buffer has room, and others beside it.
    pub(super) fn new(frame_bytes_max: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: 2 * frame_bytes_max + (16 << 20),
            patience,
            held: AtomicUsize::new(0),
            places: Mutex::default(),
            numbers: AtomicU64::new(0),
            freed: Notify::new(),
            start: Instant::now(),
        })
    }

    /// A part for one more connection.
    pub(super) fn enter(self: &Arc<Self>) -> Held {
        let number = self.numbers.fetch_add(1, Relaxed);
        let (bytes, half_since_ms) = (AtomicUsize::new(0), AtomicU64::new(0));
        let place = Arc::new(Place { bytes, half_since_ms, gives_way: AtomicBool::new(false), told: Notify::new() });
        self.lock().insert(number, place.clone());
        Held { room: self.clone(), number, place }
    }

    /// Whether connections that rest should give back what they hold.
    pub(super) fn is_short(&self) -> bool {
        self.held.load(Relaxed) > self.bytes_max / 4 * 3
    }

    /// Gives up the oldest half message, if it has been waited for long enough. False if there is none.
    pub(super) fn make_way(&self) -> bool {
        let now_ms = self.now_ms();
        let patience_ms = self.patience.as_millis() as u64;
        let places = self.lock();
        let since = |place: &&Arc<Place>| place.half_since_ms.load(Relaxed);
        let old = places.values().filter(|place| (1..=now_ms.saturating_sub(patience_ms)).contains(&since(place)));
        let Some(oldest) = old.min_by_key(since) else { return false };
        oldest.half_since_ms.store(0, Relaxed);
        oldest.gives_way.store(true, Relaxed);
        oldest.told.notify_one();
        true
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Place>>> {
        // No code of ours panics while it holds the lock; were it to, the map is still whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Whether connections that rest should give back what they hold.
    pub(super) fn is_room_short(&self) -> bool {
        self.room.is_short()
    }

    /// Takes what a buffer of that size needs, if there is room.
    pub(super) fn try_grow(&self, bytes: usize) -> bool {
        let (before, now) = (self.place.bytes.load(Relaxed), counted(bytes));
        let is_taken = now <= before
            || self
                .room
                .held
                .fetch_update(Relaxed, Relaxed, |held| {
                    Some(held + now - before).filter(|&held| held <= self.room.bytes_max)
                })
                .is_ok();
        if is_taken {
            self.place.bytes.fetch_max(now, Relaxed);
        }
        is_taken
    }

    /// The same; waits for room. Cancel safe.
    pub(super) async fn grow(&self, bytes: usize) {
        loop {
            let freed = self.room.freed.notified();
            if self.try_grow(bytes) {
                return;
            }
            self.room.make_way();
            tokio::select! {
                () = freed => {}
                () = sleep(self.room.patience / LOOKS) => {}
            }
        }
    }

    /// The buffer has that size now.
    pub(super) fn shrink(&self, bytes: usize) {
        let now = counted(bytes);
        let before = self.place.bytes.swap(now, Relaxed);
        debug_assert!(now <= before, "growth is asked for");
        if before > now {
            self.room.held.fetch_sub(before - now, Relaxed);
            self.room.freed.notify_waiters();
        }
    }

    /// Whether it waits for the rest of a message.
    pub(super) fn set_half(&self, is_half: bool) {
        let since_ms = &self.place.half_since_ms;
        if !is_half {
            since_ms.store(0, Relaxed);
            // It came whole just in time.
            self.place.gives_way.store(false, Relaxed);
        } else if since_ms.load(Relaxed) == 0 {
            since_ms.store(self.room.now_ms(), Relaxed);
        }
    }

    /// Waits until its half message is given up.
    pub(super) async fn give_way(&self) {
        while !self.place.gives_way.load(Relaxed) {
            self.place.told.notified().await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.lock().remove(&self.number);
        self.shrink(0);
    }
}

/// What counts of a buffer.
fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_BYTES)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn small_buffers_are_free_and_large_ones_are_counted() {
        let room = Room::new(MIB, LONG);
        let many: Vec<Held> = (0..1000).map(|_| room.enter()).collect();
        assert!(many.iter().all(|held| held.try_grow(FREE_BYTES)));
        assert_eq!(room.held.load(Relaxed), 0);
        let large = many.iter().filter(|held| held.try_grow(MIB)).count();
        assert_eq!(large, 18);
        assert!(room.is_short());
        many[0].shrink(FREE_BYTES);
        assert!(many[999].try_grow(MIB) && !many[0].try_grow(MIB));
        drop(many);
        assert_eq!((room.held.load(Relaxed), room.lock().len()), (0, 0));
    }

    #[tokio::test]
    async fn the_oldest_half_message_gives_way_to_who_waits() {
        let room = Room::new(MIB, Duration::from_millis(20));
        let lorises: Vec<Held> = (0..18).map(|_| room.enter()).collect();
        for loris in &lorises {
            assert!(loris.try_grow(MIB));
            loris.set_half(true);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let busy = room.enter();
        let mut lorises = lorises.into_iter();
        let first = lorises.next().unwrap();
        let (first, ()) = tokio::join!(
            async {
                timeout(LONG, first.give_way()).await.expect("the oldest");
                drop(first);
            },
            async { timeout(LONG, busy.grow(MIB)).await.expect("room") },
        );
        let () = first;
        assert_eq!(room.lock().len(), 18);
    }

    #[tokio::test]
    async fn young_half_messages_and_whole_ones_are_left_alone() {
        let room = Room::new(MIB, LONG);
        let (young, whole) = (room.enter(), room.enter());
        young.set_half(true);
        whole.set_half(true);
        whole.set_half(false);
        assert!(!room.make_way());
        assert!(timeout(Duration::from_millis(5), young.give_way()).await.is_err());
    }
}
