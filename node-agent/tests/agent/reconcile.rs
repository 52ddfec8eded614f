//! The agent against a real API over HTTPS, with simulated drives; the operator is played by the test.

use std::time::Duration;

use crate::bed::{Cluster, GIB, POOL, POOL_ID, Running, host, object, uid, until};
use serde_json::json;
use strand_api::{
    DrivePhase, DriveVerdict, OperationPhase, OperationType, PartitionRole, condition, names,
};
use strand_placement::verdict::{Content, Health, Smart, Use};

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_drive_costs_four_writes_and_then_none() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let keys: Vec<_> = (0..4)
        .map(|n| host.plug(&format!("S{n}"), 16 * GIB))
        .collect();
    let agent = Running::start(&cluster, host.clone());
    for key in &keys {
        let drive = cluster.phase(&object(key), DrivePhase::Available).await;
        assert_eq!(drive.status.unwrap().verdict, Some(DriveVerdict::Stranded));
    }
    cluster.wrote(2 * 4).await;
    for key in &keys {
        cluster.claim(&object(key), 8 * GIB).await;
    }
    for key in &keys {
        let drive = cluster.phase(&object(key), DrivePhase::Ready).await;
        let status = drive.status.unwrap();
        assert_eq!(status.verdict, Some(DriveVerdict::Pooled));
        assert_eq!(status.label.unwrap().pool_id, POOL_ID);
        assert_eq!(status.partitions.len(), 2);
        assert_eq!(status.peer_address.as_deref(), Some("127.0.0.1:7420"));
        assert_eq!(status.observed_generation, drive.metadata.generation);
        assert!(status.conditions.is_empty() && status.stored_epoch.is_none());
    }
    cluster.wrote(4 * 4).await;

    // Steady: not a write over rescans, readings of health, and a restart.
    let scans = || agent.metric("strand_scans_total").unwrap();
    let before = scans();
    until("three more rescans", || async {
        (scans() >= before + 3.0).then_some(())
    })
    .await;
    cluster.wrote(4 * 4).await;
    agent.stop().await;
    let agent = Running::start(&cluster, host);
    until("all to be owned again", || async {
        let drives = agent.handle.drives().await.unwrap();
        (drives.iter().filter(|d| d.owned.is_some()).count() == 4).then_some(())
    })
    .await;
    let scans = || agent.metric("strand_scans_total").unwrap();
    until("a rescan", || async { (scans() >= 3.0).then_some(()) }).await;
    cluster.wrote(4 * 4).await;
    assert_eq!(
        agent.metric(r#"strand_drives{phase="Ready",verdict="Pooled"}"#),
        Some(4.0)
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_drive_is_refused_with_its_reasons_until_it_is_blank() {
    let (cluster, host) = (Cluster::start().await, host());
    let key = host.plug("S1", 16 * GIB);
    host.alter(&key, |seen| {
        seen.uses.push(Use::Mounted {
            device: "/dev/x1".into(),
            at: "/data".into(),
        });
        seen.content = Content::NotBlank { at: 1080 };
    });
    let agent = Running::start(&cluster, host.clone());
    let name = object(&key);
    let status = cluster
        .phase(&name, DrivePhase::Rejected)
        .await
        .status
        .unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::InUse));
    assert_eq!(status.display_reasons, "Mounted, NotBlank");
    assert!(status.reasons[0].message.contains("/data"));
    assert!(status.peer_address.is_none() && status.label.is_none());
    host.alter(&key, |seen| seen.uses.clear());
    let status = cluster
        .when(&name, "Foreign", |s| {
            s.verdict == Some(DriveVerdict::Foreign)
        })
        .await
        .status
        .unwrap();
    assert_eq!(status.display_reasons, "NotBlank");
    cluster.wrote(3).await;

    cluster
        .operation("wipe", OperationType::Wipe, &name, "S1")
        .await;
    let (phase, message) = cluster.ended("wipe").await;
    assert_eq!(phase, OperationPhase::Succeeded, "{message}");
    let status = cluster
        .phase(&name, DrivePhase::Available)
        .await
        .status
        .unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::Stranded));
    assert!(status.reasons.is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drives_are_taken_back_by_an_empty_cluster_without_touching_data() {
    let host = host();
    let key = host.plug("S1", 16 * GIB);
    let name = object(&key);
    let state = tempfile::tempdir().unwrap();
    let config = || node_agent::AgentConfig {
        state_dir: Some(state.path().into()),
        ..crate::bed::config()
    };
    let label = {
        let cluster = Cluster::start().await;
        cluster.pool().await;
        publish(&cluster, 7).await;
        let agent = Running::with(&cluster, host.clone(), config());
        cluster.phase(&name, DrivePhase::Available).await;
        cluster.claim(&name, 8 * GIB).await;
        let drive = cluster.phase(&name, DrivePhase::Ready).await;
        until("the map to be kept", || async {
            (agent.metric(r#"strand_pool_map_epoch{pool="rack"}"#) == Some(7.0)).then_some(())
        })
        .await;
        agent.stop().await;
        drive.status.unwrap().label.unwrap()
    };

    let cluster = Cluster::start().await;
    let agent = Running::with(&cluster, host.clone(), config());
    let status = cluster
        .phase(&name, DrivePhase::Rejected)
        .await
        .status
        .unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::Foreign));
    assert!(status.display_reasons.starts_with("OtherPool"));
    assert_eq!(
        status.label.as_ref(),
        Some(&label),
        "an empty cluster takes the pool's identity over from here"
    );
    assert_eq!(status.stored_epoch, Some(7));

    cluster.pool().await;
    let status = cluster
        .phase(&name, DrivePhase::Available)
        .await
        .status
        .unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::Pooled));
    assert_eq!(status.label.as_ref(), Some(&label));
    assert_eq!(
        status.partitions.len(),
        2,
        "what it is split into is shown before it is taken"
    );
    cluster.claim(&name, 8 * GIB).await;
    let status = cluster
        .phase(&name, DrivePhase::Ready)
        .await
        .status
        .unwrap();
    assert_eq!(
        status.label.as_ref(),
        Some(&label),
        "its label was not written again"
    );
    publish(&cluster, 8).await;
    cluster
        .when(&name, "without storedEpoch", |s| s.stored_epoch.is_none())
        .await;
    agent.stop().await;
}

