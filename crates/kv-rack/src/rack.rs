//! The rack: all drives of a pool as one store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use strand_api::PoolMapSpec;
use strand_context_store::{Namespace, Share, Store};
use strand_kv_client::frame::Code;
use strand_kv_door::{Refused, StoreBlocks};
use tokio::sync::Semaphore;

use crate::buffers::Buffers;
use crate::drives::Drives;
use crate::frame::{Deletion, Key, Reply, Request, Spot};
use crate::guests::Guests;
use crate::host::Host;
use crate::inbox::Faults;
use crate::ledger::{Full, Ledger};
use crate::link::{Link, Lost};
use crate::options::RackOptions;
use crate::owners::{KeyHash, Maps, Place, Places};
use crate::peer::Peer;
use crate::stats::RackStats;

/// Unit in which bytes in flight are counted.
pub(crate) const CREDIT: usize = 1024;

/// The context memory of a pool, as one node sees it. Clones are the same rack.
#[derive(Clone)]
pub struct Rack(Arc<Inner>);

impl std::fmt::Debug for Rack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options = self.options();
        write!(formatter, "Rack({} in {})", options.node, options.pool_id)
    }
}

struct Inner {
    options: Arc<RackOptions>,
    node: Arc<str>,
    hash: KeyHash,
    maps: RwLock<Maps>,
    peers: Mutex<HashMap<Arc<str>, Arc<Peer>>>,
    host: Arc<Host>,
    ledger: Arc<Ledger>,
    credit: Semaphore,
    /// Drives that are away though their nodes are there.
    away: Mutex<HashSet<Place>>,
    tally: Tally,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) local_hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) former_hits: AtomicU64,
    pub(crate) next_hits: AtomicU64,
    pub(crate) diverted: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for peer in lock(&self.peers).values() {
            peer.stop();
        }
        self.host.guests.end();
    }
}

