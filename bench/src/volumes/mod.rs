//! Volumes by the CSI calls of kubelet and the sidecars, to a real driver, operator and agent: `strand-bench volumes`.
//!
//! `bed` is a node with one drive; `csi` makes the calls. Each other file is a family of figures.

mod bed;
mod copies;
mod csi;
mod many;
mod publish;
mod raw;

use crate::{
    context::{load_average, medium::Kind, pairs::percentile},
    report::{self, Conditions, Row},
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What is measured on, for people.
const DRIVE: &str = "one drive: a file in /dev/shm (RAM-backed) or /var/tmp (disk-backed) under a loop device with direct I/O; \
                     every volume is a thick file on its XFS under one more";

/// Bytes of a volume in all families but `raw`.
const VOLUME: u64 = 10 << 30;

/// Flags of `volumes`.
#[derive(Args, Clone, Debug, Default)]
pub struct VolumeArgs {
    /// Families of rows; all, if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Family>,
    /// Short rounds and few volumes: to see that it works, not to measure
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
    /// A raw block volume against the storage partition
    Raw,
    /// From CreateVolume to NodePublishVolume, one at a time
    Publish,
    /// The same, all at once
    Many,
    /// Snapshots and clones
    Copies,
}

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    slot: Duration,
    published: usize,
    at_once: usize,
    copies: usize,
}

const WHOLE: Plan = Plan {
    rounds: 5,
    slot: Duration::from_millis(700),
    published: 200,
    at_once: 100,
    copies: 20,
};

const QUICK: Plan = Plan {
    rounds: 3,
    slot: Duration::from_millis(300),
    published: 10,
    at_once: 10,
    copies: 3,
};

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
pub async fn run(args: VolumeArgs, out: &Path, conditions: &Conditions) -> anyhow::Result<()> {
    let plan = if args.quick { QUICK } else { WHOLE };
    println!("volumes: {DRIVE}");
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
            Family::Raw => raw::run(plan).await,
            Family::Publish => publish::run(plan).await,
            Family::Many => many::run(plan).await,
            Family::Copies => copies::run(plan).await,
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
            "drive": DRIVE, "rounds": plan.rounds, "slot_milliseconds": plan.slot.as_millis() as u64, "families": all,
        });
        match &args.json {
            Some(path) => report::keep_at(path, conditions, &kept)?,
            None => report::keep(out, "volumes", conditions, &kept)?,
        }
    }
    let failed = all
        .iter()
        .filter(|figures| figures.failed.is_some())
        .count();
    anyhow::ensure!(failed == 0, "{failed} families could not be measured");
    Ok(())
}

/// Times of one thing that was done often, in milliseconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times
            .into_iter()
            .map(|time| time.as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn at(&self, share: f64) -> f64 {
        percentile(&self.0, share)
    }

    /// A row of one percentile and its goal.
    fn goal(&self, what: &str, share: f64, goal: f64) -> Row {
        let (time, count) = (self.at(share), self.0.len());
        Row::goal(
            format!("{what}, p{:.0} of {count}", share * 100.0),
            format!("{time:.0} ms"),
            &format!("<= {goal:.0} ms"),
            time <= goal,
        )
    }

    /// A row of what has no goal of its own.
    fn plain(&self, what: impl Into<String>) -> Row {
        let (p50, p99) = (self.at(0.5), self.at(0.99));
        Row::plain(what, format!("{p50:.0} / {p99:.0} ms"))
    }
}

/// Where the time of whole ways went: a row a step.
fn steps(ways: &[Vec<csi::Step>]) -> Vec<Row> {
    let names = ways
        .first()
        .into_iter()
        .flatten()
        .map(|step| step.name)
        .enumerate();
    names
        .map(|(at, name)| {
            let times = ways
                .iter()
                .filter_map(|way| way.get(at).map(|step| step.time));
            Times::of(times).plain(format!("  of it {name}, p50 / p99"))
        })
        .collect()
}

/// Both kinds of drives.
const KINDS: [Kind; 2] = [Kind::Memory, Kind::Disk];
