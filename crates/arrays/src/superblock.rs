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

/// Features with which bytes still lie where level, layout and offset say: a bitmap, a leg that is copied to, a stripe's layout. Others are
/// a reshape, a list of bad blocks with something in it, a replacement, a journal.
const PLAIN: u32 = 1 | RECOVERING | 0x1000;
/// Bytes of a sector, in which superblocks count.
const SECTOR: u64 = 512;

/// Where an array's bytes lie on its legs, as their superblocks have it. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// The kernel's number of the level.
    pub level: u32,
    /// The kernel's number of the order within stripes.
    pub layout: u32,
    /// Of the array that lie together on one leg; 0 for a mirror.
    pub chunk: u64,
    /// Places of legs.
    pub legs: u32,
    /// Where the data begin on a leg.
    pub data_offset: u64,
    /// Data on each leg.
    pub data: u64,
    /// Nothing else says where bytes lie.
    pub plain: bool,
}

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
    /// By number: its place in the array, if it has one.
    pub slots: Vec<Option<u32>>,
    /// Where the bytes lie.
    pub format: Format,
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
        let features = u32_at(8)?;
        let (level, chunk) = (u32_at(72)?, u64::from(u32_at(88)?) * SECTOR);
        // Only a stripe uses all that there is.
        let data = match level {
            0 => u64_at(136)?.saturating_mul(SECTOR),
            _ => u64_at(80)?.saturating_mul(SECTOR),
        };
        Some(Self {
            array: Uuid::from_bytes(*bytes.get(16..)?.first_chunk()?),
            events: u64_at(200)?,
            clean: u64_at(208)? == u64::MAX,
            recovering: features & RECOVERING != 0,
            number: u32_at(160)?,
            slots: roles
                .iter()
                .map(|role| u16::from_le_bytes(*role))
                .map(|role| (role < ROLES).then_some(u32::from(role)))
                .collect(),
            format: Format {
                level,
                layout: u32_at(76)?,
                chunk,
                legs: u32_at(92)?,
                data_offset: u64_at(128)?.saturating_mul(SECTOR),
                data: match level {
                    0 => data - data.checked_rem(chunk).unwrap_or(0),
                    _ => data,
                },
                plain: features & !PLAIN == 0,
            },
        })
    }

    /// The place that it gives the leg with this number.
    pub(crate) fn slot(&self, number: u32) -> Option<u32> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.slots.get(number).copied().flatten()
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
        put(8, &1u32.to_le_bytes());
        put(16, &[7; 16]);
        for (at, value) in [(72, 6u32), (76, 2), (88, 256), (92, 3)] {
            put(at, &value.to_le_bytes());
        }
        for (at, value) in [(80, 4096u64), (128, 2048), (136, 4200)] {
            put(at, &value.to_le_bytes());
        }
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
        assert_eq!(found.slots, [Some(0), None, Some(1)]);
        assert_eq!((found.slot(2), found.slot(3)), (Some(1), None));
        let format = Format {
            level: 6,
            layout: 2,
            chunk: 128 << 10,
            legs: 3,
            data_offset: 1 << 20,
            data: 2 << 20,
            plain: true,
        };
        assert_eq!(found.format, format);
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
