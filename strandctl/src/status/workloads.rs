//! Strand's own Deployments and DaemonSets: whether all their pods are ready, and of the newest revision.

use crate::cluster::in_words;
use anyhow::Result;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::{Api, Client, ResourceExt, api::ListParams};

/// How the chart labels them.
const OURS: &str = "app.kubernetes.io/name=strand";

/// One of them, and how many pods it has.
#[derive(Debug)]
pub struct Workload {
    name: String,
    /// Whether it has a pod on every node.
    of_nodes: bool,
    /// Whether its controller has seen its newest spec, so that the numbers are about that.
    seen: bool,
    wanted: i32,
    ready: i32,
    /// Pods of an earlier revision, or of the newest that are not made yet. While a rollout is stuck the earlier ones stay, and are ready.
    behind: i32,
}

impl From<DaemonSet> for Workload {
    fn from(set: DaemonSet) -> Self {
        let name = format!("DaemonSet {}", set.name_any());
        let generation = set.metadata.generation;
        let status = set.status.unwrap_or_default();
        let wanted = status.desired_number_scheduled;
        let strategy = set.spec.and_then(|spec| spec.update_strategy);
        // With OnDelete it is for an administrator to say when a pod is replaced.
        let by_hand = strategy.and_then(|s| s.type_).as_deref() == Some("OnDelete");
        Self {
            name,
            of_nodes: true,
            seen: status.observed_generation >= generation,
            wanted,
            ready: status.number_ready,
            behind: match by_hand {
                true => 0,
                false => wanted - status.updated_number_scheduled.unwrap_or(0),
            },
        }
    }
}

impl From<Deployment> for Workload {
    fn from(deployment: Deployment) -> Self {
        let name = format!("Deployment {}", deployment.name_any());
        let generation = deployment.metadata.generation;
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.unwrap_or_default();
        // A new pod may be there beside all earlier ones: with one replica that is all of the new.
        let most = wanted.max(status.replicas.unwrap_or(0));
        Self {
            name,
            of_nodes: false,
            seen: status.observed_generation >= generation,
            wanted,
            ready: status.ready_replicas.unwrap_or(0),
            behind: most - status.updated_replicas.unwrap_or(0),
        }
    }
}

impl Workload {
    fn lacks(&self, pooled: bool) -> Option<String> {
        let name = &self.name;
        let counts = pooled || !self.of_nodes;
        match self {
            Self { seen: false, .. } => {
                Some(format!("{name}: its newest spec is not acted on yet"))
            }
            Self { wanted: 0, .. } => Some(format!("{name}: none of its pods is wanted")),
            Self { ready, wanted, .. } if counts && ready < wanted => {
                Some(format!("{name}: {ready} of {wanted} pods are ready"))
            }
            Self { behind, .. } if *behind > 0 => Some(format!(
                "{name}: {behind} of its pods are not of the newest revision"
            )),
            _ => None,
        }
    }
}

/// What they lack. Before there is a pool (`pooled`), pods of nodes need not be ready: see [`super::check::WITHOUT_POOL`].
pub fn lacking(workloads: &[Workload], pooled: bool) -> Vec<String> {
    if workloads.is_empty() {
        return vec![format!(
            "no workload with the label {OURS} is there: nothing of Strand runs in this cluster"
        )];
    }
    workloads.iter().filter_map(|w| w.lacks(pooled)).collect()
}

/// All of them.
pub async fn read(client: &Client) -> Result<Vec<Workload>> {
    let ours = ListParams::default().labels(OURS);
    let (sets, deployments): (Api<DaemonSet>, Api<Deployment>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let sets = sets.list(&ours).await.map_err(in_words)?.items;
    let deployments = deployments.list(&ours).await.map_err(in_words)?.items;
    let sets = sets.into_iter().map(Workload::from);
    Ok(sets
        .chain(deployments.into_iter().map(Workload::from))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn set(strategy: &str, status: Value) -> Workload {
        let set: DaemonSet = from_value(json!({
            "metadata": {"name": "nodes", "generation": 2},
            "spec": {
                "selector": {}, "template": {}, "updateStrategy": {"type": strategy},
            },
            "status": status,
        }))
        .unwrap();
        set.into()
    }

    fn deployment(replicas: i32, status: Value) -> Workload {
        let deployment: Deployment = from_value(json!({
            "metadata": {"name": "op", "generation": 2},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": status,
        }))
        .unwrap();
        deployment.into()
    }

    fn pods(seen: i64, updated: i32, ready: i32) -> Value {
        json!({
            "observedGeneration": seen, "updatedNumberScheduled": updated, "numberReady": ready,
            "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0,
        })
    }

    fn replicas(seen: i64, all: i32, updated: i32, ready: i32) -> Value {
        json!({
            "observedGeneration": seen, "replicas": all, "updatedReplicas": updated,
            "readyReplicas": ready,
        })
    }

    #[test]
    fn a_workload_with_fewer_pods_than_are_wanted_is_told_of_and_so_is_none() {
        let some = [
            set("RollingUpdate", pods(2, 3, 3)),
            set("RollingUpdate", pods(2, 3, 2)),
            deployment(2, replicas(2, 2, 2, 2)),
            deployment(0, replicas(2, 0, 0, 0)),
            deployment(2, json!({"observedGeneration": 2})),
        ];
        let told = [
            "DaemonSet nodes: 2 of 3 pods are ready",
            "Deployment op: none of its pods is wanted",
            "Deployment op: 0 of 2 pods are ready",
        ];
        assert_eq!(lacking(&some, true), told);
        assert_eq!(lacking(&[], true).len(), 1);
    }

    #[test]
    fn a_rollout_that_is_stuck_or_not_begun_is_told_of_though_all_earlier_pods_are_ready() {
        let some = [
            deployment(2, replicas(2, 3, 1, 2)),
            deployment(1, replicas(2, 2, 1, 1)),
            deployment(2, replicas(1, 2, 2, 2)),
            set("RollingUpdate", pods(2, 1, 3)),
            set("RollingUpdate", pods(1, 3, 3)),
            set("OnDelete", pods(2, 1, 3)),
        ];
        let told = [
            "Deployment op: 2 of its pods are not of the newest revision",
            "Deployment op: 1 of its pods are not of the newest revision",
            "Deployment op: its newest spec is not acted on yet",
            "DaemonSet nodes: 2 of its pods are not of the newest revision",
            "DaemonSet nodes: its newest spec is not acted on yet",
        ];
        assert_eq!(lacking(&some, true), told);
    }

    #[test]
    fn before_there_is_a_pool_the_pods_of_nodes_need_not_be_ready_but_there_and_new() {
        let unready = [
            set("RollingUpdate", pods(2, 3, 0)),
            deployment(2, replicas(2, 2, 2, 1)),
        ];
        let told = ["Deployment op: 1 of 2 pods are ready"];
        assert_eq!(lacking(&unready, false), told);
        let none_made = [set("RollingUpdate", pods(2, 0, 0))];
        let told = ["DaemonSet nodes: 3 of its pods are not of the newest revision"];
        assert_eq!(lacking(&none_made, false), told);
    }
}
