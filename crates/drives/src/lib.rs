//! One node's drives: find them, judge them, and split those that are provably unused.
//!
//! [`DriveHost`] is the whole interface. What a drive *is* is decided in `strand_placement::verdict`, how it is split in
//! `strand_placement::carve`; this crate looks, and writes what was decided.

mod config;
mod host;
mod identity;

pub use config::{HostConfig, Roots, WatchTimes};
pub use host::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, Resumed, WipeOrder, WipeProgress,
};
pub use identity::{DriveKey, MediumKind, OwnedDrive, Partition, SeenDrive};
