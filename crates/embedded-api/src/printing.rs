//! The columns of the built-in kinds, as kubectl's users know them.

use serde_json::Value;

use crate::columns::{Column, age, computed, created, name, path};

fn words(value: &Value) -> Value {
    let joined: Vec<&str> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if joined.is_empty() {
        "<none>".into()
    } else {
        joined.join(",").into()
    }
}

fn or(value: &Value, otherwise: &str) -> Value {
    match value {
        Value::Null => otherwise.into(),
        Value::String(s) if s.is_empty() => otherwise.into(),
        other => other.clone(),
    }
}

fn count(value: &Value) -> Value {
    value.as_object().map_or(0, |m| m.len()).into()
}

fn node_status(node: &Value) -> Value {
    let mut words = Vec::new();
    for condition in node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if condition["type"] == "Ready" {
            words.push(if condition["status"] == "True" {
                "Ready"
            } else {
                "NotReady"
            });
        }
    }
    if words.is_empty() {
        words.push("Unknown");
    }
    if node["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled");
    }
    words.join(",").into()
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() {
        "<none>".into()
    } else {
        roles.join(",").into()
    }
}

fn access_modes(value: &Value) -> Value {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "?",
    };
    let modes: Vec<&str> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(short)
        .collect();
    modes.join(",").into()
}

fn pod_ready(pod: &Value) -> Value {
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| c["ready"] == true)
        .count();
    format!("{ready}/{total}").into()
}

fn pod_restarts(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    statuses
        .filter_map(|c| c["restartCount"].as_i64())
        .sum::<i64>()
        .into()
}

fn terminating_or(object: &Value, otherwise: &Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating".into()
    } else {
        or(otherwise, "Pending")
    }
}

fn event_object(event: &Value) -> Value {
    let about = &event["involvedObject"];
    let kind = about["kind"].as_str().unwrap_or_default().to_lowercase();
    format!("{kind}/{}", about["name"].as_str().unwrap_or_default()).into()
}

fn event_last_seen(event: &Value) -> Value {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    times
        .into_iter()
        .find_map(Value::as_str)
        .map_or_else(|| "<unknown>".into(), |t| age(t).into())
}

fn service_ports(service: &Value) -> Value {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let ports: Vec<String> = ports
        .map(|p| format!("{}/{}", p["port"], p["protocol"].as_str().unwrap_or("TCP")))
        .collect();
    if ports.is_empty() {
        "<none>".into()
    } else {
        ports.join(",").into()
    }
}

