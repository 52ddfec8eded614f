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

/// The leg that a volume is attached by: the one that its owner names. Bytes whose object says that nobody owns them, that they may
/// go, or that others take their place, are not it. `synced` says whether all objects are known.
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
    let object = |record: &LegRecord| {
        let id = record.uuid.to_string();
        objects.iter().find(|leg| match uuid(leg) {
            Some(uuid) => uuid == id,
            None => leg.name_any() == record.name && leg.spec.owner_uid == record.owner_uid,
        })
    };
    // Of a leg that moves to another drive, what it is copied from counts until the copy is called live.
    let half = |leg: &PoolLeg| leg.spec.copy.as_ref().is_some_and(|copy| !copy.live);
    let replaced = |record: &LegRecord| {
        let id = record.uuid.to_string();
        let by = |leg: &&PoolLeg| {
            let copy = leg.spec.copy.as_ref();
            !leg.spec.orphaned && copy.is_some_and(|copy| copy.live && copy.uuid == id)
        };
        objects.iter().any(by)
    };
    let usable = |record: &LegRecord| match object(record) {
        Some(leg) => {
            !leg.spec.orphaned && !leg.spec.deletion_mark && !half(leg) && !replaced(record)
        }
        None => !synced,
    };
    let (mut usable, rest): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(_, record)| usable(record));
    match (usable.pop(), usable.is_empty()) {
        (Some(((name, drive), record)), true) => Ok(Found {
            drive,
            name,
            limits: limits(object(&record).and_then(|leg| leg.spec.limits.as_ref())),
            leg: record.name,
        }),
        (Some(_), false) => Err(refused(
            "this node has several legs of it that are no array; see `strandctl volumes list`"
                .into(),
        )),
        (None, _) => {
            let legs: Vec<String> = rest.into_iter().map(|(_, record)| record.name).collect();
            Err(refused(format!(
                "its bytes ({}) are orphaned or marked for deletion; see `strandctl volumes list`",
                legs.join(", ")
            )))
        }
    }
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
