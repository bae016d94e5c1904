//! How many requests a sink may have in flight, and how soon one may follow the other.
//!
//! *Width*: halved when throttled, one more after each round of successes (additive increase, multiplicative decrease).
//!
//! *Pace*: where throttling goes on though the width has fallen, requests of single turns still follow each other as fast as they
//! are refused. So when more than half of [`WINDOW_ATTEMPTS`] attempts were throttled, they are started at the rate at which
//! requests were taken meanwhile, which is what the destination bears. From there the rate grows by a quarter with each success
//! after the second in a row, so that it finds a new limit, or none, within seconds. A destination that throttles a part of
//! all requests at random, less than half, is not paced: waiting would not help.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Attempts that are judged together.
const WINDOW_ATTEMPTS: u32 = 20;

/// A window that says nothing after this time is forgotten.
const WINDOW_AGE_MAX: Duration = Duration::from_secs(10);

/// The lowest pace, in requests a second; what is slower than that is the backoff's.
const RATE_MIN: f64 = 1.0;

/// From here on there is no pace.
const RATE_MAX: f64 = 256.0;

/// Growth of the rate with a success.
const RATE_GROWTH: f64 = 1.25;

/// Successes in a row before the rate grows.
const CLEAN_MIN: u32 = 2;

/// A counting gate whose width and pace follow what the destination bears.
pub(super) struct Gate {
    width_max: f64,
    state: Mutex<State>,
    freed: Notify,
    /// Told with each success.
    succeeded: Notify,
}

struct State {
    /// Between 1 and `width_max`; its whole part is the number of permits.
    width: f64,
    in_use: usize,
    /// When the width was last halved: requests begun before that tell nothing new.
    halved: Option<Instant>,
    pace: Pace,
}

struct Pace {
    /// Starts of requests a second; infinite if there is no limit.
    rate: f64,
    /// The next request may not start before.
    next: Option<Instant>,
    /// The window's begin.
    since: Option<Instant>,
    taken: u32,
    throttled: u32,
    /// Successes since the last throttling.
    clean: u32,
}

impl Gate {
    pub(super) fn new(width_max: usize) -> Arc<Self> {
        let width_max = width_max.max(1) as f64;
        let pace = Pace { rate: f64::INFINITY, next: None, since: None, taken: 0, throttled: 0, clean: 0 };
        let state = Mutex::new(State { width: width_max, in_use: 0, halved: None, pace });
        Arc::new(Self { width_max, state, freed: Notify::new(), succeeded: Notify::new() })
    }

    pub(super) fn allowed(&self) -> usize {
        self.lock().width as usize
    }

