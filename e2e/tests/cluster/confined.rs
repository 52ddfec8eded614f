//! What Strand's processes may do on a node, as the kernel and the API server see it.

use std::process::Command;

use serde_json::{Value, json};
use strand_e2e::control_plane::kubeconfig;
use strand_e2e::process::attempt;
use strand_e2e::tool;

use crate::access;
use crate::rack::{NAMESPACE, Pod, Rack, claim};

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

/// A pod that runs as nobody in particular writes its volume and scratch space, as its group, and uses its endpoint.
fn serves_who_is_not_root(rack: &Rack, mut pod: Value) {
    let spec = &mut pod["spec"];
    spec["securityContext"] = json!({"fsGroup": 2000});
    spec["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "restricted"}},
        {"name": "scratch", "csi": {
            "driver": "csi.strand.dev", "volumeAttributes": {"kind": "scratch", "pool": "rack", "size": "300Mi"},
        }},
    ]);
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/scratch"},
    ]);
    rack.apply(claim("team-b", "restricted", "400Mi", json!({})));
    rack.apply(pod);
    rack.ready("team-b", "restricted");
    for place in ["/data", "/scratch"] {
        let line = format!("echo x >{place}/x; stat -c '%u %g' {place}/x");
        assert_eq!(rack.exec("team-b", "restricted", &line), "1000 2000");
    }
    let line = "print(r.set('k', b'v') and r.get('k') == b'v')";
    rack.says("team-b", "restricted", line, "True");
    rack.delete("team-b", "pod/restricted");
    rack.delete("team-b", "pvc/restricted");
}

/// With the token that the kubelet gave it, an agent tells of its own node's drives, and of no other's.
pub fn an_agents_token_is_good_for_its_own_node(rack: &Rack) {
    let pod = rack.strand_pod("node", "node-1");
    let read = ["exec", "-n", NAMESPACE, &pod, "-c", "agent", "--", "cat"];
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = rack.kubectl(&[&read[..], &[token]].concat());
    let config = rack.cluster.dir().join("agent.kubeconfig");
    std::fs::write(&config, kubeconfig(token.trim())).unwrap();
    let drives = rack.cluster.get(&["drives"]).unwrap();
    for (node, may) in [("node-1", true), ("node-2", false)] {
        let mut drives = drives["items"].as_array().unwrap().iter();
        let drive = drives.find(|drive| drive["spec"]["nodeName"] == node);
        let drive = drive.unwrap()["metadata"]["name"].as_str().unwrap();
        let told = rack.cluster.dir().join("told.json");
        let object = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "Drive", "metadata": {"name": drive}, "status": {},
        });
        std::fs::write(&told, object.to_string()).unwrap();
        let mut kubectl = Command::new(tool("kubectl"));
        kubectl.arg("--kubeconfig").arg(&config);
        // As an agent writes: it may patch a status, and not get it alone.
        kubectl.args(["apply", "--server-side", "--subresource=status"]);
        kubectl.args(["--dry-run=server", "--field-manager=e2e", "-f"]);
        kubectl.arg(&told);
        let asked = attempt(&mut kubectl).unwrap();
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert_eq!(asked.status.success(), may, "{drive} of {node}: {said}");
        assert!(
            may || said.contains("strand-node-objects"),
            "by its policy: {said}"
        );
    }
}

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
    serves_who_is_not_root(rack, pod);
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
