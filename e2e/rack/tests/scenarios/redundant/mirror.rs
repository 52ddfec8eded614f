//! Mirrors.

use strand_api::{LackPhase, VolumePhase};

use super::bed::{
    STALL, acknowledged, intact, is_whole, lacks, longest_stall, more_written, mount, nothing_left,
    phase, rack, start, start_writing, stop_writing, unmount, until, wish,
};

/// The node of a leg loses power under a writer on a third one: writes wait until the leg is recorded out, 10 s at most, and go on. Back, it is
/// copied what it has missed, and the volume is whole. Then the other leg's node dies: what the first one holds is every byte that was ever
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_outlives_the_node_of_one_leg_and_then_of_the_other() {
    let (mut rack, cluster) = rack("mirror-node", &[1, 1, 0], "mirror").await;
    wish(&cluster, &[rack.guest(2)], false).await;
    let device = mount(&cluster, rack.guest(2), true).await;
    assert!(device.starts_with("/dev/md"), "{device}");
    start_writing(rack.guest(2)).await;

    for lost in [0, 1] {
        rack.guest_mut(lost).cut_power();
        let (writer, dead) = (rack.guest(2), rack.guest(lost));
        until(&cluster, "the leg is recorded out", |volume| {
            lacks(volume, dead, LackPhase::Out) && phase(volume) == Some(VolumePhase::Degraded)
        })
        .await;
        more_written(writer, 5).await;
        intact(writer, &acknowledged(writer).await).await;
        rack.guest_mut(lost).power_on().await.unwrap();
        start(&cluster, rack.guest(lost)).await;
        until(&cluster, "the volume is whole again", is_whole).await;
        more_written(rack.guest(2), 5).await;
    }
    let writer = rack.guest(2);
    let stall = longest_stall(writer).await;
    println!("longest stall of writes to a mirror when a node died: {stall:.1} s");
    stop_writing(writer).await;
    assert!(stall <= STALL, "{stall} s");
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
