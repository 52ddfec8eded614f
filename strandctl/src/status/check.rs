//! `strandctl status --check`: what is not as it should be, so that a script, or `helm test`, hears of it.

use super::workloads;
use crate::{
    cluster::{Cluster, Target},
    standing::{Word, standing},
};
use anyhow::{Result, bail};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use std::time::Duration;
use strand_api::{Drive, MemoryPool, condition, names};
use tokio::time::{Instant, sleep};

/// What is left out of a look before there is a pool.
pub const WITHOUT_POOL: &str = "Before there is a MemoryPool, pods of nodes need not be ready: their registrar asks for the node's fabric, which \
     a pool names, and restarts until it is told.";
/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// What was seen at about one moment.
pub struct Look {
    /// The API's objects.
    pub cluster: Cluster,
    wrong: Vec<String>,
}

impl Look {
    /// Fails with everything that is not as it should be.
    pub fn verdict(self) -> Result<()> {
        if self.cluster.pools.is_empty() {
            eprintln!("{WITHOUT_POOL}");
        }
        if !self.wrong.is_empty() {
            bail!("not as it should be:\n  {}", self.wrong.join("\n  "));
        }
        Ok(())
    }
}

/// Looks until all is as it should be, or patience ends: a successor of the operator needs up to its Lease's duration, pods and drives
/// begin one after the other, and the test's own permissions may be younger than the API server's knowledge of them.
pub async fn wait(target: &Target, client: &Client, patience: Duration) -> Result<Look> {
    until(patience, AGAIN, async || look(target, client).await).await
}

async fn until(
    patience: Duration,
    again: Duration,
    mut look: impl AsyncFnMut() -> Result<Look>,
) -> Result<Look> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let seen = look().await;
        let why = match &seen {
            Ok(look) => look.wrong.first().cloned(),
            Err(error) => Some(format!("{error:#}")),
        };
        let Some(why) = why.filter(|_| begun.elapsed() < patience) else {
            return seen;
        };
        if !told {
            told = true;
            eprintln!("waiting for {} s at most: {why}", patience.as_secs());
        }
        sleep(again).await;
    }
}

async fn look(target: &Target, client: &Client) -> Result<Look> {
    let cluster = Cluster::read(client).await?;
    let mut wrong = wrong(&cluster, Timestamp::now());
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
        None => {
            let workloads = workloads::read(client).await?;
            wrong.extend(workloads::lacking(&workloads, !cluster.pools.is_empty()));
        }
    }
    Ok(Look { cluster, wrong })
}

/// What the API's objects tell of.
fn wrong(cluster: &Cluster, now: Timestamp) -> Vec<String> {
    let nobody = super::leader(cluster.operator.as_ref(), now).err();
    let operator = nobody.map(|nobody| format!("operator: {nobody}"));
    let pools = cluster.pools.iter().flat_map(of_pool);
    let drives = cluster.drives.iter().filter_map(|drive| {
        let why = idle(drive, cluster)?;
        let (name, node) = (drive.name_any(), &drive.spec.node_name);
        Some(format!("drive {name} of node {node}: {why}"))
    });
    operator.into_iter().chain(pools).chain(drives).collect()
}

/// A pool is ready while any drive serves; that it has lost others, it tells by being degraded.
fn of_pool(pool: &MemoryPool) -> Vec<String> {
    let name = pool.name_any();
    let conditions = pool.status.as_ref().map(|status| &status.conditions[..]);
    let find = |type_| condition::find(conditions.unwrap_or_default(), type_);
    let ready = match find(names::READY) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!("pool {name} is not ready: {}", ready.message)),
        None => Some(format!("pool {name} was not seen by the operator yet")),
    };
    let degraded = find(names::DEGRADED).filter(|degraded| degraded.status == "True");
    let degraded = degraded.map(|d| format!("pool {name} is degraded: {}", d.message));
    ready.into_iter().chain(degraded).collect()
}

