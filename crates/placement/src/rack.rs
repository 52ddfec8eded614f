//! What the operator does next: from everything observed to a list of actions.

mod action;

pub use action::Action;

use crate::{
    adopt::{self, Candidate, Claim, Desire, Sightings},
    identity, map, operation,
    select::{NodeMatcher, Refusal},
    status,
};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use strand_api::{
    DeletionPolicy, Drive, DriveOperation, DrivePhase, MemoryPool, OperationPhase, OperationType,
    PoolMap, PoolMapSpec, condition, names,
};

/// A release that a pool's deletion asked for and that failed is tried again after this time.
const RELEASE_RETRY: Duration = Duration::from_secs(60);

/// Everything that the operator observes.
#[derive(Default)]
pub struct Rack<'a> {
    /// All pools.
    pub pools: Vec<&'a MemoryPool>,
    /// All nodes, by name.
    pub nodes: BTreeMap<&'a str, &'a Node>,
    /// All drives.
    pub drives: Vec<&'a Drive>,
    /// All pool maps, by name.
    pub maps: BTreeMap<&'a str, &'a PoolMap>,
    /// All operations.
    pub operations: Vec<&'a DriveOperation>,
    /// How many legs of volumes each drive holds, where it holds any.
    pub legs: BTreeMap<&'a str, usize>,
}

/// Plans. Equal inputs give equal plans, and a plan whose actions have all been carried out and
/// observed is followed by an empty one.
pub fn plan(rack: &Rack, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    let candidates = candidates(rack);
    let sightings = Sightings::new(&rack.drives, &rack.nodes);
    let desires: Vec<Desire> = rack
        .drives
        .iter()
        .map(|drive| {
            let node = rack.nodes.get(drive.spec.node_name.as_str()).copied();
            let desire = adopt::desire(drive, node, &candidates, &sightings);
            spare_legs(drive, desire, rack)
        })
        .collect();

    for candidate in &candidates {
        hold(candidate, rack, &mut actions);
        identify(candidate, &desires, &mut actions);
    }
    for (drive, desire) in rack.drives.iter().zip(&desires) {
        act_on_drive(drive, desire, rack, &mut actions);
    }
    for operation in &rack.operations {
        act_on_operation(operation, rack, now, &mut actions);
    }
    for candidate in &candidates {
        let map = next_map(candidate, rack, now);
        let status = status::of(candidate, &candidates, rack, &desires, map.is_some(), now);
        if let Some(map) = map {
            actions.push(Action::PublishMap {
                pool: candidate.name.into(),
                map,
            });
        }
        if candidate.pool.status.as_ref() != Some(&status) {
            actions.push(Action::SetStatus {
                pool: candidate.name.into(),
                status: Box::new(status),
            });
        }
    }
    actions
}

/// A drive that holds legs keeps the storage side it has: its agent would refuse to take from it, and
/// is not asked.
fn spare_legs(drive: &Drive, desire: Desire, rack: &Rack) -> Desire {
    match (desire, drive.spec.carve) {
        (Desire::Claimed(mut claim), Some(present)) if legs_on(drive, rack) > 0 => {
            claim.carve.context_memory = claim.carve.context_memory.min(present.context_memory);
            Desire::Claimed(claim)
        }
        (desire, _) => desire,
    }
}

/// How many legs of volumes a drive holds.
pub(crate) fn legs_on(drive: &Drive, rack: &Rack) -> usize {
    let name = drive.metadata.name.as_deref().unwrap_or_default();
    rack.legs.get(name).copied().unwrap_or(0)
}

/// The pools, oldest first; those of one second by name.
fn candidates<'a>(rack: &Rack<'a>) -> Vec<Candidate<'a>> {
    let mut pools = rack.pools.clone();
    pools.sort_by_key(|pool| {
        (
            pool.metadata.creation_timestamp.as_ref().map(|t| t.0),
            pool.metadata.name.clone(),
        )
    });
    pools
        .into_iter()
        .map(|pool| Candidate {
            pool,
            name: pool.metadata.name.as_deref().unwrap_or_default(),
            id: identity::decide(pool, &rack.pools, &rack.drives),
            nodes: NodeMatcher::new(pool.spec.node_selector.as_ref()),
        })
        .collect()
}

