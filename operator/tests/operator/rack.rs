//! The operator against a real API over HTTPS, with agents played by the test.
//!
//! Every wait is for a state, with a bound.
use crate::api::{Bed, Running};
use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use operator::{act, lease, metrics::Metrics, observe::Observed, run::Operator};
use prometheus::Registry;
use serde_json::json;
use std::{ops::Deref, sync::Arc, time::Duration};
use strand_api::{
    Drive, DriveOperation, DriveSpec, MemoryPool, MemoryPoolSpec, OperationPhase, PoolMap,
    condition, names,
};
use strand_placement::rack::Action;

struct Cluster(Bed);

impl Deref for Cluster {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.0
    }
}

impl Cluster {
    /// One node.
    async fn start() -> Self {
        let bed = Bed::start().await;
        bed.make::<Node>(json!({
            "metadata": {"name": "gpu-1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .await;
        Self(bed)
    }

    async fn pool(&self, name: &str, spec: serde_json::Value) -> MemoryPool {
        let spec: MemoryPoolSpec = serde_json::from_value(spec).unwrap();
        let pool = MemoryPool::new(name, spec);
        self.api::<MemoryPool>()
            .create(&PostParams::default(), &pool)
            .await
            .unwrap()
    }

    /// A drive as its agent reports it: blank.
    async fn stranded(&self, serial: &str) {
        let drives = self.api::<Drive>();
        let spec = DriveSpec {
            node_name: "gpu-1".into(),
            pool: None,
            pool_id: None,
            carve: None,
            cordon: false,
        };
        drives
            .create(&PostParams::default(), &Drive::new(serial, spec))
            .await
            .unwrap();
        self.report::<Drive>(
            serial,
            json!({
                "verdict": "Stranded", "phase": "Available", "size": "1Ti", "logicalBlockBytes": 512,
                "peerAddress": "127.0.0.1:7420",
                "identity": {"model": "M", "serial": serial, "namespaceID": 1, "transport": "Pcie", "devicePath": "/dev/x"},
            }),
        )
        .await;
    }

    /// What the agent reports once it has carved the drive as the operator wants.
    async fn carved(&self, serial: &str) {
        let drive = self
            .until::<Drive>(serial, "claimed", |d| d.spec.carve.is_some())
            .await;
        self.report::<Drive>(
            serial,
            json!({
                "verdict": "Pooled", "phase": "Ready", "size": "1Ti", "logicalBlockBytes": 512, "peerAddress": "127.0.0.1:7420",
                "identity": {"model": "M", "serial": serial, "namespaceID": 1, "transport": "Pcie", "devicePath": "/dev/x"},
                "label": {"pool": drive.spec.pool, "poolID": drive.spec.pool_id, "generation": 1,
                    "driveID": format!("0000000{}-0000-4000-8000-000000000000", serial.chars().last().unwrap())},
                "partitions": [
                    {"role": "Storage", "start": 1 << 20, "size": "400Gi"},
                    {"role": "ContextMemory", "start": 1i64 << 39, "size": "600Gi"},
                ],
            }),
        )
        .await;
    }

    fn operate(&self) -> Operating {
        let client = self.client.clone();
        let (observed, watches) = Observed::watch(&client);
        let observed = Arc::new(observed);
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let looping = {
            let observed = observed.clone();
            async move {
                observed.complete().await.unwrap();
                Operator::new(client, metrics).run(&observed).await;
            }
        };
        let tasks = Running(vec![tokio::spawn(watches), tokio::spawn(looping)]);
        Operating {
            observed,
            _tasks: tasks,
        }
    }
}

struct Operating {
    observed: Arc<Observed>,
    _tasks: Running,
}

fn ready(pool: &MemoryPool) -> bool {
    pool.status
        .as_ref()
        .is_some_and(|s| condition::is_true(&s.conditions, names::READY))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_takes_blank_drives_publishes_its_map_and_then_rests() {
    let cluster = Cluster::start().await;
    let _operator = cluster.operate();
    let created = cluster
        .pool(
            "default",
            json!({"drives": {"models": ["*"]}, "carve": {"contextMemory": "60%"}}),
        )
        .await;
    for serial in ["d1", "d2"] {
        cluster.stranded(serial).await;
    }
    for serial in ["d1", "d2"] {
        cluster.carved(serial).await;
    }
    let pool = cluster
        .until::<MemoryPool>("default", "ready with both drives in the map", |p| {
            let serving = p.status.as_ref().map(|s| (s.drives.ready, s.map_epoch));
            ready(p) && matches!(serving, Some((2, epoch)) if epoch > 0)
        })
        .await;
    assert_eq!(
        pool.spec.pool_id, created.metadata.uid,
        "the identity of a new pool is its UID"
    );
    let status = pool.status.unwrap();
    assert_eq!(status.display.drives, "2/2");
    assert_eq!(status.display.context_memory, "0/1.17Ti");
    let map = cluster
        .until::<PoolMap>("default", "complete", |m| {
            let node = m.spec.nodes.first();
            let drives = node.map(|node| node.drives.iter().map(|d| (d.weight, d.key)));
            drives.is_some_and(|drives| drives.eq([(9600, 1), (9600, 2)]))
        })
        .await;
    assert_eq!(map.owner_references()[0].name, "default");
    let drive = cluster.api::<Drive>().get("d1").await.unwrap();
    assert_eq!(drive.finalizers(), [names::FINALIZER]);

    cluster.until_told(&["PoolReady"]).await;

    // At rest: a change that matters to nothing moves no epoch and causes no write.
    cluster.until_at_rest().await;
    let node = Patch::Merge(json!({"metadata": {"labels": {"colour": "blue"}}}));
    cluster
        .api::<Node>()
        .patch("gpu-1", &PatchParams::default(), &node)
        .await
        .unwrap();
    let before = cluster.server.stats().writes();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        cluster.server.stats().writes(),
        before,
        "a rack at rest writes nothing"
    );

    // A cordoned drive leaves the map, with the next epoch.
    let cordon = Patch::Merge(json!({"spec": {"cordon": true}}));
    cluster
        .api::<Drive>()
        .patch("d1", &PatchParams::default(), &cordon)
        .await
        .unwrap();
    cluster
        .until::<PoolMap>("default", "without the cordoned drive", |m| {
            m.spec.epoch == map.spec.epoch + 1
                && m.spec.nodes[0].drives.iter().map(|d| d.key).eq([2])
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_leaders_write_is_refused() {
    let cluster = Cluster::start().await;
    let running = cluster.operate();
    cluster
        .pool("default", json!({"drives": {"models": ["*"]}}))
        .await;
    cluster.stranded("d1").await;
    cluster
        .until::<Drive>("d1", "claimed", |d| d.spec.carve.is_some())
        .await;

    // The old leader looked, then was paused; meanwhile the drive's agent reported.
    let old = running.observed.snapshot();
    cluster.carved("d1").await;
    let late = Action::Want {
        drive: "d1".into(),
        claim: None,
    };
    let error = act::carry_out(&cluster.client, &old, &late)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(s) if s.code == 409),
        "{error}"
    );
    let drive = cluster.api::<Drive>().get("d1").await.unwrap();
    assert_eq!(drive.spec.pool.as_deref(), Some("default"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_drive_object_and_a_deleted_pool_never_hang() {
    let cluster = Cluster::start().await;
    let _operator = cluster.operate();
    cluster
        .pool(
            "default",
            json!({"drives": {"models": ["*"]}, "deletionPolicy": "Release"}),
        )
        .await;
    for serial in ["d1", "d2", "d3"] {
        cluster.stranded(serial).await;
        cluster.carved(serial).await;
    }
    cluster
        .until::<MemoryPool>("default", "held", |p| {
            !p.finalizers().is_empty() && ready(p)
        })
        .await;

    cluster
        .api::<Drive>()
        .delete("d1", &DeleteParams::default())
        .await
        .unwrap();
    cluster.until_gone::<Drive>("d1").await;

    cluster
        .api::<MemoryPool>()
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until::<DriveOperation>("release-d2", "asked for", |o| o.spec.serial == "d2")
        .await;
    cluster
        .report::<Drive>(
            "d2",
            json!({"verdict": "Stranded", "phase": "Released", "size": "1Ti",
                "identity": {"model": "M", "serial": "d2", "namespaceID": 1, "transport": "Pcie", "devicePath": "/dev/x"}}),
        )
        .await;
    cluster
        .until::<Drive>("d2", "out of the pool", |d| {
            d.spec.pool.is_none() && d.finalizers().is_empty()
        })
        .await;

    // The other drive's node is gone for good: Forget lets go of the drive, and with it of the pool.
    cluster
        .api::<Node>()
        .delete("gpu-1", &DeleteParams::default())
        .await
        .unwrap();
    let forget = json!({"apiVersion": "strand.dev/v1alpha1", "kind": "DriveOperation", "metadata": {"name": "f"},
        "spec": {"type": "Forget", "drive": "d3", "serial": "d3"}});
    let forget: DriveOperation = serde_json::from_value(forget).unwrap();
    cluster
        .api::<DriveOperation>()
        .create(&PostParams::default(), &forget)
        .await
        .unwrap();
    cluster
        .until::<DriveOperation>("f", "done", |o| {
            o.status.as_ref().and_then(|s| s.phase) == Some(OperationPhase::Succeeded)
        })
        .await;
    cluster.until_gone::<Drive>("d3").await;
    cluster.until_gone::<MemoryPool>("default").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_leads_and_the_other_follows_at_once_when_it_steps_down() {
    let cluster = Cluster::start().await;
    let candidate =
        |name: &str| lease::Candidate::new(cluster.client.clone(), "default", name.into());
    let mut first = candidate("first");
    first.acquire().await;
    let mut second = candidate("second");
    assert!(
        tokio::time::timeout(Duration::from_secs(1), second.acquire())
            .await
            .is_err(),
        "two lead at once"
    );
    first.release().await;
    tokio::time::timeout(lease::RENEW * 2, second.acquire())
        .await
        .expect("the second leads well before the lease would have run out");
}
