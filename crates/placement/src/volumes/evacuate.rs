//! Drives that are emptied: each leg is copied to another drive of its node, and the copy takes its place once it is whole.
//!
//! ```text
//!   spec.legs: A            the leg that is attached
//!   spec.legs: A moving B   B is made as a copy of A; nobody is granted an attachment
//!   spec.legs: B            B is whole; it is called live, and when its agent has seen that, A is marked
//! ```
//! Whoever wants to attach the volume before the last step gets A, and B goes.

use super::{
    Action, Owner, Pass, Storage,
    claim::{self, Source},
    ledger, place,
    state::ailment,
    young,
};
use crate::operation::{self, Denial};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use strand_api::{
    ByteQuantity, Drive, DriveOperation, DriveOperationStatus, LegCopy, LegMove, LegPhase,
    OperationPhase, OperationType, PlacedLeg, PoolLeg, condition, names,
};

/// Bytes a second, where an operation does not say.
const RATE: ByteQuantity = ByteQuantity(200 << 20);
/// A cordon may be seen this much later than the operation that needs it.
const CORDON_SEEN: Duration = Duration::from_secs(10);
/// How many of the legs that wait are named.
const NAMED: usize = 3;
/// Copies from one drive at once, besides those that fail.
const AT_ONCE: usize = 1;

/// The drives that are being emptied.
pub(super) struct Evacuations<'a>(BTreeMap<&'a str, Evacuation>);

struct Evacuation {
    rate: ByteQuantity,
    /// Copies under way.
    moving: usize,
    /// Bytes of copies under way that are there.
    copied: u64,
    /// What keeps legs on the drive, a sentence each; those of copies under way first.
    waits: BTreeSet<(bool, String)>,
}

