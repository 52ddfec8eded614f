//! Snapshots of several volumes at one moment, and how many volumes a node takes.

use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use strand_api::PoolSnapshot;
use strand_csi::v1::group_controller_client::GroupControllerClient;
use strand_csi::v1::*;
use tonic::Code;

use crate::bed::{Bed, MAX_VOLUMES, NODE, until, writer};
use crate::volumes::create;

const SIZE: i64 = 16 << 20;

async fn take(bed: &Bed, volumes: &[&str]) -> Result<VolumeGroupSnapshot, tonic::Status> {
    let request = CreateVolumeGroupSnapshotRequest {
        name: "g".into(),
        source_volume_ids: volumes.iter().map(|id| (*id).to_owned()).collect(),
        ..CreateVolumeGroupSnapshotRequest::default()
    };
    let taken = GroupControllerClient::new(bed.channel())
        .create_volume_group_snapshot(request)
        .await?;
    Ok(taken.into_inner().group_snapshot.unwrap())
}

async fn forget(bed: &Bed, ids: &[String]) -> Result<(), tonic::Status> {
    let request = DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: "g".into(),
        snapshot_ids: ids.to_vec(),
        ..DeleteVolumeGroupSnapshotRequest::default()
    };
    let gone = GroupControllerClient::new(bed.channel())
        .delete_volume_group_snapshot(request)
        .await;
    gone.map(|_| ())
}

async fn get(bed: &Bed) -> Result<VolumeGroupSnapshot, tonic::Status> {
    let request = GetVolumeGroupSnapshotRequest {
        group_snapshot_id: "g".into(),
        ..GetVolumeGroupSnapshotRequest::default()
    };
    let found = GroupControllerClient::new(bed.channel())
        .get_volume_group_snapshot(request)
        .await?;
    Ok(found.into_inner().group_snapshot.unwrap())
}

async fn publish(bed: &Bed, volume: &str) -> Result<(), tonic::Status> {
    let request = ControllerPublishVolumeRequest {
        volume_id: volume.into(),
        node_id: NODE.into(),
        volume_capability: Some(writer("")),
        ..ControllerPublishVolumeRequest::default()
    };
    let published = bed.controller().controller_publish_volume(request).await;
    published.map(|_| ())
}

async fn unpublish(bed: &Bed, volume: &str) {
    let request = ControllerUnpublishVolumeRequest {
        volume_id: volume.into(),
        node_id: NODE.into(),
        ..ControllerUnpublishVolumeRequest::default()
    };
    let done = bed.controller().controller_unpublish_volume(request).await;
    done.unwrap();
}

