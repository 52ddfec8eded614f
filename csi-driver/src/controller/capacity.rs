//! GetCapacity: for the scheduler, what is left, and the largest volume that fits (a sum over drives fits nothing).

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use strand_api::{Drive, PoolLeg, PoolSnapshot, PoolVolume};
use strand_csi::v1::{GetCapacityRequest, GetCapacityResponse};

use strand_placement::volumes::{Capacity, Kind, Storage, capacity};

use super::Controller;
use crate::error::Error;
use crate::request::capability::{Capability, FsType};
use crate::request::parameters::Parameters;
use crate::request::size::{SMALLEST, signed};
use crate::request::topology::{FABRIC, NODE};

impl Controller {
    pub(super) async fn capacity(
        &self,
        request: &GetCapacityRequest,
    ) -> Result<GetCapacityResponse, Error> {
        let parameters = Parameters::read(&request.parameters)?;
        let fs = match request.volume_capabilities.as_slice() {
            [] => None,
            some => Capability::read_all(some)?.1,
        };
        let segments = request.accessible_topology.as_ref().map(|t| &t.segments);
        let segment = |key| segments.and_then(|s| s.get(key)).map(String::as_str);
        let (fabric, node) = (segment(FABRIC), segment(NODE));
        let pool = parameters.pool.as_deref().or(fabric);
        // A node of another pool's fabric has nothing of this one.
        if fabric.is_some_and(|fabric| pool != Some(fabric)) {
            return Ok(answer(Capacity::default(), fs));
        }
        let pool = self.cluster.pool(pool).await?;
        let policy = &pool.spec.storage;
        let redundancy = parameters.redundancy.unwrap_or(policy.default_redundancy);
        let name = pool.name_any();
        let (drives, legs, volumes, snapshots, nodes) = tokio::try_join!(
            self.cluster.all::<Drive>(),
            self.cluster.all::<PoolLeg>(),
            self.cluster.all::<PoolVolume>(),
            self.cluster.all::<PoolSnapshot>(),
            self.cluster.all::<Node>(),
        )?;
        let storage = Storage {
            pools: vec![&pool],
            nodes: nodes
                .iter()
                .filter_map(|node| Some((node.metadata.name.as_deref()?, node)))
                .collect(),
            drives: drives.iter().collect(),
            volumes: volumes.iter().collect(),
            legs: legs.iter().collect(),
            snapshots: snapshots.iter().collect(),
            // What is moved is in the legs.
            operations: Vec::new(),
            heard: None,
        };
        let provisioning = parameters.provisioning.unwrap_or(policy.provisioning);
        let kind = Kind {
            pool: &name,
            redundancy,
            provisioning,
            locality: parameters.locality,
            node,
        };
        Ok(answer(capacity(&storage, &kind), fs))
    }
}

fn answer(room: Capacity, fs: Option<FsType>) -> GetCapacityResponse {
    GetCapacityResponse {
        available_capacity: signed(room.free),
        maximum_volume_size: Some(signed(room.largest)),
        minimum_volume_size: Some(signed(fs.map_or(SMALLEST, FsType::smallest))),
    }
}
