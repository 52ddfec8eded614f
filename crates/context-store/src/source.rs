//! A value's memory as the drive wants it, and its checksums.

use crate::engine::memory::Span;
use crate::error::StoreError;
use crate::hash::chunk_seed;
use crate::{CHUNK, PAGE};

/// A value's memory, cut into whole pages for the drive and a private tail.
pub(crate) struct Source {
    pub(crate) body: Vec<Span>,
    pub(crate) tail: Vec<u8>,
}

/// Cuts `len` bytes of spans into pieces that end where a chunk of 1 MiB ends.
///
/// Every span starts on a page boundary, and all but the last hold whole chunks.
pub(crate) fn cut(spans: &[Span], len: usize) -> Result<Vec<Span>, StoreError> {
    let given: usize = spans.iter().map(Span::len).sum();
    let refuse = |reason| {
        Err(StoreError::Memory {
            needed: len,
            given,
            reason,
        })
    };
    if given < len {
        return refuse("it is too small");
    }
    let mut pieces = Vec::with_capacity(len.div_ceil(CHUNK));
    let mut left = len;
    for (number, span) in spans.iter().enumerate() {
        if left == 0 {
            break;
        }
        if !span.is_aligned() {
            return refuse("each span has to start on a multiple of 4096 bytes");
        }
        if !span.len().is_multiple_of(CHUNK) && number + 1 < spans.len() && span.len() < left {
            return refuse("each span but the last has to be a multiple of 1 MiB");
        }
        let mut done = 0;
        while left > 0 && done < span.len() {
            let take = left.min(CHUNK).min(span.len() - done);
            pieces.extend(span.part(done, take));
            done += take;
            left -= take;
        }
    }
    Ok(pieces)
}

/// Cuts a value's memory into body and tail.
pub(crate) fn source(spans: &[Span], len: usize) -> Result<Source, StoreError> {
    let mut body = cut(spans, len)?;
    let mut tail = vec![0; len % PAGE];
    if !tail.is_empty()
        && let Some(last) = body.pop()
    {
        let whole = last.len() - tail.len();
        if let Some(end) = last.part(whole, tail.len()) {
            end.copy_to(&mut tail);
        }
        if whole > 0 {
            body.extend(last.part(0, whole));
        }
    }
    Ok(Source { body, tail })
}

/// Checksums of a value: one per MiB of its body, one of its tail.
pub(crate) fn checksums(seed: u64, source: &Source) -> Vec<u64> {
    let mut sums: Vec<u64> = source
        .body
        .iter()
        .enumerate()
        .map(|(number, chunk)| chunk.hash(chunk_seed(seed, number)))
        .collect();
    if !source.tail.is_empty() {
        sums.push(tail_checksum(seed, source.body.len(), &source.tail));
    }
    sums
}

/// The checksum of a tail that follows `chunks` chunks.
pub(crate) fn tail_checksum(seed: u64, chunks: usize, tail: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot_with_seed(chunk_seed(seed, chunks), tail)
}
