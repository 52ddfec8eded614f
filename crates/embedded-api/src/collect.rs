//! Deletion: finalizers, owners and their dependents, namespaces and definitions that go with all they hold.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    definition,
    object::{Key, Object},
    status::Failure,
    store::{CRDS, CommitError},
    time::now,
    watch::{Change, Event},
    write::{Target, Writes},
};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A delete's conditions.
#[derive(Debug, Clone)]
pub(crate) struct DeleteOptions {
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) propagation: Propagation,
    pub(crate) dry_run: bool,
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self {
            uid: None,
            revision: None,
            propagation: Propagation::Background,
            dry_run: false,
        }
    }
}

/// What a delete did.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone.
    Gone(Value),
    /// It waits for its finalizers.
    Waiting(Value),
}

/// Whether nothing holds a deleted object any more.
pub(crate) fn is_free(object: &Value) -> bool {
    let none = |v: &Value| v.as_array().is_none_or(Vec::is_empty);
    none(&object["metadata"]["finalizers"])
        && !(object["kind"] == "Namespace"
            && object["apiVersion"] == "v1"
            && !none(&object["spec"]["finalizers"]))
}

impl Writes {
    /// Deletes the object, or marks it deleted when finalizers hold it.
    pub(crate) fn delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Deleted, Failure> {
        let storage = target.resource.storage();
        loop {
            let Some(current) = self.store.get(&storage, &target.key) else {
                return Err(target.not_found());
            };
            check_conditions(target, &current, options)?;
            let mut value = current.value();
            let finalizer = match options.propagation {
                Propagation::Background => None,
                Propagation::Foreground => Some(FOREGROUND),
                Propagation::Orphan => Some(ORPHAN),
            };
            let definition = (storage == CRDS).then_some(definition::CLEANUP);
            if !current.deleting {
                for name in finalizer.into_iter().chain(definition) {
                    add_finalizer(&mut value, name);
                }
            }
            if options.dry_run {
                return Ok(if is_free(&value) {
                    Deleted::Gone(value)
                } else {
                    Deleted::Waiting(value)
                });
            }
            let result = if is_free(&value) {
                self.store
                    .remove(&storage, &current)
                    .map(|o| Deleted::Gone(o.value()))
            } else if current.deleting {
                return Ok(Deleted::Waiting(value));
            } else {
                mark(&mut value);
                self.store
                    .put(&storage, Some(&current), &mut value)
                    .map(|_| Deleted::Waiting(value))
            };
            match result {
                Ok(done) => {
                    if storage == CRDS {
                        self.registry.reload(&self.store);
                    }
                    return Ok(done);
                }
                Err(CommitError::Changed) => {}
                Err(CommitError::Log(e)) => {
                    return Err(Failure::internal(format!(
                        "the deletion could not be logged: {e}"
                    )));
                }
            }
        }
    }

    /// Acts on every change that concerns dependents, namespaces or definitions, until the store is gone.
    pub(crate) async fn collect(
        self: Arc<Self>,
        mut changes: UnboundedReceiver<(String, Arc<Event>)>,
    ) {
        // What happened while no server ran, or was not finished when the last one died.
        for (kind, object) in self
            .store
            .filtered(|_, o| o.deleting || !o.owners.is_empty())
        {
            self.look_at(&kind, &object);
        }
        while let Some((kind, event)) = changes.recv().await {
            match event.change {
                Change::Deleted => self.gone(&kind, &event.object),
                Change::Added | Change::Modified => self.look_at(&kind, &event.object),
            }
        }
    }

    fn gone(&self, kind: &str, object: &Arc<Object>) {
        for (kind, dependent) in self.store.owned_by(&object.uid) {
            self.look_at(&kind, &dependent);
        }
        for owner in &object.owners {
            if let Some((kind, owner)) = self.find_owner(owner, &object.key.namespace) {
                self.look_at(&kind, &owner);
            }
        }
        if !object.key.namespace.is_empty()
            && let Some(namespace) = self
                .store
                .get("namespaces", &Key::new("", &object.key.namespace))
        {
            self.look_at("namespaces", &namespace);
        }
        if kind != CRDS
            && let Some(definition) = self.store.get(CRDS, &Key::new("", kind))
        {
            self.look_at(CRDS, &definition);
        }
    }

