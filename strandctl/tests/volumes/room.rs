//! Room: what is told of it can be had, and whoever has a volume on a thick drive that is full can write every block of it.

use crate::bytes;
use crate::calls::{Calls, From, Kind};
use crate::rack::{Rack, until};
use strand_csi::v1::{CapacityRange, ControllerExpandVolumeRequest, GetCapacityRequest};

const BYTES: usize = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_is_rewritten_on_a_thick_drive_that_copies_of_it_have_filled() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "1500Mi"]);
    let calls = Calls::to(&rack);
    let origin = calls.create("origin", Kind::Ext4, 64, &[], From::Nothing);
    let origin = origin.await;
    let at = calls.mount(&origin).await;
    let (mut snapshots, mut clones, mut seed) = (Vec::new(), Vec::new(), 0);
    // Each holds bytes that no other has. The last fits no more.
    while calls.room().await >= 64 << 20 {
        seed += 1;
        bytes::write(&at, seed, BYTES).unwrap();
        let name = format!("x{seed}");
        match snapshots.len() > clones.len() {
            false => snapshots.push((calls.snapshot(&origin, &name).await, seed)),
            true => {
                let from = From::Volume(&origin.id);
                let clone = calls.create(&name, Kind::Ext4, 64, &[], from);
                clones.push((clone.await, seed));
            }
        }
    }
    assert!(clones.len() > 1, "{clones:?}");
    assert_eq!(
        calls.refused_volume("none", 64, &[]).await,
        tonic::Code::ResourceExhausted
    );

    bytes::write(&at, 0, BYTES).unwrap();
    for (clone, seed) in &clones {
        let at = calls.mount(clone).await;
        bytes::check(&at, *seed, BYTES);
        bytes::write(&at, !seed, BYTES).unwrap();
    }
    for (clone, seed) in &clones {
        calls.unmount(clone).await;
        bytes::check(&calls.mount(clone).await, !seed, BYTES);
        calls.unmount(clone).await;
        calls.delete(clone).await;
    }
    calls.unmount(&origin).await;
    bytes::check(&calls.mount(&origin).await, 0, BYTES);
    // Where the clones were there is room for what the snapshots hold.
    for (snapshot, seed) in &snapshots[..2] {
        until("there is room", async || calls.room().await >= 64 << 20).await;
        let (name, from) = (format!("r{seed}"), From::Snapshot(snapshot));
        let restored = calls.create(&name, Kind::Ext4, 64, &[], from).await;
        bytes::check(&calls.mount(&restored).await, *seed, BYTES);
        calls.unmount(&restored).await;
        calls.delete(&restored).await;
    }
    calls.unmount(&origin).await;
    calls.delete(&origin).await;
    for (snapshot, _) in &snapshots {
        calls.delete_snapshot(snapshot).await;
    }
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_volume_that_is_told_of_fits_and_none_that_is_larger() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "2", "--drive-size", "3Gi"]);
    rack.storage_is_told().await;
    let calls = Calls::to(&rack);
    let request = GetCapacityRequest::default();
    let told = calls.controller().get_capacity(request).await;
    let told = told.unwrap().into_inner();
    let largest = told.maximum_volume_size.unwrap();
    assert!(told.available_capacity > largest, "that is a sum: {told:?}");
    let mib = largest >> 20;
    let refused = calls.refused_volume("larger", mib + 1, &[]).await;
    assert_eq!(refused, tonic::Code::ResourceExhausted);
    let mut volumes = Vec::new();
    for name in ["first", "second"] {
        let volume = calls.create(name, Kind::Block, mib, &[], From::Nothing);
        volumes.push(volume.await);
    }
    let refused = calls.refused_volume("third", mib, &[]).await;
    assert_eq!(refused, tonic::Code::ResourceExhausted);
    for volume in &volumes {
        calls.delete(volume).await;
    }
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

/// As Kubernetes recovers from a claim that asked for too much: it asks for less.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_grow_so_far_grows_less_far() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "1500Mi"]);
    let calls = Calls::to(&rack);
    let volume = calls.create("v", Kind::Xfs, 320, &[], From::Nothing).await;
    let grow = async |mib: i64| {
        let request = ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: Some(CapacityRange {
                required_bytes: mib << 20,
                limit_bytes: 0,
            }),
            ..Default::default()
        };
        let answer = calls.controller().controller_expand_volume(request).await;
        answer.map(|answer| answer.into_inner().capacity_bytes)
    };
    let too_much = grow(1 << 20).await.unwrap_err();
    assert_eq!(
        too_much.code(),
        tonic::Code::ResourceExhausted,
        "{too_much}"
    );
    assert_eq!(grow(340).await.unwrap(), 340 << 20);
    assert_eq!(grow(330).await.unwrap(), 340 << 20, "it never shrinks");
    calls.delete(&volume).await;
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
