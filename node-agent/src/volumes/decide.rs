//! What shall become of one leg: from its object and what lies on its drive to a deed. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use strand_api::{
    ByteQuantity, LegArray, LegCopy, PoolLeg, PoolLegSpec, Provisioning, Redundancy, VolumeMode,
};
use strand_placement::volumes::shape;
use strand_volumes::{ArrayRecord, CopyOrder, IoLimits, LegOrder, LegRecord, LegSource};
use uuid::Uuid;

use super::connections::milliseconds;

/// What is to be done about a leg.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Its bytes have to be made.
    Make(LegOrder),
    /// Its bytes have to be copied from another drive.
    Copy(CopyOrder),
    /// Its bytes have to be copied from another node.
    Fetch(Box<Fetch>),
    /// Its bytes are there; they grow and follow their owner where the object says so.
    Keep(LegRecord),
    /// Its bytes may go.
    Delete(LegRecord),
    /// Its bytes may go, and are not there.
    Gone,
    /// It has a UUID, and no bytes on the drive have it: nothing takes their place.
    Missing(String),
    /// Other bytes have its name.
    Taken(LegRecord),
    /// What it is a copy of is not on the drive.
    NoSource(String),
    /// It has neither an owner nor bytes.
    Nothing,
}

/// A copy of a leg that lies on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The copy.
    pub order: CopyOrder,
    /// What it is a leg of.
    pub leg: LegOrder,
    /// The node, and the drive there.
    pub node: String,
    pub drive: String,
    /// When its bytes began, in milliseconds since 1970, where its source does not say when it was taken.
    pub made_at_ms: u64,
}

/// The legs of one drive: the objects by name, and the records of what lies on it.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// Objects whose drive this is.
    pub objects: &'a BTreeMap<String, PoolLeg>,
    /// What lies there.
    pub records: &'a [LegRecord],
}

/// The UUID that an object knows its bytes by.
pub fn uuid(leg: &PoolLeg) -> Option<&str> {
    let told = leg
        .status
        .as_ref()
        .and_then(|status| status.uuid.as_deref());
    leg.spec.uuid.as_deref().or(told)
}

impl<'a> Here<'a> {
    fn by_uuid(&self, uuid: &str) -> Option<&'a LegRecord> {
        let uuid = Uuid::parse_str(uuid).ok()?;
        self.records.iter().find(|record| record.uuid == uuid)
    }

    fn named(&self, name: &str) -> Option<&'a LegRecord> {
        self.records.iter().find(|record| record.name == name)
    }

    /// The bytes of an object of that name: an object that was made again may be named otherwise than its bytes.
    fn bytes_of(&self, name: &str) -> Option<&'a LegRecord> {
        match self.objects.get(name).and_then(uuid) {
            Some(uuid) => self.by_uuid(uuid),
            None => self.named(name),
        }
    }

    /// What limits the legs that lie there, by name.
    pub fn limits(&self) -> BTreeMap<String, IoLimits> {
        // What limits a volume of several legs limits its array.
        let whole = self
            .objects
            .iter()
            .filter(|(_, leg)| leg.spec.array.is_none());
        let known = whole.filter_map(|(name, leg)| {
            let bytes = self.bytes_of(name)?;
            Some((bytes.name.clone(), limits(leg.spec.limits.as_ref())))
        });
        known.collect()
    }

    /// Decides on one leg.
    pub fn decide(&self, leg: &PoolLeg) -> Deed {
        let (name, spec) = (leg.name_any(), &leg.spec);
        let found = match uuid(leg) {
            Some(uuid) => match self.by_uuid(uuid) {
                None if !spec.deletion_mark => return Deed::Missing(uuid.to_owned()),
                found => found,
            },
            None => match self.named(&name) {
                Some(other) if other.owner_uid != spec.owner_uid => {
                    return match spec.deletion_mark {
                        true => Deed::Gone,
                        false => Deed::Taken(other.clone()),
                    };
                }
                // Bytes of an earlier copy may be older than what they are a copy of.
                Some(other) if !spec.deletion_mark && !made_as(other, spec) => {
                    return Deed::Taken(other.clone());
                }
                found => found,
            },
        };
        match found {
            Some(record) if spec.deletion_mark => Deed::Delete(record.clone()),
            Some(record) => Deed::Keep(record.clone()),
            None if spec.deletion_mark => Deed::Gone,
            None if spec.orphaned => Deed::Nothing,
            None => match &spec.copy {
                Some(copy) => made_of(name, leg, copy),
                None => self.make(name, spec),
            },
        }
    }

    fn make(&self, name: String, spec: &PoolLegSpec) -> Deed {
        let source = match &spec.source {
            None => LegSource::Zeroes,
            Some(source) => match self.bytes_of(source) {
                Some(record) => LegSource::Leg {
                    name: record.name.clone(),
                    // What is no part of an array has the volume's bytes alone.
                    skip: match (record.array, &spec.array) {
                        (Some(_), None) => shape::DATA_OFFSET,
                        _ => 0,
                    },
                },
                None => return Deed::NoSource(source.clone()),
            },
        };
        Deed::Make(order(name, spec, source))
    }

    /// Objects for bytes that no object speaks of, by name. `taken` are the names that other legs of the node have.
    pub fn orphans(
        &self,
        node: &str,
        drive: &str,
        taken: impl Fn(&str) -> bool,
    ) -> Vec<(String, PoolLegSpec)> {
        let known = |record: &LegRecord| {
            let id = record.uuid.to_string();
            self.objects.iter().any(|(name, leg)| match uuid(leg) {
                Some(uuid) => uuid == id,
                None => *name == record.name,
            })
        };
        let unknown = self.records.iter();
        let unknown = unknown.filter(|record| record.scratch.is_none() && !known(record));
        unknown
            .map(|record| {
                let id = record.uuid.to_string();
                let name = match taken(&record.name) {
                    false => record.name.clone(),
                    true => format!("{}-{}", record.name, &id[..8]),
                };
                (name, orphan(record, node, drive, id))
            })
            .collect()
    }
}

