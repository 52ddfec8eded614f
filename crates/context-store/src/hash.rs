//! The partition's secret hash: fingerprints of keys, seeds of checksums, authentication of what the store writes.
//!
//! SipHash-2-4 with 128-bit output (Aumasson, Bernstein 2012), keyed by 128 random bits from the superblock. Who does
//! not know the secret can neither make two keys collide nor write a payload that reads as a record.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::Namespace;

/// 96 bits that stand for a namespace and key in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) [u8; 12]);

impl std::hash::Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_le_bytes(first));
    }
}

/// A map from fingerprints, which are hashes that nobody outside can choose: they need no further hashing.
pub(crate) type FingerprintMap<T> =
    std::collections::HashMap<Fingerprint, T, std::hash::BuildHasherDefault<AsIs>>;

/// The hasher of such a map.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How fingerprints are made. Tests replace it to force collisions.
pub(crate) type FingerprintFn = fn(&Secret, Namespace, &[u8]) -> Fingerprint;

/// The secret of one partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// What a hash is for: equal bytes for different uses have different hashes.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Use {
    Fingerprint = 1,
    Seed = 2,
    Record = 3,
    Segment = 4,
    Footer = 5,
    Superblock = 6,
    Ledger = 7,
    Recency = 8,
}

impl Secret {
    fn hash(&self, purpose: Use, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&[purpose as u8]);
        for part in parts {
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }

    pub(crate) fn fingerprint(&self, namespace: Namespace, key: &[u8]) -> Fingerprint {
        let hash = self.hash(Use::Fingerprint, &[&namespace.0.to_le_bytes(), key]);
        let mut bytes = [0; 12];
        bytes.copy_from_slice(&hash.to_le_bytes()[..12]);
        Fingerprint(bytes)
    }

    /// Where the checksums of a value start: bytes of another namespace, key or length never pass.
    pub(crate) fn seed(&self, namespace: Namespace, key: &[u8], len: u32) -> u64 {
        let hash = self.hash(
            Use::Seed,
            &[&namespace.0.to_le_bytes(), &len.to_le_bytes(), key],
        );
        hash as u64
    }

    pub(crate) fn record(&self, head: &[u8], rest: &[u8]) -> u128 {
        self.hash(Use::Record, &[head, rest])
    }

    pub(crate) fn segment(&self, bytes: &[u8]) -> u128 {
        self.hash(Use::Segment, &[bytes])
    }

    pub(crate) fn footer(&self, head: &[u8], items: &[u8]) -> u128 {
        self.hash(Use::Footer, &[head, items])
    }

    pub(crate) fn ledger(&self, bytes: &[u8], nonce: u64) -> u128 {
        self.hash(Use::Ledger, &[bytes, &nonce.to_le_bytes()])
    }

    pub(crate) fn recency(&self, head: &[u8], cells: &[u8]) -> u128 {
        self.hash(Use::Recency, &[head, cells])
    }

    pub(crate) fn superblock(&self, bytes: &[u8]) -> u128 {
        self.hash(Use::Superblock, &[bytes])
    }
}

/// The seed of a value's checksum number `number`.
pub(crate) fn chunk_seed(seed: u64, number: usize) -> u64 {
    seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
