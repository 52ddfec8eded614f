//! What the pool map is, and when the next epoch may be published.

use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use std::{collections::BTreeMap, time::Duration};
use strand_api::{
    Drive, DrivePhase, DriveVerdict, MapDrive, MapNode, MemoryPool, PartitionRole, PoolMap,
    PoolMapSpec, format_drives, names,
};

/// A node may be NotReady this long before its drives leave the map: a reboot should not move every block.
pub const NODE_GRACE: Duration = Duration::from_secs(300);
/// At most one epoch in this time.
pub const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// What the API server may spend on handing a new map to every agent, in bytes a second.
const FAN_OUT_BYTES_PER_SECOND: u64 = 100_000_000;
/// The weight of a drive in the map is its context memory in units of this many bytes.
const WEIGHT_UNIT: u64 = 64 << 20;
/// The API server's limit on one object, with room for metadata.
pub const MAX_BYTES: usize = 1_500_000;

/// How long after an epoch of `bytes`, watched by `agents`, the next one may follow: at least
/// [`MIN_INTERVAL`], and so long that handing it out stays affordable.
pub fn interval(bytes: usize, agents: usize) -> Duration {
    let fan_out = bytes as u64 * agents as u64;
    MIN_INTERVAL.max(Duration::from_millis(
        fan_out * 1000 / FAN_OUT_BYTES_PER_SECOND,
    ))
}

/// Whether blocks may be put on a node: it is there and has not been NotReady for longer than [`NODE_GRACE`].
pub fn node_serves(node: Option<&Node>, now: Timestamp) -> bool {
    let Some(node) = node else { return false };
    let ready = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|c| c.type_ == "Ready"));
    match ready {
        Some(ready) if ready.status != "True" => {
            let since = ready
                .last_transition_time
                .as_ref()
                .map_or(now, |time| time.0);
            now.duration_since(since).unsigned_abs() <= NODE_GRACE
        }
        _ => true,
    }
}

/// A drive's entry, if it serves context memory for this pool now.
fn entry(pool: &str, drive: &Drive) -> Option<MapDrive> {
    let status = drive.status.as_ref()?;
    let serves = drive.spec.pool.as_deref() == Some(pool)
        && !drive.spec.cordon
        && drive.metadata.deletion_timestamp.is_none()
        && status.verdict == Some(DriveVerdict::Pooled)
        && status.phase == Some(DrivePhase::Ready);
    let label = status.label.as_ref().filter(|_| serves)?;
    let context = status
        .partitions
        .iter()
        .find(|p| p.role == PartitionRole::ContextMemory)?;
    let key = u32::from_str_radix(label.drive_id.get(..8)?, 16).ok()?;
    let weight = u32::try_from((context.size.0 / WEIGHT_UNIT).max(1)).unwrap_or(u32::MAX);
    Some(MapDrive { weight, key })
}

/// The nodes of a pool's map, sorted by name. Equal inputs give equal maps, whatever their order.
pub fn nodes<'a>(
    pool: &MemoryPool,
    drives: impl IntoIterator<Item = &'a Drive>,
    nodes: &BTreeMap<&str, &Node>,
    now: Timestamp,
) -> Vec<MapNode> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let mut by_node: BTreeMap<&str, (&str, Vec<MapDrive>)> = BTreeMap::new();
    for drive in drives {
        let Some(entry) = entry(name, drive) else {
            continue;
        };
        let address = drive
            .status
            .as_ref()
            .and_then(|s| s.peer_address.as_deref());
        let Some(address) = address else { continue };
        if node_serves(nodes.get(drive.spec.node_name.as_str()).copied(), now) {
            let slot = by_node
                .entry(&drive.spec.node_name)
                .or_insert((address, Vec::new()));
            slot.0 = slot.0.max(address);
            slot.1.push(entry);
        }
    }
    by_node
        .into_iter()
        .map(|(node, (address, drives))| MapNode {
            node: node.into(),
            at: address.into(),
            domain: domain(pool, nodes.get(node).copied()),
            drives: format_drives(&drives),
        })
        .collect()
}

/// The failure domain of a node, where it is not the node itself.
fn domain(pool: &MemoryPool, node: Option<&Node>) -> Option<String> {
    let label = pool.spec.failure_domain_label.as_str();
    if label == names::DEFAULT_FAILURE_DOMAIN_LABEL {
        return None;
    }
    node?.metadata.labels.as_ref()?.get(label).cloned()
}

/// The next map, if there has to be one: when the nodes differ from those of the present map, or
/// when an agent has stored an epoch that the present one does not pass.
pub fn next(
    pool_id: &str,
    present: Option<&PoolMap>,
    nodes: Vec<MapNode>,
    highest_stored: i64,
) -> Option<PoolMapSpec> {
    let epoch = present.map_or(0, |map| map.spec.epoch);
    let changed = match present {
        Some(map) => map.spec.nodes != nodes || map.spec.pool_id != pool_id,
        None => !nodes.is_empty(),
    };
    let outdated = highest_stored > epoch && (present.is_some() || !nodes.is_empty());
    (changed || outdated).then(|| PoolMapSpec {
        epoch: epoch.max(highest_stored) + 1,
        pool_id: pool_id.into(),
        nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_grows_with_what_the_fan_out_costs() {
        assert_eq!(interval(0, 0), MIN_INTERVAL);
        assert_eq!(interval(125_000, 1_000), MIN_INTERVAL);
        assert_eq!(interval(1_250_000, 10_000), Duration::from_secs(125));
    }

    #[test]
    fn epochs_start_above_the_highest_that_any_agent_has_stored() {
        let node = MapNode {
            node: "a".into(),
            at: "a:1".into(),
            domain: None,
            drives: "1:00000001".into(),
        };
        assert_eq!(next("id", None, vec![], 7), None, "nothing to publish");
        let first = next("id", None, vec![node.clone()], 7).expect("a first map");
        assert_eq!(first.epoch, 8);
        let present = PoolMap::new("p", first);
        assert_eq!(
            next("id", Some(&present), vec![node.clone()], 8),
            None,
            "nothing changed"
        );
        assert_eq!(
            next("id", Some(&present), vec![node.clone()], 9).map(|m| m.epoch),
            Some(10)
        );
        assert_eq!(
            next("id", Some(&present), vec![], 0).map(|m| m.epoch),
            Some(9),
            "drives that leave"
        );
        assert_eq!(
            next("other", Some(&present), vec![node], 0).map(|m| m.epoch),
            Some(9)
        );
    }
}
