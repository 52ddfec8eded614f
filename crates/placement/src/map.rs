//! What the pool map is, and when the next epoch may be published.

use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use std::{collections::BTreeMap, time::Duration};
use strand_api::{
    Drive, DrivePhase, DriveVerdict, MapDrive, MapNode, MemoryPool, PartitionRole, PoolMap,
    PoolMapSpec, names,
};

/// A node may be NotReady this long before its drives leave the map: a reboot should not move every block.
pub const NODE_GRACE: Duration = Duration::from_secs(300);
/// At most one epoch in this time.
pub const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// What the API server may spend on handing a new map to every agent, in bytes a second.
const FAN_OUT_BYTES_PER_SECOND: u64 = 100_000_000;
/// The weight of a drive in the map is its context memory in units of this many bytes.
const WEIGHT_UNIT: u64 = 64 << 20;

/// Bytes of context memory of all drives in a map, about: each drive's in whole units of 64 MiB.
#[must_use]
pub fn capacity(map: &PoolMapSpec) -> u64 {
    let drives = map.nodes.iter().flat_map(|node| &node.drives);
    drives
        .map(|drive| u64::from(drive.weight) * WEIGHT_UNIT)
        .sum()
}
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

/// A drive's key in the map: the first 32 bits of its id.
pub(crate) fn key_of(drive_id: &str) -> Option<u32> {
    u32::from_str_radix(drive_id.get(..8)?, 16).ok()
}

/// A drive's entry, if it serves context memory for this pool now; since when is told by [`next`].
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
    let key = key_of(&label.drive_id)?;
    let weight = u32::try_from((context.size.0 / WEIGHT_UNIT).max(1)).unwrap_or(u32::MAX);
    Some(MapDrive {
        weight,
        since: 0,
        key,
    })
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
        .map(|(node, (address, mut drives))| {
            drives.sort_unstable();
            MapNode {
                node: node.into(),
                at: address.into(),
                domain: failure_domain(pool, nodes.get(node).copied()).map(Into::into),
                drives,
            }
        })
        .collect()
}

/// The failure domain of a node, where it is not the node itself.
pub(crate) fn failure_domain<'a>(pool: &MemoryPool, node: Option<&'a Node>) -> Option<&'a str> {
    let label = pool.spec.failure_domain_label.as_str();
    if label == names::DEFAULT_FAILURE_DOMAIN_LABEL {
        return None;
    }
    node?
        .metadata
        .labels
        .as_ref()?
        .get(label)
        .map(String::as_str)
}

/// The next map, if there has to be one: when the nodes differ from those of the present map, or
/// when an agent has stored an epoch that the present one does not pass. A drive that the present map
/// has on the same node keeps the epoch since which it is there; the others are there since this one.
pub fn next(
    pool_id: &str,
    present: Option<&PoolMap>,
    nodes: Vec<MapNode>,
    highest_stored: i64,
) -> Option<PoolMapSpec> {
    let epoch = present.map_or(0, |map| map.spec.epoch);
    let new = epoch.max(highest_stored) + 1;
    let same_pool = present.filter(|map| map.spec.pool_id == pool_id);
    let nodes = since(same_pool, nodes, new);
    let changed = match present {
        Some(map) => map.spec.nodes != nodes || same_pool.is_none(),
        None => !nodes.is_empty(),
    };
    let outdated = highest_stored > epoch && (present.is_some() || !nodes.is_empty());
    (changed || outdated).then(|| PoolMapSpec {
        epoch: new,
        pool_id: pool_id.into(),
        nodes,
    })
}

/// The nodes with the epochs since which their drives are in the map.
fn since(present: Option<&PoolMap>, mut nodes: Vec<MapNode>, new: i64) -> Vec<MapNode> {
    let known: BTreeMap<(&str, u32), i64> = present
        .into_iter()
        .flat_map(|map| &map.spec.nodes)
        .flat_map(|node| {
            let drives = node.drives.iter();
            drives.map(|drive| ((node.node.as_str(), drive.key), drive.since))
        })
        .collect();
    for node in &mut nodes {
        for drive in &mut node.drives {
            let known = known.get(&(node.node.as_str(), drive.key));
            drive.since = known.copied().unwrap_or(new);
        }
        node.drives.sort_unstable();
    }
    nodes
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
            drives: vec![MapDrive {
                weight: 1,
                since: 0,
                key: 1,
            }],
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

    #[test]
    fn a_drive_is_there_since_it_last_came_to_its_node() {
        let node = |name: &str, keys: &[u32]| MapNode {
            node: name.into(),
            at: "a:1".into(),
            domain: None,
            drives: keys
                .iter()
                .map(|key| MapDrive {
                    weight: 1,
                    since: 0,
                    key: *key,
                })
                .collect(),
        };
        let told = |map: &PoolMap| -> Vec<String> {
            map.spec.nodes.iter().cloned().map(String::from).collect()
        };
        let mut map = None;
        let mut publish = |nodes: Vec<MapNode>| {
            let spec = next("id", map.as_ref(), nodes, 0).expect("a change");
            map = Some(PoolMap::new("p", spec));
            told(map.as_ref().expect("a map"))
        };
        assert_eq!(
            publish(vec![node("a", &[1, 2])]),
            ["a a:1 - 1@1:00000001,00000002"]
        );
        assert_eq!(publish(vec![node("a", &[2])]), ["a a:1 - 1@1:00000002"]);
        assert_eq!(
            publish(vec![node("a", &[1, 2])]),
            ["a a:1 - 1@1:00000002;1@3:00000001"],
            "one that was away"
        );
        assert_eq!(
            publish(vec![node("a", &[1]), node("b", &[2])]),
            ["a a:1 - 1@3:00000001", "b a:1 - 1@4:00000002"],
            "one that went to another node"
        );
    }
}