/// A pool whose deletion is to release its drives is held until they are.
fn hold(candidate: &Candidate, rack: &Rack, actions: &mut Vec<Action>) {
    let meta = &candidate.pool.metadata;
    let held = meta
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == names::FINALIZER);
    let releases = candidate.pool.spec.deletion_policy == DeletionPolicy::Release;
    let pool = candidate.name.to_owned();
    if meta.deletion_timestamp.is_none() {
        if held != releases {
            actions.push(Action::HoldPool {
                pool,
                hold: releases,
            });
        }
        return;
    }
    if !held {
        return;
    }
    let mine: Vec<&&Drive> = rack
        .drives
        .iter()
        .filter(|d| d.spec.pool.as_deref() == Some(candidate.name))
        .collect();
    if mine.is_empty() || !releases {
        actions.push(Action::HoldPool { pool, hold: false });
        return;
    }
    for drive in mine {
        release(candidate.name, drive, rack, actions);
    }
}

/// Asks for the release of a drive once.
fn release(pool: &str, drive: &Drive, rack: &Rack, actions: &mut Vec<Action>) {
    let name = drive.metadata.name.clone().unwrap_or_default();
    let phase = drive.status.as_ref().and_then(|s| s.phase);
    let identity = drive.status.as_ref().and_then(|s| s.identity.as_ref());
    let operation = release_name(&name);
    let asked = rack
        .operations
        .iter()
        .any(|o| o.metadata.name.as_deref() == Some(&operation));
    if let Some(identity) = identity
        && !asked
        && legs_on(drive, rack) == 0
        && !matches!(phase, Some(DrivePhase::Released | DrivePhase::Missing))
    {
        actions.push(Action::Release {
            pool: pool.into(),
            drive: name,
            serial: identity.serial.clone(),
        });
    }
}

/// Name of the DriveOperation by which a deleted pool releases a drive.
pub fn release_name(drive: &str) -> String {
    format!("release-{drive}")
}

/// A pool's identity is recorded before the first drive carries it.
fn identify(candidate: &Candidate, desires: &[Desire], actions: &mut Vec<Action>) {
    let pool = candidate.pool;
    if pool.spec.pool_id.is_some() || pool.metadata.deletion_timestamp.is_some() {
        return;
    }
    let needed = desires
        .iter()
        .any(|d| matches!(d, Desire::Claimed(claim) if claim.pool == candidate.name));
    if let Ok(id) = &candidate.id
        && (needed || Some(id) != pool.metadata.uid.as_ref())
    {
        actions.push(Action::SetPoolId {
            pool: candidate.name.into(),
            id: id.clone(),
        });
    }
}

fn act_on_drive(drive: &Drive, desire: &Desire, rack: &Rack, actions: &mut Vec<Action>) {
    let name = || drive.metadata.name.clone().unwrap_or_default();
    let held = drive
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == names::FINALIZER);
    if drive.metadata.deletion_timestamp.is_some() {
        if held && !in_map(drive, rack) {
            actions.push(Action::Want {
                drive: name(),
                claim: None,
            });
        }
        return;
    }
    if !rack.nodes.contains_key(drive.spec.node_name.as_str()) && drive.spec.pool.is_none() && !held
    {
        actions.push(Action::DropDrive { drive: name() });
        return;
    }
    let (wanted, refusal) = match desire {
        Desire::Undecided => return,
        Desire::Claimed(claim) => {
            let recorded = rack.pools.iter().any(|p| {
                p.metadata.name.as_ref() == Some(&claim.pool)
                    && p.spec.pool_id.as_ref() == Some(&claim.pool_id)
            });
            if !recorded {
                return;
            }
            (Some(claim), None)
        }
        Desire::Unclaimed(refusal) => (None, refusal.as_ref()),
    };
    if wanted != written(drive).as_ref() || held != wanted.is_some() {
        // An administrator's spec.pool stays; only what the operator wrote is taken back.
        let nothing_of_ours =
            wanted.is_none() && !held && drive.spec.pool_id.is_none() && drive.spec.carve.is_none();
        if !nothing_of_ours {
            actions.push(Action::Want {
                drive: name(),
                claim: wanted.cloned(),
            });
        }
    }
    explain(drive, refusal, actions);
}

/// What the operator wrote into a drive's spec, if it is complete.
fn written(drive: &Drive) -> Option<Claim> {
    Some(Claim {
        pool: drive.spec.pool.clone()?,
        pool_id: drive.spec.pool_id.clone()?,
        carve: drive.spec.carve?,
    })
}

