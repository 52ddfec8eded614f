//! Arrays that are only read, over drives of one machine.

use std::path::PathBuf;

use strand_arrays::{Holding, Level, Standing, State, Wanted};
use strand_rack_bed::{DrivePlan, Guest, Rack};

use super::volume::{
    SOON, devices, files_are_whole, keep, kept, load, make_files, nothing_is_left, stop, unmount,
    until_leg, volume, write_files,
};

/// Of each leg; XFS wants some 300 for itself.
const MIRROR: u64 = 335 << 20;
const RAID6: u64 = 167 << 20;
/// What is read all the time, in pieces of 256 KiB.
const PIECES: u32 = 160;

fn plan(serial: &str) -> DrivePlan {
    DrivePlan {
        bytes: 336 << 20,
        ..DrivePlan::new(serial)
    }
}

/// Of what lies on each leg.
async fn sums(guest: &Guest, legs: &[String]) -> String {
    let script = format!(
        "echo 3 >/proc/sys/vm/drop_caches; for leg in {}; do head -c 100M $leg | sha256sum; done",
        legs.join(" ")
    );
    let said = guest.sh(&script).await.unwrap();
    said.split_whitespace().step_by(2).collect()
}

/// Reads the device again and again past the page cache.
async fn start_reading(guest: &Guest, device: &str) {
    let script = format!(
        "sh -c 'sum=$(cat /run/sum); rm -f /run/read /run/stop /run/reads; while [ ! -e /run/stop ]; do \
         [ \"$(dd if={device} bs=256k count={PIECES} iflag=direct 2>/dev/null | sha256sum)\" = \"$sum\" ] || {{ echo failed >/run/read; exit; }}; \
         echo >>/run/reads; done; echo well >/run/read'"
    );
    guest.start(&script).await.unwrap();
    reads_on(guest).await;
}

/// Waits until it was read whole twice more: once may have begun before.
async fn reads_on(guest: &Guest) {
    let lines = "cat /run/reads 2>/dev/null | wc -l";
    let now: usize = guest.sh(lines).await.unwrap().trim().parse().unwrap();
    let script = format!(
        "[ ! -e /run/read ] || exit 2; [ $({lines}) -ge {} ]",
        now + 2
    );
    guest.until("it reads on", SOON, &script).await.unwrap();
}

/// A leg's drive is pulled, and is back.
async fn away_and_back(rack: &mut Rack, wanted: &mut Wanted, leg: usize, serial: &str) {
    rack.guest_mut(0).pull(serial).await.unwrap();
    wanted.legs[leg].device = None;
    let guest = rack.guest(0);
    kept(guest, wanted).await;
    until_leg(guest, wanted, leg, Holding::Away).await;
    reads_on(guest).await;
    rack.guest_mut(0).plug_in(&plan(serial)).await.unwrap();
    let guest = rack.guest(0);
    let there = format!("grep -l {serial} /sys/class/nvme/*/serial && ls /sys/block/nvme*n1");
    guest
        .until("the drive is back", SOON, &there)
        .await
        .unwrap();
    let device = devices(guest, &[serial]).await.remove(0);
    wanted.legs[leg].device = Some(PathBuf::from(device));
    kept(guest, wanted).await;
    until_leg(guest, wanted, leg, Holding::Whole).await;
    reads_on(guest).await;
}

