//! Sizes of legs and arrays, as the operator would choose them, against the kernel and mdadm.

use std::path::PathBuf;

use strand_api::Redundancy;
use strand_arrays::{Geometry, Level, Standing, State, Wanted};
use strand_placement::volumes::shape;
use strand_rack_bed::{DrivePlan, Guest, Rack};

use super::volume::{keep, kept, load, nothing_is_left, stop, volume};

const MIB: u64 = 1 << 20;

fn geometry(redundancy: Redundancy, size: u64, legs: usize) -> Geometry {
    let data = shape::data(redundancy, size, legs);
    Geometry {
        data_offset: shape::DATA_OFFSET,
        data,
        chunk: shape::CHUNK,
        bitmap_chunk: shape::bitmap_chunk(data),
    }
}

/// Makes or grows the files that legs are.
async fn sized(guest: &Guest, size: u64, legs: usize) {
    for leg in 0..legs {
        guest
            .sh(&format!("truncate -s {size} /mnt/side/{leg}"))
            .await
            .unwrap();
    }
}

async fn bytes(guest: &Guest, device: &str) -> u64 {
    let name = device.trim_start_matches("/dev/");
    let said = guest
        .sh(&format!("cat /sys/block/{name}/size"))
        .await
        .unwrap();
    said.trim().parse::<u64>().unwrap() * 512
}

/// Sums of the legs' first MiB, where md writes what it knows.
async fn heads(guest: &Guest, legs: usize) -> String {
    let script = format!(
        "sync; for i in $(seq 0 {}); do head -c 1048576 /mnt/side/$i | sha256sum; done",
        legs - 1
    );
    guest.sh(&script).await.unwrap()
}

/// Of each redundancy: legs of the size that the operator gives them make an array that holds the volume; it is put together again
/// from what lies on them, for reading without a byte being written; where legs grow it grows, with its bytes, and what is new is zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn legs_of_the_size_that_is_decided_hold_the_volume_and_grow() {
    let rack = Rack::boot("arrays-sizes", &[vec![DrivePlan::new("SIDE")]])
        .await
        .unwrap();
    let guest = rack.guest(0);
    for module in ["loop", "raid0", "raid1", "raid456"] {
        load(guest, module).await;
    }
    let side = guest.device("SIDE").await.unwrap();
    guest
        .sh(&format!(
            "/sbin/mkfs.xfs -q /dev/{side} && mkdir /mnt/side && mount -t xfs /dev/{side} /mnt/side"
        ))
        .await
        .unwrap();
    for (redundancy, level, legs) in [
        (Redundancy::Stripe, Level::Stripe, 3),
        (Redundancy::Mirror, Level::Mirror, 2),
        (Redundancy::Raid6, Level::Raid6, 5),
    ] {
        let size = 50 * MIB + 4096;
        sized(guest, shape::leg(redundancy, size, legs), legs).await;
        let mut devices = Vec::new();
        for leg in 0..legs {
            let device = guest.sh("losetup -f").await.unwrap().trim().to_owned();
            guest
                .sh(&format!("losetup {device} /mnt/side/{leg}"))
                .await
                .unwrap();
            devices.push(device);
        }
        let mut wanted: Wanted = volume(level, 0, &devices);
        wanted.geometry = geometry(redundancy, size, legs);
        let array = kept(guest, &wanted).await;
        wanted.formed = true;
        let has = bytes(guest, &array).await;
        let spare = legs as u64 * shape::CHUNK;
        assert!(
            (size..size + spare).contains(&has),
            "{level:?}: {has} of {size}"
        );
        let write = format!(
            "dd if=/dev/urandom of=/run/bytes bs=1M count=50 2>/dev/null; dd if=/run/bytes of={array} bs=1M conv=fsync 2>/dev/null"
        );
        guest.sh(&write).await.unwrap();
        stop(guest, &wanted).await;

        let before = heads(guest, legs).await;
        wanted.read_only = true;
        let array = kept(guest, &wanted).await;
        let seen = keep(guest, &wanted).await.unwrap();
        assert_eq!(seen.array.unwrap().state, State::ReadOnly);
        let same = format!(
            "echo 3 >/proc/sys/vm/drop_caches; head -c {} {array} | cmp - /run/bytes",
            50 * MIB
        );
        guest.sh(&same).await.unwrap();
        let written = guest
            .run(&format!(
                "dd if=/run/bytes of={array} bs=4k count=1 conv=fsync 2>&1"
            ))
            .await
            .unwrap();
        assert_ne!(
            written.status, 0,
            "{level:?}: written though it is for reading"
        );
        stop(guest, &wanted).await;
        assert_eq!(
            heads(guest, legs).await,
            before,
            "{level:?}: reading has written"
        );
        wanted.read_only = false;

        if level == Level::Stripe {
            // It cannot be without any.
            wanted.legs[1].standing = Standing::Out;
            let said = keep(guest, &wanted).await.unwrap_err();
            assert!(said.contains("it has lost too much"), "{said}");
        } else {
            let array = kept(guest, &wanted).await;
            let more = size + 30 * MIB;
            sized(guest, shape::leg(redundancy, more, legs), legs).await;
            for leg in &wanted.legs {
                let device = leg.device.clone().unwrap_or_else(PathBuf::new);
                guest
                    .sh(&format!("losetup -c {}", device.display()))
                    .await
                    .unwrap();
            }
            wanted.geometry = geometry(redundancy, more, legs);
            kept(guest, &wanted).await;
            assert!(
                bytes(guest, &array).await >= more,
                "{level:?} has not grown"
            );
            guest.sh(&same).await.unwrap();
            let new = format!(
                "tail -c +{} {array} | tr -d '\\0' | head -c 1 | wc -c",
                51 * MIB
            );
            assert_eq!(guest.sh(&new).await.unwrap().trim(), "0");
            stop(guest, &wanted).await;
        }
        nothing_is_left(guest).await;
        guest
            .sh("for i in $(seq 0 9); do losetup -d /dev/loop$i 2>/dev/null; done; rm /mnt/side/*")
            .await
            .unwrap();
    }
}
