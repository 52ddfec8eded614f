//! A value on its way out: whole, or in parts that follow one another through the arena.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::Lost;
use crate::frame::{Code, Reply, Request};
use crate::link::{Link, Unanswered};
use crate::session::{Answer, Block, Kept, Session};
use crate::slots::SLOT;

/// Parts that are asked for ahead of the one that is given.
const AHEAD: usize = 3;

/// A part that is waited for longer than this may wait for the slots of those behind it, or somebody else does: they are
/// given back.
const WAIT: Duration = Duration::from_millis(100);

/// A value that was found.
///
/// One of up to 32 MiB that fits the arena is there whole, and verified. A larger one comes in parts of 1 MiB, each verified
/// by itself; over an agent's restart it goes on where it stood, if the same value is still there.
#[derive(Debug)]
pub struct Value {
    length: u64,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Whole(Option<Block>),
    Parts(Box<Parts>),
}

struct Parts {
    link: Arc<Link>,
    key: Vec<u8>,
    open: Opened,
    /// Parts that were given.
    given: u64,
    /// Those that were asked for after them.
    asked: VecDeque<BoxFuture<'static, Read>>,
}

/// A block that is open in a session.
pub(crate) struct Opened {
    pub(crate) session: Arc<Session>,
    pub(crate) length: u64,
    pub(crate) digest: u64,
    pub(crate) kept: Kept,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What became of a part.
enum Read {
    Block(Block),
    /// Not now.
    Busy,
    /// The session is over, or the agent gave the block up because it took too long.
    Closed,
    /// Never.
    No(String),
}

impl Value {
    pub(crate) fn whole(block: Block) -> Self {
        Self {
            length: block.len() as u64,
            rest: Rest::Whole(Some(block)),
        }
    }

    pub(crate) fn parts(link: Arc<Link>, key: Vec<u8>, open: Opened) -> Self {
        Self {
            length: open.length,
            rest: Rest::Parts(Box::new(Parts {
                link,
                key,
                open,
                given: 0,
                asked: VecDeque::new(),
            })),
        }
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next bytes of it, until none are left. Drop them before long: others wait for their slots.
    ///
    /// # Errors
    /// [`Lost`]: there will be no more.
    pub async fn next(&mut self) -> Result<Option<Block>, Lost> {
        match &mut self.rest {
            Rest::Whole(block) => Ok(block.take()),
            Rest::Parts(parts) => parts.next().await,
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (formatter.debug_struct("Parts"))
            .field("length", &self.open.length)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl Parts {
    async fn next(&mut self) -> Result<Option<Block>, Lost> {
        let count = self.open.length.div_ceil(SLOT as u64);
        let deadline = Instant::now() + self.link.options.patience;
        while self.given < count {
            while self.asked.len() < AHEAD && self.given + (self.asked.len() as u64) < count {
                self.ask(self.given + self.asked.len() as u64).await;
            }
            let read = timeout_at(deadline, self.first())
                .await
                .unwrap_or_else(|_| {
                    Read::No(format!("no answer in {:?}", self.link.options.patience))
                });
            match read {
                Read::Block(block) if block.len() == self.expected() => {
                    self.given += 1;
                    return Ok(Some(block));
                }
                Read::Block(_) => return Err(self.lost("a part has another length".into())),
                Read::No(reason) => return Err(self.lost(reason)),
                Read::Busy => {}
                Read::Closed => {
                    self.asked.clear();
                    let again = timeout_at(deadline, self.open_again()).await;
                    match again.unwrap_or_else(|_| Err("no agent came back in time".into())) {
                        Ok(open) => self.open = open,
                        Err(reason) => return Err(self.lost(reason)),
                    }
                }
            }
        }
        Ok(None)
    }

    /// The first of those that were asked for.
    async fn first(&mut self) -> Read {
        let Some(first) = self.asked.front_mut() else {
            return Read::Closed;
        };
        let read = match timeout(WAIT, first.as_mut()).await {
            Ok(read) => read,
            Err(_) => {
                self.asked.truncate(1);
                match self.asked.front_mut() {
                    Some(first) => first.await,
                    None => Read::Closed,
                }
            }
        };
        self.asked.pop_front();
        if !matches!(read, Read::Block(_)) {
            // Those behind it would come out of turn.
            self.asked.clear();
        }
        read
    }

    /// Bytes in the part that comes next.
    fn expected(&self) -> usize {
        let left = self.open.length - self.given * SLOT as u64;
        usize::try_from(left).map_or(SLOT, |left| left.min(SLOT))
    }

    async fn ask(&mut self, part: u64) {
        let session = Arc::clone(&self.open.session);
        let request = Request::Read {
            block: self.open.kept.id,
            part,
        };
        let mut asked: BoxFuture<'static, Read> = Box::pin(async move {
            let gone = Code::Gone.number();
            let busy = [Code::Busy, Code::Store].map(Code::number);
            match session
                .call(&request, None, Default::default())
                .await
                .answer
            {
                None => Read::Closed,
                Some(Answer::Block(block)) => Read::Block(block),
                Some(Answer::Reply(Reply::Refused { code, .. })) if code == gone => Read::Closed,
                Some(Answer::Reply(Reply::Refused { code, .. })) if busy.contains(&code) => {
                    Read::Busy
                }
                Some(Answer::Reply(Reply::Refused { words, .. })) => Read::No(words),
                Some(_) => Read::No("it cannot be read any more".into()),
            }
        });
        // The first look is what sends it.
        self.asked.push_back(match futures::poll!(asked.as_mut()) {
            Poll::Ready(read) => Box::pin(std::future::ready(read)),
            Poll::Pending => asked,
        });
    }

    /// The same value, in a session that lives.
    async fn open_again(&mut self) -> Result<Opened, String> {
        let session = self.link.session_alive().await;
        let open = match self.link.open(session, &self.key).await {
            Ok(Some(open)) => open,
            Ok(None) => return Err("it is gone".into()),
            Err(Unanswered::Down(reason)) => return Err(reason),
            Err(Unanswered::Late) => return Err("the agent is too busy".into()),
        };
        if (open.length, open.digest) != (self.open.length, self.open.digest) {
            return Err("it was replaced".into());
        }
        self.link.counts.resumed.one();
        Ok(open)
    }

    fn lost(&self, reason: String) -> Lost {
        self.link.counts.lost.one();
        Lost {
            length: self.open.length,
            given: self.given * SLOT as u64,
            reason,
        }
    }
}
