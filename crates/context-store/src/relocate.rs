//! Moves one block to the survivors' unit, verified on the way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::core::{Found, Placing, Stream, entry_of};
use crate::engine::Verb;
use crate::engine::memory::Buffer;
use crate::engine::queue::{Class, Flow};
use crate::hash::chunk_seed;
use crate::put::item_of;
use crate::record::{MAX_META, Meta, Shape, UNIT};
use crate::segment::Item;
use crate::source::{Source, tail_checksum};
use crate::space::Place;
use crate::store::Shared;
use crate::{CHUNK, PAGE};

/// How long a block waits for a unit that is being opened before it is given up.
const OPENING: Duration = Duration::from_millis(100);

/// What became of a block that was to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It lies with the survivors.
    Here,
    /// It is no longer what its key has, or cannot be read.
    Gone,
    /// No segment may be taken for it.
    NoRoom,
}

/// Whether a block found its place.
enum Settled {
    At(Place),
    Gone,
    NoRoom,
}

impl Shared {
    /// Moves a block that `item` lists in unit `victim`. `urgent`: puts wait for the unit, so that it takes its turn among
    /// them instead of waiting until none is left.
    pub(crate) async fn relocate(
        self: &Arc<Self>,
        victim: u32,
        item: &Item,
        urgent: bool,
    ) -> Moved {
        let (class, flow) = if urgent {
            (Class::Write, Flow::URGENT)
        } else {
            (Class::Background, Flow::OWN)
        };
        let Some((found, expiry)) = self.still_there(victim, item) else {
            return Moved::Gone;
        };
        // Keeps nothing busy that could be waited for: a unit that leaves is not used again before it has left.
        let reading = self.reading(found);
        let Some((mut meta, source)) = self.read_record(&found, class, flow).await else {
            return Moved::Gone;
        };
        meta.expiry = expiry;
        let place = match self.settle(victim, item, &mut meta).await {
            Settled::At(place) => place,
            Settled::Gone => return Moved::Gone,
            Settled::NoRoom => return Moved::NoRoom,
        };
        let written = self.write(class, flow, &meta, source, place).await;
        drop(reading);
        let new = item_of(&meta, item.fingerprint);
        let mut core = self.core();
        core.end_place(place.segment);
        if written.is_err() {
            return Moved::Gone;
        }
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

    /// Gives a block its place with the survivors, once a unit is open for it.
    async fn settle(&self, victim: u32, item: &Item, meta: &mut Meta) -> Settled {
        let bytes = meta.footprint().next_multiple_of(PAGE) as u64;
        let deadline = Instant::now() + OPENING;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            {
                let mut core = self.core();
                let same = core.index.get(item.fingerprint).is_some_and(|entry| {
                    (u32::from(entry.segment), entry.place) == (victim, item.place)
                });
                // A copy must never lie in a unit that was opened after something newer of its key got its sequence.
                if !same || core.is_racing(item.fingerprint) {
                    return Settled::Gone;
                }
                match core.place(Stream::Survivors, bytes, 1) {
                    Placing::At(place) => {
                        // The original lies where it was until its unit has left: whenever the copy goes before that, a
                        // tombstone has to keep the original from coming back.
                        meta.replaces = true;
                        meta.nonce = place.nonce;
                        meta.place = (place.offset / UNIT as u64) as u32;
                        drop(core);
                        self.upkeep.notify_one();
                        return Settled::At(place);
                    }
                    Placing::Scarce => return Settled::NoRoom,
                    Placing::Wait => {}
                }
            }
            self.upkeep.notify_one();
            if timeout_at(deadline, opened).await.is_err() {
                return Settled::NoRoom;
            }
        }
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
    async fn read_record(&self, found: &Found, class: Class, flow: Flow) -> Option<(Meta, Source)> {
        let shape = Shape {
            len: found.entry.len as usize,
            key: 0,
        };
        let offset = u64::from(found.entry.place) * UNIT as u64;
        let segment = u32::from(found.entry.segment);
        let (skip, front) = if shape.is_small() {
            let skip = (offset % PAGE as u64) as usize;
            let left = self.core().space.unit_len(segment) - (offset - skip as u64);
            let pages = (skip + MAX_META).next_multiple_of(PAGE);
            (skip, pages.min(usize::try_from(left).unwrap_or(pages)))
        } else {
            (0, if found.entry.wide { 2 * PAGE } else { PAGE })
        };
        let whole = Buffer::zeroed(front + shape.body()).ok()?.into_span();
        let at = self.address(segment, offset - skip as u64);
        self.disk
            .transfer(class, flow, Verb::Read, at, vec![whole.clone()])
            .await
            .ok()?;
        let mut head = vec![0; front];
        whole.copy_to(&mut head);
        let (meta, tail) = Meta::decode(
            &head[skip..],
            &self.superblock.secret,
            found.nonce,
            found.entry.place,
        )?;
        if meta.len != found.entry.len {
            return None;
        }
        let tail = tail.to_vec();
        let body: Vec<_> = (0..shape.chunks())
            .filter_map(|number| {
                let len = (shape.body() - number * CHUNK).min(CHUNK);
                whole.part(front + number * CHUNK, len)
            })
            .collect();
        let seed = self
            .superblock
            .secret
            .seed(meta.namespace, &meta.key, meta.len);
        let sound = body.iter().enumerate().all(|(number, chunk)| {
            meta.checksums.get(number) == Some(&chunk.hash(chunk_seed(seed, number)))
        }) && (tail.is_empty()
            || meta.checksums.last() == Some(&tail_checksum(seed, body.len(), &tail)));
        sound.then_some((meta, Source { body, tail }))
    }
}
