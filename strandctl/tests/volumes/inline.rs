//! What a pod has inline, driver and agent as the processes that they are: a door to context memory, and scratch space. Both are there
//! through kills, and go with the pod when the agent does not answer.

use crate::bytes;
use crate::calls::{Calls, Kind};
use crate::rack::{Rack, entries, until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strand_csi::v1::volume_capability::{AccessType, MountVolume};
use strand_csi::v1::*;
use strand_kv_client::{Client, Options, Put, PutOptions};

const BYTES: usize = 8 << 20;
/// A pod's end must not wait for the agent: calls to that are given up after 30 s.
const AT_ONCE: Duration = Duration::from_secs(15);

/// An inline volume of the pod.
struct Inline {
    id: &'static str,
    target: PathBuf,
    attributes: &'static [(&'static str, &'static str)],
}

impl Inline {
    /// As the kubelet asks, for a CSIDriver with podInfoOnMount.
    fn request(&self) -> NodePublishVolumeRequest {
        let pod = [
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", "pod"),
            ("csi.storage.k8s.io/pod.namespace", "default"),
            (
                "csi.storage.k8s.io/pod.uid",
                "0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11",
            ),
            ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ];
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let context: HashMap<_, _> = pod.iter().chain(self.attributes).map(owned).collect();
        let mut capability = Kind::Xfs.capability();
        capability.access_type = Some(AccessType::Mount(MountVolume::default()));
        NodePublishVolumeRequest {
            volume_id: self.id.into(),
            target_path: self.target.to_str().unwrap().into(),
            volume_capability: Some(capability),
            volume_context: context,
            ..NodePublishVolumeRequest::default()
        }
    }

    async fn publish(&self, calls: &Calls) {
        until("it is published", async || {
            let published = calls.on_node().node_publish_volume(self.request()).await;
            published.is_ok()
        })
        .await;
    }

    async fn unpublish(&self, calls: &Calls) {
        let request = NodeUnpublishVolumeRequest {
            volume_id: self.id.into(),
            target_path: self.target.to_str().unwrap().into(),
        };
        let start = Instant::now();
        let done = calls.on_node().node_unpublish_volume(request).await;
        done.unwrap();
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(!self.target.exists());
    }
}

/// Sends the node's agent a signal.
fn signal(rack: &Rack, signal: Signal) {
    let pid = rack.node().pid.cast_signed();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The pod reads what it has written to context memory.
async fn has_its_block(client: &Client) {
    until("the block is read", async || {
        match client.get(b"key").await {
            Ok(Some(block)) => block.as_ref() == b"value",
            _ => false,
        }
    })
    .await;
}

/// Legs on the node's drives, and what is kept of doors.
fn kept(rack: &Rack) -> Vec<PathBuf> {
    let node = rack.path("nodes/node-1");
    let sides = entries(&node.join("volumes"));
    let legs = sides.iter().flat_map(|side| entries(&side.join("legs")));
    let doors = ["doors", "state/doors"].map(|place| entries(&node.join(place)));
    legs.chain(doors.into_iter().flatten()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_has_its_door_and_its_space_until_it_ends_with_or_without_an_agent() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "6Gi"]);
    rack.storage_is_told().await;
    let calls = Calls::to(&rack);
    let room = calls.room().await;
    let door = Inline {
        id: "csi-0a5d1de62b0c4c2d9d2e5a1d3f0b7c11",
        target: rack.beside("door"),
        attributes: &[("kind", "kv"), ("pool", "default")],
    };
    let scratch = Inline {
        id: "csi-1a5d1de62b0c4c2d9d2e5a1d3f0b7c11",
        target: rack.beside("scratch"),
        attributes: &[("kind", "scratch"), ("pool", "default"), ("size", "512Mi")],
    };
    door.publish(&calls).await;
    scratch.publish(&calls).await;
    until("the space is taken", async || {
        calls.room().await <= room - (512 << 20)
    })
    .await;
    let client = Client::new(Options::new(door.target.join("door.sock")));
    until("the block is written", async || {
        let put = client.put(b"key", b"value", PutOptions::default()).await;
        put.is_ok_and(|put| put == Put::Stored)
    })
    .await;
    has_its_block(&client).await;
    let file = scratch.target.join("file");
    bytes::write(&file, 1, BYTES).unwrap();
    let denied = std::fs::write(door.target.join("x"), "x").unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    // Both outlive agent and driver, and are published again as they are.
    rack.kill(rack.node().pid).await;
    bytes::check(&file, 1, BYTES);
    bytes::write(&file, 2, BYTES).unwrap();
    has_its_block(&client).await;
    rack.kill(rack.node().csi_pid).await;
    for inline in [&door, &scratch] {
        inline.publish(&calls).await;
    }
    bytes::check(&file, 2, BYTES);
    has_its_block(&client).await;

    // An agent that hangs answers nobody; neither does one that has just been killed. The driver that has to tell them is killed too.
    drop(client);
    signal(&rack, Signal::STOP);
    for inline in [&door, &scratch] {
        inline.unpublish(&calls).await;
    }
    assert!(kept(&rack).len() > 2, "{:?}", kept(&rack));
    rack.kill(rack.node().csi_pid).await;
    signal(&rack, Signal::CONT);
    all_is_given_back(&rack, &calls, room).await;

    for inline in [&door, &scratch] {
        inline.publish(&calls).await;
    }
    assert_eq!(
        entries(&scratch.target),
        Vec::<PathBuf>::new(),
        "it begins empty"
    );
    signal(&rack, Signal::KILL);
    for inline in [&door, &scratch] {
        inline.unpublish(&calls).await;
    }
    all_is_given_back(&rack, &calls, room).await;
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

async fn all_is_given_back(rack: &Rack, calls: &Calls, room: i64) {
    until("nothing is kept of the pod", async || kept(rack).is_empty()).await;
    until("all space is back", async || calls.room().await == room).await;
    let of_pod = |mount: &String| !Path::new(mount).starts_with(rack.path("nodes"));
    assert!(!rack.mounts().iter().any(of_pod), "{:?}", rack.mounts());
}
