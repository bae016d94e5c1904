//! meshlens's own log: tracing to stderr, text or JSON, with repeats limited. Never a record's content.
//!
//! A fault that repeats (a peer that sends broken frames, a throttling service) would fill the log and cost more than the
//! fault. The same message from the same place is written [`BURST`] times in [`WINDOW`]; the rest is counted, and the count
//! is said when the window is over, with the next event of any kind or at the end. Fields do not make messages different.
//!
//! Libraries below us say warnings and errors only, whatever the level: at `debug` the AWS SDK writes request bodies,
//! which are records.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt as subscriber_fmt};

pub use tracing::level_filters::LevelFilter as Level;

/// Target of the account at the end of a run: written whatever the level, since it is the process's last word.
pub const ACCOUNT_TARGET: &str = "meshlens::account";

/// The environment variable that comes before `log.level`.
pub const LEVEL_VARIABLE: &str = "MESHLENS_LOG";
/// How often the same message is written in a [`WINDOW`].
pub const BURST: u64 = 10;
/// How long repeats are counted together.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Different messages watched at once; beyond that, new ones are written without a limit.
const MESSAGES_MAX: usize = 1024;
/// How much of a message is repeated in the count.
const MESSAGE_CHARS_MAX: usize = 200;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// The log's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How it is written.
    pub format: Format,
    /// How much is said.
    pub level: Level,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Text, level: Level::INFO }
    }
}

static LIMITER: OnceLock<(Arc<Limiter>, Format)> = OnceLock::new();

/// Starts the log. A second call in one process changes nothing.
pub fn init(format: Format, level: Level) {
    let limiter = Arc::new(Limiter::default());
    if subscriber(Config { format, level }, limiter.clone(), std::io::stderr).try_init().is_ok() {
        // Nobody else sets it: `try_init` succeeds once.
        LIMITER.set((limiter, format)).ok();
    }
}

fn subscriber<W>(config: Config, limiter: Arc<Limiter>, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let Config { format, level } = config;
    let targets = Targets::new()
        .with_default(level.min(Level::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target(ACCOUNT_TARGET, level.max(Level::INFO));
    let layer = subscriber_fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match format {
        Format::Text => {
            let inner = subscriber_fmt::format().compact().with_ansi(false);
            layer.event_format(Limited { inner, limiter, format }).boxed()
        }
        Format::Json => {
            let inner = subscriber_fmt::format().json().flatten_event(true).with_span_list(false);
            let fields = subscriber_fmt::format::JsonFields::new();
            layer.fmt_fields(fields).event_format(Limited { inner, limiter, format }).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(targets))
}

/// Says what is still counted and not said. For the end of the process.
pub fn flush() {
    let Some((limiter, format)) = LIMITER.get() else { return };
    let mut text = String::new();
    for repeats in limiter.take_all() {
        // Writing to a String cannot fail.
        write_repeats(&mut text, *format, &repeats).ok();
    }
    // A closed stderr is no reason to fail.
    std::io::stderr().write_all(text.as_bytes()).ok();
}

/// Counts messages by place and text.
#[derive(Default)]
struct Limiter {
    windows: Mutex<HashMap<u64, Window>>,
}

struct Window {
    start: Instant,
    seen: u64,
    message: String,
    level: tracing::Level,
}

/// What was left out.
#[derive(Debug, PartialEq, Eq)]
struct Repeats {
    count: u64,
    message: String,
    level: tracing::Level,
}

impl Limiter {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this message may be written now.
    fn admits(&self, key: u64, level: tracing::Level, message: &str, now: Instant) -> bool {
        let mut windows = self.lock();
        if let Some(window) = windows.get_mut(&key) {
            window.seen += 1;
            return window.seen <= BURST;
        }
        if windows.len() < MESSAGES_MAX {
            let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
            windows.insert(key, Window { start: now, seen: 1, message, level });
        }
        true
    }

    /// Ends the windows that are over; what was left out in them.
    fn take_ended(&self, now: Instant) -> Vec<Repeats> {
        let mut windows = self.lock();
        let ended = windows.extract_if(|_, window| now.duration_since(window.start) >= WINDOW);
        ended.filter_map(|(_, window)| window.repeats()).collect()
    }

    fn take_all(&self) -> Vec<Repeats> {
        self.lock().drain().filter_map(|(_, window)| window.repeats()).collect()
    }
}

impl Window {
    fn repeats(self) -> Option<Repeats> {
        let count = self.seen.saturating_sub(BURST);
        (count > 0).then_some(Repeats { count, message: self.message, level: self.level })
    }
}

/// An event format that leaves out repeats.
struct Limited<F> {
    inner: F,
    limiter: Arc<Limiter>,
    format: Format,
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = Instant::now();
        for repeats in self.limiter.take_ended(now) {
            write_repeats(&mut writer, self.format, &repeats)?;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut hasher = DefaultHasher::new();
        event.metadata().callsite().hash(&mut hasher);
        message.0.hash(&mut hasher);
        if self.limiter.admits(hasher.finish(), *event.metadata().level(), &message.0, now) {
            self.inner.format_event(context, writer, event)?;
        }
        Ok(())
    }
}

/// The text of an event, without its fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            write!(self.0, "{value:?}").ok();
        }
    }
}

