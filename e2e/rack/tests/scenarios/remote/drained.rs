//! A volume that leaves its node.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use strand_api::{
    ByteQuantity, Drive, DriveOperation, DriveOperationSpec, OperationPhase, OperationType,
    PoolLeg, PoolVolume, VolumePhase,
};
use strand_rack_bed::{Cluster, DrivePlan, Guest, wait};

use super::bed::{
    SOON, VOLUME, acknowledged, intact, mount, nothing_left, pool_of, restart_agent, start_writing,
    stop_writing, unmount, until, volumes, wish,
};

const OPERATION: &str = "empty";

/// A detached volume leaves a machine that is drained, for another one; meanwhile the agent that copies, the operator and then the agent of the
/// machine that it leaves are killed, and that machine reboots. The copy goes on where it was; afterwards nothing of the volume is left on the
/// first machine, and a third one reads every byte. On its way back somebody wants the volume: he gets it, and the copy is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_volume_leaves_its_machine_whoever_is_killed_meanwhile() {
    let drive = |serial: &str| DrivePlan {
        bytes: 2 << 30,
        ..DrivePlan::new(serial)
    };
    let plans = [vec![drive("G1D0")], vec![drive("G2D0")], vec![]];
    let (mut rack, mut cluster) = pool_of("drained", &plans, json!({})).await;
    let (first, second, third) = (rack.guest(0), rack.guest(1), rack.guest(2));
    let volume = serde_json::from_value(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": VOLUME},
        "spec": {"pool": "default", "size": "512Mi", "volumeMode": "Filesystem", "nodeName": first.name()},
    }));
    let api = volumes(&cluster);
    api.create(&PostParams::default(), &volume.unwrap())
        .await
        .unwrap();
    let (volume, _) = until(&cluster, "the volume is Ready", |volume, _| {
        volume.status.as_ref().and_then(|s| s.phase) == Some(VolumePhase::Ready)
    })
    .await;
    assert_eq!(volume.spec.legs[0].node_name, first.name());
    let left = volume.spec.legs[0].drive.clone();
    wish(&cluster, &[third], false).await;
    mount(&cluster, third, true).await;
    start_writing(third).await;
    stop_writing(third).await;
    let sums = acknowledged(third).await;
    unmount(third).await;
    wish(&cluster, &[], false).await;

    empty(&cluster, &left).await;
    let copy = copied(&cluster, ByteQuantity(128 << 20)).await;
    assert_eq!(copy.spec.node_name, second.name());
    let half = "ls /run/volumes/*/making | grep -v :$ | grep .";
    let half = second.sh(half).await.unwrap();
    restart_agent(&cluster, second).await;
    cluster.restart_operator().unwrap();
    restart_agent(&cluster, first).await;
    rack.guest_mut(0).cut_power();
    rack.guest_mut(0).power_on().await.unwrap();
    let (first, second, third) = (rack.guest(0), rack.guest(1), rack.guest(2));
    cluster.start_agent_with_volumes(first).await.unwrap();
    done(&cluster).await;
    let (volume, _) = until(&cluster, "the volume has moved", |volume, _| {
        volume.spec.legs[0].node_name == second.name()
    })
    .await;
    let uuid = volume.spec.legs[0].uuid.clone().unwrap();
    assert_eq!(uuid, half.trim(), "the copy went on where it was");
    nothing_left(&rack, &cluster).await;
    nothing_of_it(first).await;

    wish(&cluster, &[third], false).await;
    mount(&cluster, third, false).await;
    intact(third, &sums).await;
    unmount(third).await;
    wish(&cluster, &[], false).await;

    let drives: Api<Drive> = Api::all(cluster.client().clone());
    cordon(&drives, &left, false).await;
    empty(&cluster, &volume.spec.legs[0].drive).await;
    copied(&cluster, ByteQuantity(64 << 20)).await;
    wish(&cluster, &[first], false).await;
    mount(&cluster, first, false).await;
    intact(first, &sums).await;
    let operations: Api<DriveOperation> = Api::all(cluster.client().clone());
    operations
        .delete(OPERATION, &DeleteParams::default())
        .await
        .unwrap();
    unmount(first).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
    nothing_of_it(first).await;
}

/// Waits until a machine has no leg, and no part of one.
async fn nothing_of_it(guest: &Guest) {
    let script = "[ -z \"$(ls /run/volumes/*/legs /run/volumes/*/making | grep -v :$ | grep .)\" ]";
    let what = format!("no leg is left on {}", guest.name());
    guest.until(&what, SOON, script).await.unwrap();
}

async fn cordon(drives: &Api<Drive>, name: &str, cordon: bool) -> Drive {
    let patch = Patch::Merge(json!({"spec": {"cordon": cordon}}));
    let patched = drives.patch(name, &PatchParams::default(), &patch).await;
    patched.unwrap()
}

/// Begins to empty a drive, slowly.
async fn empty(cluster: &Cluster, drive: &str) {
    let drives: Api<Drive> = Api::all(cluster.client().clone());
    let drive = cordon(&drives, drive, true).await;
    let operations: Api<DriveOperation> = Api::all(cluster.client().clone());
    let _ = operations.delete(OPERATION, &DeleteParams::default()).await;
    let spec = DriveOperationSpec {
        type_: OperationType::Evacuate,
        drive: drive.metadata.name.clone().unwrap(),
        serial: drive.status.unwrap().identity.unwrap().serial,
        rate: Some(ByteQuantity(8 << 20)),
    };
    let operation = DriveOperation::new(OPERATION, spec);
    let made = operations.create(&PostParams::default(), &operation).await;
    made.unwrap();
}

/// Waits until so much of the volume's leg is copied; the copy.
async fn copied(cluster: &Cluster, bytes: ByteQuantity) -> PoolLeg {
    let legs: Api<PoolLeg> = Api::all(cluster.client().clone());
    wait::until("so much is copied", SOON, || async {
        let volume: PoolVolume = volumes(cluster)
            .get(VOLUME)
            .await
            .map_err(|e| e.to_string())?;
        let moving = volume.spec.legs[0].moving.clone();
        let moving = moving.ok_or("it is not moving")?;
        let leg = legs.get(&moving.name).await.map_err(|e| e.to_string())?;
        match leg.status.as_ref().and_then(|s| s.copied) {
            Some(copied) if copied >= bytes => Ok(leg),
            _ => Err(json!(leg.status).to_string()),
        }
    })
    .await
    .unwrap()
}

async fn done(cluster: &Cluster) {
    let operations: Api<DriveOperation> = Api::all(cluster.client().clone());
    wait::until("the drive is empty", 3 * SOON, || async {
        let operation = operations.get(OPERATION).await.map_err(|e| e.to_string())?;
        let status = operation.status.unwrap_or_default();
        match status.phase {
            Some(OperationPhase::Succeeded) => Ok(()),
            _ => Err(status.message),
        }
    })
    .await
    .unwrap();
}
