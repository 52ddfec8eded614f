//! A mirror over legs of two machines.

use strand_rack_bed::{DrivePlan, Rack};

use super::legs::{
    SOON, connect, connected, connections, device, disconnect, export, lost, prepare,
};

/// Two machines export a drive each; a third mirrors them with md and puts XFS on it. One target loses its power in the middle of
/// writes: every file that was fsynced reads back, and the target, back again, is re-added by its bitmap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_mirror_over_two_machines_survives_one_of_them() {
    let plans: Vec<_> = (1..=3)
        .map(|guest| {
            vec![DrivePlan {
                bytes: 1 << 30,
                ..DrivePlan::new(format!("G{guest}D0"))
            }]
        })
        .collect();
    let mut rack = Rack::boot("mirror", &plans).await.unwrap();
    for guest in rack.guests() {
        prepare(guest).await;
    }
    let consumer = rack.guest(0);
    let mut legs = Vec::new();
    let mut devices = Vec::new();
    for number in [1, 2] {
        let (leg, device) = connected(consumer, rack.guest(number)).await;
        devices.push(device);
        legs.push(leg);
    }
    consumer
        .sh(&format!(
            "set -e
            modprobe raid1
            /sbin/mdadm --create /dev/md0 --run --assume-clean --level=1 --raid-devices=2 --bitmap=internal {} {}
            /sbin/mkfs.xfs -q /dev/md0
            mkdir -p /mnt/v && modprobe xfs && mount -t xfs /dev/md0 /mnt/v",
            devices[0], devices[1]
        ))
        .await
        .unwrap();

    // Files of random bytes, each fsynced before its sum is noted: what is noted is acknowledged.
    let write = |from: u32, to: u32| {
        format!(
            "for i in $(seq {from} {to}); do \
             dd if=/dev/urandom of=/mnt/v/$i bs=64k count=4 conv=fsync 2>/dev/null || exit 1; \
             sha256sum /mnt/v/$i >>/run/acknowledged; done"
        )
    };
    consumer.sh(&write(1, 20)).await.unwrap();
    rack.guest_mut(2).cut_power();
    // Writes wait until somebody has decided that the leg is out; then its connection is taken away, and they go on.
    let decided = async {
        lost(rack.guest(0), legs[1].nqn()).await;
        disconnect(rack.guest(0), legs[1].nqn()).await;
    };
    let writes = write(21, 60);
    let (written, ()) = tokio::join!(rack.guest(0).sh(&writes), decided);
    written.unwrap();
    let degraded = "grep -q '\\[U_\\]' /proc/mdstat";
    rack.guest(0)
        .until("the mirror is degraded", SOON, degraded)
        .await
        .unwrap();

    rack.guest_mut(2).power_on().await.unwrap();
    prepare(rack.guest(2)).await;
    export(rack.guest(2), &legs[1..]).await;
    let said = connect(rack.guest(0), rack.guest(2), &legs[1]).await;
    assert_eq!(said.status, 0, "{said}");
    let back = device(rack.guest(0), legs[1].nqn()).await;
    let add = format!(
        "/sbin/mdadm /dev/md0 --remove faulty >/dev/null 2>&1; /sbin/mdadm /dev/md0 --re-add {back}"
    );
    rack.guest(0)
        .until("the leg is re-added", SOON, &add)
        .await
        .unwrap();
    let whole = "grep -q '\\[UU\\]' /proc/mdstat";
    rack.guest(0)
        .until("the mirror is whole", 2 * SOON, whole)
        .await
        .unwrap();
    // Half of the mirror at a time, past the page cache.
    let check = "umount /mnt/v && mount -t xfs /dev/md0 /mnt/v && [ $(wc -l </run/acknowledged) = 60 ] && sha256sum -c -s /run/acknowledged";
    rack.guest(0).sh(check).await.unwrap();
    rack.guest(0)
        .sh(&format!(
            "/sbin/mdadm /dev/md0 --fail {} && {check}",
            devices[0]
        ))
        .await
        .unwrap();
    rack.guest(0)
        .sh("umount /mnt/v && /sbin/mdadm --stop /dev/md0")
        .await
        .unwrap();
    for (leg, number) in legs.iter().zip([1, 2]) {
        disconnect(rack.guest(0), leg.nqn()).await;
        export(rack.guest(number), &[]).await;
    }
    assert_eq!(connections(rack.guest(0)).await, []);
}
