//! Arena bytes of the whole node.

use std::sync::{Arc, Mutex, PoisonError};

use strand_context_store::MAX_VALUE;
use strand_kv_client::slots::SLOT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A total of arena bytes, granted piece by piece, and besides it the bytes in which values are gathered that are larger
/// than their pod's arena. Several [`Node`](crate::Node)s (pools) may share one.
#[derive(Debug)]
pub struct ArenaBudget {
    total: usize,
    granted: Mutex<usize>,
    gathered: Arc<Semaphore>,
    gather: usize,
}

/// Room to gather a value in, until dropped.
#[derive(Debug)]
pub(crate) struct Gather {
    _slots: OwnedSemaphorePermit,
}

/// Bytes of an [`ArenaBudget`], until dropped.
#[derive(Debug)]
pub(crate) struct Granted {
    budget: Arc<ArenaBudget>,
    pub(crate) bytes: usize,
}

impl ArenaBudget {
    /// The default room to gather values in: one of the largest.
    pub const GATHER_BYTES: usize = MAX_VALUE;

    /// A total of so many arena bytes, and [`ArenaBudget::GATHER_BYTES`] to gather values in: the agent's memory limit
    /// must have both.
    pub fn new(total: usize) -> Arc<Self> {
        Self::with_gather(total, Self::GATHER_BYTES)
    }

    /// A total of so many arena bytes, and `gather` bytes to gather values in: the largest that can be put which does
    /// not fit its pod's arena. They are taken while such a value comes in, and given back.
    pub fn with_gather(total: usize, gather: usize) -> Arc<Self> {
        let slots = (gather / SLOT).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            total,
            granted: Mutex::new(0),
            gathered: Arc::new(Semaphore::new(slots)),
            gather: slots * SLOT,
        })
    }

    /// Room to gather `bytes` in, in turn. None: there never is so much.
    pub(crate) async fn gather(&self, bytes: usize) -> Option<Gather> {
        if bytes > self.gather {
            return None;
        }
        let slots = u32::try_from(bytes.div_ceil(SLOT)).ok()?;
        let taken = Arc::clone(&self.gathered).acquire_many_owned(slots).await;
        taken.ok().map(|_slots| Gather { _slots })
    }

    /// The largest value that can be gathered, bytes.
    pub(crate) fn gather_bytes(&self) -> usize {
        self.gather
    }

    /// Bytes in which values are gathered now.
    pub fn gathered(&self) -> usize {
        self.gather - self.gathered.available_permits() * SLOT
    }

    /// As many of `wanted` bytes as there are, in multiples of `unit`; none where fewer than `least` are left.
    pub(crate) fn take(
        self: &Arc<Self>,
        wanted: usize,
        least: usize,
        unit: usize,
    ) -> Option<Granted> {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = wanted.min(self.total.saturating_sub(*granted)) / unit * unit;
        if bytes < least {
            return None;
        }
        *granted += bytes;
        Some(Granted {
            budget: Arc::clone(self),
            bytes,
        })
    }

    /// The total, bytes.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What is granted of it now, bytes.
    pub fn granted(&self) -> usize {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let mut granted = (self.budget.granted.lock()).unwrap_or_else(PoisonError::into_inner);
        *granted -= self.bytes;
    }
}
