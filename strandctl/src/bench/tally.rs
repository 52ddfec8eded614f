//! What a replay has seen so far.

use serde::Serialize;
use std::time::Duration;
use strand_traces::Totals;

/// What was asked and served, and what became of each block.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests served, and how.
    pub totals: Totals,
    /// What became of their blocks.
    pub blocks: Blocks,
}

/// What became of blocks.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// Read and found right.
    pub right: u64,
    /// Read with wrong bytes.
    pub wrong: u64,
    /// Wrong bytes in them.
    pub wrong_bytes: u64,
    /// Promised by a lookup and missed by the get after it.
    pub lost: u64,
    /// Writes that the door says were dropped.
    pub dropped: u64,
    /// How long lookups of a request's leading run took.
    pub lookups: Latencies,
    /// How long reads of a block took.
    pub gets: Latencies,
    /// How long writes of a block took.
    pub sets: Latencies,
}

impl Blocks {
    /// Adds what became of others.
    pub fn merge(&mut self, others: Blocks) {
        self.right += others.right;
        self.wrong += others.wrong;
        self.wrong_bytes += others.wrong_bytes;
        self.lost += others.lost;
        self.dropped += others.dropped;
        self.lookups.0.extend(others.lookups.0);
        self.gets.0.extend(others.gets.0);
        self.sets.0.extend(others.sets.0);
    }
}

/// How long each of many things took, in microseconds: exact, four bytes each.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u32>);

/// Latencies that so many of a hundred stay within, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// 50 of 100.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        self.0
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// The percentiles; zeroes of none.
    pub fn percentiles(mut self) -> Percentiles {
        self.0.sort_unstable();
        let count = self.0.len();
        let at = |percent: usize| {
            let place = (count * percent).div_ceil(100).saturating_sub(1);
            self.0
                .get(place)
                .map_or(0.0, |took| f64::from(*took) / 1000.0)
        };
        Percentiles {
            count: count as u64,
            p50: at(50),
            p90: at(90),
            p99: at(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.clone().percentiles(), Percentiles::default());
        for number in (1..=200).rev() {
            latencies.add(Duration::from_millis(number));
        }
        let expected = Percentiles {
            count: 200,
            p50: 100.0,
            p90: 180.0,
            p99: 198.0,
        };
        assert_eq!(latencies.percentiles(), expected);
    }
}
