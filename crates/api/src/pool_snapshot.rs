//! PoolSnapshot: a volume as it was at one moment.

use crate::{condition::Condition, pool_volume::PlacedLeg, quantity::ByteQuantity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume as it was at one moment, on the drives of its legs: each has a PoolLeg of its own beside
/// the one it was taken of, and outlives that. The CSI driver writes the spec but for `legs`, which
/// is the operator's, as the status is. Deleting the object deletes no byte.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "PoolSnapshot",
    plural = "poolsnapshots",
    shortname = "psnap",
    category = "strand",
    status = "PoolSnapshotStatus",
    derive = "PartialEq",
    selectable = ".spec.volume",
    doc = "A volume as it was at one moment, on the drives of its legs. Deleting the object deletes no byte.",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.readyToUse"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Taken", type_ = "date", json_path = ".status.takenAt"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.volume == oldSelf.volume").message("a snapshot cannot change its volume").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.group) == has(oldSelf.group) && (!has(self.group) || (self.group.name == oldSelf.group.name && self.group.volumes == oldSelf.group.volumes && self.group.generation == oldSelf.group.generation))").message("a snapshot cannot change its group").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.check) || has(self.check)").message("that a snapshot has to be checked is never forgotten").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.legs) || has(self.legs)").message("where a snapshot's legs lie is never forgotten").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.deletionMark) || !oldSelf.deletionMark || (has(self.deletionMark) && self.deletionMark)").message("a snapshot marked for deletion stays so").reason(Reason::FieldValueForbidden)
)]
pub struct PoolSnapshotSpec {
    /// The PoolVolume it was taken of.
    #[schemars(length(min = 1, max = 253))]
    pub volume: String,
    /// The group of snapshots that it is taken with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<SnapshotGroup>,
    /// Where its legs lie, written by the operator before it asks for them. A snapshot that has this
    /// is never taken again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub legs: Vec<PlacedLeg>,
    /// Of a mirror's snapshot, which is taken of one of its legs: whether that had every byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<SnapshotCheck>,
    /// CSI DeleteSnapshot was called: the bytes may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_mark: bool,
}

/// Whether the leg that a mirror's snapshot was taken of had every acknowledged byte then: a mirror may go on without a leg some time
/// before that is known. Written by the operator.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotCheck {
    /// How far it is.
    pub phase: CheckPhase,
    /// The volume's attachment generation when it was asked for.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// The look at the legs that it waits for (`spec.array.look` of the volume): one after it was taken.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub look: i64,
}

/// How far a check is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckPhase {
    /// The snapshot is being taken.
    Taking,
    /// It was taken, and whoever writes to the volume looks whether the leg still is a part of it.
    Looking,
    /// The leg may have lacked writes: it is taken again.
    Failed,
    /// It has every byte that was acknowledged before it was taken.
    Passed,
}

/// Snapshots of several volumes at one moment.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotGroup {
    /// Name of the group.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// All its volumes, sorted.
    #[schemars(length(min = 1, max = 256), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub volumes: Vec<String>,
    /// The volume's attachment generation before the first snapshot of the group was asked for.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// All snapshots of the group were there while every volume still had that generation: nobody wrote to any of them in between,
    /// so they are of one moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

/// What has become of it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSnapshotStatus {
    /// Whether volumes can be made from it.
    #[serde(default)]
    pub ready_to_use: bool,
    /// Size of a volume made from it.
    #[serde(default)]
    pub size: ByteQuantity,
    /// When it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Time>,
    /// `Ready`, with the reason while it is False.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
