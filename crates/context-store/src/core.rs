//! Everything that a store knows in memory, behind one lock that is held for microseconds. No I/O.

mod placing;

use std::collections::{HashMap, VecDeque};

use crate::PAGE;
use crate::admit::Governor;
use crate::expiry::Now;
use crate::hash::{Fingerprint, FingerprintFn, FingerprintMap};
use crate::index::{EXPIRY_MODULUS, Entry, Index};
use crate::lease::Leases;
use crate::namespaces::{Namespace, Namespaces};
use crate::record::{Kind, UNIT};
use crate::segment::Item;
use crate::small::SmallWrite;
use crate::space::{Place, Space, State};
use crate::stats::Stats;

/// Share of a namespace's share that its leases may hold.
const LEASED: u64 = 10;

/// Which open unit a record goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// What callers put.
    Fresh,
    /// Blocks that eviction keeps: they never take the last free segments.
    Survivors,
    /// Facts that eviction carries on, into the survivors' unit: they are small, and a whole unit comes free for them.
    Facts,
}

/// Writes under way to one key: the newest sequence wins, whatever completes last.
#[derive(Clone, Copy, Debug, Default)]
struct Race {
    writers: u32,
    /// Highest sequence that has been committed among them.
    committed: u64,
}

/// A segment that a record was found in, which is not used again before the read is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) entry: Entry,
    /// Of the unit that it lies in.
    pub(crate) nonce: u64,
    pub(crate) weight: u32,
}

/// The memory of one store.
pub(crate) struct Core {
    pub(crate) fingerprint: FingerprintFn,
    pub(crate) index: Index,
    pub(crate) space: Space,
    pub(crate) namespaces: Namespaces,
    pub(crate) leases: Leases,
    pub(crate) pins: FingerprintMap<u32>,
    pub(crate) governor: Governor,
    pub(crate) stats: Stats,
    pub(crate) small: VecDeque<SmallWrite>,
    pub(crate) packing: bool,
    /// A write has failed: the medium may hold records that were never acknowledged.
    pub(crate) tainted: bool,
    pub(crate) closed: bool,
    pub(crate) live_bytes: u64,
    /// Bytes of facts (tombstones, flushes, expiries) that eviction carried on since the oldest unit went.
    pub(crate) carried: u64,
    /// The largest recent record, for the choice of a unit's size.
    typical: u64,
    races: FingerprintMap<Race>,
    sequence: u64,
    tick: u32,
    fresh: Option<u32>,
    survivors: Option<u32>,
    /// Units evicted since the survivors' unit was opened.
    survivors_age: u32,
    ready: Vec<u32>,
    /// Segments that a put waits for in a row.
    pub(crate) wanted: Option<u32>,
    /// Segments that units were made of so far.
    pub(crate) taken: u64,
    /// Number of the last picture of what was used lately.
    pub(crate) picture: u64,
    watermarks: Watermarks,
}

/// Per cent of the segments that are used where eviction starts and where it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub(crate) high: u8,
    pub(crate) low: u8,
}

/// What asking for a place came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// Here.
    At(Place),
    /// A unit has to be opened first, and will be.
    Wait,
    /// The free segments that are left are for others.
    Scarce,
}

/// What a block takes of the medium, about: for shares and for eviction.
pub(crate) fn weight_of(entry: &Entry) -> u64 {
    if (entry.len as usize) < PAGE {
        u64::from(entry.len) + 2 * UNIT as u64
    } else {
        u64::from(entry.len).next_multiple_of(UNIT as u64) + PAGE as u64
    }
}

impl Core {
    pub(crate) fn new(
        fingerprint: FingerprintFn,
        space: Space,
        governor: Governor,
        watermarks: Watermarks,
    ) -> Core {
        Core {
            fingerprint,
            index: Index::new(space.layout.capacity()),
            namespaces: Namespaces::default(),
            leases: Leases::default(),
            pins: FingerprintMap::default(),
            governor,
            stats: Stats::default(),
            small: VecDeque::new(),
            packing: false,
            tainted: false,
            closed: false,
            live_bytes: 0,
            carried: 0,
            typical: 0,
            races: FingerprintMap::default(),
            sequence: 1,
            tick: 0,
            fresh: None,
            survivors: None,
            survivors_age: 0,
            ready: Vec::new(),
            wanted: None,
            taken: 0,
            picture: 0,
            watermarks,
            space,
        }
    }

