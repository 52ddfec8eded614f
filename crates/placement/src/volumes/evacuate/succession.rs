//! Which of a leg and of the copy that is to take its place holds an owner's bytes.

use super::super::{Owner, Pass, claim, ledger, state::unserved};
use strand_api::{LegCopy, LegPhase, PlacedLeg, PoolLeg, PoolVolume};

/// Whether the copy of a moved leg is known as the live one to its agent, which has its bytes: no attachment reaches what it was copied from any
/// more.
fn seen_live(leg: &PoolLeg) -> bool {
    let live = leg.spec.copy.as_ref().is_some_and(|copy| copy.live);
    let status = leg.status.as_ref();
    let seen = status.and_then(|s| s.observed_generation);
    let there = status.and_then(|s| s.phase) == Some(LegPhase::Ready);
    live && there && seen >= leg.metadata.generation
}

/// Why a volume with this leg must not be attached just now, if it must not: another leg may still be taken for it.
pub fn settling(pass: &Pass, owner: Owner, placed: &PlacedLeg, leg: &PoolLeg) -> Option<String> {
    let copy = leg.spec.copy.as_ref();
    let before = copy.and_then(|copy| Some((copy, before(pass, owner, copy)?)));
    let unsettled = before.filter(|(_, of)| !(of.spec.deletion_mark && seen_live(leg)));
    match unsettled {
        Some((copy, of)) if is_newer(of, copy) => Some(format!(
            "leg {} was attached after leg {} was copied from it, and may have what that lacks; both stay as they are, see docs/storage.md",
            claim::name(of),
            claim::name(leg)
        )),
        None if placed.moving.is_none() => None,
        _ => Some("it is just being moved to another drive".into()),
    }
}

/// Whether somebody was let in to a leg after it was copied. No step leads there; what is told of the leg may have been older than it is, as after
/// a restored backup.
fn is_newer(of: &PoolLeg, copy: &LegCopy) -> bool {
    let stored = of.status.as_ref().and_then(|s| s.attachment_generation);
    stored > Some(copy.generation)
}

/// The leg that another was copied from.
pub(super) fn before<'a>(pass: &Pass<'_, 'a>, owner: Owner, copy: &LegCopy) -> Option<&'a PoolLeg> {
    let leg = pass.claims.with_uuid(&copy.uuid)?;
    (leg.spec.owner_uid == owner.uid() && ledger::holds_bytes(leg)).then_some(leg)
}

/// Whether a leg that its owner does not name any more may go: what took its place holds all of it, or it never was more than a copy of
/// what its owner names.
pub fn superseded(pass: &Pass, owner: Owner, leg: &PoolLeg) -> Superseded {
    let named = owner
        .placed()
        .iter()
        .filter_map(|p| pass.claims.of(owner, p));
    let copy_of = |of: &PoolLeg| {
        let copy = of.spec.copy.as_ref();
        copy.is_some_and(|copy| claim::uuid(leg) == Some(&copy.uuid))
    };
    if let Some(successor) = named.clone().find(|l| copy_of(l)) {
        // While nobody serves that one, this may be the last that is left of the bytes.
        let newer = successor.spec.copy.as_ref();
        let newer = newer.is_some_and(|copy| is_newer(leg, copy));
        return match seen_live(successor) && unserved(pass, successor).is_none() && !newer {
            true => Superseded::MayGo,
            false => Superseded::Waits,
        };
    }
    let mut moving = owner.placed().iter().filter_map(|p| p.moving.as_ref());
    match &leg.spec.copy {
        // The plan to give it up may be overtaken by the one that names it: only once neither is possible it goes.
        _ if moving.any(|to| to.name == claim::name(leg)) => Superseded::Waits,
        Some(copy) if !copy.live => {
            let whole = |l: &&PoolLeg| claim::uuid(l) == Some(&copy.uuid) && !l.spec.deletion_mark;
            let of_the_same = |l: &PoolLeg| {
                let other = l.spec.copy.as_ref();
                other.is_some_and(|other| other.uuid == copy.uuid) && seen_live(l)
            };
            match named.clone().find(whole) {
                // As above: one that is whole outlives what it is a copy of.
                Some(of) if claim::uuid(leg).is_some() && unserved(pass, of).is_some() => {
                    Superseded::Waits
                }
                Some(_) => Superseded::MayGo,
                None if named.into_iter().any(of_the_same) => Superseded::MayGo,
                None => Superseded::No,
            }
        }
        _ => Superseded::No,
    }
}

/// Where an owner's bytes are after all, if a copy that it names was marked before it was called live: nobody ever wrote to that.
pub fn back(pass: &Pass, owner: Owner, placed: &PlacedLeg, leg: &PoolLeg) -> Option<PlacedLeg> {
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
        lack: None,
    })
}

/// Where else all bytes of a volume of one leg are, if nobody serves that leg: in what it was copied from, or in what was copied from it. Neither
/// goes meanwhile.
pub fn kept(pass: &Pass, volume: &PoolVolume) -> Option<String> {
    let owner = Owner::Volume(volume);
    let [placed] = volume.spec.legs.as_slice() else {
        return None;
    };
    let leg = pass.claims.of(owner, placed);
    let phase = |leg: &PoolLeg| leg.status.as_ref().and_then(|s| s.phase);
    let serves = |leg: &PoolLeg| {
        matches!(phase(leg), Some(LegPhase::Ready | LegPhase::Orphaned))
            && unserved(pass, leg).is_none()
    };
    if leg.is_some_and(serves) {
        return None;
    }
    let from = leg.and_then(|leg| leg.spec.copy.as_ref());
    // By which copy one of them came from the other.
    let by = |other: &PoolLeg| {
        let to = other.spec.copy.as_ref();
        let forth = to.filter(|copy| Some(&copy.uuid) == placed.uuid.as_ref());
        let back = from.filter(|copy| claim::uuid(other) == Some(&copy.uuid));
        forth.or(back).map(|copy| copy.generation)
    };
    let mut others = pass.claims.all(owner).filter(|other| {
        let size = other.status.as_ref().map_or(0, |s| s.size.0);
        claim::uuid(other).is_some()
            && !other.spec.deletion_mark
            && serves(other)
            && leg.is_none_or(|leg| size >= ledger::size(leg))
    });
    let (other, generation) = others.find_map(|other| Some((other, by(other)?)))?;
    let stored = leg.and_then(|leg| leg.status.as_ref()?.attachment_generation);
    let known = stored.max(volume.status.as_ref().map(|s| s.attachment_generation));
    let when = match known > Some(generation) {
        true => format!(
            " as it was before attachment {}; later writes, if there were any, are not in it",
            generation + 1
        ),
        false => String::new(),
    };
    let (name, drive, node) = (claim::name(other), &other.spec.drive, &other.spec.node_name);
    Some(format!(
        "; leg {name} on drive {drive} of node {node} is a whole copy of it{when}: see docs/storage.md"
    ))
}

/// What [`superseded`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Superseded {
    /// Neither.
    No,
    /// Not yet.
    Waits,
    /// It may be marked.
    MayGo,
}
