//! One snapshot at a time.

use super::{
    Action, Owner, Pass, YOUNG, array,
    check::{self, Next},
    claim::{self, Source},
    evacuate, ledger,
    leg::{self, Standing},
    place,
    state::{Conditions, Why},
    young,
};
use strand_api::{
    CheckPhase, PlacedLeg, PoolLeg, PoolSnapshot, PoolSnapshotStatus, PoolVolume, Redundancy,
    SnapshotCheck, names,
};

pub(super) fn plan<'a>(pass: &mut Pass<'_, 'a>, snapshot: &'a PoolSnapshot) {
    let owner = Owner::Snapshot(snapshot);
    let outcome = if owner.marked() {
        delete(pass, owner)
    } else {
        keep(pass, snapshot)
    };
    match outcome {
        Outcome::Gone => pass.actions.push(Action::DropSnapshot {
            snapshot: owner.name().into(),
        }),
        Outcome::Ready(legs) => say(pass, snapshot, Ok(&legs)),
        Outcome::Not(why) => say(pass, snapshot, Err(&why)),
    }
}

enum Outcome<'a> {
    Ready(Vec<&'a PoolLeg>),
    Not(Why),
    Gone,
}

fn delete<'a>(pass: &mut Pass<'_, 'a>, owner: Owner<'a>) -> Outcome<'a> {
    pass.claims.own_all(owner);
    if pass.claims.wanted.contains(&Source::Snapshot(owner.name())) {
        let message = "marked for deletion; a volume is still being made from it";
        return Outcome::Not(Why::new("InUse", message));
    }
    match leg::delete_all(pass, owner) {
        None => Outcome::Gone,
        Some(left) => {
            let message = format!("its bytes are being deleted: {left}");
            Outcome::Not(Why::new("Deleting", message))
        }
    }
}

fn keep<'a>(pass: &mut Pass<'_, 'a>, snapshot: &'a PoolSnapshot) -> Outcome<'a> {
    let owner = Owner::Snapshot(snapshot);
    let failed = |check: SnapshotCheck| check.phase == CheckPhase::Failed;
    let again = snapshot.spec.check.is_some_and(failed);
    if again {
        // Objects of what is gone stay until another place is named: they say that nothing is to be deleted any more.
        pass.claims.own_all(owner);
        // What was taken first is of no use, and its room may be needed.
        if !leg::give_up(pass, owner) {
            let message = "what was taken of a leg that may have lacked writes is being deleted";
            return Outcome::Not(Why::new("TakenAgain", message));
        }
    }
    if snapshot.spec.legs.is_empty() || again {
        return match begin(pass, snapshot) {
            Err(why) => Outcome::Not(why),
            Ok((legs, check)) => {
                pass.actions.push(Action::PlaceSnapshot {
                    snapshot: owner.name().into(),
                    legs,
                    check,
                });
                Outcome::Not(Why::new("Placing", "about to be taken"))
            }
        };
    }
    let passed = (snapshot.spec.check).is_none_or(|check| check.phase == CheckPhase::Passed);
    let mut usable = Vec::new();
    let mut record = snapshot.spec.legs.clone();
    let mut why = None;
    for (at, placed) in snapshot.spec.legs.iter().enumerate() {
        match tend(pass, snapshot, placed) {
            Standing::Usable(leg) => {
                usable.push(leg);
                leg::export(pass, owner, placed, leg);
                // One that may have to be taken again is not moved before.
                if passed && let Some(placed) = evacuate::step(pass, owner, &record, placed, leg) {
                    record[at] = placed;
                }
            }
            Standing::Record(placed) => {
                record[at] = placed;
                why.get_or_insert(Why::new("Making", "just taken"));
            }
            Standing::Refused(_) => {
                let message = format!(
                    "drive {} has no room for a copy of it at full size; delete snapshots or volumes there",
                    placed.drive
                );
                why.get_or_insert(Why::new(names::INSUFFICIENT_CAPACITY, message));
            }
            Standing::Given => {
                let message = format!("leg {} was deleted before it was taken", placed.name);
                why.get_or_insert(Why::new("BytesDeleted", message));
            }
            Standing::Progress(other) | Standing::Broken(other) => {
                why.get_or_insert(other);
            }
        }
    }
    let mut check = snapshot.spec.check;
    if let Some(check) = check.as_mut().filter(|_| !passed)
        && let Some(placed) = snapshot.spec.legs.first()
    {
        let taken = why.is_none();
        let next = match usable.first().filter(|leg| is_too_large(leg)) {
            Some(leg) => too_large(pass, snapshot, *check, leg),
            None => check::next(pass, snapshot, *check, placed, taken),
        };
        let waits = match next {
            Next::Wait(waits) => waits,
            Next::Record(next) => {
                *check = next;
                recorded(next.phase)
            }
        };
        why.get_or_insert(waits);
    }
    if record != snapshot.spec.legs || check != snapshot.spec.check {
        pass.actions.push(Action::PlaceSnapshot {
            snapshot: owner.name().into(),
            legs: record,
            check,
        });
    }
    leg::superseded(pass, owner, why.is_none());
    match why {
        None => Outcome::Ready(usable),
        Some(why) => Outcome::Not(why),
    }
}

