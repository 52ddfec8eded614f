//! The requests of one connection that wait for something: the rule by which a late answer never lands in a slot that
//! was given to somebody else.
//!
//! Whoever reads the connection takes a call out of the table for as long as it receives bytes for it, and with it the
//! guard of the memory that they go to. A caller that gives up meanwhile only leaves word. So memory is let go either
//! here, before any byte of an answer has been looked at, or by the reader, after the last one.

use std::collections::HashMap;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Calls by their ids.
#[derive(Debug)]
pub struct Calls<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    next: u64,
    closed: bool,
    open: HashMap<u64, Stage<T>>,
}

#[derive(Debug)]
enum Stage<T> {
    /// Nothing has come for it, or nothing is coming just now.
    Waiting(T),
    /// The reader has it.
    Claimed,
    /// The reader has it, and nobody waits for it any more.
    GivenUp,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                next: 1,
                closed: false,
                open: HashMap::new(),
            }),
        }
    }
}

impl<T> Calls<T> {
    /// Adds a call under a new id; the call itself where the connection is closed.
    pub fn open(&self, call: T) -> Result<u64, T> {
        let mut state = self.lock();
        if state.closed {
            return Err(call);
        }
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Stage::Waiting(call));
        Ok(id)
    }

    /// Adds a call under an id of the other side's or an earlier call's; the call itself where that is in use, or the
    /// connection is closed.
    pub fn insert(&self, id: u64, call: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed || state.open.contains_key(&id) {
            return Err(call);
        }
        state.open.insert(id, Stage::Waiting(call));
        Ok(())
    }

    /// The reader begins to receive bytes for a call. None: nobody waits for them.
    pub fn claim(&self, id: u64) -> Option<T> {
        let mut state = self.lock();
        let stage = state.open.get_mut(&id)?;
        match std::mem::replace(stage, Stage::Claimed) {
            Stage::Waiting(call) => Some(call),
            claimed => {
                *stage = claimed;
                None
            }
        }
    }

    /// The reader has received some bytes of a claimed call, and more will come. The call itself where nobody waits for
    /// them any more.
    pub fn put_back(&self, id: u64, call: T) -> Option<T> {
        let mut state = self.lock();
        let wanted = !state.closed && matches!(state.open.get(&id), Some(Stage::Claimed));
        if wanted {
            state.open.insert(id, Stage::Waiting(call));
            return None;
        }
        state.open.remove(&id);
        Some(call)
    }

    /// The reader has received all of a claimed call. Whether somebody still waits for it.
    pub fn finish(&self, id: u64) -> bool {
        matches!(self.lock().open.remove(&id), Some(Stage::Claimed))
    }

    /// Takes a call out that is answered without bytes.
    pub fn take(&self, id: u64) -> Option<T> {
        let mut state = self.lock();
        match state.open.remove(&id)? {
            Stage::Waiting(call) => Some(call),
            claimed => {
                state.open.insert(id, claimed);
                None
            }
        }
    }

    /// The caller no longer waits. Whether the call was still open; it is dropped, or is by the reader once that
    /// has received what it is at.
    pub fn give_up(&self, id: u64) -> bool {
        let dropped = {
            let mut state = self.lock();
            match state.open.remove(&id) {
                None => return false,
                Some(Stage::Waiting(call)) => Some(call),
                Some(Stage::Claimed | Stage::GivenUp) => {
                    state.open.insert(id, Stage::GivenUp);
                    None
                }
            }
        };
        // Outside the lock: what a call holds may have much to say when it goes.
        drop(dropped);
        true
    }

    /// Takes no calls any more, and drops those that wait.
    pub fn close(&self) {
        let open = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.open)
        };
        drop(open);
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
