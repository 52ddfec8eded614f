//! The fabric over RDMA: soft-RoCE, which shows that it works and not how fast.

use strand_fabric::Transport;
use strand_rack_bed::{DrivePlan, Rack};

use super::legs::{
    SOON, connect_over, connections, device, disconnect, export_over, leg, prepare, secret,
};

/// A leg is exported over RDMA to a host with its key, written to over that and nothing else, and read back on the machine that holds it, byte for
/// byte. A link that is cut is waited for; nothing is left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_leg_is_reached_over_rdma() {
    let plan = DrivePlan {
        bytes: 1 << 30,
        ..DrivePlan::new("G1D0")
    };
    let rack = Rack::boot("rdma", &[vec![plan], Vec::new()]).await.unwrap();
    let (holder, consumer) = (rack.guest(0), rack.guest(1));
    for guest in rack.guests() {
        prepare(guest).await;
        guest
            .sh("modprobe rdma_rxe && /usr/bin/rdma link add rxe0 type rxe netdev eth1 && modprobe nvmet-rdma && modprobe nvme-rdma")
            .await
            .unwrap();
    }
    let leg = leg(holder, 1, &secret(holder).await);
    export_over(holder, Transport::Rdma, std::slice::from_ref(&leg)).await;
    let said = connect_over(consumer, Transport::Rdma, holder, &leg).await;
    assert_eq!(said.status, 0, "{said}");
    let there = device(consumer, leg.nqn()).await;
    let over = consumer
        .sh("cat /sys/class/nvme/*/transport")
        .await
        .unwrap();
    assert_eq!(over.trim(), "rdma");

    let write = format!(
        "dd if=/dev/urandom of=/run/bytes bs=1M count=16 2>/dev/null && dd if=/run/bytes of={there} bs=1M oflag=direct conv=fsync 2>/dev/null && \
         sha256sum </run/bytes"
    );
    let written = consumer.sh(&write).await.unwrap();
    let read = "dd if=/dev/nvme0n1 bs=1M count=16 iflag=direct 2>/dev/null | sha256sum";
    assert_eq!(holder.sh(read).await.unwrap(), written);

    rack.network().partition(&[0], &[1]);
    let cut = "! grep -q live /sys/class/nvme/*/state";
    consumer
        .until("the link is seen to be cut", 2 * SOON, cut)
        .await
        .unwrap();
    rack.network().heal();
    let there = device(consumer, leg.nqn()).await;
    let read = format!("dd if={there} bs=1M count=16 iflag=direct 2>/dev/null | sha256sum");
    assert_eq!(consumer.sh(&read).await.unwrap(), written);

    disconnect(consumer, leg.nqn()).await;
    assert_eq!(connections(consumer).await, []);
    export_over(holder, Transport::Rdma, &[]).await;
    let left = "ls /sys/kernel/config/nvmet/subsystems /sys/kernel/config/nvmet/hosts /sys/kernel/config/nvmet/ports | grep -v :$ | grep . ; true";
    assert_eq!(holder.sh(left).await.unwrap().trim(), "");
}
