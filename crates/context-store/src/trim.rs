//! Tells the drive what no longer counts, at a limited rate, in batches of neighbours.
//!
//! Free segments are TRIMmed while more are free than eviction's high watermark leaves: below it they are soon written
//! over, which frees their old pages as well, and no put ever waits for a TRIM.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Shared;

/// How long the task sleeps at most.
const PACE: Duration = Duration::from_millis(500);

/// Most bytes of one TRIM, so that transfers find gaps between them.
const BATCH: u64 = 256 << 20;

/// Runs until the store is closed.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    shared.tasks.send_modify(|left| *left += 1);
    tokio::spawn(async move {
        let mut pace = Pace::new(shared.options.trim_rate, shared.now().millis);
        while !shared.core().closed {
            while shared.trim_some(&mut pace).await {}
            // Whether woken or not, the next round looks at everything.
            let _woken = tokio::time::timeout(PACE, shared.trim.notified()).await;
        }
        shared.tasks.send_modify(|left| *left -= 1);
    });
}

impl Shared {
    /// TRIMs one batch; whether there was one and its time had come.
    async fn trim_some(&self, pace: &mut Pace) -> bool {
        let Some((run, bytes)) = self.take_run(pace) else {
            return false;
        };
        let at = self.address(run.start, 0);
        let trimmed = self.disk.discard(at, bytes).await;
        let mut core = self.core();
        core.space.trimmed(run);
        match trimmed {
            Ok(()) => core.stats.trimmed_bytes += bytes,
            Err(error) => tracing::debug!(%error, "this medium cannot TRIM"),
        }
        drop(core);
        self.upkeep.notify_one();
        true
    }

    fn take_run(&self, pace: &mut Pace) -> Option<(Range<u32>, u64)> {
        let mut core = self.core();
        let segment_len = core.space.layout.segment_len;
        let spare = core.free().saturating_sub(core.watermarks().start);
        let most = u32::try_from(BATCH / segment_len)
            .unwrap_or(u32::MAX)
            .max(1);
        let run = core.space.stale(most.min(spare))?;
        let bytes = u64::from(run.end - run.start) * segment_len;
        if core.closed || !pace.take(bytes, self.now().millis) {
            return None;
        }
        core.space.trimming(run.clone());
        Some((run, bytes))
    }
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
        // A second's worth of nothing is never full.
        let cost = bytes.min(self.rate.max(1));
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
    fn the_rate_holds() {
        let mut pace = Pace::new(1000, 0);
        assert!(pace.take(800, 0));
        assert!(!pace.take(800, 500));
        assert!(pace.take(800, 1100));
        assert!(!pace.take(5000, 1200));
        assert!(pace.take(5000, 2300));
        let mut none = Pace::new(0, 0);
        assert!(!none.take(1, 0) && !none.take(5000, 9000));
    }
}
