//! What objects say, in the words of the specification: pure.

use std::collections::HashMap;

use kube::ResourceExt;
use prost_types::Timestamp;
use strand_api::condition::{Condition, find};
use strand_api::{PoolSnapshot, PoolVolume, VolumePhase, names};
use strand_csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use strand_csi::v1::{Snapshot, Volume, VolumeCondition, VolumeContentSource};

use crate::context::SOURCED;
use crate::error::Error;
use crate::request::size::signed;
use crate::request::topology;

/// A volume.
pub fn volume(volume: &PoolVolume) -> Volume {
    let spec = &volume.spec;
    let source = spec.source.as_ref();
    let kind = source.and_then(|source| match (&source.snapshot, &source.volume) {
        (Some(id), _) => Some(Type::Snapshot(SnapshotSource {
            snapshot_id: id.clone(),
        })),
        (None, Some(id)) => Some(Type::Volume(VolumeSource {
            volume_id: id.clone(),
        })),
        (None, None) => None,
    });
    let mut context = HashMap::new();
    if kind.is_some() {
        context.insert(SOURCED.to_owned(), "true".to_owned());
    }
    Volume {
        capacity_bytes: signed(size(volume)),
        volume_id: volume.name_any(),
        volume_context: context,
        content_source: kind.map(|kind| VolumeContentSource { r#type: Some(kind) }),
        accessible_topology: topology::of(&spec.pool, spec.locality, spec.node_name.as_deref()),
    }
}

/// Bytes that a volume has now; before it was made, those it shall have.
pub fn size(volume: &PoolVolume) -> u64 {
    let now = volume.status.as_ref().map_or(0, |status| status.size.0);
    if now > 0 { now } else { volume.spec.size.0 }
}

/// The nodes that a volume is published to, or that may still write to it.
pub fn nodes(volume: &PoolVolume) -> Vec<String> {
    let attached = volume.status.iter().flat_map(|s| &s.attachments);
    attached.map(|a| a.node.clone()).collect()
}

/// How a volume is.
pub fn condition(volume: &PoolVolume) -> VolumeCondition {
    let status = volume.status.as_ref();
    let conditions = status.map_or(&[][..], |s| s.conditions.as_slice());
    let is_wrong = |kind: &str| {
        let wrong = match kind {
            names::DEGRADED => "True",
            _ => "False",
        };
        find(conditions, kind).filter(|c| c.status == wrong)
    };
    let words = [
        names::DEGRADED,
        names::HEALTHY,
        names::READY,
        names::RESIZED,
    ]
    .iter()
    .find_map(|kind| is_wrong(kind))
    .map(|c| c.message.clone());
    let abnormal = match status.and_then(|s| s.phase) {
        Some(VolumePhase::Degraded | VolumePhase::Failed) => true,
        Some(VolumePhase::Ready) => {
            find(conditions, names::HEALTHY).is_some_and(|c| c.status == "False")
        }
        Some(VolumePhase::Pending | VolumePhase::Deleting) | None => false,
    };
    let usual = if abnormal {
        "the volume is not well; its conditions say why"
    } else {
        "the volume is well"
    };
    VolumeCondition {
        abnormal,
        message: words.unwrap_or_else(|| usual.into()),
    }
}

/// A snapshot.
pub fn snapshot(snapshot: &PoolSnapshot) -> Snapshot {
    let status = snapshot.status.clone().unwrap_or_default();
    let taken = status.taken_at.as_ref();
    Snapshot {
        size_bytes: signed(status.size.0),
        snapshot_id: snapshot.name_any(),
        source_volume_id: snapshot.spec.volume.clone(),
        creation_time: taken.map(|time| Timestamp {
            seconds: time.0.as_second(),
            nanos: time.0.subsec_nanosecond(),
        }),
        ready_to_use: status.ready_to_use,
        group_snapshot_id: snapshot
            .spec
            .group
            .as_ref()
            .map(|group| group.name.clone())
            .unwrap_or_default(),
    }
}

/// The refusal in a condition, if it is `False` and about the spec of `generation` or a later one.
pub fn refusal<'a>(
    conditions: &'a [Condition],
    kind: &str,
    generation: Option<i64>,
) -> Option<&'a Condition> {
    find(conditions, kind).filter(|c| c.status == "False" && c.observed_generation >= generation)
}

/// The error for a refusal.
pub fn refused(what: &str, condition: &Condition) -> Error {
    let (what, why) = (what.to_owned(), condition.message.clone());
    match condition.reason.as_str() {
        names::INSUFFICIENT_CAPACITY | names::NO_SPACE => Error::NoSpace { what, why },
        names::UNSUPPORTED => Error::Invalid {
            field: "parameters",
            why,
        },
        _ => Error::Refused { what, why },
    }
}

/// Whether waiting cannot help.
pub fn is_final(condition: &Condition) -> bool {
    let reason = condition.reason.as_str();
    [
        names::INSUFFICIENT_CAPACITY,
        names::NO_SPACE,
        names::UNSUPPORTED,
        names::NO_FABRIC,
    ]
    .contains(&reason)
}
