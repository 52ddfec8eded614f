//! Labels and annotations of pods and namespaces.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// Label of a pod or a namespace: the MemoryPool that the pod, or all pods of the namespace, use. The pod's counts first.
pub const POOL: &str = "strand.dev/pool";
/// Annotation of a pod: `false` leaves it alone, although its namespace is labelled.
pub const INJECT: &str = "strand.dev/inject";
/// Annotation of a pod: names of the containers that get addresses, with commas between. Left out: all but init containers.
pub const CONTAINERS: &str = "strand.dev/containers";
/// Annotation of a pod: the port of the endpoint on the pod's loopback. The next one is the endpoint's too. Pods with hostNetwork need
/// it; metrics are on the one after both.
pub const PORT: &str = "strand.dev/port";
/// Annotation of a pod: name of a Secret of its namespace whose key `password` clients have to give. Pods with hostNetwork need it.
pub const PASSWORD_SECRET: &str = "strand.dev/password-secret";
/// Label of a pod that was injected: its pool.
pub const INJECTED: &str = "strand.dev/injected";
/// Annotation of a pod that was not injected: why, and what to write instead.
pub const SKIPPED: &str = "strand.dev/skipped";
/// Annotation of a pod that was injected: what it did not get, and why.
pub const NOTE: &str = "strand.dev/note";

/// A pod's annotation, without the spaces around it.
pub(crate) fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    read(pod.metadata.annotations.as_ref(), name)
}

/// A pod's label.
pub(crate) fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    read(pod.metadata.labels.as_ref(), name)
}

fn read<'a>(all: Option<&'a BTreeMap<String, String>>, name: &str) -> Option<&'a str> {
    Some(all?.get(name)?.trim())
}
