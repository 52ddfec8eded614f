//! What a client counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::Counters;

/// One number, counted from many tasks.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// [`Counters`], being counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) misses_down: Count,
    pub(crate) misses_busy: Count,
    pub(crate) gets_resent: Count,
    pub(crate) puts: Count,
    pub(crate) dropped: Count,
    pub(crate) dropped_down: Count,
    pub(crate) puts_resent: Count,
    pub(crate) lost: Count,
    pub(crate) resumed: Count,
    pub(crate) sessions: Count,
}

impl Counts {
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            hits: self.hits.get(),
            misses: self.misses.get(),
            misses_down: self.misses_down.get(),
            misses_busy: self.misses_busy.get(),
            gets_resent: self.gets_resent.get(),
            puts: self.puts.get(),
            dropped: self.dropped.get(),
            dropped_down: self.dropped_down.get(),
            puts_resent: self.puts_resent.get(),
            lost: self.lost.get(),
            resumed: self.resumed.get(),
            sessions: self.sessions.get(),
        }
    }
}
