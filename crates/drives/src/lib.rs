//! One node's drives: find them, judge them, and split those that are provably unused.
//!
//! [`DriveHost`] is the whole interface. What a drive *is* is decided in `strand_placement::verdict`, how it is split in
//! `strand_placement::carve`; this crate looks, and writes what was decided.

mod carve;
mod config;
mod events;
mod held;
mod host;
mod identity;
mod ioctl;
mod kernel;
mod label;
mod medium;
mod nvme;
mod observe;
mod own;
mod partitions;
mod reserved;
mod signature;
mod simulated;
mod standin;
mod survey;
mod sysfs;
mod table;
#[cfg(test)]
mod tests;
mod uses;
mod wipe;

pub use config::{HostConfig, Roots, WatchTimes};
pub use host::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, Resumed, WipeOrder, WipeProgress,
};
pub use identity::{DriveKey, MediumKind, OpenPartition, OwnedDrive, Partition, SeenDrive};
pub use kernel::KernelHost;
pub use simulated::SimulatedHost;
