//! Targets of one sink that fail by themselves: a log group that may not be written to must not take all turns of the sink.
//!
//! A [`Lane`] is one target. Once the destination has denied it, and until it takes something again, the lane has all turns but
//! one: no new turn is begun for it beyond that, and where it had all of them, one is lent to others while it sleeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Lanes that are remembered though nothing is in flight for them.
const LANES_MAX: usize = 1_024;

/// The state of one target.
#[derive(Debug, Default)]
pub struct Lane {
    is_denied: AtomicBool,
    is_lending: AtomicBool,
    in_flight: AtomicUsize,
}

impl Lane {
    /// Whether one more turn may be begun for it, when `allowed` turns are all that there are.
    pub fn may_begin(&self, allowed: usize) -> bool {
        !self.is_denied.load(Relaxed) || self.in_flight.load(Relaxed) < allowed.saturating_sub(1).max(1)
    }

    pub(super) fn set_denied(&self, is_denied: bool) {
        self.is_denied.store(is_denied, Relaxed);
    }

    /// Whether a turn of this lane should be lent while it sleeps: the lane has them all, and lends none yet.
    pub(super) fn lend(&self, allowed: usize) -> bool {
        self.is_denied.load(Relaxed) && self.in_flight.load(Relaxed) >= allowed && !self.is_lending.swap(true, Relaxed)
    }

    pub(super) fn end_lending(&self) {
        self.is_lending.store(false, Relaxed);
    }
}

/// A turn's being in a lane; ends when dropped.
#[derive(Debug)]
pub(super) struct InLane(Arc<Lane>);

impl InLane {
    pub(super) fn enter(lane: Arc<Lane>) -> Self {
        lane.in_flight.fetch_add(1, Relaxed);
        Self(lane)
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.0
    }
}

impl Drop for InLane {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The lanes of one sink, by a number for each target.
#[derive(Debug, Default)]
pub struct Lanes(HashMap<u64, Arc<Lane>>);

impl Lanes {
    /// That target's lane.
    pub fn get(&mut self, target: u64) -> Arc<Lane> {
        if self.0.len() >= LANES_MAX {
            // What is in use stays.
            self.0.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        self.0.entry(target).or_default().clone()
    }

    /// Whether a turn may be begun for that target.
    pub fn may_begin(&self, target: u64, allowed: usize) -> bool {
        self.0.get(&target).is_none_or(|lane| lane.may_begin(allowed))
    }
}
