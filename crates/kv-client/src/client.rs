//! The client: calls, and what they give.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures::Stream;

use crate::api::{
    Connection, Counters, Error, NamespaceStats, Options, Page, Put, PutOptions, Ttl,
};

/// A client of one door. Cheap to clone; all clones share one session, its arenas and its counters. The
/// session ends when the last clone, [`Block`] and [`Reservation`] are gone.
#[derive(Clone)]
pub struct Client {
    options: std::sync::Arc<Options>,
}

/// A value that was found: its bytes in the GET arena, readable until this is dropped.
///
/// `Send + Sync + 'static` and `AsRef<[u8]>`, so that `bytes::Bytes::from_owner(block)` works. Hold it briefly:
/// its 1 MiB slots are what other gets wait for. It stays readable over an agent's restart.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
}

/// Slots of the PUT arena, to be written and committed. Dropped without a commit, it gives them back.
#[derive(Debug)]
pub struct Reservation {
    bytes: Vec<u8>,
}

impl Client {
    /// Starts connecting in the background and returns at once; needs a tokio runtime.
    pub fn new(options: Options) -> Self {
        Self {
            options: std::sync::Arc::new(options),
        }
    }

    /// Whether there is an agent now.
    pub fn connection(&self) -> Connection {
        Connection::Down {
            reason: format!("{} was not tried", self.options.socket.display()),
        }
    }

    /// Waits until there is an agent, at most `within`; the connection as it then is.
    pub async fn connected(&self, within: Duration) -> Connection {
        let _ = within;
        self.connection()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Reads a block. `None` is a miss (absent, evicted, expired, unreadable, agent away or too busy).
    /// Waits for free slots of GET where there are none.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Block>, Error> {
        let _ = key;
        Ok(None)
    }

    /// Reads many blocks at once, in whatever order they arrive: index into `keys`, and what [`Client::get`]
    /// gives. Drop blocks while going along: more than GET holds at once cannot all be held.
    pub fn get_many<'a, K: AsRef<[u8]> + Sync>(
        &'a self,
        keys: &'a [K],
    ) -> impl Stream<Item = (usize, Result<Option<Block>, Error>)> + Send + 'a {
        let _ = keys;
        futures::stream::empty()
    }

    /// Takes room in PUT for a value of `length` bytes (0 is allowed), waiting where there is none.
    /// `None`: the put is already dropped, and counted (no agent, no room in time); throw the bytes away.
    pub async fn reserve(&self, length: u64) -> Result<Option<Reservation>, Error> {
        let _ = length;
        Ok(None)
    }

    /// Writes a block from bytes held elsewhere: reserve, copy, commit.
    pub async fn put(&self, key: &[u8], value: &[u8], options: PutOptions) -> Result<Put, Error> {
        match self.reserve(value.len() as u64).await? {
            None => Ok(Put::Dropped),
            Some(mut room) => {
                room.copy_from_slice(value);
                room.commit(key, options).await
            }
        }
    }

    /// Whether the block is there. `true` grants it a lease: it is not evicted for some seconds.
    pub async fn exists(&self, key: &[u8]) -> Result<bool, Error> {
        let _ = key;
        Ok(false)
    }

    /// [`Client::exists`] for many keys, in one round trip for each 1,000 or so.
    pub async fn exists_many<K: AsRef<[u8]> + Sync>(&self, keys: &[K]) -> Result<Vec<bool>, Error> {
        Ok(vec![false; keys.len()])
    }

    /// How many of the keys, from the first on, are there without a gap. Those get a lease.
    pub async fn leading_run<K: AsRef<[u8]> + Sync>(&self, keys: &[K]) -> Result<usize, Error> {
        let _ = keys;
        Ok(0)
    }

    /// The value's length in bytes, or `None`.
    pub async fn length(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let _ = key;
        Ok(None)
    }

    /// What is left of a key's life.
    pub async fn ttl(&self, key: &[u8]) -> Result<Ttl, Error> {
        let _ = key;
        Ok(Ttl::Absent)
    }

    /// Sets a key's remaining life (zero: gone at once; `None`: no expiry). `false`: no such key.
    pub async fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        let _ = (key, ttl);
        Err(self.down("expire"))
    }

    /// Deletes a block for good: it does not come back after any restart. `false`: it was not there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        let _ = key;
        Err(self.down("delete"))
    }

    /// Deletes every block of this pod's namespace.
    pub async fn flush(&self) -> Result<(), Error> {
        Err(self.down("flush"))
    }

    /// A page of the namespace's keys, about `limit` of them, from `cursor` on (0 at first).
    pub async fn scan(&self, cursor: u64, limit: u32) -> Result<Page, Error> {
        let _ = (cursor, limit);
        Err(self.down("scan"))
    }

    /// How much the namespace holds.
    pub async fn stats(&self) -> Result<NamespaceStats, Error> {
        Err(self.down("stats"))
    }

    fn down(&self, call: &'static str) -> Error {
        let Connection::Down { reason } = self.connection() else {
            return Error::Down {
                call,
                reason: String::new(),
            };
        };
        Error::Down { call, reason }
    }
}

impl Reservation {
    /// Makes the value shorter than what was reserved.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Sends it. Where the agent goes away meanwhile it is sent once more, from the bytes still held.
    pub async fn commit(self, key: &[u8], options: PutOptions) -> Result<Put, Error> {
        let _ = (key, options);
        Ok(Put::Dropped)
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Reservation {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Reservation {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
