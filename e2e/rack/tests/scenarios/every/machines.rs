//! Machines that reboot, and the whole rack's power.

use strand_rack_bed::{Cluster, Guest};

use super::bed::{ALL, REDUNDANT, WRITER, end, go_on, have, rack, stalls, sums, whole, write};
use crate::redundant::bed::{STALL, start};
use crate::remote::bed::intact;

/// Under writes to volumes of every redundancy, each machine that holds their bytes reboots, one after the other: mirror and raid6 go on meanwhile,
/// none and stripe wait, no write fails. Then the machine that writes reboots, and has its volumes again with every acknowledged byte. Then all
/// machines lose power at once under writes: they come back by themselves, with every acknowledged byte, and every leg counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn every_machine_reboots_and_then_the_power_is_cut() {
    let (mut rack, cluster) = rack("every-machines", &ALL).await;
    for machine in 0..WRITER {
        stalls(rack.guest(WRITER), &REDUNDANT).await;
        rack.guest_mut(machine).reboot().await.unwrap();
        go_on(rack.guest(WRITER), &REDUNDANT).await;
        start(&cluster, rack.guest(machine)).await;
        whole(&cluster, rack.guest(WRITER), &ALL).await;
        let stall = stalls(rack.guest(WRITER), &REDUNDANT).await;
        println!("longest stall of mirror and raid6 while a machine rebooted: {stall:.1} s");
        assert!(stall <= STALL, "{stall} s");
    }

    let before = sums(rack.guest(WRITER), &ALL).await;
    rack.guest_mut(WRITER).reboot().await.unwrap();
    back(&cluster, rack.guest(WRITER), &before).await;

    let before = sums(rack.guest(WRITER), &ALL).await;
    for machine in 0..=WRITER {
        rack.guest_mut(machine).cut_power();
    }
    for machine in 0..=WRITER {
        rack.guest_mut(machine).power_on().await.unwrap();
    }
    for machine in 0..WRITER {
        start(&cluster, rack.guest(machine)).await;
    }
    back(&cluster, rack.guest(WRITER), &before).await;
    whole(&cluster, rack.guest(WRITER), &ALL).await;
    end(&rack, &cluster, &ALL).await;
}

/// The machine that writes has all volumes again, with what was acknowledged before, and writes on.
async fn back(cluster: &Cluster, guest: &Guest, before: &str) {
    start(cluster, guest).await;
    have(cluster, guest, &ALL, false).await;
    intact(guest, before).await;
    write(guest, &ALL).await;
}
