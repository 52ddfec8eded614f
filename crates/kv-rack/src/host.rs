//! The owner's side of a link: requests of peers about this node's own drives.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use strand_context_store::{CHUNK, Get, Span, StoreError};
use strand_kv_door::{PutOptions, Refused, refused};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, sleep, timeout};

use crate::buffers::Buffers;
use crate::calls::Calls;
use crate::drives::Drives;
use crate::frame::{Lane, Malformed, Reply, Request, Spot};
use crate::guests::{Guest, Guests};
use crate::inbox::{End, Faults, Inbox};
use crate::landing::{Answer, Call, Landing};
use crate::line::{Line, Pulse, Sending, Source};
use crate::seal::{Opener, Sealer};

/// How often the owner says that a request still waits for its drive: well inside a reader's 50 ms.
const WORKING: Duration = Duration::from_millis(20);

/// How long a put waits for buffers.
const PATIENCE: Duration = Duration::from_millis(500);

/// Chunks of one value that are read at once.
const AHEAD: usize = 3;

/// Time without progress after which a peer that owes bytes, or does not read, is let go.
const STALLED: Duration = Duration::from_secs(2);

/// Requests of a connection that may be under way. A peer that asks for more is not ours.
const REQUESTS: usize = 4096;

/// How often a value is looked up again that was replaced by a longer one while it was read.
const LOOKS: usize = 3;

/// What this node serves to its peers.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) drives: Drives,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) guests: Guests,
    pub(crate) faults: Faults,
}

/// One connection of a peer.
struct Visit {
    host: Arc<Host>,
    guest: Arc<Guest>,
    line: Line,
    /// Puts whose bytes come.
    puts: Calls<Call>,
    running: Mutex<HashMap<u64, Arc<AtomicBool>>>,
}

/// The request was given up, or its connection ended: nobody waits for a reply.
struct Unwanted;

impl Host {
    /// Serves a connection whose hello is over, until it ends.
    pub(crate) async fn serve(
        self: Arc<Self>,
        guest: Arc<Guest>,
        lane: Lane,
        socket: TcpStream,
        (sealer, opener): (Sealer, Opener),
    ) {
        let visit = Arc::new(Visit {
            line: Line::new(socket, sealer, Arc::new(Pulse::default())),
            host: self,
            guest,
            puts: Calls::default(),
            running: Mutex::default(),
        });
        let mut first = [0];
        tokio::select! {
            () = visit.guest.ready() => {}
            // Nothing may come before the session is ready: the peer is gone, or not ours.
            _ = visit.line.socket.peek(&mut first) => return,
        }
        visit.line.send(0, |out| Reply::Ready.encode(out));
        let inbox = Inbox::new(opener, lane == Lane::Bulk);
        let faults = &visit.host.faults;
        let line = &visit.line;
        let reading = inbox.run(
            &line.socket,
            &line.pulse,
            &visit.puts,
            faults,
            |header, body| visit.take(header.operation, header.id, body),
        );
        let end = tokio::select! {
            end = reading => end,
            error = line.flush() => End::Io(error),
            () = visit.guest.ended() => End::Closed,
            () = visit.stalled() => End::Io(std::io::ErrorKind::TimedOut.into()),
        };
        tracing::debug!(%end, "a peer's connection ended");
        visit.puts.close();
        // Requests that still run may wait for the buffers that are queued here.
        visit.line.close();
        for cancelled in visit.running().values() {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
}

impl Visit {
    /// Returns once the peer neither takes nor gives what it should.
    async fn stalled(&self) {
        loop {
            // An idle connection costs nothing.
            self.line.owed.notified().await;
            while self.line.backlog() || self.puts.len() > 0 {
                sleep(STALLED / 4).await;
                if self.line.pulse.last().elapsed() > STALLED {
                    return;
                }
            }
        }
    }

    /// Takes a frame: what is answered from memory at once, all else by a task of its own.
    fn take(self: &Arc<Self>, operation: u16, id: u64, body: &[u8]) -> Result<(), Malformed> {
        let Some(request) = Request::decode(operation, body)? else {
            let words = format!("operation {operation} is none of version 1");
            self.reply(
                id,
                &Reply::Refused(Refused::new(strand_kv_client::frame::Code::Unknown, words)),
            );
            return Ok(());
        };
        match request {
            Request::Cancel => {
                if let Some(cancelled) = self.running().get(&id) {
                    cancelled.store(true, Ordering::Relaxed);
                }
                self.puts.give_up(id);
                self.line.forget(id);
            }
            Request::Exists { namespace, keys } => {
                let bits = self.host.drives.exists(namespace, &keys);
                self.reply(id, &Reply::Bits(bits));
            }
            Request::LeadingRun { namespace, keys } => {
                let run = self.host.drives.leading_run(namespace, &keys);
                self.reply(id, &Reply::Count(run as u64));
            }
            request => {
                let cancelled = Arc::new(AtomicBool::new(false));
                {
                    let mut running = self.running();
                    if running.len() >= REQUESTS {
                        return Err(Malformed::new("too many requests at once"));
                    }
                    running.insert(id, Arc::clone(&cancelled));
                }
                let visit = Arc::clone(self);
                tokio::spawn(async move {
                    let reply = visit
                        .working(id, visit.answer(id, &cancelled, request))
                        .await;
                    visit.running().remove(&id);
                    if let Ok(Some(reply)) = reply {
                        visit.reply(id, &reply);
                    }
                });
            }
        }
        Ok(())
    }

    /// Says now and then that the request is not forgotten.
    async fn working<T>(&self, id: u64, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        let mut tick = interval_at(Instant::now() + WORKING, WORKING);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = tick.tick() => self.reply(id, &Reply::Working),
            }
        }
    }

