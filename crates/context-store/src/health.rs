//! What counts against a drive.

use std::sync::Arc;

/// Something that a sound drive does not do. A payload that fails its checksum is none of these: a pod can forge it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriveFault {
    /// A transfer failed.
    Io {
        /// Byte of the partition.
        offset: u64,
        /// What was tried and what the kernel said.
        reason: String,
    },
    /// The drive has had a transfer for too long.
    Stalled {
        /// Milliseconds so far.
        millis: u64,
    },
    /// Something that only the store writes came back changed.
    Corrupt {
        /// Byte of the partition.
        offset: u64,
        /// What it was.
        what: &'static str,
    },
}

/// Told of every fault, from any thread; must not block.
pub type HealthCallback = Arc<dyn Fn(DriveFault) + Send + Sync>;
