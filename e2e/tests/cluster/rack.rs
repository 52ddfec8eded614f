//! The cluster as the scenarios see it: two nodes of four drives each and one in reserve, Strand by Helm, and pods of tests.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use strand_e2e::node::Drive;
use strand_e2e::process::attempt;
use strand_e2e::wait::{self, PATIENCE};
use strand_e2e::{Cluster, images, repository};

pub const NAMESPACE: &str = "strand-system";
/// Those of the tests' pods.
pub const NAMESPACES: [&str; 4] = ["team-a", "team-b", "quiet", "volumes"];
/// Bytes of a drive.
const SIZE: u64 = 8 << 30;
/// Those of a node that is there from the beginning, and those of the one that joins.
const DRIVES: &[Drive] = &[
    Drive::Loop(SIZE),
    Drive::Loop(SIZE),
    Drive::File(SIZE),
    Drive::File(SIZE),
];
const LATER: &[Drive] = &[Drive::File(SIZE); 4];

pub struct Rack {
    pub cluster: Cluster,
}

impl Rack {
    pub fn start(dir: &Path) -> Self {
        let images = repository()
            .canonicalize()
            .unwrap()
            .join(".cache/e2e/images");
        let cluster = Cluster::start(dir, &images, &[DRIVES, DRIVES, LATER], 1).unwrap();
        std::fs::write(dir.join("values.yaml"), values().to_string()).unwrap();
        Self { cluster }
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(args).unwrap()
    }

    pub fn apply(&self, object: Value) {
        self.cluster.apply(&object.to_string()).unwrap();
    }

    /// The same, of a kind whose definition the API server may not have taken up yet.
    pub fn apply_once_defined(&self, object: Value) {
        wait::until("its kind is known", PATIENCE, || {
            let applied = self.cluster.apply(&object.to_string());
            applied.map_err(|error| format!("{error:#}"))
        })
        .unwrap();
    }

    /// `helm VERB strand CHART` with the bed's values.
    pub fn helm(&self, verb: &str, more: &[&str]) -> String {
        self.helm_of(&repository().join("charts/strand"), verb, more)
    }

    /// The same with a chart of another revision.
    pub fn helm_of(&self, chart: &Path, verb: &str, more: &[&str]) -> String {
        let values = self
            .cluster
            .dir()
            .join("values.yaml")
            .to_string_lossy()
            .into_owned();
        let chart = chart.to_string_lossy().into_owned();
        let mut args = vec![verb, "strand", &chart, "-n", NAMESPACE, "-f", &values];
        args.extend(more);
        self.cluster.helm(&args).unwrap()
    }

