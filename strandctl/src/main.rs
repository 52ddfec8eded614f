//! Strand from the command line: a rack on this machine, a look at any cluster, context memory by hand.

mod bench;
mod bundle;
mod cluster;
mod complete;
mod drive;
mod drives;
#[cfg(test)]
mod golden;
mod kv;
mod node;
mod output;
mod preflight;
mod scrape;
mod stand_down;
mod standing;
mod status;
mod text;
mod up;
mod volumes;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Strand turns idle NVMe drives into one pool of storage and context memory.
#[derive(Parser)]
#[command(name = "strandctl", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up a rack on this machine and keep it up until Ctrl-C
    Up(up::UpArgs),
    /// Show pools, nodes, drives and the operator on one screen
    Status(status::StatusArgs),
    /// List drives; with --why, tell why each is in or out and what to do
    Drives(drives::DrivesArgs),
    /// Empty one drive
    Drive(drive::DriveArgs),
    /// Empty a node of work before its machine goes away, and take it back
    Node(node::NodeArgs),
    /// List volumes, take back those that nobody owns, or check that one can be had
    Volumes(volumes::VolumesArgs),
    /// Tell whether this machine can be a node, before anything is installed
    Preflight(preflight::PreflightArgs),
    /// Read and write blocks of context memory by hand, or tell who uses it
    Kv(kv::KvArgs),
    /// Measure context memory with traces of requests
    Bench(bench::BenchArgs),
    /// Collect objects, logs, metrics and versions into one file, without secrets
    SupportBundle(bundle::BundleArgs),
    /// Stop the operator and free what it holds, as `helm uninstall` does first
    StandDown(stand_down::StandDownArgs),
    /// Print what a shell needs to complete this command's words
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().map(PathBuf::from);
    if own.is_some_and(|path| path.file_name() == Some(complete::NAME.as_ref())) {
        let words: Vec<_> = args
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut command = Cli::command();
        command.build();
        print!("{}", complete::answer(&command, &words));
        return ExitCode::SUCCESS;
    }
    // 1 says something of its own with `kv` and `bench`.
    let (result, failed) = match Cli::parse().command {
        Command::Up(args) => (done(up::run(args).await), ExitCode::FAILURE),
        Command::Status(args) => (done(status::run(args).await), ExitCode::FAILURE),
        Command::Drives(args) => (done(drives::run(args).await), ExitCode::FAILURE),
        Command::Drive(args) => (done(drive::run(args).await), ExitCode::FAILURE),
        Command::Node(args) => (done(node::run(args).await), ExitCode::FAILURE),
        Command::Volumes(args) => (done(volumes::run(args).await), ExitCode::FAILURE),
        Command::Preflight(args) => (preflight::run(args).await, ExitCode::FAILURE),
        Command::Kv(args) => (kv::run(args).await, ExitCode::from(2)),
        Command::StandDown(args) => (done(stand_down::run(args).await), ExitCode::FAILURE),
        Command::SupportBundle(args) => (done(bundle::run(args).await), ExitCode::FAILURE),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "strandctl",
                &mut std::io::stdout(),
            );
            (Ok(ExitCode::SUCCESS), ExitCode::FAILURE)
        }
        Command::Bench(args) => (bench::run(args).await, ExitCode::from(2)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("strandctl: {error:#}");
        failed
    })
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
