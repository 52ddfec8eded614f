//! Points in time at which blocks expire.
//!
//! On the medium: units of 100 ms since the partition was formatted, rounded down, so that nothing is served late; 0
//! means never. In the index the same modulo 2^28 units, told apart by being near the present.

use std::time::Duration;

use crate::index::EXPIRY_MODULUS;

/// Milliseconds of one unit.
const UNIT: u64 = 100;

/// Longest life that can be asked for: 100 days. Longer ones are cut to it, since what is this old is cold.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 86_400);

/// The wall clock as seen by one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now {
    /// Units since the partition was formatted.
    units: u32,
    /// Milliseconds since the partition was formatted.
    pub(crate) millis: u64,
}

impl Now {
    /// From Unix milliseconds.
    pub(crate) fn new(unix_millis: u64, created: u64) -> Now {
        let millis = unix_millis.saturating_sub(created);
        Now {
            units: u32::try_from(millis / UNIT).unwrap_or(u32::MAX),
            millis,
        }
    }

    /// The expiry of something that lives for `ttl` from now.
    pub(crate) fn after(self, ttl: Duration) -> u32 {
        let ttl = ttl.min(LONGEST).as_millis() as u64;
        let units = ((self.millis + ttl) / UNIT).clamp(1, u64::from(u32::MAX)) as u32;
        // Zero modulo the index's range means never; one unit earlier does not.
        if units.is_multiple_of(EXPIRY_MODULUS) {
            units - 1
        } else {
            units
        }
    }

    /// Whether something with this expiry, as on the medium, is gone.
    pub(crate) fn is_past(self, expiry: u32) -> bool {
        expiry != 0 && expiry <= self.units
    }

    /// The full expiry of an index entry, whose upper bits are those nearest to now.
    pub(crate) fn widen(self, expiry: u32) -> u32 {
        if expiry == 0 {
            return 0;
        }
        let ahead = expiry.wrapping_sub(self.units) % EXPIRY_MODULUS;
        if ahead < EXPIRY_MODULUS / 2 {
            self.units.saturating_add(ahead)
        } else {
            self.units.saturating_sub(EXPIRY_MODULUS - ahead)
        }
    }

    /// How long something with this expiry, as on the medium, still lives.
    pub(crate) fn left(self, expiry: u32) -> Option<Duration> {
        (expiry != 0)
            .then(|| Duration::from_millis((u64::from(expiry) * UNIT).saturating_sub(self.millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_served_late_and_the_index_agrees(
            start in 0u64..300_000_000_000, ttl in 1u64..8_000_000_000, later in 0u64..8_640_000_000,
        ) {
            let now = Now::new(start, 0);
            let expiry = now.after(Duration::from_millis(ttl));
            let then = Now::new(start + later, 0);
            if later >= ttl {
                prop_assert!(then.is_past(expiry));
            }
            if later + 2 * UNIT <= ttl {
                prop_assert!(!then.is_past(expiry));
            }
            prop_assert_ne!(expiry % EXPIRY_MODULUS, 0);
            prop_assert_eq!(then.widen(expiry % EXPIRY_MODULUS), expiry);
        }
    }
}
