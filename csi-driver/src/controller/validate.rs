//! ValidateVolumeCapabilities.

use kube::ResourceExt;
use strand_api::PoolVolume;
use strand_csi::v1::validate_volume_capabilities_response::Confirmed;
use strand_csi::v1::{ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse};

use super::Controller;
use crate::error::Error;
use crate::request::capability::Capability;
use crate::request::id;
use crate::request::parameters::{self, Parameters};

/// Why a volume cannot be used as is asked, if it cannot; pure.
fn objection(volume: &PoolVolume, request: &ValidateVolumeCapabilitiesRequest) -> Option<String> {
    let spec = &volume.spec;
    let read = Capability::read_all(&request.volume_capabilities);
    let (mode, _) = match read {
        Ok(read) => read,
        Err(error) => return Some(error.to_string()),
    };
    if mode != spec.volume_mode {
        return Some("the volume has another mode (file system or raw blocks)".into());
    }
    let parameters = match Parameters::read(&request.parameters) {
        Ok(parameters) => parameters,
        Err(error) => return Some(error.to_string()),
    };
    if parameters.pool.is_some_and(|p| p != spec.pool)
        || parameters.redundancy.is_some_and(|r| r != spec.redundancy)
        || parameters
            .provisioning
            .is_some_and(|p| p != spec.provisioning)
    {
        return Some(format!("volume {} has other parameters", volume.name_any()));
    }
    parameters::limits(&request.mutable_parameters)
        .err()
        .map(|error| error.to_string())
}

impl Controller {
    pub(super) async fn validate(
        &self,
        request: &ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Error> {
        let id = id::id("volume_id", &request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Error::Missing("volume_capabilities"));
        }
        let id = id.ok_or_else(|| Error::NoVolume(request.volume_id.clone()))?;
        let volume = self.cluster.volume(id).await?;
        Ok(match objection(&volume, request) {
            Some(message) => ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message,
            },
            None => ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context.clone(),
                    volume_capabilities: request.volume_capabilities.clone(),
                    parameters: request.parameters.clone(),
                    mutable_parameters: request.mutable_parameters.clone(),
                }),
                message: String::new(),
            },
        })
    }
}
