//! Makes room: carries out what `evict` decides, one victim after another, while free segments are scarce.
//!
//! The order makes each step safe to stop at. Survivors and facts that must outlive the unit are written elsewhere and
//! flushed; then the unit's header says that it is retired; then the index forgets what is left in it. Once its readers
//! are gone and the retired header is flushed, it is TRIMmed and free. So nothing that was deleted can come back: a fact
//! is let go only when no older unit is left, on stable media too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::core::{Found, Stream, entry_of, weight_of};
use crate::engine::Verb;
use crate::engine::memory::{Buffer, Span};
use crate::engine::queue::{Class, Flow};
use crate::evict::{Live, QUANTILE, choose_victims, quantile, survivors};
use crate::hash::{Fingerprint, chunk_seed};
use crate::put::{Source, item_of, tail_checksum};
use crate::record::{Kind, MAX_META, Meta, UNIT};
use crate::segment::{Header, Item, decode_footer, footer_len};
use crate::small::{SmallWrite, write_pack};
use crate::space::State;
use crate::store::Shared;
use crate::trim::{Pace, batches};
use crate::{CHUNK, PAGE};

/// How long the task sleeps at most, and how long a unit that could not be evicted rests.
const PACE: Duration = Duration::from_millis(250);
const REST: u64 = 200;

/// Blocks that the quantile is estimated from.
const SAMPLE: usize = 1024;

/// Share of the partition that carried facts may take before the oldest unit goes first.
const CARRIED: u64 = 64;

/// Runs until the store is closed.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    shared.tasks.send_modify(|left| *left += 1);
    tokio::spawn(async move {
        let mut pace = Pace::new(shared.options.trim_rate, shared.now().millis);
        while !shared.core().closed {
            shared.purge_flushed();
            shared.make_room(&mut pace).await;
            // Whether woken or not, the next round looks at everything.
            let _woken = tokio::time::timeout(PACE, shared.room.notified()).await;
        }
        shared.tasks.send_modify(|left| *left -= 1);
    });
}

/// What a victim's blocks and facts come to.
struct Plan {
    /// Blocks to move, most important first.
    keep: Vec<(Item, bool)>,
    /// Facts that are still needed.
    facts: Vec<Item>,
}

impl Shared {
    /// Drops what the index still says about flushed namespaces.
    fn purge_flushed(&self) {
        let slots = self.core().namespaces.flushed_slots();
        if slots.is_empty() {
            return;
        }
        let shards = self.core().index.shards();
        for shard in 0..shards {
            let mut core = self.core();
            let gone: Vec<Fingerprint> = core
                .index
                .shard(shard)
                .filter(|(_, entry)| slots.contains(&entry.owner))
                .map(|(fingerprint, _)| fingerprint)
                .collect();
            for fingerprint in gone {
                core.remove(fingerprint);
            }
        }
        self.core().namespaces.free_slots(&slots);
    }

    /// Evicts until enough segments are free, or nothing more can go.
    async fn make_room(self: &Arc<Self>, pace: &mut Pace) {
        let mut target = 0;
        loop {
            self.free_retired(pace).await;
            let (run, goal) = {
                let core = self.core();
                let (low, high) = core.watermarks();
                let free = core.space.free();
                if free < low || core.wanted.is_some() {
                    target = high;
                }
                let blocked = core.wanted.filter(|_| free >= low);
                match blocked {
                    // Enough is free, but not in a row.
                    Some(run) if core.ready(run) == 0 => (run, u32::MAX),
                    _ if free < target => (core.usual_span().max(core.wanted.unwrap_or(1)), target),
                    _ => return,
                }
            };
            if self.core().closed || !self.evict_one(run).await {
                return;
            }
            if goal == u32::MAX {
                self.free_retired(pace).await;
                self.upkeep.notify_one();
                tokio::task::yield_now().await;
            }
        }
    }

