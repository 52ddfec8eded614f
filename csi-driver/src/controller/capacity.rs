//! GetCapacity: for the scheduler, what is left, and the largest volume that fits (a sum over drives fits nothing).

use std::collections::BTreeMap;

use kube::ResourceExt;
use strand_api::{Drive, DrivePhase, LegPhase, PartitionRole, PoolLeg, Redundancy};
use strand_csi::v1::{GetCapacityRequest, GetCapacityResponse};

use super::Controller;
use crate::error::Error;
use crate::request::capability::{Capability, FsType};
use crate::request::parameters::Parameters;
use crate::request::size::{SMALLEST, UNIT, signed};
use crate::request::topology::{FABRIC, NODE};

/// What new legs can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    /// Bytes on all drives together.
    free: u64,
    /// Bytes of the largest single leg.
    largest: u64,
}

/// The room on a pool's drives (of one node, or of all) once every leg has its full size; pure.
fn room(drives: &[Drive], legs: &[PoolLeg], pool: &str, node: Option<&str>) -> Room {
    let mut promised = BTreeMap::<&str, u64>::new();
    for leg in legs {
        let phase = leg.status.as_ref().and_then(|s| s.phase);
        if phase != Some(LegPhase::Deleted) {
            let sum = promised.entry(&leg.spec.drive).or_default();
            // One unit more, for what the file system keeps about each.
            *sum = sum.saturating_add(leg.spec.size.0.saturating_add(UNIT));
        }
    }
    let serves = |drive: &&Drive| {
        let ready = drive.status.as_ref().and_then(|s| s.phase) == Some(DrivePhase::Ready);
        ready
            && !drive.spec.cordon
            && drive.spec.pool.as_deref() == Some(pool)
            && node.is_none_or(|node| node == drive.spec.node_name)
    };
    let rooms = drives.iter().filter(serves).map(|drive| {
        let partitions = drive.status.iter().flat_map(|s| &s.partitions);
        let storage = partitions.filter(|p| p.role == PartitionRole::Storage);
        let usable: u64 = storage
            .filter_map(|p| p.usable)
            .map(|usable| usable.0)
            .sum();
        let taken = promised.get(drive.name_any().as_str()).copied();
        let left = usable.saturating_sub(taken.unwrap_or_default());
        left.saturating_sub(UNIT) / UNIT * UNIT
    });
    rooms.fold(Room::default(), |room, left| Room {
        free: room.free.saturating_add(left),
        largest: room.largest.max(left),
    })
}

impl Controller {
    pub(super) async fn capacity(
        &self,
        request: &GetCapacityRequest,
    ) -> Result<GetCapacityResponse, Error> {
        let parameters = Parameters::read(&request.parameters)?;
        let fs = match request.volume_capabilities.as_slice() {
            [] => None,
            some => Capability::read_all(some)?.1,
        };
        let segments = request.accessible_topology.as_ref().map(|t| &t.segments);
        let segment = |key| segments.and_then(|s| s.get(key)).map(String::as_str);
        let (fabric, node) = (segment(FABRIC), segment(NODE));
        let pool = parameters.pool.as_deref().or(fabric);
        // A node of another pool's fabric has nothing of this one.
        if fabric.is_some_and(|fabric| pool != Some(fabric)) {
            return Ok(answer(Room::default(), fs));
        }
        let pool = self.cluster.pool(pool).await?;
        let redundancy = parameters
            .redundancy
            .unwrap_or(pool.spec.storage.default_redundancy);
        if redundancy != Redundancy::None {
            return Ok(answer(Room::default(), fs));
        }
        let (drives, legs) = tokio::try_join!(self.cluster.all(), self.cluster.all())?;
        Ok(answer(room(&drives, &legs, &pool.name_any(), node), fs))
    }
}

fn answer(room: Room, fs: Option<FsType>) -> GetCapacityResponse {
    GetCapacityResponse {
        available_capacity: signed(room.free),
        maximum_volume_size: Some(signed(room.largest)),
        minimum_volume_size: Some(signed(fs.map_or(SMALLEST, FsType::smallest))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drive(name: &str, node: &str, usable: u64) -> Drive {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "pool": "p"},
            "status": {"phase": "Ready", "partitions": [
                {"role": "Storage", "start": 0, "size": usable.to_string(), "usable": usable.to_string()},
            ]},
        }))
        .unwrap()
    }

    fn leg(drive: &str, size: u64, phase: &str) -> PoolLeg {
        serde_json::from_value(json!({
            "metadata": {"name": "l"},
            "spec": {"volume": "v", "nodeName": "n", "drive": drive, "index": 0, "size": size.to_string()},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn the_largest_volume_is_that_of_one_drive() {
        let drives = [drive("a", "n1", 100 << 20), drive("b", "n2", 50 << 20)];
        let legs = [leg("a", 59 << 20, "Ready"), leg("b", 10 << 20, "Deleted")];
        let all = room(&drives, &legs, "p", None);
        assert_eq!((all.free, all.largest), (88 << 20, 49 << 20));
        let one = room(&drives, &legs, "p", Some("n1"));
        assert_eq!(one.largest, 39 << 20);
        assert_eq!(room(&drives, &legs, "other", None), Room::default());
    }
}