/// Whether a leg that is not there yet shall become one as a copy: of what has no owner nothing more is made.
pub fn is_copied(leg: &PoolLeg) -> bool {
    leg.spec.copy.is_some() && !leg.spec.deletion_mark && !leg.spec.orphaned
}

/// Of what, and from where, a leg is copied.
fn made_of(name: String, leg: &PoolLeg, copy: &LegCopy) -> Deed {
    let spec = &leg.spec;
    let Ok(of) = Uuid::parse_str(&copy.uuid) else {
        return Deed::NoSource(copy.uuid.clone());
    };
    let copied = CopyOrder {
        name: name.clone(),
        owner_uid: spec.owner_uid.clone(),
        of,
        generation: copy.generation.unsigned_abs(),
        rate: copy.rate.0,
    };
    match copy.node_name.as_ref().filter(|at| **at != spec.node_name) {
        None => Deed::Copy(copied),
        Some(node) => Deed::Fetch(Box::new(Fetch {
            order: copied,
            leg: order(name, spec, LegSource::Zeroes),
            node: node.clone(),
            drive: copy.drive.clone(),
            made_at_ms: leg
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, milliseconds),
        })),
    }
}

fn order(name: String, spec: &PoolLegSpec, source: LegSource) -> LegOrder {
    let array = spec.array.as_ref();
    let none = strand_volumes::Redundancy::None;
    LegOrder {
        name,
        volume: spec.volume.clone(),
        snapshot: spec.snapshot.clone(),
        scratch: None,
        owner_uid: spec.owner_uid.clone(),
        index: spec.index.unsigned_abs(),
        size: spec.size.0,
        provisioning: kind(spec.provisioning),
        redundancy: array.map_or(none, |array| redundancy(array.redundancy)),
        array: array.and_then(array_record),
        mode: spec.volume_mode.map(mode),
        source,
    }
}

