//! Where the legs of one volume go.

use super::{
    Action, Owner, Pass, claim, ledger,
    leg::TRIED,
    place::{self, Apart, Misfit},
    shape, source,
    state::Why,
    young,
};
use strand_api::{Locality, PlacedLeg, PoolLeg, PoolVolume, Redundancy, names};

/// Chooses drives for all legs of a new volume.
///
/// # Errors
/// Why it has no place, or nothing to be copied from.
pub(super) fn first<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
) -> Result<Vec<PlacedLeg>, Why> {
    if volume.spec.redundancy == Redundancy::None {
        return Ok(vec![single(pass, volume, 0)?]);
    }
    let apart = apart(volume.spec.redundancy, volume.spec.locality);
    let mut nearest: Option<(usize, Misfit)> = None;
    for shape in shape::shapes(volume.spec.redundancy, volume.spec.size.0) {
        let request = request(pass, volume, shape.size, None);
        let spread = place::spread(&pass.ledger, &request, shape.legs, apart, &[]);
        match spread.map(|chosen| chosen.iter().map(|a| (a.drive, a.node)).collect::<Vec<_>>()) {
            Ok(chosen) => {
                let legs = (0..).zip(chosen);
                return Ok(legs
                    .map(|(index, (drive, node))| put(pass, volume, index, drive, node, shape.size))
                    .collect());
            }
            Err(misfit) => {
                let missing = misfit.missing();
                if nearest.as_ref().is_none_or(|(least, _)| missing < *least) {
                    nearest = Some((missing, misfit));
                }
            }
        }
    }
    let words = nearest.map_or_else(String::new, |(_, misfit)| misfit.to_string());
    Err(Why::new(names::INSUFFICIENT_CAPACITY, words))
}

/// Chooses a drive for a leg that is to be in the place of another, which the volume loses or never had. `record` is where all legs lie, by
/// what was decided so far.
///
/// # Errors
/// Why there is none.
pub(super) fn another<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    record: &[PlacedLeg],
    index: i32,
) -> Result<PlacedLeg, Why> {
    if volume.spec.redundancy == Redundancy::None {
        return single(pass, volume, index);
    }
    let size = leg_size(volume);
    let request = request(pass, volume, size, None);
    let (drive, node) = beside_others(pass, volume, record, index, &request)
        .map_err(|misfit| Why::new(names::INSUFFICIENT_CAPACITY, misfit.to_string()))?;
    Ok(put(pass, volume, index, drive, node, size))
}

/// Chooses a drive of any node for a leg that has to leave its own. `record` as for [`another`].
///
/// # Errors
/// Why there is none.
pub(super) fn abroad<'a>(
    pass: &Pass<'_, 'a>,
    volume: &'a PoolVolume,
    record: &[PlacedLeg],
    leg: &'a PoolLeg,
) -> Result<(&'a str, &'a str), Misfit> {
    let mut request = request(pass, volume, ledger::size(leg), None);
    request.provisioning = leg.spec.provisioning;
    request.tried.insert(&leg.spec.drive);
    if volume.spec.redundancy == Redundancy::None {
        return place::choose(&pass.ledger, &request).map(|account| (account.drive, account.node));
    }
    let own = |placed: &&PlacedLeg| placed.uuid.as_deref() == claim::uuid(leg);
    let own = record.iter().find(own).map(|placed| placed.index);
    beside_others(
        pass,
        volume,
        record,
        own.unwrap_or(leg.spec.index),
        &request,
    )
}

/// A leg whose drive turned out to have no room is given up if another drive has.
pub(super) fn refused<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    index: i32,
    leg: &'a PoolLeg,
) -> Why {
    let drive = leg.spec.drive.as_str();
    let source = match source::leg(pass, volume) {
        Err(why) => return why,
        Ok(source) => source,
    };
    let mut request = request(pass, volume, leg_size(volume), source);
    request.tried.insert(drive);
    let room_elsewhere = match volume.spec.redundancy {
        Redundancy::None => place::choose(&pass.ledger, &request).map(drop),
        _ => beside_others(pass, volume, &volume.spec.legs, index, &request).map(drop),
    };
    if let Err(misfit) = room_elsewhere {
        return Why::new(names::INSUFFICIENT_CAPACITY, misfit.to_string());
    }
    let mut wish = leg.spec.clone();
    wish.deletion_mark = true;
    // In the place of what tending it asked for.
    pass.actions.retain(
        |a| !matches!(a, Action::ChangeLeg { leg: named, .. } if named == claim::name(leg)),
    );
    pass.actions.push(Action::ChangeLeg {
        leg: claim::name(leg).into(),
        spec: Box::new(wish),
    });
    Why::new("Placing", format!("drive {drive} had no room for it"))
}

