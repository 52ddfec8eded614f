//! A thick drive, full: whoever has a volume on it can write every block of it.

use crate::bytes;
use crate::calls::{Calls, From, Kind};
use crate::rack::Rack;
use std::fs;

const BYTES: usize = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_is_rewritten_on_a_thick_drive_that_copies_of_it_have_filled() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "1500Mi"]);
    let calls = Calls::to(&rack);
    let origin = calls.create("origin", Kind::Ext4, 64, &[], From::Nothing);
    let origin = origin.await;
    let at = calls.mount(&origin).await;
    bytes::write(&at, 1, BYTES).unwrap();
    let (mut snapshots, mut clones) = (Vec::new(), Vec::new());
    // The last fits no more.
    while calls.room().await >= 64 << 20 {
        let name = format!("x{}", snapshots.len() + clones.len());
        match snapshots.len() > clones.len() {
            false => snapshots.push(calls.snapshot(&origin, &name).await),
            true => {
                let from = From::Volume(&origin.id);
                clones.push(calls.create(&name, Kind::Ext4, 64, &[], from).await);
            }
        }
    }
    assert!(clones.len() > 1, "{clones:?}");
    assert_eq!(
        calls.refused_volume("none", 64, &[]).await,
        tonic::Code::ResourceExhausted
    );

    bytes::write(&at, 2, BYTES).unwrap();
    for (number, clone) in clones.iter().enumerate() {
        let at = calls.mount(clone).await;
        bytes::check(&at, 1, BYTES);
        bytes::write(&at, 3 + number as u64, BYTES).unwrap();
    }
    for (number, clone) in clones.iter().enumerate() {
        bytes::check(
            &Kind::Ext4.file(&calls.target(&clone.id)),
            3 + number as u64,
            BYTES,
        );
        calls.unmount(clone).await;
        calls.delete(clone).await;
    }
    calls.unmount(&origin).await;
    bytes::check(&calls.mount(&origin).await, 2, BYTES);
    fs::remove_file(&at).unwrap();
    // There is room for one again.
    let from = From::Snapshot(&snapshots[0]);
    let restored = calls.create("restored", Kind::Ext4, 64, &[], from).await;
    bytes::check(&calls.mount(&restored).await, 1, BYTES);
    for volume in [&restored, &origin] {
        calls.unmount(volume).await;
        calls.delete(volume).await;
    }
    for snapshot in &snapshots {
        calls.delete_snapshot(snapshot).await;
    }
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
