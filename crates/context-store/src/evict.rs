//! Which segments go, and which of their blocks stay: pure.
//!
//! In two steps. Between the watermarks units are thinned out: what is worth keeping is moved, and the rest is read on
//! from where it lies. When segments are needed, at the pace of the puts, thinned units go first: there is next to
//! nothing to move then, only blocks that were used since, and the partition is as full as it can be.
//!
//! The victim is the unit whose mean last access is coldest. Of its blocks those stay that are newer than the 30 %
//! quantile of all blocks' last accesses, the newest first, up to 60 % of the unit. Pinned and leased blocks stay; so do
//! blocks of namespaces that use less than their share, and where they would be more than a victim may keep, another
//! victim is taken: no namespace evicts another's share.

use std::ops::Range;
use std::time::Duration;

/// Share of all blocks, from the coldest, that is never worth moving.
pub(crate) const QUANTILE: f64 = 0.30;

/// Most of a unit that is moved rather than evicted.
pub(crate) const MOST_KEPT: f64 = 0.60;

/// A sealed unit, or a free run between units, as the choice sees it. Runs are given in the order of their segments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// First segment.
    pub(crate) segment: u32,
    /// Segments.
    pub(crate) span: u32,
    /// What becomes of it.
    pub(crate) what: Occupant,
}

/// What a run of segments holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Occupant {
    /// Nothing: it can be part of a victim's run at no cost.
    Free,
    /// Something that cannot go now: an open unit, one on its way out, or one that was tried in vain.
    Fixed,
    /// A sealed unit.
    Sealed {
        /// Sum of its live blocks' last accesses.
        access: u64,
        /// Live blocks.
        blocks: u32,
        /// Bytes of them.
        live: u64,
        /// Bytes of them that belong to namespaces below their share, or are pinned or leased.
        protected: u64,
        /// Sequence at which it was opened.
        generation: u64,
        /// What was worth it has been moved already.
        thinned: bool,
    },
}

/// Free segments between which eviction works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// It starts where fewer are free: the high watermark of what is used.
    pub(crate) start: u32,
    /// It stops where as many are: the low watermark.
    pub(crate) stop: u32,
}

/// How hard eviction works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Units at once.
    pub(crate) victims: usize,
    /// Bytes of blocks that are moved at once.
    pub(crate) bytes: u64,
    /// Moves take turns with puts, instead of waiting until none is left.
    pub(crate) urgent: bool,
}

impl Effort {
    /// The least.
    pub(crate) const LEAST: Effort = Effort {
        victims: 1,
        bytes: 4 << 20,
        urgent: false,
    };

    /// For so many units that hold nothing.
    pub(crate) fn clear(units: usize) -> Effort {
        Effort {
            victims: units.min(Effort::MOST.victims),
            ..Effort::LEAST
        }
    }

    /// The most.
    const MOST: Effort = Effort {
        victims: 48,
        bytes: 32 << 20,
        urgent: true,
    };
}

/// The marks for segments that are free at once, when `taken` segments are taken in [`AHEAD`]: what is free holds no
/// block, so it shall be no more than puts need until the next round is through.
pub(crate) fn floor(taken: u32, span: u32, marks: Marks) -> Marks {
    let start = taken.max(3 * span).min(marks.start);
    Marks {
        start,
        stop: (start + start.div_ceil(2)).min(marks.stop),
    }
}

/// How far ahead of puts eviction is.
pub(crate) const AHEAD: Duration = Duration::from_millis(50);

/// How hard to work with `free` segments free and `coming` on their way; none: not at all. It grows with what is missing
/// at the mark where eviction starts, so that in steady state as much comes free as is taken, long before none is left.
/// `evicting` is kept between calls.
pub(crate) fn effort(free: u32, coming: u32, marks: Marks, evicting: &mut bool) -> Option<Effort> {
    if free + coming >= marks.stop {
        *evicting = false;
    } else if free + coming < marks.start {
        *evicting = true;
    }
    if !*evicting {
        return None;
    }
    let missing = f64::from(marks.start.saturating_sub(free)) / f64::from(marks.start.max(1));
    let (least, most) = (Effort::LEAST, Effort::MOST);
    Some(Effort {
        victims: least.victims + (missing * (most.victims - least.victims) as f64) as usize,
        bytes: least.bytes + (missing * (most.bytes - least.bytes) as f64) as u64,
        urgent: missing > 0.5,
    })
}

