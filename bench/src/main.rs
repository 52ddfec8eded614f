//! Measurements of Strand, printed for people and kept as JSON.
//!
//! `strand-bench` runs all; a command runs one. Processes that are measured (operator, node agent, endpoint) are those
//! beside this binary, built with the same profile.

mod cluster;
mod context;
mod control_plane;
mod idle;
mod process;
mod report;
mod volumes;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use tokio::runtime::Builder;

use context::{ContextArgs, Serve};
use volumes::VolumeArgs;

/// Measures Strand on this machine
#[derive(Parser, Debug)]
#[command(name = "strand-bench")]
struct Arguments {
    /// What to measure; all, if nothing is named
    #[command(subcommand)]
    what: Option<What>,
    /// Directory for the results as JSON
    #[arg(long, default_value = "target/bench", global = true)]
    out: PathBuf,
}

#[derive(Subcommand, Debug)]
enum What {
    /// From an empty cluster to Ready, with simulated agents
    ControlPlane(Racks),
    /// An agent and an operator with nothing to do
    Idle(Rest),
    /// Context memory against the drive, Redis, foyer and files
    ContextMemory(ContextArgs),
    /// Volumes, by CSI calls to a real driver, operator and agent
    Volumes(VolumeArgs),
    /// Serves a store on a device through native doors; commands come by standard input
    #[command(hide = true)]
    ServeDoor(Serve),
    /// Keeps a file a block on a new XFS; commands come by standard input
    #[command(hide = true)]
    ServeFiles {
        /// Block device, whose content is lost
        device: PathBuf,
    },
    /// A pod that asks for all it can get; commands come by standard input
    #[command(hide = true)]
    Hostile {
        /// Its door
        socket: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Racks {
    /// Sizes of the control plane's racks, in nodes
    #[arg(long, value_delimiter = ',', default_values_t = [100, 300, 1000])]
    nodes: Vec<usize>,
    #[command(flatten)]
    rest: Rest,
}

#[derive(Args, Debug)]
struct Rest {
    /// Drives a node
    #[arg(long, default_value_t = 8)]
    drives: usize,
    /// Seconds over which a rack at rest, and an idle process, are watched
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
}

impl Default for Racks {
    fn default() -> Self {
        Self {
            nodes: vec![100, 300, 1000],
            rest: Rest::default(),
        }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            drives: 8,
            rest_seconds: 60,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let Arguments { what, out } = Arguments::parse();
    let mut runtime = match what {
        Some(What::ServeDoor(_)) => node_agent::runtime(),
        _ => {
            // A pod's client is one thread of an inference server.
            let mut runtime = Builder::new_multi_thread();
            runtime.worker_threads(1).enable_all();
            runtime
        }
    };
    let runtime = runtime.build();
    runtime.context("no runtime")?.block_on(run(what, &out))
}

async fn run(what: Option<What>, out: &Path) -> anyhow::Result<()> {
    match what {
        Some(What::ServeDoor(serve)) => return context::node::run(serve).await,
        Some(What::ServeFiles { device }) => return context::serve_files(&device),
        Some(What::Hostile { socket }) => return context::hostile::run(&socket).await,
        _ => {}
    }
    // Whatever was started ends with what is dropped.
    tokio::select! {
        done = measure(what, out) => done,
        signal = strand_process::stopped() => {
            signal.context("signals cannot be handled")?;
            anyhow::bail!("interrupted")
        }
    }
}

async fn measure(what: Option<What>, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let conditions = report::Conditions::of_this_machine()?;
    println!("{conditions}\n");
    let (idle, racks, memory, volumes) = match what {
        Some(What::Idle(rest)) => (Some(rest), None, None, None),
        Some(What::ControlPlane(racks)) => (None, Some(racks), None, None),
        Some(What::ContextMemory(args)) => (None, None, Some(args), None),
        Some(What::Volumes(args)) => (None, None, None, Some(args)),
        _ => (
            Some(Rest::default()),
            Some(Racks::default()),
            Some(ContextArgs::default()),
            Some(VolumeArgs::default()),
        ),
    };
    if let Some(rest) = idle {
        let result = idle::run(rest.drives, rest.rest_seconds).await?;
        println!("{result}");
        report::keep(out, "idle", &conditions, &result)?;
    }
    if let Some(Racks { nodes, rest }) = racks {
        let result = control_plane::run(&nodes, rest.drives, rest.rest_seconds).await?;
        println!("{result}");
        report::keep(out, "control-plane", &conditions, &result)?;
    }
    if let Some(args) = memory {
        context::run(args, out, &conditions).await?;
    }
    if let Some(args) = volumes {
        volumes::run(args, out, &conditions).await?;
    }
    println!("kept as JSON in {}", out.display());
    Ok(())
}
