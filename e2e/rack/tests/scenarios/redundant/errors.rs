//! A leg whose drive answers with errors.

use kube::Api;
use strand_api::{Drive, PoolVolume, condition, names};
use strand_rack_bed::{Fault, wait};

use super::bed::{
    SOON, STALL, acknowledged, intact, is_whole, leg_on, longest_stall, more_written, mount,
    nothing_left, rack, start, start_writing, stop_writing, unmount, until, wish,
};

use crate::remote::bed::try_give_back;

async fn drive(drives: &Api<Drive>, name: &str) -> Drive {
    drives.get(name).await.unwrap()
}

fn serial(drive: &Drive) -> String {
    let identity = drive.status.as_ref().and_then(|s| s.identity.as_ref());
    identity.unwrap().serial.clone()
}

/// The drive of a mirror's leg takes no writes any more, under a writer. The leg is given up with the reason, writes go on, and another is made
/// on another drive; the drive says that it failed. Then the other leg's machine dies: the new leg alone holds every byte that was
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_leg_that_takes_no_writes_is_given_up_and_made_elsewhere() {
    let (mut rack, cluster) = rack("write-errors", &[2, 1, 0], "mirror").await;
    wish(&cluster, &[rack.guest(2)], false).await;
    mount(&cluster, rack.guest(2), true).await;
    start_writing(rack.guest(2)).await;
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    let before = leg_on(&volume, rack.guest(0)).unwrap().clone();
    let drives: Api<Drive> = Api::all(cluster.client().clone());
    let spoilt = serial(&drive(&drives, &before.drive).await);

    rack.guest_mut(0)
        .spoil(&spoilt, Fault::Unwritable)
        .await
        .unwrap();
    let volume = until(&cluster, "the leg is given up", |volume| {
        let leg = leg_on(volume, rack.guest(0));
        leg.is_some_and(|leg| leg.lack.is_some() || leg.name != before.name)
    })
    .await;
    let leg = leg_on(&volume, rack.guest(0)).unwrap();
    let reason = leg.lack.as_ref().map(|lack| lack.reason.as_str());
    println!("the leg was given up: {reason:?}");
    assert_eq!(reason, Some("WritesFailed"));
    more_written(rack.guest(2), 5).await;
    until(&cluster, "the volume is whole again", |volume| {
        let leg = leg_on(volume, rack.guest(0));
        is_whole(volume) && leg.is_some_and(|leg| leg.drive != before.drive)
    })
    .await;
    let drive = drive(&drives, &before.drive).await;
    let conditions = drive.status.map(|status| status.conditions).unwrap();
    let ill = condition::find(&conditions, names::HEALTHY).unwrap();
    println!("the drive says {}: {}", ill.reason, ill.message);
    assert_eq!(ill.status, "False");

    rack.guest_mut(1).cut_power();
    let node = rack.guest(1).name().to_owned();
    until(&cluster, "the other leg is recorded out", |volume| {
        let mut legs = volume.spec.legs.iter();
        legs.any(|leg| leg.node_name == node && leg.lack.is_some())
    })
    .await;
    let writer = rack.guest(2);
    more_written(writer, 5).await;
    let stall = longest_stall(writer).await;
    println!("longest stall of writes when a drive failed, then a node died: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    rack.guest_mut(0).mend(&spoilt).await.unwrap();
    rack.guest_mut(1).power_on().await.unwrap();
    start(&cluster, rack.guest(1)).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}

/// The drive of a mirror's leg takes no writes any more when its volume is unmounted, and the operator is away: what the unmount flushes is on the
/// other leg alone. The volume is not given back before that is recorded; then it is, and what was written last is read on another machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn what_a_leg_missed_at_the_unmount_is_recorded_before_it_is_given_back() {
    let (mut rack, mut cluster) = rack("unmount-errors", &[1, 1, 0], "mirror").await;
    wish(&cluster, &[rack.guest(2)], false).await;
    mount(&cluster, rack.guest(2), true).await;
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    let leg = leg_on(&volume, rack.guest(0)).unwrap().clone();
    let drives: Api<Drive> = Api::all(cluster.client().clone());
    let spoilt = serial(&drive(&drives, &leg.drive).await);
    let write =
        "dd if=/dev/urandom of=/mnt/v/last bs=64k count=64 2>/dev/null && sha256sum /mnt/v/last";
    cluster.kill_operator();
    let sums = rack.guest(2).sh(write).await.unwrap();
    rack.guest_mut(0)
        .spoil(&spoilt, Fault::Unwritable)
        .await
        .unwrap();
    rack.guest(2).sh("umount /mnt/v").await.unwrap();

    let refused = try_give_back(rack.guest(2)).await.unwrap_err();
    assert!(refused.contains("not recorded as lost yet"), "{refused}");
    cluster.restart_operator().unwrap();
    wait::until("the volume is given back", SOON, || {
        try_give_back(rack.guest(2))
    })
    .await
    .unwrap();
    wish(&cluster, &[], false).await;
    let lacks = |volume: &PoolVolume| {
        let lack = leg_on(volume, rack.guest(0)).and_then(|leg| leg.lack.as_ref());
        lack.is_some_and(|lack| lack.reason == "WritesFailed")
    };
    until(&cluster, "the leg is recorded out", lacks).await;
    rack.guest_mut(0).mend(&spoilt).await.unwrap();

    wish(&cluster, &[rack.guest(1)], false).await;
    mount(&cluster, rack.guest(1), false).await;
    intact(rack.guest(1), &sums).await;
    unmount(rack.guest(1)).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
