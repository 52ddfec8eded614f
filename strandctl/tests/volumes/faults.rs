//! A drive that fails, and a drive that is full: the volumes on it say so, those on others go on, and it comes back.

use crate::bytes;
use crate::calls::{Calls, From, Kind, Made};
use crate::faulty::FaultyDrive;
use crate::rack::{Rack, until};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use std::fs;
use std::path::Path;
use strand_api::{Drive, DrivePhase, PoolLeg, PoolVolume, condition, names};
use strand_csi::v1::{ControllerGetVolumeRequest, NodeGetVolumeStatsRequest};

const BYTES: usize = 4 << 20;

/// Name of the object of a drive that the node has under a serial.
fn drive(serial: &str) -> String {
    names::drive_name("node-1", "strand stand-in", serial, 1)
}

async fn drive_of(rack: &Rack, volume: &Made) -> String {
    let volumes = rack.all::<PoolVolume>().await;
    let found = volumes.iter().find(|found| found.name_any() == volume.id);
    found.unwrap().spec.legs[0].drive.clone()
}

/// A volume on that drive, and one on another; what else it takes to get there is deleted.
async fn one_there_and_one_elsewhere(
    rack: &Rack,
    calls: &Calls,
    there: &str,
    parameters: &[(&str, &str)],
) -> (Made, Made) {
    let (mut on, mut off, mut rest) = (None, None, Vec::new());
    for number in 0..8 {
        let name = format!("v{number}");
        let volume = calls
            .create(&name, Kind::Xfs, 300, parameters, From::Nothing)
            .await;
        let slot = match drive_of(rack, &volume).await == there {
            true => &mut on,
            false => &mut off,
        };
        rest.extend(slot.replace(volume));
        if on.is_some() && off.is_some() {
            break;
        }
    }
    for volume in &rest {
        calls.delete(volume).await;
    }
    (on.expect("one there"), off.expect("one elsewhere"))
}

/// What is said of a volume's health: by its object, by its leg's object, by the controller, and by the node about what is mounted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    volume: String,
    leg: String,
    controller_abnormal: bool,
    node_abnormal: bool,
}

