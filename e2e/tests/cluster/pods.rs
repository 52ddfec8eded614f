//! Pods that use both sides of the pool.

use std::time::{Duration, Instant};

use crate::figures::against_goal;
use crate::rack::{Pod, Rack, claim};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use strand_e2e::wait;

/// As LMCache's own client talks, at the address that it is told: a miss is as long as the header of the block that it expects.
const LIKE_LMCACHE: &str = r"
import os, socket
host, port = os.environ['LMCACHE_REMOTE_URL'].removeprefix('resp://').split(':')
s = socket.create_connection((host, int(port)))
answers = s.makefile('rb')
def ask(*words):
    words = [w if isinstance(w, bytes) else w.encode() for w in words]
    parts = [b'$%d\r\n%s\r\n' % (len(w), w) for w in words]
    s.sendall(b'*%d\r\n' % len(words) + b''.join(parts))
    return answers.readline()
block = b'l' * 4096
while True:
    said = [ask('SET', 'like-lmcache', block), ask('EXISTS', 'like-lmcache')]
    if ask('GET', 'like-lmcache') == b'$4096\r\n':
        break
said.append(answers.read(4098) == block + b'\r\n')
said += [ask('EXISTS', 'like-none'), ask('GET', 'like-none')]
print(said)";

/// A pod of a labelled namespace, with a claim: it gets a volume, and an endpoint that it never asked for in its manifest.
pub fn a_pod_gets_volume_and_endpoint(rack: &Rack) {
    rack.team("team-a");
    rack.apply(claim("team-a", "weights", "1Gi", json!({})));
    let pod = Pod::new("team-a", "p1")
        .on("node-1")
        .claim("weights", "/weights");
    rack.apply(pod.object());
    rack.ready("team-a", "p1");

    rack.exec(
        "team-a",
        "p1",
        "head -c 64M /dev/urandom >/weights/model; sha256sum /weights/model >/weights/sum; sync",
    );
    // A put that meets a node which stands still for 50 ms is a miss.
    rack.says(
        "team-a",
        "p1",
        "print(r.set('k', b'x' * 1000000), r.get('k') == b'x' * 1000000, r.get('none'))",
        "True True None",
    );
    assert!(
        rack.exec("team-a", "p1", "echo $STRAND_KV_SOCKET $LMCACHE_REMOTE_URL")
            .contains("resp://127.0.0.1")
    );

    assert_eq!(
        rack.cluster
            .exec("team-a", "p1", &["python3", "-c", LIKE_LMCACHE])
            .unwrap(),
        r"[b'+OK\r\n', b':1\r\n', True, b':0\r\n', b'-MISS\r\n']"
    );

    rack.delete("team-a", "pod/p1");
    rack.apply(
        Pod::new("team-a", "p1")
            .claim("weights", "/weights")
            .object(),
    );
    rack.ready("team-a", "p1");
    let node = rack.until(&["pod", "p1", "-n", "team-a"], "{.spec.nodeName}", |_| true);
    assert_eq!(node, "node-1", "its volume is there");
    rack.exec("team-a", "p1", "sha256sum -c /weights/sum");
}

/// A block that a pod wrote is read by a pod on the other node, and by no pod of another namespace.
pub fn blocks_are_found_on_other_nodes_by_their_namespace_alone(rack: &Rack) {
    rack.team("team-b");
    rack.namespace("quiet", false);
    rack.apply(Pod::new("team-a", "p2").on("node-2").object());
    rack.apply(Pod::new("team-b", "p3").on("node-2").object());
    rack.apply(Pod::new("quiet", "p4").object());
    rack.ready("team-a", "p2");
    rack.ready("team-b", "p3");
    rack.ready("quiet", "p4");
    let many = "print(sum(r.set('block-%d' % n, bytes([n]) * 300000) for n in range(40)))";
    let hits = "print(sum(r.get('block-%d' % n) == bytes([n]) * 300000 for n in range(40)))";
    wait::until(
        "the other node's pod finds all blocks",
        wait::PATIENCE,
        || {
            // Those that met a node which stood still for 50 ms are misses until somebody writes them again.
            assert_eq!(rack.redis("team-a", "p1", many), "40");
            let found = rack.redis("team-a", "p2", hits);
            if found == "40" { Ok(()) } else { Err(found) }
        },
    )
    .unwrap();
    let any = "print(sum(r.get('block-%d' % n) is not None for n in range(40)))";
    assert_eq!(rack.redis("team-b", "p3", any), "0");
    let plain = rack.cluster.get(&["pod", "p4", "-n", "quiet"]).unwrap();
    assert!(plain["spec"]["initContainers"].is_null(), "{plain}");
}

/// From a pod's creation until it is Ready, its volume made and mounted and its endpoint up, with the images there.
pub fn pods_start_soon(rack: &Rack) {
    rack.team("team-a");
    let mut steps = Vec::new();
    let mut times: Vec<Duration> = (0..9)
        .map(|number| {
            let (name, node) = (format!("soon-{number}"), format!("node-{}", number % 2 + 1));
            rack.apply(claim("team-a", &name, "400Mi", json!({})));
            let begun = Instant::now();
            rack.apply(
                Pod::new("team-a", &name)
                    .on(&node)
                    .claim(&name, "/data")
                    .object(),
            );
            rack.ready("team-a", &name);
            let took = begun.elapsed();
            steps.push(steps_of(
                &rack.cluster.get(&["pod", &name, "-n", "team-a"]).unwrap(),
            ));
            rack.kubectl(&[
                "delete",
                "-n",
                "team-a",
                &format!("pod/{name}"),
                &format!("pvc/{name}"),
                "--wait=false",
            ]);
            took
        })
        .collect();
    times.sort();
    println!(
        "    created to Ready: p50 {:.1?}, slowest {:.1?}",
        times[4], times[8]
    );
    for (number, step) in STEPS.iter().enumerate() {
        let sum: i64 = steps.iter().map(|times| times[number]).sum();
        let mean = sum as f64 / steps.len() as f64;
        println!("      {mean:.1} s on the average until {}", step.1);
    }
    against_goal("pod made to Ready, p50", times[4].as_secs_f64(), 5.0, "s");
    assert!(times[4] < Duration::from_secs(10), "{times:.1?}");
}

/// What becomes True on the way of a pod, and what that is here.
const STEPS: [(&str, &str); 4] = [
    ("PodScheduled", "its volume is made and it has a node"),
    (
        "PodReadyToStartContainers",
        "its volumes are attached and mounted and its sandbox is made",
    ),
    ("Initialized", "its endpoint has started"),
    ("Ready", "its own container runs and it is ready"),
];

/// Seconds that each step of a pod took; times of conditions are whole seconds.
fn steps_of(pod: &Value) -> [i64; 4] {
    let time = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
    let mut last = time(&pod["metadata"]["creationTimestamp"]);
    STEPS.map(|(step, _)| {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|found| found["type"] == step);
        let at = time(&found.unwrap()["lastTransitionTime"]);
        let took = at.as_second() - last.as_second();
        last = at;
        took
    })
}
