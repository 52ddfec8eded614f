//! The block cache that stores are measured against: least recently used, of a fixed number of blocks.

use std::collections::HashMap;

use crate::{Cache, Served};

const NONE: usize = usize::MAX;

/// Least recently used, of so many blocks. All blocks of a request are used at its instant; of those the first in the
/// prompt stay longest, since a block is of no use without those before it. A block after the leading run is written
/// again even where it was still present.
#[derive(Clone, Debug)]
pub struct Lru {
    capacity: usize,
    places: HashMap<u64, usize>,
    entries: Vec<Entry>,
    newest: usize,
    oldest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u64,
    newer: usize,
    older: usize,
}

impl Lru {
    /// Empty, with room for `capacity` blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            places: HashMap::new(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Blocks present.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no block is present.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a block is present; that does not use it.
    pub fn contains(&self, id: u64) -> bool {
        self.places.contains_key(&id)
    }

    fn use_now(&mut self, id: u64) {
        let place = match self.places.get(&id) {
            Some(&place) => {
                self.unlink(place);
                place
            }
            None if self.entries.len() < self.capacity => {
                self.entries.push(Entry {
                    id,
                    newer: NONE,
                    older: NONE,
                });
                self.entries.len() - 1
            }
            None if self.capacity == 0 => return,
            None => {
                let place = self.oldest;
                self.unlink(place);
                self.places.remove(&self.entries[place].id);
                self.entries[place].id = id;
                place
            }
        };
        self.places.insert(id, place);
        self.link_newest(place);
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        self.entries[place].newer = NONE;
        self.entries[place].older = self.newest;
        match self.newest {
            NONE => self.oldest = place,
            newest => self.entries[newest].newer = place,
        }
        self.newest = place;
    }
}

impl Cache for Lru {
    fn serve(&mut self, blocks: &[u64]) -> Served {
        let hit = blocks.iter().take_while(|id| self.contains(**id)).count();
        for id in blocks.iter().rev() {
            self.use_now(*id);
        }
        Served {
            hit,
            written: blocks.len() - hit,
        }
    }
}
