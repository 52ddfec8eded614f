//! `strandctl kv`: context memory by hand.

pub mod resp;
pub mod session;
pub mod stat;
pub mod target;
mod top;

use crate::text::Style;
use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use session::{Session, Taken, key};
use stat::{Block, Namespace, size};
use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use target::Target;

/// Reads and writes blocks of context memory through a pod's door, in that pod's namespace; or tells who uses it.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 done, 1 no such block (get, stat) or not kept (put), 2 anything else."
)]
pub struct KvArgs {
    #[command(subcommand)]
    command: Kv,
}

#[derive(Subcommand, Debug)]
enum Kv {
    /// Read a block into a file, or to standard output; 1 if there is none
    Get(GetArgs),
    /// Write a block from a file, or from standard input; 1 if it was not kept
    Put(PutArgs),
    /// Tell a block's length and what is left of its life; without a key, what the namespace holds
    Stat(StatArgs),
    /// Tell of all namespaces of the rack what they hold, hit and do
    Top(top::TopArgs),
}

#[derive(Args, Debug)]
struct GetArgs {
    /// Key of the block, 1 to 1024 bytes
    key: OsString,
    /// Where its value goes; -: standard output
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct PutArgs {
    /// Key of the block, 1 to 1024 bytes
    key: OsString,
    /// Where its value comes from; -: standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Seconds until it expires [default: as the pool has it]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    ttl: Option<u64>,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct StatArgs {
    /// Key of a block
    key: Option<OsString>,
    /// Another form
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    #[command(flatten)]
    target: Target,
}

/// Form of what is told.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Output {
    /// For programs
    Json,
}

/// What a script sees where there is no such block.
const NOT_THERE: u8 = 1;

/// Runs `strandctl kv`.
pub async fn run(args: KvArgs) -> Result<ExitCode> {
    match args.command {
        Kv::Get(args) => get(args).await,
        Kv::Put(args) => put(args).await,
        Kv::Stat(args) => stat(args).await,
        Kv::Top(args) => top::run(args).await.map(|()| ExitCode::SUCCESS),
    }
}

async fn get(args: GetArgs) -> Result<ExitCode> {
    let key = key(&args.key)?;
    let mut session = Session::open(&args.target.door()?).await?;
    match session.get(&key, |value| write(&args.file, value)).await? {
        Some(written) => written.map(|()| ExitCode::SUCCESS),
        None => not_there(&mut session, &key).await,
    }
}

async fn put(args: PutArgs) -> Result<ExitCode> {
    let key = key(&args.key)?;
    let value = read(&args.file)?;
    ensure!(
        !value.is_empty(),
        "there is nothing to put: a block has 1 byte at least"
    );
    let mut session = Session::open(&args.target.door()?).await?;
    let ttl = args.ttl.map(Duration::from_secs);
    let taken = session
        .put(&key, ttl, value.len(), |room| room.copy_from_slice(&value))
        .await?;
    // An endpoint answers a dropped write like any other; whoever types wants to know.
    let kept = taken == Taken::Yes
        && session
            .describe(&key)
            .await?
            .is_some_and(|described| described.length == value.len() as u64);
    if kept {
        eprintln!("{}: {} written", shown(&key), size(value.len() as u64));
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "strandctl: {} was not kept: {}",
        shown(&key),
        away(&mut session).await?.unwrap_or_else(|| {
            "the drives have no room, no time or no budget for it now; `strandctl kv stat` counts such writes as dropped".into()
        })
    );
    Ok(ExitCode::from(NOT_THERE))
}

async fn stat(args: StatArgs) -> Result<ExitCode> {
    let style = Style::of_stdout();
    let mut session = Session::open(&args.target.door()?).await?;
    let Some(typed) = &args.key else {
        let facts = Namespace::of(&mut session).await?;
        return tell(args.output, &facts, facts.text(style));
    };
    let key = key(typed)?;
    match session.describe(&key).await? {
        Some(described) => {
            let block = Block::new(&key, described);
            tell(args.output, &block, block.text(style))
        }
        None => not_there(&mut session, &key).await,
    }
}

fn tell(output: Option<Output>, facts: &impl Serialize, text: String) -> Result<ExitCode> {
    let text = match output {
        None => text,
        Some(Output::Json) => serde_json::to_string_pretty(facts)? + "\n",
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn not_there(session: &mut Session, key: &[u8]) -> Result<ExitCode> {
    let why = away(session).await?.map(|why| format!(": {why}"));
    eprintln!(
        "strandctl: no block {} in this pod's namespace{}",
        shown(key),
        why.unwrap_or_default()
    );
    Ok(ExitCode::from(NOT_THERE))
}

/// That there is no agent, in words, where that is so: then nothing is there and nothing is kept.
async fn away(session: &mut Session) -> Result<Option<String>> {
    let facts = Namespace::of(session).await?;
    Ok(facts
        .agent_away
        .map(|why| format!("its agent is away ({why}); everything misses until it is back")))
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}

fn is_dash(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    if is_dash(file) {
        io::stdin()
            .read_to_end(&mut value)
            .context("standard input cannot be read")?;
    } else {
        value = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    }
    Ok(value)
}

fn write(file: &Path, value: &[u8]) -> Result<()> {
    if is_dash(file) {
        let mut out = io::stdout().lock();
        let written = out.write_all(value).and_then(|()| out.flush());
        written.context("standard output takes no bytes")
    } else {
        fs::write(file, value).with_context(|| format!("{} cannot be written", file.display()))
    }
}
