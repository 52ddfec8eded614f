//! Who owns a block: weighted rendezvous hashing over the pool map.
//!
//! Every key ranks all drives by a score drawn from a hash of both; the best-ranked has the block. A drive
//! that comes takes only what it now ranks first for, a drive that goes gives up only what it had, and
//! everybody with the same map agrees without asking anybody.
//!
//! With h uniform in (0, 1], -ln(h) / weight is exponentially distributed with rate `weight`, so that the
//! smallest is a drive's with probability proportional to its weight (Schindelhauer & Schomaker,
//! "Weighted distributed hash tables", 2005, the logarithmic method). Among drives of one weight the
//! smallest is the one with the largest h, so that a key costs one multiplication or two a drive and one
//! logarithm a weight: about 10 us for 8,000 drives. The logarithm is computed in integers:
//! floating-point libraries differ in the last bit between machines, and owners must not.

use std::collections::BTreeMap;
use strand_api::PoolMapSpec;

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Index into [`PoolMapSpec::nodes`].
    pub node: usize,
    /// The drive's key in the map.
    pub drive: u32,
}

/// A pool map, ready to rank its drives for keys.
pub struct Ranking {
    classes: Vec<Class>,
    /// Failure domain of each node.
    domains: Vec<u64>,
}

/// The drives of one weight.
struct Class {
    weight: u64,
    seeds: Vec<u64>,
    owners: Vec<Owner>,
}

/// Fraction bits of the logarithm.
const FRACTION: u32 = 40;

impl Ranking {
    /// Reads a map.
    pub fn new(map: &PoolMapSpec) -> Self {
        let mut classes: BTreeMap<u32, Class> = BTreeMap::new();
        let mut domains = Vec::with_capacity(map.nodes.len());
        for (index, node) in map.nodes.iter().enumerate() {
            let seed = text_hash(&node.node);
            for drive in &node.drives {
                let class = classes.entry(drive.weight).or_insert_with(|| Class {
                    weight: drive.weight.into(),
                    seeds: Vec::new(),
                    owners: Vec::new(),
                });
                class.seeds.push(mix(seed ^ u64::from(drive.key)));
                class.owners.push(Owner {
                    node: index,
                    drive: drive.key,
                });
            }
            domains.push(text_hash(node.domain.as_deref().unwrap_or(&node.node)));
        }
        Self {
            classes: classes.into_values().collect(),
            domains,
        }
    }

    /// The owner of a key; `None` in an empty map. `key` is a uniformly distributed hash of namespace and key.
    pub fn owner(&self, key: u64) -> Option<Owner> {
        self.best(key, |_| true)
    }

    /// The first `count` owners of a key in order: where copies go, and where readers and writers turn when one does
    /// not answer. Each is on a node of its own, and in a failure domain of its own while there are any.
    pub fn owners(&self, key: u64, count: usize) -> Vec<Owner> {
        let mut chosen: Vec<Owner> = Vec::new();
        while chosen.len() < count {
            let domain = |node: usize| self.domains[node];
            let apart = |node| chosen.iter().all(|c| domain(c.node) != domain(node));
            let elsewhere = |node| chosen.iter().all(|c| c.node != node);
            match self.best(key, apart).or_else(|| self.best(key, elsewhere)) {
                Some(owner) => chosen.push(owner),
                None => break,
            }
        }
        chosen
    }

