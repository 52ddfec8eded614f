//! Which transfer goes to the drive next: pure.
//!
//! Reads before writes before the store's own background work; within a class, namespaces by start-time fair queueing
//! (Goyal, Vin, Cheng 1996: the transfer with the smallest start tag goes first; a tag is where its namespace's last one
//! ended, not before the present). A transfer costs its bytes plus a fixed cost, over its namespace's weight.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::Verb;

/// What one transfer costs besides its bytes: what a drive can move in the time that it takes to accept a command.
const FIXED_COST: u64 = 16 << 10;

/// After so many transfers of a higher class in a row, a waiting lower class gets one: nothing starves for good.
const PATIENCE: u32 = 16;

/// Who a transfer is for, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Somebody waits for the bytes.
    Read,
    /// Somebody waits for the acknowledgement.
    Write,
    /// Eviction, footers, flushes.
    Background,
}

/// Whose share a transfer counts against, and that share's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) id: u32,
    /// At least 1.
    pub(crate) weight: u32,
}

impl Flow {
    /// The store's own.
    pub(crate) const OWN: Flow = Flow {
        id: u32::MAX,
        weight: 1,
    };

    /// Eviction that puts wait for.
    pub(crate) const URGENT: Flow = Flow {
        id: u32::MAX - 2,
        weight: 4,
    };
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Bytes that the drive may have at once; one transfer always may.
    pub(crate) bytes: usize,
    /// Transfers that the drive may have at once.
    pub(crate) transfers: usize,
}

struct Waiting<T> {
    flow: u32,
    cost: u64,
    item: T,
    bytes: usize,
}

struct Lane<T> {
    now: u64,
    order: BinaryHeap<Reverse<(u64, u64)>>,
    items: BTreeMap<u64, Waiting<T>>,
    /// Where each flow's last transfer ends.
    ends: HashMap<u32, u64>,
    bytes: usize,
    /// Of them each flow's.
    waiting: HashMap<u32, usize>,
    passed_over: u32,
}

impl<T> Lane<T> {
    fn new() -> Lane<T> {
        Lane {
            now: 0,
            order: BinaryHeap::new(),
            items: BTreeMap::new(),
            ends: HashMap::new(),
            bytes: 0,
            waiting: HashMap::new(),
            passed_over: 0,
        }
    }

    fn push(&mut self, number: u64, flow: Flow, waiting: Waiting<T>) {
        let start = self
            .ends
            .get(&flow.id)
            .map_or(self.now, |end| self.now.max(*end));
        let end = start + waiting.cost.max(1) * 256 / u64::from(flow.weight.max(1));
        self.ends.insert(flow.id, end);
        self.bytes += waiting.bytes;
        *self.waiting.entry(flow.id).or_default() += waiting.bytes;
        self.order.push(Reverse((start, number)));
        self.items.insert(number, waiting);
    }

    fn pop(&mut self) -> Option<Waiting<T>> {
        let Reverse((start, number)) = self.order.pop()?;
        self.now = self.now.max(start);
        self.passed_over = 0;
        let waiting = self.items.remove(&number)?;
        self.bytes -= waiting.bytes;
        if let Some(left) = self.waiting.get_mut(&waiting.flow) {
            *left -= waiting.bytes;
            if *left == 0 {
                self.waiting.remove(&waiting.flow);
            }
        }
        if self.items.is_empty() {
            let now = self.now;
            self.ends.retain(|_, end| *end > now);
        }
        Some(waiting)
    }
}

/// Transfers that wait, and what the drive has.
pub(crate) struct Queue<T> {
    depth: Depth,
    lanes: [Lane<T>; 3],
    number: u64,
    flying_bytes: usize,
    flying: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(depth: Depth) -> Queue<T> {
        Queue {
            depth,
            lanes: [Lane::new(), Lane::new(), Lane::new()],
            number: 0,
            flying_bytes: 0,
            flying: 0,
        }
    }

    /// Adds a transfer of `bytes`.
    pub(crate) fn push(&mut self, class: Class, flow: Flow, verb: Verb, bytes: usize, item: T) {
        let cost = if verb == Verb::Flush {
            0
        } else {
            bytes as u64 + FIXED_COST
        };
        self.number += 1;
        let number = self.number;
        let waiting = Waiting {
            flow: flow.id,
            cost,
            item,
            bytes,
        };
        self.lanes[class as usize].push(number, flow, waiting);
    }

    /// The next transfer for the drive, if its budget has room.
    pub(crate) fn next(&mut self) -> Option<(T, usize)> {
        let lane = self.lane()?;
        let (_, first) = self.lanes[lane]
            .order
            .peek()
            .map(|Reverse((start, number))| (*start, *number))?;
        let bytes = self.lanes[lane].items.get(&first)?.bytes;
        let room = self.flying == 0
            || (self.flying < self.depth.transfers
                && self.flying_bytes + bytes <= self.depth.bytes);
        if !room {
            return None;
        }
        for lower in lane + 1..self.lanes.len() {
            if !self.lanes[lower].items.is_empty() {
                self.lanes[lower].passed_over += 1;
            }
        }
        let waiting = self.lanes[lane].pop()?;
        self.flying += 1;
        self.flying_bytes += bytes;
        Some((waiting.item, bytes))
    }

