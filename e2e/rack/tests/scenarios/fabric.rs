//! What the kernels of the guests can do for volumes: the groundwork of exports and arrays, by plain files of configfs and by
//! `/dev/nvme-fabrics`.

use std::time::Duration;

use strand_rack_bed::{DrivePlan, Guest, Rack};

const SOON: Duration = Duration::from_secs(60);
const CONSUMER: Host = Host {
    nqn: "nqn.2024-01.dev.strand:host:guest-1",
    id: "6b2f6a0e-3a0e-4b51-9d7e-1f0a5c2e0001",
};
const STRANGER: Host = Host {
    nqn: "nqn.2024-01.dev.strand:host:stranger",
    id: "6b2f6a0e-3a0e-4b51-9d7e-1f0a5c2e0002",
};

/// Who connects. The kernel refuses a second name with the same id.
#[derive(Clone, Copy)]
struct Host {
    nqn: &'static str,
    id: &'static str,
}

fn leg(guest: &Guest) -> String {
    format!("nqn.2024-01.dev.strand:leg:{}", guest.name())
}

/// What tells a leg's namespace from all others. Without it the kernel makes one up with each export, and a consumer that
/// connects again takes the leg for another one.
fn leg_id(guest: &Guest) -> String {
    let number = guest
        .address()
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_owned();
    format!("6b2f6a0e-3a0e-4b51-9d7e-00000000000{number}")
}

/// Exports a drive over NVMe/TCP to one host.
async fn export(guest: &Guest, device: &str) {
    let (nqn, address, host) = (leg(guest), guest.address(), CONSUMER.nqn);
    let id = leg_id(guest);
    guest
        .sh(&format!(
            "set -e
            modprobe nvmet-tcp
            mount -t configfs configfs /sys/kernel/config 2>/dev/null || true
            cd /sys/kernel/config/nvmet
            mkdir hosts/{host}
            mkdir subsystems/{nqn}
            ln -s /sys/kernel/config/nvmet/hosts/{host} subsystems/{nqn}/allowed_hosts/
            mkdir subsystems/{nqn}/namespaces/1
            echo {id} >subsystems/{nqn}/namespaces/1/device_uuid
            echo {id} >subsystems/{nqn}/namespaces/1/device_nguid
            echo /dev/{device} >subsystems/{nqn}/namespaces/1/device_path
            echo 1 >subsystems/{nqn}/namespaces/1/enable
            mkdir ports/1
            echo tcp >ports/1/addr_trtype
            echo ipv4 >ports/1/addr_adrfam
            echo {address} >ports/1/addr_traddr
            echo 4420 >ports/1/addr_trsvcid
            ln -s /sys/kernel/config/nvmet/subsystems/{nqn} ports/1/subsystems/"
        ))
        .await
        .unwrap();
}

/// Connects to an exported drive, as `host`.
async fn connect(consumer: &Guest, target: &Guest, host: Host) -> strand_rack_bed::Said {
    let (nqn, address, Host { nqn: host, id }) = (leg(target), target.address(), host);
    consumer
        .run(&format!(
            "modprobe nvme-tcp && echo 'nqn={nqn},transport=tcp,traddr={address},trsvcid=4420,hostnqn={host},hostid={id},\
             keep_alive_tmo=2,fast_io_fail_tmo=2,ctrl_loss_tmo=600,reconnect_delay=1' >/dev/nvme-fabrics"
        ))
        .await
        .unwrap()
}

/// The block device that leads to a target, found by the subsystem's name: device names move.
async fn imported(consumer: &Guest, target: &Guest) -> String {
    let nqn = leg(target);
    let find = format!(
        "for s in /sys/class/nvme-subsystem/*; do [ \"$(cat $s/subsysnqn)\" = {nqn} ] && \
         ls $s | grep -E '^nvme[0-9]+n[0-9]+$'; done | grep ."
    );
    consumer
        .until("the leg is there", SOON, &find)
        .await
        .unwrap()
}

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
    for number in [1, 2] {
        export(rack.guest(number), "nvme0n1").await;
    }
    let consumer = rack.guest(0);
    let stranger = connect(consumer, rack.guest(1), STRANGER).await;
    assert_ne!(
        stranger.status, 0,
        "a host that is not allowed gets in: {stranger}"
    );
    let mut legs = Vec::new();
    for number in [1, 2] {
        let said = connect(consumer, rack.guest(number), CONSUMER).await;
        assert_eq!(said.status, 0, "{said}");
        legs.push(imported(consumer, rack.guest(number)).await);
    }
    consumer
        .sh(&format!(
            "set -e
            modprobe raid1
            /sbin/mdadm --create /dev/md0 --run --assume-clean --level=1 --raid-devices=2 --bitmap=internal /dev/{} /dev/{}
            /sbin/mkfs.xfs -q /dev/md0
            mkdir -p /mnt/v && modprobe xfs && mount -t xfs /dev/md0 /mnt/v",
            legs[0], legs[1]
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
    rack.guest(0).sh(&write(21, 60)).await.unwrap();
    let degraded = "grep -q '\\[U_\\]' /proc/mdstat";
    rack.guest(0)
        .until("the mirror is degraded", SOON, degraded)
        .await
        .unwrap();

    rack.guest_mut(2).power_on().await.unwrap();
    export(rack.guest(2), "nvme0n1").await;
    // The consumer connects again by itself.
    let live = format!(
        "for s in /sys/class/nvme-subsystem/*; do [ \"$(cat $s/subsysnqn)\" = {} ] && cat $s/nvme*/state; done | grep live",
        leg(rack.guest(2))
    );
    rack.guest(0)
        .until("connected again", SOON, &live)
        .await
        .unwrap();
    let back = imported(rack.guest(0), rack.guest(2)).await;
    let add = format!(
        "/sbin/mdadm /dev/md0 --remove faulty >/dev/null 2>&1; /sbin/mdadm /dev/md0 --re-add /dev/{back}"
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
            "/sbin/mdadm /dev/md0 --fail /dev/{} && {check}",
            legs[0]
        ))
        .await
        .unwrap();
}
