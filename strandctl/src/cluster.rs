//! The cluster that a command looks at: how it is found, and what is read from it at once.

use crate::scrape::Agents;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use strand_api::{
    Drive, DriveOperation, DriveOperationStatus, MemoryPool, OperationPhase, OperationType,
};

/// Name of the Lease that the leading operator holds.
pub const OPERATOR_LEASE: &str = "strand-operator";

/// Which cluster a command is about.
#[derive(Args, Debug)]
pub struct Target {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, then ~/.kube/config, then the cluster
    /// that this process runs in]
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    kubeconfig: Option<PathBuf>,
    /// The rack that `strandctl up --dir DIR` runs
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Target {
    /// A client for the cluster; nothing is asked of it yet.
    pub async fn client(&self) -> Result<Client> {
        let file = match (&self.kubeconfig, &self.dir) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(dir)) => {
                let file = dir.join("kubeconfig");
                if !file.exists() {
                    bail!(
                        "{} holds no rack: there is no {}; start one with `strandctl up --dir {}`",
                        dir.display(),
                        file.display(),
                        dir.display()
                    );
                }
                Some(file)
            }
            (None, None) => None,
        };
        match file {
            Some(file) => client_of(&file).await,
            None => {
                let config = Config::infer().await.map_err(|e| {
                    anyhow!(
                        "no cluster found: {e}; name one with --kubeconfig FILE, or a rack of this \
                         machine with --dir DIR"
                    )
                })?;
                Ok(Client::try_from(config)?)
            }
        }
    }
}

impl Target {
    /// The directory of the rack of this machine that is meant, if one is.
    pub fn directory(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Its agents.
    pub async fn agents(&self) -> Result<Agents> {
        match &self.dir {
            Some(dir) => Agents::of_rack(dir),
            None => self.client().await.map(Agents::Cluster),
        }
    }
}

/// A client for the cluster of a kubeconfig file.
pub async fn client_of(file: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(file)
        .with_context(|| format!("{} is not a kubeconfig that can be read", file.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("{} names no cluster that can be used", file.display()))?;
    Ok(Client::try_from(config)?)
}

/// What `status` shows, read at about one moment.
pub struct Cluster {
    /// Pools, oldest first.
    pub pools: Vec<MemoryPool>,
    /// Drives by node and serial.
    pub drives: Vec<Drive>,
    /// Nodes by name.
    pub nodes: Vec<Node>,
    /// The operator's Lease, if one was ever taken.
    pub operator: Option<Lease>,
}

impl Cluster {
    /// Reads it.
    pub async fn read(client: &Client) -> Result<Cluster> {
        let list = ListParams::default();
        let pools = Api::<MemoryPool>::all(client.clone());
        let nodes = Api::<Node>::all(client.clone());
        let leases = Api::<Lease>::all(client.clone());
        let mut pools = pools.list(&list).await.map_err(in_words)?.items;
        pools.sort_by_key(|pool| {
            let created = pool.metadata.creation_timestamp.clone();
            (created.map(|time| time.0), pool.metadata.name.clone())
        });
        let mut nodes = nodes.list(&list).await.map_err(in_words)?.items;
        nodes.sort_by_key(|node| natural(node.metadata.name.as_deref().unwrap_or_default()));
        let leases = leases.list(&list).await.map_err(in_words)?.items;
        Ok(Cluster {
            pools,
            drives: drives(client).await?,
            nodes,
            operator: operators(leases),
        })
    }
}

/// The operator's Lease. One that an earlier release left in another namespace is not renewed any more.
fn operators(leases: Vec<Lease>) -> Option<Lease> {
    let named = |lease: &Lease| lease.metadata.name.as_deref() == Some(OPERATOR_LEASE);
    let renewed = |lease: &Lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0);
    leases.into_iter().filter(named).max_by_key(renewed)
}

/// All drives, by node and serial.
pub async fn drives(client: &Client) -> Result<Vec<Drive>> {
    let drives = Api::<Drive>::all(client.clone());
    let mut drives = drives
        .list(&ListParams::default())
        .await
        .map_err(in_words)?
        .items;
    sort(&mut drives);
    Ok(drives)
}

/// What operations that empty drives say, by drive; those that have not ended.
pub type Evacuations = BTreeMap<String, DriveOperationStatus>;

/// The drives that are being emptied.
pub async fn evacuations(client: &Client) -> Result<Evacuations> {
    let operations = Api::<DriveOperation>::all(client.clone());
    let operations = operations.list(&ListParams::default()).await;
    let running = operations.map_err(in_words)?.items.into_iter();
    let running = running.filter(|operation| {
        let phase = operation.status.as_ref().and_then(|s| s.phase);
        operation.spec.type_ == OperationType::Evacuate && phase == Some(OperationPhase::Running)
    });
    Ok(running
        .map(|operation| (operation.spec.drive, operation.status.unwrap_or_default()))
        .collect())
}

/// By node, then by serial, with `node-10` behind `node-2`.
pub fn sort(drives: &mut [Drive]) {
    drives.sort_by_cached_key(|drive| (natural(&drive.spec.node_name), natural(serial(drive))));
}

/// The drive's serial number, or its object's name before the agent has told it.
pub fn serial(drive: &Drive) -> &str {
    let identity = drive.status.as_ref().and_then(|s| s.identity.as_ref());
    identity.map_or_else(
        || drive.metadata.name.as_deref().unwrap_or_default(),
        |identity| identity.serial.as_str(),
    )
}

/// A piece of a name: text before numbers is compared as text, numbers as numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// Digits.
    Number(u64),
    /// Anything else.
    Text(String),
}

