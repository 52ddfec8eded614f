//! Create, replace and patch: from what a client sent to the version that is stored.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    apply, collect,
    decode::decode,
    events,
    object::Key,
    patch, prepare, preset,
    registry::Registry,
    resource::Resource,
    status::{Cause, Failure},
    store::{CRDS, CommitError, Store},
    strategic,
    time::now,
};

/// A patch without a resourceVersion starts again this often when others write in between.
const ATTEMPTS: usize = 64;

/// What to do with fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The query's options of a write.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) validation: FieldValidation,
    pub(crate) force: bool,
}

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    pub(crate) key: Key,
    /// The status subresource.
    pub(crate) status: bool,
}

impl Target {
    pub(crate) fn not_found(&self) -> Failure {
        Failure::not_found(&self.resource.group, &self.resource.plural, &self.key.name)
    }

    pub(crate) fn conflict(&self, why: &str) -> Failure {
        Failure::conflict(
            &self.resource.group,
            &self.resource.plural,
            &self.key.name,
            why,
        )
    }

    fn modified(&self) -> Failure {
        Failure::modified(&self.resource.group, &self.resource.plural, &self.key.name)
    }
}

/// The kinds of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// A write that went well.
#[derive(Debug)]
pub(crate) struct Written {
    /// The object, in the version that it is stored in.
    pub(crate) object: Value,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

/// Writes go through here.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
}

impl Writes {
    /// Creates the object; the target's name is empty.
    pub(crate) fn create(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Failure> {
        let (mut sent, warnings) = decode(target, body, options, "")?;
        let resource = &target.resource;
        if sent["metadata"]["resourceVersion"]
            .as_str()
            .is_some_and(|v| !v.is_empty())
        {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Failure::new(500, "", why));
        }
        let generated = sent["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .is_empty();
        if generated
            && let Some(prefix) = sent["metadata"]["generateName"]
                .as_str()
                .filter(|p| !p.is_empty())
        {
            sent["metadata"]["name"] =
                format!("{}{}", &prefix[..prefix.len().min(58)], random_suffix()).into();
        }
        let name = sent["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let target = Target {
            key: Key::new(&target.key.namespace, &name),
            ..target.clone()
        };
        if self.store.get(&resource.storage(), &target.key).is_some() {
            return Err(Failure::already_exists(
                &resource.group,
                &resource.plural,
                &name,
            ));
        }
        self.make(&target, sent, None, warnings, options)
    }

    /// Stores an object that is not there yet. `applied`: managedFields were made by apply already.
    fn make(
        &self,
        target: &Target,
        mut object: Value,
        applied: Option<()>,
        warnings: Vec<String>,
        options: &WriteOptions,
    ) -> Result<Written, Failure> {
        let resource = &target.resource;
        self.check_namespace(target)?;
        let now = now();
        let meta = &mut object["metadata"];
        for unset in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
            "resourceVersion",
        ] {
            meta.as_object_mut().map(|m| m.remove(unset));
        }
        meta["uid"] = uuid::Uuid::new_v4().to_string().into();
        meta["creationTimestamp"] = now.as_str().into();
        if prepare::has_generation(resource) {
            meta["generation"] = 1.into();
        }
        if resource.status {
            object.as_object_mut().map(|m| m.remove("status"));
        }
        prepare::shape(resource, &mut object);
        if applied.is_none() {
            let writer = prepare::writer(resource, options, false, &now);
            apply::record(
                None,
                &mut object,
                resource.schema(),
                resource.status,
                &writer,
            )?;
        }
        preset::on_create(resource, &mut object, &now);
        prepare::validate(target, &object, None)?;
        if !options.dry_run {
            match self.store.put(&resource.storage(), None, &mut object) {
                Ok(_) => {}
                Err(CommitError::Changed) => {
                    return Err(Failure::already_exists(
                        &resource.group,
                        &resource.plural,
                        &target.key.name,
                    ));
                }
                Err(CommitError::Log(e)) => return Err(log_failed(&e)),
            }
            self.committed(resource);
        }
        Ok(Written {
            object,
            created: true,
            warnings,
        })
    }