    /// The best-ranked drive on a node that may be chosen.
    fn best(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<Owner> {
        let key = mix(key);
        let of_class = |class: &Class| {
            let drawn = class.seeds.iter().map(|seed| mix(seed ^ key));
            let ranked = drawn
                .zip(&class.owners)
                .filter(|(_, owner)| may(owner.node));
            ranked
                .max()
                .map(|(drawn, owner)| (cost(drawn, class.weight), *owner))
        };
        self.classes
            .iter()
            .filter_map(of_class)
            .min()
            .map(|(_, owner)| owner)
    }
}

/// What ranks a drive for a key: the smaller, the better.
fn cost(drawn: u64, weight: u64) -> u64 {
    // The logarithm is at most 64 << 40, which leaves 17 bits for the division to keep small differences.
    (negative_log2(drawn) << 17) / weight
}

/// -log2((h + 1) / 2^64) in fixed point with [`FRACTION`] bits.
fn negative_log2(h: u64) -> u64 {
    let value = u128::from(h) + 1;
    let exponent = 127 - value.leading_zeros();
    // The mantissa in [1, 2) with 32 fraction bits; squaring it doubles its logarithm, whose integer part is the next bit.
    let mut mantissa = ((value << 32) >> exponent) as u64;
    let mut fraction = 0u64;
    for _ in 0..FRACTION.min(24) {
        mantissa = ((u128::from(mantissa) * u128::from(mantissa)) >> 32) as u64;
        fraction <<= 1;
        if mantissa >> 33 != 0 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (64u64 << FRACTION) - ((u64::from(exponent) << FRACTION) | (fraction << (FRACTION - 24)))
}

/// A bijection on 64 bits in which every input bit reaches every output bit: the finalizer of SplitMix64 (Steele, Lea & Flood, 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// FNV-1a, mixed: names are short and few.
fn text_hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use strand_api::MapNode;

    fn node(name: &str, drives: &str, domain: Option<&str>) -> MapNode {
        let domain = domain.unwrap_or("-");
        // All weights at epoch 1.
        let drives = drives.replace(':', "@1:");
        MapNode::try_from(format!("{name} {name}:1 {domain} {drives}")).expect("an entry")
    }

    fn map(nodes: Vec<MapNode>) -> PoolMapSpec {
        PoolMapSpec {
            epoch: 1,
            pool_id: "p".into(),
            nodes,
        }
    }

    /// Names, not indices: those move when a node comes or goes.
    fn placed(map: &PoolMapSpec, keys: u64) -> Vec<(String, u32)> {
        let ranking = Ranking::new(map);
        (0..keys)
            .map(|key| {
                let owner = ranking.owner(mix(key)).expect("an owner");
                (map.nodes[owner.node].node.clone(), owner.drive)
            })
            .collect()
    }

    #[test]
    fn everybody_agrees_on_every_machine() {
        let map = map(vec![
            node("gpu-1", "100:00000001,00000002", None),
            node("gpu-2", "300:00000003", None),
        ]);
        let ranking = Ranking::new(&map);
        let first: Vec<String> = (0..16)
            .map(|key| format!("{:x}", ranking.owner(mix(key)).expect("an owner").drive))
            .collect();
        assert_eq!(first.join(" "), "3 2 2 3 2 3 3 3 3 3 3 1 2 2 1 1");
    }

    #[test]
    fn shares_follow_weights() {
        let map = map(vec![
            node("a", "1000:00000001", None),
            node("b", "1000:00000002;3000:00000003", None),
            node("c", "5000:00000004", None),
        ]);
        let keys = 200_000;
        let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
        for (_, drive) in placed(&map, keys) {
            *counts.entry(drive).or_default() += 1.0;
        }
        for (drive, weight) in [(1, 0.1), (2, 0.1), (3, 0.3), (4, 0.5)] {
            let share = counts[&drive] / keys as f64;
            assert!(
                (share / weight - 1.0).abs() < 0.03,
                "drive {drive}: {share} instead of {weight}"
            );
        }
    }

    #[test]
    fn copies_go_to_other_failure_domains_while_there_are_any() {
        let map = map(vec![
            node("a", "1:00000001", Some("r1")),
            node("b", "1:00000002", Some("r1")),
            node("c", "1:00000003", Some("r2")),
        ]);
        let ranking = Ranking::new(&map);
        for key in (0..500).map(mix) {
            let owners = ranking.owners(key, 3);
            assert_eq!(owners.len(), 3);
            assert_eq!(ranking.owner(key), Some(owners[0]));
            let domain = |i: usize| map.nodes[owners[i].node].domain.as_deref();
            assert_ne!(domain(0), domain(1));
            assert_eq!(ranking.owners(key, 9).len(), 3, "there are no more");
        }
    }

    proptest! {
        #[test]
        fn only_what_must_move_moves(names in prop::collection::btree_set("[a-z]{1,6}", 2..8), weights in prop::collection::vec(1..1000u32, 8), gone in 0..8usize) {
            let nodes: Vec<MapNode> = names.iter().zip(&weights).enumerate().map(|(i, (name, weight))| node(name, &format!("{weight}:{i:08x}"), None)).collect();
            let gone = gone % nodes.len();
            let mut without = nodes.clone();
            let lost = without.remove(gone);
            let (before, after) = (placed(&map(nodes), 500), placed(&map(without), 500));
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || before.0 == lost.node, "{before:?} went to {after:?} although {} left", lost.node);
            }
        }

        #[test]
        fn a_drive_that_goes_moves_only_its_own(weights in prop::collection::vec(1..1000u32, 3..6), gone in 0..3usize) {
            let drives = |without: Option<usize>| {
                let kept = weights.iter().enumerate().filter(|(i, _)| Some(*i) != without);
                kept.map(|(i, weight)| format!("{weight}:{i:08x}")).collect::<Vec<_>>().join(";")
            };
            let rack = |without| map(vec![node("a", &drives(without), None), node("b", "500:0000000a,0000000b", None)]);
            for (before, after) in placed(&rack(None), 500).iter().zip(&placed(&rack(Some(gone)), 500)) {
                prop_assert!(before == after || *before == ("a".to_owned(), gone as u32), "{before:?} went to {after:?}");
            }
        }

        #[test]
        fn the_logarithm_falls_as_its_argument_grows(a in any::<u64>(), b in any::<u64>()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(negative_log2(low) >= negative_log2(high));
            let exact = -(((low as f64) + 1.0) / 2f64.powi(64)).log2() * 2f64.powi(FRACTION as i32);
            prop_assert!((negative_log2(low) as f64 - exact).abs() < 2f64.powi(FRACTION as i32 - 20), "{} against {exact}", negative_log2(low));
        }
    }
}
