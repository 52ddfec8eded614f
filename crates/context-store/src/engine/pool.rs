//! Private pages for headers: the part of each transfer that no pod may see or change.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::Engine;
use super::memory::{Region, Span};

/// Slots that a pool grows by.
const STEP: usize = 64;

/// A growing set of equal slots of private memory, pinned for one engine.
pub(crate) struct Pool {
    slot_len: usize,
    engine: Arc<dyn Engine>,
    free: Arc<Mutex<Vec<Span>>>,
}

/// Puts a slot back when the last span over it is gone.
struct Return {
    slot: Option<Span>,
    free: Arc<Mutex<Vec<Span>>>,
}

impl Drop for Return {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(slot);
        }
    }
}

impl Pool {
    /// `slot_len` is a multiple of the page size.
    pub(crate) fn new(slot_len: usize, engine: Arc<dyn Engine>) -> Pool {
        Pool {
            slot_len,
            engine,
            free: Arc::default(),
        }
    }

    /// A slot with whatever bytes its last user left in it.
    pub(crate) fn take(&self) -> io::Result<Span> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            let region = Region::anonymous(self.slot_len * STEP)?;
            if let Err(error) = self.engine.register(&region) {
                tracing::debug!(%error, "private pages are used unregistered");
            }
            free.extend((0..STEP).filter_map(|n| region.span(n * self.slot_len, self.slot_len)));
        }
        let slot = free
            .pop()
            .ok_or_else(|| io::Error::other("no private page left"))?;
        drop(free);
        let guard = Return {
            slot: Some(slot.clone()),
            free: Arc::clone(&self.free),
        };
        Ok(slot.guarded(Arc::new(guard)))
    }
}
