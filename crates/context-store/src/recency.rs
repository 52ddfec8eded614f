//! Which blocks were used lately, kept over a restart: a rough picture of it lies beside the log, and is written anew once a
//! minute while blocks are used, and at the end.
//!
//! Each block falls into a cell by its fingerprint, and a cell has two bits: in which quarter of the order of last accesses
//! its youngest block lies. With four cells a block one in twenty cold blocks passes for warmer than it is; beyond 458,000
//! blocks cells become fewer a block. A picture that is torn or another store's counts for nothing: blocks are then as old
//! as their records, as those are that were put after the picture. At most 448 KiB a minute are written for it, 0.6 GB a day.

use crate::PAGE;
use crate::codec::Fields;
use crate::hash::{Fingerprint, Secret};
use crate::index::Index;

/// Where the two copies lie, which are written in turn, in bytes of the partition: behind the superblock's, before the log.
pub(crate) const COPIES: [u64; 2] = [128 << 10, 576 << 10];

/// Bytes of a copy at most.
pub(crate) const COPY: usize = 448 << 10;

const MAGIC: [u8; 8] = *b"STRNDREC";

/// Classes of last accesses, the coldest first, and the part of all blocks that is colder than each.
const CLASSES: usize = 4;
const QUANTILES: [f64; CLASSES - 1] = [0.2, 0.5, 0.8];

/// Cells a block.
const SPARSE: usize = 4;

/// Cells in a byte.
const CELLS: usize = 4;

/// Blocks that the classes are estimated from.
const SAMPLE: usize = 4096;

/// When the blocks of a store were used last, about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recency {
    /// Grows with each picture.
    pub(crate) number: u64,
    /// Sequence and tick at which it was taken.
    pub(crate) sequence: u64,
    pub(crate) tick: u32,
    /// The ticks at which the classes begin, and the one at which the last ends.
    bounds: [u32; CLASSES + 1],
    cells: Vec<u8>,
}

/// The cell of a fingerprint, of so many.
fn cell(fingerprint: Fingerprint, cells: usize) -> usize {
    let mut first = [0; 8];
    first.copy_from_slice(&fingerprint.0[..8]);
    ((u128::from(u64::from_be_bytes(first)) * cells as u128) >> 64) as usize
}

impl Recency {
    /// A picture without blocks yet, with the classes of a sample of their accesses.
    pub(crate) fn new(index: &Index, number: u64, sequence: u64, tick: u32) -> Recency {
        let sample = index.sample(SAMPLE, tick as usize);
        let mut accesses: Vec<u32> = sample.iter().map(|entry| entry.access).collect();
        accesses.sort_unstable();
        let mut bounds = [0; CLASSES + 1];
        bounds[CLASSES] = tick;
        for (bound, part) in bounds[1..].iter_mut().zip(QUANTILES) {
            let rank = (accesses.len() as f64 * part) as usize;
            *bound = accesses.get(rank).copied().unwrap_or(tick);
        }
        let bytes = (index.len() * SPARSE).div_ceil(CELLS);
        Recency {
            number,
            sequence,
            tick,
            bounds,
            cells: vec![0; bytes.clamp(1, COPY - PAGE)],
        }
    }

    /// Takes a block in.
    pub(crate) fn add(&mut self, fingerprint: Fingerprint, access: u32) {
        let class = self.bounds[1..CLASSES]
            .iter()
            .filter(|bound| access >= **bound)
            .count() as u8;
        let cell = cell(fingerprint, self.cells.len() * CELLS);
        let (byte, shift) = (&mut self.cells[cell / CELLS], cell % CELLS * 2);
        if *byte >> shift & 3 < class {
            *byte = *byte & !(3 << shift) | class << shift;
        }
    }

    /// When a block was used last whose record has this sequence: within its class those count as younger that were put
    /// later. What was put after the picture is younger than all in it.
    pub(crate) fn access(&self, fingerprint: Fingerprint, sequence: u64) -> u64 {
        if sequence > self.sequence {
            return u64::from(self.tick) + (sequence - self.sequence);
        }
        let cell = cell(fingerprint, self.cells.len() * CELLS);
        let class = usize::from(self.cells[cell / CELLS] >> (cell % CELLS * 2) & 3);
        let (from, to) = (self.bounds[class], self.bounds[class + 1]);
        let width = u128::from(to.saturating_sub(from));
        let into = width * u128::from(sequence) / (u128::from(self.sequence) + 1);
        u64::from(from) + into as u64
    }

