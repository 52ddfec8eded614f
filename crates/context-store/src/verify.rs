//! Reads a block's record, and says whether it is what the index means: key, length, checksums.

use std::sync::Arc;

use crate::core::Found;
use crate::engine::Verb;
use crate::engine::memory::Span;
use crate::engine::queue::{Class, Flow};
use crate::error::StoreError;
use crate::get::Reading;
use crate::hash::chunk_seed;
use crate::health::DriveFault;
use crate::namespaces::Namespace;
use crate::record::{Kind, Meta, Shape, UNIT};
use crate::source::tail_checksum;
use crate::store::Shared;
use crate::{CHUNK, PAGE};

/// What reading a block came to.
pub(crate) enum Failure {
    /// The key is another one.
    OtherKey,
    /// The payload does not pass its checksum.
    Payload,
    /// The record's meta does not pass its check.
    Record,
}

impl Shared {
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
    pub(crate) fn check_meta(
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
    pub(crate) async fn read_value(
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
    pub(crate) fn discredit(
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
