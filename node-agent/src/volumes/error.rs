//! Why a volume was not attached or detached.

use std::io;
use std::path::PathBuf;

use strand_arrays::ArrayError;
use strand_fabric::FabricError;
use strand_placement::access::NotGranted;
use strand_volumes::VolumeError;

/// Why a volume was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No leg of the volume lies on this node.
    #[error(
        "no leg of volume {volume} lies on this node's drives; see where it lies with `kubectl get poolvolume {volume}`"
    )]
    NotHere {
        /// The volume.
        volume: String,
    },
    /// Its bytes are in an array, of which this node has a leg.
    #[error("volume {volume} has several legs: no leg is attached by itself")]
    Several {
        /// The volume.
        volume: String,
    },
    /// This node has bytes of it, and they are not what it is attached by.
    #[error(
        "volume {volume}: its bytes ({legs}) are orphaned or marked for deletion; see `strandctl volumes list`"
    )]
    Unowned {
        /// The volume.
        volume: String,
        /// Their names.
        legs: String,
    },
    /// It cannot be said yet.
    #[error("volume {volume}: {why}; try again")]
    NotYet {
        /// The volume.
        volume: String,
        /// What is waited for.
        why: String,
    },
    /// It must not be attached.
    #[error("volume {volume}: {why}")]
    Refused {
        /// The volume.
        volume: String,
        /// Why, and what to do.
        why: String,
    },
    /// No drive has room for it.
    #[error(
        "{wanted} bytes of scratch space: no drive of pool {pool} on this node has room; {why}"
    )]
    NoRoom {
        /// Bytes wanted.
        wanted: u64,
        /// The pool.
        pool: String,
        /// The closest fit.
        why: String,
    },
    /// Pods of this namespace may not have scratch space of the pool.
    #[error(transparent)]
    Denied(NotGranted),
    /// It is in use here, and lies on another node.
    #[error("volume {volume}: its device {device} is in use on this node; unmount it first")]
    Busy {
        /// The volume.
        volume: String,
        /// Its device.
        device: PathBuf,
    },
    /// What other nodes' volumes this node has cannot be kept.
    #[error(
        "{path}: the record of an attachment cannot be kept: {source}; check the agent's state directory"
    )]
    Record {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The drive or leg did not do it.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Its array was not put together, or not taken down.
    #[error("volume {volume}: {source}")]
    Array {
        /// The volume.
        volume: String,
        /// Why.
        source: ArrayError,
    },
    /// The fabric did not do it.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}
