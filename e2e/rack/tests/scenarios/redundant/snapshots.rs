//! Snapshots of a mirror that is written to.

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use strand_api::{CheckPhase, PoolLeg, PoolSnapshot};
use strand_rack_bed::{Cluster, Guest, wait};

use super::bed::{
    SOON, acknowledged, intact, is_whole, more_written, mount, nothing_left, rack_of,
    start_writing, stop_writing, unmount, until, until_of, wish,
};
use crate::remote::bed::{Use, VOLUME, wish_of};

fn snapshots(cluster: &Cluster) -> Api<PoolSnapshot> {
    Api::all(cluster.client().clone())
}

async fn take(cluster: &Cluster, name: &str) {
    let snapshot = serde_json::from_value(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolSnapshot", "metadata": {"name": name},
        "spec": {"volume": VOLUME},
    }));
    snapshots(cluster)
        .create(&PostParams::default(), &snapshot.unwrap())
        .await
        .unwrap();
}

async fn snapshot_until(
    cluster: &Cluster,
    name: &str,
    what: &str,
    look: impl Fn(&PoolSnapshot) -> bool,
) -> PoolSnapshot {
    wait::until(&format!("{name}: {what}"), SOON, || async {
        let snapshot = snapshots(cluster).get(name).await;
        let snapshot = snapshot.map_err(|e| e.to_string())?;
        match look(&snapshot) {
            true => Ok(snapshot),
            false => Err(json!([snapshot.spec, snapshot.status]).to_string()),
        }
    })
    .await
    .unwrap()
}

fn is_ready(snapshot: &PoolSnapshot) -> bool {
    snapshot.status.as_ref().is_some_and(|s| s.ready_to_use)
}

/// Makes a volume without redundancy from a snapshot, which has every file of these sums; takes both away again.
async fn restored(cluster: &Cluster, guest: &Guest, snapshot: &str, sums: &str) {
    let name = format!("of-{snapshot}");
    let volume = serde_json::from_value(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": name},
        "spec": {"pool": "default", "size": "512Mi", "volumeMode": "Filesystem", "source": {"snapshot": snapshot}},
    }));
    let volumes = crate::remote::bed::volumes(cluster);
    let params = PostParams::default();
    volumes.create(&params, &volume.unwrap()).await.unwrap();
    wish_of(cluster, &name, &[guest], false).await;
    let at = Use {
        guest,
        volume: &name,
    };
    mount(cluster, at, false).await;
    let sums = sums.replace(&format!("/mnt/{VOLUME}/"), &format!("/mnt/{name}/"));
    intact(guest, &sums).await;
    unmount(at).await;
    wish_of(cluster, &name, &[], false).await;
    let mark = Patch::Merge(json!({"spec": {"deletionMark": true}}));
    let params = PatchParams::default();
    volumes.patch(&name, &params, &mark).await.unwrap();
    snapshots(cluster)
        .patch(snapshot, &params, &mark)
        .await
        .unwrap();
    wait::until("the snapshot and its copy are gone", SOON, || async {
        let volume = volumes.get_opt(&name).await.map_err(|e| e.to_string())?;
        let snapshot = snapshots(cluster).get_opt(snapshot).await;
        match (volume, snapshot.map_err(|e| e.to_string())?) {
            (None, None) => Ok(()),
            (volume, snapshot) => Err(json!([volume, snapshot]).to_string()),
        }
    })
    .await
    .unwrap();
}

/// A snapshot of a mirror under writes has all that was acknowledged before. Then md goes on without a leg, of which nobody hears, since its
/// agent is stopped; the next snapshot is taken of that very leg. It is not ready before the agent looks; then it is taken again, of the other
/// leg, and has what was written without the first one. Once the volume was given back in order, one is taken of it where it lies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_snapshot_has_all_that_was_acknowledged_also_while_a_leg_is_lost() {
    let (rack, cluster) = rack_of("snapshots", &[1, 1, 1, 0], 4 << 30, "mirror").await;
    wish(&cluster, &[rack.guest(3)], false).await;
    mount(&cluster, rack.guest(3), true).await;
    start_writing(rack.guest(3)).await;
    let volume = until(&cluster, "the volume is whole", is_whole).await;
    more_written(rack.guest(3), 5).await;
    let sums = acknowledged(rack.guest(3)).await;
    let began = std::time::Instant::now();
    take(&cluster, "one").await;
    snapshot_until(&cluster, "one", "is ready", is_ready).await;
    println!("a snapshot took {:.1} s", began.elapsed().as_secs_f64());
    restored(&cluster, rack.guest(0), "one", &sums).await;

    let first = &volume.spec.legs[0];
    let lose = format!(
        "kill -STOP $(pidof node-agent)
        for subsystem in /sys/class/nvme-subsystem/*; do
            grep -q {} $subsystem/subsysnqn || continue
            echo faulty >$(echo /sys/block/md*/md)/dev-$(basename $subsystem/nvme*n*)/state
        done
        dd if=/dev/urandom of=/mnt/{VOLUME}/alone bs=64k count=16 conv=fsync 2>/dev/null && sha256sum /mnt/{VOLUME}/alone",
        first.uuid.as_ref().unwrap()
    );
    let alone = rack.guest(3).sh(&lose).await.unwrap();
    take(&cluster, "two").await;
    let taken = snapshot_until(&cluster, "two", "it was taken", |snapshot| {
        let check = snapshot.spec.check.as_ref();
        check.is_some_and(|check| check.phase == CheckPhase::Looking)
    })
    .await;
    assert_eq!(taken.spec.legs[0].drive, first.drive);
    assert!(!is_ready(&taken));
    rack.guest(3)
        .sh("kill -CONT $(pidof node-agent)")
        .await
        .unwrap();
    let again = snapshot_until(&cluster, "two", "is ready", is_ready).await;
    assert_ne!(again.spec.legs[0].drive, first.drive);
    restored(&cluster, rack.guest(0), "two", &alone).await;
    until_of(&cluster, VOLUME, "the volume is whole again", is_whole).await;

    let legs: Api<PoolLeg> = Api::all(cluster.client().clone());
    wait::until("what was taken first is gone", SOON, || async {
        let legs = legs.list(&Default::default()).await;
        let mut legs = legs.map_err(|e| e.to_string())?.items;
        legs.retain(|leg| leg.spec.volume != VOLUME || leg.spec.snapshot.is_some());
        match legs.is_empty() {
            true => Ok(()),
            false => Err(json!(legs).to_string()),
        }
    })
    .await
    .unwrap();
    stop_writing(rack.guest(3)).await;
    let sums = acknowledged(rack.guest(3)).await;
    intact(rack.guest(3), &sums).await;
    unmount(rack.guest(3)).await;
    wish(&cluster, &[], false).await;
    take(&cluster, "three").await;
    snapshot_until(&cluster, "three", "is ready", is_ready).await;
    restored(&cluster, rack.guest(0), "three", &sums).await;
    nothing_left(&rack, &cluster).await;
}
