//! Nodes reboot, are lost, join and leave while pods on the others go on.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use strand_e2e::node::{DRIVES, Node};
use strand_e2e::process::attempt;
use strand_e2e::wait::{self, PATIENCE};

use crate::life::all_drives_serve;
use crate::rack::{NAMESPACE, Pod, Rack, seconds, strandctl};
use crate::running::Running;
use crate::volumes::{detached, gone};

const MODEL: &str = "head -c 20M /dev/urandom >/data/model; sha256sum /data/model >/data/sum; sync";

/// A node of the installation's own is cordoned, which changes nothing for those who are there or elsewhere; and drained, with both
/// replicas of operator and CSI controller on it: these move, pods elsewhere go on, and new ones get what they ask for at any time.
pub fn pods_move_while_their_node_is_drained(rack: &Rack) {
    let name = "node-2";
    rack.kubectl(&["cordon", "node-1"]);
    spread(rack);
    rack.kubectl(&["uncordon", "node-1"]);
    assert_eq!(replicas_on(rack), BTreeSet::from([name.into()]));

    let stays = Running::start(rack, "team-a", "stays", "node-1");
    let there = Running::start(rack, "team-a", "there", name);
    rack.kubectl(&["cordon", name]);
    there.goes_on();
    rack.keep("team-a", "there");
    rack.kept("team-a", "stays");
    all_drives_serve(rack, 8);
    there.seen().is_unharmed();
    there.end();

    evict(rack, name);
    // With the webhook's time-out of the bed, an endpoint is there or the pod is not.
    Running::start(rack, "team-a", "new", "node-1").end();
    assert_eq!(replicas_on(rack), BTreeSet::from(["node-1".into()]));
    wait::until("it may be switched off", PATIENCE, || {
        let asked = attempt(&mut strandctl(rack, &["node", "drain", name]));
        let asked = asked.map_err(|error| format!("{error:#}"))?;
        match asked.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&asked.stdout).into_owned()),
        }
    })
    .unwrap();
    in_the_map(rack, name, false);
    stays.goes_on();

    run(&mut strandctl(rack, &["node", "uncordon", name]));
    in_the_map(rack, name, true);
    spread(rack);
    Running::start(rack, "team-a", "back", name).end();
    stays.goes_on();
    let seen = stays.seen();
    println!("    client on the other node: {seen:?}");
    seen.is_unharmed();
    stays.end();
}

/// Makes the replicas of operator and CSI controller anew, each on the node that has room and the fewest of them.
fn spread(rack: &Rack) {
    for what in [
        "deployment/strand-operator",
        "deployment/strand-csi-controller",
    ] {
        rack.kubectl(&["rollout", "restart", "-n", NAMESPACE, what]);
        rack.kubectl(&["rollout", "status", "-n", NAMESPACE, what, "--timeout=180s"]);
    }
}

/// Which nodes run them, once all are there.
fn replicas_on(rack: &Rack) -> BTreeSet<String> {
    let label = "app.kubernetes.io/component in (operator,csi-controller)";
    let pods = ["pods", "-n", NAMESPACE, "-l", label];
    // Of one that ends nobody has taken the place until another is Ready.
    let path =
        "{range .items[*]}{.spec.nodeName}={.status.conditions[?(@.type=='Ready')].status} {end}";
    let found = rack.until(&pods, path, |found| {
        let all: Vec<&str> = found.split_whitespace().collect();
        all.len() == 4 && all.iter().all(|pod| pod.ends_with("=True"))
    });
    let pods = found
        .split_whitespace()
        .filter_map(|pod| pod.split_once('='));
    pods.map(|(node, _)| node.to_owned()).collect()
}

/// A node loses power and comes back at once: its pods start again by themselves, with their volumes; the others go on.
pub fn a_node_reboots(rack: &Rack) {
    let stays = Running::start(rack, "team-a", "stays", "node-1");
    let back = Running::start(rack, "team-a", "back", "node-2");
    rack.exec("team-a", "back", MODEL);
    let node = rack.cluster.node("node-2").unwrap();
    let begun = Instant::now();
    node.power_off().unwrap();
    node.power_on().unwrap();
    back.goes_on_within(3 * PATIENCE);
    println!(
        "    its pod hits and writes again {} after the power cut",
        seconds(begun.elapsed())
    );
    rack.exec("team-a", "back", "sha256sum -c /data/sum");
    all_drives_serve(rack, 8);
    stays.goes_on();
    let seen = stays.seen();
    println!("    client on the other node: {seen:?}");
    seen.is_unharmed();
    back.end();
    stays.end();
}

