//! What each drive's storage side has, and what is promised of it.

use super::{Storage, shape};
use crate::{adopt, map};
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{
    ByteQuantity, Drive, DrivePhase, DriveStatus, DriveVerdict, LegPhase, PartitionRole,
    PartitionStatus, PlacedLeg, PoolLeg, PoolSnapshot, Provisioning, condition, names,
};

/// Legs are counted in whole mebibytes, and one more for what the file system keeps about each.
const UNIT: u64 = 1 << 20;
/// A thin drive that is this full gets no new legs, in sixteenths.
const THIN_FULL: u64 = 12;

/// How many times over a thin drive is promised at most; its agent goes by the same.
const THIN_FACTOR: u64 = 10;

/// Bytes that a leg of this size is counted with.
pub fn cost(size: u64) -> u64 {
    size.div_ceil(UNIT).saturating_add(1).saturating_mul(UNIT)
}

/// The largest leg that is counted with this many bytes.
fn largest(room: u64) -> u64 {
    (room / UNIT).saturating_sub(1) * UNIT
}

/// Bytes that all legs of a partition together can have, where its agent has not told yet.
fn estimate(partition: u64) -> u64 {
    (partition - partition / 32).saturating_sub(64 << 20)
}

/// Why a drive gets no new legs, however much room it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// An administrator cordoned it.
    Cordoned,
    /// It does not serve: missing, failed, being carved or released.
    NotServing,
    /// Its own health log warns.
    Failing,
    /// Something ails its storage side: it takes no writes, or its file system stopped itself.
    Ailing,
    /// Its node is not ready.
    NodeNotReady,
    /// Its node is cordoned: what could as well lie elsewhere does not go there.
    NodeCordoned,
}

impl Closed {
    /// As in "drive d is cordoned".
    pub fn words(self) -> &'static str {
        match self {
            Self::Cordoned => "is cordoned",
            Self::NotServing => "does not serve",
            Self::Failing => "is about to fail",
            Self::Ailing => "does not serve its storage side",
            Self::NodeNotReady => "is on a node that is not ready",
            Self::NodeCordoned => "is on a node that is cordoned",
        }
    }
}

/// One drive's account.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    /// The Drive object.
    pub drive: &'a str,
    /// Its node.
    pub node: &'a str,
    /// Its pool.
    pub pool: &'a str,
    /// What fails together with it: its node, or what the pool's label says of that.
    pub domain: &'a str,
    /// Why it gets no new legs, if it does not.
    pub closed: Option<Closed>,
    /// Whether its node is cordoned.
    pub node_cordoned: bool,
    /// Percent of its endurance used.
    pub wear: u64,
    /// Legs of volumes that are attached.
    pub busy: u64,
    usable: u64,
    promised: u64,
    kinds: (bool, bool),
    full: bool,
}

impl Account<'_> {
    /// Whether its legs are of this kind, or it has none yet.
    pub fn takes(&self, provisioning: Provisioning) -> bool {
        match provisioning {
            Provisioning::Thick => !self.kinds.1,
            Provisioning::Thin => !self.kinds.0,
        }
    }

    /// Whether it has legs of this kind already.
    pub fn has(&self, provisioning: Provisioning) -> bool {
        match provisioning {
            Provisioning::Thick => self.kinds.0,
            Provisioning::Thin => self.kinds.1,
        }
    }

    /// Size of the largest leg of this kind that it has room for.
    pub fn largest(&self, provisioning: Provisioning) -> u64 {
        match provisioning {
            _ if !self.takes(provisioning) => 0,
            Provisioning::Thin if self.full => 0,
            _ => largest(self.room(provisioning)),
        }
    }

    /// Whether a leg can grow this far here.
    pub fn can_grow(&self, provisioning: Provisioning, from: u64, to: u64) -> bool {
        cost(to) <= self.usable && cost(to) - cost(from) <= self.room(provisioning)
    }

    /// Bytes that one more leg of this kind can be counted with.
    fn room(&self, provisioning: Provisioning) -> u64 {
        let limit = match provisioning {
            Provisioning::Thick => self.usable,
            Provisioning::Thin => self.usable.saturating_mul(THIN_FACTOR),
        };
        limit.saturating_sub(self.promised).min(self.usable)
    }

    /// Thousandths of it that are not promised once `size` more is.
    pub fn free_after(&self, size: u64) -> u64 {
        let promised = u128::from(self.promised) + u128::from(cost(size));
        let free = u128::from(self.usable).saturating_sub(promised);
        (free * 1000)
            .checked_div(self.usable.into())
            .map_or(0, |thousandths| thousandths as u64)
    }
}

