//! A block's way out: checked against its index entry before it is read, and against its key and checksums after.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Found;
use crate::engine::Verb;
use crate::engine::memory::Span;
use crate::engine::queue::{Class, Flow};
use crate::error::StoreError;
use crate::hash::chunk_seed;
use crate::health::DriveFault;
use crate::latency::Operation;
use crate::namespaces::Namespace;
use crate::put::{cut, tail_checksum};
use crate::record::{Kind, Meta, Shape, UNIT};
use crate::space::State;
use crate::store::{Shared, Store, check_key};
use crate::{CHUNK, PAGE};

/// What a get found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Get {
    /// The value lies in the caller's memory, verified.
    Hit {
        /// Its bytes.
        len: usize,
        /// How long it still lives; none: until it is evicted.
        expires_in: Option<Duration>,
    },
    /// There is no such block, or none that could be verified.
    Miss,
}

/// Keeps a segment from being used again while it is read.
pub(crate) struct Reading {
    shared: Arc<Shared>,
    pub(crate) found: Found,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut core = self.shared.core();
        let unit = core.space.get_mut(u32::from(self.found.entry.segment));
        unit.readers -= 1;
        let waited_for = unit.readers == 0 && matches!(unit.state, State::Retired { .. });
        drop(core);
        if waited_for {
            self.shared.room.notify_one();
        }
    }
}

/// A value that is read chunk by chunk: for those too large to be verified whole before the first byte is passed on.
pub struct Value {
    reading: Reading,
    flow: Flow,
    seed: u64,
    meta: Meta,
    tail: Vec<u8>,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Value")
            .field("len", &self.meta.len)
            .finish_non_exhaustive()
    }
}

/// What reading a block came to.
enum Failure {
    /// The key is another one.
    OtherKey,
    /// The payload does not pass its checksum.
    Payload,
    /// The record's meta does not pass its check.
    Record,
}

impl Store {
    /// Reads a block into `dst`: spans that start on page boundaries, all but the last multiples of 1 MiB, together at
    /// least as long as the value (see [`Store::len_to_read`]). The whole value is verified before this returns; what lies
    /// in `dst` after a miss is some of this namespace's own bytes, or what was there.
    ///
    /// # Errors
    /// A key of a length that is refused, memory that does not suit, or a drive that fails.
    pub async fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        dst: &[Span],
    ) -> Result<Get, StoreError> {
        check_key(key)?;
        let began = Instant::now();
        let Some((reading, flow)) = self.shared.find(namespace, key, true) else {
            return Ok(Get::Miss);
        };
        let entry = reading.found.entry;
        self.shared.admit_read(namespace, flow, entry.len)?;
        let body = cut(dst, entry.len as usize)?;
        let result = self
            .shared
            .read_value(&reading, flow, namespace, key, body)
            .await?;
        let now = self.shared.now();
        match result {
            Ok(()) => {
                let mut core = self.shared.core();
                core.stats.hits += 1;
                core.stats.bytes_out += u64::from(entry.len);
                core.namespaces.count(namespace, |counts| {
                    counts.hits += 1;
                    counts.bytes_out += u64::from(entry.len);
                });
                let took = began.elapsed();
                core.namespaces.took(namespace, Operation::Get, took);
                Ok(Get::Hit {
                    len: entry.len as usize,
                    expires_in: now.left(now.widen(entry.expiry)),
                })
            }
            Err(failure) => {
                self.shared.missed(namespace);
                self.shared.discredit(&reading, namespace, key, failure);
                Ok(Get::Miss)
            }
        }
    }

    /// Reads a block into memory of its own; for small values and for tests.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_bytes(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(len) = self.len_to_read(namespace, key) else {
            return Ok(None);
        };
        let span = crate::Buffer::zeroed(len)?.into_span();
        let Get::Hit { len, .. } = self
            .get(namespace, key, std::slice::from_ref(&span))
            .await?
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; len];
        span.copy_to(&mut bytes);
        Ok(Some(bytes))
    }

    /// Opens a block to read it chunk by chunk; none where there is no such block.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn open_value(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Value>, StoreError> {
        check_key(key)?;
        let began = Instant::now();
        let Some((reading, flow)) = self.shared.find(namespace, key, true) else {
            return Ok(None);
        };
        let shape = Shape {
            len: reading.found.entry.len as usize,
            key: key.len(),
        };
        (self.shared).admit_read(namespace, flow, reading.found.entry.len)?;
        let bytes = self
            .shared
            .read_meta(&reading.found, flow, shape.meta())
            .await?;
        match self
            .shared
            .check_meta(&reading.found, &bytes, namespace, key)
        {
            Ok((meta, tail)) => {
                let mut core = self.shared.core();
                core.stats.hits += 1;
                core.namespaces.count(namespace, |counts| {
                    counts.hits += 1;
                    counts.bytes_out += u64::from(meta.len);
                });
                let took = began.elapsed();
                core.namespaces.took(namespace, Operation::Open, took);
                drop(core);
                Ok(Some(Value {
                    flow,
                    seed: self.shared.superblock.secret.seed(namespace, key, meta.len),
                    meta,
                    tail,
                    reading,
                }))
            }
            Err(failure) => {
                self.shared.missed(namespace);
                self.shared.discredit(&reading, namespace, key, failure);
                Ok(None)
            }
        }
    }
}

