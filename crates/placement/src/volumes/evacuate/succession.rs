//! Which of a leg and of the copy that is to take its place holds an owner's bytes.

use super::super::{Owner, Pass, claim, ledger};
use strand_api::{LegCopy, PlacedLeg, PoolLeg};

/// Whether the copy of a moved leg is known as the live one to its agent: no attachment reaches what it was copied from any more.
fn seen_live(leg: &PoolLeg) -> bool {
    let live = leg.spec.copy.as_ref().is_some_and(|copy| copy.live);
    let seen = leg.status.as_ref().and_then(|s| s.observed_generation);
    live && seen >= leg.metadata.generation
}

/// Whether a volume with this leg must not be attached just now: another leg may still be taken for it.
pub fn settling(pass: &Pass, owner: Owner, placed: &PlacedLeg, leg: &PoolLeg) -> bool {
    let unsettled = |copy: &LegCopy| {
        let before = before(pass, owner, copy);
        before.is_some_and(|before| !(before.spec.deletion_mark && seen_live(leg)))
    };
    placed.moving.is_some() || leg.spec.copy.as_ref().is_some_and(unsettled)
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
