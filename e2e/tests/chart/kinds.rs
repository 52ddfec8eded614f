//! Every object is one that the API has, without a field that it does not know.

use crate::helm::{cases, chart, documents, render, title};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
            ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        },
        apps::v1::{DaemonSet, Deployment},
        batch::v1::Job,
        core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        scheduling::v1::PriorityClass,
        storage::v1::{CSIDriver, StorageClass},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeSet, fs};

/// Reads the object as its type and lists what the type does not have.
fn strictly<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
    let known = serde_json::to_value(typed).unwrap();
    let mut unknown = Vec::new();
    missing(object, &known, "", &mut unknown);
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(format!("unknown or unreadable: {unknown:?}")),
    }
}

fn missing(given: &Value, known: &Value, at: &str, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let at = format!("{at}.{key}");
                match known.get(key) {
                    Some(other) => missing(value, other, &at, found),
                    // An empty list or map, and null, say nothing.
                    None if value.is_null() => {}
                    None if value.as_array().is_some_and(Vec::is_empty) => {}
                    None if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
                    None => found.push(at),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (n, value) in given.iter().enumerate() {
                let other = known.get(n).unwrap_or(&Value::Null);
                missing(value, other, &format!("{at}[{n}]"), found);
            }
        }
        _ => {}
    }
}

/// Kinds of other projects, whose types are not at hand: which they are, at least.
const OTHERS: [&str; 5] = [
    "cert-manager.io/v1 Issuer",
    "cert-manager.io/v1 Certificate",
    "monitoring.coreos.com/v1 PodMonitor",
    "monitoring.coreos.com/v1 PrometheusRule",
    "snapshot.storage.k8s.io/v1 VolumeSnapshotClass",
];

fn check(object: &Value) -> Result<(), String> {
    let kind = format!(
        "{} {}",
        object["apiVersion"].as_str().unwrap(),
        object["kind"].as_str().unwrap()
    );
    match kind.as_str() {
        "v1 ConfigMap" => strictly::<ConfigMap>(object),
        "v1 Pod" => strictly::<Pod>(object),
        "v1 Secret" => strictly::<Secret>(object),
        "v1 Service" => strictly::<Service>(object),
        "v1 ServiceAccount" => strictly::<ServiceAccount>(object),
        "apps/v1 Deployment" => strictly::<Deployment>(object),
        "batch/v1 Job" => strictly::<Job>(object),
        "apps/v1 DaemonSet" => strictly::<DaemonSet>(object),
        "policy/v1 PodDisruptionBudget" => strictly::<PodDisruptionBudget>(object),
        "networking.k8s.io/v1 NetworkPolicy" => strictly::<NetworkPolicy>(object),
        "rbac.authorization.k8s.io/v1 ClusterRole" => strictly::<ClusterRole>(object),
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding" => strictly::<ClusterRoleBinding>(object),
        "rbac.authorization.k8s.io/v1 Role" => strictly::<Role>(object),
        "rbac.authorization.k8s.io/v1 RoleBinding" => strictly::<RoleBinding>(object),
        "scheduling.k8s.io/v1 PriorityClass" => strictly::<PriorityClass>(object),
        "storage.k8s.io/v1 CSIDriver" => strictly::<CSIDriver>(object),
        "storage.k8s.io/v1 StorageClass" => strictly::<StorageClass>(object),
        "apiextensions.k8s.io/v1 CustomResourceDefinition" => {
            strictly::<CustomResourceDefinition>(object)
        }
        "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration" => {
            strictly::<MutatingWebhookConfiguration>(object)
        }
        "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration" => {
            strictly::<ValidatingWebhookConfiguration>(object)
        }
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy" => {
            strictly::<ValidatingAdmissionPolicy>(object)
        }
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding" => {
            strictly::<ValidatingAdmissionPolicyBinding>(object)
        }
        other if OTHERS.contains(&other) => Ok(()),
        other => Err(format!(
            "{other} is no kind that the chart is known to make"
        )),
    }
}

#[test]
fn every_object_is_one_of_the_api() {
    for (name, values) in cases() {
        let rendered = render(&["--values", &values, "--set", "crds.install=true"]).unwrap();
        let mut seen = BTreeSet::new();
        for object in documents(&rendered) {
            let title = title(&object);
            check(&object).unwrap_or_else(|why| panic!("{name}: {title}: {why}"));
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
            assert!(
                seen.insert(format!("{namespace}/{title}")),
                "{name}: {title} is there twice"
            );
        }
    }
}

#[test]
fn a_field_that_the_api_does_not_know_is_found() {
    let object = serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "lables": {"a": "b"}}});
    assert!(check(&object).unwrap_err().contains(".metadata.lables"));
}

#[test]
fn the_definitions_are_those_of_the_code_and_outlive_the_chart() {
    let files = strand_api::crd_files();
    let dir = chart().join("files/crds");
    for (name, yaml) in &files {
        let present = fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert!(
            present == *yaml,
            "charts/strand/files/crds/{name} is out of date; run make crds"
        );
    }
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        files.len(),
        "charts/strand/files/crds has files of no type; run make crds"
    );

    let rendered: Vec<_> = documents(&render(&[]).unwrap())
        .into_iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .collect();
    assert_eq!(rendered.len(), files.len());
    for crd in strand_api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let found = rendered
            .iter()
            .find(|r| r["metadata"]["name"] == crd["metadata"]["name"])
            .unwrap();
        assert!(
            found["spec"] == crd["spec"],
            "{} is rendered otherwise",
            title(&crd)
        );
        assert_eq!(
            found["metadata"]["annotations"]["helm.sh/resource-policy"], "keep",
            "deleting a definition deletes its objects"
        );
    }
}
