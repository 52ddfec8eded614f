//! What users have in place of bare pods: a Job, a Deployment, a StatefulSet.

use serde_json::{Value, json};
use strand_e2e::wait::{self, PATIENCE};

use crate::rack::{Pod, Rack, claim};

const TEAM: &str = "team-a";
/// Reads the block that another pod has kept, until it finds it.
const READS: &str = "
import os, redis, time
r = redis.Redis.from_url(os.environ['STRAND_KV_URL'])
while r.get('kept') != b'z' * 500000:
    time.sleep(0.2)
open('/tmp/found', 'w').close()
time.sleep(3600)";

/// An object of `apps` or `batch` whose pods are like this one.
fn of(kind: (&str, &str), name: &str, pod: Pod, spec: Value) -> Value {
    let labels = json!({"app": name});
    let mut object = json!({
        "apiVersion": kind.0, "kind": kind.1, "metadata": {"namespace": TEAM, "name": name},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": pod.object()["spec"]}},
    });
    if kind.1 != "Job" {
        object["spec"]["selector"] = json!({"matchLabels": labels});
    }
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// A Job ends although it has an endpoint beside it.
pub fn a_job_ends_with_its_endpoint(rack: &Rack) {
    rack.team(TEAM);
    let line = "import os, redis\n\
                r = redis.Redis.from_url(os.environ['STRAND_KV_URL'])\n\
                while not (r.set('of-the-job', b'j' * 300000) and r.get('of-the-job') == b'j' * 300000): pass";
    let pod = Pod::new(TEAM, "").command(&["python3", "-c", line]);
    let spec = json!({"backoffLimit": 0});
    let mut job = of(("batch/v1", "Job"), "writes", pod, spec);
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    rack.apply(job);
    rack.kubectl(&[
        "wait",
        "-n",
        TEAM,
        "--for=condition=Complete",
        "job/writes",
        "--timeout=90s",
    ]);
    let pods = ["pods", "-n", TEAM, "-l", "app=writes"];
    let endpoints = "{.items[*].status.initContainerStatuses[*].name}";
    assert_eq!(rack.until(&pods, endpoints, |_| true), "strand-kv-endpoint");
    rack.delete(TEAM, "job/writes");
}

/// A Deployment's pods all have endpoints, find what another pod wrote, and so do those that a rollout puts in their place.
pub fn a_deployment_is_rolled_out(rack: &Rack) {
    rack.team(TEAM);
    rack.apply(Pod::new(TEAM, "keeps").object());
    rack.ready(TEAM, "keeps");
    rack.keep(TEAM, "keeps");
    rack.delete(TEAM, "pod/keeps");
    let mut pod = Pod::new(TEAM, "")
        .command(&["python3", "-c", READS])
        .object();
    let probe = json!({"exec": {"command": ["test", "-e", "/tmp/found"]}, "periodSeconds": 1});
    pod["spec"]["containers"][0]["readinessProbe"] = probe;
    let spec = json!({"replicas": 2});
    rack.apply(of(
        ("apps/v1", "Deployment"),
        "serves",
        Pod::from(pod),
        spec,
    ));
    let status = || {
        let what = ["rollout", "status", "-n", TEAM, "deployment/serves"];
        rack.kubectl(&[&what[..], &["--timeout=120s"]].concat());
        rack.kubectl(&["get", "pods", "-n", TEAM, "-l", "app=serves", "-o", "name"])
    };
    let before = status();
    rack.kubectl(&["rollout", "restart", "-n", TEAM, "deployment/serves"]);
    let after = status();
    assert!(!after.is_empty() && after != before, "{after}");
    rack.delete(TEAM, "deployment/serves");
}

/// A StatefulSet's pod comes back under its name, with the volume that was made for it.
pub fn a_stateful_set_keeps_its_volume(rack: &Rack) {
    rack.team(TEAM);
    let mut template = claim(TEAM, "data", "400Mi", json!({}));
    template["metadata"] = json!({"name": "data"});
    let mut pod = Pod::new(TEAM, "").object();
    let mount = json!([{"name": "data", "mountPath": "/data"}]);
    pod["spec"]["containers"][0]["volumeMounts"] = mount;
    let spec = json!({
        "replicas": 1, "serviceName": "keeps", "volumeClaimTemplates": [template],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
    });
    rack.apply(of(
        ("apps/v1", "StatefulSet"),
        "keeps",
        Pod::from(pod),
        spec,
    ));
    wait::until("its pod is there", PATIENCE, || {
        rack.cluster.ask(&["get", "pod", "keeps-0", "-n", TEAM])
    })
    .unwrap();
    rack.ready(TEAM, "keeps-0");
    rack.exec(TEAM, "keeps-0", "echo here >/data/x; sync");
    let named = ["pod", "keeps-0", "-n", TEAM];
    let first = rack.until(&named, "{.metadata.uid}", |_| true);
    rack.delete(TEAM, "pod/keeps-0");
    rack.until(&named, "{.metadata.uid}", |uid| {
        !uid.is_empty() && uid != first
    });
    rack.ready(TEAM, "keeps-0");
    assert_eq!(rack.exec(TEAM, "keeps-0", "cat /data/x"), "here");
    rack.delete(TEAM, "statefulset/keeps");
    crate::volumes::gone(rack, &["pvc", "data-keeps-0", "-n", TEAM]);
}
