//! Drives that are emptied: each leg is copied to another drive, of its node if one has room, and the copy takes its place once it is whole.
//!
//! ```text
//!   spec.legs: A            the leg that is attached
//!   spec.legs: A moving B   B is made as a copy of A; nobody is granted an attachment
//!   spec.legs: B            B is whole; it is called live, and when its agent has seen that, A is marked
//! ```
//! Whoever wants to attach the volume before the last step gets A, and B goes. Where B lies on another node, A is exported to that node for as
//! long as B is copied, and until A is marked ([`abroad`]). Of an attached volume that outlives two losses another leg takes
//! the place of A at once ([`super::array`]).

mod abroad;
mod step;
mod succession;
mod tell;

use super::{Owner, Pass, Storage, claim, young};
use crate::operation::{self, Denial};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use strand_api::{
    ByteQuantity, Drive, DriveOperation, LegPhase, OperationPhase, OperationType, PoolLeg,
};

pub(super) use abroad::{export, left_behind, reserved};
pub(super) use step::{lacks, step};
pub(super) use succession::{Superseded, back, kept, settling, superseded};
pub(super) use tell::tell;

/// Bytes a second, where an operation does not say.
const RATE: ByteQuantity = ByteQuantity(200 << 20);
/// A cordon may be seen this much later than the operation that needs it.
const CORDON_SEEN: Duration = Duration::from_secs(10);

/// The drives that are being emptied.
pub(super) struct Evacuations<'a>(BTreeMap<&'a str, Evacuation>);

struct Evacuation {
    rate: ByteQuantity,
    /// Copies under way.
    moving: usize,
    /// Copies to other nodes that wait for the export that they read, or for its answer.
    stalled: usize,
    /// Bytes of copies under way that are there.
    copied: u64,
    /// What keeps legs on the drive, a sentence each; those of copies under way first.
    waits: BTreeSet<(bool, String)>,
}

/// What an operation may do now.
enum Leave {
    /// It is not about this, or over, or has to wait for what has not been seen yet.
    None,
    Denied(String),
    Goes,
}

fn leave(storage: &Storage, operation: &DriveOperation, now: Timestamp) -> Leave {
    if operation.spec.type_ != OperationType::Evacuate || operation::ended(operation) {
        return Leave::None;
    }
    let Some(drive) = drive_of(storage, operation) else {
        return Leave::None;
    };
    if let Err(denial) = operation::names_drive(operation, drive) {
        return Leave::Denied(denial.to_string());
    }
    let name = &operation.spec.drive;
    match drive.spec.cordon {
        true => Leave::Goes,
        false if running(operation) => Leave::Denied(format!(
            "the cordon of drive {name} was lifted; what was not moved by then stays on it"
        )),
        false if young(&operation.metadata, now, CORDON_SEEN) => Leave::None,
        false => Leave::Denied(Denial::NotCordoned(name.clone()).to_string()),
    }
}

fn running(operation: &DriveOperation) -> bool {
    let phase = operation.status.as_ref().and_then(|s| s.phase);
    phase == Some(OperationPhase::Running)
}

fn drive_of<'a>(storage: &Storage<'a>, operation: &DriveOperation) -> Option<&'a Drive> {
    let mut drives = storage.drives.iter().copied();
    drives.find(|drive| drive.metadata.name.as_ref() == Some(&operation.spec.drive))
}

impl<'a> Evacuations<'a> {
    pub fn new(storage: &Storage<'a>, claims: &claim::Claims<'a>, now: Timestamp) -> Self {
        let mut drives: BTreeMap<&str, Evacuation> = BTreeMap::new();
        for operation in &storage.operations {
            if !matches!(leave(storage, operation, now), Leave::Goes) {
                continue;
            }
            let rate = operation.spec.rate.unwrap_or(RATE);
            let entry = drives.entry(&operation.spec.drive).or_insert(Evacuation {
                rate,
                moving: 0,
                stalled: 0,
                copied: 0,
                waits: BTreeSet::new(),
            });
            entry.rate = entry.rate.min(rate);
        }
        let volumes = storage.volumes.iter().map(|v| Owner::Volume(v));
        let snapshots = storage.snapshots.iter().map(|s| Owner::Snapshot(s));
        let placed = volumes
            .chain(snapshots)
            .flat_map(|owner| owner.placed().iter().map(move |placed| (owner, placed)));
        for (owner, placed) in placed {
            let (Some(moving), Some(drive)) =
                (&placed.moving, drives.get_mut(placed.drive.as_str()))
            else {
                continue;
            };
            let copy = claims.named(&moving.name);
            let both = claims.of(owner, placed).zip(copy);
            let waits = both.is_some_and(|(leg, copy)| abroad::trouble(leg, copy).is_some());
            // One that fails, or waits for the network, does not keep the others waiting.
            match copy {
                Some(copy) if failed(copy) => {}
                _ if moving.abroad.is_some() && waits => drive.stalled += 1,
                _ => drive.moving += 1,
            }
            let copied = copy.and_then(|leg| leg.status.as_ref()?.copied);
            drive.copied += copied.unwrap_or_default().0;
        }
        Self(drives)
    }
}

fn failed(leg: &PoolLeg) -> bool {
    leg.status.as_ref().and_then(|s| s.phase) == Some(LegPhase::Failed)
}

/// Whether a drive is being emptied.
pub(super) fn is_left(pass: &Pass, drive: &str) -> bool {
    pass.evacuations.0.contains_key(drive)
}

/// Notes what keeps a leg on a drive that is emptied; `rest` of what only waits for others.
pub(super) fn wait(pass: &mut Pass, drive: &str, rest: bool, why: String) {
    if let Some(evacuation) = pass.evacuations.0.get_mut(drive) {
        evacuation.waits.insert((rest, why));
    }
}

fn words(owner: Owner) -> String {
    match owner {
        Owner::Volume(_) => format!("volume {}", owner.name()),
        Owner::Snapshot(_) => format!("snapshot {}", owner.name()),
    }
}
