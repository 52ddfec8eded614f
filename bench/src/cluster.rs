//! An empty cluster in this process: the embedded API server with our definitions.

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::core::v1::Node,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use strand_api::{MemoryPool, condition, crds, names};
use strand_embedded_api::{Config as ServerConfig, Server};

/// A cluster of which everything is gone when it is dropped.
pub struct Cluster {
    /// The API server.
    pub server: Server,
    /// A client of it.
    pub client: Client,
    /// Its directory.
    pub dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts it, with our definitions and `nodes` nodes.
    pub async fn start(nodes: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = Server::start(ServerConfig::new(dir.path().join("api"))).await?;
        server.write_kubeconfig(&dir.path().join("kubeconfig"))?;
        let client = client(&server).await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in crds() {
            definitions.create(&PostParams::default(), &crd).await?;
        }
        let api: Api<Node> = Api::all(client.clone());
        let api = &api;
        futures::stream::iter(0..nodes)
            .map(|i| async move {
                let node = serde_json::from_value(json!({
                    "metadata": {"name": node_name(i)},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
                }))?;
                api.create(&PostParams::default(), &node).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(16)
            .try_collect::<()>()
            .await?;
        Ok(Self {
            server,
            client,
            dir,
        })
    }

    /// Path of its kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Creates the pool `default`, which takes every drive, gives that share of it to context memory and spares none.
    pub async fn pool(&self, share: &str) -> anyhow::Result<()> {
        let spec = serde_json::from_value(json!({
            "drives": {"models": ["*"]},
            "carve": {"contextMemory": share},
            "contextMemory": {"driveWritesPerDay": 100.0},
        }))?;
        let pools: Api<MemoryPool> = Api::all(self.client.clone());
        pools
            .create(&PostParams::default(), &MemoryPool::new("default", spec))
            .await?;
        Ok(())
    }

    /// Waits until the pool is Ready with that many drives; tells how long that took.
    pub async fn until_ready(&self, drives: usize, bound: Duration) -> anyhow::Result<Duration> {
        let pools: Api<MemoryPool> = Api::all(self.client.clone());
        let begun = Instant::now();
        loop {
            let status = pools.get("default").await?.status.unwrap_or_default();
            if condition::is_true(&status.conditions, names::READY)
                && status.drives.ready == drives as i64
            {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > bound {
                bail!("the pool was not Ready after {bound:?}: {status:#?}");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// A client with connections of its own.
pub async fn client(server: &Server) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("no client can be made")
}

/// Name of the i-th node.
pub fn node_name(i: usize) -> String {
    format!("gpu-node-{i:05}")
}
