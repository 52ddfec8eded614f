//! Volumes from creation to deletion, with bytes in them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use strand_csi::v1::volume_capability::access_mode::Mode;
use strand_csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use strand_csi::v1::volume_usage::Unit;
use strand_csi::v1::*;
use tonic::Code;

use crate::bed::{Bed, NODE, POOL, bytes, can_grow_mounted, capability, make_pool, until, writer};

pub async fn create(bed: &Bed, name: &str, capability: VolumeCapability, size: i64) -> Volume {
    let request = CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(bytes(size)),
        volume_capabilities: vec![capability],
        ..CreateVolumeRequest::default()
    };
    made(bed, request).await
}

pub async fn made(bed: &Bed, request: CreateVolumeRequest) -> Volume {
    let answer = bed.controller().create_volume(request).await.expect("made");
    answer.into_inner().volume.expect("a volume")
}

/// Attaches and stages.
pub async fn stage(
    bed: &Bed,
    volume: &Volume,
    capability: VolumeCapability,
) -> HashMap<String, String> {
    let id = &volume.volume_id;
    let request = ControllerPublishVolumeRequest {
        volume_id: id.clone(),
        node_id: NODE.into(),
        volume_capability: Some(capability.clone()),
        ..ControllerPublishVolumeRequest::default()
    };
    let attached = bed.controller().controller_publish_volume(request).await;
    let context = attached.expect("attached").into_inner().publish_context;
    let request = stage_request(bed, volume, capability, &context);
    bed.node().node_stage_volume(request).await.expect("staged");
    context
}

pub fn stage_request(
    bed: &Bed,
    volume: &Volume,
    capability: VolumeCapability,
    context: &HashMap<String, String>,
) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        publish_context: context.clone(),
        staging_target_path: bed.staging(&volume.volume_id),
        volume_capability: Some(capability),
        volume_context: volume.volume_context.clone(),
        ..NodeStageVolumeRequest::default()
    }
}

pub fn publish_request(
    bed: &Bed,
    id: &str,
    pod: &str,
    capability: VolumeCapability,
) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: id.into(),
        staging_target_path: bed.staging(id),
        target_path: bed.target(pod),
        volume_capability: Some(capability),
        ..NodePublishVolumeRequest::default()
    }
}

pub async fn publish(bed: &Bed, id: &str, pod: &str, capability: VolumeCapability) {
    let request = publish_request(bed, id, pod, capability);
    bed.node()
        .node_publish_volume(request)
        .await
        .expect("published");
}

pub async fn unpublish(bed: &Bed, id: &str, pod: &str) {
    let request = NodeUnpublishVolumeRequest {
        volume_id: id.into(),
        target_path: bed.target(pod),
    };
    bed.node()
        .node_unpublish_volume(request)
        .await
        .expect("unpublished");
}

/// Unstages, detaches, deletes.
pub async fn end(bed: &Bed, id: &str) {
    let request = NodeUnstageVolumeRequest {
        volume_id: id.into(),
        staging_target_path: bed.staging(id),
    };
    bed.node()
        .node_unstage_volume(request)
        .await
        .expect("unstaged");
    let request = ControllerUnpublishVolumeRequest {
        volume_id: id.into(),
        node_id: NODE.into(),
        ..ControllerUnpublishVolumeRequest::default()
    };
    bed.controller()
        .controller_unpublish_volume(request)
        .await
        .expect("detached");
    let request = DeleteVolumeRequest {
        volume_id: id.into(),
        ..DeleteVolumeRequest::default()
    };
    bed.controller()
        .delete_volume(request)
        .await
        .expect("deleted");
}

pub async fn nothing_left(bed: &Bed) {
    assert_eq!(bed.left(), Vec::<String>::new());
    until("all files are gone", async || bed.stand_in.files() == 0).await;
}

