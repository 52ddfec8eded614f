//! One connection of a pod, from its hello to its end.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strand_kv_client::MAX_KEY;
use strand_kv_client::arena::{AgentArenas, GetSlot};
use strand_kv_client::frame::{
    Code, Header, Hello, Limits, Refusal, Reply, Request, Versions, Welcome,
};
use strand_kv_client::slots::SLOT;
use strand_kv_client::wire::{Broken, Wire, receive_hello, send_hello};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::arenas::Lent;
use crate::door::Pod;
use crate::node::Counted;
use crate::serve::{Done, answer};
use crate::{Blocks, Refused};

/// How long a client may take over its part of the hello.
const HELLO: Duration = Duration::from_secs(5);

/// Requests of a session that may wait for their reply.
const IN_FLIGHT: usize = 512;

/// Replies that a client may leave unread, bytes, before it is taken for dead.
const UNREAD: usize = 2 << 20;

/// Closed when the door is.
pub(crate) type Ends = watch::Receiver<()>;

/// A session after its hello.
pub(crate) struct Session<B: Blocks> {
    pub(crate) pod: Arc<Pod<B>>,
    pub(crate) arenas: Arc<AgentArenas<B::Arena>>,
    epoch: u64,
    wire: Wire,
    open: Mutex<Open<B::Arena>>,
}

/// The ids that mean something now.
struct Open<A> {
    ended: bool,
    asked: HashSet<u64>,
    leases: HashMap<u64, Lease<A>>,
}

/// A value that the pod may read.
struct Lease<A> {
    _slot: Arc<GetSlot<A>>,
    _counted: Counted,
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
        Ok(Err(Turned::Away(refused))) => return refuse(&socket, refused).await,
        Ok(Err(Turned::Gone)) | Err(_) => return,
    };
    let session = Arc::new(Session {
        pod,
        arenas,
        epoch,
        wire: Wire::new(socket),
        open: Mutex::new(Open {
            ended: false,
            asked: HashSet::new(),
            leases: HashMap::new(),
        }),
    });
    let reason = tokio::select! {
        reason = session.read() => reason,
        error = session.wire.flush() => error.to_string(),
        _ = ends.changed() => "the door was closed".into(),
    };
    tracing::debug!(epoch, reason, "session ended");
    session.end();
}

/// Why there is no session.
enum Turned {
    /// Refused, in words.
    Away(Refused),
    /// The client left.
    Gone,
}

type Welcomed<B> = (Arc<AgentArenas<<B as Blocks>::Arena>>, u64);

async fn welcome<B: Blocks>(pod: &Pod<B>, socket: &UnixStream) -> Result<Welcomed<B>, Turned> {
    let malformed = |words: String| Turned::Away(Refused::new(Code::Malformed, words));
    let (body, _descriptors) = receive_hello(socket).await.map_err(|broken| match broken {
        Broken::Malformed(why) => malformed(why.to_string()),
        Broken::Closed | Broken::Io(_) => Turned::Gone,
    })?;
    let hello = Hello::decode(&body).map_err(|why| malformed(why.to_string()))?;
    let version = hello.versions.best().ok_or_else(|| {
        let (ours, theirs) = (Versions::ours(), hello.versions);
        Turned::Away(Refused::new(
            Code::Version,
            format!(
                "this agent speaks versions {} to {} of the native protocol, the client {} to {}; upgrade the older one",
                ours.oldest, ours.newest, theirs.oldest, theirs.newest
            ),
        ))
    })?;
    let lent: Lent<B::Arena> = (pod.arenas.lend(&pod.node.blocks, &hello)).map_err(Turned::Away)?;
    let epoch = pod.node.next_epoch();
    let (arenas, hold, back) = lent.parts();
    let home = Arc::clone(&pod.arenas);
    let counted = Counted::new(&pod.node.tally, |tally| &tally.arenas);
    tokio::spawn(async move {
        back.to(&home).await;
        drop(counted);
    });
    let memory = arenas.memory();
    let welcome = Welcome {
        version: version.number(),
        epoch,
        limits: Limits {
            get_bytes: memory.get_bytes() as u64,
            put_bytes: memory.put_bytes() as u64,
            slot_bytes: SLOT as u32,
            key_bytes: MAX_KEY as u32,
            in_flight: IN_FLIGHT as u32,
        },
    };
    send_welcome(socket, &welcome, &arenas, hold)
        .await
        .map_err(|_| Turned::Gone)?;
    tracing::debug!(epoch, client = ?hello.name, "session opened");
    Ok((arenas, epoch))
}

