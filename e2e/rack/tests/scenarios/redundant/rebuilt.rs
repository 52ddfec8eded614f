//! A leg whose drive is gone for good.

use kube::Api;
use strand_api::{Drive, LackPhase, PoolVolume};

use super::bed::{
    STALL, acknowledged, intact, is_whole, longest_stall, more_written, mount, nothing_left, rack,
    restart_agent, start_writing, stop_writing, unmount, until, wish,
};

/// A leg's drive is pulled out under a writer. Writes go on; after a minute another leg is placed on another drive and copied to, with the
/// writer's agent and the operator killed meanwhile. Then the node of the first leg dies: the new one alone holds every byte that was
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_leg_is_rebuilt_on_another_drive_whoever_is_killed_meanwhile() {
    let (mut rack, mut cluster) = rack("mirror-rebuilt", &[2, 1, 0], "mirror").await;
    wish(&cluster, &[rack.guest(2)], false).await;
    mount(&cluster, rack.guest(2), true).await;
    start_writing(rack.guest(2)).await;

    let on_first = |volume: &PoolVolume, node: &str| {
        let leg = volume.spec.legs.iter().find(|leg| leg.node_name == node);
        leg.cloned().unwrap()
    };
    let node = rack.guest(0).name().to_owned();
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    let before = on_first(&volume, &node);
    let drives: Api<Drive> = Api::all(cluster.client().clone());
    let drive = drives.get(&before.drive).await.unwrap();
    let serial = drive.status.unwrap().identity.unwrap().serial;
    rack.guest_mut(0).pull(&serial).await.unwrap();
    until(&cluster, "the leg is recorded out", |volume| {
        on_first(volume, &node).lack.is_some()
    })
    .await;
    more_written(rack.guest(2), 5).await;

    until(&cluster, "another leg is copied to", |volume| {
        let leg = on_first(volume, &node);
        leg.name != before.name
            && leg
                .lack
                .is_some_and(|lack| lack.phase == LackPhase::Rebuilding)
    })
    .await;
    restart_agent(&cluster, rack.guest(2)).await;
    cluster.restart_operator().unwrap();
    until(&cluster, "the volume is whole again", |volume| {
        is_whole(volume) && on_first(volume, &node).drive != before.drive
    })
    .await;
    more_written(rack.guest(2), 5).await;

    rack.guest_mut(1).cut_power();
    let dead = rack.guest(1).name().to_owned();
    until(&cluster, "the other leg is recorded out", |volume| {
        volume
            .spec
            .legs
            .iter()
            .any(|leg| leg.node_name == dead && leg.lack.is_some())
    })
    .await;
    let writer = rack.guest(2);
    more_written(writer, 5).await;
    let stall = longest_stall(writer).await;
    println!("longest stall of writes when a drive was pulled, then a node died: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    rack.guest_mut(1).power_on().await.unwrap();
    super::bed::start(&cluster, rack.guest(1)).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
