//! One stored version of one object: its JSON bytes, and the few facts that selecting and collecting need.

use axum::body::Bytes;
use serde_json::Value;

/// Where an object lives within its kind; the namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// Who owns an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Box<str>,
    pub(crate) api_version: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) blocks: bool,
}

/// An immutable version of an object. Kept as bytes, because bytes are what lists and watches send and are a few times
/// smaller than a parsed tree.
#[derive(Debug)]
pub(crate) struct Object {
    /// The JSON text, in the version it was written in, with its resourceVersion inside.
    pub(crate) raw: Bytes,
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) uid: Box<str>,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// The values of the kind's selectable fields, in the kind's order.
    pub(crate) fields: Box<[Box<str>]>,
    pub(crate) owners: Box<[Owner]>,
    pub(crate) finalizers: Box<[Box<str>]>,
    pub(crate) deleting: bool,
}

impl Object {
    /// Takes the facts out of `value`, which carries `revision` already.
    pub(crate) fn new(value: &Value, revision: u64, selectable: &[String]) -> Self {
        let meta = &value["metadata"];
        let text = |v: &Value| -> Box<str> { v.as_str().unwrap_or_default().into() };
        let labels = meta["labels"].as_object().into_iter().flatten();
        let owners = meta["ownerReferences"].as_array().into_iter().flatten();
        Self {
            raw: Bytes::from(value.to_string()),
            revision,
            key: Key {
                namespace: text(&meta["namespace"]),
                name: text(&meta["name"]),
            },
            uid: text(&meta["uid"]),
            labels: labels.map(|(k, v)| (k.as_str().into(), text(v))).collect(),
            fields: selectable.iter().map(|path| field(value, path)).collect(),
            owners: owners
                .map(|o| Owner {
                    uid: text(&o["uid"]),
                    api_version: text(&o["apiVersion"]),
                    kind: text(&o["kind"]),
                    name: text(&o["name"]),
                    blocks: o["blockOwnerDeletion"] == true,
                })
                .collect(),
            finalizers: meta["finalizers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect(),
            deleting: meta["deletionTimestamp"].is_string(),
        }
    }

    /// The parsed object. Stored bytes were made by this process or checked when the log was read.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_default()
    }

    /// Memory that this version holds, roughly, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.raw.len() + 256
    }
}

/// The value at a dotted path (`spec.nodeName`), as field selectors compare it: text, empty when absent.
fn field(value: &Value, path: &str) -> Box<str> {
    let found = path.split('.').try_fold(value, |v, step| v.get(step));
    match found {
        None | Some(Value::Null) => "".into(),
        Some(Value::String(s)) => s.as_str().into(),
        Some(other) => other.to_string().into(),
    }
}
