//! The service `csi.v1.Identity`.

use strand_csi::v1::identity_server::Identity as Service;
use strand_csi::v1::plugin_capability::service::Type as ServiceType;
use strand_csi::v1::plugin_capability::volume_expansion::Type as ExpansionType;
use strand_csi::v1::plugin_capability::{self, Type, VolumeExpansion};
use strand_csi::v1::*;
use tonic::{Request, Response, Status};

pub use strand_api::names::DRIVER;

/// Who the driver is and what it can do, the same in every mode.
#[derive(Clone, Copy, Debug)]
pub struct Identity;

#[tonic::async_trait]
impl Service for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.into(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
            manifest: [("specification".into(), strand_csi::VERSION.into())].into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let service = |kind: ServiceType| {
            Type::Service(plugin_capability::Service {
                r#type: kind.into(),
            })
        };
        let online = Type::VolumeExpansion(VolumeExpansion {
            r#type: ExpansionType::Online.into(),
        });
        let types = [
            service(ServiceType::ControllerService),
            service(ServiceType::GroupControllerService),
            service(ServiceType::VolumeAccessibilityConstraints),
            online,
        ];
        let capability = |kind| PluginCapability { r#type: Some(kind) };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: types.map(capability).into(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        // What the driver depends on, calls wait for: a restart would help none of it.
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
