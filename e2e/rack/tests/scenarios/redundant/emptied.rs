//! A drive that is emptied under a volume that is used.

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use strand_api::{Drive, DriveOperationSpec, OperationPhase, OperationType};

use super::bed::{
    SOON, STALL, acknowledged, intact, is_whole, longest_stall, more_written, mount, nothing_left,
    rack, start_writing, stop_writing, unmount, until, wish,
};

/// A drive with a leg of a raid6 is cordoned and emptied while the volume is written to: another leg is made on another machine and copied to, the
/// old one is deleted, and the operation succeeds. No write fails or stalls, and every leg counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_raid6_leaves_a_drive_under_writes() {
    let (rack, cluster) = rack("raid6-emptied", &[1, 1, 1, 1, 1, 0], "raid6").await;
    let writer = rack.guest(5);
    wish(&cluster, &[writer], false).await;
    mount(&cluster, writer, true).await;
    start_writing(writer).await;
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    let left = volume.spec.legs[1].drive.clone();

    let drives: Api<Drive> = Api::all(cluster.client().clone());
    let cordon = Patch::Merge(json!({"spec": {"cordon": true}}));
    let drive = drives.patch(&left, &PatchParams::default(), &cordon).await;
    let serial = drive.unwrap().status.unwrap().identity.unwrap().serial;
    let evacuate = DriveOperationSpec {
        type_: OperationType::Evacuate,
        drive: left.clone(),
        serial,
        rate: None,
    };
    let done = cluster.operate("empty", evacuate, 2 * SOON, OperationPhase::Succeeded);
    done.await.unwrap();
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    assert!(volume.spec.legs.iter().all(|leg| leg.drive != left));
    more_written(writer, 5).await;
    let stall = longest_stall(writer).await;
    println!("longest stall of writes while a drive was emptied: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
