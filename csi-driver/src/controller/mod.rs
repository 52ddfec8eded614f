//! The controller: turns calls into specs of PoolVolumes and PoolSnapshots, and waits for what the operator makes of them. It keeps
//! nothing: any number of them can work at once, since each change is made from the version that it was decided on.

mod access;
mod attach;
mod capacity;
mod change;
mod create;
mod group;
mod limit;
mod list;
mod snapshot;
mod told;
mod validate;

use strand_csi::v1::controller_server::Controller as Service;
use strand_csi::v1::controller_service_capability::rpc::Type;
use strand_csi::v1::controller_service_capability::{Rpc, Type as OneOf};
use strand_csi::v1::*;
use tonic::{Request, Response, Status};

use crate::call::Calls;
use crate::cluster::Cluster;
use crate::locks::Locks;
use limit::Limits;

/// Answers the calls of the service `csi.v1.Controller`.
#[derive(Clone)]
pub struct Controller {
    cluster: Cluster,
    locks: Locks,
    calls: Calls,
    limits: Limits,
}

impl Controller {
    /// A controller of that cluster. `max_volumes` is what a node can have attached that has not told the cluster.
    pub fn new(cluster: Cluster, calls: Calls, max_volumes: i64) -> Self {
        Self {
            limits: Limits::new(cluster.clone(), max_volumes),
            cluster,
            locks: Locks::default(),
            calls,
        }
    }
}

const CAPABILITIES: [Type; 14] = [
    Type::CreateDeleteVolume,
    Type::PublishUnpublishVolume,
    Type::ListVolumes,
    Type::GetCapacity,
    Type::CreateDeleteSnapshot,
    Type::ListSnapshots,
    Type::CloneVolume,
    Type::PublishReadonly,
    Type::ExpandVolume,
    Type::ListVolumesPublishedNodes,
    Type::VolumeCondition,
    Type::GetVolume,
    Type::SingleNodeMultiWriter,
    Type::ModifyVolume,
];

/// What every call answers.
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Service for Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Answer<CreateVolumeResponse> {
        let request = request.into_inner();
        let work = self.create(&request);
        self.calls.run("CreateVolume", &request.name, work).await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Answer<DeleteVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.calls.run("DeleteVolume", &id, self.delete(&id)).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        let work = self.attach(&request);
        self.calls
            .run("ControllerPublishVolume", &request.volume_id, work)
            .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        let work = self.detach(&request);
        self.calls
            .run("ControllerUnpublishVolume", &request.volume_id, work)
            .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        let work = self.validate(&request);
        self.calls
            .run("ValidateVolumeCapabilities", &request.volume_id, work)
            .await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Answer<ListVolumesResponse> {
        let request = request.into_inner();
        let work = self.volumes(&request);
        self.calls.run("ListVolumes", "", work).await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Answer<GetCapacityResponse> {
        let request = request.into_inner();
        let work = self.capacity(&request);
        self.calls.run("GetCapacity", "", work).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let capability = |kind: Type| ControllerServiceCapability {
            r#type: Some(OneOf::Rpc(Rpc {
                r#type: kind.into(),
            })),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: CAPABILITIES.map(capability).into(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        let request = request.into_inner();
        let work = self.snapshot(&request);
        self.calls.run("CreateSnapshot", &request.name, work).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        let id = request.into_inner().snapshot_id;
        let work = self.forget_snapshot(&id);
        self.calls.run("DeleteSnapshot", &id, work).await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Answer<ListSnapshotsResponse> {
        let request = request.into_inner();
        let work = self.snapshots(&request);
        self.calls.run("ListSnapshots", "", work).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        let work = self.grow(&request);
        self.calls
            .run("ControllerExpandVolume", &request.volume_id, work)
            .await
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.calls
            .run("ControllerGetVolume", &id, self.one(&id))
            .await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        let work = self.modify(&request);
        self.calls
            .run("ControllerModifyVolume", &request.volume_id, work)
            .await
    }
}
