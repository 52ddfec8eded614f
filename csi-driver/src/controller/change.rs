//! ControllerExpandVolume, ControllerModifyVolume.

use serde_json::json;
use strand_api::{ByteQuantity, PoolVolume, VolumeMode, names};
use strand_csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse,
};

use super::{Controller, told};
use crate::error::Error;
use crate::request::capability::Capability;
use crate::request::size::{Sizes, signed};
use crate::request::{id, parameters};

impl Controller {
    pub(super) async fn grow(
        &self,
        request: &ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Error> {
        let id = id::id("volume_id", &request.volume_id)?;
        let range = request
            .capacity_range
            .as_ref()
            .ok_or(Error::Missing("capacity_range"))?;
        if let Some(capability) = &request.volume_capability {
            Capability::read(Some(capability))?;
        }
        let sizes = Sizes::read(Some(range), None)?;
        let id = id.ok_or_else(|| Error::NoVolume(request.volume_id.clone()))?;
        let _held = self.locks.take(id)?;
        let decide = |volume: &PoolVolume| {
            if volume.spec.deletion_mark {
                return Err(Error::NoVolume(id.to_owned()));
            }
            let now = volume.spec.size.0;
            let had = volume.status.as_ref().map_or(now, |status| status.size.0);
            if had < sizes.wanted && sizes.wanted < now {
                // More was asked for before, in vain or not yet done; now it is less.
                return Ok(Some(json!({"size": ByteQuantity(sizes.wanted)})));
            }
            if now >= sizes.wanted {
                return match sizes.hold(now) {
                    true => Ok(None),
                    false => Err(Error::OutOfRange(format!(
                        "volume {id} has {now} bytes already, above the limit; a volume cannot shrink"
                    ))),
                };
            }
            Ok(Some(json!({"size": ByteQuantity(sizes.wanted)})))
        };
        let asked = self.cluster.change(id, decide).await?;
        let asked = asked.ok_or_else(|| Error::NoVolume(id.to_owned()))?;

        let (what, generation) = (format!("volume {id}"), asked.metadata.generation);
        let size = self
            .cluster
            .wait(id, "grown", |seen: Option<&PoolVolume>| {
                let Some(volume) = seen else {
                    return Some(Err(Error::NoVolume(id.to_owned())));
                };
                let status = volume.status.as_ref()?;
                if status.size.0 >= sizes.wanted {
                    return Some(Ok(status.size.0));
                }
                told::refusal(&status.conditions, names::RESIZED, generation)
                    .filter(|c| told::is_final(c))
                    .map(|c| Err(told::refused(&what, c)))
            })
            .await?;
        Ok(ControllerExpandVolumeResponse {
            capacity_bytes: signed(size),
            node_expansion_required: asked.spec.volume_mode == VolumeMode::Filesystem,
        })
    }

    pub(super) async fn modify(
        &self,
        request: &ControllerModifyVolumeRequest,
    ) -> Result<ControllerModifyVolumeResponse, Error> {
        let id = id::id("volume_id", &request.volume_id)?;
        let id = id.ok_or_else(|| Error::NoVolume(request.volume_id.clone()))?;
        let _held = self.locks.take(id)?;
        self.cluster.volume(id).await?;
        let limits = parameters::limits(&request.mutable_parameters)?;
        let decide = |volume: &PoolVolume| {
            if volume.spec.deletion_mark {
                return Err(Error::NoVolume(id.to_owned()));
            }
            // In a merge patch, null takes a field away.
            let (iops, bandwidth) = match &limits {
                Some(limits) => (limits.iops, limits.bandwidth),
                None => return Ok(volume.spec.limits.as_ref().map(|_| json!({"limits": null}))),
            };
            let same = volume.spec.limits == limits;
            Ok((!same).then(|| json!({"limits": {"iops": iops, "bandwidth": bandwidth}})))
        };
        let asked = self.cluster.change(id, decide).await?;
        let asked = asked.ok_or_else(|| Error::NoVolume(id.to_owned()))?;
        let generation = asked.metadata.generation;
        self.cluster
            .wait(id, "modified", |seen: Option<&PoolVolume>| {
                let Some(volume) = seen else {
                    return Some(Err(Error::NoVolume(id.to_owned())));
                };
                let status = volume.status.as_ref()?;
                (status.observed_generation >= generation).then_some(Ok(()))
            })
            .await?;
        Ok(ControllerModifyVolumeResponse {})
    }
}
