//! The endpoint process: flags, listeners, `/metrics`.

use std::future::IntoFuture;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use kv_endpoint::{AgentUp, Config, Endpoint, Metrics, Misses, PrefillSaved, serve};
use prometheus::Registry;
use strand_kv_client::{Client, Options};
use strand_process::{Health, LogArgs, router, start, stopped};
use tokio::net::TcpListener;

/// Strand's KV endpoint of a pod: serves Redis clients (RESP2 and RESP3) on the pod's loopback from context memory, through the
/// node agent's native door. Outlives restarts of the agent: meanwhile reads miss, and writes are answered with OK and dropped.
#[derive(Parser, Debug)]
#[command(name = "kv-endpoint", version)]
struct Args {
    /// Socket of the agent's native door, in the directory that the pod's inline volume mounts; it may appear later
    #[arg(
        long,
        env = "STRAND_KV_DOOR",
        default_value = "/run/strand/kv/door.sock",
        value_name = "PATH"
    )]
    door: PathBuf,
    /// Address for clients; one outside of loopback needs --password-file
    #[arg(
        long,
        env = "STRAND_RESP",
        default_value = "127.0.0.1:6379",
        value_name = "ADDRESS"
    )]
    resp: SocketAddrV4,
    /// How a GET that misses is answered at --resp. padded: clients that look like LMCache's native one (resp://), which hangs
    /// on nil, get an error line of the length they wait for, all others nil. nil: always nil
    #[arg(long, env = "STRAND_RESP_MISSES", default_value = "padded", value_enum)]
    misses: MissesFlag,
    /// A second address for clients, which answers misses in the other way
    #[arg(long, env = "STRAND_RESP_OTHER", value_name = "ADDRESS")]
    resp_other: Option<SocketAddrV4>,
    /// Bytes in one chunk of LMCache's native client, for misses of keys whose like has been neither written nor read here yet
    #[arg(long, env = "STRAND_RESP_CHUNK_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=536_870_912))]
    chunk_bytes: Option<u64>,
    /// Bytes of cache that a token takes, over all layers and the ranks that this endpoint serves; with
    /// --prefill-tokens-per-second, hits are also counted as seconds of prefill saved
    #[arg(long, env = "STRAND_KV_TOKEN_BYTES", value_name = "BYTES", requires = "prefill_tokens_per_second", value_parser = clap::value_parser!(u64).range(1..))]
    token_bytes: Option<u64>,
    /// Tokens that the model computes in a second of prefill
    #[arg(
        long,
        env = "STRAND_PREFILL_TOKENS_PER_SECOND",
        value_name = "N",
        requires = "token_bytes"
    )]
    prefill_tokens_per_second: Option<std::num::NonZeroU32>,
    /// File with the password that clients must give with AUTH (user default); left out: none
    #[arg(long, env = "STRAND_RESP_PASSWORD_FILE", value_name = "PATH")]
    password_file: Option<PathBuf>,
    /// MiB of arena to ask of the agent for values on their way to clients; 0: as many as it gives
    #[arg(
        long,
        env = "STRAND_KV_GET_MIB",
        default_value_t = 0,
        value_name = "MIB"
    )]
    get_mib: u32,
    /// MiB of arena to ask of the agent for values on their way from clients; 0: as many as it gives
    #[arg(
        long,
        env = "STRAND_KV_PUT_MIB",
        default_value_t = 0,
        value_name = "MIB"
    )]
    put_mib: u32,
    /// Seconds that a command may wait, for room in the arena and for the agent, before it is a miss or a dropped write
    #[arg(long, env = "STRAND_KV_PATIENCE_SECONDS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    patience_seconds: u64,
    /// Seconds that a client may rest in the middle of a command or an answer, whose arena others wait for, before its
    /// connection is closed
    #[arg(long, env = "STRAND_RESP_STALL_SECONDS", default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    stall_seconds: u64,
    /// Microseconds to poll for the agent's answer before sleeping, with one request outstanding; costs processor time
    #[arg(long, env = "STRAND_KV_SPIN_MICROSECONDS", default_value_t = 0, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=50))]
    spin_microseconds: u64,
    /// Most connections of clients at once
    #[arg(long, env = "STRAND_RESP_MAX_CONNECTIONS", default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,
    /// Address of /metrics, /healthz and /readyz
    #[arg(
        long,
        env = "STRAND_LISTEN",
        default_value = "0.0.0.0:9467",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MissesFlag {
    Padded,
    Nil,
}

fn main() -> ExitCode {
    let args = Args::parse();
    start(args.logs.clone(), run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config {
        password: password(&args)?,
        chunk_bytes: args.chunk_bytes.map(usize::try_from).transpose()?,
        stall: Duration::from_secs(args.stall_seconds),
        max_connections: args.max_connections as usize,
    };
    let client = Client::new(Options {
        get_bytes: u64::from(args.get_mib) << 20,
        put_bytes: u64::from(args.put_mib) << 20,
        patience: Duration::from_secs(args.patience_seconds),
        spin: Duration::from_micros(args.spin_microseconds),
        name: format!("kv-endpoint {}", args.resp),
        ..Options::new(&args.door)
    });
    let registry = Registry::new();
    registry.register(Box::new(AgentUp::new(client.clone())?))?;
    let metrics = Metrics::new(&registry)?;
    if let Some((bytes, tokens)) = args.token_bytes.zip(args.prefill_tokens_per_second) {
        let read = metrics.bytes_read.clone();
        let saved = PrefillSaved::new(read, bytes, f64::from(tokens.get()))?;
        registry.register(Box::new(saved))?;
    }
    let endpoint = Arc::new(Endpoint::new(client, config, metrics));

    let (misses, others) = match args.misses {
        MissesFlag::Padded => (Misses::Padded, Misses::Nil),
        MissesFlag::Nil => (Misses::Nil, Misses::Padded),
    };
    let first = listen(args.resp, "--resp").await?;
    let second = match args.resp_other {
        Some(address) => Some(listen(address, "--resp-other").await?),
        None => None,
    };
    let http = TcpListener::bind(args.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; give another address with --listen",
            args.listen
        )
    })?;
    // Ready without an agent too: the pod must start, and its clients get misses meanwhile.
    let health = Health::waiting_for("its listeners");
    health.ready();
    let resp = first.local_addr()?;
    tracing::info!(%resp, other = ?args.resp_other, listen = %http.local_addr()?, door = %args.door.display(), "endpoint runs");

    let clients = async {
        let first = serve(first, misses, endpoint.clone());
        match second {
            None => first.await,
            Some(second) => {
                tokio::join!(first, serve(second, others, endpoint.clone()));
            }
        }
    };
    tokio::select! {
        () = clients => Ok(()),
        served = axum::serve(http, router(registry, health)).into_future() => served.context("serving HTTP failed"),
        signal = stopped() => signal.context("signals cannot be handled"),
    }
}

fn password(args: &Args) -> anyhow::Result<Option<String>> {
    let Some(path) = &args.password_file else {
        for address in [Some(args.resp), args.resp_other].into_iter().flatten() {
            if !address.ip().is_loopback() {
                bail!(
                    "{address} can be reached from outside of the pod: give a password with --password-file, or an address of 127.0.0.0/8"
                );
            }
        }
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--password-file {} cannot be read", path.display()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!(
            "--password-file {} is empty; write a password into it, or leave the flag out",
            path.display()
        );
    }
    Ok(Some(password.to_owned()))
}

async fn listen(address: SocketAddrV4, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; give another address with {flag}"))
}
