//! Whose leg is whose.

use super::{Owner, Storage, ledger};
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{CheckPhase, LegPhase, PlacedLeg, PoolLeg, PoolVolume, names};

/// What bytes are copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source<'a> {
    Volume(&'a str),
    Snapshot(&'a str),
}

impl<'a> Source<'a> {
    pub fn of(volume: &'a PoolVolume) -> Option<Self> {
        let source = volume.spec.source.as_ref()?;
        let snapshot = source.snapshot.as_deref().map(Self::Snapshot);
        snapshot.or(source.volume.as_deref().map(Self::Volume))
    }
}

/// Legs by name, by UUID and by owner.
pub(super) struct Claims<'a> {
    by_name: BTreeMap<&'a str, &'a PoolLeg>,
    by_uuid: BTreeMap<&'a str, &'a PoolLeg>,
    by_owner: BTreeMap<&'a str, Vec<&'a PoolLeg>>,
    /// Names that volumes and snapshots have given to legs.
    placed: BTreeSet<&'a str>,
    /// Names of legs that an owner was found for in this pass.
    owned: BTreeSet<&'a str>,
    /// What is still to be copied from.
    pub wanted: BTreeSet<Source<'a>>,
}

impl<'a> Claims<'a> {
    pub fn new(storage: &Storage<'a>) -> Self {
        let mut claims = Self {
            by_name: BTreeMap::new(),
            by_uuid: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            placed: BTreeSet::new(),
            owned: BTreeSet::new(),
            wanted: BTreeSet::new(),
        };
        let mut legs = storage.legs.clone();
        legs.sort_by_key(|leg| leg.metadata.name.as_deref());
        for leg in legs {
            claims.by_name.insert(name(leg), leg);
            if let Some(uuid) = uuid(leg) {
                claims.by_uuid.entry(uuid).or_insert(leg);
            }
            claims
                .by_owner
                .entry(leg.spec.owner_uid.as_str())
                .or_default()
                .push(leg);
        }
        let volumes = storage.volumes.iter().map(|v| Owner::Volume(v));
        let snapshots = storage.snapshots.iter().map(|s| Owner::Snapshot(s));
        for owner in volumes.chain(snapshots) {
            let placed = owner.placed().iter();
            claims.placed.extend(placed.flat_map(|leg| {
                let moving = leg.moving.as_ref().map(|to| to.name.as_str());
                [leg.name.as_str()].into_iter().chain(moving)
            }));
        }
        claims.copied(storage);
        claims
    }

    /// Who is still to be copied from: bytes that do not exist yet may need theirs.
    fn copied(&mut self, storage: &Storage<'a>) {
        let unmade = |placed: &[PlacedLeg]| placed.iter().any(|l| l.uuid.is_none());
        for volume in &storage.volumes {
            // Without a place it has not begun, and its source may go: it then says so.
            if unmade(&volume.spec.legs) && !volume.spec.deletion_mark {
                self.wanted.extend(Source::of(volume));
            }
        }
        for snapshot in &storage.snapshots {
            // What has failed is not being made any more.
            let failed = snapshot
                .spec
                .check
                .is_some_and(|c| c.phase == CheckPhase::Failed);
            if unmade(&snapshot.spec.legs) && !failed && !snapshot.spec.deletion_mark {
                self.wanted.insert(Source::Volume(&snapshot.spec.volume));
            }
        }
    }

    /// The leg that an entry of an owner's `spec.legs` means: by its UUID if that is known, whatever
    /// its name and whoever it says it belongs to.
    pub fn of(&self, owner: Owner<'a>, placed: &PlacedLeg) -> Option<&'a PoolLeg> {
        match &placed.uuid {
            Some(uuid) => self.by_uuid.get(uuid.as_str()).copied().or_else(|| {
                let named = self.by_name.get(placed.name.as_str()).copied();
                named.filter(|leg| uuid_unknown(leg) && leg.spec.owner_uid == owner.uid())
            }),
            None => {
                let named = self.by_name.get(placed.name.as_str()).copied();
                named.filter(|leg| leg.spec.owner_uid == owner.uid())
            }
        }
    }

    /// Every leg that says it belongs to an owner.
    pub fn all(&self, owner: Owner) -> impl Iterator<Item = &'a PoolLeg> + use<'a> {
        let legs = self.by_owner.get(owner.uid()).cloned();
        legs.unwrap_or_default().into_iter()
    }

    /// The leg of this name.
    pub fn named(&self, name: &str) -> Option<&'a PoolLeg> {
        self.by_name.get(name).copied()
    }

    /// The leg with these bytes.
    pub fn with_uuid(&self, uuid: &str) -> Option<&'a PoolLeg> {
        self.by_uuid.get(uuid).copied()
    }

    /// Whether a leg, or the wish for one, has this name.
    pub fn taken(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.placed.contains(name)
    }

    pub fn own(&mut self, leg: &'a PoolLeg) {
        self.owned.insert(name(leg));
    }

    /// Owns what an owner names, and what says that it belongs to it.
    pub fn own_all(&mut self, owner: Owner<'a>) {
        let named = owner.placed().iter().filter_map(|l| self.of(owner, l));
        let legs: Vec<&PoolLeg> = named.chain(self.all(owner)).collect();
        self.owned.extend(legs.into_iter().map(name));
    }

    pub fn owned(&self, leg: &PoolLeg) -> bool {
        self.owned.contains(name(leg))
    }
}

pub(super) fn name(leg: &PoolLeg) -> &str {
    leg.metadata.name.as_deref().unwrap_or_default()
}

/// The UUID of a leg's bytes, once it is known.
pub(super) fn uuid(leg: &PoolLeg) -> Option<&str> {
    let told = leg.status.as_ref().and_then(|s| s.uuid.as_deref());
    leg.spec.uuid.as_deref().or(told)
}

fn uuid_unknown(leg: &PoolLeg) -> bool {
    uuid(leg).is_none()
}

/// Whether its agent has said that there is nothing of the leg on its drive, and cannot be.
pub(super) fn never_made(leg: &PoolLeg) -> Option<&str> {
    let status = leg.status.as_ref()?;
    if status.phase != Some(LegPhase::Failed) || uuid(leg).is_some() {
        return None;
    }
    let ready = strand_api::condition::find(&status.conditions, names::READY)?;
    [names::NO_SPACE, names::NAME_TAKEN]
        .into_iter()
        .find(|reason| *reason == ready.reason)
}

/// The drives that legs lie on, and how many each has: such a drive is not carved smaller and not released.
pub fn stored_legs<'a>(legs: impl Iterator<Item = &'a PoolLeg>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for leg in legs.filter(|leg| ledger::holds_bytes(leg)) {
        *counts.entry(leg.spec.drive.as_str()).or_default() += 1;
    }
    counts
}
