//! Every call with what nobody should send: refused with a code of the specification, with nothing made, and the driver goes on.

use std::collections::HashMap;

use strand_csi::v1::group_controller_client::GroupControllerClient;
use strand_csi::v1::*;
use tonic::Code;

use crate::bed::{Bed, NODE, POOL, bytes, writer};
use crate::volumes::{create, nothing_left};

/// Texts for ids, names, paths and tokens.
fn texts() -> Vec<String> {
    let long = |length| "a".repeat(length);
    let mut texts: Vec<String> = [
        "",
        "..",
        "../../etc/passwd",
        "a/b",
        "/",
        "\0",
        "a\nb",
        "-",
        "ä\u{202e}",
        "%s%n",
        "*",
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    texts.extend([long(128), long(129), long(5000), long(1 << 20)]);
    texts.extend([
        "/".repeat(4096),
        format!("/{}", "x/".repeat(3000)),
        PATH.into(),
    ]);
    texts
}

/// How a call answers texts as an id: to none at all, to what no id can be, and to what this driver never gave.
type Codes = [Code; 3];
const I: Code = Code::InvalidArgument;
/// It has to be there.
const WANTED: Codes = [I, I, Code::NotFound];
/// It may be gone already.
const UNWANTED: Codes = [I, I, Code::Ok];
/// Nothing like it can ever be.
const NEVER: Codes = [I, I, I];
/// Where nothing means the beginning.
const TOKEN: Codes = [Code::Ok, Code::Aborted, Code::Aborted];

/// The one of `texts` that is a path which a mount could be made at.
const PATH: &str = "/proc/self/mem/x";

fn judge<T>(what: &str, text: &str, codes: Codes, result: Result<T, tonic::Status>) {
    let code = result.map_or_else(|status| status.code(), |_| Code::Ok);
    let impossible = text.len() > 128 || text.chars().any(char::is_control);
    let expected = match text {
        "" => codes[0],
        _ if impossible => codes[1],
        _ => codes[2],
    };
    let shown: String = text.chars().take(30).collect();
    let len = text.len();
    assert_eq!(code, expected, "{what} of {shown:?} ({len} bytes)");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts() {
    let bed = Bed::new().await;
    let (mut c, mut n) = (bed.controller(), bed.node());
    let context = HashMap::from([("strand.dev/generation".to_owned(), "1".to_owned())]);
    for text in texts() {
        let t = || text.clone();
        // Who comes with a volume that cannot be and a path that can, hears of the volume.
        let at = |codes: Codes| if text == PATH { codes } else { NEVER };
        let parameters = HashMap::from([(t(), t()), ("pool".to_owned(), t())]);
        let request = CreateVolumeRequest {
            name: "v".into(),
            volume_capabilities: vec![writer("xfs")],
            parameters: parameters.clone(),
            ..Default::default()
        };
        judge("parameters", &text, NEVER, c.create_volume(request).await);
        let request = CreateVolumeRequest {
            name: t(),
            volume_capabilities: vec![writer(&text)],
            ..Default::default()
        };
        if !text.is_empty() {
            judge("CreateVolume", &text, NEVER, c.create_volume(request).await);
        }
        let request = DeleteVolumeRequest {
            volume_id: t(),
            ..Default::default()
        };
        judge(
            "DeleteVolume",
            &text,
            UNWANTED,
            c.delete_volume(request).await,
        );
        let request = ControllerPublishVolumeRequest {
            volume_id: t(),
            node_id: t(),
            volume_capability: Some(writer("xfs")),
            ..Default::default()
        };
        judge(
            "ControllerPublishVolume",
            &text,
            WANTED,
            c.controller_publish_volume(request).await,
        );
        let request = ControllerUnpublishVolumeRequest {
            volume_id: t(),
            node_id: t(),
            ..Default::default()
        };
        judge(
            "ControllerUnpublishVolume",
            &text,
            UNWANTED,
            c.controller_unpublish_volume(request).await,
        );
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: t(),
            volume_capabilities: vec![writer(&text)],
            ..Default::default()
        };
        judge(
            "ValidateVolumeCapabilities",
            &text,
            WANTED,
            c.validate_volume_capabilities(request).await,
        );
        judge(
            "ListVolumes",
            &text,
            NEVER,
            c.list_volumes(ListVolumesRequest {
                max_entries: -1,
                starting_token: t(),
            })
            .await,
        );
        judge(
            "ListVolumes",
            &text,
            TOKEN,
            c.list_volumes(ListVolumesRequest {
                max_entries: i32::MAX,
                starting_token: t(),
            })
            .await,
        );
        judge(
            "GetCapacity",
            &text,
            NEVER,
            c.get_capacity(GetCapacityRequest {
                parameters,
                ..Default::default()
            })
            .await,
        );
        let request = CreateSnapshotRequest {
            name: t(),
            source_volume_id: t(),
            ..Default::default()
        };
        judge(
            "CreateSnapshot",
            &text,
            WANTED,
            c.create_snapshot(request).await,
        );
        let mut g = GroupControllerClient::new(bed.channel());
        let request = CreateVolumeGroupSnapshotRequest {
            name: t(),
            source_volume_ids: vec![t()],
            ..Default::default()
        };
        let result = g.create_volume_group_snapshot(request).await;
        judge("CreateVolumeGroupSnapshot", &text, WANTED, result);
        let request = DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: t(),
            snapshot_ids: vec![t()],
            ..Default::default()
        };
        let result = g.delete_volume_group_snapshot(request).await;
        judge("DeleteVolumeGroupSnapshot", &text, UNWANTED, result);
        let request = GetVolumeGroupSnapshotRequest {
            group_snapshot_id: t(),
            snapshot_ids: vec![t()],
            ..Default::default()
        };
        let result = g.get_volume_group_snapshot(request).await;
        judge("GetVolumeGroupSnapshot", &text, WANTED, result);
        let request = DeleteSnapshotRequest {
            snapshot_id: t(),
            ..Default::default()
        };
        judge(
            "DeleteSnapshot",
            &text,
            UNWANTED,
            c.delete_snapshot(request).await,
        );
        let request = ListSnapshotsRequest {
            starting_token: t(),
            source_volume_id: t(),
            snapshot_id: t(),
            ..Default::default()
        };
        judge(
            "ListSnapshots",
            &text,
            [Code::Ok, I, Code::Aborted],
            c.list_snapshots(request).await,
        );
        let request = ControllerExpandVolumeRequest {
            volume_id: t(),
            capacity_range: Some(bytes(i64::MAX)),
            ..Default::default()
        };
        judge(
            "ControllerExpandVolume",
            &text,
            [I, I, Code::OutOfRange],
            c.controller_expand_volume(request).await,
        );
        judge(
            "ControllerGetVolume",
            &text,
            WANTED,
            c.controller_get_volume(ControllerGetVolumeRequest { volume_id: t() })
                .await,
        );
        let request = ControllerModifyVolumeRequest {
            volume_id: t(),
            mutable_parameters: HashMap::from([(t(), t())]),
            ..Default::default()
        };
        judge(
            "ControllerModifyVolume",
            &text,
            WANTED,
            c.controller_modify_volume(request).await,
        );

        let request = NodeStageVolumeRequest {
            volume_id: t(),
            publish_context: context.clone(),
            staging_target_path: t(),
            volume_capability: Some(writer("xfs")),
            ..Default::default()
        };
        judge(
            "NodeStageVolume",
            &text,
            at(WANTED),
            n.node_stage_volume(request).await,
        );
        let request = NodeUnstageVolumeRequest {
            volume_id: t(),
            staging_target_path: t(),
        };
        judge(
            "NodeUnstageVolume",
            &text,
            at(UNWANTED),
            n.node_unstage_volume(request).await,
        );
        let request = NodePublishVolumeRequest {
            volume_id: t(),
            staging_target_path: t(),
            target_path: t(),
            volume_capability: Some(writer("xfs")),
            ..Default::default()
        };
        judge(
            "NodePublishVolume",
            &text,
            at(WANTED),
            n.node_publish_volume(request).await,
        );
        let request = NodeUnpublishVolumeRequest {
            volume_id: t(),
            target_path: t(),
        };
        judge(
            "NodeUnpublishVolume",
            &text,
            at(UNWANTED),
            n.node_unpublish_volume(request).await,
        );
        let request = NodeGetVolumeStatsRequest {
            volume_id: t(),
            volume_path: t(),
            ..Default::default()
        };
        judge(
            "NodeGetVolumeStats",
            &text,
            WANTED,
            n.node_get_volume_stats(request).await,
        );
        let request = NodeExpandVolumeRequest {
            volume_id: t(),
            volume_path: t(),
            ..Default::default()
        };
        judge(
            "NodeExpandVolume",
            &text,
            WANTED,
            n.node_expand_volume(request).await,
        );
    }
    // What is in the log is one line a call, whatever was sent.
    assert!(bed.log().lines().all(|line| line.len() < 4096));
    assert!(!bed.log().contains("panicked"), "{}", bed.log());
    assert_eq!(bed.objects().await, (0, 0));
    nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_a_volume_at_a_time_and_two_controllers_at_once() {
    let bed = Bed::new().await;
    let mut calls = Vec::new();
    for _ in 0..8 {
        let mut controller = bed.controller();
        calls.push(tokio::spawn(async move {
            let request = CreateVolumeRequest {
                name: "same".into(),
                capacity_range: Some(bytes(64 << 20)),
                volume_capabilities: vec![writer("")],
                parameters: HashMap::from([("pool".into(), POOL.into())]),
                ..Default::default()
            };
            controller
                .create_volume(request)
                .await
                .map_or_else(|s| s.code(), |_| Code::Ok)
        }));
    }
    let mut codes = Vec::new();
    for call in calls {
        codes.push(call.await.unwrap());
    }
    assert!(codes.contains(&Code::Ok), "{codes:?}");
    assert!(
        codes.iter().all(|c| [Code::Ok, Code::Aborted].contains(c)),
        "{codes:?}"
    );
    let volume = create(&bed, "same", writer(""), 64 << 20).await;
    assert_eq!(bed.stand_in.files(), 1);

    // In use it cannot be deleted, and no other node gets it.
    let publish = |node: &str| ControllerPublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        node_id: node.into(),
        volume_capability: Some(writer("")),
        ..Default::default()
    };
    bed.controller()
        .controller_publish_volume(publish(NODE))
        .await
        .unwrap();
    let request = DeleteVolumeRequest {
        volume_id: volume.volume_id.clone(),
        ..Default::default()
    };
    let refused = bed.controller().delete_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let refused = bed
        .controller()
        .controller_publish_volume(publish("node-2"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    crate::volumes::end(&bed, &volume.volume_id).await;
    nothing_left(&bed).await;
}
