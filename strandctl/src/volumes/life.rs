//! The CSI calls of a volume's life, each tried again while what it needs is away.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strand_csi::v1::controller_client::ControllerClient;
use strand_csi::v1::node_client::NodeClient;
use strand_csi::v1::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use strand_csi::v1::volume_content_source::{SnapshotSource, Type};
use strand_csi::v1::*;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a call is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node's CSI driver, and a directory for what kubelet would keep.
pub struct Driver {
    node: String,
    channel: Channel,
    places: PathBuf,
}

/// A volume that is mounted.
pub struct Mounted {
    pub id: String,
    pub at: PathBuf,
}

/// Tries a call until it is done or refused for good.
macro_rules! call {
    ($what:expr, $call:expr) => {{
        let start = Instant::now();
        loop {
            match $call.await {
                Ok(answer) => break answer.into_inner(),
                Err(status) if passes(&status) && start.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => bail!("{}: {:?}: {}", $what, status.code(), status.message()),
            }
        }
    }};
}

/// Whether it is worth another try.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Aborted | Code::DeadlineExceeded
    )
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: "xfs".into(),
            ..MountVolume::default()
        })),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

fn range(bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange {
        required_bytes: bytes,
        limit_bytes: 0,
    })
}

impl Driver {
    /// The driver of a node at its socket.
    pub fn new(node: &str, endpoint: &str, places: &Path) -> Result<Driver> {
        Ok(Driver {
            node: node.to_owned(),
            channel: Endpoint::from_shared(endpoint.to_owned())
                .with_context(|| format!("{endpoint} is no address of a CSI driver"))?
                .connect_lazy(),
            places: places.to_owned(),
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

    /// Makes a volume, of zeroes or of a snapshot.
    pub async fn create(&self, name: &str, bytes: i64, snapshot: Option<&str>) -> Result<Volume> {
        let source = snapshot.map(|id| VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                snapshot_id: id.to_owned(),
            })),
        });
        let request = CreateVolumeRequest {
            name: name.into(),
            capacity_range: range(bytes),
            volume_capabilities: vec![capability()],
            volume_content_source: source,
            accessibility_requirements: Some(TopologyRequirement::default()),
            ..CreateVolumeRequest::default()
        };
        let made = call!(
            "CreateVolume",
            self.controller().create_volume(request.clone())
        );
        made.volume
            .context("CreateVolume answered without a volume")
    }

    /// Attaches, stages and publishes a volume.
    pub async fn mount(&self, volume: &Volume) -> Result<Mounted> {
        let id = volume.volume_id.clone();
        let request = ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let attached = call!(
            "ControllerPublishVolume",
            self.controller().controller_publish_volume(request.clone())
        );
        let context: HashMap<String, String> = attached.publish_context;
        let staging = self.place("staging", &id);
        let at = self.place("mounted", &id);
        // As kubelet does.
        for directory in [Path::new(&staging), &self.places.join("mounted")] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let request = NodeStageVolumeRequest {
            volume_id: id.clone(),
            publish_context: context.clone(),
            staging_target_path: staging.clone(),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        call!(
            "NodeStageVolume",
            self.node().node_stage_volume(request.clone())
        );
        let request = NodePublishVolumeRequest {
            volume_id: id.clone(),
            publish_context: context,
            staging_target_path: staging,
            target_path: at.clone(),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        call!(
            "NodePublishVolume",
            self.node().node_publish_volume(request.clone())
        );
        Ok(Mounted { id, at: at.into() })
    }

    /// Takes a snapshot; its id.
    pub async fn snapshot(&self, volume: &str, name: &str) -> Result<String> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: name.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        let taken = call!(
            "CreateSnapshot",
            self.controller().create_snapshot(request.clone())
        );
        let taken = taken
            .snapshot
            .context("CreateSnapshot answered without a snapshot")?;
        Ok(taken.snapshot_id)
    }

    /// Makes a mounted volume larger, and its file system with it.
    pub async fn grow(&self, mounted: &Mounted, bytes: i64) -> Result<()> {
        let request = ControllerExpandVolumeRequest {
            volume_id: mounted.id.clone(),
            capacity_range: range(bytes),
            volume_capability: Some(capability()),
            ..ControllerExpandVolumeRequest::default()
        };
        call!(
            "ControllerExpandVolume",
            self.controller().controller_expand_volume(request.clone())
        );
        let request = NodeExpandVolumeRequest {
            volume_id: mounted.id.clone(),
            volume_path: mounted.at.display().to_string(),
            capacity_range: range(bytes),
            staging_target_path: self.place("staging", &mounted.id),
            ..NodeExpandVolumeRequest::default()
        };
        call!(
            "NodeExpandVolume",
            self.node().node_expand_volume(request.clone())
        );
        Ok(())
    }

    /// Unmounts, detaches and deletes a volume.
    pub async fn end(&self, mounted: Mounted) -> Result<()> {
        let Mounted { id, at } = mounted;
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.clone(),
            target_path: at.display().to_string(),
        };
        call!(
            "NodeUnpublishVolume",
            self.node().node_unpublish_volume(request.clone())
        );
        let request = NodeUnstageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: self.place("staging", &id),
        };
        call!(
            "NodeUnstageVolume",
            self.node().node_unstage_volume(request.clone())
        );
        let request = ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            node_id: self.node.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        call!(
            "ControllerUnpublishVolume",
            self.controller()
                .controller_unpublish_volume(request.clone())
        );
        self.delete(&id).await
    }

    /// Deletes a volume that is attached nowhere.
    async fn delete(&self, id: &str) -> Result<()> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..DeleteVolumeRequest::default()
        };
        call!(
            "DeleteVolume",
            self.controller().delete_volume(request.clone())
        );
        Ok(())
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, id: &str) -> Result<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        call!(
            "DeleteSnapshot",
            self.controller().delete_snapshot(request.clone())
        );
        Ok(())
    }
}
