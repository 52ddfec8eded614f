//! The asking side of a link: two connections to one peer, the requests that wait on them, and the watch over both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strand_context_store::{Namespace, Span};
use strand_kv_door::{PutOptions, Refused};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};

use crate::calls::Calls;
use crate::frame::{Hello, Key, Lane, Malformed, Reply, Request, Spot, VERSION};
use crate::greet::{self, Estranged};
use crate::inbox::{End, Faults, Inbox};
use crate::landing::{Answer, Call, Landing};
use crate::line::{Line, Sending, Source};
use crate::options::RackOptions;
use crate::pulse::Pulse;
use crate::seal::{self, Opener};

/// How long one request may take over a peer that is otherwise well.
const REQUEST: Duration = Duration::from_secs(10);

/// Requests of a connection that may wait; beyond them callers get a miss at once. Less than the owner allows.
const REQUESTS: usize = 2048;

/// A peer that is connected.
pub(crate) struct Link {
    small: Half,
    bulk: Half,
    pulse: Arc<Pulse>,
    faults: Arc<Faults>,
    patience: Duration,
    /// A request began while none was waiting.
    busy: Notify,
    ended: watch::Sender<bool>,
    /// Requests that took too long.
    pub(crate) timeouts: AtomicU64,
}

struct Half {
    line: Line,
    calls: Calls<Call>,
}

/// What the two tasks that read need besides the link.
pub(crate) struct Ends {
    small: Inbox,
    bulk: Inbox,
}

/// The peer did not answer: it is dead, or this request took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// How a remote get ended.
pub(crate) enum Got {
    /// The bytes lie in the slot.
    Landed(usize),
    /// More bytes than there was room for.
    Longer(usize),
    /// No such block, or a piece was torn on its way.
    Miss,
    /// The peer has no such drive now.
    Away,
    /// The peer refused.
    Refused(Refused),
}

impl Link {
    /// Connects both lanes, and waits until the peer has done with whatever was asked over an earlier link.
    pub(crate) async fn connect(
        options: &RackOptions,
        address: &str,
        faults: Arc<Faults>,
    ) -> Result<(Arc<Self>, Ends), Estranged> {
        let pulse = Arc::new(Pulse::default());
        let link = u128::from_le_bytes(seal::random()?);
        let (small, small_in) = lane(options, address, Lane::Small, link, &pulse).await?;
        let (bulk, bulk_in) = lane(options, address, Lane::Bulk, link, &pulse).await?;
        let link = Self {
            small,
            bulk,
            pulse,
            faults,
            patience: options.patience,
            busy: Notify::new(),
            ended: watch::Sender::new(false),
            timeouts: AtomicU64::new(0),
        };
        let mut ends = Ends {
            small: Inbox::new(small_in, false),
            bulk: Inbox::new(bulk_in, true),
        };
        (ends.small)
            .ready(&link.small.line.socket, &link.pulse)
            .await?;
        (ends.bulk)
            .ready(&link.bulk.line.socket, &link.pulse)
            .await?;
        Ok((Arc::new(link), ends))
    }

    /// Carries the link until it ends; why it did.
    pub(crate) async fn run(&self, ends: Ends) -> String {
        let mut ended = self.ended.subscribe();
        let why = tokio::select! {
            end = self.read(&self.small, ends.small) => end.to_string(),
            end = self.read(&self.bulk, ends.bulk) => end.to_string(),
            error = self.small.line.flush() => error.to_string(),
            error = self.bulk.line.flush() => error.to_string(),
            () = self.watch() => format!("no progress in {} ms", self.patience.as_millis()),
            _ = ended.wait_for(|ended| *ended) => "it is no longer needed".to_owned(),
        };
        self.small.calls.close();
        self.bulk.calls.close();
        self.small.line.close();
        self.bulk.line.close();
        why
    }

