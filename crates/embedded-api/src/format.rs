//! The forms an answer can take: plain objects, tables for `kubectl get`, metadata alone.

use axum::body::Bytes;
use serde_json::{Value, json};

use crate::{object::Object, resource::Resource, status::Failure, watch::Change, write::present};

/// What the Accept header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    /// A table, with rows that carry this much of their object.
    Table(Include),
    /// PartialObjectMetadata.
    Metadata,
}

/// How much of an object a table row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Metadata,
    Object,
    None,
}

impl Form {
    /// The first form in `accept` that can be given.
    pub(crate) fn negotiate(accept: &str, include: &str) -> Result<Self, Failure> {
        let accept = if accept.is_empty() {
            "application/json"
        } else {
            accept
        };
        let include = match include {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        for clause in accept.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut shape = "";
            let mut version = "";
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => shape = value,
                    Some(("v", value)) => version = value,
                    _ => {}
                }
            }
            let json = matches!(media, "application/json" | "*/*" | "application/*");
            match (json, shape, version) {
                (true, "", _) => return Ok(Self::Object),
                (true, "Table", "v1") => return Ok(Self::Table(include)),
                (true, "PartialObjectMetadata" | "PartialObjectMetadataList", "v1") => {
                    return Ok(Self::Metadata);
                }
                _ => {}
            }
        }
        let why = "only the following media types are accepted: application/json, \
application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io \
(the embedded API server speaks JSON, not protobuf, CBOR or YAML)";
        Err(Failure::not_acceptable(why))
    }
}

/// One object, in the form asked for.
pub(crate) fn object(resource: &Resource, object: &Object, form: Form) -> Bytes {
    if form == Form::Object && resource.is_stored_version() {
        return object.raw.clone();
    }
    value(resource, object.value(), form).to_string().into()
}

/// One object that is already parsed, in the form asked for.
pub(crate) fn value(resource: &Resource, value: Value, form: Form) -> Value {
    match form {
        Form::Object => present(resource, value),
        Form::Metadata => partial(value),
        Form::Table(include) => {
            let revision = value["metadata"]["resourceVersion"].clone();
            table(
                resource,
                vec![row(resource, value, include)],
                json!({"resourceVersion": revision}),
                true,
            )
        }
    }
}

/// Many objects as a list. `meta` is the list's metadata.
pub(crate) fn list(
    resource: &Resource,
    objects: &[std::sync::Arc<Object>],
    meta: &Value,
    form: Form,
) -> Bytes {
    match form {
        Form::Table(include) => {
            let rows = objects
                .iter()
                .map(|o| row(resource, o.value(), include))
                .collect();
            table(resource, rows, meta.clone(), true).to_string().into()
        }
        Form::Object | Form::Metadata => {
            let (kind, api_version) = match form {
                Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
                _ => (resource.list_kind.as_str(), resource.api_version()),
            };
            let size: usize = objects.iter().map(|o| o.raw.len() + 1).sum();
            let mut body = Vec::with_capacity(size + 256);
            body.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[").as_bytes());
            for (i, o) in objects.iter().enumerate() {
                if i > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(&object(resource, o, form));
            }
            body.extend_from_slice(b"]}\n");
            body.into()
        }
    }
}

/// One watch event's line, in the form asked for.
pub(crate) fn event(resource: &Resource, change: Change, o: &Object, form: Form) -> Bytes {
    crate::watch::frame(change, &object(resource, o, form))
}

/// A bookmark's line. `initial_end`: everything that existed has been sent.
pub(crate) fn bookmark(resource: &Resource, revision: u64, initial_end: bool, form: Form) -> Bytes {
    let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = match form {
        Form::Object => {
            json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta})
        }
        Form::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
        }
        Form::Table(_) => {
            let about = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta});
            let row = json!({"cells": [], "object": about});
            table(
                resource,
                vec![row],
                json!({"resourceVersion": revision.to_string()}),
                false,
            )
        }
    };
    let mut line = json!({"type": "BOOKMARK", "object": object}).to_string();
    line.push('\n');
    line.into()
}

fn partial(mut value: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"].take()})
}

fn row(resource: &Resource, value: Value, include: Include) -> Value {
    let cells: Vec<Value> = resource.columns.iter().map(|c| c.cell(&value)).collect();
    match include {
        Include::None => json!({"cells": cells}),
        Include::Object => json!({"cells": cells, "object": present(resource, value)}),
        Include::Metadata => json!({"cells": cells, "object": partial(value)}),
    }
}

fn table(resource: &Resource, rows: Vec<Value>, meta: Value, columns: bool) -> Value {
    let columns: Vec<Value> = if columns {
        resource.columns.iter().map(|c| c.definition()).collect()
    } else {
        Vec::new()
    };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": columns, "rows": rows})
}
