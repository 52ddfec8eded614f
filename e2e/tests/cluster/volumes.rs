//! What can be done with volumes through the stock sidecars.

use crate::rack::{Pod, Rack, claim};
use serde_json::{Value, json};
use strand_e2e::wait::{self, PATIENCE};

const NAMESPACE: &str = "volumes";

fn bound(rack: &Rack, name: &str) {
    rack.until(
        &["pvc", name, "-n", NAMESPACE],
        "{.status.phase}",
        |phase| phase == "Bound",
    );
}

fn pod(rack: &Rack, pod: Pod, name: &str) {
    rack.apply(pod.object());
    rack.ready(NAMESPACE, name);
}

/// A raw block device takes bytes and gives them back, also to another pod; it grows while it is used, and is cloned.
pub fn a_block_claim_is_a_device(rack: &Rack) {
    rack.namespace(NAMESPACE, false);
    rack.apply(claim(
        NAMESPACE,
        "raw",
        "256Mi",
        json!({"volumeMode": "Block"}),
    ));
    pod(
        rack,
        Pod::new(NAMESPACE, "raw-1").device("raw", "/dev/raw"),
        "raw-1",
    );
    let sum = rack.exec(
        NAMESPACE,
        "raw-1",
        "head -c 8M /dev/urandom >/tmp/bytes; dd if=/tmp/bytes of=/dev/raw bs=1M oflag=direct seek=100 status=none; sha256sum </tmp/bytes",
    );
    assert_eq!(
        rack.exec(NAMESPACE, "raw-1", "blockdev --getss /dev/raw"),
        "4096"
    );
    rack.delete(NAMESPACE, "pod/raw-1");
    pod(
        rack,
        Pod::new(NAMESPACE, "raw-2").device("raw", "/dev/raw"),
        "raw-2",
    );
    let read = "dd if=/dev/raw bs=1M iflag=direct skip=100 count=8 status=none | sha256sum";
    assert_eq!(rack.exec(NAMESPACE, "raw-2", read), sum);

    let larger = json!({"spec": {"resources": {"requests": {"storage": "512Mi"}}}});
    patch(rack, "raw", &larger);
    wait::until("the device is larger", PATIENCE, || {
        let size = rack.exec(NAMESPACE, "raw-2", "blockdev --getsize64 /dev/raw");
        match size.trim() == (512 << 20).to_string() {
            true => Ok(()),
            false => Err(size),
        }
    })
    .unwrap();
    rack.delete(NAMESPACE, "pod/raw-2");
    let spec = json!({
        "volumeMode": "Block", "dataSource": {"kind": "PersistentVolumeClaim", "name": "raw"},
    });
    rack.apply(claim(NAMESPACE, "raw-clone", "512Mi", spec));
    pod(
        rack,
        Pod::new(NAMESPACE, "raw-3").device("raw-clone", "/dev/raw"),
        "raw-3",
    );
    assert_eq!(rack.exec(NAMESPACE, "raw-3", read), sum);
    rack.delete(NAMESPACE, "pod/raw-3");
    rack.delete(NAMESPACE, "pvc/raw-clone");
}

/// A generic ephemeral volume comes and goes with its pod.
pub fn an_ephemeral_volume_goes_with_its_pod(rack: &Rack) {
    rack.namespace(NAMESPACE, false);
    let spec = claim(NAMESPACE, "", "400Mi", json!({}))["spec"].clone();
    let source = json!({"ephemeral": {"volumeClaimTemplate": {"spec": spec}}});
    pod(
        rack,
        Pod::new(NAMESPACE, "brief").volume("scratch", source, "/scratch"),
        "brief",
    );
    rack.exec(
        NAMESPACE,
        "brief",
        "head -c 10M /dev/urandom >/scratch/x; sync",
    );
    let volume = rack.until(
        &["pvc", "brief-scratch", "-n", NAMESPACE],
        "{.spec.volumeName}",
        |name| !name.is_empty(),
    );
    rack.delete(NAMESPACE, "pod/brief");
    gone(rack, &["pv", &volume]);
    gone(rack, &["pvol", &volume]);
}

