//! The superblock that md keeps on each leg: version 1.2, little-endian, 4 KiB from the leg's start (linux
//! include/uapi/linux/raid/md_p.h, `struct mdp_superblock_1`). Read only; mdadm and the kernel write it.
//!
//! It is read here and not out of mdadm's words because whether a leg may be assembled from is decided by its counters, and those are
//! to be had exactly, together, and without starting a program a leg.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where it begins on the leg, in bytes.
pub(crate) const OFFSET: usize = 4096;
/// Bytes that it takes at most.
pub(crate) const LENGTH: usize = 4096;

const MAGIC: u32 = 0xa92b_4efc;
/// Before the roles.
const HEAD: usize = 256;
/// `MD_FEATURE_RECOVERY_OFFSET`: the leg is whole up to `recovery_offset` only.
const RECOVERING: u32 = 2;
/// `MD_DISK_ROLE_MAX`: what is above is no place in the array, but spare, faulty or journal.
const ROLES: u16 = 0xff00;

/// What a leg's superblock says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// UUID of the array.
    pub array: Uuid,
    /// How often the array's state has changed, as far as the leg knows.
    pub events: u64,
    /// Every write that had begun was done when this was written: parity is right.
    pub clean: bool,
    /// The leg was being copied to.
    pub recovering: bool,
    /// Its number among all that were ever in the array.
    pub number: u32,
    /// By number: whether it has a place in the array.
    pub active: Vec<bool>,
}

impl Superblock {
    /// Reads the bytes at [`OFFSET`]. None where they are no superblock, or a damaged one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if u32_at(0)? != MAGIC || u32_at(4)? != 1 {
            return None;
        }
        let devices = usize::try_from(u32_at(220)?).ok()?;
        let whole = bytes.get(..HEAD.checked_add(devices.checked_mul(2)?)?)?;
        if checksum(whole) != u32_at(216)? {
            return None;
        }
        let roles = whole.get(HEAD..)?.as_chunks::<2>().0;
        Some(Self {
            array: Uuid::from_bytes(*bytes.get(16..)?.first_chunk()?),
            events: u64_at(200)?,
            clean: u64_at(208)? == u64::MAX,
            recovering: u32_at(8)? & RECOVERING != 0,
            number: u32_at(160)?,
            active: roles
                .iter()
                .map(|role| u16::from_le_bytes(*role) < ROLES)
                .collect(),
        })
    }

    /// Whether it gives the leg with this number a place.
    pub(crate) fn counts(&self, number: u32) -> bool {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.active.get(number).copied().unwrap_or(false)
    }
}

/// `calc_sb_1_csum` of drivers/md/md.c: the sum of all words, with the checksum's own as 0, and its carries.
fn checksum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words = words.iter().enumerate();
    let sum: u64 = words
        .filter(|(at, _)| at * 4 != 216)
        .map(|(_, word)| u64::from(u32::from_le_bytes(*word)))
        .sum();
    let rest = rest
        .first_chunk()
        .map_or(0, |half| u16::from_le_bytes(*half));
    let sum = sum + u64::from(rest);
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A superblock as the kernel writes it, for 3 devices.
    fn written(events: u64, roles: [u16; 3]) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(4, &1u32.to_le_bytes());
        put(16, &[7; 16]);
        put(160, &1u32.to_le_bytes());
        put(200, &events.to_le_bytes());
        put(208, &u64::MAX.to_le_bytes());
        put(220, &3u32.to_le_bytes());
        for (at, role) in roles.iter().enumerate() {
            put(HEAD + at * 2, &role.to_le_bytes());
        }
        let sum = checksum(&bytes[..HEAD + 6]);
        bytes[216..220].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let found = Superblock::read(&written(42, [0, 0xfffe, 1])).unwrap();
        assert_eq!(found.array, Uuid::from_bytes([7; 16]));
        assert_eq!((found.events, found.clean, found.number), (42, true, 1));
        assert!(found.counts(0) && !found.counts(1) && found.counts(2) && !found.counts(3));
    }

    proptest! {
        #[test]
        fn a_damaged_one_is_none(at in 0..HEAD + 6, bit in 0..8u32) {
            let mut bytes = written(u64::from(u32::MAX) * 3, [0, 1, 0xffff]);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Superblock::read(&bytes), None);
        }

        #[test]
        fn whatever_is_there_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), devices: u32) {
            let mut bytes = bytes;
            if let Some(head) = bytes.get_mut(..224) {
                head[..4].copy_from_slice(&MAGIC.to_le_bytes());
                head[4..8].copy_from_slice(&1u32.to_le_bytes());
                head[220..].copy_from_slice(&devices.to_le_bytes());
            }
            let _ = Superblock::read(&bytes);
        }
    }
}
