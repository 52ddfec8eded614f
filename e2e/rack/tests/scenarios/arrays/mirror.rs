//! Mirrors over two drives of one machine.

use strand_arrays::{Holding, Level, Standing};
use strand_rack_bed::{DrivePlan, Rack};

use super::volume::{
    SOON, devices, files_are_whole, keep, kept, legs_are_as_they_shall_be, load, make_files,
    nothing_is_left, stop, unmount, until_leg, volume, write_files, written,
};

const DATA: u64 = 335 << 20;

fn plans(serials: &[&str]) -> Vec<DrivePlan> {
    let plan = |serial: &&str| DrivePlan {
        bytes: 336 << 20,
        ..DrivePlan::new(*serial)
    };
    serials.iter().map(plan).collect()
}

/// Whoever makes an array or adds a leg may be killed at any moment, with the tool that was at it: the next one makes it whole. A leg
/// that is out has missed writes: it is never put together from, alone or with others, and comes back only copied from end to end. What
/// was acknowledged reads back from either leg alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_leg_that_is_out_comes_back_only_as_a_whole_copy() {
    let serials = ["LEGA", "LEGB"];
    let rack = Rack::boot("arrays-mirror", &[plans(&serials)])
        .await
        .unwrap();
    let guest = rack.guest(0);
    load(guest, "raid1").await;
    let legs = devices(guest, &serials).await;
    let mut wanted = volume(Level::Mirror, DATA, &legs);

    // A number without an array, as a tool leaves it that is killed between the two.
    guest
        .sh("echo md1000 >/sys/module/md_mod/parameters/new_array && [ -d /sys/block/md1000 ]")
        .await
        .unwrap();
    for moment in ["0.02", "0.1", "0.2", "0.3", "0.5", "1"] {
        let input = serde_json::to_vec(&wanted).unwrap();
        guest.write("/run/wanted", &input).await.unwrap();
        guest
            .sh(&format!(
                "setsid sh -c 'echo $$ >/run/group; exec /strand/rack-arrays keep </run/wanted' >/dev/null 2>&1 & \
                 sleep {moment}; kill -9 -$(cat /run/group) 2>/dev/null; true"
            ))
            .await
            .unwrap();
        kept(guest, &wanted).await;
        for leg in [0, 1] {
            until_leg(guest, &wanted, leg, Holding::Whole).await;
        }
        stop(guest, &wanted).await;
        nothing_is_left(guest).await;
        for leg in &legs {
            guest
                .sh(&format!(
                    "dd if=/dev/zero of={leg} bs=1M count=1 conv=fsync 2>/dev/null"
                ))
                .await
                .unwrap();
        }
    }
    let device = kept(guest, &wanted).await;
    legs_are_as_they_shall_be(guest, &legs).await;
    wanted.formed = true;
    let block = guest.sh("cat /sys/block/md1000/size").await.unwrap();
    assert_eq!(block.trim().parse::<u64>().unwrap() * 512, DATA);
    make_files(guest, &device).await;
    guest.sh(&write_files(1, 10)).await.unwrap();

    // The second leg is out, and misses writes.
    wanted.legs[1].standing = Standing::Out;
    kept(guest, &wanted).await;
    until_leg(guest, &wanted, 1, Holding::Apart).await;
    guest.sh(&write_files(11, 20)).await.unwrap();
    unmount(guest).await;
    stop(guest, &wanted).await;

    // It is the only one that can be reached; then both can be, and the record that it is out is lost.
    let first = wanted.legs[0].device.take();
    let said = keep(guest, &wanted).await.unwrap_err();
    assert!(said.contains("legs 0 cannot be reached"), "{said}");
    wanted.legs[0].device = first;
    wanted.legs[1].standing = Standing::In;
    let said = keep(guest, &wanted).await.unwrap_err();
    assert!(said.contains("legs 1 have missed writes"), "{said}");
    nothing_is_left(guest).await;

    // Another attachment: it is copied to as a whole, whoever is killed while that begins.
    wanted.legs[1].standing = Standing::Rebuilding;
    let before = written(guest, &legs[1]).await;
    let input = serde_json::to_vec(&wanted).unwrap();
    guest.write("/run/wanted", &input).await.unwrap();
    for steps in 1..=3 {
        guest
            .sh(&format!(
                "/strand/rack-arrays break-off {steps} </run/wanted"
            ))
            .await
            .unwrap();
    }
    let device = kept(guest, &wanted).await;
    until_leg(guest, &wanted, 1, Holding::Whole).await;
    let copied = written(guest, &legs[1]).await - before;
    assert!(copied >= DATA, "{copied} bytes of {DATA} were copied");
    wanted.legs[1].standing = Standing::In;
    files_are_whole(guest, &device, 20).await;
    unmount(guest).await;
    stop(guest, &wanted).await;

    // Alone.
    wanted.legs[0].standing = Standing::Out;
    let device = kept(guest, &wanted).await;
    files_are_whole(guest, &device, 20).await;
    let busy = guest
        .run(&format!("/strand/rack-arrays stop {}", wanted.array))
        .await
        .unwrap();
    assert_ne!(busy.status, 0, "taken down while it was mounted: {busy}");
    unmount(guest).await;
    stop(guest, &wanted).await;
    nothing_is_left(guest).await;

    // What is not ours is not written to.
    wanted.legs[0].standing = Standing::Rebuilding;
    guest
        .sh(&format!(
            "/sbin/mdadm --zero-superblock {0} && /sbin/mkfs.ext4 -q {0}",
            legs[0]
        ))
        .await
        .unwrap();
    let sum = format!("head -c 8192 {} | sha256sum", legs[0]);
    let before = guest.sh(&sum).await.unwrap();
    let said = keep(guest, &wanted).await.unwrap_err();
    assert!(said.contains("not of this volume"), "{said}");
    assert_eq!(guest.sh(&sum).await.unwrap(), before);
    stop(guest, &wanted).await;
    let gone = "! ls -d /sys/block/md* 2>/dev/null";
    guest.until("nothing is left", SOON, gone).await.unwrap();
}
