//! NodeGetInfo.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kube::ResourceExt;
use strand_api::{Drive, MemoryPool};
use strand_csi::v1::{NodeGetInfoResponse, Topology};

use super::Parts;
use crate::error::Error;
use crate::request::topology::{FABRIC, NODE};

/// Most that a node waits for its first pool, before the answer is an error: a kubelet gives a registration two minutes, and
/// after an error the next comes later and later.
const PATIENCE: Duration = Duration::from_secs(100);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_secs(2);

impl Parts {
    pub(super) async fn info(&self) -> Result<NodeGetInfoResponse, Error> {
        let node = self.config.node_name.clone();
        let fabric = match &self.config.fabric {
            Some(fabric) => fabric.clone(),
            None => self.first_fabric().await?,
        };
        let segments =
            HashMap::from([(FABRIC.to_owned(), fabric), (NODE.to_owned(), node.clone())]);
        Ok(NodeGetInfoResponse {
            node_id: node,
            max_volumes_per_node: self.config.max_volumes,
            accessible_topology: Some(Topology { segments }),
        })
    }

    /// The fabric; a node that is there before its pool waits for it.
    async fn first_fabric(&self) -> Result<String, Error> {
        if self.config.cluster.is_none() {
            return self.fabric().await;
        }
        let told = tokio::time::timeout(PATIENCE, async {
            let mut waits = false;
            loop {
                match self.fabric().await {
                    Ok(fabric) => return fabric,
                    Err(error) if !waits => tracing::info!("the node's topology waits: {error}"),
                    Err(_) => {}
                }
                waits = true;
                tokio::time::sleep(LOOK).await;
            }
        });
        match told.await {
            Ok(fabric) => Ok(fabric),
            Err(_) => self.fabric().await,
        }
    }

    async fn fabric(&self) -> Result<String, Error> {
        let refuse = |why: &str| Error::Refused {
            what: format!("node {}", self.config.node_name),
            why: why.into(),
        };
        let cluster = self.config.cluster.as_ref();
        let cluster = cluster.ok_or_else(|| refuse("--fabric is missing: name its pool"))?;
        let pools = cluster.all::<MemoryPool>().await?;
        if let [only] = pools.as_slice() {
            return Ok(only.name_any());
        }
        let drives = cluster.all::<Drive>().await?;
        let here = drives
            .iter()
            .filter(|d| d.spec.node_name == self.config.node_name);
        let mut found: BTreeSet<&String> = here.filter_map(|d| d.spec.pool.as_ref()).collect();
        match (found.pop_first(), found.is_empty(), pools.is_empty()) {
            (_, _, true) => Err(refuse("waits for a MemoryPool; apply one")),
            (Some(only), true, _) => Ok(only.clone()),
            _ => Err(refuse(
                "there are several MemoryPools and the drives of this node do not tell which is meant; name one with --fabric",
            )),
        }
    }
}
