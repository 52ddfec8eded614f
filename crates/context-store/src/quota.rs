//! Keeps namespaces within the part of the capacity that they may take: of one that holds more, its own coldest blocks go, also while
//! the partition has room.
//!
//! A block that goes leaves a tombstone, since its record stays on the medium until its segment is used again: neither a restart nor
//! a later deletion may find it there. Puts are refused only while what has to go has not gone yet.

use std::sync::Arc;
use std::time::Duration;

use crate::core::{Core, weight_of};
use crate::delete::hashed_fact;
use crate::hash::Fingerprint;
use crate::namespaces::Namespace;
use crate::record::Kind;
use crate::store::Shared;

/// How long the task sleeps at most.
const PACE: Duration = Duration::from_millis(500);

/// Blocks of a namespace among which the coldest are looked for at a time.
const AMONG: usize = 512;

/// A namespace that held too much comes this part below what it may hold, so that the next block does not make others go at once.
const BELOW: u64 = 32;

/// Part by which it may hold too much until its puts are refused.
const ABOVE: u64 = 16;

/// Whether a namespace would hold more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeds {
    /// It would not.
    No,
    /// By so little that it is taken while others go.
    Somewhat,
    /// By more, or the block alone is more.
    ByFar,
}

impl Core {
    /// Whether a namespace would hold too much with so many bytes more.
    pub(crate) fn exceeds(&self, namespace: Namespace, more: u64) -> Exceeds {
        let bound = self.namespaces.find(namespace).and_then(|slot| {
            let most = (self.namespaces).most(slot, self.space.layout.capacity())?;
            Some((self.namespaces.owner(slot)?.bytes, most))
        });
        match bound {
            Some((_, most)) if more > most => Exceeds::ByFar,
            Some((held, most)) if held + more > most + most / ABOVE => Exceeds::ByFar,
            Some((held, most)) if held + more > most => Exceeds::Somewhat,
            _ => Exceeds::No,
        }
    }
}

/// A block that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    fingerprint: Fingerprint,
    access: u32,
    bytes: u64,
}

/// Runs until the store is closed.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    shared.tasks.send_modify(|left| *left += 1);
    tokio::spawn(async move {
        let mut shard = 0;
        while !shared.core().closed {
            let above = {
                let core = shared.core();
                core.namespaces.above_most(core.space.layout.capacity())
            };
            for slot in above {
                shared.thin_out(slot, &mut shard).await;
            }
            // Whether woken or not, the next round looks at everything.
            let _woken = tokio::time::timeout(PACE, shared.quota.notified()).await;
        }
        shared.tasks.send_modify(|left| *left -= 1);
    });
}

impl Shared {
    /// Lets a namespace's coldest blocks go until it holds little enough, or all were looked at.
    async fn thin_out(self: &Arc<Self>, slot: u16, shard: &mut usize) {
        let shards = self.core().index.shards();
        let mut looked = 0;
        while looked < shards {
            let mut some = Vec::new();
            while looked < shards && some.len() < AMONG {
                some.extend(self.blocks(slot, *shard));
                *shard = (*shard + 1) % shards;
                looked += 1;
            }
            let Some((namespace, part)) = self.kept(slot) else {
                return;
            };
            if !self.let_go(namespace, &coldest(some, part)).await {
                return;
            }
        }
    }

    /// A namespace's blocks of one shard, without those that somebody holds.
    fn blocks(&self, slot: u16, shard: usize) -> Vec<Block> {
        let now = self.now();
        let core = self.core();
        let of_slot = core.index.shard(shard).filter(|(fingerprint, entry)| {
            let busy = core.is_held(*fingerprint, now) || core.is_racing(*fingerprint);
            entry.owner == slot && !busy
        });
        of_slot
            .map(|(fingerprint, entry)| Block {
                fingerprint,
                access: entry.access,
                bytes: weight_of(&entry),
            })
            .collect()
    }

    /// Whose slot it is and what part of its bytes stays, as long as it holds too much.
    fn kept(&self, slot: u16) -> Option<(Namespace, f64)> {
        let core = self.core();
        let most = core.namespaces.most(slot, core.space.layout.capacity())?;
        let owner = core.namespaces.owner(slot)?;
        let goal = most - most / BELOW;
        (owner.bytes > goal && !core.closed)
            .then(|| (owner.namespace, goal as f64 / owner.bytes as f64))
    }

    /// Forgets blocks, and waits until that is written; whether it was.
    async fn let_go(self: &Arc<Self>, namespace: Namespace, blocks: &[Block]) -> bool {
        let mut answers = Vec::new();
        {
            let mut core = self.core();
            let slot = core.namespaces.find(namespace);
            for block in blocks {
                let entry = core.index.get(block.fingerprint);
                let same = entry
                    .is_some_and(|entry| Some(entry.owner) == slot && entry.access == block.access);
                // Used, or replaced, since it was looked at.
                if !same || core.is_racing(block.fingerprint) {
                    continue;
                }
                core.remove(block.fingerprint);
                core.stats.evicted_blocks += 1;
                core.stats.evicted_bytes += block.bytes;
                core.namespaces.count(namespace, |counts| {
                    counts.evicted_blocks += 1;
                    counts.evicted_bytes += block.bytes;
                });
                let gone = hashed_fact(Kind::Tombstone, namespace, block.fingerprint, 0);
                answers.push(self.enqueue(&mut core, gone, Vec::new(), block.fingerprint));
            }
        }
        for answer in answers {
            if !matches!(self.small_done(answer).await, Ok(Some(_))) {
                return false;
            }
        }
        true
    }
}

/// The coldest of `blocks`, as many as have to go so that at most `part` of their bytes stays.
fn coldest(mut blocks: Vec<Block>, part: f64) -> Vec<Block> {
    let all: u64 = blocks.iter().map(|block| block.bytes).sum();
    let stays = (all as f64 * part) as u64;
    blocks.sort_unstable_by_key(|block| block.access);
    let mut left = all;
    let few = blocks.iter().take_while(|block| {
        let goes = left > stays;
        left -= if goes { block.bytes } else { 0 };
        goes
    });
    let count = few.count();
    blocks.truncate(count);
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coldest_go_and_no_more_than_have_to() {
        let block = |access: u32, bytes| Block {
            fingerprint: Fingerprint([access as u8; 12]),
            access,
            bytes,
        };
        let all = vec![block(9, 10), block(1, 10), block(5, 10), block(3, 10)];
        let gone = |part| {
            let gone = coldest(all.clone(), part);
            gone.iter().map(|block| block.access).collect::<Vec<_>>()
        };
        assert_eq!(gone(1.0), [0; 0]);
        assert_eq!(gone(0.75), [1]);
        assert_eq!(gone(0.74), [1, 3]);
        assert_eq!(gone(0.0), [1, 3, 5, 9]);
        assert_eq!(coldest(Vec::new(), 0.5), []);
    }
}
