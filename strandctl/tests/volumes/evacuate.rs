//! A drive is emptied while volumes on it are used, and while whoever does it is killed.

use crate::bytes;
use crate::calls::{Calls, From, Kind, Made};
use crate::rack::{Rack, entries, until};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use strand_api::{Drive, DriveOperation, OperationPhase, PoolSnapshot, PoolVolume};

const BYTES: usize = 48 << 20;

async fn cordon(rack: &Rack, drive: &str, cordon: bool) {
    let patch = Patch::Merge(json!({"spec": {"cordon": cordon}}));
    let drives: Api<Drive> = Api::all(rack.client().await);
    let patched = drives.patch(drive, &PatchParams::default(), &patch).await;
    patched.unwrap();
}

/// The drive that a volume's bytes lie on, unless they are on their way.
async fn drive_of(rack: &Rack, volume: &Made) -> Option<String> {
    let volumes: Api<PoolVolume> = Api::all(rack.client().await);
    let legs = volumes.get(&volume.id).await.unwrap().spec.legs;
    let settled = legs.iter().filter(|leg| leg.moving.is_none());
    settled.map(|leg| leg.drive.clone()).next()
}

async fn told(rack: &Rack) -> (Option<OperationPhase>, String) {
    let operation = rack.all::<DriveOperation>().await.pop().unwrap();
    let status = operation.status.unwrap_or_default();
    (status.phase, status.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_is_emptied_under_use_and_kills_and_nothing_is_lost() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "2", "--drive-size", "10Gi"]);
    let drives = rack.all::<Drive>().await;
    let name = |n: usize| drives[n].metadata.name.clone().unwrap();
    let (old, new) = (name(0), name(1));
    cordon(&rack, &new, true).await;
    let calls = Calls::to(&rack);
    let mut volumes = Vec::new();
    for (seed, kind) in [(0, Kind::Xfs), (1, Kind::Block), (2, Kind::Ext4)] {
        let name = format!("v{seed}");
        let volume = calls.create(&name, kind, 320, &[], From::Nothing).await;
        bytes::write(&calls.mount(&volume).await, seed, BYTES).unwrap();
        assert_eq!(drive_of(&rack, &volume).await.as_ref(), Some(&old));
        volumes.push(volume);
    }
    let [xfs, block, ext4] = &volumes[..] else {
        unreachable!()
    };
    // One stays attached, one is attached again in the middle.
    calls.unmount(xfs).await;
    calls.unmount(ext4).await;
    let snapshot = calls.snapshot(xfs, "s").await;
    cordon(&rack, &new, false).await;

    let (done, said) = rack.strandctl(&["drive", "evacuate", &old, "--rate", "16Mi"]);
    assert!(done, "{said}");
    until("a copy is under way", async || {
        rack.strandctl(&["volumes", "list"]).1.contains(" -> ")
    })
    .await;
    until("it is told", async || {
        let (_, said) = rack.strandctl(&["drives"]);
        said.contains("Cordoned, Evacuating")
    })
    .await;
    rack.kill(rack.node().pid).await;
    // Whoever wants a volume gets it, wherever it is just then.
    let file = calls.mount(ext4).await;
    bytes::check(&file, 2, BYTES);
    bytes::write(&file, 3, BYTES).unwrap();
    rack.kill(rack.node().pid).await;
    calls.unmount(ext4).await;
    // What comes new does not go there.
    let fresh = calls
        .create("fresh", Kind::Block, 16, &[], From::Nothing)
        .await;
    assert_eq!(drive_of(&rack, &fresh).await.as_ref(), Some(&new));

    until("all but the attached volume has moved", async || {
        let (phase, message) = told(&rack).await;
        assert_eq!(phase, Some(OperationPhase::Running), "{message}");
        let moved = [drive_of(&rack, xfs).await, drive_of(&rack, ext4).await];
        let snapshots = rack.all::<PoolSnapshot>().await;
        snapshots[0].spec.legs[0].drive == new
            && moved.iter().all(|drive| drive.as_ref() == Some(&new))
            && message.contains("volume v1 is attached to node")
    })
    .await;
    assert_eq!(drive_of(&rack, block).await.as_ref(), Some(&old));
    calls.unmount(block).await;
    let (done, said) = rack.strandctl(&["drive", "evacuate", &old, "--wait"]);
    assert!(done && said.contains("holds no leg any more"), "{said}");
    let id = drives[0].status.as_ref().unwrap().label.as_ref().unwrap();
    let side = rack.path("nodes/node-1/volumes").join(&id.drive_id);
    assert_eq!(
        entries(&side.join("legs")),
        Vec::<std::path::PathBuf>::new()
    );

    for (volume, seed) in [(xfs, 0), (block, 1), (ext4, 3)] {
        bytes::check(&calls.mount(volume).await, seed, BYTES);
        calls.unmount(volume).await;
    }
    let from = From::Snapshot(&snapshot);
    let clone = calls.create("clone", Kind::Xfs, 320, &[], from).await;
    bytes::check(&calls.mount(&clone).await, 0, BYTES);
    calls.unmount(&clone).await;
    for volume in volumes.iter().chain([&fresh, &clone]) {
        calls.delete(volume).await;
    }
    calls.delete_snapshot(&snapshot).await;
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
