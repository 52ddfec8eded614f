//! Which pool has which drive.

use crate::select::{self, NodeMatcher, Refusal};
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{
    Adoption, ByteQuantity, Drive, DriveCarve, DrivePhase, DriveStatus, DriveVerdict, MemoryPool,
    PartitionRole,
};

/// A pool as adoption sees it.
pub struct Candidate<'a> {
    /// The object.
    pub pool: &'a MemoryPool,
    /// Its name.
    pub name: &'a str,
    /// Its identity, or why it has none yet.
    pub id: Result<String, String>,
    /// Its node selector.
    pub nodes: NodeMatcher,
}

impl Candidate<'_> {
    fn deleting(&self) -> bool {
        self.pool.metadata.deletion_timestamp.is_some()
    }

    /// Whether the pool's node selector means this node.
    pub fn selects_node(&self, node: Option<&Node>) -> bool {
        let labels = node.and_then(|node| node.metadata.labels.as_ref());
        node.is_some() && self.nodes.matches(labels.unwrap_or(&BTreeMap::new()))
    }
}

/// What the operator wants of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the pool.
    pub pool: String,
    /// Identity of the pool.
    pub pool_id: String,
    /// How the drive shall be split.
    pub carve: DriveCarve,
}

/// Whether a drive is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Desire {
    /// By this pool.
    Claimed(Claim),
    /// By none. The refusal is there where the drive's agent would give it.
    Unclaimed(Option<Refusal>),
    /// Nothing can be said before its agent has judged it.
    Undecided,
}

/// Drives that more than one node reports, by what tells drives apart.
pub struct Sightings<'a> {
    nodes: BTreeMap<(&'a str, &'a str, i64), BTreeSet<&'a str>>,
}