    /// Requests that may start in a second; infinite if there is no limit.
    pub(super) fn rate(&self) -> f64 {
        self.lock().pace.rate
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

    /// Waits for a success of any turn from now on.
    pub(super) async fn success(&self) {
        self.succeeded.notified().await;
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
    /// When the next request may start; the time is taken by it.
    pub(super) fn start(&self) -> Instant {
        self.gate.lock().pace.start(Instant::now())
    }

    /// A request succeeded: a whole round of them widens the gate by one.
    pub(super) fn succeeded(&self) {
        let mut state = self.gate.lock();
        let before = state.width as usize;
        state.width = (state.width + 1.0 / state.width).min(self.gate.width_max);
        state.pace.succeeded(Instant::now());
        let is_wider = state.width as usize > before;
        drop(state);
        if is_wider {
            self.gate.freed.notify_one();
        }
        self.gate.succeeded.notify_waiters();
    }

    /// A request begun at `begun` was throttled. All in flight at that time are one observation for the width.
    pub(super) fn throttled(&self, begun: Instant) {
        let mut state = self.gate.lock();
        if state.halved.is_none_or(|halved| begun > halved) {
            state.width = (state.width / 2.0).max(1.0);
            state.halved = Some(Instant::now());
        }
        state.pace.throttled(Instant::now());
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

impl Pace {
    fn start(&mut self, now: Instant) -> Instant {
        if self.rate.is_infinite() {
            return now;
        }
        let start = self.next.map_or(now, |next| next.max(now));
        self.next = Some(start + Duration::from_secs_f64(1.0 / self.rate));
        start
    }

    fn succeeded(&mut self, now: Instant) {
        self.age(now);
        self.taken += 1;
        self.clean += 1;
        if self.clean > CLEAN_MIN && self.rate.is_finite() {
            self.rate *= RATE_GROWTH;
            if self.rate >= RATE_MAX {
                self.rate = f64::INFINITY;
            }
        }
    }

    fn throttled(&mut self, now: Instant) {
        self.age(now);
        self.throttled += 1;
        self.clean = 0;
        let is_window = self.taken + self.throttled >= WINDOW_ATTEMPTS;
        if !is_window || self.throttled <= self.taken {
            return;
        }
        // Where nothing at all is taken there is no rate to go by: the backoff is what it needs.
        if self.taken > 0 {
            let seconds = self.since.map_or(0.0, |since| (now - since).as_secs_f64());
            self.rate = (f64::from(self.taken) / seconds.max(f64::EPSILON)).clamp(RATE_MIN, RATE_MAX);
        }
        (self.since, self.taken, self.throttled) = (None, 0, 0);
    }

    fn age(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now - since > WINDOW_AGE_MAX {
            (self.since, self.taken, self.throttled) = (Some(now), 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A destination that allows so many requests a second, with as many saved up at most; infinite: throttles a part at random.
    struct Destination {
        rate: f64,
        saved: f64,
        last: Instant,
        random: f64,
        latency: Duration,
    }

    impl Destination {
        fn takes(&mut self, at: Instant) -> bool {
            if fastrand::f64() < self.random {
                return false;
            }
            self.saved = (self.saved + (at - self.last).as_secs_f64() * self.rate).min(self.rate.max(1.0));
            self.last = at;
            let takes = self.saved >= 1.0;
            if takes {
                self.saved -= 1.0;
            }
            takes
        }
    }

    /// One turn after the other, as at width 1, in virtual time: successes and throttled attempts from `from` to `to` seconds.
    fn run(pace: &mut Pace, destination: &mut Destination, begun: Instant, seconds: f64, from: f64) -> (f64, f64) {
        let (mut at, mut taken, mut throttled, mut failures) = (begun, 0.0, 0.0, 0);
        loop {
            at = pace.start(at) + destination.latency;
            let elapsed = (at - begun).as_secs_f64();
            if elapsed > seconds {
                return (taken / (seconds - from), throttled / (seconds - from));
            }
            let counts = if elapsed >= from { 1.0 } else { 0.0 };
            if destination.takes(at) {
                taken += counts;
                failures = 0;
                pace.succeeded(at);
            } else {
                throttled += counts;
                pace.throttled(at);
                // The backoff, full jitter.
                at += Duration::from_secs_f64(0.2 * f64::from(1 << failures) * fastrand::f64());
                failures = (failures + 1).min(6);
            }
        }
    }

    fn pace() -> Pace {
        Pace { rate: f64::INFINITY, next: None, since: None, taken: 0, throttled: 0, clean: 0 }
    }

    fn seed() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        fastrand::seed(seed);
    }

    fn destination(rate: f64, random: f64, now: Instant) -> Destination {
        Destination { rate, saved: 1.0, last: now, random, latency: Duration::from_millis(2) }
    }

    #[test]
    fn the_pace_comes_near_to_what_is_allowed_without_a_storm() {
        seed();
        let now = Instant::now();
        for allowed in [2.0, 10.0, 50.0] {
            let (taken, throttled) = run(&mut pace(), &mut destination(allowed, 0.0, now), now, 120.0, 20.0);
            assert!(taken > allowed * 0.75 && taken < allowed * 1.05, "{taken} of {allowed} a second");
            assert!(throttled < taken * 1.2, "{throttled} throttled for {taken} taken a second");
        }
    }

    #[test]
    fn the_pace_ends_within_seconds_when_the_limit_does() {
        seed();
        let now = Instant::now();
        let mut pace = pace();
        run(&mut pace, &mut destination(1.0, 0.0, now), now, 60.0, 0.0);
        let later = now + Duration::from_secs(60);
        let (taken, throttled) = run(&mut pace, &mut destination(1e6, 0.0, later), later, 11.0, 10.0);
        assert!(pace.rate.is_infinite() && taken > 400.0 && throttled == 0.0, "{taken} {}", pace.rate);
    }

    #[test]
    fn throttling_at_random_is_not_paced_for_long() {
        seed();
        let now = Instant::now();
        // Of thirty in a hundred the backoff's sleeps alone leave 12.9 requests a second: 1 / (0.002 / 0.7 + 0.1 * 0.75).
        let (taken, _) = run(&mut pace(), &mut destination(1e6, 0.3, now), now, 600.0, 0.0);
        assert!(taken > 10.0, "{taken}");
    }

    #[test]
    fn an_outage_leaves_no_pace_behind() {
        let now = Instant::now();
        let mut pace = pace();
        for n in 0..100 {
            pace.throttled(now + Duration::from_millis(n));
        }
        assert!(pace.rate.is_infinite());
    }

    #[test]
    fn what_is_paced_starts_one_after_the_other() {
        let now = Instant::now();
        let mut pace = Pace { rate: 4.0, ..pace() };
        let starts: Vec<u128> = (0..4).map(|_| (pace.start(now) - now).as_millis()).collect();
        assert_eq!(starts, [0, 250, 500, 750]);
        // A time that was not used is not made up for.
        let later = now + Duration::from_secs(10);
        assert_eq!((pace.start(later), pace.start(later)), (later, later + Duration::from_millis(250)));
    }
}
