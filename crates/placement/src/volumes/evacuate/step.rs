//! The next step of one leg: where it goes to, its copy, and that this takes its place.

use super::super::{
    Action, Owner, Pass,
    claim::{self, Source},
    ledger, place, site,
    state::{ailment, unserved},
};
use super::{abroad, is_left, succession::before, wait, words};
use strand_api::{
    Abroad, ByteQuantity, LegCopy, LegMove, LegPhase, Locality, PlacedLeg, PoolLeg, PoolLegSpec,
    condition, names,
};

/// Copies from one drive at once, besides those that fail or wait.
const AT_ONCE: usize = 1;
/// As many as this may wait for the network before no more legs of the drive set out over it: once it answers they are copied at once.
const STALLED: usize = 3;

/// What keeps an owner's legs where they are, if anything does.
fn bound(pass: &Pass, owner: Owner) -> Option<String> {
    let volume = match owner {
        Owner::Snapshot(snapshot) => {
            let copied = pass.claims.wanted.contains(&Source::Snapshot(owner.name()));
            let name = &snapshot.spec.volume;
            return copied.then(|| format!("snapshot of {name}: a volume is being made from it"));
        }
        Owner::Volume(volume) => volume,
    };
    let name = owner.name();
    let wished = volume.spec.attach_to.iter().map(|a| &a.node);
    let granted = volume.status.iter().flat_map(|s| &s.attachments);
    if let Some(node) = wished.chain(granted.map(|a| &a.node)).next() {
        return Some(format!("volume {name} is attached to node {node}"));
    }
    let copied = pass.claims.wanted.contains(&Source::Volume(name));
    copied.then(|| format!("volume {name} is being copied"))
}

/// Decides on a leg that lacks writes of its volume: it is not moved, but copied to, or replaced elsewhere.
pub fn lacks(pass: &mut Pass, owner: Owner, placed: &PlacedLeg) {
    let why = format!(
        "{} is degraded, and leg {} has to be whole first",
        words(owner),
        placed.name
    );
    wait(pass, &placed.drive, false, why);
}

/// Decides on a leg that is there and whole: what its entry of the owner's `spec.legs` becomes, if that changes. `record` is what those are by
/// what was decided so far.
pub fn step<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    record: &[PlacedLeg],
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
) -> Option<PlacedLeg> {
    let drive = leg.spec.drive.as_str();
    let bound = bound(pass, owner);
    let Some(rate) = pass.evacuations.0.get(drive).map(|e| e.rate) else {
        return match placed.moving {
            Some(_) => stop(placed),
            None => None,
        };
    };
    match (&placed.moving, bound) {
        (moving, Some(why)) => {
            wait(pass, drive, false, why);
            moving.as_ref().and_then(|_| stop(placed))
        }
        (None, None) => begin(pass, owner, record, placed, leg),
        (Some(moving), None) => go_on(pass, owner, record, placed, leg, moving, rate),
    }
}

fn stop(placed: &PlacedLeg) -> Option<PlacedLeg> {
    Some(PlacedLeg {
        moving: None,
        ..placed.clone()
    })
}

/// Chooses where a leg goes to.
fn begin<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    record: &[PlacedLeg],
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
) -> Option<PlacedLeg> {
    let drive = leg.spec.drive.as_str();
    if let Some((true, why)) = ailment(pass, leg) {
        wait(pass, drive, false, why.message);
        return None;
    }
    let earlier = leg.spec.copy.as_ref();
    if earlier.is_some_and(|copy| before(pass, owner, copy).is_some()) {
        wait(
            pass,
            drive,
            true,
            format!("{} has just moved here", words(owner)),
        );
        return None;
    }
    let (to, node) = elsewhere(pass, owner, record, leg)?;
    let leaves = node != leg.spec.node_name;
    let evacuation = pass.evacuations.0.get(drive)?;
    let busy = evacuation.moving >= AT_ONCE || leaves && evacuation.stalled >= STALLED;
    if busy || abroad::turn(record, placed, leaves) {
        wait(
            pass,
            drive,
            true,
            format!("{} waits for its turn", words(owner)),
        );
        return None;
    }
    pass.evacuations.0.get_mut(drive)?.moving += 1;
    pass.ledger
        .promise(to, leg.spec.provisioning, ledger::size(leg));
    let generation = abroad::generation(pass, owner);
    Some(PlacedLeg {
        moving: Some(LegMove {
            name: owner.leg_name(placed.index, |name| pass.claims.taken(name)),
            drive: to.into(),
            abroad: leaves.then(|| Abroad {
                node_name: node.into(),
                generation,
            }),
        }),
        ..placed.clone()
    })
}

