//! Which leg stands for a volume on this node.

use std::path::PathBuf;
use std::sync::Arc;

use kube::ResourceExt;
use strand_api::PoolLeg;
use strand_volumes::{Drive, IoLimits, LegRecord, VolumeError};

use super::decide::{limits, uuid};
use super::{AttachError, LegReport};

/// A leg on an open drive.
pub struct Found {
    /// The drive.
    pub drive: Arc<Drive>,
    /// Name of its object.
    pub name: String,
    /// Name of the leg on it.
    pub leg: String,
    /// What limits it, as far as its object is known.
    pub limits: IoLimits,
}

/// An open drive and its object's name.
pub type Named = (String, Arc<Drive>);

/// The legs of a volume that lie on these drives, snapshots left out.
pub fn of_volume(drives: &[Named], volume: &str) -> Vec<(Named, LegRecord)> {
    let mut found = Vec::new();
    for (name, drive) in drives {
        // A drive that was closed meanwhile has none.
        for record in drive.records().unwrap_or_default() {
            let is_volume = record.snapshot.is_none() && record.scratch.is_none();
            if record.volume == volume && is_volume {
                found.push(((name.clone(), Arc::clone(drive)), record));
            }
        }
    }
    found
}

/// The leg that a volume is attached by: the one that its owner names ([`stands_for`]).
pub fn to_attach(
    volume: &str,
    found: Vec<(Named, LegRecord)>,
    objects: &[&PoolLeg],
    synced: bool,
) -> Result<Found, AttachError> {
    let refused = |why: String| AttachError::Refused {
        volume: volume.to_owned(),
        why,
    };
    if found.is_empty() {
        return Err(AttachError::NotHere {
            volume: volume.to_owned(),
        });
    }
    if found.iter().any(|(_, record)| record.array.is_some()) {
        return Err(AttachError::Several {
            volume: volume.to_owned(),
        });
    }
    let (mut usable, rest): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(_, record)| stands_for(record, objects, synced));
    match (usable.pop(), usable.is_empty()) {
        (Some(((name, drive), record)), true) => Ok(Found {
            drive,
            name,
            limits: limits(object(&record, objects).and_then(|leg| leg.spec.limits.as_ref())),
            leg: record.name,
        }),
        (Some(_), false) => Err(refused(
            "this node has several legs of it that are no array; see `strandctl volumes list`"
                .into(),
        )),
        (None, _) if !synced => Err(AttachError::NotYet {
            volume: volume.to_owned(),
            why: "this node's agent has just started, and does not know yet whether what is here is still the volume's".into(),
        }),
        (None, _) => {
            let legs: Vec<String> = rest.into_iter().map(|(_, record)| record.name).collect();
            Err(AttachError::Unowned {
                volume: volume.to_owned(),
                legs: legs.join(", "),
            })
        }
    }
}

/// Whether bytes are those that their owner names. Bytes whose object says that nobody owns them, that they may go, or that others take their
/// place, are not. `synced` says whether all objects are known: before, the volume may have moved away without a trace here, so that only what a
/// writer has attached stands for it. That was never copied from since it was, as what is read may be, and nothing took its place.
fn stands_for(record: &LegRecord, objects: &[&PoolLeg], synced: bool) -> bool {
    let here = (record.attached).is_some_and(|there| there.here && !there.read_only);
    let Some(leg) = object(record, objects) else {
        return !synced && here;
    };
    // Of a leg that moves to another drive, what it is copied from counts until the copy is called live.
    let half = leg.spec.copy.as_ref().is_some_and(|copy| !copy.live);
    let id = record.uuid.to_string();
    let replaces = |leg: &&PoolLeg| {
        let copy = leg.spec.copy.as_ref();
        !leg.spec.orphaned && copy.is_some_and(|copy| copy.live && copy.uuid == id)
    };
    let replaced = objects.iter().any(replaces);
    let named = !leg.spec.orphaned && !leg.spec.deletion_mark && !half && !replaced;
    named && (synced || here)
}

