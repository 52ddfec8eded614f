//! What is evicted: a unit's records, and which of them stay.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::PAGE;
use crate::core::{Core, weight_of};
use crate::engine::Verb;
use crate::engine::memory::Buffer;
use crate::engine::queue::{Class, Flow};
use crate::evict::{Live, QUANTILE, quantile, survivors};
use crate::record::Kind;
use crate::segment::{Item, decode_footer, footer_len};
use crate::store::Shared;

/// Blocks that the quantile is estimated from.
const SAMPLE: usize = 1024;

/// Records that are looked at before others may have the lock.
const STEP: usize = 512;

/// A unit on its way out.
pub(crate) struct Victim {
    pub(crate) segment: u32,
    /// Every record in it.
    pub(crate) items: Vec<Item>,
    /// Blocks that stay, the most important first.
    pub(crate) keep: Vec<Keep>,
    /// Facts that are still needed.
    pub(crate) facts: Vec<Item>,
    /// Something in it has to stay and has nowhere to go.
    pub(crate) stuck: bool,
}

/// A block that stays.
#[derive(Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) item: Item,
    pub(crate) bytes: u64,
    pub(crate) held: bool,
}

impl Shared {
    /// What becomes of the records of all victims.
    pub(crate) async fn plan_all(
        self: &Arc<Self>,
        chosen: Vec<u32>,
        sheltered: &[u16],
    ) -> Vec<Victim> {
        let mut reading = JoinSet::new();
        for (order, segment) in chosen.into_iter().enumerate() {
            let shared = Arc::clone(self);
            reading.spawn(async move { (order, segment, shared.items(segment).await) });
        }
        let mut read = Vec::new();
        while let Some(one) = reading.join_next().await {
            read.extend(one);
        }
        read.sort_unstable_by_key(|(order, _, _)| *order);
        let threshold = self.threshold();
        read.into_iter()
            .map(|(_, segment, items)| self.plan(segment, items, threshold, sheltered))
            .collect()
    }

    /// The last access that blocks have to be newer than to be worth moving.
    fn threshold(&self) -> u32 {
        let core = self.core();
        let turn = core.tick() as usize;
        let accesses = core
            .index
            .sample(SAMPLE, turn)
            .iter()
            .map(|entry| entry.access)
            .collect();
        quantile(accesses, QUANTILE)
    }

    /// The records of a unit: from its footer, or from the records themselves where that cannot be read.
    async fn items(&self, victim: u32) -> Vec<Item> {
        match self.read_footer(victim).await {
            Some(items) => items,
            None => self.scan_unit(victim).await,
        }
    }

    async fn read_footer(&self, segment: u32) -> Option<Vec<Item>> {
        let (nonce, end) = {
            let core = self.core();
            (core.space.get(segment).nonce, core.space.unit_len(segment))
        };
        let last = self.read_own(segment, end - PAGE as u64, PAGE).await?;
        let count = crate::segment::footer_items(&last, segment, nonce)?;
        let len = footer_len(count);
        let pages = if len == PAGE {
            last
        } else {
            self.read_own(segment, end.checked_sub(len as u64)?, len)
                .await?
        };
        decode_footer(&pages, &self.superblock.secret, segment, nonce)
    }

    async fn read_own(&self, segment: u32, offset: u64, len: usize) -> Option<Vec<u8>> {
        let span = Buffer::zeroed(len).ok()?.into_span();
        let at = self.address(segment, offset);
        // They are small, and a whole unit waits for them.
        self.disk
            .transfer(Class::Write, Flow::OWN, Verb::Read, at, vec![span.clone()])
            .await
            .ok()?;
        let mut bytes = vec![0; len];
        span.copy_to(&mut bytes);
        Some(bytes)
    }

    async fn scan_unit(&self, segment: u32) -> Vec<Item> {
        let (nonce, start, len, fingerprint) = {
            let core = self.core();
            (
                core.space.get(segment).nonce,
                core.space.layout.start(segment),
                core.space.unit_len(segment),
                core.fingerprint,
            )
        };
        crate::units::scan(
            &self.disk,
            &self.superblock.secret,
            fingerprint,
            nonce,
            start,
            len,
        )
        .await
        .unwrap_or_default()
    }

    /// What of a unit stays.
    fn plan(&self, segment: u32, items: Vec<Item>, threshold: u32, sheltered: &[u16]) -> Victim {
        let now = self.now();
        let mut live = Vec::new();
        let mut facts = Vec::new();
        for (step, some) in items.chunks(STEP).enumerate() {
            let mut core = self.core();
            for (number, item) in some.iter().enumerate() {
                let entry = core
                    .live(item.namespace, item.fingerprint, now)
                    .filter(|entry| {
                        item.kind == Kind::Value
                            && (u32::from(entry.segment), entry.place) == (segment, item.place)
                    });
                match entry {
                    Some(entry) => live.push(Live {
                        number: step * STEP + number,
                        access: entry.access,
                        bytes: weight_of(&entry),
                        held: core.is_held(item.fingerprint, now),
                        sheltered: sheltered.binary_search(&entry.owner).is_ok(),
                    }),
                    None if item.replaces && core.space.has_older(item.sequence, segment) => {
                        facts.push(suppressing(&core, segment, item));
                    }
                    None => {}
                }
            }
        }
        let mut core = self.core();
        let all = live.clone();
        // What is left after thinning out was cold then.
        let threshold = (core.space.get(segment).thinned).map_or(threshold, |t| t.max(threshold));
        let mut kept = survivors(live, threshold, core.space.unit_len(segment));
        let moving: u64 = kept.iter().map(|block| block.bytes).sum();
        if !core.governor.may_move(moving, now.millis) {
            kept.retain(|block| block.held);
        }
        // A block that goes while an older one of its key is still on the medium leaves a tombstone.
        let stays: std::collections::HashSet<usize> =
            kept.iter().map(|block| block.number).collect();
        for block in &all {
            let item = items[block.number];
            if item.replaces
                && !stays.contains(&block.number)
                && core.space.has_older(item.sequence, segment)
            {
                facts.push(item);
            }
        }
        let keep = kept.into_iter().map(|block| Keep {
            item: items[block.number],
            bytes: block.bytes,
            held: block.held,
        });
        Victim {
            segment,
            keep: keep.collect(),
            items,
            facts,
            stuck: false,
        }
    }

    /// Leaves the last victims where they are if the survivors of all together would take the last free segments.
    pub(crate) fn spare_what_has_no_room(&self, victims: &mut Vec<Victim>) {
        let mut left = self.core().room_for_survivors();
        let mut fits = 0;
        for victim in victims.iter() {
            let bytes: u64 = victim.keep.iter().map(|keep| keep.bytes).sum();
            if bytes > left && fits > 0 {
                break;
            }
            left = left.saturating_sub(bytes);
            fits += 1;
        }
        for victim in victims.drain(fits..) {
            self.spare(victim.segment, 0);
        }
    }
}

/// What has to be carried on for a value that goes with unit `segment`: its own sequence, so that nothing up to it comes
/// back, but one less where the key has another record by now, which may be a copy of this very one.
pub(crate) fn suppressing(core: &Core, segment: u32, item: &Item) -> Item {
    let elsewhere = core
        .index
        .get(item.fingerprint)
        .is_some_and(|entry| (u32::from(entry.segment), entry.place) != (segment, item.place));
    let mut fact = *item;
    if item.kind == Kind::Value && elsewhere {
        fact.sequence -= 1;
    }
    fact
}
