//! What a leg has acknowledged, and nobody has flushed yet.

use strand_api::{LackPhase, PoolVolume};

use super::bed::{
    SOON, attached, differing, is_whole, lacks, nothing_left, rack, start, until, wish,
};
use crate::remote::bed::give_back;

/// A leg's machine loses power when it has acknowledged writes, and comes back when md has long forgotten where they were: what it copies to
/// that leg does not have them. All the same both legs are equal, since what the leg has acknowledged it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_leg_that_returns_has_what_it_acknowledged() {
    let (mut rack, cluster) = rack("mirror-unflushed", &[1, 1, 0], "mirror").await;
    wish(&cluster, &[rack.guest(2)], false).await;
    let at = attached(&cluster, rack.guest(2)).await;
    let write = format!("dd if=/dev/urandom of={at} bs=64k count=256 oflag=direct 2>/dev/null");
    rack.guest(2).sh(&write).await.unwrap();
    rack.guest_mut(0).cut_power();

    let (consumer, dead) = (rack.guest(2), rack.guest(0));
    let out = |volume: &PoolVolume| lacks(volume, dead, LackPhase::Out);
    until(&cluster, "the leg is recorded out", out).await;
    let forgotten = consumer.until(
        "no block is marked as written to",
        SOON,
        "grep -q 'bitmap: 0/' /proc/mdstat",
    );
    forgotten.await.unwrap();
    rack.guest_mut(0).power_on().await.unwrap();
    start(&cluster, rack.guest(0)).await;
    until(&cluster, "the volume is whole again", is_whole).await;

    let consumer = rack.guest(2);
    assert_eq!(differing(consumer, &at).await, 0, "sectors that differ");
    give_back(consumer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
