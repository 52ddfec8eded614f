//! Where every block lies: 30 bytes a block in memory.
//!
//! Shards by the fingerprint's first bits; each is a sorted array that grows by a thirty-second of itself, so that the
//! memory a block takes is the same at any time, also right after growth, and growth never moves more than one shard.

use crate::hash::Fingerprint;

/// Blocks a shard is planned for.
const SHARD: u64 = 256;

/// Most shards; beyond 2 million blocks they get longer instead.
const MAX_SHARDS: u64 = 8192;

/// Expiry times are kept modulo this many units (see `expiry`).
pub(crate) const EXPIRY_MODULUS: u32 = 1 << 28;

/// A block's place, owner and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// First segment of its unit.
    pub(crate) segment: u16,
    /// In units of 64 bytes of the segment; below 2^24.
    pub(crate) place: u32,
    /// 1 byte to 128 MiB.
    pub(crate) len: u32,
    /// Its meta takes two pages.
    pub(crate) wide: bool,
    /// The slot of its namespace.
    pub(crate) owner: u16,
    /// Expiry modulo [`EXPIRY_MODULUS`]; 0: never.
    pub(crate) expiry: u32,
    /// Tick of its last access.
    pub(crate) access: u32,
}

/// An [`Entry`] with its fingerprint in 30 bytes.
#[derive(Clone, Copy)]
struct Packed {
    fingerprint: [u8; 12],
    /// place: 24 bits, length less one: 27, wide: 1, expiry's upper 12.
    place: [u8; 8],
    expiry: [u8; 2],
    segment: [u8; 2],
    owner: [u8; 2],
    access: [u8; 4],
}

impl Packed {
    fn new(fingerprint: Fingerprint, entry: &Entry) -> Packed {
        let expiry = entry.expiry % EXPIRY_MODULUS;
        let place = u64::from(entry.place) & 0xFF_FFFF
            | u64::from(entry.len.saturating_sub(1) & 0x7FF_FFFF) << 24
            | u64::from(entry.wide) << 51
            | u64::from(expiry >> 16) << 52;
        Packed {
            fingerprint: fingerprint.0,
            place: place.to_le_bytes(),
            expiry: (expiry as u16).to_le_bytes(),
            segment: entry.segment.to_le_bytes(),
            owner: entry.owner.to_le_bytes(),
            access: entry.access.to_le_bytes(),
        }
    }

    fn entry(&self) -> Entry {
        let place = u64::from_le_bytes(self.place);
        Entry {
            segment: u16::from_le_bytes(self.segment),
            place: (place & 0xFF_FFFF) as u32,
            len: (place >> 24 & 0x7FF_FFFF) as u32 + 1,
            wide: place >> 51 & 1 == 1,
            owner: u16::from_le_bytes(self.owner),
            expiry: ((place >> 52) as u32) << 16 | u32::from(u16::from_le_bytes(self.expiry)),
            access: u32::from_le_bytes(self.access),
        }
    }
}

/// The index of one partition.
pub(crate) struct Index {
    shards: Vec<Vec<Packed>>,
    len: usize,
}

impl Index {
    /// An index for a partition of `bytes`, planned for blocks of 16 KiB.
    pub(crate) fn new(bytes: u64) -> Index {
        let shards = (bytes / (16 << 10) / SHARD)
            .next_power_of_two()
            .clamp(16, MAX_SHARDS);
        Index {
            shards: (0..shards).map(|_| Vec::new()).collect(),
            len: 0,
        }
    }

    /// Blocks.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of shards, for walks that stop in between.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Memory of the index in bytes.
    pub(crate) fn memory(&self) -> usize {
        let arrays: usize = self.shards.iter().map(Vec::capacity).sum();
        arrays * size_of::<Packed>() + self.shards.capacity() * size_of::<Vec<Packed>>()
    }

    pub(crate) fn shard_of(&self, fingerprint: Fingerprint) -> usize {
        let first = u16::from_be_bytes([fingerprint.0[0], fingerprint.0[1]]);
        (usize::from(first) * self.shards.len()) >> 16
    }

