//! One connection of a pod, from its hello to its end.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use strand_context_store::together;
use strand_kv_client::arena::{AgentArenas, GetSlot};
use strand_kv_client::frame::{Code, Header, Reply, Request};
use strand_kv_client::wire::{Broken, Wire};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::blocks::Opened;
use crate::door::Pod;
use crate::greet::{HELLO, Turned, refuse, welcome};
use crate::node::{Counted, Tally};
use crate::serve::{Done, answer};
use crate::streams::{Gathering, OpenBlock};
use crate::{Blocks, Refused, meter};

/// Requests of a session that may wait for their reply.
pub(crate) const IN_FLIGHT: usize = 512;

/// Requests whose replies may wait for one another: each may have verified a MiB.
const TOGETHER: usize = 8;

/// Replies that a client may leave unread, bytes, before it is taken for dead.
const UNREAD: usize = 2 << 20;

/// How often streams are looked at that take too long.
const SWEEP: Duration = Duration::from_secs(5);

/// Closed when the door is.
pub(crate) type Ends = watch::Receiver<()>;

/// A session after its hello.
pub(crate) struct Session<B: Blocks> {
    pub(crate) pod: Arc<Pod<B>>,
    pub(crate) arenas: Arc<AgentArenas<B::Arena>>,
    epoch: u64,
    wire: Wire,
    open: Mutex<Open<B>>,
}

/// The ids that mean something now.
struct Open<B: Blocks> {
    ended: bool,
    asked: HashSet<u64>,
    held: HashMap<u64, (Held<B>, Counted)>,
}

/// What a pod has, until it releases it.
enum Held<B: Blocks> {
    /// A value that it may read.
    Slot { _slot: Arc<GetSlot<B::Arena>> },
    /// A block that it reads in parts.
    Open(Arc<OpenBlock<B::Opened>>),
    /// A put that it sends in parts.
    Begun(Arc<Gathering>),
}

impl<B: Blocks> Held<B> {
    fn is_over(&self, now: Instant) -> bool {
        match self {
            Self::Slot { .. } => false,
            Self::Open(open) => open.until < now,
            Self::Begun(begun) => begun.until < now,
        }
    }
}

/// A request that was let in.
struct Asked {
    id: u64,
    request: Request,
    began: Instant,
    counted: Counted,
}

/// Serves a connection until it ends, and brings its arenas home.
pub(crate) async fn serve<B: Blocks>(pod: Arc<Pod<B>>, socket: UnixStream, mut ends: Ends) {
    let _counted = Counted::new(&pod.node.tally, |tally| &tally.sessions);
    let welcomed = tokio::select! {
        welcomed = tokio::time::timeout(HELLO, welcome(&pod, &socket)) => welcomed,
        _ = ends.changed() => return,
    };
    let (arenas, epoch) = match welcomed {
        Ok(Ok(welcomed)) => welcomed,
        Ok(Err(Turned::Away(refused))) => {
            pod.node.refused.add(1);
            return refuse(&socket, refused).await;
        }
        Ok(Err(Turned::Gone)) | Err(_) => return,
    };
    pod.node.opened.add(1);
    let session = Arc::new(Session {
        pod,
        arenas,
        epoch,
        wire: Wire::new(socket),
        open: Mutex::new(Open {
            ended: false,
            asked: HashSet::new(),
            held: HashMap::new(),
        }),
    });
    let reason = tokio::select! {
        reason = session.read() => reason,
        error = session.wire.flush() => error.to_string(),
        never = session.sweep() => never,
        _ = ends.changed() => "the door was closed".into(),
    };
    tracing::debug!(epoch, reason, "session ended");
    session.end();
}

impl<B: Blocks> Session<B> {
    /// Takes requests and answers them, all on this task: waking another one takes longer than most requests do, and
    /// replies that are ready together leave together.
    async fn read(self: &Arc<Self>) -> String {
        let mut asked = Vec::new();
        let mut running = FuturesUnordered::new();
        loop {
            let read = tokio::select! {
                biased;
                // Requests that came together ask their drives together.
                Some(()) = poll_fn(|context| together(|| running.poll_next_unpin(context))) => {
                    for _ in 1..TOGETHER {
                        if running.next().now_or_never().flatten().is_none() {
                            break;
                        }
                    }
                    Ok(())
                }
                read = self.wire.read(|header, body| self.take(header, body, &mut asked)) => read,
            };
            if let Err(Broken::Malformed(why)) = &read {
                self.reply(0, &Refused::new(Code::Malformed, why.to_string()).reply());
            }
            self.wire.send_appended();
            if let Err(broken) = read {
                return broken.to_string();
            }
            if self.wire.backlog() > UNREAD {
                return format!("the client leaves {UNREAD} bytes of replies unread");
            }
            running.extend(asked.drain(..).map(|one| self.answer(one)));
        }
    }

    async fn answer(&self, asked: Asked) {
        let operation = meter::operation(&asked.request);
        let done = answer(self, asked.request).await;
        self.finish(asked.id, done, |reply| {
            let took = asked.began.elapsed();
            self.pod.meter.answered(operation, reply, took);
        });
        drop(asked.counted);
    }

