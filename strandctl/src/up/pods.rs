//! Pods of a rack: each a directory with its door, and a `kv-endpoint` that serves Redis clients from it.

use super::{layout::NodeLayout, rack::RackEndpoint};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};

/// The Kubernetes namespace that a rack's pods live in: they share their blocks.
const NAMESPACE: &str = "default";
/// Between two attempts to have a door opened.
const AGAIN: Duration = Duration::from_millis(300);
/// Longest that an agent's answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Name of the socket in the directory that a pod's volume mounts.
const SOCKET: &str = "door.sock";

/// A pod of the rack.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node's name.
    pub node: String,
    /// Socket of its node's agent.
    agent: PathBuf,
    /// What its volume mounts.
    directory: PathBuf,
    /// Where Redis clients reach it.
    pub resp: SocketAddr,
    /// Its endpoint's metrics.
    pub metrics: SocketAddr,
}

impl Pod {
    /// A pod on a node, with its directory.
    pub fn prepare(
        name: &str,
        node: &NodeLayout,
        resp: SocketAddr,
        metrics: SocketAddr,
    ) -> Result<Pod> {
        let directory = node.pod(name)?;
        Ok(Pod {
            name: name.to_owned(),
            node: node.name.clone(),
            agent: node.socket(),
            directory,
            resp,
            metrics,
        })
    }

    /// Flags of its endpoint.
    pub fn flags(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("--door", self.door().into()),
            ("--resp", self.resp.to_string().into()),
            ("--listen", self.metrics.to_string().into()),
        ]
    }

    /// As `rack.json` tells of it.
    pub fn endpoint(&self, pid: u32) -> RackEndpoint {
        RackEndpoint {
            pod: self.name.clone(),
            node: self.node.clone(),
            resp: self.resp.to_string(),
            native: self.door(),
            metrics: format!("http://{}/metrics", self.metrics),
            pid,
        }
    }

    fn door(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Has the agent open the pod's door; tries until it does, since an agent that has just started knows no pool yet.
    async fn open(&self, pool: &str) {
        let request = json!({
            "pool": pool,
            "namespace": NAMESPACE,
            "directory": self.directory,
        });
        let path = format!("/doors/{}", self.name);
        loop {
            match put(&self.agent, &path, &request.to_string()).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::info!(pod = self.name, %error, "its door is not open yet");
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Opens the doors of all pods.
pub async fn open_doors(pods: &[Pod], pool: &str) {
    futures::future::join_all(pods.iter().map(|pod| pod.open(pool))).await;
}

/// HTTP/1.0 (RFC 1945) over a Unix socket: one request, the answer until the end of the connection.
async fn put(socket: &Path, path: &str, body: &str) -> Result<()> {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        let length = body.len();
        let request = format!(
            "PUT {path} HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(64 << 10).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match timeout(PATIENCE, ask).await {
        Ok(answer) => answer.with_context(|| format!("cannot ask {}", socket.display()))?,
        Err(_) => bail!("{} does not answer in time", socket.display()),
    };
    let code = answer.split_ascii_whitespace().nth(1).unwrap_or("nothing");
    if code != "200" {
        let words = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        bail!("the agent answers {code}: {}", words.trim());
    }
    Ok(())
}

/// How many pods a node's directory has from before.
pub fn had(node: &NodeLayout) -> usize {
    let entries = fs::read_dir(node.pods()).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}
