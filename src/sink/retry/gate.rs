//! How many requests a sink may have in flight: halved when throttled, one more after each round of successes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// A counting gate whose width follows what the destination bears (additive increase, multiplicative decrease).
pub(super) struct Gate {
    width_max: f64,
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    /// Between 1 and `width_max`; its whole part is the number of permits.
    width: f64,
    in_use: usize,
    /// When the width was last halved: requests begun before that tell nothing new.
    halved: Option<Instant>,
}

impl Gate {
    pub(super) fn new(width_max: usize) -> Arc<Self> {
        let width_max = width_max.max(1) as f64;
        let state = Mutex::new(State { width: width_max, in_use: 0, halved: None });
        Arc::new(Self { width_max, state, freed: Notify::new() })
    }

    pub(super) fn allowed(&self) -> usize {
        self.lock().width as usize
    }

    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        loop {
            {
                let mut state = self.lock();
                if state.in_use < state.width as usize {
                    state.in_use += 1;
                    let more = state.in_use < state.width as usize;
                    drop(state);
                    if more {
                        // Two places freed at once may have left one word only.
                        self.freed.notify_one();
                    }
                    return Permit { gate: self.clone() };
                }
            }
            // `notify_one` leaves its word for a waiter that comes late, so nothing is missed in between.
            self.freed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the gate, given back when dropped.
pub(super) struct Permit {
    gate: Arc<Gate>,
}

impl Permit {
    /// A request succeeded: a whole round of them widens the gate by one.
    pub(super) fn succeeded(&self) {
        let mut state = self.gate.lock();
        let before = state.width as usize;
        state.width = (state.width + 1.0 / state.width).min(self.gate.width_max);
        if state.width as usize > before {
            drop(state);
            self.gate.freed.notify_one();
        }
    }

    /// A request begun at `begun` was throttled. All in flight at that time are one observation.
    pub(super) fn throttled(&self, begun: Instant) {
        let mut state = self.gate.lock();
        if state.halved.is_none_or(|halved| begun > halved) {
            state.width = (state.width / 2.0).max(1.0);
            state.halved = Some(Instant::now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.in_use -= 1;
        let room = state.in_use < state.width as usize;
        drop(state);
        if room {
            self.gate.freed.notify_one();
        }
    }
}
