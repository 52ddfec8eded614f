//! The client: calls, what they send, and what they make of the reply.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::api::{
    Connection, Counters, Error, MAX_KEY, NamespaceStats, Options, Page, Put, PutOptions, Ttl,
    milliseconds,
};
use crate::count::{Count, Counts};
use crate::fetch::Value;
use crate::frame::{FOREVER, MAX_BODY, Reply, Request};
use crate::link::{Link, Unanswered};
use crate::outcome::{Found, Refusal, found, missed, unexpected};
use crate::reservation::Reservation;
use crate::session::{Answer, Block};
use crate::upload::{Next, Upload};

/// The longest value that is fetched whole, and so verified before its first byte is passed on.
const WHOLE: u64 = 32 << 20;

/// A client of one door. Cheap to clone; all clones share one session, its arenas and its counters. The session
/// ends when the last clone is dropped; blocks stay readable until they are dropped.
#[derive(Clone, Debug)]
pub struct Client {
    link: Arc<Link>,
    _life: Arc<oneshot::Sender<()>>,
}

impl Client {
    /// Starts connecting in the background and returns at once; needs a tokio runtime.
    pub fn new(options: Options) -> Self {
        let (life, end) = oneshot::channel();
        let link = Arc::new(Link::new(options));
        tokio::spawn(Arc::clone(&link).run(end));
        Self {
            link,
            _life: Arc::new(life),
        }
    }

    /// Whether there is an agent now.
    pub fn connection(&self) -> Connection {
        self.link.connection()
    }

    /// Waits until there is an agent, at most `within`; the connection as it then is.
    pub async fn connected(&self, within: Duration) -> Connection {
        let _ = tokio::time::timeout(within, self.link.session_other_than(None)).await;
        self.connection()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.link.counts.snapshot()
    }

