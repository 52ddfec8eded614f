//! Carries storage actions out: one API write each, none of which does harm if made twice.

use crate::{
    act::{apply, create, delete, object},
    observe::Snapshot,
};
use kube::{Api, Client, ResourceExt, api::Patch};
use serde_json::json;
use strand_api::{DriveOperation, PoolLeg, PoolSnapshot, PoolVolume};
use strand_placement::volumes::Action;

/// Which object an action writes to.
pub(super) fn target(action: &Action) -> (&'static str, &str) {
    match action {
        Action::PlaceVolume { volume, .. }
        | Action::SetVolumeStatus { volume, .. }
        | Action::DropVolume { volume } => ("PoolVolume", volume),
        Action::PlaceSnapshot { snapshot, .. }
        | Action::SetSnapshotStatus { snapshot, .. }
        | Action::DropSnapshot { snapshot } => ("PoolSnapshot", snapshot),
        Action::MakeLeg { leg, .. } | Action::ChangeLeg { leg, .. } | Action::DropLeg { leg } => {
            ("PoolLeg", leg)
        }
        Action::SetOperationStatus { operation, .. } => ("DriveOperation", operation),
    }
}

/// The resourceVersion of the object that an action writes to, as it was when it was decided.
pub(super) fn version(action: &Action, seen: &Snapshot) -> Option<String> {
    let (kind, name) = target(action);
    match kind {
        "PoolVolume" => seen.volume(name)?.resource_version(),
        "PoolSnapshot" => seen.volume_snapshot(name)?.resource_version(),
        "DriveOperation" => seen.operation(name)?.resource_version(),
        _ => seen.leg(name)?.resource_version(),
    }
}

/// Carries an action out.
///
/// # Errors
/// Those of the API. 409 says that the object has changed since, or is there already: the next plan takes that in.
pub(super) async fn carry_out(
    client: &Client,
    seen: &Snapshot,
    action: &Action,
) -> kube::Result<()> {
    let volumes: Api<PoolVolume> = Api::all(client.clone());
    let legs: Api<PoolLeg> = Api::all(client.clone());
    let snapshots: Api<PoolSnapshot> = Api::all(client.clone());
    let version = version(action, seen);
    match action {
        Action::PlaceVolume {
            volume,
            legs,
            array,
        } => {
            let mut spec = json!({"legs": legs});
            if let Some(array) = array {
                spec["array"] = json!(array);
            }
            let patch = object::<PoolVolume>(volume, version, json!({"spec": spec}));
            volumes
                .patch(volume, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::PlaceSnapshot {
            snapshot,
            legs,
            check,
        } => {
            let mut spec = json!({"legs": legs});
            if let Some(check) = check {
                spec["check"] = json!(check);
            }
            let patch = object::<PoolSnapshot>(snapshot, version, json!({"spec": spec}));
            snapshots
                .patch(snapshot, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::MakeLeg { leg, spec } => {
            let object = PoolLeg::new(leg, (**spec).clone());
            legs.create(&create(), &object).await?;
        }
        Action::ChangeLeg { leg, spec } => {
            // Replaced, not applied: fields that the agent set where it made the object have to be
            // taken away too.
            if let Some(present) = seen.leg(leg) {
                let mut object = present.clone();
                object.spec = (**spec).clone();
                legs.replace(leg, &create(), &object).await?;
            }
        }
        Action::DropLeg { leg } => delete(&legs, leg, version).await?,
        Action::SetVolumeStatus { volume, status } => {
            let patch = object::<PoolVolume>(volume, version, json!({"status": status}));
            volumes
                .patch_status(volume, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::SetSnapshotStatus { snapshot, status } => {
            let patch = object::<PoolSnapshot>(snapshot, version, json!({"status": status}));
            snapshots
                .patch_status(snapshot, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::SetOperationStatus { operation, status } => {
            let operations: Api<DriveOperation> = Api::all(client.clone());
            let patch = object::<DriveOperation>(operation, version, json!({"status": status}));
            operations
                .patch_status(operation, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::DropVolume { volume } => delete(&volumes, volume, version).await?,
        Action::DropSnapshot { snapshot } => delete(&snapshots, snapshot, version).await?,
    }
    Ok(())
}

/// What an action changes, for metrics.
pub(super) fn kind(action: &Action) -> &'static str {
    match action {
        Action::PlaceVolume { .. } => "place_volume",
        Action::PlaceSnapshot { .. } => "place_snapshot",
        Action::MakeLeg { .. } => "make_leg",
        Action::ChangeLeg { .. } => "change_leg",
        Action::DropLeg { .. } => "drop_leg",
        Action::SetVolumeStatus { .. } => "set_volume_status",
        Action::SetSnapshotStatus { .. } => "set_snapshot_status",
        Action::SetOperationStatus { .. } => "set_operation_status",
        Action::DropVolume { .. } => "drop_volume",
        Action::DropSnapshot { .. } => "drop_snapshot",
    }
}
