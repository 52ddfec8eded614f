//! Every node's agent, with what lies on its drives: bytes that outlive all objects.

use crate::world::{World, exported_as, named, uuid};
use std::collections::BTreeMap;
use strand_api::{
    ByteQuantity, LegCopy, LegPhase, PartitionRole, PoolLeg, PoolLegSpec, PoolLegStatus,
    Provisioning, condition, names,
};
use strand_placement::volumes::ledger;

/// One leg's bytes and the record beside them.
#[derive(Clone, Debug)]
pub struct Bytes {
    pub name: String,
    pub record: PoolLegSpec,
    pub size: u64,
    /// Of what the bytes are a copy, at whatever remove.
    pub content: String,
}

/// All drives' storage sides, by UUID of the leg.
#[derive(Clone, Default)]
pub struct Disks {
    pub bytes: BTreeMap<String, Bytes>,
    /// Copies half made, by name of the leg: what they are of, and its content when they began.
    half: BTreeMap<String, (LegCopy, String)>,
    /// The highest attachment generation in the records of legs.
    seen: BTreeMap<String, i64>,
    made: u32,
    written: u32,
}

impl Disks {
    fn promised(&self, drive: &str) -> u64 {
        let here = self.bytes.values().filter(|b| b.record.drive == drive);
        here.map(|b| ledger::cost(b.size)).sum()
    }

    /// Drives that thick legs have more of than there is.
    pub fn oversold(&self, world: &World) -> Vec<String> {
        let names = world
            .drives
            .iter()
            .map(|d| d.metadata.name.clone().unwrap());
        names
            .filter(|d| {
                let thick = |b: &&Bytes| {
                    b.record.drive == *d && b.record.provisioning == Provisioning::Thick
                };
                let sum: u64 = self
                    .bytes
                    .values()
                    .filter(thick)
                    .map(|b| ledger::cost(b.size))
                    .sum();
                sum > usable(world, d)
            })
            .collect()
    }

    /// Whether a drive has thick and thin legs.
    pub fn mixed(&self, drive: &str) -> bool {
        let mut kinds = self
            .bytes
            .values()
            .filter(|b| b.record.drive == drive)
            .map(|b| b.record.provisioning);
        let first = kinds.next();
        kinds.any(|k| Some(k) != first)
    }

    /// Does what every agent would: for each leg object, and for bytes that have none. `stingy` drives have less room
    /// than they said.
    pub fn act(&mut self, world: &mut World, stingy: &[String]) {
        for i in 0..world.legs.len() {
            let leg = world.legs[i].clone();
            let status = self.one(world, &leg, stingy);
            world.legs[i].status = Some(status);
        }
        for (id, bytes) in self.bytes.clone() {
            let known = world.legs.iter().any(|l| {
                known_uuid(l) == Some(&id)
                    || (known_uuid(l).is_none()
                        && named(&l.metadata, &bytes.name)
                        && l.spec.drive == bytes.record.drive)
            });
            if known {
                continue;
            }
            let taken = world.legs.iter().any(|l| named(&l.metadata, &bytes.name));
            let name = if taken {
                format!("{}-{}", bytes.name, &id[..8])
            } else {
                bytes.name.clone()
            };
            let mut spec = bytes.record.clone();
            spec.uuid = Some(id.clone());
            spec.orphaned = true;
            let mut leg = PoolLeg::new(&name, spec);
            leg.metadata = world.meta(&name, format!("uid-again-{}", world.born));
            leg.status = Some(self.one(world, &leg, stingy));
            world.legs.push(leg);
        }
    }