    /// The class whose turn it is.
    fn lane(&self) -> Option<usize> {
        let starved = self
            .lanes
            .iter()
            .position(|lane| !lane.items.is_empty() && lane.passed_over >= PATIENCE);
        starved.or_else(|| self.lanes.iter().position(|lane| !lane.items.is_empty()))
    }

    /// The drive is done with a transfer of `bytes`.
    pub(crate) fn landed(&mut self, bytes: usize) {
        self.flying -= 1;
        self.flying_bytes -= bytes;
    }

    /// Bytes that wait in a class.
    pub(crate) fn waiting_bytes(&self, class: Class) -> usize {
        self.lanes[class as usize].bytes
    }

    /// Bytes of one flow that wait in a class.
    pub(crate) fn waiting_of(&self, class: Class, flow: Flow) -> usize {
        let waiting = &self.lanes[class as usize].waiting;
        waiting.get(&flow.id).copied().unwrap_or(0)
    }

    /// Transfers that wait in any class.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.items.len()).sum()
    }

    /// Transfers and bytes that the drive has.
    pub(crate) fn flying(&self) -> (usize, usize) {
        (self.flying, self.flying_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: Depth = Depth {
        bytes: 1 << 20,
        transfers: 4,
    };

    fn order(queue: &mut Queue<u32>) -> Vec<u32> {
        let mut seen = Vec::new();
        while let Some((item, bytes)) = queue.next() {
            queue.landed(bytes);
            seen.push(item);
        }
        seen
    }

    #[test]
    fn reads_go_before_writes_and_nothing_starves() {
        let mut queue = Queue::new(DEPTH);
        queue.push(Class::Background, Flow::OWN, Verb::Read, 4096, 2000);
        queue.push(Class::Write, Flow::OWN, Verb::Write, 4096, 1000);
        for item in 0..100 {
            queue.push(
                Class::Read,
                Flow { id: 1, weight: 1 },
                Verb::Read,
                4096,
                item,
            );
        }
        let seen = order(&mut queue);
        let place = |item| seen.iter().position(|one| *one == item).unwrap();
        assert_eq!(place(1000), PATIENCE as usize);
        assert!(place(2000) <= 2 * PATIENCE as usize);
        assert_eq!(seen.len(), 102);
    }

    #[test]
    fn a_flow_with_a_long_queue_delays_another_by_one_transfer() {
        let mut queue = Queue::new(DEPTH);
        for item in 0..1000 {
            queue.push(
                Class::Read,
                Flow { id: 1, weight: 1 },
                Verb::Read,
                1 << 20,
                item,
            );
        }
        let _first = queue.next().unwrap();
        queue.push(
            Class::Read,
            Flow { id: 2, weight: 1 },
            Verb::Read,
            4096,
            5000,
        );
        queue.landed(1 << 20);
        assert_eq!(queue.next().unwrap().0, 5000);
    }

    #[test]
    fn what_waits_is_known_by_flow_until_it_goes() {
        let mut queue = Queue::new(DEPTH);
        let (one, other) = (Flow { id: 1, weight: 1 }, Flow { id: 2, weight: 1 });
        for flow in [one, one, other] {
            queue.push(Class::Write, flow, Verb::Write, 4096, 0);
        }
        assert_eq!(queue.waiting_of(Class::Write, one), 8192);
        assert_eq!(queue.waiting_of(Class::Write, other), 4096);
        assert_eq!(queue.waiting_of(Class::Read, one), 0);
        assert_eq!(order(&mut queue).len(), 3);
        assert_eq!(queue.waiting_of(Class::Write, one), 0);
        assert_eq!(queue.waiting_bytes(Class::Write), 0);
    }

    #[test]
    fn weights_share_the_bytes() {
        let mut queue = Queue::new(DEPTH);
        for item in 0..300 {
            let flow = if item < 150 {
                Flow { id: 1, weight: 1 }
            } else {
                Flow { id: 2, weight: 3 }
            };
            queue.push(Class::Read, flow, Verb::Read, 1 << 16, item);
        }
        let heavy = order(&mut queue)
            .into_iter()
            .take(100)
            .filter(|item| *item >= 150)
            .count();
        assert!((70..=80).contains(&heavy), "{heavy} of 100");
    }

    #[test]
    fn the_budget_holds_but_one_large_transfer_always_goes() {
        let mut queue = Queue::new(DEPTH);
        for item in 0..10 {
            queue.push(Class::Read, Flow::OWN, Verb::Read, 400 << 10, item);
        }
        assert!(queue.next().is_some() && queue.next().is_some());
        assert!(queue.next().is_none());
        let mut queue = Queue::new(DEPTH);
        queue.push(Class::Read, Flow::OWN, Verb::Read, 8 << 20, 1);
        assert!(queue.next().is_some());
    }
}