fn is_too_large(leg: &PoolLeg) -> bool {
    leg.status.as_ref().is_some_and(|s| s.size > leg.spec.size)
}

/// More was taken than was asked for: the leg had grown since, or an agent that knows nothing of mirrors' snapshots has taken md's part, too.
fn too_large(pass: &Pass, snapshot: &PoolSnapshot, check: SnapshotCheck, leg: &PoolLeg) -> Next {
    let origin = origin(pass, snapshot, leg.spec.index);
    let has_grown =
        |origin: &PoolLeg| ledger::copied(origin, ledger::size(origin)) > leg.spec.size.0;
    if origin.is_some_and(has_grown) {
        let phase = CheckPhase::Failed;
        return Next::Record(SnapshotCheck { phase, ..check });
    }
    let message = format!(
        "the agent of node {} is older than the operator, and took what md keeps with the volume's bytes; update it, delete this snapshot, and take another",
        leg.spec.node_name
    );
    Next::Wait(Why::new("AgentTooOld", message))
}

/// What is said while what was found is being recorded.
fn recorded(phase: CheckPhase) -> Why {
    match phase {
        CheckPhase::Failed => {
            let message = "its leg may have lacked writes; it is taken again";
            Why::new("TakenAgain", message)
        }
        CheckPhase::Taking | CheckPhase::Looking | CheckPhase::Passed => {
            let message = "taken; whether its leg had everything is looked at";
            Why::new("Checking", message)
        }
    }
}

fn tend<'a>(
    pass: &mut Pass<'_, 'a>,
    snapshot: &'a PoolSnapshot,
    placed: &PlacedLeg,
) -> Standing<'a> {
    let owner = Owner::Snapshot(snapshot);
    let origin = origin(pass, snapshot, placed.index);
    let Some(origin) = origin else {
        if pass.claims.of(owner, placed).is_some() {
            return leg::tend(pass, owner, placed, || owner.leg_spec(placed), |_| {});
        }
        // Without its origin it would be taken of nothing; if it was taken, its agent knows it.
        let (name, drive) = (&placed.name, &placed.drive);
        return Standing::Progress(match placed.uuid {
            None => Why::new(
                "SourceNotReady",
                format!("waiting for volume {}", snapshot.spec.volume),
            ),
            Some(_) => Why::new(
                "Claiming",
                format!("waiting for the agent of drive {drive} to tell of leg {name}"),
            ),
        });
    };
    let first = || {
        let mut spec = owner.leg_spec(placed);
        spec.size = ledger::snapshot_size(snapshot, Some(origin));
        spec.provisioning = origin.spec.provisioning;
        spec.volume_mode = origin.spec.volume_mode;
        spec.source = placed
            .uuid
            .is_none()
            .then(|| claim::name(origin).to_owned());
        spec
    };
    leg::tend(pass, owner, placed, first, |_| {})
}

/// The leg that a snapshot's leg is, or was, taken of, once its bytes are known.
fn origin<'a>(pass: &Pass<'_, 'a>, snapshot: &PoolSnapshot, index: i32) -> Option<&'a PoolLeg> {
    let volume = *pass.volumes.get(snapshot.spec.volume.as_str())?;
    let placed = volume.spec.legs.iter().find(|l| l.index == index)?;
    placed.uuid.as_ref()?;
    pass.claims.of(Owner::Volume(volume), placed)
}

