//! A machine that starts again: every process, mount and device of before is gone, and the kubelet stages its pods' volumes once more.

use crate::bytes;
use crate::calls::{Calls, From, Kind, Made};
use crate::rack::Rack;

const BYTES: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn volumes_in_use_are_there_again_after_a_reboot() {
    let mut rack = Rack::new();
    let drives = ["--drives", "2", "--drive-size", "10Gi"];
    rack.up(&drives);
    let calls = Calls::to(&rack);
    let mut volumes: Vec<Made> = Vec::new();
    for (seed, kind) in [Kind::Xfs, Kind::Ext4, Kind::Block].into_iter().enumerate() {
        let name = format!("v{seed}");
        let volume = calls.create(&name, kind, 320, &[], From::Nothing);
        volumes.push(volume.await);
        bytes::write(&calls.mount(&volumes[seed]).await, seed as u64, BYTES).unwrap();
    }
    let snapshot = calls.snapshot(&volumes[0], "s").await;
    let file = Kind::Xfs.file(&calls.target(&volumes[0].id));
    bytes::write(&file, 100, BYTES).unwrap();

    rack.reboot(&drives);
    let calls = Calls::to(&rack);
    for (volume, seed) in volumes.iter().zip([100, 1, 2]) {
        let at = calls.mount(volume).await;
        bytes::check(&at, seed, BYTES);
        bytes::write(&at, seed + 1, BYTES).unwrap();
        calls.unmount(volume).await;
        bytes::check(&calls.mount(volume).await, seed + 1, BYTES);
    }
    let copy = From::Snapshot(&snapshot);
    let copy = calls.create("copy", Kind::Xfs, 320, &[], copy).await;
    bytes::check(&calls.mount(&copy).await, 0, BYTES);
    volumes.push(copy);
    calls.delete_snapshot(&snapshot).await;
    for volume in &volumes {
        calls.unmount(volume).await;
        calls.delete(volume).await;
    }
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
