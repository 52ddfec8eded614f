//! The owner's side of a link: requests of peers about this node's own drives.

mod values;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strand_kv_door::Refused;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, sleep};

use crate::buffers::Buffers;
use crate::calls::Calls;
use crate::drives::Drives;
use crate::frame::{Lane, Malformed, Reply, Request};
use crate::guests::{Guest, Guests};
use crate::inbox::{End, Faults, Inbox};
use crate::landing::Call;
use crate::line::Line;
use crate::pulse::Pulse;
use crate::seal::{Opener, Sealer};

/// How often the owner says that a request still waits for its drive: well inside a reader's 50 ms.
const WORKING: Duration = Duration::from_millis(20);

/// Time without progress after which a peer that owes bytes, or does not read, is let go.
const STALLED: Duration = Duration::from_secs(2);

/// Requests of a connection that may be under way. A peer that asks for more is not ours.
const REQUESTS: usize = 4096;

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

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicBool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
