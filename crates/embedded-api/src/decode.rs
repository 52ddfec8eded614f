//! Reading what a client sent: is it meant for this place, and does the schema know all of it?

use serde_json::{Value, json};

use crate::{
    events, shape,
    status::Failure,
    write::{FieldValidation, Target, WriteOptions},
};

/// Checks what was sent against the target, brings it to the stored version and takes unknown fields out.
pub(crate) fn decode(
    target: &Target,
    mut body: Value,
    options: &WriteOptions,
    context: &str,
) -> Result<(Value, Vec<String>), Failure> {
    let resource = &target.resource;
    if !body.is_object() {
        return Err(Failure::bad_request(
            "the object provided is unrecognized (must be of type Object)",
        ));
    }
    let (api_version, kind) = (resource.api_version(), resource.kind.as_str());
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", kind)] {
        let sent = body[field].as_str().unwrap_or_default();
        // Built-in kinds may leave both out, as on the real server.
        if sent.is_empty() && !resource.is_custom() {
            body[field] = wanted.into();
        } else if sent != wanted {
            let what = if field == "kind" {
                "kind"
            } else {
                "API version"
            };
            let why = format!(
                "the {what} in the data ({sent}) does not match the expected {what} ({wanted})"
            );
            return Err(Failure::bad_request(why));
        }
    }
    if body["metadata"].is_null() {
        body["metadata"] = json!({});
    }
    check_identity(target, &mut body)?;
    let mut warnings = Vec::new();
    events::to_stored(resource, &mut body);
    let schema = if resource.group == "events.k8s.io" {
        None
    } else {
        Some(resource.schema())
    };
    if let Some(schema) = schema {
        let unknown = shape::prune(&mut body, schema);
        let words: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect();
        match options.validation {
            FieldValidation::Strict if !words.is_empty() => {
                let list = words.join(", ");
                let message = format!(
                    "{context}{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {list}",
                    resource.version
                );
                return Err(Failure::bad_request(message));
            }
            FieldValidation::Warn => warnings = words,
            FieldValidation::Strict | FieldValidation::Ignore => {}
        }
    }
    if resource.is_custom() {
        body["apiVersion"] = resource.stored_as.as_str().into();
    }
    Ok((body, warnings))
}

fn check_identity(target: &Target, body: &mut Value) -> Result<(), Failure> {
    let meta = &mut body["metadata"];
    if !meta.is_object() {
        return Err(Failure::bad_request("metadata must be an object"));
    }
    let name = meta["name"].as_str().unwrap_or_default();
    if !target.key.name.is_empty() {
        if name.is_empty() {
            meta["name"] = (*target.key.name).into();
        } else if *name != *target.key.name {
            let why = format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.key.name
            );
            return Err(Failure::bad_request(why));
        }
    }
    let namespace = meta["namespace"].as_str().unwrap_or_default();
    if !target.resource.namespaced {
        if namespace.is_empty() {
            meta.as_object_mut().map(|m| m.remove("namespace"));
            return Ok(());
        }
        return Err(Failure::bad_request(
            "namespace may not be set on cluster-scoped objects",
        ));
    }
    if namespace.is_empty() {
        meta["namespace"] = (*target.key.namespace).into();
    } else if *namespace != *target.key.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
