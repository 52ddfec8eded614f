//! All objects in memory, their history for watchers, and the log behind them.
//!
//! One lock guards everything and is held for microseconds: reads copy pointers out, writers prepare a new version
//! outside and commit it only if the version they started from is still the stored one.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::{
    collection::Collection,
    log::{Line, Log, LogError},
    object::{Key, Object},
    selector::Selector,
    watch::{Event, Item, Watchers},
};

/// The kind of CustomResourceDefinition itself, as the store names kinds.
pub(crate) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Why a commit did not happen.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// The stored version is not the expected one any more: start again from the current one.
    Changed,
    /// The log could not be written.
    Log(io::Error),
}

/// A watch that cannot be served from history.
#[derive(Debug)]
pub(crate) struct TooOld {
    pub(crate) asked: u64,
    pub(crate) oldest: u64,
}

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// With every object that exists.
    Everything,
    /// After this revision.
    After(u64),
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    /// Where history begins: the log knows nothing older.
    start: u64,
    kinds: HashMap<String, Collection>,
    builtin_selectable: fn(&str) -> Vec<String>,
    log: Log,
    /// Where events go that the collector may have to act on.
    collector: UnboundedSender<(String, Arc<Event>)>,
}

/// The store; cheap to share by `Arc`.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

impl Store {
    /// Opens the state in `dir`. `builtin_selectable` gives a built-in kind's selectable fields; those of others come from
    /// their CustomResourceDefinitions, which the log holds before their objects.
    pub(crate) fn open(
        dir: &Path,
        builtin_selectable: fn(&str) -> Vec<String>,
        collector: UnboundedSender<(String, Arc<Event>)>,
    ) -> Result<Self, LogError> {
        let mut kinds: HashMap<String, Collection> = HashMap::new();
        let mut revision = 1;
        let mut start = 1;
        let log = Log::open(dir, |line| match line {
            Line::Start { revision: at } => {
                revision = at;
                start = at;
            }
            Line::Put {
                revision: at,
                kind,
                object,
            } => {
                revision = revision.max(at);
                if kind == CRDS {
                    let (of, fields) = crd_selectable(&object);
                    kinds.entry(of).or_default().set_selectable(fields);
                }
                let collection = kinds
                    .entry(kind)
                    .or_insert_with_key(|kind| Collection::new(builtin_selectable(kind), 0));
                let object = Arc::new(Object::new(&object, at, &collection.selectable));
                collection.put(object, at > start);
            }
            Line::Delete {
                revision: at,
                kind,
                key,
            } => {
                revision = revision.max(at);
                if let Some(collection) = kinds.get_mut(&kind) {
                    collection.remove(&key, at);
                }
            }
        })?;
        for collection in kinds.values_mut() {
            collection.forgotten = collection.forgotten.max(start);
        }
        Ok(Self {
            inner: Mutex::new(Inner {
                revision,
                start,
                kinds,
                builtin_selectable,
                log,
                collector,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves whole objects behind: every change is one assignment after the log's line.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub(crate) fn get(&self, kind: &str, key: &Key) -> Option<Arc<Object>> {
        self.lock().kinds.get(kind)?.objects.get(key).cloned()
    }

    /// Everything selected, in order of namespace and name, and the revision at which it was so.
    pub(crate) fn list(
        &self,
        kind: &str,
        namespace: &str,
        selector: &Selector,
    ) -> (u64, Vec<Arc<Object>>) {
        let inner = self.lock();
        let found = inner
            .kinds
            .get(kind)
            .map(|c| c.select(namespace, selector))
            .unwrap_or_default();
        (inner.revision, found)
    }

    /// All kinds with their objects: for the collector's first look and for metrics.
    pub(crate) fn count(&self) -> Vec<(String, usize)> {
        let inner = self.lock();
        inner
            .kinds
            .iter()
            .filter(|(_, c)| !c.objects.is_empty())
            .map(|(k, c)| (k.clone(), c.objects.len()))
            .collect()
    }

    /// Watchers now registered.
    pub(crate) fn watchers(&self) -> usize {
        self.lock().kinds.values().map(|c| c.watchers.len()).sum()
    }

    /// The objects of all kinds that name `uid` as an owner.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<(String, Arc<Object>)> {
        let inner = self.lock();
        let all = inner
            .kinds
            .iter()
            .flat_map(|(k, c)| c.objects.values().map(move |o| (k, o)));
        all.filter(|(_, o)| o.owners.iter().any(|w| *w.uid == *uid))
            .map(|(k, o)| (k.clone(), Arc::clone(o)))
            .collect()
    }

    /// Every object for which `keep` holds, with its kind.
    pub(crate) fn filtered(
        &self,
        keep: impl Fn(&str, &Object) -> bool,
    ) -> Vec<(String, Arc<Object>)> {
        let inner = self.lock();
        let all = inner
            .kinds
            .iter()
            .flat_map(|(k, c)| c.objects.values().map(move |o| (k, o)));
        all.filter(|(k, o)| keep(k, o))
            .map(|(k, o)| (k.clone(), Arc::clone(o)))
            .collect()
    }

    /// Stores a new version. `expected` is the version it was made from; `None` creates. The resourceVersion is set here.
    pub(crate) fn put(
        &self,
        kind: &str,
        expected: Option<&Arc<Object>>,
        value: &mut Value,
    ) -> Result<Arc<Object>, CommitError> {
        let mut guard = self.lock();
        guard.collection(kind);
        let Inner {
            revision,
            kinds,
            log,
            collector,
            ..
        } = &mut *guard;
        let collection = kinds.get_mut(kind).ok_or(CommitError::Changed)?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let key = Key::new(
            &text(&value["metadata"]["namespace"]),
            &text(&value["metadata"]["name"]),
        );
        collection.check(&key, expected)?;
        let next = *revision + 1;
        value["metadata"]["resourceVersion"] = Value::from(next.to_string());
        let object = Arc::new(Object::new(value, next, &collection.selectable));
        log.put(next, kind, &object).map_err(CommitError::Log)?;
        *revision = next;
        let event = collection.put(Arc::clone(&object), true);
        if let Some(event) = event {
            collection.watchers.send(&event);
            // The collector lives as long as the server; when it is gone, nothing is to be collected.
            let _ = collector.send((kind.to_owned(), event));
        }
        guard.compact_when_due();
        Ok(object)
    }

    /// Removes the object, if it is still the expected version. Returns its last version, with the deletion's revision.
    pub(crate) fn remove(
        &self,
        kind: &str,
        expected: &Arc<Object>,
    ) -> Result<Arc<Object>, CommitError> {
        let mut guard = self.lock();
        let Inner {
            revision,
            kinds,
            log,
            collector,
            ..
        } = &mut *guard;
        let collection = kinds.get_mut(kind).ok_or(CommitError::Changed)?;
        collection.check(&expected.key, Some(expected))?;
        let next = *revision + 1;
        log.delete(next, kind, &expected.key)
            .map_err(CommitError::Log)?;
        *revision = next;
        let Some(event) = collection.remove(&expected.key, next) else {
            return Err(CommitError::Changed);
        };
        collection.watchers.send(&event);
        let last = Arc::clone(&event.object);
        let _ = collector.send((kind.to_owned(), event));
        guard.compact_when_due();
        Ok(last)
    }

    /// Makes `fields` the kind's selectable fields and reads them out of its objects again.
    pub(crate) fn set_selectable(&self, kind: &str, fields: Vec<String>) {
        self.lock().collection(kind).set_selectable(fields);
    }

    /// Ends every watch of a kind that is no longer served.
    pub(crate) fn close_watches(&self, kind: &str) {
        if let Some(collection) = self.lock().kinds.get_mut(kind) {
            collection.watchers = Watchers::default();
        }
    }

    /// Registers a watcher: the objects or events to begin with, the revision reached, and the queue of what follows.
    pub(crate) fn watch(
        &self,
        kind: &str,
        selector: &Selector,
        from: From,
        bookmarks: bool,
    ) -> Result<Subscription, TooOld> {
        let mut inner = self.lock();
        let revision = inner.revision;
        let collection = inner.collection(kind);
        let (objects, missed) = match from {
            From::Everything => (
                collection.select(selector.namespace(), selector),
                Vec::new(),
            ),
            From::After(asked) if asked < collection.forgotten || asked > revision => {
                return Err(TooOld {
                    asked,
                    oldest: collection.forgotten,
                });
            }
            From::After(asked) => {
                let after = collection.history.partition_point(|e| e.revision <= asked);
                (
                    Vec::new(),
                    collection.history.range(after..).cloned().collect(),
                )
            }
        };
        let queue = collection.watchers.add(selector.clone(), bookmarks);
        Ok(Subscription {
            revision,
            objects,
            missed,
            queue,
        })
    }

    /// Tells every watcher that asked for bookmarks how far it is.
    pub(crate) fn bookmark(&self) {
        let mut inner = self.lock();
        let revision = inner.revision;
        for collection in inner.kinds.values_mut() {
            collection.watchers.bookmark(revision);
        }
    }
}

/// A watcher's beginning and its queue.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) missed: Vec<Arc<Event>>,
    pub(crate) queue: mpsc::Receiver<Item>,
}

impl Inner {
    fn collection(&mut self, kind: &str) -> &mut Collection {
        let (start, selectable) = (self.start, self.builtin_selectable);
        self.kinds
            .entry(kind.to_owned())
            .or_insert_with(|| Collection::new(selectable(kind), start))
    }

    fn compact_when_due(&mut self) {
        let live = self.kinds.values().map(|c| c.bytes).sum();
        if !self.log.is_mostly_history(live) {
            return;
        }
        // Definitions first: reading the log back needs a kind's selectable fields before its objects.
        let (definitions, others): (Vec<_>, Vec<_>) =
            self.kinds.iter().partition(|(k, _)| *k == CRDS);
        let all = definitions.into_iter().chain(others);
        let objects = all.flat_map(|(k, c)| c.objects.values().map(move |o| (k.as_str(), &**o)));
        if let Err(error) = self.log.compact(self.revision, objects) {
            tracing::warn!(%error, "the API server's log could not be compacted and goes on growing; check the disk");
        }
    }
}

/// The kind that a definition defines and its selectable fields (`.spec.x` is kept as `spec.x`).
pub(crate) fn crd_selectable(definition: &Value) -> (String, Vec<String>) {
    let spec = &definition["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let of = crate::status::qualified(&text(&spec["group"]), &text(&spec["names"]["plural"]));
    let mut fields = Vec::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        for field in version["selectableFields"].as_array().into_iter().flatten() {
            let path = text(&field["jsonPath"]).trim_start_matches('.').to_owned();
            if !fields.contains(&path) {
                fields.push(path);
            }
        }
    }
    (of, fields)
}
