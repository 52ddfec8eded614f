//! What replayed blocks contain: nothing that compresses, different for each key, known for every byte.

/// Where a page of a block says whose it is.
const PAGE: usize = 4096;
/// Bytes of that.
const STAMP: usize = 16;
/// Places at which blocks may begin in the pool.
const STARTS: usize = 65_521;

/// Makes and checks the contents of blocks of one size. A block is a part of one pool of random bytes, from a place
/// that its key decides, and every 4 KiB carry a hash of the key and their place: a byte of another block, or of another
/// place, is a wrong one.
#[derive(Debug)]
pub struct Content {
    pool: Vec<u8>,
    length: usize,
}

impl Content {
    /// For blocks of `length` bytes.
    pub fn new(length: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut pool = Vec::with_capacity(length + STARTS + 8);
        while pool.len() < length + STARTS {
            // Marsaglia's xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            pool.extend_from_slice(&state.to_le_bytes());
        }
        Self { pool, length }
    }

    /// Bytes of a block.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Writes the block of `key`.
    pub fn fill(&self, key: &[u8], into: &mut [u8]) {
        let hash = hash(key);
        into.copy_from_slice(self.body(hash, into.len()));
        for (number, page) in into.chunks_mut(PAGE).enumerate() {
            let length = page.len().min(STAMP);
            page[..length].copy_from_slice(&stamp(hash, number)[..length]);
        }
    }

    /// How many bytes of `got` are not those of the block of `key`; missing and surplus ones count.
    pub fn wrong(&self, key: &[u8], got: &[u8]) -> u64 {
        let hash = hash(key);
        let length = got.len().min(self.length);
        let body = self.body(hash, length);
        let pages = got[..length].chunks(PAGE).zip(body.chunks(PAGE));
        let wrong = pages.enumerate().map(|(number, (got, body))| {
            let split = got.len().min(STAMP);
            differing(&got[..split], &stamp(hash, number)[..split])
                + differing(&got[split..], &body[split..])
        });
        wrong.sum::<u64>() + got.len().abs_diff(self.length) as u64
    }

    fn body(&self, hash: u64, length: usize) -> &[u8] {
        let from = (hash % STARTS as u64) as usize;
        &self.pool[from..from + length]
    }
}

fn differing(left: &[u8], right: &[u8]) -> u64 {
    if left == right {
        return 0;
    }
    left.iter()
        .zip(right)
        .filter(|(left, right)| left != right)
        .count() as u64
}

fn stamp(hash: u64, page: usize) -> [u8; STAMP] {
    let mut stamp = [0; STAMP];
    stamp[..8].copy_from_slice(&hash.to_le_bytes());
    stamp[8..].copy_from_slice(&(page as u64).to_le_bytes());
    stamp
}

/// FNV-1a (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>), the same in each run.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(content: &Content, key: &[u8]) -> Vec<u8> {
        let mut block = vec![0; content.length()];
        content.fill(key, &mut block);
        block
    }

    #[test]
    fn each_byte_is_known_and_each_change_seen() {
        for length in [0, 1, 15, 16, 4096, 4097, 100_000] {
            let content = Content::new(length);
            let mut got = block(&content, b"a");
            assert_eq!(content.wrong(b"a", &got), 0, "{length}");
            for at in [0, 7, 15, 16, 4095, 4096, length.saturating_sub(1)] {
                if at < length {
                    got[at] ^= 1;
                    assert_eq!(content.wrong(b"a", &got), 1, "{length} at {at}");
                    got[at] ^= 1;
                }
            }
            got.push(0);
            assert_eq!(content.wrong(b"a", &got), 1);
        }
        let content = Content::new(8192);
        assert_eq!(content.wrong(b"a", &[]), 8192);
        assert!(content.wrong(b"b", &block(&content, b"a")) > 8000);
        let mut turned = block(&content, b"a");
        turned.rotate_left(PAGE);
        assert!(content.wrong(b"a", &turned) > 8000);
    }
}
