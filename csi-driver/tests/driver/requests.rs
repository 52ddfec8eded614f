//! Requests to every call, of words by chance; some with bytes that were changed on the way.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::Union;
use std::collections::HashMap;

use prost::Message;
use strand_csi::v1::*;

use crate::bed::POOL;
use crate::words::{
    SNAPSHOT, SPARE, VOLUME, capabilities, capability, map, mutable, node, parameters, path, range,
    requirement, secrets, snapshot, source, topology, unused, used, word,
};

/// A request as it is sent.
#[derive(Clone)]
pub struct Call {
    /// Service and method.
    pub path: &'static str,
    /// The message.
    pub body: Vec<u8>,
    /// Whether it is one: what cannot be read is refused before it reaches the driver.
    pub readable: bool,
    words: String,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: String = self.words.chars().take(2000).collect();
        write!(f, "{} ({} bytes) {words}", self.path, self.body.len())
    }
}

/// A call of messages that a strategy makes; some of `bent` ones have bytes changed.
fn call<M: Message + Default + Clone + std::fmt::Debug + 'static>(
    path: &'static str,
    messages: impl Strategy<Value = M> + 'static,
    bent: bool,
) -> BoxedStrategy<Call> {
    let change = vec((any::<Index>(), any::<u8>()), 1..4);
    let changes = prop_oneof![3 => Just(Vec::new()), 1 => change];
    (messages, changes)
        .prop_map(move |(message, changes)| {
            let mut body = message.encode_to_vec();
            for (at, byte) in changes
                .into_iter()
                .filter(|_| bent && !body.is_empty())
                .collect::<Vec<_>>()
            {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let read = M::decode(&*body);
            let words = read
                .as_ref()
                .map_or_else(ToString::to_string, |message| format!("{message:?}"));
            Call {
                path,
                readable: read.is_ok(),
                body,
                words,
            }
        })
        .boxed()
}

/// A message whose fields are made by strategies, in their order.
macro_rules! message {
    ($type:ident { $($field:ident: $strategy:expr),+ $(,)? }) => {
        ($($strategy,)+).prop_map(|($($field,)+)| $type { $($field,)+ })
    };
}

/// To every call of a driver of both parts, whose bed is at `base`.
pub fn calls(base: &str) -> impl Strategy<Value = Call> + use<> {
    let mut all = controller();
    all.extend(groups());
    all.extend(nodes(base));
    let empty = |path| call(path, Just(ProbeRequest {}), true);
    all.extend(
        [
            "/csi.v1.Identity/GetPluginInfo",
            "/csi.v1.Identity/GetPluginCapabilities",
            "/csi.v1.Identity/Probe",
            "/csi.v1.Controller/ControllerGetCapabilities",
            "/csi.v1.GroupController/GroupControllerGetCapabilities",
            "/csi.v1.Node/NodeGetCapabilities",
            "/csi.v1.Node/NodeGetInfo",
        ]
        .map(empty),
    );
    Union::new(all)
}

fn controller() -> Vec<BoxedStrategy<Call>> {
    let create = message!(CreateVolumeRequest {
        name: word(&[VOLUME, SPARE, "x", "y"]),
        capacity_range: range(),
        volume_capabilities: capabilities(),
        parameters: parameters(),
        secrets: secrets(),
        volume_content_source: source(),
        accessibility_requirements: requirement(),
        mutable_parameters: mutable(),
    });
    let publish = message!(ControllerPublishVolumeRequest {
        volume_id: used(),
        node_id: node(),
        volume_capability: capability(),
        readonly: any::<bool>(),
        secrets: secrets(),
        volume_context: volume_context(),
    });
    let validate = message!(ValidateVolumeCapabilitiesRequest {
        volume_id: used(),
        volume_capabilities: capabilities(),
        parameters: parameters(),
        secrets: secrets(),
        mutable_parameters: mutable(),
        volume_context: volume_context(),
    });
    let list = message!(ListVolumesRequest {
        max_entries: any::<i32>(),
        starting_token: word(&["after:v"])
    });
    let capacity = message!(GetCapacityRequest {
        volume_capabilities: capabilities(),
        parameters: parameters(),
        accessible_topology: option::of(topology()),
    });
    let snap = message!(CreateSnapshotRequest {
        source_volume_id: used(),
        name: word(&[SNAPSHOT, "t"]),
        secrets: secrets(),
        parameters: map(&["csi.storage.k8s.io/volumesnapshot/name"], &["x"]),
    });
    let snapshots = message!(ListSnapshotsRequest {
        max_entries: any::<i32>(),
        starting_token: word(&["", "after:s"]),
        source_volume_id: word(&["", VOLUME]),
        snapshot_id: word(&["", SNAPSHOT]),
        secrets: secrets(),
    });
    let grow = message!(ControllerExpandVolumeRequest {
        volume_id: used(),
        capacity_range: range(),
        secrets: secrets(),
        volume_capability: capability(),
    });
    let modify = message!(ControllerModifyVolumeRequest {
        volume_id: used(),
        secrets: secrets(),
        mutable_parameters: mutable(),
    });
    vec![
        call("/csi.v1.Controller/CreateVolume", create, true),
        call(
            "/csi.v1.Controller/DeleteVolume",
            message!(DeleteVolumeRequest {
                volume_id: used(),
                secrets: secrets()
            }),
            true,
        ),
        call("/csi.v1.Controller/ControllerPublishVolume", publish, true),
        call(
            "/csi.v1.Controller/ControllerUnpublishVolume",
            message!(ControllerUnpublishVolumeRequest {
                volume_id: unused(),
                node_id: node(),
                secrets: secrets()
            }),
            false,
        ),
        call(
            "/csi.v1.Controller/ValidateVolumeCapabilities",
            validate,
            true,
        ),
        call("/csi.v1.Controller/ListVolumes", list, true),
        call("/csi.v1.Controller/GetCapacity", capacity, true),
        call("/csi.v1.Controller/CreateSnapshot", snap, true),
        call(
            "/csi.v1.Controller/DeleteSnapshot",
            message!(DeleteSnapshotRequest {
                snapshot_id: unused(),
                secrets: secrets()
            }),
            true,
        ),
        call("/csi.v1.Controller/ListSnapshots", snapshots, true),
        call("/csi.v1.Controller/ControllerExpandVolume", grow, true),
        call(
            "/csi.v1.Controller/ControllerGetVolume",
            message!(ControllerGetVolumeRequest { volume_id: used() }),
            true,
        ),
        call("/csi.v1.Controller/ControllerModifyVolume", modify, true),
    ]
}

fn groups() -> Vec<BoxedStrategy<Call>> {
    let create = message!(CreateVolumeGroupSnapshotRequest {
        name: word(&["g"]),
        source_volume_ids: vec(used(), 0..4),
        secrets: secrets(),
        parameters: parameters(),
    });
    let delete = message!(DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: word(&["g"]),
        snapshot_ids: vec(snapshot(), 0..3),
        secrets: secrets(),
    });
    let get = message!(GetVolumeGroupSnapshotRequest {
        group_snapshot_id: word(&["g"]),
        snapshot_ids: vec(snapshot(), 0..3),
        secrets: secrets(),
    });
    vec![
        call(
            "/csi.v1.GroupController/CreateVolumeGroupSnapshot",
            create,
            true,
        ),
        call(
            "/csi.v1.GroupController/DeleteVolumeGroupSnapshot",
            delete,
            true,
        ),
        call("/csi.v1.GroupController/GetVolumeGroupSnapshot", get, true),
    ]
}