/// A node is lost: pods elsewhere go on; once an administrator says that it is out, its pods and attachments go; when it is back, its
/// volumes and blocks are.
pub fn a_node_is_lost_and_found(rack: &Rack) {
    let stays = Running::start(rack, "team-a", "stays", "node-1");
    let lost = Running::start(rack, "team-a", "lost", "node-2");
    rack.exec("team-a", "lost", MODEL);
    let volume = rack.until(
        &["pvc", "lost", "-n", "team-a"],
        "{.spec.volumeName}",
        |name| !name.is_empty(),
    );
    let node = rack.cluster.node("node-2").unwrap();
    let begun = Instant::now();
    node.power_off().unwrap();
    let ready = "{.status.conditions[?(@.type=='Ready')].status}";
    let unknown = rack
        .cluster
        .until(&["node", "node-2"], ready, 2 * PATIENCE, |is| {
            is == "Unknown"
        });
    unknown.unwrap();
    println!(
        "    not ready {} after the power cut",
        seconds(begun.elapsed())
    );
    stays.goes_on();

    let out = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    rack.kubectl(&["taint", "node", "node-2", out]);
    gone(rack, &["pod", "lost", "-n", "team-a"]);
    rack.until(&["pvol", &volume], "{.status.attachments}", str::is_empty);
    detached(rack, &volume);
    println!(
        "    its pod and attachment are gone {} after the power cut",
        seconds(begun.elapsed())
    );
    stays.goes_on();
    stays.seen().is_unharmed();

    node.power_on().unwrap();
    rack.cluster.joined(node).unwrap();
    rack.kubectl(&["taint", "node", "node-2", &format!("{out}-")]);
    all_drives_serve(rack, 8);
    rack.apply(Pod::new("team-a", "found").claim("lost", "/data").object());
    rack.ready("team-a", "found");
    rack.exec("team-a", "found", "sha256sum -c /data/sum");
    rack.delete("team-a", "pod/found");
    lost.end();
    stays.goes_on();
    let seen = stays.seen();
    println!("    client on the other node: {seen:?}");
    seen.is_unharmed();
    stays.end();
}

/// A node joins a running pool without drives, and uses it; gets drives, and serves it; drained and forgotten, it leaves nothing behind,
/// and nobody notices any of it.
pub fn a_node_joins_is_drained_and_leaves(rack: &Rack) {
    let stays = Running::start(rack, "team-a", "stays", "node-1");
    let node = rack.cluster.node("node-3").unwrap();
    let unplugged = node.lib().join("unplugged");
    std::fs::rename(node.lib().join(DRIVES), &unplugged).unwrap();
    std::fs::create_dir(node.lib().join(DRIVES)).unwrap();
    node.power_on().unwrap();
    rack.cluster.joined(node).unwrap();
    uses_what_others_have(rack, node);

    let begun = Instant::now();
    for drive in std::fs::read_dir(&unplugged).unwrap() {
        let drive = drive.unwrap();
        let plugged = node.lib().join(DRIVES).join(drive.file_name());
        std::fs::rename(drive.path(), plugged).unwrap();
    }
    all_drives_serve(rack, 12);
    println!(
        "    its drives serve {} after they were plugged",
        seconds(begun.elapsed())
    );
    in_the_map(rack, node.name(), true);
    let moves = Running::start(rack, "team-a", "moves", "node-3");
    drains(rack, node, moves);
    stays.goes_on();
    stays.seen().is_unharmed();

    node.power_off().unwrap();
    rack.kubectl(&["delete", "node", "node-3"]);
    wait::until("its drives are forgotten", PATIENCE, || {
        let drives = rack.cluster.get(&["drives"]).unwrap();
        let mut left = Vec::new();
        for drive in drives["items"].as_array().unwrap() {
            if drive["spec"]["nodeName"] != "node-3" {
                continue;
            }
            let name = drive["metadata"]["name"].as_str().unwrap();
            let operation = format!("forget-{name}");
            rack.apply(json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "DriveOperation", "metadata": {"name": operation},
                "spec": {"type": "Forget", "drive": name, "serial": drive["status"]["identity"]["serial"]},
            }));
            // Refused for good while the operator has not heard that the node went: it is asked anew.
            let asked = rack.cluster.get(&["driveoperations", &operation]);
            if asked.is_ok_and(|asked| asked["status"]["phase"] == "Failed") {
                rack.kubectl(&["delete", "driveoperations", &operation]);
            }
            left.push(name.to_owned());
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(left.join(" ")),
        }
    })
    .unwrap();
    rack.kubectl(&["delete", "driveoperations", "--all"]);
    rack.until(
        &["mpool", "rack"],
        "{.status.conditions[?(@.type=='Degraded')].status}",
        |degraded| degraded != "True",
    );
    stays.goes_on();
    let seen = stays.seen();
    println!("    client on another node: {seen:?}");
    seen.is_unharmed();
    stays.end();
}

