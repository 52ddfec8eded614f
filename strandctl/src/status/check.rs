//! `strandctl status --check`: what is not as it should be, so that a script, or `helm test`, hears of it.

use anyhow::{Result, bail};
use k8s_openapi::{
    api::apps::v1::{DaemonSet, Deployment},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use strand_api::{DriveVerdict, condition, names};

use crate::{
    cluster::{Cluster, Target, in_words},
    standing::{Word, standing},
};

/// Strand's own workloads, as the chart labels them.
const OURS: &str = "app.kubernetes.io/name=strand";

/// A workload, and how many of its pods are ready of those that should be.
#[derive(Debug)]
pub struct Workload {
    name: String,
    ready: i32,
    wanted: i32,
}

/// Fails with everything that is not as it should be.
pub async fn check(target: &Target, cluster: &Cluster, now: Timestamp) -> Result<()> {
    let mut wrong = wrong(cluster, now);
    match target.directory() {
        // A rack on this machine has processes, and no pods.
        Some(_) => {
            let pages = target.agents().await?.pages().await?;
            wrong.extend(pages.into_iter().filter_map(|(node, page)| {
                let error = page.err()?;
                Some(format!(
                    "the agent of node {node} does not answer: {error:#}"
                ))
            }));
        }
        None => wrong.extend(unready(&workloads(&target.client().await?).await?)),
    }
    if !wrong.is_empty() {
        bail!("not as it should be:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// What the API's objects tell of.
fn wrong(cluster: &Cluster, now: Timestamp) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Err(nobody) = super::leader(cluster.operator.as_ref(), now) {
        wrong.push(format!("operator: {nobody}"));
    }
    for pool in &cluster.pools {
        let conditions = pool.status.as_ref().map(|status| &status.conditions[..]);
        let ready = condition::find(conditions.unwrap_or_default(), names::READY);
        match ready {
            Some(ready) if ready.status == "True" => {}
            Some(ready) => wrong.push(format!(
                "pool {} is not ready: {}",
                pool.name_any(),
                ready.message
            )),
            None => wrong.push(format!(
                "pool {} was not seen by the operator yet",
                pool.name_any()
            )),
        }
    }
    for drive in &cluster.drives {
        let pooled = drive.status.as_ref().and_then(|status| status.verdict);
        let standing = standing(drive);
        if pooled == Some(DriveVerdict::Pooled) && standing.word == Word::Out {
            wrong.push(format!(
                "drive {} of node {}: {}",
                drive.name_any(),
                drive.spec.node_name,
                standing.sentence
            ));
        }
    }
    wrong
}

fn unready(workloads: &[Workload]) -> Vec<String> {
    if workloads.is_empty() {
        return vec![format!(
            "no workload with the label {OURS} is there: nothing of Strand runs in this cluster"
        )];
    }
    let lacking = workloads.iter().filter(|w| w.ready < w.wanted.max(1));
    let told = |w: &Workload| match w.wanted {
        0 => format!("{}: none of its pods is wanted", w.name),
        wanted => format!("{}: {} of {wanted} pods are ready", w.name, w.ready),
    };
    lacking.map(told).collect()
}

async fn workloads(client: &Client) -> Result<Vec<Workload>> {
    let ours = ListParams::default().labels(OURS);
    let (sets, deployments): (Api<DaemonSet>, Api<Deployment>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let sets = sets.list(&ours).await.map_err(in_words)?.items;
    let deployments = deployments.list(&ours).await.map_err(in_words)?.items;
    let sets = sets.into_iter().map(|set| {
        let name = format!("DaemonSet {}", set.name_any());
        let status = set.status.unwrap_or_default();
        Workload {
            name,
            ready: status.number_ready,
            wanted: status.desired_number_scheduled,
        }
    });
    let deployments = deployments.into_iter().map(|deployment| {
        let name = format!("Deployment {}", deployment.name_any());
        let wanted = deployment.spec.and_then(|spec| spec.replicas);
        Workload {
            name,
            ready: (deployment.status.and_then(|status| status.ready_replicas)).unwrap_or(0),
            wanted: wanted.unwrap_or(1),
        }
    });
    Ok(sets.chain(deployments).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::Lease;
    use serde_json::{Value, from_value, json};

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        from_value(value).unwrap()
    }

    fn cluster(renewed: &str, pool_ready: &str, phase: &str) -> Cluster {
        let lease: Lease = of(json!({
            "metadata": {"name": "strand-operator"},
            "spec": {"holderIdentity": "op", "leaseDurationSeconds": 15, "renewTime": renewed},
        }));
        Cluster {
            pools: vec![of(json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "rack"},
                "spec": {"drives": {"models": ["*"]}, "carve": {"contextMemory": "60%"}},
                "status": {"conditions": [{
                    "type": "Ready", "status": pool_ready, "reason": "R", "message": "why",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]},
            }))],
            drives: vec![of(json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "Drive", "metadata": {"name": "n1-0"},
                "spec": {"nodeName": "n1", "pool": "rack"},
                "status": {"verdict": "Pooled", "phase": phase},
            }))],
            nodes: Vec::new(),
            operator: Some(lease),
        }
    }

    #[test]
    fn what_is_sound_is_not_told_of_and_all_else_is() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let sound = cluster("2026-01-01T00:00:05.000000Z", "True", "Ready");
        assert_eq!(wrong(&sound, now), Vec::<String>::new());
        let all = wrong(
            &cluster("2025-12-31T23:59:00.000000Z", "False", "Missing"),
            now,
        );
        let begins = [
            "operator: none leads",
            "pool rack is not ready: why",
            "drive n1-0 of node n1: ",
        ];
        assert_eq!(all.len(), begins.len(), "{all:?}");
        for (said, begin) in all.iter().zip(begins) {
            assert!(said.starts_with(begin), "{said}");
        }
    }

    #[test]
    fn a_workload_with_fewer_pods_than_are_wanted_is_told_of_and_so_is_none() {
        let workload = |name: &str, ready, wanted| Workload {
            name: name.into(),
            ready,
            wanted,
        };
        let some = [
            workload("DaemonSet a", 3, 3),
            workload("DaemonSet b", 2, 3),
            workload("Deployment c", 0, 0),
        ];
        assert_eq!(
            unready(&some),
            [
                "DaemonSet b: 2 of 3 pods are ready",
                "Deployment c: none of its pods is wanted"
            ]
        );
        assert_eq!(unready(&[]).len(), 1);
    }
}
