//! The control plane at scale: real operator, real agent loops over simulated drives, the embedded API.

use crate::{
    cluster::{self, Cluster, node_name},
    process::Measured,
    report::Row,
};
use anyhow::{Context, bail};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use node_agent::{Agent, AgentConfig, Handle};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use strand_api::{ByteQuantity, Drive, MapDrive, MapNode, PoolMap, PoolMapSpec};
use strand_drives::SimulatedHost;
use strand_embedded_api::Stats;
use tokio::{sync::watch, task::JoinSet};

/// What design.md allows an object.
const OBJECT_LIMIT: usize = 3 << 19;
/// Simulated drives are watched for this long before they are taken.
const WATCH: Duration = Duration::from_secs(1);
const BOUND: Duration = Duration::from_secs(600);
const DRIVE_BYTES: u64 = 3_840_755_982_336;

/// Figures of one rack.
#[derive(Debug, Serialize)]
pub struct Rack {
    nodes: usize,
    drives: usize,
    ready_seconds: f64,
    /// API writes from empty to Ready and at rest, leases left out, by verb and resource.
    writes: BTreeMap<String, u64>,
    lease_writes: u64,
    writes_a_drive: f64,
    refused_writes: u64,
    writes_a_minute_at_rest: f64,
    lease_writes_a_minute: f64,
    operator_peak_bytes: u64,
    operator_rest_cpu_percent: f64,
    epoch_reached_all_seconds: f64,
    map_bytes: usize,
}

/// Figures of all racks.
#[derive(Debug, Serialize)]
pub struct Result {
    racks: Vec<Rack>,
    map_bytes_at_10000_nodes: usize,
    rows: Vec<Row>,
}

/// Measures racks of these sizes, one after the other.
pub async fn run(sizes: &[usize], drives: usize, rest_seconds: u64) -> anyhow::Result<Result> {
    let mut racks = Vec::new();
    for nodes in sizes {
        println!("control plane: {nodes} nodes x {drives} drives …");
        racks.push(measure(*nodes, drives, Duration::from_secs(rest_seconds)).await?);
    }
    let map_bytes = largest_map(10_000, drives)?;
    let rows = rows(&racks, map_bytes);
    Ok(Result {
        racks,
        map_bytes_at_10000_nodes: map_bytes,
        rows,
    })
}

