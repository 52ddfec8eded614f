//! Signals that ask a rack to go down.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that ask a rack to go down.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    /// From now on the process does not end by itself on one of them.
    pub fn new() -> Result<Stop> {
        let hear = |kind| signal(kind).context("cannot listen for signals");
        Ok(Stop {
            interrupt: hear(SignalKind::interrupt())?,
            terminate: hear(SignalKind::terminate())?,
            hang_up: hear(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them and names it.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "asked to end",
            _ = self.hang_up.recv() => "the terminal is gone",
        }
    }
}
