//! One volume at a time.

use super::{
    Action, Owner, Pass, YOUNG, attach,
    claim::{self, Source},
    evacuate::{self, Step},
    ledger,
    leg::{self, Standing, TRIED},
    leg_size, place, source,
    state::{self, Conditions, Why, ailment},
    young,
};
use strand_api::{
    ByteQuantity, Locality, PlacedLeg, PoolLeg, PoolVolume, PoolVolumeStatus, Provisioning,
    Redundancy, VolumePhase, names,
};

/// Leg names are a few characters longer than their volume's, and file names have 255 at most.
const MAX_NAME: usize = 230;

pub(super) fn plan<'a>(pass: &mut Pass<'_, 'a>, volume: &'a PoolVolume) {
    if volume.spec.deletion_mark {
        delete(pass, volume);
        return;
    }
    let mut growth = None;
    match keep(pass, volume, &mut growth) {
        Ok(legs) => say(pass, volume, Ok(&legs), growth),
        Err(why) => say(pass, volume, Err(&why), growth),
    }
}

fn delete<'a>(pass: &mut Pass<'_, 'a>, volume: &'a PoolVolume) {
    let owner = Owner::Volume(volume);
    pass.claims.own_all(owner);
    let grants = attach::decide(pass, volume, Err("the volume is being deleted"));
    let why = if let Some(wish) = volume.spec.attach_to.first() {
        let message = format!(
            "marked for deletion, and still attached to node {}; it goes once it is detached",
            wish.node
        );
        Why::new("InUse", message)
    } else if pass.claims.wanted.contains(&Source::Volume(owner.name())) {
        let message =
            "marked for deletion; a snapshot or another volume is still being made from it";
        Why::new("InUse", message)
    } else if !grants.attachments.is_empty() || has_attachments(volume) {
        Why::new("Deleting", "it was just detached")
    } else {
        match leg::delete_all(pass, owner) {
            None => {
                pass.actions.push(Action::DropVolume {
                    volume: owner.name().into(),
                });
                return;
            }
            Some(left) => {
                let message = format!("its bytes are being deleted: {left}");
                Why::new("Deleting", message)
            }
        }
    };
    say(pass, volume, Err(&why), None);
}

fn has_attachments(volume: &PoolVolume) -> bool {
    volume
        .status
        .as_ref()
        .is_some_and(|s| !s.attachments.is_empty())
}

/// Sees to the legs of a volume that is not marked; gives them if all are usable.
fn keep<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    growth: &mut Option<Why>,
) -> Result<Vec<&'a PoolLeg>, Why> {
    let owner = Owner::Volume(volume);
    possible(pass, volume)?;
    if volume.spec.legs.is_empty() {
        let source = source::leg(pass, volume)?;
        let placed = place_leg(pass, volume, source, 0)?;
        pass.actions.push(Action::PlaceVolume {
            volume: owner.name().into(),
            legs: vec![placed],
        });
        return Err(Why::new("Placing", "a drive was chosen"));
    }
    let mut usable = Vec::new();
    let mut record = volume.spec.legs.clone();
    let mut why: Option<Why> = None;
    for (placed, record) in volume.spec.legs.iter().zip(&mut record) {
        match tend(pass, volume, placed, growth) {
            Standing::Usable(leg) => {
                usable.push(leg);
                if let Step::Record(placed) = evacuate::step(pass, owner, placed, leg) {
                    *record = placed;
                }
            }
            Standing::Record(placed) => {
                *record = placed;
                why.get_or_insert(Why::new("Making", "just made"));
            }
            Standing::Refused(leg) => {
                let other = refused(pass, volume, leg);
                why.get_or_insert(other);
            }
            Standing::Given => match again(pass, volume, placed.index) {
                Ok(placed) => {
                    *record = placed;
                    why.get_or_insert(Why::new("Placing", "another drive was chosen"));
                }
                Err(other) => {
                    why.get_or_insert(other);
                }
            },
            Standing::Progress(other) | Standing::Broken(other) => {
                why.get_or_insert(other);
            }
        }
    }
    if record != volume.spec.legs {
        pass.actions.push(Action::PlaceVolume {
            volume: owner.name().into(),
            legs: record,
        });
    }
    leg::superseded(pass, owner, why.is_none());
    match why {
        None => Ok(usable),
        Some(why) => Err(why),
    }
}

