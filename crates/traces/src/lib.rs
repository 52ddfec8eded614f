//! Request traces of inference servers: read, made, and what a cache would make of them. Pure: no clock, no
//! files, the same result each time.
//!
//! ```text
//!   Requests (JSON lines) ─┐
//!                          ├─► Request ──► Cache (Lru, Infinite) ──► Served ──► Totals ──► wear
//!   Generator (a seed) ────┘              or a real endpoint
//! ```
//!
//! The rule is the same for a model and for a real store: a request hits its longest leading run of blocks that
//! are present ([`Served`]), and all blocks after it are written.

mod cache;
mod generate;
mod lru;
mod random;
mod read;
mod request;
mod totals;
mod wear;

pub use cache::{Cache, Infinite, Served, replay};
pub use generate::{Generator, Shape};
pub use lru::Lru;
pub use read::{Requests, TraceError};
pub use request::{BLOCK_TOKENS, Request};
pub use totals::Totals;
pub use wear::{Endurance, Wear};
