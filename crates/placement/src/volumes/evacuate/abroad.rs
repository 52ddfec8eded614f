//! Legs that move to another node: which generation they are read by there, to whom they are exported for it, and when what was read counts.
//!
//! The generation is recorded in the volume's status before the leg is exported as it, so that no attachment ever has it. The leg's record has it
//! from then on: who comes with an older one is refused, and once a newer one was there, this one is never lent again. So a leg that is exported
//! as it was, and has seen no newer generation, has not been written to since the copy began (`docs/decisions/0022`).

use super::super::{
    Owner, Pass, claim, ledger, loss,
    state::{ailment, unserved},
};
use strand_api::{
    Abroad, LegExport, LegMove, PlacedLeg, PoolLeg, PoolVolume, Redundancy, condition, names,
};

/// The generation that a leg is read by while it moves: above all that anybody of its owner's was let in by.
pub fn generation(pass: &Pass, owner: Owner) -> i64 {
    let legs = owner.placed().iter();
    let legs = legs.filter_map(|placed| pass.claims.of(owner, placed));
    let known = legs.flat_map(|leg| {
        let told = leg.status.as_ref().and_then(|s| s.attachment_generation);
        let exports = leg.spec.exports.iter().map(|export| export.generation);
        exports.chain(told)
    });
    known.chain(recorded(owner)).max().unwrap_or(0) + 1
}

/// The highest generation that an owner's status has given away; a snapshot is attached to nobody.
fn recorded(owner: Owner) -> Option<i64> {
    match owner {
        Owner::Volume(volume) => volume.status.as_ref().map(|s| s.attachment_generation),
        Owner::Snapshot(_) => None,
    }
}

/// The generation that the moves of a volume's legs need for themselves.
pub fn reserved(volume: &PoolVolume) -> i64 {
    let moving = volume
        .spec
        .legs
        .iter()
        .filter_map(|leg| leg.moving.as_ref());
    let abroad = moving.filter_map(|to| to.abroad.as_ref());
    abroad.map(|abroad| abroad.generation).max().unwrap_or(0)
}

/// Whether a move that was begun is not gone on with: somebody was let in after it, or may have been.
pub fn overtaken(owner: Owner, leg: &PoolLeg, abroad: &Abroad) -> bool {
    let stored = leg.status.as_ref().and_then(|s| s.attachment_generation);
    stored.max(recorded(owner)) > Some(abroad.generation)
}

/// By which a leg is exported to the node that it moves to, if it is: while nobody has or wants its owner, and once its generation is recorded.
pub fn export(
    pass: &Pass,
    owner: Owner,
    placed: &PlacedLeg,
    now: &[LegExport],
) -> Option<LegExport> {
    let abroad = placed.moving.as_ref()?.abroad.as_ref()?;
    let pool = match owner {
        Owner::Volume(volume) => {
            let granted = volume.status.as_ref().map_or(&[][..], |s| &s.attachments);
            let idle = granted.is_empty() && volume.spec.attach_to.is_empty();
            if !idle || recorded(owner) != Some(abroad.generation) {
                return None;
            }
            Some(volume.spec.pool.as_str())
        }
        Owner::Snapshot(_) => pass.ledger.of(&placed.drive).map(|account| account.pool),
    };
    if owner.marked() || abroad.node_name == placed.node_name {
        return None;
    }
    let pool = pool.and_then(|pool| pass.storage.pool(pool));
    let earlier = now.iter().find(|e| e.generation == abroad.generation);
    Some(LegExport {
        generation: abroad.generation,
        node: abroad.node_name.clone(),
        read_only: true,
        copy: true,
        insecure: earlier.map_or(pool.is_some_and(|p| p.spec.insecure_fabric), |e| e.insecure),
    })
}

