//! OpenAPI version 3: enough for kubectl's `explain`, `apply`, `edit` and field validation.

use serde_json::{Map, Value, json};

use crate::{
    builtin,
    registry::Registry,
    resource::{Resource, Source},
};

/// `/openapi/v3`
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.served().iter() {
        for (version, plurals) in versions {
            let name = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            // Clients cache documents by this address: it changes with the definitions behind it.
            let hash: u64 = plurals.values().fold(0, |h, r| match r.source {
                Source::Definition { revision, .. } => {
                    h ^ revision.wrapping_mul(0x9E37_79B9_7F4A_7C15)
                }
                Source::Builtin(_) => h,
            });
            let address = format!("/openapi/v3/{name}?hash={hash:016X}");
            paths.insert(name, json!({"serverRelativeURL": address}));
        }
    }
    json!({"paths": paths})
}

fn component(resource: &Resource) -> String {
    match &resource.source {
        Source::Builtin(make) => builtin::definition_name(*make),
        Source::Definition { .. } => {
            let mut domain: Vec<&str> = resource.group.split('.').collect();
            domain.reverse();
            format!(
                "{}.{}.{}",
                domain.join("."),
                resource.version,
                resource.kind
            )
        }
    }
}

/// One group version's document.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let served = registry.served();
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in served.get(group)?.get(version)?.values() {
        let name = component(resource);
        let kinds = json!([{"group": group, "version": version, "kind": resource.kind}]);
        let mut schema = match &resource.source {
            Source::Builtin(_) => builtin::definitions()
                .get(&name)
                .cloned()
                .unwrap_or_default(),
            Source::Definition { json, .. } => custom(json),
        };
        schema["x-kubernetes-group-version-kind"] = kinds.clone();
        refer(&schema, &mut schemas);
        schemas.insert(name.clone(), schema);
        operations(resource, &name, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// A custom kind's schema with the standard fields in it.
fn custom(json: &Value) -> Value {
    let mut schema = json.clone();
    schema["properties"]["apiVersion"] =
        json!({"type": "string", "description": "The version of this object's schema."});
    schema["properties"]["kind"] =
        json!({"type": "string", "description": "The kind of the object."});
    schema["properties"]["metadata"] = json!({
        "allOf": [{"$ref": format!("#/components/schemas/{}", builtin::OBJECT_META)}],
        "description": "Standard object's metadata.", "default": {},
    });
    schema
}

/// Adds every definition that `schema` refers to.
fn refer(schema: &Value, schemas: &mut Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            let name = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.rsplit('/').next());
            if let Some((name, definition)) =
                name.and_then(|n| builtin::definitions().get(n).map(|d| (n, d)))
                && !schemas.contains_key(name)
            {
                schemas.insert(name.to_owned(), definition.clone());
                refer(definition, schemas);
            }
            map.values().for_each(|v| refer(v, schemas));
        }
        Value::Array(items) => items.iter().for_each(|v| refer(v, schemas)),
        _ => {}
    }
}

fn operations(resource: &Resource, component: &str, paths: &mut Map<String, Value>) {
    let root = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let collection = match resource.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", resource.plural),
        false => format!("{root}/{}", resource.plural),
    };
    let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let schema = json!({"$ref": format!("#/components/schemas/{component}")});
    let operation = |action: &str, media: &[&str], with_body: bool| {
        let ok = json!({"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}});
        let mut operation = json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "responses": ok});
        if with_body {
            let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
            operation["parameters"] = json!([
                parameter("dryRun"),
                parameter("fieldManager"),
                parameter("fieldValidation")
            ]);
            let content: Map<String, Value> = media
                .iter()
                .map(|m| ((*m).to_owned(), json!({"schema": schema})))
                .collect();
            operation["requestBody"] = json!({"content": content, "required": true});
        }
        operation
    };
    let mut patches = vec![
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    ];
    if !resource.is_custom() {
        patches.push("application/strategic-merge-patch+json");
    }
    let json_only = ["application/json"];
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", &[], false),
            "post": operation("post", &json_only, true),
            "delete": operation("deletecollection", &[], false),
        }),
    );
    let one = json!({
        "get": operation("get", &[], false),
        "put": operation("put", &json_only, true),
        "patch": operation("patch", &patches, true),
        "delete": operation("delete", &[], false),
    });
    if resource.status {
        let mut status = one.clone();
        status.as_object_mut().map(|s| s.remove("delete"));
        paths.insert(format!("{collection}/{{name}}/status"), status);
    }
    paths.insert(format!("{collection}/{{name}}"), one);
}
