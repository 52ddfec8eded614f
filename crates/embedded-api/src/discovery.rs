//! Discovery: which groups, versions and kinds there are.

use serde_json::{Value, json};

use crate::{
    registry::{Registry, Served},
    resource::Resource,
};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Newer and more stable versions first: `v2`, `v1`, `v1beta1`, `v1alpha1`.
fn versions(
    group: &std::collections::BTreeMap<
        String,
        std::collections::BTreeMap<String, std::sync::Arc<Resource>>,
    >,
) -> Vec<&String> {
    let mut versions: Vec<&String> = group.keys().collect();
    versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
    versions
}

fn rank(version: &str) -> (u8, u64, u64) {
    let number = |s: &str| s.parse::<u64>().unwrap_or(0);
    let rest = version.strip_prefix('v').unwrap_or(version);
    for (level, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (level, number(major), number(minor));
        }
    }
    (2, number(rest), 0)
}

/// `/api`
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group(name: &str, served: &Served) -> Option<Value> {
    let versions = versions(served.get(name)?);
    let all: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    let preferred = all.first()?.clone();
    Some(json!({"name": name, "versions": all, "preferredVersion": preferred}))
}

/// `/apis`
pub(crate) fn groups(registry: &Registry) -> Value {
    let served = registry.served();
    let groups: Vec<Value> = served
        .keys()
        .filter(|g| !g.is_empty())
        .filter_map(|g| group(g, &served))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`
pub(crate) fn one_group(registry: &Registry, name: &str) -> Option<Value> {
    let mut group = group(name, &registry.served())?;
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let served = registry.served();
    let mut all = Vec::new();
    for resource in served.get(group)?.get(version)?.values() {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        all.push(entry);
        if resource.status {
            all.push(json!({
                "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": ["get", "patch", "update"],
            }));
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all}),
    )
}

/// Everything in one answer, as clients since 1.26 ask for it. `core`: the `/api` half or the `/apis` half.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let served = registry.served();
    let mut items = Vec::new();
    for (name, group) in served.iter().filter(|(name, _)| name.is_empty() == core) {
        let versions: Vec<Value> = versions(group)
            .into_iter()
            .map(|version| {
                let resources: Vec<Value> = group[version]
                    .values()
                    .map(|r| aggregated_resource(r))
                    .collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let mut meta = json!({"creationTimestamp": null});
        if !name.is_empty() {
            meta["name"] = name.as_str().into();
        }
        items.push(json!({"metadata": meta, "versions": versions}));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind, "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if resource.status {
        entry["subresources"] = json!([{"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}]);
    }
    entry
}