/// Every drive's account.
#[derive(Clone, Debug)]
pub struct Ledger<'a> {
    accounts: BTreeMap<&'a str, Account<'a>>,
}

impl<'a> Ledger<'a> {
    /// Opens the books: every leg that is not known to be gone counts, whoever's it is; so does what
    /// a volume or snapshot was promised and has no object yet.
    pub fn new(storage: &Storage<'a>) -> Self {
        let accounts = storage
            .drives
            .iter()
            .filter_map(|drive| account(storage, drive))
            .map(|account| (account.drive, account))
            .collect();
        let mut ledger = Self { accounts };
        let attached: BTreeSet<&str> = storage
            .volumes
            .iter()
            .filter(|v| v.status.as_ref().is_some_and(|s| !s.attachments.is_empty()))
            .flat_map(|v| &v.spec.legs)
            .map(|leg| leg.name.as_str())
            .collect();
        let mut known = BTreeSet::new();
        for leg in &storage.legs {
            let name = leg.metadata.name.as_deref().unwrap_or_default();
            known.insert((name, leg.spec.drive.as_str()));
            if holds_bytes(leg) {
                let size = size(leg);
                ledger.promise(&leg.spec.drive, leg.spec.provisioning, size);
                if attached.contains(name)
                    && let Some(account) = ledger.accounts.get_mut(leg.spec.drive.as_str())
                {
                    account.busy += 1;
                }
            }
        }
        let unmade =
            |placed: &&PlacedLeg| !known.contains(&(placed.name.as_str(), placed.drive.as_str()));
        for volume in &storage.volumes {
            for placed in volume.spec.legs.iter().filter(unmade) {
                let size = super::site::leg_size(volume);
                ledger.promise(&placed.drive, volume.spec.provisioning, size);
            }
        }
        // What shall take a leg's place and has no object yet.
        let volumes = storage.volumes.iter().flat_map(|v| &v.spec.legs);
        let snapshots = storage.snapshots.iter().flat_map(|s| &s.spec.legs);
        for placed in volumes.chain(snapshots) {
            let leg = |name: &str| {
                let named = |l: &&&PoolLeg| l.metadata.name.as_deref() == Some(name);
                storage.legs.iter().find(named)
            };
            if let Some(to) = &placed.moving
                && leg(&to.name).is_none()
                && let Some(from) = leg(&placed.name)
            {
                ledger.promise(&to.drive, from.spec.provisioning, size(from));
            }
        }
        for snapshot in &storage.snapshots {
            for placed in snapshot.spec.legs.iter().filter(unmade) {
                let origin = super::origin(storage, snapshot, placed.index);
                let size = snapshot_size(snapshot, origin).0;
                match origin {
                    Some(leg) => ledger.promise(&placed.drive, leg.spec.provisioning, size),
                    // Until its agent has told which kind it is, the drive takes neither.
                    None => {
                        ledger.promise(&placed.drive, Provisioning::Thick, size);
                        ledger.promise(&placed.drive, Provisioning::Thin, 0);
                    }
                }
            }
        }
        ledger
    }

    /// Counts one more leg.
    pub fn promise(&mut self, drive: &str, provisioning: Provisioning, size: u64) {
        if let Some(account) = self.accounts.get_mut(drive) {
            account.promised = account.promised.saturating_add(cost(size));
            match provisioning {
                Provisioning::Thick => account.kinds.0 = true,
                Provisioning::Thin => account.kinds.1 = true,
            }
        }
    }

    /// Counts what a leg grows by.
    pub fn grow(&mut self, drive: &str, from: u64, to: u64) {
        if let Some(account) = self.accounts.get_mut(drive) {
            account.promised = account.promised.saturating_add(cost(to) - cost(from));
        }
    }

    /// One drive's account; none if it has no storage side in a pool.
    pub fn of(&self, drive: &str) -> Option<&Account<'a>> {
        self.accounts.get(drive)
    }

    /// The accounts of a pool's drives, by name.
    pub fn pool<'s>(&'s self, pool: &'s str) -> impl Iterator<Item = &'s Account<'a>> {
        self.accounts.values().filter(move |a| a.pool == pool)
    }
}

/// Whether a leg may have bytes on its drive.
pub fn holds_bytes(leg: &PoolLeg) -> bool {
    leg.status.as_ref().and_then(|s| s.phase) != Some(LegPhase::Deleted)
}

