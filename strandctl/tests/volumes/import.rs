//! An empty API server in front of drives full of volumes: nothing is deleted, and all of it can be had again.

use crate::bare::Mounted;
use crate::bytes;
use crate::calls::{Calls, From, Kind, Made};
use crate::rack::{Rack, entries, until};
use kube::Api;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use strand_api::{PoolLeg, PoolVolume};

const BYTES: usize = 8 << 20;
/// A volume of raw blocks from before records told that.
const OLD: &str = "v4";

/// What lies on the drives, by UUID and size.
fn on_drives(rack: &Rack) -> BTreeSet<(String, u64)> {
    let mut found = BTreeSet::new();
    for side in entries(&rack.path("nodes/node-1/volumes")) {
        for leg in entries(&side.join("legs")) {
            let record = fs::read(leg.join("record.json")).unwrap();
            let record: Value = serde_json::from_slice(&record).unwrap();
            let len = fs::metadata(leg.join("data")).unwrap().len();
            found.insert((record["uuid"].as_str().unwrap().to_owned(), len));
        }
    }
    found
}

/// Makes a volume's record what it was before records told what their volumes are used as.
fn forget_mode(rack: &Rack, volume: &str) {
    for drive in entries(&rack.path("nodes/node-1/drives")) {
        let side = Mounted::side(&drive);
        for leg in entries(&side.path().join("legs")) {
            let path = leg.join("record.json");
            let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            if record["volume"] == volume && record["snapshot"].is_null() {
                assert_eq!(record["mode"], "block");
                record.as_object_mut().unwrap().remove("mode");
                fs::write(&path, record.to_string()).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_lost_all_its_objects_loses_no_volume() {
    let mut rack = Rack::new();
    let drives = ["--drives", "2", "--drive-size", "10Gi"];
    rack.up(&drives);
    let calls = Calls::to(&rack);
    let thin = [("provisioning", "thin")];
    let mut volumes: Vec<(Made, u64)> = Vec::new();
    for (seed, (kind, parameters)) in [
        (Kind::Xfs, &[][..]),
        // While a drive is empty: a drive's legs are all thick or all thin.
        (Kind::Xfs, &thin),
        (Kind::Ext4, &[]),
        (Kind::Block, &[]),
        (Kind::Block, &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = seed as u64;
        let name = format!("v{seed}");
        let volume = calls.create(&name, kind, 320, parameters, From::Nothing);
        let volume = volume.await;
        bytes::write(&calls.mount(&volume).await, seed, BYTES).unwrap();
        volumes.push((volume, seed));
    }
    // A snapshot, and what was written after it.
    let (first, _) = &volumes[0];
    let snapshot = calls.snapshot(first, "s").await;
    bytes::write(&Kind::Xfs.file(&calls.target(&first.id)), 100, BYTES).unwrap();
    volumes[0].1 = 100;
    let from = From::Snapshot(&snapshot);
    let clone = calls.create("clone", Kind::Xfs, 320, &[], from).await;
    volumes.push((clone, 0));
    for (volume, _) in &volumes[..5] {
        calls.unmount(volume).await;
    }
    let before = on_drives(&rack);
    assert_eq!(before.len(), 7);
    assert!(rack.down());
    forget_mode(&rack, OLD);

    fs::remove_dir_all(rack.path("api")).unwrap();
    rack.up(&drives);
    until("all is told as orphaned", async || {
        let legs = rack.all::<PoolLeg>().await;
        legs.len() == 7 && legs.iter().all(|leg| leg.spec.orphaned)
    })
    .await;
    assert_eq!(on_drives(&rack), before);
    let (_, said) = rack.strandctl(&["volumes", "list"]);
    assert!(said.contains("7 legs without an owner"), "{said}");

    // What a record does not tell is told here.
    for arguments in [&["--block", OLD][..], &["--all", "--pv"]] {
        let (done, said) = rack.strandctl(&[&["volumes", "import"], arguments].concat());
        assert!(done, "{said}");
    }
    until("nothing is orphaned any more", async || {
        let (_, said) = rack.strandctl(&["volumes", "list"]);
        !said.contains("ORPHANED")
    })
    .await;
    let calls = Calls::to(&rack);
    let copy = From::Snapshot(&snapshot);
    let copy = calls.create("copy", Kind::Xfs, 320, &[], copy).await;
    volumes.push((copy, 0));
    for (volume, seed) in &volumes {
        let at = calls.mount(volume).await;
        bytes::check(&at, *seed, BYTES);
        bytes::write(&at, seed + 1, BYTES).unwrap();
    }
    let after = on_drives(&rack);
    assert!(before.is_subset(&after) && after.len() == 8, "{after:?}");

    // Of what is made and then loses its owner alone, only the agent has told the UUID.
    let (copy, _) = volumes.last().unwrap();
    calls.unmount(copy).await;
    let client = rack.client().await;
    let objects: Api<PoolVolume> = Api::all(client.clone());
    objects.delete(&copy.id, &Default::default()).await.unwrap();
    until("its bytes are told as orphaned", async || {
        let (_, said) = rack.strandctl(&["volumes", "list"]);
        said.contains("1 leg without an owner")
    })
    .await;
    let import = |leg: &str| rack.strandctl(&["volumes", "import", &copy.id, "--leg", leg]);
    let (done, said) = import("v0-0");
    assert!(!done && said.contains("no orphaned leg of"), "{said}");
    let legs = rack.all::<PoolLeg>().await;
    let leg = legs.iter().find(|leg| leg.spec.orphaned).unwrap();
    let (done, said) = import(leg.metadata.name.as_ref().unwrap());
    assert!(done, "{said}");
    calls.mount(copy).await;
    assert_eq!(on_drives(&rack), after);
    calls.delete_snapshot(&snapshot).await;
    for (volume, seed) in &volumes {
        calls.unmount(volume).await;
        bytes::check(&calls.mount(volume).await, seed + 1, BYTES);
        calls.unmount(volume).await;
        calls.delete(volume).await;
    }
    rack.has_nothing_of_any_volume().await;
    assert!(!Path::new(&calls.staging("v0")).exists());
    rack.ends_with_nothing_left();
}
