//! Agents of two versions at once.

use strand_rack_bed::{Cluster, Guest};

use super::bed::{ALL, REDUNDANT, WRITER, end, go_on, rack, stalls, whole};
use crate::redundant::bed::{STALL, kill_agent, restart_agent, start_previous};

/// Under writes to volumes of every redundancy, the agents of all machines are replaced by those of an earlier version, one by one, as a rollback
/// does. With both versions in the rack a machine loses power, and is back with an agent of the earlier one: its legs are copied what they missed. Then all
/// agents are replaced by those of this version, as an upgrade does. No write fails or stalls, and in the end every leg counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn io_goes_on_while_agents_of_two_versions_serve_it() {
    let (mut rack, cluster) = rack("every-versions", &ALL).await;
    for machine in [0, 1, WRITER] {
        back(&cluster, rack.guest(machine)).await;
        go_on(rack.guest(WRITER), &ALL).await;
    }
    rack.guest_mut(0).cut_power();
    go_on(rack.guest(WRITER), &REDUNDANT).await;
    rack.guest_mut(0).power_on().await.unwrap();
    start_previous(&cluster, rack.guest(0)).await;
    whole(&cluster, rack.guest(WRITER), &ALL).await;
    for machine in [2, 3] {
        back(&cluster, rack.guest(machine)).await;
        go_on(rack.guest(WRITER), &ALL).await;
    }
    let stall = stalls(rack.guest(WRITER), &REDUNDANT).await;
    println!(
        "longest stall of mirror and raid6 in a rollback in which a machine died: {stall:.1} s"
    );
    assert!(stall <= STALL, "{stall} s");

    stalls(rack.guest(WRITER), &ALL).await;
    for guest in rack.guests() {
        restart_agent(&cluster, guest).await;
        go_on(rack.guest(WRITER), &ALL).await;
    }
    whole(&cluster, rack.guest(WRITER), &ALL).await;
    let stall = stalls(rack.guest(WRITER), &ALL).await;
    println!("longest stall in an upgrade: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    end(&rack, &cluster, &ALL).await;
}

/// Replaces a machine's agent by one of the earlier version.
async fn back(cluster: &Cluster, guest: &Guest) {
    kill_agent(guest).await;
    start_previous(cluster, guest).await;
}
