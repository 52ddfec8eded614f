//! Which keys a client was told to be there, lately: so that a miss of one of them is counted.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long an `EXISTS` = 1 keeps a block from eviction, as the agent grants it.
const LEASE: Duration = Duration::from_secs(10);
/// Keys remembered in one span of [`LEASE`]; further ones are not (16 bytes each, two spans).
const MOST: usize = 1 << 15;

/// Keys that were said to exist within the last lease or two.
#[derive(Debug)]
pub struct Leases {
    hasher: RandomState,
    spans: Mutex<Spans>,
}

#[derive(Debug)]
struct Spans {
    began: Instant,
    now: HashSet<u64>,
    before: HashSet<u64>,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            spans: Mutex::new(Spans {
                began: Instant::now(),
                now: HashSet::new(),
                before: HashSet::new(),
            }),
        }
    }
}

impl Leases {
    /// `key` was said to exist.
    pub fn granted(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let mut spans = self.spans();
        if spans.now.len() < MOST {
            spans.now.insert(hash);
        }
    }

    /// Whether `key` was said to exist lately; says so once.
    pub fn broken(&self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut spans = self.spans();
        // Both, or it would be found again in the other.
        let now = spans.now.remove(&hash);
        spans.before.remove(&hash) | now
    }

    /// A client deleted `key`: a miss is what it asked for.
    pub fn deleted(&self, key: &[u8]) {
        self.broken(key);
    }

    /// A client deleted everything.
    pub fn clear(&self) {
        let mut spans = self.spans();
        spans.now = HashSet::new();
        spans.before = HashSet::new();
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        let mut spans = self
            .spans
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let age = spans.began.elapsed();
        if age > LEASE {
            let now = std::mem::take(&mut spans.now);
            spans.before = if age > 2 * LEASE { HashSet::new() } else { now };
            spans.began = Instant::now();
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::Leases;

    #[test]
    fn a_broken_lease_is_told_once() {
        let leases = Leases::default();
        assert!(!leases.broken(b"k"));
        leases.granted(b"k");
        assert!(leases.broken(b"k"));
        assert!(!leases.broken(b"k"));
        leases.granted(b"k");
        leases.deleted(b"k");
        assert!(!leases.broken(b"k"));
    }
}
