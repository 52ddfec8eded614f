//! What the machine that holds a volume has acknowledged, and nobody has flushed yet.

use serde_json::json;

use super::bed::{HOLDER, SOON, device, give_back, granted, nothing_left, rack, wish};

/// The machine that holds a volume loses power when it has acknowledged writes of another machine: to space that was never written before, and
/// to space that was. That machine's kernel goes on with the connection once it is back, and a flush succeeds: it stands for everything that was
/// acknowledged before, so that all of that has to be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn what_was_acknowledged_outlives_the_power_of_its_machine() {
    let (mut rack, cluster) = rack("unflushed", 2, json!({})).await;
    wish(&cluster, &[rack.guest(1)], false).await;
    let generation = granted(&cluster, rack.guest(1)).await;
    let at = device(rack.guest(1), generation, false).await;
    let write = format!(
        "set -e; cd /run; head -c 16777216 /dev/urandom >written
         dd if=/dev/urandom of={at} bs=64k count=128 oflag=direct conv=fsync 2>/dev/null
         dd if=written of={at} bs=64k oflag=direct 2>/dev/null"
    );
    rack.guest(1).sh(&write).await.unwrap();

    rack.guest_mut(HOLDER).cut_power();
    rack.guest_mut(HOLDER).power_on().await.unwrap();
    cluster
        .start_agent_with_volumes(rack.guest(HOLDER))
        .await
        .unwrap();
    let flush = format!(
        "dd if=/dev/urandom of={at} bs=64k count=1 seek=1024 oflag=direct conv=fsync 2>/dev/null && echo >/run/flushed"
    );
    rack.guest(1)
        .start(&format!("sh -c '{flush}'"))
        .await
        .unwrap();
    let flushed = rack.guest(1).until("a flush", SOON, "[ -e /run/flushed ]");
    flushed.await.unwrap();
    let differing = format!(
        "cd /run; dd if={at} bs=64k count=256 iflag=direct 2>/dev/null >read; cmp -l read written | wc -l"
    );
    let differing = rack.guest(1).sh(&differing).await.unwrap();
    assert_eq!(differing.trim(), "0", "bytes that are not what was written");
    give_back(rack.guest(1)).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
