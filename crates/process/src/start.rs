//! The beginning of a process, and what its end tells the shell.

use crate::LogArgs;
use anyhow::Context;
use std::{future::Future, process::ExitCode, time::Duration};
use tokio::runtime::Builder;

/// Starts logging, then runs `work` on two threads. A failure of `work` is logged, and is exit status 1; flags that logging
/// cannot use are exit status 2.
pub fn start(logs: LogArgs, work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    start_on(
        Builder::new_multi_thread().worker_threads(2).enable_all(),
        logs,
        work,
    )
}

/// [`start`] on a runtime of one's own settings.
pub fn start_on(
    runtime: &mut Builder,
    logs: LogArgs,
    work: impl Future<Output = anyhow::Result<()>>,
) -> ExitCode {
    if let Err(message) = logs.init() {
        eprintln!("{message}");
        return ExitCode::from(2);
    }
    let result = runtime
        .build()
        .context("no runtime can be started")
        .and_then(|runtime| {
            let result = runtime.block_on(work);
            // A drive that hangs holds its thread; it must not hold the process.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
