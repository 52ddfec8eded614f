//! Where a block may lie: decided from the present map and the former ones that are still remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher24;
use strand_api::{MapNode, PoolMapSpec};
use strand_context_store::Namespace;
use strand_placement::rendezvous::{Owner, Ranking};

/// Former maps at most.
const FORMER: usize = 4;

/// A drive of the pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) node: Arc<str>,
    pub(crate) drive: u32,
}

/// The places of one key, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Its owners: as many as there are copies, where there are as many nodes.
    pub(crate) owners: Vec<Place>,
    /// Who has what an owner that is away would have.
    pub(crate) next: Option<Place>,
    /// Owners by former maps that are none now, newest first. One of them often is the next: who gets a drive beside it
    /// comes second for the blocks that move.
    pub(crate) former: Vec<Place>,
    /// Those who were next by former maps, and none of the above.
    pub(crate) former_next: Vec<Place>,
}

impl Places {
    /// All of them, each once.
    pub(crate) fn all(&self) -> Vec<&Place> {
        let present = self.owners.iter().chain(&self.next);
        let mut all: Vec<_> = present
            .chain(&self.former)
            .chain(&self.former_next)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A node of the pool.
pub(crate) struct Node {
    /// `host:port` of its agent.
    pub(crate) address: String,
    pub(crate) drives: BTreeSet<u32>,
}

/// The maps that count.
pub(crate) struct Maps {
    present: Map,
    former: VecDeque<(Map, Instant)>,
}

struct Map {
    epoch: i64,
    nodes: Vec<MapNode>,
    names: Vec<Arc<str>>,
    ranking: Ranking,
}

impl Map {
    fn new(spec: &PoolMapSpec) -> Self {
        Self {
            epoch: spec.epoch,
            nodes: spec.nodes.clone(),
            names: spec
                .nodes
                .iter()
                .map(|node| node.node.as_str().into())
                .collect(),
            ranking: Ranking::new(spec),
        }
    }

    fn places(&self, hash: u64, count: usize) -> impl Iterator<Item = Place> {
        let place = |owner: Owner| Place {
            node: Arc::clone(&self.names[owner.node]),
            drive: owner.drive,
        };
        self.ranking.owners(hash, count).into_iter().map(place)
    }

    /// Whether both give every key the same owners.
    fn ranks_as(&self, other: &Self) -> bool {
        let one = |node: &MapNode| {
            let drives: Vec<_> = node.drives.iter().map(|d| (d.weight, d.key)).collect();
            (node.node.clone(), node.domain.clone(), drives)
        };
        self.nodes.iter().map(one).eq(other.nodes.iter().map(one))
    }
}

impl Default for Maps {
    fn default() -> Self {
        let empty = PoolMapSpec {
            epoch: 0,
            pool_id: String::new(),
            nodes: Vec::new(),
        };
        Self {
            present: Map::new(&empty),
            former: VecDeque::new(),
        }
    }
}

impl Maps {
    /// Takes a map over, unless it is older than the present one. The one before is remembered for `memory` if it
    /// gives any key another owner.
    pub(crate) fn set(&mut self, spec: &PoolMapSpec, now: Instant, memory: Duration) {
        if spec.epoch < self.present.epoch {
            return;
        }
        let before = std::mem::replace(&mut self.present, Map::new(spec));
        self.former.retain(|(_, until)| *until > now);
        if before.nodes.is_empty() {
            let earlier = earlier(spec).into_iter();
            self.former = earlier.map(|map| (Map::new(&map), now + memory)).collect();
        } else if !before.ranks_as(&self.present) {
            self.former.push_front((before, now + memory));
        }
        // One that is as the present one again says nothing more.
        let present = &self.present;
        self.former.retain(|(map, _)| !map.ranks_as(present));
        self.former.truncate(FORMER);
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.present.epoch
    }

    /// The places of a key.
    pub(crate) fn places(&self, hash: u64, copies: usize, now: Instant) -> Places {
        let mut places = Places::default();
        for (rank, place) in self.present.places(hash, copies + 1).enumerate() {
            if rank < copies {
                places.owners.push(place);
            } else {
                places.next = Some(place);
            }
        }
        for (map, _) in self.former.iter().filter(|(_, until)| *until > now) {
            for (rank, place) in map.places(hash, copies + 1).enumerate() {
                let seen = if rank < copies {
                    &mut places.former
                } else {
                    &mut places.former_next
                };
                if !places.owners.contains(&place) && !seen.contains(&place) {
                    seen.push(place);
                }
            }
        }
        let (next, former) = (&places.next, &places.former);
        let new = |place: &Place| next.as_ref() != Some(place) && !former.contains(place);
        places.former_next.retain(new);
        places
    }

    /// All nodes of maps that count, with the address by the newest map that has each, and the drives by all of them.
    pub(crate) fn nodes(&self, now: Instant) -> BTreeMap<Arc<str>, Node> {
        let former = self.former.iter().filter(|(_, until)| *until > now);
        let maps = std::iter::once(&self.present).chain(former.map(|(map, _)| map));
        let mut nodes: BTreeMap<Arc<str>, Node> = BTreeMap::new();
        for map in maps {
            for (name, node) in map.names.iter().zip(&map.nodes) {
                let known = nodes.entry(Arc::clone(name)).or_insert_with(|| Node {
                    address: node.at.clone(),
                    drives: BTreeSet::new(),
                });
                known
                    .drives
                    .extend(node.drives.iter().map(|drive| drive.key));
            }
        }
        nodes
    }

    /// The drives of the present map in the order in which they are scanned.
    pub(crate) fn drives(&self) -> Vec<Place> {
        let of_node = |(name, node): (&Arc<str>, &MapNode)| {
            let place = |drive: &strand_api::MapDrive| Place {
                node: Arc::clone(name),
                drive: drive.key,
            };
            node.drives.iter().map(place).collect::<Vec<_>>()
        };
        let pairs = self.present.names.iter().zip(&self.present.nodes);
        let mut drives: Vec<_> = pairs.flat_map(of_node).collect();
        drives.sort_unstable();
        drives
    }
}

/// The maps before this one as far as it tells itself, newest first: for who has just started. A drive that came since was
/// not there before; those that left since are not known.
fn earlier(spec: &PoolMapSpec) -> Vec<PoolMapSpec> {
    let drives = spec.nodes.iter().flat_map(|node| &node.drives);
    let mut epochs: Vec<i64> = drives.map(|drive| drive.since).collect();
    epochs.sort_unstable();
    epochs.dedup();
    let before = |since: &i64| PoolMapSpec {
        epoch: since - 1,
        nodes: (spec.nodes.iter().cloned())
            .map(|mut node| {
                node.drives.retain(|drive| drive.since < *since);
                node
            })
            .filter(|node| !node.drives.is_empty())
            .collect(),
        ..spec.clone()
    };
    // Before the oldest there was nothing.
    let newest = epochs.iter().skip(1).rev();
    newest.take(FORMER).map(before).collect()
}

/// What ranks drives for keys: uniformly distributed, and unknown to whoever chooses keys without knowing the pool.
pub(crate) struct KeyHash(SipHasher24);

impl KeyHash {
    /// Of a pool.
    pub(crate) fn new(pool_id: &str) -> Self {
        let mut seed = SipHasher24::new();
        seed.write(pool_id.as_bytes());
        let first = seed.finish();
        seed.write_u8(1);
        Self(SipHasher24::new_with_keys(first, seed.finish()))
    }

    pub(crate) fn hash(&self, namespace: Namespace, key: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(&namespace.0.to_le_bytes());
        hasher.write(key);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strand_api::MapDrive;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A map of one drive a node, from node numbers and the epochs in which they came.
    fn map(epoch: i64, nodes: &[(u32, i64)]) -> PoolMapSpec {
        let node = |(key, since): &(u32, i64)| MapNode {
            node: format!("node-{key}"),
            at: format!("node-{key}:1"),
            domain: None,
            drives: vec![MapDrive {
                weight: 10,
                since: *since,
                key: *key,
            }],
        };
        PoolMapSpec {
            epoch,
            pool_id: "pool".into(),
            nodes: nodes.iter().map(node).collect(),
        }
    }

    fn hashes() -> impl Iterator<Item = u64> {
        let hash = KeyHash::new("pool");
        (0..200u32).map(move |key| hash.hash(Namespace(1), &key.to_le_bytes()))
    }

    #[test]
    fn who_starts_after_a_drive_came_still_knows_who_had_its_blocks() {
        let now = Instant::now();
        let (mut old, mut new) = (Maps::default(), Maps::default());
        old.set(&map(1, &[(1, 1), (2, 1)]), now, HOUR);
        old.set(&map(2, &[(1, 1), (2, 1), (3, 2)]), now, HOUR);
        new.set(&map(2, &[(1, 1), (2, 1), (3, 2)]), now, HOUR);
        let mut moved = 0;
        for hash in hashes() {
            let places = old.places(hash, 1, now);
            assert_eq!(places, new.places(hash, 1, now));
            moved += usize::from(!places.former.is_empty());
        }
        assert!((40..95).contains(&moved), "{moved} of 200");
    }

    #[test]
    fn only_maps_that_differ_are_remembered_and_not_for_ever() {
        let now = Instant::now();
        let mut maps = Maps::default();
        let nodes = [(1, 1), (2, 1), (3, 1)];
        maps.set(&map(1, &nodes), now, HOUR);
        maps.set(&map(2, &nodes), now, HOUR);
        assert!(maps.former.is_empty(), "the same again");
        maps.set(&map(3, &nodes[..2]), now, HOUR);
        maps.set(&map(2, &nodes), now, HOUR);
        assert_eq!(maps.epoch(), 3, "an older map");
        assert_eq!(maps.former.len(), 1);
        assert!(hashes().any(|hash| !maps.places(hash, 1, now).former.is_empty()));
        let later = now + HOUR;
        assert!(hashes().all(|hash| maps.places(hash, 1, later).former.is_empty()));
        maps.set(&map(4, &nodes), now, HOUR);
        assert_eq!(maps.former.len(), 1, "the first is the present one again");
        for epoch in 5..20 {
            maps.set(&map(epoch, &[(epoch as u32, epoch)]), now, HOUR);
        }
        assert_eq!(maps.former.len(), FORMER);
    }

    proptest! {
        #[test]
        fn every_place_that_may_have_a_block_is_among_them(
            sets in prop::collection::vec(prop::collection::btree_set(0..6u32, 1..6), 1..5),
            copies in 1..3usize,
        ) {
            let now = Instant::now();
            let mut maps = Maps::default();
            let mut all: Vec<Map> = Vec::new();
            for (epoch, set) in sets.iter().enumerate() {
                let nodes: Vec<_> = set.iter().map(|key| (*key, 1)).collect();
                let spec = map(epoch as i64 + 1, &nodes);
                maps.set(&spec, now, HOUR);
                all.push(Map::new(&spec));
            }
            for hash in hashes().take(30) {
                let places = maps.places(hash, copies, now);
                let owners: Vec<_> = all[all.len() - 1].places(hash, copies).collect();
                prop_assert_eq!(&places.owners, &owners);
                for map in &all {
                    for place in map.places(hash, copies) {
                        prop_assert!(places.owners.contains(&place) || places.former.contains(&place));
                    }
                    for place in map.places(hash, copies + 1) {
                        prop_assert!(places.all().contains(&&place));
                    }
                }
            }
        }
    }
}