/// Refuses what cannot be done at all.
fn possible(pass: &Pass, volume: &PoolVolume) -> Result<(), Why> {
    let unsupported = |message: String| Err(Why::new(names::UNSUPPORTED, message));
    let name = Owner::Volume(volume).name();
    if volume.spec.redundancy != Redundancy::None {
        let asked = serde_json::to_value(volume.spec.redundancy).unwrap_or_default();
        return unsupported(format!(
            "redundancy {} needs legs on several drives at once, which this version does not make; use redundancy none",
            asked.as_str().unwrap_or_default()
        ));
    }
    if volume.spec.legs.len() > 1 {
        return unsupported("it has several legs, and this version knows volumes of one".into());
    }
    if name.len() > MAX_NAME {
        return unsupported(format!("its name has more than {MAX_NAME} characters"));
    }
    let pool = &volume.spec.pool;
    match pass.storage.pool(pool) {
        _ if !volume.spec.legs.is_empty() => Ok(()),
        None => Err(Why::new(
            "NoSuchPool",
            format!("there is no MemoryPool {pool}; see kubectl get mpool"),
        )),
        Some(p) if p.metadata.deletion_timestamp.is_some() => Err(Why::new(
            "NoSuchPool",
            format!("MemoryPool {pool} is being deleted"),
        )),
        Some(_) => Ok(()),
    }
}

fn tend<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    placed: &PlacedLeg,
    growth: &mut Option<Why>,
) -> Standing<'a> {
    let owner = Owner::Volume(volume);
    let present = pass.claims.of(owner, placed);
    let size = match present {
        // A copy that is under way is of the size that it began with.
        Some(leg) if placed.moving.is_some() => leg.spec.size.0,
        Some(leg) => grown(pass, volume, leg, growth),
        None => leg_size(volume.spec.size.0),
    };
    let source = match (placed.uuid.is_none() && present.is_none(), volume) {
        (true, volume) if volume.spec.source.is_some() => match source::leg(pass, volume) {
            Ok(source) => source.map(|leg| claim::name(leg).to_owned()),
            Err(why) => return Standing::Progress(why),
        },
        _ => None,
    };
    let first = || {
        let mut spec = owner.leg_spec(placed);
        spec.source = source;
        spec
    };
    leg::tend(pass, owner, placed, first, |spec| {
        spec.size = ByteQuantity(size);
        spec.limits.clone_from(&volume.spec.limits);
        spec.volume_mode.get_or_insert(volume.spec.volume_mode);
    })
}

/// The size that a leg shall have now: what the volume asks for, if its drive has room.
fn grown(pass: &mut Pass, volume: &PoolVolume, leg: &PoolLeg, growth: &mut Option<Why>) -> u64 {
    let (from, to) = (leg.spec.size.0, leg_size(volume.spec.size.0));
    let drive = &leg.spec.drive;
    let told = leg.status.as_ref().map_or(0, |s| s.size.0);
    if to > from {
        let kind = leg.spec.provisioning;
        let account = pass.ledger.of(drive);
        if !account.is_some_and(|a| a.can_grow(kind, ledger::size(leg), to)) {
            let room = account.map_or(0, |a| a.largest(kind));
            *growth = Some(Why::new(
                names::INSUFFICIENT_CAPACITY,
                format!(
                    "drive {drive}, which holds it, has {} left; the volume stays at {}",
                    ByteQuantity(room).rounded(),
                    leg.spec.size
                ),
            ));
            return from;
        }
        pass.ledger.grow(drive, ledger::size(leg), to);
    }
    if to > told {
        let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let full = strand_api::condition::find(conditions, names::READY)
            .filter(|c| c.reason == names::NO_SPACE);
        *growth = Some(match full {
            Some(told) => Why::new(
                names::INSUFFICIENT_CAPACITY,
                format!("drive {drive}: {}", told.message),
            ),
            None => Why::new("Growing", format!("growing on drive {drive}")),
        });
    }
    to.max(from)
}

/// A leg whose drive turned out to have no room is given up if another drive has.
fn refused<'a>(pass: &mut Pass<'_, 'a>, volume: &'a PoolVolume, leg: &'a PoolLeg) -> Why {
    let drive = leg.spec.drive.as_str();
    let room_elsewhere = match source::leg(pass, volume) {
        Err(why) => return why,
        Ok(source) => {
            let mut request = request(pass, volume, source);
            request.tried.insert(drive);
            place::choose(&pass.ledger, &request).map(|_| ())
        }
    };
    match room_elsewhere {
        Err(misfit) => Why::new(names::INSUFFICIENT_CAPACITY, misfit.to_string()),
        Ok(()) => {
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
    }
}

/// Another place for a leg that was given up.
fn again<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    index: i32,
) -> Result<PlacedLeg, Why> {
    let source = source::leg(pass, volume)?;
    place_leg(pass, volume, source, index)
}

fn place_leg<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    source: Option<&'a PoolLeg>,
    index: i32,
) -> Result<PlacedLeg, Why> {
    let kind = volume.spec.provisioning;
    if source.is_some_and(|leg| leg.spec.provisioning != kind) {
        let message =
            format!("what it is a copy of is not {kind:?}, and copies are what their source is");
        return Err(Why::new(names::UNSUPPORTED, message));
    }
    let request = request(pass, volume, source);
    let size = request.size;
    let chosen = place::choose(&pass.ledger, &request)
        .map(|account| (account.drive, account.node))
        .map_err(|misfit| Why::new(names::INSUFFICIENT_CAPACITY, misfit.to_string()));
    let (drive, node) = chosen?;
    let name = Owner::Volume(volume).leg_name(index, |name| pass.claims.taken(name));
    pass.ledger.promise(drive, kind, size);
    Ok(PlacedLeg {
        name,
        index,
        node_name: node.into(),
        drive: drive.into(),
        uuid: None,
        moving: None,
        lack: None,
    })
}

