//! Arena bytes of the whole node.

use std::sync::{Arc, Mutex, PoisonError};

/// A total of bytes, granted piece by piece.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    granted: Mutex<usize>,
}

/// Bytes of a [`Budget`], until dropped.
#[derive(Debug)]
pub(crate) struct Granted {
    budget: Arc<Budget>,
    pub(crate) bytes: usize,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            granted: Mutex::new(0),
        })
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

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn granted(&self) -> usize {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let mut granted = (self.budget.granted.lock()).unwrap_or_else(PoisonError::into_inner);
        *granted -= self.bytes;
    }
}