async fn said(rack: &Rack, calls: &Calls, volume: &Made) -> Said {
    let reason = |conditions: &[condition::Condition]| {
        let healthy = condition::find(conditions, names::HEALTHY);
        let ill = healthy.filter(|healthy| healthy.status == "False");
        ill.map_or_else(String::new, |ill| ill.reason.clone())
    };
    let volumes = rack.all::<PoolVolume>().await;
    let object = volumes.iter().find(|found| found.name_any() == volume.id);
    let legs = rack.all::<PoolLeg>().await;
    let leg = legs.iter().find(|leg| leg.spec.volume == volume.id);
    let request = ControllerGetVolumeRequest {
        volume_id: volume.id.clone(),
    };
    let told = calls.controller().controller_get_volume(request).await;
    let told = told.unwrap().into_inner().status.unwrap();
    let request = NodeGetVolumeStatsRequest {
        volume_id: volume.id.clone(),
        volume_path: calls.target(&volume.id).to_str().unwrap().into(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = calls.on_node().node_get_volume_stats(request).await;
    let node = stats.unwrap().into_inner().volume_condition.unwrap();
    Said {
        volume: reason(&object.unwrap().status.clone().unwrap().conditions),
        leg: reason(&leg.unwrap().status.clone().unwrap().conditions),
        controller_abnormal: told.volume_condition.unwrap().abnormal,
        node_abnormal: node.abnormal,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_fails_harms_no_other_and_comes_back_when_it_is_well() {
    // Gone after the rack.
    let faulty = FaultyDrive::new(4 << 30);
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "4Gi"]);
    let plugged = rack.path("nodes/node-1/drives/faulty.img");
    std::os::unix::fs::symlink(faulty.path(), plugged).unwrap();
    let failing = drive("faulty");
    until("the drive serves", async || {
        let drives = rack.all::<Drive>().await;
        let found = drives.iter().find(|found| found.name_any() == failing);
        let status = found.and_then(|found| found.status.clone());
        status.is_some_and(|s| {
            s.phase == Some(DrivePhase::Ready) && s.partitions.iter().any(|p| p.usable.is_some())
        })
    })
    .await;
    let calls = Calls::to(&rack);
    let (ill, well) = one_there_and_one_elsewhere(&rack, &calls, &failing, &[]).await;
    let (at_ill, at_well) = (calls.mount(&ill).await, calls.mount(&well).await);
    bytes::write(&at_ill, 1, BYTES).unwrap();
    bytes::write(&at_well, 2, BYTES).unwrap();
    let agent = rack.node().pid;

    faulty.fail(true);
    let beside = at_ill.with_file_name("beside");
    bytes::write(&beside, 3, BYTES).expect_err("written to a drive that fails");
    until("the volume says so", async || {
        let said = said(&rack, &calls, &ill).await;
        let told = ["DriveFailed", "FileSystemShutDown", "ReadOnly"].contains(&&*said.leg);
        told && said.volume == said.leg && said.controller_abnormal && said.node_abnormal
    })
    .await;
    until("there is an event", async || {
        let about = |event: &Event| {
            let of = event.regarding.as_ref().and_then(|of| of.name.clone());
            let of = of.unwrap_or_default();
            event.type_.as_deref() == Some("Warning") && of.starts_with(&ill.id)
        };
        rack.all::<Event>().await.iter().any(about)
    })
    .await;
    bytes::write(&at_well, 4, BYTES).unwrap();
    assert_eq!(said(&rack, &calls, &well).await, Said::default());
    let another = calls.create("another", Kind::Ext4, 32, &[], From::Nothing);
    let another = another.await;
    assert_ne!(drive_of(&rack, &another).await, failing, "a new volume");
    calls.delete(&another).await;

    // Its pod ends while the drive fails.
    calls.unmount(&ill).await;
    assert_eq!(rack.node().pid, agent, "the agent was started again");

    faulty.fail(false);
    until("the volume is well again", async || {
        let legs = rack.all::<PoolLeg>().await;
        let leg = legs.iter().find(|leg| leg.spec.volume == ill.id).unwrap();
        leg.status.as_ref().unwrap().conditions.is_empty()
    })
    .await;
    bytes::check(&calls.mount(&ill).await, 1, BYTES);
    bytes::write(&at_ill, 5, BYTES).unwrap();
    // What context memory counts against a drive stays until its agent starts anew.
    rack.kill(rack.node().pid).await;
    until("nothing is said of the drive any more", async || {
        said(&rack, &calls, &ill).await == Said::default()
    })
    .await;
    bytes::check(&at_well, 4, BYTES);
    for volume in [&ill, &well] {
        calls.unmount(volume).await;
        calls.delete(volume).await;
    }
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

/// Writes until that fails; how many MiB were durable.
fn fill(at: &Path) -> usize {
    let mut durable = 0;
    let device = fs::File::options().write(true).open(at).unwrap();
    loop {
        let put = std::os::unix::fs::FileExt::write_all_at(
            &device,
            &bytes::of(durable as u64, 1 << 20),
            (durable as u64) << 20,
        );
        if put.and_then(|()| device.sync_data()).is_err() {
            return durable;
        }
        durable += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_drive_that_is_full_says_so_and_has_room_again_once_something_is_deleted() {
    let mut rack = Rack::new();
    let manifest = rack.beside("pool.yaml");
    fs::write(&manifest, MANIFEST).unwrap();
    let manifest = manifest.to_str().unwrap();
    rack.up(&[
        "--drives",
        "2",
        "--drive-size",
        "800Mi",
        "--manifest",
        manifest,
    ]);
    let calls = Calls::to(&rack);
    let thin = [("provisioning", "thin")];
    let first = calls.create("first", Kind::Block, 400, &thin, From::Nothing);
    let first = first.await;
    let full = drive_of(&rack, &first).await;
    let second = calls.create("second", Kind::Block, 400, &thin, From::Nothing);
    let second = second.await;
    assert_eq!(drive_of(&rack, &second).await, full);
    let other = calls.create("other", Kind::Xfs, 320, &[], From::Nothing);
    let other = other.await;
    assert_ne!(drive_of(&rack, &other).await, full);

    let at = [calls.mount(&first).await, calls.mount(&second).await];
    let at_other = calls.mount(&other).await;
    let durable = [fill(&at[0]), fill(&at[1])];
    assert!(
        durable[0] == 400 && (1..400).contains(&durable[1]),
        "{durable:?}"
    );
    for volume in [&first, &second] {
        until("the volume says that its drive is full", async || {
            let said = said(&rack, &calls, volume).await;
            said.leg == "DriveFull" && said.volume == "DriveFull" && said.controller_abnormal
        })
        .await;
    }
    bytes::write(&at_other, 1, BYTES).unwrap();
    assert_eq!(said(&rack, &calls, &other).await, Said::default());
    let refused = calls.refused_volume("third", 32, &thin).await;
    assert_eq!(refused, tonic::Code::ResourceExhausted);
    whole(&at[0], durable[0]);
    whole(&at[1], durable[1]);

    // Room comes back by deleting, and only what was deleted is gone.
    calls.unmount(&first).await;
    calls.delete(&first).await;
    until("the volume is well again", async || {
        said(&rack, &calls, &second).await == Said::default()
    })
    .await;
    assert_eq!(fill(&at[1]), 400);
    whole(&at[1], 400);
    bytes::check(&at_other, 1, BYTES);
    for volume in [&second, &other] {
        calls.unmount(volume).await;
        calls.delete(volume).await;
    }
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

/// A pool whose drives are nearly all storage.
const MANIFEST: &str = "\
apiVersion: strand.dev/v1alpha1
kind: MemoryPool
metadata:
  name: default
spec:
  drives:
    models: [\"*\"]
  carve:
    contextMemory: 64Mi
";

/// Every one of the MiB that `fill` wrote.
fn whole(at: &Path, mib: usize) {
    let device = fs::File::open(at).unwrap();
    let mut found = vec![0; 1 << 20];
    for number in 0..mib as u64 {
        std::os::unix::fs::FileExt::read_exact_at(&device, &mut found, number << 20).unwrap();
        assert!(found == bytes::of(number, 1 << 20), "MiB {number}");
    }
}