/// Bytes of each leg that a volume has, or that it is about to have.
pub(super) fn leg_size(volume: &PoolVolume) -> u64 {
    let spec = &volume.spec;
    shape::leg(spec.redundancy, spec.size.0, spec.legs.len())
}

fn single<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    index: i32,
) -> Result<PlacedLeg, Why> {
    let source = source::leg(pass, volume)?;
    let kind = volume.spec.provisioning;
    if source.is_some_and(|leg| leg.spec.provisioning != kind) {
        let message =
            format!("what it is a copy of is not {kind:?}, and copies are what their source is");
        return Err(Why::new(names::UNSUPPORTED, message));
    }
    let request = request(pass, volume, leg_size(volume), source);
    let size = request.size;
    let chosen = place::choose(&pass.ledger, &request)
        .map(|account| (account.drive, account.node))
        .map_err(|misfit| Why::new(names::INSUFFICIENT_CAPACITY, misfit.to_string()));
    let (drive, node) = chosen?;
    Ok(put(pass, volume, index, drive, node, size))
}

/// A drive apart from those of the volume's other legs, and from those that these are about to go to.
fn beside_others<'a, 'r>(
    pass: &Pass<'_, 'a>,
    volume: &PoolVolume,
    record: &'r [PlacedLeg],
    index: i32,
    request: &place::Request,
) -> Result<(&'a str, &'a str), Misfit> {
    let others = record.iter().filter(|leg| leg.index != index);
    let drives = |leg: &'r PlacedLeg| {
        let to = leg.moving.as_ref().map(|to| to.drive.as_str());
        std::iter::once(leg.drive.as_str()).chain(to)
    };
    let others: Vec<&str> = others.flat_map(drives).collect();
    let apart = apart(volume.spec.redundancy, volume.spec.locality);
    let chosen = place::spread(&pass.ledger, request, 1, apart, &others)?;
    let drives = chosen.first().map(|account| (account.drive, account.node));
    Ok(drives.unwrap_or_default())
}

/// What the legs of a volume must not share. What is on one node is lost with it anyway.
pub(super) fn apart(redundancy: Redundancy, locality: Locality) -> Apart {
    match (redundancy, locality) {
        (Redundancy::None | Redundancy::Stripe, _) | (_, Locality::Node) => Apart::Drives,
        (Redundancy::Mirror | Redundancy::Raid6, Locality::Fabric) => Apart::Domains,
    }
}

fn put(
    pass: &mut Pass,
    volume: &PoolVolume,
    index: i32,
    drive: &str,
    node: &str,
    size: u64,
) -> PlacedLeg {
    let name = Owner::Volume(volume).leg_name(index, |name| pass.claims.taken(name));
    pass.ledger.promise(drive, volume.spec.provisioning, size);
    PlacedLeg {
        name,
        index,
        node_name: node.into(),
        drive: drive.into(),
        uuid: None,
        moving: None,
        lack: None,
    }
}

fn request<'a>(
    pass: &Pass<'_, 'a>,
    volume: &'a PoolVolume,
    size: u64,
    source: Option<&'a PoolLeg>,
) -> place::Request<'a> {
    let spec = &volume.spec;
    let tried = pass
        .claims
        .all(Owner::Volume(volume))
        .filter(|leg| young(&leg.metadata, pass.now, TRIED) || ledger::holds_bytes(leg))
        .map(|leg| leg.spec.drive.as_str());
    let wished = spec.attach_to.first().map(|wish| wish.node.as_str());
    let node = wished.filter(|_| spec.redundancy == Redundancy::Raid6);
    place::Request {
        pool: &spec.pool,
        size,
        provisioning: spec.provisioning,
        node: match (spec.locality, node.or(spec.node_name.as_deref())) {
            (_, None) => place::Node::Any,
            (_, Some(node)) if spec.redundancy == Redundancy::Raid6 => place::Node::Not(node),
            (Locality::Node, Some(node)) => place::Node::Only(node),
            (Locality::Fabric, Some(node)) => place::Node::Preferred(node),
        },
        beside: source.map(|leg| leg.spec.drive.as_str()),
        tried: tried.collect(),
    }
}
