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
    ///
    /// Each request of a trace in Mooncake's form looks up its blocks, reads the longest leading run of those that are
    /// there, checks every byte, and writes the rest. The same requests go through an LRU cache of --capacity bytes, which
    /// the report shows beside it. Ctrl-C ends it with a report of what was done.
    Replay(Box<replay::ReplayArgs>),
    /// Make a trace of conversations that grow
    ///
    /// In Mooncake's form: a JSON object a line with timestamp (ms), input_length, output_length and hash_ids (of blocks of
    /// 512 tokens). Conversations begin with one of a few shared system prompts and grow turn by turn. The defaults resemble
    /// public descriptions of chat services; the same flags make the same trace.
    Trace(trace::TraceArgs),
}

/// Runs `strandctl bench`.
pub async fn run(args: BenchArgs) -> Result<ExitCode> {
    match args.command {
        Bench::Replay(args) => replay::run(*args).await,
        Bench::Trace(args) => trace::run(args).map(|()| ExitCode::SUCCESS),
    }
}
