//! The room that a pool has for new volumes.

use super::{Storage, ledger::Ledger, place, shape, site};
use strand_api::{Locality, Provisioning, Redundancy};

/// Room for new volumes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Size of the largest volume that fits.
    pub largest: u64,
    /// Bytes that volumes can have of all drives together: no single one can have them.
    pub free: u64,
}

/// A kind of volume.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// The pool.
    pub pool: &'a str,
    /// How many losses it outlives.
    pub redundancy: Redundancy,
    /// Whether its space is reserved.
    pub provisioning: Provisioning,
    /// Where it can be attached.
    pub locality: Locality,
    /// The node that it is wanted on.
    pub node: Option<&'a str>,
}

/// The room that a pool has for volumes of a kind. Without redundancy, room on another node than the one that is asked about does
/// not count.
pub fn capacity(storage: &Storage, kind: &Kind) -> Capacity {
    let ledger = Ledger::new(storage);
    let redundancy = kind.redundancy;
    let request = place::Request {
        pool: kind.pool,
        size: 0,
        provisioning: kind.provisioning,
        node: match (kind.node, kind.locality) {
            (Some(node), Locality::Fabric) if redundancy == Redundancy::Raid6 => {
                place::Node::Not(node)
            }
            (Some(node), locality)
                if redundancy == Redundancy::None || locality == Locality::Node =>
            {
                place::Node::Only(node)
            }
            _ => place::Node::Any,
        },
        beside: None,
        tried: Default::default(),
    };
    let (rooms, sum) = place::rooms(&ledger, &request, site::apart(redundancy, kind.locality));
    let widths = shape::widths(redundancy);
    let widest = rooms.len().min(*widths.end());
    let sizes = widths.clone().filter_map(|legs| {
        let room = rooms.get(legs.checked_sub(1)?)?;
        Some(shape::volume(redundancy, *room, legs))
    });
    let largest = sizes.max().unwrap_or(0);
    let free = match redundancy {
        _ if widest < *widths.start() => 0,
        Redundancy::None | Redundancy::Stripe => sum,
        Redundancy::Mirror => sum / 2,
        Redundancy::Raid6 => sum / widest as u64 * (widest as u64 - 2),
    };
    Capacity { largest, free }
}