    fn look_at(&self, kind: &str, object: &Arc<Object>) {
        if !object.owners.is_empty() && !object.deleting {
            self.check_owners(kind, object);
        }
        if !object.deleting {
            return;
        }
        if kind == "namespaces" {
            self.empty_namespace(object);
        }
        if kind == CRDS {
            self.empty_definition(object);
        }
        let holds = |name: &str| object.finalizers.iter().any(|f| **f == *name);
        if holds(ORPHAN) {
            for (kind, dependent) in self.store.owned_by(&object.uid) {
                self.edit(&kind, &dependent, |value| {
                    drop_owners(value, |uid| uid == &*object.uid)
                });
            }
            self.edit(kind, object, |value| drop_finalizer(value, ORPHAN));
        }
        if holds(FOREGROUND) {
            let dependents = self.store.owned_by(&object.uid);
            let blocked = dependents
                .iter()
                .any(|(_, d)| d.owners.iter().any(|o| *o.uid == *object.uid && o.blocks));
            for (kind, dependent) in &dependents {
                self.delete_quietly(kind, dependent, Propagation::Foreground);
            }
            if !blocked {
                self.edit(kind, object, |value| drop_finalizer(value, FOREGROUND));
            }
        }
    }

    /// Deletes a dependent all of whose owners are gone, and takes gone owners off one that has others.
    fn check_owners(&self, kind: &str, object: &Arc<Object>) {
        let mut lost = Vec::new();
        for owner in &object.owners {
            let Some(resource) = self.registry.by_kind(&owner.api_version, &owner.kind) else {
                // An owner of a kind that is not served cannot be judged.
                return;
            };
            if resource.namespaced && object.key.namespace.is_empty() {
                return;
            }
            match self.find_owner(owner, &object.key.namespace) {
                Some((_, found)) if found.uid == owner.uid => {}
                _ => lost.push(owner.uid.clone()),
            }
        }
        if lost.len() == object.owners.len() {
            self.delete_quietly(kind, object, Propagation::Background);
        } else if !lost.is_empty() {
            self.edit(kind, object, |value| {
                drop_owners(value, |uid| lost.iter().any(|l| **l == *uid))
            });
        }
    }

    fn find_owner(
        &self,
        owner: &crate::object::Owner,
        namespace: &str,
    ) -> Option<(String, Arc<Object>)> {
        let resource = self.registry.by_kind(&owner.api_version, &owner.kind)?;
        let storage = resource.storage();
        let namespace = if resource.namespaced { namespace } else { "" };
        let found = self
            .store
            .get(&storage, &Key::new(namespace, &owner.name))?;
        Some((storage, found))
    }

    fn empty_namespace(&self, namespace: &Arc<Object>) {
        let held = self
            .store
            .filtered(|_, o| *o.key.namespace == *namespace.key.name);
        if held.is_empty() {
            self.edit("namespaces", namespace, |value| {
                value["spec"]["finalizers"] = json!([])
            });
        }
        for (kind, object) in held.iter().filter(|(_, o)| !o.deleting) {
            self.delete_quietly(kind, object, Propagation::Background);
        }
    }

    fn empty_definition(&self, definition: &Arc<Object>) {
        let kind = &*definition.key.name;
        let held = self.store.filtered(|k, _| k == kind);
        if held.is_empty() {
            self.edit(CRDS, definition, |value| {
                drop_finalizer(value, definition::CLEANUP)
            });
            if self.store.get(CRDS, &definition.key).is_none() {
                // Whoever hears of the end and asks again finds it gone.
                self.registry.reload(&self.store);
                self.store.close_watches(kind);
            }
        }
        for (kind, object) in held.iter().filter(|(_, o)| !o.deleting) {
            self.delete_quietly(kind, object, Propagation::Background);
        }
    }

