//! The CSI driver's node part in a guest, called as kubelet calls it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use strand_csi::v1::node_client::NodeClient;
use strand_csi::v1::volume_capability::access_mode::Mode;
use strand_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use strand_csi::v1::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetInfoRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::transport::{Channel, Endpoint};

use crate::guest::Guest;
use crate::wait;

/// The driver of one guest, reached from the host. Volumes are staged and published below [`PLACES`].
#[derive(Clone, Debug)]
pub struct CsiNode {
    client: NodeClient<Channel>,
}

/// What kubelet would call its directory.
const PLACES: &str = "/run/kubelet";

/// What a volume is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// A device.
    Blocks,
    /// A file system of this type, with mount options.
    Files(&'a str, &'a [&'a str]),
}

impl Access<'_> {
    fn capability(self) -> VolumeCapability {
        let access = match self {
            Access::Blocks => AccessType::Block(BlockVolume {}),
            Access::Files(kind, flags) => AccessType::Mount(MountVolume {
                fs_type: kind.to_owned(),
                mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                ..MountVolume::default()
            }),
        };
        VolumeCapability {
            access_type: Some(access),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }
    }
}

impl CsiNode {
    pub(crate) async fn connect(guest: &Guest, bound: Duration) -> Result<Self> {
        let address = format!("http://{}", guest.service());
        let client = NodeClient::new(Endpoint::from_shared(address)?.connect_lazy());
        wait::until("the CSI driver answers", bound, || async {
            let told = client.clone().node_get_info(NodeGetInfoRequest {}).await;
            told.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        Ok(Self { client })
    }

    /// Where a pod finds a volume.
    pub fn at(volume: &str) -> String {
        format!("{PLACES}/pods/{volume}")
    }

    fn staging(volume: &str) -> String {
        format!("{PLACES}/staging/{volume}")
    }

    /// NodeStageVolume and NodePublishVolume, for an attachment of this generation.
    ///
    /// # Errors
    /// The driver's.
    pub async fn publish(&self, volume: &str, generation: i64, access: Access<'_>) -> Result<()> {
        let mut client = self.client.clone();
        let context = HashMap::from([("strand.dev/generation".to_owned(), generation.to_string())]);
        let request = NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            publish_context: context.clone(),
            staging_target_path: Self::staging(volume),
            volume_capability: Some(access.capability()),
            ..NodeStageVolumeRequest::default()
        };
        let staged = client.node_stage_volume(request).await;
        staged.map_err(words).context("NodeStageVolume")?;
        let request = NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            publish_context: context,
            staging_target_path: Self::staging(volume),
            target_path: Self::at(volume),
            volume_capability: Some(access.capability()),
            ..NodePublishVolumeRequest::default()
        };
        let published = client.node_publish_volume(request).await;
        published.map_err(words).context("NodePublishVolume")?;
        Ok(())
    }

    /// NodeExpandVolume, to at least so many bytes.
    ///
    /// # Errors
    /// The driver's.
    pub async fn expand(&self, volume: &str, bytes: i64) -> Result<()> {
        let request = NodeExpandVolumeRequest {
            volume_id: volume.to_owned(),
            volume_path: Self::at(volume),
            staging_target_path: Self::staging(volume),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: 0,
            }),
            ..NodeExpandVolumeRequest::default()
        };
        let grown = self.client.clone().node_expand_volume(request).await;
        grown.map_err(words).context("NodeExpandVolume")?;
        Ok(())
    }

    /// NodeUnpublishVolume and NodeUnstageVolume.
    ///
    /// # Errors
    /// The driver's.
    pub async fn take_away(&self, volume: &str) -> Result<()> {
        let mut client = self.client.clone();
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: Self::at(volume),
        };
        let unpublished = client.node_unpublish_volume(request).await;
        unpublished.map_err(words).context("NodeUnpublishVolume")?;
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: Self::staging(volume),
        };
        let unstaged = client.node_unstage_volume(request).await;
        unstaged.map_err(words).context("NodeUnstageVolume")?;
        Ok(())
    }
}

fn words(status: tonic::Status) -> anyhow::Error {
    anyhow!("{:?}: {}", status.code(), status.message())
}
