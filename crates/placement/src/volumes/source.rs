//! What a new volume starts as a copy of.

use super::{
    Owner, Pass, array,
    claim::{self, Source},
    state::Why,
};
use strand_api::{CheckPhase, PoolLeg, PoolSnapshot, PoolVolume, Redundancy};

/// The leg that a new volume's first leg is copied from; none if it starts empty.
///
/// # Errors
/// Why it cannot be copied now.
pub(super) fn leg<'a>(
    pass: &Pass<'_, 'a>,
    volume: &'a PoolVolume,
) -> Result<Option<&'a PoolLeg>, Why> {
    let Some(source) = Source::of(volume) else {
        return Ok(None);
    };
    let (words, owner) = match source {
        Source::Volume(name) => {
            let found = pass.volumes.get(name).copied();
            (format!("volume {name}"), found.map(Owner::Volume))
        }
        Source::Snapshot(name) => {
            let mut all = pass.storage.snapshots.iter();
            let found = all.find(|s| s.metadata.name.as_deref() == Some(name));
            (
                format!("snapshot {name}"),
                found.map(|s| Owner::Snapshot(s)),
            )
        }
    };
    let Some(owner) = owner else {
        let message = format!("there is no {words} to copy from");
        return Err(Why::new("SourceNotFound", message));
    };
    if let Owner::Volume(of) = owner
        && of.spec.redundancy != Redundancy::None
    {
        let message = format!(
            "{words} has redundancy {}, and no copies are made of such; {}",
            array::words(of.spec.redundancy),
            match of.spec.redundancy {
                Redundancy::Mirror => "take a snapshot of it, and make a volume from that",
                _ => "copy what is on it into an empty volume",
            }
        );
        return Err(Why::new(strand_api::names::UNSUPPORTED, message));
    }
    if owner.marked() {
        let message = format!("{words}, which it is a copy of, is being deleted");
        return Err(Why::new("SourceNotFound", message));
    }
    let unchecked = |snapshot: &PoolSnapshot| {
        let check = snapshot.spec.check.as_ref();
        check.is_some_and(|check| check.phase != CheckPhase::Passed)
    };
    if matches!(owner, Owner::Snapshot(snapshot) if unchecked(snapshot)) {
        let message = format!("waiting for {words} to be checked, which it is a copy of");
        return Err(Why::new("SourceNotReady", message));
    }
    let legs: Option<Vec<&PoolLeg>> = owner
        .placed()
        .iter()
        .map(|placed| {
            pass.claims
                .of(owner, placed)
                .filter(|_| placed.uuid.is_some())
        })
        .collect();
    let Some([leg]) = legs.as_deref() else {
        let message = format!("waiting for {words}, which it is a copy of");
        return Err(Why::new("SourceNotReady", message));
    };
    let name = claim::name(leg);
    let Some(account) = pass.ledger.of(&leg.spec.drive) else {
        let message = format!(
            "drive {}, which has {words}, is in no pool now",
            leg.spec.drive
        );
        return Err(Why::new("SourceAway", message));
    };
    if account.pool != volume.spec.pool {
        let message = format!(
            "{words} is in another pool ({name} on drive {}), and copies stay in theirs",
            leg.spec.drive
        );
        return Err(Why::new(strand_api::names::UNSUPPORTED, message));
    }
    if leg.spec.size > volume.spec.size {
        let message = format!(
            "{words} has {}, more than the {} asked for",
            leg.spec.size, volume.spec.size
        );
        return Err(Why::new(strand_api::names::UNSUPPORTED, message));
    }
    Ok(Some(leg))
}
