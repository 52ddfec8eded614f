//! Why a drive is in or out, each with a stable code for the API and metrics and a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::observation::{LabelState, Signature, SignatureKind, Use};
use crate::verdict::Verdict;

/// One reason for a verdict. `Display` says what was found and what can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "the fields are the details that each variant's sentence in Display spells out"
)]
pub enum Reason {
    /// Critical warnings in the SMART log.
    FailingHealth { what: String },
    /// Writes are refused.
    ReadOnly,
    /// Looking at the drive failed.
    Unreadable { what: String },
    /// Carries the label of a pool of this cluster.
    Pooled { pool: String, state: LabelState },
    /// Mounted.
    Mounted { device: String, at: String },
    /// Swap space in use.
    Swap { device: String },
    /// A block device lies on it.
    HasHolders { by: String },
    /// Open in a process, or claimed in the kernel (`by` unknown).
    OpenElsewhere { by: Option<String> },
    /// A pod's raw block volume.
    KubeletBlockVolume { path: String },
    /// Changed between two observations.
    ChangedWhileWatched { what: String },
    /// Not watched long enough yet.
    StillWatched { remaining_ms: u64 },
    /// Not everything was looked at.
    NotExamined { what: String },
    /// The label of a pool that this cluster does not have.
    OtherPool { pool_id: Uuid, pool_name: String },
    /// The label belongs to another drive.
    CopiedLabel { labelled: String },
    /// Something wrote over a labelled drive.
    LabelContradicted { why: String },
    /// Both copies of the label are damaged.
    DamagedLabel { why: String },
    /// The label is of a newer format.
    NewerLabel { version: u16 },
    /// A partition table.
    PartitionTable { table: String, offset: u64 },
    /// A file system.
    FileSystem { name: String, offset: u64 },
    /// Swap space, not in use now.
    SwapSpace { offset: u64 },
    /// A RAID member.
    RaidMember { name: String, offset: u64 },
    /// An LVM physical volume.
    LvmMember { offset: u64 },
    /// A LUKS header.
    LuksHeader { name: String, offset: u64 },
    /// A ZFS pool member.
    ZfsMember { offset: u64 },
    /// A Ceph OSD.
    CephOsd { offset: u64 },
    /// A bcache device.
    BcacheMember { offset: u64 },
    /// A volume of a cloud's block service.
    CloudVolume { service: String },
    /// Attached over a fabric.
    FabricVolume { transport: String },
    /// Attached in a way Strand does not know.
    UnknownTransport { transport: String },
    /// Other controllers or nodes may reach it.
    SharedBetweenControllers { why: String },
    /// The SMART log could not be read.
    HealthUnknown { why: String },
    /// The rated endurance is used up.
    WornOut { used_percent: u8 },
    /// Below what can be carved.
    TooSmall { size: u64, minimum: u64 },
    /// Does not read as blank.
    NotBlank { at: u64 },
}

