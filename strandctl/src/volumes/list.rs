//! `strandctl volumes list`.

use super::Held;
use crate::{
    cluster::Target,
    output::{Output, formed},
    text::{Style, count, fitted, table},
};
use anyhow::Result;
use clap::Args;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use strand_api::{
    ByteQuantity, PlacedLeg, PoolLeg, PoolVolume, PoolVolumeStatus, VolumePhase, condition,
    condition::Condition, names,
};

/// Lists volumes, snapshots, and what nobody owns.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    target: Target,
    /// Another form of the list
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

pub async fn run(args: ListArgs) -> Result<()> {
    let held = Held::read(&args.target.client().await?).await?;
    let style = Style::of_stdout();
    let table = |wide| match wide {
        true => text(style.uncut(), &held, wide),
        false => text(style, &held, wide),
    };
    print!("{}", formed(args.output, || objects(&held), table)?);
    Ok(())
}

/// Volumes, snapshots and legs as a Kubernetes List, without the bookkeeping of field managers.
fn objects(held: &Held) -> Result<Value> {
    fn plain<K: Resource + Clone + Serialize>(object: &K) -> Result<Value> {
        let mut object = object.clone();
        object.meta_mut().managed_fields = None;
        Ok(serde_json::to_value(object)?)
    }
    let volumes = held.volumes.iter().map(plain);
    let snapshots = held.snapshots.iter().map(plain);
    let legs = held.legs.iter().map(plain);
    let items: Vec<Value> = volumes
        .chain(snapshots)
        .chain(legs)
        .collect::<Result<_>>()?;
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

fn text(style: Style, held: &Held, wide: bool) -> String {
    let mut text = match held.volumes.is_empty() {
        true => "There is no volume.\n".to_owned(),
        false => {
            let mut head = vec![
                "VOLUME", "SIZE", "USED", "PHASE", "HEALTH", "NODE", "DRIVE", "ATTACHED", "WHY",
            ];
            if wide {
                head.extend(["POOL", "REDUNDANCY", "KIND", "MODE", "GENERATION", "LEGS"]);
            }
            let volumes = held.volumes.iter();
            let rows: Vec<_> = volumes.map(|v| volume(v, held, wide)).collect();
            fitted(style, &head, &rows)
        }
    };
    if !held.snapshots.is_empty() {
        let row = |snapshot: &strand_api::PoolSnapshot| {
            let status = snapshot.status.clone().unwrap_or_default();
            let taken = status
                .taken_at
                .map(|at| at.0.to_string())
                .unwrap_or_default();
            vec![
                snapshot.name_any(),
                snapshot.spec.volume.clone(),
                status.size.rounded(),
                taken,
            ]
        };
        let rows: Vec<_> = held.snapshots.iter().map(row).collect();
        text.push('\n');
        text.push_str(&table(style, &["SNAPSHOT", "OF", "SIZE", "TAKEN"], &rows));
    }
    let orphans: Vec<Vec<String>> = held
        .orphans()
        .map(|leg| {
            let spec = &leg.spec;
            let kind = spec.snapshot.as_ref().map_or_else(
                || format!("volume {}", spec.volume),
                |name| format!("snapshot {name} of {}", spec.volume),
            );
            vec![
                leg.name_any(),
                kind,
                spec.size.rounded(),
                spec.node_name.clone(),
                spec.drive.clone(),
            ]
        })
        .collect();
    if !orphans.is_empty() {
        text.push('\n');
        text.push_str(&table(
            style,
            &["ORPHANED", "OF", "SIZE", "NODE", "DRIVE"],
            &orphans,
        ));
        text.push_str(&format!(
            "\n{} without an owner: `strandctl volumes import` takes {}.\n",
            count(orphans.len(), "leg"),
            if orphans.len() == 1 {
                "it back"
            } else {
                "them back"
            },
        ));
    }
    text
}

fn volume(volume: &PoolVolume, held: &Held, wide: bool) -> Vec<String> {
    let status = volume.status.clone().unwrap_or_default();
    let of_legs = |field: fn(&strand_api::PlacedLeg) -> &String| {
        let all: Vec<_> = volume
            .spec
            .legs
            .iter()
            .map(|leg| field(leg).clone())
            .collect();
        all.join(", ")
    };
    let attached: Vec<_> = status
        .attachments
        .iter()
        .map(|at| match at.read_only {
            true => format!("{} (reads)", at.node),
            false => at.node.clone(),
        })
        .collect();
    let legs: Vec<&PoolLeg> = volume
        .spec
        .legs
        .iter()
        .filter_map(|l| held.leg(l))
        .collect();
    let used: Option<u64> = legs
        .iter()
        .map(|leg| leg.status.as_ref()?.used.map(|used| used.0))
        .sum();
    let phase = status
        .phase
        .map_or("New".to_owned(), |phase| format!("{phase:?}"));
    let mut row = vec![
        volume.name_any(),
        volume.spec.size.rounded(),
        used.map_or_else(String::new, |used| ByteQuantity(used).rounded()),
        phase,
        health(&status),
        of_legs(|leg| &leg.node_name),
        drives(volume, held),
        attached.join(", "),
        why(&status.conditions),
    ];
    if wide {
        row.extend([
            volume.spec.pool.clone(),
            format!("{:?}", volume.spec.redundancy),
            format!("{:?}", volume.spec.provisioning),
            format!("{:?}", volume.spec.volume_mode),
            status.attachment_generation.to_string(),
            of_legs(|leg| &leg.name),
        ]);
    }
    row
}

/// `Good`, or what is wrong with its drive or bytes; nothing while there are none.
fn health(status: &PoolVolumeStatus) -> String {
    let ill = condition::find(&status.conditions, names::HEALTHY);
    let degraded = condition::find(&status.conditions, names::DEGRADED);
    match (ill.filter(|c| c.status == "False"), status.phase) {
        (_, Some(VolumePhase::Degraded)) => {
            degraded.map_or_else(|| "Degraded".into(), |c| c.reason.clone())
        }
        (Some(ill), _) => ill.reason.clone(),
        (None, Some(VolumePhase::Failed)) => "Failed".into(),
        (None, Some(VolumePhase::Ready)) => "Good".into(),
        (None, _) => String::new(),
    }
}

/// The drives of its legs, and where those are that move.
fn drives(volume: &PoolVolume, held: &Held) -> String {
    let one = |leg: &PlacedLeg| {
        let Some(to) = &leg.moving else {
            return leg.drive.clone();
        };
        let copy = held.legs.iter().find(|l| l.name_any() == to.name);
        let copied = copy.and_then(|l| Some((l.status.as_ref()?.copied?, l.spec.size.0)));
        let percent = copied.map_or(0, |(copied, of)| copied.0 * 100 / of.max(1));
        format!("{} -> {} {percent} %", leg.drive, to.drive)
    };
    let all: Vec<String> = volume.spec.legs.iter().map(one).collect();
    all.join(", ")
}

fn why(conditions: &[Condition]) -> String {
    let told = [
        names::DEGRADED,
        names::HEALTHY,
        names::READY,
        names::RESIZED,
        names::ATTACHED,
    ];
    let mut wrong = told
        .iter()
        .filter_map(|type_| condition::find(conditions, type_));
    wrong
        .find(|condition| (condition.type_ == names::DEGRADED) == (condition.status == "True"))
        .map(|condition| format!("{}: {}", condition.reason, condition.message))
        .unwrap_or_default()
}
