//! A session with context memory, through either door.

use super::{resp::Resp, target::Door};
use anyhow::{Result, bail};
use std::{ops::DerefMut as _, time::Duration};
use strand_kv_client::{Client, Connection, MAX_KEY, Options, Put, PutOptions, Ttl};

/// Longest that a native door may take to open.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session.
#[derive(Debug)]
pub enum Session {
    /// With an endpoint.
    Resp(Resp),
    /// With the agent.
    Native(Client),
}

/// What is known of a block without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Bytes.
    pub length: u64,
    /// What is left of its life; none: no end is set.
    pub left: Option<Duration>,
}

/// What became of a put, as far as the door tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is there. (An endpoint says so of dropped ones too.)
    Yes,
    /// It was dropped: no room, no time, no budget.
    Dropped,
}

impl From<Put> for Taken {
    fn from(put: Put) -> Self {
        match put {
            Put::Stored | Put::Present => Self::Yes,
            Put::Dropped => Self::Dropped,
        }
    }
}

impl Session {
    /// Opens one.
    pub async fn open(door: &Door) -> Result<Self> {
        match door {
            Door::Resp { address, password } => Ok(Self::Resp(
                Resp::connect(address, password.as_deref()).await?,
            )),
            Door::Native(path) => {
                let client = Client::new(Options {
                    name: "strandctl".into(),
                    ..Options::new(path)
                });
                match client.connected(PATIENCE).await {
                    Connection::Up { .. } => Ok(Self::Native(client)),
                    Connection::Down { reason } => bail!(
                        "the native door {} does not open: {reason}; the pod's endpoint is the other way in (--endpoint)",
                        path.display()
                    ),
                }
            }
        }
    }

    /// One session for each of `count` clients, spread over `doors`. Clients of one native door share its arena.
    pub async fn open_many(doors: &[Door], count: usize) -> Result<Vec<Self>> {
        let mut sessions: Vec<Self> = Vec::with_capacity(count);
        for number in 0..count {
            let shared = match number
                .checked_sub(doors.len())
                .map(|before| &sessions[before])
            {
                Some(Self::Native(client)) => Some(Self::Native(client.clone())),
                _ => None,
            };
            sessions.push(match shared {
                Some(shared) => shared,
                None => Self::open(&doors[number % doors.len()]).await?,
            });
        }
        Ok(sessions)
    }

    /// How many of the keys, from the first on, are there without a gap. Those get a lease.
    pub async fn leading_run(&mut self, keys: &[Vec<u8>]) -> Result<usize> {
        match self {
            Self::Resp(resp) => resp.leading_run(keys).await,
            Self::Native(client) => Ok(client.leading_run(keys).await?),
        }
    }

    /// Reads a value and shows it to `see`; `None` is a miss.
    pub async fn get<T>(&mut self, key: &[u8], see: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        Ok(match self {
            Self::Resp(resp) => resp.get(key).await?.map(see),
            Self::Native(client) => fetch(client, key, see).await?,
        })
    }

    /// Writes a value of `length` bytes, which `fill` puts into place.
    pub async fn put(
        &mut self,
        key: &[u8],
        ttl: Option<Duration>,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Taken> {
        let client = match self {
            Self::Resp(resp) => {
                resp.set(key, ttl, length, fill).await?;
                return Ok(Taken::Yes);
            }
            Self::Native(client) => client,
        };
        let options = PutOptions {
            ttl,
            only_if_absent: false,
        };
        if let Connection::Up { put_bytes, .. } = client.connection()
            && length as u64 > put_bytes
        {
            let mut value = vec![0; length];
            fill(&mut value);
            return Ok(client.put(key, &value, options).await?.into());
        }
        let Some(mut room) = client.reserve(length as u64).await? else {
            return Ok(Taken::Dropped);
        };
        fill(room.deref_mut());
        Ok(room.commit(key, options).await?.into())
    }

    /// What is known of a block; `None`: there is none.
    pub async fn describe(&mut self, key: &[u8]) -> Result<Option<Described>> {
        let (length, left) = match self {
            Self::Resp(resp) => {
                let length = resp.number(&[b"STRLEN", key]).await?;
                let left = match resp.number(&[b"PTTL", key]).await? {
                    -2 => return Ok(None),
                    ..0 => None,
                    left => Some(Duration::from_millis(left.unsigned_abs())),
                };
                (length.unsigned_abs(), left)
            }
            Self::Native(client) => {
                let Some(length) = client.length(key).await? else {
                    return Ok(None);
                };
                match client.ttl(key).await? {
                    Ttl::Absent => return Ok(None),
                    Ttl::Forever => (length, None),
                    Ttl::Left(left) => (length, Some(left)),
                }
            }
        };
        Ok(Some(Described { length, left }))
    }
}

/// Shows a value where it lies; one that comes in parts is gathered first, and lost on the way it is a miss.
async fn fetch<T>(client: &Client, key: &[u8], see: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
    let Some(mut value) = client.fetch(key).await? else {
        return Ok(None);
    };
    let length = usize::try_from(value.length())?;
    let mut gathered = Vec::new();
    loop {
        match value.next().await {
            Ok(Some(block)) if block.len() == length => return Ok(Some(see(&block))),
            Ok(Some(part)) => gathered.extend_from_slice(&part),
            Ok(None) => return Ok(Some(see(&gathered))),
            Err(_) => return Ok(None),
        }
    }
}

/// A key as it was typed, if it can be one.
pub fn key(typed: &std::ffi::OsStr) -> Result<Vec<u8>> {
    let key = typed.as_encoded_bytes().to_vec();
    match key.len() {
        1..=MAX_KEY => Ok(key),
        length => bail!("a key has 1 to {MAX_KEY} bytes; this one has {length}"),
    }
}
