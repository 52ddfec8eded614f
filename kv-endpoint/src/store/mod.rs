//! What the endpoint needs of context memory: one trait, the native door and memory behind it.

mod memory;
mod native;

use std::future::Future;
use std::time::Duration;

pub use memory::{MemoryStore, MemoryUpload, MemoryValue};
pub use strand_kv_client::{
    Connection, Error, Lost, MAX_KEY, NamespaceStats, Next, Page, Put, PutOptions, Ttl,
};

/// Context memory, as one namespace sees it. Value bytes are read and written where they lie; of a value that does not fit
/// there whole, one part after the other.
///
/// A miss is `None`, and a put that could not be taken is [`Put::Dropped`]: neither is an error. Waiting for room is
/// part of each call.
pub trait Store: Send + Sync + 'static {
    /// A value that was found.
    type Value: Value;
    /// A value that is coming in.
    type Upload: Upload;

    /// Whether there is an agent.
    fn connection(&self) -> Connection;
    /// Finds a value.
    fn fetch(&self, key: &[u8]) -> impl Future<Output = Result<Option<Self::Value>, Error>> + Send;
    /// Takes room for a value of `length` bytes, or its first part. `None`: the put is dropped; throw the bytes away.
    fn upload(
        &self,
        key: &[u8],
        length: usize,
    ) -> impl Future<Output = Result<Option<Self::Upload>, Error>> + Send;
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
    /// Deletes keys; how many of them were there.
    fn delete(&self, keys: &[Vec<u8>]) -> impl Future<Output = Result<u64, Error>> + Send;
    /// Deletes every key of the namespace.
    fn flush(&self) -> impl Future<Output = Result<(), Error>> + Send;
    /// About `limit` keys from `cursor` on (0 at first).
    fn scan(&self, cursor: u64, limit: u32) -> impl Future<Output = Result<Page, Error>> + Send;
    /// What the namespace holds.
    fn stats(&self) -> impl Future<Output = Result<NamespaceStats, Error>> + Send;
}

/// A value that was found.
pub trait Value: Send + 'static {
    /// Some of its bytes; they hold room until dropped.
    type Bytes: AsRef<[u8]> + Send + Sync;

    /// Bytes in all.
    fn length(&self) -> u64;
    /// The next of them, verified; all at once where the value fits. `None`: that was all.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Bytes>, Lost>> + Send;
}

/// A value that is coming in. Dropped before it is committed, it leaves nothing.
pub trait Upload: Send + 'static {
    /// What to do next. What was to be filled before is taken for filled.
    fn next(&mut self) -> impl Future<Output = Next<'_>> + Send;
    /// Stores it under the key that it was begun for.
    fn commit(
        self,
        key: &[u8],
        options: PutOptions,
    ) -> impl Future<Output = Result<Put, Error>> + Send;
}
