//! A consumer that dies, and links that are cut.

use strand_api::LackPhase;

use super::bed::{
    STALL, acknowledged, intact, is_whole, lacks, longest_stall, more_written, mount, nothing_left,
    rack, start, start_writing, stop_writing, unmount, until, wish,
};

/// In which a volume has to be writable on another machine once it was taken from one that died, by the clock of the machines.
const MOVED: f64 = 30.0;

/// The link between a writer and the node of a leg is cut, not those to the API: writes go on within 10 s, and the leg comes back with the
/// link. Then the writer dies: the volume is taken from it and goes to another machine, one that holds a leg, within 30 s; every
/// acknowledged byte is there, and it is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn it_outlives_a_cut_link_and_follows_from_a_consumer_that_died() {
    let (mut rack, cluster) = rack("mirror-moved", &[1, 1, 0], "mirror").await;
    let writer = rack.guest(2);
    wish(&cluster, &[writer], false).await;
    mount(&cluster, writer, true).await;
    start_writing(writer).await;

    rack.network().partition(&[2], &[0]);
    let cut_off = rack.guest(0);
    until(&cluster, "the leg is recorded out", |volume| {
        lacks(volume, cut_off, LackPhase::Out)
    })
    .await;
    more_written(writer, 5).await;
    rack.network().heal();
    until(&cluster, "the volume is whole again", is_whole).await;
    more_written(writer, 5).await;
    let stall = longest_stall(writer).await;
    println!("longest stall of writes to a mirror when a link was cut: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");

    let sums = acknowledged(writer).await;
    rack.guest_mut(2).cut_power();
    let next = rack.guest(0);
    let uptime = async || -> f64 {
        let said = next.sh("cut -d ' ' -f 1 /proc/uptime").await;
        said.unwrap().trim().parse().unwrap()
    };
    let begun = uptime().await;
    wish(&cluster, &[next], false).await;
    mount(&cluster, next, false).await;
    next.sh("echo >/mnt/v/again && sync").await.unwrap();
    let took = uptime().await - begun;
    println!("a mirror was moved after the death of its consumer: {took:.1} s");
    assert!(took <= MOVED, "{took} s");
    intact(next, &sums).await;
    until(&cluster, "the volume is whole", is_whole).await;
    start_writing(next).await;
    stop_writing(next).await;
    intact(next, &acknowledged(next).await).await;
    unmount(next).await;

    rack.guest_mut(2).power_on().await.unwrap();
    start(&cluster, rack.guest(2)).await;
    wish(&cluster, &[], false).await;
    nothing_left(&rack, &cluster).await;
}
