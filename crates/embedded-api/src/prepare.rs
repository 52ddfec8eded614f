//! From a computed object to the version that is stored: what a write may not change, defaults, the record of owners,
//! the generation; then everything that can be wrong with it.

use serde_json::Value;

use crate::{
    apply::{self, Writer},
    definition,
    names::metadata_causes,
    preset,
    resource::Resource,
    shape,
    status::{Cause, Failure},
    store::CRDS,
    validate as schema_validate,
    write::{Target, WriteOptions},
};

/// An object may be so large and not larger, as etcd has it.
const OBJECT_MAX: usize = 1536 * 1024;

const RULES_UNCHECKED: &str = "some validation rules were not checked because the object was invalid; \
correct the existing errors to complete validation";

/// Makes the version to store out of what was computed; `None` when nothing changes.
pub(crate) fn changed(
    target: &Target,
    old: &Value,
    mut new: Value,
    applied: bool,
    options: &WriteOptions,
    now: &str,
) -> Result<Option<Value>, Failure> {
    let resource = &target.resource;
    if target.status {
        let mut base = old.clone();
        base["status"] = new["status"].take();
        if base["status"].is_null() {
            base.as_object_mut().map(|m| m.remove("status"));
        }
        base["metadata"]["managedFields"] = new["metadata"]["managedFields"].take();
        if !resource.is_custom() {
            base["metadata"] = with_managed(
                new["metadata"].take(),
                base["metadata"]["managedFields"].take(),
            );
        }
        if base["metadata"]["managedFields"].is_null() {
            base["metadata"]
                .as_object_mut()
                .map(|m| m.remove("managedFields"));
        }
        new = base;
    } else if resource.status {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => {
                new.as_object_mut().map(|m| m.remove("status"));
            }
        }
    }
    for kept in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        match old["metadata"].get(kept) {
            Some(value) => new["metadata"][kept] = value.clone(),
            None => {
                new["metadata"].as_object_mut().map(|m| m.remove(kept));
            }
        }
    }
    new["metadata"]
        .as_object_mut()
        .map(|m| m.remove("selfLink"));
    shape(resource, &mut new);
    if !applied {
        let writer = writer(resource, options, target.status, now);
        apply::record(
            Some(old),
            &mut new,
            resource.schema(),
            resource.status,
            &writer,
        )?;
    }
    preset::on_update(resource, old, &mut new, now);
    if has_generation(resource) && !same_spec(resource, old, &new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = (generation + 1).into();
    }
    if new == *old {
        return Ok(None);
    }
    validate(target, &new, Some(old))?;
    Ok(Some(new))
}

/// Gives an object its schema's defaults and takes out what says nothing.
pub(crate) fn shape(resource: &Resource, object: &mut Value) {
    let schema = resource.schema();
    shape::drop_nulls(object, schema);
    shape::fill_defaults(object, schema);
    if !resource.is_custom() {
        preset::defaults(resource, object);
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        let empty = |v: &Value| {
            v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(|m| m.is_empty())
        };
        meta.retain(|_, v| !empty(v));
    }
}

/// Refuses what is invalid, with every reason.
pub(crate) fn validate(
    target: &Target,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Failure> {
    let resource = &target.resource;
    let mut causes = metadata_causes(object, resource.name_rule);
    if let Some(old) = old {
        let had: Vec<&Value> = old["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        let fresh: Vec<&str> = object["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|f| !had.contains(f))
            .filter_map(Value::as_str)
            .collect();
        if old["metadata"]["deletionTimestamp"].is_string() && !fresh.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh
                    .iter()
                    .map(|f| format!("{f:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &why));
        }
    }
    if resource.group != "events.k8s.io" {
        causes.extend(schema_validate::causes(object, resource.schema()));
    }
    causes.extend(preset::causes(resource, object, old));
    // Rules read values whose types they trust.
    match resource.rules() {
        Some(rules) if causes.is_empty() => causes.extend(rules.causes(object, old)),
        Some(_) => causes.push(Cause::invalid("", &Value::Null, RULES_UNCHECKED)),
        None => {}
    }
    if resource.storage() == CRDS {
        causes.extend(definition::causes(object));
    }
    if let Some(wrong) = causes
        .iter()
        .find(|c| c.reason == "FieldValueTypeInvalid" && !resource.is_custom())
    {
        let kind = &resource.kind;
        let message = format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {}: {}",
            resource.version, wrong.field, wrong.message
        );
        return Err(Failure::bad_request(message));
    }
    if !causes.is_empty() {
        return Err(Failure::invalid(
            &resource.group,
            &resource.kind,
            &target.key.name,
            causes,
        ));
    }
    let size = object.to_string().len();
    if size > OBJECT_MAX {
        return Err(Failure::new(500, "", "etcdserver: request is too large"));
    }
    Ok(())
}

fn with_managed(mut meta: Value, managed: Value) -> Value {
    meta["managedFields"] = managed;
    meta
}

/// Kinds whose objects count the changes of what is asked of them.
pub(crate) fn has_generation(resource: &Resource) -> bool {
    resource.is_custom() || resource.storage() == CRDS
}

fn same_spec(resource: &Resource, old: &Value, new: &Value) -> bool {
    let part = |object: &Value| -> serde_json::Map<String, Value> {
        let kept = object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| *k != "metadata" && !(resource.status && *k == "status"));
        kept.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    part(old) == part(new)
}

/// Who makes a write.
pub(crate) fn writer<'a>(
    resource: &'a Resource,
    options: &'a WriteOptions,
    status: bool,
    now: &'a str,
) -> Writer<'a> {
    Writer {
        manager: &options.manager,
        api_version: &resource.stored_as,
        subresource: if status { "status" } else { "" },
        now,
    }
}
