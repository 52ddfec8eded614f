//! The node agent process: flags, its lock, its sockets, the agent.

use std::fs::{self, File};
use std::future::IntoFuture;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use node_agent::context::{ContextConfig, Prefill};
use node_agent::peer_key::PeerKey;
use node_agent::volumes::{FabricConfig, VolumesConfig};
use node_agent::{Agent, AgentConfig, http};
use strand_arrays::Host;
use strand_drives::{HostConfig, KernelHost, Roots};
use strand_process::{LogArgs, Rings, confine, connect, start_on, stopped};
use tokio::net::{TcpListener, UnixListener, lookup_host};
use tokio::sync::watch;

/// Strand's agent on a node: finds its drives, judges them, carves those that a pool takes, serves
/// their context memory, and tells the Kubernetes API.
#[derive(Parser, Debug)]
#[command(name = "node-agent", version)]
struct Args {
    /// Name of this node, as its Node object has it
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// Kubeconfig of the cluster; left out: $KUBECONFIG, or the service account of the pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Directory in which pool maps are kept between runs; one agent at a time may use it
    #[arg(long, env = "STRAND_STATE_DIR", default_value = "/var/lib/strand")]
    state_dir: PathBuf,
    /// For development: a plain file or loop device that stands for a drive; can be given more than once. With stand-ins, the
    /// machine's own NVMe drives are not looked at
    #[arg(
        long,
        env = "STRAND_STAND_IN",
        value_delimiter = ',',
        value_name = "PATH"
    )]
    stand_in: Vec<PathBuf>,
    /// For development: a directory whose *.img files stand for drives
    #[arg(long, env = "STRAND_STAND_IN_DIR", value_name = "DIR")]
    stand_in_dir: Option<PathBuf>,
    /// Where the machine's sysfs is mounted
    #[arg(long, env = "STRAND_SYSFS_ROOT", default_value = "/sys")]
    sysfs_root: PathBuf,
    /// Seconds between two looks at the drives when nothing reports a change
    #[arg(long, env = "STRAND_RESCAN_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    rescan_seconds: u64,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, env = "STRAND_LISTEN", default_value = "0.0.0.0:9465")]
    listen: SocketAddr,
    /// Unix socket of the same, and of /drives (JSON)
    #[arg(long, env = "STRAND_SOCKET", default_value = "/run/strand/agent.sock")]
    socket: PathBuf,
    /// host:port at which this node serves context memory to its peers, as they reach it
    #[arg(long, env = "STRAND_PEER_ADDRESS", value_name = "HOST:PORT")]
    peer_address: Option<String>,
    /// Where to listen for peers
    #[arg(long, env = "STRAND_PEER_LISTEN", default_value = "0.0.0.0:9466")]
    peer_listen: SocketAddr,
    /// File with the key by which the agents of a cluster know each other: 64 hexadecimal digits; left out: this node's drives
    /// serve this node alone
    #[arg(long, env = "STRAND_PEER_KEY_FILE", value_name = "PATH")]
    peer_key_file: Option<PathBuf>,
    /// MiB of memory that all pods of this node share for blocks on their way; each pod gets at most 64 of them at first
    #[arg(
        long,
        env = "STRAND_ARENA_MIB",
        default_value_t = 1024,
        value_name = "MIB"
    )]
    arena_mib: u32,
    /// Bytes of cache that a token takes, over all layers, in the model that this node mostly serves; with
    /// --prefill-tokens-per-second, hits are also counted as seconds of prefill saved
    #[arg(long, env = "STRAND_KV_TOKEN_BYTES", value_name = "BYTES", requires = "prefill_tokens_per_second", value_parser = clap::value_parser!(u64).range(1..))]
    token_bytes: Option<u64>,
    /// Tokens that this node computes in a second of prefill
    #[arg(
        long,
        env = "STRAND_PREFILL_TOKENS_PER_SECOND",
        value_name = "N",
        requires = "token_bytes"
    )]
    prefill_tokens_per_second: Option<std::num::NonZeroU32>,
    /// Directory below which the drives' storage sides are mounted, in a place that pods see; needs root. Left out: this node's
    /// drives hold no volumes
    #[arg(long, env = "STRAND_VOLUMES_DIR", value_name = "DIR")]
    volumes_dir: Option<PathBuf>,
    /// Address of this node at which other nodes reach its volumes' bytes (NVMe/TCP); left out: the host of --peer-address
    #[arg(long, env = "STRAND_FABRIC_ADDRESS", value_name = "HOST")]
    fabric_address: Option<String>,
    /// TCP port of the same
    #[arg(long, env = "STRAND_FABRIC_PORT", default_value_t = 4420)]
    fabric_port: u16,
    #[command(flatten)]
    logs: LogArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    start_on(&mut node_agent::runtime(), args.logs.clone(), run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    confine(Rings::Allowed);
    let _lock = lock(&args.state_dir)?;
    let client = connect(args.kubeconfig.as_deref()).await?;
    let host = Arc::new(KernelHost::start(host_config(&args)));
    let key = args.peer_key_file.as_deref().map(PeerKey::read);
    let fabric = FabricConfig {
        listen: fabric_address(&args).await,
        key: key.transpose()?,
    };
    let config = AgentConfig {
        node_name: args.node_name,
        state_dir: Some(args.state_dir),
        peer_address: args.peer_address,
        context: Some(ContextConfig {
            arena_bytes: (args.arena_mib as usize) << 20,
            peer_listen: args.peer_key_file.is_some().then_some(args.peer_listen),
            peer_key_file: args.peer_key_file,
            prefill: args.token_bytes.zip(args.prefill_tokens_per_second).map(
                |(token_bytes, tokens)| Prefill {
                    token_bytes,
                    tokens_per_second: f64::from(tokens.get()),
                },
            ),
        }),
        volumes: args.volumes_dir.map(|root| VolumesConfig {
            root,
            control_groups: args.sysfs_root.join("fs/cgroup"),
            fabric,
            // Beside the socket, which ends with the next boot too.
            arrays: Host::new(args.socket.parent().unwrap_or_else(|| Path::new("/run"))),
        }),
        rescan: Duration::from_secs(args.rescan_seconds),
    };
    let agent = Agent::new(config, client, host)?;
    let handle = agent.handle();

    let tcp = TcpListener::bind(args.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; give another address with --listen",
            args.listen
        )
    })?;
    let unix = bind(&args.socket)?;
    let (stop, stopping) = watch::channel(false);
    let serving = async {
        let public =
            axum::serve(tcp, http::public(&handle)).with_graceful_shutdown(until(stopping.clone()));
        let local =
            axum::serve(unix, http::local(&handle)).with_graceful_shutdown(until(stopping.clone()));
        let served = tokio::try_join!(public.into_future(), local.into_future());
        served.map(|_| ()).context("serving HTTP failed")
    };
    tracing::info!(listen = %args.listen, socket = %args.socket.display(), "node agent runs");
    let running = async {
        agent.run(until(stopping.clone())).await;
        Ok(())
    };
    let signalled = async {
        let signal = stopped().await.context("signals cannot be handled");
        // Both receivers live as long as this block.
        let _ = stop.send(true);
        signal
    };
    tokio::try_join!(running, serving, signalled)?;
    // The socket is ours while the lock is.
    let _ = fs::remove_file(&args.socket);
    Ok(())
}