    /// Ends the link.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(crate) fn bytes(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.pulse.bytes_in), load(&self.pulse.bytes_out))
    }

    async fn read(&self, half: &Half, inbox: Inbox) -> End {
        let on = |header: crate::frame::Header, body: &[u8]| {
            let reply = Reply::decode(header.operation, body)?
                .ok_or_else(|| Malformed(format!("reply {}", header.operation)))?;
            if !matches!(reply, Reply::Working | Reply::Ready)
                && let Some(call) = half.calls.take(header.id)
            {
                let _ = call.answer.send(Answer::Reply(reply));
            }
            Ok(())
        };
        let (socket, faults) = (&half.line.socket, &self.faults);
        (inbox.run(socket, &self.pulse, &half.calls, faults, on)).await
    }

    /// Returns once requests wait and nothing has gone over the link for too long.
    async fn watch(&self) {
        loop {
            self.busy.notified().await;
            while self.waiting() > 0 {
                let deadline = self.pulse.last() + self.patience;
                tokio::time::sleep_until(deadline.into()).await;
                let now = Instant::now();
                if self.waiting() == 0 || self.pulse.last() + self.patience > now {
                    continue;
                }
                if now > deadline + self.patience / 2 {
                    // This process itself was held up, and cannot tell about the peer.
                    self.pulse.touch();
                    continue;
                }
                return;
            }
        }
    }

    /// Requests that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.small.calls.len() + self.bulk.calls.len()
    }

    fn begin<'a>(&'a self, half: &'a Half, call: Call) -> Result<Waiting<'a>, Lost> {
        if half.calls.len() >= REQUESTS {
            return Err(Lost);
        }
        let idle = self.waiting() == 0;
        if idle {
            self.pulse.touch();
        }
        let id = half.calls.open(call).map_err(|_| Lost)?;
        if idle {
            self.busy.notify_one();
        }
        Ok(Waiting {
            link: self,
            half,
            id,
        })
    }

    /// Asks what is answered without a value.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, Lost> {
        let (answer, receiver) = oneshot::channel();
        let call = Call {
            landing: None,
            answer,
        };
        let waiting = self.begin(&self.small, call)?;
        self.small.line.send(waiting.id, |out| request.encode(out));
        match waiting.answer(receiver).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Landed(_) | Answer::Torn => Err(Lost),
        }
    }

    /// Reads a value into a slot.
    pub(crate) async fn get(
        &self,
        namespace: Namespace,
        at: Key,
        slot: Option<Span>,
    ) -> Result<Got, Lost> {
        let (answer, receiver) = oneshot::channel();
        let room = slot.as_ref().map_or(0, Span::len) as u32;
        let call = Call {
            landing: slot.map(Landing::slot),
            answer,
        };
        let waiting = self.begin(&self.bulk, call)?;
        let spot = Spot { namespace, at };
        let request = Request::Get { spot, room };
        self.bulk.line.send(waiting.id, |out| request.encode(out));
        waiting.value(receiver).await
    }

    /// Reads a chunk of an opened value into a slot.
    pub(crate) async fn part(
        &self,
        spot: Spot,
        number: u32,
        digest: u64,
        slot: Span,
    ) -> Result<Got, Lost> {
        let (answer, receiver) = oneshot::channel();
        let call = Call {
            landing: Some(Landing::slot(slot)),
            answer,
        };
        let waiting = self.begin(&self.bulk, call)?;
        let request = Request::Part {
            spot,
            number,
            digest,
        };
        self.bulk.line.send(waiting.id, |out| request.encode(out));
        waiting.value(receiver).await
    }

    /// Stores a value: one span of a pod's bytes, or the agent's own in chunks.
    pub(crate) async fn put(
        &self,
        namespace: Namespace,
        at: Key,
        value: Vec<Span>,
        options: PutOptions,
    ) -> Result<Reply, Lost> {
        let total = value.iter().map(Span::len).sum();
        let (answer, receiver) = oneshot::channel();
        let call = Call {
            landing: None,
            answer,
        };
        if self.bulk.calls.len() >= REQUESTS {
            return Ok(Reply::Dropped);
        }
        let waiting = self.begin(&self.bulk, call)?;
        let request = Request::Put {
            spot: Spot { namespace, at },
            length: u32::try_from(total).map_err(|_| Lost)?,
            options,
        };
        let (id, line) = (waiting.id, &self.bulk.line);
        line.send(id, |out| request.encode(out));
        match waiting.receive(receiver).await? {
            Answer::Reply(Reply::Go) => {}
            Answer::Reply(reply) => return Ok(reply),
            Answer::Landed(_) | Answer::Torn => return Err(Lost),
        }
        let (answer, receiver) = oneshot::channel();
        let call = Call {
            landing: None,
            answer,
        };
        self.bulk.calls.insert(id, call).map_err(|_| Lost)?;
        let mut offset = 0;
        for span in value {
            let length = span.len();
            let source = Source::Kept(span);
            let sending = Sending {
                id,
                source,
                offset,
                total,
            };
            if !line.send_value(sending) {
                return Err(Lost);
            }
            offset += length;
        }
        match waiting.answer(receiver).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Landed(_) | Answer::Torn => Err(Lost),
        }
    }
}

/// A request that waits for its answer. Dropped before, it is given up: whatever still comes is nobody's.
struct Waiting<'a> {
    link: &'a Link,
    half: &'a Half,
    id: u64,
}

impl Waiting<'_> {
    /// The answer to a question for a value.
    async fn value(self, receiver: oneshot::Receiver<Answer>) -> Result<Got, Lost> {
        Ok(match self.receive(receiver).await? {
            Answer::Landed(length) => Got::Landed(length),
            Answer::Reply(Reply::Longer(length)) => Got::Longer(length as usize),
            Answer::Reply(Reply::Away) => Got::Away,
            Answer::Reply(Reply::Refused(refused)) => Got::Refused(refused),
            Answer::Reply(_) | Answer::Torn => Got::Miss,
        })
    }

    async fn answer(self, receiver: oneshot::Receiver<Answer>) -> Result<Answer, Lost> {
        self.receive(receiver).await
    }

    async fn receive(&self, receiver: oneshot::Receiver<Answer>) -> Result<Answer, Lost> {
        match tokio::time::timeout(REQUEST, receiver).await {
            Ok(answer) => answer.map_err(|_| Lost),
            Err(_) => {
                self.link.timeouts.fetch_add(1, Ordering::Relaxed);
                Err(Lost)
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.half.calls.give_up(self.id) {
            self.half.line.forget(self.id);
            let cancel = |out: &mut Vec<u8>| Request::Cancel.encode(out);
            self.half.line.send(self.id, cancel);
        }
    }
}

async fn lane(
    options: &RackOptions,
    address: &str,
    lane: Lane,
    link: u128,
    pulse: &Arc<Pulse>,
) -> Result<(Half, Opener), Estranged> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let hello = Hello {
        oldest: VERSION,
        newest: VERSION,
        lane,
        link,
        nonce: seal::random()?,
        pool: options.pool_id.clone(),
        node: options.node.clone(),
    };
    let (sealer, opener) = greet::call(&mut socket, &options.key, &hello).await?;
    let half = Half {
        line: Line::new(socket, sealer, Arc::clone(pulse)),
        calls: Calls::default(),
    };
    Ok((half, opener))
}
