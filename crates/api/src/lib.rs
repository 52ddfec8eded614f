//! The objects of the API group `strand.dev`, version `v1alpha1`, and the names, labels and
//! quantities they use. Types only: what is decided from them lives in `strand-placement`.
//!
//! Every object is cluster-scoped. Which process writes which part of which object is told at
//! each type; no field has two writers.

pub mod condition;
mod drive;
mod drive_operation;
mod memory_pool;
pub mod names;
mod pool_grant;
mod pool_leg;
mod pool_map;
mod pool_snapshot;
mod pool_volume;
mod quantity;
mod volume_array;

pub use drive::{
    Drive, DriveCarve, DriveHealth, DriveIdentity, DrivePhase, DriveReason, DriveSpec, DriveStatus,
    DriveVerdict, LabelStatus, PartitionRole, PartitionStatus, Transport,
};
pub use drive_operation::{
    DriveOperation, DriveOperationSpec, DriveOperationStatus, OperationPhase, OperationType,
};
pub use memory_pool::{
    Access, Adoption, CarveOverride, CarvePolicy, ContextMemoryPolicy, DeletionPolicy, DriveCounts,
    DriveExclusions, DriveSelector, MemoryPool, MemoryPoolSpec, MemoryPoolStatus, PoolDisplay,
    Provisioning, ReasonCount, Redundancy, SideStatus, StoragePolicy,
};
pub use pool_grant::{ContextShare, PoolGrant, PoolGrantSpec};
pub use pool_leg::{
    ExportedLeg, LegCopy, LegExport, LegPhase, PoolLeg, PoolLegSpec, PoolLegStatus,
};
pub use pool_map::{MapDrive, MapNode, MapNodeError, PoolMap, PoolMapSpec};
pub use pool_snapshot::{
    CheckPhase, PoolSnapshot, PoolSnapshotSpec, PoolSnapshotStatus, SnapshotCheck, SnapshotGroup,
};
pub use pool_volume::{
    Abroad, AttachTo, Attachment, AttachmentPhase, IoLimits, LegMove, Locality, PlacedLeg,
    PoolVolume, PoolVolumeSpec, PoolVolumeStatus, VolumeMode, VolumePhase, VolumeSource,
};
pub use quantity::{ByteQuantity, QuantityError, Share};
pub use volume_array::{
    ArrayLeg, ArrayRefusal, ArrayStatus, LackPhase, LegArray, LegHolding, LegLack, VolumeArray,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// API group of every object of Strand.
pub const GROUP: &str = "strand.dev";
/// The only version served so far.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all our objects, in the order in which they are best created.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        MemoryPool::crd(),
        PoolGrant::crd(),
        Drive::crd(),
        DriveOperation::crd(),
        PoolMap::crd(),
        PoolVolume::crd(),
        PoolLeg::crd(),
        PoolSnapshot::crd(),
    ]
}

/// The files of `crds/`: name and content of each.
pub fn crd_files() -> Vec<(String, String)> {
    crds()
        .into_iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let yaml = serde_yaml::to_string(&crd).unwrap_or_default();
            (
                name,
                format!("# Generated from crates/api by `make crds`; do not edit.\n{yaml}"),
            )
        })
        .collect()
}