    /// A number higher than all before.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The highest number given so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Goes on after what was found on the medium.
    pub(crate) fn resume(&mut self, sequence: u64, tick: u32) {
        self.sequence = self.sequence.max(sequence);
        self.tick = tick;
    }

    /// The tick of the last access.
    pub(crate) fn tick(&self) -> u32 {
        self.tick
    }

    /// The tick of an access that happens now.
    pub(crate) fn next_tick(&mut self) -> u32 {
        if self.tick == u32::MAX {
            self.index.halve_ticks();
            self.tick /= 2;
            self.sum_accesses();
        }
        self.tick += 1;
        self.tick
    }

    /// Sums each unit's accesses anew.
    fn sum_accesses(&mut self) {
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for shard in 0..self.index.shards() {
            for (_, entry) in self.index.shard(shard) {
                *sums.entry(entry.segment).or_default() += u64::from(entry.access);
            }
        }
        for (segment, sum) in sums {
            self.space.get_mut(u32::from(segment)).access = sum;
        }
    }

    // Blocks in the index, with what they count for.

    fn account(&mut self, entry: &Entry, sign: i8) {
        let bytes = weight_of(entry);
        let unit = self.space.get_mut(u32::from(entry.segment));
        let access = u64::from(entry.access);
        let owner = self.namespaces.owner_mut(entry.owner);
        if sign > 0 {
            unit.blocks += 1;
            unit.live += bytes;
            unit.access += access;
            *unit.owners.entry(entry.owner).or_default() += bytes;
            self.live_bytes += bytes;
            if let Some(owner) = owner {
                owner.blocks += 1;
                owner.bytes += bytes;
            }
        } else {
            unit.blocks = unit.blocks.saturating_sub(1);
            unit.live = unit.live.saturating_sub(bytes);
            unit.access = unit.access.saturating_sub(access);
            if let Some(left) = unit.owners.get_mut(&entry.owner) {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    unit.owners.remove(&entry.owner);
                }
            }
            self.live_bytes = self.live_bytes.saturating_sub(bytes);
            if let Some(owner) = owner {
                owner.blocks = owner.blocks.saturating_sub(1);
                owner.bytes = owner.bytes.saturating_sub(bytes);
            }
        }
    }

    pub(crate) fn insert(&mut self, fingerprint: Fingerprint, entry: &Entry) {
        if let Some(old) = self.index.insert(fingerprint, entry) {
            self.account(&old, -1);
        }
        self.account(entry, 1);
    }

    pub(crate) fn remove(&mut self, fingerprint: Fingerprint) -> Option<Entry> {
        let old = self.index.remove(fingerprint)?;
        self.account(&old, -1);
        Some(old)
    }

    /// The live block under a fingerprint, if it is this namespace's. One that has expired is forgotten.
    pub(crate) fn live(
        &mut self,
        namespace: Namespace,
        fingerprint: Fingerprint,
        now: Now,
    ) -> Option<Entry> {
        let entry = self.index.get(fingerprint)?;
        if Some(entry.owner) != self.namespaces.find(namespace) {
            return None;
        }
        if now.is_past(now.widen(entry.expiry)) {
            self.remove(fingerprint);
            self.stats.expired += 1;
            return None;
        }
        Some(entry)
    }

    /// Marks a block as just used.
    pub(crate) fn touch(&mut self, fingerprint: Fingerprint, mut entry: Entry) {
        let tick = self.next_tick();
        // Halving ticks may have changed the stored one.
        if let Some(stored) = self.index.get(fingerprint) {
            let unit = self.space.get_mut(u32::from(stored.segment));
            unit.access = (unit.access + u64::from(tick)).saturating_sub(u64::from(stored.access));
            entry.access = tick;
            self.index.insert(fingerprint, &entry);
        }
    }

    /// Finds a block for reading; its segment has one more reader.
    pub(crate) fn begin_read(
        &mut self,
        namespace: Namespace,
        fingerprint: Fingerprint,
        now: Now,
    ) -> Option<Found> {
        let entry = self.live(namespace, fingerprint, now)?;
        let unit = self.space.get_mut(u32::from(entry.segment));
        unit.readers += 1;
        let nonce = unit.nonce;
        let weight = self
            .namespaces
            .owner(entry.owner)
            .map_or(1, |owner| owner.weight);
        Some(Found {
            fingerprint,
            entry,
            nonce,
            weight,
        })
    }

    /// A get found no block.
    pub(crate) fn missed(&mut self, namespace: Namespace, fingerprint: Fingerprint, now: Now) {
        self.stats.misses += 1;
        self.namespaces
            .count(namespace, |counts| counts.misses += 1);
        if self.leases.holds(fingerprint, now.millis) {
            self.stats.leased_misses += 1;
        }
    }

    /// Grants a lease on a block.
    pub(crate) fn lease(&mut self, fingerprint: Fingerprint, entry: &Entry, now: Now) -> bool {
        let share = self
            .namespaces
            .share(entry.owner, self.space.layout.capacity());
        self.leases.grant(
            fingerprint,
            entry.owner,
            weight_of(entry),
            share / LEASED,
            now.millis,
        )
    }

    /// Forgets namespaces that have nothing and ask for nothing; none where a restart could find more of theirs than the
    /// index knows.
    pub(crate) fn forget_idle(&mut self) {
        if !self.tainted {
            self.namespaces.forget_idle();
        }
    }

    /// Whether a block may not be evicted.
    pub(crate) fn is_held(&self, fingerprint: Fingerprint, now: Now) -> bool {
        self.pins.contains_key(&fingerprint) || self.leases.holds(fingerprint, now.millis)
    }

    // Writes to keys.

    /// Gives a write to a key its sequence.
    pub(crate) fn begin_write(&mut self, fingerprint: Fingerprint) -> u64 {
        self.races.entry(fingerprint).or_default().writers += 1;
        self.next_sequence()
    }

    /// Whether a write to a key is under way.
    pub(crate) fn is_racing(&self, fingerprint: Fingerprint) -> bool {
        self.races.contains_key(&fingerprint)
    }

    /// A write to a key is over. Where it succeeded and nothing newer was committed, it is now what the key has; whether
    /// a block was there before.
    pub(crate) fn end_write(&mut self, item: &Item, place: Option<Place>, now: Now) -> bool {
        let mut newest = false;
        if let Some(race) = self.races.get_mut(&item.fingerprint) {
            if place.is_some() && item.sequence > race.committed {
                race.committed = item.sequence;
                newest = true;
            }
            race.writers -= 1;
            if race.writers == 0 {
                self.races.remove(&item.fingerprint);
            }
        }
        let Some(place) = place else {
            self.tainted = true;
            return false;
        };
        self.record(place.segment, item);
        if !newest || self.namespaces.was_flushed(item.namespace, item.sequence) {
            return false;
        }
        match item.kind {
            Kind::Value => {
                let Some(owner) = self.namespaces.slot(item.namespace) else {
                    return false;
                };
                let existed = self.index.get(item.fingerprint).is_some();
                let access = self.next_tick();
                let entry = entry_of(item, place.segment, owner, access);
                self.insert(item.fingerprint, &entry);
                existed
            }
            Kind::Tombstone => {
                self.live(item.namespace, item.fingerprint, now).is_some()
                    && self.remove(item.fingerprint).is_some()
            }
            Kind::Expire => match self.live(item.namespace, item.fingerprint, now) {
                Some(mut entry) => {
                    entry.expiry = item.expiry % EXPIRY_MODULUS;
                    self.index.insert(item.fingerprint, &entry);
                    true
                }
                None => false,
            },
            Kind::Flush => false,
        }
    }

    /// A record is whole on the medium: the unit's footer will list it.
    pub(crate) fn record(&mut self, segment: u32, item: &Item) {
        if let State::Open(cursor) | State::Closing(cursor) = &mut self.space.get_mut(segment).state
        {
            cursor.items.push(*item);
        }
    }

    /// A write into a unit is over.
    pub(crate) fn end_place(&mut self, segment: u32) {
        self.space.get_mut(segment).writers -= 1;
    }
}

/// The index entry of a value.
pub(crate) fn entry_of(item: &Item, segment: u32, owner: u16, access: u32) -> Entry {
    Entry {
        segment: segment as u16,
        place: item.place,
        len: item.len,
        wide: item.wide,
        owner,
        expiry: item.expiry % EXPIRY_MODULUS,
        access,
    }
}
