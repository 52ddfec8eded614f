//! `rack.json`: the running rack, for scripts.

use super::{keep::CSI, layout::replace};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A rack that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    /// Process id of the `strandctl up` that runs it; after `kill -9` of that one, the file is
    /// still there and describes nothing.
    pub pid: u32,
    /// For `kubectl --kubeconfig`.
    pub kubeconfig: PathBuf,
    /// The operator.
    pub operator: RackOperator,
    /// The nodes, in order of their numbers.
    pub nodes: Vec<RackNode>,
    /// The pods' endpoints.
    pub endpoints: Vec<RackEndpoint>,
    /// What this machine lacks to serve volumes; left out where it serves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes_need: Option<String>,
}

/// A pod and the way in to context memory that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackEndpoint {
    /// Name of the pod.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Address for Redis clients.
    pub resp: String,
    /// Socket of its native door.
    pub native: PathBuf,
    /// URL of its metrics.
    pub metrics: String,
    /// Its endpoint's process id now; another after a restart.
    pub pid: u32,
}

/// The operator's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackOperator {
    /// Its process id now; another after a restart.
    pub pid: u32,
    /// URL of its metrics.
    pub metrics: String,
}

/// One node's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackNode {
    /// Name of the node.
    pub name: String,
    /// Its agent's process id now; another after a restart.
    pub pid: u32,
    /// Its agent's socket.
    pub agent: PathBuf,
    /// Its CSI driver, of all three services: `unix:///…`.
    pub csi: String,
    /// Its CSI driver's process id now; another after a restart.
    pub csi_pid: u32,
    /// URL of its agent's metrics.
    pub metrics: String,
    /// Files, or loop devices, that stood for its drives when the rack came up.
    pub drives: Vec<PathBuf>,
}

impl Rack {
    /// Notes the new process id of a process that was started again.
    pub fn restarted(&mut self, process: &str, pid: u32) {
        let driver = process.strip_prefix(CSI);
        if let Some(node) = self
            .nodes
            .iter_mut()
            .find(|node| driver == Some(&node.name))
        {
            node.csi_pid = pid;
            return;
        }
        let node = self.nodes.iter_mut().find(|node| node.name == process);
        let endpoint = self.endpoints.iter_mut().find(|end| end.pod == process);
        let process = match (node, endpoint) {
            (Some(node), _) => &mut node.pid,
            (None, Some(endpoint)) => &mut endpoint.pid,
            (None, None) => &mut self.operator.pid,
        };
        *process = pid;
    }

    /// Reads the file of the rack that runs in a directory.
    pub fn read(dir: &Path) -> Result<Rack> {
        let file = dir.join("rack.json");
        let text = fs::read(&file).with_context(|| {
            format!(
                "{} holds no running rack; start one with `strandctl up --dir {}`",
                dir.display(),
                dir.display()
            )
        })?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what `strandctl up` writes", file.display()))
    }

    /// Writes the file in one step.
    pub fn write(&self, file: &Path) -> Result<()> {
        replace(file, &(serde_json::to_string_pretty(self)? + "\n"))
    }
}