    /// Replaces the object by `body`.
    pub(crate) fn replace(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Failure> {
        let (sent, warnings) = decode(target, body, options, "")?;
        let resource = &target.resource;
        let revision = sent["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if revision.is_empty() && resource.is_custom() {
            let field = "metadata.resourceVersion";
            let cause = Cause::invalid(field, &json!(0), "must be specified for an update");
            return Err(Failure::invalid(
                &resource.group,
                &resource.kind,
                &target.key.name,
                vec![cause],
            ));
        }
        self.change(target, options, warnings, |_, _| Ok((sent.clone(), false)))
    }

    /// Patches the object; apply creates it when it is not there.
    pub(crate) fn patch(
        &self,
        target: &Target,
        kind: PatchKind,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Failure> {
        let resource = Arc::clone(&target.resource);
        if kind == PatchKind::Apply {
            return self.apply(target, body, options);
        }
        if kind == PatchKind::Strategic && resource.is_custom() {
            let why = "the body of the request was in an unknown format - accepted media types include: \
application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor";
            return Err(Failure::unsupported_media(why));
        }
        let mut unknown = Vec::new();
        let written = self.change(target, options, Vec::new(), |old, _| {
            let mut new = present(&resource, old.clone());
            match kind {
                PatchKind::Json => patch::json(&mut new, body.clone())?,
                PatchKind::Merge => patch::merge(&mut new, &body)?,
                PatchKind::Strategic | PatchKind::Apply => {
                    strategic::merge(&mut new, body.clone(), resource.schema())?
                }
            }
            let (new, warnings) = decode(target, new, options, "error decoding patch: ")?;
            unknown = warnings;
            Ok((new, false))
        })?;
        Ok(Written {
            warnings: unknown,
            ..written
        })
    }

    fn apply(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Failure> {
        let resource = &target.resource;
        if body["metadata"]["managedFields"]
            .as_array()
            .is_some_and(|m| !m.is_empty())
        {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        let (mut config, warnings) = decode(target, body, options, "")?;
        let revision = config["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let uid = config["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for field in [
            "resourceVersion",
            "uid",
            "creationTimestamp",
            "generation",
            "managedFields",
            "deletionTimestamp",
        ] {
            config["metadata"].as_object_mut().map(|m| m.remove(field));
        }
        config["metadata"]["name"] = (*target.key.name).into();
        if resource.namespaced {
            config["metadata"]["namespace"] = (*target.key.namespace).into();
        }
        for _ in 0..ATTEMPTS {
            if self.store.get(&resource.storage(), &target.key).is_none() {
                if target.status {
                    return Err(target.not_found());
                }
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(target.conflict(&why));
                }
                let now = now();
                let writer = prepare::writer(resource, options, target.status, &now);
                let object = apply::apply(
                    &json!({}),
                    &config,
                    resource.schema(),
                    resource.status,
                    options.force,
                    &writer,
                )?;
                match self.make(target, object, Some(()), warnings.clone(), options) {
                    Err(e) if e.reason == "AlreadyExists" => continue,
                    done => return done,
                }
            }
            let changed = self.change(target, options, warnings.clone(), |old, now| {
                let writer = prepare::writer(resource, options, target.status, now);
                let mut new = apply::apply(
                    old,
                    &config,
                    resource.schema(),
                    resource.status,
                    options.force,
                    &writer,
                )?;
                // Compared with the stored version like every other write's.
                if !revision.is_empty() {
                    new["metadata"]["resourceVersion"] = revision.as_str().into();
                }
                if !uid.is_empty() {
                    new["metadata"]["uid"] = uid.as_str().into();
                }
                Ok((new, true))
            });
            match changed {
                Err(e) if e.reason == "NotFound" && !target.status => {}
                done => return done,
            }
        }
        Err(target.modified())
    }

    /// Read, compute, check, commit; again when another write came in between. `compute` returns the new object and
    /// whether its managedFields are made already.
    fn change(
        &self,
        target: &Target,
        options: &WriteOptions,
        warnings: Vec<String>,
        mut compute: impl FnMut(&Value, &str) -> Result<(Value, bool), Failure>,
    ) -> Result<Written, Failure> {
        let resource = &target.resource;
        let storage = resource.storage();
        for _ in 0..ATTEMPTS {
            let Some(current) = self.store.get(&storage, &target.key) else {
                return Err(target.not_found());
            };
            let old = current.value();
            let now = now();
            let (new, applied) = compute(&old, &now)?;
            let sent_revision = new["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default();
            if !sent_revision.is_empty() && sent_revision != current.revision.to_string() {
                return Err(target.modified());
            }
            let sent_uid = new["metadata"]["uid"].as_str().unwrap_or_default();
            if !sent_uid.is_empty() && *sent_uid != *current.uid {
                let why = format!(
                    "Precondition failed: UID in precondition: {sent_uid}, UID in object meta: {}",
                    current.uid
                );
                return Err(target.conflict(&why));
            }
            let Some(mut new) = prepare::changed(target, &old, new, applied, options, &now)? else {
                return Ok(Written {
                    object: old,
                    created: false,
                    warnings,
                });
            };
            if options.dry_run {
                return Ok(Written {
                    object: new,
                    created: false,
                    warnings,
                });
            }
            let finished =
                new["metadata"]["deletionTimestamp"].is_string() && collect::is_free(&new);
            let result = match finished {
                true => self.store.remove(&storage, &current).map(|last| {
                    new["metadata"]["resourceVersion"] = last.revision.to_string().into();
                }),
                false => self
                    .store
                    .put(&storage, Some(&current), &mut new)
                    .map(|_| ()),
            };
            match result {
                Ok(()) => {
                    self.committed(resource);
                    return Ok(Written {
                        object: new,
                        created: false,
                        warnings,
                    });
                }
                Err(CommitError::Changed) => {}
                Err(CommitError::Log(e)) => return Err(log_failed(&e)),
            }
        }
        Err(target.modified())
    }

    fn check_namespace(&self, target: &Target) -> Result<(), Failure> {
        if !target.resource.namespaced {
            return Ok(());
        }
        let namespace = &target.key.namespace;
        match self.store.get("namespaces", &Key::new("", namespace)) {
            None => Err(Failure::not_found("", "namespaces", namespace)),
            Some(n) if n.deleting => {
                let why = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                Err(Failure::forbidden(
                    &target.resource.group,
                    &target.resource.plural,
                    &target.key.name,
                    &why,
                ))
            }
            Some(_) => Ok(()),
        }
    }

    /// What follows from a write at once.
    fn committed(&self, resource: &Resource) {
        if resource.storage() == CRDS {
            self.registry.reload(&self.store);
        }
    }
}

fn log_failed(error: &std::io::Error) -> Failure {
    Failure::internal(format!(
        "the change could not be written to the API server's log: {error}; check the disk"
    ))
}

/// Five characters that make no words.
fn random_suffix() -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[..5]
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// An object as this version of its kind shows it.
pub(crate) fn present(resource: &Resource, mut object: Value) -> Value {
    if resource.is_custom() && !resource.is_stored_version() {
        object["apiVersion"] = resource.api_version().into();
    }
    events::from_stored(resource, &mut object);
    object
}