impl Reason {
    /// The stable code, equal to the `code` that serde writes.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::FailingHealth { .. } => "FailingHealth",
            Reason::ReadOnly => "ReadOnly",
            Reason::Unreadable { .. } => "Unreadable",
            Reason::Pooled { .. } => "Pooled",
            Reason::Mounted { .. } => "Mounted",
            Reason::Swap { .. } => "Swap",
            Reason::HasHolders { .. } => "HasHolders",
            Reason::OpenElsewhere { .. } => "OpenElsewhere",
            Reason::KubeletBlockVolume { .. } => "KubeletBlockVolume",
            Reason::ChangedWhileWatched { .. } => "ChangedWhileWatched",
            Reason::StillWatched { .. } => "StillWatched",
            Reason::NotExamined { .. } => "NotExamined",
            Reason::OtherPool { .. } => "OtherPool",
            Reason::CopiedLabel { .. } => "CopiedLabel",
            Reason::LabelContradicted { .. } => "LabelContradicted",
            Reason::DamagedLabel { .. } => "DamagedLabel",
            Reason::NewerLabel { .. } => "NewerLabel",
            Reason::PartitionTable { .. } => "PartitionTable",
            Reason::FileSystem { .. } => "FileSystem",
            Reason::SwapSpace { .. } => "SwapSpace",
            Reason::RaidMember { .. } => "RaidMember",
            Reason::LvmMember { .. } => "LvmMember",
            Reason::LuksHeader { .. } => "LuksHeader",
            Reason::ZfsMember { .. } => "ZfsMember",
            Reason::CephOsd { .. } => "CephOsd",
            Reason::BcacheMember { .. } => "BcacheMember",
            Reason::CloudVolume { .. } => "CloudVolume",
            Reason::FabricVolume { .. } => "FabricVolume",
            Reason::UnknownTransport { .. } => "UnknownTransport",
            Reason::SharedBetweenControllers { .. } => "SharedBetweenControllers",
            Reason::HealthUnknown { .. } => "HealthUnknown",
            Reason::WornOut { .. } => "WornOut",
            Reason::TooSmall { .. } => "TooSmall",
            Reason::NotBlank { .. } => "NotBlank",
        }
    }

    /// The verdict that this reason alone gives.
    pub fn verdict(&self) -> Verdict {
        match self {
            Reason::FailingHealth { .. } | Reason::ReadOnly | Reason::Unreadable { .. } => {
                Verdict::Failed
            }
            Reason::Pooled { .. } => Verdict::Pooled,
            Reason::Mounted { .. }
            | Reason::Swap { .. }
            | Reason::HasHolders { .. }
            | Reason::OpenElsewhere { .. }
            | Reason::KubeletBlockVolume { .. }
            | Reason::ChangedWhileWatched { .. }
            | Reason::StillWatched { .. }
            | Reason::NotExamined { .. } => Verdict::InUse,
            _ => Verdict::Foreign,
        }
    }

    /// Order in which reasons are told: what says most about whose drive it is comes first, `NotBlank`, which any of the others
    /// implies, last.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Reason::NotBlank { .. } => 4,
            Reason::NotExamined { .. } | Reason::HealthUnknown { .. } => 3,
            reason => match reason.verdict() {
                Verdict::Failed | Verdict::Pooled => 0,
                Verdict::InUse => 1,
                _ => 2,
            },
        }
    }

    /// The reason that a use is.
    pub fn of_use(found: &Use) -> Reason {
        match found {
            Use::Mounted { device, at } => Reason::Mounted {
                device: device.clone(),
                at: at.clone(),
            },
            Use::Swap { device } => Reason::Swap {
                device: device.clone(),
            },
            Use::Held { by } => Reason::HasHolders { by: by.clone() },
            Use::Open { pid, process } => Reason::OpenElsewhere {
                by: Some(format!("{process}, pid {pid}")),
            },
            Use::KubeletBlockVolume { path } => Reason::KubeletBlockVolume { path: path.clone() },
        }
    }

    pub(crate) fn of_signature(found: &Signature) -> Reason {
        let (name, offset) = (found.name.clone(), found.offset);
        match found.kind {
            SignatureKind::PartitionTable => Reason::PartitionTable {
                table: name,
                offset,
            },
            SignatureKind::FileSystem => Reason::FileSystem { name, offset },
            SignatureKind::Swap => Reason::SwapSpace { offset },
            SignatureKind::Raid => Reason::RaidMember { name, offset },
            SignatureKind::Lvm => Reason::LvmMember { offset },
            SignatureKind::Luks => Reason::LuksHeader { name, offset },
            SignatureKind::Zfs => Reason::ZfsMember { offset },
            SignatureKind::Ceph => Reason::CephOsd { offset },
            SignatureKind::Bcache => Reason::BcacheMember { offset },
        }
    }
}

