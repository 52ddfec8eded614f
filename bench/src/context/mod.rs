//! Context memory against what there is otherwise: `strand-bench context-memory`.
//!
//! A store serves in a process of its own (`node`), on a loop device (`medium`); this process is the pod's client (`load`,
//! `resp`). Each file of `rows` is a family of figures; `pairs` says what may be said of them.

mod agent;
mod baseline;
mod child;
mod endpoint;
mod files;
pub mod fio;
pub mod hostile;
mod load;
pub mod medium;
pub mod node;
pub mod pairs;
mod resp;
pub mod rows;
mod serving;

use crate::report::{self, Conditions, Row};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What is measured on, for people.
const DEVICES: &str = "devices: loop, direct I/O, 4096-byte sectors, over a file in /dev/shm (RAM-backed: 2 GiB; for bytes written 4 GiB) \
                       or /var/tmp (disk-backed: 4 GiB read, 6 GiB written)";

/// Flags of `serve-door`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Block device or file
    pub device: PathBuf,
    /// First byte of the partition
    pub offset: u64,
    /// Bytes of the partition
    pub len: u64,
    /// Never tell the drive what is free
    #[arg(long)]
    pub no_trim: bool,
}

/// Flags of `context-memory`.
#[derive(Args, Clone, Debug, Default)]
pub struct ContextArgs {
    /// Families of rows; all, if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Family>,
    /// Three short rounds instead of nine: to see that it works, not to measure
    #[arg(long)]
    quick: bool,
    /// Where the figures are kept as JSON; by default beside the others
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A family of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Family {
    /// Native GET against the drive, and what it costs in processor time
    Get,
    /// Native GET against foyer and files on XFS
    Others,
    /// Native PUT against the drive
    Put,
    /// Native GET one at a time
    Latency,
    /// The endpoint against Redis
    Redis,
    /// The endpoint against the drive
    Endpoint,
    /// Bytes written for each byte taken
    Amplification,
    /// Nearly full against half full
    Fullness,
    /// With a hostile neighbour against alone
    Fairness,
    /// A million blocks: memory and restart
    Million,
    /// Conversations against a block LRU
    Traces,
    /// The same through a real agent: GET, the endpoint, restart, rest
    Agent,
}

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    rounds: usize,
    slot: Duration,
    quick: bool,
}

impl Plan {
    /// The smaller one when quick.
    fn size(self, whole: u64, quick: u64) -> u64 {
        if self.quick { quick } else { whole }
    }
}

/// The figures of one family.
#[derive(Debug, Serialize)]
struct Figures {
    family: Family,
    load_before: String,
    load_after: String,
    rows: Vec<Row>,
    failed: Option<String>,
}

/// Measures, prints and keeps. A family that fails does not keep others from being measured.
pub async fn run(args: ContextArgs, out: &Path, conditions: &Conditions) -> anyhow::Result<()> {
    let plan = if args.quick {
        Plan {
            rounds: 3,
            slot: Duration::from_millis(400),
            quick: true,
        }
    } else {
        Plan {
            rounds: 9,
            slot: Duration::from_millis(1500),
            quick: false,
        }
    };
    let versions = versions();
    println!("{versions}\n{DEVICES}");
    println!(
        "each figure of pairs: median of {} rounds of {} ms: baseline, ours, baseline\n",
        plan.rounds,
        plan.slot.as_millis()
    );
    let mut all = Vec::new();
    for family in Family::value_variants() {
        if !args.rows.is_empty() && !args.rows.contains(family) {
            continue;
        }
        let load_before = load_average();
        let measured = match family {
            Family::Get => rows::get::run(plan).await,
            Family::Others => rows::others::run(plan).await,
            Family::Put => rows::put::run(plan).await,
            Family::Latency => rows::latency::run(plan).await,
            Family::Redis => rows::redis::run(plan).await,
            Family::Endpoint => rows::endpoint::run(plan).await,
            Family::Amplification => rows::amplification::run(plan).await,
            Family::Fullness => rows::fullness::run(plan).await,
            Family::Fairness => rows::fairness::run(plan).await,
            Family::Million => rows::million::run(plan).await,
            Family::Traces => rows::traces::run(plan).await,
            Family::Agent => rows::agent::run(plan).await,
        };
        let load_after = load_average();
        let name = family
            .to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default();
        println!("{name} (load {load_before} before, {load_after} after)");
        let (rows, failed) = match measured {
            Ok(rows) => (rows, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        rows.iter().for_each(|row| println!("{row}"));
        if let Some(failed) = &failed {
            println!("  FAILED: {failed}");
        }
        all.push(Figures {
            family: *family,
            load_before,
            load_after,
            rows,
            failed,
        });
        let kept = serde_json::json!({
            "versions": versions, "devices": DEVICES, "rounds": plan.rounds, "slot_milliseconds": plan.slot.as_millis() as u64, "families": all,
        });
        match &args.json {
            Some(path) => report::keep_at(path, conditions, &kept)?,
            None => report::keep(out, "context-memory", conditions, &kept)?,
        }
    }
    let failed = all
        .iter()
        .filter(|figures| figures.failed.is_some())
        .count();
    anyhow::ensure!(failed == 0, "{failed} families could not be measured");
    Ok(())
}

/// `serve-files`.
pub fn serve_files(device: &Path) -> anyhow::Result<()> {
    files::run(device)
}

/// Of the last minute.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn versions() -> String {
    let first = |program: &str, flag: &str| {
        let said = medium::run(program, &[flag]).unwrap_or_else(|_| format!("no {program}"));
        said.lines().next().unwrap_or_default().to_owned()
    };
    format!(
        "against {}; {}; foyer 0.22",
        first("fio", "--version"),
        first("redis-server", "--version")
    )
}