async fn send_welcome<A>(
    socket: &UnixStream,
    welcome: &Welcome,
    arenas: &AgentArenas<A>,
    hold: OwnedFd,
) -> std::io::Result<()> {
    let [get, put] = arenas.memory().descriptors();
    send_hello(socket, &welcome.encode(), &[get, put, hold.as_fd()]).await
}

/// Says why there is no session. A client that does not listen is not waited for.
pub(crate) async fn refuse(socket: &UnixStream, refused: Refused) {
    let refusal = Refusal {
        code: refused.code.number(),
        versions: Versions::ours(),
        words: refused.words,
    };
    let _ = tokio::time::timeout(HELLO, send_hello(socket, &refusal.encode(), &[])).await;
}

impl<B: Blocks> Session<B> {
    async fn read(self: &Arc<Self>) -> String {
        loop {
            let read = self.wire.read(|header, body| self.take(header, body)).await;
            match read {
                Ok(()) if self.wire.backlog() > UNREAD => {
                    return format!("the client leaves {UNREAD} bytes of replies unread");
                }
                Ok(()) => {}
                Err(broken) => {
                    if let Broken::Malformed(why) = &broken {
                        self.reply(0, &Refused::new(Code::Malformed, why.to_string()).reply());
                    }
                    return broken.to_string();
                }
            }
        }
    }

    /// Takes a frame: a release at once, everything else by a task of its own.
    fn take(self: &Arc<Self>, header: Header, body: &[u8]) -> Result<(), Broken> {
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
            let lease = self.open().leases.remove(&id);
            drop(lease);
            return Ok(());
        }
        if let Err((code, words)) = self.open().admit(id) {
            self.refuse(id, code, words);
            return Ok(());
        }
        let session = Arc::clone(self);
        let counted = Counted::new(&self.pod.node.tally, |tally| &tally.requests);
        tokio::spawn(async move {
            let done = answer(&session, request).await;
            session.finish(id, done);
            drop(counted);
        });
        Ok(())
    }

    fn finish(&self, id: u64, done: Done<B::Arena>) {
        let reply = {
            let mut open = self.open();
            open.asked.remove(&id);
            if open.ended {
                return;
            }
            match done {
                Done::Reply(reply) => reply,
                Done::Hit(landed) => {
                    let reply = Reply::Hit {
                        offset: landed.slot.offset() as u64,
                        length: landed.length as u64,
                    };
                    let counted = Counted::new(&self.pod.node.tally, |tally| &tally.leases);
                    open.leases.insert(
                        id,
                        Lease {
                            _slot: landed.slot,
                            _counted: counted,
                        },
                    );
                    reply
                }
            }
        };
        self.reply(id, &reply);
    }

    /// Gives everything back. Requests that still run keep what they use until they are done.
    fn end(&self) {
        let leases = {
            let mut open = self.open();
            open.ended = true;
            std::mem::take(&mut open.leases)
        };
        drop(leases);
        self.arenas.close();
        self.wire.shut_down();
    }

    fn refuse(&self, id: u64, code: Code, words: impl Into<String>) {
        self.reply(id, &Refused::new(code, words).reply());
    }

    fn reply(&self, id: u64, reply: &Reply) {
        self.wire.send(|out| reply.encode(out, self.epoch, id));
    }

    fn open(&self) -> MutexGuard<'_, Open<B::Arena>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Open<A> {
    fn admit(&mut self, id: u64) -> Result<(), (Code, String)> {
        if self.asked.contains(&id) || self.leases.contains_key(&id) {
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
