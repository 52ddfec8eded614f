//! The next step of one leg: where it goes to, its copy, and that this takes its place.

use super::super::{
    Action, Owner, Pass,
    claim::{self, Source},
    ledger, place,
    state::ailment,
};
use super::{succession::before, wait, words};
use strand_api::{
    ByteQuantity, LegCopy, LegMove, LegPhase, PlacedLeg, PoolLeg, PoolLegSpec, condition, names,
};

/// Copies from one drive at once, besides those that fail.
const AT_ONCE: usize = 1;

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

/// Decides on a leg that lacks writes of its volume: it is not moved, but copied to, or replaced elsewhere.
pub fn lacks(pass: &mut Pass, owner: Owner, placed: &PlacedLeg) {
    let why = format!(
        "{} is degraded, and leg {} has to be whole first",
        words(owner),
        placed.name
    );
    wait(pass, &placed.drive, false, why);
}

/// Decides on a leg that is there and whole: what its entry of the owner's `spec.legs` becomes, if that changes.
pub fn step<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
) -> Option<PlacedLeg> {
    let drive = leg.spec.drive.as_str();
    let bound = bound(pass, owner);
    let Some(rate) = pass.evacuations.0.get(drive).map(|e| e.rate) else {
        return match placed.moving {
            Some(_) => stop(placed),
            None => None,
        };
    };
    match (&placed.moving, bound) {
        (moving, Some(why)) => {
            wait(pass, drive, false, why);
            moving.as_ref().and_then(|_| stop(placed))
        }
        (None, None) => begin(pass, owner, placed, leg),
        (Some(moving), None) => go_on(pass, owner, placed, leg, moving, rate),
    }
}

fn stop(placed: &PlacedLeg) -> Option<PlacedLeg> {
    Some(PlacedLeg {
        moving: None,
        ..placed.clone()
    })
}

/// Chooses where a leg goes to.
fn begin<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
) -> Option<PlacedLeg> {
    let drive = leg.spec.drive.as_str();
    if let Some((true, why)) = ailment(pass, leg) {
        wait(pass, drive, false, why.message);
        return None;
    }
    let earlier = leg.spec.copy.as_ref();
    if earlier.is_some_and(|copy| before(pass, owner, copy).is_some()) {
        wait(
            pass,
            drive,
            true,
            format!("{} has just moved here", words(owner)),
        );
        return None;
    }
    let to = elsewhere(pass, owner, leg)?;
    let evacuation = pass.evacuations.0.get_mut(drive)?;
    if evacuation.moving >= AT_ONCE {
        wait(
            pass,
            drive,
            true,
            format!("{} waits for its turn", words(owner)),
        );
        return None;
    }
    evacuation.moving += 1;
    pass.ledger
        .promise(to, leg.spec.provisioning, ledger::size(leg));
    Some(PlacedLeg {
        moving: Some(LegMove {
            name: owner.leg_name(placed.index, |name| pass.claims.taken(name)),
            drive: to.into(),
        }),
        ..placed.clone()
    })
}

/// Another drive of a leg's node that has room for it; else why there is none is told.
fn elsewhere<'a>(pass: &mut Pass<'_, 'a>, owner: Owner<'a>, leg: &'a PoolLeg) -> Option<&'a str> {
    let drive = leg.spec.drive.as_str();
    let pool = pass.ledger.of(drive).map(|account| account.pool)?;
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
    if let Err(misfit) = &chosen {
        wait(pass, drive, false, format!("{}: {misfit}", words(owner)));
    }
    chosen.ok()
}

fn go_on<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
    moving: &LegMove,
    rate: ByteQuantity,
) -> Option<PlacedLeg> {
    let Some(uuid) = claim::uuid(leg) else {
        return stop(placed);
    };
    let generation = next_generation(owner, leg);
    let Some(copy) = pass.claims.named(&moving.name) else {
        let of = LegCopy {
            uuid: uuid.into(),
            drive: leg.spec.drive.clone(),
            generation,
            rate,
            live: false,
        };
        let why = format!("{} is about to be copied", words(owner));
        wait(pass, &leg.spec.drive, false, why);
        pass.actions.push(Action::MakeLeg {
            leg: moving.name.clone(),
            spec: Box::new(PoolLegSpec {
                drive: moving.drive.clone(),
                size: ByteQuantity(ledger::size(leg)),
                source: None,
                uuid: None,
                copy: Some(of),
                ..leg.spec.clone()
            }),
        });
        return None;
    };
    let ours = copy.spec.owner_uid == owner.uid()
        && copy.spec.drive == moving.drive
        && !copy.spec.deletion_mark
        && !copy.spec.orphaned
        && copy
            .spec
            .copy
            .as_ref()
            .is_some_and(|of| of.uuid == uuid && of.generation == generation && !of.live);
    let status = copy.status.clone().unwrap_or_default();
    if !ours || status.phase == Some(LegPhase::Deleted) {
        return stop(placed);
    }
    // One that did not fit stays until another drive has room: else it would be tried there again and again.
    if claim::never_made(copy).is_some() && elsewhere(pass, owner, leg).is_some() {
        return stop(placed);
    }
    pass.claims.own(copy);
    let of = ByteQuantity(ledger::size(leg)).rounded();
    match (status.phase, claim::uuid(copy)) {
        (Some(LegPhase::Ready), Some(uuid)) if status.size.0 >= ledger::size(leg) => {
            Some(PlacedLeg {
                name: moving.name.clone(),
                index: placed.index,
                node_name: copy.spec.node_name.clone(),
                drive: copy.spec.drive.clone(),
                uuid: Some(uuid.into()),
                moving: None,
                lack: None,
            })
        }
        (Some(LegPhase::Ready), Some(_)) => stop(placed),
        (Some(LegPhase::Failed), _) => {
            let told = condition::find(&status.conditions, names::READY);
            let why = told.map_or("its agent gives no reason", |c| c.message.as_str());
            let words = words(owner);
            wait(pass, &leg.spec.drive, false, format!("{words}: {why}"));
            None
        }
        _ => {
            let there = status.copied.unwrap_or_default().rounded();
            let why = format!(
                "{}: {there} of {of} copied to {}",
                words(owner),
                moving.drive
            );
            wait(pass, &leg.spec.drive, false, why);
            None
        }
    }
}

/// The attachment generation that a copy is made with: whoever was attached before it comes too late.
fn next_generation(owner: Owner, leg: &PoolLeg) -> i64 {
    let Owner::Volume(volume) = owner else {
        return 0;
    };
    let granted = volume.status.as_ref().map(|s| s.attachment_generation);
    let stored = leg.status.as_ref().and_then(|s| s.attachment_generation);
    granted.max(stored).unwrap_or(0) + 1
}
