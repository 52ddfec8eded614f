//! The block store on one context partition.
//!
//! [`Store`] is the whole interface: blocks of 1 byte to 128 MiB under a namespace and an opaque key, between a drive and
//! memory that the caller lends ([`Span`]s of a [`Region`]), without a copy. A block may be lost, never wrong.
//!
//! The partition is a log. `superblock` says whose it is, `layout` where its segments lie, `segment` and `record` what
//! stands in them. `index` finds a block, `space` knows what each segment is for, `core` holds both behind one lock.
//! `put`, `small`, `get` and `value` carry blocks, `verify` says whether they are right, `upkeep` opens and closes units,
//! `evictor` makes room as `evict` decides (`victim`, `relocate`, `carry` and
//! `retire` are its steps), `recover` reads it all back (`units`,
//! `rebuild`), `recency` what was used lately. `engine` moves bytes.

mod admit;
mod carry;
mod codec;
mod core;
mod delete;
mod engine;
mod error;
mod evict;
mod evictor;
mod expiry;
mod get;
mod hash;
mod health;
mod index;
mod latency;
mod layout;
mod lease;
mod namespaces;
mod options;
mod presence;
mod put;
mod quota;
mod rebuild;
mod recency;
mod record;
mod recover;
mod relocate;
mod retire;
mod segment;
mod small;
mod source;
mod space;
mod stats;
mod store;
mod superblock;
#[cfg(test)]
mod tests;
mod trim;
mod units;
mod upkeep;
mod value;
mod verify;
mod victim;

pub use admit::Endurance;
pub use engine::memory::{Buffer, Region, Span};
pub use engine::together::together;
pub use error::{OpenError, StoreError};
pub use get::Get;
pub use health::{DriveFault, HealthCallback};
pub use latency::LatencyStats;
pub use lease::LEASE;
pub use namespaces::{Namespace, Share};
pub use options::{Clock, Medium, Options};
pub use presence::{Page, Pin};
pub use put::{Committed, Persisted, Put, PutOptions};
pub use stats::{DropReason, NamespaceCounts, NamespaceReport, NamespaceStats, Recovery, Stats};
pub use store::Store;
pub use superblock::Identity;
pub use value::Value;

/// Unit of alignment on the medium and in memory.
pub const PAGE: usize = 4096;

/// Bytes that one checksum covers.
pub const CHUNK: usize = 1 << 20;

/// Longest key in bytes.
pub const MAX_KEY: usize = 1024;

/// Largest value in bytes.
pub const MAX_VALUE: usize = 128 << 20;
