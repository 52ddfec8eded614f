//! The CSI calls of a volume's life, each made as the sidecars and kubelet make it: again and again until it is done.

use crate::rack::{PATIENCE, Rack};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use strand_csi::v1::{
    controller_client::ControllerClient,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode},
    volume_content_source::{SnapshotSource, Type, VolumeSource},
    *,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// Makes a call until it is done.
macro_rules! tried {
    ($calls:expr, $what:expr, $call:expr) => {{
        let start = Instant::now();
        loop {
            match $call.await {
                Ok(answer) => {
                    $calls.done.fetch_add(1, Relaxed);
                    break answer.into_inner();
                }
                Err(status) => $calls.refused($what, start, status).await,
            }
        }
    }};
}

/// What a volume is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Xfs,
    Ext4,
    Block,
}

impl Kind {
    pub fn capability(self) -> VolumeCapability {
        let mount = |fs: &str| {
            AccessType::Mount(MountVolume {
                fs_type: fs.into(),
                ..MountVolume::default()
            })
        };
        let access_type = match self {
            Kind::Xfs => mount("xfs"),
            Kind::Ext4 => mount("ext4"),
            Kind::Block => AccessType::Block(BlockVolume {}),
        };
        let mode = Mode::SingleNodeWriter.into();
        VolumeCapability {
            access_type: Some(access_type),
            access_mode: Some(AccessMode { mode }),
        }
    }

    /// Where bytes are kept in what is published at `target`.
    pub fn file(self, target: &Path) -> PathBuf {
        match self {
            Kind::Block => target.to_owned(),
            Kind::Xfs | Kind::Ext4 => target.join("file"),
        }
    }
}

/// What a volume begins as.
pub enum From<'a> {
    Nothing,
    Snapshot(&'a str),
    Volume(&'a str),
}

/// A volume that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub kind: Kind,
    context: HashMap<String, String>,
}

/// The driver of a rack's node, and its pods' paths.
pub struct Calls {
    channel: Channel,
    pub node: String,
    places: PathBuf,
    done: AtomicU64,
    refusals: Mutex<BTreeMap<String, usize>>,
}

impl Calls {
    pub fn to(rack: &Rack) -> Calls {
        Calls::to_node(rack, 0)
    }

    /// The driver of one of its nodes, which is a controller as well.
    pub fn to_node(rack: &Rack, index: usize) -> Calls {
        let node = rack.nodes().remove(index);
        Calls {
            channel: Endpoint::from_shared(node.csi).unwrap().connect_lazy(),
            places: rack.path("nodes").join(&node.name).join("pods/volumes"),
            node: node.name,
            done: AtomicU64::new(0),
            refusals: Mutex::default(),
        }
    }

    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    pub fn on_node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// Calls that were done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// What was refused on the way, by call and code.
    pub fn refusals(&self) -> BTreeMap<String, usize> {
        self.refusals.lock().unwrap().clone()
    }

    pub fn staging(&self, id: &str) -> PathBuf {
        self.places.join("staging").join(id)
    }

    pub fn target(&self, id: &str) -> PathBuf {
        self.places.join("mounted").join(id)
    }

    /// Notes a refusal, and waits before the next attempt. What no attempt can change ends the test.
    async fn refused(&self, what: &str, since: Instant, status: Status) {
        let lasting = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::PermissionDenied,
            Code::ResourceExhausted,
        ];
        assert!(
            !lasting.contains(&status.code()) && since.elapsed() < PATIENCE,
            "{what}, after {:?}: {status}",
            since.elapsed()
        );
        let key = format!("{what} {:?}", status.code());
        *self.refusals.lock().unwrap().entry(key).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Size of the largest volume that there is room for, in bytes.
    pub async fn room(&self) -> i64 {
        let request = GetCapacityRequest::default();
        let room = tried!(
            self,
            "GetCapacity",
            self.controller().get_capacity(request.clone())
        );
        room.maximum_volume_size.unwrap()
    }

    /// How a volume of raw blocks is refused at once.
    pub async fn refused_volume(&self, name: &str, mib: i64, parameters: &[(&str, &str)]) -> Code {
        let request = wanted(name, Kind::Block, mib, parameters, From::Nothing);
        let refused = self.controller().create_volume(request).await;
        refused.unwrap_err().code()
    }

