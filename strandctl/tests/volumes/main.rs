//! Volumes of a whole rack: agent, operator and driver as the processes that they are in a cluster. Needs root.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect shall stop there"
)]

mod bare;
mod bytes;
mod calls;
mod conformance;
mod controllers;
mod cycles;
mod evacuate;
mod faults;
mod faulty;
mod import;
mod inline;
mod limits;
mod rack;
mod reboot;
mod redundant;
mod room;
mod snapshots;
