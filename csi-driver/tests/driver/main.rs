//! The driver as a process, under csi-sanity, under hostile and untimely calls, and killed. Needs root: it mounts.
//!
//! `stand_in` plays the operator and the node's agent.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod access;
mod arbitrary;
mod bed;
mod doors;
mod fields;
mod groups;
mod hostile;
mod kill;
mod requests;
mod sanity;
mod scratch;
mod stand_in;
mod uses;
mod volumes;
mod words;