impl Value {
    /// Bytes of the value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.meta.len as usize
    }

    /// Never true: values have at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.len == 0
    }

    /// Chunks of 1 MiB, the last one shorter.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.len().div_ceil(CHUNK)
    }

    /// A number that differs where values of this key differ: a reader that opens the block again, perhaps after a
    /// restart, goes on where it stood only if it is the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let sums = self.meta.checksums.iter();
        let bytes: Vec<u8> = sums.flat_map(|sum| sum.to_le_bytes()).collect();
        twox_hash::XxHash3_64::oneshot_with_seed(self.seed, &bytes)
    }

    /// Reads chunk number `number` into `dst`, which starts on a page boundary; how many bytes it has. None where the
    /// chunk does not pass its checksum: the block is a miss from here on, and what was passed on before it is right
    /// but incomplete.
    ///
    /// # Errors
    /// Memory that does not suit, or a drive that fails.
    pub async fn read(&self, number: usize, dst: &Span) -> Result<Option<usize>, StoreError> {
        let began = Instant::now();
        let start = number * CHUNK;
        let len = self.len().saturating_sub(start).min(CHUNK);
        let pieces = cut(std::slice::from_ref(dst), len)?;
        let shape = self.meta.shape();
        let body = shape.body().saturating_sub(start).min(CHUNK);
        let mut right = true;
        if body > 0
            && let Some(span) = pieces.first().and_then(|piece| piece.part(0, body))
        {
            let place = u64::from(self.meta.place) * UNIT as u64;
            let at = place + (shape.meta_pages() * PAGE + start) as u64;
            let shared = &self.reading.shared;
            let address = shared.address(u32::from(self.reading.found.entry.segment), at);
            shared
                .disk
                .transfer(
                    Class::Read,
                    self.flow,
                    Verb::Read,
                    address,
                    vec![span.clone()],
                )
                .await?;
            right =
                self.meta.checksums.get(number) == Some(&span.hash(chunk_seed(self.seed, number)));
        }
        if right && len > body {
            let chunks = shape.chunks();
            right =
                self.meta.checksums.last() == Some(&tail_checksum(self.seed, chunks, &self.tail));
            if let Some(rest) = dst.part(body, len - body) {
                rest.copy_from(&self.tail);
            }
        }
        let shared = &self.reading.shared;
        if right {
            let mut core = shared.core();
            core.stats.bytes_out += len as u64;
            let (space, took) = (self.meta.namespace, began.elapsed());
            core.namespaces.took(space, Operation::Chunk, took);
            return Ok(Some(len));
        }
        shared.discredit(
            &self.reading,
            self.meta.namespace,
            &self.meta.key,
            Failure::Payload,
        );
        Ok(None)
    }
}

impl Shared {
    fn missed(&self, namespace: Namespace) {
        let mut core = self.core();
        core.stats.misses += 1;
        core.namespaces
            .count(namespace, |counts| counts.misses += 1);
    }

