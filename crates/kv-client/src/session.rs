//! One connection to an agent, from its hello to its end.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::api::Options;
use crate::arena::{PodArenas, ReadLease, WriteLease};
use crate::frame::{
    Code, Header, Hello, Limits, Malformed, Reply, Request, Version, Versions, Welcome,
};
use crate::wire::{Broken, Wire, receive_hello, send_hello};

/// How long an agent may take to answer a hello.
const HELLO: Duration = Duration::from_secs(5);

/// The longest that a caller polls for its reply.
const MAX_SPIN: Duration = Duration::from_micros(50);

/// Whether polling has been of use: where replies take longer than it lasts, it only keeps a processor from others.
#[derive(Debug, Default)]
struct Spin {
    /// How often in a row it was in vain.
    vain: AtomicU32,
}

impl Spin {
    /// After so many times in vain, it is tried this seldom.
    const PATIENT: u32 = 8;
    const SELDOM: u32 = 64;

    fn worth_it(&self) -> bool {
        let vain = self.vain.load(Ordering::Relaxed);
        if vain < Self::PATIENT {
            return true;
        }
        let vain = self.vain.fetch_add(1, Ordering::Relaxed);
        vain.is_multiple_of(Self::SELDOM)
    }

    fn paid(&self, paid: bool) {
        match paid {
            true => self.vain.store(0, Ordering::Relaxed),
            false => drop(self.vain.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    spin: Spin,
    pub(crate) epoch: u64,
    pub(crate) version: Version,
    pub(crate) limits: Limits,
    pub(crate) arenas: Arc<PodArenas>,
    wire: Wire,
    waiting: Mutex<Waiting>,
    permits: Arc<Semaphore>,
    /// Blocks that may be open.
    pub(crate) open: Arc<Semaphore>,
    /// Puts that may be begun.
    pub(crate) begun: Arc<Semaphore>,
    opened: Instant,
    /// Milliseconds from `opened` to the last reply.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    calls: HashMap<u64, Call>,
    ended: bool,
}

#[derive(Debug)]
struct Call {
    caller: oneshot::Sender<Outcome>,
    /// What the agent may be reading until it replies, also when the caller has given up.
    held: Option<WriteLease>,
    _permit: OwnedSemaphorePermit,
}

/// A reply; or none, since the session ended, and the bytes that the request referred to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Option<Answer>,
    pub(crate) held: Option<WriteLease>,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Block(Block),
    /// A block that is open: bytes, digest.
    Opened(u64, u64, Kept),
    /// A put that is begun.
    Begun(Kept),
    Reply(Reply),
}

impl Answer {
    /// Whether the same may be answered otherwise later.
    pub(crate) fn is_busy(&self) -> bool {
        let busy = Code::Busy.number();
        matches!(self, Self::Reply(Reply::Refused { code, .. }) if *code == busy)
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error("{0}: {1}")]
    Connect(String, std::io::Error),
    #[error("no answer to the hello within {} s", HELLO.as_secs())]
    Silent,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the agent refused: {0}")]
    Refused(#[from] crate::frame::Refusal),
    #[error("the agent chose protocol version {0}, which was not offered")]
    Version(u16),
    #[error("the arenas cannot be mapped: {0}")]
    Arena(std::io::Error),
}

impl Session {
    pub(crate) async fn open(options: &Options) -> Result<Arc<Self>, NoSession> {
        let socket = connect(&options.socket).await?;
        let hello = Hello {
            versions: Versions::ours(),
            get_bytes: options.get_bytes,
            put_bytes: options.put_bytes,
            name: options.name.clone(),
        };
        let exchange = async {
            // A refusal may be there already, from an agent that does not want a hello.
            let sent = send_hello(&socket, &hello.encode(), &[]).await;
            let answer = receive_hello(&socket).await;
            match (sent, answer) {
                (_, Ok(answer)) => Ok(answer),
                (Err(error), Err(_)) => Err(Broken::Io(error)),
                (Ok(()), Err(broken)) => Err(broken),
            }
        };
        let (body, descriptors) = tokio::time::timeout(HELLO, exchange)
            .await
            .map_err(|_| NoSession::Silent)??;
        let welcome = Welcome::decode(&body).map_err(Broken::Malformed)??;
        let version = Version::of(welcome.version).ok_or(NoSession::Version(welcome.version))?;
        let limits = welcome.limits;
        let descriptors = <[_; 3]>::try_from(descriptors).map_err(|had| {
            Broken::from(Malformed(format!(
                "a welcome with {} descriptors",
                had.len()
            )))
        })?;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let arenas = PodArenas::map(descriptors, size(limits.get_bytes), size(limits.put_bytes))
            .map_err(NoSession::Arena)?;
        Ok(Arc::new(Self {
            spin: Spin::default(),
            epoch: welcome.epoch,
            version,
            limits,
            arenas,
            wire: Wire::new(socket),
            waiting: Mutex::default(),
            permits: permits(limits.in_flight),
            open: permits(limits.open),
            begun: permits(limits.begun),
            opened: Instant::now(),
            heard: AtomicU64::new(0),
        }))
    }

    /// Reads replies and sends what could not be sent at once, until the connection ends; why it did.
    pub(crate) async fn run(self: &Arc<Self>) -> String {
        let reading = async {
            loop {
                let read = self.wire.read(|header, body| self.take(header, body)).await;
                if let Err(broken) = read {
                    return broken.to_string();
                }
            }
        };
        tokio::select! {
            reason = reading => reason,
            error = self.wire.flush() => error.to_string(),
        }
    }

    /// Ends the session: calls in flight learn that they have no answer. Blocks stay readable.
    pub(crate) fn end(&self) {
        let calls = {
            let mut waiting = self.waiting();
            waiting.ended = true;
            std::mem::take(&mut waiting.calls)
        };
        self.permits.close();
        self.open.close();
        self.begun.close();
        self.arenas.close();
        self.wire.shut_down();
        for (_, call) in calls {
            let _ = call.caller.send(Outcome {
                answer: None,
                held: call.held,
            });
        }
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: &Request,
        held: Option<WriteLease>,
        spin: Duration,
    ) -> Outcome {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Outcome { answer: None, held };
        };
        let (caller, mut answer) = oneshot::channel();
        let call = Call {
            caller,
            held,
            _permit: permit,
        };
        let (id, alone) = match self.waiting().add(call) {
            Ok(added) => added,
            Err(call) => {
                return Outcome {
                    answer: None,
                    held: call.held,
                };
            }
        };
        let encode = |out: &mut Vec<u8>| request.encode(out, self.epoch, id);
        match alone {
            true => self.wire.send(encode),
            // Replies that came together let their callers go on together: one system call for what all of them ask.
            false => self.wire.send_with_others(encode),
        }
        if alone && !spin.is_zero() && self.spin.worth_it() {
            let until = Instant::now() + spin.min(MAX_SPIN);
            while Instant::now() < until {
                match self.wire.poll(|header, body| self.take(header, body)) {
                    Ok(true) => {}
                    Ok(false) => std::hint::spin_loop(),
                    Err(_) => {
                        self.end();
                        break;
                    }
                }
                if let Ok(outcome) = answer.try_recv() {
                    self.spin.paid(true);
                    return outcome;
                }
            }
            self.spin.paid(false);
        }
        answer.await.unwrap_or(Outcome {
            answer: None,
            held: None,
        })
    }

    /// Whether it has ended, or is about to.
    pub(crate) fn has_ended(&self) -> bool {
        self.waiting().ended
    }

    /// How long ago the agent was last heard.
    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(heard)
    }

    fn take(self: &Arc<Self>, header: Header, body: &[u8]) -> Result<(), Broken> {
        if header.epoch != self.epoch {
            return Err(Malformed(format!("a reply of session {}", header.epoch)).into());
        }
        let reply = Reply::decode(header.operation, body)?;
        let heard = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(heard, Ordering::Relaxed);
        let Some(call) = self.waiting().calls.remove(&header.id) else {
            return Err(Malformed(format!("a reply to {}, which was not asked", header.id)).into());
        };
        let kept = |at_once| Kept {
            session: Arc::clone(self),
            id: header.id,
            at_once,
        };
        let answer = match reply {
            Reply::Hit { offset, length } => Answer::Block(Block {
                lease: self
                    .arenas
                    .read(offset, length)
                    .ok_or_else(|| Malformed(format!("a hit at {offset}, outside GET")))?,
                _kept: kept(length > self.limits.get_bytes / 8),
            }),
            Reply::Opened { length, digest } => Answer::Opened(length, digest, kept(true)),
            Reply::Begun => Answer::Begun(kept(true)),
            other => Answer::Reply(other),
        };
        // At once, and not when the caller comes round to it: others wait for the room.
        drop(call.held);
        // A caller that gave up: a block goes back by its drop.
        let _ = call.caller.send(Outcome {
            answer: Some(answer),
            held: None,
        });
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The call's id, and whether it is the only one; the call itself where the session has ended.
    fn add(&mut self, call: Call) -> Result<(u64, bool), Call> {
        if self.ended {
            return Err(call);
        }
        self.next_id += 1;
        self.calls.insert(self.next_id, call);
        Ok((self.next_id, self.calls.len() == 1))
    }
}

async fn connect(path: &Path) -> Result<UnixStream, NoSession> {
    UnixStream::connect(path)
        .await
        .map_err(|error| NoSession::Connect(path.display().to_string(), error))
}

/// A value that was found: its bytes in the GET arena, readable until this is dropped.
///
/// `Send + Sync + 'static` and `AsRef<[u8]>`, so that `bytes::Bytes::from_owner(block)` works. Hold it briefly:
/// its 1 MiB slots are what other gets wait for. It stays readable over an agent's restart.
#[derive(Debug)]
pub struct Block {
    lease: ReadLease,
    _kept: Kept,
}

/// What the agent keeps under a request's id, until dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    session: Arc<Session>,
    pub(crate) id: u64,
    /// Whether others are likely to wait for it.
    at_once: bool,
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.lease
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Self {
            session,
            id,
            at_once,
        } = self;
        let release = |out: &mut Vec<u8>| Request::Release.encode(out, session.epoch, *id);
        match at_once {
            true => session.wire.send(release),
            false => session.wire.push(release),
        }
    }
}

fn permits(count: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.clamp(1, 1 << 16) as usize))
}