    /// Reads a block. `None` is a miss (absent, evicted, expired, unreadable, agent away or too busy).
    /// Waits for free slots of GET where there are none. Fails for a value longer than GET.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Block>, Error> {
        let request = Request::Get {
            key: checked(key)?,
            room: u64::MAX,
        };
        match found(&self.link.counts, self.link.ask(&request).await)? {
            Found::Whole(block) => Ok(Some(block)),
            Found::Larger => Err(Error::Larger {
                max: match self.connection() {
                    Connection::Up { get_bytes, .. } => get_bytes,
                    Connection::Down { .. } => 0,
                },
            }),
            Found::Nothing => Ok(None),
        }
    }

    /// Reads a block of any length. `None` is a miss, as of [`Client::get`].
    pub async fn fetch(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let key = checked(key)?;
        let request = Request::Get {
            key: key.clone(),
            room: WHOLE,
        };
        match found(&self.link.counts, self.link.ask(&request).await)? {
            Found::Whole(block) => return Ok(Some(Value::whole(block))),
            Found::Larger => {}
            Found::Nothing => return Ok(None),
        }
        let patience = self.link.options.patience;
        let opened = tokio::time::timeout(patience, async {
            let session = self.link.up()?;
            match self.link.open(Arc::clone(&session), &key).await {
                Err(Unanswered::Down(_)) => {
                    let next = self.link.successor(&session).await?;
                    self.link.counts.gets_resent.one();
                    self.link.open(next, &key).await
                }
                opened => opened,
            }
        });
        match opened.await.unwrap_or(Err(Unanswered::Late)) {
            Ok(Some(open)) => {
                self.link.counts.hits.one();
                let link = Arc::clone(&self.link);
                Ok(Some(Value::parts(link, key, open)))
            }
            other => {
                let why: Option<fn(&Counts) -> &Count> = match other {
                    Ok(_) => None,
                    Err(Unanswered::Down(_)) => Some(|counts| &counts.misses_down),
                    Err(Unanswered::Late) => Some(|counts| &counts.misses_busy),
                };
                missed(&self.link.counts, why);
                Ok(None)
            }
        }
    }

    /// Reads many blocks at once, in whatever order they arrive: index into `keys`, and what [`Client::get`]
    /// gives. Drop blocks while going along: more than GET holds at once cannot all be held.
    pub fn get_many<'a, K: AsRef<[u8]> + Sync>(
        &'a self,
        keys: &'a [K],
    ) -> impl Stream<Item = (usize, Result<Option<Block>, Error>)> + Send + 'a {
        keys.iter()
            .enumerate()
            .map(|(index, key)| async move { (index, self.get(key.as_ref()).await) })
            .collect::<FuturesUnordered<_>>()
    }

    /// Takes room in PUT for a value of `length` bytes, waiting where there is none.
    /// `None`: the put is already dropped, and counted (no agent, no room in time); throw the bytes away.
    pub async fn reserve(&self, length: u64) -> Result<Option<Reservation>, Error> {
        if length == 0 {
            return Err(Error::Empty);
        }
        let counts = &self.link.counts;
        let reserved =
            tokio::time::timeout(self.link.options.patience, self.link.room(length)).await;
        match reserved {
            Ok(Ok(Some((session, room)))) => {
                return Ok(Some(Reservation {
                    link: Arc::clone(&self.link),
                    session,
                    room,
                }));
            }
            Ok(Ok(None)) => counts.dropped_down.one(),
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
        counts.dropped.one();
        Ok(None)
    }

    /// Takes room for a value of any length, whole or part by part, waiting where there is none. `None` as of
    /// [`Client::reserve`].
    pub async fn upload(&self, key: &[u8], length: u64) -> Result<Option<Upload>, Error> {
        let key = checked(key)?;
        for _ in 0..2 {
            let Ok(session) = self.link.up() else {
                break;
            };
            if length <= session.limits.put_bytes {
                let room = self.reserve(length).await?;
                return Ok(room.map(Upload::whole));
            }
            let began = self.link.begin(&session, &key, length);
            match tokio::time::timeout(self.link.options.patience, began).await {
                Ok(Some((Answer::Begun(kept), permit))) => {
                    let link = Arc::clone(&self.link);
                    let upload = Upload::parts(link, session, kept, permit, length);
                    return Ok(Some(upload));
                }
                Ok(Some((answer, _))) => {
                    if let Refusal::Lasting(error) = Refusal::of("put", answer) {
                        return Err(error);
                    }
                    self.link.counts.dropped.one();
                    return Ok(None);
                }
                // The session has ended: once more, in the next one.
                Ok(None) => {
                    if self.link.successor(&session).await.is_err() {
                        break;
                    }
                }
                Err(_) => {
                    self.link.counts.dropped.one();
                    return Ok(None);
                }
            }
        }
        self.link.counts.dropped.one();
        self.link.counts.dropped_down.one();
        Ok(None)
    }

    /// Writes a block from bytes held elsewhere.
    pub async fn put(&self, key: &[u8], value: &[u8], options: PutOptions) -> Result<Put, Error> {
        let Some(mut upload) = self.upload(key, value.len() as u64).await? else {
            return Ok(Put::Dropped);
        };
        let mut left = value;
        while let Next::Fill(room) = upload.next().await {
            let (here, rest) = left.split_at(room.len().min(left.len()));
            room[..here.len()].copy_from_slice(here);
            left = rest;
        }
        upload.commit(key, options).await
    }

    /// Whether the block is there. `true` grants it a lease: it is not evicted for some seconds.
    pub async fn exists(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.exists_many(&[key]).await? == [true])
    }

    /// [`Client::exists`] for many keys, in one round trip for each 1,000 or so.
    pub async fn exists_many<K: AsRef<[u8]> + Sync>(&self, keys: &[K]) -> Result<Vec<bool>, Error> {
        let mut present = Vec::with_capacity(keys.len());
        for part in parts(keys)? {
            let count = part.len();
            let request = Request::Exists { keys: part };
            let bits = match self.answer("exists", &request).await? {
                Some(Reply::Presence { bits }) => bits,
                _ => Vec::new(),
            };
            present.extend((0..count).map(|at| {
                bits.get(at / 8)
                    .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
            }));
        }
        Ok(present)
    }

    /// How many of the keys, from the first on, are there without a gap. Those get a lease.
    pub async fn leading_run<K: AsRef<[u8]> + Sync>(&self, keys: &[K]) -> Result<usize, Error> {
        let mut run = 0;
        for part in parts(keys)? {
            let count = part.len();
            let request = Request::LeadingRun { keys: part };
            let found = match self.answer("leading run", &request).await? {
                Some(Reply::Count { count }) => usize::try_from(count).unwrap_or(usize::MAX),
                _ => 0,
            };
            run += found.min(count);
            if found < count {
                break;
            }
        }
        Ok(run)
    }

    /// The value's length in bytes, or `None`.
    pub async fn length(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let request = Request::Describe { key: checked(key)? };
        Ok(match self.answer("length", &request).await? {
            Some(Reply::Described { length, .. }) => Some(length),
            _ => None,
        })
    }

    /// What is left of a key's life.
    pub async fn ttl(&self, key: &[u8]) -> Result<Ttl, Error> {
        let request = Request::Describe { key: checked(key)? };
        Ok(match self.answer("ttl", &request).await? {
            Some(Reply::Described {
                ttl_ms: FOREVER, ..
            }) => Ttl::Forever,
            Some(Reply::Described { ttl_ms, .. }) => Ttl::Left(Duration::from_millis(ttl_ms)),
            _ => Ttl::Absent,
        })
    }

    /// Sets a key's remaining life (zero: gone at once; `None`: no expiry). `false`: no such key.
    pub async fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        let request = Request::Expire {
            key: checked(key)?,
            ttl_ms: ttl.map_or(FOREVER, milliseconds),
        };
        match self.effect("expire", &request).await? {
            Reply::Count { count } => Ok(count > 0),
            other => Err(unexpected("expire", &other)),
        }
    }

    /// Deletes a block for good: it does not come back after any restart. `false`: it was not there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    /// [`Client::delete`] for many keys, in one round trip for each 1,000 or so; how many of them were there. Where it fails,
    /// some may have been deleted.
    pub async fn delete_many<K: AsRef<[u8]> + Sync>(&self, keys: &[K]) -> Result<u64, Error> {
        let mut deleted = 0;
        for keys in parts(keys)? {
            match self.effect("delete", &Request::Delete { keys }).await? {
                Reply::Count { count } => deleted += count,
                other => return Err(unexpected("delete", &other)),
            }
        }
        Ok(deleted)
    }

    /// Deletes every block of this pod's namespace.
    pub async fn flush(&self) -> Result<(), Error> {
        match self.effect("flush", &Request::Flush).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected("flush", &other)),
        }
    }

    /// A page of the namespace's keys, about `limit` of them, from `cursor` on (0 at first).
    pub async fn scan(&self, cursor: u64, limit: u32) -> Result<Page, Error> {
        let request = Request::Scan { cursor, limit };
        match self.effect("scan", &request).await? {
            Reply::Page { cursor, keys } => Ok(Page { cursor, keys }),
            other => Err(unexpected("scan", &other)),
        }
    }

    /// How much the namespace holds.
    pub async fn stats(&self) -> Result<NamespaceStats, Error> {
        match self.effect("stats", &Request::Stats).await? {
            Reply::Stats { blocks, bytes } => Ok(NamespaceStats { blocks, bytes }),
            other => Err(unexpected("stats", &other)),
        }
    }

    /// For calls where an agent that is away means "not there": `None`.
    async fn answer(&self, call: &'static str, request: &Request) -> Result<Option<Reply>, Error> {
        match self.link.ask(request).await {
            Ok(answer @ Answer::Reply(Reply::Refused { .. })) => match Refusal::of(call, answer) {
                Refusal::Passing => Ok(None),
                Refusal::Lasting(error) => Err(error),
            },
            Ok(Answer::Reply(reply)) => Ok(Some(reply)),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// For calls whose caller relies on the effect: an agent that is away is an error.
    async fn effect(&self, call: &'static str, request: &Request) -> Result<Reply, Error> {
        match self.link.ask(request).await {
            Ok(Answer::Reply(reply)) => Ok(reply),
            Ok(_) => Err(unexpected(call, &Reply::Miss)),
            Err(Unanswered::Down(reason)) => Err(Error::Down { call, reason }),
            Err(Unanswered::Late) => Err(Error::Down {
                call,
                reason: format!("no answer in {:?}", self.link.options.patience),
            }),
        }
    }
}

pub(crate) fn checked(key: &[u8]) -> Result<Vec<u8>, Error> {
    match key.len() {
        1..=MAX_KEY => Ok(key.to_vec()),
        length => Err(Error::KeyLength { length }),
    }
}

/// Keys in parts that fit a frame.
fn parts<K: AsRef<[u8]>>(keys: &[K]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for key in keys {
        let key = checked(key.as_ref())?;
        if bytes + key.len() + 2 > MAX_BODY / 2 {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += key.len() + 2;
        part.push(key);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    Ok(parts)
}
