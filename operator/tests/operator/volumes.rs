//! Storage over a real API: the operator's loop, and an agent played by the test whose bytes outlive objects.
//!
//! Every wait is for a state, with a bound.
use crate::api::{Bed, Running, report};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use operator::{
    observe::Observed,
    volumes::{VolumeMetrics, Volumes},
};
use prometheus::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    ops::Deref,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use strand_api::{
    Drive, ExportedLeg, LegExport, LegPhase, MemoryPool, PoolLeg, PoolLegSpec, PoolLegStatus,
    PoolSnapshot, PoolVolume, VolumePhase, condition, names,
};

const POOL_ID: &str = "a1000000-0000-4000-8000-000000000000";

/// Bytes on drives, by UUID: the record beside each.
type Disks = Arc<Mutex<BTreeMap<String, (String, PoolLegSpec)>>>;

/// Nodes that nobody reaches.
pub type Down = Arc<Mutex<BTreeSet<String>>>;

pub struct Cluster {
    bed: Bed,
    pub disks: Disks,
    pub down: Down,
}

impl Deref for Cluster {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.bed
    }
}

impl Cluster {
    /// One pool with two drives of 100 GiB of storage on each of two nodes.
    async fn start() -> Self {
        Self::of(&["gpu-1", "gpu-2"]).await
    }

    /// The same, on these nodes.
    pub async fn of(nodes: &[&str]) -> Self {
        let cluster = Self {
            bed: Bed::start().await,
            disks: Disks::default(),
            down: Down::default(),
        };
        cluster
            .make::<MemoryPool>(json!({"metadata": {"name": "default"}, "spec": {"drives": {"models": ["*"]}, "poolID": POOL_ID}}))
            .await;
        for node in nodes {
            cluster.add(node).await;
        }
        cluster
    }

    /// One more node.
    pub async fn add(&self, node: &str) {
        self.make::<Node>(json!({"metadata": {"name": node}})).await;
        for drive in ["a", "b"] {
            let name = format!("{node}-{drive}");
            self
                .make::<Drive>(json!({"metadata": {"name": name}, "spec": {"nodeName": node, "pool": "default", "poolID": POOL_ID}}))
                .await;
            let status = json!({
                "verdict": "Pooled", "phase": "Ready", "size": "200Gi",
                "label": {"pool": "default", "poolID": POOL_ID, "driveID": POOL_ID, "generation": 1},
                "partitions": [{"role": "Storage", "start": 0, "size": "101Gi", "usable": "100Gi"}],
            });
            self.report::<Drive>(&name, status).await;
        }
    }

    pub async fn volume(&self, name: &str, spec: Value) -> PoolVolume {
        let mut full = json!({"pool": "default", "size": "10Gi", "volumeMode": "Filesystem"});
        for (key, value) in spec.as_object().unwrap() {
            full[key] = value.clone();
        }
        self.make(json!({"metadata": {"name": name}, "spec": full}))
            .await
    }

    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn ready(&self, name: &str) -> PoolVolume {
        self.until(name, "ready", |v: &PoolVolume| {
            phase(v) == Some(VolumePhase::Ready)
        })
        .await
    }

    async fn legs(&self) -> Vec<PoolLeg> {
        let all = self.api::<PoolLeg>().list(&ListParams::default()).await;
        all.unwrap().items
    }

    pub fn operate(&self) -> Running {
        let client = self.client.clone();
        let (observed, watches) = Observed::watch(&client);
        let metrics = VolumeMetrics::register(&Registry::new()).unwrap();
        let looping = async move {
            observed.complete().await.unwrap();
            Volumes::new(client, metrics).run(&observed).await;
        };
        Running(vec![tokio::spawn(watches), tokio::spawn(looping)])
    }