fn write_repeats(out: &mut impl fmt::Write, format: Format, repeats: &Repeats) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let Repeats { count, message, level } = repeats;
    match format {
        Format::Text => writeln!(out, "{time} {level:>5} repeats left out: {message} count={count}"),
        Format::Json => {
            let line = serde_json::json!({
                "timestamp": time, "level": level.as_str(), "message": "repeats left out", "of": message, "count": count,
            });
            writeln!(out, "{line}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARN: tracing::Level = tracing::Level::WARN;

    #[test]
    fn repeats_beyond_the_burst_are_counted_and_said_once_the_window_is_over() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let admitted = (0..BURST + 7).filter(|_| limiter.admits(1, WARN, "frame refused", start)).count() as u64;
        assert_eq!(admitted, BURST);
        assert!(limiter.admits(2, WARN, "another", start), "other messages have their own count");
        assert_eq!(limiter.take_ended(start + WINDOW - Duration::from_millis(1)), []);
        let repeats = Repeats { count: 7, message: "frame refused".into(), level: WARN };
        assert_eq!(limiter.take_ended(start + WINDOW), [repeats]);
        assert_eq!(limiter.take_ended(start + 2 * WINDOW), []);
        assert!(limiter.admits(1, WARN, "frame refused", start + WINDOW), "a new window begins");
    }

    #[test]
    fn what_is_left_is_said_at_the_end() {
        let limiter = Limiter::default();
        let start = Instant::now();
        for _ in 0..BURST + 1 {
            limiter.admits(1, WARN, &"x".repeat(5000), start);
        }
        let all = limiter.take_all();
        assert_eq!((all.len(), all[0].count, all[0].message.len()), (1, 1, MESSAGE_CHARS_MAX));
        assert_eq!(limiter.take_all(), []);
    }

    #[test]
    fn the_table_of_messages_is_bounded_and_the_rest_is_written() {
        let limiter = Limiter::default();
        let start = Instant::now();
        for key in 0..2 * MESSAGES_MAX as u64 {
            assert!(limiter.admits(key, WARN, "", start));
        }
        assert_eq!(limiter.lock().len(), MESSAGES_MAX);
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, level: Level, events: impl FnOnce()) -> Vec<String> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(Config { format, level }, Arc::default(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn repeats_are_left_out_whatever_their_fields() {
        for format in [Format::Text, Format::Json] {
            let lines = written(format, Level::INFO, || {
                for peer in 0..100 {
                    tracing::warn!(peer, "frame refused");
                }
                tracing::error!("something else");
            });
            assert_eq!(lines.len() as u64, BURST + 1, "{lines:?}");
            assert!(lines[0].contains("peer") && lines.last().unwrap().contains("something else"), "{lines:?}");
        }
    }

    #[test]
    fn json_is_json_and_libraries_below_say_warnings_only() {
        let lines = written(Format::Json, Level::TRACE, || {
            tracing::trace!(sink = "s3", "ours");
            tracing::debug!(target: "aws_smithy_runtime", "request body");
            tracing::warn!(target: "aws_smithy_runtime", "trouble");
        });
        let values: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values.len(), 2, "{lines:?}");
        assert_eq!((&values[0]["message"], &values[0]["sink"]), (&"ours".into(), &"s3".into()));
        assert_eq!(values[1]["message"], "trouble");
        assert_eq!(written(Format::Text, Level::OFF, || tracing::error!("x")), [""; 0]);
    }

    #[test]
    fn a_second_start_does_not_panic() {
        init(Format::Text, Level::WARN);
        init(Format::Json, Level::TRACE);
        flush();
    }

    #[test]
    fn the_count_reads_in_both_formats() {
        let repeats = Repeats { count: 3, message: "a \"b\"".into(), level: WARN };
        let mut text = String::new();
        write_repeats(&mut text, Format::Text, &repeats).unwrap();
        assert!(text.ends_with(" WARN repeats left out: a \"b\" count=3\n"), "{text}");
        let mut json = String::new();
        write_repeats(&mut json, Format::Json, &repeats).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["of"], &json["count"]), (&"a \"b\"".into(), &3.into()));
    }
}
