//! Nodes reboot, are lost, join and leave while pods on the others go on.

use std::process::Command;
use std::time::Instant;

use serde_json::json;
use strand_e2e::node::{DRIVES, Node};
use strand_e2e::process::attempt;
use strand_e2e::wait::{self, PATIENCE};

use crate::life::all_drives_serve;
use crate::rack::{NAMESPACE, Pod, Rack, seconds, strandctl};
use crate::running::Running;
use crate::volumes::gone;

/// Of the operator's pods and the CSI controller's.
const CONTROL: &str = "app.kubernetes.io/component in (operator,csi-controller)";
const MODEL: &str = "head -c 20M /dev/urandom >/data/model; sha256sum /data/model >/data/sum; sync";

/// A node of the installation's own is cordoned, which changes nothing for those who are there or elsewhere; and drained: Strand's
/// replicas move, pods elsewhere go on, and new ones get what they ask for at any time.
pub fn pods_move_while_their_node_is_drained(rack: &Rack) {
    let stays = Running::start(rack, "team-a", "stays", "node-1");
    let there = Running::start(rack, "team-a", "there", "node-2");
    let node = |verb: &str| rack.kubectl(&[verb, "node-2"]);
    node("cordon");
    there.goes_on();
    rack.keep("team-a", "there");
    rack.kept("team-a", "stays");
    all_drives_serve(rack, 8);
    there.seen().is_unharmed();
    there.end();

    let mut drain = vec!["drain", "node-2", "--ignore-daemonsets"];
    drain.extend(["--delete-emptydir-data", "--force", "--timeout=120s"]);
    rack.kubectl(&drain);
    let pods = ["pods", "-n", NAMESPACE, "-l", CONTROL, "-o"];
    let on = "jsonpath={.items[*].spec.nodeName}";
    let mut look = vec!["get"];
    look.extend(pods);
    look.push(on);
    let nodes = rack.kubectl(&look);
    assert!(!nodes.contains("node-2"), "{nodes}");
    // With the webhook's time-out of the bed, an endpoint is there or the pod is not.
    let new = Running::start(rack, "team-a", "new", "node-1");
    new.end();
    run(&mut strandctl(rack, &["node", "drain", "node-2", "--wait"]));
    stays.goes_on();
    run(&mut strandctl(rack, &["node", "uncordon", "node-2"]));
    all_drives_serve(rack, 8);
    let back = Running::start(rack, "team-a", "back", "node-2");
    back.end();
    stays.goes_on();
    let seen = stays.seen();
    println!("    client on the other node: {seen:?}");
    seen.is_unharmed();
    stays.end();
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
    let attachments = "{.items[*].spec.source.persistentVolumeName}";
    rack.until(&["volumeattachment"], attachments, |all| {
        !all.contains(&volume)
    });
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
    in_the_map(rack, true);
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
    in_the_map(rack, false);
    rack.delete("team-a", "pod/consumes");
}

/// Drains a node on which this pod runs: it is named as long as it uses its volume, and new ones go elsewhere.
fn drains(rack: &Rack, node: &Node, moves: Running) {
    let name = node.name();
    let still = attempt(&mut strandctl(rack, &["node", "drain", name])).unwrap();
    let said = String::from_utf8_lossy(&still.stdout).into_owned();
    assert!(!still.status.success(), "{said}");
    assert!(said.contains("team-a/moves) is used by pods"), "{said}");
    let mut drain = vec![
        "drain",
        name,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
    ];
    // Nothing would make the pod again.
    drain.extend(["--force", "--timeout=90s"]);
    rack.kubectl(&drain);
    let safe = strand_e2e::process::run(&mut strandctl(rack, &["node", "drain", name, "--wait"]));
    let safe = safe.unwrap();
    assert!(safe.contains("safe to reboot"), "{safe}");
    assert!(safe.contains("only bytes are here: "), "{safe}");
    in_the_map(rack, false);

    // A maintenance that ends: everything is as it was.
    run(&mut strandctl(rack, &["node", "uncordon", name]));
    in_the_map(rack, true);
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

fn in_the_map(rack: &Rack, wanted: bool) {
    let what = format!("node-3 is {}in the map", if wanted { "" } else { "not " });
    wait::until(&what, PATIENCE, || {
        let nodes =
            rack.cluster
                .ask(&["get", "poolmap", "rack", "-o", "jsonpath={.spec.nodes}"])?;
        if nodes.contains("node-3 ") == wanted {
            Ok(())
        } else {
            Err(nodes)
        }
    })
    .unwrap();
}
