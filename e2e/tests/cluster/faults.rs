//! Processes are killed while pods run.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use strand_e2e::node::Node;
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};

use crate::rack::{NAMESPACE, Pod, Rack, claim, seconds};
use crate::running::Running;
use crate::volumes::{detached, gone};
use serde_json::{Value, json};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(120);

fn node(rack: &Rack) -> &Node {
    rack.cluster.node("node-1").unwrap()
}

/// `kill -9` of a node's agent: its pods keep their connections and mounts, see misses at most, and hit again.
pub fn an_agent_is_killed(rack: &Rack) {
    let running = Running::start(rack, "team-a", "busy", "node-1");
    let pod = rack.strand_pod("node", "node-1");
    rack.keep("team-a", "busy");
    let path = "{.status.containerStatuses[?(@.name=='agent')].restartCount}";
    let asked = ["pod", &*pod, "-n", NAMESPACE];
    for _ in 0..3 {
        let before = rack.until(&asked, path, |_| true);
        node(rack).sh("kill -9 $(pidof node-agent)").unwrap();
        rack.until(&asked, path, |restarts| restarts != before);
        agent_ready(rack, &pod);
    }
    running.goes_on();
    let seen = running.seen();
    println!("    client, agent killed three times: {seen:?}");
    seen.is_unharmed();
    rack.kept("team-a", "busy");
    running.end();
}

fn agent_ready(rack: &Rack, pod: &str) {
    let path = "{.status.containerStatuses[?(@.name=='agent')].ready}";
    rack.until(&["pod", pod, "-n", NAMESPACE], path, |ready| {
        ready == "true"
    });
}

/// `kill -9` of the operator, and of the CSI driver's parts: what is asked for meanwhile is done afterwards.
pub fn operator_and_driver_are_killed(rack: &Rack) {
    let running = Running::start(rack, "team-a", "busy", "node-1");
    rack.apply(claim("team-a", "meanwhile", "400Mi", json!({})));
    rack.apply(
        Pod::new("team-a", "meanwhile")
            .claim("meanwhile", "/data")
            .object(),
    );
    for node in rack.cluster.nodes() {
        node.sh("kill -9 $(pidof operator csi-driver)").unwrap();
    }
    rack.ready("team-a", "meanwhile");
    running.goes_on();
    running.seen().is_unharmed();
    rack.delete("team-a", "pod/meanwhile");
    rack.delete("team-a", "pvc/meanwhile");
    running.end();
}

/// A kubelet that is killed and comes back finds its pods as they were.
pub fn a_kubelet_is_killed(rack: &Rack) {
    let running = Running::start(rack, "team-a", "busy", "node-1");
    let before = node(rack).sh("pidof kubelet").unwrap();
    node(rack).sh("kill -9 $(pidof kubelet)").unwrap();
    wait::until("a new kubelet runs", PATIENCE, || {
        let now = node(rack)
            .sh("pidof kubelet")
            .map_err(|error| error.to_string())?;
        if now == before { Err(now) } else { Ok(()) }
    })
    .unwrap();
    rack.apply(claim("team-a", "after", "400Mi", json!({})));
    rack.apply(
        Pod::new("team-a", "after")
            .on("node-1")
            .claim("after", "/data")
            .object(),
    );
    rack.ready("team-a", "after");
    running.goes_on();
    running.seen().is_unharmed();
    rack.delete("team-a", "pod/after");
    rack.delete("team-a", "pvc/after");
    running.end();
}

/// The API server does not answer for two minutes, and an agent is killed meanwhile: pods of both nodes hit and write as before, and what
/// is asked for afterwards is done.
pub fn the_api_server_is_away(rack: &Rack) {
    let running = ["node-1", "node-2"].map(|node| Running::start(rack, "team-a", node, node));
    let signal = |name: &str| {
        let line = format!("kill -{name} $(pidof kube-apiserver)");
        run(Command::new("bash").args(["-euc", &line])).unwrap();
    };
    signal("STOP");
    let begun = Instant::now();
    let killed = node(rack).sh("kill -9 $(pidof node-agent)");
    let found = killed.and_then(|_| hits_again(rack));
    println!(
        "    hits {} after its agent was killed, without an API server",
        seconds(begun.elapsed())
    );
    sleep(AWAY.saturating_sub(begun.elapsed()));
    signal("CONT");
    found.unwrap();
    wait::until("the API server answers", PATIENCE, || {
        rack.cluster.ask(&["get", "--raw", "/readyz"])
    })
    .unwrap();
    for pod in &running {
        pod.goes_on();
        let seen = pod.seen();
        println!("    client, API server away: {seen:?}");
        seen.is_unharmed();
        assert!(seen.slowest() < AWAY / 4, "{seen:?}");
    }
    rack.apply(claim("team-a", "after", "400Mi", json!({})));
    rack.apply(Pod::new("team-a", "after").claim("after", "/data").object());
    rack.ready("team-a", "after");
    rack.delete("team-a", "pod/after");
    rack.delete("team-a", "pvc/after");
    running.into_iter().for_each(Running::end);
}

