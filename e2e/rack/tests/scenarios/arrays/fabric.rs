//! A mirror over legs of two other machines.

use std::path::PathBuf;
use std::time::Duration;

use strand_arrays::{Holding, Level, Standing};
use strand_rack_bed::{DrivePlan, Guest, Rack};

use super::volume::{kept, load, nothing_is_left, stop, until_leg, volume, written};
use crate::fabric::legs::{
    SOON, connect, connected, connections, device, disconnect, export, lost, prepare,
};

const DATA: u64 = 255 << 20;

/// Writes blocks of 4 KiB, each full of its own number and flushed before that is noted, one after the other.
async fn start_writer(guest: &Guest, device: &str) -> u32 {
    let script = format!(
        "i=0; while i=$((i+1)); do yes $(printf 1%014d $i) | head -c 4096 >/run/block; \
         dd if=/run/block of={device} bs=4096 seek=$i count=1 conv=fsync,notrunc 2>/dev/null || exit; \
         echo $i >/run/told.new && mv /run/told.new /run/told; done"
    );
    guest.write("/run/writer", script.as_bytes()).await.unwrap();
    guest.start("sh /run/writer").await.unwrap()
}

async fn told(guest: &Guest) -> u64 {
    guest
        .sh("cat /run/told")
        .await
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

async fn writes_on(guest: &Guest) {
    let more = told(guest).await + 3;
    guest
        .until(
            "it writes on",
            SOON,
            &format!("[ $(cat /run/told) -ge {more} ]"),
        )
        .await
        .unwrap();
}

/// A target loses power during flushed writes. They wait, however long, until the leg is recorded out; then they go on. Back within the
/// same attachment, the leg is copied only what the bitmap marks, and both legs are the same to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn writes_wait_for_the_decision_and_a_leg_that_returns_is_copied_what_it_missed() {
    let plan = |serial: &str| {
        vec![DrivePlan {
            bytes: 256 << 20,
            ..DrivePlan::new(serial)
        }]
    };
    let plans = [vec![], plan("LEGA"), plan("LEGB")];
    let mut rack = Rack::boot("arrays-fabric", &plans).await.unwrap();
    for guest in rack.guests() {
        prepare(guest).await;
    }
    let mut legs = Vec::new();
    let mut devices = Vec::new();
    for number in [1, 2] {
        let (leg, device) = connected(rack.guest(0), rack.guest(number)).await;
        devices.push(device);
        legs.push(leg);
    }
    let consumer = rack.guest(0);
    load(consumer, "raid1").await;
    let mut wanted = volume(Level::Mirror, DATA, &devices);
    let array = kept(consumer, &wanted).await;
    wanted.formed = true;
    let writer = start_writer(consumer, &array).await;
    consumer
        .until("it writes", SOON, "[ $(cat /run/told) -gt 3 ]")
        .await
        .unwrap();

    rack.guest_mut(2).cut_power();
    let consumer = rack.guest(0);
    // The connection is noticed to be lost; what waits for it does not fail.
    lost(consumer, legs[1].nqn()).await;
    let before = told(consumer).await;
    // That nothing happens is seen by nothing but waiting: it writes many times a second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = told(consumer).await;
    assert!(
        waiting <= before + 1,
        "{before}, then {waiting}: written without a decision"
    );

    wanted.legs[1].standing = Standing::Out;
    wanted.legs[1].device = None;
    disconnect(consumer, legs[1].nqn()).await;
    kept(consumer, &wanted).await;
    writes_on(consumer).await;

    rack.guest_mut(2).power_on().await.unwrap();
    prepare(rack.guest(2)).await;
    export(rack.guest(2), &legs[1..]).await;
    let consumer = rack.guest(0);
    let said = connect(consumer, rack.guest(2), &legs[1]).await;
    assert_eq!(said.status, 0, "{said}");
    let back = device(consumer, legs[1].nqn()).await;
    wanted.legs[1].device = Some(PathBuf::from(&back));
    kept(consumer, &wanted).await;
    until_leg(consumer, &wanted, 1, Holding::Apart).await;
    let before = written(consumer, &back).await;
    wanted.legs[1].standing = Standing::Returning;
    kept(consumer, &wanted).await;
    until_leg(consumer, &wanted, 1, Holding::Whole).await;
    wanted.legs[1].standing = Standing::In;
    let copied = written(consumer, &back).await - before;
    assert!(copied < DATA / 4, "{copied} bytes of {DATA} were copied");
    writes_on(consumer).await;
    consumer
        .sh(&format!(
            "kill {writer}; while kill -0 {writer} 2>/dev/null; do :; done"
        ))
        .await
        .unwrap();

    let told = told(consumer).await;
    assert!(told < DATA / 4096);
    let blocks = format!(
        "echo 3 >/proc/sys/vm/drop_caches; dd if={array} bs=4096 skip=1 count={told} 2>/dev/null | uniq | \
         awk '$0 != sprintf(\"1%014d\", NR) {{ bad = 1 }} END {{ exit bad || NR != {told} }}'"
    );
    consumer.sh(&blocks).await.unwrap();
    stop(consumer, &wanted).await;
    let mut sums = Vec::new();
    for device in [&devices[0], &back] {
        let sum = format!("dd if={device} bs=1M skip=1 count=255 2>/dev/null | sha256sum");
        sums.push(consumer.sh(&sum).await.unwrap());
    }
    assert_eq!(sums[0], sums[1]);
    for (leg, number) in legs.iter().zip([1, 2]) {
        disconnect(rack.guest(0), leg.nqn()).await;
        export(rack.guest(number), &[]).await;
    }
    assert_eq!(connections(rack.guest(0)).await, []);
    nothing_is_left(rack.guest(0)).await;
}