impl Rack {
    /// A rack that knows no map and has no drives yet.
    ///
    /// # Errors
    /// The kernel's, where no memory can be mapped for the buffers.
    pub fn new(options: RackOptions) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            node: options.node.as_str().into(),
            hash: KeyHash::new(&options.pool_id),
            maps: RwLock::default(),
            peers: Mutex::default(),
            host: Arc::new(Host {
                drives: Drives::default(),
                buffers: Buffers::new(options.buffer_bytes)?,
                guests: Guests::default(),
                faults: Faults::default(),
            }),
            ledger: Arc::default(),
            credit: Semaphore::new((options.in_flight_bytes / CREDIT).max(1)),
            away: Mutex::default(),
            tally: Tally::default(),
            options: Arc::new(options),
        })))
    }

    /// Goes by this map from now on, unless it is older than the present one. Blocks are still found where the maps before
    /// say, for as long as [`RackOptions::memory`].
    pub fn set_map(&self, map: &PoolMapSpec) {
        let now = Instant::now();
        let nodes = {
            let mut maps = self.0.maps.write().unwrap_or_else(PoisonError::into_inner);
            maps.set(map, now, self.0.options.memory);
            maps.nodes(now)
        };
        let mut peers = lock(&self.0.peers);
        peers.retain(|name, peer| {
            let named = nodes.contains_key(name);
            if !named {
                peer.stop();
            }
            named
        });
        for (name, node) in nodes.into_iter().filter(|(name, _)| *name != self.0.node) {
            match peers.get(&name) {
                Some(peer) => peer.move_to(node.address),
                None => {
                    let (options, ledger) =
                        (Arc::clone(&self.0.options), Arc::clone(&self.0.ledger));
                    let rack = WeakRack(Arc::downgrade(&self.0));
                    let peer = Peer::new(Arc::clone(&name), node.address, options, ledger, rack);
                    peers.insert(name, peer);
                }
            }
        }
    }

    /// Gives namespaces their shares of the drives of this node; those not named have the usual one.
    pub fn set_shares(&self, shares: Vec<(Namespace, Share)>) {
        self.host().drives.set_shares(shares);
    }

    /// Serves a drive of this node, by its key in the pool map. What has to be deleted there first is.
    pub async fn add_drive(&self, map_key: u32, store: Arc<Store>) {
        let place = self.here(map_key);
        // Peers that asked for it in vain may have things for it to delete: they come again with those.
        if self.host().drives.was_missed(map_key) {
            self.host().guests.end();
        }
        let except: HashSet<u32> = (self.host().drives.keys().into_iter())
            .filter(|key| *key != map_key)
            .collect();
        let mut beside = Vec::new();
        for spot in self.0.ledger.owed(&place.node, &except, usize::MAX) {
            if spot.at.drive == map_key && store.delete(spot.namespace, &spot.at.key).await.is_ok()
            {
                let other = self.0.ledger.paid(&place.node, &spot);
                beside.extend(other.map(|other| (other, spot)));
            }
        }
        self.host().drives.add(map_key, store);
        self.answers(&place);
        self.clear_beside(beside).await;
    }

    /// Serves a drive no longer.
    pub fn remove_drive(&self, map_key: u32) {
        self.host().drives.remove(map_key);
    }

    /// How it stands.
    #[must_use]
    pub fn stats(&self) -> RackStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut peers: Vec<_> = lock(&self.0.peers)
            .values()
            .map(|peer| peer.stats())
            .collect();
        peers.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        let total = (self.0.options.in_flight_bytes / CREDIT).max(1);
        let tally = &self.0.tally;
        RackStats {
            epoch: self.with_maps(Maps::epoch),
            peers,
            local_hits: load(&tally.local_hits),
            misses: load(&tally.misses),
            former_hits: load(&tally.former_hits),
            next_hits: load(&tally.next_hits),
            diverted: load(&tally.diverted),
            owed: self.0.ledger.len(),
            in_flight_bytes: (total - self.0.credit.available_permits()) * CREDIT,
            buffered_bytes: self.host().buffers.taken() * strand_context_store::CHUNK,
            torn_pieces: load(&self.host().faults.torn),
        }
    }

    pub(crate) fn options(&self) -> &RackOptions {
        &self.0.options
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.0.host
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.0.tally
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// The right to ask for so many bytes of values, or for as many as there may be.
    pub(crate) async fn credit(&self, bytes: usize) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let total = (self.0.options.in_flight_bytes / CREDIT).max(1);
        let wanted = bytes.div_ceil(CREDIT).clamp(1, total);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.0.credit.acquire_many(wanted).await.ok()
    }

    pub(crate) fn with_maps<T>(&self, look: impl FnOnce(&Maps) -> T) -> T {
        look(&self.0.maps.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn places(&self, namespace: Namespace, key: &[u8]) -> Places {
        let hash = self.0.hash.hash(namespace, key);
        let copies = self.0.options.copies.max(1);
        self.with_maps(|maps| maps.places(hash, copies, Instant::now()))
    }

    /// A drive of this node that serves.
    pub(crate) fn drive(&self, place: &Place) -> Option<Arc<StoreBlocks>> {
        let found = self.host().drives.get(place.drive);
        if found.is_none() {
            self.lacks(place);
        }
        found
    }

    pub(crate) fn here(&self, drive: u32) -> Place {
        Place {
            node: Arc::clone(&self.0.node),
            drive,
        }
    }

    pub(crate) fn is_here(&self, node: &str) -> bool {
        *self.0.node == *node
    }

    pub(crate) fn peer(&self, node: &str) -> Option<Arc<Peer>> {
        lock(&self.0.peers).get(node).cloned()
    }

    pub(crate) async fn link(&self, node: &str) -> Result<Arc<Link>, Lost> {
        let peer = self.peer(node).ok_or(Lost)?;
        let link = peer.link().await?;
        peer.tally.requests.fetch_add(1, Ordering::Relaxed);
        Ok(link)
    }

    pub(crate) async fn ask(&self, node: &str, request: &Request) -> Result<Reply, Lost> {
        self.link(node).await?.ask(request).await
    }

    /// A node said that it does not have one of its drives.
    pub(crate) fn lacks(&self, place: &Place) {
        lock(&self.0.away).insert(place.clone());
    }

    /// A place answered.
    pub(crate) fn answers(&self, place: &Place) {
        let mut away = lock(&self.0.away);
        if !away.is_empty() {
            away.remove(place);
        }
    }

    /// Whether a place is away now.
    pub(crate) fn is_away(&self, place: &Place) -> bool {
        let peer = || self.peer(&place.node).is_none_or(|peer| peer.is_dead());
        lock(&self.0.away).contains(place) || (!self.is_here(&place.node) && peer())
    }

    /// Whether a place is away, or was while blocks of now may have been put elsewhere.
    pub(crate) fn was_away(&self, place: &Place) -> bool {
        let memory = self.0.options.memory;
        let died = || (self.peer(&place.node)).is_none_or(|peer| peer.was_dead(memory));
        self.is_away(place) || (!self.is_here(&place.node) && died())
    }

    /// Deletes a key at a place; whether it was there.
    pub(crate) async fn delete_at(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<bool, Refused> {
        let spot = spot(place, namespace, key);
        let outcome = if self.is_here(&place.node) {
            self.host().drives.delete(&spot).await
        } else {
            match self.ask(&place.node, &Request::Delete(vec![spot])).await {
                Ok(Reply::Deleted(outcomes)) => {
                    outcomes.first().copied().unwrap_or(Deletion::Failed)
                }
                Ok(_) => Deletion::Failed,
                Err(Lost) => return Err(unreachable(place)),
            }
        };
        match outcome {
            Deletion::Absent => Ok(false),
            Deletion::Deleted => Ok(true),
            Deletion::Away => {
                self.lacks(place);
                Err(unreachable(place))
            }
            Deletion::Failed => Err(Refused::new(
                Code::Unreachable,
                format!(
                    "drive {:08x} of node {} could not delete the block; try again, and look at the drive's health",
                    place.drive, place.node
                ),
            )),
        }
    }

    /// Sees to it that a key is deleted at a place before the place is believed again, and then at the place beside it that
    /// takes a block meanwhile.
    pub(crate) async fn settle(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        beside: Option<&Place>,
    ) -> Result<Settled, Full> {
        // First the debt, then the attempt: a peer that comes back meanwhile either finds the debt or takes the request.
        self.ledger().owe(place, namespace, key, beside)?;
        if self.delete_at(place, namespace, key).await.is_err() {
            return Ok(Settled::Later);
        }
        let _beside = self
            .ledger()
            .paid(&place.node, &spot(place, namespace, key));
        Ok(Settled::Now)
    }

    /// Deletes what was put beside a place that is back: its copies would be old ones the next time that it is away.
    pub(crate) async fn clear_beside(&self, blocks: Vec<(Place, Spot)>) {
        for (place, block) in blocks {
            let key = block.at.key.as_slice();
            if self
                .settle(&place, block.namespace, key, None)
                .await
                .is_err()
            {
                self.ledger().shun(&place);
            }
        }
    }

    /// The keys by the nodes of the places that they are to be looked for at: each node's keys with their positions.
    pub(crate) fn by_node<'k>(
        &self,
        wanted: impl Iterator<Item = (usize, &'k [u8], Place)>,
    ) -> BTreeMap<Arc<str>, (Vec<usize>, Vec<Key>)> {
        let mut nodes: BTreeMap<Arc<str>, (Vec<usize>, Vec<Key>)> = BTreeMap::new();
        for (at, key, place) in wanted {
            let (positions, keys) = nodes.entry(place.node).or_default();
            positions.push(at);
            keys.push(Key {
                drive: place.drive,
                key: key.to_vec(),
            });
        }
        nodes
    }
}

/// Whether what has to go from a place is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Now,
    /// Before the place is believed again.
    Later,
}

/// A rack that may be gone.
#[derive(Clone)]
pub(crate) struct WeakRack(Weak<Inner>);

impl WeakRack {
    pub(crate) fn upgrade(&self) -> Option<Rack> {
        self.0.upgrade().map(Rack)
    }
}

pub(crate) fn spot(place: &Place, namespace: Namespace, key: &[u8]) -> Spot {
    Spot {
        namespace,
        at: Key {
            drive: place.drive,
            key: key.to_vec(),
        },
    }
}

pub(crate) fn unreachable(place: &Place) -> Refused {
    Refused::new(
        Code::Unreachable,
        format!(
            "node {} or its drive {:08x} cannot be reached and may have the block: what must not come back cannot be deleted now; \
             try again once the node is back",
            place.node, place.drive
        ),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