async fn measure(nodes: usize, per_node: usize, rest: Duration) -> anyhow::Result<Rack> {
    let cluster = Cluster::start(nodes).await?;
    let before = cluster.server.stats();
    let kubeconfig = cluster.kubeconfig();
    let operator = Measured::start(
        "operator",
        [
            "--kubeconfig",
            &kubeconfig.to_string_lossy(),
            "--namespace",
            "default",
            "--listen",
            "127.0.0.1:0",
        ],
        cluster.dir.path().join("operator.log"),
    )?;
    cluster.pool("60%").await?;

    let begun = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let mut agents = JoinSet::new();
    let mut handles = Vec::new();
    for i in 0..nodes {
        let host = SimulatedHost::new(WATCH);
        for d in 0..per_node {
            host.plug(&format!("{}-{d}", node_name(i)), DRIVE_BYTES);
        }
        let mut config = AgentConfig::new(node_name(i));
        config.peer_address = Some(peer_address(i));
        let agent = Agent::new(
            config,
            cluster::client(&cluster.server).await?,
            Arc::new(host),
        )?;
        handles.push(agent.handle());
        let mut stopped = stopped.clone();
        agents.spawn(agent.run(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
    }
    let drives = nodes * per_node;
    cluster.until_ready(drives, BOUND).await?;
    let map = complete_map(&cluster, drives).await?;
    let ready_seconds = begun.elapsed().as_secs_f64();
    until_epoch(&handles, map.spec.epoch).await?;
    let ready = Counted::between(&before, &settled(&cluster).await);

    let (resting, cpu, since) = (
        cluster.server.stats(),
        operator.process().cpu()?,
        Instant::now(),
    );
    tokio::time::sleep(rest).await;
    let at_rest = Counted::between(&resting, &cluster.server.stats());
    let minutes = since.elapsed().as_secs_f64() / 60.0;
    let operator_rest_cpu_percent =
        (operator.process().cpu()? - cpu).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;

    let epoch_reached_all_seconds = next_epoch(&cluster, &handles, map.spec.epoch)
        .await?
        .as_secs_f64();
    let operator_peak_bytes = operator.process().peak()?;
    let _ = stop.send(true);
    while agents.join_next().await.is_some() {}
    operator.stop().await?;
    let map_bytes = serde_json::to_vec(&map)?.len();
    cluster.server.shutdown().await;
    Ok(Rack {
        nodes,
        drives,
        ready_seconds,
        writes_a_drive: ready.ours() as f64 / drives as f64,
        writes: ready.accepted,
        lease_writes: ready.leases,
        refused_writes: ready.refused,
        writes_a_minute_at_rest: at_rest.ours() as f64 / minutes,
        lease_writes_a_minute: at_rest.leases as f64 / minutes,
        operator_peak_bytes,
        operator_rest_cpu_percent,
        epoch_reached_all_seconds,
        map_bytes,
    })
}

/// Writes between two counts of the server.
#[derive(Default)]
struct Counted {
    accepted: BTreeMap<String, u64>,
    leases: u64,
    refused: u64,
}

impl Counted {
    fn between(before: &Stats, after: &Stats) -> Self {
        let mut counted = Self::default();
        for (request, count) in &after.requests {
            let new = count - before.requests.get(request).copied().unwrap_or(0);
            if new == 0 || ["get", "list", "watch", "other"].contains(&request.verb) {
                continue;
            }
            if request.resource.starts_with("leases") {
                counted.leases += new;
            } else if request.code < 300 {
                *counted
                    .accepted
                    .entry(format!("{} {}", request.verb, request.resource))
                    .or_default() += new;
            } else {
                counted.refused += new;
            }
        }
        counted
    }

    /// All of them, refused ones too, but for the operator's lease.
    fn ours(&self) -> u64 {
        self.accepted.values().sum::<u64>() + self.refused
    }
}

/// The server's counts once nothing was written for two seconds.
async fn settled(cluster: &Cluster) -> Stats {
    loop {
        let before = cluster.server.stats();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = cluster.server.stats();
        if Counted::between(&before, &after).ours() == 0 {
            return after;
        }
    }
}

/// Waits until the map has all drives.
async fn complete_map(cluster: &Cluster, drives: usize) -> anyhow::Result<PoolMap> {
    let maps: Api<PoolMap> = Api::all(cluster.client.clone());
    let begun = Instant::now();
    loop {
        if let Some(map) = maps.get_opt("default").await? {
            let listed: usize = map.spec.nodes.iter().map(|n| n.drives.len()).sum();
            if listed == drives {
                return Ok(map);
            }
        }
        if begun.elapsed() > BOUND {
            bail!("the map was not complete after {BOUND:?}");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Cordons a drive, and tells how long after the publishing of the next epoch the last agent had it.
async fn next_epoch(cluster: &Cluster, handles: &[Handle], epoch: i64) -> anyhow::Result<Duration> {
    let drives: Api<Drive> = Api::all(cluster.client.clone());
    let name = drives
        .list(&kube::api::ListParams::default().limit(1))
        .await?
        .items
        .into_iter()
        .next();
    let name = name
        .and_then(|d| d.metadata.name)
        .context("there are no drives")?;
    drives
        .patch(
            &name,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"cordon": true}})),
        )
        .await?;
    let maps: Api<PoolMap> = Api::all(cluster.client.clone());
    while maps.get("default").await?.spec.epoch == epoch {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let published = Instant::now();
    until_epoch(handles, epoch + 1).await?;
    Ok(published.elapsed())
}

/// Waits until every agent has that epoch or a later one.
async fn until_epoch(handles: &[Handle], epoch: i64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut behind: Vec<&Handle> = handles.iter().collect();
    while !behind.is_empty() {
        behind.retain(|handle| map_epoch(handle) < Some(epoch));
        if begun.elapsed() > BOUND {
            bail!(
                "{} agents did not get epoch {epoch} in {BOUND:?}",
                behind.len()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The epoch of the map that an agent has, from its metrics.
fn map_epoch(handle: &Handle) -> Option<i64> {
    let families = handle.registry().gather();
    let family = families
        .iter()
        .find(|f| f.name() == "strand_pool_map_epoch")?;
    family
        .get_metric()
        .first()
        .map(|m| m.get_gauge().get_value() as i64)
}

fn peer_address(i: usize) -> String {
    format!(
        "10.{}.{}.{}:7420",
        16 + i / 62_500,
        i / 250 % 250,
        i % 250 + 1
    )
}

/// Size in bytes of the map of a large rack, as the API server stores it.
fn largest_map(nodes: usize, per_node: usize) -> anyhow::Result<usize> {
    let weight = (DRIVE_BYTES * 60 / 100 / (64 << 20)) as u32;
    let nodes = (0..nodes).map(|i| {
        // Keys are random in life: the first half of a drive's id.
        let keys = (0..per_node).map(|d| ((i * per_node + d) as u32).wrapping_mul(2_654_435_761));
        let since = 123_456;
        let drives = keys.map(|key| MapDrive { weight, since, key });
        MapNode {
            // As long as cloud providers' names are.
            node: format!("{}.eu-central-1.compute.internal", node_name(i)),
            at: peer_address(i),
            domain: Some(format!("rack-{:04}", i / 16)),
            drives: drives.collect(),
        }
    });
    let spec = PoolMapSpec {
        epoch: 123_456,
        pool_id: "5b1c1b1e-7d64-4d59-8c80-6c6c0b6ff5a1".into(),
        nodes: nodes.collect(),
    };
    Ok(serde_json::to_vec(&PoolMap::new("default", spec))?.len())
}

fn rows(racks: &[Rack], map_bytes: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for rack in racks {
        let at = |what: &str| {
            format!(
                "{} nodes x {} drives: {what}",
                rack.nodes,
                rack.drives / rack.nodes
            )
        };
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        rows.push(Row::plain(
            at("empty to Ready"),
            format!("{:.1} s", rack.ready_seconds),
        ));
        rows.push(Row::plain(
            at("empty to Ready, a node"),
            format!("{:.1} ms", rack.ready_seconds * 1e3 / rack.nodes as f64),
        ));
        let on_drives: u64 = rack
            .writes
            .iter()
            .filter(|(k, _)| k.contains(" drives."))
            .map(|(_, n)| n)
            .sum();
        let a_drive = on_drives as f64 / rack.drives as f64;
        rows.push(Row::goal(
            at("API writes to a Drive"),
            format!("{a_drive:.3}"),
            "<= 4",
            a_drive <= 4.0,
        ));
        let others = rack.writes.values().sum::<u64>() - on_drives + rack.refused_writes;
        rows.push(Row::plain(
            at("other API writes in all (pool, map, event)"),
            others.to_string(),
        ));
        rows.push(Row::goal(
            at("API writes in all, a drive"),
            format!("{:.4}", rack.writes_a_drive),
            "<= 4",
            rack.writes_a_drive <= 4.0,
        ));
        let figure = format!("{:.1}", rack.writes_a_minute_at_rest);
        rows.push(Row::goal(
            at("writes a minute at rest"),
            figure,
            "0",
            rack.writes_a_minute_at_rest == 0.0,
        ));
        rows.push(Row::plain(
            at("lease renewals a minute"),
            format!("{:.1}", rack.lease_writes_a_minute),
        ));
        let small = rack.operator_peak_bytes < 300 << 20;
        rows.push(Row::goal(
            at("operator, peak memory"),
            mib(rack.operator_peak_bytes),
            "< 300 MiB",
            small,
        ));
        rows.push(Row::plain(
            at("operator at rest, of a core"),
            format!("{:.2} %", rack.operator_rest_cpu_percent),
        ));
        let quick = rack.epoch_reached_all_seconds <= 10.0;
        let figure = format!("{:.2} s", rack.epoch_reached_all_seconds);
        rows.push(Row::goal(
            at("an epoch reaches all agents"),
            figure,
            "<= 10 s",
            quick,
        ));
    }
    let figure = ByteQuantity(map_bytes as u64).rounded();
    rows.push(Row::goal(
        "pool map of 10000 nodes x 8 drives",
        figure,
        "<= 1.5 MiB",
        map_bytes <= OBJECT_LIMIT,
    ));
    rows
}

impl fmt::Display for Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "control plane (real operator, real agent loops, simulated drives, embedded API server)"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for rack in &self.racks {
            writeln!(
                f,
                "  {} nodes, writes from empty to Ready: {:?}",
                rack.nodes, rack.writes
            )?;
        }
        Ok(())
    }
}
