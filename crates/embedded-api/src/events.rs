//! Events of the core group and of `events.k8s.io` are one kind, kept in the core form.

use serde_json::Value;

use crate::resource::Resource;

/// Core name, events.k8s.io name.
const FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn is_new_form(resource: &Resource) -> bool {
    resource.group == "events.k8s.io"
}

/// Turns an event of `events.k8s.io` into a core one; leaves all else alone.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    if is_new_form(resource) {
        rename(object, FIELDS.iter().map(|(core, new)| (*new, *core)));
        object["apiVersion"] = "v1".into();
    }
}

/// The reverse of [`to_stored`].
pub(crate) fn from_stored(resource: &Resource, object: &mut Value) {
    if is_new_form(resource) {
        rename(object, FIELDS.iter().copied());
        object["apiVersion"] = resource.api_version().into();
    }
}
