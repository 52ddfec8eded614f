//! The end of a unit: retired on the medium, forgotten in the index, and free once that is flushed and nobody reads it.
//! `trim` tells the drive later.

use crate::core::Core;
use crate::hash::Fingerprint;
use crate::segment::Header;
use crate::space::State;
use crate::store::Shared;
use crate::victim::Victim;

/// Blocks that are forgotten before others may have the lock.
const STEP: usize = 512;

impl Shared {
    /// Flushes; whatever was retired before is so on stable media then.
    pub(crate) async fn flush_retired(&self) -> bool {
        let retired: Vec<u32> = {
            let core = self.core();
            core.space
                .units()
                .filter(|(_, unit)| matches!(unit.state, State::Retired { flushed: false }))
                .map(|(segment, _)| segment)
                .collect()
        };
        if let Err(error) = self.disk.flush().await {
            tracing::warn!(%error, "eviction could not flush");
            return false;
        }
        let mut core = self.core();
        for segment in retired {
            core.space.get_mut(segment).state = State::Retired { flushed: true };
        }
        true
    }

    /// Says on the medium that a unit is retired, then forgets what it held; not where that cannot be written.
    pub(crate) async fn retire(&self, victim: &Victim) -> bool {
        let segment = victim.segment;
        let header = {
            let ledger = self.ledger();
            let core = self.core();
            let unit = core.space.get(segment);
            Header {
                store: self.superblock.store,
                segment,
                generation: unit.generation,
                nonce: unit.nonce,
                span: unit.span,
                retired: true,
                ledger,
            }
        };
        let page = header.encode(&self.superblock.secret);
        if self.write_own(segment, 0, &page).await.is_err() {
            return false;
        }
        for items in victim.items.chunks(STEP) {
            let mut core = self.core();
            for item in items {
                evict_block(&mut core, segment, item.fingerprint);
            }
        }
        self.drop_strays(segment);
        let mut core = self.core();
        core.evicted();
        core.space.get_mut(segment).state = State::Retired { flushed: false };
        let oldest = !core
            .space
            .has_older(core.space.get(segment).generation, segment);
        if oldest {
            core.carried = 0;
        }
        true
    }

    /// Forgets blocks of a unit that its footer did not list.
    fn drop_strays(&self, segment: u32) {
        if self.core().space.get(segment).blocks == 0 {
            return;
        }
        let shards = self.core().index.shards();
        for shard in 0..shards {
            let mut core = self.core();
            let strays: Vec<Fingerprint> = core
                .index
                .shard(shard)
                .filter(|(_, entry)| u32::from(entry.segment) == segment)
                .map(|(fingerprint, _)| fingerprint)
                .collect();
            for stray in strays {
                evict_block(&mut core, segment, stray);
            }
        }
    }

    /// Frees retired units whose readers are gone, once they are flushed. Only in a `hurry` is there a flush for them
    /// alone.
    pub(crate) async fn free_retired(&self, hurry: bool) {
        let idle = |flushed_ones: bool| -> Vec<u32> {
            let core = self.core();
            core.space
                .units()
                .filter(|(_, unit)| {
                    unit.readers == 0
                        && matches!(unit.state, State::Retired { flushed } if flushed || !flushed_ones)
                })
                .map(|(segment, _)| segment)
                .collect()
        };
        if hurry && idle(false).len() > idle(true).len() && !self.flush_retired().await {
            return;
        }
        let idle = idle(true);
        if idle.is_empty() {
            return;
        }
        let mut core = self.core();
        for segment in idle {
            core.space.release(segment);
        }
        drop(core);
        self.upkeep.notify_one();
        self.trim.notify_one();
        // Puts that found the free segments scarce look again, and say what they want: upkeep has forgotten it since.
        self.opened.notify_waiters();
    }
}

/// Forgets a block that makes room, if it lies in `segment`.
fn evict_block(core: &mut Core, segment: u32, fingerprint: Fingerprint) {
    let Some(entry) = core.index.get(fingerprint) else {
        return;
    };
    if u32::from(entry.segment) != segment {
        return;
    }
    core.remove(fingerprint);
    core.stats.evicted_blocks += 1;
    core.stats.evicted_bytes += u64::from(entry.len);
    let owner = (core.namespaces.owner(entry.owner)).map(|owner| owner.namespace);
    if let Some(owner) = owner {
        core.namespaces.count(owner, |counts| {
            counts.evicted_blocks += 1;
            counts.evicted_bytes += u64::from(entry.len);
        });
    }
}
