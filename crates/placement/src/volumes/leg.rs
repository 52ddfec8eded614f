//! One leg at a time: what its owner wants of it, how far it is, and what becomes of legs that nobody owns.

use super::{
    Action, Owner, Pass, array, claim,
    evacuate::{self, Superseded},
    ledger,
    state::Why,
    young,
};
use std::time::Duration;
use strand_api::{LegPhase, PlacedLeg, PoolLeg, PoolLegSpec, condition, names};

/// How long a drive that had no room is remembered for the volume it had none for.
pub(super) const TRIED: Duration = Duration::from_secs(60);
/// A leg this young may belong to something that has not been seen yet.
const SETTLED: Duration = Duration::from_secs(60);

/// How far a leg is.
pub(super) enum Standing<'a> {
    /// Its bytes are there, and known to its owner.
    Usable(&'a PoolLeg),
    /// Its bytes are there, and its owner has to write down their UUID, or where they are.
    Record(PlacedLeg),
    /// Its drive has no room, or other bytes of that name; it was never made.
    Refused(&'a PoolLeg),
    /// It was never made, and will not be.
    Given,
    /// Its agent is at work.
    Progress(Why),
    /// It cannot be used.
    Broken(Why),
}

/// Sees to one leg of an owner that is not marked. `first` is the spec of a leg that has no object yet;
/// `amend` is what the owner wants of one that has.
pub(super) fn tend<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    first: impl FnOnce() -> PoolLegSpec,
    amend: impl FnOnce(&mut PoolLegSpec),
) -> Standing<'a> {
    let Some(leg) = pass.claims.of(owner, placed) else {
        return make(pass, owner, placed, first());
    };
    pass.claims.own(leg);
    if let Some(placed) = evacuate::back(pass, owner, placed, leg) {
        return Standing::Record(placed);
    }
    let mut wish = leg.spec.clone();
    wish.owner_uid = owner.uid().into();
    wish.orphaned = false;
    // A mark without a UUID means whatever its agent finds under the name; one that was set stays that harmless.
    let unnamed = leg.spec.uuid.is_none() && !leg.spec.deletion_mark;
    // Its agent knows bytes without a UUID by name and owner, which is another now, or may have forgotten them.
    if unnamed && (wish.owner_uid != leg.spec.owner_uid || claim::uuid(leg).is_none()) {
        wish.uuid = claim::uuid(leg).map(Into::into).or(placed.uuid.clone());
    }
    if let (Some(copy), Some(_), false) = (&mut wish.copy, &placed.uuid, wish.deletion_mark) {
        copy.live = true;
    }
    amend(&mut wish);
    change(pass, leg, wish);
    standing(placed, leg)
}

/// Has a snapshot's leg, which nobody attaches, exported to the node that it moves to, and to nobody else.
pub(super) fn export(pass: &mut Pass, owner: Owner, placed: &PlacedLeg, leg: &PoolLeg) {
    let wanted = evacuate::export(pass, owner, placed, &leg.spec.exports);
    let mut wish = leg.spec.clone();
    wish.exports = wanted.into_iter().collect();
    let name = claim::name(leg);
    let planned = pass.actions.iter_mut().find_map(|action| match action {
        Action::ChangeLeg { leg, spec } if leg == name => Some(spec),
        _ => None,
    });
    match planned {
        Some(spec) => spec.exports = wish.exports,
        None => change(pass, leg, wish),
    }
}

fn make<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    placed: &PlacedLeg,
    spec: PoolLegSpec,
) -> Standing<'a> {
    if let Some(other) = pass.claims.named(&placed.name) {
        if placed.uuid.is_some() && claim::uuid(other).is_none() {
            let message = format!("waiting for what the agent says about leg {}", placed.name);
            return Standing::Progress(Why::new("Claiming", message));
        }
        let name = owner.leg_name(placed.index, |name| pass.claims.taken(name));
        return Standing::Record(PlacedLeg {
            name,
            ..placed.clone()
        });
    }
    let message = format!(
        "leg {} is being made on drive {}",
        placed.name, placed.drive
    );
    pass.actions.push(Action::MakeLeg {
        leg: placed.name.clone(),
        spec: Box::new(spec),
    });
    Standing::Progress(Why::new("Making", message))
}

