//! A value on its way in: whole, or in parts that follow one another through the arena.

use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::api::{Error, Put, PutOptions};
use crate::arena::WriteLease;
use crate::frame::{Reply, Request};
use crate::link::{Link, Unanswered};
use crate::outcome::stored;
use crate::reservation::Reservation;
use crate::session::{Answer, Kept, Session};
use crate::slots::SLOT;

/// Parts that may be under way while the next one is filled.
const AHEAD: usize = 2;

/// A value that is being written, its length known. Ask for [`Upload::next`] until it is full, then commit. Dropped before
/// that, it leaves nothing.
#[derive(Debug)]
pub struct Upload(How);

#[derive(Debug)]
enum How {
    Whole { room: Reservation, given: bool },
    Parts(Box<Parts>),
}

/// What an upload wants next.
#[derive(Debug)]
pub enum Next<'a> {
    /// All of these bytes to be written.
    Fill(&'a mut [u8]),
    /// To be committed.
    Full,
    /// Nothing more: it will not be stored. Commit it all the same, so that it is counted; throw the rest away.
    Dropped,
}

struct Parts {
    link: Arc<Link>,
    session: Arc<Session>,
    kept: Kept,
    _permit: OwnedSemaphorePermit,
    length: u64,
    /// Parts that were given out to be filled.
    given: u64,
    filling: Option<WriteLease>,
    under_way: FuturesUnordered<BoxFuture<'static, bool>>,
    dropped: bool,
}

impl Upload {
    pub(crate) fn whole(room: Reservation) -> Self {
        Self(How::Whole { room, given: false })
    }

    pub(crate) fn parts(
        link: Arc<Link>,
        session: Arc<Session>,
        kept: Kept,
        permit: OwnedSemaphorePermit,
        length: u64,
    ) -> Self {
        Self(How::Parts(Box::new(Parts {
            link,
            session,
            kept,
            _permit: permit,
            length,
            given: 0,
            filling: None,
            under_way: FuturesUnordered::new(),
            dropped: false,
        })))
    }

    /// What to do next. What was to be filled before is taken for filled.
    pub async fn next(&mut self) -> Next<'_> {
        match &mut self.0 {
            How::Whole { given: true, .. } => Next::Full,
            How::Whole { room, given } => {
                *given = true;
                Next::Fill(room)
            }
            How::Parts(parts) => parts.next().await,
        }
    }

    /// Stores what was written. Where the agent went away meanwhile, a value that is whole in the arena is sent once more;
    /// one that came in parts is dropped.
    ///
    /// # Errors
    /// As a put's.
    pub async fn commit(self, key: &[u8], options: PutOptions) -> Result<Put, Error> {
        match self.0 {
            How::Whole { room, .. } => room.commit(key, options).await,
            How::Parts(parts) => parts.commit(options).await,
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (formatter.debug_struct("Parts"))
            .field("length", &self.length)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl Parts {
    async fn next(&mut self) -> Next<'_> {
        self.send().await;
        let start = self.given * SLOT as u64;
        let left = self.length.saturating_sub(start);
        if left == 0 && !self.dropped {
            return Next::Full;
        }
        if !self.dropped {
            let room = self.session.arenas.write(SLOT);
            match timeout(self.link.options.patience, room).await {
                Ok(Ok(mut room)) => {
                    room.truncate(usize::try_from(left).unwrap_or(SLOT));
                    self.given += 1;
                    return Next::Fill(self.filling.insert(room));
                }
                Ok(Err(_)) | Err(_) => self.dropped = true,
            }
        }
        Next::Dropped
    }

    /// Sends the part that was filled, and waits until few enough are under way.
    async fn send(&mut self) {
        if let Some(room) = self.filling.take() {
            let session = Arc::clone(&self.session);
            let request = Request::Part {
                put: self.kept.id,
                part: self.given - 1,
                offset: room.offset() as u64,
            };
            self.under_way.push(Box::pin(async move {
                let outcome = session.call(&request, Some(room), Default::default()).await;
                matches!(outcome.answer, Some(Answer::Reply(Reply::Done)))
            }));
        }
        let patience = self.link.options.patience;
        loop {
            let few = self.under_way.len() < AHEAD;
            let next = self.under_way.next();
            // The first look is what sends it.
            let taken = match few {
                true => match futures::poll!(next) {
                    Poll::Ready(taken) => taken,
                    Poll::Pending => return,
                },
                false => timeout(patience, next).await.unwrap_or(Some(false)),
            };
            match taken {
                Some(taken) => self.dropped |= !taken,
                None => return,
            }
            if self.dropped {
                return;
            }
        }
    }

    async fn commit(mut self: Box<Self>, options: PutOptions) -> Result<Put, Error> {
        self.send().await;
        let link = Arc::clone(&self.link);
        let patience = link.options.patience;
        let whole = timeout(patience, async {
            while let Some(taken) = self.under_way.next().await {
                self.dropped |= !taken;
            }
        });
        let whole = whole.await.is_ok() && self.given * SLOT as u64 >= self.length;
        if self.dropped || !whole {
            link.counts.dropped.one();
            return Ok(Put::Dropped);
        }
        let request = Request::Commit {
            put: self.kept.id,
            ttl_ms: options.ttl_ms(),
            only_if_absent: options.only_if_absent,
        };
        let asked = self.session.call(&request, None, Default::default());
        let answer = match timeout(patience, asked).await {
            Ok(outcome) => outcome.answer.ok_or_else(|| link.down()),
            Err(_) => Err(Unanswered::Late),
        };
        stored(&link.counts, answer)
    }
}
