//! NodeExpandVolume.

use strand_csi::v1::{NodeExpandVolumeRequest, NodeExpandVolumeResponse};

use super::stats::{is_device, mounted};
use super::{Parts, filesystem};
use crate::error::Error;
use crate::request::capability::FsType;
use crate::request::id;
use crate::request::size::{Sizes, signed};

impl Parts {
    pub(super) async fn grow(
        &self,
        request: &NodeExpandVolumeRequest,
    ) -> Result<NodeExpandVolumeResponse, Error> {
        let volume = id::id("volume_id", &request.volume_id)?;
        let published = mounted("volume_path", &request.volume_id, &request.volume_path)?;
        let Some(volume) = volume else {
            return Err(Error::NotThere {
                volume: request.volume_id.clone(),
                path: published.at,
            });
        };
        let wanted = match &request.capacity_range {
            Some(range) => Some(Sizes::read(Some(range), None)?),
            None => None,
        };
        if is_device(&published) {
            return Ok(NodeExpandVolumeResponse::default());
        }
        let _held = self.locks.take(volume)?;
        // A path for reading only does not let its file system grow; the staging path does.
        let staged = mounted("staging_target_path", volume, &request.staging_target_path);
        let mount = match staged {
            Ok(staged) if staged.shows(&published) => staged,
            _ => published,
        };
        let size = filesystem::device_size(&mount.device)?;
        if wanted.is_some_and(|wanted| size < wanted.wanted) {
            return Err(Error::Refused {
                what: format!("volume {volume}"),
                why: format!("its device has {size} bytes so far; try again"),
            });
        }
        let fs = mount.fs.parse::<FsType>()?;
        filesystem::grow(fs, &mount.source, &mount.at).await?;
        Ok(NodeExpandVolumeResponse {
            capacity_bytes: signed(size),
        })
    }
}
