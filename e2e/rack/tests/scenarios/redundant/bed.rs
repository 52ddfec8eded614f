//! A rack with one volume of several legs.

use kube::api::PostParams;
use serde_json::{Value, json};
use strand_api::{DrivePhase, LackPhase, PlacedLeg, PoolVolume, VolumePhase};
use strand_rack_bed::{Cluster, DrivePlan, Guest, Rack, wait};

use crate::remote::bed::{ADOPTION, VOLUME, device, granted, volumes};
pub use crate::remote::bed::{
    SOON, acknowledged, intact, kill_agent, longest_stall, more_written, mount, nothing_left,
    restart_agent, start_writing, stop_writing, unmount, wish,
};

/// In which writes have to go on after a leg was lost, in seconds of the writer's machine.
pub const STALL: f64 = 10.0;

/// Bytes of a drive.
const DRIVE: u64 = 2 << 30;

/// Machines with so many drives each, all in a pool, and a volume of this redundancy over them.
pub async fn rack(name: &str, drives: &[usize], redundancy: &str) -> (Rack, Cluster) {
    rack_of(name, drives, DRIVE, redundancy).await
}

/// The same, with drives of so many bytes.
pub async fn rack_of(
    name: &str,
    drives: &[usize],
    bytes: u64,
    redundancy: &str,
) -> (Rack, Cluster) {
    let (rack, cluster) = machines_of(name, drives, bytes).await;
    make(&cluster, VOLUME, redundancy).await;
    (rack, cluster)
}

/// Machines with so many drives each, all in a pool.
pub async fn machines(name: &str, drives: &[usize]) -> (Rack, Cluster) {
    machines_of(name, drives, DRIVE).await
}

async fn machines_of(name: &str, drives: &[usize], bytes: u64) -> (Rack, Cluster) {
    let plans: Vec<Vec<DrivePlan>> = drives
        .iter()
        .enumerate()
        .map(|(machine, drives)| {
            let plan = |drive| DrivePlan {
                bytes,
                ..DrivePlan::new(format!("G{}D{drive}", machine + 1))
            };
            (0..*drives).map(plan).collect()
        })
        .collect();
    let rack = Rack::boot(name, &plans).await.unwrap();
    let cluster = Cluster::start(&rack).await.unwrap();
    let spec = json!({"drives": {"models": ["*"]}, "carve": {"contextMemory": "20%"}});
    cluster.pool("default", spec).await.unwrap();
    for guest in rack.guests() {
        start(&cluster, guest).await;
    }
    let ready = |drive: &strand_api::Drive| {
        drive.status.as_ref().and_then(|s| s.phase) == Some(DrivePhase::Ready)
    };
    let all: usize = drives.iter().sum();
    cluster
        .drives("the drives are Ready", ADOPTION, |drives| {
            drives.len() == all && drives.iter().all(ready)
        })
        .await
        .unwrap();
    (rack, cluster)
}

/// Makes a volume, and waits until it is Ready.
pub async fn make(cluster: &Cluster, name: &str, redundancy: &str) {
    let volume = serde_json::from_value(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": name},
        "spec": {"pool": "default", "size": "512Mi", "volumeMode": "Filesystem", "redundancy": redundancy},
    }));
    volumes(cluster)
        .create(&PostParams::default(), &volume.unwrap())
        .await
        .unwrap();
    until_of(cluster, name, "the volume is Ready", |volume| {
        phase(volume) == Some(VolumePhase::Ready)
    })
    .await;
}

/// Starts a machine's agent, and loads what arrays need there.
pub async fn start(cluster: &Cluster, guest: &Guest) {
    load(guest).await;
    cluster.start_agent_with_volumes(guest).await.unwrap();
}

/// The same, with the agent of an earlier version.
pub async fn start_previous(cluster: &Cluster, guest: &Guest) {
    load(guest).await;
    let started = cluster.start_previous_agent_with_volumes(guest).await;
    started.unwrap();
}

async fn load(guest: &Guest) {
    let modules = "for module in raid0 raid1 raid456; do modprobe $module || exit 1; done";
    guest.sh(modules).await.unwrap();
}

/// Waits until the volume is so.
pub async fn until(
    cluster: &Cluster,
    what: &str,
    look: impl Fn(&PoolVolume) -> bool,
) -> PoolVolume {
    until_of(cluster, VOLUME, what, look).await
}

/// The same, of another volume.
pub async fn until_of(
    cluster: &Cluster,
    volume: &str,
    what: &str,
    look: impl Fn(&PoolVolume) -> bool,
) -> PoolVolume {
    wait::until(&format!("{volume}: {what}"), 2 * SOON, || async {
        let volume = volumes(cluster)
            .get(volume)
            .await
            .map_err(|e| e.to_string())?;
        match look(&volume) {
            true => Ok(volume),
            false => Err(words(&volume)),
        }
    })
    .await
    .unwrap()
}

fn words(volume: &PoolVolume) -> String {
    let Value::Object(mut all) = json!(volume) else {
        return String::new();
    };
    all.remove("metadata");
    Value::Object(all).to_string()
}

pub fn phase(volume: &PoolVolume) -> Option<VolumePhase> {
    volume.status.as_ref().and_then(|status| status.phase)
}

/// Every leg that is recorded holds every acknowledged byte, and there are no others.
pub fn is_whole(volume: &PoolVolume) -> bool {
    phase(volume) == Some(VolumePhase::Ready)
        && volume.spec.legs.iter().all(|leg| leg.lack.is_none())
}

/// The leg on a machine.
pub fn leg_on<'a>(volume: &'a PoolVolume, guest: &Guest) -> Option<&'a PlacedLeg> {
    volume
        .spec
        .legs
        .iter()
        .find(|leg| leg.node_name == guest.name())
}

/// Whether a machine's leg is recorded as lacking writes, in this phase.
pub fn lacks(volume: &PoolVolume, guest: &Guest, phase: LackPhase) -> bool {
    let lack = leg_on(volume, guest).and_then(|leg| leg.lack.as_ref());
    lack.is_some_and(|lack| lack.phase == phase)
}

/// The array, as soon as a machine has it.
pub async fn attached(cluster: &Cluster, guest: &Guest) -> String {
    let at = device(guest, granted(cluster, guest).await, false).await;
    let name = guest.sh(&format!("readlink -f {at}")).await.unwrap();
    name.trim().to_owned()
}

/// How many sectors of an array differ between its legs, or from what their parity says.
pub async fn differing(guest: &Guest, array: &str) -> u64 {
    let md = format!("/sys/block/{}/md", array.trim_start_matches("/dev/"));
    let compare = format!("echo check >{md}/sync_action");
    guest.sh(&compare).await.unwrap();
    let idle = format!("grep -q idle {md}/sync_action && cat {md}/mismatch_cnt");
    let differing = guest.until("the legs are compared", SOON, &idle).await;
    differing.unwrap().trim().parse().unwrap()
}
