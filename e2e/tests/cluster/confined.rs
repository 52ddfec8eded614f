//! What Strand's processes may do on a node, as the kernel and the API server see it.

use serde_json::{Value, json};

use crate::access;
use crate::rack::{NAMESPACE, Pod, Rack};

/// Every process has a seccomp profile: the privileged agent and the node's CSI driver, to which the runtime applies none, their own,
/// which leaves the agent its rings.
pub fn the_agents_alone_have_io_uring(rack: &Rack) {
    access::pod(rack, "team-a");
    let look = "for p in $(pidof $0 || true); do awk '/^Seccomp:/{printf $2 \" \"}' /proc/$p/status; \
                ls -l /proc/$p/fd | grep -c io_uring || true; done";
    let mut seen = Vec::new();
    for node in rack.cluster.nodes() {
        for name in PROCESSES {
            let said = node.sh(&look.replace("$0", name)).unwrap();
            for line in said.lines() {
                let (mode, rings) = line.split_once(' ').unwrap();
                let what = format!("{name} on {}: {line}", node.name());
                assert_eq!(mode, "2", "no profile: {what}");
                assert_eq!(rings != "0", *name == "node-agent", "rings: {what}");
                seen.push(*name);
            }
        }
    }
    for name in PROCESSES {
        assert!(seen.contains(name), "no {name} runs: {seen:?}");
    }
    println!("    {} processes", seen.len());
}

/// Strand's programs, and the sidecars of its controller.
const PROCESSES: &[&str] = &[
    "node-agent",
    "csi-driver",
    "operator",
    "kv-endpoint",
    "csi-provisioner",
    "csi-attacher",
    "csi-resizer",
    "csi-snapshotter",
];

/// A namespace that enforces the restricted standard takes labelled pods; and of Strand's own it is the node's alone that it would refuse.
pub fn all_but_the_nodes_pods_are_restricted(rack: &Rack) {
    const ENFORCE: &str = "pod-security.kubernetes.io/enforce=restricted";
    rack.team("team-b");
    rack.kubectl(&["label", "namespace", "team-b", ENFORCE]);
    let create = |pod: &Value| {
        let args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        rack.cluster.feed(&args, pod.to_string().as_bytes())
    };
    let mut pod = Pod::new("team-b", "restricted").object();
    let lax = create(&pod);
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let strict = create(&pod);
    rack.kubectl(&[
        "label",
        "namespace",
        "team-b",
        "pod-security.kubernetes.io/enforce-",
    ]);
    let refused = lax.unwrap_err().to_string();
    assert!(refused.contains("\"app\""), "its own container: {refused}");
    assert!(!refused.contains("strand-kv-endpoint"), "{refused}");
    let made: Value = serde_json::from_str(&strict.unwrap()).unwrap();
    assert_eq!(
        made["spec"]["initContainers"][0]["name"],
        "strand-kv-endpoint"
    );

    let strict = [
        "label",
        "--dry-run=server",
        "--warnings-as-errors",
        "--overwrite",
    ];
    let args = [&strict[..], &["namespace", NAMESPACE, ENFORCE]].concat();
    let warned = rack.cluster.ask(&args).unwrap_err();
    let others = ["strand-operator", "strand-csi-controller"];
    assert!(warned.contains("strand-node-"), "{warned}");
    assert!(!others.iter().any(|name| warned.contains(name)), "{warned}");
}
