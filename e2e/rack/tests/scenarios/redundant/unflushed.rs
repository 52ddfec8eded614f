//! What a leg has acknowledged, and nobody has flushed yet.

use strand_api::{LackPhase, PoolVolume};
use strand_rack_bed::{Cluster, Guest};

use super::bed::{is_whole, lacks, nothing_left, rack, start, until, wish};
use crate::remote::bed::{SOON, device, give_back, granted};

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
    let array = format!("/sys/block/{}/md", at.trim_start_matches("/dev/"));
    let compare = format!("echo check >{array}/sync_action");
    consumer.sh(&compare).await.unwrap();
    let idle = format!("grep -q idle {array}/sync_action && cat {array}/mismatch_cnt");
    let differing = consumer.until("both legs are compared", SOON, &idle).await;
    assert_eq!(differing.unwrap().trim(), "0", "sectors that differ");
    give_back(consumer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}

/// The array, as a machine has it.
async fn attached(cluster: &Cluster, guest: &Guest) -> String {
    let at = device(guest, granted(cluster, guest).await, false).await;
    let name = guest.sh(&format!("readlink -f {at}")).await.unwrap();
    name.trim().to_owned()
}
