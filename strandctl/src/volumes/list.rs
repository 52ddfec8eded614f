//! `strandctl volumes list`.

use super::Held;
use crate::{
    cluster::Target,
    text::{Style, count, table},
};
use anyhow::Result;
use kube::ResourceExt;
use strand_api::{PoolVolume, condition, condition::Condition, names};

pub async fn run(target: &Target) -> Result<()> {
    let held = Held::read(&target.client().await?).await?;
    print!("{}", text(Style::of_stdout(), &held));
    Ok(())
}

fn text(style: Style, held: &Held) -> String {
    let mut text = match held.volumes.is_empty() {
        true => "There is no volume.\n".to_owned(),
        false => {
            let head = [
                "VOLUME",
                "SIZE",
                "REDUNDANCY",
                "PHASE",
                "NODE",
                "DRIVE",
                "ATTACHED",
                "WHY",
            ];
            let rows: Vec<_> = held.volumes.iter().map(volume).collect();
            table(style, &head, &rows)
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

fn volume(volume: &PoolVolume) -> Vec<String> {
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
        .map(|at| at.node.clone())
        .collect();
    let phase = status
        .phase
        .map_or("New".to_owned(), |phase| format!("{phase:?}"));
    vec![
        volume.name_any(),
        volume.spec.size.rounded(),
        format!("{:?}", volume.spec.redundancy),
        phase,
        of_legs(|leg| &leg.node_name),
        of_legs(|leg| &leg.drive),
        attached.join(", "),
        why(&status.conditions),
    ]
}

fn why(conditions: &[Condition]) -> String {
    let told = [
        names::HEALTHY,
        names::READY,
        names::RESIZED,
        names::ATTACHED,
    ];
    let mut wrong = told
        .iter()
        .filter_map(|type_| condition::find(conditions, type_));
    wrong
        .find(|condition| condition.status == "False")
        .map(|condition| format!("{}: {}", condition.reason, condition.message))
        .unwrap_or_default()
}
