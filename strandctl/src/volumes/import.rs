//! `strandctl volumes import`: objects for bytes that nobody owns.
//!
//! What is written is a PoolVolume (or PoolSnapshot) whose `spec.legs` name the bytes by UUID; the operator then gives them to it. No
//! byte is touched.

use super::{Held, uuid};
use crate::cluster::{Target, drives, in_words};
use anyhow::{Context, Result, bail};
use clap::Args;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strand_api::{
    ByteQuantity, LegArray, PlacedLeg, PoolLeg, PoolSnapshot, PoolVolume, PoolVolumeSpec,
    VolumeMode,
};
use strand_placement::volumes::shape;

/// Takes back bytes that nobody owns.
#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(flatten)]
    target: Target,
    /// The volumes and snapshots to take back, by the names that they had
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All that are orphaned
    #[arg(long)]
    all: bool,
    /// Of several orphaned legs, the one with the bytes that are meant
    #[arg(long, value_name = "LEG", conflicts_with = "all")]
    leg: Option<String>,
    /// Those whose records do not say what they were used as were raw block devices [default: file systems]
    #[arg(long)]
    block: bool,
    /// Make a PersistentVolume for each volume besides, with the reclaim policy Retain and no claim
    #[arg(long)]
    pv: bool,
}

pub async fn run(args: ImportArgs) -> Result<()> {
    let client = args.target.client().await?;
    let held = Held::read(&client).await?;
    let mut orphans: BTreeMap<(bool, &str), Vec<&PoolLeg>> = BTreeMap::new();
    for leg in held.orphans() {
        let name = leg.spec.snapshot.as_deref();
        let of = (name.is_some(), name.unwrap_or(&leg.spec.volume));
        orphans.entry(of).or_default().push(leg);
    }
    if let Some(chosen) = &args.leg {
        choose(&mut orphans, chosen);
    }
    for name in &args.names {
        if let (Some(chosen), false) = (&args.leg, orphans.keys().any(|(_, orphan)| orphan == name))
        {
            bail!("leg {chosen} is no orphaned leg of {name}; see `strandctl volumes list`");
        }
        if !orphans.keys().any(|(_, orphan)| orphan == name) {
            bail!("there are no orphaned bytes of {name}; see `strandctl volumes list`");
        }
    }
    let wanted = orphans
        .iter()
        .filter(|((_, name), _)| args.all || args.names.iter().any(|wanted| wanted == name));
    let mut any = false;
    for ((snapshot, name), legs) in wanted {
        any = true;
        // What it has left behind, and somebody may still want.
        if args.all && held.has(*snapshot, name) {
            let places: Vec<_> = legs.iter().map(|leg| leg.name_any()).collect();
            println!(
                "{name}: is there already; without an owner stays {}",
                places.join(", ")
            );
            continue;
        }
        if let Some(array) = legs.first().and_then(|leg| leg.spec.array.as_ref()) {
            take_array(&client, name, array, legs, &args).await?;
            continue;
        }
        let [leg] = legs.as_slice() else {
            let places: Vec<_> = legs.iter().map(|leg| leg.name_any()).collect();
            bail!(
                "{name} has {} orphaned legs ({}): say with --leg which of them holds the bytes that you mean; the others stay as they are",
                legs.len(),
                places.join(", ")
            );
        };
        match snapshot {
            true => take_snapshot(&client, name, leg).await?,
            false => take_volume(&client, name, leg, &args).await?,
        }
    }
    if !any {
        println!("Nothing is orphaned.");
    }
    Ok(())
}

/// Leaves of what is orphaned the volume or snapshot that a leg is of, and of that the legs that go with it.
fn choose(orphans: &mut BTreeMap<(bool, &str), Vec<&PoolLeg>>, chosen: &str) {
    for legs in orphans.values_mut() {
        let leg = legs.iter().find(|leg| leg.name_any() == chosen).copied();
        legs.retain(|other| {
            leg.is_some_and(|leg| {
                let beside = other.spec.array.is_some() && other.spec.index != leg.spec.index;
                other.name_any() == chosen || beside
            })
        });
    }
    orphans.retain(|_, legs| !legs.is_empty());
}

async fn take_volume(client: &Client, name: &str, leg: &PoolLeg, args: &ImportArgs) -> Result<()> {
    let pool = pool_of(client, leg).await?;
    let volume = json!({
        "pool": pool,
        "size": leg.spec.size,
        "provisioning": leg.spec.provisioning,
        "volumeMode": mode(leg, args),
        "limits": leg.spec.limits,
        "legs": [placed(leg)],
    });
    own(client, name, volume, args).await
}

/// Takes back a volume of several legs: all of them, each once. Which of them have missed writes is seen when it is attached, by what md
/// has written on them.
async fn take_array(
    client: &Client,
    name: &str,
    array: &LegArray,
    legs: &[&PoolLeg],
    args: &ImportArgs,
) -> Result<()> {
    let mut legs = legs.to_vec();
    legs.sort_by_key(|leg| leg.spec.index);
    let names: Vec<_> = legs.iter().map(|leg| leg.name_any()).collect();
    let one_array = legs
        .iter()
        .all(|leg| leg.spec.array.as_ref() == Some(array));
    let places = legs.iter().map(|leg| leg.spec.index);
    let first = match legs.first() {
        Some(first) if one_array && places.eq(0..array.legs) => *first,
        _ => bail!(
            "{name} has {} legs, and these are orphaned: {}. Each of them is needed once: bring the drives of the others back, or, if they are \
             gone for good, write the object yourself, with the legs that you mean in spec.legs",
            array.legs,
            names.join(", ")
        ),
    };
    let size = legs.iter().map(|leg| leg.spec.size.0).min().unwrap_or(0);
    let volume = json!({
        "pool": pool_of(client, first).await?,
        "size": ByteQuantity(shape::volume(array.redundancy, size, legs.len())),
        "redundancy": array.redundancy,
        "provisioning": first.spec.provisioning,
        "volumeMode": mode(first, args),
        "limits": first.spec.limits,
        "array": {"uuid": array.uuid, "formed": true},
        "legs": legs.iter().map(|leg| placed(leg)).collect::<Vec<_>>(),
    });
    own(client, name, volume, args).await
}

