//! Strand from the command line: a rack on this machine, and a look at any cluster.

mod cluster;
mod drives;
#[cfg(test)]
mod golden;
mod standing;
mod status;
mod text;
mod up;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Drives(args) => drives::run(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strandctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
