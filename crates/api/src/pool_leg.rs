//! PoolLeg: one copy or stripe member of a volume, on one drive.

use crate::{condition::Condition, quantity::ByteQuantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One copy or stripe member of a volume: a file on one drive's storage side. The operator
/// writes the spec, the node's agent alone the status. Deleting the object deletes no byte.
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
    doc = "One copy or stripe member of a volume: a file on one drive's storage side. Deleting the object deletes no byte.",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
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
    validation = Rule::new("quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0").message("a leg cannot shrink").reason(Reason::FieldValueForbidden)
)]
pub struct PoolLegSpec {
    /// The PoolVolume it belongs to.
    #[schemars(length(min = 1, max = 253))]
    pub volume: String,
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
    /// The volume was deleted: the bytes may go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_mark: bool,
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
    /// What is wrong with it, if anything.
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
