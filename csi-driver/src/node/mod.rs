//! The node: every mount, unmount and bind of ours on it. The agent hands out devices and opens doors; unpublishing never needs it.

mod door;
mod filesystem;
mod grow;
mod info;
mod inline;
mod mounts;
mod publish;
mod scratch;
mod stage;
mod stats;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strand_csi::v1::node_server::Node as Service;
use strand_csi::v1::node_service_capability::rpc::Type;
use strand_csi::v1::node_service_capability::{Rpc, Type as OneOf};
use strand_csi::v1::*;
use tonic::{Request, Response, Status};

use crate::agent::Agent;
use crate::call::Calls;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::locks::Locks;
use door::Doors;
use scratch::Sweep;

/// What a node's part needs to know.
#[derive(Clone)]
pub struct NodeConfig {
    /// Name of this node, as its Node object has it.
    pub node_name: String,
    /// The agent's Unix socket.
    pub agent_socket: PathBuf,
    /// Where pods' doors are: a directory on tmpfs that the agent sees under the same path.
    pub doors: PathBuf,
    /// The pool whose volumes this node attaches; none: the only one, or the one that has drives here.
    pub fabric: Option<String>,
    /// Where pools are looked up; needed without `fabric` only.
    pub cluster: Option<Cluster>,
    /// How many volumes the node can have attached.
    pub max_volumes: i64,
}

/// Answers the calls of the service `csi.v1.Node`. Clones are the same.
#[derive(Clone)]
pub struct Node {
    parts: Arc<Parts>,
}

struct Parts {
    config: NodeConfig,
    agent: Agent,
    doors: Doors,
    sweep: Sweep,
    locks: Locks,
    calls: Calls,
}

const CAPABILITIES: [Type; 5] = [
    Type::StageUnstageVolume,
    Type::GetVolumeStats,
    Type::ExpandVolume,
    Type::VolumeCondition,
    Type::SingleNodeMultiWriter,
];

/// What every call answers.
type Answer<T> = Result<Response<T>, Status>;

impl Node {
    /// The part of that node. It closes what an earlier run could not close; needs a tokio runtime.
    pub fn new(config: NodeConfig, calls: Calls) -> Self {
        let agent = Agent::new(&config.agent_socket);
        let locks = Locks::default();
        let doors = Doors::start(config.doors.clone(), agent.clone(), locks.clone());
        let sweep = Sweep::start(agent.clone(), locks.clone());
        Self {
            parts: Arc::new(Parts {
                config,
                agent,
                doors,
                sweep,
                locks,
                calls,
            }),
        }
    }

    /// Carries out a call to its end, also when its caller goes away: a mkfs that nobody waits for is still at work.
    async fn run<T, F>(
        &self,
        method: &'static str,
        volume: String,
        work: impl FnOnce(Arc<Parts>) -> F,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let calls = self.parts.calls.clone();
        let work = work(self.parts.clone());
        let told = tokio::spawn(async move { calls.run(method, &volume, work).await });
        told.await
            .unwrap_or_else(|error| Err(Status::internal(format!("the call broke off: {error}"))))
    }
}

/// Makes a directory to mount on; one that is there is fine.
fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::host("cannot make", path))
}

#[tonic::async_trait]
impl Service for Node {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Answer<NodeStageVolumeResponse> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.run("NodeStageVolume", volume, |parts| async move {
            parts.stage(&request).await
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.run("NodeUnstageVolume", volume, |parts| async move {
            parts.unstage(&request).await
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.run("NodePublishVolume", volume, |parts| async move {
            parts.publish(&request).await
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.run("NodeUnpublishVolume", volume, |parts| async move {
            parts.unpublish(&request)
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.run("NodeGetVolumeStats", volume, |_| async move {
            stats::stats(&request)
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        self.run("NodeExpandVolume", volume, |parts| async move {
            parts.grow(&request).await
        })
        .await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let capability = |kind: Type| NodeServiceCapability {
            r#type: Some(OneOf::Rpc(Rpc {
                r#type: kind.into(),
            })),
        };
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: CAPABILITIES.map(capability).into(),
        }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        self.run("NodeGetInfo", String::new(), |parts| async move {
            parts.info().await
        })
        .await
    }
}
