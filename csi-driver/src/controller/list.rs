//! ListVolumes, ControllerGetVolume.

use kube::ResourceExt;
use strand_api::PoolVolume;
use strand_csi::v1::controller_get_volume_response as get;
use strand_csi::v1::list_volumes_response::{Entry, VolumeStatus};
use strand_csi::v1::{ControllerGetVolumeResponse, ListVolumesRequest, ListVolumesResponse};

use super::{Controller, told};
use crate::error::Error;
use crate::request::id;
use crate::request::page::page;

fn entry(volume: &PoolVolume) -> Entry {
    Entry {
        volume: Some(told::volume(volume)),
        status: Some(VolumeStatus {
            published_node_ids: told::nodes(volume),
            volume_condition: Some(told::condition(volume)),
        }),
    }
}

impl Controller {
    pub(super) async fn volumes(
        &self,
        request: &ListVolumesRequest,
    ) -> Result<ListVolumesResponse, Error> {
        let mut volumes = self.cluster.all::<PoolVolume>().await?;
        volumes.retain(|volume| !volume.spec.deletion_mark);
        let name = |v: &PoolVolume| v.name_any();
        let named: Vec<(String, PoolVolume)> = volumes.into_iter().map(|v| (name(&v), v)).collect();
        let page = page(
            named,
            |(name, _)| name,
            request.max_entries,
            &request.starting_token,
        )?;
        Ok(ListVolumesResponse {
            entries: page.items.iter().map(|(_, volume)| entry(volume)).collect(),
            next_token: page.next,
        })
    }

    pub(super) async fn one(&self, id: &str) -> Result<ControllerGetVolumeResponse, Error> {
        let known = id::id("volume_id", id)?;
        let known = known.ok_or_else(|| Error::NoVolume(id.to_owned()))?;
        let volume = self.cluster.volume(known).await?;
        Ok(ControllerGetVolumeResponse {
            volume: Some(told::volume(&volume)),
            status: Some(get::VolumeStatus {
                published_node_ids: told::nodes(&volume),
                volume_condition: Some(told::condition(&volume)),
            }),
        })
    }
}
