//! A rack that falls in two.

use strand_api::LackPhase;
use strand_rack_bed::guest::Cable;

use super::bed::{
    SOON, acknowledged, intact, is_whole, lacks, mount, nothing_left, phase, rack, start_writing,
    stop_writing, unmount, until, wish,
};
use crate::remote::bed::granted;

/// A mirror's consumer is cut off together with the machine of one leg, from the other leg and from the API: nothing that it writes is acknowledged
/// any more, though one leg would take it. The volume is given to another machine, which goes on with the other leg, and has every
/// acknowledged byte. When the first side hears of the API again, its leg keeps the first consumer out as well. When the network is whole, what
/// that still had to write fails, and what the second wrote is on both legs.
///
/// In the other order, the network first, the kernel of the first consumer would be turned away by the leg that it was cut off from and go on with the
/// one that was with it, until that one's agent has heard: `docs/decisions/0019` has that among what it does not close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_consumer_cut_off_with_one_leg_writes_nothing_once_it_is_anothers() {
    let (mut rack, cluster) = rack("mirror-split", &[1, 1, 0, 0], "mirror").await;
    let (leg, other, old, new) = (0, 1, 2, 3);
    wish(&cluster, &[rack.guest(old)], false).await;
    mount(&cluster, rack.guest(old), true).await;
    let generation = granted(&cluster, rack.guest(old)).await;
    start_writing(rack.guest(old)).await;
    // Two that want it at once do not both get it.
    wish(&cluster, &[rack.guest(old), rack.guest(new)], false).await;
    until(&cluster, "the second waits", |volume| {
        let conditions = volume.status.as_ref().map(|s| &s.conditions);
        let mut told = conditions.into_iter().flatten();
        told.any(|c| c.type_ == "Attached" && c.reason == "InUse")
    })
    .await;

    rack.network().partition(&[leg, old], &[other, new]);
    for guest in [leg, old] {
        rack.guest_mut(guest)
            .cable(Cable::Host, false)
            .await
            .unwrap();
        cluster.node_ready(rack.guest(guest), false).await.unwrap();
    }
    wish(&cluster, &[rack.guest(new)], false).await;
    until(&cluster, "the leg that cannot fence is recorded out", |v| {
        lacks(v, rack.guest(leg), LackPhase::Out)
    })
    .await;
    mount(&cluster, rack.guest(new), false).await;
    let sums = acknowledged(rack.guest(old)).await;
    intact(rack.guest(new), &sums).await;
    rack.guest(new)
        .sh("rm -rf /mnt/v/* && echo mine >/mnt/v/only && sync")
        .await
        .unwrap();

    for guest in [leg, old] {
        rack.guest_mut(guest)
            .cable(Cable::Host, true)
            .await
            .unwrap();
        cluster.node_ready(rack.guest(guest), true).await.unwrap();
    }
    let fenced = format!("! ls /sys/kernel/config/nvmet/subsystems | grep -q ':{generation}$'");
    rack.guest(leg)
        .until("the leg keeps the old consumer out", SOON, &fenced)
        .await
        .unwrap();
    rack.network().heal();
    let (old, new) = (rack.guest(old), rack.guest(new));
    old.until(
        "the old consumer's writes fail",
        SOON,
        "grep -q failed /run/v.stopped",
    )
    .await
    .unwrap();
    assert_eq!(acknowledged(old).await, sums, "none was acknowledged since");
    until(&cluster, "the volume is whole again", is_whole).await;
    unmount(new).await;
    wish(&cluster, &[], false).await;
    // The leg that was out alone: it has what the second consumer wrote.
    old.sh("umount /mnt/v").await.unwrap();
    rack.guest_mut(other).cut_power();
    cluster.node_ready(rack.guest(other), false).await.unwrap();
    let new = rack.guest(3);
    wish(&cluster, &[new], false).await;
    until(&cluster, "it is attached without the other leg", |volume| {
        phase(volume) == Some(strand_api::VolumePhase::Degraded)
            && volume
                .status
                .iter()
                .flat_map(|s| &s.attachments)
                .any(|a| a.phase.is_granted())
    })
    .await;
    mount(&cluster, new, false).await;
    new.sh("[ \"$(ls /mnt/v)\" = only ] && [ $(cat /mnt/v/only) = mine ]")
        .await
        .unwrap();
    start_writing(new).await;
    stop_writing(new).await;
    intact(new, &acknowledged(new).await).await;
    unmount(new).await;
    wish(&cluster, &[], false).await;
    rack.guest_mut(other).power_on().await.unwrap();
    cluster.node_ready(rack.guest(other), true).await.unwrap();
    super::bed::start(&cluster, rack.guest(other)).await;
    nothing_left(&rack, &cluster).await;
}
