//! Drive: one physical drive of one node.

use crate::{condition::Condition, quantity::ByteQuantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One NVMe drive as a node's agent sees it, and what the operator wants of it. The agent creates
/// the object and writes its status; the operator writes `pool`, `poolID` and `carve`; an
/// administrator may set `cordon`, and `pool` where a pool's adoption is Manual. Deleting the
/// object touches no byte of the drive: its agent creates it again.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "Drive",
    plural = "drives",
    shortname = "drv",
    category = "strand",
    status = "DriveStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.pool",
    doc = "One NVMe drive as a node's agent sees it, and what the operator wants of it. Deleting the object touches no byte of the drive.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(
        name = "Verdict",
        type_ = "string",
        json_path = ".status.verdict",
        description = "The agent's finding"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the drive is on its way through the pool"
    ),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.displaySize"),
    printcolumn(
        name = "Wear",
        type_ = "integer",
        json_path = ".status.health.percentageUsed",
        description = "Percent of the rated endurance used"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.displayReasons",
        description = "Every reason for the verdict"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Model",
        type_ = "string",
        json_path = ".status.identity.model",
        priority = 1
    ),
    printcolumn(
        name = "Serial",
        type_ = "string",
        json_path = ".status.identity.serial",
        priority = 1
    ),
    printcolumn(
        name = "Device",
        type_ = "string",
        json_path = ".status.identity.devicePath",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.nodeName == oldSelf.nodeName").message("nodeName cannot change: a drive that moves gets another object").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.pool) || !has(self.pool) || self.pool == oldSelf.pool").message("a drive cannot go from one pool to another: release it first, with a DriveOperation of type Release").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.carve) || (has(self.pool) && has(self.poolID))").message("carve is only for a drive in a pool: set pool and poolID with it")
)]
pub struct DriveSpec {
    /// The node that the drive is in.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// The MemoryPool that the drive is in, or shall be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub pool: Option<String>,
    /// The pool's identity, as the drive's label shall carry it.
    #[serde(rename = "poolID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    ))]
    pub pool_id: Option<String>,
    /// How the drive shall be split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carve: Option<DriveCarve>,
    /// Take nothing new: the drive leaves the pool map and gets no new legs. Set by an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordon: bool,
}

/// How a drive shall be split; what context memory leaves is storage.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveCarve {
    /// Bytes of context memory, before alignment.
    pub context_memory: ByteQuantity,
}

/// What the node's agent found; written on change.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveStatus {
    /// Generation of the spec that the agent has acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The drive's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<DriveIdentity>,
    /// Size in bytes.
    #[serde(default)]
    pub size: ByteQuantity,
    /// Size in the words of `kubectl get`.
    #[serde(default)]
    pub display_size: String,
    /// Logical block size in bytes.
    #[serde(default)]
    pub logical_block_bytes: i64,
    /// Write size that the drive prefers, in bytes.
    #[serde(default)]
    pub optimal_write_bytes: i64,
    /// The agent's finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<DriveVerdict>,
    /// Every reason for the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub reasons: Vec<DriveReason>,
    /// The reasons' codes in the words of `kubectl get`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_reasons: String,
    /// Where the drive is on its way through the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DrivePhase>,
    /// What the label on the drive says, if it has one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelStatus>,
    /// The drive's partitions, once carved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 8))]
    pub partitions: Vec<PartitionStatus>,
    /// Wear and health from the SMART log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<DriveHealth>,
    /// `host:port` at which the node's agent serves context memory to its peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// Highest epoch of the pool map that this agent has stored; written only where the cluster's
    /// map is older, so that a restored or empty cluster goes on above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_epoch: Option<i64>,
    /// `Carved`, by the agent; `Adopted`, by the operator, where it does not take the drive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What tells a drive from all others.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveIdentity {
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// NVMe namespace id.
    #[serde(rename = "namespaceID")]
    pub namespace_id: i64,
    /// IEEE EUI-64 of the namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eui64: Option<String>,
    /// NGUID of the namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nguid: Option<String>,
    /// Firmware revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// PCI address (`0000:5e:00.0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<i64>,
    /// How the drive is attached.
    pub transport: Transport,
    /// Device node at the last scan; it may move, the rest does not.
    pub device_path: String,
}

/// How a drive is attached.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// PCI Express.
    #[default]
    Pcie,
    /// A fabric: TCP, RDMA, Fibre Channel, or the kernel's loop transport.
    Fabric,
    /// A loop device or plain file that stands for a drive, for development.
    StandIn,
}

/// The agent's finding on a drive.
#[derive(
    JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum DriveVerdict {
    /// Provably unused.
    Stranded,
    /// Somebody on its node uses it, or that cannot yet be ruled out.
    InUse,
    /// Holds something that is not this cluster's (other data, another cluster's label), is not its
    /// node's alone, or is a cloud or fabric volume.
    Foreign,
    /// Of a pool of this cluster.
    Pooled,
    /// Not fit for use.
    Failed,
}

/// Where a drive is on its way through the pool.
#[derive(
    JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum DrivePhase {
    /// Judged, and in no pool.
    Available,
    /// Judged, and not to be had.
    Rejected,
    /// Label and partitions are being written.
    Carving,
    /// Carved, and serving.
    Ready,
    /// Its label is being taken away.
    Releasing,
    /// Its label is gone; it is not taken again while it is cordoned.
    Released,
    /// No longer seen by its node.
    Missing,
}

/// One reason for a verdict.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveReason {
    /// Code in CamelCase; `docs/verdicts.md` lists them.
    pub code: String,
    /// What was found and what to do.
    pub message: String,
}

/// What the label on a drive says.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelStatus {
    /// Name of the pool.
    pub pool: String,
    /// Identity of the pool.
    #[serde(rename = "poolID")]
    pub pool_id: String,
    /// Identity of the drive.
    #[serde(rename = "driveID")]
    pub drive_id: String,
    /// Grows with each change of the label.
    pub generation: i64,
}

/// What a partition is for.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartitionRole {
    /// Kubernetes volumes.
    Storage,
    /// KV-cache blocks.
    ContextMemory,
}

/// One partition of ours.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// What it is for.
    pub role: PartitionRole,
    /// First byte on the drive.
    pub start: i64,
    /// Size in bytes.
    pub size: ByteQuantity,
    /// Bytes in use, in sixteenths of the size; told when that changes.
    #[serde(default)]
    pub used: ByteQuantity,
    /// Of a storage partition: bytes that all legs together can have, once its file system is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usable: Option<ByteQuantity>,
}

/// Wear and health from the SMART log (NVM Express base specification, log page 02h). Values
/// that always move (temperature, bytes written) are metrics, not status.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveHealth {
    /// Percent of the rated endurance used; can pass 100.
    pub percentage_used: i64,
    /// Percent of spare capacity left.
    pub available_spare: i64,
    /// Below this percentage of spare capacity the drive calls itself worn.
    pub available_spare_threshold: i64,
    /// Bits of the critical warning; 0 when there is none.
    pub critical_warning: i64,
    /// Unrecovered data integrity errors.
    pub media_errors: i64,
    /// The month (`2031-04`) in which the rated endurance is used up if the drive goes on wearing as it has in its life so
    /// far; left out where nothing is worn yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7))]
    pub wears_out: Option<String>,
}
