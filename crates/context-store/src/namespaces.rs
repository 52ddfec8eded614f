//! Who blocks belong to, and how much each may keep.

use std::collections::HashMap;
use std::time::Duration;

use crate::latency::{LatencyStats, Operation, Operations};
use crate::stats::NamespaceCounts;

/// A tenant, by the number that the agent gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub u128);

/// What a namespace may have of a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Weight among the others in capacity and drive time, at least 1.
    pub weight: u32,
    /// The part of the capacity, between 0 and 1, that its blocks may take though nobody else wants it. None: all.
    pub most: Option<f64>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 1,
            most: None,
        }
    }
}

/// Most namespaces at once, flushed ones that still have entries in the index included.
const MOST: usize = 65_000;

/// One namespace between two flushes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) namespace: Namespace,
    pub(crate) weight: u32,
    /// Part of the capacity that it may take at most.
    most: Option<f64>,
    /// Live blocks and bytes.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// It was flushed: what the index still says about it counts for nothing.
    pub(crate) flushed: bool,
}

/// What a namespace has done.
#[derive(Debug, Default)]
struct Tally {
    counts: NamespaceCounts,
    operations: Box<Operations>,
    /// It has asked for something since idle ones were last forgotten.
    stirred: bool,
}

/// All namespaces, by slots that fit an index entry. A flush gives a namespace a new slot.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    slots: Vec<Option<Owner>>,
    current: HashMap<Namespace, u16>,
    /// Sequence of each namespace's last flush.
    flushes: HashMap<Namespace, u64>,
    shares: HashMap<Namespace, Share>,
    /// What each that has had a slot has done.
    tallies: HashMap<Namespace, Tally>,
    total_weight: u64,
}

impl Namespaces {
    /// The slot of a namespace, made where it has none; none where there are too many.
    pub(crate) fn slot(&mut self, namespace: Namespace) -> Option<u16> {
        if let Some(slot) = self.current.get(&namespace) {
            if let Some(tally) = self.tallies.get_mut(&namespace) {
                tally.stirred = true;
            }
            return Some(*slot);
        }
        let Share { weight, most } = self.shares.get(&namespace).copied().unwrap_or_default();
        let owner = Owner {
            namespace,
            weight,
            most,
            blocks: 0,
            bytes: 0,
            flushed: false,
        };
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = Some(owner);
                free
            }
            None if self.slots.len() < MOST => {
                self.slots.push(Some(owner));
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = u16::try_from(slot).ok()?;
        self.current.insert(namespace, slot);
        self.tallies.entry(namespace).or_default().stirred = true;
        self.total_weight += u64::from(weight);
        Some(slot)
    }

    /// Counts something of a namespace that has ever put a block.
    pub(crate) fn count(&mut self, namespace: Namespace, count: impl FnOnce(&mut NamespaceCounts)) {
        if let Some(tally) = self.tallies.get_mut(&namespace) {
            tally.stirred = true;
            count(&mut tally.counts);
        }
    }

    /// Counts how long something took that such a namespace asked for.
    pub(crate) fn took(&mut self, namespace: Namespace, operation: Operation, time: Duration) {
        if let Some(tally) = self.tallies.get_mut(&namespace) {
            tally.stirred = true;
            tally.operations.took(operation, time);
        }
    }

    /// How long what a namespace asked for took.
    pub(crate) fn latencies(&self, namespace: Namespace) -> Vec<LatencyStats> {
        let tally = self.tallies.get(&namespace);
        tally.map_or_else(Vec::new, |tally| tally.operations.stats())
    }

    /// Forgets those that have no block and have asked for nothing since this was last called: they take no share from
    /// others any more, and what is shown of namespaces stays bounded.
    pub(crate) fn forget_idle(&mut self) {
        let idle = |space: &Namespace, tally: &Tally| {
            let slot = self.current.get(space).and_then(|slot| self.owner(*slot));
            !tally.stirred && slot.is_none_or(|owner| owner.blocks == 0)
        };
        let known = self.tallies.iter();
        let gone: Vec<Namespace> = known
            .filter(|(space, tally)| idle(space, tally))
            .map(|(space, _)| *space)
            .collect();
        for namespace in gone {
            self.tallies.remove(&namespace);
            if let Some(slot) = self.current.remove(&namespace)
                && let Some(owner) = self.slots[usize::from(slot)].take()
            {
                self.total_weight -= u64::from(owner.weight);
            }
        }
        for tally in self.tallies.values_mut() {
            tally.stirred = false;
        }
    }

    /// What a namespace has done.
    pub(crate) fn counts(&self, namespace: Namespace) -> NamespaceCounts {
        let tally = self.tallies.get(&namespace);
        tally.map(|tally| tally.counts).unwrap_or_default()
    }