/// Waits until the client on the node hits again, as the node itself sees it: kubectl needs an API server.
fn hits_again(rack: &Rack) -> anyhow::Result<()> {
    let mut before = None;
    wait::until("the client on node-1 hits", PATIENCE, || {
        let look = "for p in $(pidof python3); do f=/proc/$p/root/tmp/seen; [ ! -e $f ] || { cat $f; break; }; done";
        let text = node(rack).sh(look).map_err(|error| format!("{error:#}"))?;
        let seen: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let hits = seen["hits"].as_u64().ok_or("it has not told yet")?;
        if hits > *before.get_or_insert(hits) + 50 {
            Ok(())
        } else {
            Err(text)
        }
    })
}

/// A pod ends while its node's agent does not answer; its volume goes once the agent does.
pub fn pods_end_without_their_agent(rack: &Rack) {
    let doors = doors(rack);
    let running = Running::start(rack, "team-a", "busy", "node-1");
    let uid = rack.until(&["pod", "busy", "-n", "team-a"], "{.metadata.uid}", |_| {
        true
    });
    let agent = node(rack).sh("pidof node-agent").unwrap();
    node(rack).sh(&format!("kill -STOP {agent}")).unwrap();
    let begun = Instant::now();
    let ended = rack
        .cluster
        .kubectl(&["delete", "pod", "busy", "-n", "team-a", "--timeout=40s"]);
    let took = begun.elapsed();
    node(rack).sh(&format!("kill -CONT {agent}")).unwrap();
    ended.unwrap();
    println!("    a pod ended in {} without its agent", seconds(took));
    running.end();
    nothing_left(rack, &uid, &doors);
}

/// A pod that is deleted by force leaves no process, mount, door or device on its node.
pub fn a_pod_deleted_by_force_leaves_nothing(rack: &Rack) {
    let doors = doors(rack);
    let running = Running::start(rack, "team-a", "busy", "node-1");
    let uid = rack.until(&["pod", "busy", "-n", "team-a"], "{.metadata.uid}", |_| {
        true
    });
    let claimed = ["pvc", "busy", "-n", "team-a"];
    let volume = rack.until(&claimed, "{.spec.volumeName}", |name| !name.is_empty());
    rack.kubectl(&[
        "delete",
        "pod",
        "busy",
        "-n",
        "team-a",
        "--force",
        "--grace-period=0",
    ]);
    running.end();
    nothing_left(rack, &uid, &doors);
    detached(rack, &volume);
    rack.until(&["pleg"], "{.items[*].spec.volume}", |all| {
        !all.contains(&volume)
    });
    gone(rack, &["pv", &volume]);
}

/// Doors of the pods of the node.
fn doors(rack: &Rack) -> String {
    node(rack).sh("ls /run/strand/doors || true").unwrap()
}

/// Waits until a node has nothing of a pod that was there, and no door that it had not before.
fn nothing_left(rack: &Rack, uid: &str, before: &str) {
    let look = format!(
        "grep -h {uid} /proc/mounts || true; ls -d /var/lib/kubelet/pods/{uid} 2>/dev/null || true; \
         grep -ls pod{uid} /proc/[0-9]*/cgroup || true"
    );
    wait::until("nothing of the pod is left", PATIENCE, || {
        let left = node(rack).sh(&look).map_err(|error| format!("{error:#}"))?;
        let doors = doors(rack);
        let new = doors
            .lines()
            .any(|door| !before.lines().any(|old| old == door));
        if left.trim().is_empty() && !new {
            Ok(())
        } else {
            Err(format!("{left}; doors: {doors}; before: {before}"))
        }
    })
    .unwrap();
}