async fn listed(bed: &Bed) -> Vec<Snapshot> {
    let mut controller = bed.controller();
    let all = controller.list_snapshots(ListSnapshotsRequest::default());
    let entries = all.await.unwrap().into_inner().entries;
    entries.into_iter().filter_map(|e| e.snapshot).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_of_one_moment_or_not_at_all() {
    let bed = Bed::new().await;
    for name in ["v", "w"] {
        create(&bed, name, writer(""), SIZE).await;
    }
    publish(&bed, "w").await.unwrap();
    let refused = take(&bed, &["v", "w"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("volume w is attached to node"),
        "{refused}"
    );
    assert!(get(&bed).await.is_err());
    unpublish(&bed, "w").await;

    let group = take(&bed, &["v", "w"]).await.unwrap();
    assert!(group.ready_to_use && group.creation_time.is_some());
    let of: Vec<&str> = group
        .snapshots
        .iter()
        .map(|s| s.source_volume_id.as_str())
        .collect();
    assert_eq!(of, ["v", "w"]);
    assert!(group.snapshots.iter().all(|s| s.group_snapshot_id == "g"));
    // The same again, also after a writer has come, and in whatever order.
    publish(&bed, "v").await.unwrap();
    assert_eq!(take(&bed, &["w", "v"]).await.unwrap(), group);
    assert_eq!(get(&bed).await.unwrap(), group);
    let other = take(&bed, &["v"]).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(listed(&bed).await.len(), 2);

    let ids: Vec<String> = group
        .snapshots
        .iter()
        .map(|s| s.snapshot_id.clone())
        .collect();
    let single = DeleteSnapshotRequest {
        snapshot_id: ids[0].clone(),
        ..DeleteSnapshotRequest::default()
    };
    let single = bed.controller().delete_snapshot(single).await.unwrap_err();
    assert_eq!(single.code(), Code::InvalidArgument);
    let fewer = forget(&bed, &ids[..1]).await.unwrap_err();
    assert_eq!(fewer.code(), Code::InvalidArgument);
    forget(&bed, &ids).await.unwrap();
    forget(&bed, &ids).await.unwrap();
    assert_eq!(get(&bed).await.unwrap_err().code(), Code::NotFound);
    until("the snapshots are gone", async || {
        listed(&bed).await.is_empty()
    })
    .await;
    unpublish(&bed, "v").await;
}

/// What a controller that was killed left: one snapshot of two, asked for when its volume had that generation.
async fn half_made(bed: &Bed, generation: i64) -> String {
    let snapshots = Api::<PoolSnapshot>::all(bed.client.clone());
    let group = take(bed, &["v", "w"]).await.unwrap();
    let ids: Vec<String> = group
        .snapshots
        .iter()
        .map(|s| s.snapshot_id.clone())
        .collect();
    forget(bed, &ids).await.unwrap();
    until("the snapshots are gone", async || {
        snapshots.get_opt(&ids[0]).await.unwrap().is_none()
    })
    .await;
    let half: PoolSnapshot = serde_json::from_value(json!({
        "metadata": {"name": ids[0]},
        "spec": {"volume": "v", "group": {"name": "g", "volumes": ["v", "w"], "generation": generation}},
    }))
    .unwrap();
    snapshots
        .create(&PostParams::default(), &half)
        .await
        .unwrap();
    ids[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_group_is_finished_or_given_up() {
    let bed = Bed::new().await;
    for name in ["v", "w"] {
        create(&bed, name, writer(""), SIZE).await;
    }
    let snapshots = Api::<PoolSnapshot>::all(bed.client.clone());
    let half = half_made(&bed, 0).await;
    assert_eq!(get(&bed).await.unwrap_err().code(), Code::NotFound);
    assert!(listed(&bed).await.is_empty(), "half a group is not listed");
    let made = snapshots.get(&half).await.unwrap().metadata.uid;
    let group = take(&bed, &["v", "w"]).await.unwrap();
    assert_eq!(group.snapshots.len(), 2);
    assert_eq!(
        snapshots.get(&half).await.unwrap().metadata.uid,
        made,
        "it was taken anew"
    );
    let ids: Vec<String> = group
        .snapshots
        .iter()
        .map(|s| s.snapshot_id.clone())
        .collect();
    forget(&bed, &ids).await.unwrap();

    // Somebody wrote in between: the one that is there is of another moment.
    publish(&bed, "v").await.unwrap();
    unpublish(&bed, "v").await;
    half_made(&bed, 0).await;
    let aborted = take(&bed, &["v", "w"]).await.unwrap_err();
    assert_eq!(aborted.code(), Code::Aborted, "{aborted}");
    let group = take(&bed, &["v", "w"]).await.unwrap();
    assert_eq!(group.snapshots.len(), 2);
    let generations = Api::<PoolSnapshot>::all(bed.client.clone());
    let of_v = generations.get(&half).await.unwrap().spec.group.unwrap();
    assert!(of_v.generation > 0 && of_v.complete);
    // What a group is cannot be changed.
    let patch = Patch::Merge(json!({"spec": {"group": {"generation": 0}}}));
    let changed = generations
        .patch(&half, &PatchParams::default(), &patch)
        .await;
    assert!(changed.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_as_many_volumes_as_it_says() {
    let bed = Bed::new().await;
    let name = |n: i64| format!("v{n}");
    for n in 0..=MAX_VOLUMES {
        create(&bed, &name(n), writer(""), SIZE).await;
    }
    let wishes: Vec<String> = (0..=MAX_VOLUMES).map(name).collect();
    let all = futures::future::join_all(wishes.iter().map(|volume| publish(&bed, volume))).await;
    let refused: Vec<_> = all.iter().filter_map(|r| r.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].code(), Code::ResourceExhausted);
    let late = all.iter().position(Result::is_err).unwrap();
    let there = (0..).find(|n| *n != late).unwrap();
    publish(&bed, &wishes[there]).await.unwrap();
    unpublish(&bed, &wishes[there]).await;
    publish(&bed, &wishes[late]).await.unwrap();
}
