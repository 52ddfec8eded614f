//! Who watches what: finding the watchers of an event, and their queues.
//!
//! An event is serialised once; every watcher sends the same bytes. Watchers are found by the one requirement of their
//! selector that names a value (a name, a field, a label), so an event costs what its own watchers cost, however many
//! others there are. A watcher that does not keep up is cut off and comes back with the last revision it saw.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use axum::body::Bytes;
use tokio::sync::mpsc;

use crate::{
    object::Object,
    selector::{Handle, Selector, handles_of},
};

/// Events that may wait for one watcher.
const QUEUE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by history and watchers.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) change: Change,
    pub(crate) object: Arc<Object>,
    pub(crate) previous: Option<Arc<Object>>,
    frame: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(change: Change, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self {
            revision: object.revision,
            change,
            object,
            previous,
            frame: OnceLock::new(),
        }
    }

    /// The line that most watchers send, made once.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame
            .get_or_init(|| frame(self.change, &self.object.raw))
            .clone()
    }

    /// What the event is to a watcher with this selector: objects enter and leave its view.
    pub(crate) fn seen_by(&self, selector: &Selector) -> Option<Change> {
        let now = self.change != Change::Deleted && selector.matches(&self.object);
        let before = self.previous.as_ref().is_some_and(|p| selector.matches(p));
        match (before, now) {
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
            (false, false) => None,
        }
    }
}

/// A watch event's line around an object's JSON.
pub(crate) fn frame(change: Change, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(change.name().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// What waits in a watcher's queue.
#[derive(Debug)]
pub(crate) enum Item {
    Event(Arc<Event>),
    /// Everything up to this revision has been queued.
    Bookmark(u64),
}

#[derive(Debug)]
struct Watcher {
    selector: Selector,
    queue: mpsc::Sender<Item>,
    bookmarks: bool,
}

/// The watchers of one kind.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    by_handle: HashMap<Handle, Vec<Watcher>>,
}

impl Watchers {
    pub(crate) fn len(&self) -> usize {
        self.by_handle
            .values()
            .flatten()
            .filter(|w| !w.queue.is_closed())
            .count()
    }

    pub(crate) fn add(&mut self, selector: Selector, bookmarks: bool) -> mpsc::Receiver<Item> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let group = self.by_handle.entry(selector.handle()).or_default();
        group.retain(|w| !w.queue.is_closed());
        group.push(Watcher {
            selector,
            queue,
            bookmarks,
        });
        receiver
    }

    pub(crate) fn send(&mut self, event: &Arc<Event>) {
        if self.by_handle.is_empty() {
            return;
        }
        let mut handles = vec![Handle::All];
        handles_of(&event.object, &mut handles);
        if let Some(previous) = &event.previous {
            handles_of(previous, &mut handles);
        }
        for handle in &handles {
            let Some(group) = self.by_handle.get_mut(handle) else {
                continue;
            };
            // A full queue cuts its watcher off; a closed one belongs to a client that left.
            group.retain(|w| {
                event.seen_by(&w.selector).is_none()
                    || w.queue.try_send(Item::Event(Arc::clone(event))).is_ok()
            });
            if group.is_empty() {
                self.by_handle.remove(handle);
            }
        }
    }

    pub(crate) fn bookmark(&mut self, revision: u64) {
        self.by_handle.retain(|_, group| {
            group.retain(|w| match w.bookmarks {
                true => w.queue.try_send(Item::Bookmark(revision)).is_ok(),
                false => !w.queue.is_closed(),
            });
            !group.is_empty()
        });
    }
}