/// The columns of a built-in kind.
pub(crate) fn columns(kind: &str) -> Vec<Column> {
    let middle: Vec<Column> = match kind {
        "Namespace" => vec![computed("Status", 0, |o| {
            or(&o["status"]["phase"], "Active")
        })],
        "Node" => vec![
            computed("Status", 0, node_status),
            computed("Roles", 0, node_roles),
            created(),
            computed("Version", 0, |o| {
                or(&o["status"]["nodeInfo"]["kubeletVersion"], "")
            }),
            computed("OS-Image", 1, |o| {
                or(&o["status"]["nodeInfo"]["osImage"], "<unknown>")
            }),
            computed("Kernel-Version", 1, |o| {
                or(&o["status"]["nodeInfo"]["kernelVersion"], "<unknown>")
            }),
        ],
        "Pod" => vec![
            computed("Ready", 0, pod_ready),
            computed("Status", 0, |o| terminating_or(o, &o["status"]["phase"])),
            computed("Restarts", 0, pod_restarts),
            created(),
            computed("IP", 1, |o| or(&o["status"]["podIP"], "<none>")),
            computed("Node", 1, |o| or(&o["spec"]["nodeName"], "<none>")),
        ],
        "Event" => {
            return vec![
                computed("Last Seen", 0, event_last_seen),
                computed("Type", 0, |o| or(&o["type"], "")),
                computed("Reason", 0, |o| or(&o["reason"], "")),
                computed("Object", 0, event_object),
                computed("Source", 1, |o| {
                    or(
                        &o["source"]["component"],
                        o["reportingComponent"].as_str().unwrap_or_default(),
                    )
                }),
                computed("Message", 0, |o| or(&o["message"], "")),
                computed("Count", 1, |o| {
                    or(&o["series"]["count"], "")
                        .as_i64()
                        .or(o["count"].as_i64())
                        .unwrap_or(1)
                        .into()
                }),
                name().wide(),
            ];
        }
        "Secret" => vec![
            computed("Type", 0, |o| or(&o["type"], "Opaque")),
            computed("Data", 0, |o| count(&o["data"])),
        ],
        "ConfigMap" => vec![computed("Data", 0, |o| {
            (o["data"].as_object().map_or(0, |m| m.len())
                + o["binaryData"].as_object().map_or(0, |m| m.len()))
            .into()
        })],
        "ServiceAccount" => vec![computed("Secrets", 0, |o| {
            o["secrets"].as_array().map_or(0, Vec::len).into()
        })],
        "Service" => vec![
            computed("Type", 0, |o| or(&o["spec"]["type"], "ClusterIP")),
            computed("Cluster-IP", 0, |o| or(&o["spec"]["clusterIP"], "<none>")),
            computed("External-IP", 0, |o| words(&o["spec"]["externalIPs"])),
            computed("Port(s)", 0, service_ports),
        ],
        "PersistentVolume" => vec![
            computed("Capacity", 0, |o| or(&o["spec"]["capacity"]["storage"], "")),
            computed("Access Modes", 0, |o| {
                access_modes(&o["spec"]["accessModes"])
            }),
            computed("Reclaim Policy", 0, |o| {
                or(&o["spec"]["persistentVolumeReclaimPolicy"], "")
            }),
            computed("Status", 0, |o| terminating_or(o, &o["status"]["phase"])),
            computed("Claim", 0, |o| {
                match o["spec"]["claimRef"]["name"].as_str() {
                    Some(name) => format!(
                        "{}/{name}",
                        o["spec"]["claimRef"]["namespace"]
                            .as_str()
                            .unwrap_or_default()
                    )
                    .into(),
                    None => "".into(),
                }
            }),
            computed("StorageClass", 0, |o| {
                or(&o["spec"]["storageClassName"], "")
            }),
            computed("VolumeAttributesClass", 0, |o| {
                or(&o["spec"]["volumeAttributesClassName"], "<unset>")
            }),
            computed("Reason", 0, |o| or(&o["status"]["reason"], "")),
            created(),
            computed("VolumeMode", 1, |o| or(&o["spec"]["volumeMode"], "<unset>")),
        ],
        "PersistentVolumeClaim" => vec![
            computed("Status", 0, |o| terminating_or(o, &o["status"]["phase"])),
            computed("Volume", 0, |o| or(&o["spec"]["volumeName"], "")),
            computed("Capacity", 0, |o| {
                or(&o["status"]["capacity"]["storage"], "")
            }),
            computed("Access Modes", 0, |o| {
                access_modes(&o["status"]["accessModes"])
            }),
            computed("StorageClass", 0, |o| {
                or(&o["spec"]["storageClassName"], "")
            }),
            computed("VolumeAttributesClass", 0, |o| {
                or(&o["spec"]["volumeAttributesClassName"], "<unset>")
            }),
            created(),
            computed("VolumeMode", 1, |o| or(&o["spec"]["volumeMode"], "<unset>")),
        ],
        "CustomResourceDefinition" => {
            vec![path("Created At", "string", ".metadata.creationTimestamp")]
        }
        "Lease" => vec![computed("Holder", 0, |o| {
            or(&o["spec"]["holderIdentity"], "")
        })],
        "StorageClass" => vec![
            computed("Provisioner", 0, |o| or(&o["provisioner"], "")),
            computed("ReclaimPolicy", 0, |o| or(&o["reclaimPolicy"], "Delete")),
            computed("VolumeBindingMode", 0, |o| {
                or(&o["volumeBindingMode"], "Immediate")
            }),
            computed("AllowVolumeExpansion", 0, |o| {
                (o["allowVolumeExpansion"] == true).into()
            }),
        ],
        "CSIDriver" => vec![
            computed("AttachRequired", 0, |o| {
                (o["spec"]["attachRequired"] != false).into()
            }),
            computed("PodInfoOnMount", 0, |o| {
                (o["spec"]["podInfoOnMount"] == true).into()
            }),
            computed("StorageCapacity", 0, |o| {
                (o["spec"]["storageCapacity"] == true).into()
            }),
            computed("Modes", 0, |o| words(&o["spec"]["volumeLifecycleModes"])),
        ],
        "CSINode" => vec![computed("Drivers", 0, |o| {
            o["spec"]["drivers"].as_array().map_or(0, Vec::len).into()
        })],
        "VolumeAttachment" => vec![
            computed("Attacher", 0, |o| or(&o["spec"]["attacher"], "")),
            computed("PV", 0, |o| {
                or(&o["spec"]["source"]["persistentVolumeName"], "")
            }),
            computed("Node", 0, |o| or(&o["spec"]["nodeName"], "")),
            computed("Attached", 0, |o| (o["status"]["attached"] == true).into()),
        ],
        "CSIStorageCapacity" => vec![
            computed("StorageClassName", 0, |o| or(&o["storageClassName"], "")),
            computed("Capacity", 0, |o| or(&o["capacity"], "")),
        ],
        "VolumeAttributesClass" => vec![computed("DriverName", 0, |o| or(&o["driverName"], ""))],
        _ => Vec::new(),
    };
    let mut columns = vec![name()];
    columns.extend(middle);
    if !columns.iter().any(|c| c.name == "Age") && kind != "CustomResourceDefinition" {
        columns.push(created());
    }
    columns
}
