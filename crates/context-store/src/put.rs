//! A block's way in, and the stages of its life.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::admit::Admission;
use crate::core::{Placing, Stream};
use crate::engine::Verb;
use crate::engine::memory::Span;
use crate::engine::queue::Class;
use crate::error::StoreError;
use crate::hash::Fingerprint;
use crate::latency::Operation;
use crate::namespaces::Namespace;
use crate::quota::Exceeds;
use crate::record::{Kind, Meta, Shape, UNIT};
use crate::segment::Item;
use crate::source::{Source, checksums, source};
use crate::space::Place;
use crate::stats::DropReason;
use crate::store::{Shared, Store, check_key};
use crate::{MAX_VALUE, PAGE};

/// How a block is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// How long it lives, in steps of 100 ms, rounded down, at most 100 days. None: the store's default.
    pub ttl: Option<Duration>,
    /// Puts it only where the key has no block.
    pub if_absent: bool,
}

/// A block whose write has completed: it is readable, and survives a `kill -9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committed {
    pub(crate) sequence: u64,
}

/// A block that has been flushed to stable media: it survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Persisted {
    pub(crate) sequence: u64,
}

impl Persisted {
    /// Whether this flush covers a block.
    #[must_use]
    pub fn covers(self, block: Committed) -> bool {
        block.sequence <= self.sequence
    }
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The block is there.
    Stored(Committed),
    /// It was to be put only where the key has none, and the key has one.
    Present,
    /// It was not taken; whatever the key had is unchanged.
    Dropped(DropReason),
}

/// A block that was given a place and is not there yet.
struct Allocated<'a> {
    shared: &'a Shared,
    place: Place,
    item: Item,
}

impl Allocated<'_> {
    /// The write has completed, or failed.
    fn finish(self, written: bool) -> Option<Committed> {
        let now = self.shared.now();
        let mut core = self.shared.core();
        core.end_place(self.place.segment);
        core.end_write(&self.item, written.then_some(self.place), now);
        drop(core);
        self.shared.upkeep.notify_one();
        written.then_some(Committed {
            sequence: self.item.sequence,
        })
    }
}

