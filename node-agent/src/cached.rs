//! Objects of one kind as the API has them, small and never older than what this agent wrote itself.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// The objects of one kind that a watch delivers, joined with the answers to this agent's own writes. A watch lags behind those:
/// an event that is older than what is known already is left out, or the agent would write the same thing again.
#[derive(Debug)]
pub struct Cached<K> {
    objects: BTreeMap<String, K>,
    /// Names listed since the watch was begun anew; `None` when no list is under way.
    listed: Option<BTreeSet<String>>,
    synced: bool,
}

impl<K> Default for Cached<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listed: None,
            synced: false,
        }
    }
}

impl<K: ResourceExt> Cached<K> {
    /// Whether the whole list was seen at least once.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// One object.
    pub fn get(&self, name: &str) -> Option<&K> {
        self.objects.get(name)
    }

    /// All objects, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &K)> {
        self.objects.iter()
    }

    /// Takes what a watch delivered.
    pub fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listed = Some(BTreeSet::new()),
            Event::InitApply(object) => {
                // A list stands over what was known before it, also where its version is lower: the API may have come back
                // from a backup. What was written since the list began stands over the list.
                if self
                    .listed
                    .as_mut()
                    .is_none_or(|listed| listed.insert(object.name_any()))
                {
                    self.put(object);
                }
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.objects.retain(|name, _| listed.contains(name));
                }
                self.synced = true;
            }
            Event::Apply(object) => {
                if !self.known_newer(&object) {
                    self.put(object);
                }
            }
            Event::Delete(object) => {
                let name = object.name_any();
                if self
                    .get(&name)
                    .is_some_and(|known| known.uid() == object.uid())
                {
                    self.objects.remove(&name);
                }
            }
        }
    }

    /// Takes the answer to a write of this agent's own. Where the object was there before the write (`created` is false) and
    /// has gone since, the answer is about something that is no more.
    pub fn written(&mut self, object: K, created: bool) {
        let name = object.name_any();
        let same = self
            .get(&name)
            .is_some_and(|known| known.uid() == object.uid());
        if (same || created) && !self.known_newer(&object) {
            if let Some(listed) = &mut self.listed {
                listed.insert(name);
            }
            self.put(object);
        }
    }

    fn put(&mut self, mut object: K) {
        object.managed_fields_mut().clear();
        self.objects.insert(object.name_any(), object);
    }

    fn known_newer(&self, object: &K) -> bool {
        let version = |object: &K| object.resource_version()?.parse::<u64>().ok();
        match (
            self.get(&object.name_any()).and_then(version),
            version(object),
        ) {
            (Some(known), Some(new)) => known > new,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(uid: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".into());
        map.metadata.uid = Some(uid.into());
        map.metadata.resource_version = Some(version.into());
        map
    }

    fn version(cached: &Cached<ConfigMap>) -> Option<String> {
        cached.get("a").and_then(ResourceExt::resource_version)
    }

    #[test]
    fn a_watch_that_lags_does_not_undo_an_own_write() {
        let mut cached = Cached::default();
        cached.take(Event::Apply(object("u", "5")));
        cached.written(object("u", "7"), false);
        cached.take(Event::Apply(object("u", "6")));
        assert_eq!(version(&cached).as_deref(), Some("7"));
        cached.take(Event::Delete(object("u", "8")));
        assert_eq!(version(&cached), None);
        cached.written(object("u", "7"), false);
        assert_eq!(
            version(&cached),
            None,
            "an answer about an object that has gone"
        );
    }

    #[test]
    fn a_list_stands_over_all_but_what_was_written_meanwhile() {
        let mut cached = Cached::default();
        cached.take(Event::Apply(object("u", "50")));
        cached.take(Event::Init);
        assert!(!cached.synced());
        cached.take(Event::InitApply(object("u", "3")));
        cached.take(Event::InitDone);
        assert!(cached.synced());
        assert_eq!(version(&cached).as_deref(), Some("3"), "from a backup");

        cached.take(Event::Init);
        cached.written(object("v", "9"), true);
        cached.take(Event::InitApply(object("u", "3")));
        cached.take(Event::InitDone);
        assert_eq!(version(&cached).as_deref(), Some("9"));

        cached.take(Event::Init);
        cached.take(Event::InitDone);
        assert_eq!(version(&cached), None);
    }
}
