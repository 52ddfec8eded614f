//! A value that is read chunk by chunk.

use std::time::Instant;

use crate::engine::Verb;
use crate::engine::memory::Span;
use crate::engine::queue::{Class, Flow};
use crate::error::StoreError;
use crate::get::Reading;
use crate::hash::chunk_seed;
use crate::latency::Operation;
use crate::namespaces::Namespace;
use crate::record::{Meta, Shape, UNIT};
use crate::source::{cut, tail_checksum};
use crate::store::{Store, check_key};
use crate::verify::Failure;
use crate::{CHUNK, PAGE};

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

impl Store {
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
