//! One volume at a time.

use super::{
    Action, Owner, Pass, array, attach, check,
    claim::{self, Source},
    evacuate,
    growth::Growth,
    leg::{self, Standing},
    site, source,
    state::Why,
    tell,
};
use strand_api::{ByteQuantity, Locality, PlacedLeg, PoolLeg, PoolVolume, Redundancy, names};

/// Leg names are a few characters longer than their volume's, and file names have 255 at most.
const MAX_NAME: usize = 230;

/// What was found of a volume.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// Its legs that hold all of it, with where they are placed.
    pub legs: Vec<(&'a PlacedLeg, &'a PoolLeg)>,
    /// Why it cannot be used.
    pub why: Option<Why>,
    /// Why it is not as large as is asked for.
    pub growth: Option<Why>,
    /// Why a leg that it has lost has nothing in its place.
    pub obstacle: Option<Why>,
}

impl From<Why> for Found<'_> {
    fn from(why: Why) -> Self {
        Self {
            why: Some(why),
            ..Self::default()
        }
    }
}

pub(super) fn plan<'a>(pass: &mut Pass<'_, 'a>, volume: &'a PoolVolume) {
    if volume.spec.deletion_mark {
        delete(pass, volume);
        return;
    }
    let found = keep(pass, volume).unwrap_or_else(Found::from);
    tell::say(pass, volume, &found);
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
    tell::say(pass, volume, &Found::from(why));
}

fn has_attachments(volume: &PoolVolume) -> bool {
    volume
        .status
        .as_ref()
        .is_some_and(|s| !s.attachments.is_empty())
}

/// Sees to the legs of a volume that is not marked.
fn keep<'a>(pass: &mut Pass<'_, 'a>, volume: &'a PoolVolume) -> Result<Found<'a>, Why> {
    let owner = Owner::Volume(volume);
    possible(pass, volume)?;
    if volume.spec.legs.is_empty() {
        let legs = site::first(pass, volume)?;
        pass.actions.push(Action::PlaceVolume {
            volume: owner.name().into(),
            legs,
            array: array::new(volume),
        });
        return Err(Why::new("Placing", "a drive was chosen"));
    }
    let growth = Growth::of(pass, volume);
    let mut found = Found::default();
    let mut record = volume.spec.legs.clone();
    let mut array = volume.spec.array.clone();
    let mut reach = Vec::new();
    let mut wrong = Vec::new();
    for (at, placed) in volume.spec.legs.iter().enumerate() {
        let standing = tend(pass, volume, placed, &growth);
        reach.push(array::reach(pass, placed, &standing));
        wrong.push(match standing {
            Standing::Usable(leg) => {
                match placed.lack {
                    None => {
                        found.legs.push((placed, leg));
                        let moved = evacuate::step(pass, owner, &record, placed, leg);
                        record[at] = moved.unwrap_or_else(|| placed.clone());
                    }
                    Some(_) => evacuate::lacks(pass, owner, placed),
                }
                None
            }
            Standing::Record(placed) => {
                record[at] = placed;
                Some(Why::new("Making", "just made"))
            }
            Standing::Refused(leg) => Some(site::refused(pass, volume, placed.index, leg)),
            Standing::Given => Some(match site::another(pass, volume, &record, placed.index) {
                Ok(other) => {
                    record[at] = PlacedLeg {
                        lack: placed.lack.clone(),
                        ..other
                    };
                    Why::new("Placing", "another drive was chosen")
                }
                Err(why) => why,
            }),
            Standing::Broken(why) if array.is_some() => Some(array::too_much(volume, why)),
            Standing::Progress(why) | Standing::Broken(why) => Some(why),
        });
    }
    if let Some(array) = &mut array {
        found.obstacle = array::decide(pass, volume, &reach, &mut record, array);
        array.look = array.look.max(check::asked(pass, volume));
        // What lacks writes is no source of a copy.
        let lacking = record.iter_mut().filter(|leg| leg.lack.is_some());
        lacking.for_each(|leg| leg.moving = None);
    }
    // What a leg that is out lacks does not keep the volume from being used.
    let wrong = record
        .iter()
        .zip(wrong)
        .filter(|(leg, _)| leg.lack.is_none());
    found.why = wrong.filter_map(|(_, why)| why).next();
    found.growth = growth.why;
    if record != volume.spec.legs || array != volume.spec.array {
        pass.actions.push(Action::PlaceVolume {
            volume: owner.name().into(),
            legs: record,
            array,
        });
    }
    leg::superseded(pass, owner, found.why.is_none());
    found.why = found.why.or_else(|| array::refused(volume));
    Ok(found)
}

/// Refuses what cannot be done at all.
fn possible(pass: &Pass, volume: &PoolVolume) -> Result<(), Why> {
    let unsupported = |message: String| Err(Why::new(names::UNSUPPORTED, message));
    let name = Owner::Volume(volume).name();
    let spec = &volume.spec;
    let asked = array::words(spec.redundancy);
    match spec.redundancy {
        Redundancy::None if spec.legs.len() > 1 => {
            return unsupported("it has several legs, and redundancy none has one".into());
        }
        Redundancy::None => {}
        Redundancy::Raid6 if spec.locality == Locality::Node => {
            return unsupported(
                "redundancy raid6 is attached only where none of its legs lie, so that it cannot have locality node; use mirror".into(),
            );
        }
        _ if spec.source.is_some() => {
            return unsupported(format!(
                "a volume with redundancy {asked} is not made as a copy; make the copy with redundancy none, and copy what is in it into an empty one with {asked}"
            ));
        }
        _ if !spec.legs.is_empty() && spec.array.is_none() => {
            return unsupported(
                "it has legs, and its spec.array does not say which array they are".into(),
            );
        }
        _ => {}
    }
    if name.len() > MAX_NAME {
        return unsupported(format!("its name has more than {MAX_NAME} characters"));
    }
    let pool = &spec.pool;
    match pass.storage.pool(pool) {
        _ if !spec.legs.is_empty() => Ok(()),
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
    growth: &Growth,
) -> Standing<'a> {
    let owner = Owner::Volume(volume);
    let present = pass.claims.of(owner, placed);
    let size = present.map_or_else(|| site::leg_size(volume), |leg| growth.leg(placed, leg));
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
