//! Names, labels and finalizers that processes must agree on.

use sha2::{Digest, Sha256};

/// Field manager of the operator.
pub const OPERATOR_MANAGER: &str = "strand-operator";
/// Field manager of the node agents.
pub const AGENT_MANAGER: &str = "strand-node-agent";

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