    /// Refuses a read where too much of the namespace waits already.
    fn admit_read(&self, namespace: Namespace, flow: Flow, len: u32) -> Result<(), StoreError> {
        let bound = self.options.read_queue_bytes;
        if self.disk.may_wait_to_read(flow, len as usize, bound) {
            return Ok(());
        }
        let mut core = self.core();
        core.stats.busy += 1;
        core.namespaces.count(namespace, |counts| counts.busy += 1);
        Err(StoreError::Busy)
    }

    /// Finds a block and keeps its segment; counts the miss where there is none.
    fn find(
        self: &Arc<Self>,
        namespace: Namespace,
        key: &[u8],
        touch: bool,
    ) -> Option<(Reading, Flow)> {
        let now = self.now();
        let mut core = self.core();
        let fingerprint = (core.fingerprint)(&self.superblock.secret, namespace, key);
        let Some(found) = core.begin_read(namespace, fingerprint, now) else {
            core.missed(namespace, fingerprint, now);
            return None;
        };
        if touch {
            core.touch(fingerprint, found.entry);
        }
        drop(core);
        let flow = Flow {
            id: u32::from(found.entry.owner),
            weight: found.weight,
        };
        Some((self.reading(found), flow))
    }

    /// Takes over a reader that was counted.
    pub(crate) fn reading(self: &Arc<Self>, found: Found) -> Reading {
        Reading {
            shared: Arc::clone(self),
            found,
        }
    }

    /// The meta's bytes of a block, `len` of them, from private pages.
    pub(crate) async fn read_meta(
        &self,
        found: &Found,
        flow: Flow,
        len: usize,
    ) -> Result<Vec<u8>, StoreError> {
        let offset = u64::from(found.entry.place) * UNIT as u64;
        let skip = (offset % PAGE as u64) as usize;
        let scratch = self.scratch.take()?;
        let pages = (skip + len).next_multiple_of(PAGE).min(scratch.len());
        let unit_end = self.core().space.unit_len(u32::from(found.entry.segment));
        let pages = pages.min(usize::try_from(unit_end - (offset - skip as u64)).unwrap_or(pages));
        let span = scratch
            .part(0, pages)
            .ok_or_else(|| std::io::Error::other("private pages are too small"))?;
        let address = self.address(u32::from(found.entry.segment), offset - skip as u64);
        self.disk
            .transfer(Class::Read, flow, Verb::Read, address, vec![span.clone()])
            .await?;
        let mut bytes = vec![0; pages];
        span.copy_to(&mut bytes);
        bytes.drain(..skip);
        Ok(bytes)
    }

    /// Whether a meta is the one that the index means, and its tail.
    fn check_meta(
        &self,
        found: &Found,
        bytes: &[u8],
        namespace: Namespace,
        key: &[u8],
    ) -> Result<(Meta, Vec<u8>), Failure> {
        let decoded = Meta::decode(
            bytes,
            &self.superblock.secret,
            found.nonce,
            found.entry.place,
        );
        let (meta, tail) = decoded.ok_or(Failure::Record)?;
        if meta.namespace != namespace || meta.key != key {
            return Err(Failure::OtherKey);
        }
        if meta.kind != Kind::Value || meta.len != found.entry.len {
            return Err(Failure::Record);
        }
        Ok((meta, tail.to_vec()))
    }