/// The units to evict so that up to `count` runs of `run` adjacent segments come free, the best first; empty where none
/// can. Where there are none, or all are crowded with what is protected, shorter runs go, of not less than `least`: they lie in a row in the
/// end. Where those are crowded, too, only the least crowded run goes.
///
/// `oldest_first` takes the oldest units instead of the coldest: then facts that outlive their blocks (tombstones) can be
/// forgotten.
pub(crate) fn choose_victims(
    candidates: &[Candidate],
    (least, run): (u32, u32),
    segment_len: u64,
    oldest_first: bool,
    count: usize,
) -> Vec<u32> {
    let ranked = |run| {
        let mut runs: Vec<(Rank, Range<usize>)> = (0..candidates.len())
            .filter_map(|first| rank(candidates, first, run, segment_len, oldest_first))
            .collect();
        runs.sort_by(|(one, _), (other, _)| {
            let kinds = (one.crowded, one.fat).cmp(&(other.crowded, other.fat));
            kinds.then(one.score.total_cmp(&other.score))
        });
        runs
    };
    let spares =
        |runs: &Vec<(Rank, Range<usize>)>| runs.first().is_some_and(|(best, _)| !best.crowded);
    let mut lengths = (least.min(run)..=run).rev().map(ranked);
    let runs = lengths.find(spares).unwrap_or_else(|| ranked(run));
    let mut taken = vec![false; candidates.len()];
    let mut victims = Vec::new();
    let mut found = 0;
    for (rank, range) in runs {
        if found == count || (rank.crowded && found > 0) {
            break;
        }
        if taken[range.clone()].contains(&true) {
            continue;
        }
        taken[range.clone()].fill(true);
        found += 1;
        let sealed = candidates[range]
            .iter()
            .filter(|one| matches!(one.what, Occupant::Sealed { .. }));
        victims.extend(sealed.map(|one| one.segment));
    }
    victims
}

/// Whether of `len` bytes more is protected than a victim may keep.
pub(crate) fn is_crowded(protected: u64, len: u64) -> bool {
    protected as f64 > MOST_KEPT * len as f64
}

/// What speaks for a run; the least goes first.
struct Rank {
    /// Of one of its units more is protected than a victim may keep.
    crowded: bool,
    /// There is more to move than what was used since it was thinned out.
    fat: bool,
    score: f64,
}

/// The run that starts with candidate `first`, where there is one that holds anything.
fn rank(
    candidates: &[Candidate],
    first: usize,
    run: u32,
    segment_len: u64,
    oldest_first: bool,
) -> Option<(Rank, Range<usize>)> {
    let mut width = 0;
    let mut sums = Sums::default();
    for (last, candidate) in candidates.iter().enumerate().skip(first) {
        let adjacent = last == first
            || candidates[last - 1].segment + candidates[last - 1].span == candidate.segment;
        if !adjacent || !sums.add(candidate, segment_len) {
            return None;
        }
        width += candidate.span;
        if width < run {
            continue;
        }
        if sums.units == 0 {
            return None;
        }
        let crowded = sums.crowded;
        let score = if crowded {
            sums.protected as f64 / (u64::from(width) * segment_len) as f64
        } else if oldest_first {
            sums.generation as f64
        } else {
            sums.mean()
        };
        let fat = sums.fat && !oldest_first;
        let rank = Rank {
            crowded,
            fat,
            score,
        };
        return Some((rank, first..last + 1));
    }
    None
}

#[derive(Default)]
struct Sums {
    units: u32,
    access: u64,
    blocks: u64,
    protected: u64,
    generation: u64,
    crowded: bool,
    fat: bool,
}

impl Sums {
    /// Whether the candidate can be part of a victim.
    fn add(&mut self, candidate: &Candidate, segment_len: u64) -> bool {
        match candidate.what {
            Occupant::Fixed => return false,
            Occupant::Free => {}
            Occupant::Sealed {
                access,
                blocks,
                protected,
                generation,
                thinned,
                ..
            } => {
                // Each keeps what it may, whatever else is in the run.
                self.crowded |= is_crowded(protected, u64::from(candidate.span) * segment_len);
                self.fat |= !thinned;
                self.units += 1;
                self.access += access;
                self.blocks += u64::from(blocks);
                self.protected += protected;
                self.generation = self.generation.max(generation);
            }
        }
        true
    }

    /// Mean last access; what has no live block is coldest.
    fn mean(&self) -> f64 {
        if self.blocks == 0 {
            return -1.0;
        }
        self.access as f64 / self.blocks as f64
    }
}

/// The last access that `quantile` of a sample is older than.
pub(crate) fn quantile(mut accesses: Vec<u32>, quantile: f64) -> u32 {
    if accesses.is_empty() {
        return 0;
    }
    let rank = ((accesses.len() - 1) as f64 * quantile) as usize;
    *accesses.select_nth_unstable(rank).1
}

/// A live block of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// Its place in the victim's list.
    pub(crate) number: usize,
    /// Tick of its last access.
    pub(crate) access: u32,
    /// Bytes that it takes.
    pub(crate) bytes: u64,
    /// Pinned or leased.
    pub(crate) held: bool,
    /// Its namespace uses less than its share.
    pub(crate) sheltered: bool,
}