/// Attributes of a volume, an inline one's too.
fn volume_context() -> BoxedStrategy<HashMap<String, String>> {
    map(
        &[
            "csi.storage.k8s.io/ephemeral",
            "csi.storage.k8s.io/pod.namespace",
            "csi.storage.k8s.io/pod.uid",
            "strand.dev/sourced",
            "kind",
            "pool",
            "size",
        ],
        &["true", "kv", "scratch", POOL, "400Mi", "team-a"],
    )
}

fn nodes(base: &str) -> Vec<BoxedStrategy<Call>> {
    let (staging, target) = (|| path(base, "staging/v"), || path(base, "pods/pod"));
    let publish_context = || {
        let granted = ("strand.dev/generation".to_owned(), "1".to_owned());
        prop_oneof![
            2 => Just([granted].into()),
            1 => map(&["strand.dev/generation", "strand.dev/readOnly"], &["1", "2", "true"]),
        ]
    };
    let stage = message!(NodeStageVolumeRequest {
        volume_id: used(),
        publish_context: publish_context(),
        staging_target_path: staging(),
        volume_capability: capability(),
        secrets: secrets(),
        volume_context: volume_context(),
    });
    let publish = message!(NodePublishVolumeRequest {
        volume_id: used(),
        publish_context: publish_context(),
        staging_target_path: staging(),
        target_path: target(),
        volume_capability: capability(),
        readonly: any::<bool>(),
        secrets: secrets(),
        volume_context: volume_context(),
    });
    let grow = message!(NodeExpandVolumeRequest {
        volume_id: used(),
        volume_path: target(),
        capacity_range: range(),
        staging_target_path: staging(),
        volume_capability: capability(),
        secrets: secrets(),
    });
    vec![
        call("/csi.v1.Node/NodeStageVolume", stage, false),
        call(
            "/csi.v1.Node/NodeUnstageVolume",
            message!(NodeUnstageVolumeRequest {
                volume_id: unused(),
                staging_target_path: path(base, "staging/w")
            }),
            false,
        ),
        call("/csi.v1.Node/NodePublishVolume", publish, false),
        call(
            "/csi.v1.Node/NodeUnpublishVolume",
            message!(NodeUnpublishVolumeRequest {
                volume_id: used(),
                target_path: path(base, "pods/other")
            }),
            false,
        ),
        call(
            "/csi.v1.Node/NodeGetVolumeStats",
            message!(NodeGetVolumeStatsRequest {
                volume_id: used(),
                volume_path: target(),
                staging_target_path: staging()
            }),
            false,
        ),
        call("/csi.v1.Node/NodeExpandVolume", grow, false),
    ]
}
