//! Why something was not done.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use uuid::Uuid;

use crate::ledger::NoRoom;
use crate::limits::LimitError;

/// Why something was not done to a drive's storage side or a leg.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The storage partition holds something that is neither nothing nor ours. Nothing was written.
    #[error(
        "drive {drive}: its storage partition is not used: {why}; move what is there away and wipe the drive, or take it out of the pool"
    )]
    NotOurs {
        /// The drive.
        drive: Uuid,
        /// What was found.
        why: String,
    },
    /// The partition is too small for a file system.
    #[error(
        "drive {drive}: a storage partition of {len} bytes is too small for XFS; give it {least} bytes or more, or none"
    )]
    TooSmall {
        /// The drive.
        drive: Uuid,
        /// Bytes it has.
        len: u64,
        /// Bytes it must have.
        least: u64,
    },
    /// A program that makes file systems failed.
    #[error(
        "drive {drive}: mkfs.xfs failed: {output}; install xfsprogs 5.10 or newer, and see the kernel log"
    )]
    Format {
        /// The drive.
        drive: Uuid,
        /// What it said.
        output: String,
    },
    /// Another process has the drive's storage side open.
    #[error("drive {drive}: another process serves its storage side; stop one of the two agents")]
    Served {
        /// The drive.
        drive: Uuid,
    },
    /// The drive's storage side is not open here.
    #[error("drive {drive}: its storage side is not open; see why in the drive's conditions")]
    NotOpen {
        /// The drive.
        drive: Uuid,
    },
    /// The ledger refuses. Nothing was written.
    #[error("drive {drive} has no room: {room}")]
    NoSpace {
        /// The drive.
        drive: Uuid,
        /// What was wanted, and what would fit.
        room: NoRoom,
    },
    /// The file system is full: on a thin drive, or where something else than Strand wrote there.
    #[error("{path}: the drive is full; delete or move volumes on it")]
    Full {
        /// Where it was noticed.
        path: PathBuf,
    },
    /// A name that no leg can have.
    #[error(
        "{name:?} cannot name a leg: use 1 to 253 of a-z, 0-9, '-' and '.', beginning with a letter or digit"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// An order that cannot be carried out, whatever the drive has.
    #[error("leg {name}: {why}")]
    BadOrder {
        /// The leg.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// Other bytes have the name. Nothing was written.
    #[error(
        "leg {name}: the drive has another leg of that name, with UUID {uuid} of volume {volume}; import or delete that one, or take another name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Its UUID.
        uuid: Uuid,
        /// Its volume.
        volume: String,
    },
    /// There is no such leg.
    #[error("leg {name}: drive {drive} does not have it")]
    NotFound {
        /// Name or UUID.
        name: String,
        /// The drive.
        drive: Uuid,
    },
    /// The leg's record or data is not as Strand leaves it. It is left alone.
    #[error("{path}: {why}; the leg is left as it is: recover its bytes by hand (docs/storage.md)")]
    Damaged {
        /// The object.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Somebody came with an older attachment generation than the leg has seen.
    #[error(
        "leg {name}: generation {given} is stale, it was attached with {recorded}; ask for the volume's attachment again"
    )]
    Stale {
        /// The leg.
        name: String,
        /// The generation given.
        given: u64,
        /// The highest recorded.
        recorded: u64,
    },
    /// This node's kernel cannot make each write durable before it is acknowledged, without which a loss of power loses writes.
    #[error(
        "leg {leg}: this node's kernel, {kernel}, cannot make each write durable before it is acknowledged, so that a loss of power here would lose writes \
         that others take for written; legs of volumes that are used from other nodes, or have redundancy, need Linux 6.0 or later on their nodes"
    )]
    OldKernel {
        /// The leg.
        leg: String,
        /// Its release.
        kernel: String,
    },
    /// The leg or drive is in use.
    #[error("{what} is in use: {by}; unmount or stop that first")]
    Busy {
        /// The object.
        what: String,
        /// What uses it.
        by: String,
    },
    /// A leg is attached, and its limits are not enforced.
    #[error("limits are not enforced: {0}")]
    Unlimited(#[from] LimitError),
    /// A copy of another drive's leg was given up: what it copies did not keep still. It can be begun anew.
    #[error("leg {name}: the copy was given up: {why}")]
    CopyEnded {
        /// The leg that was not made.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A leg of another node cannot be read just now. The copy can go on.
    #[error("{path}, the leg on another node that is copied: {action} failed: {source}")]
    Away {
        /// Its device here.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A copy of another drive's leg was stopped. It can go on.
    #[error("leg {name}: the copy was stopped")]
    CopyStopped {
        /// The leg that was not made.
        name: String,
    },
    /// What was read back is not what was written.
    #[error(
        "leg {name}: drive {drive} gave back other bytes at {offset} than were written; do not trust that drive: see the kernel log and its health"
    )]
    Miscopied {
        /// The leg that was not made.
        name: String,
        /// The drive that it was written to.
        drive: Uuid,
        /// Where, in bytes.
        offset: u64,
    },
    /// A system call failed.
    #[error("{path}: {action} failed: {source}; check the drive and the kernel log")]
    Io {
        /// The object.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VolumeError {
    /// Whether the drive or its file system does not answer: it failed, or was shut down.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self, VolumeError::Io { source, .. } if source.raw_os_error() == Some(Errno::IO.raw_os_error()))
    }
    /// An error of one object, for `map_err`. ENOSPC is [`VolumeError::Full`].
    pub(crate) fn at<E: Into<io::Error>>(
        path: &Path,
        action: &'static str,
    ) -> impl FnOnce(E) -> VolumeError {
        let path = path.to_owned();
        move |error| {
            let source = error.into();
            match source.raw_os_error() {
                Some(code) if code == Errno::NOSPC.raw_os_error() => VolumeError::Full { path },
                _ => VolumeError::Io {
                    path,
                    action,
                    source,
                },
            }
        }
    }
}
