//! The CSI driver process: flags, its socket, its services.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use csi_driver::{Calls, Cluster, Controller, DRIVER, Endpoint, Node, NodeConfig, Services, serve};
use prometheus::Registry;
use std::future::IntoFuture;
use strand_process::{Health, LogArgs, Rings, confine, connect, start, stopped};
use tokio::net::TcpListener;

/// Strand's CSI driver: volumes from the pool for pods, and their doors to context memory.
#[derive(Parser, Debug)]
#[command(name = "csi-driver", version)]
struct Args {
    /// What this process does: the cluster's part, a node's part, or both
    #[arg(long, env = "STRAND_CSI_MODE", value_enum)]
    mode: Mode,
    /// Where the sidecars or the kubelet reach it: unix:///path
    #[arg(long, env = "CSI_ENDPOINT")]
    endpoint: Endpoint,
    /// Name of this node, as its Node object has it; a node's part needs it
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// Unix socket of this node's agent
    #[arg(
        long,
        env = "STRAND_AGENT_SOCKET",
        default_value = "/run/strand/agent.sock"
    )]
    agent_socket: PathBuf,
    /// Directory of pods' doors to context memory, on tmpfs; the agent has to see it under the same path
    #[arg(long, env = "STRAND_DOORS_DIR", default_value = "/run/strand/doors")]
    doors_dir: PathBuf,
    /// The MemoryPool whose volumes this node attaches; left out: the only one, or the one that has drives on this node
    #[arg(long, env = "STRAND_FABRIC", value_name = "POOL")]
    fabric: Option<String>,
    /// How many volumes this node can have attached; for the cluster's part: any node that has not told it in its CSINode
    #[arg(long, env = "STRAND_MAX_VOLUMES", default_value_t = 256, value_parser = clap::value_parser!(i64).range(1..=65_536))]
    max_volumes: i64,
    /// Kubeconfig of the cluster; left out: $KUBECONFIG, or the service account of the pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, env = "STRAND_LISTEN", default_value = "0.0.0.0:9467")]
    listen: SocketAddr,
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Beside the sidecars: volumes and snapshots as objects
    Controller,
    /// On every node: mounts
    Node,
    /// Both in one process
    All,
}

fn main() -> ExitCode {
    let args = Args::parse();
    start(args.logs.clone(), run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    confine(Rings::Refused);
    let registry = Registry::new();
    let calls = Calls::new(&registry).context("metrics cannot be made")?;
    // A node that is told its pool needs no cluster.
    let cluster = match (args.mode, &args.fabric) {
        (Mode::Node, Some(_)) => None,
        _ => Some(Cluster::new(connect(args.kubeconfig.as_deref()).await?)),
    };
    let controller = match args.mode {
        Mode::Node => None,
        Mode::Controller | Mode::All => cluster
            .clone()
            .map(|cluster| Controller::new(cluster, calls.clone(), args.max_volumes)),
    };
    let node = match (args.mode, args.node_name) {
        (Mode::Controller, _) => None,
        (_, None) => bail!("a node's part needs --node-name"),
        (_, Some(node_name)) => {
            let config = NodeConfig {
                node_name,
                agent_socket: args.agent_socket,
                doors: args.doors_dir,
                fabric: args.fabric,
                cluster,
                max_volumes: args.max_volumes,
            };
            Some(Node::new(config, calls))
        }
    };

    let health = Health::waiting_for("its socket");
    let router = strand_process::router(registry, health.clone());
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; give another address with --listen",
            args.listen
        )
    })?;
    tracing::info!(driver = DRIVER, mode = ?args.mode, listen = %args.listen, "CSI driver runs");
    health.ready();
    let stop = async {
        if let Err(error) = stopped().await {
            tracing::error!(%error, "signals cannot be handled");
        }
    };
    let services = Services { controller, node };
    tokio::select! {
        served = serve(&args.endpoint, services, stop) => served.map_err(Into::into),
        served = axum::serve(listener, router).into_future() => served.context("serving HTTP failed"),
    }
}
