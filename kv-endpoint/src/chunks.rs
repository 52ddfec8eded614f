//! How long the values are that fixed-width clients expect: they read a miss in that length (see `padding`).
//!
//! A client's chunks differ in length by model, rank and cache group, all of which stand in their keys beside a hash of
//! the tokens. So lengths are learned by a key's shape: the key without its longest run of hexadecimal digits.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard};

/// A run of digits that may be a hash has at least so many.
const HASH: usize = 8;
/// Shapes remembered; at one more all are forgotten, which only clients bring about that need none of this.
const MOST: usize = 4096;

/// Lengths by shape, learned from what clients send and get.
#[derive(Debug, Default)]
pub struct Chunks {
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_shape: HashMap<u64, usize>,
    longest: Option<usize>,
}

impl Chunks {
    /// The value of `key` has `length` bytes.
    pub fn learn(&self, key: &[u8], length: usize) {
        let shape = self.shape(key);
        let mut known = self.known();
        known.longest = known.longest.max(Some(length));
        if known.by_shape.len() >= MOST && !known.by_shape.contains_key(&shape) {
            known.by_shape.clear();
        }
        known.by_shape.insert(shape, length);
    }

    /// The length of values whose keys look like `key`.
    pub fn of(&self, key: &[u8]) -> Option<usize> {
        let shape = self.shape(key);
        self.known().by_shape.get(&shape).copied()
    }

    /// The longest value seen.
    pub fn longest(&self) -> Option<usize> {
        self.known().longest
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn shape(&self, key: &[u8]) -> u64 {
        let (mut longest, mut run) = (0..0, 0..0);
        for (at, byte) in key.iter().enumerate() {
            if !byte.is_ascii_hexdigit() {
                run = at + 1..at + 1;
                continue;
            }
            run.end = at + 1;
            if run.len() > longest.len() {
                longest = run.clone();
            }
        }
        if longest.len() < HASH {
            longest = 0..0;
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&key[..longest.start]);
        // Where the run was left out; no byte of UTF-8.
        hasher.write_u8(0xff);
        hasher.write(&key[longest.end..]);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Chunks;

    #[test]
    fn a_length_holds_for_keys_of_the_same_shape() {
        let chunks = Chunks::default();
        let key = |group: u8, hash: u64| format!("llama@00000001@{group:x}@{hash:032x}@salt");
        chunks.learn(key(0, 1).as_bytes(), 2 << 20);
        chunks.learn(key(1, 2).as_bytes(), 999);
        assert_eq!(chunks.of(key(0, 77).as_bytes()), Some(2 << 20));
        assert_eq!(chunks.of(key(1, u64::MAX).as_bytes()), Some(999));
        assert_eq!(chunks.of(key(2, 1).as_bytes()), None);
        assert_eq!(chunks.of(b""), None);
        assert_eq!(chunks.longest(), Some(2 << 20));
    }

    #[test]
    fn memory_is_bounded() {
        let chunks = Chunks::default();
        for n in 0..3 * super::MOST {
            chunks.learn(format!("key-{n}").as_bytes(), n);
        }
        assert!(chunks.known().by_shape.len() <= super::MOST);
    }
}
