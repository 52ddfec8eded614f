//! A volume over RDMA, where both machines have it: soft-RoCE here, which shows that it works and not how fast.

use strand_rack_bed::Guest;

use super::bed::{
    HOLDER, SOON, acknowledged, intact, more_written, mount, nothing_left, rack, restart_agent,
    start_writing, stop_writing, unmount, wish,
};

/// What the consumer's connections are made over.
async fn over(guest: &Guest) -> String {
    let said = guest.sh("cat /sys/class/nvme/nvme*/transport").await;
    said.unwrap().trim().to_owned()
}

async fn has_rdma(guest: &Guest) {
    guest
        .sh("modprobe rdma_rxe && /usr/bin/rdma link add rxe0 type rxe netdev eth1 && modprobe nvmet-rdma && modprobe nvme-rdma")
        .await
        .unwrap();
}

/// A volume is attached over RDMA to a machine that has it, and written to while both agents are killed and start again, and while the link
/// is cut and heals: no write fails. To a machine without RDMA it goes over TCP. Every acknowledged byte is there each time, and nothing
/// is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn who_has_rdma_reaches_a_volume_by_it() {
    let (rack, cluster) = rack("rdma-volume", 3, serde_json::json!({})).await;
    let (home, first, without) = (rack.guest(HOLDER), rack.guest(1), rack.guest(2));
    for guest in [home, first] {
        has_rdma(guest).await;
    }

    wish(&cluster, &[first], false).await;
    mount(&cluster, first, true).await;
    assert_eq!(over(first).await, "rdma");
    start_writing(first).await;
    for guest in [home, first] {
        restart_agent(&cluster, guest).await;
        more_written(first, 5).await;
    }
    rack.network().partition(&[HOLDER], &[1]);
    first
        .until(
            "the link is seen to be cut",
            SOON,
            "! grep -q live /sys/class/nvme/*/state",
        )
        .await
        .unwrap();
    rack.network().heal();
    more_written(first, 5).await;
    assert_eq!(over(first).await, "rdma");
    stop_writing(first).await;
    let sums = acknowledged(first).await;
    intact(first, &sums).await;
    unmount(first).await;

    wish(&cluster, &[without], false).await;
    mount(&cluster, without, false).await;
    assert_eq!(over(without).await, "tcp");
    intact(without, &sums).await;
    unmount(without).await;

    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
