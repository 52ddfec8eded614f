//! A node whose machine is to go away while its volumes are used.

use strand_api::{DrivePhase, PoolVolume};

use super::bed::{
    SOON, acknowledged, intact, is_whole, leg_on, longest_stall, make, more_written, mount,
    nothing_left, rack, start, start_writing, stop_writing, unmount, until, until_of, wish,
};
use crate::remote::bed::ADOPTION;

/// In which writes go on when nothing is lost but what nobody needs any more, in seconds of the writer's machine.
const UNHURT: f64 = 5.0;

/// A node with legs of a raid6 that is written to, and maybe with a volume that nobody uses, is drained for good: `strandctl node drain --move --wait`
/// ends once its machine may go. It loses power, and no write fails or waits for it. It is back and taken back into use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_node_is_drained_under_writes_and_then_goes() {
    let (mut rack, cluster) = rack("node-drained", &[1, 1, 1, 1, 1, 0], "raid6").await;
    make(&cluster, "idle", "none").await;
    wish(&cluster, &[rack.guest(5)], false).await;
    mount(&cluster, rack.guest(5), true).await;
    start_writing(rack.guest(5)).await;
    let idle = until_of(&cluster, "idle", "it is there", |_| true).await;
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    // One that both volumes are on, where there is one.
    let both = volume
        .spec
        .legs
        .iter()
        .find(|leg| leg.node_name == idle.spec.legs[0].node_name);
    let node = both.unwrap_or(&volume.spec.legs[0]).node_name.clone();
    let machine = (0..5)
        .find(|machine| rack.guest(*machine).name() == node)
        .unwrap();

    let drain = ["node", "drain", &node, "--move", "--wait"];
    let said = cluster.strandctl(&drain, 3 * SOON).await.unwrap();
    println!("{said}");
    let away = |volume: &PoolVolume| leg_on(volume, rack.guest(machine)).is_none();
    until(&cluster, "the volume left the node, and is whole", |v| {
        away(v) && is_whole(v)
    })
    .await;
    until_of(&cluster, "idle", "it left the node", away).await;
    let moving = longest_stall(rack.guest(5)).await;
    rack.guest_mut(machine).cut_power();
    more_written(rack.guest(5), 20).await;
    let gone = longest_stall(rack.guest(5)).await;
    println!(
        "longest stall of writes while a node was drained, and then went: {moving:.1} s, {gone:.1} s"
    );
    assert!(gone <= UNHURT, "{gone} s");
    until(&cluster, "nothing is lacking", is_whole).await;

    rack.guest_mut(machine).power_on().await.unwrap();
    start(&cluster, rack.guest(machine)).await;
    let uncordon = ["node", "uncordon", &node];
    cluster.strandctl(&uncordon, SOON).await.unwrap();
    let ready = |drive: &strand_api::Drive| {
        !drive.spec.cordon && drive.status.as_ref().and_then(|s| s.phase) == Some(DrivePhase::Ready)
    };
    cluster
        .drives("all drives are in use", ADOPTION, |drives| {
            drives.iter().all(ready)
        })
        .await
        .unwrap();
    let writer = rack.guest(5);
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
