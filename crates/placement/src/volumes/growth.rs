//! Volumes that are to be larger.

use super::{Owner, Pass, ledger, shape, site, state::Why};
use strand_api::{ByteQuantity, PlacedLeg, PoolLeg, PoolVolume, Redundancy, names};

/// The size that each leg of a volume shall have now: what the volume asks for if the drives of all have room, else what it has; and
/// why it is not as large as is asked for.
pub(super) struct Growth {
    to: u64,
    pub why: Option<Why>,
}

impl Growth {
    /// Decides, and counts what the legs grow by.
    pub fn of(pass: &mut Pass, volume: &PoolVolume) -> Self {
        let to = site::leg_size(volume);
        let legs: Vec<&PoolLeg> = made(pass, volume).collect();
        let grow = legs.iter().filter(|leg| leg.spec.size.0 < to);
        let grow: Vec<&PoolLeg> = grow.copied().collect();
        let refused = |why| Self {
            to: 0,
            why: Some(why),
        };
        if volume.spec.redundancy == Redundancy::Stripe && !grow.is_empty() {
            let why = "a stripe cannot grow: its bytes lie across all its legs. Copy what is on it to a larger volume";
            return refused(Why::new(names::UNSUPPORTED, why));
        }
        for leg in &grow {
            let (drive, kind) = (&leg.spec.drive, leg.spec.provisioning);
            let account = pass.ledger.of(drive);
            if !account.is_some_and(|a| a.can_grow(kind, ledger::size(leg), to)) {
                let room = account.map_or(0, |a| a.largest(kind));
                let words = format!(
                    "drive {drive}, which holds it, has {} left; the volume stays at {}",
                    ByteQuantity(room).rounded(),
                    size(volume, leg.spec.size.0)
                );
                return refused(Why::new(names::INSUFFICIENT_CAPACITY, words));
            }
        }
        for leg in grow {
            pass.ledger.grow(&leg.spec.drive, ledger::size(leg), to);
        }
        let why = legs.into_iter().find_map(|leg| growing(leg, to));
        Self { to, why }
    }

    /// The size that a leg shall have now.
    pub fn leg(&self, placed: &PlacedLeg, leg: &PoolLeg) -> u64 {
        match placed.moving {
            // A copy that is under way is of the size that it began with.
            Some(_) => leg.spec.size.0,
            None => self.to.max(leg.spec.size.0),
        }
    }
}

/// Bytes that the consumer of a volume has where each leg has so many.
pub(super) fn size(volume: &PoolVolume, leg: u64) -> ByteQuantity {
    let spec = &volume.spec;
    ByteQuantity(shape::volume(spec.redundancy, leg, spec.legs.len()))
}

fn made<'a>(pass: &Pass<'_, 'a>, volume: &'a PoolVolume) -> impl Iterator<Item = &'a PoolLeg> {
    let still = volume.spec.legs.iter().filter(|leg| leg.moving.is_none());
    still.filter_map(|placed| pass.claims.of(Owner::Volume(volume), placed))
}

fn growing(leg: &PoolLeg, to: u64) -> Option<Why> {
    let drive = &leg.spec.drive;
    let status = leg.status.as_ref();
    if to <= status.map_or(0, |s| s.size.0) {
        return None;
    }
    let conditions = status.map_or(&[][..], |s| &s.conditions);
    let full = strand_api::condition::find(conditions, names::READY)
        .filter(|c| c.reason == names::NO_SPACE);
    Some(match full {
        Some(told) => Why::new(
            names::INSUFFICIENT_CAPACITY,
            format!("drive {drive}: {}", told.message),
        ),
        None => Why::new("Growing", format!("growing on drive {drive}")),
    })
}
