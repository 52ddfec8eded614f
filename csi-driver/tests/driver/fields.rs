//! Requests for a volume that is there, with one field that cannot be: the exact code, and the volume as it was.

use std::collections::HashMap;

use strand_csi::v1::volume_capability::access_mode::Mode;
use strand_csi::v1::volume_capability::{AccessType, MountVolume};
use strand_csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use strand_csi::v1::*;
use tonic::Code::{self, *};

use crate::bed::{Bed, NODE, POOL, bytes, capability, writer};
use crate::volumes::{
    create, end, nothing_left, publish, publish_request, stage, stage_request, unpublish,
};

const MIB: i64 = 1 << 20;
const SIZE: i64 = 64 * MIB;

/// Makes a call with a request that differs from a good one as told, for each of the changes.
macro_rules! refused {
    ($call:expr, $good:expr, $([$code:expr, |$request:ident| $change:expr]),+ $(,)?) => {{
        $({
            let mut $request = $good.clone();
            $change;
            let result = $call($request).await;
            let code = result.as_ref().map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(code, $code, "{}: {result:?}", stringify!($change));
        })+
    }};
}

/// Capabilities that no volume can have.
fn impossible() -> Vec<Option<VolumeCapability>> {
    let mount = |change: fn(&mut MountVolume)| {
        let mut mount = MountVolume {
            fs_type: "ext4".into(),
            ..MountVolume::default()
        };
        change(&mut mount);
        let access_type = Some(AccessType::Mount(mount));
        Some(VolumeCapability {
            access_type,
            ..writer("ext4")
        })
    };
    let without = |change: fn(&mut VolumeCapability)| {
        let mut capability = writer("ext4");
        change(&mut capability);
        Some(capability)
    };
    vec![
        None,
        Some(VolumeCapability::default()),
        without(|c| c.access_type = None),
        without(|c| c.access_mode = None),
        without(|c| c.access_mode.as_mut().unwrap().mode = 0),
        without(|c| c.access_mode.as_mut().unwrap().mode = 99),
        Some(capability("ext4", Mode::MultiNodeMultiWriter)),
        mount(|m| m.fs_type = "ntfs".into()),
        mount(|m| m.fs_type = "ext4 -o suid".into()),
        mount(|m| m.fs_type = "x".repeat(1 << 20)),
        mount(|m| m.volume_mount_group = "0".into()),
        mount(|m| m.mount_flags = vec!["noatime".into(); 4000]),
        mount(|m| m.mount_flags = vec!["a\0b".into()]),
    ]
}