/// What becomes of an entry of an owner's `spec.legs`.
pub(super) enum Step {
    /// It stays.
    Stay,
    /// It is this from now on.
    Record(PlacedLeg),
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
                copied: 0,
                waits: BTreeSet::new(),
            });
            entry.rate = entry.rate.min(rate);
        }
        let volumes = storage.volumes.iter().flat_map(|v| &v.spec.legs);
        let snapshots = storage.snapshots.iter().flat_map(|s| &s.spec.legs);
        for placed in volumes.chain(snapshots) {
            let (Some(moving), Some(drive)) =
                (&placed.moving, drives.get_mut(placed.drive.as_str()))
            else {
                continue;
            };
            let copy = claims.named(&moving.name);
            // One that fails does not keep the others waiting.
            if !copy.is_some_and(failed) {
                drive.moving += 1;
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

/// Whether the copy of a moved leg is known as the live one to its agent: no attachment reaches what it was copied from any more.
fn seen_live(leg: &PoolLeg) -> bool {
    let live = leg.spec.copy.as_ref().is_some_and(|copy| copy.live);
    let seen = leg.status.as_ref().and_then(|s| s.observed_generation);
    live && seen >= leg.metadata.generation
}

/// Whether a volume with this leg must not be attached just now: another leg may still be taken for it.
pub(super) fn settling(pass: &Pass, owner: Owner, placed: &PlacedLeg, leg: &PoolLeg) -> bool {
    let unsettled = |copy: &LegCopy| {
        let before = before(pass, owner, copy);
        before.is_some_and(|before| !(before.spec.deletion_mark && seen_live(leg)))
    };
    placed.moving.is_some() || leg.spec.copy.as_ref().is_some_and(unsettled)
}

/// The leg that another was copied from.
fn before<'a>(pass: &Pass<'_, 'a>, owner: Owner, copy: &LegCopy) -> Option<&'a PoolLeg> {
    let leg = pass.claims.with_uuid(&copy.uuid)?;
    (leg.spec.owner_uid == owner.uid() && ledger::holds_bytes(leg)).then_some(leg)
}

/// Whether a leg that its owner does not name any more may go: what took its place holds all of it, or it never was more than a copy of
/// what its owner names.
pub(super) fn superseded(pass: &Pass, owner: Owner, leg: &PoolLeg) -> Superseded {
    let named = owner
        .placed()
        .iter()
        .filter_map(|p| pass.claims.of(owner, p));
    let copy_of = |of: &PoolLeg| {
        let copy = of.spec.copy.as_ref();
        copy.is_some_and(|copy| claim::uuid(leg) == Some(&copy.uuid))
    };
    if let Some(successor) = named.clone().find(|l| copy_of(l)) {
        return match seen_live(successor) {
            true => Superseded::MayGo,
            false => Superseded::Waits,
        };
    }
    let mut moving = owner.placed().iter().filter_map(|p| p.moving.as_ref());
    match &leg.spec.copy {
        // The plan to give it up may be overtaken by the one that names it: only once neither is possible it goes.
        _ if moving.any(|to| to.name == claim::name(leg)) => Superseded::Waits,
        Some(copy) if !copy.live => {
            let whole = |l: &PoolLeg| claim::uuid(l) == Some(&copy.uuid) && !l.spec.deletion_mark;
            match named.into_iter().any(whole) {
                true => Superseded::MayGo,
                false => Superseded::No,
            }
        }
        _ => Superseded::No,
    }
}

/// Where an owner's bytes are after all, if a copy that it names was marked before it was called live: nobody ever wrote to that.
pub(super) fn back(
    pass: &Pass,
    owner: Owner,
    placed: &PlacedLeg,
    leg: &PoolLeg,
) -> Option<PlacedLeg> {
    let copy = leg.spec.copy.as_ref().filter(|copy| !copy.live)?;
    let before = before(pass, owner, copy)
        .filter(|before| leg.spec.deletion_mark && !before.spec.deletion_mark)?;
    Some(PlacedLeg {
        name: claim::name(before).into(),
        index: placed.index,
        node_name: before.spec.node_name.clone(),
        drive: before.spec.drive.clone(),
        uuid: claim::uuid(before).map(Into::into),
        moving: None,
    })
}

/// What [`superseded`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Superseded {
    /// Neither.
    No,
    /// Not yet.
    Waits,
    /// It may be marked.
    MayGo,
}

/// What keeps an owner's legs where they are, if anything does.
fn bound(pass: &Pass, owner: Owner) -> Option<String> {
    let volume = match owner {
        Owner::Snapshot(snapshot) => {
            let copied = pass.claims.wanted.contains(&Source::Snapshot(owner.name()));
            let name = &snapshot.spec.volume;
            return copied.then(|| format!("snapshot of {name}: a volume is being made from it"));
        }
        Owner::Volume(volume) => volume,
    };
    let name = owner.name();
    let wished = volume.spec.attach_to.iter().map(|a| &a.node);
    let granted = volume.status.iter().flat_map(|s| &s.attachments);
    if let Some(node) = wished.chain(granted.map(|a| &a.node)).next() {
        return Some(format!("volume {name} is attached to node {node}"));
    }
    let copied = pass.claims.wanted.contains(&Source::Volume(name));
    copied.then(|| format!("volume {name} is being copied"))
}

/// Decides on a leg that is there and whole.
pub(super) fn step<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
) -> Step {
    let drive = leg.spec.drive.as_str();
    let bound = bound(pass, owner);
    let Some(rate) = pass.evacuations.0.get(drive).map(|e| e.rate) else {
        return match placed.moving {
            Some(_) => stop(placed),
            None => Step::Stay,
        };
    };
    match (&placed.moving, bound) {
        (moving, Some(why)) => {
            wait(pass, drive, false, why);
            moving.as_ref().map_or(Step::Stay, |_| stop(placed))
        }
        (None, None) => begin(pass, owner, placed, leg),
        (Some(moving), None) => go_on(pass, owner, placed, leg, moving, rate),
    }
}

fn stop(placed: &PlacedLeg) -> Step {
    Step::Record(PlacedLeg {
        moving: None,
        ..placed.clone()
    })
}

fn wait(pass: &mut Pass, drive: &str, rest: bool, why: String) {
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

/// Chooses where a leg goes to.
fn begin<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
) -> Step {
    let drive = leg.spec.drive.as_str();
    if let Some((true, why)) = ailment(pass, leg) {
        wait(pass, drive, false, why.message);
        return Step::Stay;
    }
    let earlier = leg.spec.copy.as_ref();
    if earlier.is_some_and(|copy| before(pass, owner, copy).is_some()) {
        wait(
            pass,
            drive,
            true,
            format!("{} has just moved here", words(owner)),
        );
        return Step::Stay;
    }
    let Some(pool) = pass.ledger.of(drive).map(|account| account.pool) else {
        return Step::Stay;
    };
    let tried = pass.claims.all(owner).map(|leg| leg.spec.drive.as_str());
    let request = place::Request {
        pool,
        size: ledger::size(leg),
        provisioning: leg.spec.provisioning,
        node: place::Node::Only(&leg.spec.node_name),
        beside: None,
        tried: tried.chain([drive]).collect(),
    };
    let chosen = place::choose(&pass.ledger, &request).map(|account| account.drive);
    let to = match chosen {
        Ok(to) => to,
        Err(misfit) => {
            wait(pass, drive, false, format!("{}: {misfit}", words(owner)));
            return Step::Stay;
        }
    };
    let Some(evacuation) = pass.evacuations.0.get_mut(drive) else {
        return Step::Stay;
    };
    if evacuation.moving >= AT_ONCE {
        wait(
            pass,
            drive,
            true,
            format!("{} waits for its turn", words(owner)),
        );
        return Step::Stay;
    }
    evacuation.moving += 1;
    pass.ledger
        .promise(to, leg.spec.provisioning, ledger::size(leg));
    Step::Record(PlacedLeg {
        moving: Some(LegMove {
            name: owner.leg_name(placed.index, |name| pass.claims.taken(name)),
            drive: to.into(),
        }),
        ..placed.clone()
    })
}

