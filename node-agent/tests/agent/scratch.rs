//! Scratch space of pods on a node's drives. Needs root.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use node_agent::volumes::{AttachError, ScratchRequest};
use serde_json::json;
use strand_api::{LegPhase, PartitionRole};
use strand_volumes::Throttle;

use crate::bed::{Cluster, POOL, POOL_ID, Running, until};
use crate::volumes::{Ground, agent_with, ask, phase, spec, taken, volumes};

const MIB: u64 = 1 << 20;
const ID: &str = "csi-0a5d1de62b0c4c2d9d2e5a1d3f0b7c110a5d1de62b0c4c2d9d2e5a1d3f0b7c11";

fn space(size: u64) -> ScratchRequest {
    ScratchRequest {
        pool: POOL.into(),
        namespace: "team-a".into(),
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

/// The inline volume is written by whoever may make pods: that a pool is granted is asked here.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_granted_has_scratch_space_for_those_it_is_granted_to() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    let granted = json!({"access": "Granted"});
    cluster.pool_with(POOL, POOL_ID, granted).await;
    let agent = agent_with(&cluster, &ground, Throttle::ROOT.as_ref());
    taken(&cluster, &ground.plug("S1")).await;
    let refused = volumes(&agent).scratch(ID, space(MIB)).await.unwrap_err();
    assert!(matches!(refused, AttachError::Denied(_)), "{refused}");
    let words = format!("ask an administrator for a PoolGrant named {POOL}.team-a");
    assert!(refused.to_string().ends_with(&words), "{refused}");

    cluster.grant("team-a", json!({})).await;
    let made = until("the grant to count", || async {
        volumes(&agent).scratch(ID, space(MIB)).await.ok()
    })
    .await;
    let other = ScratchRequest {
        namespace: "team-b".into(),
        ..space(MIB)
    };
    let refused = volumes(&agent).scratch("other", other).await.unwrap_err();
    assert!(matches!(refused, AttachError::Denied(_)), "{refused}");

    // Who has it keeps it; it is asked when it is made.
    cluster.ungrant("team-a").await;
    until("the grant to be gone", || async {
        let asked = volumes(&agent).scratch("late", space(MIB)).await;
        volumes(&agent).end_scratch("late").await.unwrap();
        matches!(asked, Err(AttachError::Denied(_))).then_some(())
    })
    .await;
    let again = volumes(&agent).scratch(ID, space(MIB)).await.unwrap();
    assert_eq!(made, again);
    volumes(&agent).end_scratch(ID).await.unwrap();
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
