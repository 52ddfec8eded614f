//! What the values `monitoring` make, with the Prometheus operator's own definitions: a real API server takes all of it, and what is to be
//! watched is there and answers. Neither Prometheus nor its operator runs.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use strand_e2e::tool;

use crate::access;
use crate::rack::{NAMESPACE, Rack};

/// Objects that the chart makes, in the order of their titles.
const OBJECTS: [&str; 6] = [
    "ConfigMap strand-dashboard",
    "PodMonitor strand-csi-controller",
    "PodMonitor strand-endpoints",
    "PodMonitor strand-node",
    "PodMonitor strand-operator",
    "PrometheusRule strand",
];
const ON: &str = "monitoring.monitors.enabled=true,monitoring.rules.enabled=true,monitoring.dashboard.enabled=true";
/// Labels that the Prometheus operator gives what is read from a pod, beside those of the monitor's own relabelings.
const OF_THE_POD: [&str; 6] = [
    "namespace",
    "pod",
    "container",
    "endpoint",
    "job",
    "instance",
];

pub fn its_objects_are_taken_by_the_api_server(rack: &Rack) {
    let definitions = ["podmonitors", "prometheusrules"].map(|kind| {
        let file = format!("monitoring.coreos.com_{kind}.yaml");
        tool("prometheus-definitions").join(file)
    });
    let definitions = definitions.each_ref().map(|file| file.to_str().unwrap());
    let [monitors, rules] = definitions;
    rack.kubectl(&["apply", "--server-side", "-f", monitors, "-f", rules]);
    let kinds = ["podmonitors,prometheusrules", "-A"];
    // Served, and none there yet.
    rack.until(&kinds, "{.items}", |items| items == "[]");
    rack.helm("upgrade", &["--set", ON]);
    let made = made(rack);
    let titles: Vec<String> = made.iter().map(title).collect();
    assert_eq!(titles, OBJECTS);
    for object in &made {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        let [kind, name] = [kind, name].map(|word| word.as_str().unwrap());
        let held = rack.cluster.get(&[kind, name, "-n", NAMESPACE]).unwrap();
        let mut lost = Vec::new();
        compare(object, &held, &title(object), &mut lost);
        assert!(lost.is_empty(), "{lost:#?}");
    }

    access::pod(rack, "team-a");
    // From then on its node's agent tells of its namespace.
    let line = "print(r.set('k', b'v') and r.get('k') == b'v')";
    rack.says("team-a", "kv", line, "True");
    for monitor in made.iter().filter(|object| object["kind"] == "PodMonitor") {
        finds_what_answers(rack, monitor);
    }
    rack.delete("team-a", "pod/kv");

    rack.helm("upgrade", &[]);
    rack.until(&kinds, "{.items}", |items| items == "[]");
    rack.until(
        &["configmaps", "-n", NAMESPACE],
        "{.items[*].metadata.name}",
        |names| !names.contains("strand-dashboard"),
    );
    rack.kubectl(&["delete", "--timeout=60s", "-f", monitors, "-f", rules]);
}

/// What Helm has sent of these objects.
fn made(rack: &Rack) -> Vec<Value> {
    let sent = rack
        .cluster
        .helm(&["get", "manifest", "strand", "-n", NAMESPACE]);
    let sent = sent.unwrap();
    let documents = serde_yaml::Deserializer::from_str(&sent);
    let mut made: Vec<Value> = documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| {
            object["apiVersion"] == "monitoring.coreos.com/v1"
                || title(object) == "ConfigMap strand-dashboard"
        })
        .collect();
    made.sort_by_key(title);
    made
}

fn title(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{} {}",
        word(&object["kind"]),
        word(&object["metadata"]["name"])
    )
}

/// Where what is held lacks something of what was sent; defaults may have come to it.
fn compare(sent: &Value, held: &Value, at: &str, lost: &mut Vec<String>) {
    match (sent, held) {
        (Value::Object(sent), Value::Object(held)) => {
            for (key, value) in sent {
                let held = held.get(key).unwrap_or(&Value::Null);
                compare(value, held, &format!("{at}.{key}"), lost);
            }
        }
        (Value::Array(sent), Value::Array(held)) if sent.len() == held.len() => {
            for (n, (sent, held)) in sent.iter().zip(held).enumerate() {
                compare(sent, held, &format!("{at}[{n}]"), lost);
            }
        }
        _ if sent == held => {}
        _ => lost.push(format!("{at}: {sent} became {held}")),
    }
}

/// The monitor selects pods; each has the ports and answers there, and no label of the metrics is lost to one of the pod that is read.
fn finds_what_answers(rack: &Rack, monitor: &Value) {
    let title = title(monitor);
    let spec = &monitor["spec"];
    let everywhere = spec["namespaceSelector"]["any"] == true;
    let own = format!("-n={NAMESPACE}");
    let place = if everywhere { "-A" } else { &own };
    let selector = selector(&spec["selector"]);
    let selected = rack.cluster.get(&["pods", place, "-l", &selector]).unwrap();
    let pods = selected["items"].as_array().unwrap();
    assert!(!pods.is_empty(), "{title}: {selector} selects no pod");
    for endpoint in spec["podMetricsEndpoints"].as_array().unwrap() {
        let name = endpoint["port"].as_str().unwrap();
        let mut labels: BTreeSet<&str> = OF_THE_POD.into();
        for rule in endpoint["relabelings"].as_array().into_iter().flatten() {
            labels.insert(rule["targetLabel"].as_str().unwrap());
        }
        // One that leads nothing, and was asked for nothing, has nothing to tell.
        let pages = pods.iter().map(|pod| read(rack, pod, port(pod, name)));
        let metrics: String = pages.collect();
        let series = metrics.lines().filter(|line| !line.starts_with('#'));
        println!(
            "    {title}, {name} of {} pods: {} series",
            pods.len(),
            series.count()
        );
        assert!(metrics.contains("# TYPE strand_"), "{title}: {metrics}");
        // What it keeps takes the place of what the pod would be told by: of that an alert by node must not know.
        let kept: &[&str] = match endpoint["honorLabels"] == true {
            true => &["namespace"],
            false => &[],
        };
        assert_eq!(taken(&metrics, &labels), kept, "{title}: {name}");
    }
}

/// A selector of objects as kubectl writes it.
fn selector(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut all: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
        .collect();
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        assert_eq!(expression["operator"], "Exists");
        all.push(expression["key"].as_str().unwrap().to_owned());
    }
    all.join(",")
}

/// The one port of that name that the pod's containers have.
fn port(pod: &Value, name: &str) -> u64 {
    let containers = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten();
    let ports = containers.filter_map(|one| one["ports"].as_array());
    let named: Vec<u64> = ports
        .flatten()
        .filter(|port| port["name"] == name)
        .map(|port| port["containerPort"].as_u64().unwrap())
        .collect();
    let [port] = named[..] else {
        panic!("ports {name}: {named:?} in {pod}");
    };
    port
}

fn read(rack: &Rack, pod: &Value, port: u64) -> String {
    let of = |key: &str| pod["metadata"][key].as_str().unwrap();
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}:{port}/proxy/metrics",
        of("namespace"),
        of("name")
    );
    rack.kubectl(&["get", "--raw", &path])
}

/// Which of these labels a page of metrics has itself.
fn taken<'a>(metrics: &str, labels: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let has = |label: &str| {
        let places = [format!("{{{label}=\""), format!(",{label}=\"")];
        places.iter().any(|place| metrics.contains(place))
    };
    labels.iter().copied().filter(|label| has(label)).collect()
}
