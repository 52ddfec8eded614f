//! `strandctl bench`: what context memory is worth to a trace of requests.

mod content;
mod feed;
mod progress;
mod replay;
mod report;
mod tally;
mod trace;

use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Measures context memory with traces of requests.
#[derive(Args, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Subcommand, Debug)]
enum Bench {
    /// Replay a trace through pods' endpoints, and compare with an LRU cache of blocks
    Replay(Box<replay::ReplayArgs>),
    /// Make a trace of conversations that grow
    Trace(trace::TraceArgs),
}

/// Runs `strandctl bench`.
pub async fn run(args: BenchArgs) -> Result<ExitCode> {
    match args.command {
        Bench::Replay(args) => replay::run(*args).await,
        Bench::Trace(args) => trace::run(args).map(|()| ExitCode::SUCCESS),
    }
}