/// Another drive that has room for a leg, of its node or else of another one, and that drive's node; else why there is none is told.
fn elsewhere<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    record: &[PlacedLeg],
    leg: &'a PoolLeg,
) -> Option<(&'a str, &'a str)> {
    let drive = leg.spec.drive.as_str();
    let pool = pass.ledger.of(drive).map(|account| account.pool)?;
    let tried = pass.claims.all(owner).map(|leg| leg.spec.drive.as_str());
    let mut request = place::Request {
        pool,
        size: ledger::size(leg),
        provisioning: leg.spec.provisioning,
        node: place::Node::Only(&leg.spec.node_name),
        beside: None,
        tried: tried.chain([drive]).collect(),
    };
    let at = |account: &ledger::Account<'a>| (account.drive, account.node);
    let tied = is_tied(pass, owner);
    let chosen = match (place::choose(&pass.ledger, &request).map(at), owner) {
        (Ok(chosen), _) => Ok(chosen),
        (Err(misfit), _) if tied => Err(misfit),
        (Err(_), Owner::Volume(volume)) => site::abroad(pass, volume, record, leg),
        (Err(_), Owner::Snapshot(_)) => {
            request.node = place::Node::Any;
            place::choose(&pass.ledger, &request).map(at)
        }
    };
    if let Err(misfit) = &chosen {
        let locality = match tied {
            true => ", with locality node",
            false => "",
        };
        let why = format!("{}{locality}: {misfit}", words(owner));
        wait(pass, drive, false, why);
    }
    chosen.ok()
}

/// Whether an owner's bytes are of use on their node alone: those of a snapshot too, since volumes are made beside it.
fn is_tied(pass: &Pass, owner: Owner) -> bool {
    let volume = match owner {
        Owner::Volume(volume) => Some(volume),
        Owner::Snapshot(snapshot) => pass.volumes.get(snapshot.spec.volume.as_str()).copied(),
    };
    volume.is_some_and(|volume| volume.spec.locality == Locality::Node)
}

