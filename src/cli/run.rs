//! `meshlens run`: the configuration, the log, the runtime, then the topology until it ends.

use std::panic::{self, AssertUnwindSafe};

use super::{ConfigArgs, Exit, say};
use crate::config::Config;
use crate::telemetry::{logs, own};
use crate::topology;

/// Runs until the inputs end or a signal comes.
pub fn run(args: &ConfigArgs) -> Exit {
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
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("meshlens: cannot start threads: {error}"));
            return Exit::Failure;
        }
    };
    let routed = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(Box::pin(route(config)))));
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
async fn route(config: Config) -> anyhow::Result<Exit> {
    let outcome = topology::run(config).await?;
    if outcome.failure.is_some() {
        return Ok(Exit::Failure);
    }
    Ok(if outcome.undelivered() > 0 { Exit::Undelivered } else { Exit::Ok })
}
