//! Signs of life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When something last went over a link, either way.
#[derive(Debug)]
pub(crate) struct Pulse {
    start: Instant,
    /// Microseconds after the start.
    last: AtomicU64,
    /// Bytes that came in and went out.
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    pub(crate) fn touch(&self) {
        let now = self.start.elapsed().as_micros() as u64;
        self.last.store(now, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.start + Duration::from_micros(self.last.load(Ordering::Relaxed))
    }
}
