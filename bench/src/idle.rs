//! What processes cost while they have nothing to do.

use crate::{cluster::Cluster, process::Measured, report::Row};
use serde::Serialize;
use std::{
    fmt, fs,
    time::{Duration, Instant},
};

/// Size of each stand-in drive, sparse.
const DRIVE_BYTES: u64 = 1 << 30;

/// Figures of idle processes.
#[derive(Debug, Serialize)]
pub struct Result {
    agent_cpu_percent: f64,
    agent_bytes: u64,
    agent_peak_bytes: u64,
    operator_cpu_percent: f64,
    operator_bytes: u64,
    rows: Vec<Row>,
}

/// Brings up one node with `drives` file drives, waits until it is Ready, then watches for `seconds`.
pub async fn run(drives: usize, seconds: u64) -> anyhow::Result<Result> {
    println!("idle: one node x {drives} file drives, watched for {seconds} s …");
    let cluster = Cluster::start(1).await?;
    let dir = cluster.dir.path();
    let images = dir.join("drives");
    fs::create_dir(&images)?;
    for i in 0..drives {
        fs::File::create(images.join(format!("d{i}.img")))?.set_len(DRIVE_BYTES)?;
    }
    let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
    let operator = Measured::start(
        "operator",
        [
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            "default",
            "--listen",
            "127.0.0.1:0",
        ],
        dir.join("operator.log"),
    )?;
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let agent = Measured::start(
        "node-agent",
        [
            "--kubeconfig",
            &kubeconfig,
            "--node-name",
            &crate::cluster::node_name(0),
            "--state-dir",
            &path("state"),
            "--stand-in-dir",
            &path("drives"),
            "--listen",
            "127.0.0.1:0",
            "--socket",
            &path("agent.sock"),
            "--peer-address",
            "127.0.0.1:7420",
        ],
        dir.join("agent.log"),
    )?;
    cluster.pool("60%").await?;
    cluster
        .until_ready(drives, Duration::from_secs(120))
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;

    let (agent_cpu, operator_cpu, since) = (
        agent.process().cpu()?,
        operator.process().cpu()?,
        Instant::now(),
    );
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let percent = |used: Duration| used.as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;
    let agent_cpu_percent = percent(agent.process().cpu()? - agent_cpu);
    let operator_cpu_percent = percent(operator.process().cpu()? - operator_cpu);
    let (agent_bytes, agent_peak_bytes, operator_bytes) = (
        agent.process().resident()?,
        agent.process().peak()?,
        operator.process().resident()?,
    );
    agent.stop().await?;
    operator.stop().await?;
    cluster.server.shutdown().await;

    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let rows = vec![
        Row::goal(
            "idle agent, of a core",
            format!("{agent_cpu_percent:.2} %"),
            "< 1 %",
            agent_cpu_percent < 1.0,
        ),
        Row::goal(
            "idle agent, resident",
            mib(agent_bytes),
            "< 32 MiB",
            agent_bytes < 32 << 20,
        ),
        Row::plain(
            "agent, peak resident (judging, carving)",
            mib(agent_peak_bytes),
        ),
        Row::plain(
            "idle operator, of a core",
            format!("{operator_cpu_percent:.2} %"),
        ),
        Row::plain("idle operator, resident", mib(operator_bytes)),
    ];
    Ok(Result {
        agent_cpu_percent,
        agent_bytes,
        agent_peak_bytes,
        operator_cpu_percent,
        operator_bytes,
        rows,
    })
}

impl fmt::Display for Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "idle processes (one node, file drives, embedded API server)"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
