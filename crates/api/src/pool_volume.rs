//! PoolVolume: one volume of a pool's storage side.

use crate::{
    ArrayStatus, LegLack, Redundancy, VolumeArray, condition::Condition, memory_pool::Provisioning,
    quantity::ByteQuantity,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One volume of a pool's storage side. The CSI driver writes the spec but for `legs` and `array`, which are the
/// operator's, as the status is but for its `array`. Deleting the object deletes no byte; a volume that shall go is
/// marked, and the operator takes the object away when its bytes are gone.
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
    validation = Rule::new("quantity(string(self.spec.size)).compareTo(quantity(string(oldSelf.spec.size))) >= 0 || (has(oldSelf.status) && has(oldSelf.status.size) && quantity(string(self.spec.size)).compareTo(quantity(string(oldSelf.status.size))) >= 0)").message("a volume cannot shrink below what its consumer has").reason(Reason::FieldValueForbidden),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Redundancy", type_ = "string", json_path = ".spec.redundancy"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Drive", type_ = "string", json_path = ".spec.legs[*].drive"),
    printcolumn(
        name = "Attached",
        type_ = "string",
        json_path = ".status.attachments[*].node"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
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
    validation = Rule::new("has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)").message("a volume's source cannot change").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.deletionMark) || !oldSelf.deletionMark || (has(self.deletionMark) && self.deletionMark)").message("a volume marked for deletion stays so").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.legs) || has(self.legs)").message("where a volume's legs lie is never forgotten").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.array) || (has(self.array) && self.array.uuid == oldSelf.array.uuid && (!oldSelf.array.formed || self.array.formed))").message("a volume's array stays the one it is, and is made once").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.locality) || self.locality != 'Node' || (has(self.nodeName) && self.nodeName != '')").message("locality Node needs nodeName")
)]
pub struct PoolVolumeSpec {
    /// The MemoryPool that holds the volume.
    #[schemars(length(min = 1, max = 63))]
    pub pool: String,
    /// Size that the consumer sees; it only grows. A wish for more that could not be had may be taken back.
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
    /// With locality Node: the node that holds and attaches it. Otherwise: the node that its legs
    /// are best placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// What its first content is copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<VolumeSource>,
    /// Limits on what its consumer may do to the drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
    /// Where it shall be attached: an entry a node, put there by ControllerPublishVolume and taken
    /// away by ControllerUnpublishVolume. `status.attachments` answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub attach_to: Vec<AttachTo>,
    /// Where its legs lie, written by the operator before it makes them. A volume that has this is
    /// never given other, empty legs, whatever else was lost; an import gives it with the UUIDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub legs: Vec<PlacedLeg>,
    /// The array that its legs are, written by the operator with them; none without redundancy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<VolumeArray>,
    /// CSI DeleteVolume was called: the bytes may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_mark: bool,
}

/// A node that a volume shall be attached to.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachTo {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// For reading only; several nodes can have that at once, if none writes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// Where one leg of a volume or snapshot lies.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedLeg {
    /// Name of the PoolLeg.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its place in the volume.
    #[schemars(range(min = 0, max = 255))]
    pub index: i32,
    /// The node that holds it.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// The Drive that holds it.
    #[schemars(length(min = 1, max = 63))]
    pub drive: String,
    /// UUID of its bytes, once they are there. From then on nothing else is taken for this leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    pub uuid: Option<String>,
    /// Where its bytes are being copied to, while its drive is evacuated. Until they are whole there, this entry stays
    /// as it is; then that leg takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<LegMove>,
    /// What it lacks of the volume's bytes. A leg without this has every byte that was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lack: Option<LegLack>,
}

/// The leg that shall take another's place.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegMove {
    /// Name of the PoolLeg.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Drive that shall hold it.
    #[schemars(length(min = 1, max = 63))]
    pub drive: String,
    /// Where that is, if it is not on the leg's own node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abroad: Option<Abroad>,
}

/// How a leg moves to another node.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abroad {
    /// The node that shall hold it.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Generation by which that node reads the leg. No attachment of the volume ever has it.
    #[schemars(range(min = 1))]
    pub generation: i64,
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
    /// Size that its consumer can have now; below `spec.size` while it grows.
    #[serde(default)]
    pub size: ByteQuantity,
    /// The highest generation that an attachment was given; it never goes back.
    #[serde(default)]
    pub attachment_generation: i64,
    /// Where it may be attached now, the granted part of `spec.attachTo`; and where it was, until nobody there can write any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub attachments: Vec<Attachment>,
    /// What the agent of the node that has it attached for writing says of its legs. Written by that agent, under a field manager
    /// of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayStatus>,
    /// `Ready` always; `Attached`, `Resized`, `Limited` and `Healthy` only while they are False, `Degraded` only while it is True, with
    /// the reason.
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
    /// How far it is.
    #[serde(default, skip_serializing_if = "AttachmentPhase::is_granted")]
    pub phase: AttachmentPhase,
}

/// How far an attachment is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentPhase {
    /// Its node may use the volume.
    #[default]
    Granted,
    /// The nodes that hold the volume's legs are about to let its node in.
    Exporting,
    /// It was given up. It stays until every leg is known to be out of its node's reach, and nobody else writes before.
    Fencing,
}

impl AttachmentPhase {
    /// Whether its node may use the volume now.
    pub fn is_granted(&self) -> bool {
        *self == Self::Granted
    }
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
