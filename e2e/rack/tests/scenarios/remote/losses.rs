//! Machines and networks that are lost while a volume on another machine is written to.

use std::time::Duration;

use super::bed::{
    HOLDER, SOON, acknowledged, intact, more_written, mount, nothing_left, rack, start_writing,
    stop_writing, unmount, wish,
};

/// In which a volume has to be writable on another machine once it was taken from one that died, by the clock of the machines.
const MOVED: f64 = 30.0;

/// The machine that holds a volume reboots while another one writes to it: the writes wait and go on, none fails. Then the writing
/// machine dies: the volume is taken from it and goes to a third one, within 30 s, with every byte that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn writes_wait_for_a_reboot_and_outlive_their_machine() {
    let (mut rack, cluster) = rack("losses", 3, serde_json::json!({})).await;
    wish(&cluster, &[rack.guest(1)], false).await;
    mount(&cluster, rack.guest(1), true).await;
    start_writing(rack.guest(1)).await;

    rack.guest_mut(HOLDER).cut_power();
    tokio::time::sleep(Duration::from_secs(5)).await;
    rack.guest_mut(HOLDER).power_on().await.unwrap();
    cluster
        .start_agent_with_volumes(rack.guest(HOLDER))
        .await
        .unwrap();
    more_written(rack.guest(1), 10).await;

    let sums = acknowledged(rack.guest(1)).await;
    rack.guest_mut(1).cut_power();
    let uptime = async || -> f64 {
        let said = rack.guest(2).sh("cut -d ' ' -f 1 /proc/uptime").await;
        said.unwrap().trim().parse().unwrap()
    };
    let begun = uptime().await;
    wish(&cluster, &[rack.guest(2)], false).await;
    mount(&cluster, rack.guest(2), false).await;
    rack.guest(2)
        .sh("echo >/mnt/v/again && sync")
        .await
        .unwrap();
    let took = uptime().await - begun;
    println!("moved after the death of a machine: {took:.1} s");
    assert!(took <= MOVED, "{took} s");
    intact(rack.guest(2), &sums).await;
    unmount(rack.guest(2)).await;

    rack.guest_mut(1).power_on().await.unwrap();
    cluster
        .start_agent_with_volumes(rack.guest(1))
        .await
        .unwrap();
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}

/// A machine that writes is cut off from the one that holds the volume, not from the API. The volume is given to another machine. When
/// the network is whole again, what the first one still had to write does not arrive: what the second wrote stays, and in the end
/// nothing of the first one's attachment is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn who_was_cut_off_writes_nothing_once_it_is_anothers() {
    let (rack, cluster) = rack("cut-off", 3, serde_json::json!({})).await;
    let (old, new) = (rack.guest(1), rack.guest(2));
    wish(&cluster, &[old], false).await;
    mount(&cluster, old, true).await;
    start_writing(old).await;

    rack.network().partition(&[1], &[HOLDER]);
    wish(&cluster, &[new], false).await;
    mount(&cluster, new, false).await;
    // Nothing is acknowledged any more: it is cut off.
    let sums = acknowledged(old).await;
    intact(new, &sums).await;
    new.sh("rm -rf /mnt/v/* && echo mine >/mnt/v/only && sync")
        .await
        .unwrap();

    rack.network().heal();
    let ended = "grep -q failed /run/v.stopped";
    old.until("the old writer's writes fail", SOON, ended)
        .await
        .unwrap();
    assert_eq!(acknowledged(old).await, sums, "none was acknowledged since");
    new.sh("echo 3 >/proc/sys/vm/drop_caches; [ \"$(ls /mnt/v)\" = only ] && [ $(cat /mnt/v/only) = mine ]")
        .await
        .unwrap();
    // Unmounted, checked from scratch, and mounted again: its file system was never written by two.
    unmount(new).await;
    mount(&cluster, new, false).await;
    new.sh("[ $(cat /mnt/v/only) = mine ]").await.unwrap();
    start_writing(new).await;
    stop_writing(new).await;
    unmount(new).await;
    old.sh("umount /mnt/v").await.unwrap();
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