    /// Takes a frame: a release at once, everything else if it may come in.
    fn take(
        self: &Arc<Self>,
        header: Header,
        body: &[u8],
        asked: &mut Vec<Asked>,
    ) -> Result<(), Broken> {
        let Header {
            id,
            epoch,
            operation,
            ..
        } = header;
        if epoch != self.epoch {
            self.refuse(
                id,
                Code::Epoch,
                "the frame is of another session; reconnect",
            );
            return Ok(());
        }
        let Some(request) = Request::decode(operation, body)? else {
            let words = format!("operation {operation} is none of version 1");
            self.refuse(id, Code::Unknown, words);
            return Ok(());
        };
        if request == Request::Release {
            let held = self.open().held.remove(&id);
            drop(held);
            return Ok(());
        }
        if let Err((code, words)) = self.open().admit(id) {
            self.refuse(id, code, words);
            return Ok(());
        }
        let counted = Counted::new(&self.pod.node.tally, |tally| &tally.requests);
        asked.push(Asked {
            id,
            request,
            began: Instant::now(),
            counted,
        });
        Ok(())
    }

    fn finish(&self, id: u64, done: Done<B>, counted: impl FnOnce(&Reply)) {
        let tally = &self.pod.node.tally;
        let reply = {
            let mut open = self.open();
            open.asked.remove(&id);
            if open.ended {
                return;
            }
            let tallied = |of: fn(&Tally) -> &AtomicUsize| Counted::new(tally, of);
            let (held, reply) = match done {
                Done::Reply(reply) => (None, reply),
                Done::Hit(landed) => {
                    let reply = Reply::Hit {
                        offset: landed.slot.offset() as u64,
                        length: landed.length as u64,
                    };
                    let held = Held::Slot { _slot: landed.slot };
                    (Some((held, tallied(|tally| &tally.leases))), reply)
                }
                Done::Opened(block) => {
                    let reply = Reply::Opened {
                        length: block.block.length(),
                        digest: block.block.digest(),
                    };
                    let held = Held::Open(Arc::new(block));
                    (Some((held, tallied(|tally| &tally.streams))), reply)
                }
                Done::Begun(begun) => {
                    let held = Held::Begun(Arc::new(begun));
                    (Some((held, tallied(|tally| &tally.streams))), Reply::Begun)
                }
            };
            open.held.extend(held.map(|held| (id, held)));
            reply
        };
        counted(&reply);
        self.reply(id, &reply);
    }

    /// The block that is open under this id.
    pub(crate) fn opened(&self, id: u64) -> Result<Arc<OpenBlock<B::Opened>>, Refused> {
        match self.open().held.get(&id) {
            Some((Held::Open(open), _)) => Ok(Arc::clone(open)),
            _ => Err(gone(id)),
        }
    }

    /// The put that was begun under this id.
    pub(crate) fn begun(&self, id: u64) -> Result<Arc<Gathering>, Refused> {
        match self.open().held.get(&id) {
            Some((Held::Begun(begun), _)) => Ok(Arc::clone(begun)),
            _ => Err(gone(id)),
        }
    }

    /// The put that was begun under this id, which is free from now on.
    pub(crate) fn committed(&self, id: u64) -> Result<Arc<Gathering>, Refused> {
        let begun = self.begun(id)?;
        let held = self.open().held.remove(&id);
        drop(held);
        Ok(begun)
    }

    /// Closes what takes too long. Ends with the session.
    async fn sweep(&self) -> ! {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            let over: Vec<_> = {
                let mut open = self.open();
                open.held
                    .extract_if(|_, (held, _)| held.is_over(now))
                    .collect()
            };
            if !over.is_empty() {
                tracing::debug!(
                    epoch = self.epoch,
                    streams = over.len(),
                    "given up: too slow"
                );
            }
        }
    }

    /// Gives everything back. Requests that still run keep what they use until they are done.
    fn end(&self) {
        let held = {
            let mut open = self.open();
            open.ended = true;
            std::mem::take(&mut open.held)
        };
        drop(held);
        self.arenas.close();
        self.wire.shut_down();
    }

    fn refuse(&self, id: u64, code: Code, words: impl Into<String>) {
        self.reply(id, &Refused::new(code, words).reply());
    }

    fn reply(&self, id: u64, reply: &Reply) {
        self.wire.append(|out| reply.encode(out, self.epoch, id));
    }

    fn open(&self) -> MutexGuard<'_, Open<B>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone(id: u64) -> Refused {
    let words = format!("nothing is open under {id}; it was released, or took too long");
    Refused::new(Code::Gone, words)
}

impl<B: Blocks> Open<B> {
    fn admit(&mut self, id: u64) -> Result<(), (Code, String)> {
        if self.asked.contains(&id) || self.held.contains_key(&id) {
            return Err((Code::Id, format!("id {id} is in use; release it first")));
        }
        if self.asked.len() >= IN_FLIGHT {
            let words = format!("{IN_FLIGHT} requests are in flight; wait for replies");
            return Err((Code::Busy, words));
        }
        self.asked.insert(id);
        Ok(())
    }
}