/// Why bytes that were read by an export may not be all that the leg has, if they may not: its agent has to say that it is exported so still.
pub fn doubt(leg: &PoolLeg, abroad: &Abroad) -> Option<String> {
    let status = leg.status.clone().unwrap_or_default();
    let is = |generation: i64| generation == abroad.generation;
    let mut wanted = leg.spec.exports.iter();
    let wanted = wanted.any(|e| is(e.generation) && e.copy && e.node == abroad.node_name);
    let exported = wanted && status.exports.iter().any(|e| is(e.generation));
    let seen = status.observed_generation >= leg.metadata.generation;
    (!exported || !seen).then(|| {
        let (name, node) = (claim::name(leg), &leg.spec.node_name);
        format!("node {node} has to say that nobody has written to leg {name} meanwhile")
    })
}

/// What keeps the two nodes of a move from copying, as far as they say.
pub fn trouble(leg: &PoolLeg, copy: &PoolLeg) -> Option<String> {
    let told = |leg: &PoolLeg, type_: &str, reason: Option<&str>| {
        let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let told = condition::find(conditions, type_).filter(|c| c.status == "False")?;
        reason
            .is_none_or(|reason| told.reason == reason)
            .then(|| format!("node {}: {}", leg.spec.node_name, told.message))
    };
    told(leg, names::EXPORTED, None).or_else(|| told(copy, names::READY, Some(names::SOURCE_AWAY)))
}

/// Whether the node or drive that a leg moves to is gone for so long that another one may as well be copied to from the start.
pub fn lost(pass: &Pass, copy: &PoolLeg) -> bool {
    if ailment(pass, copy).is_some_and(|(dead, _)| dead) {
        return true;
    }
    let node = pass.storage.nodes.get(copy.spec.node_name.as_str());
    let status = node.and_then(|node| node.status.as_ref());
    let conditions = status.and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    let since = ready.filter(|c| c.status != "True");
    let since = since.and_then(|c| c.last_transition_time.as_ref());
    node.is_none() || since.is_some_and(|since| loss::passed(since.0, loss::REBOOT, pass.now))
}

/// Why a volume is not attached on a node just now that has other bytes of it than those that it names: what it has left behind. That node's agent
/// alone knows whether it has heard that they are not the volume's. Of a copy that was never called live it always knows.
pub fn left_behind(pass: &Pass, volume: &PoolVolume, node: &str) -> Option<(&'static str, String)> {
    let named = |leg: &PoolLeg| {
        let is = |placed: &PlacedLeg| placed.uuid.as_deref() == claim::uuid(leg);
        volume.spec.legs.iter().any(is)
    };
    let here = volume.spec.legs.iter().any(|leg| leg.node_name == node);
    if volume.spec.redundancy != Redundancy::None || here {
        return None;
    }
    // What has no owner waits for an administrator, and is attached to nobody; what goes will be gone.
    let mut others = pass.claims.all(Owner::Volume(volume)).filter(|leg| {
        leg.spec.node_name == node
            && leg.spec.snapshot.is_none()
            && leg.spec.copy.as_ref().is_none_or(|copy| copy.live)
            && (!leg.spec.orphaned || leg.spec.deletion_mark)
            && ledger::holds_bytes(leg)
            && !named(leg)
            && pass.drives.contains_key(leg.spec.drive.as_str())
    });
    let left = others.next()?;
    let name = claim::name(left);
    Some(match unserved(pass, left) {
        None => {
            let why =
                format!("leg {name}, which is not its own any more, is still being deleted here");
            ("Fencing", why)
        }
        Some((_, why)) => {
            let (why, drive) = (why.message, &left.spec.drive);
            let why = format!(
                "leg {name}, which is not its own any more, cannot be deleted here: {why}; bring that back, or forget drive {drive} if it \
                 is gone for good; other nodes do not wait for it"
            );
            ("NotFenced", why)
        }
    })
}

/// Whether another leg of the owner has to arrive before one moves: each move has a generation of its own.
pub fn turn(record: &[PlacedLeg], placed: &PlacedLeg, leaves: bool) -> bool {
    let others = record.iter().filter(|p| p.index != placed.index);
    let mut moving = others.filter_map(|other| other.moving.as_ref());
    moving.any(|to: &LegMove| leaves || to.abroad.is_some())
}
