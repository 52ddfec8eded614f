//! The native door to context memory, as a pod sees it: one Unix socket and two shared arenas.
//!
//! ```text
//!   Client ── put: reserve → write into PUT → commit ──►  agent  ──► drives
//!          ◄─ get: the value lies in GET, a lease on it ─┘
//! ```
//!
//! [`Client`] connects by itself, and again after the agent restarts. While there is no agent a get is a
//! miss and a put is dropped; both are counted ([`Counters`]), neither is an error. Value bytes are only ever
//! in the arenas: a [`Block`] is a lease on slots of GET and gives them back when it is dropped, a
//! [`Reservation`] is a lease on slots of PUT.
//!
//! [`Client::get`] and [`Client::reserve`] take values that fit the arenas. [`Client::fetch`] and [`Client::upload`] take all
//! lengths: what does not fit, and on the way out whatever is larger than 32 MiB, passes in parts.
//!
//! Everything here needs a tokio runtime with I/O and time.

mod api;
pub mod arena;
mod client;
mod count;
mod fetch;
pub mod frame;
mod link;
mod outcome;
mod reservation;
mod session;
pub mod slots;
mod upload;
pub mod wire;

pub use api::{
    Connection, Counters, Error, Lost, MAX_KEY, NamespaceStats, Options, Page, Put, PutOptions, Ttl,
};
pub use client::Client;
pub use fetch::Value;
pub use reservation::Reservation;
pub use session::Block;
pub use upload::{Next, Upload};
