//! Retries: capped exponential backoff with full jitter, and a budget in time.

use std::time::Duration;

/// How a sink retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// First upper bound of the sleep; doubles with each attempt.
    pub base: Duration,
    /// Greatest upper bound of the sleep.
    pub cap: Duration,
    /// A batch is given up (dropped, counted) after this time; none = never.
    pub give_up_after: Option<Duration>,
    /// Time limit of one attempt.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(20),
            give_up_after: None,
            request_timeout: super::REQUEST_TIMEOUT,
        }
    }
}
