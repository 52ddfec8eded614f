//! Strand comes, is renewed and goes, while pods use it.

use serde_json::{Value, json};
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};
use strand_e2e::{guard, images};

use crate::cert_manager::CertManager;
use crate::rack::{NAMESPACE, Pod, Rack, claim, strandctl};
use crate::running::Running;
use crate::volumes::{restored_from, snapshot};
use k8s_openapi::jiff::Timestamp;

const WORKLOADS: [&str; 3] = [
    "daemonset/strand-node",
    "deployment/strand-operator",
    "deployment/strand-csi-controller",
];

fn rolled_out(rack: &Rack) {
    for what in WORKLOADS {
        rack.kubectl(&["rollout", "status", "-n", NAMESPACE, what, "--timeout=180s"]);
    }
}

/// Of the agents that run, each was made once the one before had started.
fn agents_came_one_by_one(rack: &Rack) {
    let label = "app.kubernetes.io/component=node";
    let pods = rack.cluster.get(&["pods", "-n", NAMESPACE, "-l", label]);
    let pods = pods.unwrap();
    let time = |text: &Value| -> Timestamp { text.as_str().unwrap().parse().unwrap() };
    let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
    for pod in pods["items"].as_array().unwrap() {
        let containers = pod["status"]["containerStatuses"].as_array().unwrap();
        let agent = containers.iter().find(|one| one["name"] == "agent");
        spans.push((
            time(&pod["metadata"]["creationTimestamp"]),
            time(&agent.unwrap()["state"]["running"]["startedAt"]),
        ));
    }
    spans.sort();
    assert_eq!(spans.len(), rack.cluster.nodes().len());
    for both in spans.windows(2) {
        assert!(both[0].1 <= both[1].0, "{spans:?}");
    }
}

/// Waits until this many drives serve.
pub fn all_drives_serve(rack: &Rack, count: usize) {
    rack.cluster
        .until(
            &["drives"],
            "{.items[*].status.phase}",
            2 * PATIENCE,
            |phases| phases.split(' ').filter(|phase| *phase == "Ready").count() == count,
        )
        .unwrap();
}

/// `helm upgrade` renews every process, node by node; whoever uses the pool meanwhile sees misses at most. So does `helm rollback`.
/// cert-manager has come before the upgrade, and issues the webhook's certificate until the rollback.
pub fn an_upgrade_harms_nobody(rack: &Rack) {
    let clients = ["node-1", "node-2"]
        .map(|node| Running::start(rack, "team-a", &format!("busy-{node}"), node));
    rack.keep("team-a", "busy-node-1");
    let mut cert_manager = CertManager::comes(rack);
    rack.helm(
        "upgrade",
        &["--set", "logs.level=debug", "--set", "logs.format=json"],
    );
    cert_manager.issues(rack);
    rolled_out(rack);
    agents_came_one_by_one(rack);
    rack.cluster
        .helm(&["rollback", "strand", "-n", NAMESPACE])
        .unwrap();
    rolled_out(rack);
    cert_manager.goes(rack);
    rack.team("team-a");
    rack.kept("team-a", "busy-node-1");
    for client in clients {
        client.goes_on();
        let seen = client.seen();
        println!("    client, upgrade and rollback: {seen:?}");
        seen.is_unharmed();
        client.end();
    }
}

/// Uninstalling leaves drives, data and pods; installing again takes all of it back.
pub fn reinstalling_takes_everything_back(rack: &Rack) {
    let client = Running::start(rack, "team-a", "busy", "node-1");
    rack.keep("team-a", "busy");
    let before = drives(rack);
    rack.cluster
        .helm(&["uninstall", "strand", "-n", NAMESPACE, "--wait"])
        .unwrap();
    no_pods(rack);
    client.seen().is_unharmed();
    rack.helm("install", &[]);
    rolled_out(rack);
    all_drives_serve(rack, 8);
    client.goes_on();
    client.seen().is_unharmed();
    assert_eq!(drives(rack), before);
    rack.kept("team-a", "busy");
    client.end();
}

