//! `meshlens run`: the configuration, the log, the runtime, then the topology until it ends.

use std::panic::{self, AssertUnwindSafe};

use super::{ConfigArgs, Exit, orphans, say};
use crate::config::Config;
use crate::telemetry::{logs, own};
use crate::topology::{self, Signals};

/// Runs until the inputs end or a signal comes.
pub fn run(args: &ConfigArgs) -> Exit {
    // Before anything that takes time, such as reading the configuration.
    let started = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from);
    let started = started.and_then(|runtime| Ok((runtime.block_on(async { Signals::install() })?, runtime)));
    let (signals, runtime) = match started {
        Ok(started) => started,
        Err(error) => {
            say(format_args!("meshlens: cannot start threads: {error:#}"));
            return Exit::Failure;
        }
    };
    let config = match args.load() {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    logs::init(config.log.format, config.log.level);
    // The first line: by this word our own log is known, should it come back as records.
    tracing::info!(process = own::word(), "meshlens {}", env!("CARGO_PKG_VERSION"));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let routed = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(Box::pin(route(config, signals)))));
    // What is still at work in a blocking call, on a disk that does not answer, is not waited for.
    runtime.shutdown_background();
    match routed {
        // Said where it happened.
        Err(_panic) => Exit::Failure,
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            say(format_args!("meshlens: {error:#}"));
            Exit::Failure
        }
    }
}

/// The topology; its outcome as an exit code.
async fn route(config: Config, signals: Signals) -> anyhow::Result<Exit> {
    tokio::spawn(orphans::reap());
    let outcome = topology::run(config, signals).await?;
    if outcome.failure.is_some() {
        return Ok(Exit::Failure);
    }
    Ok(if outcome.undelivered() > 0 { Exit::Undelivered } else { Exit::Ok })
}
