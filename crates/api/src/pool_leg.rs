//! PoolLeg: one copy or stripe member of a volume, on one drive.

use crate::{
    LegArray,
    condition::Condition,
    memory_pool::Provisioning,
    pool_volume::{IoLimits, VolumeMode},
    quantity::ByteQuantity,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One copy or stripe member of a volume, or a snapshot of one: a file on one drive's storage side.
/// The operator writes the spec, the node's agent alone the status. Deleting the object deletes no
/// byte: the agent makes it again from the leg's record, as `orphaned`, and the operator says whose
/// it is.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "PoolLeg",
    plural = "poollegs",
    shortname = "pleg",
    category = "strand",
    status = "PoolLegStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.volume",
    selectable = ".spec.drive",
    doc = "One copy or stripe member of a volume, or a snapshot of one: a file on one drive's storage side. Deleting the object deletes no byte.",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".spec.snapshot"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Drive", type_ = "string", json_path = ".spec.drive"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.volume == oldSelf.volume && self.nodeName == oldSelf.nodeName && self.drive == oldSelf.drive && self.index == oldSelf.index").message("a leg stays where it is: place another one").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.snapshot) == has(oldSelf.snapshot) && (!has(self.snapshot) || self.snapshot == oldSelf.snapshot) && self.provisioning == oldSelf.provisioning && (!has(oldSelf.volumeMode) || (has(self.volumeMode) && self.volumeMode == oldSelf.volumeMode)) && has(self.array) == has(oldSelf.array) && (!has(self.array) || self.array == oldSelf.array)").message("a leg stays what it is: place another one").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.exports) || self.exports.all(e, e.node != self.nodeName)").message("a leg is exported to other nodes than its own"),
    validation = Rule::new("!has(oldSelf.uuid) || (has(self.uuid) && self.uuid == oldSelf.uuid)").message("a leg's UUID cannot change").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.deletionMark) || !oldSelf.deletionMark || (has(self.deletionMark) && self.deletionMark)").message("a leg marked for deletion stays so").reason(Reason::FieldValueForbidden),
    validation = Rule::new("quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0").message("a leg cannot shrink").reason(Reason::FieldValueForbidden)
)]
pub struct PoolLegSpec {
    /// The PoolVolume it belongs to; for a snapshot's leg the one it was taken of.
    #[schemars(length(min = 1, max = 253))]
    pub volume: String,
    /// The PoolSnapshot it belongs to. Such a leg is never written or attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub snapshot: Option<String>,
    /// UID of the PoolVolume or PoolSnapshot that it belongs to.
    #[serde(rename = "ownerUID", default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub owner_uid: String,
    /// The node that holds it.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// The Drive that holds it.
    #[schemars(length(min = 1, max = 63))]
    pub drive: String,
    /// Its place in the volume.
    #[schemars(range(min = 0, max = 255))]
    pub index: i32,
    /// Size of the file in bytes.
    pub size: ByteQuantity,
    /// Whether its space is reserved; the same for all legs of a drive.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// What its volume is used as; written beside its bytes, so that an import knows. Left out: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<VolumeMode>,
    /// Of which array it is a part; none where it is all of its volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<LegArray>,
    /// The PoolLeg on the same drive that it starts as a copy of (a reflink). Left out: as zeroes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub source: Option<String>,
    /// The leg on another drive that it takes the place of, byte by byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<LegCopy>,
    /// UUID of its bytes, where they were made before this object. The agent then makes nothing:
    /// it takes the bytes with this UUID, or fails with reason `NotFound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    pub uuid: Option<String>,
    /// Limits on the I/O of the one who has it attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
    /// The nodes other than its own that may reach it now: the granted attachments of its volume, or the one that it moves to. Written
    /// by the operator; what is not here any more is fenced by the agent before it says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["generation".into()]))]
    pub exports: Vec<LegExport>,
    /// There is no volume or snapshot object that it belongs to. Set by the agent where it makes
    /// the object again, from then on by the operator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// The volume or snapshot was deleted: the bytes may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_mark: bool,
}

/// What a leg that moves to another drive is copied from.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegCopy {
    /// UUID of the bytes that are copied.
    #[schemars(length(min = 36, max = 36))]
    pub uuid: String,
    /// The Drive that they lie on.
    #[schemars(length(min = 1, max = 63))]
    pub drive: String,
    /// The node of that drive, if it is another one than the copy's: there the leg is exported for this copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// Attachment generation that the copied leg is given first: who comes with an older one is stale from then on, and writes
    /// nothing that the copy would miss. From another node it is read by the export of that generation.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// Bytes a second that are copied at most.
    pub rate: ByteQuantity,
    /// The copy is whole, and has taken the place of what it was copied from: only this one is attached from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
}

/// A node that may reach a leg on another one.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegExport {
    /// Generation of the attachment; it is in the names of both ends, so that each attachment has names of its own.
    #[schemars(range(min = 1))]
    pub generation: i64,
    /// The consumer's node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// For reading only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// For the copy that takes its place there, not for a consumer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy: bool,
    /// Whoever gives the right name gets in: the pool had `insecureFabric` when it was granted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// A leg as its node offers it to another one.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportedLeg {
    /// Generation of the attachment.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// Address of this node on the fabric.
    #[schemars(length(min = 1, max = 64))]
    pub address: String,
    /// TCP port there; that of RDMA is the same.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Whether it is reached over RDMA, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rdma: bool,
}

/// What the node's agent has made of it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolLegStatus {
    /// Generation of the spec that the agent has acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the leg is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<LegPhase>,
    /// UUID of the leg, written beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Size of the file now.
    #[serde(default)]
    pub size: ByteQuantity,
    /// Bytes that it takes on its drive, those that it shares with copies included: in sixteenths of its size, told anew when it is
    /// off by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<ByteQuantity>,
    /// Of a leg that is being copied from another drive: bytes that are there and were read back, in sixteenths of its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<ByteQuantity>,
    /// For a snapshot's leg: when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Time>,
    /// The highest attachment generation in the leg's record; told where the object was made again,
    /// or where somebody came with a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment_generation: Option<i64>,
    /// What other nodes may still reach: everything that the kernel of its node has of it, whether or not it is in `spec.exports`.
    /// With `observedGeneration`, what is not here is fenced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["generation".into()]))]
    pub exports: Vec<ExportedLeg>,
    /// `Ready`, `Healthy`, `Limited`, `Exported`, each only while it is False, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a leg is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegPhase {
    /// Being made.
    Pending,
    /// There, at its full size.
    Ready,
    /// Cannot be used; its conditions say why.
    Failed,
    /// Its bytes are on the drive, but no volume object claims them.
    Orphaned,
    /// Its bytes are gone.
    Deleted,
}
