//! What can be seen about one drive, as plain data: what the node's agent collects and the judgement in [`crate::verdict`] rests on.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::carve::Layout;

/// Everything seen about one drive at one moment. Plain data; the default is a drive of which nothing was looked at, which is
/// never free to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// When it was taken, in milliseconds of the machine's boot-time clock; only differences mean anything.
    pub taken_ms: u64,
    /// The drive's serial as its controller (or a stand-in's file stem) gives it.
    pub serial: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether writes are refused (write-protected namespace, read-only file or device).
    pub read_only: bool,
    /// How the drive is attached.
    pub transport: Transport,
    /// The cloud block service that the drive is a volume of.
    pub cloud_volume: Option<String>,
    /// Who else may reach the namespace.
    pub sharing: Sharing,
    /// What the SMART log says.
    pub health: Health,
    /// Every use by this machine that was found.
    pub uses: Vec<Use>,
    /// Whether the device could be opened exclusively.
    pub exclusive: Exclusive,
    /// Structures that known software left on the drive.
    pub signatures: Vec<Signature>,
    /// Whether the drive reads as blank.
    pub content: Content,
    /// How long the drive was seen unchanged.
    pub watch: Watch,
    /// Strand's own label.
    pub label: LabelSeen,
    /// Reads of the drive that failed, in words.
    pub read_errors: Vec<String>,
    /// What else could not be looked at, in words. Anything here keeps the drive from being taken.
    pub unseen: Vec<String>,
}

impl Default for Observation {
    fn default() -> Self {
        Observation {
            taken_ms: 0,
            serial: String::new(),
            size: 0,
            read_only: false,
            transport: Transport::Unknown {
                name: String::new(),
            },
            cloud_volume: None,
            sharing: Sharing::Unknown,
            health: Health::Unknown { why: String::new() },
            uses: Vec::new(),
            exclusive: Exclusive::NotTried,
            signatures: Vec::new(),
            content: Content::NotRead,
            watch: Watch::default(),
            label: LabelSeen::NotRead,
            read_errors: Vec::new(),
            unseen: Vec::new(),
        }
    }
}

/// How a drive is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Transport {
    /// An NVMe controller on this machine's PCIe.
    Pcie,
    /// NVMe over a fabric: `tcp`, `rdma`, `fc` or `loop`.
    Fabric {
        /// The kernel's word for it.
        name: String,
    },
    /// A plain file or loop device that the configuration names as a drive.
    StandIn,
    /// The kernel gave none or an unknown one.
    Unknown {
        /// The kernel's word for it.
        name: String,
    },
}

/// Who may reach a namespace besides this machine's one controller (NVMe base specification: CMIC, NMIC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Sharing {
    /// Nobody.
    Private,
    /// Others may, for the reason given.
    Shared {
        /// What shows it.
        why: String,
    },
    /// It could not be asked.
    Unknown,
}

/// What the SMART log says about a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Health {
    /// A stand-in, which has none.
    None,
    /// The log was read.
    Smart(Smart),
    /// The log could not be read.
    Unknown {
        /// Why.
        why: String,
    },
}

/// The part of the SMART / Health Information log (NVMe base specification, log page 02h) that Strand uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Smart {
    /// Critical warning bits as the drive gives them.
    pub critical_warning: u8,
    /// Spare capacity left, in percent.
    pub spare_percent: u8,
    /// Below this many percent of spare the drive calls itself failing.
    pub spare_threshold_percent: u8,
    /// Rated endurance used, in percent; goes beyond 100.
    pub used_percent: u8,
    /// Composite temperature in degrees Celsius.
    pub temperature_celsius: i32,
    /// Bytes the host has written.
    pub written_bytes: u128,
    /// Bytes the host has read.
    pub read_bytes: u128,
    /// Hours powered on.
    pub power_on_hours: u128,
    /// Shutdowns without notice.
    pub unsafe_shutdowns: u128,
    /// Unrecovered data integrity errors.
    pub media_errors: u128,
}

impl Smart {
    /// The critical warnings that make a drive unfit, in words: spare exhausted (bit 0), reliability degraded (bit 2), media
    /// read-only (bit 3), volatile memory backup failed (bit 4), persistent memory region unreliable (bit 5). Temperature
    /// (bit 1) passes and is left out.
    pub fn failures(&self) -> Vec<&'static str> {
        const BITS: [(u8, &str); 5] = [
            (0, "spare capacity below its threshold"),
            (2, "reliability degraded"),
            (3, "media in read-only mode"),
            (4, "volatile memory backup failed"),
            (5, "persistent memory region unreliable"),
        ];
        BITS.iter()
            .filter(|(bit, _)| self.critical_warning & (1 << bit) != 0)
            .map(|(_, words)| *words)
            .collect()
    }
}

