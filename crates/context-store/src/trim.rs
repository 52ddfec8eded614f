//! When and in what pieces retired segments are TRIMmed: pure.

use std::ops::Range;

/// Merges segment runs that touch into batches.
pub(crate) fn batches(mut runs: Vec<Range<u32>>) -> Vec<Range<u32>> {
    runs.sort_by_key(|run| run.start);
    let mut merged: Vec<Range<u32>> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => merged.push(run),
        }
    }
    merged
}

/// A rate: bytes flow in with time, up to a second's worth.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: u64,
    left: u64,
    at: u64,
}

impl Pace {
    pub(crate) fn new(rate: u64, millis: u64) -> Pace {
        Pace {
            rate,
            left: rate,
            at: millis,
        }
    }

    /// Whether `bytes` may go now; a piece larger than a second's worth goes when the second is full.
    pub(crate) fn take(&mut self, bytes: u64, millis: u64) -> bool {
        let passed = millis.saturating_sub(self.at).min(1000);
        self.at = self.at.max(millis);
        self.left = self.rate.min(self.left + self.rate / 1000 * passed);
        let cost = bytes.min(self.rate);
        let goes = self.left >= cost;
        if goes {
            self.left -= cost;
        }
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_go_together_and_the_rate_holds() {
        assert_eq!(batches(vec![4..5, 0..2, 2..3]), [0..3, 4..5]);
        let mut pace = Pace::new(1000, 0);
        assert!(pace.take(800, 0));
        assert!(!pace.take(800, 500));
        assert!(pace.take(800, 1100));
        assert!(!pace.take(5000, 1200));
        assert!(pace.take(5000, 2300));
    }
}
