//! DriveOperation: a one-shot act on a drive, asked for by an administrator who names its serial.

use crate::{condition::Condition, quantity::ByteQuantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A one-shot act on one drive. It names the serial it means and cannot be changed; to stop
/// one that has not begun, delete it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "DriveOperation",
    plural = "driveoperations",
    shortname = "dop",
    category = "strand",
    status = "DriveOperationStatus",
    derive = "PartialEq",
    selectable = ".spec.drive",
    doc = "A one-shot act on one drive. It names the serial it means and cannot be changed; to stop one that has not begun, delete it.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Drive", type_ = "string", json_path = ".spec.drive"),
    printcolumn(name = "Serial", type_ = "string", json_path = ".spec.serial"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Progress",
        type_ = "integer",
        json_path = ".status.progressPercent"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a DriveOperation cannot be changed: create another one").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.rate) || self.type == 'Evacuate'").message("rate is only for type Evacuate"),
    validation = Rule::new("!has(self.rate) || quantity(string(self.rate)).compareTo(quantity('1Mi')) >= 0").message("rate is at least 1Mi a second")
)]
pub struct DriveOperationSpec {
    /// What to do.
    #[serde(rename = "type")]
    pub type_: OperationType,
    /// Name of the Drive object.
    #[schemars(length(min = 1, max = 63))]
    pub drive: String,
    /// Serial number of the drive that is meant. The operation fails if the drive has another.
    #[schemars(length(min = 1, max = 64))]
    pub serial: String,
    /// Of type Evacuate: bytes a second that are copied at most. Left out: 200Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<ByteQuantity>,
}

/// What a DriveOperation does.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationType {
    /// Makes a drive that is in no pool of this cluster read as blank. Everything on it is lost.
    /// Refused while the drive is mounted, held or open.
    Wipe,
    /// Takes a cordoned drive out of its pool: label and partition table go, and with them what
    /// context memory holds. Refused while the storage side holds data.
    Release,
    /// Takes away the object of a drive that is gone for good, or whose node is, and what
    /// waits for it. Touches no drive. Refused while the node's agent still sees the drive.
    Forget,
    /// Moves the legs of a cordoned drive to other drives of its node, those of attached volumes when they are detached. Ends
    /// when no leg is left. Deleting the operation, or lifting the cordon, stops it: each volume is then where its bytes are whole.
    Evacuate,
}

/// How far it is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveOperationStatus {
    /// Where the operation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<OperationPhase>,
    /// What was done, or why not and what to do.
    #[serde(default)]
    pub message: String,
    /// Percent done, in steps of ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_percent: Option<i64>,
    /// Of type Evacuate: bytes of legs that were on the drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<ByteQuantity>,
    /// Of type Evacuate: how many of them are elsewhere now, or gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_bytes: Option<ByteQuantity>,
    /// `Complete`, once the operation has ended, well or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a DriveOperation is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationPhase {
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Not done; the message says why.
    Failed,
}
