//! How long things take: histograms of fixed buckets that are counted into without a lock or memory of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The first bucket ends at 2^5 µs, each of the others at twice the one before.
const FIRST: u32 = 5;

/// The last bucket ends at 2^24 µs (17 s); what took longer is in none.
const BUCKETS: usize = 20;

/// What callers ask a store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Operation {
    /// A whole value that was there.
    Get = 0,
    /// The first pages of a value that is read chunk by chunk.
    Open = 1,
    /// A chunk of it.
    Chunk = 2,
    /// A block that was taken.
    Put = 3,
    /// Whether blocks are there: many at once count as one.
    Exists = 4,
    /// A block that was there and went.
    Delete = 5,
}

/// Their names.
const OPERATIONS: [&str; 6] = ["get", "open", "chunk", "put", "exists", "delete"];

/// Times of one kind.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    count: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// Counts something that took so long.
    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let _before = self.count.fetch_add(1, Ordering::Relaxed);
        let _before = self.micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket(micros)) {
            let _before = bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far, under a name.
    pub(crate) fn stats(&self, what: &'static str) -> LatencyStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LatencyStats {
            what,
            seconds: load(&self.micros) as f64 / 1e6,
            buckets: self.buckets.each_ref().map(load),
            // Read last: it is never less than what the buckets hold together.
            count: load(&self.count),
        }
    }
}

/// The first bucket that holds a time.
fn bucket(micros: u64) -> usize {
    let over = micros.saturating_sub(1) >> FIRST;
    (u64::BITS - over.leading_zeros()) as usize
}

/// The operations of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Operations([Histogram; OPERATIONS.len()]);

impl Operations {
    pub(crate) fn took(&self, operation: Operation, time: Duration) {
        self.0[operation as usize].took(time);
    }

    /// Those that were asked for.
    pub(crate) fn stats(&self) -> Vec<LatencyStats> {
        let named = OPERATIONS.iter().zip(&self.0);
        let stats = named.map(|(name, histogram)| histogram.stats(name));
        stats.filter(|one| one.count > 0).collect()
    }
}

/// How long things of one kind took since the store was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyStats {
    /// What: `get`, `open`, `chunk`, `put`, `exists`, `delete` of a namespace, `read`, `write`, `flush`, `wait` of a drive.
    pub what: &'static str,
    /// How many there were.
    pub count: u64,
    /// Seconds that they took together.
    pub seconds: f64,
    buckets: [u64; BUCKETS],
}

impl LatencyStats {
    /// Buckets: the longest time of each in seconds, and how many took no longer than that.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut sum = 0;
        self.buckets.iter().enumerate().map(move |(at, count)| {
            sum += count;
            ((1_u64 << (FIRST as usize + at)) as f64 / 1e6, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_first_bucket_that_holds_it_and_in_all_after_it() {
        for micros in [0, 1, 31, 32, 33, 64, 65, 1000, 1 << 23, 1 << 24] {
            let histogram = Histogram::default();
            histogram.took(Duration::from_micros(micros));
            let stats = histogram.stats("get");
            assert_eq!((stats.count, stats.seconds), (1, micros as f64 / 1e6));
            for (bound, count) in stats.cumulative() {
                assert_eq!(
                    count,
                    u64::from(micros as f64 <= bound * 1e6),
                    "{micros} in {bound}"
                );
            }
        }
    }

    #[test]
    fn what_takes_longer_than_the_last_bucket_still_counts() {
        let histogram = Histogram::default();
        histogram.took(Duration::from_secs(60));
        let stats = histogram.stats("get");
        assert_eq!(stats.count, 1);
        assert!(stats.cumulative().all(|(_, count)| count == 0));
    }
}
