//! Warnings that a stranger could cause without end: the first is said at once, the rest is counted and said now and then.

/// The shortest time between two sayings, in nanoseconds.
pub const INTERVAL_NS: i64 = 30_000_000_000;

/// Decides when to say what happens again and again. Each place has its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sparing {
    /// When it was last said.
    said_ns: Option<i64>,
    /// How often it happened since.
    unsaid: u64,
}

impl Sparing {
    /// It happened so often once more, at that time. How often to say that it happened; none if it is not yet time to say anything.
    pub fn count(&mut self, times: u64, now_ns: i64) -> Option<u64> {
        self.unsaid += times;
        // A clock that was set back is no reason to fall silent.
        let is_silent = self.said_ns.is_some_and(|said_ns| (0..INTERVAL_NS).contains(&(now_ns - said_ns)));
        if is_silent || self.unsaid == 0 {
            return None;
        }
        self.said_ns = Some(now_ns);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// What was counted and never said, for the end of whatever it is about.
    pub fn rest(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.unsaid)).filter(|&unsaid| unsaid > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_rest_is_counted() {
        let mut sparing = Sparing::default();
        assert_eq!(sparing.count(0, 0), None, "nothing happened");
        assert_eq!(sparing.count(1, 5), Some(1));
        for _ in 0..100 {
            assert_eq!(sparing.count(2, 6), None);
        }
        assert_eq!(sparing.count(0, INTERVAL_NS + 4), None);
        assert_eq!(sparing.count(0, INTERVAL_NS + 5), Some(200));
        assert_eq!(sparing.rest(), None);
        assert_eq!(sparing.count(3, INTERVAL_NS + 6), None);
        assert_eq!(sparing.rest(), Some(3));
        assert_eq!(sparing.rest(), None);
    }

    #[test]
    fn a_clock_set_back_does_not_silence() {
        let mut sparing = Sparing::default();
        assert_eq!(sparing.count(1, INTERVAL_NS), Some(1));
        assert_eq!(sparing.count(1, 0), Some(1));
    }
}
