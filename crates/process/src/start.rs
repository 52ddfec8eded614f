//! The beginning of a process, and what its end tells the shell.

use crate::LogArgs;
use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
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

/// Allows this process as many descriptors as it may allow itself: each pod's door, each peer and each client of an endpoint has some,
/// and service managers start at 1,024, for programs that wait with `select`.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
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
    raise_descriptors();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_descriptors_as_may_be() {
        let mut limit = getrlimit(Resource::Nofile);
        let maximum = limit.maximum;
        limit.current = Some(256);
        setrlimit(Resource::Nofile, limit).unwrap();
        raise_descriptors();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