    fn reply(&self, id: u64, reply: &Reply) {
        self.line.send(id, |out| reply.encode(out));
    }

    /// The reply, or none where pieces of a value were it.
    async fn answer(
        self: &Arc<Self>,
        id: u64,
        cancelled: &AtomicBool,
        request: Request,
    ) -> Result<Option<Reply>, Unwanted> {
        let drives = &self.host.drives;
        let reply = match request {
            Request::Get { spot, room } => {
                return self.get(id, cancelled, &spot, room as usize).await;
            }
            Request::Put {
                spot,
                length,
                options,
            } => self.put(id, spot, length as usize, options).await?,
            Request::Open(spot) => match drives.open(&spot).await {
                None => Reply::Away,
                Some(Ok(None)) => Reply::Miss,
                Some(Ok(Some(value))) => Reply::Opened(value.len() as u64, value.digest()),
                Some(Err(refused)) => Reply::Refused(refused),
            },
            Request::Part {
                spot,
                number,
                digest,
            } => {
                return self
                    .part(id, cancelled, &spot, number as usize, digest)
                    .await;
            }
            Request::Describe(spot) => match drives.describe(&spot).await {
                None => Reply::Away,
                Some(Ok(None)) => Reply::Miss,
                Some(Ok(Some(described))) => Reply::Described(described),
                Some(Err(refused)) => Reply::Refused(refused),
            },
            Request::Expire(spot, left) => {
                let _change = self.guest.change().ok_or(Unwanted)?;
                match drives.expire(&spot, left).await {
                    None => Reply::Away,
                    Some(Ok(there)) => Reply::Count(there.into()),
                    Some(Err(refused)) => Reply::Refused(refused),
                }
            }
            Request::Delete(spots) => {
                let _change = self.guest.change().ok_or(Unwanted)?;
                let mut outcomes = Vec::with_capacity(spots.len());
                for spot in &spots {
                    outcomes.push(drives.delete(spot).await);
                }
                Reply::Deleted(outcomes)
            }
            Request::Flush {
                namespace,
                drives: wanted,
            } => {
                let _change = self.guest.change().ok_or(Unwanted)?;
                match drives.flush(namespace, wanted).await {
                    None => Reply::Away,
                    Some(Ok(())) => Reply::Done,
                    Some(Err(refused)) => Reply::Refused(refused),
                }
            }
            Request::Scan {
                namespace,
                drive,
                cursor,
                limit,
            } => match drives.scan(drive, namespace, cursor, limit as usize).await {
                None => Reply::Away,
                Some(Ok(page)) => Reply::Page(page),
                Some(Err(refused)) => Reply::Refused(refused),
            },
            Request::Totals(namespace) => Reply::Totals(drives.totals(namespace).await),
            // Answered where they were taken.
            Request::Exists { .. } | Request::LeadingRun { .. } | Request::Cancel => {
                return Ok(None);
            }
        };
        Ok(Some(reply))
    }

    async fn get(
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
            let Some(length) = store.len_of(namespace, key) else {
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

    async fn part(
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

    async fn put(
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

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicBool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