/// A claim grows under its pod.
pub fn a_claim_grows_under_its_pod(rack: &Rack) {
    rack.namespace(NAMESPACE, false);
    rack.apply(claim(NAMESPACE, "grows", "400Mi", json!({})));
    pod(
        rack,
        Pod::new(NAMESPACE, "grows").claim("grows", "/data"),
        "grows",
    );
    rack.exec(
        NAMESPACE,
        "grows",
        "head -c 20M /dev/urandom >/data/model; sha256sum /data/model >/data/sum; sync",
    );
    let before = size(rack, "grows");
    let larger = json!({"spec": {"resources": {"requests": {"storage": "700Mi"}}}});
    patch(rack, "grows", &larger);
    rack.until(
        &["pvc", "grows", "-n", NAMESPACE],
        "{.status.capacity.storage}",
        |size| size == "700Mi",
    );
    wait::until("the file system is larger", PATIENCE, || {
        let now = size(rack, "grows");
        if now > before + 200_000 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .unwrap();
    rack.exec(NAMESPACE, "grows", "sha256sum -c /data/sum");
}

/// KiB of the file system that the pod sees.
fn size(rack: &Rack, pod: &str) -> u64 {
    rack.exec(NAMESPACE, pod, "df --output=size /data | tail -n1")
        .trim()
        .parse()
        .unwrap()
}

/// Takes a snapshot of a claim, and waits until it is ready.
pub fn snapshot(rack: &Rack, namespace: &str, name: &str, of: &str) {
    rack.apply(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"volumeSnapshotClassName": "strand", "source": {"persistentVolumeClaimName": of}},
    }));
    let taken = ["volumesnapshot", name, "-n", namespace];
    rack.until(&taken, "{.status.readyToUse}", |ready| ready == "true");
}

/// What a claim has that is made of a snapshot.
pub fn restored_from(snapshot: &str) -> Value {
    json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot}})
}

/// A snapshot is of its moment; a claim made of it has those bytes.
pub fn a_snapshot_and_what_is_made_of_it(rack: &Rack) {
    snapshot(rack, NAMESPACE, "before", "grows");
    rack.exec(NAMESPACE, "grows", "echo changed >/data/model; sync");
    rack.apply(claim(
        NAMESPACE,
        "restored",
        "700Mi",
        restored_from("before"),
    ));
    pod(
        rack,
        Pod::new(NAMESPACE, "restored").claim("restored", "/data"),
        "restored",
    );
    rack.exec(NAMESPACE, "restored", "sha256sum -c /data/sum");
    let clone = json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "restored"}});
    rack.apply(claim(NAMESPACE, "clone", "700Mi", clone));
    pod(
        rack,
        Pod::new(NAMESPACE, "clone").claim("clone", "/data"),
        "clone",
    );
    rack.exec(NAMESPACE, "clone", "sha256sum -c /data/sum");
    assert_eq!(rack.exec(NAMESPACE, "grows", "cat /data/model"), "changed");
    bound(rack, "clone");
    rack.delete(NAMESPACE, "volumesnapshot/before");
    rack.until(
        &["volumesnapshotcontents"],
        "{.items[*].metadata.name}",
        str::is_empty,
    );
    for name in ["clone", "restored"] {
        rack.delete(NAMESPACE, &format!("pod/{name}"));
        rack.delete(NAMESPACE, &format!("pvc/{name}"));
    }
}

/// Snapshots of several volumes that are all of one moment come, and go, as one.
pub fn a_group_of_snapshots_comes_and_goes_as_one(rack: &Rack) {
    rack.namespace(NAMESPACE, false);
    let names = ["weights", "state"];
    for name in names {
        let mut claim = claim(NAMESPACE, name, "400Mi", json!({}));
        claim["metadata"]["labels"] = json!({"of": "group"});
        rack.apply(claim);
    }
    let writes = Pod::new(NAMESPACE, "group")
        .on("node-1")
        .claim("weights", "/weights")
        .claim("state", "/state");
    pod(rack, writes, "group");
    rack.exec(
        NAMESPACE,
        "group",
        "echo here | tee /weights/bytes >/state/bytes; sync",
    );
    rack.delete(NAMESPACE, "pod/group");
    for name in names {
        detached(rack, &volume(rack, name));
    }
    rack.apply(json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshotClass",
        "metadata": {"name": "strand"}, "driver": "csi.strand.dev", "deletionPolicy": "Delete",
    }));
    rack.apply(json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot",
        "metadata": {"namespace": NAMESPACE, "name": "all"},
        "spec": {"volumeGroupSnapshotClassName": "strand", "source": {"selector": {"matchLabels": {"of": "group"}}}},
    }));
    rack.until(
        &["volumegroupsnapshot", "all", "-n", NAMESPACE],
        "{.status.readyToUse}",
        |ready| ready == "true",
    );
    let groups = rack.kubectl(&["get", "psnap", "-o", "jsonpath={.items[*].spec.group.name}"]);
    let groups: Vec<&str> = groups.split_whitespace().collect();
    assert!(groups.len() == 2 && groups[0] == groups[1], "{groups:?}");

    rack.delete(NAMESPACE, "volumegroupsnapshot/all");
    for kind in [
        "psnap",
        "volumegroupsnapshotcontents",
        "volumesnapshotcontents",
    ] {
        gone(rack, &[kind]);
    }
    rack.kubectl(&["delete", "volumegroupsnapshotclass", "strand"]);
    for name in names {
        rack.delete(NAMESPACE, &format!("pvc/{name}"));
    }
}

