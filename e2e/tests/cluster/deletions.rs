//! Objects are deleted in orders that nobody would choose: nothing hangs, nothing is lost that was not to be deleted, and what waits says
//! for what.

use serde_json::json;
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};

use crate::life::all_drives_serve;
use crate::rack::{NAMESPACE, Pod, Rack, claim, strandctl};
use crate::running::Running;
use crate::volumes::{detached, gone, restored_from, snapshot};

const MODEL: &str = "head -c 20M /dev/urandom >/data/model; sha256sum /data/model >/data/sum; sync";

/// Below a pod that goes on, its claim's objects go from the bottom up, and the rack's drives and map; the bytes stay until somebody says
/// that they shall go.
pub fn objects_go_from_the_bottom_up(rack: &Rack) {
    let client = Running::start(rack, "team-a", "busy", "node-1");
    rack.exec("team-a", "busy", MODEL);
    let claimed = ["pvc", "busy", "-n", "team-a"];
    let volume = rack.until(&claimed, "{.spec.volumeName}", |name| !name.is_empty());
    for objects in [
        ["poolvolume", &volume],
        ["poollegs", "--all"],
        ["poolmap", "rack"],
        ["drives", "--all"],
    ] {
        rack.kubectl(&["delete", objects[0], objects[1], "--timeout=60s"]);
    }
    // Kubernetes holds these two while the pod uses them.
    rack.kubectl(&["delete", "pv", &volume, "--wait=false"]);
    rack.kubectl(&["delete", "pvc", "busy", "-n", "team-a", "--wait=false"]);
    all_drives_serve(rack, 8);
    client.goes_on();
    let seen = client.seen();
    println!("    client, its objects deleted: {seen:?}");
    seen.is_unharmed();

    client.end();
    gone(rack, &["pv", &volume]);
    detached(rack, &volume);
    let strand =
        |args: &[&str]| run(&mut strandctl(rack, args)).map_err(|error| format!("{error:#}"));
    wait::until("its bytes are listed, and taken back", PATIENCE, || {
        strand(&["volumes", "import", "--pv", &volume])
    })
    .unwrap();
    let found = json!({"storageClassName": "", "volumeName": volume});
    rack.apply(claim("team-a", "found", "400Mi", found));
    rack.apply(
        Pod::new("team-a", "found")
            .on("node-1")
            .claim("found", "/data")
            .object(),
    );
    rack.ready("team-a", "found");
    rack.exec("team-a", "found", "sha256sum -c /data/sum");
    rack.delete("team-a", "pod/found");
    rack.delete("team-a", "pvc/found");
    rack.kubectl(&["delete", "pv", &volume, "--timeout=60s"]);
    let mark = json!({"spec": {"deletionMark": true}}).to_string();
    rack.kubectl(&["patch", "pvol", &volume, "--type=merge", "-p", &mark]);
    gone(rack, &["pvol", &volume]);
    rack.until(&["pleg"], "{.items[*].spec.volume}", |all| {
        !all.contains(&volume)
    });
}

/// A pool that shall release its drives waits for those that hold volumes, and says so; told to leave them, it goes, and the next of its
/// name takes them back. The volume is in use throughout.
pub fn a_pool_that_waits_says_for_what(rack: &Rack) {
    let client = Running::start(rack, "team-a", "busy", "node-1");
    rack.exec("team-a", "busy", MODEL);
    let identity = rack.until(&["mpool", "rack"], "{.spec.poolID}", |id| !id.is_empty());
    let policy = |policy: &str| {
        let patch = json!({"spec": {"deletionPolicy": policy}}).to_string();
        rack.kubectl(&["patch", "mpool", "rack", "--type=merge", "-p", &patch]);
    };
    policy("Release");
    rack.until(&["mpool", "rack"], "{.metadata.finalizers}", |held| {
        held.contains("strand.dev")
    });
    rack.kubectl(&["delete", "mpool", "rack", "--wait=false"]);
    let said = rack.until(
        &["mpool", "rack"],
        "{.status.conditions[?(@.type=='Ready')].message}",
        |said| said.contains("holds 1 legs of volumes"),
    );
    println!("    {said}");
    client.writes_on();
    policy("Retain");
    gone(rack, &["mpool", "rack"]);
    client.writes_on();
    rack.pool();
    all_drives_serve(rack, 8);
    let again = rack.until(&["mpool", "rack"], "{.spec.poolID}", |id| !id.is_empty());
    assert_eq!(again, identity, "taken over from the drive that was left");
    client.goes_on();
    let seen = client.seen();
    println!("    client, its pool deleted and made again: {seen:?}");
    seen.is_unharmed();
    rack.exec("team-a", "busy", "sha256sum -c /data/sum");
    client.end();
}

/// A namespace is deleted with everything in it at once: pods, claims, a snapshot and what was made of it.
pub fn a_namespace_goes_with_all_that_is_in_it(rack: &Rack) {
    let kinds = "pv,pvol,pleg,psnap,volumesnapshotcontent,volumeattachment";
    let all = || rack.cluster.ask(&["get", kinds, "-o", "name"]);
    let before = all().unwrap();
    rack.team("team-b");
    rack.apply(claim("team-b", "origin", "400Mi", json!({})));
    rack.apply(Pod::new("team-b", "one").claim("origin", "/data").object());
    rack.ready("team-b", "one");
    snapshot(rack, "team-b", "moment", "origin");
    rack.apply(claim(
        "team-b",
        "restored",
        "400Mi",
        restored_from("moment"),
    ));
    rack.apply(
        Pod::new("team-b", "two")
            .claim("restored", "/data")
            .object(),
    );
    rack.ready("team-b", "two");
    rack.kubectl(&["delete", "namespace", "team-b", "--timeout=90s"]);
    wait::until("nothing of it is left", PATIENCE, || {
        let now = all()?;
        // Some that were there may have been on their way out.
        let new = now
            .lines()
            .filter(|name| !before.lines().any(|b| b == *name));
        let left: Vec<&str> = new.collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .unwrap();
}

/// Uninstalled without having released anything, definitions go too: nothing waits for an operator that is gone.
pub fn definitions_go_after_uninstalling(rack: &Rack) {
    rack.clear();
    let status = ["status", "strand", "-n", NAMESPACE];
    if rack.cluster.helm(&status).is_err() {
        rack.helm("install", &["--create-namespace"]);
        rack.pool();
        all_drives_serve(rack, 8);
    }
    rack.cluster
        .helm(&["uninstall", "strand", "-n", NAMESPACE, "--wait"])
        .unwrap();
    let names = rack.kubectl(&["get", "crd", "-o", "name"]);
    let ours: Vec<&str> = names
        .lines()
        .filter(|name| name.ends_with("strand.dev"))
        .collect();
    rack.kubectl(&[&["delete", "--timeout=60s"][..], &ours].concat());
}