/// Where the legs of a snapshot that has none yet go: each beside the one it is taken of. A mirror's has one, of a leg that has everything.
fn begin(
    pass: &mut Pass,
    snapshot: &PoolSnapshot,
) -> Result<(Vec<PlacedLeg>, Option<SnapshotCheck>), Why> {
    let name = &snapshot.spec.volume;
    let found = pass.volumes.get(name.as_str()).copied();
    let Some(volume) = found.filter(|v| !v.spec.deletion_mark) else {
        let message = format!("there is no volume {name} to take it of");
        return Err(Why::new("SourceNotFound", message));
    };
    let check = match volume.spec.redundancy {
        Redundancy::None => None,
        Redundancy::Mirror => Some(check::begin(volume)?),
        striped => {
            let message = format!(
                "volume {name} has redundancy {}, of which no snapshots are taken; copy what is on it instead",
                array::words(striped)
            );
            return Err(Why::new(names::UNSUPPORTED, message));
        }
    };
    let taken_of = |entry: &&PlacedLeg| {
        entry.uuid.is_some() && entry.lack.is_none() && !check::is_doubted(volume, entry)
    };
    let (legs, enough): (Vec<&PlacedLeg>, usize) = match check {
        None => (volume.spec.legs.iter().collect(), volume.spec.legs.len()),
        Some(_) => (volume.spec.legs.iter().filter(taken_of).collect(), 1),
    };
    let mut placed = Vec::new();
    let mut misfit = None;
    for entry in legs {
        if placed.len() == enough {
            break;
        }
        match beside(pass, snapshot, volume, entry) {
            Some(Ok(leg)) => placed.push(leg),
            Some(Err(why)) => misfit = Some(why),
            None => {}
        }
    }
    if placed.is_empty() || placed.len() < enough {
        let message = format!("waiting for volume {name} to be ready");
        return Err(misfit.unwrap_or_else(|| Why::new("SourceNotReady", message)));
    }
    Ok((placed, check))
}

/// The place of what is taken of one leg; none while that has no bytes.
fn beside(
    pass: &mut Pass,
    snapshot: &PoolSnapshot,
    volume: &PoolVolume,
    entry: &PlacedLeg,
) -> Option<Result<PlacedLeg, Why>> {
    entry.uuid.as_ref()?;
    let origin = pass.claims.of(Owner::Volume(volume), entry)?;
    let size = ledger::copied(origin, ledger::size(origin));
    let request = place::Request {
        pool: &volume.spec.pool,
        size,
        provisioning: origin.spec.provisioning,
        node: place::Node::Any,
        beside: Some(&origin.spec.drive),
        tried: Default::default(),
    };
    if let Err(misfit) = place::choose(&pass.ledger, &request) {
        let why = Why::new(names::INSUFFICIENT_CAPACITY, misfit.to_string());
        return Some(Err(why));
    }
    let kind = origin.spec.provisioning;
    pass.ledger.promise(&origin.spec.drive, kind, size);
    Some(Ok(PlacedLeg {
        name: Owner::Snapshot(snapshot).leg_name(entry.index, |n| pass.claims.taken(n)),
        index: entry.index,
        node_name: origin.spec.node_name.clone(),
        drive: origin.spec.drive.clone(),
        uuid: None,
        moving: None,
        lack: None,
    }))
}

fn say(pass: &mut Pass, snapshot: &PoolSnapshot, outcome: Result<&[&PoolLeg], &Why>) {
    let earlier = snapshot.status.clone().unwrap_or_default();
    let generation = snapshot.metadata.generation;
    let mut conditions = Conditions::new(&earlier.conditions, pass.now, generation);
    conditions.ready(outcome.err(), "volumes can be made from it");
    let legs = outcome.unwrap_or_default();
    let taken = legs
        .iter()
        .filter_map(|leg| leg.status.as_ref()?.taken_at.clone());
    let size = legs
        .iter()
        .map(|leg| leg.status.as_ref().map_or(leg.spec.size, |s| s.size));
    let status = PoolSnapshotStatus {
        ready_to_use: outcome.is_ok(),
        size: size.min().unwrap_or(earlier.size),
        taken_at: taken.max_by_key(|t| t.0).or(earlier.taken_at),
        conditions: conditions.list,
    };
    let early = snapshot.status.is_none()
        && outcome.is_err_and(|why| why.passing())
        && young(&snapshot.metadata, pass.now, YOUNG);
    if snapshot.status.as_ref() != Some(&status) && !early {
        pass.actions.push(Action::SetSnapshotStatus {
            snapshot: Owner::Snapshot(snapshot).name().into(),
            status: Box::new(status),
        });
    }
}