/// A pod on a node without drives writes what the pod `stays` reads, and reads what that one writes.
fn uses_what_others_have(rack: &Rack, node: &Node) {
    rack.apply(Pod::new("team-a", "consumes").on(node.name()).object());
    rack.ready("team-a", "consumes");
    for (writes, reads) in [("consumes", "stays"), ("stays", "consumes")] {
        rack.keep("team-a", writes);
        rack.kept("team-a", reads);
    }
    let drives = rack.kubectl(&["get", "drives", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    assert!(!drives.contains(node.name()), "{drives}");
    let drivers = rack.until(&["csinode", node.name()], "{.spec.drivers[*].name}", |_| {
        true
    });
    assert!(drivers.contains("csi.strand.dev"), "{drivers}");
    in_the_map(rack, node.name(), false);
    rack.delete("team-a", "pod/consumes");
}

/// Drains a node on which this pod runs: it is named as long as it uses its volume, and new ones go elsewhere.
fn drains(rack: &Rack, node: &Node, moves: Running) {
    let name = node.name();
    let still = attempt(&mut strandctl(rack, &["node", "drain", name])).unwrap();
    let said = String::from_utf8_lossy(&still.stdout).into_owned();
    assert!(!still.status.success(), "{said}");
    assert!(said.contains("team-a/moves) is used by pods"), "{said}");
    evict(rack, name);
    let safe = strand_e2e::process::run(&mut strandctl(rack, &["node", "drain", name, "--wait"]));
    let safe = safe.unwrap();
    assert!(safe.contains("safe to reboot"), "{safe}");
    assert!(safe.contains("only bytes are here: "), "{safe}");
    in_the_map(rack, name, false);

    // A maintenance that ends: everything is as it was.
    run(&mut strandctl(rack, &["node", "uncordon", name]));
    in_the_map(rack, name, true);
    rack.apply(Pod::new("team-a", "moves").claim("moves", "/data").object());
    rack.ready("team-a", "moves");
    let on = rack.until(
        &["pod", "moves", "-n", "team-a"],
        "{.spec.nodeName}",
        |_| true,
    );
    assert_eq!(on, name, "its volume is there");
    moves.end();
    rack.until(&["pvol"], "{.items[*].spec.legs[*].nodeName}", |nodes| {
        !nodes.contains(name)
    });
    run(&mut strandctl(rack, &["node", "drain", name, "--wait"]));
}

fn run(command: &mut Command) {
    strand_e2e::process::run(command).unwrap();
}

/// Ends a node's pods, also those that nothing makes again.
fn evict(rack: &Rack, node: &str) {
    rack.kubectl(&[
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=120s",
    ]);
}

fn in_the_map(rack: &Rack, node: &str, wanted: bool) {
    let what = format!("{node} is {}in the map", if wanted { "" } else { "not " });
    let entry = format!("{node} ");
    wait::until(&what, PATIENCE, || {
        let nodes =
            rack.cluster
                .ask(&["get", "poolmap", "rack", "-o", "jsonpath={.spec.nodes}"])?;
        if nodes.contains(&entry) == wanted {
            Ok(())
        } else {
            Err(nodes)
        }
    })
    .unwrap();
}