/// An array is put together for reading, whoever is killed meanwhile, without a byte being written to a leg. Under reads, each leg goes and
/// comes back, one after the other, so that in the end nothing is read that was not taken in on the way. It is not taken down while it is in use.
/// Then it is attached for writing, and everything is there; a leg that has missed something since is read from by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn legs_go_and_come_back_while_it_is_read_and_nothing_is_written() {
    // Blank ones for each: what is not would not be in sync.
    let (two, four) = (["MIRA", "MIRB"], ["SIXA", "SIXB", "SIXC", "SIXD"]);
    let plans = [two.iter().chain(&four).map(|serial| plan(serial)).collect()];
    let mut rack = Rack::boot("arrays-readers", &plans).await.unwrap();
    for module in ["raid1", "raid456"] {
        load(rack.guest(0), module).await;
    }
    for (level, data, serials) in [
        (Level::Mirror, MIRROR, &two[..]),
        (Level::Raid6, RAID6, &four[..]),
    ] {
        let guest = rack.guest(0);
        let legs = devices(guest, serials).await;
        let mut wanted = volume(level, data, &legs);
        let device = kept(guest, &wanted).await;
        wanted.formed = true;
        guest.sh("rm -f /run/acknowledged").await.unwrap();
        make_files(guest, &device).await;
        guest.sh(&write_files(1, 10)).await.unwrap();
        unmount(guest).await;
        guest
            .sh(&format!("dd if={device} bs=256k count={PIECES} iflag=direct 2>/dev/null | sha256sum >/run/sum"))
            .await
            .unwrap();
        stop(guest, &wanted).await;
        let before = sums(guest, &legs).await;

        wanted.read_only = true;
        let input = serde_json::to_vec(&wanted).unwrap();
        guest.write("/run/wanted", &input).await.unwrap();
        for moment in ["0.02", "0.04", "0.06", "0.08", "0.1", "0.15"] {
            let killed = format!(
                "setsid sh -c 'echo $$ >/run/group; exec /strand/rack-arrays keep </run/wanted' >/dev/null 2>&1 & \
                 sleep {moment}; kill -9 -$(cat /run/group) 2>/dev/null; true"
            );
            guest.sh(&killed).await.unwrap();
            kept(guest, &wanted).await;
            for leg in 0..serials.len() {
                until_leg(guest, &wanted, leg, Holding::Whole).await;
            }
            stop(guest, &wanted).await;
            nothing_is_left(guest).await;
        }
        let device = kept(guest, &wanted).await;
        let seen = keep(guest, &wanted).await.unwrap();
        assert_eq!(seen.array.unwrap().state, State::ReadOnly);
        let mount = format!("mkdir -p /mnt/v && mount -t xfs -o ro,norecovery {device} /mnt/v");
        guest.sh(&mount).await.unwrap();
        files_are_whole(guest, &device, 10).await;
        let busy = format!("/strand/rack-arrays stop {}", wanted.array);
        let busy = guest.run(&busy).await.unwrap();
        assert_ne!(busy.status, 0, "taken down while it was mounted: {busy}");
        files_are_whole(guest, &device, 10).await;
        start_reading(guest, &device).await;
        for (leg, serial) in serials.iter().enumerate() {
            away_and_back(&mut rack, &mut wanted, leg, serial).await;
        }
        let guest = rack.guest(0);
        guest.sh("touch /run/stop").await.unwrap();
        let said = guest.until("it ends", SOON, "cat /run/read").await.unwrap();
        assert_eq!(said.trim(), "well");
        files_are_whole(guest, &device, 10).await;
        unmount(guest).await;
        stop(guest, &wanted).await;
        nothing_is_left(guest).await;
        let legs = devices(guest, serials).await;
        assert_eq!(sums(guest, &legs).await, before, "reading has written");

        wanted.read_only = false;
        let device = kept(guest, &wanted).await;
        for leg in 0..serials.len() {
            until_leg(guest, &wanted, leg, Holding::Whole).await;
        }
        files_are_whole(guest, &device, 10).await;
        // A leg misses writes, and the record of that is lost.
        wanted.legs[1].standing = Standing::Out;
        kept(guest, &wanted).await;
        guest.sh(&write_files(11, 15)).await.unwrap();
        unmount(guest).await;
        stop(guest, &wanted).await;
        wanted.read_only = true;
        for standing in [Standing::Out, Standing::In] {
            wanted.legs[1].standing = standing;
            let device = kept(guest, &wanted).await;
            until_leg(guest, &wanted, 1, Holding::Apart).await;
            guest
                .sh(&format!("mount -t xfs -o ro,norecovery {device} /mnt/v"))
                .await
                .unwrap();
            files_are_whole(guest, &device, 15).await;
            unmount(guest).await;
            stop(guest, &wanted).await;
        }
        let fresh = wanted.legs[0].device.take();
        let said = keep(guest, &wanted).await.unwrap_err();
        assert!(said.contains("legs 0 cannot be reached"), "{said}");
        wanted.legs[0].device = fresh;
        nothing_is_left(guest).await;
    }
}