fn go_on<'a>(
    pass: &mut Pass<'_, 'a>,
    owner: Owner<'a>,
    record: &[PlacedLeg],
    placed: &PlacedLeg,
    leg: &'a PoolLeg,
    moving: &LegMove,
    rate: ByteQuantity,
) -> Option<PlacedLeg> {
    let Some(uuid) = claim::uuid(leg) else {
        return stop(placed);
    };
    // Where the drive is, is what counts: it may have been put into another machine, or what was recorded of that is lost.
    let node = moving.abroad.as_ref().map(|abroad| &abroad.node_name);
    let node = node.unwrap_or(&leg.spec.node_name);
    let to = pass.drives.get(moving.drive.as_str());
    if to.is_some_and(|to| to.spec.node_name != *node) {
        return stop(placed);
    }
    let generation = match &moving.abroad {
        Some(abroad) if abroad::overtaken(owner, leg, abroad) => return stop(placed),
        Some(abroad) => abroad.generation,
        None => next_generation(owner, leg),
    };
    let Some(copy) = pass.claims.named(&moving.name) else {
        let of = LegCopy {
            uuid: uuid.into(),
            drive: leg.spec.drive.clone(),
            node_name: moving.abroad.as_ref().map(|_| leg.spec.node_name.clone()),
            generation,
            rate,
            live: false,
        };
        let why = format!("{} is about to be copied", words(owner));
        wait(pass, &leg.spec.drive, false, why);
        pass.actions.push(Action::MakeLeg {
            leg: moving.name.clone(),
            spec: Box::new(PoolLegSpec {
                node_name: node.clone(),
                drive: moving.drive.clone(),
                size: ByteQuantity(ledger::size(leg)),
                source: None,
                uuid: None,
                copy: Some(of),
                exports: Vec::new(),
                ..leg.spec.clone()
            }),
        });
        return None;
    };
    let ours = copy.spec.owner_uid == owner.uid()
        && copy.spec.drive == moving.drive
        && copy.spec.node_name == *node
        && !copy.spec.deletion_mark
        && !copy.spec.orphaned
        && copy
            .spec
            .copy
            .as_ref()
            .is_some_and(|of| of.uuid == uuid && of.generation == generation && !of.live);
    let status = copy.status.clone().unwrap_or_default();
    if !ours || status.phase == Some(LegPhase::Deleted) {
        return stop(placed);
    }
    // One that did not fit stays until another drive has room: else it would be tried there again and again.
    if claim::never_made(copy).is_some() && elsewhere(pass, owner, record, leg).is_some() {
        return stop(placed);
    }
    let ill = ailment(pass, copy);
    let lost = match moving.abroad {
        Some(_) => abroad::lost(pass, copy),
        None => ill.as_ref().is_some_and(|(dead, _)| *dead),
    };
    let failing = ill.is_some() && unserved(pass, copy).is_none();
    // A copy that is whole may be the last of the bytes while nobody serves what it was copied from.
    let last = claim::uuid(copy).is_some() && unserved(pass, leg).is_some();
    let given_up = !last && (lost || failing || is_left(pass, &moving.drive));
    if given_up && elsewhere(pass, owner, record, leg).is_some() {
        return stop(placed);
    }
    pass.claims.own(copy);
    let doubt = moving.abroad.as_ref().and_then(|to| abroad::doubt(leg, to));
    let of = ByteQuantity(ledger::size(leg)).rounded();
    match (status.phase, claim::uuid(copy)) {
        (Some(LegPhase::Ready), Some(uuid)) if status.size.0 >= ledger::size(leg) => {
            if lost && !last {
                return stop(placed);
            }
            let ill = ill.map(|(_, why)| {
                let to = &moving.drive;
                format!("all of it is copied to {to}, and waits: {}", why.message)
            });
            if let Some(why) = ill.or(doubt) {
                let words = words(owner);
                wait(pass, &leg.spec.drive, false, format!("{words}: {why}"));
                return None;
            }
            Some(PlacedLeg {
                name: moving.name.clone(),
                index: placed.index,
                node_name: copy.spec.node_name.clone(),
                drive: copy.spec.drive.clone(),
                uuid: Some(uuid.into()),
                moving: None,
                lack: None,
            })
        }
        (Some(LegPhase::Ready), Some(_)) => stop(placed),
        (Some(LegPhase::Failed), _) => {
            let told = condition::find(&status.conditions, names::READY);
            let why = told.map_or("its agent gives no reason", |c| c.message.as_str());
            let words = words(owner);
            wait(pass, &leg.spec.drive, false, format!("{words}: {why}"));
            None
        }
        _ => {
            let there = status.copied.unwrap_or_default().rounded();
            let mut why = format!(
                "{}: {there} of {of} copied to {}",
                words(owner),
                moving.drive
            );
            if let Some(to) = &moving.abroad {
                why.push_str(&format!(" on node {}", to.node_name));
                let trouble = abroad::trouble(leg, copy);
                why.extend(trouble.map(|trouble| format!(", and waits: {trouble}")));
            }
            wait(pass, &leg.spec.drive, false, why);
            None
        }
    }
}

/// The attachment generation that a copy is made with: whoever was attached before it comes too late. A snapshot is attached to nobody: its
/// leg keeps the one that it was last read by from another node.
fn next_generation(owner: Owner, leg: &PoolLeg) -> i64 {
    let stored = leg.status.as_ref().and_then(|s| s.attachment_generation);
    let Owner::Volume(volume) = owner else {
        return stored.unwrap_or(0);
    };
    let granted = volume.status.as_ref().map(|s| s.attachment_generation);
    granted.max(stored).unwrap_or(0) + 1
}