/// What to do about a drive that holds something: the one way past a content reason.
const WIPE: &str =
    "if it is not needed, wipe the drive with a DriveOperation that names its serial";

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::FailingHealth { what } => write!(f, "the drive reports: {what}; replace it"),
            Reason::ReadOnly => write!(
                f,
                "the drive refuses writes; lift the write protection or replace it"
            ),
            Reason::Unreadable { what } => {
                write!(f, "{what}; check the drive and the agent's privileges")
            }
            Reason::Pooled {
                pool,
                state: LabelState::Carved,
            } => write!(f, "a drive of pool {pool}"),
            Reason::Pooled {
                pool,
                state: LabelState::Carving | LabelState::Moving,
            } => {
                write!(f, "a drive of pool {pool} whose carve is being completed")
            }
            Reason::Pooled {
                pool,
                state: LabelState::Releasing | LabelState::Erasing,
            } => write!(f, "a drive that pool {pool} is giving back"),
            Reason::Mounted { device, at } => {
                write!(f, "{device} is mounted at {at}; unmount it first")
            }
            Reason::Swap { device } => write!(f, "{device} is in use as swap; run swapoff first"),
            Reason::HasHolders { by } => write!(f, "{by} lies on it; stop that device first"),
            Reason::OpenElsewhere { by: Some(by) } => {
                write!(f, "open in {by}; stop that process first")
            }
            Reason::OpenElsewhere { by: None } => {
                write!(
                    f,
                    "the kernel refuses to open it exclusively: something has claimed it; see lsblk and fuser"
                )
            }
            Reason::KubeletBlockVolume { path } => write!(
                f,
                "a pod's raw block volume ({path}); delete that volume first"
            ),
            Reason::ChangedWhileWatched { what } => write!(
                f,
                "{what} while it was watched: something uses it; find out what"
            ),
            Reason::StillWatched { remaining_ms } => {
                write!(
                    f,
                    "blank so far; watched for another {} s",
                    remaining_ms.div_ceil(1000)
                )
            }
            Reason::NotExamined { what } => write!(
                f,
                "{what} is not known; if that stays so, check the agent's privileges"
            ),
            Reason::OtherPool { pool_id, pool_name } => write!(
                f,
                "labelled for pool {pool_name} ({pool_id}), which this cluster does not have; give a MemoryPool that poolID to take \
                 the drive back, or {WIPE}"
            ),
            Reason::CopiedLabel { labelled } => {
                write!(
                    f,
                    "carries the label of another drive (serial {labelled}): a copy of it; {WIPE}"
                )
            }
            Reason::LabelContradicted { why } => {
                write!(
                    f,
                    "labelled by Strand, but {why}: something else wrote to it; save what is needed, then {WIPE}"
                )
            }
            Reason::DamagedLabel { why } => {
                write!(
                    f,
                    "both copies of its Strand label are damaged ({why}); save what is needed, then {WIPE}"
                )
            }
            Reason::NewerLabel { version } => {
                write!(
                    f,
                    "its label has format version {version}, newer than this agent reads; upgrade the agent"
                )
            }
            Reason::PartitionTable { table, offset } => {
                write!(f, "{table} partition table at byte {offset}; {WIPE}")
            }
            Reason::FileSystem { name, offset } => {
                write!(f, "{name} file system at byte {offset}; {WIPE}")
            }
            Reason::SwapSpace { offset } => {
                write!(f, "swap space, not in use now, at byte {offset}; {WIPE}")
            }
            Reason::RaidMember { name, offset } => write!(
                f,
                "member of a RAID array ({name}) at byte {offset}; {WIPE}"
            ),
            Reason::LvmMember { offset } => {
                write!(f, "LVM physical volume at byte {offset}; {WIPE}")
            }
            Reason::LuksHeader { name, offset } => {
                write!(f, "{name} header at byte {offset}; {WIPE}")
            }
            Reason::ZfsMember { offset } => {
                write!(f, "member of a ZFS pool at byte {offset}; {WIPE}")
            }
            Reason::CephOsd { offset } => write!(f, "Ceph OSD at byte {offset}; {WIPE}"),
            Reason::BcacheMember { offset } => write!(f, "bcache device at byte {offset}; {WIPE}"),
            Reason::CloudVolume { service } => {
                write!(
                    f,
                    "a volume of {service}, not a drive of this machine; Strand takes local drives only"
                )
            }
            Reason::FabricVolume { transport } => {
                write!(
                    f,
                    "attached over {transport}, not PCIe; Strand takes local drives only"
                )
            }
            Reason::UnknownTransport { transport } => {
                write!(
                    f,
                    "attached in an unknown way ({transport:?}), not PCIe; Strand takes local drives only"
                )
            }
            Reason::SharedBetweenControllers { why } => {
                write!(
                    f,
                    "{why}: other controllers or nodes may write to it; attach it to one controller only"
                )
            }
            Reason::HealthUnknown { why } => write!(
                f,
                "its SMART log could not be read ({why}); check the agent's privileges"
            ),
            Reason::WornOut { used_percent } => write!(
                f,
                "{used_percent} % of its rated endurance is used; replace it"
            ),
            Reason::TooSmall { size, minimum } => write!(
                f,
                "{size} bytes, less than the {minimum} that Strand carves"
            ),
            Reason::NotBlank { at } => write!(f, "not blank: data at byte {at}; {WIPE}"),
        }
    }
}
