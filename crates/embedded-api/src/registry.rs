//! All kinds now served: the built-in ones and those of the stored CustomResourceDefinitions.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    builtin, definition,
    resource::{Resource, Source},
    selector::Selector,
    store::{CRDS, Store, crd_selectable},
};

/// A snapshot of the served kinds by group, then version, then plural.
pub(crate) type Served = BTreeMap<String, BTreeMap<String, BTreeMap<String, Arc<Resource>>>>;

/// The served kinds; replaced as a whole when a definition changes.
#[derive(Debug)]
pub(crate) struct Registry {
    builtin: Vec<Arc<Resource>>,
    served: RwLock<Arc<Served>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            builtin: builtin::resources(),
            served: RwLock::default(),
        }
    }

    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.served().get(group)?.get(version)?.get(plural).cloned()
    }

    /// The kind that owner references name.
    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.served()
            .get(group)?
            .get(version)?
            .values()
            .find(|r| r.kind == kind)
            .cloned()
    }

    /// Any served version of the kind that the store names so.
    pub(crate) fn by_storage(&self, storage: &str) -> Option<Arc<Resource>> {
        let served = self.served();
        let mut all = served
            .values()
            .flat_map(|versions| versions.values())
            .flat_map(|plurals| plurals.values());
        all.find(|r| r.storage() == storage && r.is_stored_version())
            .cloned()
    }

    /// Reads the definitions again. Kinds of unchanged ones are kept, with their compiled schemas.
    pub(crate) fn reload(&self, store: &Store) {
        let mut slot = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let (_, definitions) = store.list(CRDS, "", &Selector::default());
        let mut fresh = Served::new();
        let mut add = |r: &Arc<Resource>| {
            let version = fresh
                .entry(r.group.clone())
                .or_default()
                .entry(r.version.clone())
                .or_default();
            version.insert(r.plural.clone(), Arc::clone(r));
        };
        self.builtin.iter().for_each(&mut add);
        for object in definitions {
            let kept: Vec<Arc<Resource>> = slot
                .values()
                .flat_map(|versions| versions.values())
                .flat_map(|plurals| plurals.values())
                .filter(|r| matches!(r.source, Source::Definition { revision, .. } if revision == object.revision))
                .cloned()
                .collect();
            if kept.is_empty() {
                let value = object.value();
                let (kind, fields) = crd_selectable(&value);
                store.set_selectable(&kind, fields);
                definition::resources(&value, object.revision)
                    .iter()
                    .for_each(&mut add);
            } else {
                kept.iter().for_each(&mut add);
            }
        }
        *slot = Arc::new(fresh);
    }
}
