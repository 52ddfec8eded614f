//! Four machines with a drive each, and a fifth that writes to four volumes.

use strand_api::PoolVolume;
use strand_rack_bed::{Cluster, Guest, Rack};

use crate::redundant::bed::{is_whole, machines, make, until_of};
use crate::remote::bed::{
    Use, acknowledged, intact, longest_stall, more_written, mount, nothing_left, start_writing,
    stop_writing, unmount, volumes, wish_of,
};

/// The machine that writes.
pub const WRITER: usize = 4;
/// The volumes; each is called as its redundancy.
pub const ALL: [&str; 4] = ["none", "stripe", "mirror", "raid6"];
/// Those that outlive a loss.
pub const REDUNDANT: [&str; 2] = ["mirror", "raid6"];

/// The rack, with these volumes mounted and written to by the last machine.
pub async fn rack(name: &str, volumes: &[&str]) -> (Rack, Cluster) {
    let (rack, cluster) = machines(name, &[1, 1, 1, 1, 0]).await;
    for volume in volumes {
        make(&cluster, volume, volume).await;
        wish_of(&cluster, volume, &[rack.guest(WRITER)], false).await;
    }
    have(&cluster, rack.guest(WRITER), volumes, true).await;
    write(rack.guest(WRITER), volumes).await;
    (rack, cluster)
}

/// Has a machine mount volumes that it is granted; with new file systems, where that is asked for.
pub async fn have(cluster: &Cluster, guest: &Guest, volumes: &[&str], make: bool) {
    for volume in volumes {
        mount(cluster, Use { guest, volume }, make).await;
    }
}

/// Starts to write to volumes.
pub async fn write(guest: &Guest, volumes: &[&str]) {
    for volume in volumes {
        start_writing(Use { guest, volume }).await;
    }
}

/// All of these are written to.
pub async fn go_on(guest: &Guest, volumes: &[&str]) {
    for volume in volumes {
        more_written(Use { guest, volume }, 3).await;
    }
}

/// Every leg of these volumes holds every acknowledged byte, and they are written to.
pub async fn whole(cluster: &Cluster, writer: &Guest, volumes: &[&str]) {
    for volume in volumes {
        until_of(cluster, volume, "it is whole", is_whole).await;
    }
    go_on(writer, volumes).await;
}

/// What has been seen of the longest stall of these volumes since the last time, in seconds.
pub async fn stalls(guest: &Guest, volumes: &[&str]) -> f64 {
    let mut most = 0.0_f64;
    for volume in volumes {
        most = most.max(longest_stall(Use { guest, volume }).await);
        // The last line stays: a stall that goes on just now counts in what comes.
        let script = format!(
            "cd /run; tail -n 1 {volume}.times >{volume}.last; cat {volume}.last >{volume}.times"
        );
        guest.sh(&script).await.unwrap();
    }
    most
}

/// A volume as it is recorded.
pub async fn volume(cluster: &Cluster, name: &str) -> PoolVolume {
    volumes(cluster).get(name).await.unwrap()
}

/// The sums of the newest acknowledged files of these volumes.
pub async fn sums(guest: &Guest, volumes: &[&str]) -> String {
    let mut sums = Vec::new();
    for volume in volumes {
        sums.push(acknowledged(Use { guest, volume }).await);
    }
    sums.join("\n")
}

/// Ends the writing, in which no write failed; every acknowledged byte is there; the volumes are given back.
pub async fn end(rack: &Rack, cluster: &Cluster, volumes: &[&str]) {
    let guest = rack.guest(WRITER);
    for volume in volumes {
        stop_writing(Use { guest, volume }).await;
    }
    intact(guest, &sums(guest, volumes).await).await;
    for volume in volumes {
        unmount(Use { guest, volume }).await;
        wish_of(cluster, volume, &[], false).await;
    }
    nothing_left(rack, cluster).await;
}
