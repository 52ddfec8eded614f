//! The rules of our objects, on examples that a person can read: `tests/rules/*.yaml`.
//!
//! Each example gives a spec (and, for a change, the spec before it) and says whether the API
//! accepts it, or which words the refusal has. CEL rules are evaluated on the generated
//! schemas; grammar (percentages, quantities, enums) by the same patterns and types that serve.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect stops there"
)]

use kube_cel::{Validator, apply_defaults};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path};
use strand_api::{
    Drive, DriveOperation, MemoryPool, PoolGrant, PoolLeg, PoolMap, PoolSnapshot, PoolVolume, crds,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    what: String,
    kind: String,
    #[serde(default = "name")]
    name: String,
    old: Option<Value>,
    spec: Value,
    /// Words of the refusal; accepted if there are none.
    refused: Option<String>,
}

fn name() -> String {
    "example".into()
}

fn schema(kind: &str) -> Value {
    let crd = crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap();
    let schema = crd
        .spec
        .versions
        .into_iter()
        .next()
        .unwrap()
        .schema
        .unwrap();
    serde_json::to_value(schema.open_api_v3_schema.unwrap()).unwrap()
}

/// The object as a process of ours would read it.
fn typed(kind: &str, object: Value) -> Result<(), String> {
    fn read<T: serde::de::DeserializeOwned>(object: Value) -> Result<(), String> {
        serde_json::from_value::<T>(object)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }
    match kind {
        "MemoryPool" => read::<MemoryPool>(object),
        "Drive" => read::<Drive>(object),
        "DriveOperation" => read::<DriveOperation>(object),
        "PoolGrant" => read::<PoolGrant>(object),
        "PoolMap" => read::<PoolMap>(object),
        "PoolVolume" => read::<PoolVolume>(object),
        "PoolLeg" => read::<PoolLeg>(object),
        "PoolSnapshot" => read::<PoolSnapshot>(object),
        other => panic!("no kind {other}"),
    }
}

#[test]
fn examples_are_accepted_or_refused_as_they_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut refused = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let example = Example::deserialize(document).unwrap();
            let schema = schema(&example.kind);
            let object = |spec: &Value| {
                let object = json!({"apiVersion": "strand.dev/v1alpha1", "kind": example.kind, "metadata": {"name": example.name}, "spec": spec});
                apply_defaults(&schema, &object)
            };
            let new = object(&example.spec);
            let old = example.old.as_ref().map(object);
            let mut errors: Vec<String> =
                match Validator::new().validate(&schema, &new, old.as_ref()) {
                    Ok(()) => Vec::new(),
                    Err(errors) => errors.into_vec().into_iter().map(|e| e.message).collect(),
                };
            errors.extend(typed(&example.kind, new).err());
            match &example.refused {
                None => assert!(errors.is_empty(), "{}: {errors:?}", example.what),
                Some(words) => {
                    assert!(
                        errors.iter().any(|e| e.contains(words.as_str())),
                        "{}: expected {words:?}, got {errors:?}",
                        example.what
                    );
                    refused.insert(words.clone());
                }
            }
        }
    }
    let untested: BTreeSet<String> = crds()
        .iter()
        .flat_map(|crd| messages(&schema(&crd.spec.names.kind)))
        .filter(|message| !refused.iter().any(|words| message.contains(words.as_str())))
        .collect();
    assert!(
        untested.is_empty(),
        "no example is refused by these rules: {untested:#?}"
    );
}

/// Every rule's message below a schema.
fn messages(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(rules) = schema["x-kubernetes-validations"].as_array() {
        found.extend(
            rules
                .iter()
                .map(|rule| rule["message"].as_str().unwrap().to_owned()),
        );
    }
    let children = schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|p| p.values());
    for child in children.chain(schema.get("items")) {
        found.extend(messages(child));
    }
    found
}

#[test]
fn the_definitions_in_the_repository_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let files = strand_api::crd_files();
    for (name, yaml) in &files {
        let present = fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert!(
            present == *yaml,
            "crds/{name} is out of date; run make crds"
        );
    }
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        files.len(),
        "crds/ has files of no type; run make crds"
    );
}