    /// Reads a whole value and verifies it.
    async fn read_value(
        &self,
        reading: &Reading,
        flow: Flow,
        namespace: Namespace,
        key: &[u8],
        dst: Vec<Span>,
    ) -> Result<Result<(), Failure>, StoreError> {
        let found = &reading.found;
        let shape = Shape {
            len: found.entry.len as usize,
            key: key.len(),
        };
        if shape.is_small() {
            let bytes = self.read_meta(found, flow, shape.meta()).await?;
            let checked = self.check_meta(found, &bytes, namespace, key);
            return Ok(checked.and_then(|(meta, tail)| {
                let seed = self.superblock.secret.seed(namespace, key, meta.len);
                copy_tail(&dst, 0, &tail);
                right(meta.checksums.last() == Some(&tail_checksum(seed, 0, &tail)))
            }));
        }
        if found.entry.wide != (shape.meta_pages() > 1) {
            // Only a key of another length can have this fingerprint.
            return Ok(Err(Failure::OtherKey));
        }
        let scratch = self.scratch.take()?;
        let front_len = shape.meta_pages() * PAGE;
        let front = scratch
            .part(0, front_len)
            .ok_or_else(|| std::io::Error::other("private pages are too small"))?;
        let offset = u64::from(found.entry.place) * UNIT as u64;
        let start = self.address(u32::from(found.entry.segment), offset);
        let mut answers = Vec::with_capacity(shape.chunks());
        for (number, piece) in dst.iter().enumerate().take(shape.chunks()) {
            let len = (shape.body() - number * CHUNK).min(CHUNK);
            let chunk = piece.part(0, len).ok_or(StoreError::Memory {
                needed: shape.len,
                given: 0,
                reason: "a chunk does not fit",
            })?;
            let (at, pieces) = if number == 0 {
                (start, vec![front.clone(), chunk.clone()])
            } else {
                (
                    start + (front_len + number * CHUNK) as u64,
                    vec![chunk.clone()],
                )
            };
            let answer = self.disk.begin(Class::Read, flow, Verb::Read, at, pieces);
            answers.push((number, chunk, answer));
        }
        let mut outcome = Ok(());
        let mut meta = None;
        let seed = self.superblock.secret.seed(namespace, key, found.entry.len);
        // Every transfer is waited for, also after one has failed: the memory is the drive's until then.
        for (number, chunk, answer) in answers {
            let read = answer
                .await
                .unwrap_or_else(|_| Err(std::io::Error::other("the I/O engine ended")));
            if let Err(error) = read {
                if !matches!(outcome, Err(Ok(_))) {
                    outcome = Err(Ok(error));
                }
                continue;
            }
            if number == 0 && outcome.is_ok() {
                let mut bytes = vec![0; front_len];
                front.copy_to(&mut bytes);
                match self.check_meta(found, &bytes, namespace, key) {
                    Ok(checked) => meta = Some(checked),
                    Err(failure) => outcome = Err(Err(failure)),
                }
            }
            if let (Some((meta, _)), true) = (&meta, outcome.is_ok())
                && meta.checksums.get(number) != Some(&chunk.hash(chunk_seed(seed, number)))
            {
                outcome = Err(Err(Failure::Payload));
            }
        }
        match (outcome, meta) {
            (Err(Ok(error)), _) => Err(error.into()),
            (Err(Err(failure)), _) => Ok(Err(failure)),
            (Ok(()), Some((meta, tail))) if !tail.is_empty() => {
                copy_tail(&dst, shape.body(), &tail);
                let sum = tail_checksum(seed, shape.chunks(), &tail);
                Ok(right(meta.checksums.last() == Some(&sum)))
            }
            (Ok(()), Some(_)) => Ok(Ok(())),
            (Ok(()), None) => Ok(Err(Failure::Record)),
        }
    }

    /// Forgets a block that cannot be served, and counts it where it belongs.
    fn discredit(
        self: &Arc<Self>,
        reading: &Reading,
        namespace: Namespace,
        key: &[u8],
        failure: Failure,
    ) {
        let found = &reading.found;
        {
            let mut core = self.core();
            match failure {
                Failure::OtherKey => return,
                Failure::Payload => core.stats.payload_mismatches += 1,
                Failure::Record => core.stats.corrupt_records += 1,
            }
        }
        if matches!(failure, Failure::Record) {
            let offset = self.address(
                u32::from(found.entry.segment),
                u64::from(found.entry.place) * UNIT as u64,
            );
            self.disk.blame(DriveFault::Corrupt {
                offset,
                what: "a block's record",
            });
        }
        self.forget(namespace, key, found);
    }
}

fn right(right: bool) -> Result<(), Failure> {
    if right { Ok(()) } else { Err(Failure::Payload) }
}

/// Copies a value's tail to where it belongs in the caller's memory, cut into chunks.
fn copy_tail(dst: &[Span], body: usize, tail: &[u8]) {
    if let Some(span) = dst.get(body / CHUNK)
        && let Some(rest) = span.part(body % CHUNK, tail.len())
    {
        rest.copy_from(tail);
    }
}
