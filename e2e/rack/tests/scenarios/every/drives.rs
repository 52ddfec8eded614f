//! A drive that is lost in a pool that is full.

use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use strand_api::{
    Drive, DriveOperationSpec, DrivePhase, OperationPhase, OperationType, PoolVolume, VolumePhase,
    condition,
};
use strand_rack_bed::{Cluster, DrivePlan};

use super::bed::{REDUNDANT, WRITER, end, go_on, rack, stalls, volume, whole};
use crate::redundant::bed::{STALL, phase, until_of};
use crate::remote::bed::{SOON, volumes};

/// A pool is filled until it refuses a volume and says why; what is there is written to all the while. Then the drive of a mirror's leg, which
/// also has one of a raid6, is pulled out: both go on, and say that no other drive has room; a volume that had nothing else says which drive
/// it lacks. A bigger drive is plugged in: both are rebuilt on it, and the first one is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_drive_of_a_full_pool_is_replaced_by_a_bigger_one() {
    let (mut rack, cluster) = rack("every-drives", &REDUNDANT).await;
    let fillers = fill(&cluster).await;
    go_on(rack.guest(WRITER), &REDUNDANT).await;

    // A drive on which one of the volumes lies that have one leg alone.
    let mut lost = None;
    for leg in volume(&cluster, "mirror").await.spec.legs {
        for filler in &fillers {
            let only = &volume(&cluster, filler).await.spec.legs[0];
            if only.drive == leg.drive {
                lost = Some((leg.clone(), filler.clone()));
            }
        }
    }
    let (leg, filler) = lost.unwrap();
    let drives: Api<Drive> = Api::all(cluster.client().clone());
    let drive = drives.get(&leg.drive).await.unwrap();
    let serial = drive.status.unwrap().identity.unwrap().serial;
    let machine = rack
        .guests()
        .iter()
        .position(|g| g.name() == leg.node_name)
        .unwrap();
    stalls(rack.guest(WRITER), &REDUNDANT).await;
    rack.guest_mut(machine).pull(&serial).await.unwrap();
    for name in REDUNDANT {
        until_of(&cluster, name, "no other takes the leg's place", |volume| {
            says(volume, "Degraded", "True", "no other takes its place")
        })
        .await;
    }
    until_of(
        &cluster,
        &filler,
        "it says which drive it lacks",
        |volume| says(volume, "Healthy", "False", &leg.drive),
    )
    .await;
    let writer = rack.guest(WRITER);
    go_on(writer, &REDUNDANT).await;
    let stall = stalls(writer, &REDUNDANT).await;
    println!("longest stall of mirror and raid6 when a drive was pulled: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");

    let bigger = DrivePlan {
        bytes: 4 << 30,
        ..DrivePlan::new("BIGGER")
    };
    rack.guest_mut(machine).plug_in(&bigger).await.unwrap();
    whole(&cluster, rack.guest(WRITER), &REDUNDANT).await;
    for name in REDUNDANT {
        let volume = volume(&cluster, name).await;
        assert!(
            volume.spec.legs.iter().all(|now| now.drive != leg.drive),
            "{name}"
        );
    }
    forget(&cluster, &leg.drive, &serial).await;
    go_on(rack.guest(WRITER), &REDUNDANT).await;
    end(&rack, &cluster, &REDUNDANT).await;
}

/// Makes volumes of one leg until one has no place, and says so; the names of those that have.
async fn fill(cluster: &Cluster) -> Vec<String> {
    let mut fillers = Vec::new();
    loop {
        let name = format!("filler-{}", fillers.len());
        let made = serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": name},
            "spec": {"pool": "default", "size": "200Mi", "volumeMode": "Block", "redundancy": "none"},
        }));
        let api = volumes(cluster);
        api.create(&PostParams::default(), &made.unwrap())
            .await
            .unwrap();
        let settled = until_of(cluster, &name, "it is Ready or refused", |volume| {
            phase(volume) == Some(VolumePhase::Ready) || says(volume, "Ready", "False", "")
        })
        .await;
        if phase(&settled) != Some(VolumePhase::Ready) {
            let conditions = &settled.status.as_ref().unwrap().conditions;
            let told = condition::find(conditions, "Ready").unwrap();
            if told.reason == "InsufficientCapacity" {
                println!("a full pool says: {}", told.message);
                return fillers;
            }
            until_of(cluster, &name, "it is Ready", |volume| {
                phase(volume) == Some(VolumePhase::Ready)
            })
            .await;
        }
        fillers.push(name);
    }
}

/// Whether a volume has a condition whose message has these words.
fn says(volume: &PoolVolume, type_: &str, status: &str, words: &str) -> bool {
    let conditions = volume.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let told = condition::find(conditions, type_);
    told.is_some_and(|told| told.status == status && told.message.contains(words))
}

/// Has the object of a drive that is gone for good taken away.
async fn forget(cluster: &Cluster, drive: &str, serial: &str) {
    let forget = DriveOperationSpec {
        type_: OperationType::Forget,
        drive: drive.into(),
        serial: serial.into(),
        rate: None,
    };
    let done = cluster.operate("forget", forget, SOON, OperationPhase::Succeeded);
    done.await.unwrap();
    cluster
        .drives("its object is gone, the others are Ready", SOON, |drives| {
            let ready = |drive: &Drive| {
                drive.status.as_ref().and_then(|s| s.phase) == Some(DrivePhase::Ready)
            };
            drives.len() == 4 && drives.iter().all(ready)
        })
        .await
        .unwrap();
}
