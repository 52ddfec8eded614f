//! What operations say of drives that are emptied.

use super::super::{Action, Owner, Pass, claim, ledger};
use super::{Leave, leave, wait};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use strand_api::{
    ByteQuantity, DriveOperation, DriveOperationStatus, OperationPhase, PlacedLeg, PoolLeg,
    condition,
};

/// How many of the legs that wait are named.
const NAMED: usize = 3;

/// What operations say.
pub fn tell(pass: &mut Pass) {
    let storage = pass.storage;
    for operation in &storage.operations {
        let status = match leave(storage, operation, pass.now) {
            Leave::None => continue,
            Leave::Denied(why) => ended(pass, operation, OperationPhase::Failed, why),
            Leave::Goes => progress(pass, operation),
        };
        if operation.status.as_ref() != Some(&status) {
            pass.actions.push(Action::SetOperationStatus {
                operation: operation.metadata.name.clone().unwrap_or_default(),
                status: Box::new(status),
            });
        }
    }
}

fn progress(pass: &mut Pass, operation: &DriveOperation) -> DriveOperationStatus {
    let drive = operation.spec.drive.as_str();
    let here = |leg: &&&PoolLeg| leg.spec.drive == drive && ledger::holds_bytes(leg);
    let legs: Vec<&PoolLeg> = pass.storage.legs.iter().filter(here).copied().collect();
    let kept = |leg: &&&PoolLeg| leg.spec.orphaned && !leg.spec.deletion_mark;
    for leg in legs.iter().filter(kept) {
        let name = claim::name(leg);
        let why = format!(
            "leg {name} has no owner: take it back with `strandctl volumes import`, and delete what is not needed"
        );
        wait(pass, drive, false, why);
    }
    let volumes = pass.storage.volumes.iter().flat_map(|v| &v.spec.legs);
    let snapshots = pass.storage.snapshots.iter().flat_map(|s| &s.spec.legs);
    // What is on its way here will have to leave again.
    let comes = |leg: &PlacedLeg| leg.moving.as_ref().is_some_and(|to| to.drive == drive);
    let placed = volumes
        .chain(snapshots)
        .any(|leg| leg.drive == drive || comes(leg));
    let moved = taken_over(pass);
    let stays = legs
        .iter()
        .filter(|leg| claim::uuid(leg).is_none_or(|uuid| !moved.contains(uuid)));
    let left: u64 = stays.map(|leg| ledger::size(leg)).sum();
    let told = operation.status.clone().unwrap_or_default();
    let total = told.total_bytes.unwrap_or_default().0.max(left);
    let evacuation = pass.evacuations.0.get(drive);
    let copied = evacuation.map_or(0, |e| e.copied);
    let moved = (total - left + copied).min(total);
    if legs.is_empty() && !placed {
        let message = format!(
            "drive {drive} holds no leg any more ({} moved or gone); it can be released or replaced",
            ByteQuantity(total).rounded()
        );
        let mut status = ended(pass, operation, OperationPhase::Succeeded, message);
        status.progress_percent = Some(100);
        (status.total_bytes, status.moved_bytes) =
            (Some(ByteQuantity(total)), Some(ByteQuantity(total)));
        return status;
    }
    let waits: Vec<&str> = evacuation
        .iter()
        .flat_map(|e| &e.waits)
        .map(|(_, why)| why.as_str())
        .collect();
    let (moved_words, total_words) = (ByteQuantity(moved).rounded(), ByteQuantity(total).rounded());
    let mut message = format!("{moved_words} of {total_words} moved");
    for why in waits.iter().take(NAMED) {
        message.push_str("; ");
        message.push_str(why);
    }
    if waits.len() > NAMED {
        message.push_str(&format!("; and {} more", waits.len() - NAMED));
    }
    let tens = u128::from(moved) * 10;
    DriveOperationStatus {
        phase: Some(OperationPhase::Running),
        message,
        progress_percent: Some(tens.checked_div(total.into()).map_or(0, |n| n as i64 * 10)),
        total_bytes: Some(ByteQuantity(total)),
        moved_bytes: Some(ByteQuantity(moved)),
        conditions: Vec::new(),
    }
}

/// The UUIDs of bytes whose copy has taken their place.
fn taken_over(pass: &Pass) -> BTreeSet<String> {
    let volumes = pass.storage.volumes.iter().map(|v| Owner::Volume(v));
    let snapshots = pass.storage.snapshots.iter().map(|s| Owner::Snapshot(s));
    let named = volumes.chain(snapshots).flat_map(|owner| {
        let placed = owner.placed().iter();
        placed.filter_map(move |placed| pass.claims.of(owner, placed))
    });
    let copies = named.filter_map(|leg| leg.spec.copy.as_ref());
    copies.map(|copy| copy.uuid.clone()).collect()
}

fn ended(
    pass: &Pass,
    operation: &DriveOperation,
    phase: OperationPhase,
    message: String,
) -> DriveOperationStatus {
    let told = operation.status.clone().unwrap_or_default();
    let reason = match phase {
        OperationPhase::Succeeded => "Succeeded",
        _ => "Failed",
    };
    let complete = condition::condition(
        &told.conditions,
        &Time(pass.now),
        "Complete",
        true,
        reason,
        message.clone(),
        operation.metadata.generation,
    );
    DriveOperationStatus {
        phase: Some(phase),
        message,
        conditions: vec![complete],
        ..told
    }
}
