//! JSON patch operations that add and never replace.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Volume, VolumeMount};
use serde::Serialize;
use serde_json::{Value, json};

/// Operations in the order in which they are applied.
#[derive(Debug, Default)]
pub(crate) struct Patch(Vec<Value>);

impl Patch {
    pub(crate) fn into_value(self) -> Option<Value> {
        (!self.0.is_empty()).then_some(Value::Array(self.0))
    }

    fn add(&mut self, path: String, value: impl Serialize) {
        // Types of the API always become JSON.
        let value = serde_json::to_value(value).unwrap_or_default();
        self.0
            .push(json!({"op": "add", "path": path, "value": value}));
    }

    /// Adds to a list at its end, or makes the list.
    fn append<T: Serialize>(&mut self, list: String, present: bool, items: Vec<T>) {
        if items.is_empty() {
            return;
        }
        if !present {
            self.add(list, items);
            return;
        }
        for item in items {
            self.add(format!("{list}/-"), item);
        }
    }

    pub(crate) fn volume(&mut self, pod: &Pod, volume: Volume) {
        let present = pod.spec.as_ref().is_some_and(|spec| spec.volumes.is_some());
        self.append("/spec/volumes".into(), present, vec![volume]);
    }

    /// Goes first, so that the others, init containers too, find it running.
    pub(crate) fn first_init_container(&mut self, pod: &Pod, container: Container) {
        let spec = pod.spec.as_ref();
        match spec.is_some_and(|spec| spec.init_containers.is_some()) {
            true => self.add("/spec/initContainers/0".into(), container),
            false => self.add("/spec/initContainers".into(), [container]),
        }
    }

    /// `at` is where the container is, once all that was added before is there.
    pub(crate) fn environment(&mut self, at: &str, container: &Container, env: Vec<EnvVar>) {
        self.append(format!("{at}/env"), container.env.is_some(), env);
    }

    pub(crate) fn mount(&mut self, at: &str, container: &Container, mount: VolumeMount) {
        let present = container.volume_mounts.is_some();
        self.append(format!("{at}/volumeMounts"), present, vec![mount]);
    }

    pub(crate) fn annotate(&mut self, pod: &Pod, pairs: &[(&str, String)]) {
        let present = pod.metadata.annotations.is_some();
        self.name("/metadata/annotations", present, pairs);
    }

    pub(crate) fn label(&mut self, pod: &Pod, pairs: &[(&str, String)]) {
        self.name("/metadata/labels", pod.metadata.labels.is_some(), pairs);
    }

    fn name(&mut self, map: &str, present: bool, pairs: &[(&str, String)]) {
        if !present && !pairs.is_empty() {
            self.add(map.into(), json!({}));
        }
        for (key, value) in pairs {
            // RFC 6901: `~` and `/` in a key.
            let key = key.replace('~', "~0").replace('/', "~1");
            self.add(format!("{map}/{key}"), value);
        }
    }
}
