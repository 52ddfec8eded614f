//! CustomResourceDefinitions: what they define, and what is wrong with them.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use crate::{
    builtin,
    cel::Rules,
    columns,
    names::NameRule,
    resource::{Resource, Source},
    schema::Schema,
    status::Cause,
};

/// The finalizer that keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().map(text).collect()
}

/// The served versions of a definition. One that does not compile was refused when it was written.
pub(crate) fn resources(definition: &Value, revision: u64) -> Vec<Arc<Resource>> {
    let versions = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten();
    versions
        .filter(|v| v["served"] == true)
        .filter_map(|v| resource(definition, v, revision).ok().map(Arc::new))
        .collect()
}

fn resource(definition: &Value, version: &Value, revision: u64) -> Result<Resource, String> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let (group, kind) = (text(&spec["group"]), text(&names["kind"]));
    let name = text(&version["name"]);
    let stored = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true)
        .unwrap_or(version);
    let api_version = format!("{group}/{name}");
    let json = version["schema"]["openAPIV3Schema"].clone();
    let schema = OnceLock::new();
    let _ = schema.set(compile(&json)?);
    let or = |given: String, otherwise: String| if given.is_empty() { otherwise } else { given };
    Ok(Resource {
        list_kind: or(text(&names["listKind"]), format!("{kind}List")),
        plural: text(&names["plural"]),
        singular: or(text(&names["singular"]), kind.to_lowercase()),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"]["status"].is_object(),
        name_rule: NameRule::Subdomain,
        stored_as: format!("{group}/{}", text(&stored["name"])),
        selectable: crate::store::crd_selectable(definition).1,
        columns: columns::custom(&version["additionalPrinterColumns"]),
        source: Source::Definition {
            rules: Rules::compile(&json, &api_version, &group, &kind).map(Box::new),
            json,
            revision,
        },
        group,
        version: name,
        kind,
        schema,
    })
}

/// Compiles a custom kind's schema with the real metadata in it.
fn compile(json: &Value) -> Result<Schema, String> {
    let mut schema = Schema::compile(json, &Map::new())?;
    let meta = Schema::compile(
        &json!({"$ref": builtin::OBJECT_META}),
        builtin::definitions(),
    )?;
    let string = || Schema::compile(&json!({"type": "string"}), &Map::new());
    schema.properties.insert("metadata".into(), meta);
    schema.properties.insert("apiVersion".into(), string()?);
    schema.properties.insert("kind".into(), string()?);
    Ok(schema)
}

/// What is wrong with a definition beyond its own schema.
pub(crate) fn causes(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let wanted = format!("{plural}.{group}");
    let name = &definition["metadata"]["name"];
    if *name != *wanted {
        causes.push(Cause::invalid(
            "metadata.name",
            name,
            format!("must be spec.names.plural+\".\"+spec.group ({wanted})"),
        ));
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        causes.push(Cause::forbidden(
            "spec.conversion.strategy",
            "the embedded API server calls no webhooks; use None",
        ));
    }
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            causes.push(Cause::required(path, "schemas are required"));
            continue;
        }
        if schema["type"] != "object" {
            causes.push(Cause::invalid(
                format!("{path}.type"),
                &schema["type"],
                "must be object at the root",
            ));
        }
        structural(schema, &path, &mut causes);
        if let Err(why) = resource(definition, version, 0) {
            causes.push(Cause::invalid(path, &Value::from("object"), why));
        }
    }
    causes
}

/// Every node of a structural schema says its type, and keyed lists name their keys.
fn structural(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].as_str().unwrap_or_default().is_empty() && !free {
        causes.push(Cause::required(
            format!("{path}.type"),
            "must not be empty for specified object fields",
        ));
    }
    if schema["properties"].is_object() && schema["additionalProperties"].is_object() {
        causes.push(Cause::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let keys = texts(&schema["x-kubernetes-list-map-keys"]);
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            causes.push(Cause::required(
                format!("{path}.x-kubernetes-list-map-keys"),
                why,
            ));
        }
        let required = texts(&schema["items"]["required"]);
        for key in keys {
            let property = &schema["items"]["properties"][&key];
            if property.is_null() || (!required.contains(&key) && property.get("default").is_none())
            {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                causes.push(Cause::required(
                    format!("{path}.items.properties[{key}].default"),
                    why,
                ));
            }
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        structural(property, &format!("{path}.properties[{name}]"), causes);
    }
    for child in ["items", "additionalProperties"] {
        if schema[child].is_object() {
            structural(&schema[child], &format!("{path}.{child}"), causes);
        }
    }
    if schema["type"] == "array" && !schema["items"].is_object() {
        causes.push(Cause::required(
            format!("{path}.items"),
            "must be specified",
        ));
    }
}

/// Sets the defaults of a definition's spec and, in its status, that it is accepted and served.
pub(crate) fn establish(definition: &mut Value, now: &str) {
    let spec = &mut definition["spec"];
    let kind = text(&spec["names"]["kind"]);
    let default = |value: &mut Value, with: Value| {
        if value.is_null() {
            *value = with;
        }
    };
    default(&mut spec["names"]["listKind"], format!("{kind}List").into());
    default(&mut spec["names"]["singular"], kind.to_lowercase().into());
    default(&mut spec["conversion"], json!({"strategy": "None"}));
    let storage = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true);
    let storage = storage.map(|v| text(&v["name"])).unwrap_or_default();
    let names = spec["names"].clone();
    let status = &mut definition["status"];
    status["acceptedNames"] = names;
    let mut stored = texts(&status["storedVersions"]);
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    status["storedVersions"] = json!(stored);
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    for (kind, reason, message) in [
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        (
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
    ] {
        if !conditions.iter().any(|c| c["type"] == kind) {
            conditions.push(json!({"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}));
        }
    }
    status["conditions"] = conditions.into();
}