fn go_on<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
    moving: &LegMove,
    rate: ByteQuantity,
) -> Step {
    let Some(uuid) = claim::uuid(leg) else {
        return stop(placed);
    };
    let generation = match owner {
        Owner::Snapshot(_) => 0,
        Owner::Volume(volume) => {
            let granted = volume.status.as_ref().map(|s| s.attachment_generation);
            let stored = leg.status.as_ref().and_then(|s| s.attachment_generation);
            granted.max(stored).unwrap_or(0) + 1
        }
    };
    let Some(copy) = pass.claims.named(&moving.name) else {
        let mut spec = leg.spec.clone();
        spec.drive.clone_from(&moving.drive);
        spec.size = ByteQuantity(ledger::size(leg));
        (spec.source, spec.uuid) = (None, None);
        spec.copy = Some(LegCopy {
            uuid: uuid.into(),
            drive: leg.spec.drive.clone(),
            generation,
            rate,
            live: false,
        });
        let why = format!("{} is about to be copied", words(owner));
        wait(pass, &leg.spec.drive, false, why);
        pass.actions.push(Action::MakeLeg {
            leg: moving.name.clone(),
            spec: Box::new(spec),
        });
        return Step::Stay;
    };
    let ours = copy.spec.owner_uid == owner.uid()
        && copy.spec.drive == moving.drive
        && !copy.spec.deletion_mark
        && !copy.spec.orphaned
        && claim::never_made(copy).is_none()
        && copy
            .spec
            .copy
            .as_ref()
            .is_some_and(|of| of.uuid == uuid && of.generation == generation && !of.live);
    let status = copy.status.clone().unwrap_or_default();
    if !ours || status.phase == Some(LegPhase::Deleted) {
        return stop(placed);
    }
    pass.claims.own(copy);
    let of = ByteQuantity(ledger::size(leg)).rounded();
    match (status.phase, claim::uuid(copy)) {
        (Some(LegPhase::Ready), Some(uuid)) if status.size.0 >= ledger::size(leg) => {
            Step::Record(PlacedLeg {
                name: moving.name.clone(),
                index: placed.index,
                node_name: copy.spec.node_name.clone(),
                drive: copy.spec.drive.clone(),
                uuid: Some(uuid.into()),
                moving: None,
            })
        }
        (Some(LegPhase::Ready), Some(_)) => stop(placed),
        (Some(LegPhase::Failed), _) => {
            let told = condition::find(&status.conditions, names::READY);
            let why = told.map_or("its agent gives no reason", |c| c.message.as_str());
            let words = words(owner);
            wait(pass, &leg.spec.drive, false, format!("{words}: {why}"));
            Step::Stay
        }
        _ => {
            let there = status.copied.unwrap_or_default().rounded();
            let why = format!(
                "{}: {there} of {of} copied to {}",
                words(owner),
                moving.drive
            );
            wait(pass, &leg.spec.drive, false, why);
            Step::Stay
        }
    }
}

/// What operations say.
pub(super) fn tell(pass: &mut Pass) {
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
    for leg in legs.iter().filter(|leg| leg.spec.orphaned) {
        let name = claim::name(leg);
        let why = format!(
            "leg {name} has no owner: take it back with `strandctl volumes import`, and delete what is not needed"
        );
        wait(pass, drive, false, why);
    }
    let volumes = pass.storage.volumes.iter().flat_map(|v| &v.spec.legs);
    let snapshots = pass.storage.snapshots.iter().flat_map(|s| &s.spec.legs);
    let placed = volumes.chain(snapshots).any(|leg| leg.drive == drive);
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
