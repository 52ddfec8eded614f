//! What a pod gets that asks for context memory: a pure decision, from the pod to a JSON patch or to a reason against it.
//!
//! A pod asks by the label [`POOL`], its own or its namespace's. It gets the inline volume with its door, the endpoint as a
//! sidecar, and the addresses in the environment of its containers. What the user wrote is never changed: only what is not
//! there is added. Deciding again about a patched pod adds nothing.

mod annotations;
mod config;
mod decide;
mod environment;
mod patch;
mod sidecar;
mod skip;

pub use annotations::{CONTAINERS, INJECT, INJECTED, NOTE, PASSWORD_SECRET, POOL, PORT, SKIPPED};
pub use config::Config;
pub use decide::{Answer, Pools, decide};
pub use skip::Skip;
