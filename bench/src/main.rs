//! Measurements of Strand, printed for people and kept as JSON.
//!
//! `strand-bench` runs all; a name runs one. Processes that are measured (operator, node agent) are those
//! beside this binary, built with the same profile.

mod cluster;
mod control_plane;
mod idle;
mod process;
mod report;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Measures Strand on this machine
#[derive(Parser, Debug)]
#[command(name = "strand-bench")]
struct Args {
    /// What to measure; all, if nothing is named
    #[arg(value_enum)]
    what: Vec<What>,
    /// Sizes of the control plane's racks, in nodes
    #[arg(long, value_delimiter = ',', default_values_t = [100, 300, 1000])]
    nodes: Vec<usize>,
    /// Drives a node
    #[arg(long, default_value_t = 8)]
    drives: usize,
    /// Seconds over which a rack at rest, and an idle process, are watched
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
    /// Directory for the results as JSON
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// From an empty cluster to Ready, with simulated agents
    ControlPlane,
    /// An agent and an operator with nothing to do
    Idle,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |what| args.what.is_empty() || args.what.contains(&what);
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let conditions = report::Conditions::of_this_machine()?;
    println!("{conditions}\n");
    if wanted(What::Idle) {
        let result = idle::run(args.drives, args.rest_seconds).await?;
        println!("{result}");
        report::keep(&args.out, "idle", &conditions, &result)?;
    }
    if wanted(What::ControlPlane) {
        let result = control_plane::run(&args.nodes, args.drives, args.rest_seconds).await?;
        println!("{result}");
        report::keep(&args.out, "control-plane", &conditions, &result)?;
    }
    println!("kept as JSON in {}", args.out.display());
    Ok(())
}