    /// The slot of a namespace that has one.
    pub(crate) fn find(&self, namespace: Namespace) -> Option<u16> {
        self.current.get(&namespace).copied()
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<&Owner> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(crate) fn owner_mut(&mut self, slot: u16) -> Option<&mut Owner> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    /// Gives shares; namespaces that are not named have the usual one.
    pub(crate) fn set_shares(&mut self, shares: &[(Namespace, Share)]) {
        let sound = |share: &Share| Share {
            weight: share.weight.max(1),
            most: share.most,
        };
        self.shares = shares
            .iter()
            .map(|(namespace, share)| (*namespace, sound(share)))
            .collect();
        self.total_weight = 0;
        for (namespace, slot) in &self.current {
            if let Some(Some(owner)) = self.slots.get_mut(usize::from(*slot)) {
                let share = self.shares.get(namespace).copied().unwrap_or_default();
                (owner.weight, owner.most) = (share.weight, share.most);
                self.total_weight += u64::from(owner.weight);
            }
        }
    }

    /// Bytes of `capacity` that a slot's namespace may take at most, where that is less than all.
    pub(crate) fn most(&self, slot: u16, capacity: u64) -> Option<u64> {
        let most = self.owner(slot)?.most?;
        Some((capacity as f64 * most.max(0.0)) as u64).filter(|bytes| *bytes < capacity)
    }

    /// Slots of the namespaces that hold more of `capacity` than they may.
    pub(crate) fn above_most(&self, capacity: u64) -> Vec<u16> {
        let is_above = |slot: &u16| {
            let held = self.owner(*slot).map_or(0, |owner| owner.bytes);
            self.most(*slot, capacity).is_some_and(|most| held > most)
        };
        self.current.values().copied().filter(is_above).collect()
    }

    /// Bytes of `capacity` that a slot's namespace may hold against the others.
    pub(crate) fn share(&self, slot: u16, capacity: u64) -> u64 {
        let weight = self.owner(slot).map_or(1, |owner| owner.weight);
        let share =
            u128::from(capacity) * u128::from(weight) / u128::from(self.total_weight.max(1));
        share as u64
    }

    /// Slots of namespaces that hold clearly less than their share of the `live` bytes, while others hold more: their
    /// blocks do not make room. In order. Between equals nobody is sheltered, or nothing could go.
    pub(crate) fn below_share(&self, live: u64) -> Vec<u16> {
        if self.current.len() < 2 {
            return Vec::new();
        }
        let is_below = |slot: &u16| {
            self.owner(*slot)
                .is_some_and(|owner| owner.bytes > 0 && owner.bytes < self.shelter(*slot, live))
        };
        let mut below: Vec<u16> = self.current.values().copied().filter(is_below).collect();
        below.sort_unstable();
        below
    }

    /// Bytes that each of the others can lose until it is sheltered, by slot; empty where nobody ever is.
    pub(crate) fn above_shelter(&self, live: u64) -> HashMap<u16, u64> {
        if self.current.len() < 2 {
            return HashMap::new();
        }
        let above = |slot: &u16| {
            let above = self
                .owner(*slot)?
                .bytes
                .checked_sub(self.shelter(*slot, live))?;
            Some((*slot, above))
        };
        self.current.values().filter_map(above).collect()
    }

    /// Of `live` bytes, those below which a namespace is sheltered.
    fn shelter(&self, slot: u16, live: u64) -> u64 {
        self.share(slot, live) / 10 * 9
    }

    /// Flushes a namespace as of `sequence`.
    pub(crate) fn flush(&mut self, namespace: Namespace, sequence: u64) {
        let last = self.flushes.entry(namespace).or_default();
        *last = (*last).max(sequence);
        if let Some(slot) = self.current.remove(&namespace)
            && let Some(owner) = self.owner_mut(slot)
        {
            owner.flushed = true;
            let weight = u64::from(owner.weight);
            self.total_weight -= weight;
        }
    }

    /// Whether a record of this sequence came before its namespace's last flush.
    pub(crate) fn was_flushed(&self, namespace: Namespace, sequence: u64) -> bool {
        self.flushes
            .get(&namespace)
            .is_some_and(|flush| sequence < *flush)
    }

    /// Flushed slots that the index may still name.
    pub(crate) fn flushed_slots(&self) -> Vec<u16> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, owner)| owner.is_some_and(|owner| owner.flushed))
            .map(|(slot, _)| slot as u16)
            .collect()
    }

    /// Frees slots that no entry names any more.
    pub(crate) fn free_slots(&mut self, slots: &[u16]) {
        for slot in slots {
            self.slots[usize::from(*slot)] = None;
        }
    }

    /// Every namespace that is not flushed.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.slots.iter().flatten().filter(|owner| !owner.flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_and_asks_for_nothing_is_forgotten_and_takes_no_share() {
        let mut all = Namespaces::default();
        let (holds, asks, idle) = (Namespace(1), Namespace(2), Namespace(3));
        let slots = [holds, asks, idle].map(|one| all.slot(one).unwrap());
        all.owner_mut(slots[0]).unwrap().blocks = 1;
        all.flush(idle, 9);
        let again = all.slot(idle).unwrap();
        all.free_slots(&[slots[2]]);
        all.forget_idle();
        assert!(all.find(idle).is_some(), "it has just asked");
        all.count(asks, |counts| counts.misses += 1);
        all.forget_idle();
        assert_eq!((all.find(idle), all.owners().count()), (None, 2));
        assert_eq!(all.share(slots[0], 100), 50);
        assert!(all.was_flushed(idle, 8));
        all.forget_idle();
        assert_eq!((all.find(asks), all.find(holds)), (None, Some(slots[0])));
        assert!(all.owner(again).is_none() && all.latencies(idle).is_empty());
    }
}
