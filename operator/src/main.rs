//! The operator process: flags, lease, watches, the loop.

use anyhow::Context;
use clap::Parser;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use operator::{
    lease,
    metrics::Metrics,
    observe::Observed,
    run::Operator,
    volumes::{VolumeMetrics, Volumes},
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};
use strand_process::{Health, LogArgs, router, stopped};

/// Strand's operator: decides which drives pools take and how they are carved, publishes the pool maps, and places volumes.
#[derive(Parser, Debug)]
#[command(name = "operator", version)]
struct Args {
    /// Kubeconfig of the cluster; left out: $KUBECONFIG, or the service account of the pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the lease by which one of several operators leads
    #[arg(long, env = "STRAND_NAMESPACE", default_value = "strand-system")]
    namespace: String,
    /// Lead only while holding the lease; false for a single operator that is sure to be alone
    #[arg(long, env = "STRAND_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, env = "STRAND_LISTEN", default_value = "0.0.0.0:9464")]
    listen: SocketAddr,
    #[command(flatten)]
    logs: LogArgs,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(message) = args.logs.init() {
        eprintln!("{message}");
        return ExitCode::from(2);
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let client = connect(args.kubeconfig.as_deref()).await?;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry)?;
    let volume_metrics = VolumeMetrics::register(&registry)?;
    let health = Health::waiting_for("the first look at all objects");
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {}; give another address with --listen",
                args.listen
            )
        })?;
    let routes = router(registry, health.clone());
    let serving = async {
        axum::serve(listener, routes)
            .await
            .context("serving /metrics failed")
    };

    let (observed, watches) = Observed::watch(&client);
    // A standby keeps its copies warm, and is ready to lead.
    let watches = tokio::spawn(watches);
    let mut candidate = lease::Candidate::new(client.clone(), &args.namespace, identity());
    let leading = async {
        observed.complete().await?;
        health.ready();
        if args.leader_elect {
            tracing::info!(namespace = %args.namespace, "waiting for the lease");
            candidate.acquire().await;
        }
        metrics.leads();
        tracing::info!("leading");
        let operator = Operator::new(client.clone(), metrics.clone());
        let volumes = Volumes::new(client.clone(), volume_metrics);
        tokio::select! {
            () = operator.run(&observed) => Ok(()),
            () = volumes.run(&observed) => Ok(()),
            lost = candidate.keep(), if args.leader_elect => Err(anyhow::Error::new(lost)),
        }
    };
    let result = tokio::select! {
        result = leading => result,
        result = serving => result,
        _ = watches => Err(anyhow::anyhow!("the watches ended")),
        result = stopped() => result.context("signals cannot be handled"),
    };
    if result.is_ok() && args.leader_elect {
        candidate.release().await;
    }
    result
}

async fn connect(kubeconfig: Option<&std::path::Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig {} names no usable cluster", path.display()))?
        }
        None => Config::infer().await.context(
            "no cluster found; give --kubeconfig, or run in a pod with a service account",
        )?,
    };
    Client::try_from(config).context("no client can be made for the cluster")
}

/// Who holds the lease: the pod's name where there is one, and what tells two processes apart.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".into());
    format!("{host}_{}", uuid::Uuid::new_v4())
}
