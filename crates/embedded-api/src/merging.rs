//! How the lists and objects of the built-in kinds merge and are owned: their types do not say it themselves.

use serde_json::{Map, Value, json};

/// How the lists of built-in kinds merge: field, the type it is in (any, if empty), keys for apply, key for strategic
/// merge. From the API reference's `patch strategy`, `patch merge key`, `map` and `set` notes.
const LISTS: [(&str, &str, &[&str], &str); 26] = [
    ("containers", "PodSpec", &["name"], "name"),
    ("initContainers", "PodSpec", &["name"], "name"),
    ("ephemeralContainers", "PodSpec", &["name"], "name"),
    ("volumes", "PodSpec", &["name"], "name"),
    ("imagePullSecrets", "", &["name"], "name"),
    ("hostAliases", "PodSpec", &["ip"], "ip"),
    (
        "topologySpreadConstraints",
        "PodSpec",
        &["topologyKey", "whenUnsatisfiable"],
        "topologyKey",
    ),
    ("resourceClaims", "PodSpec", &["name"], "name"),
    ("schedulingGates", "PodSpec", &["name"], "name"),
    ("env", "", &["name"], "name"),
    ("volumeMounts", "", &["mountPath"], "mountPath"),
    ("volumeDevices", "", &["devicePath"], "devicePath"),
    (
        "ports",
        "Container",
        &["containerPort", "protocol"],
        "containerPort",
    ),
    (
        "ports",
        "EphemeralContainer",
        &["containerPort", "protocol"],
        "containerPort",
    ),
    ("ports", "ServiceSpec", &["port", "protocol"], "port"),
    ("podIPs", "PodStatus", &["ip"], "ip"),
    ("hostIPs", "PodStatus", &["ip"], "ip"),
    ("conditions", "", &["type"], "type"),
    ("ownerReferences", "ObjectMeta", &["uid"], "uid"),
    ("addresses", "NodeStatus", &["type"], "type"),
    ("secrets", "ServiceAccount", &["name"], "name"),
    ("drivers", "CSINodeSpec", &["name"], "name"),
    ("finalizers", "ObjectMeta", &[], "merge"),
    ("podCIDRs", "NodeSpec", &[], "merge"),
    ("volumeLifecycleModes", "CSIDriverSpec", &[], ""),
    ("claims", "ResourceRequirements", &["name"], ""),
];

/// Objects of these types are owned as a whole.
const ATOMIC: [&str; 14] = [
    "LabelSelector",
    "ObjectReference",
    "LocalObjectReference",
    "TypedLocalObjectReference",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "NodeSelector",
    "NodeSelectorTerm",
    "SecretReference",
    "TopologySelectorTerm",
    "ScopeSelector",
    "FileKeySelector",
];

/// Writes it into the schema definitions, in the extensions that custom kinds use too.
pub(crate) fn annotate(definitions: &mut Map<String, Value>) {
    for (name, definition) in definitions {
        let short = name.rsplit('.').next().unwrap_or_default();
        if ATOMIC.contains(&short) {
            definition["x-kubernetes-map-type"] = "atomic".into();
        }
        let Some(properties) = definition["properties"].as_object_mut() else {
            continue;
        };
        for (field, within, keys, merge) in LISTS {
            let Some(list) = properties
                .get_mut(field)
                .filter(|p| p["type"] == "array" && (within.is_empty() || within == short))
            else {
                continue;
            };
            list["x-kubernetes-list-type"] = if keys.is_empty() { "set" } else { "map" }.into();
            if !keys.is_empty() {
                list["x-kubernetes-list-map-keys"] = json!(keys);
            }
            if !merge.is_empty() {
                list["x-kubernetes-patch-strategy"] = "merge".into();
            }
            if !merge.is_empty() && !keys.is_empty() {
                list["x-kubernetes-patch-merge-key"] = merge.into();
            }
        }
        if short == "ContainerPort" || short == "ServicePort" {
            properties["protocol"]["default"] = "TCP".into();
        }
    }
}