/// The volume of a claim.
fn volume(rack: &Rack, claim: &str) -> String {
    rack.until(
        &["pvc", claim, "-n", NAMESPACE],
        "{.spec.volumeName}",
        |name| !name.is_empty(),
    )
}

/// A VolumeAttributesClass limits a volume that a pod uses, at once.
pub fn an_attributes_class_limits_a_volume_in_use(rack: &Rack) {
    rack.apply(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "slow"},
        "driverName": "csi.strand.dev", "parameters": {"bandwidth": "2Mi"},
    }));
    patch(
        rack,
        "grows",
        &json!({"spec": {"volumeAttributesClassName": "slow"}}),
    );
    rack.until(
        &["pvc", "grows", "-n", NAMESPACE],
        "{.status.currentVolumeAttributesClassName}",
        |class| class == "slow",
    );
    wait::until("writing is slowed down", PATIENCE, || {
        let write = "dd if=/dev/zero of=/data/slow bs=1M count=8 oflag=direct 2>&1 | tail -n1";
        let begun = std::time::Instant::now();
        let said = rack.exec(NAMESPACE, "grows", write);
        if begun.elapsed().as_secs() >= 3 {
            Ok(())
        } else {
            Err(said)
        }
    })
    .unwrap();
    rack.delete(NAMESPACE, "pod/grows");
    for name in ["grows", "raw"] {
        rack.delete(NAMESPACE, &format!("pvc/{name}"));
    }
    rack.kubectl(&["delete", "volumeattributesclass", "slow"]);
}

fn patch(rack: &Rack, name: &str, patch: &Value) {
    rack.kubectl(&[
        "patch",
        "pvc",
        name,
        "-n",
        NAMESPACE,
        "--type=merge",
        "-p",
        &patch.to_string(),
    ]);
}

/// The classes that may be asked for beside the bed's: the chart's other one, and an administrator's own with ext4; and scratch space,
/// which is the pod's alone.
pub fn classes_and_scratch_space(rack: &Rack) {
    rack.namespace(NAMESPACE, false);
    rack.apply(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "own"},
        "provisioner": "csi.strand.dev", "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {"locality": "node", "csi.storage.k8s.io/fstype": "ext4"},
    }));
    for class in ["strand", "own"] {
        let spec = json!({"storageClassName": class});
        rack.apply(claim(NAMESPACE, class, "400Mi", spec));
    }
    let scratch = json!({"csi": {
        "driver": "csi.strand.dev", "volumeAttributes": {"kind": "scratch", "pool": "rack", "size": "300Mi"},
    }});
    let places = "/strand /own /scratch";
    let found: Vec<String> = ["first", "second"]
        .into_iter()
        .map(|name| {
            let uses = Pod::new(NAMESPACE, name)
                .on("node-1")
                .claim("strand", "/strand")
                .claim("own", "/own")
                .volume("scratch", scratch.clone(), "/scratch");
            pod(rack, uses, name);
            let systems = format!("for d in {places}; do stat -f -c %T $d; done");
            let systems = rack.exec(NAMESPACE, name, &systems);
            assert_eq!(systems, "xfs\next2/ext3\nxfs");
            let line = format!(
                "ls /strand /own /scratch; for d in {places}; do echo here >$d/bytes; done; sync"
            );
            let found = rack.exec(NAMESPACE, name, &line);
            rack.delete(NAMESPACE, &format!("pod/{name}"));
            found.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(found[0], "/own: lost+found /scratch: /strand:");
    assert_eq!(found[1], "/own: bytes lost+found /scratch: /strand: bytes");
    for class in ["strand", "own"] {
        rack.delete(NAMESPACE, &format!("pvc/{class}"));
    }
    rack.kubectl(&["delete", "storageclass", "own"]);
}

/// Waits until a volume is attached nowhere.
pub fn detached(rack: &Rack, volume: &str) {
    let path = "{.items[*].spec.source.persistentVolumeName}";
    rack.until(&["volumeattachment"], path, |all| !all.contains(volume));
}

/// Waits until an object is not there.
pub fn gone(rack: &Rack, object: &[&str]) {
    let mut args = vec!["get", "-o", "name", "--ignore-not-found"];
    args.extend(object);
    wait::until(
        &format!("{} is gone", object.join(" ")),
        PATIENCE,
        || match rack.cluster.ask(&args) {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => Err(found),
            Err(words) => Err(words),
        },
    )
    .unwrap();
}