    fn delete_quietly(&self, kind: &str, object: &Object, propagation: Propagation) {
        let Some(resource) = self.registry.by_storage(kind) else {
            return;
        };
        let target = Target {
            resource,
            key: object.key.clone(),
            status: false,
        };
        let uid = Some(object.uid.to_string());
        // Gone already, replaced by another of its name, or not logged: the next change looks again.
        if let Err(failure) = self.delete(
            &target,
            &DeleteOptions {
                uid,
                propagation,
                ..DeleteOptions::default()
            },
        ) {
            tracing::debug!(kind, name = %object.key.name, why = failure.message, "not collected");
        }
    }

    /// Changes an object as it is now, if it still is the same one; removes it when that frees it.
    fn edit(&self, kind: &str, object: &Object, change: impl Fn(&mut Value)) {
        while let Some(current) = self
            .store
            .get(kind, &object.key)
            .filter(|c| c.uid == object.uid)
        {
            let before = current.value();
            let mut value = before.clone();
            change(&mut value);
            if value == before {
                return;
            }
            let result = match current.deleting && is_free(&value) {
                true => self.store.remove(kind, &current).map(|_| ()),
                false => self.store.put(kind, Some(&current), &mut value).map(|_| ()),
            };
            match result {
                Ok(()) => return,
                Err(CommitError::Changed) => {}
                Err(CommitError::Log(error)) => {
                    tracing::warn!(%error, kind, name = %object.key.name, "a deletion's next step could not be logged; it is tried again with the next change");
                    return;
                }
            }
        }
    }
}

fn check_conditions(
    target: &Target,
    current: &Object,
    options: &DeleteOptions,
) -> Result<(), Failure> {
    let conflict = |why: &str| {
        // The real server names the kind here, not the resource.
        let Target { resource, key, .. } = target;
        Failure::conflict(&resource.group, &resource.kind, &key.name, why)
    };
    if let Some(uid) = options.uid.as_ref().filter(|u| **u != *current.uid) {
        return Err(conflict(&format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            current.uid
        )));
    }
    if let Some(revision) = options
        .revision
        .as_ref()
        .filter(|r| **r != current.revision.to_string())
    {
        return Err(conflict(&format!(
            "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). The object might have been modified",
            current.revision
        )));
    }
    Ok(())
}

/// Sets what says that the object is being deleted.
fn mark(value: &mut Value) {
    let meta = &mut value["metadata"];
    meta["deletionTimestamp"] = now().into();
    meta["deletionGracePeriodSeconds"] = 0.into();
    if let Some(generation) = meta["generation"].as_i64() {
        meta["generation"] = (generation + 1).into();
    }
    if value["kind"] == "Namespace" && value["apiVersion"] == "v1" {
        value["status"]["phase"] = "Terminating".into();
    }
    if value["kind"] == "CustomResourceDefinition" {
        let condition = json!({
            "type": "Terminating", "status": "True", "lastTransitionTime": now(), "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress",
        });
        if let Some(conditions) = value["status"]["conditions"].as_array_mut() {
            conditions.retain(|c| c["type"] != "Terminating");
            conditions.push(condition);
        }
    }
}

fn add_finalizer(value: &mut Value, name: &str) {
    let finalizers = &mut value["metadata"]["finalizers"];
    if finalizers.is_null() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers
        .as_array_mut()
        .filter(|l| !l.iter().any(|f| f == name))
    {
        list.push(name.into());
    }
}

fn drop_finalizer(value: &mut Value, name: &str) {
    if let Some(list) = value["metadata"]["finalizers"].as_array_mut() {
        list.retain(|f| f != name);
    }
    drop_if_empty(value, "finalizers");
}

fn drop_owners(value: &mut Value, gone: impl Fn(&str) -> bool) {
    if let Some(list) = value["metadata"]["ownerReferences"].as_array_mut() {
        list.retain(|o| !gone(o["uid"].as_str().unwrap_or_default()));
    }
    drop_if_empty(value, "ownerReferences");
}

fn drop_if_empty(value: &mut Value, list: &str) {
    if value["metadata"][list]
        .as_array()
        .is_some_and(Vec::is_empty)
    {
        value["metadata"].as_object_mut().map(|m| m.remove(list));
    }
}
