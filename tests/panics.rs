//! A panic in a task that nobody waits for: the run ends in order, with the account, and says nothing of the data.
//!
//! In a process of its own, since the panic hook is one for all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption in a test is a failed test")]

use std::time::Duration;

use meshlens::config::{flags::Flags, load_text};
use meshlens::telemetry::{ADMIN_THREAD, panics};
use meshlens::topology;

#[test]
fn a_panic_of_any_task_ends_the_run_with_a_failure_and_an_account() {
    let text =
        "[source.in]\ntype='forward'\nlisten='127.0.0.1:0'\n[sink.out]\ntype='discard'\n[shutdown]\ngrace='5s'\n";
    let config = load_text(Some(("t.toml", text)), &Flags::default(), &|_| None).unwrap().config;
    let seen = panics::watch();

    // Those of the admin endpoints hold no record and end nothing.
    let record = String::from("GET /?token=s\u{e9}same");
    let slice = record.clone();
    let isolated = std::thread::Builder::new().name(ADMIN_THREAD.into()).spawn(move || drop(slice[..14].to_owned()));
    assert!(isolated.unwrap().join().is_err());
    assert!(!seen.has_changed().unwrap());

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        // Nobody holds its handle, as with the tasks of libraries.
        drop(tokio::spawn(async move { drop(record[..14].to_owned()) }));
        tokio::time::timeout(Duration::from_secs(60), topology::run(config, topology::Signals::install().unwrap()))
            .await
    });
    let outcome = outcome.expect("the run ends by itself").unwrap();
    let failure = format!("{:#}", outcome.failure.unwrap());
    assert!(failure.starts_with("a task panicked at "), "{failure}");
    assert!(!failure.contains("token") && !failure.contains("same"), "{failure}");
    assert_eq!((outcome.account.sources.len(), outcome.account.sinks.len()), (1, 1));
    assert!(seen.has_changed().unwrap());
}
