//! `strandctl status`: one screen that says how the pools, their nodes and the operator are.

mod check;
mod workloads;

use crate::{
    cluster::{Cluster, Target, natural},
    drives::{self, Output},
    standing::{Word, side, standing, used},
    text::{Style, Tone, bar, count, table},
};
use anyhow::Result;
use clap::Args;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use strand_api::{
    Drive, DriveStatus, DriveVerdict, MemoryPool, MemoryPoolStatus, PartitionRole, SideStatus,
    condition, names,
};

/// Shows the rack.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    target: Target,
    /// Another form: wide shows every node, json and yaml are the pools and drives as a Kubernetes List
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Exit with status 1, and say why, unless an operator leads, all of Strand's pods are ready and of the newest revision, every pool
    /// is ready and not degraded, and every drive of a pool serves that is not cordoned. Without a pool, pods of nodes need not be ready
    #[arg(long)]
    check: bool,
    /// How long --check waits for that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "check")]
    timeout: u64,
}

/// Runs `strandctl status`.
pub async fn run(args: StatusArgs) -> Result<()> {
    let client = args.target.client().await?;
    if args.check {
        let patience = Duration::from_secs(args.timeout);
        let look = check::wait(&args.target, &client, patience).await?;
        show(args.output, &look.cluster)?;
        return look.verdict();
    }
    show(args.output, &Cluster::read(&client).await?)
}

fn show(output: Option<Output>, cluster: &Cluster) -> Result<()> {
    let screen = |rows| screen(Style::of_stdout(), cluster, Timestamp::now(), rows);
    let text = match output {
        None => screen(ROWS),
        Some(Output::Wide) => screen(usize::MAX),
        Some(Output::Json) => format!("{:#}\n", objects(cluster)?),
        Some(Output::Yaml) => serde_yaml::to_string(&objects(cluster)?)?,
    };
    print!("{text}");
    Ok(())
}

/// Pools and drives as a Kubernetes List, without the bookkeeping of field managers.
pub fn objects(cluster: &Cluster) -> Result<Value> {
    let mut list = drives::objects(&cluster.drives)?;
    let mut items = Vec::new();
    for pool in &cluster.pools {
        let mut pool = pool.clone();
        pool.metadata.managed_fields = None;
        items.push(serde_json::to_value(pool)?);
    }
    if let Some(all) = list["items"].as_array_mut() {
        items.append(all);
    }
    list["items"] = items.into();
    Ok(list)
}

/// Nodes shown if all are not asked for; of a larger cluster those with something to tell come first.
const ROWS: usize = 40;
/// Characters of a drive in the picture, and of the bar in it.
const CELL: usize = 20;
const BAR: usize = 10;

/// The screen, with so many nodes at most.
pub fn screen(style: Style, cluster: &Cluster, now: Timestamp, rows: usize) -> String {
    let mut text = String::new();
    for pool in &cluster.pools {
        text.push_str(&story(style, pool));
        text.push('\n');
    }
    if cluster.pools.is_empty() {
        text.push_str("No MemoryPool yet: nothing is taken into use. Apply one to begin.\n\n");
    }
    text.push_str(&picture(style, &cluster.nodes, &cluster.drives, rows));
    text.push('\n');
    text.push_str(&operator(style, cluster.operator.as_ref(), now));
    text
}

/// A pool in a few lines.
fn story(style: Style, pool: &MemoryPool) -> String {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let title = style.paint(Tone::Strong, &format!("Pool {name}"));
    let unseen = MemoryPoolStatus::default();
    let status = pool.status.as_ref().unwrap_or(&unseen);
    let ready = condition::find(&status.conditions, names::READY);
    let (tone, word) = match ready {
        Some(ready) if ready.status == "True" => (Tone::Good, "ready"),
        Some(_) => (Tone::Bad, "not ready"),
        None => (Tone::Note, "not seen by the operator yet"),
    };
    let mut text = format!("{title}: {}", style.paint(tone, word));
    if let Some(ready) = ready.filter(|ready| !ready.message.is_empty()) {
        text.push_str(&format!(": {}", ready.message));
    }
    text.push('\n');
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("  {name:<15} {value}\n"));
    };
    let conflict = condition::find(&status.conditions, names::CONFLICT);
    if let Some(conflict) = conflict.filter(|conflict| conflict.status == "True") {
        line("Conflict", conflict.message.clone());
    }
    let drives = &status.drives;
    line(
        "Drives",
        format!(
            "{} in the pool of {} found, {} serving, on {}",
            drives.adopted,
            drives.found,
            drives.ready,
            count(usize::try_from(status.nodes).unwrap_or(0), "node")
        ),
    );
    line("Context memory", use_of(&status.context_memory));
    line("Storage", use_of(&status.storage));
    if drives.rejected > 0 {
        line(
            "Not taken",
            format!("{} ({})", drives.rejected, status.display.rejected),
        );
    }
    line("Map epoch", status.map_epoch.to_string());
    text
}

fn use_of(side: &SideStatus) -> String {
    format!("{}, {} used", side.capacity.rounded(), side.used.rounded())
}

