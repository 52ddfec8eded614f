//! Context memory for unmodified Redis clients: RESP on a pod's loopback, the agent's native door behind it.
//!
//! ```text
//!   client ── TCP ──► wire ── commands ──► connection ──► store ──► the agent's door
//!                       │ value bytes                       │
//!                       └───────────► arena ◄───────────────┘
//! ```
//!
//! - `resp` reads and writes the protocol, without I/O; `wire` is one client's socket;
//! - `connection` runs one client's commands: `writes` those that carry values, `keys` the others of keys; `session` and
//!   `info` are about the connection and the server;
//! - `store` is what is needed of context memory: the native door, or memory in tests.
//!
//! `ahead` fetches what a pipeline or an `MGET` asks for next while a value is being sent.
//!
//! A value is received into the arena and sent from it, one that does not fit part by part. What a client sends while there is no room waits in its
//! socket. Without an agent each read is a miss and each write is answered with OK and dropped, both counted:
//! connections outlive the agent.

mod ahead;
mod chunks;
mod command;
mod connection;
mod endpoint;
mod glob;
mod info;
mod keys;
mod leases;
mod low_water;
mod metrics;
mod padding;
mod prefill;
pub mod resp;
mod server;
mod session;
pub mod store;
mod wire;
mod writes;

pub use endpoint::{Config, Endpoint};
pub use metrics::{AgentUp, Metrics};
pub use prefill::PrefillSaved;
pub use server::{Misses, serve};