fn standing<'a>(placed: &PlacedLeg, leg: &'a PoolLeg) -> Standing<'a> {
    let (name, drive) = (claim::name(leg), &leg.spec.drive);
    let status = leg.status.as_ref();
    let phase = status.and_then(|s| s.phase);
    if phase == Some(LegPhase::Deleted) {
        return match placed.uuid {
            None => Standing::Given,
            Some(_) => Standing::Broken(Why::new(
                "BytesDeleted",
                format!("leg {name} was deleted from drive {drive}"),
            )),
        };
    }
    if leg.spec.deletion_mark {
        let why = format!("leg {name} on drive {drive} is being deleted");
        return match placed.uuid {
            None => Standing::Progress(Why::new("Placing", why)),
            Some(_) => Standing::Broken(Why::new("BytesDeleted", why)),
        };
    }
    if placed.uuid.is_none() && claim::never_made(leg).is_some() {
        return Standing::Refused(leg);
    }
    match phase {
        Some(LegPhase::Ready) => {
            let recorded = PlacedLeg {
                name: name.into(),
                index: placed.index,
                node_name: leg.spec.node_name.clone(),
                drive: drive.clone(),
                uuid: claim::uuid(leg).map(Into::into),
                moving: placed.moving.clone(),
                lack: placed.lack.clone(),
            };
            match &recorded.uuid {
                None => Standing::Progress(Why::new(
                    "Making",
                    format!("leg {name} on drive {drive} has no UUID yet"),
                )),
                Some(_) if recorded != *placed => Standing::Record(recorded),
                Some(_) => Standing::Usable(leg),
            }
        }
        Some(LegPhase::Failed) => {
            let told = status.and_then(|s| condition::find(&s.conditions, names::READY));
            let (reason, message) = told.map_or(("LegFailed", "its agent gives no reason"), |c| {
                (&c.reason, &c.message)
            });
            let message = format!("leg {name} on drive {drive}: {message}");
            Standing::Broken(Why::new(reason, message))
        }
        _ if leg.spec.uuid.is_some() => Standing::Progress(Why::new(
            "Claiming",
            format!("leg {name} is being looked for on drive {drive}"),
        )),
        _ => Standing::Progress(Why::new(
            "Making",
            format!("leg {name} is being made on drive {drive}"),
        )),
    }
}

/// Has every leg of a marked owner deleted; gives a sentence on what is still to go.
pub(super) fn delete_all<'a>(pass: &mut Pass<'_, 'a>, owner: Owner<'a>) -> Option<String> {
    let mut left: Vec<String> = Vec::new();
    let mut legs: Vec<&PoolLeg> = pass.claims.all(owner).collect();
    for placed in owner.placed() {
        match pass.claims.of(owner, placed) {
            Some(leg) if leg.spec.owner_uid != owner.uid() => legs.push(leg),
            Some(_) => {}
            None if !pass.drives.contains_key(placed.drive.as_str()) => {}
            None if pass.claims.named(&placed.name).is_some() => {}
            // Without its object nobody would take the bytes away.
            None => {
                let mut spec = owner.leg_spec(placed);
                spec.deletion_mark = true;
                left.push(format!("{} on {}", placed.name, placed.drive));
                pass.actions.push(Action::MakeLeg {
                    leg: placed.name.clone(),
                    spec: Box::new(spec),
                });
            }
        }
    }
    for leg in legs {
        pass.claims.own(leg);
        let mut wish = leg.spec.clone();
        wish.owner_uid = owner.uid().into();
        wish.orphaned = false;
        wish.deletion_mark = true;
        let marked = leg.spec.deletion_mark;
        change(pass, leg, wish);
        if !(marked && gone(pass, leg)) {
            left.push(format!("{} on {}", claim::name(leg), leg.spec.drive));
        }
    }
    (!left.is_empty()).then(|| left.join(", "))
}

