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
    /// Owners by former maps, newest first, that are none of the above.
    pub(crate) former: Vec<Place>,
    /// Those who were next by former maps, and none of the above.
    pub(crate) former_next: Vec<Place>,
}

impl Places {
    /// All of them, each once.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Place> {
        let present = self.owners.iter().chain(&self.next);
        present.chain(&self.former).chain(&self.former_next)
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
        if !before.nodes.is_empty() && !before.ranks_as(&self.present) {
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
                let known = places.all().any(|known| *known == place);
                if known && rank < copies && places.former_next.contains(&place) {
                    // Next by a newer map, owner by this one.
                    places.former_next.retain(|known| *known != place);
                    places.former.push(place);
                } else if !known && rank < copies {
                    places.former.push(place);
                } else if !known {
                    places.former_next.push(place);
                }
            }
        }
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
