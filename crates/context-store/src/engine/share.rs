//! How much of the drive's depth one namespace may fill: pure.
//!
//! What the drive has already been given cannot be overtaken, so that whoever comes next waits for it. One namespace alone
//! may fill the whole depth. Where another one is there too, the two share [`CROWD`] of it by weight, which takes a drive
//! little time; what either finds ahead of itself is then about one transfer. A neighbour that has gone silent is waited
//! for less the longer it is silent, measured by the bytes moved since: there is no step from one to the other.

use std::collections::HashMap;

use super::queue::Flow;

/// Of the depth, what all share where there are several: 2 MiB of 32 MiB, 0.15 ms of a drive of 14 GB/s.
const CROWD: u64 = 16;

/// So many bytes moved since a neighbour was last seen let one more be in flight: the whole depth after 256 MiB.
const FADE: u64 = 8;

/// One flow, as long as it counts as a neighbour.
struct Seen {
    weight: u32,
    /// What waits or is in flight.
    unfinished: u64,
    /// What is in flight.
    flying: u64,
    /// Bytes that had been moved when it was last busy.
    last: u64,
}

/// Who uses the drive, and how much of it is theirs at present. All sizes are bytes, as transfers are charged.
pub(crate) struct Shares {
    depth: u64,
    /// Handed to the drive so far.
    moved: u64,
    flows: HashMap<u32, Seen>,
}

impl Shares {
    /// Shares of a depth of so many bytes.
    pub(crate) fn new(depth: usize) -> Shares {
        Shares {
            depth: depth as u64,
            moved: 0,
            flows: HashMap::new(),
        }
    }

    /// A flow has one more transfer that waits.
    pub(crate) fn arrived(&mut self, flow: Flow) {
        if flow.is_own() {
            return;
        }
        let moved = self.moved;
        let seen = self.flows.entry(flow.id).or_insert(Seen {
            weight: flow.weight,
            unfinished: 0,
            flying: 0,
            last: moved,
        });
        seen.weight = flow.weight;
        seen.unfinished += 1;
        seen.last = moved;
    }

    /// Whether a flow may give the drive a transfer of `cost` more; one always may.
    pub(crate) fn may_fly(&self, flow: u32, cost: u64) -> bool {
        let Some(own) = self.flows.get(&flow) else {
            return true;
        };
        own.flying == 0 || self.flows.len() == 1 || own.flying + cost <= self.part(flow, own)
    }

    /// What a flow may have in flight.
    fn part(&self, flow: u32, own: &Seen) -> u64 {
        let (mut weights, mut silence) = (u64::from(own.weight), u64::MAX);
        for (id, other) in &self.flows {
            if *id == flow {
                continue;
            }
            weights += u64::from(other.weight);
            let since = match other.unfinished {
                0 => self.moved - other.last,
                _ => 0,
            };
            silence = silence.min(since);
        }
        self.depth / CROWD * u64::from(own.weight) / weights.max(1) + silence / FADE
    }

    /// A transfer was handed to the drive.
    pub(crate) fn started(&mut self, flow: u32, cost: u64) {
        self.moved += cost;
        if let Some(seen) = self.flows.get_mut(&flow) {
            seen.flying += cost;
        }
    }

    /// The drive is done with it.
    pub(crate) fn landed(&mut self, flow: u32, cost: u64) {
        let moved = self.moved;
        if let Some(seen) = self.flows.get_mut(&flow) {
            seen.flying -= cost;
            seen.unfinished -= 1;
            seen.last = moved;
        }
        let faded = self.depth * FADE;
        self.flows
            .retain(|_, seen| seen.unfinished > 0 || moved - seen.last < faded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const ONE: Flow = Flow { id: 1, weight: 1 };
    const OTHER: Flow = Flow { id: 2, weight: 3 };

    fn fly(shares: &mut Shares, flow: Flow, cost: u64) -> u64 {
        let mut flying = 0;
        while flying < 32 * MIB && shares.may_fly(flow.id, cost) {
            shares.arrived(flow);
            shares.started(flow.id, cost);
            flying += cost;
        }
        flying
    }

    fn land(shares: &mut Shares, flow: Flow, cost: u64, bytes: u64) {
        for _ in 0..bytes / cost {
            shares.landed(flow.id, cost);
        }
    }

    #[test]
    fn alone_there_is_no_bound_but_the_depth() {
        let mut shares = Shares::new(32 << 20);
        assert_eq!(fly(&mut shares, ONE, MIB), 32 * MIB);
    }

    #[test]
    fn together_they_share_a_little_by_weight_and_one_transfer_always_goes() {
        let mut shares = Shares::new(32 << 20);
        shares.arrived(ONE);
        shares.arrived(OTHER);
        assert_eq!(fly(&mut shares, ONE, MIB / 4), MIB / 2);
        assert_eq!(fly(&mut shares, OTHER, MIB / 4), 3 * MIB / 2);
        let mut shares = Shares::new(32 << 20);
        shares.arrived(ONE);
        shares.arrived(OTHER);
        assert_eq!(fly(&mut shares, ONE, 8 * MIB), 8 * MIB);
    }

    #[test]
    fn a_neighbour_that_is_silent_fades_and_is_forgotten() {
        let mut shares = Shares::new(32 << 20);
        shares.arrived(OTHER);
        shares.started(OTHER.id, MIB);
        shares.landed(OTHER.id, MIB);
        let mut before = 0;
        for _ in 0..200 {
            let now = fly(&mut shares, ONE, MIB);
            assert!(
                now >= before && now <= before.max(MIB) * 3 / 2 + MIB,
                "{before} then {now}"
            );
            land(&mut shares, ONE, MIB, now);
            before = now;
        }
        assert_eq!(before, 32 * MIB);
        assert_eq!(shares.flows.len(), 1);
    }

    #[test]
    fn the_stores_own_work_is_nobodys_neighbour() {
        let mut shares = Shares::new(32 << 20);
        shares.arrived(Flow::OWN);
        assert_eq!(fly(&mut shares, ONE, MIB), 32 * MIB);
        assert!(shares.may_fly(Flow::OWN.id, 64 * MIB));
    }
}
