//! Scratch space of pods on a node's drives. Needs root.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use node_agent::volumes::{AttachError, ScratchRequest};
use strand_api::{LegPhase, PartitionRole};
use strand_volumes::Throttle;

use crate::bed::{Cluster, POOL, Running, until};
use crate::volumes::{Ground, agent_with, ask, phase, spec, taken, volumes};

const MIB: u64 = 1 << 20;
const ID: &str = "csi-0a5d1de62b0c4c2d9d2e5a1d3f0b7c110a5d1de62b0c4c2d9d2e5a1d3f0b7c11";

fn space(size: u64) -> ScratchRequest {
    ScratchRequest {
        pool: POOL.into(),
        size,
        target: PathBuf::from("/pods/a/mount"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch_space_counts_is_found_again_and_is_no_orphan() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent_with(&cluster, &ground, Throttle::ROOT.as_ref());
    let drive = ground.plug("S1");
    let usable = taken(&cluster, &drive).await;
    let other = volumes(&agent).scratch(
        "other",
        ScratchRequest {
            pool: "other".into(),
            ..space(MIB)
        },
    );
    let refused = other.await.unwrap_err();
    assert!(matches!(refused, AttachError::NoRoom { .. }), "{refused}");
    let made = volumes(&agent).scratch(ID, space(300 * MIB)).await.unwrap();
    let again = volumes(&agent).scratch(ID, space(300 * MIB)).await.unwrap();
    assert_eq!(made, again);
    let told = cluster
        .when(&drive, "told with less room", |status| {
            let storage = |p: &&strand_api::PartitionStatus| p.role == PartitionRole::Storage;
            let storage = status.partitions.iter().find(storage);
            storage
                .and_then(|p| p.usable)
                .is_some_and(|bytes| bytes.0 < usable)
        })
        .await;
    assert!(told.status.is_some());

    // Neither volumes nor other scratch space get what is taken.
    let full = volumes(&agent)
        .scratch("more", space(300 * MIB))
        .await
        .unwrap_err();
    assert!(matches!(full, AttachError::NoRoom { .. }), "{full}");
    assert!(full.to_string().contains("the largest that fits"), "{full}");
    ask(&cluster, "v-0", spec("v", &drive, 300)).await;
    phase(&cluster, "v-0", LegPhase::Failed).await;
    agent.stop().await;

    // Another agent finds it, attached as it was, and makes no object of it.
    let agent = agent_with(&cluster, &ground, Throttle::ROOT.as_ref());
    let found = until("it is found", || async {
        let all = volumes(&agent).all_scratch().await.unwrap();
        all.into_iter().next()
    })
    .await;
    assert_eq!((found.id.as_str(), found.target), (ID, space(0).target));
    ask(&cluster, "w-0", spec("w", &drive, 16)).await;
    phase(&cluster, "w-0", LegPhase::Ready).await;
    let legs: kube::Api<strand_api::PoolLeg> = kube::Api::all(cluster.client.clone());
    assert_eq!(legs.list(&Default::default()).await.unwrap().items.len(), 2);
    let report = volumes(&agent).report().await.unwrap();
    let scratch = report.iter().find(|leg| leg.scratch.is_some()).unwrap();
    assert_eq!(scratch.device.as_ref(), Some(&made.device));

    until("metrics show it", || async {
        let legs = series(&agent, "strand_leg_size_bytes");
        let shown = legs.iter().any(|leg| leg.contains(&"scratch".to_owned()));
        (shown && legs.len() == 2).then_some(())
    })
    .await;

    // It stays while it is in use.
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let mut options = fs::File::options();
    let held = options.read(true).custom_flags(exclusive);
    let held = held.open(&made.device).unwrap();
    assert!(volumes(&agent).end_scratch(ID).await.is_err());
    drop(held);
    until("it is given back", || async {
        volumes(&agent).end_scratch(ID).await.ok()
    })
    .await;
    volumes(&agent).end_scratch(ID).await.unwrap();
    assert_eq!(volumes(&agent).all_scratch().await.unwrap(), []);
    // What had no room has it now.
    phase(&cluster, "v-0", LegPhase::Ready).await;
    until("metrics forget it", || async {
        let legs = series(&agent, "strand_leg_size_bytes");
        let shown = legs.iter().any(|leg| leg.contains(&"scratch".to_owned()));
        (!shown && legs.len() == 2).then_some(())
    })
    .await;
    assert_eq!(series(&agent, "strand_storage_errors_total").len(), 1);
    agent.stop().await;
}

/// The labels' values of each series of a metric.
fn series(agent: &Running, metric: &str) -> Vec<Vec<String>> {
    let all = agent.handle.registry().gather();
    let family = all.iter().filter(|family| family.name() == metric);
    let series = family.flat_map(|family| family.get_metric());
    series
        .map(|one| {
            one.get_label()
                .iter()
                .map(|l| l.value().to_owned())
                .collect()
        })
        .collect()
}