async fn grows_and_copies(fs: &str) {
    let bed = Bed::new().await;
    let volume = create(&bed, "origin", writer(fs), 400 << 20).await;
    let id = volume.volume_id.clone();
    stage(&bed, &volume, writer(fs)).await;
    publish(&bed, &id, "a", writer(fs)).await;
    publish(&bed, &id, "a", writer(fs)).await;
    let file = format!("{}/file", bed.target("a"));
    fs::write(&file, "bytes").unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();

    // A copy of the mounted volume, larger than it, mounted beside it.
    let snapshot = CreateSnapshotRequest {
        source_volume_id: id.clone(),
        name: "snap".into(),
        ..CreateSnapshotRequest::default()
    };
    let snapshot = bed
        .controller()
        .create_snapshot(snapshot)
        .await
        .unwrap()
        .into_inner();
    let snapshot = snapshot.snapshot.unwrap().snapshot_id;
    let from = Type::Snapshot(SnapshotSource {
        snapshot_id: snapshot.clone(),
    });
    let restored = CreateVolumeRequest {
        name: "restored".into(),
        capacity_range: Some(bytes(600 << 20)),
        volume_capabilities: vec![writer(fs)],
        volume_content_source: Some(VolumeContentSource { r#type: Some(from) }),
        ..CreateVolumeRequest::default()
    };
    let too_small = CreateVolumeRequest {
        name: "small".into(),
        capacity_range: Some(bytes(300 << 20)),
        ..restored.clone()
    };
    let refused = bed.controller().create_volume(too_small).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let restored = made(&bed, restored).await;
    stage(&bed, &restored, writer(fs)).await;
    publish(&bed, &restored.volume_id, "b", writer(fs)).await;
    assert_eq!(
        fs::read_to_string(format!("{}/file", bed.target("b"))).unwrap(),
        "bytes"
    );
    let total = |stats: &NodeGetVolumeStatsResponse| {
        let of = stats.usage.iter().find(|u| u.unit() == Unit::Bytes);
        of.unwrap().total
    };
    let asked = |pod: &str, id: &str| NodeGetVolumeStatsRequest {
        volume_id: id.into(),
        volume_path: bed.target(pod),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = bed
        .node()
        .node_get_volume_stats(asked("b", &restored.volume_id))
        .await;
    let stats = stats.unwrap().into_inner();
    assert!(total(&stats) > 450 << 20, "{stats:?}");
    assert!(!stats.volume_condition.unwrap().abnormal);

    // The origin grows under its pod.
    let request = ControllerExpandVolumeRequest {
        volume_id: id.clone(),
        capacity_range: Some(bytes(800 << 20)),
        volume_capability: Some(writer(fs)),
        ..ControllerExpandVolumeRequest::default()
    };
    let grown = bed
        .controller()
        .controller_expand_volume(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (grown.capacity_bytes, grown.node_expansion_required),
        (800 << 20, true)
    );
    let request = NodeExpandVolumeRequest {
        volume_id: id.clone(),
        volume_path: bed.target("a"),
        capacity_range: Some(bytes(800 << 20)),
        staging_target_path: bed.staging(&id),
        ..NodeExpandVolumeRequest::default()
    };
    if can_grow_mounted(fs) {
        bed.node().node_expand_volume(request).await.unwrap();
    } else {
        println!("NOT CHECKED: ext4 growing under its mount needs CAP_SYS_RESOURCE");
        let refused = bed.node().node_expand_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused}");
    }
    let stats = bed
        .node()
        .node_get_volume_stats(asked("a", &id))
        .await
        .unwrap()
        .into_inner();
    assert!(
        !can_grow_mounted(fs) || total(&stats) > 650 << 20,
        "{stats:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "bytes");

    for (id, pod) in [(&id, "a"), (&restored.volume_id, "b")] {
        unpublish(&bed, id, pod).await;
        unpublish(&bed, id, pod).await;
        assert!(!Path::new(&bed.target(pod)).exists());
        end(&bed, id).await;
    }
    let request = DeleteSnapshotRequest {
        snapshot_id: snapshot,
        ..DeleteSnapshotRequest::default()
    };
    bed.controller().delete_snapshot(request).await.unwrap();
    nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn xfs_volumes_grow_and_are_copied() {
    grows_and_copies("xfs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ext4_volumes_grow_and_are_copied() {
    grows_and_copies("ext4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_volumes_are_devices_and_can_be_cloned() {
    let bed = Bed::new().await;
    let volume = create(&bed, "raw", writer(""), 64 << 20).await;
    stage(&bed, &volume, writer("")).await;
    publish(&bed, &volume.volume_id, "a", writer("")).await;
    let at = bed.target("a");
    assert!(fs::metadata(&at).unwrap().file_type().is_block_device());
    let block = vec![7; 4096];
    fs::write(&at, &block).unwrap();
    fs::File::open(&at).unwrap().sync_all().unwrap();
    // A file system is not made over bytes that somebody wrote.
    unpublish(&bed, &volume.volume_id, "a").await;
    assert!(!Path::new(&at).exists());

    let from = Type::Volume(VolumeSource {
        volume_id: volume.volume_id.clone(),
    });
    let request = CreateVolumeRequest {
        name: "clone".into(),
        volume_capabilities: vec![writer("")],
        volume_content_source: Some(VolumeContentSource { r#type: Some(from) }),
        ..CreateVolumeRequest::default()
    };
    let clone = made(&bed, request).await;
    assert_eq!(clone.capacity_bytes, 64 << 20);
    assert_eq!(
        fs::read(bed.stand_in.file(&clone.volume_id)).unwrap()[..4096],
        block
    );
    end(&bed, &volume.volume_id).await;
    end(&bed, &clone.volume_id).await;
    nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_a_volume_is_never_overwritten() {
    let bed = Bed::new().await;
    let volume = create(&bed, "full", writer("xfs"), 400 << 20).await;
    let file = bed.stand_in.file(&volume.volume_id);
    let foreign = |at: u64| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(&file).unwrap();
        file.write_all_at(b"somebody's", at).unwrap();
    };
    foreign(100);
    let request = ControllerPublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        node_id: NODE.into(),
        volume_capability: Some(writer("xfs")),
        ..ControllerPublishVolumeRequest::default()
    };
    let attached = bed
        .controller()
        .controller_publish_volume(request)
        .await
        .unwrap();
    let context = attached.into_inner().publish_context;
    let request = stage_request(&bed, &volume, writer("xfs"), &context);
    let refused = bed.node().node_stage_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(&fs::read(&file).unwrap()[100..110], b"somebody's");
    // And without a stage, a pod never writes into the host's directory.
    let request = publish_request(&bed, &volume.volume_id, "a", writer("xfs"));
    let refused = bed.node().node_publish_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    end(&bed, &volume.volume_id).await;
    nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_may_only_read_cannot_write_and_one_pod_is_one_path() {
    let bed = Bed::new().await;
    let once = capability("ext4", Mode::SingleNodeSingleWriter);
    let volume = create(&bed, "one", once.clone(), 64 << 20).await;
    let id = &volume.volume_id;
    stage(&bed, &volume, once.clone()).await;
    publish(&bed, id, "a", once.clone()).await;
    let second = publish_request(&bed, id, "b", once.clone());
    let refused = bed.node().node_publish_volume(second).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let asked = bed.stand_in.asked();
    unpublish(&bed, id, "a").await;
    unpublish(&bed, id, "b").await;
    assert_eq!(bed.stand_in.asked(), asked, "unpublishing asked the agent");

    let reader = NodePublishVolumeRequest {
        readonly: true,
        ..publish_request(&bed, id, "c", writer("ext4"))
    };
    bed.node()
        .node_publish_volume(reader.clone())
        .await
        .unwrap();
    bed.node().node_publish_volume(reader).await.unwrap();
    let denied = fs::write(format!("{}/x", bed.target("c")), "x").unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    publish(&bed, id, "d", writer("ext4")).await;
    fs::write(format!("{}/x", bed.target("d")), "x").unwrap();
    unpublish(&bed, id, "c").await;
    unpublish(&bed, id, "d").await;
    end(&bed, id).await;
    nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_nowhere_leaves_nothing_and_its_name_is_free() {
    let bed = Bed::new().await;
    let request = CreateVolumeRequest {
        name: "huge".into(),
        capacity_range: Some(bytes(200 << 30)),
        volume_capabilities: vec![writer("")],
        ..CreateVolumeRequest::default()
    };
    let refused = bed.controller().create_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("closest"), "{refused}");
    let volume = create(&bed, "huge", writer(""), 64 << 20).await;
    let request = ControllerExpandVolumeRequest {
        volume_id: volume.volume_id.clone(),
        capacity_range: Some(bytes(200 << 30)),
        ..ControllerExpandVolumeRequest::default()
    };
    let refused = bed
        .controller()
        .controller_expand_volume(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    end(&bed, &volume.volume_id).await;
    nothing_left(&bed).await;
}

/// A kubelet that is refused comes back later and later; so a node without a pool lets it wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_there_before_its_pool_tells_its_topology_once_there_is_one() {
    let bed = Bed::new().await;
    let pools = kube::Api::<strand_api::MemoryPool>::all(bed.client.clone());
    let now = kube::api::DeleteParams::default();
    pools.delete(POOL, &now).await.expect("deleted");
    let mut node = bed.node();
    let asked = tokio::spawn(async move { node.node_get_info(NodeGetInfoRequest {}).await });
    until("it waits", async || bed.log().contains("topology waits")).await;
    assert!(!asked.is_finished());
    make_pool(&bed.client).await;
    let info = asked.await.expect("no panic").expect("told").into_inner();
    let segments = info.accessible_topology.expect("a topology").segments;
    assert_eq!(segments["topology.strand.dev/fabric"], POOL);
}
