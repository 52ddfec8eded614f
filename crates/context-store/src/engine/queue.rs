//! Which transfer goes to the drive next: pure.
//!
//! Reads before writes before the store's own background work; within a class, namespaces by start-time fair queueing
//! (Goyal, Vin, Cheng 1996: the transfer with the smallest start tag goes first; a tag is where its namespace's last one
//! ended, not before the present). A transfer costs its bytes plus a fixed cost, over its namespace's weight. A namespace
//! that has its part of the depth in flight ([`Shares`]) waits while others go.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::Verb;
use super::share::Shares;

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

    /// Whether it is the store's own rather than a namespace's.
    pub(crate) fn is_own(self) -> bool {
        self == Flow::OWN || self == Flow::URGENT
    }
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
    start: u64,
    cost: u64,
    item: T,
    bytes: usize,
}

/// What a flow has waiting in a class, in its order.
struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
    /// Where its last transfer ends.
    end: u64,
    /// When it came to be the first of its line: among equals the one that has waited longest goes.
    number: u64,
}

struct Lane<T> {
    now: u64,
    number: u64,
    lines: HashMap<u32, Line<T>>,
    /// The first of each line: start, number, flow.
    heads: BTreeSet<(u64, u64, u32)>,
    bytes: usize,
    transfers: usize,
    passed_over: u32,
}

impl<T> Lane<T> {
    fn new() -> Lane<T> {
        Lane {
            now: 0,
            number: 0,
            lines: HashMap::new(),
            heads: BTreeSet::new(),
            bytes: 0,
            transfers: 0,
            passed_over: 0,
        }
    }

    fn push(&mut self, flow: Flow, cost: u64, bytes: usize, item: T) {
        self.number += 1;
        let line = self.lines.entry(flow.id).or_insert(Line {
            waiting: VecDeque::new(),
            bytes: 0,
            end: 0,
            number: 0,
        });
        let start = line.end.max(self.now);
        line.end = start + cost.max(1) * 256 / u64::from(flow.weight.max(1));
        line.bytes += bytes;
        if line.waiting.is_empty() {
            line.number = self.number;
            self.heads.insert((start, self.number, flow.id));
        }
        line.waiting.push_back(Waiting {
            start,
            cost,
            item,
            bytes,
        });
        self.bytes += bytes;
        self.transfers += 1;
    }

    /// The flow whose turn it is among those that may go, and what its transfer has in bytes.
    fn first(&self, shares: &Shares) -> Option<(u32, usize)> {
        self.heads.iter().find_map(|(_, _, flow)| {
            let head = self.lines.get(flow)?.waiting.front()?;
            shares
                .may_fly(*flow, head.cost)
                .then_some((*flow, head.bytes))
        })
    }

    fn pop(&mut self, flow: u32) -> Option<Waiting<T>> {
        let line = self.lines.get_mut(&flow)?;
        let waiting = line.waiting.pop_front()?;
        self.heads.remove(&(waiting.start, line.number, flow));
        line.bytes -= waiting.bytes;
        if let Some(next) = line.waiting.front() {
            self.number += 1;
            line.number = self.number;
            self.heads.insert((next.start, line.number, flow));
        }
        self.now = self.now.max(waiting.start);
        self.passed_over = 0;
        self.bytes -= waiting.bytes;
        self.transfers -= 1;
        if self.transfers == 0 {
            let now = self.now;
            self.lines.retain(|_, line| line.end > now);
        }
        Some(waiting)
    }
}

/// A transfer that the drive has, until it has [landed](Queue::landed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flight {
    flow: u32,
    cost: u64,
    pub(crate) bytes: usize,
}

/// Transfers that wait, and what the drive has.
pub(crate) struct Queue<T> {
    depth: Depth,
    lanes: [Lane<T>; 3],
    shares: Shares,
    flying_bytes: usize,
    flying: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(depth: Depth) -> Queue<T> {
        Queue {
            depth,
            lanes: [Lane::new(), Lane::new(), Lane::new()],
            shares: Shares::new(depth.bytes),
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
        self.shares.arrived(flow);
        self.lanes[class as usize].push(flow, cost, bytes, item);
    }

    /// The next transfer for the drive, if its budget has room.
    pub(crate) fn next(&mut self) -> Option<(T, Flight)> {
        let (lane, flow, bytes) = self.turn()?;
        let room = self.flying == 0
            || (self.flying < self.depth.transfers
                && self.flying_bytes + bytes <= self.depth.bytes);
        if !room {
            return None;
        }
        for lower in lane + 1..self.lanes.len() {
            if self.lanes[lower].transfers > 0 {
                self.lanes[lower].passed_over += 1;
            }
        }
        let waiting = self.lanes[lane].pop(flow)?;
        self.flying += 1;
        self.flying_bytes += bytes;
        self.shares.started(flow, waiting.cost);
        let flight = Flight {
            flow,
            cost: waiting.cost,
            bytes,
        };
        Some((waiting.item, flight))
    }

    /// Class and flow whose turn it is, and the bytes of the transfer.
    fn turn(&self) -> Option<(usize, u32, usize)> {
        let first = |lane: usize| {
            let (flow, bytes) = self.lanes[lane].first(&self.shares)?;
            Some((lane, flow, bytes))
        };
        let starved =
            (0..self.lanes.len()).filter(|lane| self.lanes[*lane].passed_over >= PATIENCE);
        starved.chain(0..self.lanes.len()).find_map(first)
    }

    /// The drive is done with a transfer.
    pub(crate) fn landed(&mut self, flight: Flight) {
        self.flying -= 1;
        self.flying_bytes -= flight.bytes;
        self.shares.landed(flight.flow, flight.cost);
    }

    /// Bytes that wait in a class.
    pub(crate) fn waiting_bytes(&self, class: Class) -> usize {
        self.lanes[class as usize].bytes
    }

    /// Bytes of one flow that wait in a class.
    pub(crate) fn waiting_of(&self, class: Class, flow: Flow) -> usize {
        let line = self.lanes[class as usize].lines.get(&flow.id);
        line.map_or(0, |line| line.bytes)
    }

    /// What waits in a class, and what of it is one flow's, as transfers are charged: many small ones count too.
    pub(crate) fn waiting_cost(&self, class: Class, flow: Flow) -> (u64, u64) {
        let cost = |bytes: usize, transfers: usize| bytes as u64 + transfers as u64 * FIXED_COST;
        let lane = &self.lanes[class as usize];
        let line = lane.lines.get(&flow.id);
        let own = line.map_or(0, |line| cost(line.bytes, line.waiting.len()));
        (cost(lane.bytes, lane.transfers), own)
    }

    /// Transfers that wait in any class.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.transfers).sum()
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
        while let Some((item, flight)) = queue.next() {
            queue.landed(flight);
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
        let (_, first) = queue.next().unwrap();
        queue.push(
            Class::Read,
            Flow { id: 2, weight: 1 },
            Verb::Read,
            4096,
            5000,
        );
        queue.landed(first);
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