/// Nodes by drives: how each is carved, how full its sides are, how worn it is, or in a word why it is out.
fn picture(style: Style, nodes: &[Node], drives: &[Drive], most: usize) -> String {
    let mut by_node: BTreeMap<_, (String, String, Vec<&Drive>)> = BTreeMap::new();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        by_node.insert(natural(&name), (name, readiness(node).into(), Vec::new()));
    }
    for drive in drives {
        let name = &drive.spec.node_name;
        let entry = by_node
            .entry(natural(name))
            .or_insert_with(|| (name.clone(), "no such node".into(), Vec::new()));
        entry.2.push(drive);
    }
    let mut rows: Vec<_> = by_node.into_values().collect();
    let all = rows.len();
    let quiet = |(_, ready, drives): &(String, String, Vec<&Drive>)| {
        ready == "yes" && drives.iter().all(|d| standing(d).word == Word::In)
    };
    let mut hidden = 0;
    if all > most {
        rows.sort_by_key(quiet);
        hidden = rows.split_off(most).len();
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, ready, drives)| {
            let cells: Vec<String> = drives.into_iter().map(cell).collect();
            vec![name, ready, cells.join("  ").trim_end().into()]
        })
        .collect();
    // Not cut where the terminal ends: a drive that is out must not be what is hidden.
    let mut text = table(style, &["NODE", "READY", "DRIVES"], &rows);
    if hidden > 0 {
        text.push_str(&format!(
            "and {}; `-o wide` shows all\n",
            count(hidden, "more node")
        ));
    }
    let legend = "N% █ context memory and its use  ░ N% storage and its use  wN% worn; a word says why a \
                  drive does not serve (`strandctl drives --why`)";
    text.push_str(&style.paint(Tone::Faint, legend));
    text.push('\n');
    text
}

fn readiness(node: &Node) -> &'static str {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
    match ready.map(|ready| ready.status.as_str()) {
        Some("True") if cordoned => "cordoned",
        Some("True") => "yes",
        Some("False") => "no",
        _ => "unknown",
    }
}

/// One drive in the picture.
fn cell(drive: &Drive) -> String {
    let status = drive.status.clone().unwrap_or_default();
    let standing = standing(drive);
    let context = side(&status, PartitionRole::ContextMemory);
    let storage = side(&status, PartitionRole::Storage);
    let out = |verdict| status.verdict == Some(verdict);
    let word = match standing.word {
        Word::In => format!(
            "{:>4} {} {}",
            full(&status, PartitionRole::ContextMemory),
            bar(context, context + storage, BAR),
            full(&status, PartitionRole::Storage)
        ),
        Word::Free => "free".into(),
        Word::Waits if status.verdict.is_none() => "watched".into(),
        Word::Waits => "waits".into(),
        Word::Out if out(DriveVerdict::Pooled) => "MISSING".into(),
        Word::Out => match status.reasons.first() {
            Some(reason) => reason.code.chars().take(CELL).collect(),
            None => "OUT".into(),
        },
    };
    let mut cell = format!("{word:<CELL$}");
    if let Some(health) = &status.health {
        let worn = format!("w{}%", health.percentage_used);
        cell.push_str(&format!(" {worn:<4}"));
    }
    if drive.spec.cordon {
        cell.push_str(" cordoned");
    }
    cell
}

/// How much of a side is in use; nothing where the drive has no such side.
fn full(status: &DriveStatus, role: PartitionRole) -> String {
    let used = u128::from(used(status, role)) * 100;
    let percent = used.checked_div(side(status, role).into());
    percent.map_or_else(String::new, |percent| format!("{percent}%"))
}

fn operator(style: Style, lease: Option<&Lease>, now: Timestamp) -> String {
    match leader(lease, now) {
        Ok((holder, age)) => format!(
            "Operator: {} leads, seen {age} s ago\n",
            style.paint(Tone::Good, holder)
        ),
        Err(nobody) => format!("Operator: {}\n", style.paint(Tone::Bad, &nobody)),
    }
}

/// Who leads, and how many seconds ago that was seen; or that nobody does. A Lease is renewed well within its duration: older than that,
/// its holder has gone.
fn leader(lease: Option<&Lease>, now: Timestamp) -> std::result::Result<(&str, i64), String> {
    let held = lease
        .and_then(|lease| lease.spec.as_ref())
        .and_then(|spec| {
            let holder = spec.holder_identity.as_deref().filter(|h| !h.is_empty())?;
            let renewed = spec.renew_time.as_ref()?.0;
            Some((
                holder,
                renewed,
                i64::from(spec.lease_duration_seconds.unwrap_or(15)),
            ))
        });
    let Some((holder, renewed, duration)) = held else {
        return Err("none leads: pools and drives stay as they are until one runs".into());
    };
    let age = now.as_second() - renewed.as_second();
    if age > duration {
        return Err(format!(
            "none leads; {holder} was last seen {age} s ago. Data paths go on; decisions wait"
        ));
    }
    Ok((holder, age.max(0)))
}