fn orphan(record: &LegRecord, node: &str, drive: &str, uuid: String) -> PoolLegSpec {
    PoolLegSpec {
        volume: record.volume.clone(),
        snapshot: record.snapshot.clone(),
        owner_uid: record.owner_uid.clone(),
        node_name: node.to_owned(),
        drive: drive.to_owned(),
        index: i32::try_from(record.index).unwrap_or(0),
        size: ByteQuantity(record.size),
        provisioning: match record.provisioning {
            strand_volumes::Provisioning::Thick => Provisioning::Thick,
            strand_volumes::Provisioning::Thin => Provisioning::Thin,
        },
        volume_mode: record.mode.map(|mode| match mode {
            strand_volumes::VolumeMode::Filesystem => VolumeMode::Filesystem,
            strand_volumes::VolumeMode::Block => VolumeMode::Block,
        }),
        array: record.array.map(|array| LegArray {
            uuid: array.uuid.to_string(),
            redundancy: told_redundancy(record.redundancy),
            legs: i32::try_from(array.legs).unwrap_or(i32::MAX),
        }),
        source: None,
        copy: None,
        uuid: Some(uuid),
        limits: None,
        exports: Vec::new(),
        orphaned: true,
        deletion_mark: false,
    }
}

/// The limits of a volume or leg as drives know them.
pub fn limits(limits: Option<&strand_api::IoLimits>) -> IoLimits {
    let positive = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    IoLimits {
        iops: limits.and_then(|l| l.iops).and_then(positive),
        bandwidth: limits
            .and_then(|l| l.bandwidth)
            .map(|b| b.0)
            .filter(|b| *b > 0),
    }
}

/// Whether bytes are what the object's copy would be.
fn made_as(record: &LegRecord, spec: &PoolLegSpec) -> bool {
    spec.copy.as_ref().is_none_or(|copy| {
        let of = record.source.map(|uuid| uuid.to_string());
        of.as_deref() == Some(&copy.uuid)
            && (copy.live || record.attachment_generation == copy.generation.unsigned_abs())
    })
}

/// What a volume is used as, as drives know it.
pub fn mode(mode: VolumeMode) -> strand_volumes::VolumeMode {
    match mode {
        VolumeMode::Filesystem => strand_volumes::VolumeMode::Filesystem,
        VolumeMode::Block => strand_volumes::VolumeMode::Block,
    }
}

fn array_record(array: &LegArray) -> Option<ArrayRecord> {
    Some(ArrayRecord {
        uuid: Uuid::parse_str(&array.uuid).ok()?,
        legs: array.legs.unsigned_abs(),
    })
}

fn redundancy(redundancy: Redundancy) -> strand_volumes::Redundancy {
    match redundancy {
        Redundancy::None => strand_volumes::Redundancy::None,
        Redundancy::Stripe => strand_volumes::Redundancy::Stripe,
        Redundancy::Mirror => strand_volumes::Redundancy::Mirror,
        Redundancy::Raid6 => strand_volumes::Redundancy::Raid6,
    }
}

fn told_redundancy(redundancy: strand_volumes::Redundancy) -> Redundancy {
    match redundancy {
        strand_volumes::Redundancy::None => Redundancy::None,
        strand_volumes::Redundancy::Stripe => Redundancy::Stripe,
        strand_volumes::Redundancy::Mirror => Redundancy::Mirror,
        strand_volumes::Redundancy::Raid6 => Redundancy::Raid6,
    }
}

/// The kind of leg as drives know it.
pub fn kind(provisioning: Provisioning) -> strand_volumes::Provisioning {
    match provisioning {
        Provisioning::Thick => strand_volumes::Provisioning::Thick,
        Provisioning::Thin => strand_volumes::Provisioning::Thin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_more_is_copied_of_what_goes_or_has_no_owner() {
        let of = json!({"uuid": Uuid::from_u128(1), "drive": "d", "generation": 5, "rate": "1Mi"});
        for (more, expected) in [
            (json!({}), false),
            (json!({"copy": of}), true),
            (json!({"copy": of, "deletionMark": true}), false),
            (json!({"copy": of, "orphaned": true}), false),
        ] {
            let mut spec =
                json!({"volume": "v", "nodeName": "n", "drive": "e", "index": 0, "size": "4Ki"});
            let more = more.as_object().unwrap().clone();
            spec.as_object_mut().unwrap().extend(more);
            let leg = serde_json::from_value(json!({"metadata": {"name": "v-0"}, "spec": spec}));
            assert_eq!(is_copied(&leg.unwrap()), expected);
        }
    }
}
