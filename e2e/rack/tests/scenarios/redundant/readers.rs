//! A volume of several legs that many read.

use strand_rack_bed::Guest;

use super::bed::{
    SOON, STALL, acknowledged, intact, is_whole, longest_stall, mount, nothing_left, rack,
    restart_agent, start, start_writing, stop_writing, unmount, until, wish,
};
use crate::remote::bed::{device, give_back, granted};

/// Connections to legs that are live, a number.
const LIVE: &str = "n=0; for c in /sys/class/nvme/*; do [ $(cat $c/transport)$(cat $c/state) = tcplive ] && n=$((n+1)); done; echo $n";

/// A mirror that was written is read by three machines at once, one of which holds a leg; none can write. The machine of the other leg
/// dies: all read on within 10 s. It comes back, and so does its leg, to each of them. Then the machine that holds the first leg dies: the others
/// read on from the one that was back. Then it is attached for writing: every byte is there, and nothing has to be copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn many_machines_read_on_while_legs_are_lost() {
    let (mut rack, cluster) = rack("mirror-readers", &[1, 1, 0, 0], "mirror").await;
    let writer = rack.guest(2);
    wish(&cluster, &[writer], false).await;
    mount(&cluster, writer, true).await;
    start_writing(writer).await;
    stop_writing(writer).await;
    let sums = acknowledged(writer).await;
    unmount(writer).await;

    // With the legs that each reaches over the network.
    let readers = [(0, 1), (2, 2), (3, 2)];
    let guests = readers.map(|(reader, _)| rack.guest(reader));
    wish(&cluster, &guests, true).await;
    for guest in guests {
        let device = device(guest, granted(&cluster, guest).await, true).await;
        let script = format!("mkdir -p /mnt/v && mount -t xfs -o ro,norecovery {device} /mnt/v");
        guest.sh(&script).await.unwrap();
        intact(guest, &sums).await;
        let write = format!("dd if=/dev/zero of={device} bs=4k count=1 oflag=direct 2>/dev/null");
        let written = guest.run(&write).await.unwrap();
        assert_ne!(written.status, 0, "{} could write", guest.name());
        start_reading(guest).await;
    }

    rack.guest_mut(1).cut_power();
    for (reader, legs) in readers {
        reads_without_a_leg(rack.guest(reader), legs).await;
    }
    // Whoever is killed finds its array again, and its volume goes on.
    restart_agent(&cluster, rack.guest(2)).await;
    rack.guest_mut(1).power_on().await.unwrap();
    start(&cluster, rack.guest(1)).await;
    for (reader, legs) in readers {
        // md calls a leg that was taken in a spare, and reads from it all the same.
        let whole = format!(
            "[ $({LIVE}) = {legs} ] && cd /sys/block/md1*/md && [ $(ls -d dev-*/block/. | wc -l) = 2 ] && ! grep -L none dev-*/recovery_start | grep ."
        );
        let guest = rack.guest(reader);
        guest
            .until("it has both legs again", 2 * SOON, &whole)
            .await
            .unwrap();
    }
    rack.guest_mut(0).cut_power();
    for reader in [2, 3] {
        reads_without_a_leg(rack.guest(reader), 2).await;
    }
    for reader in [2, 3] {
        let guest = rack.guest(reader);
        stop_reading(guest).await;
        let stall = longest_stall(guest).await;
        println!("longest stall of reads when a node of a mirror's leg died: {stall:.1} s");
        assert!(stall <= STALL, "{stall} s");
        intact(guest, &sums).await;
        guest.sh("umount /mnt/v").await.unwrap();
        give_back(guest).await;
    }
    rack.guest_mut(0).power_on().await.unwrap();
    start(&cluster, rack.guest(0)).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;

    // Nothing was lost or written by reading: it is whole without a byte being copied, and written to again.
    let writer = rack.guest(3);
    wish(&cluster, &[writer], false).await;
    mount(&cluster, writer, false).await;
    intact(writer, &sums).await;
    start_writing(writer).await;
    stop_writing(writer).await;
    let more = acknowledged(writer).await;
    intact(writer, &more).await;
    until(&cluster, "every leg holds everything", is_whole).await;
    let copied = writer.sh("dmesg | grep -c 'md: recovery of' || true").await;
    assert_eq!(copied.unwrap().trim(), "0", "a leg was copied to");
    unmount(writer).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}

/// Reads the newest file again and again past the page cache, and notes when it was what it should be.
async fn start_reading(guest: &Guest) {
    let script = "sh -c 'tail -n 1 /run/sums >/run/sum; while [ ! -e /run/v.stop-reading ]; do echo 3 >/proc/sys/vm/drop_caches; \
         sha256sum -c -s /run/sum || { echo failed >/run/v.read; exit; }; read up idle </proc/uptime; echo $up >>/run/v.times; done; \
         echo well >/run/v.read'";
    guest.sh("rm -f /run/v.times").await.unwrap();
    guest.start(script).await.unwrap();
    reads_on(guest).await;
}

/// Waits until the file was read some times more.
async fn reads_on(guest: &Guest) {
    let lines = "cat /run/v.times 2>/dev/null | wc -l";
    let now: usize = guest.sh(lines).await.unwrap().trim().parse().unwrap();
    let script = format!(
        "[ ! -e /run/v.read ] || exit 2; [ $({lines}) -ge {} ]",
        now + 20
    );
    guest.until("it reads on", SOON, &script).await.unwrap();
}

/// Reads go on although one of the legs does not answer.
async fn reads_without_a_leg(guest: &Guest, legs: usize) {
    let lost = format!("[ $({LIVE}) -lt {legs} ]");
    guest.until("a leg is lost", SOON, &lost).await.unwrap();
    reads_on(guest).await;
}

async fn stop_reading(guest: &Guest) {
    guest.sh("touch /run/v.stop-reading").await.unwrap();
    let said = guest.until("it ends", SOON, "cat /run/v.read").await;
    assert_eq!(said.unwrap(), "well");
}