    /// Evicts what lies in one run of segments; whether anything came free.
    async fn evict_one(self: &Arc<Self>, run: u32) -> bool {
        let now = self.now();
        let sheltered = self.sheltered_bytes();
        let victims = {
            let mut core = self.core();
            let oldest = core.carried > core.space.layout.capacity() / CARRIED;
            let segment_len = core.space.layout.segment_len;
            let candidates = core.space.candidates(now.millis, |segment| {
                sheltered.get(&segment).copied().unwrap_or(0)
            });
            let victims = choose_victims(&candidates, run, segment_len, oldest);
            for victim in &victims {
                core.space.get_mut(*victim).state = State::Leaving;
            }
            victims
        };
        let mut progress = false;
        for victim in victims {
            let gone = self.evict_unit(victim).await;
            if !gone {
                let mut core = self.core();
                let unit = core.space.get_mut(victim);
                unit.state = State::Sealed;
                unit.not_before = now.millis + REST;
            }
            progress |= gone;
        }
        progress
    }

    /// Bytes a unit of blocks that must not make room for others: of namespaces below their share.
    fn sheltered_bytes(&self) -> HashMap<u32, u64> {
        let (slots, shards) = {
            let core = self.core();
            (core.sheltered_slots(), core.index.shards())
        };
        let mut bytes = HashMap::new();
        if slots.is_empty() {
            return bytes;
        }
        for shard in 0..shards {
            let core = self.core();
            for (_, entry) in core.index.shard(shard) {
                if slots.contains(&entry.owner) {
                    *bytes.entry(u32::from(entry.segment)).or_default() += weight_of(&entry);
                }
            }
        }
        bytes
    }

    /// Evicts a unit; not where something in it has to stay and has nowhere to go.
    async fn evict_unit(self: &Arc<Self>, victim: u32) -> bool {
        let items = self.items(victim).await;
        let plan = self.plan(victim, &items);
        if !self.carry_facts(plan.facts).await {
            return false;
        }
        for (item, held) in plan.keep {
            let here = self.move_block(victim, &item).await;
            if here == Moved::NoRoom {
                if held {
                    return false;
                }
                break;
            }
        }
        // Also covers the retired headers of earlier victims.
        let flushed = self.disk.flush().await;
        if let Err(error) = &flushed {
            tracing::warn!(%error, "eviction could not flush");
            return false;
        }
        self.mark_flushed();
        self.retire(victim, &items).await
    }

