//! A host with udev, whose stock rules look into every device and put together what they find.

use std::path::PathBuf;

use strand_arrays::Level;
use strand_rack_bed::{DrivePlan, Rack};

use super::volume::{SOON, kept, load, nothing_is_left, stop, volume};
use crate::fabric::legs::{connect, device, disconnect, export, leg, prepare, secret};

const DATA: u64 = 63 << 20;
/// What the stock rules found out about a device.
const FOUND: &str = "ID_FS_TYPE=linux_raid_member";

/// Without our rule, udev with mdadm's stock rules puts an array together as soon as its legs appear, whoever's they are. With it, neither
/// legs in files nor legs on other nodes are looked into or put together, nor is what lies in an array; other devices are, as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_host_with_udev_keeps_its_hands_off_our_devices() {
    let plans = [vec![DrivePlan::new("SIDE")]];
    let rack = Rack::boot("arrays-host", &plans).await.unwrap();
    let guest = rack.guest(0);
    prepare(guest).await;
    load(guest, "loop").await;
    load(guest, "raid1").await;
    let side = guest.device("SIDE").await.unwrap();
    guest
        .sh(&format!(
            "/sbin/mkfs.xfs -q /dev/{side} && mkdir /mnt/side && mount -t xfs /dev/{side} /mnt/side
             for i in 0 1; do mkdir -p /mnt/side/legs/v-$i && truncate -s 64M /mnt/side/legs/v-$i/data \
             && losetup /dev/loop$i /mnt/side/legs/v-$i/data || exit 1; done
             truncate -s 320M /mnt/side/other && /sbin/mkfs.xfs -q /mnt/side/other && losetup /dev/loop2 /mnt/side/other"
        ))
        .await
        .unwrap();
    let mut wanted = volume(
        Level::Mirror,
        DATA,
        &["/dev/loop0".into(), "/dev/loop1".into()],
    );
    let array = kept(guest, &wanted).await;
    wanted.formed = true;
    // What a pod may have put into its volume.
    guest
        .sh(&format!("/sbin/lvm pvcreate -q {array}"))
        .await
        .unwrap();
    stop(guest, &wanted).await;

    guest
        .sh("mkdir -p /etc/udev /run/udev && /sbin/systemd-udevd --daemon")
        .await
        .unwrap();
    let again = "/bin/udevadm trigger --action=add --subsystem-match=block && /bin/udevadm settle";
    guest.sh(again).await.unwrap();
    guest
        .until(
            "the stock rules take our legs",
            SOON,
            "grep -q ^md /proc/mdstat",
        )
        .await
        .unwrap();
    let looked = format!("/bin/udevadm info --query=property /dev/loop0 | grep -q {FOUND}");
    guest.sh(&looked).await.unwrap();
    guest
        .sh("for md in $(awk '/^md/ {print $1}' /proc/mdstat); do /sbin/mdadm --stop /dev/$md || exit 1; done")
        .await
        .unwrap();
    nothing_is_left(guest).await;

    // Whoever looks at arrays writes the rule first.
    guest.sh("/strand/rack-arrays all").await.unwrap();
    // udev looks for new rules by itself, every three seconds at most.
    guest.sh("/bin/udevadm control --reload").await.unwrap();
    guest.sh(again).await.unwrap();
    let others = "/bin/udevadm info --query=property /dev/loop2 | grep -q ID_FS_TYPE=xfs";
    guest.sh(others).await.unwrap();
    let hands_off = |name: &str| {
        format!(
            "/bin/udevadm settle; /bin/udevadm info --query=property {name} >/run/told; cat /run/told; \
             grep -q ^SYSTEMD_READY=0 /run/told && grep -q ^DM_UDEV_DISABLE_OTHER_RULES_FLAG=1 /run/told && \
             ! grep -q ^DEVLINKS /run/told && ! ls -l /dev/disk/*/ | grep -q $(basename {name})"
        )
    };
    let not_looked_into =
        |name: &str| format!("{} && ! grep -q ^ID_FS_TYPE /run/told", hands_off(name));
    for leg in ["/dev/loop0", "/dev/loop1"] {
        guest.sh(&not_looked_into(leg)).await.unwrap();
    }
    nothing_is_left(guest).await;
    let array = kept(guest, &wanted).await;
    guest.sh(again).await.unwrap();
    guest.sh(&hands_off(&array)).await.unwrap();
    stop(guest, &wanted).await;
    nothing_is_left(guest).await;

    // The same over the fabric: this machine is both nodes.
    guest
        .sh("mkdir /mnt/side/legs/w && cp /mnt/side/legs/v-0/data /mnt/side/legs/w/ && losetup /dev/loop3 /mnt/side/legs/w/data")
        .await
        .unwrap();
    let mut exported = leg(guest, 1, &secret(guest).await);
    exported.device = PathBuf::from("/dev/loop3");
    export(guest, std::slice::from_ref(&exported)).await;
    let said = connect(guest, guest, &exported).await;
    assert_eq!(said.status, 0, "{said}");
    let there = device(guest, exported.nqn()).await;
    guest.sh(again).await.unwrap();
    guest.sh(&not_looked_into(&there)).await.unwrap();
    disconnect(guest, exported.nqn()).await;
    export(guest, &[]).await;
    guest
        .sh("kill $(pidof systemd-udevd); for i in 0 1 2 3; do losetup -d /dev/loop$i; done")
        .await
        .unwrap();
}
