//! The agent of one node: finds its drives, judges them, carves those that a pool wants, and tells the Kubernetes API.
//!
//! ```text
//!  DriveHost ──scan, work──►┐                       ┌──► blocking work, one piece a drive at a time
//!  API watches ──► Mirror ──┼─► DriveMemory + View ─┤        (the outcome goes back into DriveMemory)
//!  clock ──────────────────►┘        plan           ├──► writes to the API (the answer goes back into Mirror)
//!                                                └──► context memory: what serves (faults go back into DriveMemory)
//! ```
//!
//! [`plan`] and what it calls ([`status`], [`operation`]) are pure: from what is known to the next step. [`Agent`] is one loop
//! that waits, plans all drives of its node anew and starts what the plans say; nothing in the loop blocks, so that a drive that
//! hangs keeps no other from being served. Killed anywhere, the next run sees the same drives and objects and goes on.

mod agent;
mod answers;
mod backoff;
mod cached;
mod config;
pub mod context;
mod effects;
mod finding;
mod happening;
pub mod http;
mod maps;
mod memory;
mod metrics;
mod operation;
pub mod peer_key;
mod plan;
mod report;
mod state;
mod status;
mod threads;
mod view;
pub mod volumes;
mod watches;
mod work;

pub use agent::{Agent, AgentError, Handle};
pub use config::AgentConfig;
pub use http::DriveReport;
pub use maps::MapsError;
pub use threads::runtime;
