//! Volumes with redundancy over a real API: they are placed, granted, lose legs, and are repaired by themselves. The test plays the
//! agents: of legs as `volumes` does, and of the node that has a volume attached, which runs its array.

use crate::{
    api::{Running, report_as},
    volumes::{Cluster, Down, phase},
};
use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use strand_api::{
    ArrayLeg, ArrayRefusal, ArrayStatus, LackPhase, LegHolding, PlacedLeg, PoolLeg, PoolVolume,
    VolumePhase, condition, names,
};

/// What a consumer has told of each leg: its holding, and since when.
type Told = BTreeMap<String, (LegHolding, Time)>;

impl Cluster {
    /// Agents of all nodes that run the arrays of what is attached there. While copies `last`, none becomes whole.
    fn consumers(&self, last: &Arc<AtomicBool>) -> Running {
        let (client, down, last) = (self.client.clone(), self.down.clone(), last.clone());
        let acting = async move {
            let mut told = Told::new();
            loop {
                consume(&client, &down, last.load(Relaxed), &mut told).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        Running(vec![tokio::spawn(acting)])
    }

    /// A node dies, or is back.
    async fn power(&self, node: &str, on: bool) {
        match on {
            true => self.down.lock().unwrap().remove(node),
            false => self.down.lock().unwrap().insert(node.into()),
        };
        let status = if on { "True" } else { "Unknown" };
        let ready = json!({"conditions": [{"type": "Ready", "status": status}]});
        self.report::<Node>(node, ready).await;
    }

    async fn attach(&self, volume: &str, node: &str) {
        let wish = json!({"spec": {"attachTo": [{"node": node}]}});
        self.patch::<PoolVolume>(volume, wish).await;
    }

    async fn attached(&self, volume: &str, node: &str) -> PoolVolume {
        let test = |v: &PoolVolume| {
            let status = v.status.clone().unwrap_or_default();
            let [one] = status.attachments.as_slice() else {
                return false;
            };
            one.node == node && one.phase.is_granted()
        };
        self.until(volume, &format!("attached to {node}"), test)
            .await
    }

    async fn formed(&self, volume: &str) -> PoolVolume {
        let test = |v: &PoolVolume| v.spec.array.as_ref().is_some_and(|array| array.formed);
        self.until(volume, "formed", test).await
    }

    /// The volume, once a leg of this index lacks writes in this way.
    async fn lacking(&self, volume: &str, index: usize, phase: LackPhase) -> PoolVolume {
        let test = |v: &PoolVolume| {
            let lack = v.spec.legs[index].lack.as_ref();
            lack.is_some_and(|lack| lack.phase == phase)
        };
        self.until(volume, &format!("{phase:?} at {index}"), test)
            .await
    }

    async fn whole(&self, volume: &str) -> PoolVolume {
        let whole = |v: &PoolVolume| {
            let conditions = v.status.as_ref().map_or(&[][..], |s| &s.conditions);
            v.spec.legs.iter().all(|leg| leg.lack.is_none())
                && phase(v) == Some(VolumePhase::Ready)
                && condition::find(conditions, names::DEGRADED).is_none()
        };
        self.until(volume, "whole", whole).await
    }

    /// A leg has been out for an hour.
    async fn an_hour_passes(&self, volume: &str) {
        let mut legs = self
            .api::<PoolVolume>()
            .get(volume)
            .await
            .unwrap()
            .spec
            .legs;
        for lack in legs.iter_mut().filter_map(|leg| leg.lack.as_mut()) {
            lack.since.0 -= SignedDuration::from_hours(1);
        }
        let patch = json!({"spec": {"legs": legs}});
        self.patch::<PoolVolume>(volume, patch).await;
    }
}

/// Runs the arrays of what is attached for writing to nodes that are up, and tells of their legs. Its clock is an hour ahead.
async fn consume(client: &Client, down: &Down, copies_last: bool, told: &mut Told) {
    let (volumes, legs): (Api<PoolVolume>, Api<PoolLeg>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let everything = ListParams::default();
    let (Ok(volumes), Ok(legs)) = tokio::join!(volumes.list(&everything), legs.list(&everything))
    else {
        return;
    };
    let down = down.lock().unwrap().clone();
    for volume in volumes.items {
        let status = volume.status.clone().unwrap_or_default();
        let mut granted = status.attachments.iter();
        let granted = granted.find(|a| a.phase.is_granted() && !a.read_only);
        let (Some(array), Some(writer)) = (&volume.spec.array, granted) else {
            continue;
        };
        if down.contains(&writer.node) {
            continue;
        }
        let reached = |placed: &PlacedLeg| {
            let exported = |leg: &&PoolLeg| {
                let exports = leg.status.iter().flat_map(|s| &s.exports);
                leg.name_any() == placed.name
                    && exports.clone().any(|e| e.generation == writer.generation)
            };
            let here = placed.node_name == writer.node;
            !down.contains(&placed.node_name) && (here || legs.items.iter().any(|l| exported(&l)))
        };
        let mut refused = None;
        let mut now = Vec::new();
        for placed in &volume.spec.legs {
            let Some(uuid) = placed.uuid.clone() else {
                continue;
            };
            let before = told.get(&uuid).map(|(holding, _)| *holding);
            let lack = placed.lack.as_ref().map(|lack| lack.phase);
            let holding = match (reached(placed), lack) {
                (false, _) => LegHolding::Away,
                (true, None) => LegHolding::Whole,
                (true, Some(LackPhase::Out)) => LegHolding::Apart,
                // It is copied to, and some time later it has everything.
                (true, Some(_)) if before == Some(LegHolding::Behind) && !copies_last => {
                    LegHolding::Whole
                }
                (true, Some(_)) => LegHolding::Behind,
            };
            if lack.is_none() && !array.formed && holding == LegHolding::Away {
                refused = Some(ArrayRefusal {
                    reason: "LegsAway".into(),
                    message: "legs cannot be reached".into(),
                });
            }
            if before != Some(holding) {
                let since = Timestamp::now() + SignedDuration::from_hours(1);
                told.insert(uuid.clone(), (holding, Time(since)));
            }
            now.push(ArrayLeg {
                since: told[&uuid].1.clone(),
                uuid,
                holding,
                percent: (holding == LegHolding::Behind).then_some(50),
            });
        }
        let array = ArrayStatus {
            looked: 0,
            stopped: false,
            node: writer.node.clone(),
            generation: writer.generation,
            legs: now,
            resyncing: false,
            refused,
        };
        let name = volume.name_any();
        let report = json!({"array": array});
        // An object that has gone meanwhile is seen to in the next round.
        let _ = report_as::<PoolVolume>(client, "strand-array", &name, report).await;
    }
}

fn nodes(volume: &PoolVolume) -> Vec<&str> {
    let legs = volume.spec.legs.iter();
    legs.map(|leg| leg.node_name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_loses_legs_and_consumers_and_repairs_itself() {
    let cluster = Cluster::of(&["gpu-1", "gpu-2", "gpu-3"]).await;
    let _operator = cluster.operate();
    let _agents = cluster.agents();
    let copies_last = Arc::new(AtomicBool::new(false));
    let _consumers = cluster.consumers(&copies_last);

    // Placed: in two failure domains, the first near its consumer; the array has its UID.
    cluster
        .volume("v", json!({"redundancy": "mirror", "nodeName": "gpu-1"}))
        .await;
    let v = cluster.ready("v").await;
    assert_eq!(nodes(&v)[0], "gpu-1");
    assert_ne!(nodes(&v)[1], "gpu-1");
    let array = v.spec.array.clone().unwrap();
    assert_eq!(Some(&array.uuid), v.metadata.uid.as_ref());
    assert!(!array.formed);
    assert_eq!(v.status.as_ref().unwrap().size, v.spec.size);
    let leg = cluster.api::<PoolLeg>().get("v-1").await.unwrap();
    assert_eq!(leg.spec.size.0, v.spec.size.0 + (1 << 20));
    let of = leg.spec.array.unwrap();
    assert_eq!((&of.uuid, of.legs), (&array.uuid, 2));

    // Attached: the leg on the other node is exported; what the consumer tells forms the array.
    cluster.attach("v", "gpu-1").await;
    cluster.attached("v", "gpu-1").await;
    let v = cluster.formed("v").await;
    let second = nodes(&v)[1].to_owned();
    let third = if second == "gpu-2" { "gpu-3" } else { "gpu-2" };

    // A node dies: its leg is recorded out, and the volume says so.
    cluster.power(&second, false).await;
    let v = cluster.lacking("v", 1, LackPhase::Out).await;
    let lack = v.spec.legs[1].lack.clone().unwrap();
    assert_eq!((lack.reason.as_str(), lack.generation), ("Unreachable", 1));
    let degraded = |v: &PoolVolume| {
        let conditions = v.status.as_ref().map_or(&[][..], |s| &s.conditions);
        phase(v) == Some(VolumePhase::Degraded)
            && condition::find(conditions, names::DEGRADED)
                .is_some_and(|c| c.status == "True" && c.message.contains(&second))
    };
    cluster.until("v", "degraded", degraded).await;

    // It does not come back: another leg is made in a failure domain of its own, and copied to.
    cluster.an_hour_passes("v").await;
    let v = cluster.whole("v").await;
    assert_eq!(nodes(&v), ["gpu-1", third]);
    assert_ne!(v.spec.legs[1].uuid, None);
    assert_eq!(v.status.as_ref().unwrap().attachments[0].generation, 1);
    let marked = |leg: &PoolLeg| leg.spec.deletion_mark;
    cluster.until("v-1", "marked", marked).await;
    cluster.power(&second, true).await;
    cluster.until_gone::<PoolLeg>("v-1").await;

    // Its consumer dies together with the leg there: the pod goes on elsewhere, without that leg.
    cluster.power("gpu-1", false).await;
    cluster.attach("v", &second).await;
    let v = cluster.attached("v", &second).await;
    assert_eq!(v.status.as_ref().unwrap().attachments[0].generation, 2);
    assert!(v.spec.legs[0].lack.is_some() && v.spec.legs[1].lack.is_none());
    let behind = cluster.api::<PoolLeg>().get("v-0").await.unwrap();
    assert!(
        behind.spec.exports.iter().all(|e| e.node == second),
        "{:?}",
        behind.spec.exports
    );

    // It is back, and is copied to from end to end: it was written to in another attachment.
    copies_last.store(true, Relaxed);
    cluster.power("gpu-1", true).await;
    cluster.lacking("v", 0, LackPhase::Rebuilding).await;
    copies_last.store(false, Relaxed);
    let v = cluster.whole("v").await;
    assert_eq!(nodes(&v), ["gpu-1", third]);
    assert!(v.spec.array.unwrap().formed);

    // What was abnormal was told, and that it is over.
    cluster.until_told(&["VolumeDegraded", "VolumeWhole"]).await;

    // Nothing of it is left.
    cluster
        .patch::<PoolVolume>("v", json!({"spec": {"attachTo": []}}))
        .await;
    cluster
        .patch::<PoolVolume>("v", json!({"spec": {"deletionMark": true}}))
        .await;
    cluster.until_gone::<PoolVolume>("v").await;
    assert!(cluster.disks.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rack_that_is_too_small_is_told_what_it_lacks() {
    let cluster = Cluster::of(&["gpu-1", "gpu-2", "gpu-3"]).await;
    let _operator = cluster.operate();
    let _agents = cluster.agents();
    cluster.volume("v", json!({"redundancy": "raid6"})).await;
    let refused = |v: &PoolVolume| {
        let conditions = v.status.as_ref().map_or(&[][..], |s| &s.conditions);
        condition::find(conditions, names::READY).is_some_and(|c| {
            c.reason == names::INSUFFICIENT_CAPACITY
                && c.message.contains("in 4 different failure domains")
                && c.message.contains("do in 3")
        })
    };
    cluster.until("v", "refused", refused).await;

    // A fourth node is all that it needs.
    cluster.add("gpu-4").await;
    let v = cluster.ready("v").await;
    let placed: BTreeSet<&str> = nodes(&v).into_iter().collect();
    assert_eq!(placed.len(), 4);

    // Where a leg lies it is not attached.
    cluster.attach("v", "gpu-4").await;
    let refused = |v: &PoolVolume| {
        let conditions = v.status.as_ref().map_or(&[][..], |s| &s.conditions);
        condition::find(conditions, names::ATTACHED)
            .is_some_and(|c| c.reason == names::UNSUPPORTED && c.message.contains("raid6"))
    };
    cluster.until("v", "not attached", refused).await;
}
