//! A block's way out: checked against its index entry before it is read, and against its key and checksums after.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Found;
use crate::engine::memory::Span;
use crate::engine::queue::Flow;
use crate::error::StoreError;
use crate::latency::Operation;
use crate::namespaces::Namespace;
use crate::source::cut;
use crate::space::State;
use crate::store::{Shared, Store, check_key};

/// What a get found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Get {
    /// The value lies in the caller's memory, verified.
    Hit {
        /// Its bytes.
        len: usize,
        /// How long it still lives; none: until it is evicted.
        expires_in: Option<Duration>,
    },
    /// There is no such block, or none that could be verified.
    Miss,
}

/// Keeps a segment from being used again while it is read.
pub(crate) struct Reading {
    pub(crate) shared: Arc<Shared>,
    pub(crate) found: Found,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut core = self.shared.core();
        let unit = core.space.get_mut(u32::from(self.found.entry.segment));
        unit.readers -= 1;
        let waited_for = unit.readers == 0 && matches!(unit.state, State::Retired { .. });
        drop(core);
        if waited_for {
            self.shared.room.notify_one();
        }
    }
}

impl Store {
    /// Reads a block into `dst`: spans that start on page boundaries, all but the last multiples of 1 MiB, together at
    /// least as long as the value (see [`Store::len_to_read`]). The whole value is verified before this returns; what lies
    /// in `dst` after a miss is some of this namespace's own bytes, or what was there.
    ///
    /// # Errors
    /// A key of a length that is refused, memory that does not suit, or a drive that fails.
    pub async fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        dst: &[Span],
    ) -> Result<Get, StoreError> {
        check_key(key)?;
        let began = Instant::now();
        let Some((reading, flow)) = self.shared.find(namespace, key, true) else {
            return Ok(Get::Miss);
        };
        let entry = reading.found.entry;
        self.shared.admit_read(namespace, flow, entry.len)?;
        let body = cut(dst, entry.len as usize)?;
        let result = self
            .shared
            .read_value(&reading, flow, namespace, key, body)
            .await?;
        let now = self.shared.now();
        match result {
            Ok(()) => {
                let mut core = self.shared.core();
                core.stats.hits += 1;
                core.stats.bytes_out += u64::from(entry.len);
                core.namespaces.count(namespace, |counts| {
                    counts.hits += 1;
                    counts.bytes_out += u64::from(entry.len);
                });
                let took = began.elapsed();
                core.namespaces.took(namespace, Operation::Get, took);
                Ok(Get::Hit {
                    len: entry.len as usize,
                    expires_in: now.left(now.widen(entry.expiry)),
                })
            }
            Err(failure) => {
                self.shared.missed(namespace);
                self.shared.discredit(&reading, namespace, key, failure);
                Ok(Get::Miss)
            }
        }
    }

    /// Reads a block into memory of its own; for small values and for tests.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_bytes(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(len) = self.len_to_read(namespace, key) else {
            return Ok(None);
        };
        let span = crate::Buffer::zeroed(len)?.into_span();
        let Get::Hit { len, .. } = self
            .get(namespace, key, std::slice::from_ref(&span))
            .await?
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; len];
        span.copy_to(&mut bytes);
        Ok(Some(bytes))
    }
}

impl Shared {
    pub(crate) fn missed(&self, namespace: Namespace) {
        let mut core = self.core();
        core.stats.misses += 1;
        core.namespaces
            .count(namespace, |counts| counts.misses += 1);
    }

    /// Refuses a read where too much of the namespace waits already.
    pub(crate) fn admit_read(
        &self,
        namespace: Namespace,
        flow: Flow,
        len: u32,
    ) -> Result<(), StoreError> {
        let bound = self.options.read_queue_bytes;
        if self.disk.may_wait_to_read(flow, len as usize, bound) {
            return Ok(());
        }
        let mut core = self.core();
        core.stats.busy += 1;
        core.namespaces.count(namespace, |counts| counts.busy += 1);
        Err(StoreError::Busy)
    }

    /// Finds a block and keeps its segment; counts the miss where there is none.
    pub(crate) fn find(
        self: &Arc<Self>,
        namespace: Namespace,
        key: &[u8],
        touch: bool,
    ) -> Option<(Reading, Flow)> {
        let now = self.now();
        let mut core = self.core();
        let fingerprint = (core.fingerprint)(&self.superblock.secret, namespace, key);
        let Some(found) = core.begin_read(namespace, fingerprint, now) else {
            core.missed(namespace, fingerprint, now);
            return None;
        };
        if touch {
            core.touch(fingerprint, found.entry);
        }
        drop(core);
        let flow = Flow {
            id: u32::from(found.entry.owner),
            weight: found.weight,
        };
        Some((self.reading(found), flow))
    }

    /// Takes over a reader that was counted.
    pub(crate) fn reading(self: &Arc<Self>, found: Found) -> Reading {
        Reading {
            shared: Arc::clone(self),
            found,
        }
    }
}
