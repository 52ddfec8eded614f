//! PoolVolume: one volume of a pool's storage side.

use crate::{Redundancy, condition::Condition, memory_pool::Provisioning, quantity::ByteQuantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One volume of a pool's storage side. The CSI driver writes the spec; the operator writes
/// placement and attachment into the status. Deleting the object deletes no byte.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "PoolVolume",
    plural = "poolvolumes",
    shortname = "pvol",
    category = "strand",
    status = "PoolVolumeStatus",
    derive = "PartialEq",
    selectable = ".spec.pool",
    doc = "One volume of a pool's storage side. Deleting the object deletes no byte: only CSI DeleteVolume's recorded mark does.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Redundancy", type_ = "string", json_path = ".spec.redundancy"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.attachment.node"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.pool == oldSelf.pool").message("a volume cannot change its pool").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.redundancy == oldSelf.redundancy").message("a volume cannot change its redundancy: copy it to another one").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.volumeMode == oldSelf.volumeMode").message("a volume cannot change its mode").reason(Reason::FieldValueForbidden),
    validation = Rule::new("quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0").message("a volume cannot shrink").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)").message("a volume's source cannot change").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.deletionMark) || !oldSelf.deletionMark || (has(self.deletionMark) && self.deletionMark)").message("a volume marked for deletion stays so").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.locality) || self.locality != 'Node' || (has(self.nodeName) && self.nodeName != '')").message("locality Node needs nodeName")
)]
pub struct PoolVolumeSpec {
    /// The MemoryPool that holds the volume.
    #[schemars(length(min = 1, max = 63))]
    pub pool: String,
    /// Size that the consumer sees; it only grows.
    pub size: ByteQuantity,
    /// How many losses the volume outlives.
    #[serde(default)]
    pub redundancy: Redundancy,
    /// Whether its space is reserved.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// File system or raw block device.
    pub volume_mode: VolumeMode,
    /// Where it can be attached.
    #[serde(default)]
    pub locality: Locality,
    /// With locality Node: the node that holds and attaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// What its first content is copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<VolumeSource>,
    /// Limits on what its consumer may do to the drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
    /// CSI DeleteVolume was called: the bytes may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_mark: bool,
}

/// File system or raw block device.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeMode {
    /// Mounted with a file system.
    Filesystem,
    /// Handed over as a block device.
    Block,
}

/// Where a volume can be attached.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locality {
    /// On every node of the pool's fabric.
    #[default]
    Fabric,
    /// Only on the node that holds it.
    Node,
}

/// What a volume's first content is copied from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.snapshot) != has(self.volume)").message("name either a snapshot or a volume"))]
pub struct VolumeSource {
    /// A PoolSnapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub snapshot: Option<String>,
    /// A PoolVolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volume: Option<String>,
}

/// Limits on a volume's I/O; what is left out is not limited.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoLimits {
    /// Operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub iops: Option<i64>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<ByteQuantity>,
}

/// Placement and attachment, by the operator.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolVolumeStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the volume is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<VolumePhase>,
    /// Names of its PoolLegs, by their place in the volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub legs: Vec<String>,
    /// Where it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// What is wrong with it, if anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a volume is attached.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Grows with each attach; who carries an older one is stale.
    pub generation: i64,
    /// The consumer's node.
    pub node: String,
    /// Whether it is attached for reading only.
    #[serde(default)]
    pub read_only: bool,
}

/// Where a volume is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumePhase {
    /// Legs are being placed or made.
    Pending,
    /// It can be attached.
    Ready,
    /// It works, with less redundancy than asked for.
    Degraded,
    /// It cannot be used; its conditions say why.
    Failed,
    /// Its bytes are being taken away.
    Deleting,
}