    /// The legs of a volume that a node's agent would make a device of: of those on the node itself, if there are any, else what the volume names.
    pub fn attachable<'w>(&self, world: &'w World, volume: &str, node: &str) -> Vec<&'w PoolLeg> {
        let of_volume = |l: &&PoolLeg| l.spec.volume == volume && l.spec.snapshot.is_none();
        let legs: Vec<&PoolLeg> = world.legs.iter().filter(of_volume).collect();
        let lies = |l: &PoolLeg| known_uuid(l).is_some_and(|id| self.bytes.contains_key(id));
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            legs.into_iter().partition(|l| l.spec.node_name == node);
        if !here.iter().any(|l| lies(l)) {
            let object = world.volumes.iter().find(|v| named(&v.metadata, volume));
            let named = object.and_then(|v| v.spec.legs[0].uuid.as_ref());
            let is_named = |l: &&PoolLeg| lies(l) && known_uuid(l) == named;
            return elsewhere.into_iter().filter(is_named).collect();
        }
        let legs = here;
        let replaced = |l: &PoolLeg| {
            let by = |o: &&PoolLeg| {
                let copy = o.spec.copy.as_ref();
                !o.spec.orphaned && copy.is_some_and(|c| c.live && known_uuid(l) == Some(&c.uuid))
            };
            legs.iter().any(by)
        };
        let usable = |l: &&PoolLeg| {
            let half = l.spec.copy.as_ref().is_some_and(|copy| !copy.live);
            lies(l) && !half && !l.spec.orphaned && !l.spec.deletion_mark && !replaced(l)
        };
        legs.iter().copied().filter(usable).collect()
    }

    /// A consumer writes to what it has attached: what is on it now.
    pub fn write(&mut self, leg: &PoolLeg, generation: i64) -> String {
        self.written += 1;
        let seen = self.seen.entry(known_uuid(leg).unwrap().clone());
        let seen = seen.or_default();
        assert!(
            *seen <= generation,
            "stale: {generation}, and {seen} was seen"
        );
        *seen = generation;
        let content = format!("write {}", self.written);
        let id = known_uuid(leg).unwrap();
        self.bytes.get_mut(id).unwrap().content.clone_from(&content);
        content
    }

    /// Whether the leg that another node's is a copy of is exported for that.
    fn lends(&self, world: &World, copy: &PoolLeg, of: &LegCopy) -> bool {
        let mut legs = world.legs.iter();
        let source = legs.find(|l| known_uuid(l) == Some(&of.uuid));
        let seen = self.seen.get(&of.uuid).copied().unwrap_or(0);
        seen <= of.generation
            && source.is_some_and(|source| {
                let mut wanted = source.spec.exports.iter();
                let told = source.status.iter().flat_map(|s| &s.exports);
                wanted.any(|e| {
                    e.copy && e.generation == of.generation && e.node == copy.spec.node_name
                }) && told.clone().any(|e| e.generation == of.generation)
            })
    }

    fn one(&mut self, world: &World, leg: &PoolLeg, stingy: &[String]) -> PoolLegStatus {
        let name = leg.metadata.name.as_deref().unwrap();
        let told = leg.status.clone().unwrap_or_default();
        let failed = |reason: &str| PoolLegStatus {
            phase: Some(LegPhase::Failed),
            uuid: told.uuid.clone(),
            conditions: vec![no(reason)],
            ..Default::default()
        };
        let wanted = known_uuid(leg).cloned();
        let found = match &wanted {
            Some(id) => self.bytes.contains_key(id).then(|| id.clone()),
            None => {
                let here =
                    |b: &(&String, &Bytes)| b.1.name == name && b.1.record.drive == leg.spec.drive;
                let found = self.bytes.iter().find(here).map(|(id, _)| id.clone());
                if let Some(id) = &found
                    && self.bytes[id].record.owner_uid != leg.spec.owner_uid
                {
                    return if leg.spec.deletion_mark {
                        deleted()
                    } else {
                        failed(names::NAME_TAKEN)
                    };
                }
                found
            }
        };
        if leg.spec.deletion_mark {
            if let Some(id) = found {
                self.bytes.remove(&id);
            }
            return deleted();
        }
        let id = match (found, wanted) {
            (Some(id), _) => id,
            (None, Some(_)) => return failed(names::NOT_FOUND),
            (None, None) if leg.spec.orphaned => {
                return PoolLegStatus {
                    phase: Some(LegPhase::Orphaned),
                    ..Default::default()
                };
            }
            (None, None) => {
                let room = usable(world, &leg.spec.drive)
                    - self
                        .promised(&leg.spec.drive)
                        .min(usable(world, &leg.spec.drive));
                let room = if stingy.contains(&leg.spec.drive) {
                    room / 4
                } else {
                    room
                };
                // Bytes whose objects were lost are not known to anybody else.
                let other_kind = self.bytes.values().any(|b| {
                    b.record.drive == leg.spec.drive
                        && b.record.provisioning != leg.spec.provisioning
                });
                if other_kind {
                    return failed(names::NO_SPACE);
                }
                if leg.spec.provisioning == Provisioning::Thick
                    && ledger::cost(leg.spec.size.0) > room
                {
                    return failed(names::NO_SPACE);
                }
                if let Some(of) = &leg.spec.copy {
                    let Some(source) = self.bytes.get(&of.uuid) else {
                        return failed("SourceNotFound");
                    };
                    if of.node_name.is_some() && !self.lends(world, leg, of) {
                        return PoolLegStatus {
                            phase: Some(LegPhase::Pending),
                            ..Default::default()
                        };
                    }
                    let began = self.half.get(name).filter(|(began, _)| began == of);
                    if began.is_none() {
                        let half = (of.clone(), source.content.clone());
                        self.half.insert(name.into(), half);
                        return PoolLegStatus {
                            phase: Some(LegPhase::Pending),
                            copied: Some(ByteQuantity(leg.spec.size.0 / 2)),
                            ..Default::default()
                        };
                    }
                }
                let copied = self.half.remove(name).map(|(_, content)| content);
                let content = match &leg.spec.source {
                    _ if copied.is_some() => copied.unwrap(),
                    None => format!("new for {name}"),
                    Some(source) => {
                        let here =
                            |b: &&Bytes| b.name == *source && b.record.drive == leg.spec.drive;
                        match self.bytes.values().find(here) {
                            Some(source) => source.content.clone(),
                            None => return failed("SourceNotFound"),
                        }
                    }
                };
                self.made += 1;
                let id = uuid(&format!("{:08x}", self.made));
                let bytes = Bytes {
                    name: name.into(),
                    record: leg.spec.clone(),
                    size: leg.spec.size.0,
                    content,
                };
                self.bytes.insert(id.clone(), bytes);
                id
            }
        };
        let generation = world.legs.iter().find(|l| named(&l.metadata, name));
        let generation = generation.and_then(|l| l.metadata.generation);
        let drive = leg.spec.drive.clone();
        let room = usable(world, &drive).saturating_sub(self.promised(&drive));
        let bytes = self.bytes.get_mut(&id).unwrap();
        let mut conditions = Vec::new();
        if leg.spec.size.0 > bytes.size {
            let more = ledger::cost(leg.spec.size.0) - ledger::cost(bytes.size);
            if bytes.record.provisioning == Provisioning::Thin || more <= room {
                bytes.size = leg.spec.size.0;
            } else {
                conditions.push(no(names::NO_SPACE));
            }
        }
        bytes.record.owner_uid.clone_from(&leg.spec.owner_uid);
        let seen = self.seen.entry(id.clone()).or_default();
        let mut exports = leg.spec.exports.clone();
        exports.retain(|export| export.generation >= *seen && !leg.spec.orphaned);
        for export in &exports {
            *seen = export.generation.max(*seen);
        }
        let stored = (*seen > 0).then_some(*seen);
        let exports = exports.iter().map(|export| exported_as(export.generation));
        PoolLegStatus {
            exports: exports.collect(),
            attachment_generation: stored,
            phase: Some(if leg.spec.orphaned {
                LegPhase::Orphaned
            } else {
                LegPhase::Ready
            }),
            uuid: Some(id),
            size: ByteQuantity(bytes.size),
            conditions,
            observed_generation: generation,
            ..Default::default()
        }
    }
}

fn deleted() -> PoolLegStatus {
    PoolLegStatus {
        phase: Some(LegPhase::Deleted),
        ..Default::default()
    }
}

fn no(reason: &str) -> condition::Condition {
    let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default());
    condition::condition(&[], &at, names::READY, false, reason, "", None)
}

fn known_uuid(leg: &PoolLeg) -> Option<&String> {
    let told = leg.status.as_ref().and_then(|s| s.uuid.as_ref());
    leg.spec.uuid.as_ref().or(told)
}

fn usable(world: &World, drive: &str) -> u64 {
    let found = world.drives.iter().find(|d| named(&d.metadata, drive));
    let partitions = found
        .into_iter()
        .flat_map(|d| &d.status.as_ref().unwrap().partitions);
    let mut storage = partitions.filter(|p| p.role == PartitionRole::Storage);
    storage
        .next()
        .and_then(|p| p.usable)
        .map_or(u64::MAX, |u| u.0)
}
