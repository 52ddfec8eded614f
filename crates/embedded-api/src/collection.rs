//! The objects of one kind, their recent history and their watchers.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use serde_json::Value;

use crate::{
    object::{Key, Object},
    selector::Selector,
    store::CommitError,
    watch::{Change, Event, Watchers},
};

/// History that a kind keeps for watchers that come back.
const HISTORY_EVENTS: usize = 16_384;
const HISTORY_BYTES: usize = 16 << 20;

/// One kind as the store holds it.
#[derive(Debug, Default)]
pub(crate) struct Collection {
    pub(crate) objects: BTreeMap<Key, Arc<Object>>,
    pub(crate) bytes: u64,
    pub(crate) selectable: Arc<[String]>,
    pub(crate) history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    /// Events up to here are forgotten.
    pub(crate) forgotten: u64,
    pub(crate) watchers: Watchers,
}

impl Collection {
    pub(crate) fn new(selectable: Vec<String>, forgotten: u64) -> Self {
        Self {
            selectable: selectable.into(),
            forgotten,
            ..Self::default()
        }
    }

    pub(crate) fn check(
        &self,
        key: &Key,
        expected: Option<&Arc<Object>>,
    ) -> Result<(), CommitError> {
        match (self.objects.get(key), expected) {
            (None, None) => Ok(()),
            (Some(have), Some(expected)) if have.revision == expected.revision => Ok(()),
            _ => Err(CommitError::Changed),
        }
    }

    pub(crate) fn select(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Object>> {
        if let (Some(name), false) = (selector.exact_name(), namespace.is_empty()) {
            return self
                .objects
                .get(&Key::new(namespace, name))
                .filter(|o| selector.matches(o))
                .cloned()
                .into_iter()
                .collect();
        }
        let from = Bound::Included(Key::new(namespace, ""));
        let all = self.objects.range((from, Bound::Unbounded));
        let all = all.take_while(|(key, _)| namespace.is_empty() || *key.namespace == *namespace);
        all.map(|(_, o)| o)
            .filter(|o| selector.matches(o))
            .cloned()
            .collect()
    }

    pub(crate) fn put(&mut self, object: Arc<Object>, remember: bool) -> Option<Arc<Event>> {
        self.bytes += object.raw.len() as u64;
        let previous = self.objects.insert(object.key.clone(), Arc::clone(&object));
        if let Some(previous) = &previous {
            self.bytes -= previous.raw.len() as u64;
        }
        if !remember {
            return None;
        }
        let change = if previous.is_some() {
            Change::Modified
        } else {
            Change::Added
        };
        Some(self.remember(Event::new(change, object, previous)))
    }

    pub(crate) fn remove(&mut self, key: &Key, revision: u64) -> Option<Arc<Event>> {
        let previous = self.objects.remove(key)?;
        self.bytes -= previous.raw.len() as u64;
        let mut last = previous.value();
        last["metadata"]["resourceVersion"] = Value::from(revision.to_string());
        let last = Arc::new(Object::new(&last, revision, &self.selectable));
        Some(self.remember(Event::new(Change::Deleted, last, Some(previous))))
    }

    pub(crate) fn remember(&mut self, event: Event) -> Arc<Event> {
        let event = Arc::new(event);
        self.history_bytes += event.object.weight();
        self.history.push_back(Arc::clone(&event));
        while self.history.len() > HISTORY_EVENTS || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= oldest.object.weight();
            self.forgotten = oldest.revision;
        }
        event
    }

    pub(crate) fn set_selectable(&mut self, fields: Vec<String>) {
        if *self.selectable == *fields {
            return;
        }
        self.selectable = fields.into();
        for object in self.objects.values_mut() {
            *object = Arc::new(Object::new(
                &object.value(),
                object.revision,
                &self.selectable,
            ));
        }
        // Watchers of before hold selectors over the old fields, and history was indexed by them.
        self.watchers = Watchers::default();
        self.forgotten = self.history.back().map_or(self.forgotten, |e| e.revision);
        self.history.clear();
        self.history_bytes = 0;
    }
}