    pub async fn create(
        &self,
        name: &str,
        kind: Kind,
        mib: i64,
        parameters: &[(&str, &str)],
        from: From<'_>,
    ) -> Made {
        let request = wanted(name, kind, mib, parameters, from);
        let made = tried!(
            self,
            "CreateVolume",
            self.controller().create_volume(request.clone())
        );
        let made = made.volume.unwrap();
        Made {
            id: made.volume_id,
            kind,
            context: made.volume_context,
        }
    }

    /// Attaches, stages and publishes a volume; where its bytes are kept then.
    pub async fn mount(&self, volume: &Made) -> PathBuf {
        let id = &volume.id;
        let request = ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(volume.kind.capability()),
            volume_context: volume.context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let attached = tried!(
            self,
            "ControllerPublishVolume",
            self.controller().controller_publish_volume(request.clone())
        );
        let context = attached.publish_context;
        let (staging, target) = (self.staging(id), self.target(id));
        // As kubelet does.
        fs::create_dir_all(&staging).unwrap();
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let request = NodeStageVolumeRequest {
            volume_id: id.clone(),
            publish_context: context.clone(),
            staging_target_path: text(&staging),
            volume_capability: Some(volume.kind.capability()),
            volume_context: volume.context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        tried!(
            self,
            "NodeStageVolume",
            self.on_node().node_stage_volume(request.clone())
        );
        let request = NodePublishVolumeRequest {
            volume_id: id.clone(),
            publish_context: context,
            staging_target_path: text(&staging),
            target_path: text(&target),
            volume_capability: Some(volume.kind.capability()),
            volume_context: volume.context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        tried!(
            self,
            "NodePublishVolume",
            self.on_node().node_publish_volume(request.clone())
        );
        volume.kind.file(&target)
    }

    /// Unpublishes, unstages and detaches it.
    pub async fn unmount(&self, volume: &Made) {
        let id = &volume.id;
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.clone(),
            target_path: self.target(id).to_str().unwrap().into(),
        };
        tried!(
            self,
            "NodeUnpublishVolume",
            self.on_node().node_unpublish_volume(request.clone())
        );
        let request = NodeUnstageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: self.staging(id).to_str().unwrap().into(),
        };
        tried!(
            self,
            "NodeUnstageVolume",
            self.on_node().node_unstage_volume(request.clone())
        );
        // As kubelet does, and only where it is empty.
        fs::remove_dir(self.staging(id)).unwrap();
        let request = ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            node_id: self.node.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        tried!(
            self,
            "ControllerUnpublishVolume",
            self.controller()
                .controller_unpublish_volume(request.clone())
        );
    }

    pub async fn delete(&self, volume: &Made) {
        let request = DeleteVolumeRequest {
            volume_id: volume.id.clone(),
            ..DeleteVolumeRequest::default()
        };
        tried!(
            self,
            "DeleteVolume",
            self.controller().delete_volume(request.clone())
        );
    }

    /// Takes a snapshot; its id.
    pub async fn snapshot(&self, volume: &Made, name: &str) -> String {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.id.clone(),
            name: name.into(),
            ..CreateSnapshotRequest::default()
        };
        let taken = tried!(
            self,
            "CreateSnapshot",
            self.controller().create_snapshot(request.clone())
        );
        taken.snapshot.unwrap().snapshot_id
    }

    pub async fn delete_snapshot(&self, id: &str) {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.into(),
            ..DeleteSnapshotRequest::default()
        };
        tried!(
            self,
            "DeleteSnapshot",
            self.controller().delete_snapshot(request.clone())
        );
    }
}

pub fn wanted(
    name: &str,
    kind: Kind,
    mib: i64,
    parameters: &[(&str, &str)],
    from: From<'_>,
) -> CreateVolumeRequest {
    let source = match from {
        From::Nothing => None,
        From::Snapshot(id) => Some(Type::Snapshot(SnapshotSource {
            snapshot_id: id.into(),
        })),
        From::Volume(id) => Some(Type::Volume(VolumeSource {
            volume_id: id.into(),
        })),
    };
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(CapacityRange {
            required_bytes: mib << 20,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![kind.capability()],
        parameters: parameters.iter().map(owned).collect(),
        volume_content_source: source.map(|of| VolumeContentSource { r#type: Some(of) }),
        ..CreateVolumeRequest::default()
    }
}
