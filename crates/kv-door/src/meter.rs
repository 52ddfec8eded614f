//! What doors count: requests by operation and outcome, how long each took, bytes, sessions. One meter a namespace; a
//! node's figures are their sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strand_kv_client::frame::{Code, Put, Reply, Request};

/// Names of operations, in the order of [`operation`].
pub(crate) const OPERATIONS: [&str; 11] = [
    "get", "open", "read", "put", "begin", "part", "commit", "exists", "describe", "delete",
    "other",
];

/// Names of outcomes.
pub(crate) const OUTCOMES: [&str; 8] = [
    "hit", "miss", "stored", "present", "dropped", "done", "busy", "refused",
];

/// Where `hit` and `miss` stand among [`OUTCOMES`].
const HIT: usize = 0;
const MISS: usize = 1;

/// The first bucket ends at 2^4 µs, the last at 2^24 µs (17 s); what took longer counts in none of them.
const FIRST: u32 = 4;
const LAST: u32 = 24;
/// Buckets to each doubling, of equal width.
const STEPS: u64 = 4;
pub(crate) const BUCKETS: usize = ((LAST - FIRST) as usize) * STEPS as usize + 1;

/// Which of [`OPERATIONS`] a request is.
pub(crate) fn operation(request: &Request) -> usize {
    match request {
        Request::Get { .. } => 0,
        Request::Open { .. } => 1,
        Request::Read { .. } => 2,
        Request::Put { .. } => 3,
        Request::Begin { .. } => 4,
        Request::Part { .. } => 5,
        Request::Commit { .. } => 6,
        Request::Exists { .. } | Request::LeadingRun { .. } => 7,
        Request::Describe { .. } => 8,
        Request::Delete { .. } => 9,
        Request::Expire { .. }
        | Request::Flush
        | Request::Scan { .. }
        | Request::Stats
        | Request::Release => 10,
    }
}

/// Which of [`OUTCOMES`] a reply is.
fn outcome(reply: &Reply) -> usize {
    match reply {
        Reply::Hit { .. } | Reply::Opened { .. } | Reply::Larger => HIT,
        Reply::Miss => MISS,
        Reply::Put(Put::Stored) => 2,
        Reply::Put(Put::Present) => 3,
        Reply::Put(Put::Dropped) => 4,
        Reply::Refused { code, .. } if *code == Code::Busy.number() => 6,
        Reply::Refused { .. } => 7,
        _ => 5,
    }
}

/// A number that is counted from many tasks.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one namespace's sessions do.
#[derive(Debug)]
pub(crate) struct Meter {
    operations: [Operation; OPERATIONS.len()],
    read: Count,
    written: Count,
}

#[derive(Debug)]
struct Operation {
    outcomes: [Count; OUTCOMES.len()],
    micros: Count,
    buckets: [Count; BUCKETS],
}

impl Default for Operation {
    fn default() -> Self {
        Self {
            outcomes: Default::default(),
            micros: Count::default(),
            buckets: std::array::from_fn(|_| Count::default()),
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            operations: std::array::from_fn(|_| Operation::default()),
            read: Count::default(),
            written: Count::default(),
        }
    }
}

impl Meter {
    /// A request was answered.
    pub(crate) fn answered(&self, operation: usize, reply: &Reply, took: Duration) {
        let Some(operation) = self.operations.get(operation) else {
            return;
        };
        operation.outcomes[outcome(reply)].add(1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        operation.micros.add(micros);
        if let Some(bucket) = operation.buckets.get(bucket(micros)) {
            bucket.add(1);
        }
        if let Reply::Hit { length, .. } = reply {
            self.read.add(*length);
        }
    }

    /// A value was stored.
    pub(crate) fn stored(&self, bytes: u64) {
        self.written.add(bytes);
    }

    pub(crate) fn stats(&self) -> MeterStats {
        let operation = |(at, of): (usize, &Operation)| OperationStats {
            operation: OPERATIONS[at],
            outcomes: of.outcomes.each_ref().map(Count::get),
            seconds: of.micros.get() as f64 / 1e6,
            buckets: of.buckets.each_ref().map(Count::get),
        };
        MeterStats {
            operations: self.operations.iter().enumerate().map(operation).collect(),
            read_bytes: self.read.get(),
            written_bytes: self.written.get(),
        }
    }
}

/// What was asked and answered, since the door's node was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeterStats {
    /// By operation.
    pub operations: Vec<OperationStats>,
    /// Value bytes that were read.
    pub read_bytes: u64,
    /// Value bytes that were stored.
    pub written_bytes: u64,
}

/// One operation's requests.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationStats {
    /// Its name.
    pub operation: &'static str,
    /// How many ended how; see [`OperationStats::by_outcome`].
    pub(crate) outcomes: [u64; OUTCOMES.len()],
    /// Seconds that they took together.
    pub seconds: f64,
    pub(crate) buckets: [u64; BUCKETS],
}

impl OperationStats {
    /// How many ended how, by name.
    pub fn by_outcome(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OUTCOMES.into_iter().zip(self.outcomes)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// A latency that `share` of the requests (0 to 1) did not exceed by more than a fifth. None: there were none, or it is
    /// longer than 17 s.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted && seen > 0
        })?;
        Some(Duration::from_micros(bound(at)))
    }
}

impl MeterStats {
    pub(crate) fn add(&mut self, other: &Self) {
        if self.operations.is_empty() {
            *self = other.clone();
            return;
        }
        for (sum, more) in self.operations.iter_mut().zip(&other.operations) {
            sum.seconds += more.seconds;
            let pairs = sum.outcomes.iter_mut().zip(&more.outcomes);
            let buckets = sum.buckets.iter_mut().zip(&more.buckets);
            pairs.chain(buckets).for_each(|(sum, more)| *sum += more);
        }
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// The bucket of a time.
fn bucket(micros: u64) -> usize {
    let over = micros.saturating_sub(1);
    if over >> FIRST == 0 {
        return 0;
    }
    let power = over.ilog2();
    let step = (over >> (power - STEPS.ilog2())) - STEPS;
    (power - FIRST) as usize * STEPS as usize + step as usize + 1
}

/// The longest time of a bucket, µs.
pub(crate) fn bound(bucket: usize) -> u64 {
    let Some(over) = bucket.checked_sub(1) else {
        return 1 << FIRST;
    };
    let (power, step) = (over as u64 / STEPS, over as u64 % STEPS);
    ((STEPS + step + 1) << power) * (1 << FIRST) / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_the_first_bucket_that_holds_it() {
        for micros in (0..5000).chain([1 << 20, (1 << 20) + 1, 3_000_000, 1 << 24]) {
            let at = bucket(micros);
            assert!(at < BUCKETS, "{micros}");
            assert!(bound(at) >= micros, "{micros} in {at}");
            assert!(at == 0 || bound(at - 1) < micros, "{micros} in {at}");
        }
        assert!(bucket((1 << 24) + 1) >= BUCKETS);
    }

    #[test]
    fn a_quantile_is_near() {
        let meter = Meter::default();
        for micros in 1..=1000 {
            meter.answered(0, &Reply::Miss, Duration::from_micros(micros));
        }
        let mut stats = meter.stats();
        stats.add(&meter.stats());
        let get = &stats.operations[0];
        assert_eq!(get.count(), 2000);
        let median = get.quantile(0.5).map(|time| time.as_micros());
        assert!(
            median.is_some_and(|m| (500..=640).contains(&m)),
            "{median:?}"
        );
    }
}