async fn publish(cluster: &Cluster, epoch: i64) {
    let spec = strand_api::PoolMapSpec {
        epoch,
        pool_id: POOL_ID.into(),
        nodes: vec![],
    };
    let maps: kube::Api<strand_api::PoolMap> = kube::Api::all(cluster.client.clone());
    let map = strand_api::PoolMap::new(POOL, spec);
    maps.create(&kube::api::PostParams::default(), &map)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_carve_changes_while_nothing_durable_is_lost() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let key = host.plug("S1", 16 * GIB);
    let name = object(&key);
    let agent = Running::start(&cluster, host.clone());
    cluster.phase(&name, DrivePhase::Available).await;
    cluster.claim(&name, 8 * GIB).await;
    cluster.phase(&name, DrivePhase::Ready).await;
    // Made, its status, claimed by this test, its status.
    let writes = 4;
    cluster.wrote(writes).await;

    let context = |status: &strand_api::DriveStatus| {
        let side = status
            .partitions
            .iter()
            .find(|p| p.role == PartitionRole::ContextMemory);
        side.map(|p| p.size.0)
    };
    cluster.claim(&name, 4 * GIB).await;
    let drive = cluster
        .when(&name, "carved anew", |s| context(s) == Some(4 * GIB))
        .await;
    assert_eq!(
        drive.status.as_ref().unwrap().phase,
        Some(DrivePhase::Ready)
    );
    cluster.wrote(writes + 2).await;

    host.set_storage_holds_data(&key, true);
    cluster.claim(&name, 12 * GIB).await;
    let refused = |s: &strand_api::DriveStatus| {
        condition::find(&s.conditions, names::CARVED).is_some_and(|c| c.status == "False")
    };
    let status = cluster
        .when(&name, "refused", refused)
        .await
        .status
        .unwrap();
    assert_eq!(status.phase, Some(DrivePhase::Ready), "it serves as it is");
    assert_eq!(context(&status), Some(4 * GIB));
    let carved = condition::find(&status.conditions, names::CARVED).unwrap();
    assert_eq!(carved.reason, "StorageHoldsData");
    assert!(
        carved.message.contains("move its volumes"),
        "{}",
        carved.message
    );
    let events: kube::Api<k8s_openapi::api::core::v1::Event> =
        kube::Api::default_namespaced(cluster.client.clone());
    until("an Event", || async {
        let events = events.list(&Default::default()).await.unwrap();
        events
            .iter()
            .any(|e| e.reason.as_deref() == Some("CarveRefused"))
            .then_some(())
    })
    .await;

    cluster.claim(&name, 4 * GIB).await;
    let again = |s: &strand_api::DriveStatus| condition::is_true(&s.conditions, names::CARVED);
    cluster.when(&name, "carved as asked", again).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_needs_a_cordon_the_serial_and_empty_storage() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let key = host.plug("S1", 16 * GIB);
    let name = object(&key);
    let agent = Running::start(&cluster, host.clone());
    cluster.phase(&name, DrivePhase::Available).await;
    cluster
        .operation("nothing", OperationType::Release, &name, "S1")
        .await;
    let (phase, message) = cluster.ended("nothing").await;
    assert!(
        phase == OperationPhase::Failed && message.contains("no label"),
        "{message}"
    );
    cluster.claim(&name, 8 * GIB).await;
    cluster.phase(&name, DrivePhase::Ready).await;

    for (operation, type_, serial, words) in [
        (
            "wrong",
            OperationType::Release,
            "S2",
            "the operation names \"S2\"",
        ),
        ("early", OperationType::Release, "S1", "cordon it first"),
        ("wipe", OperationType::Wipe, "S1", "a drive of pool rack"),
        (
            "wipe-wrong",
            OperationType::Wipe,
            "S2",
            "the operation names \"S2\"",
        ),
    ] {
        cluster.operation(operation, type_, &name, serial).await;
        let (phase, message) = cluster.ended(operation).await;
        assert_eq!(phase, OperationPhase::Failed);
        assert!(
            message.contains(words) && message.contains(&name),
            "{message}"
        );
    }
    cluster.cordon(&name, true).await;
    host.set_storage_holds_data(&key, true);
    cluster
        .operation("full", OperationType::Release, &name, "S1")
        .await;
    let (phase, message) = cluster.ended("full").await;
    assert!(
        phase == OperationPhase::Failed && message.contains("holds data"),
        "{message}"
    );
    let status = cluster
        .phase(&name, DrivePhase::Ready)
        .await
        .status
        .unwrap();
    assert!(status.label.is_some());

    host.set_storage_holds_data(&key, false);
    cluster
        .operation("release", OperationType::Release, &name, "S1")
        .await;
    let (phase, message) = cluster.ended("release").await;
    assert_eq!(phase, OperationPhase::Succeeded, "{message}");
    let operation = cluster
        .operations()
        .get("release")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(operation.progress_percent, Some(100));
    assert!(condition::is_true(&operation.conditions, "Complete"));
    let drive = cluster.get(&name).await.unwrap();
    assert_eq!(
        drive.status.as_ref().unwrap().phase,
        Some(DrivePhase::Released),
        "told before the operation's end"
    );
    assert!(drive.status.unwrap().label.is_none());
    cluster.disclaim(&name).await;
    let status = cluster
        .phase(&name, DrivePhase::Available)
        .await
        .status
        .unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::Stranded));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_drive_is_told_and_comes_back_as_it_was() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let (taken, free) = (host.plug("S1", 16 * GIB), host.plug("S2", 16 * GIB));
    let name = object(&taken);
    let agent = Running::start(&cluster, host.clone());
    cluster.phase(&object(&free), DrivePhase::Available).await;
    cluster.phase(&name, DrivePhase::Available).await;
    cluster.claim(&name, 8 * GIB).await;
    let ready = cluster.phase(&name, DrivePhase::Ready).await;
    let label = ready.status.unwrap().label;

    host.hide(&taken);
    let status = cluster
        .phase(&name, DrivePhase::Missing)
        .await
        .status
        .unwrap();
    assert_eq!(status.label, label, "what it was stays to be read");
    host.unplug(&free);
    until("the object of the free drive to go", || async {
        cluster.get(&object(&free)).await.is_none().then_some(())
    })
    .await;
    host.show(&taken);
    let status = cluster
        .phase(&name, DrivePhase::Ready)
        .await
        .status
        .unwrap();
    assert_eq!(status.label, label);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_deleted_by_hand_comes_back() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let key = host.plug("S1", 16 * GIB);
    let name = object(&key);
    let agent = Running::start(&cluster, host.clone());
    let first = cluster.phase(&name, DrivePhase::Available).await;
    cluster.claim(&name, 8 * GIB).await;
    let label = cluster
        .phase(&name, DrivePhase::Ready)
        .await
        .status
        .unwrap()
        .label;
    cluster.delete(&name).await;
    cluster.disclaim(&name).await;
    let again = until("it to come back", || async {
        let drive = cluster.get(&name).await?;
        let judged = drive
            .status
            .as_ref()
            .is_some_and(|s| s.phase == Some(DrivePhase::Available));
        (uid(&drive) != uid(&first) && judged).then_some(drive)
    })
    .await;
    let status = again.status.unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::Pooled));
    assert_eq!(status.label, label);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drives_are_watched_while_the_api_is_away() {
    let (mut cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let key = host.plug("S1", 16 * GIB);
    let agent = Running::start(&cluster, host.clone());
    cluster.phase(&object(&key), DrivePhase::Available).await;
    cluster.claim(&object(&key), 8 * GIB).await;
    cluster.phase(&object(&key), DrivePhase::Ready).await;
    cluster.away().await;
    let second = host.plug("S2", 16 * GIB);
    host.alter(&key, |seen| {
        seen.health = Health::Smart(Smart {
            critical_warning: 4,
            ..Smart::default()
        })
    });
    until("both to be judged", || async {
        let drives = agent.handle.drives().await.unwrap();
        let verdict = |name: String| {
            drives
                .iter()
                .find(|d| d.name == name)
                .and_then(|d| d.verdict)
        };
        let found = (verdict(object(&key)), verdict(object(&second)));
        (found == (Some(DriveVerdict::Failed), Some(DriveVerdict::Stranded))).then_some(())
    })
    .await;
    cluster.back().await;
    let status = cluster
        .phase(&object(&key), DrivePhase::Rejected)
        .await
        .status
        .unwrap();
    assert_eq!(status.display_reasons, "FailingHealth");
    assert_eq!(
        status.label.unwrap().pool_id,
        POOL_ID,
        "it stays the pool's"
    );
    cluster.phase(&object(&second), DrivePhase::Available).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_turns_out_used_at_the_last_moment_is_not_carved() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let key = host.plug("S1", 16 * GIB);
    let name = object(&key);
    let config = node_agent::AgentConfig {
        rescan: Duration::from_secs(3600),
        ..crate::bed::config()
    };
    let agent = Running::with(&cluster, host.clone(), config);
    cluster.phase(&name, DrivePhase::Available).await;
    host.alter_silently(&key, |seen| {
        seen.uses.push(Use::Swap {
            device: "/dev/x".into(),
        })
    });
    cluster.claim(&name, 8 * GIB).await;
    let status = cluster
        .phase(&name, DrivePhase::Rejected)
        .await
        .status
        .unwrap();
    assert_eq!(status.verdict, Some(DriveVerdict::InUse));
    assert_eq!(status.display_reasons, "Swap");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_goes_leaves_its_drives_foreign_and_a_cordon_keeps_a_drive() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster
        .pool_with(POOL, POOL_ID, json!({"deletionPolicy": "Retain"}))
        .await;
    let key = host.plug("S1", 16 * GIB);
    let name = object(&key);
    let agent = Running::start(&cluster, host.clone());
    cluster.phase(&name, DrivePhase::Available).await;
    cluster.cordon(&name, true).await;
    cluster.claim(&name, 8 * GIB).await;
    let generation = cluster.get(&name).await.unwrap().metadata.generation;
    let seen = |s: &strand_api::DriveStatus| s.observed_generation == generation;
    let status = cluster.when(&name, "acted on", seen).await.status.unwrap();
    assert_eq!(
        status.phase,
        Some(DrivePhase::Available),
        "a cordoned drive is not taken"
    );
    cluster.cordon(&name, false).await;
    cluster.phase(&name, DrivePhase::Ready).await;
    let pools: kube::Api<strand_api::MemoryPool> = kube::Api::all(cluster.client.clone());
    pools.delete(POOL, &Default::default()).await.unwrap();
    let status = cluster
        .phase(&name, DrivePhase::Rejected)
        .await
        .status
        .unwrap();
    assert!(status.display_reasons.starts_with("OtherPool"));
    cluster.pool().await;
    cluster.phase(&name, DrivePhase::Ready).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_hangs_keeps_no_other_waiting() {
    let (cluster, host) = (Cluster::start().await, host());
    cluster.pool().await;
    let (good, bad) = (host.plug("S1", 16 * GIB), host.plug("S2", 16 * GIB));
    host.hang(&bad);
    let agent = Running::start(&cluster, host.clone());
    cluster.phase(&object(&good), DrivePhase::Available).await;
    cluster.claim(&object(&good), 8 * GIB).await;
    cluster.phase(&object(&good), DrivePhase::Ready).await;
    assert!(cluster.get(&object(&bad)).await.is_none());
    let drives = agent.handle.drives().await.unwrap();
    // The good one may be looked after meanwhile.
    let hanging = drives.iter().find(|d| d.name == object(&bad)).unwrap();
    assert_eq!(hanging.at_work.as_deref(), Some("looking at the drive"));
    host.free(&bad);
    cluster.phase(&object(&bad), DrivePhase::Available).await;
    agent.stop().await;
}