/// A key that sorts names as people count: `node-2` before `node-10`.
pub fn natural(name: &str) -> Vec<Piece> {
    let chars: Vec<char> = name.chars().collect();
    chars
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        .map(|run| {
            let run: String = run.iter().collect();
            run.parse().map_or(Piece::Text(run), Piece::Number)
        })
        .collect()
}

/// What an error of the API means to the person at the keyboard.
pub fn in_words(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => match status.code {
            404 => anyhow!(
                "this cluster does not know Strand's objects ({}); install the definitions of crds/ first",
                status.message.trim()
            ),
            401 | 403 => anyhow!(
                "this cluster does not let you look: {}; ask its administrator for leave to list \
                 memorypools, drives, driveoperations, nodes and leases",
                status.message.trim()
            ),
            _ => anyhow!("the API server refused: {}", status.message.trim()),
        },
        error => {
            // The chain below kube's error names the socket's complaint; kube's own text does not.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            anyhow!("the API server does not answer ({cause}); is the cluster or rack up?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn of_leases_with_the_operators_name_the_one_renewed_last_is_its() {
        let lease = |name: &str, namespace: &str, second: u32| -> Lease {
            from_value(json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")},
            }))
            .unwrap()
        };
        let never: Lease = from_value(json!({"metadata": {"name": OPERATOR_LEASE}})).unwrap();
        let all = vec![
            lease(OPERATOR_LEASE, "left-by-an-earlier-release", 1),
            lease(OPERATOR_LEASE, "strand-system", 2),
            lease("another", "strand-system", 3),
            never,
        ];
        let found = operators(all).unwrap().metadata.namespace;
        assert_eq!(found.as_deref(), Some("strand-system"));
        assert!(operators(Vec::new()).is_none());
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = vec![
            "node-10",
            "node-2",
            "node-1-drive-11",
            "node-1-drive-2",
            "node",
        ];
        names.sort_by_key(|name| natural(name));
        assert_eq!(
            names,
            [
                "node",
                "node-1-drive-2",
                "node-1-drive-11",
                "node-2",
                "node-10"
            ]
        );
    }
}