    /// The agents of all nodes.
    pub fn agents(&self) -> Running {
        let (client, disks, down) = (self.client.clone(), self.disks.clone(), self.down.clone());
        let acting = async move {
            loop {
                act(&client, &disks, &down).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Running(vec![tokio::spawn(acting)])
    }
}

fn exported(export: &LegExport) -> ExportedLeg {
    ExportedLeg {
        generation: export.generation,
        address: "10.0.0.1".into(),
        port: 4420,
        rdma: false,
    }
}

pub fn phase(volume: &PoolVolume) -> Option<VolumePhase> {
    volume.status.as_ref()?.phase
}

/// What agents of nodes that are up do: make, grow, export and delete as asked, list what has no object.
async fn act(client: &Client, disks: &Disks, down: &Down) {
    let api: Api<PoolLeg> = Api::all(client.clone());
    let Ok(legs) = api.list(&ListParams::default()).await else {
        return;
    };
    let mut listed = Vec::new();
    for leg in legs.items {
        let name = leg.name_any();
        let told = leg.status.clone().unwrap_or_default();
        let wanted = leg.spec.uuid.clone().or(told.uuid.clone());
        if down.lock().unwrap().contains(&leg.spec.node_name) {
            listed.extend(wanted);
            continue;
        }
        let status = {
            let mut disks = disks.lock().unwrap();
            let found = match &wanted {
                Some(id) => disks.contains_key(id).then(|| id.clone()),
                None => disks
                    .iter()
                    .find(|(_, (n, r))| *n == name && r.owner_uid == leg.spec.owner_uid)
                    .map(|(id, _)| id.clone()),
            };
            listed.extend(found.clone());
            if leg.spec.deletion_mark {
                found.map(|id| disks.remove(&id));
                PoolLegStatus {
                    phase: Some(LegPhase::Deleted),
                    observed_generation: leg.metadata.generation,
                    ..Default::default()
                }
            } else {
                let id = found.unwrap_or_else(|| {
                    assert!(wanted.is_none(), "{name}: bytes of {wanted:?} were lost");
                    uuid::Uuid::new_v4().to_string()
                });
                listed.push(id.clone());
                disks.insert(id.clone(), (name.clone(), leg.spec.clone()));
                let taken = leg.spec.snapshot.is_some().then(|| {
                    told.taken_at
                        .clone()
                        .unwrap_or_else(|| Time(Timestamp::now()))
                });
                PoolLegStatus {
                    phase: Some(if leg.spec.orphaned {
                        LegPhase::Orphaned
                    } else {
                        LegPhase::Ready
                    }),
                    uuid: Some(id),
                    size: leg.spec.size,
                    exports: leg.spec.exports.iter().map(exported).collect(),
                    observed_generation: leg.metadata.generation,
                    // In the API, times have whole seconds.
                    taken_at: taken
                        .map(|t| Time(t.0.round(k8s_openapi::jiff::Unit::Second).unwrap())),
                    ..Default::default()
                }
            }
        };
        if leg.status.as_ref() != Some(&status) {
            // An object that has gone meanwhile is seen to in the next round.
            let _ = report::<PoolLeg>(client, &name, json!(status)).await;
        }
    }
    let unlisted: Vec<(String, (String, PoolLegSpec))> = {
        let disks = disks.lock().unwrap();
        let all = disks.clone().into_iter();
        all.filter(|(id, _)| !listed.contains(id)).collect()
    };
    for (id, (name, record)) in unlisted {
        let mut spec = record;
        spec.uuid = Some(id);
        spec.orphaned = true;
        let params = PostParams {
            field_manager: Some(names::AGENT_MANAGER.into()),
            ..Default::default()
        };
        let _ = api.create(&params, &PoolLeg::new(&name, spec)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_lives_and_then_everything_rests() {
    let cluster = Cluster::start().await;
    let _operator = cluster.operate();
    let _agents = cluster.agents();
    // Warm: the first pass waits for the copies.
    cluster.volume("warm", json!({})).await;
    cluster.ready("warm").await;

    cluster.until_at_rest().await;
    let (begun, before) = (Instant::now(), cluster.server.stats().writes());
    cluster
        .volume("v", json!({"locality": "Node", "nodeName": "gpu-2"}))
        .await;
    let v = cluster.ready("v").await;
    let writes = cluster.server.stats().writes() - before;
    println!("created to ready: {:?}, {writes} writes", begun.elapsed());
    // Created, placed, leg, its status, UUID, status; where the leg is slow, the status also says meanwhile what it waits for:
    // to be placed, and to be made. A write that another one has overtaken is tried again.
    assert!(writes <= 10, "{writes} writes");
    let leg = &v.spec.legs[0];
    assert_eq!(
        (leg.name.as_str(), leg.node_name.as_str()),
        ("v-0", "gpu-2")
    );
    assert_eq!(v.status.as_ref().unwrap().size, v.spec.size);

    let begun = Instant::now();
    let attach = json!({"spec": {"attachTo": [{"node": "gpu-2"}]}});
    cluster.patch::<PoolVolume>("v", attach).await;
    let v = cluster
        .until("v", "attached", |v: &PoolVolume| {
            v.status.as_ref().is_some_and(|s| !s.attachments.is_empty())
        })
        .await;
    println!("wanted to attached: {:?}", begun.elapsed());
    assert_eq!(v.status.unwrap().attachments[0].generation, 1);

    // A snapshot, and a larger volume from it; the volume grows meanwhile.
    cluster
        .make::<PoolSnapshot>(json!({"metadata": {"name": "s"}, "spec": {"volume": "v"}}))
        .await;
    cluster
        .until("s", "ready", |s: &PoolSnapshot| {
            let status = s.status.as_ref();
            status.is_some_and(|s| s.ready_to_use && s.taken_at.is_some() && s.size.0 == 10 << 30)
        })
        .await;
    let from = json!({"source": {"snapshot": "s"}, "size": "12Gi"});
    cluster.volume("clone", from).await;
    let clone = cluster.ready("clone").await;
    assert_eq!(
        clone.spec.legs[0].drive, leg.drive,
        "a reflink stays on its drive"
    );
    let made = cluster.api::<PoolLeg>().get("clone-0").await.unwrap();
    assert_eq!(made.spec.source.as_deref(), Some("s-s0"));
    cluster
        .patch::<PoolVolume>("v", json!({"spec": {"size": "20Gi"}}))
        .await;
    cluster
        .until("v", "grown", |v: &PoolVolume| {
            v.status.as_ref().is_some_and(|s| s.size.0 == 20 << 30)
        })
        .await;

    // What does not fit says so, with an event.
    cluster.volume("huge", json!({"size": "1Ti"})).await;
    cluster
        .until("huge", "refused", |v: &PoolVolume| {
            let conditions = v.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition::find(conditions, names::READY)
                .is_some_and(|c| c.reason == names::INSUFFICIENT_CAPACITY)
        })
        .await;
    let told = cluster.until_told(&["VolumeNotReady"]).await;
    assert_eq!(
        told,
        ["VolumeNotReady"],
        "events for what is abnormal, and for nothing else"
    );

    // At rest: a change that matters to nothing causes no write.
    cluster.until_at_rest().await;
    let label = json!({"metadata": {"labels": {"colour": "blue"}}});
    cluster.patch::<Node>("gpu-1", label).await;
    let before = cluster.server.stats().writes();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        cluster.server.stats().writes(),
        before,
        "volumes at rest write nothing"
    );

    // Marked while attached: it stays. Detached: everything of it goes, the snapshot and clone stay.
    cluster
        .patch::<PoolVolume>("v", json!({"spec": {"deletionMark": true}}))
        .await;
    cluster
        .until("v", "kept while it is attached", |v: &PoolVolume| {
            phase(v) == Some(VolumePhase::Deleting)
        })
        .await;
    assert!(
        cluster
            .disks
            .lock()
            .unwrap()
            .values()
            .any(|(name, _)| name == "v-0")
    );
    cluster
        .patch::<PoolVolume>("v", json!({"spec": {"attachTo": []}}))
        .await;
    cluster.until_gone::<PoolVolume>("v").await;
    cluster.until_gone::<PoolLeg>("v-0").await;
    cluster
        .patch::<PoolSnapshot>("s", json!({"spec": {"deletionMark": true}}))
        .await;
    cluster.until_gone::<PoolSnapshot>("s").await;
    cluster.until_gone::<PoolLeg>("s-s0").await;
    let mut left: Vec<String> = cluster
        .disks
        .lock()
        .unwrap()
        .values()
        .map(|(name, _)| name.clone())
        .collect();
    left.sort();
    assert_eq!(left, ["clone-0", "warm-0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_node_gets_only_what_has_to_be_there() {
    let cluster = Cluster::start().await;
    let cordon = json!({"spec": {"unschedulable": true}});
    cluster.patch::<Node>("gpu-1", cordon).await;
    let _operator = cluster.operate();
    let _agents = cluster.agents();
    cluster.volume("any", json!({"nodeName": "gpu-1"})).await;
    let tied = json!({"nodeName": "gpu-1", "locality": "Node"});
    cluster.volume("tied", tied).await;
    assert_eq!(
        cluster.ready("any").await.spec.legs[0].node_name,
        "gpu-2",
        "though it was asked for"
    );
    assert_eq!(cluster.ready("tied").await.spec.legs[0].node_name, "gpu-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_objects_lose_no_bytes() {
    let cluster = Cluster::start().await;
    let operator = cluster.operate();
    let _agents = cluster.agents();
    cluster.volume("v", json!({})).await;
    let placed = cluster.ready("v").await.spec.legs;
    let id = placed[0].uuid.clone().unwrap();

    // A leg's object: made again, by whoever is first, for the same bytes.
    cluster.delete::<PoolLeg>("v-0").await;
    cluster
        .until("v-0", "back", |l: &PoolLeg| {
            let status = l.status.as_ref();
            !l.spec.orphaned
                && status.is_some_and(|s| {
                    s.phase == Some(LegPhase::Ready) && s.uuid.as_ref() == Some(&id)
                })
        })
        .await;
    cluster.ready("v").await;

    // Everything but the bytes, as in an empty cluster: all of it is listed again, as orphans. An operator could hear of the leg's end before the volume's, and
    // make it again.
    drop(operator);
    cluster.delete::<PoolVolume>("v").await;
    cluster.delete::<PoolLeg>("v-0").await;
    cluster
        .until("v-0", "an orphan", |l: &PoolLeg| {
            l.spec.orphaned && l.status.as_ref().and_then(|s| s.phase) == Some(LegPhase::Orphaned)
        })
        .await;
    let _operator = cluster.operate();
    // A new volume of that name gets none of it.
    cluster.volume("v", json!({})).await;
    let other = cluster.ready("v").await;
    assert_ne!(other.spec.legs[0].uuid.as_ref(), Some(&id));
    assert_eq!(other.spec.legs[0].name, "v-0.1");

    // An import names it.
    cluster.volume("again", json!({"legs": placed})).await;
    let again = cluster.ready("again").await;
    assert_eq!(again.spec.legs[0].uuid.as_ref(), Some(&id));
    let leg = cluster.api::<PoolLeg>().get("v-0").await.unwrap();
    assert_eq!(Some(&leg.spec.owner_uid), again.metadata.uid.as_ref());
    assert!(!leg.spec.orphaned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_killed_again_and_again_places_each_volume_once() {
    const VOLUMES: usize = 36;
    let cluster = Cluster::start().await;
    let _agents = cluster.agents();
    for i in 0..VOLUMES {
        cluster.volume(&format!("v{i}"), json!({})).await;
    }
    let mut life = Duration::from_millis(40);
    loop {
        let operator = cluster.operate();
        tokio::time::sleep(life).await;
        drop(operator);
        let api = cluster.api::<PoolVolume>();
        let volumes = api.list(&ListParams::default()).await.unwrap().items;
        if volumes.iter().all(|v| phase(v) == Some(VolumePhase::Ready)) {
            break;
        }
        life += Duration::from_millis(20);
        assert!(life < Duration::from_secs(3), "not all ready: {volumes:#?}");
    }
    let legs = cluster.legs().await;
    assert_eq!(legs.len(), VOLUMES, "one leg a volume");
    assert_eq!(cluster.disks.lock().unwrap().len(), VOLUMES);
    let mut per_drive: BTreeMap<&str, usize> = BTreeMap::new();
    for leg in &legs {
        *per_drive.entry(&leg.spec.drive).or_default() += 1;
    }
    // Nine legs of 10 GiB are all that a drive of 100 GiB has room for, with what is kept about each.
    assert!(per_drive.values().all(|n| *n == 9), "{per_drive:?}");
}
