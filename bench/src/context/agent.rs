//! A real node agent with one drive, adopted and carved by a real operator, and doors of pods that it opened.

use anyhow::{Context, bail, ensure};
use kube::{Api, api::ListParams};
use serde_json::json;
use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    time::Duration,
};
use strand_api::{Drive, PartitionRole};
use strand_kv_client::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep},
};

use super::{load::Blocks, medium::Device, serving};
use crate::{
    cluster::{Cluster, node_name},
    process::{Measured, Process},
};

/// Longest wait for a drive to be adopted, or a door to be opened.
const BOUND: Duration = Duration::from_secs(120);

/// Such a node.
pub struct Node {
    cluster: Cluster,
    operator: Measured,
    agent: Measured,
    arguments: Vec<String>,
    /// First byte and bytes of the context partition.
    pub partition: (u64, u64),
}

impl Node {
    /// Starts all of it on a blank device.
    pub async fn start(device: &Device) -> anyhow::Result<Self> {
        let cluster = Cluster::start(1).await?;
        let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
        let flags = ["--namespace", "default", "--listen", "127.0.0.1:0"];
        let flags = [&["--kubeconfig", &kubeconfig][..], &flags].concat();
        let operator = Measured::start("operator", flags, cluster.dir.path().join("operator.log"))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let path = |name: &str| cluster.dir.path().join(name).to_string_lossy().into_owned();
        let arguments = [
            ("--kubeconfig", kubeconfig),
            ("--node-name", node_name(0)),
            ("--state-dir", path("state")),
            ("--stand-in", device.path().to_string_lossy().into_owned()),
            ("--listen", "127.0.0.1:0".into()),
            ("--socket", path("agent.sock")),
            ("--peer-address", format!("127.0.0.1:{port}")),
            ("--peer-listen", format!("127.0.0.1:{port}")),
        ];
        let arguments: Vec<_> = arguments
            .into_iter()
            .flat_map(|(flag, value)| [flag.into(), value])
            .collect();
        let agent = Measured::start(
            "node-agent",
            &arguments,
            cluster.dir.path().join("agent.log"),
        )?;
        cluster.pool("95%").await?;
        cluster.until_ready(1, BOUND).await?;
        let partition = context_partition(&cluster).await?;
        Ok(Self {
            cluster,
            operator,
            agent,
            arguments,
            partition,
        })
    }

    /// Opens a pod's door; its socket.
    pub async fn door(&self, pod: &str) -> anyhow::Result<PathBuf> {
        let directory = self.cluster.dir.path().join(pod);
        std::fs::create_dir_all(&directory)?;
        let body = json!({"pool": "default", "namespace": pod, "directory": directory}).to_string();
        let begun = Instant::now();
        loop {
            match self.ask("PUT", &format!("/doors/{pod}"), &body).await {
                Ok(_) => return Ok(directory.join("door.sock")),
                Err(error) if begun.elapsed() > BOUND => return Err(error),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Puts blocks until nearly all segments are taken, and none was evicted.
    pub async fn fill(&self, client: &Client, lengths: &[usize]) -> anyhow::Result<Vec<Blocks>> {
        serving::fill(client, lengths, async || {
            let free = self.metric("strand_context_free_segments").await?;
            let capacity = self.metric("strand_context_capacity_bytes").await?;
            let segments = capacity
                / self
                    .partition
                    .1
                    .div_ceil(1024)
                    .next_power_of_two()
                    .max(1 << 20) as f64;
            Ok(free / segments)
        })
        .await
    }

    /// The first figure of a family of metrics.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.ask("GET", "/metrics", "").await?;
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .with_context(|| format!("the agent has no {name}"))?;
        let (_, figure) = line.rsplit_once(' ').context("a metric with a figure")?;
        Ok(figure.parse()?)
    }

    /// HTTP/1.0 (RFC 1945) over its socket: one request, and all up to the end of the connection.
    async fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let socket = self.cluster.dir.path().join("agent.sock");
        let mut stream = UnixStream::connect(&socket)
            .await
            .with_context(|| format!("cannot reach {}", socket.display()))?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the agent's answer has no end of its head")?;
        if head.split_ascii_whitespace().nth(1) != Some("200") {
            bail!("the agent answers {method} {path}: {body}");
        }
        Ok(body.to_owned())
    }

    /// What /proc says of the agent.
    pub fn process(&self) -> Process {
        self.agent.process()
    }

    /// `kill -9` of the agent, and the next one over the same directory.
    pub async fn restart(self) -> anyhow::Result<Self> {
        self.agent.stop().await?;
        let log = self.cluster.dir.path().join("agent-2.log");
        Ok(Self {
            agent: Measured::start("node-agent", &self.arguments, log)?,
            ..self
        })
    }

    /// Stops all of it.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.agent.stop().await?;
        self.operator.stop().await?;
        self.cluster.server.shutdown().await;
        Ok(())
    }
}

async fn context_partition(cluster: &Cluster) -> anyhow::Result<(u64, u64)> {
    let drives: Api<Drive> = Api::all(cluster.client.clone());
    let drives = drives.list(&ListParams::default()).await?;
    ensure!(
        drives.items.len() == 1,
        "there should be one drive, not {}",
        drives.items.len()
    );
    let partitions = drives
        .items
        .into_iter()
        .filter_map(|drive| drive.status)
        .flat_map(|status| status.partitions);
    let partition = partitions
        .into_iter()
        .find(|partition| partition.role == PartitionRole::ContextMemory);
    let partition = partition.context("the drive has no context partition")?;
    Ok((partition.start.try_into()?, partition.size.0))
}
