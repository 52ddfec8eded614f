//! Links that are cut.

use strand_rack_bed::guest::Cable;
use strand_rack_bed::{Cluster, Guest};

use super::bed::{ALL, REDUNDANT, WRITER, end, go_on, rack, stalls, volume, whole};
use crate::redundant::bed::{STALL, until_of};

/// Under writes to volumes of every redundancy, from a machine that holds none of their bytes: the link between it and one machine is cut; then
/// one machine loses both its networks, also the one to the API server. Writes to mirror and raid6 go on within 10 s, those to none
/// and stripe wait and go on when the network is whole: no write fails, and in the end every leg has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn io_goes_on_without_a_link_or_waits_for_it() {
    let (mut rack, cluster) = rack("every-network", &ALL).await;
    let none = volume(&cluster, "none").await.spec.legs[0]
        .node_name
        .clone();
    let lost = rack.guests().iter().position(|g| g.name() == none).unwrap();

    rack.network().partition(&[WRITER], &[lost]);
    let writer = rack.guest(WRITER);
    go_on_without(&cluster, writer, &none).await;
    rack.network().heal();
    whole(&cluster, writer, &ALL).await;

    for cable in [Cable::Rack, Cable::Host] {
        rack.guest_mut(lost).cable(cable, false).await.unwrap();
    }
    cluster.node_ready(rack.guest(lost), false).await.unwrap();
    go_on_without(&cluster, rack.guest(WRITER), &none).await;
    for cable in [Cable::Host, Cable::Rack] {
        rack.guest_mut(lost).cable(cable, true).await.unwrap();
    }
    cluster.node_ready(rack.guest(lost), true).await.unwrap();
    whole(&cluster, rack.guest(WRITER), &ALL).await;
    end(&rack, &cluster, &ALL).await;
}

/// Volumes that outlive a loss are written to without what lies on a node: it is recorded out.
async fn go_on_without(cluster: &Cluster, writer: &Guest, node: &str) {
    stalls(writer, &REDUNDANT).await;
    for name in REDUNDANT {
        until_of(cluster, name, "what lies there is recorded out", |volume| {
            let mut legs = volume.spec.legs.iter();
            legs.all(|leg| leg.node_name != node || leg.lack.is_some())
        })
        .await;
    }
    go_on(writer, &REDUNDANT).await;
    go_on(writer, &REDUNDANT).await;
    let stall = stalls(writer, &REDUNDANT).await;
    println!("longest stall of mirror and raid6 without a link: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
}