impl Store {
    /// Puts a block: `src` holds its bytes, each span starting on a page boundary and all but the last a multiple of
    /// 1 MiB. The spans are the drive's until this returns; where the future is dropped the put goes on.
    ///
    /// # Errors
    /// A key or value of a length that is refused, memory that does not suit, or a drive that fails. A put that cannot be
    /// taken in time is no error but [`Put::Dropped`].
    pub async fn put(
        &self,
        namespace: Namespace,
        key: &[u8],
        src: Vec<Span>,
        options: PutOptions,
    ) -> Result<Put, StoreError> {
        check_key(key)?;
        let len = src.iter().map(Span::len).sum();
        if len == 0 || len > self.largest_value() || len > MAX_VALUE {
            return Err(StoreError::ValueLength { len });
        }
        let source = source(&src, len)?;
        drop(src);
        let put = Arc::clone(&self.shared).put(namespace, key.to_vec(), source, len, options);
        tokio::spawn(put).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Puts a block from memory that is copied; for small values and for tests.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_bytes(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<Put, StoreError> {
        if value.is_empty() || value.len() > MAX_VALUE {
            return Err(StoreError::ValueLength { len: value.len() });
        }
        let mut buffer = crate::Buffer::zeroed(value.len())?;
        buffer.copy_from_slice(value);
        self.put(namespace, key, vec![buffer.into_span()], options)
            .await
    }

    /// Whether a put of `len` bytes under this key would be dropped now, before its bytes are moved anywhere.
    #[must_use]
    pub fn would_drop(&self, len: usize) -> Option<DropReason> {
        let load = self.shared.disk.load();
        (load.waiting_bytes[Class::Write as usize] + len > self.shared.options.write_queue_bytes)
            .then_some(DropReason::Busy)
    }

    /// Flushes everything that is committed to stable media.
    ///
    /// # Errors
    /// The drive failed.
    pub async fn persist(&self) -> Result<Persisted, StoreError> {
        self.shared.persist().await
    }
}

impl Shared {
    pub(crate) async fn persist(&self) -> Result<Persisted, StoreError> {
        let sequence = self.core().sequence();
        self.disk.flush().await?;
        Ok(Persisted { sequence })
    }

    async fn put(
        self: Arc<Self>,
        namespace: Namespace,
        key: Vec<u8>,
        source: Source,
        len: usize,
        options: PutOptions,
    ) -> Result<Put, StoreError> {
        let began = std::time::Instant::now();
        let fingerprint = self.fingerprint(namespace, &key);
        let shape = Shape {
            len,
            key: key.len(),
        };
        if let Some(refused) = self.refuse(namespace, fingerprint, shape, options)? {
            return Ok(refused);
        }
        let now = self.now();
        let ttl = options.ttl.or(self.options.default_ttl);
        let seed = self
            .superblock
            .secret
            .seed(namespace, &key, shape.len as u32);
        let mut meta = Meta {
            kind: Kind::Value,
            replaces: false,
            hashed: false,
            namespace,
            key,
            len: len as u32,
            expiry: ttl.map_or(0, |ttl| now.after(ttl)),
            sequence: 0,
            nonce: 0,
            place: 0,
            checksums: checksums(seed, &source),
        };
        let stored = if shape.is_small() {
            self.put_small(meta, source.tail, fingerprint, options.if_absent)
                .await?
        } else {
            let Some((allocated, flow)) = self
                .allocate(&mut meta, fingerprint, options.if_absent)
                .await?
            else {
                return Ok(self.dropped(namespace, DropReason::NoSpace));
            };
            let Some(allocated) = allocated else {
                return Ok(Put::Present);
            };
            let written = self
                .write(Class::Write, flow, &meta, source, allocated.place)
                .await;
            let done = allocated.finish(written.is_ok());
            written?;
            done.map_or(Put::Dropped(DropReason::NoSpace), Put::Stored)
        };
        match stored {
            Put::Stored(_) => {
                let mut core = self.core();
                core.stats.puts += 1;
                core.stats.bytes_in += len as u64;
                core.namespaces.count(namespace, |counts| {
                    counts.puts += 1;
                    counts.bytes_in += len as u64;
                });
                let took = began.elapsed();
                core.namespaces.took(namespace, Operation::Put, took);
            }
            Put::Dropped(reason) => {
                self.dropped(namespace, reason);
            }
            Put::Present => {}
        }
        Ok(stored)
    }

    fn dropped(&self, namespace: Namespace, reason: DropReason) -> Put {
        let mut core = self.core();
        core.stats.count_drop(reason);
        core.namespaces
            .count(namespace, |counts| counts.count_drop(reason));
        Put::Dropped(reason)
    }

    /// What speaks against a put before any of it is done.
    fn refuse(
        &self,
        namespace: Namespace,
        fingerprint: Fingerprint,
        shape: Shape,
        options: PutOptions,
    ) -> Result<Option<Put>, StoreError> {
        let now = self.now();
        let flow = self.flow(namespace);
        let may_wait = self
            .disk
            .may_wait(flow, shape.body(), self.options.write_queue_bytes);
        let mut core = self.core();
        if core.closed {
            return Err(StoreError::Closed);
        }
        if core.namespaces.slot(namespace).is_none() {
            return Err(StoreError::TooManyNamespaces);
        }
        if options.if_absent && core.live(namespace, fingerprint, now).is_some() {
            return Ok(Some(Put::Present));
        }
        let above = core.exceeds(namespace, shape.footprint() as u64);
        if above != Exceeds::No {
            self.quota.notify_one();
        }
        let tag = u64::from_le_bytes(fingerprint.0[..8].try_into().unwrap_or_default());
        let bytes = shape.footprint() as u64;
        let reason = if !may_wait {
            Some(DropReason::Busy)
        } else if above == Exceeds::ByFar {
            Some(DropReason::Quota)
        } else {
            match core.governor.admit(tag, bytes, now.millis) {
                Admission::Admit => {
                    core.governor.spend(bytes);
                    None
                }
                Admission::FirstTouch => Some(DropReason::FirstTouch),
                Admission::Ceiling => Some(DropReason::Budget),
            }
        };
        drop(core);
        Ok(reason.map(|reason| self.dropped(namespace, reason)))
    }

    /// Gives a record with a body its place and sequence. None where no room came free in time; no allocation where the
    /// key has a block and must not.
    async fn allocate(
        &self,
        meta: &mut Meta,
        fingerprint: Fingerprint,
        if_absent: bool,
    ) -> Result<Option<(Option<Allocated<'_>>, crate::engine::queue::Flow)>, StoreError> {
        let shape = meta.shape();
        let flow = self.flow(meta.namespace);
        let deadline = Instant::now() + self.options.patience;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            {
                let now = self.now();
                let mut core = self.core();
                if core.closed {
                    return Err(StoreError::Closed);
                }
                if if_absent
                    && (core.live(meta.namespace, fingerprint, now).is_some()
                        || core.is_racing(fingerprint))
                {
                    return Ok(Some((None, flow)));
                }
                if let Placing::At(place) = core.place(Stream::Fresh, shape.footprint() as u64, 1) {
                    meta.replaces =
                        core.index.get(fingerprint).is_some() || core.is_racing(fingerprint);
                    meta.sequence = core.begin_write(fingerprint);
                    meta.nonce = place.nonce;
                    meta.place = (place.offset / UNIT as u64) as u32;
                    let item = item_of(meta, fingerprint);
                    drop(core);
                    self.upkeep.notify_one();
                    let allocated = Allocated {
                        shared: self,
                        place,
                        item,
                    };
                    return Ok(Some((Some(allocated), flow)));
                }
            }
            self.upkeep.notify_one();
            self.room.notify_one();
            if timeout_at(deadline, opened).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Writes a record with a body where it was placed.
    pub(crate) async fn write(
        &self,
        class: Class,
        flow: crate::engine::queue::Flow,
        meta: &Meta,
        source: Source,
        place: Place,
    ) -> std::io::Result<()> {
        let mut head = meta.encode(&self.superblock.secret);
        head.extend_from_slice(&source.tail);
        let pages = head.len().div_ceil(PAGE) * PAGE;
        head.resize(pages, 0);
        let scratch = self.scratch.take()?;
        let front = scratch
            .part(0, pages)
            .ok_or_else(|| std::io::Error::other("a meta longer than its pages"))?;
        front.copy_from(&head);
        let mut pieces = Vec::with_capacity(1 + source.body.len());
        pieces.push(front);
        pieces.extend(source.body);
        let at = self.address(place.segment, place.offset);
        self.disk
            .transfer(class, flow, Verb::Write, at, pieces)
            .await
    }
}

/// How a footer lists a record.
pub(crate) fn item_of(meta: &Meta, fingerprint: Fingerprint) -> Item {
    Item {
        kind: meta.kind,
        replaces: meta.replaces,
        wide: meta.len as usize >= PAGE && meta.shape().meta_pages() > 1,
        fingerprint,
        namespace: meta.namespace,
        sequence: meta.sequence,
        place: meta.place,
        len: meta.len,
        expiry: meta.expiry,
    }
}
