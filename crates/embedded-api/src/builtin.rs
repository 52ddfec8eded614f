//! The kinds that are there without a CustomResourceDefinition.

use std::sync::{Arc, OnceLock};

use k8s_openapi::{
    api::{
        coordination::v1 as coordination, core::v1 as core, events::v1 as events,
        storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    schemars::{JsonSchema, Schema as Json, SchemaGenerator, generate::SchemaSettings},
};
use serde_json::{Map, Value, json};

use crate::{
    merging,
    names::NameRule,
    printing,
    resource::{Resource, Source},
    schema::{ANY, Schema},
};

/// Group, version, kind, plural, short names, namespaced, has status.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    bool,
    bool,
    fn(&mut SchemaGenerator) -> Json,
);

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Json {
    generator.subschema_for::<T>()
}

const KINDS: [Row; 19] = [
    (
        "",
        "v1",
        "Namespace",
        "namespaces",
        &["ns"],
        false,
        true,
        of::<core::Namespace>,
    ),
    (
        "",
        "v1",
        "Node",
        "nodes",
        &["no"],
        false,
        true,
        of::<core::Node>,
    ),
    (
        "",
        "v1",
        "Pod",
        "pods",
        &["po"],
        true,
        true,
        of::<core::Pod>,
    ),
    (
        "",
        "v1",
        "Event",
        "events",
        &["ev"],
        true,
        false,
        of::<core::Event>,
    ),
    (
        "",
        "v1",
        "Secret",
        "secrets",
        &[],
        true,
        false,
        of::<core::Secret>,
    ),
    (
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        &["cm"],
        true,
        false,
        of::<core::ConfigMap>,
    ),
    (
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        &["sa"],
        true,
        false,
        of::<core::ServiceAccount>,
    ),
    (
        "",
        "v1",
        "Service",
        "services",
        &["svc"],
        true,
        true,
        of::<core::Service>,
    ),
    (
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        &["pv"],
        false,
        true,
        of::<core::PersistentVolume>,
    ),
    (
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
        true,
        true,
        of::<core::PersistentVolumeClaim>,
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        false,
        true,
        of::<apiextensions::CustomResourceDefinition>,
    ),
    (
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        &[],
        true,
        false,
        of::<coordination::Lease>,
    ),
    (
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        &["ev"],
        true,
        false,
        of::<events::Event>,
    ),
    (
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        &["sc"],
        false,
        false,
        of::<storage::StorageClass>,
    ),
    (
        "storage.k8s.io",
        "v1",
        "CSIDriver",
        "csidrivers",
        &[],
        false,
        false,
        of::<storage::CSIDriver>,
    ),
    (
        "storage.k8s.io",
        "v1",
        "CSINode",
        "csinodes",
        &[],
        false,
        false,
        of::<storage::CSINode>,
    ),
    (
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        &[],
        false,
        true,
        of::<storage::VolumeAttachment>,
    ),
    (
        "storage.k8s.io",
        "v1",
        "CSIStorageCapacity",
        "csistoragecapacities",
        &[],
        true,
        false,
        of::<storage::CSIStorageCapacity>,
    ),
    (
        "storage.k8s.io",
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
        &["vac"],
        false,
        false,
        of::<storage::VolumeAttributesClass>,
    ),
];

/// The fields besides name and namespace by which a kind (as the store names it) can be selected.
pub(crate) fn selectable(storage: &str) -> Vec<String> {
    let fields: &[&str] = match storage {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    };
    fields.iter().map(|s| (*s).to_owned()).collect()
}

/// All built-in kinds.
pub(crate) fn resources() -> Vec<Arc<Resource>> {
    KINDS.iter().map(|row| Arc::new(resource(row))).collect()
}

fn resource(&(group, version, kind, plural, short, namespaced, status, make): &Row) -> Resource {
    let storage =
        crate::status::qualified(if group == "events.k8s.io" { "" } else { group }, plural);
    let stored_as = if group == "events.k8s.io" || group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Resource {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        short_names: short.iter().map(|s| (*s).to_owned()).collect(),
        categories: if matches!(plural, "pods" | "services") {
            vec!["all".into()]
        } else {
            Vec::new()
        },
        namespaced,
        status,
        name_rule: if matches!(plural, "namespaces" | "services") {
            NameRule::Label
        } else {
            NameRule::Subdomain
        },
        stored_as,
        selectable: selectable(&storage),
        columns: printing::columns(kind),
        source: Source::Builtin(make),
        schema: OnceLock::new(),
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::openapi3().into_generator()
}

/// The schema definitions of all built-in kinds by name (`io.k8s.api.core.v1.Pod`), with how their lists merge.
pub(crate) fn definitions() -> &'static Map<String, Value> {
    static DEFINITIONS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let mut generator = generator();
        for row in &KINDS {
            (row.7)(&mut generator);
        }
        let mut definitions = generator.take_definitions(true);
        merging::annotate(&mut definitions);
        definitions
    })
}

/// The name under which [`definitions`] holds a built-in kind.
pub(crate) fn definition_name(make: fn(&mut SchemaGenerator) -> Json) -> String {
    let reference = make(&mut generator());
    let reference = reference
        .get("$ref")
        .and_then(Value::as_str)
        .unwrap_or_default();
    reference.rsplit('/').next().unwrap_or_default().to_owned()
}

pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A built-in kind's compiled schema.
pub(crate) fn schema(make: fn(&mut SchemaGenerator) -> Json) -> Schema {
    let reference = json!({"$ref": definition_name(make)});
    // Made from types at build time: that it compiles is tested for every kind.
    Schema::compile(&reference, definitions()).unwrap_or_else(|why| {
        tracing::error!(
            why,
            "a built-in schema does not compile; its objects are not checked"
        );
        Schema {
            properties: Default::default(),
            required: Vec::new(),
            additional: None,
            items: None,
            default: None,
            checks: None,
            list: Default::default(),
            strategy: Default::default(),
            ..ANY
        }
    })
}
