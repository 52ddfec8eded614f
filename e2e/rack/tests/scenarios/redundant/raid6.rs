//! raid6 over four machines, had by a fifth one.

use strand_api::LackPhase;

use super::bed::{
    STALL, acknowledged, intact, is_whole, lacks, longest_stall, more_written, mount, nothing_left,
    rack, start, start_writing, stop_writing, unmount, until, wish,
};

/// A node of a leg dies under a writer, and a second one: writes go on each time within 10 s. Both come back, and the volume is whole. Every
/// acknowledged byte reads back while two legs are away, and afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_outlives_two_nodes() {
    let (mut rack, cluster) = rack("raid6-nodes", &[1, 1, 1, 1, 0], "raid6").await;
    wish(&cluster, &[rack.guest(4)], false).await;
    mount(&cluster, rack.guest(4), true).await;
    start_writing(rack.guest(4)).await;
    for lost in [0, 2] {
        rack.guest_mut(lost).cut_power();
        let dead = rack.guest(lost);
        until(&cluster, "the leg is recorded out", |volume| {
            lacks(volume, dead, LackPhase::Out)
        })
        .await;
        more_written(rack.guest(4), 5).await;
    }
    let writer = rack.guest(4);
    let stall = longest_stall(writer).await;
    println!("longest stall of writes to a raid6 when nodes died: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    intact(writer, &acknowledged(writer).await).await;
    for lost in [0, 2] {
        rack.guest_mut(lost).power_on().await.unwrap();
        start(&cluster, rack.guest(lost)).await;
    }
    until(&cluster, "the volume is whole again", is_whole).await;
    let writer = rack.guest(4);
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