impl<'a> Sightings<'a> {
    /// Collects who sees what; drives that are missing, or whose node is gone, do not count.
    pub fn new(drives: &[&'a Drive], nodes: &BTreeMap<&str, &Node>) -> Self {
        let mut seen: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for drive in drives {
            let node = drive.spec.node_name.as_str();
            let Some(key) = Self::key(drive) else {
                continue;
            };
            let missing = drive
                .status
                .as_ref()
                .is_some_and(|s| s.phase == Some(DrivePhase::Missing));
            if !missing && nodes.contains_key(node) {
                seen.entry(key).or_default().insert(node);
            }
        }
        seen.retain(|_, nodes| nodes.len() > 1);
        Self { nodes: seen }
    }

    fn key(drive: &Drive) -> Option<(&str, &str, i64)> {
        let identity = drive.status.as_ref()?.identity.as_ref()?;
        Some((&identity.model, &identity.serial, identity.namespace_id))
    }

    fn refusal(&self, drive: &Drive) -> Option<Refusal> {
        let nodes = self.nodes.get(&Self::key(drive)?)?;
        let names: Vec<&str> = nodes.iter().copied().collect();
        Some(Refusal::SharedBetweenNodes(names.join(", ")))
    }
}

/// Decides on one drive. `pools` stand oldest first: the older pool has what two select.
pub fn desire(
    drive: &Drive,
    node: Option<&Node>,
    pools: &[Candidate],
    sightings: &Sightings,
) -> Desire {
    let Some(status) = drive.status.as_ref().filter(|s| s.verdict.is_some()) else {
        return Desire::Undecided;
    };
    if status.phase == Some(DrivePhase::Released) {
        return Desire::Unclaimed(None);
    }
    match &drive.spec.pool {
        Some(name) => match pools.iter().find(|p| p.name == name) {
            Some(pool) => named(drive, status, pool, sightings),
            // What the operator wrote itself it takes back without a word.
            None if drive.spec.pool_id.is_some() => Desire::Unclaimed(None),
            None => Desire::Unclaimed(Some(Refusal::NoSuchPool { pool: name.clone() })),
        },
        None => unnamed(drive, status, node, pools, sightings),
    }
}

/// A drive whose spec names a pool: already taken, being taken, or named by an administrator.
fn named(drive: &Drive, status: &DriveStatus, pool: &Candidate, sightings: &Sightings) -> Desire {
    let id = match &pool.id {
        Ok(id) => id,
        Err(why) => {
            return Desire::Unclaimed(Some(Refusal::NoPoolId {
                pool: pool.name.into(),
                why: why.clone(),
            }));
        }
    };
    if carries(status, id) {
        return Desire::Claimed(keep(drive, status, pool, id));
    }
    if status.verdict != Some(DriveVerdict::Stranded) || pool.deleting() {
        return Desire::Unclaimed(None);
    }
    let refusal = match pool.pool.spec.adoption {
        Adoption::Automatic => select::drive_selected(pool.name, &pool.pool.spec, status).err(),
        Adoption::Manual => None,
    };
    match refusal {
        Some(refusal) => Desire::Unclaimed(Some(refusal)),
        None => take(drive, status, pool, id, sightings),
    }
}

/// A drive that no one has named a pool for.
fn unnamed(
    drive: &Drive,
    status: &DriveStatus,
    node: Option<&Node>,
    pools: &[Candidate],
    sightings: &Sightings,
) -> Desire {
    let owner = pools
        .iter()
        .filter(|p| !p.deleting())
        .find_map(|p| Some((p, p.id.as_ref().ok()?)).filter(|(_, id)| carries(status, id)));
    if let Some((pool, id)) = owner {
        return Desire::Claimed(keep(drive, status, pool, id));
    }
    if status.verdict != Some(DriveVerdict::Stranded) || pools.is_empty() {
        return Desire::Unclaimed(None);
    }
    let mut first = None;
    for pool in pools
        .iter()
        .filter(|p| !p.deleting() && p.selects_node(node))
    {
        let refusal = match (
            select::drive_selected(pool.name, &pool.pool.spec, status),
            pool.pool.spec.adoption,
            &pool.id,
        ) {
            (Err(refusal), _, _) => refusal,
            (Ok(()), Adoption::Manual, _) => Refusal::ManualAdoption {
                pool: pool.name.into(),
                drive: drive.metadata.name.clone().unwrap_or_default(),
            },
            (Ok(()), Adoption::Automatic, Err(why)) => Refusal::NoPoolId {
                pool: pool.name.into(),
                why: why.clone(),
            },
            (Ok(()), Adoption::Automatic, Ok(id)) => {
                return take(drive, status, pool, id, sightings);
            }
        };
        first.get_or_insert(refusal);
    }
    Desire::Unclaimed(Some(first.unwrap_or_else(|| {
        Refusal::NodeNotSelected(drive.spec.node_name.clone())
    })))
}

/// Takes a stranded drive, unless something about the drive itself forbids it.
fn take(
    drive: &Drive,
    status: &DriveStatus,
    pool: &Candidate,
    id: &str,
    sightings: &Sightings,
) -> Desire {
    if drive.spec.cordon {
        return Desire::Unclaimed(Some(Refusal::Cordoned));
    }
    if let Some(refusal) = sightings.refusal(drive) {
        return Desire::Unclaimed(Some(refusal));
    }
    match select::context_bytes(pool.name, &pool.pool.spec, status) {
        Ok(bytes) => Desire::Claimed(claim(pool, id, bytes)),
        Err(refusal) => Desire::Unclaimed(Some(refusal)),
    }
}

/// Keeps a drive that carries the pool's label, whatever the selectors say by now: it leaves by a
/// DriveOperation alone. Where the policy no longer fits it, it stays carved as it is.
fn keep(drive: &Drive, status: &DriveStatus, pool: &Candidate, id: &str) -> Claim {
    let as_it_is = || {
        let on_drive = status
            .partitions
            .iter()
            .find(|p| p.role == PartitionRole::ContextMemory);
        drive
            .spec
            .carve
            .map_or(on_drive.map_or(0, |p| p.size.0), |carve| {
                carve.context_memory.0
            })
    };
    let bytes =
        select::context_bytes(pool.name, &pool.pool.spec, status).unwrap_or_else(|_| as_it_is());
    claim(pool, id, bytes)
}

fn claim(pool: &Candidate, id: &str, context_bytes: u64) -> Claim {
    Claim {
        pool: pool.name.into(),
        pool_id: id.into(),
        carve: DriveCarve {
            context_memory: ByteQuantity(context_bytes),
        },
    }
}

/// Whether the drive itself carries the label of the pool with this identity.
pub fn carries(status: &DriveStatus, pool_id: &str) -> bool {
    status
        .label
        .as_ref()
        .is_some_and(|label| label.pool_id == pool_id)
}
