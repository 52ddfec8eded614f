//! The chart's NetworkPolicies, enforced in the pods' own networks ([`strand_e2e::policies`]).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use strand_e2e::policies::World;

use crate::certificates::injected;
use crate::rack::{NAMESPACE, Pod, Rack, claim};

/// A port on which nothing of Strand's listens: who gets through to it is refused, who does not hears nothing.
const NOTHING: u64 = 7777;

/// Metrics are read by those whom the values name, the webhook is asked by anybody, no other port is reached; the node's kubelet, which
/// probes, always gets through, and all goes on.
pub fn ports_answer_whom_they_are_for(rack: &Rack) {
    let from =
        json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}}]);
    let set = format!("networkPolicies.metricsFrom={from}");
    rack.helm("upgrade", &["--set-json", &set]);
    rack.team("team-a");
    rack.namespace("quiet", false);
    for team in ["team-a", "quiet"] {
        let mut pod = Pod::new(team, "looks").on("node-1").object();
        pod["metadata"]["annotations"] = json!({"strand.dev/inject": "false"});
        rack.apply(pod);
        rack.ready(team, "looks");
    }
    // As nobody enforces anything here by itself: what is refused later is refused by the policies.
    assert_eq!(seen(rack), expected("open", "refused"));
    let enforced = enforce(rack);
    println!("    rules in the networks of {} pods", enforced.len());
    assert_eq!(seen(rack), expected("filtered", "filtered"));

    injected(rack);
    rack.apply(claim("team-a", "meanwhile", "400Mi", json!({})));
    rack.apply(
        Pod::new("team-a", "meanwhile")
            .claim("meanwhile", "/data")
            .object(),
    );
    rack.ready("team-a", "meanwhile");
    let status = ["deployments", "-n", NAMESPACE];
    let ready = "{.items[*].status.conditions[?(@.type=='Available')].status}";
    rack.until(&status, ready, |all| all == "True True");

    for (node, network) in &enforced {
        let line = format!("nsenter --net=/run/netns/{network} nft delete table inet policies");
        rack.cluster.node(node).unwrap().sh(&line).unwrap();
    }
    for (team, object) in [
        ("team-a", "pod/meanwhile"),
        ("team-a", "pvc/meanwhile"),
        ("team-a", "pod/looks"),
        ("quiet", "pod/looks"),
    ] {
        rack.delete(team, object);
    }
    rack.helm("upgrade", &[]);
}

/// What comes of asking a port: of a component, by whom, for what.
type Seen = BTreeMap<(&'static str, &'static str, &'static str), &'static str>;

fn expected(metrics_elsewhere: &'static str, nothing: &'static str) -> Seen {
    let mut seen = Seen::new();
    for component in ["operator", "csi-controller"] {
        seen.insert((component, "team-a", "metrics"), "open");
        seen.insert((component, "quiet", "metrics"), metrics_elsewhere);
        seen.insert((component, "quiet", "nothing"), nothing);
        seen.insert((component, "kubelet", "metrics"), "open");
    }
    seen.insert(("operator", "quiet", "webhook"), "open");
    seen
}

fn seen(rack: &Rack) -> Seen {
    let mut seen = Seen::new();
    for component in ["operator", "csi-controller"] {
        let pod = of(rack, component);
        let ip = pod["status"]["podIP"].as_str().unwrap();
        let metrics = port(&pod, "http").unwrap();
        for team in ["team-a", "quiet"] {
            seen.insert((component, team, "metrics"), ask(rack, team, ip, metrics));
        }
        let nothing = ask(rack, "quiet", ip, NOTHING);
        seen.insert((component, "quiet", "nothing"), nothing);
        if let Some(webhook) = port(&pod, "webhook") {
            seen.insert(
                (component, "quiet", "webhook"),
                ask(rack, "quiet", ip, webhook),
            );
        }
        let node = rack.cluster.node(pod["spec"]["nodeName"].as_str().unwrap());
        let probe =
            format!("timeout 3 bash -c '</dev/tcp/{ip}/{metrics}' && echo open || echo not");
        let said = node.unwrap().sh(&probe).unwrap();
        let probed = if said.trim() == "open" { "open" } else { "not" };
        seen.insert((component, "kubelet", "metrics"), probed);
    }
    seen
}

/// A pod of a component that runs.
fn of(rack: &Rack, component: &str) -> Value {
    let label = format!("app.kubernetes.io/component={component}");
    let running = ["pods", "-n", NAMESPACE, "-l", &label];
    let pods = rack.cluster.get(&running).unwrap();
    pods["items"][0].clone()
}

fn port(pod: &Value, name: &str) -> Option<u64> {
    let containers = pod["spec"]["containers"].as_array().unwrap().iter();
    let mut ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    ports.find(|port| port["name"] == name)?["containerPort"].as_u64()
}

/// Asks from the pod of a namespace.
fn ask(rack: &Rack, team: &str, ip: &str, port: u64) -> &'static str {
    let program = format!(
        "import socket\n\
         try:\n  socket.create_connection(('{ip}', {port}), 2)\n  print('open')\n\
         except ConnectionRefusedError:\n  print('refused')\n\
         except TimeoutError:\n  print('filtered')"
    );
    let said = rack
        .cluster
        .exec(team, "looks", &["python3", "-c", &program])
        .unwrap();
    match said.trim() {
        "open" => "open",
        "refused" => "refused",
        "filtered" => "filtered",
        other => panic!("{ip}:{port}: {other}"),
    }
}

/// Enforces the policies of all namespaces; the networks that have rules now, by node and name.
fn enforce(rack: &Rack) -> Vec<(String, String)> {
    let list = |kind: &str| {
        let all = rack.cluster.get(&[kind, "-A"]).unwrap();
        all["items"].as_array().unwrap().clone()
    };
    let (pods, namespaces, policies) = (list("pods"), list("namespaces"), list("networkpolicies"));
    let world = World {
        pods: &pods,
        namespaces: &namespaces,
        policies: &policies,
    };
    let mut enforced = Vec::new();
    for pod in pods.iter().filter(|pod| pod["spec"]["hostNetwork"] != true) {
        let name = pod["spec"]["nodeName"].as_str().unwrap();
        let node = rack.cluster.node(name).unwrap();
        let addresses = [
            format!("10.244.{}.1", node.number()),
            format!("10.255.0.1{}", node.number()),
        ];
        let rules = world.rules(pod, &addresses.each_ref().map(String::as_str));
        let Some(rules) = rules.unwrap() else {
            continue;
        };
        let ip = pod["status"]["podIP"].as_str().unwrap();
        let find = format!(
            "for n in /run/netns/*; do nsenter --net=$n ip -4 -o address | grep -qw {ip} && basename $n && break; done"
        );
        let network = node.sh(&find).unwrap().trim().to_owned();
        let line = format!("nsenter --net=/run/netns/{network} nft -f - <<'END'\n{rules}END");
        node.sh(&line).unwrap();
        enforced.push((name.to_owned(), network));
    }
    enforced
}