/// Names, pools and serial numbers.
fn drives(rack: &Rack) -> String {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.pool} {.status.identity.serial}{'\\n'}{end}";
    rack.kubectl(&["get", "drives", "--sort-by=.metadata.name", "-o", path])
}

fn no_pods(rack: &Rack) {
    rack.until(
        &["pods", "-n", NAMESPACE],
        "{.items[*].metadata.name}",
        str::is_empty,
    );
}

/// The definitions are deleted, and all objects with them: pods go on, and once the definitions are back no volume is lost, and no snapshot.
pub fn deleted_definitions_lose_no_volume(rack: &Rack) {
    let client = Running::start(rack, "team-a", "busy", "node-1");
    rack.exec(
        "team-a",
        "busy",
        "head -c 20M /dev/urandom >/data/model; sha256sum /data/model >/data/sum; sync",
    );
    snapshot(rack, "team-a", "moment", "busy");
    rack.exec("team-a", "busy", "echo changed >/data/later; sync");
    // A volume whose claim was deleted a moment ago would come back as bytes that nobody owns.
    rack.until(&["pvol"], "{.items[*].metadata.name}", |names| {
        names.split(' ').count() == 1
    });
    let pool: Value = rack.cluster.get(&["mpool", "rack"]).unwrap();
    let names = rack.kubectl(&["get", "crd", "-o", "name"]);
    let ours: Vec<&str> = names
        .lines()
        .filter(|name| name.ends_with("strand.dev"))
        .collect();
    assert_eq!(ours.len(), 8, "{names}");
    let mut delete = vec!["delete", "--timeout=90s"];
    delete.extend(ours);
    rack.kubectl(&delete);
    client.seen().is_unharmed();

    rack.helm("upgrade", &[]);
    rolled_out(rack);
    rack.apply_once_defined(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "rack"}, "spec": pool["spec"],
    }));
    all_drives_serve(rack, 8);
    wait::until("the legs are told of, and taken back", PATIENCE, || {
        run(&mut strandctl(rack, &["volumes", "import", "--all"]))
            .map_err(|error| format!("{error:#}"))?;
        let back = rack.cluster.ask(&["get", "pvol,psnap", "-o", "name"])?;
        if ["poolvolume.", "poolsnapshot."]
            .iter()
            .all(|kind| back.contains(kind))
        {
            Ok(())
        } else {
            Err(back)
        }
    })
    .unwrap();
    client.goes_on();
    client.seen().is_unharmed();
    rack.delete("team-a", "pod/busy");
    rack.apply(Pod::new("team-a", "again").claim("busy", "/data").object());
    rack.ready("team-a", "again");
    rack.exec("team-a", "again", "sha256sum -c /data/sum; cat /data/later");
    rack.apply(claim("team-a", "moment", "400Mi", restored_from("moment")));
    rack.apply(Pod::new("team-a", "then").claim("moment", "/data").object());
    rack.ready("team-a", "then");
    rack.exec("team-a", "then", "sha256sum -c /data/sum; ! ls /data/later");
    for object in [
        "pod/again",
        "pod/then",
        "volumesnapshot/moment",
        "pvc/busy",
        "pvc/moment",
    ] {
        rack.delete("team-a", object);
    }
    rack.until(&["pvol"], "{.items[*].metadata.name}", |names| {
        !names.contains("pvc-")
    });
}

