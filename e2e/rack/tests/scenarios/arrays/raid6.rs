//! raid6 over four drives of one machine.

use strand_arrays::{Holding, Level, Standing, State, Wanted};
use strand_rack_bed::{DrivePlan, Guest, Rack};

use super::volume::{
    SOON, devices, files_are_whole, keep, kept, load, make_files, nothing_is_left, stop, unmount,
    until_leg, volume, write_files,
};

const DATA: u64 = 167 << 20;
const SERIALS: [&str; 4] = ["LEGA", "LEGB", "LEGC", "LEGD"];

async fn boot(name: &str) -> Rack {
    let plan = |serial: &&str| DrivePlan {
        bytes: 168 << 20,
        ..DrivePlan::new(*serial)
    };
    let plans = [SERIALS.iter().map(plan).collect()];
    Rack::boot(name, &plans).await.unwrap()
}

/// A volume over all of the machine's drives with files on it, and its device.
async fn with_files(guest: &Guest) -> (Wanted, String) {
    load(guest, "raid456").await;
    let legs = devices(guest, &SERIALS).await;
    let mut wanted = volume(Level::Raid6, DATA, &legs);
    let device = kept(guest, &wanted).await;
    wanted.formed = true;
    make_files(guest, &device).await;
    (wanted, device)
}

/// Two drives of four are pulled out while files are written: writes go on, and every acknowledged file reads back. With the third,
/// the volume stops: nothing that still reads is wrong, and it is not put together again, not even from all four, of which two have
/// missed writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_loses_two_and_stops_with_the_third() {
    let mut rack = boot("arrays-raid6").await;
    let (mut wanted, device) = with_files(rack.guest(0)).await;

    let mut acknowledged = 0;
    for (leg, serial) in [(3, "LEGD"), (2, "LEGC")] {
        let all = write_files(acknowledged + 1, acknowledged + 20);
        rack.guest(0)
            .write("/run/writer", all.as_bytes())
            .await
            .unwrap();
        let pid = rack.guest(0).start("sh /run/writer").await.unwrap();
        let begun = format!("[ $(wc -l </run/acknowledged) -gt {} ]", acknowledged + 2);
        rack.guest(0)
            .until("it writes", SOON, &begun)
            .await
            .unwrap();
        // The kernel tells md, which needs nobody to give up what is not there.
        rack.guest_mut(0).pull(serial).await.unwrap();
        let ended = format!("! kill -0 {pid}");
        rack.guest(0)
            .until("all is written", SOON, &ended)
            .await
            .unwrap();
        acknowledged += 20;
        wanted.legs[leg].standing = Standing::Out;
        wanted.legs[leg].device = None;
        kept(rack.guest(0), &wanted).await;
        files_are_whole(rack.guest(0), &device, acknowledged).await;
    }
    until_leg(rack.guest(0), &wanted, 0, Holding::Whole).await;

    rack.guest_mut(0).pull("LEGB").await.unwrap();
    let guest = rack.guest(0);
    let more = guest.run(&write_files(41, 42)).await.unwrap();
    assert_ne!(more.status, 0, "it writes on with one leg of four: {more}");
    // What can be read is right; what cannot is an error.
    let wrong = "echo 3 >/proc/sys/vm/drop_caches; while read -r sum file; do \
         found=$(cat $file 2>/dev/null >/run/copy && sha256sum </run/copy | cut -d' ' -f1) || continue; \
         [ -z \"$found\" ] || [ $found = $sum ] || echo $file; done </run/acknowledged";
    assert_eq!(guest.sh(wrong).await.unwrap(), "");
    unmount(guest).await;
    stop(guest, &wanted).await;
    nothing_is_left(guest).await;

    for leg in [1, 2, 3] {
        wanted.legs[leg].standing = Standing::Out;
    }
    let said = keep(guest, &wanted).await.unwrap_err();
    assert!(said.contains("it has lost too much"), "{said}");
    for serial in &SERIALS[1..] {
        let plan = DrivePlan {
            bytes: 168 << 20,
            ..DrivePlan::new(*serial)
        };
        rack.guest_mut(0).plug_in(&plan).await.unwrap();
    }
    let guest = rack.guest(0);
    let all = "[ $(ls -d /sys/block/nvme*n1 | wc -l) = 4 ]";
    guest.until("the drives are back", SOON, all).await.unwrap();
    for (leg, device) in devices(guest, &SERIALS).await.iter().enumerate() {
        wanted.legs[leg].standing = Standing::In;
        wanted.legs[leg].device = Some(device.into());
    }
    let said = keep(guest, &wanted).await.unwrap_err();
    assert!(said.contains("have missed writes"), "{said}");
    nothing_is_left(guest).await;
}

/// Power is lost while files are written. With all legs it comes up, and makes them equal again; with one leg out as well, parity may be
/// wrong wherever was being written, and it does not come up by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn dirty_and_degraded_at_once_needs_a_decision() {
    let mut rack = boot("arrays-dirty").await;
    let (mut wanted, _) = with_files(rack.guest(0)).await;

    for degraded in [false, true] {
        if degraded {
            wanted.legs[3].standing = Standing::Out;
            kept(rack.guest(0), &wanted).await;
        }
        let guest = rack.guest(0);
        guest
            .start("sh -c 'while :; do dd if=/dev/urandom of=/mnt/v/x bs=64k count=4 conv=fsync 2>/dev/null; echo >>/run/done; done'")
            .await
            .unwrap();
        let writes = "[ $(wc -l </run/done) -gt 3 ]";
        guest.until("it writes", SOON, writes).await.unwrap();
        rack.guest_mut(0).cut_power();
        rack.guest_mut(0).power_on().await.unwrap();
        let guest = rack.guest(0);
        load(guest, "raid456").await;
        for (leg, device) in devices(guest, &SERIALS).await.iter().enumerate() {
            wanted.legs[leg].device = Some(device.into());
        }
        if degraded {
            let said = keep(guest, &wanted).await.unwrap_err();
            assert!(said.contains("Nothing is done by itself"), "{said}");
            nothing_is_left(guest).await;
            continue;
        }
        let device = kept(guest, &wanted).await;
        let equal = "[ $(cat /sys/block/md1000/md/sync_action) = idle ] && [ $(cat /sys/block/md1000/md/degraded) = 0 ]";
        guest
            .until("its legs are equal", 2 * SOON, equal)
            .await
            .unwrap();
        let seen = keep(guest, &wanted).await.unwrap();
        assert_eq!(seen.array.unwrap().state, State::ReadWrite);
        let mount = format!("mkdir -p /mnt/v && mount -t xfs {device} /mnt/v && ls /mnt/v");
        assert_eq!(guest.sh(&mount).await.unwrap().trim(), "x");
    }
}
