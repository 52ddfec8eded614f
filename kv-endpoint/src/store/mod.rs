//! What the endpoint needs of context memory: one trait, the native door and memory behind it.

mod memory;
mod native;

use std::future::Future;
use std::ops::DerefMut;
use std::time::Duration;

pub use memory::MemoryStore;
pub use strand_kv_client::{
    Connection, Error, MAX_KEY, NamespaceStats, Page, Put, PutOptions, Ttl,
};

/// Context memory, as one namespace sees it. Value bytes are read and written where they lie.
///
/// A miss is `None`, and a put that could not be taken is [`Put::Dropped`]: neither is an error. Waiting for room is
/// part of each call.
pub trait Store: Send + Sync + 'static {
    /// A value that was found; holds its room until dropped.
    type Value: AsRef<[u8]> + Send + Sync;
    /// Room for a value; gives it back when dropped.
    type Room: DerefMut<Target = [u8]> + Send + Sync;

    /// Whether there is an agent, and how long a value it takes.
    fn connection(&self) -> Connection;
    /// Reads a value.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Self::Value>, Error>> + Send;
    /// Takes room for a value of `length` bytes. `None`: the put is dropped; throw the bytes away.
    fn reserve(
        &self,
        length: usize,
    ) -> impl Future<Output = Result<Option<Self::Room>, Error>> + Send;
    /// Stores what was written into `room`.
    fn commit(
        &self,
        room: Self::Room,
        key: &[u8],
        options: PutOptions,
    ) -> impl Future<Output = Result<Put, Error>> + Send;
    /// Which of `keys` are there; those get a lease.
    fn exists(&self, keys: &[Vec<u8>]) -> impl Future<Output = Result<Vec<bool>, Error>> + Send;
    /// A value's length in bytes.
    fn length(&self, key: &[u8]) -> impl Future<Output = Result<Option<u64>, Error>> + Send;
    /// What is left of a key's life.
    fn ttl(&self, key: &[u8]) -> impl Future<Output = Result<Ttl, Error>> + Send;
    /// Sets what is left of a key's life; zero ends it, `None` makes it last. `false`: no such key.
    fn expire(
        &self,
        key: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    /// Deletes a key. `false`: no such key.
    fn delete(&self, key: &[u8]) -> impl Future<Output = Result<bool, Error>> + Send;
    /// Deletes every key of the namespace.
    fn flush(&self) -> impl Future<Output = Result<(), Error>> + Send;
    /// About `limit` keys from `cursor` on (0 at first).
    fn scan(&self, cursor: u64, limit: u32) -> impl Future<Output = Result<Page, Error>> + Send;
    /// What the namespace holds.
    fn stats(&self) -> impl Future<Output = Result<NamespaceStats, Error>> + Send;
}