    /// Its pages.
    pub(crate) fn encode(&self, secret: &Secret, store: u128) -> Vec<u8> {
        let mut pages = Vec::with_capacity(COPY);
        pages.extend_from_slice(&MAGIC);
        pages.extend_from_slice(&store.to_le_bytes());
        pages.extend_from_slice(&self.number.to_le_bytes());
        pages.extend_from_slice(&self.sequence.to_le_bytes());
        pages.extend_from_slice(&self.tick.to_le_bytes());
        for bound in self.bounds {
            pages.extend_from_slice(&bound.to_le_bytes());
        }
        pages.extend_from_slice(&(self.cells.len() as u32).to_le_bytes());
        let check = secret.recency(&pages, &self.cells);
        pages.extend_from_slice(&check.to_le_bytes());
        pages.resize(PAGE, 0);
        pages.extend_from_slice(&self.cells);
        pages.resize(pages.len().next_multiple_of(PAGE), 0);
        pages
    }

    /// A picture from a copy's pages; none where they hold none of this store's.
    pub(crate) fn decode(pages: &[u8], secret: &Secret, store: u128) -> Option<Recency> {
        let mut fields = Fields(pages);
        if fields.array() != Some(MAGIC) || fields.u128() != Some(store) {
            return None;
        }
        let (number, sequence, tick) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let mut bounds = [0; CLASSES + 1];
        for bound in &mut bounds {
            *bound = fields.u32()?;
        }
        let count = fields.u32()? as usize;
        let covered = pages.len() - fields.0.len();
        let check = fields.u128()?;
        let cells = pages.get(PAGE..PAGE.checked_add(count)?)?;
        let sound = count > 0 && check == secret.recency(&pages[..covered], cells);
        sound.then(|| Recency {
            number,
            sequence,
            tick,
            bounds,
            cells: cells.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Entry;
    use proptest::prelude::*;

    const SECRET: Secret = Secret([5; 16]);

    fn print(number: u64) -> Fingerprint {
        let mut bytes = [0; 12];
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes[..8].copy_from_slice(&(mixed ^ mixed >> 29).to_be_bytes());
        Fingerprint(bytes)
    }

    /// Blocks whose accesses are in no order with their sequences.
    fn picture(blocks: u64) -> (Recency, impl Fn(u64) -> u32) {
        let access = move |number: u64| (number.wrapping_mul(7919) % blocks) as u32 + 1;
        let mut index = Index::new(1 << 30);
        for number in 0..blocks {
            let entry = Entry {
                segment: 0,
                place: 0,
                len: 1,
                wide: false,
                owner: 0,
                expiry: 0,
                access: access(number),
            };
            index.insert(print(number), &entry);
        }
        let mut recency = Recency::new(&index, 3, blocks, blocks as u32 + 1);
        for number in 0..blocks {
            recency.add(print(number), access(number));
        }
        (recency, access)
    }

    #[test]
    fn what_was_used_late_is_younger_afterwards_and_little_else() {
        let blocks = 50_000;
        let (recency, access) = picture(blocks);
        let (mut warm, mut cold) = ((0, 0), (0, 0));
        for number in 0..blocks {
            let (was, is) = (access(number), recency.access(print(number), number));
            let count = if u64::from(was) >= blocks * 85 / 100 {
                &mut warm
            } else if u64::from(was) < blocks * 75 / 100 {
                &mut cold
            } else {
                continue;
            };
            count.0 += 1;
            count.1 += u64::from(is >= blocks * 78 / 100);
        }
        assert_eq!(warm.0, warm.1, "warm blocks stay so");
        assert!(
            cold.1 * 10 < cold.0,
            "{} of {} cold ones are warm",
            cold.1,
            cold.0
        );
        assert!(recency.access(print(7), blocks + 1) > blocks);
    }

    proptest! {
        #[test]
        fn it_comes_back_whole_or_not_at_all(blocks in 1_u64..3000, at: prop::sample::Index, mask in 1_u8..) {
            let (recency, _) = picture(blocks);
            let mut pages = recency.encode(&SECRET, 9);
            prop_assert_eq!(pages.len() % PAGE, 0);
            prop_assert_eq!(Recency::decode(&pages, &SECRET, 9), Some(recency.clone()));
            prop_assert_eq!(Recency::decode(&pages, &SECRET, 8), None);
            let at = at.index(84 + recency.cells.len());
            pages[if at < 84 { at } else { PAGE + at - 84 }] ^= mask;
            prop_assert_eq!(Recency::decode(&pages, &SECRET, 9), None);
        }

        #[test]
        fn anything_can_be_decoded(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let mut pages = MAGIC.to_vec();
            pages.extend_from_slice(&9_u128.to_le_bytes());
            pages.extend(bytes);
            prop_assert_eq!(Recency::decode(&pages, &SECRET, 9), None);
        }
    }
}
