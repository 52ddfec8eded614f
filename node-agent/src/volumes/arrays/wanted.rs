//! What a volume's record says of its array, as this node's attachment has it. Pure.

use std::path::PathBuf;

use strand_api::{LackPhase, PlacedLeg, PoolVolume, Redundancy};
use strand_arrays::{Geometry, Leg, Level, Standing, Wanted};
use strand_placement::volumes::shape;
use uuid::Uuid;

/// Bytes a second that an array copies to a leg that comes back or is new, of each volume: some of what one drive and a 10 Gbit/s network
/// can do, so that whoever uses them notices little.
const RATE: u64 = 200 << 20;

/// What a leg is to the array in an attachment of this generation. What it has missed is known only within the one that it was lost in.
pub fn standing(leg: &PlacedLeg, generation: u64) -> Standing {
    let Some(lack) = &leg.lack else {
        return Standing::In;
    };
    match lack.phase {
        LackPhase::Rebuilding => Standing::Rebuilding,
        LackPhase::Returning if lack.generation.unsigned_abs() == generation => Standing::Returning,
        LackPhase::Returning | LackPhase::Out => Standing::Out,
    }
}

/// Whether a leg shall be reached in an attachment. One that was lost in it may come back into it; readers need only what is whole.
pub fn is_reached(leg: &PlacedLeg, generation: u64, read_only: bool) -> bool {
    let Some(lack) = &leg.lack else {
        return true;
    };
    !read_only
        && (lack.phase == LackPhase::Rebuilding || lack.generation.unsigned_abs() == generation)
}

/// The UUID of a leg's bytes, once they are there.
pub fn bytes(leg: &PlacedLeg) -> Option<Uuid> {
    leg.uuid.as_deref()?.parse().ok()
}

/// How a volume's legs hold its bytes.
pub fn level(redundancy: Redundancy) -> Option<Level> {
    match redundancy {
        Redundancy::None => None,
        Redundancy::Stripe => Some(Level::Stripe),
        Redundancy::Mirror => Some(Level::Mirror),
        Redundancy::Raid6 => Some(Level::Raid6),
    }
}

/// What the array shall be; `device` says where a leg is reached here. None while the record does not say.
pub fn wanted(
    name: &str,
    volume: &PoolVolume,
    (generation, read_only): (u64, bool),
    device: impl Fn(Uuid) -> Option<PathBuf>,
) -> Option<Wanted> {
    let spec = &volume.spec;
    let array = spec.array.as_ref()?;
    let mut placed: Vec<&PlacedLeg> = spec.legs.iter().collect();
    placed.sort_by_key(|leg| leg.index);
    // While it grows, what all legs have.
    let told = volume.status.as_ref().map_or(0, |status| status.size.0);
    let size = if told > 0 { told } else { spec.size.0 };
    let data = shape::data(spec.redundancy, size, placed.len());
    let legs = placed.into_iter().map(|leg| {
        let uuid = bytes(leg);
        Leg {
            uuid: uuid.unwrap_or_default(),
            standing: standing(leg, generation),
            device: uuid.and_then(&device),
        }
    });
    Some(Wanted {
        array: array.uuid.parse().ok()?,
        name: name.to_owned(),
        level: level(spec.redundancy)?,
        geometry: Geometry {
            data_offset: shape::DATA_OFFSET,
            data,
            chunk: shape::CHUNK,
            bitmap_chunk: shape::bitmap_chunk(data),
        },
        legs: legs.collect(),
        formed: array.formed,
        read_only,
        rate: RATE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use strand_api::LegLack;

    fn leg(lack: Option<(LackPhase, i64)>) -> PlacedLeg {
        PlacedLeg {
            name: "v-0".into(),
            index: 0,
            node_name: "n".into(),
            drive: "d".into(),
            uuid: None,
            moving: None,
            lack: lack.map(|(phase, generation)| LegLack {
                phase,
                reason: "Unreachable".into(),
                since: Time(Timestamp::UNIX_EPOCH),
                generation,
            }),
        }
    }

    #[test]
    fn what_was_missed_is_known_only_in_the_attachment_in_which_it_was() {
        use LackPhase::{Out, Rebuilding, Returning};
        for (lack, expected, reached) in [
            (None, Standing::In, true),
            (Some((Out, 4)), Standing::Out, true),
            (Some((Out, 3)), Standing::Out, false),
            (Some((Returning, 4)), Standing::Returning, true),
            (Some((Returning, 3)), Standing::Out, false),
            (Some((Rebuilding, 3)), Standing::Rebuilding, true),
        ] {
            let leg = leg(lack);
            assert_eq!(standing(&leg, 4), expected, "{lack:?}");
            assert_eq!(is_reached(&leg, 4, false), reached, "{lack:?}");
            assert_eq!(is_reached(&leg, 4, true), lack.is_none(), "{lack:?}");
        }
    }
}