fn explain(drive: &Drive, refusal: Option<&Refusal>, actions: &mut Vec<Action>) {
    let conditions = drive.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let said =
        condition::find(conditions, names::ADOPTED).map(|c| (c.reason.clone(), c.message.clone()));
    let to_say = refusal.map(|r| (r.code().to_owned(), r.to_string()));
    if said != to_say {
        actions.push(Action::Explain {
            drive: drive.metadata.name.clone().unwrap_or_default(),
            refusal: refusal.cloned(),
        });
    }
}

/// Whether a published map still names the drive.
fn in_map(drive: &Drive, rack: &Rack) -> bool {
    let label = drive.status.as_ref().and_then(|s| s.label.as_ref());
    let map = drive
        .spec
        .pool
        .as_deref()
        .and_then(|pool| rack.maps.get(pool));
    let (Some(label), Some(map)) = (label, map) else {
        return false;
    };
    let Some(key) = map::key_of(&label.drive_id) else {
        return false;
    };
    map.spec.nodes.iter().any(|node| {
        node.node == drive.spec.node_name && node.drives.iter().any(|drive| drive.key == key)
    })
}

fn act_on_operation(op: &DriveOperation, rack: &Rack, now: Timestamp, actions: &mut Vec<Action>) {
    let name = op.metadata.name.clone().unwrap_or_default();
    let drive = rack
        .drives
        .iter()
        .find(|d| d.metadata.name.as_ref() == Some(&op.spec.drive))
        .copied();
    if op.status.as_ref().and_then(|s| s.phase) == Some(OperationPhase::Failed)
        && name == release_name(&op.spec.drive)
    {
        let pool = drive.and_then(|d| d.spec.pool.as_deref());
        let deleting = rack
            .pools
            .iter()
            .any(|p| p.metadata.name.as_deref() == pool && p.metadata.deletion_timestamp.is_some());
        let conditions = op.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let waited = condition::find(conditions, "Complete").is_none_or(|c| {
            now.duration_since(c.last_transition_time.0).unsigned_abs() >= RELEASE_RETRY
        });
        if deleting && waited {
            actions.push(Action::RetryRelease { operation: name });
        }
        return;
    }
    if operation::ended(op) {
        return;
    }
    match (op.spec.type_, drive) {
        (OperationType::Forget, None) => actions.push(Action::Forget {
            operation: name,
            drive: None,
        }),
        (OperationType::Forget, Some(drive)) => {
            let node = rack.nodes.get(drive.spec.node_name.as_str()).copied();
            match operation::may_forget(op, drive, node, now) {
                Err(denial) => actions.push(Action::Deny {
                    operation: name,
                    message: denial.to_string(),
                }),
                Ok(()) if in_map(drive, rack) => {}
                Ok(()) => actions.push(Action::Forget {
                    operation: name,
                    drive: drive.metadata.name.clone(),
                }),
            }
        }
        (OperationType::Wipe | OperationType::Release | OperationType::Evacuate, None) => actions
            .push(Action::Deny {
                operation: name,
                message: format!(
                    "there is no Drive {}; see kubectl get drives for the names",
                    op.spec.drive
                ),
            }),
        (OperationType::Wipe | OperationType::Release | OperationType::Evacuate, Some(_)) => {}
    }
}

/// The map to publish next, if the present one is out of date.
fn next_map(candidate: &Candidate, rack: &Rack, now: Timestamp) -> Option<PoolMapSpec> {
    let id = candidate.pool.spec.pool_id.as_ref()?;
    let nodes = map::nodes(
        candidate.pool,
        rack.drives.iter().copied(),
        &rack.nodes,
        now,
    );
    let stored = rack
        .drives
        .iter()
        .filter(|d| d.spec.pool.as_deref() == Some(candidate.name))
        .filter_map(|d| d.status.as_ref()?.stored_epoch)
        .max();
    let present = rack.maps.get(candidate.name).copied();
    map::next(id, present, nodes, stored.unwrap_or(0))
}

/// The names of the nodes that hold drives of a pool, for its status.
pub(crate) fn nodes_of<'a>(drives: impl Iterator<Item = &'a Drive>) -> usize {
    drives
        .map(|d| d.spec.node_name.as_str())
        .collect::<BTreeSet<_>>()
        .len()
}
