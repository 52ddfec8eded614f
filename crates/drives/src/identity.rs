//! A drive as seen and a drive as owned: two types, so that nothing is written to what was merely seen.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use strand_placement::carve::{Extent, Geometry, Layout, Role};
use strand_placement::verdict::{LabelState, Transport};
use uuid::Uuid;

/// What stays the same on a drive however it is named, moved or opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveKey {
    /// Model as the controller gives it, trimmed; `strand stand-in` for a stand-in.
    pub model: String,
    /// Serial as the controller gives it, trimmed; a stand-in's file stem (a loop device's: its backing file's).
    pub serial: String,
    /// NVMe namespace id; 1 for a stand-in.
    pub namespace: u32,
}

impl fmt::Display for DriveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} namespace {}",
            self.model, self.serial, self.namespace
        )
    }
}

/// A drive that discovery found: who it is and where it is now. Nothing was opened to find it, and nothing may be written to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenDrive {
    /// Who it is.
    pub key: DriveKey,
    /// Where it is now: `/dev/nvme0n1`, `/dev/loop3`, or a plain file. Names move between boots; never store them.
    pub path: PathBuf,
    /// What kind of thing the path is.
    pub medium: MediumKind,
    /// Sizes in bytes.
    pub geometry: Geometry,
    /// How it is attached.
    pub transport: Transport,
    /// EUI-64, NGUID or UUID as the kernel's `wwid` gives it, where there is one.
    pub wwid: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// PCI address of its controller, `0000:01:00.0`.
    pub pci_address: Option<String>,
    /// NUMA node of its controller.
    pub numa_node: Option<u32>,
    /// Whether it only stands for a drive.
    pub stand_in: bool,
}

/// What stands behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum MediumKind {
    /// An NVMe namespace.
    Nvme {
        /// The block device's number.
        device: u64,
    },
    /// A loop device over a file.
    Loop {
        /// The block device's number.
        device: u64,
        /// Device number of the file system that the backing file lies on.
        backing_device: u64,
        /// Inode of the backing file.
        backing_inode: u64,
    },
    /// A plain file.
    File {
        /// Device number of the file system it lies on.
        device: u64,
        /// Its inode.
        inode: u64,
    },
}

/// A drive that carries this cluster's label and a complete carve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnedDrive {
    /// The drive, as it was when it was owned; [`SeenDrive::path`] is checked against its identity before each write.
    pub seen: SeenDrive,
    /// Identity of the pool that has it.
    pub pool_id: Uuid,
    /// The pool's name when the drive was taken.
    pub pool_name: String,
    /// The drive's own identity within Strand.
    pub drive_id: Uuid,
    /// The label's generation.
    pub generation: u64,
    /// How far it is: `Carved`, or `Releasing` where giving it back was begun.
    pub state: LabelState,
    /// Where its partitions lie.
    pub layout: Layout,
    /// How to reach them, in the order in which they lie.
    pub partitions: Vec<Partition>,
}

impl OwnedDrive {
    /// The partition of one role.
    pub fn partition(&self, role: Role) -> Option<&Partition> {
        self.partitions
            .iter()
            .find(|partition| partition.role == role)
    }
}

/// One partition of an owned drive, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// What it is for.
    pub role: Role,
    /// Where it lies on the drive.
    pub extent: Extent,
    /// The device or file to open: a partition device, or the stand-in's file itself.
    pub path: PathBuf,
    /// Where the partition begins in what `path` opens, in bytes: 0 for a partition device.
    pub offset: u64,
}

/// A partition that is open.
#[derive(Debug)]
pub struct OpenPartition {
    /// The partition device, or the stand-in's file.
    pub file: File,
    /// Where the partition begins in the file, in bytes.
    pub offset: u64,
    /// Bytes of the partition.
    pub len: u64,
}