/// The blocks that stay, the most important first: held ones all, then sheltered ones and those newer than `threshold`,
/// newest first, up to 60 % of the victim's `bytes` together.
pub(crate) fn survivors(mut blocks: Vec<Live>, threshold: u32, bytes: u64) -> Vec<Live> {
    let limit = (bytes as f64 * MOST_KEPT) as u64;
    blocks.retain(|block| block.held || block.sheltered || block.access > threshold);
    blocks.sort_by_key(|block| {
        (
            !block.held,
            !block.sheltered,
            std::cmp::Reverse(block.access),
        )
    });
    let mut kept = 0;
    blocks.retain(|block| {
        let stays = block.held || kept + block.bytes <= limit;
        if stays {
            kept += block.bytes;
        }
        stays
    });
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(segment: u32, access: u64, protected: u64) -> Candidate {
        Candidate {
            segment,
            span: 1,
            what: Occupant::Sealed {
                access: access * 10,
                blocks: 10,
                live: 1000,
                protected,
                generation: 1000 - access,
                thinned: false,
            },
        }
    }

    #[test]
    fn the_coldest_goes_and_a_run_counts_free_neighbours() {
        let fixed = |segment| Candidate {
            segment,
            span: 1,
            what: Occupant::Fixed,
        };
        let free = |segment| Candidate {
            segment,
            span: 1,
            what: Occupant::Free,
        };
        let all = [
            sealed(0, 50, 0),
            fixed(1),
            sealed(2, 10, 0),
            free(3),
            sealed(4, 5, 0),
        ];
        let choose = |run, oldest, count| choose_victims(&all, (run, run), 1000, oldest, count);
        assert_eq!(choose(1, false, 1), [4]);
        assert_eq!(choose(1, true, 1), [0]);
        assert_eq!(choose(2, false, 1), [4]);
        assert_eq!(choose(3, false, 1), [2, 4]);
        assert!(choose(4, false, 1).is_empty());
        assert_eq!(choose(1, false, 2), [4, 2]);
        assert_eq!(choose(1, false, 9), [4, 2, 0]);
        // Runs do not overlap.
        assert_eq!(choose(2, false, 9), [4]);
    }

    #[test]
    fn a_unit_full_of_anothers_share_is_spared() {
        let all = [sealed(0, 1, 900), sealed(1, 50, 100)];
        assert_eq!(choose_victims(&all, (1, 1), 1000, false, 2), [1]);
        let all = [sealed(0, 1, 900), sealed(1, 50, 950)];
        assert_eq!(choose_victims(&all, (1, 1), 1000, false, 2), [0]);
        // Neither does its neighbour's room make it go: a shorter run does instead, where that is of use.
        let all = [sealed(0, 1, 900), sealed(1, 2, 0)];
        assert_eq!(choose_victims(&all, (1, 2), 1000, false, 2), [1]);
        assert_eq!(choose_victims(&all, (2, 2), 1000, false, 2), [0, 1]);
    }

    #[test]
    fn eviction_starts_and_stops_at_its_marks_and_works_harder_the_less_is_free() {
        let marks = Marks {
            start: 50,
            stop: 100,
        };
        let mut evicting = false;
        assert_eq!(effort(60, 0, marks, &mut evicting), None);
        assert_eq!(effort(49, 0, marks, &mut evicting).unwrap().victims, 1);
        assert_eq!(effort(80, 19, marks, &mut evicting), Some(Effort::LEAST));
        assert_eq!(effort(80, 20, marks, &mut evicting), None);
        assert_eq!(effort(60, 0, marks, &mut evicting), None);
        assert_eq!(effort(0, 0, marks, &mut evicting), Some(Effort::MOST));
        let mut last = Effort::MOST;
        for free in 0..=50 {
            let now = effort(free, 0, marks, &mut evicting).unwrap();
            assert!(now.victims <= last.victims && now.bytes <= last.bytes);
            assert_eq!(now.urgent, free < 25);
            last = now;
        }
    }

    proptest! {
        #[test]
        fn survivors_are_newer_than_what_goes_and_few(
            accesses in prop::collection::vec(0u32..100, 0..40), threshold in 0u32..100, held in 0usize..4,
        ) {
            let blocks: Vec<Live> = accesses.iter().enumerate().map(|(number, access)| Live {
                number, access: *access, bytes: 10, held: number < held, sheltered: false,
            }).collect();
            let total = blocks.len() as u64 * 10;
            let kept = survivors(blocks.clone(), threshold, total);
            prop_assert!(kept.iter().filter(|one| one.held).count() == held.min(blocks.len()));
            let others: Vec<_> = kept.iter().filter(|one| !one.held).collect();
            prop_assert!(others.iter().all(|one| one.access > threshold));
            let bytes: u64 = kept.iter().map(|one| one.bytes).sum();
            prop_assert!(bytes <= (total as f64 * MOST_KEPT) as u64 || others.is_empty());
            let coldest = others.iter().map(|one| one.access).min().unwrap_or(u32::MAX);
            let gone = blocks.iter().filter(|one| !kept.iter().any(|kept| kept.number == one.number));
            for one in gone {
                prop_assert!(one.access <= threshold || one.access <= coldest);
            }
        }

        #[test]
        fn a_quantile_has_its_share_below(accesses in prop::collection::vec(any::<u32>(), 1..200)) {
            let found = quantile(accesses.clone(), QUANTILE);
            let below = accesses.iter().filter(|one| **one < found).count();
            prop_assert!(below as f64 <= accesses.len() as f64 * QUANTILE);
        }
    }
}
