//! The link to whatever agent there is: connects, connects again, and sends once more what a lost session left open.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::api::{Connection, Error, Options};
use crate::arena::WriteLease;
use crate::count::Counts;
use crate::fetch::Opened;
use crate::frame::{Reply, Request};
use crate::session::{Answer, Session};
use crate::slots::NoSlots;

/// The first pause between attempts to connect; it doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause: how late a client notices a new agent, and what an absent one costs.
const LAST_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) options: Options,
    pub(crate) counts: Counts,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
enum State {
    Down(String),
    Up(Arc<Session>),
}

/// Why a request has no reply.
pub(crate) enum Unanswered {
    /// There is no agent.
    Down(String),
    /// The caller's patience is at its end.
    Late,
}

impl Link {
    pub(crate) fn new(options: Options) -> Self {
        let waiting = format!("{} was not reached yet", options.socket.display());
        Self {
            options,
            counts: Counts::default(),
            state: watch::Sender::new(State::Down(waiting)),
        }
    }

    /// Keeps a session open until `end` closes.
    pub(crate) async fn run(self: Arc<Self>, mut end: oneshot::Receiver<()>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let opened = tokio::select! {
                opened = Session::open(&self.options) => opened,
                _ = &mut end => return,
            };
            let reason = match opened {
                Err(none) => none.to_string(),
                Ok(session) => {
                    pause = FIRST_PAUSE;
                    self.counts.sessions.one();
                    self.state.send_replace(State::Up(Arc::clone(&session)));
                    let reason = tokio::select! {
                        reason = session.run() => Some(reason),
                        _ = &mut end => None,
                    };
                    let down = reason.clone().unwrap_or_else(|| "the client ended".into());
                    tracing::debug!(epoch = session.epoch, reason = down, "session ended");
                    // First the state, so that nobody who learns of the end finds this session again.
                    self.state.send_replace(State::Down(down));
                    session.end();
                    match reason {
                        Some(reason) => reason,
                        None => return,
                    }
                }
            };
            self.state.send_replace(State::Down(reason));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut end => return,
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    pub(crate) fn connection(&self) -> Connection {
        match &*self.state.borrow() {
            State::Down(reason) => Connection::Down {
                reason: reason.clone(),
            },
            State::Up(session) => Connection::Up {
                epoch: session.epoch,
                version: session.version.number(),
                get_bytes: session.limits.get_bytes,
                put_bytes: session.limits.put_bytes,
            },
        }
    }

    /// Sends a request, and once more where its session ends before the reply.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer, Unanswered> {
        let spin = self.options.spin;
        let mut session = self.up()?;
        let patience = self.options.patience;
        let asked = tokio::time::timeout(patience, async {
            let mut resent = false;
            loop {
                match session.call(request, None, spin).await.answer {
                    // The agent waits for room no longer than it cares to; who has more patience asks again.
                    Some(answer) if request.is_get() && answer.is_busy() => {
                        tokio::time::sleep(FIRST_PAUSE).await;
                    }
                    Some(answer) => return Ok(answer),
                    None if resent => return Err(self.down()),
                    None => {
                        resent = true;
                        session = self.successor(&session).await?;
                        if request.is_get() {
                            self.counts.gets_resent.one();
                        }
                    }
                }
            }
        })
        .await;
        asked.unwrap_or_else(|_| Err(self.late(&session)))
    }

    /// Commits what lies in `room`, and once more from the bytes still held where the session ends before the reply.
    pub(crate) async fn put(
        &self,
        mut session: Arc<Session>,
        room: WriteLease,
        request: impl Fn(&WriteLease) -> Request,
    ) -> Result<Answer, Unanswered> {
        let spin = self.options.spin;
        let patience = self.options.patience;
        let asked = tokio::time::timeout(patience, async {
            let first = request(&room);
            let outcome = session.call(&first, Some(room), spin).await;
            if let Some(answer) = outcome.answer {
                return Ok(answer);
            }
            let held = outcome.held.ok_or_else(|| self.down())?;
            session = self.successor(&session).await?;
            let mut room = (session.arenas.write(held.len()).await).map_err(|_| self.down())?;
            room.truncate(held.len());
            room.copy_from_slice(&held);
            drop(held);
            self.counts.puts_resent.one();
            let second = request(&room);
            let outcome = session.call(&second, Some(room), spin).await;
            outcome.answer.ok_or_else(|| self.down())
        })
        .await;
        asked.unwrap_or_else(|_| Err(self.late(&session)))
    }

