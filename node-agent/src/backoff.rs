//! How long to wait before something that failed is tried again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Bounds of a series of waits.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Longest first wait.
    pub first: Duration,
    /// Longest wait of all.
    pub longest: Duration,
}

/// Writes to the API.
pub const API: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
/// Work on a drive.
pub const DRIVE: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(300),
};

impl Backoff {
    /// The wait after so many failures in a row: doubled with each, and cut by up to half. The cut is
    /// drawn from the name and the number, so that a thousand agents that fail together do not
    /// come back together, and a plan made twice is the same plan.
    pub fn after(&self, failures: u32, name: &str) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        let mut hasher = DefaultHasher::new();
        (name, failures).hash(&mut hasher);
        let cut = (hasher.finish() % 512) as u32;
        doubled.min(self.longest) * (1024 - cut) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ_by_name() {
        let mut earlier = Duration::ZERO;
        for failures in 1..7 {
            let wait = API.after(failures, "a");
            let full = API.first * (1 << (failures - 1));
            assert!(wait > full / 2 && wait <= full.min(API.longest), "{wait:?}");
            assert!(wait > earlier / 2);
            earlier = wait;
        }
        assert!(API.after(u32::MAX, "a") <= API.longest);
        let names: Vec<String> = (0..50).map(|n| format!("node-{n}")).collect();
        let waits: std::collections::BTreeSet<_> = names.iter().map(|n| API.after(3, n)).collect();
        assert!(waits.len() > 40);
    }
}
