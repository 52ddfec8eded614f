//! The agent from outside: against the embedded API server, with simulated drives and as the real process.

mod bed;
mod crash;
mod reconcile;
