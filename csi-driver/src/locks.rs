//! One operation a volume at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// The volumes and snapshots that are being worked on. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    held: Arc<Mutex<HashSet<String>>>,
}

/// An id that is being worked on, until this is dropped.
#[derive(Debug)]
pub struct Held {
    locks: Locks,
    id: String,
}

impl Locks {
    /// Takes an id.
    ///
    /// # Errors
    /// [`Error::Busy`] where somebody has it; nobody waits, as the specification asks.
    pub fn take(&self, id: &str) -> Result<Held, Error> {
        if !self.held().insert(id.to_owned()) {
            return Err(Error::Busy(id.to_owned()));
        }
        Ok(Held {
            locks: self.clone(),
            id: id.to_owned(),
        })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.held().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_free_afterwards() {
        let locks = Locks::default();
        let held = locks.take("a").unwrap();
        assert!(matches!(locks.take("a"), Err(Error::Busy(_))));
        assert!(locks.take("b").is_ok());
        drop(held);
        assert!(locks.take("a").is_ok());
    }
}