/// One use of a drive by this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Use {
    /// The drive, a partition of it, or a loop device over it is mounted.
    Mounted {
        /// The mounted device.
        device: String,
        /// Where, as its mount namespace sees it.
        at: String,
    },
    /// It is swap space.
    Swap {
        /// The swap device or file.
        device: String,
    },
    /// Another block device lies on it: md, device-mapper, bcache, or a loop device over a stand-in's file.
    Held {
        /// The holder.
        by: String,
    },
    /// A process has it open.
    Open {
        /// The process id.
        pid: u32,
        /// Its name.
        process: String,
    },
    /// The kubelet gives it to a pod as a raw block volume.
    KubeletBlockVolume {
        /// The kubelet's path.
        path: String,
    },
}

/// Whether a device could be opened with O_EXCL. It is tried only when nothing else speaks against the drive, because holding it
/// for a moment makes somebody else's mount or assembly fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exclusive {
    /// It could: nothing in the kernel claims it.
    Opened,
    /// It could not (EBUSY).
    Busy,
    /// It was not tried.
    NotTried,
    /// A plain file, for which the kernel has no claims; open descriptors and loop devices were looked for instead.
    NotApplicable,
}

/// A structure that known software left on a drive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// What kind of software.
    pub kind: SignatureKind,
    /// Its name: `ext4`, `GPT`, `md 1.2` …
    pub name: String,
    /// Where the magic lies, in bytes from the drive's start.
    pub offset: u64,
}

/// Kinds of structures found on drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SignatureKind {
    /// A partition table, or partitions that the kernel shows.
    PartitionTable,
    /// A file system.
    FileSystem,
    /// Swap space.
    Swap,
    /// A member of a RAID array.
    Raid,
    /// An LVM physical volume.
    Lvm,
    /// A LUKS header.
    Luks,
    /// A member of a ZFS pool.
    Zfs,
    /// A Ceph OSD.
    Ceph,
    /// A bcache device.
    Bcache,
}

/// Whether a drive reads as blank: its first and last 16 MiB and 1,000 samples between are zeroes, or read as deallocated blocks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Content {
    /// All that was read is blank.
    Blank,
    /// Something is not.
    NotBlank {
        /// The first byte found, from the drive's start.
        at: u64,
    },
    /// It was not read.
    NotRead,
}

/// How long a drive was seen unchanged: same content where it was read, same identity, and no write counted by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Milliseconds that are needed before the drive may be taken.
    pub required_ms: u64,
    /// Milliseconds between the first and the last of the equal observations.
    pub unchanged_ms: u64,
    /// What changed since the observation before, in words.
    pub changed: Option<String>,
    /// Digest of what was read.
    pub digest: u64,
    /// The kernel's count of writes (a block device's write and discard counters, a file's time of change).
    pub writes: u64,
}

impl Watch {
    /// Milliseconds until the drive has been watched long enough.
    pub fn remaining_ms(&self) -> u64 {
        self.required_ms.saturating_sub(self.unchanged_ms)
    }
}

/// Strand's label on a drive, as read from its two copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum LabelSeen {
    /// There is none.
    Absent,
    /// A valid one.
    Present(Label),
    /// One copy at least has Strand's magic, none is valid.
    Damaged {
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer Strand.
    Newer {
        /// Its format version.
        version: u16,
    },
    /// It was not read.
    NotRead,
}

/// What a drive's label says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Label {
    /// Grows with each write of the label.
    pub generation: u64,
    /// How far the drive is.
    pub state: LabelState,
    /// The pool's identity.
    pub pool_id: Uuid,
    /// The pool's name when the drive was taken; for people.
    pub pool_name: String,
    /// The drive's identity within Strand.
    pub drive_id: Uuid,
    /// Serial of the drive that the label was written to.
    pub serial: String,
    /// Where the partitions lie, or shall lie while the state is `Carving` or `Moving`.
    pub layout: Layout,
    /// Where they lay before, while the state is `Moving`.
    pub previous: Option<Layout>,
    /// How what else is on the drive contradicts the label: it belongs to this drive and nobody wrote over it only if this is none.
    pub contradiction: Option<String>,
}

/// How far a labelled drive is; every state but `Carved` is left by finishing what was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LabelState {
    /// Taken, its partition table not yet complete.
    Carving,
    /// Ready.
    Carved,
    /// The boundary between its partitions is being moved.
    Moving,
    /// It is being given back, with its bytes left as they are.
    Releasing,
    /// It is being given back, and its bytes are being erased.
    Erasing,
}