fn object<'a>(record: &LegRecord, objects: &[&'a PoolLeg]) -> Option<&'a PoolLeg> {
    let id = record.uuid.to_string();
    let is = |leg: &&&PoolLeg| match uuid(leg) {
        Some(uuid) => uuid == id,
        None => leg.name_any() == record.name && leg.spec.owner_uid == record.owner_uid,
    };
    objects.iter().find(is).copied()
}

/// All legs of these drives.
pub fn report(drives: &[Named]) -> Result<Vec<LegReport>, VolumeError> {
    let mut legs = Vec::new();
    for (name, drive) in drives {
        let attached = drive.attached()?;
        for leg in drive.legs()? {
            let record = leg.record;
            let device = attached.iter().find(|attached| attached.leg == record.name);
            let path: PathBuf = drive.data(&record.name);
            legs.push(LegReport {
                volume: record.volume,
                snapshot: record.snapshot,
                scratch: record.scratch,
                leg: record.name,
                drive: name.clone(),
                uuid: record.uuid.to_string(),
                size: record.size,
                allocated: leg.allocated,
                device: device.map(|device| device.device.clone()),
                read_only: device.is_some_and(|device| device.read_only),
                generation: record.attachment_generation,
                path,
            });
        }
    }
    Ok(legs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BYTES: &str = "00000000-0000-4000-8000-000000000001";

    fn record(attached: serde_json::Value) -> LegRecord {
        let record = json!({
            "format": 1, "name": "v-0", "uuid": BYTES, "volume": "v", "ownerUID": "uid-v", "poolId": BYTES, "index": 0, "size": 4096,
            "redundancy": "none", "provisioning": "thick", "madeAtMs": 0, "attachmentGeneration": 5, "attached": attached,
        });
        serde_json::from_value(record).unwrap()
    }

    fn leg(name: &str, more: serde_json::Value) -> PoolLeg {
        let mut spec = json!({
            "volume": "v", "ownerUID": "uid-v", "nodeName": "n", "drive": "d", "index": 0, "size": "4Ki",
        });
        let more = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    #[test]
    fn before_all_objects_are_known_only_what_is_attached_stands_for_its_volume() {
        let named = leg("v-0", json!({"uuid": BYTES}));
        let away = record(json!(null));
        let lent = record(json!({"readOnly": true, "here": false, "lent": true}));
        let here = record(json!({"readOnly": false}));
        let read = record(json!({"readOnly": true}));
        for (record, objects, synced, expected) in [
            // The volume may have moved to another node, and the object of what it left may be lost.
            (&away, &[][..], false, false),
            (&away, &[&named][..], false, false),
            (&lent, &[][..], false, false),
            (&read, &[][..], false, false),
            (&here, &[][..], false, true),
            (&here, &[&named][..], false, true),
            (&away, &[][..], true, false),
            (&here, &[][..], true, false),
            (&away, &[&named][..], true, true),
        ] {
            let found = stands_for(record, objects, synced);
            assert_eq!(
                found, expected,
                "{:?} {objects:?} {synced}",
                record.attached
            );
        }
    }

    #[test]
    fn what_others_take_the_place_of_does_not_stand_for_its_volume() {
        let record = record(json!(null));
        let copy = |live: bool| json!({"uuid": BYTES, "drive": "d", "generation": 5, "rate": "1Mi", "live": live});
        for (more, expected) in [
            (json!({"copy": copy(false)}), true),
            (json!({"copy": copy(true)}), false),
            (json!({"copy": copy(true), "orphaned": true}), true),
        ] {
            let (named, other) = (leg("v-0", json!({"uuid": BYTES})), leg("v-0.1", more));
            assert_eq!(stands_for(&record, &[&named, &other], true), expected);
        }
        for more in [
            json!({"uuid": BYTES, "orphaned": true}),
            json!({"uuid": BYTES, "deletionMark": true}),
            json!({"uuid": BYTES, "copy": copy(false)}),
        ] {
            assert!(!stands_for(&record, &[&leg("v-0", more)], true));
        }
    }
}
