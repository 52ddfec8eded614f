//! What the real server's built-in kinds do on their own: defaults, first status, immutable fields.

use serde_json::{Value, json};

use crate::{definition, resource::Resource, status::Cause, store::CRDS};

fn default(value: &mut Value, with: Value) {
    if value.is_null() {
        *value = with;
    }
}

/// Defaults of built-in kinds that clients look at.
pub(crate) fn defaults(resource: &Resource, object: &mut Value) {
    match resource.kind.as_str() {
        "Secret" => {
            if let Value::Object(plain) = object["stringData"].take() {
                for (name, text) in plain {
                    let text = text.as_str().unwrap_or_default();
                    object["data"][name] =
                        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
                            .into();
                }
            }
            object.as_object_mut().map(|m| m.remove("stringData"));
            default(&mut object["type"], "Opaque".into());
        }
        "PersistentVolume" => {
            default(&mut object["spec"]["volumeMode"], "Filesystem".into());
            default(
                &mut object["spec"]["persistentVolumeReclaimPolicy"],
                "Retain".into(),
            );
        }
        "PersistentVolumeClaim" => default(&mut object["spec"]["volumeMode"], "Filesystem".into()),
        "StorageClass" => {
            default(&mut object["reclaimPolicy"], "Delete".into());
            default(&mut object["volumeBindingMode"], "Immediate".into());
        }
        "CSIDriver" => {
            let spec = &mut object["spec"];
            for (name, value) in [
                ("attachRequired", json!(true)),
                ("podInfoOnMount", json!(false)),
                ("storageCapacity", json!(false)),
                ("requiresRepublish", json!(false)),
                ("seLinuxMount", json!(false)),
                ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
                ("volumeLifecycleModes", json!(["Persistent"])),
            ] {
                default(&mut spec[name], value);
            }
        }
        "Pod" => {
            default(&mut object["spec"]["restartPolicy"], "Always".into());
            default(
                &mut object["spec"]["schedulerName"],
                "default-scheduler".into(),
            );
        }
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        _ => {}
    }
}

/// The first status that the server itself sets.
pub(crate) fn on_create(resource: &Resource, object: &mut Value, now: &str) {
    match resource.kind.as_str() {
        "Namespace" => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"]["phase"] = "Active".into();
        }
        "Pod" => object["status"]["phase"] = "Pending".into(),
        "PersistentVolumeClaim" | "PersistentVolume" => {
            object["status"]["phase"] = "Pending".into()
        }
        _ if resource.storage() == CRDS => definition::establish(object, now),
        _ => {}
    }
}

/// What the server keeps up to date by itself.
pub(crate) fn on_update(resource: &Resource, old: &Value, new: &mut Value, now: &str) {
    if resource.storage() == CRDS {
        definition::establish(new, now);
    }
    if resource.kind == "Namespace" && new["spec"]["finalizers"].is_null() {
        new["spec"] = old["spec"].clone();
    }
}

/// Fields of built-in kinds that never change, and other rules that are not in their schemas.
pub(crate) fn causes(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(old) = old else { return causes };
    let immutable: &[&str] = match resource.kind.as_str() {
        _ if resource.is_custom() => &[],
        "StorageClass" => &[
            "provisioner",
            "parameters",
            "reclaimPolicy",
            "volumeBindingMode",
        ],
        "VolumeAttachment" => &["spec"],
        "VolumeAttributesClass" => &["driverName", "parameters"],
        "Secret" => &["type"],
        _ => &[],
    };
    for field in immutable {
        if old[*field] != object[*field] {
            causes.push(Cause::invalid(
                *field,
                &object[*field],
                "field is immutable",
            ));
        }
    }
    if matches!(resource.kind.as_str(), "Secret" | "ConfigMap")
        && !resource.is_custom()
        && old["immutable"] == true
    {
        for field in ["data", "binaryData"] {
            if old[field] != object[field] {
                causes.push(Cause::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
    causes
}
