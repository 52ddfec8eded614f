//! raid6 over four machines, had by a fifth one.

use k8s_openapi::jiff::Timestamp;
use strand_api::{LackPhase, PoolVolume, condition, names};
use strand_placement::volumes::loss::{self, passed};

use super::bed::{
    STALL, acknowledged, attached, differing, intact, is_whole, lacks, longest_stall, more_written,
    mount, nothing_left, rack, start, start_writing, stop_writing, unmount, until, wish,
};
use crate::remote::bed::give_back;

/// A node of a leg dies under a writer, and a second one: writes go on each time within 10 s. Both come back, and the volume is whole. Every
/// acknowledged byte reads back while two legs are away, and afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_outlives_two_nodes() {
    let (mut rack, cluster) = rack("raid6-nodes", &[1, 1, 1, 1, 0], "raid6").await;
    wish(&cluster, &[rack.guest(4)], false).await;
    mount(&cluster, rack.guest(4), true).await;
    start_writing(rack.guest(4)).await;
    for lost in [0, 2] {
        rack.guest_mut(lost).cut_power();
        let dead = rack.guest(lost);
        until(&cluster, "the leg is recorded out", |volume| {
            lacks(volume, dead, LackPhase::Out)
        })
        .await;
        more_written(rack.guest(4), 5).await;
    }
    let writer = rack.guest(4);
    let stall = longest_stall(writer).await;
    println!("longest stall of writes to a raid6 when nodes died: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    intact(writer, &acknowledged(writer).await).await;
    for lost in [0, 2] {
        rack.guest_mut(lost).power_on().await.unwrap();
        start(&cluster, rack.guest(lost)).await;
    }
    until(&cluster, "the volume is whole again", is_whole).await;
    let writer = rack.guest(4);
    stop_writing(writer).await;
    intact(writer, &acknowledged(writer).await).await;
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}

/// Its consumer dies while it writes all over it; on another machine its legs are made equal, which takes a while. In the midst of that the link to one
/// of them is cut: what the others would compute in its place may be wrong, so that it is waited for, and the volume says so. When the link is
/// whole, all legs are made equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_spares_no_leg_until_all_are_equal_after_a_crash() {
    let (mut rack, cluster) = rack("raid6-resync", &[1, 1, 1, 1, 0, 0], "raid6").await;
    wish(&cluster, &[rack.guest(4)], false).await;
    let at = attached(&cluster, rack.guest(4)).await;
    let write = format!(
        "sh -c 'while dd if=/dev/zero of={at} bs=1M count=384 oflag=direct; do echo >/run/over; done'"
    );
    rack.guest(4).start(&write).await.unwrap();
    let over = rack.guest(4).until(
        "it is written all over",
        2 * super::bed::SOON,
        "[ -e /run/over ]",
    );
    over.await.unwrap();
    rack.guest_mut(4).cut_power();

    let next = rack.guest(5);
    wish(&cluster, &[next], false).await;
    let resyncing = |volume: &PoolVolume| {
        let told = volume.status.as_ref().and_then(|s| s.array.as_ref());
        told.is_some_and(|told| told.resyncing && told.node == next.name())
    };
    let (at, _) = tokio::join!(
        attached(&cluster, next),
        until(&cluster, "its legs are being made equal", resyncing)
    );
    rack.network().partition(&[5], &[0]);
    let waits_since = |volume: &PoolVolume| {
        let conditions = volume.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let healthy = condition::find(conditions, names::HEALTHY)?;
        let says = healthy.status == "False" && healthy.message.contains("after a crash");
        says.then_some(healthy.last_transition_time.0)
    };
    let longer = "it says that it waits for a leg, for longer than it would otherwise";
    let volume = until(&cluster, longer, |volume| {
        waits_since(volume).is_some_and(|since| passed(since, 2 * loss::STALL, Timestamp::now()))
    });
    assert!(is_whole(&volume.await));
    rack.network().heal();
    until(&cluster, "its legs are equal", |volume| {
        is_whole(volume) && !resyncing(volume) && waits_since(volume).is_none()
    })
    .await;
    assert_eq!(differing(next, &at).await, 0, "sectors that differ");
    give_back(next).await;
    wish(&cluster, &[], false).await;
    rack.guest_mut(4).power_on().await.unwrap();
    start(&cluster, rack.guest(4)).await;
    nothing_left(&rack, &cluster).await;
}
