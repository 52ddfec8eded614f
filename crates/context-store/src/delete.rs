//! Facts about blocks that have to outlive them: deletions, flushed namespaces, changed expiries. Each is a small record
//! that is on the medium before the reply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::core::{Core, Found};
use crate::error::StoreError;
use crate::hash::Fingerprint;
use crate::latency::Operation;
use crate::namespaces::Namespace;
use crate::record::{Kind, Meta};
use crate::small::Done;
use crate::store::{Shared, Store, check_key};

/// The record of a fact about a key, or about a namespace where the key is empty.
pub(crate) fn fact(kind: Kind, namespace: Namespace, key: &[u8], expiry: u32) -> Meta {
    Meta {
        kind,
        replaces: true,
        hashed: false,
        namespace,
        key: key.to_vec(),
        len: 0,
        expiry,
        sequence: 0,
        nonce: 0,
        place: 0,
        checksums: Vec::new(),
    }
}

/// The same of a key that is not known any more, but for its fingerprint.
pub(crate) fn hashed_fact(
    kind: Kind,
    namespace: Namespace,
    fingerprint: Fingerprint,
    expiry: u32,
) -> Meta {
    Meta {
        hashed: true,
        ..fact(kind, namespace, &fingerprint.0, expiry)
    }
}

type Answer = oneshot::Receiver<Result<Option<Done>, String>>;

impl Store {
    /// Deletes a block; whether there was one. Where the future is dropped the deletion goes on.
    ///
    /// # Errors
    /// A key of a length that is refused, a drive that fails, or no room for the tombstone: then the block is still
    /// there, and the call may be repeated.
    pub async fn delete(&self, namespace: Namespace, key: &[u8]) -> Result<bool, StoreError> {
        check_key(key)?;
        let began = Instant::now();
        let now = self.shared.now();
        let fingerprint = self.shared.fingerprint(namespace, key);
        let answer = {
            let mut core = self.shared.core();
            let exists = core.live(namespace, fingerprint, now).is_some();
            if !exists && !core.is_racing(fingerprint) && !core.tainted {
                return Ok(false);
            }
            self.shared
                .enqueue_fact(&mut core, Kind::Tombstone, namespace, key, fingerprint, 0)?
        };
        let existed = self.shared.fact_done(answer).await?;
        if existed {
            let mut core = self.shared.core();
            core.stats.deleted += 1;
            let took = began.elapsed();
            core.namespaces.took(namespace, Operation::Delete, took);
        }
        Ok(existed)
    }

    /// Deletes every block of a namespace, at once for whoever asks.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub async fn flush_namespace(&self, namespace: Namespace) -> Result<(), StoreError> {
        let answer = self.shared.enqueue_flush(namespace)?;
        self.shared.flushed(namespace, answer).await
    }

    /// Deletes every block of every namespace, and returns when that is on stable media: for a drive that comes back to a
    /// pool after others have served its keys. Puts that begin meanwhile may stay or go.
    ///
    /// # Errors
    /// As [`Store::delete`]: then some namespaces may be gone and others not, and the call may be repeated.
    pub async fn discard_all(&self) -> Result<(), StoreError> {
        let mut flushes = Vec::new();
        for namespace in self.namespaces() {
            flushes.push((namespace, self.shared.enqueue_flush(namespace)?));
        }
        for (namespace, answer) in flushes {
            self.shared.flushed(namespace, answer).await?;
        }
        self.persist().await?;
        Ok(())
    }

    /// Changes how long a block lives; none: until it is evicted. Whether there is such a block.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub async fn expire(
        &self,
        namespace: Namespace,
        key: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        check_key(key)?;
        let now = self.shared.now();
        let fingerprint = self.shared.fingerprint(namespace, key);
        let expiry = ttl.map_or(0, |ttl| now.after(ttl));
        let answer = {
            let mut core = self.shared.core();
            if core.live(namespace, fingerprint, now).is_none() {
                return Ok(false);
            }
            self.shared.enqueue_fact(
                &mut core,
                Kind::Expire,
                namespace,
                key,
                fingerprint,
                expiry,
            )?
        };
        self.shared.fact_done(answer).await
    }
}

impl Shared {
    fn enqueue_fact(
        self: &Arc<Self>,
        core: &mut Core,
        kind: Kind,
        namespace: Namespace,
        key: &[u8],
        fingerprint: Fingerprint,
        expiry: u32,
    ) -> Result<Answer, StoreError> {
        if core.closed {
            return Err(StoreError::Closed);
        }
        let meta = fact(kind, namespace, key, expiry);
        Ok(self.enqueue(core, meta, Vec::new(), fingerprint))
    }

    fn enqueue_flush(self: &Arc<Self>, namespace: Namespace) -> Result<Answer, StoreError> {
        let fingerprint = self.fingerprint(namespace, &[]);
        self.enqueue_fact(
            &mut self.core(),
            Kind::Flush,
            namespace,
            &[],
            fingerprint,
            0,
        )
    }

    /// Forgets a namespace's blocks once the record that says so is written.
    async fn flushed(&self, namespace: Namespace, answer: Answer) -> Result<(), StoreError> {
        let done = self.small_done(answer).await?.ok_or(StoreError::NoRoom)?;
        let mut core = self.core();
        core.namespaces.flush(namespace, done.committed.sequence);
        drop(core);
        self.room.notify_one();
        Ok(())
    }

    async fn fact_done(&self, answer: Answer) -> Result<bool, StoreError> {
        let done = self.small_done(answer).await?.ok_or(StoreError::NoRoom)?;
        Ok(done.existed)
    }

    /// Forgets a block that was found unreadable, unless the key has another one by now. A tombstone sees to it that a
    /// restart does not find it again, nor an older one.
    pub(crate) fn forget(self: &Arc<Self>, namespace: Namespace, key: &[u8], found: &Found) {
        let mut core = self.core();
        let same = core.index.get(found.fingerprint).is_some_and(|entry| {
            (entry.segment, entry.place) == (found.entry.segment, found.entry.place)
        });
        if same {
            core.remove(found.fingerprint);
            let tombstone = self.enqueue_fact(
                &mut core,
                Kind::Tombstone,
                namespace,
                key,
                found.fingerprint,
                0,
            );
            // The packing task writes it; nobody waits for it.
            drop(tombstone);
        }
    }
}