fn request<'a>(
    pass: &Pass<'_, 'a>,
    volume: &'a PoolVolume,
    source: Option<&'a PoolLeg>,
) -> place::Request<'a> {
    let tried = pass
        .claims
        .all(Owner::Volume(volume))
        .filter(|leg| young(&leg.metadata, pass.now, TRIED) || ledger::holds_bytes(leg))
        .map(|leg| leg.spec.drive.as_str());
    place::Request {
        pool: &volume.spec.pool,
        size: leg_size(volume.spec.size.0),
        provisioning: volume.spec.provisioning,
        node: match (volume.spec.locality, volume.spec.node_name.as_deref()) {
            (_, None) => place::Node::Any,
            (Locality::Node, Some(node)) => place::Node::Only(node),
            (Locality::Fabric, Some(node)) => place::Node::Preferred(node),
        },
        beside: source.map(|leg| leg.spec.drive.as_str()),
        tried: tried.collect(),
    }
}

fn say(
    pass: &mut Pass,
    volume: &PoolVolume,
    outcome: Result<&[&PoolLeg], &Why>,
    growth: Option<Why>,
) {
    let owner = Owner::Volume(volume);
    let earlier = volume.status.clone().unwrap_or_default();
    let generation = volume.metadata.generation;
    let legs = outcome.ok();
    let found = volume
        .spec
        .legs
        .iter()
        .filter_map(|l| pass.claims.of(owner, l));
    let unlimited = found.clone().find_map(state::unlimited);
    let ailment = found
        .filter_map(|leg| ailment(pass, leg))
        .max_by_key(|(fatal, _)| *fatal);
    let fatal = ailment
        .as_ref()
        .filter(|(fatal, _)| *fatal && legs.is_some());
    let why = outcome.err().or(fatal.map(|(_, why)| why));
    let settling = legs.is_some_and(|legs| {
        let mut pairs = volume.spec.legs.iter().zip(legs);
        pairs.any(|(placed, leg)| evacuate::settling(pass, owner, placed, leg))
    });
    let usable = match legs {
        Some(_) if settling => Err("it is just being moved to another drive"),
        Some(_) if why.is_none() => Ok(()),
        _ => Err("the volume is not ready"),
    };
    let grants = attach::decide(pass, volume, usable);
    attach::export(pass, volume, &grants);

    let mut conditions = Conditions::new(&earlier.conditions, pass.now, generation);
    conditions.ready(why, &place_words(volume));
    if let Some((reason, message)) = &grants.refused {
        conditions.say(names::ATTACHED, false, reason, message);
    }
    // Growing is no news: `status.size` tells when it is done.
    if let Some(growth) = growth.filter(|g| legs.is_some() && !g.passing()) {
        conditions.say(names::RESIZED, false, &growth.reason, growth.message);
    }
    if let Some((_, why)) = &ailment {
        conditions.say(names::HEALTHY, false, &why.reason, &why.message);
    }
    if let Some(why) = &unlimited {
        conditions.say(names::LIMITED, false, &why.reason, &why.message);
    }
    let phase = match why {
        _ if volume.spec.deletion_mark => VolumePhase::Deleting,
        None => VolumePhase::Ready,
        Some(why) if !why.passing() && broken(volume) => VolumePhase::Failed,
        Some(_) => VolumePhase::Pending,
    };
    let size = legs.and_then(|legs| {
        let sizes = legs
            .iter()
            .map(|leg| leg.status.as_ref().map_or(0, |s| s.size.0));
        sizes.min()
    });
    let status = PoolVolumeStatus {
        observed_generation: generation,
        phase: Some(phase),
        size: size.map_or(earlier.size, ByteQuantity),
        attachment_generation: grants.generation,
        attachments: grants.attachments,
        array: None,
        conditions: conditions.list,
    };
    let early = volume.status.is_none()
        && why.is_some_and(|why| why.passing())
        && young(&volume.metadata, pass.now, YOUNG);
    if volume.status.as_ref() != Some(&status) && !early {
        pass.actions.push(Action::SetVolumeStatus {
            volume: owner.name().into(),
            status: Box::new(status),
        });
    }
}

/// Whether there is something that could be lost: its bytes were there.
fn broken(volume: &PoolVolume) -> bool {
    volume.spec.legs.iter().any(|leg| leg.uuid.is_some())
}

fn place_words(volume: &PoolVolume) -> String {
    let kind = match volume.spec.provisioning {
        Provisioning::Thick => "thick",
        Provisioning::Thin => "thin",
    };
    let legs = volume.spec.legs.iter();
    let places: Vec<String> = legs
        .map(|l| format!("{} on {}", l.drive, l.node_name))
        .collect();
    format!("{kind}, on drive {}", places.join(", "))
}
