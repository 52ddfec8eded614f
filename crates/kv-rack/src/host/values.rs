//! Values on their way between this node's drives and its peers, through the agent's own buffers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use strand_context_store::{CHUNK, Get, Span, StoreError};
use strand_kv_door::{PutOptions, refused};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Unwanted, Visit};
use crate::frame::{Reply, Spot};
use crate::landing::{Answer, Call, Landing};
use crate::line::{Sending, Source};

/// How long a put waits for buffers.
const PATIENCE: Duration = Duration::from_millis(500);

/// Chunks of one value that are read at once.
const AHEAD: usize = 3;

/// How often a value is looked up again that was replaced by a longer one while it was read.
const LOOKS: usize = 3;

impl Visit {
    pub(super) async fn get(
        &self,
        id: u64,
        cancelled: &AtomicBool,
        spot: &Spot,
        room: usize,
    ) -> Result<Option<Reply>, Unwanted> {
        let Some(blocks) = self.host.drives.get(spot.at.drive) else {
            return Ok(Some(Reply::Away));
        };
        if self.guest.is_over() {
            // The drive may have come after the link ended, and hold what this peer would have deleted first.
            return Err(Unwanted);
        }
        let (store, namespace, key) = (blocks.store(), spot.namespace, spot.at.key.as_slice());
        for _ in 0..LOOKS {
            let Some(length) = store.len_to_read(namespace, key) else {
                return Ok(Some(Reply::Miss));
            };
            if length > room {
                return Ok(Some(Reply::Longer(length as u32)));
            }
            if length > CHUNK {
                return self.stream(id, cancelled, &blocks, spot, room).await;
            }
            let span = self.buffer(cancelled).await?;
            match store.get(namespace, key, std::slice::from_ref(&span)).await {
                Ok(Get::Hit { len, .. }) if len <= room => {
                    let sent = self.send_value(id, span, 0, len, len);
                    return sent.map(|()| None);
                }
                Ok(Get::Miss) => return Ok(Some(Reply::Miss)),
                // It was replaced meanwhile.
                Ok(Get::Hit { .. }) | Err(StoreError::Memory { .. }) => {}
                Err(error) => return Ok(Some(Reply::Refused(refused(error)))),
            }
        }
        Ok(Some(Reply::Miss))
    }

    /// Sends a value of several chunks, each once it is verified, while the next ones are read.
    async fn stream(
        &self,
        id: u64,
        cancelled: &AtomicBool,
        blocks: &strand_kv_door::StoreBlocks,
        spot: &Spot,
        room: usize,
    ) -> Result<Option<Reply>, Unwanted> {
        let opened = (blocks.store()).open_value(spot.namespace, &spot.at.key);
        let value = match opened.await {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(Some(Reply::Miss)),
            Err(error) => return Ok(Some(Reply::Refused(refused(error)))),
        };
        let total = value.len();
        if total > room {
            return Ok(Some(Reply::Longer(total as u32)));
        }
        let read = |number: usize| {
            let value = &value;
            async move {
                let span = self.buffer(cancelled).await?;
                Ok((number, value.read(number, &span).await, span))
            }
        };
        let mut chunks = pin!(
            futures::stream::iter(0..value.chunks())
                .map(read)
                .buffered(AHEAD)
        );
        while let Some(chunk) = chunks.next().await {
            let (number, read, span) = chunk?;
            match read {
                Ok(Some(len)) => self.send_value(id, span, number * CHUNK, len, total)?,
                // What was sent before is right, and will never be complete.
                Ok(None) => return Ok(Some(Reply::Miss)),
                Err(error) => return Ok(Some(Reply::Refused(refused(error)))),
            }
        }
        Ok(None)
    }

    pub(super) async fn part(
        &self,
        id: u64,
        cancelled: &AtomicBool,
        spot: &Spot,
        number: usize,
        digest: u64,
    ) -> Result<Option<Reply>, Unwanted> {
        let value = match self.host.drives.open(spot).await {
            None => return Ok(Some(Reply::Away)),
            Some(Err(refused)) => return Ok(Some(Reply::Refused(refused))),
            Some(Ok(value)) => value,
        };
        let Some(value) = value.filter(|value| value.digest() == digest && number < value.chunks())
        else {
            return Ok(Some(Reply::Miss));
        };
        let span = self.buffer(cancelled).await?;
        match value.read(number, &span).await {
            Ok(Some(len)) => self.send_value(id, span, 0, len, len).map(|()| None),
            Ok(None) => Ok(Some(Reply::Miss)),
            Err(error) => Ok(Some(Reply::Refused(refused(error)))),
        }
    }

    async fn buffer(&self, cancelled: &AtomicBool) -> Result<Span, Unwanted> {
        let taken = self.host.buffers.take(self.guest.holder, 1).await;
        if cancelled.load(Ordering::Relaxed) {
            return Err(Unwanted);
        }
        taken.and_then(|mut spans| spans.pop()).ok_or(Unwanted)
    }

    fn send_value(
        &self,
        id: u64,
        span: Span,
        offset: usize,
        len: usize,
        total: usize,
    ) -> Result<(), Unwanted> {
        let sending = Sending {
            id,
            source: Source::Own(span.part(0, len).ok_or(Unwanted)?),
            offset,
            total,
        };
        self.line.send_value(sending).then_some(()).ok_or(Unwanted)
    }

    pub(super) async fn put(
        self: &Arc<Self>,
        id: u64,
        spot: Spot,
        length: usize,
        options: PutOptions,
    ) -> Result<Reply, Unwanted> {
        let Some(blocks) = self.host.drives.get(spot.at.drive) else {
            return Ok(Reply::Away);
        };
        let (store, key) = (blocks.store(), spot.at.key.as_slice());
        if length == 0 || length > store.largest_value() {
            let error = StoreError::ValueLength { len: length };
            return Ok(Reply::Refused(refused(error)));
        }
        if options.only_if_absent && store.len_of(spot.namespace, key).is_some() {
            return Ok(Reply::Present);
        }
        // What would be dropped is not sent at all.
        if store.would_drop(length).is_some() {
            return Ok(Reply::Dropped);
        }
        let chunks = length.div_ceil(CHUNK);
        let taken = self.host.buffers.take(self.guest.holder, chunks);
        let Ok(Some(mut spans)) = timeout(PATIENCE, taken).await else {
            return Ok(Reply::Dropped);
        };
        if let Some(last) = spans.pop() {
            let rest = length - (chunks - 1) * CHUNK;
            spans.extend(last.part(0, rest));
        }
        let (answer, arrived) = oneshot::channel();
        let call = Call {
            landing: Some(Landing::chunks(spans.clone(), length)),
            answer,
        };
        self.puts.insert(id, call).map_err(|_| Unwanted)?;
        self.line.owed.notify_one();
        self.reply(id, &Reply::Go);
        match arrived.await {
            Ok(Answer::Landed(_)) => {}
            Ok(Answer::Torn) => return Ok(Reply::Torn),
            Ok(Answer::Reply(_)) | Err(_) => return Err(Unwanted),
        }
        let _change = self.guest.change().ok_or(Unwanted)?;
        let stored = blocks.write_spans(spot.namespace, key, spans, options);
        Ok(match stored.await {
            Ok(strand_kv_door::Put::Stored) => Reply::Stored,
            Ok(strand_kv_door::Put::Present) => Reply::Present,
            Ok(strand_kv_door::Put::Dropped) => Reply::Dropped,
            Err(refused) => Reply::Refused(refused),
        })
    }
}