fn mode(leg: &PoolLeg, args: &ImportArgs) -> VolumeMode {
    leg.spec.volume_mode.unwrap_or(match args.block {
        true => VolumeMode::Block,
        false => VolumeMode::Filesystem,
    })
}

/// Makes a volume of a spec that names bytes.
async fn own(client: &Client, name: &str, spec: Value, args: &ImportArgs) -> Result<()> {
    let volume = PoolVolume::new(name, serde_json::from_value(spec)?);
    let made = Api::all(client.clone())
        .create(&PostParams::default(), &volume)
        .await;
    made.map_err(in_words)
        .with_context(|| format!("volume {name} was not taken back"))?;
    let spec = &volume.spec;
    let drives: Vec<&str> = spec.legs.iter().map(|leg| leg.drive.as_str()).collect();
    println!(
        "volume {name}: taken back, {} on drive {}",
        spec.size.rounded(),
        drives.join(", ")
    );
    if args.pv {
        persistent_volume(client, name, spec).await?;
        println!("persistentvolume {name}: made, without a claim");
    }
    Ok(())
}

async fn take_snapshot(client: &Client, name: &str, leg: &PoolLeg) -> Result<()> {
    let snapshot = json!({"volume": leg.spec.volume, "legs": [placed(leg)]});
    let snapshot = PoolSnapshot::new(name, serde_json::from_value(snapshot)?);
    let made = Api::all(client.clone())
        .create(&PostParams::default(), &snapshot)
        .await;
    made.map_err(in_words)
        .with_context(|| format!("snapshot {name} was not taken back"))?;
    println!(
        "snapshot {name}: taken back, {} on drive {}",
        leg.spec.size.rounded(),
        leg.spec.drive
    );
    Ok(())
}

fn placed(leg: &PoolLeg) -> PlacedLeg {
    PlacedLeg {
        name: leg.name_any(),
        index: leg.spec.index,
        node_name: leg.spec.node_name.clone(),
        drive: leg.spec.drive.clone(),
        uuid: uuid(leg).map(str::to_owned),
        moving: None,
        lack: None,
    }
}

/// The pool whose drive holds a leg.
async fn pool_of(client: &Client, leg: &PoolLeg) -> Result<String> {
    let drives = drives(client).await?;
    let drive = drives
        .iter()
        .find(|drive| drive.name_any() == leg.spec.drive);
    drive.and_then(|drive| drive.spec.pool.clone()).with_context(|| {
        format!(
            "drive {} of leg {} is in no pool of this cluster; create its MemoryPool first, with the poolID that its label has",
            leg.spec.drive,
            leg.name_any()
        )
    })
}

async fn persistent_volume(client: &Client, name: &str, volume: &PoolVolumeSpec) -> Result<()> {
    let kind = GroupVersionKind::gvk("", "v1", "PersistentVolume");
    let resource = ApiResource::from_gvk(&kind);
    let spec: Value = json!({
        "capacity": {"storage": volume.size},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "volumeMode": volume.volume_mode,
        "csi": {"driver": strand_api::names::DRIVER, "volumeHandle": name, "volumeAttributes": {"pool": volume.pool}},
    });
    let volume = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let made = api.create(&PostParams::default(), &volume).await;
    made.map_err(in_words)
        .with_context(|| format!("no PersistentVolume was made for {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(name: &str, index: i32, array: Option<&str>) -> PoolLeg {
        let array = array.map(|uuid| json!({"uuid": uuid, "redundancy": "mirror", "legs": 2}));
        let spec = json!({
            "volume": "v", "nodeName": "n", "drive": "d", "index": index, "size": "1Gi", "array": array, "orphaned": true,
        });
        PoolLeg::new(name, serde_json::from_value(spec).unwrap())
    }

    fn left(legs: &[PoolLeg], chosen: &str) -> Vec<String> {
        let mut orphans = BTreeMap::from([((false, "v"), legs.iter().collect())]);
        choose(&mut orphans, chosen);
        let legs = orphans.into_values().flatten();
        legs.map(|leg| leg.name_any()).collect()
    }

    #[test]
    fn of_several_legs_the_one_that_is_meant_is_left() {
        let legs = [leg("v-0", 0, None), leg("v-0.1", 0, None)];
        assert_eq!(left(&legs, "v-0.1"), ["v-0.1"]);
        assert_eq!(left(&legs, "w-0"), [""; 0]);
    }

    #[test]
    fn the_other_legs_of_an_array_stay_beside_it() {
        let array = Some("a1000000-0000-4000-8000-000000000000");
        let legs = [
            leg("v-0", 0, array),
            leg("v-0.1", 0, array),
            leg("v-1", 1, array),
        ];
        assert_eq!(left(&legs, "v-0.1"), ["v-0.1", "v-1"]);
    }
}