/// The bytes that a leg has or shall have.
pub fn size(leg: &PoolLeg) -> u64 {
    let made = leg.status.as_ref().map_or(0, |s| s.size.0);
    leg.spec.size.0.max(made)
}

/// Of the bytes of a leg those that a snapshot has: what md keeps on a mirror's is none of the volume's.
pub(super) fn copied(leg: &PoolLeg, size: u64) -> u64 {
    match leg.spec.array {
        Some(_) => size.saturating_sub(shape::DATA_OFFSET),
        None => size,
    }
}

/// Size of a snapshot's leg that has no object: its origin may have grown since, or be gone.
pub(super) fn snapshot_size(snapshot: &PoolSnapshot, origin: Option<&PoolLeg>) -> ByteQuantity {
    let told = snapshot.status.as_ref().map(|s| s.size);
    let present = origin.map(|leg| ByteQuantity(copied(leg, leg.spec.size.0)));
    told.filter(|size| size.0 > 0)
        .or(present)
        .unwrap_or_default()
}

fn storage_side(drive: &Drive) -> Option<&PartitionStatus> {
    let partitions = &drive.status.as_ref()?.partitions;
    partitions.iter().find(|p| p.role == PartitionRole::Storage)
}

fn account<'a>(storage: &Storage<'a>, drive: &'a Drive) -> Option<Account<'a>> {
    let side = storage_side(drive)?;
    let health = drive.status.as_ref().and_then(|s| s.health.as_ref());
    Some(Account {
        drive: drive.metadata.name.as_deref()?,
        node: &drive.spec.node_name,
        pool: drive.spec.pool.as_deref()?,
        domain: domain(storage, drive),
        closed: closed(storage, drive),
        node_cordoned: node_cordoned(storage, drive),
        wear: health.map_or(0, |h| u64::try_from(h.percentage_used).unwrap_or(0)),
        busy: 0,
        usable: side.usable.map_or_else(|| estimate(side.size.0), |u| u.0),
        promised: 0,
        kinds: (false, false),
        full: side.used.0 >= side.size.0 / 16 * THIN_FULL,
    })
}

/// What a drive fails together with.
fn domain<'a>(storage: &Storage<'a>, drive: &'a Drive) -> &'a str {
    let node = drive.spec.node_name.as_str();
    let pool = drive.spec.pool.as_deref().and_then(|p| storage.pool(p));
    let named = pool.and_then(|pool| map::failure_domain(pool, storage.nodes.get(node).copied()));
    named.unwrap_or(node)
}

fn closed(storage: &Storage, drive: &Drive) -> Option<Closed> {
    let status = drive.status.as_ref()?;
    let pool = drive.spec.pool.as_deref().and_then(|p| storage.pool(p));
    let ours = pool
        .and_then(|p| p.spec.pool_id.as_deref())
        .is_some_and(|id| adopt::carries(status, id));
    let serves = ours
        && status.verdict == Some(DriveVerdict::Pooled)
        && status.phase == Some(DrivePhase::Ready)
        && drive.metadata.deletion_timestamp.is_none();
    let node = storage.nodes.get(drive.spec.node_name.as_str()).copied();
    if drive.spec.cordon {
        Some(Closed::Cordoned)
    } else if !serves {
        Some(Closed::NotServing)
    } else if status
        .health
        .as_ref()
        .is_some_and(|h| h.critical_warning != 0)
    {
        Some(Closed::Failing)
    } else if ails(status) {
        Some(Closed::Ailing)
    } else if !ready(node) {
        Some(Closed::NodeNotReady)
    } else {
        None
    }
}

/// Whether it takes no new legs for what its agent sees of its storage side. A full one has no room besides, and says so by that.
fn ails(status: &DriveStatus) -> bool {
    let told = condition::find(&status.conditions, names::HEALTHY);
    told.is_some_and(|told| told.status == "False" && told.reason != names::DRIVE_FULL)
}

fn node_cordoned(storage: &Storage, drive: &Drive) -> bool {
    let node = storage.nodes.get(drive.spec.node_name.as_str());
    let spec = node.and_then(|node| node.spec.as_ref());
    spec.and_then(|spec| spec.unschedulable) == Some(true)
}

/// A new leg would wait for its node's agent, so the node has to be there now.
pub(super) fn ready(node: Option<&Node>) -> bool {
    let Some(node) = node else { return false };
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    ready.is_none_or(|c| c.status == "True")
}
