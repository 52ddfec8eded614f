//! Records below a page, packed together: whatever arrives while one pack is being written goes into the next.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::PAGE;
use crate::core::{Placing, Stream};
use crate::engine::Verb;
use crate::engine::memory::Buffer;
use crate::engine::queue::{Class, Flow};
use crate::error::StoreError;
use crate::hash::Fingerprint;
use crate::put::{Committed, Put, item_of};
use crate::record::{Kind, Meta, UNIT};
use crate::space::Place;
use crate::stats::DropReason;
use crate::store::Shared;

/// Most bytes of one pack.
const PACK: usize = 128 << 10;

/// A small record on its way.
pub(crate) struct SmallWrite {
    pub(crate) meta: Meta,
    pub(crate) tail: Vec<u8>,
    pub(crate) fingerprint: Fingerprint,
    /// Eviction carries it on: it changes nothing for its key.
    pub(crate) carried: bool,
    pub(crate) done: oneshot::Sender<Result<Option<Done>, String>>,
}

/// A small record that is on the medium.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) committed: Committed,
    /// The key had a live block before.
    pub(crate) existed: bool,
}

impl Shared {
    /// Puts a value below 4 KiB.
    pub(crate) async fn put_small(
        self: &Arc<Self>,
        meta: Meta,
        tail: Vec<u8>,
        fingerprint: Fingerprint,
        if_absent: bool,
    ) -> Result<Put, StoreError> {
        let answer = {
            let now = self.now();
            let mut core = self.core();
            if if_absent
                && (core.live(meta.namespace, fingerprint, now).is_some()
                    || core.is_racing(fingerprint))
            {
                return Ok(Put::Present);
            }
            self.enqueue(&mut core, meta, tail, fingerprint)
        };
        Ok(match self.small_done(answer).await? {
            Some(done) => Put::Stored(done.committed),
            None => Put::Dropped(DropReason::NoSpace),
        })
    }

    /// Queues a small record; its sequence is given here.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        core: &mut crate::core::Core,
        mut meta: Meta,
        tail: Vec<u8>,
        fingerprint: Fingerprint,
    ) -> oneshot::Receiver<Result<Option<Done>, String>> {
        let (done, answer) = oneshot::channel();
        // A fact always speaks of something older.
        meta.replaces = meta.kind != Kind::Value
            || core.index.get(fingerprint).is_some()
            || core.is_racing(fingerprint);
        meta.sequence = core.begin_write(fingerprint);
        core.small.push_back(SmallWrite {
            meta,
            tail,
            fingerprint,
            carried: false,
            done,
        });
        if !std::mem::replace(&mut core.packing, true) {
            tokio::spawn(pack(Arc::clone(self)));
        }
        answer
    }

    /// Waits for a small record; none where no room came free in time.
    pub(crate) async fn small_done(
        &self,
        answer: oneshot::Receiver<Result<Option<Done>, String>>,
    ) -> Result<Option<Done>, StoreError> {
        answer
            .await
            .map_err(|_| StoreError::Closed)?
            .map_err(|reason| StoreError::Drive(std::io::Error::other(reason)))
    }
}

/// Writes packs until no small record waits.
async fn pack(shared: Arc<Shared>) {
    loop {
        let batch = {
            let mut core = shared.core();
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(next) = core.small.front() {
                bytes += next.meta.footprint();
                if bytes > PACK && !batch.is_empty() {
                    break;
                }
                batch.extend(core.small.pop_front());
            }
            if batch.is_empty() {
                core.packing = false;
                return;
            }
            batch
        };
        write_pack(&shared, batch, Stream::Fresh).await;
    }
}

/// Writes one pack and answers for each of its records.
pub(crate) async fn write_pack(shared: &Arc<Shared>, mut batch: Vec<SmallWrite>, stream: Stream) {
    let bytes: usize = batch.iter().map(|one| one.meta.footprint()).sum();
    let place = wait_for_place(shared, bytes, batch.len(), stream).await;
    let written = match place {
        None => Err(None),
        Some(place) => {
            let mut offset = place.offset;
            for one in &mut batch {
                one.meta.nonce = place.nonce;
                one.meta.place = (offset / UNIT as u64) as u32;
                offset += one.meta.footprint() as u64;
            }
            write_pages(shared, &batch, bytes, place)
                .await
                .map_err(Some)
        }
    };
    let now = shared.now();
    let mut core = shared.core();
    if let Some(place) = place {
        core.end_place(place.segment);
    }
    for one in batch {
        let item = item_of(&one.meta, one.fingerprint);
        let place = if written.is_ok() { place } else { None };
        let tainted = core.tainted;
        let existed = if one.carried {
            if let Some(place) = place {
                core.record(place.segment, &item);
            }
            false
        } else {
            core.end_write(&item, place, now)
        };
        let answer = match &written {
            Ok(()) => Ok(Some(Done {
                committed: Committed {
                    sequence: item.sequence,
                },
                existed,
            })),
            // Nothing was written, so nothing is tainted.
            Err(None) => {
                core.tainted = tainted;
                Ok(None)
            }
            Err(Some(error)) => Err(error.to_string()),
        };
        // Whoever waited may be gone; the record counts all the same.
        let _gone = one.done.send(answer);
    }
    drop(core);
    shared.upkeep.notify_one();
}

async fn wait_for_place(
    shared: &Shared,
    bytes: usize,
    records: usize,
    stream: Stream,
) -> Option<Place> {
    let deadline = Instant::now() + shared.options.patience;
    let pages = bytes.next_multiple_of(PAGE) as u64;
    loop {
        let opened = shared.opened.notified();
        tokio::pin!(opened);
        opened.as_mut().enable();
        if let Placing::At(place) = shared.core().place(stream, pages, records) {
            shared.upkeep.notify_one();
            return Some(place);
        }
        if stream == Stream::Facts {
            // Eviction itself waits: nobody else frees what is on its way out.
            shared.free_retired(true).await;
        }
        shared.upkeep.notify_one();
        shared.room.notify_one();
        if timeout_at(deadline, opened).await.is_err() {
            return None;
        }
    }
}

async fn write_pages(
    shared: &Shared,
    batch: &[SmallWrite],
    bytes: usize,
    place: Place,
) -> std::io::Result<()> {
    let mut pages = Buffer::zeroed(bytes.next_multiple_of(PAGE))?;
    let mut at = 0;
    for one in batch {
        let mut record = one.meta.encode(&shared.superblock.secret);
        record.extend_from_slice(&one.tail);
        pages[at..at + record.len()].copy_from_slice(&record);
        at += one.meta.footprint();
    }
    let address = shared.address(place.segment, place.offset);
    shared
        .disk
        .transfer(
            Class::Write,
            Flow::OWN,
            Verb::Write,
            address,
            vec![pages.into_span()],
        )
        .await
}