    /// The records of a unit: from its footer, or from the index alone where that cannot be read.
    async fn items(&self, victim: u32) -> Vec<Item> {
        if let Some(items) = self.read_footer(victim).await {
            return items;
        }
        // Blocks that are forgotten are only misses; facts in an unreadable footer are gone, and so is what could have
        // come back: the unit's blocks are found by the index, and older units go before it is used again.
        self.scan_unit(victim).await
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

    pub(crate) async fn read_own(&self, segment: u32, offset: u64, len: usize) -> Option<Vec<u8>> {
        let span = Buffer::zeroed(len).ok()?.into_span();
        let at = self.address(segment, offset);
        self.disk
            .transfer(
                Class::Background,
                Flow::OWN,
                Verb::Read,
                at,
                vec![span.clone()],
            )
            .await
            .ok()?;
        let mut bytes = vec![0; len];
        span.copy_to(&mut bytes);
        Some(bytes)
    }

    async fn scan_unit(&self, segment: u32) -> Vec<Item> {
        let (nonce, start, len) = {
            let core = self.core();
            (
                core.space.get(segment).nonce,
                core.space.layout.start(segment),
                core.space.unit_len(segment),
            )
        };
        let fingerprint = self.core().fingerprint;
        crate::recover::scan(
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
    fn plan(&self, victim: u32, items: &[Item]) -> Plan {
        let now = self.now();
        let mut core = self.core();
        let sheltered = core.sheltered_slots();
        let turn = core.next_sequence() as usize;
        let accesses = core
            .index
            .sample(SAMPLE, turn)
            .iter()
            .map(|entry| entry.access)
            .collect();
        let threshold = quantile(accesses, QUANTILE);
        let mut live = Vec::new();
        let mut facts = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let entry = core
                .live(item.namespace, item.fingerprint, now)
                .filter(|entry| {
                    item.kind == Kind::Value
                        && (u32::from(entry.segment), entry.place) == (victim, item.place)
                });
            match entry {
                Some(entry) => live.push(Live {
                    number,
                    access: entry.access,
                    bytes: weight_of(&entry),
                    held: core.is_held(item.fingerprint, now),
                    sheltered: sheltered.contains(&entry.owner),
                }),
                None if item.replaces && core.space.has_older(item.sequence, victim) => {
                    facts.push(*item);
                }
                None => {}
            }
        }
        let bytes = core.space.unit_len(victim);
        let all = live.clone();
        let mut kept = survivors(live, threshold, bytes);
        let moving: u64 = kept.iter().map(|block| block.bytes).sum();
        if !core.governor.may_move(moving, now.millis) {
            kept.retain(|block| block.held);
        }
        // A block that goes while an older one of its key is still on the medium leaves a tombstone.
        for block in &all {
            let item = items[block.number];
            if item.replaces
                && !kept.iter().any(|one| one.number == block.number)
                && core.space.has_older(item.sequence, victim)
            {
                facts.push(item);
            }
        }
        Plan {
            keep: kept
                .into_iter()
                .map(|block| (items[block.number], block.held))
                .collect(),
            facts,
        }
    }

    /// Writes facts that are still needed elsewhere; whether all of them are.
    async fn carry_facts(self: &Arc<Self>, facts: Vec<Item>) -> bool {
        let mut waiting = Vec::new();
        let mut batch = Vec::new();
        for item in facts {
            let kind = if item.kind == Kind::Value {
                Kind::Tombstone
            } else {
                item.kind
            };
            // The key is not needed: a fact counts for a fingerprint, and the footer has it.
            let meta = Meta {
                kind,
                replaces: true,
                hashed: true,
                namespace: item.namespace,
                key: item.fingerprint.0.to_vec(),
                len: 0,
                expiry: item.expiry,
                sequence: item.sequence,
                nonce: 0,
                place: 0,
                checksums: vec![],
            };
            let (done, answer) = oneshot::channel();
            self.core().carried += meta.footprint() as u64;
            batch.push(SmallWrite {
                meta,
                tail: Vec::new(),
                fingerprint: item.fingerprint,
                carried: true,
                done,
            });
            waiting.push(answer);
            if batch.len() == 1024 {
                write_pack(self, std::mem::take(&mut batch), Stream::Facts).await;
            }
        }
        if !batch.is_empty() {
            write_pack(self, batch, Stream::Facts).await;
        }
        for answer in waiting {
            if !matches!(answer.await, Ok(Ok(Some(_)))) {
                return false;
            }
        }
        true
    }

    /// Moves a block to the survivors' unit, verified on the way.
    async fn move_block(self: &Arc<Self>, victim: u32, item: &Item) -> Moved {
        let Some((found, expiry)) = self.still_there(victim, item) else {
            return Moved::Gone;
        };
        // Keeps nothing busy that could be waited for: a unit that leaves is not used again before it has left.
        let reading = self.reading(found);
        let Some((mut meta, source)) = self.read_block(&found).await else {
            return Moved::Gone;
        };
        meta.expiry = expiry;
        let (records, bytes) = (1, meta.footprint().next_multiple_of(PAGE) as u64);
        let place = {
            let mut core = self.core();
            let same = core.index.get(item.fingerprint).is_some_and(|entry| {
                (u32::from(entry.segment), entry.place) == (victim, item.place)
            });
            // A copy must never lie in a unit that was opened after something newer of its key got its sequence.
            if !same || core.is_racing(item.fingerprint) {
                return Moved::Gone;
            }
            meta.replaces &= core.space.has_older(meta.sequence, victim);
            core.place(Stream::Survivors, bytes, records)
        };
        let Some(place) = place else {
            return Moved::NoRoom;
        };
        meta.nonce = place.nonce;
        meta.place = (place.offset / UNIT as u64) as u32;
        let written = self
            .write(Class::Background, Flow::OWN, &meta, source, place)
            .await;
        drop(reading);
        let new = item_of(&meta, item.fingerprint);
        let mut core = self.core();
        core.end_place(place.segment);
        if written.is_err() {
            return Moved::Gone;
        }
        core.governor.spend(bytes);
        core.record(place.segment, &new);
        let current = core
            .index
            .get(item.fingerprint)
            .filter(|entry| (u32::from(entry.segment), entry.place) == (victim, item.place));
        if let Some(current) = current {
            let mut entry = entry_of(&new, place.segment, current.owner, current.access);
            entry.expiry = current.expiry;
            core.insert(item.fingerprint, &entry);
            core.stats.moved_blocks += 1;
            core.stats.moved_bytes += u64::from(entry.len);
        }
        drop(core);
        self.upkeep.notify_one();
        Moved::Here
    }

    /// The block that an item lists, with a reader, if it is still what its key has; and its expiry.
    fn still_there(&self, victim: u32, item: &Item) -> Option<(Found, u32)> {
        let now = self.now();
        let mut core = self.core();
        let entry = core.live(item.namespace, item.fingerprint, now)?;
        if (u32::from(entry.segment), entry.place) != (victim, item.place) {
            return None;
        }
        let found = core.begin_read(item.namespace, item.fingerprint, now)?;
        Some((found, now.widen(entry.expiry)))
    }

    /// Reads a block into memory of the store's own and verifies it.
    async fn read_block(&self, found: &Found) -> Option<(Meta, Source)> {
        let bytes = self.read_meta(found, Flow::OWN, MAX_META).await.ok()?;
        let (meta, tail) = Meta::decode(
            &bytes,
            &self.superblock.secret,
            found.nonce,
            found.entry.place,
        )?;
        let tail = tail.to_vec();
        let shape = meta.shape();
        let seed = self
            .superblock
            .secret
            .seed(meta.namespace, &meta.key, meta.len);
        let mut body: Vec<Span> = Vec::new();
        if shape.body() > 0 {
            let whole = Buffer::zeroed(shape.body()).ok()?.into_span();
            let offset =
                u64::from(found.entry.place) * UNIT as u64 + (shape.meta_pages() * PAGE) as u64;
            let at = self.address(u32::from(found.entry.segment), offset);
            self.disk
                .transfer(
                    Class::Background,
                    Flow::OWN,
                    Verb::Read,
                    at,
                    vec![whole.clone()],
                )
                .await
                .ok()?;
            for number in 0..shape.chunks() {
                let len = (shape.body() - number * CHUNK).min(CHUNK);
                body.extend(whole.part(number * CHUNK, len));
            }
        }
        let sound = body.iter().enumerate().all(|(number, chunk)| {
            meta.checksums.get(number) == Some(&chunk.hash(chunk_seed(seed, number)))
        }) && (tail.is_empty()
            || meta.checksums.last() == Some(&tail_checksum(seed, body.len(), &tail)));
        sound.then_some((meta, Source { body, tail }))
    }

    /// Everything retired before this flush is so on stable media.
    fn mark_flushed(&self) {
        let mut core = self.core();
        let retired: Vec<u32> = core
            .space
            .units()
            .filter(|(_, unit)| matches!(unit.state, State::Retired { flushed: false }))
            .map(|(segment, _)| segment)
            .collect();
        for segment in retired {
            core.space.get_mut(segment).state = State::Retired { flushed: true };
        }
    }

    /// Says on the medium that a unit is retired, then forgets what it held.
    async fn retire(&self, victim: u32, items: &[Item]) -> bool {
        let header = {
            let core = self.core();
            let unit = core.space.get(victim);
            Header {
                store: self.superblock.store,
                segment: victim,
                generation: unit.generation,
                nonce: unit.nonce,
                span: unit.span,
                retired: true,
            }
        };
        let page = header.encode(&self.superblock.secret);
        if self.write_own(victim, 0, &page).await.is_err() {
            return false;
        }
        let mut gone = Vec::new();
        {
            let mut core = self.core();
            for item in items {
                gone.extend(self.drop_entry(&mut core, victim, item.fingerprint));
            }
        }
        self.drop_strays(victim);
        let mut core = self.core();
        core.evicted();
        core.stats.evicted_blocks += gone.len() as u64;
        core.stats.evicted_bytes += gone.iter().sum::<u64>();
        core.space.get_mut(victim).state = State::Retired { flushed: false };
        let oldest = !core
            .space
            .has_older(core.space.get(victim).generation, victim);
        if oldest {
            core.carried = 0;
        }
        true
    }

    fn drop_entry(
        &self,
        core: &mut crate::core::Core,
        victim: u32,
        fingerprint: Fingerprint,
    ) -> Option<u64> {
        let entry = core.index.get(fingerprint)?;
        if u32::from(entry.segment) != victim {
            return None;
        }
        core.remove(fingerprint);
        Some(u64::from(entry.len))
    }

    /// Forgets blocks of a unit that its footer did not list.
    fn drop_strays(&self, victim: u32) {
        if self.core().space.get(victim).blocks == 0 {
            return;
        }
        let shards = self.core().index.shards();
        for shard in 0..shards {
            let mut core = self.core();
            let strays: Vec<Fingerprint> = core
                .index
                .shard(shard)
                .filter(|(_, entry)| u32::from(entry.segment) == victim)
                .map(|(fingerprint, _)| fingerprint)
                .collect();
            for stray in strays {
                core.remove(stray);
            }
        }
    }

    /// Frees retired units whose readers are gone: flushed, TRIMmed at a limited rate, in batches of neighbours.
    async fn free_retired(&self, pace: &mut Pace) {
        let (idle, unflushed) = {
            let core = self.core();
            let idle: Vec<(u32, u32, bool)> = core
                .space
                .units()
                .filter_map(|(segment, unit)| match unit.state {
                    State::Retired { flushed } if unit.readers == 0 => {
                        Some((segment, unit.span, flushed))
                    }
                    _ => None,
                })
                .collect();
            let unflushed = idle.iter().any(|(_, _, flushed)| !flushed);
            (idle, unflushed)
        };
        if idle.is_empty() {
            return;
        }
        if unflushed {
            if self.disk.flush().await.is_err() {
                return;
            }
            self.mark_flushed();
        }
        let (segment_len, urgent) = {
            let core = self.core();
            let urgent = core.space.free() < core.watermarks().0;
            (core.space.layout.segment_len, urgent)
        };
        let runs = idle
            .iter()
            .map(|(first, span, _)| *first..first + span)
            .collect();
        for batch in batches(runs) {
            let bytes = u64::from(batch.end - batch.start) * segment_len;
            // A segment that is needed now is written over instead: that frees its old pages as well.
            let goes = pace.take(bytes, self.now().millis);
            if !goes && !urgent {
                continue;
            }
            if goes {
                let at = self.address(batch.start, 0);
                match self.disk.discard(at, bytes).await {
                    Ok(()) => self.core().stats.trimmed_bytes += bytes,
                    Err(error) => tracing::debug!(%error, "this medium cannot TRIM"),
                }
            }
            let mut core = self.core();
            for (first, _, _) in idle.iter().filter(|(first, _, _)| batch.contains(first)) {
                core.space.release(*first);
            }
        }
        self.upkeep.notify_one();
    }
}

/// What became of a block that was to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// It lies with the survivors.
    Here,
    /// It is no longer what its key has, or cannot be read.
    Gone,
    /// No segment may be taken for it.
    NoRoom,
}