    fn find(&self, fingerprint: Fingerprint) -> (usize, Result<usize, usize>) {
        let shard = self.shard_of(fingerprint);
        let place = self.shards[shard].binary_search_by(|one| one.fingerprint.cmp(&fingerprint.0));
        (shard, place)
    }

    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let (shard, place) = self.find(fingerprint);
        Some(self.shards[shard][place.ok()?].entry())
    }

    /// Puts an entry in; the one that it replaces, if any.
    pub(crate) fn insert(&mut self, fingerprint: Fingerprint, entry: &Entry) -> Option<Entry> {
        let packed = Packed::new(fingerprint, entry);
        let (shard, place) = self.find(fingerprint);
        let shard = &mut self.shards[shard];
        match place {
            Ok(place) => {
                let old = shard[place].entry();
                shard[place] = packed;
                Some(old)
            }
            Err(place) => {
                if shard.len() == shard.capacity() {
                    shard.reserve_exact((shard.len() / 32).max(4));
                }
                shard.insert(place, packed);
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, fingerprint: Fingerprint) -> Option<Entry> {
        let (shard, place) = self.find(fingerprint);
        let shard = &mut self.shards[shard];
        let old = shard.remove(place.ok()?).entry();
        if shard.capacity() > shard.len() + shard.len() / 16 + 8 {
            shard.shrink_to(shard.len() + 4);
        }
        self.len -= 1;
        Some(old)
    }

    /// One shard's blocks, in the order of their fingerprints.
    pub(crate) fn shard(&self, shard: usize) -> impl Iterator<Item = (Fingerprint, Entry)> + '_ {
        self.shards[shard]
            .iter()
            .map(|packed| (Fingerprint(packed.fingerprint), packed.entry()))
    }

    /// Up to `count` blocks spread evenly, starting anywhere: `turn` chooses where.
    pub(crate) fn sample(&self, count: usize, turn: usize) -> Vec<Entry> {
        let mut seen = Vec::with_capacity(count);
        let each = count.div_ceil(self.shards.len()).max(1);
        let step = (self.shards.len() * each / count.max(1)).max(1);
        let mut shard = turn % self.shards.len();
        for _ in 0..self.shards.len() {
            let blocks = &self.shards[shard];
            let stride = (blocks.len() / each).max(1);
            seen.extend(
                blocks
                    .iter()
                    .skip(turn % stride)
                    .step_by(stride)
                    .take(each)
                    .map(Packed::entry),
            );
            if seen.len() >= count {
                break;
            }
            shard = (shard + step) % self.shards.len();
        }
        seen
    }

    /// Halves every access tick: their order stays, and ticks have room again.
    pub(crate) fn halve_ticks(&mut self) {
        for packed in self.shards.iter_mut().flatten() {
            let access = u32::from_le_bytes(packed.access) / 2;
            packed.access = access.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fingerprint(number: u64) -> Fingerprint {
        let mut bytes = [0; 12];
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes[..8].copy_from_slice(&(mixed ^ mixed >> 29).to_be_bytes());
        bytes[8..].copy_from_slice(&(number as u32).to_be_bytes());
        Fingerprint(bytes)
    }

    fn entry(number: u64) -> Entry {
        Entry {
            segment: number as u16,
            place: (number as u32) & 0xFF_FFFF,
            len: (number as u32 & 0x7FF_FFFF) + 1,
            wide: number.is_multiple_of(3),
            owner: (number >> 7) as u16,
            expiry: number as u32 % EXPIRY_MODULUS,
            access: number as u32,
        }
    }

    #[test]
    fn a_block_takes_at_most_32_bytes_at_any_time_around_a_million() {
        for partition in [4u64 << 30, 128 << 30, 4 << 40] {
            let mut index = Index::new(partition);
            for number in 0..1_100_000 {
                index.insert(fingerprint(number), &entry(number));
                if number > 900_000 && number % 1000 == 0 || number > 1_099_000 {
                    // What the allocator adds for itself: 16 bytes an array at most.
                    let memory = index.memory() + 16 * index.shards();
                    let each = memory as f64 / index.len() as f64;
                    assert!(
                        each <= 32.0,
                        "{each} bytes a block at {number} in {partition}"
                    );
                }
            }
        }
    }

    #[test]
    fn samples_come_from_everywhere() {
        let mut index = Index::new(1 << 30);
        for number in 0..10_000 {
            index.insert(fingerprint(number), &entry(number));
        }
        for turn in 0..50 {
            let sample = index.sample(512, turn);
            assert!(
                sample.len() >= 256 && sample.len() <= 600,
                "{}",
                sample.len()
            );
            let mean =
                sample.iter().map(|one| u64::from(one.access)).sum::<u64>() / sample.len() as u64;
            assert!((3500..6500).contains(&mean), "{mean}");
        }
    }

    proptest! {
        #[test]
        fn entries_survive_packing(
            segment: u16, place in 0u32..1 << 24, len in 1u32..=1 << 27, wide: bool, owner: u16,
            expiry in 0..EXPIRY_MODULUS, access: u32, bytes: [u8; 12],
        ) {
            let entry = Entry { segment, place, len, wide, owner, expiry, access };
            let packed = Packed::new(Fingerprint(bytes), &entry);
            prop_assert_eq!(packed.entry(), entry);
            prop_assert_eq!(size_of::<Packed>(), 30);
        }

        #[test]
        fn behaves_as_a_map(operations in prop::collection::vec((0u64..64, any::<bool>()), 0..400)) {
            let mut index = Index::new(1 << 20);
            let mut model = std::collections::BTreeMap::new();
            for (step, (key, put)) in operations.into_iter().enumerate() {
                let one = entry(step as u64);
                let print = fingerprint(key);
                if put {
                    prop_assert_eq!(index.insert(print, &one), model.insert(print, one));
                } else {
                    prop_assert_eq!(index.remove(print), model.remove(&print));
                }
                prop_assert_eq!(index.len(), model.len());
            }
            let seen: Vec<_> = (0..index.shards()).flat_map(|shard| index.shard(shard)).collect();
            prop_assert_eq!(seen, model.into_iter().collect::<Vec<_>>());
        }
    }
}