async fn as_it_is(bed: &Bed, id: &str) -> ControllerGetVolumeResponse {
    let request = ControllerGetVolumeRequest {
        volume_id: id.into(),
    };
    let answer = bed.controller().controller_get_volume(request).await;
    answer.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_field_that_cannot_be_has_its_code_and_changes_nothing() {
    let bed = Bed::new().await;
    let volume = create(&bed, "v", writer("ext4"), SIZE).await;
    let id = &volume.volume_id;
    let context = stage(&bed, &volume, writer("ext4")).await;
    publish(&bed, id, "pod", writer("ext4")).await;
    let before = (as_it_is(&bed, id).await, bed.mounts());
    let map = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
    let range = |required_bytes, limit_bytes| {
        Some(CapacityRange {
            required_bytes,
            limit_bytes,
        })
    };
    let of = |of: Type| Some(VolumeContentSource { r#type: Some(of) });

    let good = CreateVolumeRequest {
        name: "new".into(),
        capacity_range: Some(bytes(SIZE)),
        volume_capabilities: vec![writer("ext4")],
        parameters: map("pool", POOL),
        ..CreateVolumeRequest::default()
    };
    let call = async |request| bed.controller().create_volume(request).await;
    for bad in impossible() {
        let bad: Vec<_> = bad.into_iter().collect();
        refused!(
            call,
            good,
            [InvalidArgument, |r| r.volume_capabilities = bad.clone()]
        );
    }
    refused!(
        call,
        good,
        [AlreadyExists, |r| (r.name, r.capacity_range) =
            ("v".into(), range(2 * SIZE, 0))],
        [AlreadyExists, |r| (r.name, r.volume_capabilities) =
            ("v".into(), vec![writer("")])],
        [InvalidArgument, |r| r.volume_capabilities.push(writer(""))],
        [InvalidArgument, |r| r.capacity_range = range(-1, 0)],
        [InvalidArgument, |r| r.capacity_range = range(0, -1)],
        [InvalidArgument, |r| r.capacity_range =
            range(i64::MIN, i64::MIN)],
        [InvalidArgument, |r| r.capacity_range =
            range(SIZE, SIZE - 1)],
        [OutOfRange, |r| r.capacity_range = range(i64::MAX, 0)],
        [OutOfRange, |r| r.capacity_range = range(0, MIB)],
        [OutOfRange, |r| r.capacity_range = range(SIZE + 1, SIZE + 2)],
        [ResourceExhausted, |r| r.capacity_range = range(1 << 50, 0)],
        [InvalidArgument, |r| r.parameters = map("pool", "other")],
        [InvalidArgument, |r| r.parameters = map("replicas", "3")],
        [InvalidArgument, |r| r.parameters = (0..9000)
            .map(|n| (format!("k{n}"), "v".repeat(200)))
            .collect()],
        [InvalidArgument, |r| r.parameters = map("locality", "node")],
        [InvalidArgument, |r| r.mutable_parameters =
            map("iops", "-5")],
        [InvalidArgument, |r| r.mutable_parameters =
            map("iops", "99999999999999999999")],
        [InvalidArgument, |r| r.mutable_parameters =
            map("bandwidth", "1")],
        [InvalidArgument, |r| r.volume_content_source =
            Some(VolumeContentSource::default())],
        [NotFound, |r| r.volume_content_source =
            of(Type::Snapshot(SnapshotSource {
                snapshot_id: "none".into()
            }))],
        [NotFound, |r| r.volume_content_source =
            of(Type::Volume(VolumeSource {
                volume_id: "none".into()
            }))],
        [InvalidArgument, |r| r.volume_content_source =
            of(Type::Volume(VolumeSource {
                volume_id: "x".repeat(4000)
            }))],
        [OutOfRange, |r| (
            r.capacity_range,
            r.volume_content_source
        ) = (
            range(SIZE / 2, 0),
            of(Type::Volume(VolumeSource {
                volume_id: id.clone()
            }))
        )],
        [ResourceExhausted, |r| r.accessibility_requirements =
            Some(TopologyRequirement {
                requisite: vec![Topology {
                    segments: map("topology.strand.dev/fabric", "other")
                }],
                ..TopologyRequirement::default()
            })],
    );

    let good = ControllerPublishVolumeRequest {
        volume_id: id.clone(),
        node_id: NODE.into(),
        volume_capability: Some(writer("ext4")),
        ..ControllerPublishVolumeRequest::default()
    };
    let call = async |request| bed.controller().controller_publish_volume(request).await;
    for bad in impossible() {
        refused!(
            call,
            good,
            [InvalidArgument, |r| r.volume_capability = bad.clone()]
        );
    }
    refused!(
        call,
        good,
        [Ok, |r| r.secrets = map("password", &"x".repeat(1 << 20))],
        [NotFound, |r| r.volume_id = "none".into()],
        [NotFound, |r| r.node_id = "node-9".into()],
        [NotFound, |r| r.node_id = "../node-1".into()],
        [InvalidArgument, |r| r.node_id = "n".repeat(257)],
        [InvalidArgument, |r| r.volume_capability = Some(writer(""))],
        [AlreadyExists, |r| r.readonly = true],
    );

    let good = ControllerExpandVolumeRequest {
        volume_id: id.clone(),
        capacity_range: Some(bytes(SIZE)),
        ..ControllerExpandVolumeRequest::default()
    };
    let call = async |request| bed.controller().controller_expand_volume(request).await;
    refused!(
        call,
        good,
        [InvalidArgument, |r| r.capacity_range = None],
        [InvalidArgument, |r| r.capacity_range = range(-SIZE, 0)],
        [OutOfRange, |r| r.capacity_range = range(i64::MAX, 0)],
        [OutOfRange, |r| r.capacity_range = range(0, SIZE / 2)],
        [InvalidArgument, |r| r.volume_capability =
            Some(VolumeCapability::default())],
        [NotFound, |r| r.volume_id = "none".into()],
    );
    let good = ControllerModifyVolumeRequest {
        volume_id: id.clone(),
        ..ControllerModifyVolumeRequest::default()
    };
    let call = async |request| bed.controller().controller_modify_volume(request).await;
    refused!(
        call,
        good,
        [InvalidArgument, |r| r.mutable_parameters =
            map("iops", "fast")],
        [InvalidArgument, |r| r.mutable_parameters =
            map("pool", POOL)],
        [NotFound, |r| r.volume_id = "none".into()],
    );
    let good = CreateSnapshotRequest {
        name: "s".into(),
        source_volume_id: id.clone(),
        ..CreateSnapshotRequest::default()
    };
    let call = async |request| bed.controller().create_snapshot(request).await;
    refused!(
        call,
        good,
        [InvalidArgument, |r| r.name = String::new()],
        [InvalidArgument, |r| r.source_volume_id = String::new()],
        [InvalidArgument, |r| r.parameters = map("fast", "yes")],
        [NotFound, |r| r.source_volume_id = "none".into()],
    );
    let call = async |request| bed.controller().delete_volume(request).await;
    let good = DeleteVolumeRequest {
        volume_id: id.clone(),
        ..DeleteVolumeRequest::default()
    };
    refused!(
        call,
        good,
        [FailedPrecondition, |r| r.secrets = map("a", "b")]
    );

    let good = stage_request(&bed, &volume, writer("ext4"), &context);
    let call = async |request| bed.node().node_stage_volume(request).await;
    for bad in impossible() {
        refused!(
            call,
            good,
            [InvalidArgument, |r| r.volume_capability = bad.clone()]
        );
    }
    let generation = |text: &str| map("strand.dev/generation", text);
    refused!(
        call,
        good,
        [InvalidArgument, |r| r.publish_context.clear()],
        [InvalidArgument, |r| r.publish_context = generation("-1")],
        [InvalidArgument, |r| r.publish_context = generation("1e3")],
        [InvalidArgument, |r| r.publish_context =
            generation(&"9".repeat(40))],
        [InvalidArgument, |r| r.staging_target_path =
            "relative".into()],
        [InvalidArgument, |r| r.staging_target_path =
            format!("{}/..", bed.staging(id))],
        [InvalidArgument, |r| r.staging_target_path =
            format!("/{}", "x".repeat(4096))],
        [AlreadyExists, |r| r.volume_capability = Some(writer("xfs"))],
        [AlreadyExists, |r| r.volume_capability = Some(writer(""))],
    );
    let good = publish_request(&bed, id, "pod", writer("ext4"));
    let call = async |request| bed.node().node_publish_volume(request).await;
    for bad in impossible() {
        refused!(
            call,
            good,
            [InvalidArgument, |r| r.volume_capability = bad.clone()]
        );
    }
    refused!(
        call,
        good,
        [FailedPrecondition, |r| r.staging_target_path =
            String::new()],
        [FailedPrecondition, |r| r.staging_target_path =
            bed.staging("other")],
        [FailedPrecondition, |r| r.volume_capability =
            Some(writer(""))],
        [InvalidArgument, |r| r.target_path = String::new()],
        [InvalidArgument, |r| r.target_path = "pod".into()],
        [InvalidArgument, |r| r.target_path =
            format!("{}/../x", bed.target("pod"))],
        [InvalidArgument, |r| r.volume_context =
            map("csi.storage.k8s.io/ephemeral", "true")],
    );
    let good = NodeExpandVolumeRequest {
        volume_id: id.clone(),
        volume_path: bed.target("pod"),
        staging_target_path: bed.staging(id),
        ..NodeExpandVolumeRequest::default()
    };
    let call = async |request| bed.node().node_expand_volume(request).await;
    refused!(
        call,
        good,
        [InvalidArgument, |r| r.volume_path = String::new()],
        [NotFound, |r| r.volume_path = bed.target("nobody")],
        [NotFound, |r| r.volume_path = "../..".into()],
        [InvalidArgument, |r| r.capacity_range = range(-1, 0)],
        [Unavailable, |r| r.capacity_range = range(2 * SIZE, 0)],
    );

    assert_eq!((as_it_is(&bed, id).await, bed.mounts()), before);
    assert_eq!(bed.objects().await, (1, 0));
    assert!(!bed.log().contains("panicked"), "{}", bed.log());
    unpublish(&bed, id, "pod").await;
    end(&bed, id).await;
    nothing_left(&bed).await;
}