/// Where other nodes reach this one's legs. The kernel listens at an address: a name is looked up once.
async fn fabric_address(args: &Args) -> Option<SocketAddr> {
    let peer = args.peer_address.as_deref();
    let host = peer.and_then(|peer| Some(peer.rsplit_once(':')?.0));
    let host = args.fabric_address.as_deref().or(host)?;
    let host = host.trim_matches(['[', ']']);
    match lookup_host((host, args.fabric_port)).await {
        Ok(mut found) => found.next(),
        Err(error) => {
            tracing::warn!(host, %error, "no address has this name: other nodes do not reach this one's volumes");
            None
        }
    }
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn host_config(args: &Args) -> HostConfig {
    let stand_ins: Vec<PathBuf> = args
        .stand_in
        .iter()
        .chain(&args.stand_in_dir)
        .cloned()
        .collect();
    let config = match stand_ins.is_empty() {
        true => HostConfig::nvme(),
        false => HostConfig::stand_ins(stand_ins),
    };
    HostConfig {
        roots: Roots {
            sys: args.sysfs_root.clone(),
            ..Roots::default()
        },
        ..config
    }
}

/// Two agents on the same drives would undo each other's work: the state directory belongs to one process.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(state_dir).with_context(|| {
        format!(
            "cannot make {}; give another directory with --state-dir",
            state_dir.display()
        )
    })?;
    let path = state_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another node agent uses {}; stop it, or give another directory with --state-dir",
            state_dir.display()
        ),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let words = || {
        format!(
            "cannot listen on {}; give another path with --socket",
            path.display()
        )
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(words)?;
    }
    // What an agent that was killed left: the lock says that it is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(words),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(words)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(words)?;
    Ok(listener)
}
