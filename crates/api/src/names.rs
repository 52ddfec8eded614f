//! Names, labels and finalizers that processes must agree on.

use sha2::{Digest, Sha256};

/// Field manager of the operator.
pub const OPERATOR_MANAGER: &str = "strand-operator";
/// Field manager of the node agents.
pub const AGENT_MANAGER: &str = "strand-node-agent";

/// Name of the CSI driver, as storage classes and volumes give it.
pub const DRIVER: &str = "csi.strand.dev";

/// On a Drive: it is in a pool, and the operator has yet to take it out of the map before the
/// object may go. On a MemoryPool: its deletion policy has yet to be carried out. Both are removed
/// by the operator alone; see `docs/operations.md` for what to do when a node is gone for good.
pub const FINALIZER: &str = "strand.dev/operator";

/// Label of nodes, set by the operator's users, that pools' failure domains come from by default.
pub const DEFAULT_FAILURE_DOMAIN_LABEL: &str = "kubernetes.io/hostname";

/// Condition of a MemoryPool: it serves what it was asked for.
pub const READY: &str = "Ready";
/// Condition of a MemoryPool: another, older pool selects drives that this one selects too.
pub const CONFLICT: &str = "Conflict";
/// Condition of a Drive, written by the operator where it does not take a drive: why not.
pub const ADOPTED: &str = "Adopted";
/// Condition of a Drive, written by its agent: whether the drive is split as `spec.carve` asks.
pub const CARVED: &str = "Carved";

/// Condition of a PoolVolume, while it is False: a node in `spec.attachTo` is not attached, and why.
pub const ATTACHED: &str = "Attached";
/// Condition of a PoolVolume, while it is False: it is not yet as large as `spec.size`, and why.
pub const RESIZED: &str = "Resized";
/// Condition of a PoolVolume or PoolLeg, while it is False: what is wrong with its drive or bytes.
pub const HEALTHY: &str = "Healthy";
/// Condition of a PoolVolume, while it is True: some of its legs lack writes, and what is done about that.
pub const DEGRADED: &str = "Degraded";
/// Condition of a PoolVolume or PoolLeg, while it is False: it is attached, and its `spec.limits` are not enforced, and why.
pub const LIMITED: &str = "Limited";
/// Condition of a PoolLeg, while it is False: a node in `spec.exports` does not reach it, and why.
pub const EXPORTED: &str = "Exported";

/// Reason of a leg that was not made, or not grown: its drive has no room. Nothing of it is on the drive.
pub const NO_SPACE: &str = "NoSpace";
/// Reason of a leg that was not made: its drive has other bytes of that name. Nothing of it is on the drive.
pub const NAME_TAKEN: &str = "NameTaken";
/// Reason of a leg that is copied from another node, which is not reached just now; it is tried again and again.
pub const SOURCE_AWAY: &str = "SourceAway";
/// Reason of a leg whose drive is full: it is there, and what is in it can be read.
pub const DRIVE_FULL: &str = "DriveFull";
/// Reason of a leg whose `spec.uuid` is not on its drive.
pub const NOT_FOUND: &str = "NotFound";
/// Reason of a volume that fits nowhere; the message names the closest fit.
pub const INSUFFICIENT_CAPACITY: &str = "InsufficientCapacity";
/// Reason of a volume that asks for what this version cannot do.
pub const UNSUPPORTED: &str = "Unsupported";
/// Reason of an array, and of its volume, that lost legs and was not shut down in order: what it would read may be wrong.
pub const NEEDS_DECISION: &str = "NeedsDecision";
/// Reason of a volume that has fewer legs with all its bytes than it needs.
pub const TOO_MUCH_LOST: &str = "TooMuchLost";
/// Reason of a raid6 that was not shut down in order: it does not start without all of its legs that are recorded in.
pub const LEGS_NEEDED: &str = "LegsNeeded";
/// Reason of a volume that is not attached, since the node of one of its legs cannot let others reach it.
pub const NO_FABRIC: &str = "NoFabric";

const MAX_NAME: usize = 63;
const HASH_CHARS: usize = 10;

/// Name of the Drive object for a drive in a node: `<node>-<hash>`, at most 63 characters.
///
/// The hash is over model, serial and namespace id (NVMe's `nsid`), which stay with the drive. A
/// node name too long for it is cut, and then is part of the hash too.
pub fn drive_name(node: &str, model: &str, serial: &str, namespace_id: u32) -> String {
    let room = MAX_NAME - HASH_CHARS - 1;
    let cut = node.len() > room;
    let mut hasher = Sha256::new();
    for part in [model, serial, if cut { node } else { "" }] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(namespace_id.to_le_bytes());
    let hash: String = hasher
        .finalize()
        .iter()
        .take(HASH_CHARS / 2)
        .map(|b| format!("{b:02x}"))
        .collect();
    let prefix = if cut {
        node[..room].trim_end_matches(['-', '.'])
    } else {
        node
    };
    format!("{prefix}-{hash}")
}

/// Name of a volume's PoolLeg: by its place in the volume, and by how many were tried there before it.
pub fn leg_name(volume: &str, index: i32, attempt: u32) -> String {
    numbered(format!("{volume}-{index}"), attempt)
}

/// Name of a snapshot's PoolLeg; never that of a volume's.
pub fn snapshot_leg_name(snapshot: &str, index: i32, attempt: u32) -> String {
    numbered(format!("{snapshot}-s{index}"), attempt)
}

fn numbered(name: String, attempt: u32) -> String {
    if attempt == 0 {
        name
    } else {
        format!("{name}.{attempt}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_name_fits_and_tells_drives_apart() {
        let name = drive_name("gpu-07", "SAMSUNG MZQL2", "S64F", 1);
        assert!(name.starts_with("gpu-07-") && name.len() == 17, "{name}");
        assert_ne!(name, drive_name("gpu-07", "SAMSUNG MZQL2", "S64F", 2));
        assert_ne!(name, drive_name("gpu-07", "SAMSUNG MZQL2S", "64F", 1));

        let long = "ip-10-12-34-56.eu-central-1.compute.internal.example.com";
        assert!(drive_name(long, "m", "s", 1).len() <= MAX_NAME);
        assert_ne!(
            drive_name(&format!("{long}-a"), "m", "s", 1),
            drive_name(&format!("{long}-b"), "m", "s", 1)
        );
    }
}
