//! The operator process: flags, lease, watches, the loop.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use futures::{FutureExt, future::BoxFuture};
use kube::Client;
use operator::{
    lease,
    metrics::Metrics,
    observe::Observed,
    peer_key,
    run::Operator,
    volumes::{VolumeMetrics, Volumes},
    webhook::{self, HookMetrics, Hooks, Keeper, Seen},
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};
use strand_process::{Health, LogArgs, connect, router, start, stopped};

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
    /// Secret, in the operator's namespace, that is given the key by which agents know each other, if it has none; left out: none is
    #[arg(long, env = "STRAND_PEER_KEY_SECRET", value_name = "NAME")]
    peer_key_secret: Option<String>,
    /// Address of the webhooks that the API server asks, over TLS; left out: there are none
    #[arg(long, env = "STRAND_WEBHOOK_LISTEN", value_name = "ADDRESS")]
    webhook_listen: Option<SocketAddr>,
    /// Who makes the webhooks' certificates, in the Secret strand-webhook or strand-webhook-cert-manager of the operator's namespace
    #[arg(
        long,
        env = "STRAND_WEBHOOK_CERTIFICATES",
        value_enum,
        default_value = "operator"
    )]
    webhook_certificates: CertificateSource,
    /// File that says how endpoints are run in pods (YAML: image, imagePullPolicy, port, resources); left out: pods get none
    #[arg(
        long,
        env = "STRAND_INJECTION_CONFIG",
        value_name = "FILE",
        requires = "webhook_listen"
    )]
    injection_config: Option<PathBuf>,
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CertificateSource {
    /// This process
    Operator,
    /// cert-manager
    CertManager,
}

/// Name of the webhooks' Service, and of the Secret with its certificate where the operator makes it.
const WEBHOOK: &str = "strand-webhook";
/// The Secret that cert-manager fills.
const GIVEN: &str = "strand-webhook-cert-manager";

fn main() -> ExitCode {
    let args = Args::parse();
    start(args.logs.clone(), run(args))
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
    let routes = router(registry.clone(), health.clone());
    let serving = async {
        axum::serve(listener, routes)
            .await
            .context("serving /metrics failed")
    };

    let (observed, watches) = Observed::watch(&client);
    // A standby keeps its copies warm, and is ready to lead.
    let watches = tokio::spawn(watches);
    let hooks = Webhook::start(&args, &client, &observed, &registry).await?;
    let keys = async {
        if let Some(secret) = &args.peer_key_secret {
            peer_key::ensure(client.clone(), &args.namespace, secret).await;
        }
        std::future::pending::<()>().await
    };
    let mut candidate = lease::Candidate::new(client.clone(), &args.namespace, identity());
    let leading = async {
        observed.complete().await?;
        hooks.ready.await?;
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
        result = hooks.serving => result,
        () = keys => Ok(()),
        result = stopped() => result.context("signals cannot be handled"),
    };
    if result.is_ok() && args.leader_elect {
        candidate.release().await;
    }
    result
}

/// The webhooks, under way.
struct Webhook {
    /// Resolves once questions can be answered.
    ready: BoxFuture<'static, anyhow::Result<()>>,
    /// Ends with a fault alone.
    serving: BoxFuture<'static, anyhow::Result<()>>,
}

impl Webhook {
    async fn start(
        args: &Args,
        client: &Client,
        observed: &Observed,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let Some(listen) = args.webhook_listen else {
            return Ok(Self {
                ready: std::future::ready(Ok(())).boxed(),
                serving: std::future::pending().boxed(),
            });
        };
        let injection = match &args.injection_config {
            Some(path) => Some(injection(path)?),
            None => None,
        };
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| {
                format!("cannot listen on {listen}; give another address with --webhook-listen")
            })?;
        // A Secret each: cert-manager leaves its own behind, which would be in the chart's way.
        let (source, secret) = match args.webhook_certificates {
            CertificateSource::Operator => (webhook::Source::Operator, WEBHOOK),
            CertificateSource::CertManager => (webhook::Source::CertManager, GIVEN),
        };
        let keeper = Keeper::new(client.clone(), &args.namespace, WEBHOOK, secret, source);
        let (seen, watches) = Seen::watch(client, observed);
        let hooks = Hooks::new(seen.clone(), injection, HookMetrics::register(registry)?);
        let mut there = keeper.there();
        let ready = async move {
            seen.complete().await?;
            there
                .wait_for(|there| *there)
                .await
                .context("nobody keeps the certificates")?;
            Ok(())
        };
        let serving = async move {
            let served = webhook::serve(listener, &keeper, hooks);
            tokio::select! {
                served = served => served.map(|never| match never {}).context("TLS cannot be set up"),
                () = keeper.keep() => Ok(()),
                () = watches => Err(anyhow::anyhow!("the webhooks' watches ended")),
            }
        };
        Ok(Self {
            ready: ready.boxed(),
            serving: serving.boxed(),
        })
    }
}

fn injection(path: &std::path::Path) -> anyhow::Result<strand_injection::Config> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--injection-config {} cannot be read", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| {
        format!(
            "--injection-config {} does not say how endpoints are run",
            path.display()
        )
    })
}

/// Who holds the lease: the pod's name where there is one, and what tells two processes apart.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".into());
    format!("{host}_{}", uuid::Uuid::new_v4())
}