/// With `deletionPolicy: Release` and then `helm uninstall`, nothing stays: no object, mount, loop device, or mark on a drive.
pub fn release_and_uninstall_leave_nothing(rack: &Rack) {
    rack.clear();
    rack.until(&["pv"], "{.items[*].metadata.name}", str::is_empty);
    rack.until(
        &["pvol,pleg,psnap"],
        "{.items[*].metadata.name}",
        str::is_empty,
    );
    let release = json!({"spec": {"deletionPolicy": "Release"}}).to_string();
    rack.kubectl(&["patch", "mpool", "rack", "--type=merge", "-p", &release]);
    // Until the operator holds the pool, nobody would wait for its drives.
    rack.until(&["mpool", "rack"], "{.metadata.finalizers}", |held| {
        held.contains("strand.dev")
    });
    rack.kubectl(&["delete", "mpool", "rack", "--timeout=120s"]);
    rack.cluster
        .helm(&["uninstall", "strand", "-n", NAMESPACE, "--wait"])
        .unwrap();
    no_pods(rack);
    // Leases of those who led are the namespace's.
    rack.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=90s"]);
    // The definitions stay by themselves; whoever takes them away takes what is left of the objects along.
    let names = rack.kubectl(&["get", "crd", "-o", "name"]);
    let mut delete = vec!["delete", "--timeout=90s"];
    delete.extend(names.lines().filter(|name| name.ends_with("strand.dev")));
    rack.kubectl(&delete);

    let kinds = "all,cm,secret,sa,lease,role,rolebinding,networkpolicy,pdb,csistoragecapacity,clusterrole,clusterrolebinding,\
                 csidriver,storageclass,volumesnapshotclass,priorityclass,mutatingwebhookconfiguration,\
                 validatingwebhookconfiguration,validatingadmissionpolicy,validatingadmissionpolicybinding";
    let left = rack.kubectl(&["get", kinds, "-A", "-o", "name"]);
    let ours: Vec<&str> = left
        .lines()
        .filter(|name| name.contains("strand"))
        .collect();
    println!("    left: {ours:?}");
    assert_eq!(ours, Vec::<&str>::new());
    // The kernel gives devices back once the last of their users has ended.
    wait::until("loop devices are given back", PATIENCE, || {
        let mut loops = guard::loops(rack.cluster.dir()).map_err(|error| format!("{error:#}"))?;
        let nodes = rack.cluster.nodes();
        let drives: Vec<_> = nodes.iter().flat_map(|node| node.loop_drives()).collect();
        loops.retain(|device| !drives.contains(&device.into()));
        match loops.is_empty() {
            true => Ok(()),
            false => Err(loops.join(" ")),
        }
    })
    .unwrap();
    for node in rack.cluster.nodes() {
        wait::until("its mounts are gone", PATIENCE, || {
            let mounts = node.sh("grep -E 'strand|csi' /proc/mounts || true");
            match mounts.map_err(|error| format!("{error:#}"))? {
                none if none.is_empty() => Ok(()),
                some => Err(some),
            }
        })
        .unwrap();
        let marks = "for d in /var/lib/drives/*.img; do head -c 16M $d | tr -d '\\0' | wc -c; done | sort -u";
        assert_eq!(node.sh(marks).unwrap().trim(), "0", "drives are blank");
    }
}

/// From the chart and the programs of an earlier revision to these, back, and forth again: pods keep what they have while every process is replaced.
pub fn an_upgrade_from_the_previous_chart_harms_nobody(rack: &Rack) {
    let previous = images::previous();
    if !previous.is_dir() {
        println!(
            "    left out: this repository has no revision {:?}",
            previous
        );
        return;
    }
    let tag = format!("image.tag={}", images::PREVIOUS.1);
    let chart = previous.join("chart");
    rack.helm_of(&chart, "install", &["--create-namespace", "--set", &tag]);
    rack.pool();
    rolled_out(rack);
    all_drives_serve(rack, 8);
    let clients = ["node-1", "node-2"]
        .map(|node| Running::start(rack, "team-a", &format!("busy-{node}"), node));
    rack.keep("team-a", "busy-node-1");
    let unharmed = |step: &str| {
        rolled_out(rack);
        for client in &clients {
            client.goes_on();
            let seen = client.seen();
            println!("    client, {step}: {seen:?}");
            seen.is_unharmed();
        }
        rack.kept("team-a", "busy-node-1");
    };
    rack.helm("upgrade", &[]);
    unharmed("upgrade from the previous chart");
    rack.cluster
        .helm(&["rollback", "strand", "-n", NAMESPACE])
        .unwrap();
    unharmed("rollback to it");
    rack.helm("upgrade", &[]);
    unharmed("upgrade again");
    for client in clients {
        client.end();
    }
}
