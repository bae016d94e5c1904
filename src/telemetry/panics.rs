//! A panic anywhere in the process is a defect that may have cost records: it is said, and it ends the process in order.
//!
//! Tasks of connections, of requests, of libraries: nobody waits for the end of each of them, and a runtime swallows the panic of
//! a task that nobody waits for. The hook sees them all. What it says is where, and what stands in the program's text: the
//! message that a panic makes up may hold a piece of a record (`&text[..4]` of a text that has no boundary there prints it).
//!
//! Threads in [`ISOLATED`] are left out: they hold nothing of the pipeline.

use std::fmt;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use tokio::sync::watch;

/// Names of threads whose panics are said and end nothing but the task.
pub const ISOLATED: [&str; 1] = [crate::telemetry::ADMIN_THREAD];

/// Where a panic was, and why, as far as that may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    place: String,
    message: Option<&'static str>,
}

impl fmt::Display for Panic {
    /// `a task panicked at src/process.rs:10: explicit panic`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a task panicked at {}", self.place)?;
        self.message.map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

impl Panic {
    fn new(info: &PanicHookInfo<'_>) -> Self {
        let place =
            info.location().map_or_else(|| "an unknown place".to_owned(), |at| format!("{}:{}", at.file(), at.line()));
        Self { place, message: info.payload().downcast_ref::<&'static str>().copied() }
    }
}

#[cfg(test)]
impl Panic {
    /// A panic without a message.
    pub fn at(place: &str) -> Self {
        Self { place: place.to_owned(), message: None }
    }
}

/// The first panic of the process, once there is one.
pub type Watch = watch::Receiver<Option<Panic>>;

static FIRST: OnceLock<watch::Sender<Option<Panic>>> = OnceLock::new();

/// Sets the hook, once for the process, and gives what it sees.
pub fn watch() -> Watch {
    let sender = FIRST.get_or_init(|| {
        std::panic::set_hook(Box::new(seen));
        watch::channel(None).0
    });
    sender.subscribe()
}

fn seen(info: &PanicHookInfo<'_>) {
    let panic = Panic::new(info);
    let thread = std::thread::current();
    let is_isolated = thread.name().is_some_and(|name| ISOLATED.contains(&name));
    // Not by the log: it may be what panicked, with its lock held.
    writeln!(std::io::stderr(), "meshlens: defect: {panic}").ok();
    if let Some(first) = FIRST.get().filter(|_| !is_isolated) {
        first.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(panic);
            is_first
        });
    }
}

/// Waits for a panic; for ever if none comes.
pub async fn next(watch: &mut Watch) -> Panic {
    match watch.wait_for(Option::is_some).await.ok().and_then(|panic| panic.clone()) {
        Some(panic) => panic,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook is one for all tests of this process, so it is not set here.
    fn caught(cause: impl FnOnce() + std::panic::UnwindSafe) -> Panic {
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let me = std::thread::current().id();
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().id() == me {
                sender.send(Panic::new(info)).unwrap();
            } else {
                others(info);
            }
        }));
        assert!(std::panic::catch_unwind(cause).is_err());
        drop(std::panic::take_hook());
        receiver.recv().unwrap()
    }

    #[test]
    fn a_panic_tells_its_place_and_nothing_of_the_data() {
        let said = caught(|| panic!("the program's own words")).to_string();
        assert!(said.starts_with("a task panicked at src/telemetry/panics.rs:"), "{said}");
        assert!(said.ends_with(": the program's own words"), "{said}");
        let record = String::from("/p?token=s\u{e9}same");
        let said = caught(move || drop(record[..11].to_owned())).to_string();
        assert!(said.starts_with("a task panicked at") && !said.contains("token"), "{said}");
    }
}