/// Why a drive of a pool does not serve. One that is cordoned need not: an administrator wants it so.
fn idle(drive: &Drive, cluster: &Cluster) -> Option<String> {
    let pool = drive.spec.pool.as_ref().filter(|_| !drive.spec.cordon)?;
    let on = |node: &str| node == drive.spec.node_name;
    // Nobody is left to write the drive's phase.
    if !cluster.nodes.iter().any(|node| on(&node.name_any())) {
        return Some(format!(
            "its node is gone, though it belongs to pool {pool}; bring the node back, or create a DriveOperation of type Forget"
        ));
    }
    let standing = standing(drive);
    (standing.word != Word::In).then_some(standing.sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        from_value(value).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:10Z".parse().unwrap()
    }

    /// Its operator is there and its pool ready, with one drive.
    fn cluster(verdict: &str, phase: &str) -> Cluster {
        Cluster {
            pools: vec![of(json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "rack"},
                "spec": {"drives": {"models": ["*"]}, "carve": {"contextMemory": "60%"}},
                "status": {"conditions": [condition("Ready", "True")]},
            }))],
            drives: vec![of(json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "Drive", "metadata": {"name": "n1-0"},
                "spec": {"nodeName": "n1", "pool": "rack"},
                "status": {"verdict": verdict, "phase": phase},
            }))],
            nodes: vec![of(json!({"metadata": {"name": "n1"}}))],
            operator: Some(of(json!({
                "metadata": {"name": "strand-operator"},
                "spec": {
                    "holderIdentity": "op", "leaseDurationSeconds": 15,
                    "renewTime": "2026-01-01T00:00:05.000000Z",
                },
            }))),
        }
    }

    fn condition(type_: &str, status: &str) -> Value {
        json!({
            "type": type_, "status": status, "reason": "R", "message": "why",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    fn serving() -> Cluster {
        cluster("Pooled", "Ready")
    }

    #[track_caller]
    fn told(cluster: &Cluster, begins: &[&str]) {
        let all = wrong(cluster, now());
        assert_eq!(all.len(), begins.len(), "{all:?}");
        for (said, begin) in all.iter().zip(begins) {
            assert!(said.starts_with(begin), "{said}");
        }
    }

    #[test]
    fn what_is_sound_is_not_told_of_and_all_else_is() {
        told(&serving(), &[]);
        let mut bad = cluster("Pooled", "Missing");
        bad.operator = None;
        bad.pools[0].status = Some(of(json!({"conditions": [condition("Ready", "False")]})));
        let begins = [
            "operator: none leads",
            "pool rack is not ready: why",
            "drive n1-0 of node n1: ",
        ];
        told(&bad, &begins);
    }

    #[test]
    fn a_pool_that_is_ready_and_degraded_is_told_of() {
        let mut cluster = serving();
        let conditions =
            |degraded| json!([condition("Ready", "True"), condition("Degraded", degraded)]);
        let status = |degraded| Some(of(json!({"conditions": conditions(degraded)})));
        cluster.pools[0].status = status("True");
        told(&cluster, &["pool rack is degraded: why"]);
        cluster.pools[0].status = status("False");
        told(&cluster, &[]);
    }

    #[test]
    fn a_pools_drive_that_does_not_serve_is_told_of_whatever_its_verdict() {
        for (verdict, phase, why) in [
            ("Failed", "Rejected", "it is not fit for use"),
            ("InUse", "Rejected", "something uses it"),
            ("Foreign", "Rejected", "it is not provably blank"),
            ("Pooled", "Carving", "it is being carved for pool rack"),
            ("Stranded", "Available", "blank and unused; pool rack is"),
        ] {
            let mut cluster = cluster(verdict, phase);
            told(&cluster, &[&format!("drive n1-0 of node n1: {why}")]);
            cluster.drives[0].spec.cordon = true;
            told(&cluster, &[]);
            cluster.drives[0].spec.cordon = false;
            cluster.drives[0].spec.pool = None;
            told(&cluster, &[]);
        }
    }

    #[test]
    fn a_drive_on_a_node_that_is_gone_is_told_of_though_its_phase_stays() {
        let mut cluster = serving();
        cluster.nodes.clear();
        told(&cluster, &["drive n1-0 of node n1: its node is gone"]);
    }

    /// Looks until the operator leads, which it does at look `leads`; how many looks that took, and the verdict.
    async fn looks(patience: Duration, leads: usize) -> (usize, Result<()>) {
        let mut looks = 0;
        let seen = until(patience, Duration::ZERO, async || {
            looks += 1;
            let mut cluster = serving();
            cluster.operator = cluster.operator.filter(|_| looks >= leads);
            let wrong = wrong(&cluster, now());
            Ok(Look { cluster, wrong })
        });
        let verdict = seen.await.unwrap().verdict();
        (looks, verdict)
    }

    #[tokio::test]
    async fn it_looks_again_until_nothing_is_wrong_or_patience_ends() {
        let minute = Duration::from_secs(60);
        assert!(matches!(looks(minute, 1).await, (1, Ok(()))));
        assert!(matches!(looks(minute, 3).await, (3, Ok(()))));
        let (looks, verdict) = looks(Duration::ZERO, 2).await;
        let said = verdict.unwrap_err().to_string();
        assert!(
            looks == 1 && said.contains("operator: none leads"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_again() {
        let mut answers = vec![Ok(()), Err(anyhow::anyhow!("no leave yet"))];
        let seen = until(Duration::from_secs(60), Duration::ZERO, async || {
            answers.pop().unwrap()?;
            Ok(Look {
                cluster: serving(),
                wrong: Vec::new(),
            })
        });
        assert!(seen.await.is_ok() && answers.is_empty());
    }
}
