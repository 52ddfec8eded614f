//! The threads on which an agent serves context memory, and everything else that does not block.

use std::thread::available_parallelism;

use tokio::runtime::Builder;

/// Of how many of its cores an agent takes one at most, when its node's pods read and write all the time.
const CORES: usize = 4;
/// More than these no node's drives keep busy.
const MOST: usize = 8;

/// A runtime with a worker for every four cores that this process may use, one at least and eight at most: where there are few, a
/// second worker costs more wake-ups than it serves.
#[must_use]
pub fn runtime() -> Builder {
    let cores = available_parallelism().map_or(1, usize::from);
    let mut runtime = Builder::new_multi_thread();
    // A busy worker looks for completions of the drives and for requests after so many polls, of which each may verify a MiB.
    runtime
        .worker_threads((cores / CORES).clamp(1, MOST))
        .event_interval(7)
        .enable_all();
    runtime
}
