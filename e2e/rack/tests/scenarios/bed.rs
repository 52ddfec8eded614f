//! The bed itself: what it breaks is broken, what it mends is whole.

use std::time::Duration;

use strand_rack_bed::guest::Cable;
use strand_rack_bed::{DrivePlan, Fault, Rack};

const SOON: Duration = Duration::from_secs(60);

fn drives(guest: u32, count: u32) -> Vec<DrivePlan> {
    (0..count)
        .map(|drive| DrivePlan::new(format!("G{guest}D{drive}")))
        .collect()
}

/// Three machines with four drives each come up, see their own drives by serial number, and reach each other and the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn three_machines_with_four_nvme_drives_each_come_up() {
    let rack = Rack::boot("come-up", &[drives(1, 4), drives(2, 4), drives(3, 4)])
        .await
        .unwrap();
    for (number, guest) in (1..).zip(rack.guests()) {
        let mut serials = guest
            .sh("cat /sys/block/nvme*/device/serial | tr -d ' ' | sort")
            .await
            .unwrap();
        serials = serials.replace('\n', " ");
        assert_eq!(
            serials,
            format!("G{number}D0 G{number}D1 G{number}D2 G{number}D3")
        );
        for other in rack.guests() {
            let ping = format!("ping -c 1 -w 20 {}", other.address());
            guest.sh(&ping).await.unwrap();
        }
    }
}

/// Links, partitions, delays, losses, cables, pauses, power cuts and reboots do what they say, and what is written stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn what_is_broken_is_broken_and_what_is_mended_is_whole() {
    let mut rack = Rack::boot("broken", &[drives(1, 1), drives(2, 1)])
        .await
        .unwrap();
    let reaches = "ping -c 1 -w 5 10.77.0.2";
    let fails = async |rack: &Rack| rack.guest(0).run(reaches).await.unwrap().status != 0;
    rack.guest(0).sh(reaches).await.unwrap();

    rack.network().link(1, false);
    assert!(fails(&rack).await, "through a link that is down");
    rack.network().heal();
    rack.guest(0)
        .until("the link is up", SOON, reaches)
        .await
        .unwrap();

    rack.network().partition(&[0], &[1]);
    assert!(fails(&rack).await, "across a partition");
    rack.network().heal();
    rack.guest(0)
        .until("no partition", SOON, reaches)
        .await
        .unwrap();

    rack.network().lose(0, 1000);
    assert!(fails(&rack).await, "although all frames are lost");
    rack.network().heal();
    rack.guest(0).until("no loss", SOON, reaches).await.unwrap();

    rack.network().delay(1, Duration::from_millis(400));
    let line = rack
        .guest(0)
        .sh("ping -c 3 -w 20 10.77.0.2 | tail -n 1")
        .await
        .unwrap();
    // round-trip min/avg/max = 802.1/803.0/804.9 ms
    let least: f64 = line
        .split(['=', '/'])
        .nth(3)
        .and_then(|least| least.trim().parse().ok())
        .unwrap_or_else(|| panic!("ping said {line}"));
    assert!(least >= 800.0, "{line}");
    rack.network().heal();

    let carrier = "cat /sys/class/net/eth1/carrier";
    rack.guest_mut(1).cable(Cable::Rack, false).await.unwrap();
    let gone = format!("[ \"$({carrier})\" = 0 ]");
    rack.guest(1)
        .until("no carrier", SOON, &gone)
        .await
        .unwrap();
    assert!(fails(&rack).await, "without a cable");
    rack.guest_mut(1).cable(Cable::Rack, true).await.unwrap();
    rack.guest(0)
        .until("the cable", SOON, reaches)
        .await
        .unwrap();

    rack.guest_mut(1).pause().await.unwrap();
    assert!(fails(&rack).await, "to a machine that stands still");
    rack.guest_mut(1).go_on().await.unwrap();
    rack.guest(0)
        .until("it goes on", SOON, reaches)
        .await
        .unwrap();

    let write = "echo before >/dev/nvme0n1 && sync";
    rack.guest(1).sh(write).await.unwrap();
    let read = "head -n 1 /dev/nvme0n1";
    rack.guest_mut(1).cut_power();
    assert!(fails(&rack).await, "without power");
    rack.guest_mut(1).power_on().await.unwrap();
    assert_eq!(rack.guest(1).sh(read).await.unwrap(), "before");
    rack.guest_mut(1).reboot().await.unwrap();
    assert_eq!(rack.guest(1).sh(read).await.unwrap(), "before");
    rack.guest(0)
        .until("it is back", SOON, reaches)
        .await
        .unwrap();
}

/// A drive can be pulled and plugged in again with its bytes, a new one can be plugged in, one sector can be made unreadable, and
/// a TRIM frees the host's disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn drives_come_go_and_fail() {
    let mut rack = Rack::boot("drives", &[drives(1, 2)]).await.unwrap();
    let written = "dd if=/dev/urandom of=/dev/nvme1n1 bs=1M count=16 conv=fsync 2>/dev/null && \
                   dd if=/dev/nvme1n1 bs=1M count=16 2>/dev/null | sha256sum";
    assert_eq!(rack.guest(0).device("G1D1").await.unwrap(), "nvme1n1");
    let sum = rack.guest(0).sh(written).await.unwrap();
    let held = rack.guest(0).drive("G1D1").unwrap().allocated().unwrap();
    assert!(held >= 16 << 20, "{held} bytes on the host");

    rack.guest_mut(0).pull("G1D1").await.unwrap();
    assert!(rack.guest(0).device("G1D1").await.is_err());
    rack.guest_mut(0)
        .plug_in(&DrivePlan::new("G1D1"))
        .await
        .unwrap();
    let there = "grep -l G1D1 /sys/block/nvme*/device/serial";
    rack.guest(0)
        .until("it is back", SOON, there)
        .await
        .unwrap();
    let device = rack.guest(0).device("G1D1").await.unwrap();
    let read = format!("dd if=/dev/{device} bs=1M count=16 2>/dev/null | sha256sum");
    assert_eq!(rack.guest(0).sh(&read).await.unwrap(), sum);

    rack.guest_mut(0)
        .plug_in(&DrivePlan::new("NEW"))
        .await
        .unwrap();
    let there = "grep -l NEW /sys/block/nvme*/device/serial";
    rack.guest(0).until("a new one", SOON, there).await.unwrap();

    rack.guest_mut(0)
        .spoil("G1D1", Fault::Unreadable { sector: 4096 })
        .await
        .unwrap();
    let block = |number: u32| {
        format!("dd if=/dev/{device} bs=4096 skip={number} count=1 iflag=direct of=/dev/null 2>&1")
    };
    let bad = rack.guest(0).run(&block(512)).await.unwrap();
    assert!(bad.status != 0, "sector 4096 is read: {bad}");
    rack.guest(0).sh(&block(513)).await.unwrap();
    rack.guest_mut(0).mend("G1D1").await.unwrap();
    rack.guest(0).sh(&block(512)).await.unwrap();

    rack.guest(0)
        .sh(&format!("blkdiscard /dev/{device}"))
        .await
        .unwrap();
    let held = rack.guest(0).drive("G1D1").unwrap().allocated().unwrap();
    assert!(held < 1 << 20, "{held} bytes on the host after a TRIM");
}