    /// A pool of all drives but small ones, split in half.
    pub fn pool(&self) {
        self.apply_once_defined(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "rack"},
            "spec": {"drives": {"models": ["*"], "minSize": "4Gi"}, "carve": {"contextMemory": "50%"},
                // Small drives: at their endurance hardly a block a second would be kept.
                "contextMemory": {"driveWritesPerDay": 100},
            },
        }));
    }

    pub fn until(&self, object: &[&str], jsonpath: &str, look: impl Fn(&str) -> bool) -> String {
        self.cluster
            .until(object, jsonpath, PATIENCE, look)
            .unwrap()
    }

    /// A pod of Strand's on a node.
    pub fn strand_pod(&self, component: &str, node: &str) -> String {
        let label = format!("app.kubernetes.io/component={component}");
        let field = format!("spec.nodeName={node}");
        let args = [
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "-l",
            &label,
            "--field-selector",
            &field,
            "-o",
            "name",
        ];
        self.kubectl(&args)
            .trim()
            .trim_start_matches("pod/")
            .to_owned()
    }

    /// Makes a namespace; its pods get context memory if it is `labelled`.
    pub fn namespace(&self, name: &str, labelled: bool) {
        let labels = if labelled {
            json!({"strand.dev/pool": "rack"})
        } else {
            json!({})
        };
        self.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
    }

    /// Makes a namespace whose pods get context memory, and waits until the webhook knows.
    pub fn team(&self, name: &str) {
        self.namespace(name, true);
        let pod = Pod::new(name, "probe").object().to_string();
        let path = "jsonpath={.spec.initContainers[*].name}";
        let args = ["create", "--dry-run=server", "-o", path, "-f", "-"];
        wait::until("pods are injected", PATIENCE, || {
            let said = self
                .cluster
                .feed(&args, pod.as_bytes())
                .map_err(|error| error.to_string())?;
            if said.contains("strand-kv-endpoint") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .unwrap();
    }

    /// Takes the tests' namespaces away, as far as that goes, and lets pods on all nodes.
    pub fn clear(&self) {
        for node in self.cluster.nodes() {
            let _ = attempt(&mut strandctl(self, &["node", "uncordon", node.name()]));
        }
        let open = r#"{"spec": {"access": "Open"}}"#;
        let _ = self
            .cluster
            .ask(&["patch", "mpool", "rack", "--type=merge", "-p", open]);
        let _ = self.cluster.ask(&["delete", "poolgrants", "--all"]);
        let mut args = vec!["delete", "namespace", "--ignore-not-found", "--timeout=90s"];
        args.extend(NAMESPACES);
        if let Err(words) = self.cluster.ask(&args) {
            println!("    {words}");
        }
    }

    pub fn ready(&self, namespace: &str, pod: &str) {
        let pod = format!("pod/{pod}");
        self.kubectl(&[
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            &pod,
            "--timeout=90s",
        ]);
    }

    pub fn exec(&self, namespace: &str, pod: &str, line: &str) -> String {
        self.cluster
            .exec(namespace, pod, &["sh", "-euc", line])
            .unwrap()
    }

    /// Runs Python in a pod; `r` is redis-py, unmodified, at the address that the pod's environment names.
    pub fn redis(&self, namespace: &str, pod: &str, line: &str) -> String {
        let program = format!(
            "import os, hashlib, redis\nr = redis.Redis.from_url(os.environ['STRAND_KV_URL'])\n{line}"
        );
        self.cluster
            .exec(namespace, pod, &["python3", "-c", &program])
            .unwrap()
    }

    /// Writes a block that stays readable: one that is written while a node stands still for 50 ms goes to another, from which it is
    /// deleted once that node is back.
    pub fn keep(&self, namespace: &str, pod: &str) {
        let line = format!(
            "set = r.set('kept', b'z' * 500000)\n{BACK}\nprint(set and r.get('kept') == b'z' * 500000)"
        );
        self.says(namespace, pod, &line, "True");
    }

    /// Waits until that block is read.
    pub fn kept(&self, namespace: &str, pod: &str) {
        let line = "print(r.get('kept') == b'z' * 500000)";
        self.says(namespace, pod, line, "True");
    }

    /// Runs Python in a pod until it prints this.
    pub fn says(&self, namespace: &str, pod: &str, line: &str, answer: &str) {
        wait::until(line, PATIENCE, || {
            let said = self.redis(namespace, pod, line);
            if said == answer { Ok(()) } else { Err(said) }
        })
        .unwrap();
    }

    pub fn delete(&self, namespace: &str, object: &str) {
        self.kubectl(&[
            "delete",
            "-n",
            namespace,
            object,
            "--ignore-not-found",
            "--timeout=90s",
        ]);
    }
}

/// In Python: lets a node that stood still be found again, which takes at most two seconds.
pub const BACK: &str = "import time; time.sleep(5)";

/// `strandctl` on the cluster, as an administrator runs it.
pub fn strandctl(rack: &Rack, args: &[&str]) -> Command {
    let mut command = Command::new(repository().join("target/debug/strandctl"));
    command
        .args(args)
        .arg("--kubeconfig")
        .arg(rack.cluster.kubeconfig());
    command
}

/// Values that differ from the chart's own: where images are, and that files stand for drives.
fn values() -> Value {
    let (repository, tag) = images::STRAND;
    json!({
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "node": {"standInDir": "/var/lib/drives", "arenaMiB": 256},
        "csi": {"sidecars": {"registry": "localhost", "pullPolicy": "Never"}},
        // Pods start without an endpoint where the operator does not answer in time; these tests want theirs on a busy machine too.
        "injection": {"timeoutSeconds": 15},
    })
}

/// A pod of a test, on a node if one is named: sleeps, and is asked by `exec`.
pub struct Pod {
    object: Value,
}

impl Pod {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            object: json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "app", "image": images::CLIENT, "imagePullPolicy": "Never",
                        "command": ["sleep", "infinity"], "volumeMounts": [], "volumeDevices": [],
                    }],
                    "volumes": [],
                },
            }),
        }
    }

    pub fn on(mut self, node: &str) -> Self {
        self.object["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        self
    }

    pub fn command(mut self, command: &[&str]) -> Self {
        self.object["spec"]["containers"][0]["command"] = json!(command);
        self
    }

    pub fn volume(mut self, name: &str, source: Value, path: &str) -> Self {
        let mut volume = source;
        volume["name"] = json!(name);
        push(&mut self.object["spec"]["volumes"], volume);
        let mount = json!({"name": name, "mountPath": path});
        push(
            &mut self.object["spec"]["containers"][0]["volumeMounts"],
            mount,
        );
        self
    }

    pub fn claim(self, claim: &str, path: &str) -> Self {
        let source = json!({"persistentVolumeClaim": {"claimName": claim}});
        self.volume(claim, source, path)
    }

    pub fn device(mut self, claim: &str, path: &str) -> Self {
        let volume = json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        push(&mut self.object["spec"]["volumes"], volume);
        let device = json!({"name": claim, "devicePath": path});
        push(
            &mut self.object["spec"]["containers"][0]["volumeDevices"],
            device,
        );
        self
    }

    pub fn object(self) -> Value {
        self.object
    }
}

impl From<Value> for Pod {
    fn from(object: Value) -> Self {
        Self { object }
    }
}

fn push(list: &mut Value, value: Value) {
    list.as_array_mut().unwrap().push(value);
}

pub fn claim(namespace: &str, name: &str, size: &str, spec: Value) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "storageClassName": "strand-local", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        claim["spec"][key] = value.clone();
    }
    claim
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
