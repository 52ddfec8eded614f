//! Arena bytes of the whole node.

use std::sync::{Arc, Mutex, PoisonError};

/// A total of arena bytes, granted piece by piece. Several [`Node`](crate::Node)s (pools) may share one.
#[derive(Debug)]
pub struct ArenaBudget {
    total: usize,
    granted: Mutex<usize>,
}

/// Bytes of an [`ArenaBudget`], until dropped.
#[derive(Debug)]
pub(crate) struct Granted {
    budget: Arc<ArenaBudget>,
    pub(crate) bytes: usize,
}

impl ArenaBudget {
    /// A total of so many bytes: what the agent's memory limit has for arenas.
    pub fn new(total: usize) -> Arc<Self> {
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
