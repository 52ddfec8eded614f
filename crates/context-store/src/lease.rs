//! Leases: a block that EXISTS answered for stays for ten seconds. Pure; the caller passes the clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::hash::{Fingerprint, FingerprintMap};

/// How long a lease lasts.
pub const LEASE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Lease {
    until: u64,
    owner: u16,
    bytes: u64,
}

/// The leases of one partition.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: FingerprintMap<Lease>,
    /// In the order in which they were granted; a renewed one is here twice.
    order: VecDeque<(u64, Fingerprint)>,
    bytes: HashMap<u16, u64>,
}

impl Leases {
    /// Grants or renews a lease of `bytes` for namespace slot `owner`, whose leases may hold `limit` bytes together;
    /// whether it was.
    pub(crate) fn grant(
        &mut self,
        fingerprint: Fingerprint,
        owner: u16,
        bytes: u64,
        limit: u64,
        millis: u64,
    ) -> bool {
        self.expire(millis);
        let until = millis + LEASE.as_millis() as u64;
        if let Some(lease) = self.held.get_mut(&fingerprint)
            && lease.owner == owner
        {
            lease.until = until;
        } else {
            let held = self.bytes.entry(owner).or_default();
            if *held + bytes > limit {
                return false;
            }
            *held += bytes;
            let lease = Lease {
                until,
                owner,
                bytes,
            };
            if let Some(old) = self.held.insert(fingerprint, lease) {
                self.release(old);
            }
        }
        self.order.push_back((until, fingerprint));
        true
    }

    fn release(&mut self, lease: Lease) {
        if let Some(held) = self.bytes.get_mut(&lease.owner) {
            *held = held.saturating_sub(lease.bytes);
            if *held == 0 {
                self.bytes.remove(&lease.owner);
            }
        }
    }

    /// Forgets leases that have ended.
    pub(crate) fn expire(&mut self, millis: u64) {
        while let Some((until, fingerprint)) = self.order.front().copied()
            && until <= millis
        {
            self.order.pop_front();
            // A renewed lease has a later place in the order.
            if let Some(lease) = self.held.get(&fingerprint).copied()
                && lease.until <= millis
            {
                self.held.remove(&fingerprint);
                self.release(lease);
            }
        }
    }

    /// Whether a block is leased.
    pub(crate) fn holds(&self, fingerprint: Fingerprint, millis: u64) -> bool {
        self.held
            .get(&fingerprint)
            .is_some_and(|lease| lease.until > millis)
    }

    /// Leases held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(number: u8) -> Fingerprint {
        Fingerprint([number; 12])
    }

    #[test]
    fn a_lease_ends_and_a_renewed_one_ends_later() {
        let mut leases = Leases::default();
        assert!(leases.grant(print(1), 1, 100, 100, 0));
        assert!(leases.holds(print(1), 9_999) && !leases.holds(print(1), 10_000));
        assert!(leases.grant(print(1), 1, 100, 100, 5_000));
        leases.expire(10_000);
        assert!(leases.holds(print(1), 14_999));
        leases.expire(15_000);
        assert_eq!(
            (leases.len(), leases.order.len(), leases.bytes.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_namespace_leases_no_more_than_its_limit() {
        let mut leases = Leases::default();
        assert!(leases.grant(print(1), 1, 60, 100, 0));
        assert!(!leases.grant(print(2), 1, 60, 100, 0));
        assert!(leases.grant(print(3), 2, 60, 100, 0));
        assert!(leases.grant(print(2), 1, 60, 100, 10_000));
    }
}