    /// Slots of PUT in the session of now, or its successor. `None`: no agent.
    pub(crate) async fn room(
        &self,
        length: u64,
    ) -> Result<Option<(Arc<Session>, WriteLease)>, Error> {
        let Ok(mut session) = self.up() else {
            return Ok(None);
        };
        loop {
            let max = session.limits.put_bytes;
            let too_large = Error::ValueLength { length, max };
            if length > max {
                return Err(too_large);
            }
            let Ok(bytes) = usize::try_from(length) else {
                return Err(too_large);
            };
            match session.arenas.write(bytes).await {
                Ok(room) => return Ok(Some((session, room))),
                Err(NoSlots::TooLarge) => return Err(too_large),
                Err(NoSlots::Closed) => match self.successor(&session).await {
                    Ok(next) => session = next,
                    Err(_) => return Ok(None),
                },
            }
        }
    }

    /// Waits for a session whose epoch is not this one.
    pub(crate) async fn session_other_than(&self, epoch: Option<u64>) -> Arc<Session> {
        let mut state = self.state.subscribe();
        loop {
            if let State::Up(session) = &*state.borrow_and_update()
                && Some(session.epoch) != epoch
            {
                return Arc::clone(session);
            }
            if state.changed().await.is_err() {
                // The sender is a field of this very value.
                unreachable!("a link outlives its borrows");
            }
        }
    }

    /// Opens a block in this session, when it may have one more.
    pub(crate) async fn open(
        &self,
        session: Arc<Session>,
        key: &[u8],
    ) -> Result<Option<Opened>, Unanswered> {
        let Ok(_permit) = Arc::clone(&session.open).acquire_owned().await else {
            return Err(self.down());
        };
        let request = Request::Open { key: key.to_vec() };
        match session.call(&request, None, Duration::ZERO).await.answer {
            None => Err(self.down()),
            Some(Answer::Opened(length, digest, kept)) => Ok(Some(Opened {
                session,
                length,
                digest,
                kept,
                _permit,
            })),
            Some(Answer::Reply(Reply::Miss)) => Ok(None),
            Some(_) => Err(Unanswered::Late),
        }
    }

    /// Begins a put in this session, when it may have one more. `None`: the session has ended.
    pub(crate) async fn begin(
        &self,
        session: &Arc<Session>,
        key: &[u8],
        length: u64,
    ) -> Option<(Answer, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&session.begun).acquire_owned().await.ok()?;
        let request = Request::Begin {
            key: key.to_vec(),
            length,
        };
        let outcome = session.call(&request, None, Duration::ZERO).await;
        outcome.answer.map(|answer| (answer, permit))
    }

    /// The session that there is, or the one that comes.
    pub(crate) async fn session_alive(&self) -> Arc<Session> {
        let ended = |session: &Arc<Session>| session.has_ended();
        match self.up() {
            Ok(session) if !ended(&session) => session,
            Ok(session) => self.session_other_than(Some(session.epoch)).await,
            Err(_) => self.session_other_than(None).await,
        }
    }

    pub(crate) async fn successor(&self, lost: &Session) -> Result<Arc<Session>, Unanswered> {
        let next = self.session_other_than(Some(lost.epoch));
        let within = self.options.resend_within;
        (tokio::time::timeout(within, next).await).map_err(|_| self.down())
    }

    pub(crate) fn up(&self) -> Result<Arc<Session>, Unanswered> {
        match &*self.state.borrow() {
            State::Up(session) => Ok(Arc::clone(session)),
            State::Down(reason) => Err(Unanswered::Down(reason.clone())),
        }
    }

    pub(crate) fn down(&self) -> Unanswered {
        match &*self.state.borrow() {
            State::Up(_) => Unanswered::Down("sessions keep ending".into()),
            State::Down(reason) => Unanswered::Down(reason.clone()),
        }
    }

    /// An agent that says nothing at all any more is as good as away: the next calls need not wait for it.
    fn late(&self, session: &Session) -> Unanswered {
        if session.silent_for() >= self.options.patience {
            session.end();
        }
        Unanswered::Late
    }
}
