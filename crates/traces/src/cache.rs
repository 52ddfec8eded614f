//! What a cache of blocks makes of a trace.

use std::collections::HashSet;

use crate::{Request, Totals};

/// How a request was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Blocks of its longest leading run of present blocks: they are read.
    pub hit: usize,
    /// Blocks written. A cache that takes everything writes all blocks after the run.
    pub written: usize,
}

/// A model of a cache, asked a request at a time.
pub trait Cache {
    /// Looks up the longest leading run of `blocks`, uses it, and takes in the rest.
    fn serve(&mut self, blocks: &[u64]) -> Served;
}

/// Keeps every block for ever: no cache hits more.
#[derive(Clone, Debug, Default)]
pub struct Infinite {
    blocks: HashSet<u64>,
}

impl Infinite {
    /// Different blocks seen so far.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

impl Cache for Infinite {
    fn serve(&mut self, blocks: &[u64]) -> Served {
        let run = blocks.iter().take_while(|id| self.blocks.contains(id));
        let hit = run.count();
        self.blocks.extend(&blocks[hit..]);
        Served {
            hit,
            written: blocks.len() - hit,
        }
    }
}

/// What `cache` makes of `requests`.
pub fn replay<'a>(
    cache: &mut impl Cache,
    requests: impl IntoIterator<Item = &'a Request>,
) -> Totals {
    let mut totals = Totals::default();
    for request in requests {
        let served = cache.serve(&request.hash_ids);
        totals.add(request, served);
    }
    totals
}
