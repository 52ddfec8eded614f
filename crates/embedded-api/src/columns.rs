//! The columns in which `kubectl get` shows each kind.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{jsonpath::JsonPath, write::timestamp};

/// How a cell is read out of an object.
#[derive(Debug, Clone)]
enum Cell {
    Path(JsonPath),
    Computed(fn(&Value) -> Value),
}

/// One column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    /// 0 is always shown, more only in wide output.
    priority: i64,
    cell: Cell,
}

impl Column {
    pub(crate) fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description, "priority": self.priority})
    }

    pub(crate) fn cell(&self, object: &Value) -> Value {
        match &self.cell {
            Cell::Computed(compute) => compute(object),
            Cell::Path(path) => printed(&self.kind, &path.find(object)),
        }
    }
}

fn printed(kind: &str, found: &[&Value]) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match kind {
        "date" => first.as_str().map_or(Value::Null, |t| age(t).into()),
        "integer" | "number" | "boolean" => (*first).clone(),
        _ if first.is_null() => Value::Null,
        _ => {
            let words: Vec<String> = found
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                .collect();
            words.join(" ").into()
        }
    }
}

/// How long ago a time was, as kubectl words it.
pub(crate) fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else {
        return "<invalid>".into();
    };
    human_duration(timestamp().as_second() - then.as_second())
}

/// Two units at most, fewer as it grows: `90s`, `5m10s`, `3h`, `2d4h`, `400d`.
fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => pair(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn computed(name: &str, priority: i64, cell: fn(&Value) -> Value) -> Column {
    let description = String::new();
    Column {
        name: name.into(),
        kind: "string".into(),
        format: String::new(),
        description,
        priority,
        cell: Cell::Computed(cell),
    }
}

fn path(name: &str, kind: &str, path: &str) -> Column {
    let column = computed(name, 0, |_| Value::Null);
    match JsonPath::parse(path) {
        Some(path) => Column {
            kind: kind.into(),
            cell: Cell::Path(path),
            ..column
        },
        None => column,
    }
}

fn name() -> Column {
    let description = "Name must be unique within a namespace.".into();
    Column {
        format: "name".into(),
        description,
        ..path("Name", "string", ".metadata.name")
    }
}

fn created() -> Column {
    Column {
        description: "When the object was created.".into(),
        ..path("Age", "date", ".metadata.creationTimestamp")
    }
}

/// The columns of a custom kind: its name, then what its definition asks for.
pub(crate) fn custom(asked: &Value) -> Vec<Column> {
    let mut columns = vec![name()];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for column in asked.as_array().into_iter().flatten() {
        columns.push(Column {
            format: text(&column["format"]),
            description: text(&column["description"]),
            priority: column["priority"].as_i64().unwrap_or(0),
            ..path(
                &text(&column["name"]),
                &text(&column["type"]),
                &text(&column["jsonPath"]),
            )
        });
    }
    if columns.len() == 1 {
        columns.push(created());
    }
    columns
}

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
pub(crate) fn builtin(kind: &str) -> Vec<Column> {
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
                Column {
                    priority: 1,
                    ..name()
                },
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

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations_are_worded_like_kubectl() {
        for (seconds, words) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (187_200, "2d4h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(human_duration(seconds), words, "{seconds}");
        }
    }
}
