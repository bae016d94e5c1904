//! The dummy source: the same record over and over, to try a configuration out; what Fluent Bit calls `dummy`.
//!
//! The first record comes at once. When all samples are made it waits for the end, as Fluent Bit does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::listen::is_true;
use super::{Intake as _, Intakes, RunError, now_ns};
use crate::chunk::{Chunk, Encoding};
use crate::decode::{FrameErrorKind, Packer};

/// Records are made no more often than this: at a higher rate, several at once.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// What is made where nothing else is said.
pub const RECORD: &str = r#"{"message":"dummy"}"#;

/// A dummy source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The record, as an entry; see [`entry`].
    pub entry: Box<[u8]>,
    /// Records a second.
    pub rate: u64,
    /// How many in all; none: without end.
    pub samples: Option<u64>,
    /// Tag of the records.
    pub tag: String,
}

/// The entry for a record in JSON.
///
/// # Errors
/// The text is no object.
pub fn entry(json: &str) -> Result<Box<[u8]>, FrameErrorKind> {
    let mut packer = Packer::default();
    if !json.trim_start().starts_with('{') {
        return Err(FrameErrorKind::Json);
    }
    packer.json(json.as_bytes())?;
    Ok(packer.take().into())
}

/// Makes records until the drain.
///
/// # Errors
/// None; as for the other sources.
pub async fn run<I: Intakes>(config: Config, intakes: I, mut draining: watch::Receiver<bool>) -> Result<(), RunError> {
    let second = Duration::from_secs(1);
    let rate = config.rate.max(1);
    let period = (second / u32::try_from(rate).unwrap_or(u32::MAX)).max(INTERVAL_MIN);
    // Rounded up, and so never none.
    let at_once = u64::try_from((period.as_nanos() * u128::from(rate)).div_ceil(second.as_nanos())).unwrap_or(rate);
    let tag: Arc<str> = config.tag.as_str().into();
    let mut intake = intakes.intake();
    let mut left = config.samples;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = is_true(&mut draining) => break,
            _ = ticks.tick(), if left != Some(0) => {
                let now = at_once.min(left.unwrap_or(u64::MAX));
                left = left.map(|left| left - now);
                let bytes = config.entry.repeat(usize::try_from(now).unwrap_or(1));
                let chunk = Chunk {
                    source: intakes.source(),
                    tag: tag.clone(),
                    is_prefix: false,
                    bytes: bytes.into(),
                    encoding: Encoding::Entries,
                    received_ns: now_ns(),
                    position: None,
                };
                intake.submit(chunk).await;
            }
        }
    }
    intake.finish().await;
    Ok(())
}
