//! A volume that goes from machine to machine.

use strand_rack_bed::wait;

use super::bed::{
    HOLDER, SOON, acknowledged, device, give_back, granted, intact, more_written, mount,
    nothing_left, rack, restart_agent, start_writing, stop_writing, unmount, wish,
};

/// A volume is attached to a machine without drives, which writes to it. The agents of both machines are killed meanwhile and start
/// again: the connection is the same, no write fails. Then the volume goes to a third machine and home to the one that holds it: every
/// acknowledged byte is there each time; at last, while it is attached nowhere, nothing of an attachment is left on any machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_volume_follows_its_pod_from_machine_to_machine() {
    let (rack, cluster) = rack("moves", 3, serde_json::json!({})).await;
    let (home, first, second) = (rack.guest(HOLDER), rack.guest(1), rack.guest(2));

    wish(&cluster, &[first], false).await;
    mount(&cluster, first, true).await;
    start_writing(first).await;
    let controllers = "ls /sys/class/nvme; dmesg | grep -c -i reconnect; true";
    let before = first.sh(controllers).await.unwrap();
    for guest in [home, first] {
        restart_agent(&cluster, guest).await;
        more_written(first, 5).await;
    }
    let after = first.sh(controllers).await.unwrap();
    assert_eq!(before, after, "the same controller, never lost");

    // It grows while it is written to.
    let patch = serde_json::json!({"spec": {"size": "640Mi"}});
    super::bed::volumes(&cluster)
        .patch(
            super::bed::VOLUME,
            &Default::default(),
            &kube::api::Patch::Merge(patch),
        )
        .await
        .unwrap();
    let device = first
        .sh("awk '$2 == \"/mnt/v\" {print $1}' /proc/mounts")
        .await
        .unwrap();
    let grown = format!(
        "[ $(cat /sys/block/{}/size) = $((640 * 2048)) ]",
        device.trim().trim_start_matches("/dev/")
    );
    first
        .until("its device has grown", SOON, &grown)
        .await
        .unwrap();
    stop_writing(first).await;
    let sums = acknowledged(first).await;
    intact(first, &sums).await;
    unmount(first).await;

    wish(&cluster, &[second], false).await;
    mount(&cluster, second, false).await;
    intact(second, &sums).await;
    unmount(second).await;

    wish(&cluster, &[home], false).await;
    let there = mount(&cluster, home, false).await;
    assert!(there.starts_with("/dev/loop"), "{there}");
    intact(home, &sums).await;
    unmount(home).await;

    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}

/// Three machines read one volume at once, the one that holds it among them, each with a device that takes no writes; and who wants to
/// write waits until all have given it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn many_machines_read_a_volume_that_nobody_writes() {
    let (rack, cluster) = rack("readers", 3, serde_json::json!({"insecureFabric": true})).await;
    let guests = [rack.guest(HOLDER), rack.guest(1), rack.guest(2)];
    wish(&cluster, &[guests[1]], false).await;
    mount(&cluster, guests[1], true).await;
    start_writing(guests[1]).await;
    stop_writing(guests[1]).await;
    let sums = acknowledged(guests[1]).await;
    unmount(guests[1]).await;

    wish(&cluster, &guests, true).await;
    for guest in guests {
        let device = device(guest, granted(&cluster, guest).await, true).await;
        let script = format!("mkdir -p /mnt/v && mount -t xfs -o ro,norecovery {device} /mnt/v");
        guest.sh(&script).await.unwrap();
    }
    for guest in guests {
        intact(guest, &sums).await;
        let write = "dd if=/dev/zero of=$(awk '$2 == \"/mnt/v\" {print $1}' /proc/mounts) bs=4k count=1 oflag=direct 2>/dev/null";
        assert_ne!(
            guest.run(write).await.unwrap().status,
            0,
            "{} could write",
            guest.name()
        );
    }
    // Not by asking its own kernel to let it, either: the machine that holds it refuses.
    let forced = "d=$(awk '$2 == \"/mnt/v\" {print $1}' /proc/mounts); umount /mnt/v; blockdev --setrw $d && \
                  dd if=/dev/zero of=$d bs=4k count=1 oflag=direct 2>/dev/null";
    assert_ne!(
        guests[2].run(forced).await.unwrap().status,
        0,
        "a reader could write"
    );
    intact(guests[1], &sums).await;

    for guest in guests {
        guest.run("umount /mnt/v").await.unwrap();
        give_back(guest).await;
    }
    wish(&cluster, &[guests[2]], false).await;
    wait::until("it can be written again", SOON, || async {
        Ok(mount(&cluster, guests[2], false).await)
    })
    .await
    .unwrap();
    intact(guests[2], &sums).await;
    unmount(guests[2]).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