/// Has the legs that an owner names deleted, which are of no use to it; whether all of them are seen marked, or cannot be.
pub(super) fn give_up<'a>(pass: &mut Pass<'_, 'a>, owner: Owner<'a>) -> bool {
    let mut marked = true;
    for placed in owner.placed() {
        match pass.claims.of(owner, placed) {
            Some(leg) if leg.spec.deletion_mark => {}
            Some(leg) => {
                let mut wish = leg.spec.clone();
                wish.deletion_mark = true;
                change(pass, leg, wish);
                marked = false;
            }
            None if !pass.drives.contains_key(placed.drive.as_str()) => {}
            None if pass.claims.named(&placed.name).is_some() => {}
            // It may be about to be seen; without its object nobody would take the bytes away.
            None => {
                let mut spec = owner.leg_spec(placed);
                spec.deletion_mark = true;
                pass.actions.push(Action::MakeLeg {
                    leg: placed.name.clone(),
                    spec: Box::new(spec),
                });
                marked = false;
            }
        }
    }
    marked
}

/// Legs that say they belong to an owner and that it does not name: those that were never made go,
/// those that hold bytes are kept for an administrator.
pub(super) fn superseded<'a>(pass: &mut Pass<'_, 'a>, owner: Owner<'a>, complete: bool) {
    let array = match owner {
        Owner::Volume(volume) if volume.spec.array.is_some() => Some(volume),
        Owner::Volume(_) | Owner::Snapshot(_) => None,
    };
    for leg in pass.claims.all(owner) {
        if pass.claims.owned(leg) {
            continue;
        }
        pass.claims.own(leg);
        let mut wish = leg.spec.clone();
        if leg.spec.deletion_mark {
            if gone(pass, leg) && (complete || !young(&leg.metadata, pass.now, TRIED)) {
                drop(pass, leg);
            }
            continue;
        }
        let superseded = evacuate::superseded(pass, owner, leg);
        if claim::never_made(leg).is_some() || superseded == Superseded::MayGo {
            wish.deletion_mark = true;
        } else if superseded == Superseded::Waits {
            continue;
        } else if let Some(volume) = array {
            // Its bytes are of no use any more once those that are named have all of the volume's.
            wish.exports.clear();
            wish.deletion_mark = complete && array::is_whole(pass, volume);
        } else if claim::uuid(leg).is_some() {
            wish.orphaned = true;
        }
        change(pass, leg, wish);
    }
}

/// Legs that nobody owns.
pub(super) fn plan(pass: &mut Pass) {
    let legs: Vec<&PoolLeg> = pass.storage.legs.clone();
    for leg in legs {
        if pass.claims.owned(leg) {
            continue;
        }
        if !ledger::holds_bytes(leg) || (leg.spec.deletion_mark && gone(pass, leg)) {
            drop(pass, leg);
            continue;
        }
        let settled = !young(&leg.metadata, pass.now, SETTLED);
        let mut wish = leg.spec.clone();
        wish.orphaned |= settled && !leg.spec.deletion_mark;
        wish.deletion_mark |= settled && claim::never_made(leg).is_some();
        change(pass, leg, wish);
    }
}

fn change(pass: &mut Pass, leg: &PoolLeg, wish: PoolLegSpec) {
    if wish != leg.spec {
        pass.actions.push(Action::ChangeLeg {
            leg: claim::name(leg).into(),
            spec: Box::new(wish),
        });
    }
}

fn drop(pass: &mut Pass, leg: &PoolLeg) {
    pass.actions.push(Action::DropLeg {
        leg: claim::name(leg).into(),
    });
}

/// Whether a marked leg's bytes are gone: its agent says so, or its drive was forgotten.
fn gone(pass: &Pass, leg: &PoolLeg) -> bool {
    !ledger::holds_bytes(leg) || !pass.drives.contains_key(leg.spec.drive.as_str())
}
