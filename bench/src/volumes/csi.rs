//! CSI calls, each with the time that it took.

use anyhow::{Context, anyhow};
use std::{
    path::{Path, PathBuf},
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
    Status,
    transport::{Channel, Endpoint},
};

/// A node's driver, and a directory for what kubelet would keep.
pub struct Driver {
    node: String,
    channel: Channel,
    places: PathBuf,
}

/// What a volume is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A device.
    Blocks,
    /// An XFS.
    Files,
}

/// What a volume begins as.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// Zeroes.
    Nothing,
    /// A snapshot.
    Snapshot(&'a str),
    /// Another volume.
    Volume(&'a str),
}

/// One call of a volume's way.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The call.
    pub name: &'static str,
    /// From its request to its answer.
    pub time: Duration,
}

/// A volume that a pod could use.
#[derive(Debug)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// Where the pod finds it.
    pub at: PathBuf,
    /// The calls that brought it there.
    pub way: Vec<Step>,
}

impl Published {
    /// From the first request to the last answer.
    pub fn time(&self) -> Duration {
        self.way.iter().map(|step| step.time).sum()
    }
}

fn capability(access: Access) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(match access {
            Access::Blocks => AccessType::Block(BlockVolume {}),
            Access::Files => AccessType::Mount(MountVolume {
                fs_type: "xfs".into(),
                ..MountVolume::default()
            }),
        }),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

/// Makes a call; notes its time.
async fn call<T>(
    way: &mut Vec<Step>,
    name: &'static str,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    let answer = call
        .await
        .map_err(|status| anyhow!("{name}: {:?}: {}", status.code(), status.message()))?;
    let time = begun.elapsed();
    way.push(Step { name, time });
    Ok(answer.into_inner())
}

impl Driver {
    /// The driver of a node at its socket.
    pub fn new(node: &str, socket: &Path, places: PathBuf) -> anyhow::Result<Self> {
        let endpoint = format!("unix://{}", socket.display());
        Ok(Self {
            node: node.to_owned(),
            channel: Endpoint::from_shared(endpoint)?.connect_lazy(),
            places,
        })
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    fn place(&self, kind: &str, id: &str) -> String {
        self.places.join(kind).join(id).display().to_string()
    }

    /// Bytes of the largest volume that fits.
    pub async fn room(&self) -> anyhow::Result<u64> {
        let request = GetCapacityRequest::default();
        let told = self.controller().get_capacity(request).await;
        let room = told.context("GetCapacity")?.into_inner();
        Ok(u64::try_from(room.maximum_volume_size.unwrap_or_default())?)
    }

    /// Makes a volume.
    pub async fn create(
        &self,
        name: &str,
        bytes: u64,
        access: Access,
        from: From<'_>,
    ) -> anyhow::Result<(Volume, Step)> {
        let source = match from {
            From::Nothing => None,
            From::Snapshot(id) => Some(Type::Snapshot(SnapshotSource {
                snapshot_id: id.to_owned(),
            })),
            From::Volume(id) => Some(Type::Volume(VolumeSource {
                volume_id: id.to_owned(),
            })),
        };
        let request = CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes.try_into()?,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability(access)],
            volume_content_source: source.map(|kind| VolumeContentSource { r#type: Some(kind) }),
            accessibility_requirements: Some(TopologyRequirement::default()),
            ..CreateVolumeRequest::default()
        };
        let mut way = Vec::new();
        let mut controller = self.controller();
        let made = controller.create_volume(request);
        let made = call(&mut way, "CreateVolume", made).await?;
        let volume = made.volume.context("CreateVolume made no volume")?;
        Ok((volume, way.remove(0)))
    }

    /// Makes a volume of zeroes and brings it to where a pod can use it.
    pub async fn publish(
        &self,
        name: &str,
        bytes: u64,
        access: Access,
    ) -> anyhow::Result<Published> {
        let (volume, made) = self.create(name, bytes, access, From::Nothing).await?;
        let mut way = vec![made];
        let id = volume.volume_id.clone();
        let request = ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(capability(access)),
            volume_context: volume.volume_context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let (mut controller, mut node) = (self.controller(), self.node());
        let granted = controller.controller_publish_volume(request);
        let context = call(&mut way, "ControllerPublishVolume", granted)
            .await?
            .publish_context;
        let (staging, at) = (self.place("staging", &id), self.place("mounted", &id));
        // As kubelet does.
        for directory in [Path::new(&staging), &self.places.join("mounted")] {
            std::fs::create_dir_all(directory)?;
        }
        let request = NodeStageVolumeRequest {
            volume_id: id.clone(),
            publish_context: context.clone(),
            staging_target_path: staging.clone(),
            volume_capability: Some(capability(access)),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        call(&mut way, "NodeStageVolume", node.node_stage_volume(request)).await?;
        let request = NodePublishVolumeRequest {
            volume_id: id.clone(),
            publish_context: context,
            staging_target_path: staging,
            target_path: at.clone(),
            volume_capability: Some(capability(access)),
            volume_context: volume.volume_context,
            ..NodePublishVolumeRequest::default()
        };
        let published = node.node_publish_volume(request);
        call(&mut way, "NodePublishVolume", published).await?;
        Ok(Published {
            id,
            at: at.into(),
            way,
        })
    }

    /// Takes a volume away from its pod, and deletes it: its bytes go a little later.
    pub async fn end(&self, published: &Published) -> anyhow::Result<Vec<Step>> {
        let id = published.id.clone();
        let (mut controller, mut node) = (self.controller(), self.node());
        let mut way = Vec::new();
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.clone(),
            target_path: published.at.display().to_string(),
        };
        let done = node.node_unpublish_volume(request);
        call(&mut way, "NodeUnpublishVolume", done).await?;
        let request = NodeUnstageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: self.place("staging", &id),
        };
        let done = node.node_unstage_volume(request);
        call(&mut way, "NodeUnstageVolume", done).await?;
        let request = ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            node_id: self.node.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        let done = controller.controller_unpublish_volume(request);
        call(&mut way, "ControllerUnpublishVolume", done).await?;
        way.push(self.delete(&id).await?);
        Ok(way)
    }

    /// Deletes a volume that is attached nowhere.
    pub async fn delete(&self, id: &str) -> anyhow::Result<Step> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..DeleteVolumeRequest::default()
        };
        let mut way = Vec::new();
        let mut controller = self.controller();
        call(&mut way, "DeleteVolume", controller.delete_volume(request)).await?;
        Ok(way.remove(0))
    }

    /// Takes a snapshot.
    pub async fn snapshot(&self, volume: &str, name: &str) -> anyhow::Result<(String, Step)> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: name.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        let mut way = Vec::new();
        let mut controller = self.controller();
        let taken = controller.create_snapshot(request);
        let taken = call(&mut way, "CreateSnapshot", taken).await?;
        let snapshot = taken
            .snapshot
            .context("CreateSnapshot made no snapshot")?
            .snapshot_id;
        Ok((snapshot, way.remove(0)))
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, id: &str) -> anyhow::Result<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        let done = self.controller().delete_snapshot(request).await;
        done.map(drop).context("DeleteSnapshot")
    }
}
