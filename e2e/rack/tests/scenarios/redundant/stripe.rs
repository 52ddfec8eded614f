//! A stripe, which can lose nothing.

use strand_api::{PoolVolume, condition};

use super::bed::{
    acknowledged, intact, is_whole, more_written, mount, nothing_left, rack, start, start_writing,
    stop_writing, unmount, until, wish,
};

/// The node of a leg dies under a writer: the volume stops, and says which leg it lacks; no leg is given up. The node is back: what was waiting is
/// written, nothing failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_stops_with_a_node_and_goes_on_when_that_is_back() {
    let (mut rack, cluster) = rack("stripe-node", &[1, 1, 0], "stripe").await;
    wish(&cluster, &[rack.guest(2)], false).await;
    mount(&cluster, rack.guest(2), true).await;
    start_writing(rack.guest(2)).await;

    rack.guest_mut(1).cut_power();
    let dead = rack.guest(1).name().to_owned();
    let told = |volume: &PoolVolume| {
        let conditions = volume.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let healthy = condition::find(conditions, "Healthy");
        let leg = volume.spec.legs.iter().find(|leg| leg.node_name == dead);
        healthy.is_some_and(|c| {
            c.status == "False"
                && c.reason == "Unreachable"
                && leg.is_some_and(|leg| c.message.contains(&leg.name))
        })
    };
    let volume = until(&cluster, "it says which leg it lacks", told).await;
    assert!(volume.spec.legs.iter().all(|leg| leg.lack.is_none()));
    rack.guest_mut(1).power_on().await.unwrap();
    start(&cluster, rack.guest(1)).await;
    more_written(rack.guest(2), 10).await;
    until(
        &cluster,
        "the volume is Ready again, and lacks none",
        |volume| is_whole(volume) && !told(volume),
    )
    .await;
    let writer = rack.guest(2);
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
