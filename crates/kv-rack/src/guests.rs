//! Peers that are connected to this agent.
//!
//! A peer that connects anew has lost its former link, and with it all knowledge of what became of the changes it had
//! asked for there. Those still under way are finished before the new link serves anything: what the peer says
//! over the new link happens after what it said over the old one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::buffers::Holder;

#[derive(Debug, Default)]
pub(crate) struct Guests {
    by_node: Mutex<HashMap<String, Arc<Guest>>>,
    next: AtomicU64,
}

/// A peer's present link.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) holder: Holder,
    link: u128,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// All changes of earlier links are done.
    ready: bool,
    ended: bool,
    changes: usize,
}

/// A change under way.
pub(crate) struct Change(Arc<Guest>);

impl Guests {
    /// The guest that a connection belongs to. One of another link ends the one before.
    pub(crate) fn arrive(&self, node: &str, link: u128) -> Arc<Guest> {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        let before = by_node.get(node).cloned();
        if let Some(guest) = before.as_ref().filter(|guest| guest.link == link) {
            return Arc::clone(guest);
        }
        let guest = Arc::new(Guest {
            holder: self.next.fetch_add(1, Ordering::Relaxed),
            link,
            state: watch::Sender::default(),
        });
        by_node.insert(node.to_owned(), Arc::clone(&guest));
        drop(by_node);
        let ready = |guest: &Guest| guest.state.send_modify(|state| state.ready = true);
        let Some(before) = before else {
            ready(&guest);
            return guest;
        };
        before.end();
        let after = Arc::clone(&guest);
        tokio::spawn(async move {
            let mut state = before.state.subscribe();
            let done = state.wait_for(|state| state.ready && state.changes == 0);
            if done.await.is_ok() {
                ready(&after);
            }
        });
        guest
    }

    /// Ends all links; peers come again.
    pub(crate) fn end(&self) {
        let by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        by_node.values().for_each(|guest| guest.end());
    }
}

impl Guest {
    fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Waits until all changes of earlier links are done.
    pub(crate) async fn ready(&self) {
        let mut state = self.state.subscribe();
        // The sender is `self`'s: waiting cannot fail.
        let _ = state.wait_for(|state| state.ready || state.ended).await;
    }

    /// Waits for the end of the link.
    pub(crate) async fn ended(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.ended).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().ended
    }

    /// Begins a change; none: the link has ended, and the change must not happen any more.
    pub(crate) fn change(self: &Arc<Self>) -> Option<Change> {
        let begun = self.state.send_if_modified(|state| {
            state.changes += usize::from(!state.ended);
            !state.ended
        });
        begun.then(|| Change(Arc::clone(self)))
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.changes -= 1);
    }
}
